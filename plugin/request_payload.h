/* request_payload.h - what is published to chat/request/{method}: strict JSON, and the frame that its answer comes in. Pure.
 *
 * Of the parameters only `request_id` is known here; the rest is the method's.
 */
#ifndef CHAT_PLUGIN_REQUEST_PAYLOAD_H
#define CHAT_PLUGIN_REQUEST_PAYLOAD_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>

/* Longer than any list that a method takes; message.send alone may be as long as an envelope. */
#define REQUEST_BYTES_MAX ((size_t)262144)
/* A request_id: a string of at most 128 bytes, or an integer. As JSON a string's bytes may be written as six each. */
#define REQUEST_ID_BYTES_MAX 128
#define REQUEST_ID_JSON_MAX (REQUEST_ID_BYTES_MAX * 6 + 2)

struct cJSON;

struct request_payload {
	struct cJSON *parameters; /* an object, request_id taken out; owned */
	char request_id[REQUEST_ID_JSON_MAX];
	size_t request_id_length; /* 0: none */
};

/* True with *out filled (release with request_payload_free), or false with *error; the request_id is then set where it could be
 * read, so that the error can be answered under it, and nothing is to be released. No bytes at all are an empty object. */
__attribute__((warn_unused_result)) bool request_payload_parse(
	const char *payload, size_t length, struct request_payload *out, struct error_detail *error);
void request_payload_free(struct request_payload *payload);

#endif
