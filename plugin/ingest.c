/* ingest.c - see ingest.h.
 *
 * The order of checks is the order of their cost and of what they give away: connection, size, rate, right, content.
 * A right is only denied here early; the commit decides on the same rules, in the transaction that stores the message.
 */
#include "ingest.h"

#include "acl.h"
#include "answer.h"
#include "envelope.h"
#include "host.h"
#include "json.h"
#include "mark.h"
#include "test_faults.h"
#include "topic.h"
#include "uuid.h"

#include <string.h>

/* A member who reads a busy group marks far more often than anybody writes; a flood is still a flood. */
static const struct rate_limit mark_limit = {.per_minute = 100 * 60, .burst = 500};
/* Contract: at most one typing notice per user and conversation passes in 3 s, and it ends by itself after 6. */
#define TYPING_EVERY_MS 3000
#define TYPING_EXPIRES_IN_S 6
/* While the spool is full: when a client should try again. The lanes empty it in this order of time. */
#define OVERLOADED_RETRY_MS 1000
/* A payload longer than this is not looked into only to find the id for the answer to a refusal. */
#define REFUSED_PARSE_MAX 4096
#define MARK_BYTES_MAX 256
#define REQUEST_ID_MAX 128

/* ---- refusing ---- */

static enum ingest_verdict refuse_with(struct chat *chat, const struct session *session, const struct ingest_publish *publish,
	const struct answer_subject *subject, const struct error_detail *error)
{
	chat_respond_error(chat, session->client_id, subject, error, publish->correlation, publish->correlation_length);
	return error_code_is_transient(error->code) && publish->qos > 0 ? INGEST_TRANSIENT : INGEST_REFUSED;
}

static enum ingest_verdict refuse(struct chat *chat, const struct session *session, const struct ingest_publish *publish,
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
	return refuse_with(chat, session, publish, &subject, &error);
}

/* ---- chat/{c}/send ---- */

static bool names_own_response_topic(const struct session *session, const char *response_topic)
{
	struct topic topic = topic_parse(response_topic);
	return topic.kind == TOPIC_RESPONSE && topic.name_length == strlen(session->client_id) &&
	       memcmp(topic.name, session->client_id, topic.name_length) == 0;
}

static bool append_message(struct chat *chat, const struct session *session, const struct ingest_publish *publish,
	int64_t conversation_id, const struct envelope *envelope)
{
	struct record_message message = {
		.accepted_at_ms = chat->now_wall_ms,
		.conversation_id = conversation_id,
		.user_id = session->user->id,
		.device_id = session->device_id,
		.reply_to = envelope->reply_to,
		.ref = envelope->ref,
		.expires_in_s = envelope->expires_in_s,
		.body_length = (uint32_t)envelope->body_length,
		.extra_length = (uint32_t)envelope->extra_length,
		.correlation_length = publish->correlation_length,
		.client_id_length = (uint8_t)strlen(session->client_id),
		.type_length = (uint8_t)envelope->type_length,
	};
	struct record_parts parts = {
		.client_id = session->client_id,
		.correlation = publish->correlation,
		.type = envelope->type,
		.body = envelope->body,
		.extra = envelope->extra,
	};
	uint64_t position;

	if (envelope->has_id && !TEST_BREAK("skip_dedupe")) {
		memcpy(message.id, envelope->id, sizeof(message.id));
	} else {
		uuid_make(chat->now_wall_ms, message.id); /* now, or a replay would not be exact */
	}
	uint8_t flags = (uint8_t)((envelope->reply || publish->response_topic ? RECORD_FLAG_ANSWER : 0) |
				  (envelope->has_id ? RECORD_FLAG_OWN_ID : 0));
	if (TEST_BREAK("skip_spool") && message.id[15] % 32 == 0) {
		return true;
	}
	size_t size = record_message_size(&message);
	void *at = size <= RECORD_BYTES_MAX ? spool_append(chat->spool, size, &position) : NULL;
	if (!at) {
		return false;
	}
	record_write_message(at, position, flags, &message, &parts);
	return spool_append_done(chat->spool, size, record_slot(conversation_id));
}

