/* fuzz_token.c - token_check on any bytes, and on any header and claims with a good signature.
 *
 * An input that begins with '{' is a header and, after the first newline, claims, which are signed here: otherwise no
 * mutation would ever get past the signature. Any other input is the token. Beyond not crashing: what is accepted has
 * claims in their ranges, has not expired, and token_make can say it again.
 *
 * The key's file is in memory (memfd), so that nothing is left behind; its descriptor's number is the key id.
 */
#include "base64url.h"
#include "buffer.h"
#include "text.h"
#include "token.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_S INT64_C(1790000000)
#define KEY_FD 100 /* the kid in the seeds */

static struct token_ring *ring;
static struct signing_key *key;

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static void load_key(void)
{
	static const char secret[] = "0123456789abcdef0123456789abcdef";
	char spec[64];
	char error[SIGNING_ERROR_SIZE];
	int fd = memfd_create("secret", 0);

	require(fd >= 0 && fchmod(fd, 0600) == 0 && write(fd, secret, strlen(secret)) == (ssize_t)strlen(secret));
	require(dup2(fd, KEY_FD) == KEY_FD && close(fd) == 0);
	require(snprintf(spec, sizeof(spec), "hs256:/proc/self/fd/%d", KEY_FD) > 0);
	key = signing_key_load(spec, error, sizeof(error));
	ring = token_ring_load(spec, error, sizeof(error));
	require(key != NULL && ring != NULL && close(KEY_FD) == 0);
}

static void append_base64url(struct buffer *out, const void *bytes, size_t length)
{
	char *text = malloc(BASE64URL_ENCODED_SIZE(length) + 1);

	require(text != NULL);
	require(buffer_append(out, text, base64url_encode(bytes, length, text)));
	free(text);
}

static void sign(struct buffer *token, const uint8_t *data, size_t size)
{
	const uint8_t *newline = memchr(data, '\n', size);
	size_t header_length = newline != NULL ? (size_t)(newline - data) : size;
	size_t claims_at = newline != NULL ? header_length + 1 : size;
	uint8_t signature[SIGNING_SIGNATURE_MAX];
	size_t length;

	append_base64url(token, data, header_length);
	require(buffer_append_text(token, "."));
	append_base64url(token, data + claims_at, size - claims_at);
	require(signing_sign(key, token->data, token->length, signature, &length));
	require(buffer_append_text(token, "."));
	append_base64url(token, signature, length);
}

static void check_accepted(const struct token_claims *claims)
{
	static const struct token_rules none = {0};
	struct token_claims again;
	struct buffer token;

	require(claims->user_id >= 1 && claims->user_id <= TEXT_ID_MAX);
	require(claims->device_id >= 0 && claims->device_id <= TEXT_ID_MAX);
	require(claims->expires_at_s > NOW_S - TOKEN_LEEWAY_S && claims->expires_at_s <= TEXT_ID_MAX);
	require(claims->issued_at_s >= 0 && claims->issued_at_s <= NOW_S + TOKEN_LEEWAY_S);
	require(!claims->device_token || claims->device_id > 0);
	buffer_init(&token, TOKEN_MAX);
	require(token_make(key, &none, claims, &token));
	require(token_check(token.data, token.length, ring, &none, NOW_S, &again) == TOKEN_OK);
	require(again.user_id == claims->user_id && again.device_id == claims->device_id &&
		again.expires_at_s == claims->expires_at_s && again.issued_at_s == claims->issued_at_s &&
		again.device_token == claims->device_token);
	buffer_free(&token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct token_rules both[] = {{0}, {.issuer = "https://id.example", .audience = "chat"}};
	struct buffer token;
	struct token_claims claims;

	if (ring == NULL) {
		load_key();
	}
	buffer_init(&token, SIZE_MAX / 2);
	if (size > 0 && data[0] == '{') {
		sign(&token, data, size);
	} else {
		require(buffer_append(&token, data, size));
	}
	for (size_t i = 0; i < 2 && token.data != NULL; i++) {
		enum token_result result = token_check(token.data, token.length, ring, &both[i], NOW_S, &claims);
		require(result < TOKEN_RESULTS && token_result_text(result) != NULL);
		if (result == TOKEN_OK) {
			check_accepted(&claims);
		}
	}
	buffer_free(&token);
	return 0;
}
