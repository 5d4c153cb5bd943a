/* token.c - JSON Web Tokens, checked and made.
 *
 *   header . payload . signature
 *   `----signed----'              each part base64url
 *
 * The order of a check is the order in which a stranger's bytes may be trusted: length and shape, then the header (small,
 * strict JSON), then the signature with a key of our own, and only what was signed is parsed as claims. Which key and
 * which algorithm is decided by the ring: the header can pick among our keys by name but cannot change what they are
 * (RFC 8725 section 3.1). Everything is on the stack but the JSON trees. Pure; any thread.
 *
 * To check another claim: a function check_X() called by read_claims(), and a result in token.h where none fits.
 */
#include "token.h"

#include "base64url.h"
#include "buffer.h"
#include "json.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEADER_DEPTH 4 /* jwk and x5c, which are ignored, nest */
#define CLAIMS_DEPTH 8 /* other services put objects of theirs into a token */

struct token_ring {
	size_t count;
	struct signing_key *keys[TOKEN_KEYS_MAX];
};

struct part {
	const char *text;
	size_t length;
};

static const char *const result_texts[TOKEN_RESULTS] = {
	[TOKEN_OK] = "the token is good",
	[TOKEN_NOT_A_TOKEN] = "the password is no token",
	[TOKEN_TOO_LONG] = "the token is too long",
	[TOKEN_MALFORMED] = "the token is malformed",
	[TOKEN_WRONG_ALGORITHM] = "the token's algorithm is not that of a key in token_keys",
	[TOKEN_UNKNOWN_KEY] = "the token names a key that is not in token_keys",
	[TOKEN_BAD_SIGNATURE] = "the token's signature is wrong",
	[TOKEN_EXPIRED] = "the token has expired",
	[TOKEN_NOT_YET_VALID] = "the token is not valid yet (compare the clocks)",
	[TOKEN_NO_EXPIRY] = "the token has no exp claim",
	[TOKEN_WRONG_ISSUER] = "the token's iss claim is not token_issuer",
	[TOKEN_WRONG_AUDIENCE] = "the token's aud claim does not hold token_audience",
	[TOKEN_BAD_SUBJECT] = "the token's sub claim is not a user id in decimal, as a string",
	[TOKEN_BAD_DEVICE] = "the token's device claim is not a device id",
};

const char *token_result_text(enum token_result result)
{
	return result_texts[result];
}

/* ---- the ring ---- */

static struct signing_key *find_key(const struct token_ring *ring, const char *id)
{
	for (size_t i = 0; i < ring->count; i++) {
		if (strcmp(signing_key_id(ring->keys[i]), id) == 0) {
			return ring->keys[i];
		}
	}
	return NULL;
}

static bool add_key(struct token_ring *ring, const char *spec, char *error, size_t error_size)
{
	if (ring->count == TOKEN_KEYS_MAX) {
		(void)snprintf(error, error_size, "more than %d keys", TOKEN_KEYS_MAX);
		return false;
	}
	struct signing_key *key = signing_key_load(spec, error, error_size);
	if (key == NULL) {
		return false;
	}
	if (find_key(ring, signing_key_id(key)) != NULL) {
		(void)snprintf(error, error_size, "two keys have the id %s (the file's base name): rename one of them",
			signing_key_id(key));
		signing_key_free(key);
		return false;
	}
	ring->keys[ring->count++] = key;
	return true;
}

/* Cuts the next item off *rest, which is then NULL where it was the last. Blanks around it are dropped. */
static char *next_item(char **rest)
{
	char *item = *rest;
	char *comma = strchr(item, ',');

	*rest = comma != NULL ? comma + 1 : NULL;
	if (comma != NULL) {
		*comma = '\0';
	}
	item += strspn(item, " \t");
	size_t length = strlen(item);
	while (length > 0 && (item[length - 1] == ' ' || item[length - 1] == '\t')) {
		item[--length] = '\0';
	}
	return item;
}

struct token_ring *token_ring_load(const char *specs, char *error, size_t error_size)
{
	struct token_ring *ring = calloc(1, sizeof(*ring));
	char *copy = strdup(specs);
	char *rest = copy;
	bool loaded = ring != NULL && copy != NULL;

