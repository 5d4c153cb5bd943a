/* answer.h - the JSON that goes to chat/response/{client id}. Pure. */
#ifndef CHAT_PLUGIN_ANSWER_H
#define CHAT_PLUGIN_ANSWER_H

#include "buffer.h"
#include "error.h"

#include <stdint.h>

/* {"id":…,"conversation":42,"seq":1017,"sent_at":…,"status":"sent"} */
bool answer_sent(struct buffer *out, const uint8_t id[16], int64_t conversation_id, int64_t seq, int64_t sent_at_ms);

/* Begins the answer to a request: `{` or `{"request_id":…,`; request_id as JSON text, length 0: none. */
bool answer_begin(struct buffer *out, const char *request_id, size_t request_id_length);
/* {"request_id":…,"result":{"seq":1017,"sent_at":…}} */
bool answer_send_result(struct buffer *out, const char *request_id, size_t request_id_length, int64_t seq, int64_t sent_at_ms);

/* What an error is about; absent parts are left out. */
struct answer_subject {
	const uint8_t *id;       /* 16 bytes or NULL */
	int64_t conversation_id; /* 0: none */
	const char *topic;       /* NULL: none; escaped here, valid UTF-8 as the broker guarantees */
	const char *request_id;  /* JSON text to be returned as it came, or NULL */
	size_t request_id_length;
	int64_t retry_after_ms; /* 0: none */
};
/* {"id":…,"conversation":42,"error":{"code":"…","message":"…","field":"…","retry_after_ms":…}} */
bool answer_error(struct buffer *out, const struct answer_subject *subject, const struct error_detail *error);

#endif
