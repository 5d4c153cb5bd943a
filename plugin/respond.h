/* respond.h - hands an answer from a thread to the connection that asked. Broker thread.
 *
 * What is answered can be used. The answer to a request that has changed members or a conversation (DELIVERY_CHANGED) is held
 * back until the change is known here, a second at most; and so are the user's answers behind it, to keep their order.
 */
#ifndef CHAT_PLUGIN_RESPOND_H
#define CHAT_PLUGIN_RESPOND_H

#include "chat.h"

/* A DELIVERY_ANSWER item, which is given up. */
void respond(struct chat *chat, struct delivery_item *item);
/* LOAD_SETTLED. */
void respond_settled(struct chat *chat, int64_t number);
/* LOAD_UP, LOAD_DOWN: nothing more is to be waited for. */
void respond_to_all(struct chat *chat);
/* At a tick: none is held for too long. */
void respond_tick(struct chat *chat);
/* At the end: what is held is dropped. */
void respond_free(struct chat *chat);

#endif
