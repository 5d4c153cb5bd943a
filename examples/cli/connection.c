/* connection.c - see connection.h. */
#include "connection.h"

#include "clock.h"
#include "json.h"

#include <errno.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	KEEPALIVE_S = 30,
	ANSWER_MS = 60000,   /* how long an answer may take: hashing a password on a busy server takes its time */
	ARRIVALS_MAX = 2000, /* four bursts of 500 messages, which is the most that the server pushes at once */
	FILTERS_MAX = 50,    /* in one SUBSCRIBE */
	MISC_MS = 1000,      /* libmosquitto wants to look at its keepalive that often */
};

struct connection {
	char *host, *ca_file;
	int port;
	const volatile sig_atomic_t *stop;
	struct mosquitto *mosq;
	bool open, dismissed, lost;
	int connack; /* -1: none yet */
	char error[128];
	char answers[128];   /* the topic of the answers */
	int subscribing;     /* the id of the SUBSCRIBE that is not answered; 0: none */
	bool filter_refused; /* one of its filters, or of one before it in the same call */
	uint32_t asked;      /* requests so far: the correlation data of the last one */
	cJSON *answer;       /* to that one; NULL: none yet */
	struct arrival *first, **last;
	int arrivals;
};

/* ---------------------------------------------------------------------------------------------- callbacks */

static void ended(struct connection *connection, const char *why)
{
	connection->open = false;
	snprintf(connection->error, sizeof connection->error, "%s", why);
}

static void on_connect(struct mosquitto *mosq, void *owner, int reason, int flags, const mosquitto_property *properties)
{
	struct connection *connection = owner;
	(void)mosq, (void)flags, (void)properties;
	connection->connack = reason;
	connection->open = reason == 0;
	if (reason != 0)
		ended(connection, mosquitto_reason_string(reason));
}

static void on_disconnect(struct mosquitto *mosq, void *owner, int reason, const mosquitto_property *properties)
{
	struct connection *connection = owner;
	(void)mosq, (void)properties;
	connection->dismissed = reason == MQTT_RC_ADMINISTRATIVE_ACTION || reason == MQTT_RC_NOT_AUTHORIZED;
	ended(connection, reason >= 0x80 ? mosquitto_reason_string(reason) : "the connection ended");
}

static void on_subscribe(
	struct mosquitto *mosq, void *owner, int mid, int count, const int *granted, const mosquitto_property *properties)
{
	struct connection *connection = owner;
	(void)mosq, (void)properties;
	if (mid != connection->subscribing)
		return;
	connection->subscribing = 0;
	for (int i = 0; i < count; i++)
		connection->filter_refused |= granted[i] >= 0x80;
}

static bool is_awaited(const struct connection *connection, const mosquitto_property *properties)
{
	void *data = NULL;
	uint16_t length = 0;
	mosquitto_property_read_binary(properties, MQTT_PROP_CORRELATION_DATA, &data, &length, false);
	bool awaited = length == sizeof connection->asked && !memcmp(data, &connection->asked, length) && !connection->answer;
	free(data);
	return awaited;
}

static void put(struct connection *connection, const char *topic, cJSON *payload)
{
	size_t length = strlen(topic);
	struct arrival *arrival = connection->arrivals < ARRIVALS_MAX ? malloc(sizeof *arrival + length + 1) : NULL;
	if (!arrival) {
		connection->lost = true;
		cJSON_Delete(payload);
		return;
	}
	arrival->next = NULL;
	arrival->payload = payload;
	memcpy(arrival->topic, topic, length + 1);
	*connection->last = arrival;
	connection->last = &arrival->next;
	connection->arrivals++;
}

static void on_message(
	struct mosquitto *mosq, void *owner, const struct mosquitto_message *message, const mosquitto_property *properties)
{
	struct connection *connection = owner;
	const char *why;
	(void)mosq;
	cJSON *payload = json_parse(message->payload ? message->payload : "", (size_t)message->payloadlen, JSON_DEPTH_MAX, &why);
	if (!payload)
		return; /* not from this server, which sends JSON alone */
	if (is_awaited(connection, properties))
		connection->answer = payload;
	else
		put(connection, message->topic, payload);
}

/* ------------------------------------------------------------------------------------------------ waiting */

enum turn { TURN_OVER, TURN_INTERRUPTED, TURN_READABLE };

