/* publish.c - see publish.h. */
#include "publish.h"

#include "answer.h"
#include "test_faults.h"
#include "uuid.h"

#include <string.h>

enum publish_verdict publish_refuse(struct chat *chat, const struct session *session, const struct publish *publish,
	const struct answer_subject *subject, const struct error_detail *error)
{
	chat_respond_error(chat, session->client_id, subject, error, publish->correlation, publish->correlation_length);
	return error_code_is_transient(error->code) && publish->qos > 0 ? PUBLISH_TRANSIENT : PUBLISH_REFUSED;
}

bool publish_check_response_topic(const struct session *session, const struct publish *publish, struct error_detail *error)
{
	if (!publish->response_topic) {
		return true;
	}
	struct topic topic = topic_parse(publish->response_topic);
	if (topic.kind == TOPIC_RESPONSE && topic.name_length == strlen(session->client_id) &&
		memcmp(topic.name, session->client_id, topic.name_length) == 0) {
		return true;
	}
	*error = (struct error_detail){
		ERROR_INVALID_FIELD, "response_topic", "the response topic must be chat/response/ and the own client id"};
	return false;
}

bool publish_append_message(struct chat *chat, const struct session *session, int64_t conversation_id,
	const struct envelope *envelope, uint8_t flags, const void *correlation, size_t correlation_length)
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
		.correlation_length = (uint16_t)correlation_length,
		.client_id_length = (uint8_t)strlen(session->client_id),
		.type_length = (uint8_t)envelope->type_length,
	};
	struct record_parts parts = {
		.client_id = session->client_id,
		.correlation = correlation,
		.type = envelope->type,
		.body = envelope->body,
		.extra = envelope->extra,
	};
	uint64_t position;

	if (envelope->has_id && !TEST_BREAK("skip_dedupe")) {
		memcpy(message.id, envelope->id, sizeof(message.id));
		flags |= RECORD_FLAG_OWN_ID;
	} else {
		uuid_make(chat->now_wall_ms, message.id); /* now, or a replay would not be exact */
	}
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