static enum ingest_verdict send_message(
	struct chat *chat, struct session *session, const struct ingest_publish *publish, const struct topic *topic)
{
	struct envelope_limits limits = {.body_max_chars = (size_t)chat->options.body_max_chars};
	struct answer_subject subject = {.conversation_id = topic->id};
	struct error_detail error;
	struct envelope envelope = {0};

	if (!envelope_parse(publish->payload, publish->length, &limits, &envelope, &error)) {
		subject.id = envelope.has_id ? envelope.id : NULL;
		return refuse_with(chat, session, publish, &subject, &error);
	}
	enum ingest_verdict verdict = INGEST_ACCEPTED;
	subject.id = envelope.has_id ? envelope.id : NULL;
	if (publish->response_topic && !names_own_response_topic(session, publish->response_topic)) {
		error = (struct error_detail){
			ERROR_INVALID_FIELD, "response_topic", "the response topic must be chat/response/ and the own client id"};
		verdict = refuse_with(chat, session, publish, &subject, &error);
	} else if (!append_message(chat, session, publish, topic->id, &envelope)) {
		error = (struct error_detail){.code = ERROR_OVERLOADED};
		subject.retry_after_ms = OVERLOADED_RETRY_MS;
		verdict = refuse_with(chat, session, publish, &subject, &error);
	}
	envelope_free(&envelope);
	return verdict;
}

/* ---- chat/{c}/mark and chat/{c}/type ---- */

static enum ingest_verdict mark(
	struct chat *chat, const struct session *session, const struct ingest_publish *publish, const struct topic *topic)
{
	struct answer_subject subject = {.conversation_id = topic->id};
	struct error_detail error;
	struct mark parsed;
	uint64_t position;

	if (!mark_parse(publish->payload, publish->length, &parsed, &error)) {
		return refuse_with(chat, session, publish, &subject, &error);
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
	size_t size = record_mark_size(&record);
	void *at = spool_append(chat->spool, size, &position);
	if (!at) {
		return refuse(chat, session, publish, topic, ERROR_OVERLOADED, OVERLOADED_RETRY_MS);
	}
	record_write_mark(at, position, &record, session->client_id);
	if (!spool_append_done(chat->spool, size, record_slot(topic->id))) {
		return refuse(chat, session, publish, topic, ERROR_OVERLOADED, OVERLOADED_RETRY_MS);
	}
	return INGEST_ACCEPTED;
}

static enum ingest_verdict typing(struct chat *chat, struct session *session, const struct ingest_publish *publish,
	const struct topic *topic, const struct acl_standing *standing)
{
	struct answer_subject subject = {.conversation_id = topic->id};
	struct host_properties properties = {.json = true};
	struct error_detail error;
	char text[TOPIC_TEXT_MAX];
	struct buffer json;
	bool is_typing;

	if (!typing_parse(publish->payload, publish->length, &is_typing, &error)) {
		return refuse_with(chat, session, publish, &subject, &error);
	}
	bool same = session->typing_conversation_id == topic->id;
	if (!standing->known || standing->role == ACL_ROLE_NONE || !chat->listening ||
		(is_typing && same && chat->now_ms - session->typing_ms < TYPING_EVERY_MS)) {
		return INGEST_ACCEPTED; /* the first thing to be dropped, whatever happens */
	}
	session->typing_conversation_id = is_typing ? topic->id : 0;
	session->typing_ms = chat->now_ms;
	buffer_init(&json, 128);
	buffer_append_text(&json, "{\"user\":");
	buffer_append_integer(&json, session->user->id);
	buffer_append_text(&json, is_typing ? ",\"typing\":true,\"expires_in\":" : ",\"typing\":false,\"expires_in\":");
	buffer_append_integer(&json, is_typing ? TYPING_EXPIRES_IN_S : 0);
	topic_format(TOPIC_TYPING, topic->id, text);
	if (buffer_append_text(&json, "}")) {
		(void)chat_publish(chat, text, json.data, json.length, 0, &properties);
	}
	buffer_free(&json);
	return INGEST_ACCEPTED;
}

/* ---- chat/request/{method} ---- */

/* No method is there yet: the answer says so, under the request's own id. */
static enum ingest_verdict request(struct chat *chat, const struct session *session, const struct ingest_publish *publish)
{
	struct error_detail error = {.code = ERROR_NOT_FOUND, .message = "there is no such method"};
	struct answer_subject subject = {0};
	const char *why;
	char *request_id = NULL;