	if (!loaded) {
		(void)snprintf(error, error_size, "no memory for keys");
	}
	while (loaded && rest != NULL) {
		char *spec = next_item(&rest);
		if (*spec == '\0') {
			(void)snprintf(error, error_size, "an empty name in the list of key files");
			loaded = false;
		} else {
			loaded = add_key(ring, spec, error, error_size);
		}
	}
	free(copy);
	if (!loaded) {
		token_ring_free(ring);
		return NULL;
	}
	return ring;
}

void token_ring_free(struct token_ring *ring)
{
	if (ring == NULL) {
		return;
	}
	for (size_t i = 0; i < ring->count; i++) {
		signing_key_free(ring->keys[i]);
	}
	free(ring);
}

/* ---- checking ---- */

/* Whether it begins with the base64url of '{' (0x7b, 01111011): 'e', then a character whose value begins with the bits 11. */
static bool begins_as_object(const char *text, size_t length)
{
	return length >= 2 && text[0] == 'e' &&
	       ((text[1] >= 'w' && text[1] <= 'z') || (text[1] >= '0' && text[1] <= '9') || text[1] == '-' || text[1] == '_');
}

/* Cuts at the dots. False unless there are three parts of which the first two hold something. */
static bool split(const char *token, size_t length, struct part parts[3])
{
	const char *end = token + length;
	const char *first = memchr(token, '.', length);
	const char *second = first != NULL ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;

	if (second == NULL || memchr(second + 1, '.', (size_t)(end - second - 1)) != NULL) {
		return false;
	}
	parts[0] = (struct part){token, (size_t)(first - token)};
	parts[1] = (struct part){first + 1, (size_t)(second - first - 1)};
	parts[2] = (struct part){second + 1, (size_t)(end - second - 1)};
	return parts[0].length > 0 && parts[1].length > 0;
}

/* A part that must be an object. NULL, or a tree to free. */
static cJSON *decode_object(const struct part *part, unsigned max_depth)
{
	uint8_t bytes[BASE64URL_DECODED_SIZE(TOKEN_MAX)];
	size_t length;
	const char *why;

	if (part->length > TOKEN_MAX || !base64url_decode(part->text, part->length, bytes, &length)) {
		return NULL;
	}
	cJSON *tree = json_parse((const char *)bytes, length, max_depth, &why);
	if (tree != NULL && !cJSON_IsObject(tree)) {
		cJSON_Delete(tree);
		return NULL;
	}
	return tree;
}

