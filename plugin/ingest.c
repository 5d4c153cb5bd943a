/* ingest.c - see ingest.h.
 *
 * The order of checks is the order of their cost and of what they give away: connection, size, rate, right, content.
 * A right is only denied here early; the commit decides on the same rules, in the transaction that stores the message.
 */
#include "ingest.h"

#include "acl.h"
#include "answer.h"
#include "host.h"
#include "mark.h"
#include "test_faults.h"

#include <stdlib.h>
#include <string.h>

/* A member who reads a busy group marks far more often than anybody writes; a flood is still a flood. */
static const struct rate_limit mark_limit = {.per_minute = 100 * 60, .burst = 500};
/* A payload longer than this is not looked into only to find the id for the answer to a refusal. */
#define REFUSED_PARSE_MAX 4096
#define MARK_BYTES_MAX 256

/* ---- refusing ---- */

static enum publish_verdict refuse(struct chat *chat, const struct session *session, const struct publish *publish,
	const struct topic *topic, enum error_code code, int64_t retry_after_ms)
{
	struct answer_subject subject = {.conversation_id = topic->id, .retry_after_ms = retry_after_ms};
	struct error_detail error = {.code = code}, ignored;
	struct envelope envelope = {0};

	if (topic->kind == TOPIC_SEND && publish->length <= REFUSED_PARSE_MAX) {
		struct envelope_limits limits = {.body_max_chars = (size_t)chat->options.body_max_chars};
		if (envelope_parse(publish->payload, publish->length, &limits, &envelope, &ignored)) {
			envelope_free(&envelope);
		}
		subject.id = envelope.has_id ? envelope.id : NULL;
	}
	return publish_refuse(chat, session, publish, &subject, &error);
}

/* ---- chat/{c}/send ---- */

static enum publish_verdict send_message(
	struct chat *chat, struct session *session, const struct publish *publish, const struct topic *topic)
{
	struct envelope_limits limits = {.body_max_chars = (size_t)chat->options.body_max_chars};
	struct answer_subject subject = {.conversation_id = topic->id};
	struct error_detail error;
	struct envelope envelope = {0};

	if (!envelope_parse(publish->payload, publish->length, &limits, &envelope, &error)) {
		subject.id = envelope.has_id ? envelope.id : NULL;
		return publish_refuse(chat, session, publish, &subject, &error);
	}
	enum publish_verdict verdict = PUBLISH_ACCEPTED;
	subject.id = envelope.has_id ? envelope.id : NULL;
	uint8_t flags = envelope.reply || publish->response_topic ? RECORD_FLAG_ANSWER : 0;
	if (!publish_check_response_topic(session, publish, &error)) {
		verdict = publish_refuse(chat, session, publish, &subject, &error);
	} else if (!publish_append_message(
			   chat, session, topic->id, &envelope, flags, publish->correlation, publish->correlation_length)) {
		error = (struct error_detail){.code = ERROR_OVERLOADED};
		subject.retry_after_ms = PUBLISH_RETRY_MS;
		verdict = publish_refuse(chat, session, publish, &subject, &error);
	}
	envelope_free(&envelope);
	return verdict;
}

/* ---- chat/{c}/mark and chat/{c}/type ---- */

static enum publish_verdict mark(
	struct chat *chat, const struct session *session, const struct publish *publish, const struct topic *topic)
{
	struct answer_subject subject = {.conversation_id = topic->id};
	struct error_detail error;
	struct mark parsed;
	uint64_t position;

	if (!mark_parse(publish->payload, publish->length, &parsed, &error)) {
		return publish_refuse(chat, session, publish, &subject, &error);
	}
	struct record_mark record = {
		.accepted_at_ms = chat->now_wall_ms,
		.conversation_id = topic->id,
		.user_id = session->user->id,
		.device_id = session->device_id,
		.delivered = parsed.delivered,
		.read = parsed.read,
		.client_id_length = (uint8_t)strlen(session->client_id),
	};
	if (TEST_BREAK("skip_mark")) {
		return PUBLISH_ACCEPTED;
	}
	size_t size = record_mark_size(&record);
	void *at = spool_append(chat->spool, size, &position);
	if (!at) {
		return refuse(chat, session, publish, topic, ERROR_OVERLOADED, PUBLISH_RETRY_MS);
	}
	record_write_mark(at, position, &record, session->client_id);
	if (!spool_append_done(chat->spool, size, record_slot(topic->id))) {
		return refuse(chat, session, publish, topic, ERROR_OVERLOADED, PUBLISH_RETRY_MS);
	}
	return PUBLISH_ACCEPTED;
}