/* Serves the socket once, for at most timeout_ms. */
static enum turn turn(struct connection *connection, int fd, int timeout_ms)
{
	int socket = connection->mosq ? mosquitto_socket(connection->mosq) : -1;
	struct pollfd polled[] = {{.fd = fd, .events = POLLIN}, {.fd = socket, .events = POLLIN}};
	if (socket >= 0 && mosquitto_want_write(connection->mosq))
		polled[1].events |= POLLOUT;
	if (poll(polled, 2, timeout_ms < MISC_MS ? timeout_ms : MISC_MS) < 0)
		return TURN_INTERRUPTED;
	if (socket >= 0) {
		int result = MOSQ_ERR_SUCCESS;
		if (polled[1].revents & ~POLLOUT)
			result = mosquitto_loop_read(connection->mosq, 1);
		if (result == MOSQ_ERR_SUCCESS && polled[1].revents & POLLOUT)
			result = mosquitto_loop_write(connection->mosq, 1);
		if (result == MOSQ_ERR_SUCCESS)
			result = mosquitto_loop_misc(connection->mosq);
		if (result != MOSQ_ERR_SUCCESS && connection->open)
			ended(connection, mosquitto_strerror(result));
	}
	return polled[0].revents ? TURN_READABLE : TURN_OVER;
}

/* Whether what is waited for may still come. */
static bool may_wait(const struct connection *connection, int64_t deadline_ms)
{
	return clock_monotonic_ms() < deadline_ms && !*connection->stop;
}

bool connection_wait(struct connection *connection, int fd, int timeout_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	bool was_open = connection->open;
	for (;;) {
		int64_t left_ms = deadline_ms - clock_monotonic_ms();
		enum turn result = turn(connection, fd, left_ms > 0 ? (int)left_ms : 0);
		if (result != TURN_OVER || connection->first || connection->open != was_open || left_ms <= 0)
			return result == TURN_READABLE;
	}
}

/* ------------------------------------------------------------------------------------- opening and closing */

struct connection *connection_new(const char *host, int port, const char *ca_file, const volatile sig_atomic_t *stop)
{
	struct connection *connection = calloc(1, sizeof *connection);
	if (!connection)
		return NULL;
	mosquitto_lib_init();
	connection->host = strdup(host);
	connection->ca_file = ca_file ? strdup(ca_file) : NULL;
	connection->port = port;
	connection->stop = stop;
	connection->last = &connection->first;
	return connection;
}

void connection_free(struct connection *connection)
{
	if (!connection)
		return;
	connection_close(connection);
	free(connection->host);
	free(connection->ca_file);
	free(connection);
	mosquitto_lib_cleanup();
}

void connection_close(struct connection *connection)
{
	struct arrival *arrival;
	if (connection->mosq) {
		mosquitto_disconnect_callback_set(connection->mosq, NULL);
		mosquitto_disconnect_v5_callback_set(connection->mosq, NULL);
		mosquitto_disconnect(connection->mosq);
		mosquitto_destroy(connection->mosq);
	}
	connection->mosq = NULL;
	connection->open = false;
	while ((arrival = connection_take(connection)))
		arrival_free(arrival);
}

