/* connection.h - one MQTT 5 connection to the broker: publishes, subscriptions, and requests that are waited for.
 *
 * One thread; nothing happens outside these functions. While a function waits for its answer, everything else that arrives
 * is put into a queue, and connection_take hands it out in order: so whoever handles a message may ask the server something
 * in the middle of it. What leaves the queue's bound is dropped and counts as lost: connection_lost() says so, and message.sync
 * brings it back.
 *
 * Every wait ends by a deadline, with the connection, or once *stop is set. A connection that has ended stays so until
 * connection_open.
 */
#ifndef CHAT_CLI_CONNECTION_H
#define CHAT_CLI_CONNECTION_H

#include <cjson/cJSON.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct connection;

enum connection_result {
	CONNECTION_OPEN,
	CONNECTION_REFUSED,     /* the server does not take these credentials */
	CONNECTION_UNREACHABLE, /* no answer, or not now: try again later */
};

/* One that came: a JSON object and its topic. */
struct arrival {
	struct arrival *next;
	cJSON *payload;
	char topic[];
};

/* What a request was answered with. */
struct answer {
	cJSON *result; /* NULL: an error */
	char code[32]; /* of the contract, or "disconnected", "timeout" */
	char message[256];
	int64_t retry_after_ms; /* 0: not said */
};

/* ca_file NULL: without TLS. NULL where there is no memory or the file is not good. */
struct connection *connection_new(const char *host, int port, const char *ca_file, const volatile sig_atomic_t *stop);
void connection_free(struct connection *connection);

/* Connects and subscribes to the answers. token NULL: as a guest. */
enum connection_result connection_open(struct connection *connection, const char *client_id, const char *token);
void connection_close(struct connection *connection);
bool connection_is_open(const struct connection *connection);
/* Whether the server itself ended the connection and meant it: the device was signed out, the account suspended. */
bool connection_was_dismissed(const struct connection *connection);
/* The last error in words. */
const char *connection_error(const struct connection *connection);

/* Waits for SUBACK; false where the connection ended. *refused: whether the server said no to any. */
bool connection_subscribe(struct connection *connection, char *const filters[], int count, bool *refused);
/* Takes `params`. Free the answer with answer_free. */
struct answer connection_request(struct connection *connection, const char *method, cJSON *params);
void answer_free(struct answer *answer);
/* Not waited for. */
void connection_publish(struct connection *connection, const char *topic, const char *payload, int qos);

/* Serves the connection until `fd` can be read (true), or something arrived, a signal came or the time is
 * over (false). fd -1: none. */
bool connection_wait(struct connection *connection, int fd, int timeout_ms);
/* The oldest that arrived and was not taken; NULL: none. Free it with arrival_free. */
struct arrival *connection_take(struct connection *connection);
void arrival_free(struct arrival *arrival);
/* Whether something was dropped since the last call. */
bool connection_lost(struct connection *connection);

#endif
