/* client.c - see client.h. One thread; all clients hang on one list so that any wait serves all of them. */
#include "client.h"
#include "check.h"
#include "process.h"
#include "relay.h"

#include <errno.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WAIT_MS = 30000, CLIENTS_MAX = 512, MIDS = 65536, FILTERS_MAX = 64, PACKETS_PER_TURN = 200 };

/* acks[mid]: 0 nothing was sent, 1 not answered, otherwise the reason plus this. */
enum { ACK_NONE, ACK_PENDING, ACK_BASE };

struct client {
	struct client *next;
	struct mosquitto *mosq;
	struct relay *relay; /* NULL: TCP */
	int version;
	char id[128];
	bool answered, connected, session_present;
	int connack;
	int disconnect_reason;
	int subscribe_mid, unsubscribe_mid; /* 0: none under way */
	int granted[FILTERS_MAX];
	int unanswered;
	char newest[256]; /* the beginning of the last payload, for whoever reads why a test failed */
	struct message *first, **last;
	uint16_t acks[MIDS];
};

static struct client *clients;
static bool library_ready;

/* ---------------------------------------------------------------------------------------------- callbacks */

static void on_connect(struct mosquitto *mosq, void *owner, int reason, int flags, const mosquitto_property *properties)
{
	struct client *client = owner;
	char *assigned = NULL;
	(void)mosq;
	client->answered = true;
	client->connack = reason;
	client->connected = reason == 0;
	client->session_present = flags & 1;
	if (mosquitto_property_read_string(properties, MQTT_PROP_ASSIGNED_CLIENT_IDENTIFIER, &assigned, false)) {
		snprintf(client->id, sizeof client->id, "%s", assigned);
		free(assigned);
	}
}

static void on_disconnect(struct mosquitto *mosq, void *owner, int reason, const mosquitto_property *properties)
{
	struct client *client = owner;
	(void)mosq;
	(void)properties;
	client->connected = false;
	client->disconnect_reason = reason >= 0x80 ? reason : 0;
}

static void on_subscribe(
	struct mosquitto *mosq, void *owner, int mid, int count, const int *codes, const mosquitto_property *properties)
{
	struct client *client = owner;
	(void)mosq;
	(void)properties;
	if (mid != client->subscribe_mid)
		return;
	client->subscribe_mid = 0;
	for (int i = 0; i < count && i < FILTERS_MAX; i++)
		client->granted[i] = codes[i];
}

static void on_unsubscribe(struct mosquitto *mosq, void *owner, int mid, const mosquitto_property *properties)
{
	struct client *client = owner;
	(void)mosq;
	(void)properties;
	if (mid == client->unsubscribe_mid)
		client->unsubscribe_mid = 0;
}

static void on_publish(struct mosquitto *mosq, void *owner, int mid, int reason, const mosquitto_property *properties)
{
	struct client *client = owner;
	(void)mosq;
	(void)properties;
	if (client->acks[mid] == ACK_PENDING)
		client->unanswered--;
	client->acks[mid] = (uint16_t)(reason + ACK_BASE);
}

static void read_user_properties(struct message *message, const mosquitto_property *properties)
{
	char *name = NULL, *value = NULL;
	const mosquitto_property *at =
		mosquitto_property_read_string_pair(properties, MQTT_PROP_USER_PROPERTY, &name, &value, false);
	while (at) {
		char **field = !strcmp(name, "seq")    ? &message->property_seq
			       : !strcmp(name, "from") ? &message->property_from
						       : NULL;
		if (field && !*field)
			*field = value;
		else
			free(value);
		free(name);
		name = value = NULL;
		at = mosquitto_property_read_string_pair(at, MQTT_PROP_USER_PROPERTY, &name, &value, true);
	}
}

