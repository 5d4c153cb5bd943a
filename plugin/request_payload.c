/* request_payload.c - see request_payload.h. Any thread; runs on the broker thread for each request. */
#include "request_payload.h"

#include "../common/buffer.h"
#include "../common/json.h"
#include "../common/text.h"

#include <string.h>

static bool refuse(struct error_detail *error, enum error_code code, const char *field, const char *message)
{
	*error = (struct error_detail){.code = code, .field = field, .message = message};
	return false;
}

/* Takes request_id out of the object and writes it as JSON. */
static bool take_request_id(struct request_payload *out, struct error_detail *error)
{
	cJSON *id = cJSON_DetachItemFromObjectCaseSensitive(out->parameters, "request_id");
	struct buffer json;
	int64_t number;
	bool good = true;

	if (!id) {
		return true;
	}
	buffer_init(&json, sizeof(out->request_id));
	if (json_integer(id, -TEXT_ID_MAX, TEXT_ID_MAX, &number)) {
		buffer_append_integer(&json, number);
	} else if (cJSON_IsString(id) && strlen(id->valuestring) <= REQUEST_ID_BYTES_MAX) {
		buffer_append_json_string(&json, id->valuestring, strlen(id->valuestring));
	} else {
		good = refuse(
			error, ERROR_INVALID_FIELD, "request_id", "request_id is an integer or a string of at most 128 bytes");
	}
	if (json.failed) {
		good = refuse(error, ERROR_UNAVAILABLE, NULL, NULL); /* no memory */
	} else if (json.length > 0) {
		memcpy(out->request_id, json.data, json.length);
		out->request_id_length = json.length;
	}
	buffer_free(&json);
	cJSON_Delete(id);
	return good;
}

bool request_payload_parse(const char *payload, size_t length, struct request_payload *out, struct error_detail *error)
{
	const char *why = NULL;

	out->request_id_length = 0;
	out->parameters = length == 0 ? cJSON_CreateObject() : json_parse(payload, length, JSON_DEPTH_MAX, &why);
	if (!out->parameters) {
		bool no_memory = !why || strcmp(why, "no memory") == 0;
		return refuse(error, no_memory ? ERROR_UNAVAILABLE : ERROR_INVALID_JSON, NULL, no_memory ? NULL : why);
	}
	bool good = cJSON_IsObject(out->parameters) ||
		    refuse(error, ERROR_INVALID_JSON, NULL, "the parameters must be a JSON object");
	good = good && take_request_id(out, error);
	if (!good) {
		request_payload_free(out);
	}
	return good;
}

void request_payload_free(struct request_payload *payload)
{
	cJSON_Delete(payload->parameters);
	payload->parameters = NULL;
}
