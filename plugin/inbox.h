/* inbox.h - what is published to chat/user/{user}/inbox, for all of a user's devices. Broker thread.
 *
 * Most of it comes from the database, where triggers write it down (docs/schema.md, "Inbox"); what concerns single messages would
 * cost too much there and is made here from what the lanes hand over.
 *
 * A mention is for members, as of the commit that stored it: where the membership that we hold is older than that, it waits
 * until it has been read again. The inbox of who was removed a moment before says nothing of the message, and neither does that
 * of who has become a member since.
 */
#ifndef CHAT_PLUGIN_INBOX_H
#define CHAT_PLUGIN_INBOX_H

#include "chat.h"

/* To the user's sessions here; nothing where there are none. */
void inbox_publish(struct chat *chat, int64_t user_id, const char *json, size_t length);
/* An event is announced: it is read where its user is here. */
void inbox_announced(struct chat *chat, int64_t user_id, int64_t event_id);
/* It has been read: it is published, once. */
void inbox_event(struct chat *chat, const struct load_result *event);
/* Announcements arrive (again): what was not heard meanwhile is asked for, and has come. */
void inbox_resume(struct chat *chat);
void inbox_missed(struct chat *chat, const struct load_result *missed);
/* A committed message: those whom it mentions, where they are members. */
void inbox_mentions(struct chat *chat, const struct delivery_item *item);
/* Memberships have been read: tells or drops the mentions that waited for them. */
void inbox_settle(struct chat *chat);
/* A watermark has risen: the user's other devices. */
void inbox_read(struct chat *chat, const struct delivery_item *item);

#endif