static void on_message(
	struct mosquitto *mosq, void *owner, const struct mosquitto_message *received, const mosquitto_property *properties)
{
	struct client *client = owner;
	struct message *message = calloc(1, sizeof *message);
	(void)mosq;
	check(message != NULL);
	message->topic = strdup(received->topic);
	message->length = (size_t)received->payloadlen;
	message->payload = calloc(1, message->length + 1);
	check(message->topic && message->payload);
	if (message->length)
		memcpy(message->payload, received->payload, message->length);
	snprintf(client->newest, sizeof client->newest, "%s", message->payload);
	message->qos = received->qos;
	message->retain = received->retain;
	message->received_ns = now_ns();
	mosquitto_property_read_string(properties, MQTT_PROP_CONTENT_TYPE, &message->content_type, false);
	mosquitto_property_read_binary(
		properties, MQTT_PROP_CORRELATION_DATA, &message->correlation, &message->correlation_length, false);
	read_user_properties(message, properties);
	*client->last = message;
	client->last = &message->next;
}

/* -------------------------------------------------------------------------------------------- serving all */

static bool can_read(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	return fd >= 0 && poll(&ready, 1, 0) == 1;
}

static void serve(struct client *client, short ready)
{
	/* The library reads one packet at a time where it has nothing to send: too slow a listener for a fast sender. */
	for (int packets = 0;
		ready & (POLLIN | POLLHUP | POLLERR) && packets < PACKETS_PER_TURN && can_read(mosquitto_socket(client->mosq));
		packets++)
		mosquitto_loop_read(client->mosq, 1);
	if (mosquitto_socket(client->mosq) >= 0 && mosquitto_want_write(client->mosq))
		mosquitto_loop_write(client->mosq, 1);
	if (mosquitto_socket(client->mosq) >= 0)
		mosquitto_loop_misc(client->mosq);
	/* The library reports some ends by its return code alone. */
	if (mosquitto_socket(client->mosq) < 0)
		client->connected = false;
}

void clients_turn(int timeout_ms)
{
	struct pollfd fds[CLIENTS_MAX * 3];
	nfds_t count = 0;
	for (struct client *client = clients; client; client = client->next) {
		int relayed[2] = {-1, -1};
		check(count + 3 <= CLIENTS_MAX * 3);
		if (client->relay)
			relay_fds(client->relay, relayed);
		fds[count++] = (struct pollfd){.fd = mosquitto_socket(client->mosq),
			.events = (short)(POLLIN | (mosquitto_want_write(client->mosq) ? POLLOUT : 0))};
		fds[count++] = (struct pollfd){.fd = relayed[0], .events = POLLIN};
		fds[count++] = (struct pollfd){.fd = relayed[1], .events = POLLIN};
	}
	poll(fds, count, timeout_ms);
	count = 0;
	for (struct client *client = clients; client; client = client->next, count += 3) {
		if (client->relay && (fds[count + 1].revents || fds[count + 2].revents))
			relay_turn(client->relay);
		if (mosquitto_socket(client->mosq) >= 0)
			serve(client, fds[count].revents);
	}
}

/* Serves everybody until the condition (an expression over the local variables) holds; false at the deadline. */
#define WAIT_UNTIL(condition, deadline_ms)                                                                                       \
	({                                                                                                                       \
		int64_t wait_deadline_ms = (deadline_ms);                                                                        \
		while (!(condition) && now_ms() < wait_deadline_ms)                                                              \
			clients_turn(20);                                                                                        \
		(condition);                                                                                                     \
	})

/* --------------------------------------------------------------------------------- connecting and closing */

static void set_will(struct client *client, const struct client_options *options)
{
	if (options->will_topic)
		check(mosquitto_will_set_v5(client->mosq, options->will_topic, (int)strlen(options->will_payload),
			      options->will_payload, 1, options->will_retain, NULL) == MOSQ_ERR_SUCCESS);
}

