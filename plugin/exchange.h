/* exchange.h - the service behind MQTT 5's enhanced authentication: SCRAM-SHA-256 (scram.h). Broker thread.
 *
 * The broker wants each answer at once. So verifiers come from a cache; a name that is not there, whether anybody has it or
 * not, is loaded, the connection is closed without an answer, and the client's next attempt finds it.
 */
#ifndef CHAT_PLUGIN_EXCHANGE_H
#define CHAT_PLUGIN_EXCHANGE_H

#include "chat.h"

enum exchange_verdict {
	EXCHANGE_DEFERRED,   /* another plugin's method or client */
	EXCHANGE_CONTINUE,   /* send `out` */
	EXCHANGE_DONE,       /* the client knows the password: send `out` with CONNACK, if CONNECT's other checks allow it */
	EXCHANGE_REFUSED,    /* CONNACK 0x87 */
	EXCHANGE_CLOSED,     /* come again */
	EXCHANGE_NOT_OFFERED /* CONNACK 0x8c */
};

struct exchange_reply {
	struct buffer out;
	int64_t user_id; /* DONE */
};

struct exchanges;
struct exchanges *exchanges_new(void);
void exchanges_free(struct exchanges *exchanges);

/* What came with the client's first message. */
struct exchange_request {
	const void *client;
	const char *address; /* may be NULL */
	int keepalive_s;
	const char *method;
	const void *data; /* may be NULL */
	size_t length;
};

/* CONNECT with an authentication method, or an attempt to authenticate again. Counts as a failed attempt of its address until it
 * has succeeded. The reply's buffer is the caller's to free. */
enum exchange_verdict exchange_start(struct chat *chat, const struct exchange_request *request, struct exchange_reply *reply);
/* AUTH. */
enum exchange_verdict exchange_continue(
	struct chat *chat, const void *client, const void *data, size_t length, struct exchange_reply *reply);
/* For every connection that ends. */
void exchange_disconnect(struct chat *chat, const void *client);

#endif
