/* presence.h - who is there: from sessions to what watchers are told. Broker thread.
 *
 * A *person* is a user who is connected here, was a moment ago, or is watched by a session here. When their sessions or what
 * their devices say have changed, the person is looked at again at the next tick (presence_rules.h decides), and what is to be
 * told goes to the database by presence_store, and on chat/user/{user}/presence if any watcher may know: for everybody else
 * nothing is done.
 *
 * A *watch* is one session's subscription to one user. SUBSCRIBE is always granted; the store is asked behind it whether the
 * session's user may know, and then the present state is sent on chat/response/{client id}. Until that is known, and again
 * from the moment that anything concerning the two is announced, the watch is closed and READ is denied.
 *
 *   WANTED --asked--> ASKED --may--> OPEN        OPEN, SILENT --announcement, database lost--> WANTED
 *                        \-may not-> SILENT
 */
#ifndef CHAT_PLUGIN_PRESENCE_H
#define CHAT_PLUGIN_PRESENCE_H

#include "chat.h"

struct presence;

/* Learns of sessions that end from the registry. NULL: no memory. */
struct presence *presence_new(struct registry *registry);
/* Before the registry. NULL is fine. */
void presence_free(struct presence *presence, struct registry *registry);
void presence_tick(struct chat *chat);

/* A session has its rights from now on. */
void presence_session_live(struct chat *chat, struct session *session);

/* A granted SUBSCRIBE. False: no memory, or more than one connection may watch. */
#define PRESENCE_WATCHES_MAX 2000
__attribute__((warn_unused_result)) bool presence_watch(struct chat *chat, struct session *session, int64_t user_id);
void presence_unwatch(struct chat *chat, struct session *session, int64_t user_id);
/* For every delivery. */
bool presence_may_read(const struct chat *chat, const struct session *session, int64_t user_id);

/* ---- announcements */

/* The user's devices have said something of themselves. */
void presence_said(struct chat *chat, int64_t user_id);
/* Who may see the user, and whom the user may see, has changed, perhaps. */
void presence_reconsider(struct chat *chat, int64_t user_id);
/* The same: who may see the user; where another is named (not 0), only what the two may see of each other. */
void presence_reconsider_sight(struct chat *chat, int64_t user_id, int64_t other_id);
/* Announcements do not arrive any more: nothing is told. They do again: all is asked anew. */
void presence_silence(struct chat *chat);
void presence_resume(struct chat *chat);

/* Any time: how often something was told, to whomever. */
uint64_t presence_told_count(const struct presence *presence);

#endif
