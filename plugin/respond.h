/* respond.h - hands an answer from a thread to the connection that asked. Broker thread. */
#ifndef CHAT_PLUGIN_RESPOND_H
#define CHAT_PLUGIN_RESPOND_H

#include "chat.h"

/* A DELIVERY_ANSWER item; it is done with afterwards. */
void respond(struct chat *chat, struct delivery_item *item);

#endif