static void publish_typing(struct chat *chat, int64_t conversation_id, int64_t user_id, bool is_typing)
{
	struct host_properties properties = {.json = true};
	char topic[TOPIC_TEXT_MAX];
	struct buffer json;

	buffer_init(&json, 128);
	buffer_append_text(&json, "{\"user\":");
	buffer_append_integer(&json, user_id);
	buffer_append_text(&json, is_typing ? ",\"typing\":true,\"expires_in\":" : ",\"typing\":false,\"expires_in\":");
	buffer_append_integer(&json, is_typing ? TYPING_EXPIRES_IN_S : 0);
	topic_format(TOPIC_TYPING, conversation_id, topic);
	if (buffer_append_text(&json, "}")) {
		(void)chat_publish(chat, topic, json.data, json.length, 0, &properties);
	}
	buffer_free(&json);
}

/* The first thing to be dropped, whatever happens, and without a word: it ends by itself, and the next one says the same. */
static enum publish_verdict typing(struct chat *chat, const struct session *session, const struct publish *publish,
	const struct topic *topic, const struct acl_standing *standing)
{
	struct answer_subject subject = {.conversation_id = topic->id};
	struct user *user = session->user;
	struct error_detail error;
	bool is_typing;

	if (!typing_parse(publish->payload, publish->length, &is_typing, &error)) {
		return publish_refuse(chat, session, publish, &subject, &error);
	}
	const struct membership *membership = standing->known ? registry_membership(user, topic->id) : NULL;
	if (!membership || membership->is_blocked || !chat->listening || delivery_is_busy(chat->deliveries)) {
		return PUBLISH_ACCEPTED;
	}
	if (!user->typing) {
		user->typing = calloc(1, sizeof(*user->typing));
	}
	if (user->typing && typing_passes(user->typing, topic->id, is_typing, chat->now_ms)) {
		publish_typing(chat, topic->id, user->id, is_typing);
	}
	return PUBLISH_ACCEPTED;
}

/* ---- the door ---- */

static bool take_from_bucket(struct chat *chat, struct session *session, enum topic_kind kind, int64_t *retry_after_ms)
{
	struct user *user = session->user;
	if (!user) {
		return rate_bucket_take(&session->guest_requests, &chat->options.rate_requests, chat->now_ms, retry_after_ms);
	}
	if (kind == TOPIC_SEND) {
		return rate_bucket_take(&user->messages, &chat->options.rate_messages, chat->now_ms, retry_after_ms);
	}
	return rate_bucket_take(&user->marks, &mark_limit, chat->now_ms, retry_after_ms);
}

static size_t size_limit(enum topic_kind kind)
{
	return kind == TOPIC_MARK || kind == TOPIC_TYPE ? MARK_BYTES_MAX : ENVELOPE_BYTES_MAX;
}

enum publish_verdict ingest_message(struct chat *chat, const struct publish *publish)
{
	const struct topic *topic = &publish->topic;
	int64_t retry_after_ms = 0;

	struct session *session = registry_find_session(chat->registry, publish->client);
	if (!session || session->state == SESSION_REFUSED) {
		return PUBLISH_REFUSED;
	}
	struct acl_subject subject = {.user_id = session->user ? session->user->id : 0, .client_id = session->client_id};
	struct acl_standing standing = registry_standing(chat->registry, session, topic->id);
	if (publish->length > size_limit(topic->kind)) {
		return refuse(chat, session, publish, topic, ERROR_TOO_LONG, 0);
	}
	if (publish->qos > 1) {
		struct answer_subject about = {.conversation_id = topic->id};
		struct error_detail error = {ERROR_INVALID_FIELD, "qos", "publish with QoS 0 or 1"};
		return publish_refuse(chat, session, publish, &about, &error);
	}
	if (!take_from_bucket(chat, session, topic->kind, &retry_after_ms)) {
		if (topic->kind == TOPIC_TYPE) {
			return PUBLISH_ACCEPTED; /* dropped like any other that comes too soon */
		}
		return refuse(chat, session, publish, topic, ERROR_RATE_LIMITED, retry_after_ms);
	}
	enum error_code code = acl_publish(topic, &subject, &standing);
	if (code != ERROR_NONE) {
		return refuse(chat, session, publish, topic, code, 0);
	}
	switch (topic->kind) {
	case TOPIC_SEND:
		return send_message(chat, session, publish, topic);
	case TOPIC_MARK:
		return mark(chat, session, publish, topic);
	default:
		return typing(chat, session, publish, topic, &standing);
	}
}
