/* publish.h - a PUBLISH as the services take it, and what they share in dealing with it. Broker thread. */
#ifndef CHAT_PLUGIN_PUBLISH_H
#define CHAT_PLUGIN_PUBLISH_H

#include "chat.h"
#include "envelope.h"
#include "topic.h"

enum publish_verdict {
	PUBLISH_FOREIGN, /* not under chat/ */
	PUBLISH_ACCEPTED,
	PUBLISH_REFUSED,  /* MQTT 5: a failing PUBACK; 3.1.1: a PUBACK and the error */
	PUBLISH_TRANSIENT /* MQTT 5: a failing PUBACK; 3.1.1: no PUBACK, the connection is closed, the client keeps the message */
};

struct publish {
	const void *client;
	struct topic topic;
	const char *payload;
	size_t length;
	int qos;
	const char *response_topic; /* NULL: none */
	const void *correlation;    /* NULL: none */
	uint16_t correlation_length;
};

/* Answers on the client's response topic; the verdict is the code's. */
enum publish_verdict publish_refuse(struct chat *chat, const struct session *session, const struct publish *publish,
	const struct answer_subject *subject, const struct error_detail *error);
/* Whether the response topic is absent or the session's own; *error says so where it is not. */
__attribute__((warn_unused_result)) bool publish_check_response_topic(
	const struct session *session, const struct publish *publish, struct error_detail *error);

/* While the spool is full: when a client should try again. The lanes empty it in this order of time. */
#define PUBLISH_RETRY_MS 1000

/* Appends a message to the spool. `flags`: RECORD_FLAG_ANSWER, RECORD_FLAG_REQUEST; the correlation comes back with the answer.
 * False: full. */
__attribute__((warn_unused_result)) bool publish_append_message(struct chat *chat, const struct session *session,
	int64_t conversation_id, const struct envelope *envelope, uint8_t flags, const void *correlation,
	size_t correlation_length);

#endif