static void choose_id(struct client *client, const struct client_options *options)
{
	static unsigned number;
	if (options->id)
		check(snprintf(client->id, sizeof client->id, "%s", options->id) < (int)sizeof client->id);
	else
		snprintf(client->id, sizeof client->id, "auto-%d-%u", (int)getpid(), ++number);
}

static struct client *new_client(const struct client_options *options)
{
	struct client *client = calloc(1, sizeof *client);
	check(client != NULL);
	if (!library_ready)
		mosquitto_lib_init();
	library_ready = true;
	client->version = options->version ? options->version : 4;
	client->connack = client->disconnect_reason = CLOSED;
	client->last = &client->first;
	choose_id(client, options);
	client->mosq = mosquitto_new(*client->id ? client->id : NULL, !options->keep_session, client);
	check(client->mosq != NULL);
	mosquitto_int_option(client->mosq, MOSQ_OPT_PROTOCOL_VERSION, client->version);
	mosquitto_int_option(client->mosq, MOSQ_OPT_TCP_NODELAY, 1);
	mosquitto_username_pw_set(client->mosq, options->user, options->password);
	mosquitto_connect_v5_callback_set(client->mosq, on_connect);
	mosquitto_disconnect_v5_callback_set(client->mosq, on_disconnect);
	mosquitto_subscribe_v5_callback_set(client->mosq, on_subscribe);
	mosquitto_unsubscribe_v5_callback_set(client->mosq, on_unsubscribe);
	mosquitto_publish_v5_callback_set(client->mosq, on_publish);
	mosquitto_message_v5_callback_set(client->mosq, on_message);
	set_will(client, options);
	client->next = clients;
	clients = client;
	return client;
}

struct client *client_try(const struct client_options *options)
{
	struct client *client = new_client(options);
	mosquitto_property *properties = NULL;
	int keepalive_s = options->keepalive_s < 0 ? 0 : options->keepalive_s ? options->keepalive_s : 60, port = options->port;
	if (options->session_expiry_s)
		mosquitto_property_add_int32(&properties, MQTT_PROP_SESSION_EXPIRY_INTERVAL, options->session_expiry_s);
	if (options->websocket)
		client->relay = relay_new(&port);
	int result = mosquitto_connect_bind_v5(client->mosq, "127.0.0.1", port, keepalive_s, NULL, properties);
	mosquitto_property_free_all(&properties);
	if (result != MOSQ_ERR_SUCCESS)
		fail_msg("connect: %s", mosquitto_strerror(result));
	if (client->relay)
		relay_open(client->relay, options->port);
	if (!WAIT_UNTIL(client->answered || mosquitto_socket(client->mosq) < 0, now_ms() + WAIT_MS))
		fail_msg("no CONNACK, and the connection stays open");
	return client;
}

int client_connack(const struct client *client)
{
	return client->connack;
}

bool client_session_present(const struct client *client)
{
	return client->session_present;
}

const char *client_id(const struct client *client)
{
	return client->id;
}

bool client_is_connected(const struct client *client)
{
	return client->connected;
}

int client_disconnect_reason(const struct client *client)
{
	return client->connected ? -1 : client->disconnect_reason;
}

void client_wait_closed(struct client *client)
{
	if (!WAIT_UNTIL(!client->connected, now_ms() + WAIT_MS))
		fail_msg("%s is still connected", client->id);
}

static void release(struct client *client)
{
	struct client **at = &clients;
	while (*at && *at != client)
		at = &(*at)->next;
	check(*at != NULL);
	*at = client->next;
	mosquitto_destroy(client->mosq);
	relay_free(client->relay);
	while (client->first) {
		struct message *message = client->first;
		client->first = message->next;
		message_free(message);
	}
	free(client);
}

void client_close(struct client *client)
{
	if (client->connected) {
		mosquitto_disconnect(client->mosq);
		if (client->relay)
			relay_turn(client->relay);
	}
	release(client);
}

void client_cut(struct client *client)
{
	release(client);
}

