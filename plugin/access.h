/* access.h - the service behind the broker's access checks. Broker thread. */
#ifndef CHAT_PLUGIN_ACCESS_H
#define CHAT_PLUGIN_ACCESS_H

#include "chat.h"

enum access_verdict { ACCESS_ALLOWED, ACCESS_DENIED, ACCESS_DEFERRED /* not under chat/: the next plugin's business */ };

/* For every delivery: memory only, two look-ups. The payload matters where one topic carries two forms (receipt.h). */
enum access_verdict access_read(struct chat *chat, const void *client, const char *topic, const void *payload, size_t length);
enum access_verdict access_subscribe(struct chat *chat, const void *client, const char *filter);
enum access_verdict access_unsubscribe(struct chat *chat, const void *client, const char *filter);
/* A PUBLISH, before it is looked into, or a will. What is refused here is also answered on the response topic; what
 * goes on is decided in ingest.c, which a will never reaches. */
enum access_verdict access_publish(struct chat *chat, const void *client, const char *topic, bool retain);

#endif
