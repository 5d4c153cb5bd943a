/* fuzz_envelope.c - any bytes as the payload of send, mark and type.
 *
 * Beyond memory errors: an accepted envelope keeps its promises (UTF-8, limits, canonical form), what clients would receive
 * of it is JSON, and sending that again is the same message.
 */
#include "../../common/buffer.h"
#include "../../common/json.h"
#include "../../common/text.h"
#include "../../plugin/envelope.h"
#include "../../plugin/mark.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct envelope_limits limits = {.body_max_chars = 200}; /* within the fuzzer's reach */

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static void check_error(const struct error_detail *error)
{
	require(error->code > ERROR_NONE && error->code < ERROR_CODES && !error_code_is_transient(error->code));
	require(error_code_message(error->code) != NULL);
}

/* The content of an envelope as an envelope once more; without id and reply, which are no content. */
static void write_again(struct buffer *out, const struct envelope *envelope)
{
	require(buffer_append_text(out, "{\"type\":") && buffer_append_json_string(out, envelope->type, envelope->type_length));
	require(buffer_append_text(out, ",\"body\":") && buffer_append_json_string(out, envelope->body, envelope->body_length));
	if (envelope->reply_to != 0) {
		require(buffer_append_format(out, ",\"reply_to\":%lld", (long long)envelope->reply_to));
	}
	if (envelope->ref != 0) {
		require(buffer_append_format(out, ",\"ref\":%lld", (long long)envelope->ref));
	}
	if (envelope->expires_in_s != 0) {
		require(buffer_append_format(out, ",\"expires_in\":%lld", (long long)envelope->expires_in_s));
	}
	if (envelope->extra != NULL) {
		require(buffer_append_text(out, ",") && buffer_append(out, envelope->extra + 1, envelope->extra_length - 2));
	}
	require(buffer_append_text(out, "}"));
}

static void hash(const struct envelope *envelope, uint8_t out[16])
{
	envelope_content_hash(envelope->type, envelope->type_length, envelope->body, envelope->body_length, envelope->reply_to,
		envelope->ref, envelope->extra, envelope->extra_length, envelope->expires_in_s, out);
}

static void check_same_again(const struct envelope *envelope)
{
	struct envelope again;
	struct error_detail error;
	struct buffer payload;
	uint8_t first[16];
	uint8_t second[16];

	buffer_init(&payload, 16 * ENVELOPE_BYTES_MAX);
	write_again(&payload, envelope);
	require(envelope_parse(payload.data, payload.length, &limits, &again, &error));
	require(again.extra_length == envelope->extra_length);
	require(again.extra == NULL || memcmp(again.extra, envelope->extra, again.extra_length) == 0);
	hash(envelope, first);
	hash(&again, second);
	require(memcmp(first, second, sizeof(first)) == 0);
	envelope_free(&again);
	buffer_free(&payload);
}

static void check_view(const struct envelope *envelope)
{
	struct message_view view = {.conversation_id = 1,
		.seq = 2,
		.id = envelope->has_id ? envelope->id : NULL,
		.sender_id = 3,
		.sent_at_ms = 4,
		.type = envelope->type,
		.type_length = envelope->type_length,
		.body = envelope->body,
		.body_length = envelope->body_length,
		.reply_to = envelope->reply_to,
		.ref = envelope->ref,
		.extra = envelope->extra,
		.extra_length = envelope->extra_length,
		.expires_at_ms = envelope->expires_in_s};
	struct buffer out;
	const char *why;

	buffer_init(&out, 16 * ENVELOPE_BYTES_MAX);
	require(message_view_append(&out, &view));
	cJSON *tree = json_parse(out.data, out.length, JSON_DEPTH_MAX, &why);
	require(tree != NULL);
	const char *body = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, "body"));
	require(body != NULL && strlen(body) == envelope->body_length &&
		memcmp(body, envelope->body, envelope->body_length) == 0);
	cJSON_Delete(tree);
	buffer_free(&out);
}

static void check_envelope(const char *payload, size_t length)
{
	struct envelope envelope;
	struct error_detail error;
	size_t chars;

	if (!envelope_parse(payload, length, &limits, &envelope, &error)) {
		check_error(&error);
		require(envelope.memory == NULL && envelope.extra == NULL);
		return;
	}
	require(text_check_utf8(envelope.body, envelope.body_length, &chars) && chars <= limits.body_max_chars);
	require(envelope.type_length > 0 && envelope.type_length <= ENVELOPE_TYPE_BYTES_MAX);
	require(envelope.extra == NULL || envelope.extra_length <= 81920);
	check_same_again(&envelope);
	check_view(&envelope);
	envelope_free(&envelope);
}

static void check_mark(const char *payload, size_t length)
{
	struct mark mark;
	struct error_detail error;
	bool typing;

	if (mark_parse(payload, length, &mark, &error)) {
		require(mark.read >= 0 && mark.delivered >= 1 && mark.delivered >= mark.read && mark.delivered <= TEXT_ID_MAX);
	} else {
		check_error(&error);
	}
	if (!typing_parse(payload, length, &typing, &error)) {
		check_error(&error);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_envelope((const char *)data, size);
	check_mark((const char *)data, size);
	return 0;
}
