/* answer.c - see answer.h. */
#include "answer.h"

#include "uuid.h"

#include <string.h>

static void append_id(struct buffer *out, const uint8_t id[16])
{
	char text[UUID_TEXT_LENGTH];
	uuid_format(id, text);
	buffer_append_text(out, "\"id\":\"");
	buffer_append(out, text, sizeof(text));
	buffer_append_text(out, "\",");
}

bool answer_sent(struct buffer *out, const uint8_t id[16], int64_t conversation_id, int64_t seq, int64_t sent_at_ms)
{
	buffer_append_text(out, "{");
	append_id(out, id);
	buffer_append_text(out, "\"conversation\":");
	buffer_append_integer(out, conversation_id);
	buffer_append_text(out, ",\"seq\":");
	buffer_append_integer(out, seq);
	buffer_append_text(out, ",\"sent_at\":");
	buffer_append_integer(out, sent_at_ms);
	return buffer_append_text(out, ",\"status\":\"sent\"}");
}

bool answer_begin(struct buffer *out, const char *request_id, size_t request_id_length)
{
	buffer_append_text(out, "{");
	if (request_id_length == 0) {
		return !out->failed;
	}
	buffer_append_text(out, "\"request_id\":");
	buffer_append(out, request_id, request_id_length);
	return buffer_append_text(out, ",");
}

bool answer_send_result(struct buffer *out, const char *request_id, size_t request_id_length, int64_t seq, int64_t sent_at_ms)
{
	answer_begin(out, request_id, request_id_length);
	buffer_append_text(out, "\"result\":{\"seq\":");
	buffer_append_integer(out, seq);
	buffer_append_text(out, ",\"sent_at\":");
	buffer_append_integer(out, sent_at_ms);
	return buffer_append_text(out, "}}");
}

bool answer_error(struct buffer *out, const struct answer_subject *subject, const struct error_detail *error)
{
	const char *message = error->message ? error->message : error_code_message(error->code);

	answer_begin(out, subject->request_id, subject->request_id ? subject->request_id_length : 0);
	if (subject->id) {
		append_id(out, subject->id);
	}
	if (subject->conversation_id > 0) {
		buffer_append_text(out, "\"conversation\":");
		buffer_append_integer(out, subject->conversation_id);
		buffer_append_text(out, ",");
	}
	if (subject->topic) {
		buffer_append_text(out, "\"topic\":");
		buffer_append_json_string(out, subject->topic, strlen(subject->topic));
		buffer_append_text(out, ",");
	}
	buffer_append_text(out, "\"error\":{\"code\":\"");
	buffer_append_text(out, error_code_name(error->code));
	buffer_append_text(out, "\",\"message\":");
	buffer_append_json_string(out, message, strlen(message));
	if (error->field) {
		buffer_append_text(out, ",\"field\":");
		buffer_append_json_string(out, error->field, strlen(error->field));
	}
	if (subject->retry_after_ms > 0) {
		buffer_append_text(out, ",\"retry_after_ms\":");
		buffer_append_integer(out, subject->retry_after_ms);
	}
	return buffer_append_text(out, "}}");
}
