/* apns.c - Apple Push Notification service (developer.apple.com, "Sending notification requests to APNs" and "Handling
 * notification responses from APNs"). Pure.
 */
#include "provider.h"

#include "json.h"
#include "uuid.h"

#include <string.h>

#define PAYLOAD_MAX 4096
#define TOKEN_SLOW_MS 300000  /* TooManyProviderTokenUpdates: the token in use goes on being good */
#define DEVICE_SLOW_MS 60000  /* TooManyRequests: this device had too many */
#define OUTAGE_DELAY_MS 60000 /* Apple asks for 15 minutes; news of a message is stale by then */

static void payload(const struct provider_input *input, size_t body_max, struct buffer *out)
{
	const struct push *push = input->push;

	if (push->kind == PUSH_CLEAR) {
		buffer_append_text(out, "{\"aps\":{\"content-available\":1");
		if (push->badge != PUSH_BADGE_NONE) {
			buffer_append_format(out, ",\"badge\":%lld", (long long)push->badge);
		}
		buffer_append_text(out, "},\"kind\":\"clear\",\"conversations\":[");
		for (size_t i = 0; i < push->cleared_count && i < PUSH_CLEAR_MAX; i++) {
			buffer_append_format(out, "%s%lld", i > 0 ? "," : "", (long long)push->cleared[i]);
		}
		buffer_append_text(out, "]}");
		return;
	}
	/* mutable-content wakes the app's extension, which may decrypt or complete what is shown; it needs an alert to change. */
	buffer_append_text(out, "{\"aps\":{\"alert\":{\"title\":");
	provider_append_cut(out, push->title, push->small ? 20 : PUSH_TITLE_MAX);
	buffer_append_text(out, ",\"body\":");
	provider_append_cut(out, push->small ? "" : push->body, body_max);
	buffer_append_format(out, "},\"sound\":\"default\",\"mutable-content\":1,\"thread-id\":\"conversation-%lld\"",
		(long long)push->conversation_id);
	if (push->badge != PUSH_BADGE_NONE) {
		buffer_append_format(out, ",\"badge\":%lld", (long long)push->badge);
	}
	buffer_append_format(out, "},\"kind\":\"%s\",\"conversation\":%lld,\"seq\":%lld,\"count\":%lld}",
		push->kind == PUSH_TEST ? "test" : "message", (long long)push->conversation_id, (long long)push->seq,
		(long long)push->count);
}

/* What stands in the path is hexadecimal, whatever its length. */
static bool is_hexadecimal(const char *token)
{
	size_t length = strlen(token);
	return length >= 2 && length <= 512 && strspn(token, "0123456789abcdefABCDEF") == length;
}

static bool build(const struct provider_input *input, struct provider_request *request)
{
	const struct push *push = input->push;
	bool silent = push->kind == PUSH_CLEAR;
	uint8_t id[16];
	char id_text[UUID_TEXT_LENGTH];

	provider_request_reset(request);
	if (!is_hexadecimal(push->token) || !provider_fit(payload, input, PAYLOAD_MAX, &request->body)) {
		return false;
	}
	provider_push_id(push, id);
	uuid_format(id, id_text);
	buffer_append_text(&request->url, input->settings->url);
	buffer_append_text(&request->url, "/3/device/");
	buffer_append(&request->url, push->token, strlen(push->token) + 1);
	if (input->authorization) {
		provider_header(request, "authorization: bearer %s", input->authorization);
	}
	provider_header(request, "apns-topic: %s", input->settings->topic);
	provider_header(request, "apns-push-type: %s", silent ? "background" : "alert");
	provider_header(request, "apns-priority: %d", silent ? 5 : 10);
	provider_header(request, "apns-expiration: %lld", (long long)(push->expires_at_ms / 1000));
	provider_header(request, "apns-id: %.*s", UUID_TEXT_LENGTH, id_text);
	if (!silent) {
		provider_header(request, "apns-collapse-id: conversation-%lld", (long long)push->conversation_id);
	}
	provider_header(request, "content-type: application/json");
	return provider_request_ok(request);
}

/* ---- answers ---- */

struct row {
	int status;
	const char *reason;
	enum provider_action action;
	int64_t delay_ms;
};