	cJSON *parameters = json_parse(publish->payload, publish->length, JSON_DEPTH_MAX, &why);
	if (publish->length > 0 && !cJSON_IsObject(parameters)) {
		error = (struct error_detail){
			.code = ERROR_INVALID_JSON, .message = parameters ? "parameters must be a JSON object" : why};
	}
	const cJSON *id = parameters ? cJSON_GetObjectItemCaseSensitive(parameters, "request_id") : NULL;
	if (cJSON_IsString(id) || cJSON_IsNumber(id)) {
		request_id = cJSON_PrintUnformatted(id);
		subject.request_id = request_id && strlen(request_id) <= REQUEST_ID_MAX ? request_id : NULL;
		subject.request_id_length = subject.request_id ? strlen(request_id) : 0;
	}
	enum ingest_verdict verdict = refuse_with(chat, session, publish, &subject, &error);
	cJSON_free(request_id);
	cJSON_Delete(parameters);
	return verdict == INGEST_REFUSED ? INGEST_ACCEPTED : verdict; /* the request was taken; its answer is an error */
}

/* ---- the door ---- */

static const struct rate_limit *limit_of(const struct chat *chat, enum topic_kind kind)
{
	switch (kind) {
	case TOPIC_SEND:
		return &chat->options.rate_messages;
	case TOPIC_REQUEST:
		return &chat->options.rate_requests;
	default:
		return &mark_limit;
	}
}

static bool take_from_bucket(struct chat *chat, struct session *session, enum topic_kind kind, int64_t *retry_after_ms)
{
	struct user *user = session->user;
	struct rate_bucket *bucket;
	if (!user) {
		bucket = &session->guest_requests;
	} else if (kind == TOPIC_SEND) {
		bucket = &user->messages;
	} else {
		bucket = kind == TOPIC_REQUEST ? &user->requests : &user->marks;
	}
	return rate_bucket_take(bucket, limit_of(chat, kind), chat->now_ms, retry_after_ms);
}

static size_t size_limit(enum topic_kind kind)
{
	return kind == TOPIC_MARK || kind == TOPIC_TYPE ? MARK_BYTES_MAX : ENVELOPE_BYTES_MAX;
}

enum ingest_verdict ingest_message(struct chat *chat, const struct ingest_publish *publish)
{
	struct topic topic = topic_parse(publish->topic);
	struct acl_standing standing = {0};
	int64_t retry_after_ms = 0;

	if (topic.kind == TOPIC_FOREIGN || topic.kind == TOPIC_SYSTEM) {
		return INGEST_FOREIGN;
	}
	struct session *session = registry_find_session(chat->registry, publish->client);
	if (!session || session->state == SESSION_REFUSED) {
		return INGEST_REFUSED;
	}
	struct acl_subject subject = {.user_id = session->user ? session->user->id : 0, .client_id = session->client_id};
	if (topic.id) {
		standing = registry_standing(chat->registry, session, topic.id);
	}
	if (publish->length > size_limit(topic.kind)) {
		return refuse(chat, session, publish, &topic, ERROR_TOO_LONG, 0);
	}
	if (publish->qos > 1) {
		struct answer_subject about = {.conversation_id = topic.id};
		struct error_detail error = {ERROR_INVALID_FIELD, "qos", "publish with QoS 0 or 1"};
		return refuse_with(chat, session, publish, &about, &error);
	}
	if (!take_from_bucket(chat, session, topic.kind, &retry_after_ms)) {
		return refuse(chat, session, publish, &topic, ERROR_RATE_LIMITED, retry_after_ms);
	}
	enum error_code code = acl_publish(&topic, &subject, &standing);
	if (code != ERROR_NONE) {
		return refuse(chat, session, publish, &topic, code, 0);
	}
	switch (topic.kind) {
	case TOPIC_SEND:
		return send_message(chat, session, publish, &topic);
	case TOPIC_MARK:
		return mark(chat, session, publish, &topic);
	case TOPIC_TYPE:
		return typing(chat, session, publish, &topic, &standing);
	default:
		return request(chat, session, publish);
	}
}