void clients_close_all(void)
{
	while (clients)
		client_close(clients);
}

/* ---------------------------------------------------------------------------------------------- subscribing */

static bool is_closed(int result)
{
	return result == MOSQ_ERR_NO_CONN || result == MOSQ_ERR_CONN_LOST;
}

void client_subscribe_many(struct client *client, const char *const filters[], int count, int *codes)
{
	check(count <= FILTERS_MAX && client->subscribe_mid == 0);
	int result = mosquitto_subscribe_multiple(
		client->mosq, &client->subscribe_mid, count, (char *const *)(uintptr_t)filters, 1, 0, NULL);
	if (is_closed(result))
		client->connected = false;
	else if (result != MOSQ_ERR_SUCCESS)
		fail_msg("subscribe: %s", mosquitto_strerror(result));
	if (!WAIT_UNTIL(client->subscribe_mid == 0 || !client->connected, now_ms() + WAIT_MS))
		fail_msg("no SUBACK for %s", filters[0]);
	for (int i = 0; i < count; i++)
		codes[i] = client->subscribe_mid || !client->connected ? CLOSED : client->granted[i];
	client->subscribe_mid = 0;
}

int client_subscribe(struct client *client, const char *filter)
{
	int code;
	client_subscribe_many(client, &filter, 1, &code);
	return code;
}

int client_unsubscribe(struct client *client, const char *filter)
{
	check(mosquitto_unsubscribe(client->mosq, &client->unsubscribe_mid, filter) == MOSQ_ERR_SUCCESS);
	if (!WAIT_UNTIL(client->unsubscribe_mid == 0 || !client->connected, now_ms() + WAIT_MS))
		fail_msg("no UNSUBACK for %s", filter);
	return client->unsubscribe_mid ? CLOSED : 0;
}

/* A filter of the client's own answers: always granted, and the broker answers in the order of its work. */
void client_fence(struct client *client)
{
	char filter[160];
	snprintf(filter, sizeof filter, "chat/response/%s", client->id);
	client_subscribe(client, filter);
}

/* ----------------------------------------------------------------------------------------------- publishing */

static int send_publish(struct client *client, const char *topic, const void *payload, size_t length, int qos, bool retain,
	const mosquitto_property *properties)
{
	int mid = 0;
	int result = mosquitto_publish_v5(client->mosq, &mid, topic, (int)length, payload, qos, retain, properties);
	if (is_closed(result)) {
		client->connected = false;
		return 0;
	}
	if (result != MOSQ_ERR_SUCCESS)
		fail_msg("publish: %s", mosquitto_strerror(result));
	/* QoS 0 was reported inside the call, and nothing else can have been. */
	if (qos) {
		client->acks[mid] = ACK_PENDING;
		client->unanswered++;
	}
	return mid;
}

static int await_ack(struct client *client, int mid)
{
	if (mid && !WAIT_UNTIL(client->acks[mid] >= ACK_BASE || !client->connected, now_ms() + WAIT_MS))
		fail_msg("no PUBACK, and the connection stays open");
	return mid && client->acks[mid] >= ACK_BASE ? client->acks[mid] - ACK_BASE : CLOSED;
}

int client_publish_bytes(struct client *client, const char *topic, const void *payload, size_t length, int qos, bool retain)
{
	int mid = send_publish(client, topic, payload, length, qos, retain, NULL);
	return qos ? await_ack(client, mid) : 0;
}

int client_publish(struct client *client, const char *topic, const char *payload, int qos)
{
	return client_publish_bytes(client, topic, payload, strlen(payload), qos, false);
}

int client_request(
	struct client *client, const char *topic, const char *payload, const char *response_topic, const char *correlation)
{
	mosquitto_property *properties = NULL;
	mosquitto_property_add_string(&properties, MQTT_PROP_RESPONSE_TOPIC, response_topic);
	if (correlation)
		mosquitto_property_add_binary(
			&properties, MQTT_PROP_CORRELATION_DATA, correlation, (uint16_t)strlen(correlation));
	int mid = send_publish(client, topic, payload, strlen(payload), 1, false, properties);
	mosquitto_property_free_all(&properties);
	return await_ack(client, mid);
}