static const cJSON *member(const cJSON *object, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool is_text(const cJSON *item, const char *text)
{
	return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

/* Which of the ring's keys the header allows: one bit each, none where *result says why. */
static uint32_t choose_keys(const cJSON *header, const struct token_ring *ring, enum token_result *result)
{
	const cJSON *algorithm = member(header, "alg");
	const cJSON *id = member(header, "kid");
	const cJSON *type = member(header, "typ");
	uint32_t chosen = 0;

	/* RFC 7515 section 4.1.11: crit names extensions that must be understood, and none is. */
	if (member(header, "crit") != NULL || (id != NULL && !cJSON_IsString(id)) ||
		(type != NULL && (!cJSON_IsString(type) || strcasecmp(type->valuestring, "JWT") != 0))) {
		*result = TOKEN_MALFORMED;
		return 0;
	}
	if (id != NULL && find_key(ring, id->valuestring) == NULL) {
		*result = TOKEN_UNKNOWN_KEY;
		return 0;
	}
	for (size_t i = 0; i < ring->count; i++) {
		const struct signing_key *key = ring->keys[i];
		if (is_text(algorithm, signing_algorithm_name(signing_key_algorithm(key))) &&
			(id == NULL || strcmp(id->valuestring, signing_key_id(key)) == 0)) {
			chosen |= UINT32_C(1) << i;
		}
	}
	*result = chosen != 0 ? TOKEN_OK : TOKEN_WRONG_ALGORITHM;
	return chosen;
}

static enum token_result check_signature(const struct part parts[3], const struct token_ring *ring, uint32_t chosen)
{
	uint8_t signature[BASE64URL_DECODED_SIZE(TOKEN_MAX)];
	size_t signature_length;
	size_t signed_length = parts[0].length + 1 + parts[1].length;

	if (!base64url_decode(parts[2].text, parts[2].length, signature, &signature_length)) {
		return TOKEN_MALFORMED;
	}
	for (size_t i = 0; i < ring->count; i++) {
		if ((chosen >> i & 1) != 0 &&
			signing_verify(ring->keys[i], parts[0].text, signed_length, signature, signature_length)) {
			return TOKEN_OK;
		}
	}
	return TOKEN_BAD_SIGNATURE;
}

/* `exp`, `nbf`, `iat`: whole seconds since 1970. Another kind of number or of value is malformed, in the future or not. */
static enum token_result check_times(const cJSON *payload, int64_t now_s, struct token_claims *claims)
{
	const cJSON *expiry = member(payload, "exp");
	const cJSON *not_before = member(payload, "nbf");
	const cJSON *issued = member(payload, "iat");
	int64_t not_before_s = 0;

	if (expiry == NULL) {
		return TOKEN_NO_EXPIRY;
	}
	if (!json_integer(expiry, 0, TEXT_ID_MAX, &claims->expires_at_s) ||
		(not_before != NULL && !json_integer(not_before, 0, TEXT_ID_MAX, &not_before_s)) ||
		(issued != NULL && !json_integer(issued, 0, TEXT_ID_MAX, &claims->issued_at_s))) {
		return TOKEN_MALFORMED;
	}
	if (now_s >= claims->expires_at_s + TOKEN_LEEWAY_S) {
		return TOKEN_EXPIRED;
	}
	if (not_before_s - TOKEN_LEEWAY_S > now_s || claims->issued_at_s - TOKEN_LEEWAY_S > now_s) {
		return TOKEN_NOT_YET_VALID;
	}
	return TOKEN_OK;
}

static bool has_audience(const cJSON *audience, const char *wanted)
{
	if (!cJSON_IsArray(audience)) {
		return is_text(audience, wanted);
	}
	for (const cJSON *item = audience->child; item != NULL; item = item->next) {
		if (is_text(item, wanted)) {
			return true;
		}
	}
	return false;
}

static enum token_result check_origin(const cJSON *payload, const struct token_rules *rules)
{
	if (rules->issuer != NULL && !is_text(member(payload, "iss"), rules->issuer)) {
		return TOKEN_WRONG_ISSUER;
	}
	if (rules->audience != NULL && !has_audience(member(payload, "aud"), rules->audience)) {
		return TOKEN_WRONG_AUDIENCE;
	}
	return TOKEN_OK;
}

static enum token_result check_who(const cJSON *payload, struct token_claims *claims)
{
	const cJSON *subject = member(payload, "sub");
	const cJSON *device = member(payload, "device");

	if (!cJSON_IsString(subject) ||
		!text_parse_integer(subject->valuestring, strlen(subject->valuestring), 1, TEXT_ID_MAX, &claims->user_id)) {
		return TOKEN_BAD_SUBJECT;
	}
	if (device != NULL && !json_integer(device, 1, TEXT_ID_MAX, &claims->device_id)) {
		return TOKEN_BAD_DEVICE;
	}
	claims->device_token = is_text(member(payload, "typ"), "device");
	/* It lives as long as its device is not revoked, so it must say which. */
	return claims->device_token && claims->device_id == 0 ? TOKEN_BAD_DEVICE : TOKEN_OK;
}

static enum token_result read_claims(
	const struct part *part, const struct token_rules *rules, int64_t now_s, struct token_claims *claims)
{
	struct token_claims found = {0};
	cJSON *payload = decode_object(part, CLAIMS_DEPTH);

	if (payload == NULL) {
		return TOKEN_MALFORMED;
	}
	enum token_result result = check_times(payload, now_s, &found);
	if (result == TOKEN_OK) {
		result = check_origin(payload, rules);
	}
	if (result == TOKEN_OK) {
		result = check_who(payload, &found);
	}
	cJSON_Delete(payload);
	if (result == TOKEN_OK) {
		*claims = found;
	}
	return result;
}

enum token_result token_check(const char *token, size_t length, const struct token_ring *ring, const struct token_rules *rules,
	int64_t now_s, struct token_claims *claims)
{
	struct part parts[3];
	enum token_result result = TOKEN_MALFORMED;

	if (!begins_as_object(token, length)) {
		return TOKEN_NOT_A_TOKEN;
	}
	if (length > TOKEN_MAX) {
		return TOKEN_TOO_LONG;
	}
	if (!split(token, length, parts)) {
		return TOKEN_NOT_A_TOKEN;
	}
	cJSON *header = decode_object(&parts[0], HEADER_DEPTH);
	uint32_t chosen = header != NULL ? choose_keys(header, ring, &result) : 0;
	cJSON_Delete(header);
	if (chosen == 0) {
		return result;
	}
	result = check_signature(parts, ring, chosen);
	return result == TOKEN_OK ? read_claims(&parts[1], rules, now_s, claims) : result;
}

/* ---- making ---- */

static bool claims_are_good(const struct token_claims *claims)
{
	return claims->user_id >= 1 && claims->user_id <= TEXT_ID_MAX && claims->device_id >= 0 &&
	       claims->device_id <= TEXT_ID_MAX && claims->expires_at_s >= 0 && claims->expires_at_s <= TEXT_ID_MAX &&
	       claims->issued_at_s >= 0 && claims->issued_at_s <= TEXT_ID_MAX && (!claims->device_token || claims->device_id > 0);
}

/* Results of the appends below are in json->failed. */
static void append_text_claim(struct buffer *json, const char *name, const char *value)
{
	if (value != NULL && !text_check_utf8(value, strlen(value), NULL)) {
		json->failed = true;
	} else if (value != NULL) {
		buffer_append_format(json, "\"%s\":", name);
		buffer_append_json_string(json, value, strlen(value));
		buffer_append_text(json, ",");
	}
}

static void append_number_claim(struct buffer *json, const char *name, int64_t value)
{
	if (value != 0) {
		buffer_append_format(json, "\"%s\":", name);
		buffer_append_integer(json, value);
		buffer_append_text(json, ",");
	}
}

static void append_header_json(struct buffer *json, const struct signing_key *key)
{
	buffer_append_text(json, "{");
	append_text_claim(json, "alg", signing_algorithm_name(signing_key_algorithm(key)));
	append_text_claim(json, "kid", signing_key_id(key));
	buffer_append_text(json, "\"typ\":\"JWT\"}");
}

static void append_claims_json(struct buffer *json, const struct token_rules *rules, const struct token_claims *claims)
{
	buffer_append_text(json, "{");
	append_text_claim(json, "iss", rules->issuer);
	append_text_claim(json, "aud", rules->audience);
	append_text_claim(json, "typ", claims->device_token ? "device" : NULL);
	append_number_claim(json, "device", claims->device_id);
	append_number_claim(json, "iat", claims->issued_at_s);
	buffer_append_text(json, "\"sub\":\"");
	buffer_append_integer(json, claims->user_id);
	buffer_append_text(json, "\",\"exp\":");
	buffer_append_integer(json, claims->expires_at_s);
	buffer_append_text(json, "}");
}

static void append_base64url(struct buffer *out, const void *bytes, size_t length)
{
	char text[BASE64URL_ENCODED_SIZE(TOKEN_MAX)];

	if (length > TOKEN_MAX) {
		out->failed = true;
		return;
	}
	buffer_append(out, text, base64url_encode(bytes, length, text));
}

bool token_make(
	const struct signing_key *key, const struct token_rules *rules, const struct token_claims *claims, struct buffer *out)
{
	struct buffer json;
	struct buffer token;
	uint8_t signature[SIGNING_SIGNATURE_MAX];
	size_t signature_length;
	bool made = false;

	buffer_init(&json, TOKEN_MAX);
	buffer_init(&token, TOKEN_MAX);
	if (!claims_are_good(claims)) {
		goto done;
	}
	append_header_json(&json, key);
	append_base64url(&token, json.data, json.length);
	buffer_append_text(&token, ".");
	made = !json.failed;
	buffer_reset(&json);
	append_claims_json(&json, rules, claims);
	append_base64url(&token, json.data, json.length);
	made = made && !json.failed && !token.failed && signing_sign(key, token.data, token.length, signature, &signature_length);
	if (!made) {
		goto done;
	}
	buffer_append_text(&token, ".");
	append_base64url(&token, signature, signature_length);
	made = !token.failed && buffer_append(out, token.data, token.length);
done:
	buffer_free(&json);
	buffer_free(&token);
	return made;
}
