/* ingest.h - the service behind PUBLISH: a verb comes in, is checked, and goes into the spool. Broker thread.
 *
 * What returns INGEST_ACCEPTED is in the spool (or was no business of the spool), and the broker sends PUBACK.
 * Every refusal is also told on the client's response topic.
 */
#ifndef CHAT_PLUGIN_INGEST_H
#define CHAT_PLUGIN_INGEST_H

#include "chat.h"

enum ingest_verdict {
	INGEST_FOREIGN, /* not under chat/ */
	INGEST_ACCEPTED,
	INGEST_REFUSED,  /* MQTT 5: a failing PUBACK; 3.1.1: a PUBACK and the error */
	INGEST_TRANSIENT /* MQTT 5: a failing PUBACK; 3.1.1: no PUBACK, the connection is closed, the client keeps the message */
};

struct ingest_publish {
	const void *client;
	const char *topic;
	const char *payload;
	size_t length;
	int qos;
	const char *response_topic; /* NULL: none */
	const void *correlation;    /* NULL: none */
	uint16_t correlation_length;
};

enum ingest_verdict ingest_message(struct chat *chat, const struct ingest_publish *publish);

#endif