void client_send(struct client *client, const char *topic, const char *payload)
{
	send_publish(client, topic, payload, strlen(payload), 1, false, NULL);
}

void client_settle(struct client *client)
{
	if (!WAIT_UNTIL(client->unanswered == 0 || !client->connected, now_ms() + 4 * WAIT_MS))
		fail_msg("%d publishes without PUBACK", client->unanswered);
}

int client_unanswered(const struct client *client)
{
	return client->unanswered;
}

/* ------------------------------------------------------------------------------------------------ receiving */

static struct message *take(struct client *client, const char *topic)
{
	struct message **at = &client->first;
	while (*at && topic && strcmp((*at)->topic, topic) != 0)
		at = &(*at)->next;
	struct message *message = *at;
	if (!message)
		return NULL;
	*at = message->next;
	if (client->last == &message->next)
		client->last = at;
	message->next = NULL;
	return message;
}

struct message *client_receive_by(struct client *client, const char *topic, int64_t deadline_ms)
{
	struct message *message = NULL;
	(void)WAIT_UNTIL((message = message ? message : take(client, topic)) || !client->connected, deadline_ms);
	return message;
}

struct message *client_receive(struct client *client, const char *topic)
{
	struct message *message = client_receive_by(client, topic, now_ms() + WAIT_MS);
	if (message)
		return message;
	print_error("the last that %s received: %.200s\n", client->id, client->newest);
	for (const struct message *other = client->first; other; other = other->next)
		print_error("%s has %s %.200s\n", client->id, other->topic, other->payload);
	fail_msg("%s received nothing on %s%s", client->id, topic, client->connected ? "" : " and is not connected");
	return NULL;
}

int client_waiting(const struct client *client, const char *topic)
{
	int count = 0;
	for (const struct message *message = client->first; message; message = message->next)
		count += !topic || !strcmp(message->topic, topic);
	return count;
}

void message_free(struct message *message)
{
	if (!message)
		return;
	free(message->topic);
	free(message->payload);
	free(message->content_type);
	free(message->property_seq);
	free(message->property_from);
	free(message->correlation);
	free(message);
}

/* ------------------------------------------------------------------------------------------------- payloads */

static cJSON *parse(const struct message *message)
{
	cJSON *root = cJSON_Parse(message->payload);
	if (!root)
		fail_msg("not JSON: %.200s", message->payload);
	return root;
}

int64_t message_integer(const struct message *message, const char *member)
{
	cJSON *root = parse(message);
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, member);
	bool number = cJSON_IsNumber(item);
	int64_t value = number ? (int64_t)item->valuedouble : 0;
	cJSON_Delete(root);
	if (!number)
		fail_msg("no number \"%s\" in %.200s", member, message->payload);
	return value;
}

static const char *keep(const struct message *message, cJSON *root, const cJSON *item, const char *member)
{
	static char *kept;
	free(kept);
	kept = cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
	cJSON_Delete(root);
	if (!kept)
		fail_msg("no string \"%s\" in %.200s", member, message->payload);
	return kept;
}

const char *message_string(const struct message *message, const char *member)
{
	cJSON *root = parse(message);
	return keep(message, root, cJSON_GetObjectItemCaseSensitive(root, member), member);
}

const char *message_error(const struct message *message)
{
	cJSON *root = parse(message);
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(root, "error");
	return keep(message, root, cJSON_GetObjectItemCaseSensitive(error, "code"), "error.code");
}

bool message_has(const struct message *message, const char *member)
{
	cJSON *root = parse(message);
	bool has = cJSON_HasObjectItem(root, member);
	cJSON_Delete(root);
	return has;
}
