/* ingest.h - the service behind PUBLISH to a conversation's verbs: what comes in is checked, and goes into the spool.
 * Broker thread.
 *
 * What returns PUBLISH_ACCEPTED is in the spool (or was no business of the spool), and the broker sends PUBACK.
 * Every refusal is also told on the client's response topic.
 */
#ifndef CHAT_PLUGIN_INGEST_H
#define CHAT_PLUGIN_INGEST_H

#include "publish.h"

enum publish_verdict ingest_message(struct chat *chat, const struct publish *publish);

#endif
