/* fcm.c - Firebase Cloud Messaging, HTTP v1 (firebase.google.com/docs/reference/fcm/rest/v1/projects.messages). Pure.
 *
 * What the service says is looked for as Google's own clients do it: the errorCode of an FcmError among error.details, then
 * error.status, then the HTTP status. A body that is no JSON (a proxy's page) leaves the HTTP status alone to decide.
 */
#include "provider.h"

#include "json.h"

#include <string.h>

#define DATA_MAX 3900 /* of 4096: the service counts names and values in its own way */
#define TTL_MAX_S INT64_C(2419200)
#define QUOTA_DELAY_MS 60000  /* where 429 names no time (docs/cloud-messaging/scale-fcm) */
#define OUTAGE_DELAY_MS 10000 /* before any other retry, same page */
#define FCM_ERROR "type.googleapis.com/google.firebase.fcm.v1.FcmError"

static void append_pair(struct buffer *out, const char *name, int64_t value)
{
	buffer_append_format(out, "\"%s\":\"%lld\",", name, (long long)value);
}

/* Everything in `data` is a string. */
static void append_data(const struct push *push, size_t body_max, bool with_text, struct buffer *out)
{
	static const char *const kinds[] = {[PUSH_MESSAGE] = "message", [PUSH_CLEAR] = "clear", [PUSH_TEST] = "test"};

	buffer_append_text(out, "\"data\":{");
	if (push->kind == PUSH_CLEAR) {
		buffer_append_text(out, "\"conversations\":\"");
		for (size_t i = 0; i < push->cleared_count && i < PUSH_CLEAR_MAX; i++) {
			buffer_append_format(out, "%s%lld", i > 0 ? "," : "", (long long)push->cleared[i]);
		}
		buffer_append_text(out, "\",");
	} else {
		append_pair(out, "conversation", push->conversation_id);
		append_pair(out, "seq", push->seq);
		append_pair(out, "count", push->count);
	}
	if (push->badge != PUSH_BADGE_NONE) {
		append_pair(out, "badge", push->badge);
	}
	if (with_text && !push->small && push->kind != PUSH_CLEAR) {
		buffer_append_text(out, "\"title\":");
		provider_append_cut(out, push->title, PUSH_TITLE_MAX);
		buffer_append_text(out, ",\"body\":");
		provider_append_cut(out, push->body, body_max);
		buffer_append_text(out, ",");
	}
	buffer_append_format(out, "\"kind\":\"%s\"}", kinds[push->kind]);
}

static void append_android(const struct provider_input *input, bool drawn, struct buffer *out)
{
	const struct push *push = input->push;
	int64_t ttl_s = (push->expires_at_ms - input->now_ms) / 1000;

	ttl_s = ttl_s < 0 ? 0 : ttl_s > TTL_MAX_S ? TTL_MAX_S : ttl_s;
	/* No collapse_key: a device keeps four of them, and collapsible messages are slowed down to one in three minutes. A
	 * notification that replaces the one before it is what `tag` is for. */
	buffer_append_format(out, ",\"android\":{\"priority\":\"%s\",\"ttl\":\"%llds\"",
		push->kind == PUSH_CLEAR ? "normal" : "high", (long long)ttl_s);
	if (drawn) {
		buffer_append_format(out, ",\"notification\":{\"tag\":\"conversation-%lld\",\"channel_id\":\"messages\"}",
			(long long)push->conversation_id);
	}
	buffer_append_text(out, "}");
}

/* For iPhones that are reached through Google. */
static void append_apns(const struct push *push, struct buffer *out)
{
	buffer_append_format(out,
		",\"apns\":{\"headers\":{\"apns-collapse-id\":\"conversation-%lld\"},\"payload\":{\"aps\":"
		"{\"thread-id\":\"conversation-%lld\",\"mutable-content\":1,\"sound\":\"default\"",
		(long long)push->conversation_id, (long long)push->conversation_id);
	if (push->badge != PUSH_BADGE_NONE) {
		buffer_append_format(out, ",\"badge\":%lld", (long long)push->badge);
	}
	buffer_append_text(out, "}}}");
}

static void payload(const struct provider_input *input, size_t body_max, struct buffer *out)
{
	const struct push *push = input->push;
	bool drawn = !input->settings->data_only && push->kind != PUSH_CLEAR && !push->small;

	append_data(push, body_max, !drawn, out);
	if (drawn) {
		buffer_append_text(out, ",\"notification\":{\"title\":");
		provider_append_cut(out, push->title, PUSH_TITLE_MAX);
		buffer_append_text(out, ",\"body\":");
		provider_append_cut(out, push->body, body_max);
		buffer_append_text(out, "}");
	}
	append_android(input, drawn, out);
	if (drawn) {
		append_apns(push, out);
	}
}

static bool build(const struct provider_input *input, struct provider_request *request)
{
	struct buffer message;
	bool fits = false;

	provider_request_reset(request);
	buffer_init(&message, request->body.maximum);
	fits = provider_fit(payload, input, DATA_MAX, &message);
	buffer_append_text(&request->body, "{\"message\":{\"token\":");
	buffer_append_json_string(&request->body, input->push->token, strlen(input->push->token));
	buffer_append_text(&request->body, ",");
	buffer_append(&request->body, message.data, message.length);
	buffer_append_text(&request->body, "}}");
	buffer_free(&message);

	buffer_append_text(&request->url, input->settings->url);
	buffer_append(&request->url, input->settings->path, strlen(input->settings->path) + 1);
	provider_header(request, "authorization: Bearer %s", input->authorization);
	provider_header(request, "content-type: application/json");
	return fits && provider_request_ok(request);
}