static bool prepare(struct connection *connection, const char *client_id, const char *token)
{
	struct mosquitto *mosq = mosquitto_new(client_id, true, connection);
	connection->mosq = mosq;
	if (!mosq)
		return false;
	mosquitto_int_option(mosq, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
	mosquitto_connect_v5_callback_set(mosq, on_connect);
	mosquitto_disconnect_v5_callback_set(mosq, on_disconnect);
	mosquitto_subscribe_v5_callback_set(mosq, on_subscribe);
	mosquitto_message_v5_callback_set(mosq, on_message);
	return (!token || mosquitto_username_pw_set(mosq, "chat-cli", token) == MOSQ_ERR_SUCCESS) &&
	       (!connection->ca_file || mosquitto_tls_set(mosq, connection->ca_file, NULL, NULL, NULL, NULL) == MOSQ_ERR_SUCCESS);
}

enum connection_result connection_open(struct connection *connection, const char *client_id, const char *token)
{
	connection_close(connection);
	connection->connack = -1;
	connection->dismissed = false;
	connection->error[0] = '\0';
	snprintf(connection->answers, sizeof connection->answers, "chat/response/%s", client_id);
	int result = prepare(connection, client_id, token) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_TLS;
	if (result == MOSQ_ERR_SUCCESS)
		result = mosquitto_connect_bind_v5(connection->mosq, connection->host, connection->port, KEEPALIVE_S, NULL, NULL);
	if (result != MOSQ_ERR_SUCCESS) {
		ended(connection, result == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(result));
		return CONNECTION_UNREACHABLE;
	}
	int64_t deadline_ms = clock_monotonic_ms() + ANSWER_MS;
	while (connection->connack < 0 && mosquitto_socket(connection->mosq) >= 0 && may_wait(connection, deadline_ms))
		turn(connection, -1, MISC_MS);
	if (connection->connack == MQTT_RC_NOT_AUTHORIZED || connection->connack == MQTT_RC_BAD_USERNAME_OR_PASSWORD ||
		connection->connack == CONNACK_REFUSED_NOT_AUTHORIZED)
		return CONNECTION_REFUSED;
	char *filters[] = {connection->answers};
	bool refused;
	if (connection->open && connection_subscribe(connection, filters, 1, &refused))
		return CONNECTION_OPEN;
	if (!connection->error[0])
		ended(connection, "the server does not answer");
	return connection->dismissed ? CONNECTION_REFUSED : CONNECTION_UNREACHABLE;
}

bool connection_is_open(const struct connection *connection)
{
	return connection->open;
}

bool connection_was_dismissed(const struct connection *connection)
{
	return connection->dismissed;
}

const char *connection_error(const struct connection *connection)
{
	return connection->error;
}

/* ------------------------------------------------------------------------------------------------- asking */

static bool subscribe_some(struct connection *connection, char *const filters[], int count)
{
	int64_t deadline_ms = clock_monotonic_ms() + ANSWER_MS;
	if (!connection->open ||
		mosquitto_subscribe_multiple(connection->mosq, &connection->subscribing, count, filters, 1, 0, NULL))
		return false;
	while (connection->open && connection->subscribing && may_wait(connection, deadline_ms))
		turn(connection, -1, MISC_MS);
	return connection->open && !connection->subscribing;
}

bool connection_subscribe(struct connection *connection, char *const filters[], int count, bool *refused)
{
	connection->filter_refused = false;
	for (int done = 0; done < count; done += FILTERS_MAX) {
		int some = count - done < FILTERS_MAX ? count - done : FILTERS_MAX;
		if (!subscribe_some(connection, filters + done, some))
			return false;
	}
	*refused = connection->filter_refused;
	return true;
}

static bool send_request(struct connection *connection, const char *method, const char *payload)
{
	char topic[128];
	mosquitto_property *properties = NULL;
	connection->asked++;
	cJSON_Delete(connection->answer); /* of a request that was given up */
	connection->answer = NULL;
	snprintf(topic, sizeof topic, "chat/request/%s", method);
	bool sent = connection->open &&
		    !mosquitto_property_add_string(&properties, MQTT_PROP_RESPONSE_TOPIC, connection->answers) &&
		    !mosquitto_property_add_binary(
			    &properties, MQTT_PROP_CORRELATION_DATA, &connection->asked, sizeof connection->asked) &&
		    !mosquitto_publish_v5(connection->mosq, NULL, topic, (int)strlen(payload), payload, 1, false, properties);
	mosquitto_property_free_all(&properties);
	return sent;
}

static void set_error(struct answer *answer, const char *code, const char *message)
{
	snprintf(answer->code, sizeof answer->code, "%s", code ? code : "internal");
	snprintf(answer->message, sizeof answer->message, "%s", message ? message : "the server did not say why");
}

static struct answer read_answer(cJSON *payload)
{
	struct answer answer = {.result = cJSON_DetachItemFromObjectCaseSensitive(payload, "result")};
	if (!answer.result) {
		const cJSON *error = cJSON_GetObjectItemCaseSensitive(payload, "error");
		set_error(&answer, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "code")),
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "message")));
		json_integer(cJSON_GetObjectItemCaseSensitive(error, "retry_after_ms"), 0, 3600000, &answer.retry_after_ms);
	}
	cJSON_Delete(payload);
	return answer;
}

struct answer connection_request(struct connection *connection, const char *method, cJSON *params)
{
	struct answer answer = {0};
	int64_t deadline_ms = clock_monotonic_ms() + ANSWER_MS;
	char *payload = cJSON_PrintUnformatted(params);
	cJSON_Delete(params);
	if (payload && send_request(connection, method, payload)) {
		while (connection->open && !connection->answer && may_wait(connection, deadline_ms))
			turn(connection, -1, MISC_MS);
	}
	if (payload)
		explicit_bzero(payload, strlen(payload)); /* it may hold a password */
	cJSON_free(payload);
	if (connection->answer) {
		answer = read_answer(connection->answer);
		connection->answer = NULL;
	} else if (!connection->open) {
		set_error(&answer, "disconnected", "there is no connection to the server");
	} else {
		set_error(&answer, "timeout", "the server did not answer in time");
	}
	return answer;
}

void answer_free(struct answer *answer)
{
	cJSON_Delete(answer->result);
	answer->result = NULL;
}

void connection_publish(struct connection *connection, const char *topic, const char *payload, int qos)
{
	if (connection->open)
		mosquitto_publish_v5(connection->mosq, NULL, topic, (int)strlen(payload), payload, qos, false, NULL);
}

/* ------------------------------------------------------------------------------------------ what arrived */

struct arrival *connection_take(struct connection *connection)
{
	struct arrival *arrival = connection->first;
	if (!arrival)
		return NULL;
	connection->first = arrival->next;
	if (!connection->first)
		connection->last = &connection->first;
	connection->arrivals--;
	return arrival;
}

void arrival_free(struct arrival *arrival)
{
	cJSON_Delete(arrival->payload);
	free(arrival);
}

bool connection_lost(struct connection *connection)
{
	bool lost = connection->lost;
	connection->lost = false;
	return lost;
}
