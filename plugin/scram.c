/* scram.c - see scram.h. Any thread. */
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_CTX: the one way to copy a state without allocating */
#include "scram.h"

#include "text.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <string.h>

#define PREFIX SCRAM_METHOD "$"
#define ITERATIONS_MIN 4096 /* RFC 7677 section 4 */
#define ITERATIONS_MAX 10000000
/* Characters of base64 for so many bytes. */
#define BASE64_SIZE(n) (((n) + 2) / 3 * 4)

/* ---- primitives ---- */

static bool hmac(const uint8_t key[SCRAM_KEY_BYTES], const void *data, size_t length, uint8_t out[SCRAM_KEY_BYTES])
{
	return HMAC(EVP_sha256(), key, SCRAM_KEY_BYTES, data, length, out, NULL) != NULL;
}

/* HMAC (RFC 2104) with a key that has been taken in already. PBKDF2 asks for it 600,000 times with one key: OpenSSL's own
 * would allocate and copy its context each time. */
struct keyed {
	SHA256_CTX inner, outer;
};

static void keyed_init(struct keyed *keyed, const char *key, size_t length)
{
	uint8_t block[SHA256_CBLOCK] = {0};

	if (length > sizeof(block)) {
		SHA256((const uint8_t *)key, length, block);
	} else if (length > 0) {
		memcpy(block, key, length);
	}
	for (size_t i = 0; i < sizeof(block); i++) {
		block[i] ^= 0x36;
	}
	SHA256_Init(&keyed->inner);
	SHA256_Update(&keyed->inner, block, sizeof(block));
	for (size_t i = 0; i < sizeof(block); i++) {
		block[i] ^= 0x36 ^ 0x5c;
	}
	SHA256_Init(&keyed->outer);
	SHA256_Update(&keyed->outer, block, sizeof(block));
	OPENSSL_cleanse(block, sizeof(block));
}

static void keyed_end(const struct keyed *keyed, SHA256_CTX *inner, uint8_t out[SCRAM_KEY_BYTES])
{
	SHA256_CTX outer = keyed->outer;
	SHA256_Final(out, inner);
	SHA256_Update(&outer, out, SCRAM_KEY_BYTES);
	SHA256_Final(out, &outer);
}

/* Hi() of RFC 5802 section 2.2: PBKDF2 with one block of output. */
static void salt_password(const char *password, size_t length, const uint8_t *salt, uint32_t salt_length, uint32_t iterations,
	scram_rest *rest, uint8_t out[SCRAM_KEY_BYTES])
{
	static const uint8_t first_block[] = {0, 0, 0, 1};
	struct keyed keyed;
	uint8_t digest[SCRAM_KEY_BYTES];

	keyed_init(&keyed, password, length);
	SHA256_CTX inner = keyed.inner;
	SHA256_Update(&inner, salt, salt_length);
	SHA256_Update(&inner, first_block, sizeof(first_block));
	keyed_end(&keyed, &inner, digest);
	memcpy(out, digest, sizeof(digest));
	for (uint32_t i = 1; i < iterations; i++) {
		inner = keyed.inner;
		SHA256_Update(&inner, digest, sizeof(digest));
		keyed_end(&keyed, &inner, digest);
		for (size_t k = 0; k < sizeof(digest); k++) {
			out[k] ^= digest[k];
		}
		if (rest && i % SCRAM_REST_AFTER == 0) {
			rest();
		}
	}
	OPENSSL_cleanse(&keyed, sizeof(keyed));
	OPENSSL_cleanse(digest, sizeof(digest));
}

static size_t encode(const uint8_t *bytes, size_t length, char *out)
{
	return (size_t)EVP_EncodeBlock((unsigned char *)out, bytes, (int)length); /* and a NUL */
}

/* RFC 4648 section 4, with padding and nothing else. Returns the number of bytes, 0: not that, none, or more than `max`. */
static size_t decode(const char *text, size_t length, uint8_t *out, size_t max)
{
	uint8_t bytes[96];
	char again[BASE64_SIZE(sizeof(bytes)) + 1];

	if (length == 0 || length % 4 != 0 || length > BASE64_SIZE(sizeof(bytes))) {
		return 0;
	}
	int decoded = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)length);
	if (decoded <= 0) {
		return 0;
	}
	size_t count = (size_t)decoded - (text[length - 1] == '=') - (text[length - 2] == '=');
	if (count > max || encode(bytes, count, again) != length || memcmp(again, text, length) != 0) {
		return 0;
	}
	memcpy(out, bytes, count);
	return count;
}

/* ---- verifiers ---- */

/* The part up to `end`, which is stepped over; NULL: there is none. */
static const char *part(const char **at, const char *limit, char end, size_t *length)
{
	const char *start = *at;
	const char *stop = memchr(start, end, (size_t)(limit - start));
	if (!stop) {
		return NULL;
	}
	*length = (size_t)(stop - start);
	*at = stop + 1;
	return start;
}

