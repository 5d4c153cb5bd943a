/* client.h - MQTT clients on libmosquitto, all driven from the test's one thread.
 *
 * Nothing happens behind the test's back: sockets are served only inside the waiting functions below, for all clients
 * at once, so a test is deterministic up to the broker. Every wait has a deadline (30 s where none is named) and fails
 * the test at its end. Nothing is sent again and nothing reconnects by itself.
 */
#ifndef CHAT_TESTS_CLIENT_H
#define CHAT_TESTS_CLIENT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOSED (-1) /* in place of a reason code: the connection ended instead */

struct client;

struct client_options {
	int port;
	bool websocket; /* port is then the WebSocket listener's */
	int version;    /* 4 (the default) or 5 */
	const char *id; /* NULL: clean session and "auto-" with random digits; "": the broker assigns one (version 5) */
	bool keep_session;
	int keepalive_s; /* 0: 60; negative: a real 0 */
	const char *user;
	const char *password;
	const char *will_topic; /* NULL: no will */
	const char *will_payload;
	bool will_retain;
	uint32_t session_expiry_s; /* version 5 */
};

struct message {
	char *topic;
	char *payload; /* NUL-terminated as well */
	size_t length;
	int qos;
	bool retain;
	int64_t received_ns;
	/* MQTT 5 properties; NULL or "" where absent. */
	char *content_type, *property_seq, *property_from;
	void *correlation;
	uint16_t correlation_length;
	struct message *next;
};

/* What came back for a publish. */
struct answer {
	int reason; /* PUBACK's, or CLOSED; 0 for QoS 0 */
};

/* Connects and waits for CONNACK or the end of the connection. */
struct client *client_try(const struct client_options *options);
/* CONNACK's reason (version 4: its return code), or CLOSED where the connection ended without one. */
int client_connack(const struct client *client);
bool client_session_present(const struct client *client);
const char *client_id(const struct client *client); /* the assigned one included */
bool client_is_connected(const struct client *client);
/* The reason in the server's DISCONNECT (version 5), 0 where there was none; -1 while connected. */
int client_disconnect_reason(const struct client *client);
void client_wait_closed(struct client *client);
/* DISCONNECT, or as if the cable was cut (which sends the will). Both also free the client. */
void client_close(struct client *client);
void client_cut(struct client *client);
void clients_close_all(void);

/* QoS 1. Each filter's SUBACK code, or CLOSED. */
int client_subscribe(struct client *client, const char *filter);
void client_subscribe_many(struct client *client, const char *const filters[], int count, int *codes);
int client_unsubscribe(struct client *client, const char *filter);

/* Sends and waits for PUBACK. */
int client_publish(struct client *client, const char *topic, const char *payload, int qos);
int client_publish_bytes(struct client *client, const char *topic, const void *payload, size_t length, int qos, bool retain);
/* Version 5, with response topic and correlation data. */
int client_request(
	struct client *client, const char *topic, const char *payload, const char *response_topic, const char *correlation);
/* Sends and does not wait; client_settle() waits until every QoS 1 publish is answered or the connection is gone. */
void client_send(struct client *client, const char *topic, const char *payload);
void client_settle(struct client *client);
int client_unanswered(const struct client *client);

/* The next message on the topic, waited for; free it with message_free. */
struct message *client_receive(struct client *client, const char *topic);
/* The same, where it is there already or comes by the deadline; NULL otherwise. */
struct message *client_receive_by(struct client *client, const char *topic, int64_t deadline_ms);
void message_free(struct message *message);
int client_waiting(const struct client *client, const char *topic); /* received and not taken; topic NULL: all */
/* A round trip through the broker: whatever it had queued for this client before has arrived after it. */
void client_fence(struct client *client);

/* Serves all clients for at most timeout_ms, or until something arrived. */
void clients_turn(int timeout_ms);

/* Members of a JSON payload; the test fails where it is not JSON or the member is missing. */
int64_t message_integer(const struct message *message, const char *member);
/* Valid until the next call. */
const char *message_string(const struct message *message, const char *member);
/* The code inside "error". */
const char *message_error(const struct message *message);
bool message_has(const struct message *message, const char *member);

#endif
