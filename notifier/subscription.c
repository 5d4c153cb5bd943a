/* subscription.c - see subscription.h. */
#include "subscription.h"

#include "base64url.h"
#include "encrypt.h"
#include "json.h"

#include <string.h>

/* Some browsers' libraries leave the padding on. */
static bool decode(const cJSON *item, uint8_t *out, size_t size)
{
	uint8_t bytes[100];
	size_t length = 0, decoded = 0;

	if (!cJSON_IsString(item)) {
		return false;
	}
	length = strlen(item->valuestring);
	while (length > 0 && item->valuestring[length - 1] == '=') {
		length--;
	}
	if (BASE64URL_DECODED_SIZE(length) > sizeof(bytes) || !base64url_decode(item->valuestring, length, bytes, &decoded) ||
		decoded != size) {
		return false;
	}
	memcpy(out, bytes, size);
	return true;
}

static const char *read_tree(const cJSON *tree, bool any_host, struct subscription *out)
{
	const cJSON *endpoint = cJSON_GetObjectItemCaseSensitive(tree, "endpoint");
	const cJSON *keys = cJSON_GetObjectItemCaseSensitive(tree, "keys");

	if (!cJSON_IsString(endpoint)) {
		return "no endpoint";
	}
	size_t length = strlen(endpoint->valuestring);
	const char *wrong = endpoint_check(endpoint->valuestring, length, any_host, out->origin);
	if (wrong) {
		return wrong;
	}
	memcpy(out->endpoint, endpoint->valuestring, length + 1);
	if (!decode(cJSON_GetObjectItemCaseSensitive(keys, "p256dh"), out->p256dh, sizeof(out->p256dh)) ||
		!encrypt_check_point(out->p256dh)) {
		return "keys.p256dh is no point of P-256";
	}
	if (!decode(cJSON_GetObjectItemCaseSensitive(keys, "auth"), out->auth, sizeof(out->auth))) {
		return "keys.auth is not 16 bytes";
	}
	return NULL;
}

const char *subscription_parse(const char *json, size_t length, bool any_host, struct subscription *out)
{
	const char *why;
	cJSON *tree = json_parse(json, length, 4, &why);
	const char *wrong = tree ? read_tree(tree, any_host, out) : why;
	cJSON_Delete(tree);
	return wrong;
}
