/* chat.c - see chat.h. */
#include "chat.h"

#include "answer.h"
#include "host.h"
#include "topic.h"
#include "wakeup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An answer made here: an error, whose parts are all short; a request_id is bounded where it is read. */
#define ANSWER_BYTES_MAX 8192

/* What Mosquitto 2.0 hands to one WebSocket client in one turn of its loop (libwebsockets' rx and tx pieces). */
#define WEBSOCKET_TURN_BYTES 4096
#define EXTRA_TURNS_MAX 1000

bool chat_publish(struct chat *chat, const char *topic, const void *payload, size_t length, int qos,
	const struct host_properties *properties)
{
	if (!host_publish(topic, payload, length, qos, properties)) {
		return false;
	}
	chat->published = true;
	if (chat->websockets > 0 && length >= WEBSOCKET_TURN_BYTES) {
		chat->extra_turns += (uint32_t)(length / WEBSOCKET_TURN_BYTES);
		chat->extra_turns = chat->extra_turns < EXTRA_TURNS_MAX ? chat->extra_turns : EXTRA_TURNS_MAX;
	}
	return true;
}

void chat_respond(struct chat *chat, const char *client_id, const char *json, size_t length, const void *correlation,
	uint16_t correlation_length)
{
	char topic[TOPIC_TEXT_MAX + 64];
	struct host_properties properties = {
		.json = true, .correlation_data = correlation, .correlation_length = correlation_length};

	if ((size_t)snprintf(topic, sizeof(topic), "chat/response/%s", client_id) < sizeof(topic)) {
		(void)chat_publish(chat, topic, json, length, 1, &properties);
	}
}

void chat_respond_error(struct chat *chat, const char *client_id, const struct answer_subject *subject,
	const struct error_detail *error, const void *correlation, uint16_t correlation_length)
{
	struct buffer json;
	buffer_init(&json, ANSWER_BYTES_MAX);
	if (answer_error(&json, subject, error)) {
		chat_respond(chat, client_id, json.data, json.length, correlation, correlation_length);
	}
	buffer_free(&json);
}

static void list_refused(struct chat *chat, struct session *session)
{
	if (chat->refused_count == chat->refused_capacity) {
		uint32_t larger = chat->refused_capacity * 2 + 16;
		struct session **moved = realloc(chat->refused, larger * sizeof(moved[0]));
		if (!moved) {
			return; /* it stays connected and has no rights */
		}
		chat->refused = moved;
		chat->refused_capacity = larger;
	}
	chat->refused[chat->refused_count++] = session;
	wakeup_signal();
}

void chat_refuse_session(struct chat *chat, struct session *session)
{
	if (session->state == SESSION_REFUSED) {
		return;
	}
	session->state = SESSION_REFUSED;
	if (session->end_ms) {
		session->end_ms = 0; /* it is listed already */
	} else {
		list_refused(chat, session);
	}
}

void chat_end_session(struct chat *chat, struct session *session, int64_t delay_ms)
{
	int64_t end_ms = chat->now_ms + delay_ms, before_ms = session->end_ms;

	if (session->state == SESSION_REFUSED) {
		return;
	}
	session->end_ms = before_ms && before_ms < end_ms ? before_ms : end_ms;
	if (!before_ms) {
		list_refused(chat, session);
	}
}
