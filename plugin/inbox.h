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
/* A committed message: those whom it mentions, where they are members. */
void inbox_mentions(struct chat *chat, const struct delivery_item *item);
/* Memberships have been read: tells or drops the mentions that waited for them. */
void inbox_settle(struct chat *chat);
/* A watermark has risen: the user's other devices. */
void inbox_read(struct chat *chat, const struct delivery_item *item);

#endif