/* ---- answers ---- */

struct row {
	int status; /* 0: any */
	const char *code;
	enum provider_action action;
	int64_t delay_ms; /* where the answer names none */
};

/* In this order: the first row that fits. */
static const struct row table[] = {
	{0, "UNREGISTERED", ACTION_FORGET, 0}, {0, "SENDER_ID_MISMATCH", ACTION_FORGET, 0},
	{0, "THIRD_PARTY_AUTH_ERROR", ACTION_PAUSE, 0}, {0, "QUOTA_EXCEEDED", ACTION_SLOW, QUOTA_DELAY_MS},
	{429, "RESOURCE_EXHAUSTED", ACTION_SLOW, QUOTA_DELAY_MS}, {0, "UNAVAILABLE", ACTION_RETRY, OUTAGE_DELAY_MS},
	{0, "INTERNAL", ACTION_RETRY, OUTAGE_DELAY_MS}, {0, "UNSPECIFIED_ERROR", ACTION_RETRY, QUOTA_DELAY_MS},
	{401, "UNAUTHENTICATED", ACTION_REFRESH, 0}, {403, "PERMISSION_DENIED", ACTION_PAUSE, 0},
	{0, "INVALID_ARGUMENT", ACTION_DEAD, 0},
	{404, "NOT_FOUND", ACTION_PAUSE, 0}, /* without an FcmError: the project does not exist */
};

/* A registration token that is none: the one INVALID_ARGUMENT that is about the token and not about what we wrote. */
static bool blames_token(const cJSON *error)
{
	const cJSON *message = cJSON_GetObjectItemCaseSensitive(error, "message");
	const cJSON *detail, *violation;

	if (cJSON_IsString(message) && strstr(message->valuestring, "not a valid FCM registration token")) {
		return true;
	}
	cJSON_ArrayForEach(detail, cJSON_GetObjectItemCaseSensitive(error, "details"))
	{
		cJSON_ArrayForEach(violation, cJSON_GetObjectItemCaseSensitive(detail, "fieldViolations"))
		{
			const cJSON *field = cJSON_GetObjectItemCaseSensitive(violation, "field");
			if (cJSON_IsString(field) && strcmp(field->valuestring, "message.token") == 0) {
				return true;
			}
		}
	}
	return false;
}

/* The most telling word of the answer, or NULL. */
static const char *find_code(const cJSON *error)
{
	const cJSON *detail, *status = cJSON_GetObjectItemCaseSensitive(error, "status");

	cJSON_ArrayForEach(detail, cJSON_GetObjectItemCaseSensitive(error, "details"))
	{
		const cJSON *type = cJSON_GetObjectItemCaseSensitive(detail, "@type");
		const cJSON *code = cJSON_GetObjectItemCaseSensitive(detail, "errorCode");
		if (cJSON_IsString(type) && cJSON_IsString(code) && strcmp(type->valuestring, FCM_ERROR) == 0) {
			return code->valuestring;
		}
	}
	return cJSON_IsString(status) ? status->valuestring : NULL;
}

static struct provider_verdict classify_error(const struct provider_answer *answer, const cJSON *tree)
{
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(tree, "error");
	const char *code = find_code(error);

	for (size_t i = 0; code && i < sizeof(table) / sizeof(table[0]); i++) {
		const struct row *row = &table[i];
		if (strcmp(row->code, code) == 0 && (row->status == 0 || row->status == answer->status)) {
			struct provider_verdict verdict = {.action = row->action, .reason = row->code};
			verdict.delay_ms = answer->retry_after_ms > 0 ? answer->retry_after_ms : row->delay_ms;
			if (row->action == ACTION_DEAD && blames_token(error)) {
				verdict.action = ACTION_FORGET;
			}
			return verdict;
		}
	}
	return (struct provider_verdict){.reason = NULL};
}

static struct provider_verdict classify(const struct provider_answer *answer)
{
	struct provider_verdict verdict = provider_classify_json(answer, classify_error);

	if (verdict.reason) {
		return verdict;
	}
	if (answer->status == 401) {
		return (struct provider_verdict){.action = ACTION_REFRESH, .reason = "UNAUTHENTICATED"};
	}
	if (answer->status == 403) {
		return (struct provider_verdict){.action = ACTION_PAUSE, .reason = "PERMISSION_DENIED"};
	}
	if (answer->status == 404) {
		return (struct provider_verdict){.action = ACTION_PAUSE, .reason = "NOT_FOUND"};
	}
	verdict = provider_classify_status(answer);
	if (answer->status == 429) {
		verdict.action = ACTION_SLOW;
		verdict.delay_ms = verdict.delay_ms > 0 ? verdict.delay_ms : QUOTA_DELAY_MS;
	}
	return verdict;
}

const struct provider provider_fcm = {
	.name = "fcm",
	.build = build,
	.classify = classify,
	.payload_max = DATA_MAX,
	.clears = true,
	.in_flight = 90, /* of the 100 streams that Google allows on a connection: more is answered with GOAWAY */
	.one_connection = true,
};
