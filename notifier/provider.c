/* provider.c - see provider.h. */
#include "provider.h"

#include "digest.h"
#include "json.h"
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Endpoints are at most 1,000 bytes (endpoint.c), tokens 4,096. */
#define URL_MAX 6000
#define HEADERS_MAX 8192 /* bytes; a Google access token takes 1,000, or 2,000 with a delegated identity */
#define BODY_MAX 16384   /* the services take 4,096 or so; a token and its JSON come on top */

static const struct provider *const providers[] = {&provider_fcm, &provider_apns, &provider_webpush};

const struct provider *provider_find(const char *name)
{
	for (size_t i = 0; i < sizeof(providers) / sizeof(providers[0]); i++) {
		if (strcmp(name, providers[i]->name) == 0) {
			return providers[i];
		}
	}
	return NULL;
}

const char *provider_action_name(enum provider_action action)
{
	static const char *const names[ACTION_COUNT] = {
		[ACTION_ACCEPTED] = "accepted",
		[ACTION_RETRY] = "retry",
		[ACTION_SLOW] = "slow",
		[ACTION_REFRESH] = "refresh",
		[ACTION_PAUSE] = "pause",
		[ACTION_FORGET] = "forget",
		[ACTION_SHRINK] = "shrink",
		[ACTION_DEAD] = "dead",
	};
	return names[action];
}

/* ---- requests ---- */

void provider_request_init(struct provider_request *request)
{
	buffer_init(&request->url, URL_MAX);
	buffer_init(&request->text, HEADERS_MAX);
	buffer_init(&request->body, BODY_MAX);
	request->header_count = 0;
}

void provider_request_free(struct provider_request *request)
{
	buffer_free(&request->url);
	buffer_free(&request->text);
	buffer_free(&request->body);
}

void provider_request_reset(struct provider_request *request)
{
	buffer_reset(&request->url);
	buffer_reset(&request->text);
	buffer_reset(&request->body);
	request->header_count = 0;
}

void provider_header(struct provider_request *request, const char *format, ...)
{
	char line[4096];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length >= sizeof(line) || request->header_count == PROVIDER_HEADERS_MAX) {
		request->text.failed = true;
		return;
	}
	request->headers[request->header_count++] = request->text.length;
	buffer_append(&request->text, line, (size_t)length + 1);
}

bool provider_request_ok(const struct provider_request *request)
{
	return !request->url.failed && !request->text.failed && !request->body.failed;
}

/* ---- answers ---- */

struct provider_verdict provider_classify_status(const struct provider_answer *answer)
{
	struct provider_verdict verdict = {.action = ACTION_RETRY, .delay_ms = answer->retry_after_ms};

	if (answer->status == 0) {
		verdict.reason = "no_answer";
	} else if (answer->status == 429) {
		verdict.reason = "too_many_requests";
	} else if (answer->status == 408 || answer->status == 425) {
		verdict.reason = "timeout";
	} else if (answer->status >= 500) {
		verdict.reason = "server_error";
	} else {
		verdict = (struct provider_verdict){.action = ACTION_DEAD, .reason = "unexpected_status"};
	}
	return verdict;
}

struct provider_verdict provider_classify_json(const struct provider_answer *answer, provider_explain explain)
{
	struct provider_verdict verdict = {.reason = NULL};
	const char *why;

	if (answer->status == 200) {
		return (struct provider_verdict){.action = ACTION_ACCEPTED, .reason = "accepted"};
	}
	cJSON *tree = answer->length > 0 ? json_parse(answer->body, answer->length, JSON_DEPTH_MAX, &why) : NULL;
	if (tree) {
		verdict = explain(answer, tree);
		cJSON_Delete(tree);
	}
	return verdict;
}

/* ---- what all payloads need ---- */

void provider_push_id(const struct push *push, uint8_t id[16])
{
	char text[128];
	uint8_t digest[DIGEST_SHA256_SIZE];
	int length = snprintf(text, sizeof(text), "%d %lld %lld %lld", (int)push->kind, (long long)push->device_id,
		(long long)push->conversation_id, (long long)push->seq);

	digest_sha256(text, (size_t)length, digest);
	memcpy(id, digest, 16);
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x80); /* version 8 */
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80); /* variant */
}

void provider_append_cut(struct buffer *buffer, const char *text, size_t size)
{
	static const char ellipsis[] = "\xe2\x80\xa6";
	char cut[PUSH_BODY_MAX + sizeof(ellipsis)];
	size_t length = strlen(text);

	if (length <= size || size > PUSH_BODY_MAX) {
		buffer_append_json_string(buffer, text, length);
		return;
	}
	length = text_cut(text, size);
	memcpy(cut, text, length);
	memcpy(cut + length, ellipsis, sizeof(ellipsis));
	buffer_append_json_string(buffer, cut, length + (size > 0 ? sizeof(ellipsis) - 1 : 0));
}

bool provider_fit(provider_payload payload, const struct provider_input *input, size_t max, struct buffer *out)
{
	size_t body_max = input->push->body ? strlen(input->push->body) : 0;

	body_max = body_max > PUSH_BODY_MAX ? PUSH_BODY_MAX : body_max;
	for (;;) {
		buffer_reset(out);
		payload(input, body_max, out);
		if (out->failed || out->length <= max || body_max == 0) {
			return !out->failed && out->length <= max;
		}
		/* A byte of text takes at most six in JSON: never cut more than is needed. */
		size_t excess = (out->length - max + 5) / 6;
		body_max = excess < body_max ? body_max - excess : 0;
	}
}