bool scram_verifier_parse(const char *text, size_t length, struct scram_verifier *out)
{
	const char *at = text + sizeof(PREFIX) - 1, *end = text + length;
	size_t iterations_length, salt_length, stored_length;
	int64_t iterations;

	if (length < sizeof(PREFIX) || memcmp(text, PREFIX, sizeof(PREFIX) - 1) != 0) {
		return false;
	}
	const char *count = part(&at, end, ':', &iterations_length);
	const char *salt = count ? part(&at, end, '$', &salt_length) : NULL;
	const char *stored = salt ? part(&at, end, ':', &stored_length) : NULL;
	if (!stored || !text_parse_integer(count, iterations_length, ITERATIONS_MIN, ITERATIONS_MAX, &iterations)) {
		return false;
	}
	out->iterations = (uint32_t)iterations;
	out->salt_length = (uint32_t)decode(salt, salt_length, out->salt, sizeof(out->salt));
	return out->salt_length > 0 && decode(stored, stored_length, out->stored_key, SCRAM_KEY_BYTES) == SCRAM_KEY_BYTES &&
	       decode(at, (size_t)(end - at), out->server_key, SCRAM_KEY_BYTES) == SCRAM_KEY_BYTES;
}

static void append_base64(struct buffer *out, const uint8_t *bytes, size_t length)
{
	char text[BASE64_SIZE(SCRAM_SALT_BYTES_MAX) + 1];
	buffer_append(out, text, encode(bytes, length, text));
}

bool scram_verifier_equal(const struct scram_verifier *a, const struct scram_verifier *b)
{
	return a->iterations == b->iterations && a->salt_length == b->salt_length &&
	       memcmp(a->salt, b->salt, a->salt_length) == 0 &&
	       memcmp(a->stored_key, b->stored_key, sizeof(a->stored_key)) == 0 &&
	       memcmp(a->server_key, b->server_key, sizeof(a->server_key)) == 0;
}

bool scram_verifier_format(const struct scram_verifier *verifier, struct buffer *out)
{
	buffer_append_text(out, PREFIX);
	buffer_append_integer(out, verifier->iterations);
	buffer_append_text(out, ":");
	append_base64(out, verifier->salt, verifier->salt_length);
	buffer_append_text(out, "$");
	append_base64(out, verifier->stored_key, SCRAM_KEY_BYTES);
	buffer_append_text(out, ":");
	append_base64(out, verifier->server_key, SCRAM_KEY_BYTES);
	return !out->failed;
}

bool scram_verifier_make(const char *password, size_t length, const uint8_t *salt, uint32_t salt_length, uint32_t iterations,
	scram_rest *rest, struct scram_verifier *out)
{
	uint8_t salted[SCRAM_KEY_BYTES], client_key[SCRAM_KEY_BYTES];

	out->iterations = iterations;
	out->salt_length = salt_length;
	memcpy(out->salt, salt, salt_length);
	salt_password(password, length, salt, salt_length, iterations, rest, salted);
	bool made = hmac(salted, "Client Key", 10, client_key) && hmac(salted, "Server Key", 10, out->server_key) &&
		    SHA256(client_key, sizeof(client_key), out->stored_key) != NULL;
	OPENSSL_cleanse(salted, sizeof(salted));
	OPENSSL_cleanse(client_key, sizeof(client_key));
	return made;
}

bool scram_verifier_matches(const struct scram_verifier *verifier, const char *password, size_t length, scram_rest *rest)
{
	struct scram_verifier given;
	uint8_t ignored[SCRAM_KEY_BYTES];

	bool matches = scram_verifier_make(
			       password, length, verifier->salt, verifier->salt_length, verifier->iterations, rest, &given) &&
		       CRYPTO_memcmp(given.stored_key, verifier->stored_key, SCRAM_KEY_BYTES) == 0;
	if (verifier->iterations < SCRAM_ITERATIONS) {
		salt_password(password, length, verifier->salt, verifier->salt_length, SCRAM_ITERATIONS - verifier->iterations,
			rest, ignored);
	}
	OPENSSL_cleanse(&given, sizeof(given));
	return matches;
}

/* ---- the exchange ---- */

/* RFC 5802 section 5.1, saslname: "=2C" is a comma, "=3D" an equals sign, nothing else follows one. */
static bool decode_name(const char *text, size_t length, char *out, size_t *out_length)
{
	size_t written = 0;
	for (size_t i = 0; i < length; i++) {
		char c = text[i];
		if (c == '=') {
			if (length - i < 3 || text[i + 1] != (text[i + 2] == 'C' ? '2' : '3') ||
				(text[i + 2] != 'C' && text[i + 2] != 'D')) {
				return false;
			}
			c = text[i + 2] == 'C' ? ',' : '=';
			i += 2;
		}
		out[written++] = c;
	}
	*out_length = written;
	return written > 0 && text_check_utf8(out, written, NULL);
}

/* Printable ASCII without a comma. */
static bool nonce_ok(const char *nonce, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (nonce[i] < 0x21 || nonce[i] > 0x7e || nonce[i] == ',') {
			return false;
		}
	}
	return length > 0;
}

