/* mark.c - payloads of chat/{c}/mark and chat/{c}/type.
 *
 * Pure; any thread. Both are small flat JSON objects whose every member must be known: a misspelt member is an
 * error, so that a client's author sees it. What the numbers may be beyond their form (not past the newest message)
 * is decided where the conversation is known, at commit.
 */
#include "mark.h"

#include "../common/json.h"
#include "../common/text.h"

#include <string.h>

/* The longest sensible payload is under 60 bytes; the rest is room for blanks. A bound before any parsing. */
#define PAYLOAD_BYTES_MAX ((size_t)1024)

static bool refuse(struct error_detail *error, enum error_code code, const char *field, const char *message)
{
	*error = (struct error_detail){.code = code, .field = field, .message = message};
	return false;
}

/* Returns the object, or NULL with *error. */
static cJSON *parse_object(const char *payload, size_t length, struct error_detail *error)
{
	const char *why = NULL;
	cJSON *tree;

	if (length > PAYLOAD_BYTES_MAX) {
		refuse(error, ERROR_TOO_LONG, NULL, NULL);
		return NULL;
	}
	tree = json_parse(payload, length, JSON_DEPTH_MAX, &why);
	if (tree == NULL) {
		refuse(error, ERROR_INVALID_JSON, NULL, why);
		return NULL;
	}
	if (!cJSON_IsObject(tree)) {
		cJSON_Delete(tree);
		refuse(error, ERROR_INVALID_FIELD, NULL, "the payload must be a JSON object");
		return NULL;
	}
	return tree;
}

static bool take_mark_member(const cJSON *member, struct mark *out, struct error_detail *error)
{
	if (strcmp(member->string, "delivered") == 0) {
		if (!json_integer(member, 1, TEXT_ID_MAX, &out->delivered)) {
			return refuse(error, ERROR_INVALID_FIELD, "delivered", "delivered must be a sequence number");
		}
		return true;
	}
	if (strcmp(member->string, "read") == 0) {
		if (!json_integer(member, 1, TEXT_ID_MAX, &out->read)) {
			return refuse(error, ERROR_INVALID_FIELD, "read", "read must be a sequence number");
		}
		return true;
	}
	return refuse(error, ERROR_INVALID_FIELD, NULL, "unknown field");
}

bool mark_parse(const char *payload, size_t length, struct mark *out, struct error_detail *error)
{
	cJSON *tree = parse_object(payload, length, error);
	bool ok = false;

	*out = (struct mark){0};
	if (tree == NULL) {
		return false;
	}
	for (const cJSON *member = tree->child; member != NULL; member = member->next) {
		if (!take_mark_member(member, out, error)) {
			goto done;
		}
	}
	if (out->delivered == 0 && out->read == 0) {
		refuse(error, ERROR_INVALID_FIELD, NULL, "delivered or read is required");
		goto done;
	}
	if (out->delivered < out->read) {
		out->delivered = out->read; /* who has read it has it */
	}
	ok = true;
done:
	if (!ok) {
		*out = (struct mark){0};
	}
	cJSON_Delete(tree);
	return ok;
}

bool typing_parse(const char *payload, size_t length, bool *typing, struct error_detail *error)
{
	cJSON *tree = parse_object(payload, length, error);
	bool ok = false;

	*typing = false;
	if (tree == NULL) {
		return false;
	}
	/* Names are distinct (json_parse), so one known member and no second one is the whole rule. */
	if (tree->child == NULL) {
		refuse(error, ERROR_INVALID_FIELD, "typing", "typing is required");
	} else if (strcmp(tree->child->string, "typing") != 0 || tree->child->next != NULL) {
		refuse(error, ERROR_INVALID_FIELD, NULL, "unknown field");
	} else if (!cJSON_IsBool(tree->child)) {
		refuse(error, ERROR_INVALID_FIELD, "typing", "typing must be true or false");
	} else {
		*typing = cJSON_IsTrue(tree->child) != 0;
		ok = true;
	}
	cJSON_Delete(tree);
	return ok;
}