static const struct row table[] = {
	{400, "BadCollapseId", ACTION_DEAD, 0},
	{400, "BadDeviceToken", ACTION_FORGET, 0}, /* the caller first makes sure that not the environment is wrong */
	{400, "BadExpirationDate", ACTION_DEAD, 0}, {400, "BadMessageId", ACTION_DEAD, 0}, {400, "BadPriority", ACTION_DEAD, 0},
	{400, "BadTopic", ACTION_PAUSE, 0}, {400, "DeviceTokenNotForTopic", ACTION_PAUSE, 0},
	{400, "DuplicateHeaders", ACTION_DEAD, 0}, {400, "IdleTimeout", ACTION_RETRY, 0},
	{400, "InvalidPushType", ACTION_DEAD, 0}, {400, "MissingDeviceToken", ACTION_DEAD, 0},
	{400, "MissingTopic", ACTION_PAUSE, 0}, {400, "PayloadEmpty", ACTION_DEAD, 0}, {400, "TopicDisallowed", ACTION_PAUSE, 0},
	{403, "BadCertificate", ACTION_PAUSE, 0}, {403, "BadCertificateEnvironment", ACTION_PAUSE, 0},
	{403, "BadEnvironmentKeyIdInToken", ACTION_PAUSE, 0},
	{403, "BadEnvironmentKeyInToken", ACTION_PAUSE, 0}, /* as it was seen */
	{403, "ExpiredProviderToken", ACTION_REFRESH, 0}, {403, "Forbidden", ACTION_PAUSE, 0},
	{403, "InvalidProviderToken", ACTION_PAUSE, 0}, {403, "MissingProviderToken", ACTION_PAUSE, 0},
	{403, "UnrelatedKeyIdInToken", ACTION_PAUSE, 0}, {404, "BadPath", ACTION_DEAD, 0},
	{405, "MethodNotAllowed", ACTION_DEAD, 0}, {410, "ExpiredToken", ACTION_FORGET, 0},
	{410, "Unregistered", ACTION_FORGET, 0}, {413, "PayloadTooLarge", ACTION_SHRINK, 0},
	{429, "TooManyProviderTokenUpdates", ACTION_SLOW, TOKEN_SLOW_MS}, {429, "TooManyRequests", ACTION_RETRY, DEVICE_SLOW_MS},
	{500, "InternalServerError", ACTION_RETRY, OUTAGE_DELAY_MS}, {503, "ServiceUnavailable", ACTION_RETRY, OUTAGE_DELAY_MS},
	{503, "Shutdown", ACTION_RETRY, 0}, /* this server goes; the next connection finds another */
};

static struct provider_verdict classify_reason(const struct provider_answer *answer, const cJSON *tree)
{
	const cJSON *reason = cJSON_GetObjectItemCaseSensitive(tree, "reason");
	int64_t gone_ms = 0;

	for (size_t i = 0; cJSON_IsString(reason) && i < sizeof(table) / sizeof(table[0]); i++) {
		const struct row *row = &table[i];
		if (row->status == answer->status && strcmp(row->reason, reason->valuestring) == 0) {
			(void)json_integer(cJSON_GetObjectItemCaseSensitive(tree, "timestamp"), 1, INT64_C(1) << 52, &gone_ms);
			return (struct provider_verdict){.action = row->action,
				.reason = row->reason,
				.delay_ms = answer->retry_after_ms > 0 ? answer->retry_after_ms : row->delay_ms,
				.gone_ms = gone_ms};
		}
	}
	return (struct provider_verdict){.reason = NULL};
}

static struct provider_verdict classify(const struct provider_answer *answer)
{
	struct provider_verdict verdict = provider_classify_json(answer, classify_reason);

	if (verdict.reason) {
		return verdict;
	}
	switch (answer->status) {
	case 403:
		return (struct provider_verdict){.action = ACTION_PAUSE, .reason = "Forbidden"};
	case 410:
		return (struct provider_verdict){.action = ACTION_FORGET, .reason = "Unregistered"};
	case 413:
		return (struct provider_verdict){.action = ACTION_SHRINK, .reason = "PayloadTooLarge"};
	default:
		return provider_classify_status(answer);
	}
}

const struct provider provider_apns = {
	.name = "apns",
	.build = build,
	.classify = classify,
	.payload_max = PAYLOAD_MAX,
	.clears = true,
	.in_flight = 200,
	.one_connection = true,
};