/* "x=value" and its end: a comma or the end of the message. NULL: another attribute. */
static const char *attribute(const char **at, const char *end, char name, size_t *length)
{
	const char *value = *at + 2;
	if (end - *at < 2 || (*at)[0] != name || (*at)[1] != '=') {
		return NULL;
	}
	const char *comma = memchr(value, ',', (size_t)(end - value));
	*length = (size_t)((comma ? comma : end) - value);
	*at = comma ? comma + 1 : end;
	return value;
}

bool scram_read_first(const char *message, size_t length, struct scram_exchange *out)
{
	const char *end = message + length, *at = message + 3;
	size_t name_length, nonce_length;

	if (length < 3 || length >= SCRAM_MESSAGE_MAX || (message[0] != 'n' && message[0] != 'y') ||
		memcmp(message + 1, ",,", 2) != 0) {
		return false;
	}
	memcpy(out->header, message, 3);
	out->header[3] = '\0';
	out->bare_length = (size_t)(end - at);
	memcpy(out->bare, at, out->bare_length);
	const char *name = attribute(&at, end, 'n', &name_length);
	const char *nonce = name && at < end ? attribute(&at, end, 'r', &nonce_length) : NULL;
	if (!nonce || at != end || message[length - 1] == ',' || !nonce_ok(nonce, nonce_length) ||
		!decode_name(name, name_length, out->name, &out->name_length)) {
		return false;
	}
	memcpy(out->nonce, nonce, nonce_length);
	out->nonce_length = nonce_length;
	return true;
}

bool scram_write_first(
	struct scram_exchange *exchange, const struct scram_verifier *verifier, const uint8_t nonce[SCRAM_NONCE_BYTES])
{
	struct buffer out;

	exchange->nonce_length += encode(nonce, SCRAM_NONCE_BYTES, exchange->nonce + exchange->nonce_length);
	buffer_init(&out, sizeof(exchange->first));
	buffer_append_text(&out, "r=");
	buffer_append(&out, exchange->nonce, exchange->nonce_length);
	buffer_append_text(&out, ",s=");
	append_base64(&out, verifier->salt, verifier->salt_length);
	buffer_append_text(&out, ",i=");
	bool made = buffer_append_integer(&out, verifier->iterations);
	if (made) {
		memcpy(exchange->first, out.data, out.length);
		exchange->first_length = out.length;
	}
	buffer_free(&out);
	return made;
}

/* AuthMessage: client-first-bare "," server-first "," client-final-without-proof. */
static bool auth_message(const struct scram_exchange *exchange, const char *message, size_t length, struct buffer *out)
{
	buffer_append(out, exchange->bare, exchange->bare_length);
	buffer_append_text(out, ",");
	buffer_append(out, exchange->first, exchange->first_length);
	buffer_append_text(out, ",");
	return buffer_append(out, message, length);
}

static bool proof_is_good(const struct scram_verifier *verifier, const struct buffer *text, uint8_t proof[SCRAM_KEY_BYTES])
{
	uint8_t signature[SCRAM_KEY_BYTES], stored[SCRAM_KEY_BYTES];
	if (!hmac(verifier->stored_key, text->data, text->length, signature)) {
		return false;
	}
	for (size_t i = 0; i < SCRAM_KEY_BYTES; i++) {
		proof[i] ^= signature[i]; /* now it is ClientKey */
	}
	return SHA256(proof, SCRAM_KEY_BYTES, stored) && CRYPTO_memcmp(stored, verifier->stored_key, SCRAM_KEY_BYTES) == 0;
}

bool scram_read_final(const struct scram_exchange *exchange, const struct scram_verifier *verifier, const char *message,
	size_t length, char final[SCRAM_FINAL_MAX], size_t *final_length)
{
	const char *at = message, *end = message + length;
	size_t binding_length, nonce_length, proof_length;
	uint8_t header[4], proof[SCRAM_KEY_BYTES], signature[SCRAM_KEY_BYTES];
	struct buffer text;

	if (length >= SCRAM_MESSAGE_MAX * 2) {
		return false;
	}
	const char *binding = attribute(&at, end, 'c', &binding_length);
	const char *nonce = binding ? attribute(&at, end, 'r', &nonce_length) : NULL;
	const char *proof_at = at;
	const char *proof_text = nonce ? attribute(&at, end, 'p', &proof_length) : NULL;
	if (!proof_text || at != end || message[length - 1] == ',' ||
		decode(binding, binding_length, header, sizeof(header)) != 3 || memcmp(header, exchange->header, 3) != 0 ||
		nonce_length != exchange->nonce_length || memcmp(nonce, exchange->nonce, nonce_length) != 0 ||
		decode(proof_text, proof_length, proof, sizeof(proof)) != sizeof(proof)) {
		return false;
	}
	buffer_init(&text, SCRAM_MESSAGE_MAX * 8);
	bool good = auth_message(exchange, message, (size_t)(proof_at - 1 - message), &text) &&
		    proof_is_good(verifier, &text, proof) && hmac(verifier->server_key, text.data, text.length, signature);
	buffer_free(&text);
	if (good) {
		memcpy(final, "v=", 2);
		*final_length = 2 + encode(signature, sizeof(signature), final + 2);
	}
	OPENSSL_cleanse(proof, sizeof(proof));
	return good;
}
