/* test_token.c - tokens, good and forged. Threats 1 to 9, each row under its number.
 *
 * The tokens are made here with OpenSSL and fresh keys, from a header and claims written out as JSON, so that a row can
 * say anything that a forger could. The ring under test holds the public keys es256, rs256, eddsa and the secret hs256; the
 * key "stranger" is in no ring.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base64url.h"
#include "buffer.h"
#include "key_files.h"
#include "text.h"
#include "token.h"

#include <openssl/err.h>

#define NOW_S INT64_C(1790000000)

enum signer { ES256, RS256, EDDSA, HS256, STRANGER, NOBODY, RS256_PEM_AS_SECRET, EMPTY_SECRET };

static EVP_PKEY *keys[STRANGER + 1]; /* none at HS256 */
static const char secret[] = "0123456789abcdef0123456789abcdef0123456789";
static struct token_ring *ring;
static const struct token_rules no_rules = {0};
static const struct token_rules rules = {.issuer = "https://id.example", .audience = "chat"};

static void append_path(char *specs, size_t size, const char *prefix, const char *name)
{
	char path[KEY_PATH_SIZE];
	size_t length = strlen(specs);

	key_path(path, name);
	int added = snprintf(specs + length, size - length, "%s%s%s", length > 0 ? "," : "", prefix, path);
	assert_true(added > 0 && (size_t)added < size - length);
}

static int set_up(void **state)
{
	char specs[4 * KEY_PATH_SIZE + 64] = "";
	char error[SIGNING_ERROR_SIZE] = "";

	(void)state;
	key_directory_make();
	keys[ES256] = key_make_ec("P-256");
	keys[RS256] = key_make_rsa(2048);
	keys[EDDSA] = key_make("ED25519");
	keys[STRANGER] = key_make_ec("P-256");
	key_write_public("es256", keys[ES256], 0644);
	key_write_public("rs256", keys[RS256], 0644);
	key_write_public("eddsa", keys[EDDSA], 0644);
	key_write_bytes("hs256", secret, strlen(secret), 0600);
	append_path(specs, sizeof(specs), "", "es256");
	append_path(specs, sizeof(specs), "", "rs256");
	append_path(specs, sizeof(specs), "", "eddsa");
	append_path(specs, sizeof(specs), "hs256:", "hs256");
	ring = token_ring_load(specs, error, sizeof(error));
	if (ring == NULL) {
		fail_msg("%s", error);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	token_ring_free(ring);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		EVP_PKEY_free(keys[i]);
	}
	key_directory_remove();
	return 0;
}

/* ---- forging ---- */

static void append_base64url(struct buffer *out, const void *bytes, size_t length)
{
	char *text = malloc(BASE64URL_ENCODED_SIZE(length) + 1);

	assert_non_null(text);
	assert_true(buffer_append(out, text, base64url_encode(bytes, length, text)));
	free(text);
}

static size_t sign(enum signer signer, const void *data, size_t length, uint8_t signature[1024])
{
	switch (signer) {
	case NOBODY:
		return 0;
	case HS256:
		return key_sign_hmac(secret, strlen(secret), data, length, signature);
	case EMPTY_SECRET:
		return key_sign_hmac("", 0, data, length, signature);
	case RS256_PEM_AS_SECRET: {
		char path[KEY_PATH_SIZE];
		char pem[2048];
		key_path(path, "rs256");
		FILE *file = fopen(path, "rb");
		assert_non_null(file);
		size_t pem_length = fread(pem, 1, sizeof(pem), file);
		(void)fclose(file);
		return key_sign_hmac(pem, pem_length, data, length, signature);
	}
	default:
		return key_sign(keys[signer], data, length, signature);
	}
}

/* A token in `out`, which is to be freed with buffer_free. */
static void forge(struct buffer *out, enum signer signer, const void *header, size_t header_length, const void *payload,
	size_t payload_length)
{
	uint8_t signature[1024];

	buffer_init(out, 1 << 20);
	append_base64url(out, header, header_length);
	assert_true(buffer_append_text(out, "."));
	append_base64url(out, payload, payload_length);
	size_t length = sign(signer, out->data, out->length, signature);
	assert_true(buffer_append_text(out, "."));
	append_base64url(out, signature, length);
}

/* Checks a copy of exactly `length` bytes, so that a sanitizer sees a read past the end. A refusal fills nothing in. */
static enum token_result check(
	const char *token, size_t length, const struct token_rules *with, int64_t now_s, struct token_claims *claims)
{
	struct token_claims before;
	char *copy = malloc(length > 0 ? length : 1);

	assert_non_null(copy);
	memcpy(copy, token, length);
	memset(claims, 0x5a, sizeof(*claims));
	memcpy(&before, claims, sizeof(before));
	enum token_result result = token_check(copy, length, ring, with, now_s, claims);
	assert_true(result == TOKEN_OK || memcmp(claims, &before, sizeof(before)) == 0);
	assert_int_equal(ERR_peek_error(), 0);
	free(copy);
	return result;
}

struct row {
	const char *name;
	const char *header;
	const char *payload;
	enum signer signer;
	enum token_result wanted;
};

static void check_rows(const struct row *rows, size_t count, const struct token_rules *with)
{
	for (size_t i = 0; i < count; i++) {
		struct buffer token;
		struct token_claims claims;
		forge(&token, rows[i].signer, rows[i].header, strlen(rows[i].header), rows[i].payload, strlen(rows[i].payload));
		enum token_result result = check(token.data, token.length, with, NOW_S, &claims);
		if (result != rows[i].wanted) {
			fail_msg(
				"%s: %s; wanted: %s", rows[i].name, token_result_text(result), token_result_text(rows[i].wanted));
		}
		buffer_free(&token);
	}
}

#define CHECK_ROWS(rows, with) check_rows(rows, sizeof(rows) / sizeof((rows)[0]), with)

#define ES "{\"alg\":\"ES256\"}"
#define GOOD "{\"sub\":\"7\",\"exp\":1790000600}"

/* ---- what is accepted ---- */

static void accepts_good_tokens(void **state)
{
	static const struct row rows[] = {
		{"ES256", ES, GOOD, ES256, TOKEN_OK},
		{"RS256", "{\"alg\":\"RS256\"}", GOOD, RS256, TOKEN_OK},
		{"EdDSA", "{\"alg\":\"EdDSA\"}", GOOD, EDDSA, TOKEN_OK},
		{"HS256", "{\"alg\":\"HS256\"}", GOOD, HS256, TOKEN_OK},
		{"kid", "{\"alg\":\"ES256\",\"kid\":\"es256\"}", GOOD, ES256, TOKEN_OK},
		{"typ JWT", "{\"alg\":\"ES256\",\"typ\":\"JWT\"}", GOOD, ES256, TOKEN_OK},
		{"typ in small letters", "{\"typ\":\"jwt\",\"alg\":\"ES256\"}", GOOD, ES256, TOKEN_OK},
		{"blanks in the JSON", "{ \"alg\" : \"ES256\" }", "{\r\n \"sub\" : \"7\",\r\n \"exp\" : 1790000600 }", ES256,
			TOKEN_OK},
		{"newline in the header's first place", "{\n\"alg\":\"ES256\"}", GOOD, ES256, TOKEN_OK},
		{"claims of other services", ES,
			"{\"sub\":\"7\",\"exp\":1790000600,\"azp\":\"x\",\"typ\":\"Bearer\",\"jti\":\"1\",\"realm_access\":{"
			"\"roles\":[\"a\"]}}",
			ES256, TOKEN_OK},
		{"issuer and audience that nobody asks for", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":5,\"aud\":[1]}",
			ES256, TOKEN_OK},
		{"escaped claim name", ES, "{\"\\u0073ub\":\"7\",\"exp\":1790000600}", ES256, TOKEN_OK},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

static void reads_the_claims(void **state)
{
	static const struct {
		const char *payload;
		struct token_claims claims;
	} rows[] = {
		{GOOD, {.user_id = 7, .expires_at_s = 1790000600}},
		{"{\"sub\":\"9007199254740991\",\"exp\":9007199254740991}",
			{.user_id = TEXT_ID_MAX, .expires_at_s = TEXT_ID_MAX}},
		{"{\"sub\":\"1\",\"exp\":1790000600,\"iat\":1790000000,\"nbf\":1790000000,\"device\":31}",
			{.user_id = 1, .device_id = 31, .expires_at_s = 1790000600, .issued_at_s = 1790000000}},
		{"{\"sub\":\"1\",\"exp\":1790000600,\"device\":31,\"typ\":\"device\"}",
			{.user_id = 1, .device_id = 31, .expires_at_s = 1790000600, .device_token = true}},
		{"{\"sub\":\"1\",\"exp\":1790000600,\"device\":31,\"typ\":\"Device\"}",
			{.user_id = 1, .device_id = 31, .expires_at_s = 1790000600}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buffer token;
		struct token_claims claims;
		forge(&token, ES256, ES, strlen(ES), rows[i].payload, strlen(rows[i].payload));
		assert_int_equal(check(token.data, token.length, &no_rules, NOW_S, &claims), TOKEN_OK);
		assert_int_equal(claims.user_id, rows[i].claims.user_id);
		assert_int_equal(claims.device_id, rows[i].claims.device_id);
		assert_int_equal(claims.expires_at_s, rows[i].claims.expires_at_s);
		assert_int_equal(claims.issued_at_s, rows[i].claims.issued_at_s);
		assert_int_equal(claims.device_token, rows[i].claims.device_token);
		buffer_free(&token);
	}
}

/* ---- threats 1 and 2: who chooses the algorithm ---- */

static void threat_1_algorithm_none(void **state)
{
	static const struct row rows[] = {
		{"none, unsigned", "{\"alg\":\"none\"}", GOOD, NOBODY, TOKEN_WRONG_ALGORITHM},
		{"None, unsigned", "{\"alg\":\"None\"}", GOOD, NOBODY, TOKEN_WRONG_ALGORITHM},
		{"NONE, unsigned", "{\"alg\":\"NONE\"}", GOOD, NOBODY, TOKEN_WRONG_ALGORITHM},
		{"none, signed", "{\"alg\":\"none\"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"none, with a kid of ours", "{\"alg\":\"none\",\"kid\":\"es256\"}", GOOD, NOBODY, TOKEN_WRONG_ALGORITHM},
		{"empty alg", "{\"alg\":\"\"}", GOOD, NOBODY, TOKEN_WRONG_ALGORITHM},
		{"alg missing", "{}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"alg missing, kid ours", "{\"kid\":\"es256\"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"alg null", "{\"alg\":null}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"alg a number", "{\"alg\":0}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"alg a list", "{\"alg\":[\"ES256\"]}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"alg in small letters", "{\"alg\":\"es256\"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"alg with a blank", "{\"alg\":\"ES256 \"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"ALG", "{\"ALG\":\"ES256\"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"ES384", "{\"alg\":\"ES384\"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
		{"PS256", "{\"alg\":\"PS256\"}", GOOD, RS256, TOKEN_WRONG_ALGORITHM},
		{"RS512", "{\"alg\":\"RS512\"}", GOOD, RS256, TOKEN_WRONG_ALGORITHM},
		{"unsigned but ES256", ES, GOOD, NOBODY, TOKEN_BAD_SIGNATURE},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

static void threat_2_key_confusion(void **state)
{
	static const struct row rows[] = {
		{"RSA public key as HMAC secret", "{\"alg\":\"HS256\"}", GOOD, RS256_PEM_AS_SECRET, TOKEN_BAD_SIGNATURE},
		{"the same, naming the RSA key", "{\"alg\":\"HS256\",\"kid\":\"rs256\"}", GOOD, RS256_PEM_AS_SECRET,
			TOKEN_WRONG_ALGORITHM},
		{"HMAC under the RSA key's name and algorithm", "{\"alg\":\"RS256\",\"kid\":\"rs256\"}", GOOD,
			RS256_PEM_AS_SECRET, TOKEN_BAD_SIGNATURE},
		{"empty secret", "{\"alg\":\"HS256\"}", GOOD, EMPTY_SECRET, TOKEN_BAD_SIGNATURE},
		{"ES256 key, EdDSA said", "{\"alg\":\"EdDSA\"}", GOOD, ES256, TOKEN_BAD_SIGNATURE},
		{"ES256 key, EdDSA said, kid of the first", "{\"alg\":\"EdDSA\",\"kid\":\"es256\"}", GOOD, ES256,
			TOKEN_WRONG_ALGORITHM},
		{"HS256 said to be ES256", ES, GOOD, HS256, TOKEN_BAD_SIGNATURE},
		{"another ES256 key", ES, GOOD, STRANGER, TOKEN_BAD_SIGNATURE},
		{"another ES256 key with our kid", "{\"alg\":\"ES256\",\"kid\":\"es256\"}", GOOD, STRANGER, TOKEN_BAD_SIGNATURE},
		{"right key, other kid of ours", "{\"alg\":\"ES256\",\"kid\":\"rs256\"}", GOOD, ES256, TOKEN_WRONG_ALGORITHM},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

/* ---- threat 3: time ---- */

static void threat_3_times(void **state)
{
	static const struct row rows[] = {
		{"exp past", ES, "{\"sub\":\"7\",\"exp\":1780000000}", ES256, TOKEN_EXPIRED},
		{"exp 0", ES, "{\"sub\":\"7\",\"exp\":0}", ES256, TOKEN_EXPIRED},
		{"exp past, within the leeway", ES, "{\"sub\":\"7\",\"exp\":1789999941}", ES256, TOKEN_OK},
		{"exp past by the leeway", ES, "{\"sub\":\"7\",\"exp\":1789999940}", ES256, TOKEN_EXPIRED},
		{"exp missing", ES, "{\"sub\":\"7\"}", ES256, TOKEN_NO_EXPIRY},
		{"EXP", ES, "{\"sub\":\"7\",\"EXP\":1790000600}", ES256, TOKEN_NO_EXPIRY},
		{"exp null", ES, "{\"sub\":\"7\",\"exp\":null}", ES256, TOKEN_MALFORMED},
		{"exp a string", ES, "{\"sub\":\"7\",\"exp\":\"1790000600\"}", ES256, TOKEN_MALFORMED},
		{"exp a float", ES, "{\"sub\":\"7\",\"exp\":1790000600.5}", ES256, TOKEN_MALFORMED},
		{"exp 1e999", ES, "{\"sub\":\"7\",\"exp\":1e999}", ES256, TOKEN_MALFORMED},
		{"exp -1e999", ES, "{\"sub\":\"7\",\"exp\":-1e999}", ES256, TOKEN_MALFORMED},
		{"exp 2^53", ES, "{\"sub\":\"7\",\"exp\":9007199254740992}", ES256, TOKEN_MALFORMED},
		{"exp 2^63", ES, "{\"sub\":\"7\",\"exp\":9223372036854775808}", ES256, TOKEN_MALFORMED},
		{"exp negative", ES, "{\"sub\":\"7\",\"exp\":-1}", ES256, TOKEN_MALFORMED},
		{"exp true", ES, "{\"sub\":\"7\",\"exp\":true}", ES256, TOKEN_MALFORMED},
		{"exp in a list", ES, "{\"sub\":\"7\",\"exp\":[1790000600]}", ES256, TOKEN_MALFORMED},
		{"nbf future", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":1790000100}", ES256, TOKEN_NOT_YET_VALID},
		{"nbf future, within the leeway", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":1790000060}", ES256, TOKEN_OK},
		{"nbf future, beyond the leeway", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":1790000061}", ES256,
			TOKEN_NOT_YET_VALID},
		{"nbf the largest", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":9007199254740991}", ES256,
			TOKEN_NOT_YET_VALID},
		{"nbf a string", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":\"0\"}", ES256, TOKEN_MALFORMED},
		{"nbf null", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":null}", ES256, TOKEN_MALFORMED},
		{"nbf 1e999", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":1e999}", ES256, TOKEN_MALFORMED},
		{"nbf negative", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":-1}", ES256, TOKEN_MALFORMED},
		{"nbf past", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"nbf\":1}", ES256, TOKEN_OK},
		{"iat far future", ES, "{\"sub\":\"7\",\"exp\":1890000600,\"iat\":1890000000}", ES256, TOKEN_NOT_YET_VALID},
		{"iat within the leeway", ES, "{\"sub\":\"7\",\"exp\":1890000600,\"iat\":1790000060}", ES256, TOKEN_OK},
		{"iat a string", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iat\":\"now\"}", ES256, TOKEN_MALFORMED},
		{"iat a float", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iat\":1.5}", ES256, TOKEN_MALFORMED},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

/* ---- threat 5: the header's other names ---- */

static void threat_5_key_names_and_urls(void **state)
{
	static const struct row rows[] = {
		{"unknown kid", "{\"alg\":\"ES256\",\"kid\":\"nobody\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid ../", "{\"alg\":\"ES256\",\"kid\":\"../es256\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid /dev/null", "{\"alg\":\"HS256\",\"kid\":\"/dev/null\"}", GOOD, EMPTY_SECRET, TOKEN_UNKNOWN_KEY},
		{"kid with SQL", "{\"alg\":\"ES256\",\"kid\":\"es256' OR '1'='1\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid with a command", "{\"alg\":\"ES256\",\"kid\":\"es256|id\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid empty", "{\"alg\":\"ES256\",\"kid\":\"\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid in capitals", "{\"alg\":\"ES256\",\"kid\":\"ES256\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid longer by a letter", "{\"alg\":\"ES256\",\"kid\":\"es2566\"}", GOOD, ES256, TOKEN_UNKNOWN_KEY},
		{"kid cut by NUL", "{\"alg\":\"ES256\",\"kid\":\"es256\\u0000x\"}", GOOD, ES256, TOKEN_MALFORMED},
		{"kid null", "{\"alg\":\"ES256\",\"kid\":null}", GOOD, ES256, TOKEN_MALFORMED},
		{"kid a number", "{\"alg\":\"ES256\",\"kid\":1}", GOOD, ES256, TOKEN_MALFORMED},
		{"kid a list", "{\"alg\":\"ES256\",\"kid\":[\"es256\"]}", GOOD, ES256, TOKEN_MALFORMED},
		{"jku and x5u are ignored", "{\"alg\":\"ES256\",\"jku\":\"http://127.0.0.1:1/\",\"x5u\":\"file:///etc/passwd\"}",
			GOOD, ES256, TOKEN_OK},
		{"jku brings no key", "{\"alg\":\"ES256\",\"jku\":\"http://127.0.0.1:1/\"}", GOOD, STRANGER, TOKEN_BAD_SIGNATURE},
		{"jwk and x5c are ignored",
			"{\"alg\":\"ES256\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"},\"x5c\":[\"A\"]"
			"}",
			GOOD, ES256, TOKEN_OK},
		{"jwk brings no key", "{\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"\"}}", GOOD, EMPTY_SECRET,
			TOKEN_BAD_SIGNATURE},
		{"crit", "{\"alg\":\"ES256\",\"crit\":[\"exp\"],\"exp\":1}", GOOD, ES256, TOKEN_MALFORMED},
		{"crit empty", "{\"alg\":\"ES256\",\"crit\":[]}", GOOD, ES256, TOKEN_MALFORMED},
		{"crit null", "{\"alg\":\"ES256\",\"crit\":null}", GOOD, ES256, TOKEN_MALFORMED},
		{"b64 false", "{\"alg\":\"ES256\",\"b64\":false,\"crit\":[\"b64\"]}", GOOD, ES256, TOKEN_MALFORMED},
		{"typ other", "{\"alg\":\"ES256\",\"typ\":\"JWE\"}", GOOD, ES256, TOKEN_MALFORMED},
		{"typ a number", "{\"alg\":\"ES256\",\"typ\":1}", GOOD, ES256, TOKEN_MALFORMED},
		{"typ null", "{\"alg\":\"ES256\",\"typ\":null}", GOOD, ES256, TOKEN_MALFORMED},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

/* ---- threat 6: JSON that two readers read differently ---- */

static void threat_6_duplicates_and_other_json(void **state)
{
	static const struct row rows[] = {
		{"duplicate alg", "{\"alg\":\"ES256\",\"alg\":\"ES256\"}", GOOD, ES256, TOKEN_MALFORMED},
		{"duplicate alg, none first", "{\"alg\":\"none\",\"alg\":\"ES256\"}", GOOD, ES256, TOKEN_MALFORMED},
		{"duplicate alg, escaped", "{\"alg\":\"ES256\",\"\\u0061lg\":\"none\"}", GOOD, ES256, TOKEN_MALFORMED},
		{"duplicate kid", "{\"alg\":\"ES256\",\"kid\":\"es256\",\"kid\":\"rs256\"}", GOOD, ES256, TOKEN_MALFORMED},
		{"duplicate sub", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"sub\":\"8\"}", ES256, TOKEN_MALFORMED},
		{"duplicate sub, escaped", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"su\\u0062\":\"8\"}", ES256, TOKEN_MALFORMED},
		{"duplicate exp", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"exp\":1790000600}", ES256, TOKEN_MALFORMED},
		{"duplicate in a claim that nobody reads", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"x\":{\"a\":1,\"a\":1}}",
			ES256, TOKEN_MALFORMED},
		{"header no object", "[]", GOOD, ES256, TOKEN_NOT_A_TOKEN},
		{"header a string", "\"ES256\"", GOOD, ES256, TOKEN_NOT_A_TOKEN},
		{"header cut", "{\"alg\":\"ES256\"", GOOD, ES256, TOKEN_MALFORMED},
		{"header with trailing bytes", "{\"alg\":\"ES256\"}x", GOOD, ES256, TOKEN_MALFORMED},
		{"header too deep", "{\"alg\":\"ES256\",\"x\":[[[[1]]]]}", GOOD, ES256, TOKEN_MALFORMED},
		{"claims no object", ES, "[]", ES256, TOKEN_MALFORMED},
		{"claims a number", ES, "1", ES256, TOKEN_MALFORMED},
		{"claims cut", ES, "{\"sub\":\"7\",\"exp\":1790000600", ES256, TOKEN_MALFORMED},
		{"claims with trailing bytes", ES, GOOD "{}", ES256, TOKEN_MALFORMED},
		{"claims with a BOM", ES, "\xef\xbb\xbf" GOOD, ES256, TOKEN_MALFORMED},
		{"claims not UTF-8", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"name\":\"\xe9\"}", ES256, TOKEN_MALFORMED},
		{"claims with U+0000", ES, "{\"sub\":\"7\\u0000\",\"exp\":1790000600}", ES256, TOKEN_MALFORMED},
		{"claims too deep", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"x\":[[[[[[[[1]]]]]]]]}", ES256, TOKEN_MALFORMED},
		{"claims a JWT once more", ES, "eyJhbGciOiJub25lIn0.e30.", ES256, TOKEN_MALFORMED},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

/* Claims that nobody vouches for are not parsed: what is wrong with them stays unsaid. */
static void looks_at_claims_only_after_the_signature(void **state)
{
	static const struct row rows[] = {
		{"bad claims", ES, "{\"sub\":\"7\",\"sub\":\"7\"", STRANGER, TOKEN_BAD_SIGNATURE},
		{"expired", ES, "{\"sub\":\"7\",\"exp\":1}", STRANGER, TOKEN_BAD_SIGNATURE},
		{"bad subject", ES, "{\"sub\":\"x\",\"exp\":1790000600}", NOBODY, TOKEN_BAD_SIGNATURE},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

/* ---- threat 7: the text itself ---- */

struct text_row {
	const char *name;
	const char *text;
	enum token_result wanted;
};

static void threat_7_other_spellings(void **state)
{
	struct buffer good;
	struct buffer changed;
	struct token_claims claims;
	static const struct {
		const char *name;
		const char *before; /* put before the token */
		const char *after;
		enum token_result wanted;
	} around[] = {
		{"as it is", "", "", TOKEN_OK},
		{"blank before", " ", "", TOKEN_NOT_A_TOKEN},
		{"newline before", "\n", "", TOKEN_NOT_A_TOKEN},
		{"Bearer before", "Bearer ", "", TOKEN_NOT_A_TOKEN},
		{"dot before", ".", "", TOKEN_NOT_A_TOKEN},
		{"blank behind", "", " ", TOKEN_MALFORMED},
		{"newline behind", "", "\n", TOKEN_MALFORMED},
		{"dot behind", "", ".", TOKEN_NOT_A_TOKEN},
		{"four parts", "", ".e30", TOKEN_NOT_A_TOKEN},
		{"padding of one", "", "=", TOKEN_MALFORMED},
		{"padding of two", "", "==", TOKEN_MALFORMED},
		{"a byte more", "", "A", TOKEN_BAD_SIGNATURE},
		{"two bytes more", "", "AA", TOKEN_BAD_SIGNATURE},
		{"quotation marks", "\"", "\"", TOKEN_NOT_A_TOKEN},
	};

	(void)state;
	forge(&good, ES256, ES, strlen(ES), GOOD, strlen(GOOD));
	for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
		buffer_init(&changed, 1000);
		assert_true(buffer_append_text(&changed, around[i].before) && buffer_append(&changed, good.data, good.length) &&
			    buffer_append_text(&changed, around[i].after));
		enum token_result result = check(changed.data, changed.length, &no_rules, NOW_S, &claims);
		if (result != around[i].wanted) {
			fail_msg("%s: %s", around[i].name, token_result_text(result));
		}
		buffer_free(&changed);
	}

	/* A byte that is no base64url in each place; threat 15's NUL among them. */
	static const char strangers[] = {'\0', ' ', '\n', '=', '+', '/', '%', '"', (char)0xc3, (char)0xff};
	for (size_t at = 0; at < good.length; at++) {
		for (size_t i = 0; i < sizeof(strangers); i++) {
			char kept = good.data[at];
			good.data[at] = strangers[i];
			enum token_result result = check(good.data, good.length, &no_rules, NOW_S, &claims);
			assert_true(result == TOKEN_MALFORMED || result == TOKEN_NOT_A_TOKEN || result == TOKEN_BAD_SIGNATURE);
			good.data[at] = kept;
		}
	}
	buffer_free(&good);
}

/* The 64 bytes of the signature end in a character with four bits that mean nothing: 15 other spellings of one token. */
static void threat_7_has_one_spelling(void **state)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	struct buffer token;
	struct token_claims claims;
	unsigned accepted = 0;

	(void)state;
	forge(&token, ES256, ES, strlen(ES), GOOD, strlen(GOOD));
	for (size_t i = 0; i < 64; i++) {
		token.data[token.length - 1] = alphabet[i];
		accepted += check(token.data, token.length, &no_rules, NOW_S, &claims) == TOKEN_OK ? 1 : 0;
	}
	assert_int_equal(accepted, 1);
	buffer_free(&token);
}

static void threat_7_shapes(void **state)
{
	static const struct text_row rows[] = {
		{"empty", "", TOKEN_NOT_A_TOKEN},
		{"one letter", "e", TOKEN_NOT_A_TOKEN},
		{"a password", "correct horse battery staple", TOKEN_NOT_A_TOKEN},
		{"a password with two dots", "correct.horse.battery", TOKEN_NOT_A_TOKEN},
		{"a password that begins with e", "easy.as.pie", TOKEN_NOT_A_TOKEN},
		{"two dots", "..", TOKEN_NOT_A_TOKEN},
		{"header alone", "eyJhbGciOiJFUzI1NiJ9", TOKEN_NOT_A_TOKEN},
		{"two parts", "eyJhbGciOiJFUzI1NiJ9.e30", TOKEN_NOT_A_TOKEN},
		{"no header", ".e30.AA", TOKEN_NOT_A_TOKEN},
		{"no claims", "eyJhbGciOiJFUzI1NiJ9..AA", TOKEN_NOT_A_TOKEN},
		{"no signature", "eyJhbGciOiJFUzI1NiJ9.e30.", TOKEN_BAD_SIGNATURE},
		{"five parts, an encrypted token", "eyJhbGciOiJSU0EtT0FFUCJ9.AA.AA.AA.AA", TOKEN_NOT_A_TOKEN},
		{"JSON serialisation", "{\"payload\":\"e30\",\"signature\":\"AA\"}", TOKEN_NOT_A_TOKEN},
		{"header not base64url", "eyJ*.e30.AA", TOKEN_MALFORMED},
		{"header with unused bits", "eyJhbGciOiJFUzI1NiJ9Cg.e30.AA",
			TOKEN_BAD_SIGNATURE}, /* a newline: good JSON still */
		{"header with unused bits set", "eyJhbGciOiJFUzI1NiJ9Ch.e30.AA", TOKEN_MALFORMED},
		{"signature with unused bits set", "eyJhbGciOiJFUzI1NiJ9.e30.AB", TOKEN_MALFORMED},
		{"signature of one character", "eyJhbGciOiJFUzI1NiJ9.e30.A", TOKEN_MALFORMED},
		{"short signature", "eyJhbGciOiJFUzI1NiJ9.e30.AA", TOKEN_BAD_SIGNATURE},
	};
	struct token_claims claims;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum token_result result = check(rows[i].text, strlen(rows[i].text), &no_rules, NOW_S, &claims);
		if (result != rows[i].wanted) {
			fail_msg("%s: %s", rows[i].name, token_result_text(result));
		}
	}
}

static void threat_7_sizes(void **state)
{
	static char text[65536];
	struct token_claims claims;
	struct buffer token;

	(void)state;
	memset(text, '.', 10000);
	assert_int_equal(check(text, 10000, &no_rules, NOW_S, &claims), TOKEN_NOT_A_TOKEN);
	memcpy(text, "eyJ", 3);
	assert_int_equal(check(text, 10000, &no_rules, NOW_S, &claims), TOKEN_TOO_LONG);
	assert_int_equal(check(text, 4000, &no_rules, NOW_S, &claims), TOKEN_NOT_A_TOKEN); /* 3,997 dots */
	memset(text, 'A', sizeof(text));
	assert_int_equal(check(text, sizeof(text), &no_rules, NOW_S, &claims), TOKEN_NOT_A_TOKEN);
	memcpy(text, "eyJ", 3);
	assert_int_equal(check(text, sizeof(text), &no_rules, NOW_S, &claims), TOKEN_TOO_LONG);
	text[1000] = '.';
	text[2000] = '.';
	assert_int_equal(check(text, sizeof(text), &no_rules, NOW_S, &claims), TOKEN_TOO_LONG);
	/* as long as allowed: the whole of it header, claims, or signature */
	for (size_t first = 100; first < TOKEN_MAX - 2; first += 97) {
		memset(text, 'A', TOKEN_MAX);
		memcpy(text, "eyJ", 3);
		text[first] = '.';
		text[first + (TOKEN_MAX - first) / 2] = '.';
		assert_int_equal(check(text, TOKEN_MAX, &no_rules, NOW_S, &claims), TOKEN_MALFORMED);
	}
	/* A good token of exactly the maximum is good; one claim longer and it is too long. */
	for (size_t filler = 2700; filler < 3200; filler++) {
		struct buffer payload;
		buffer_init(&payload, 8192);
		assert_true(buffer_append_format(&payload, "{\"sub\":\"7\",\"exp\":1790000600,\"x\":\"%0*d\"}", (int)filler, 0));
		forge(&token, HS256, "{\"alg\":\"HS256\"}", 15, payload.data, payload.length);
		enum token_result result = check(token.data, token.length, &no_rules, NOW_S, &claims);
		assert_int_equal(result, token.length <= TOKEN_MAX ? TOKEN_OK : TOKEN_TOO_LONG);
		buffer_free(&token);
		buffer_free(&payload);
	}
}

/* ---- threat 8: whose token, and for whom ---- */

#define ISS "\"iss\":\"https://id.example\""
#define AUD "\"aud\":\"chat\""

static void threat_8_issuer_and_audience(void **state)
{
	static const struct row rows[] = {
		{"both right", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS "," AUD "}", ES256, TOKEN_OK},
		{"aud in a list", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":[\"mail\",\"chat\"]}", ES256, TOKEN_OK},
		{"aud in a list with others' oddities", ES,
			"{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":[1,null,\"chat\"]}", ES256, TOKEN_OK},
		{"iss missing", ES, "{\"sub\":\"7\",\"exp\":1790000600," AUD "}", ES256, TOKEN_WRONG_ISSUER},
		{"iss other", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":\"https://evil.example\"," AUD "}", ES256,
			TOKEN_WRONG_ISSUER},
		{"iss longer", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":\"https://id.example/\"," AUD "}", ES256,
			TOKEN_WRONG_ISSUER},
		{"iss shorter", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":\"https://id.exampl\"," AUD "}", ES256,
			TOKEN_WRONG_ISSUER},
		{"iss in capitals", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":\"HTTPS://ID.EXAMPLE\"," AUD "}", ES256,
			TOKEN_WRONG_ISSUER},
		{"iss in a list", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":[\"https://id.example\"]," AUD "}", ES256,
			TOKEN_WRONG_ISSUER},
		{"iss null", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"iss\":null," AUD "}", ES256, TOKEN_WRONG_ISSUER},
		{"aud missing", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS "}", ES256, TOKEN_WRONG_AUDIENCE},
		{"aud other", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":\"mail\"}", ES256, TOKEN_WRONG_AUDIENCE},
		{"aud other in a list", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":[\"mail\",\"chats\"]}", ES256,
			TOKEN_WRONG_AUDIENCE},
		{"aud an empty list", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":[]}", ES256, TOKEN_WRONG_AUDIENCE},
		{"aud in a list in a list", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":[[\"chat\"]]}", ES256,
			TOKEN_WRONG_AUDIENCE},
		{"aud an object", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":{\"chat\":\"chat\"}}", ES256,
			TOKEN_WRONG_AUDIENCE},
		{"aud several in a string", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":\"mail chat\"}", ES256,
			TOKEN_WRONG_AUDIENCE},
		{"aud empty", ES, "{\"sub\":\"7\",\"exp\":1790000600," ISS ",\"aud\":\"\"}", ES256, TOKEN_WRONG_AUDIENCE},
	};

	(void)state;
	CHECK_ROWS(rows, &rules);
}

#define SUBJECT(json) "{\"sub\":" json ",\"exp\":1790000600}"

static void threat_8_subjects(void **state)
{
	static const struct row rows[] = {
		{"largest", ES, SUBJECT("\"9007199254740991\""), ES256, TOKEN_OK},
		{"missing", ES, "{\"exp\":1790000600}", ES256, TOKEN_BAD_SUBJECT},
		{"null", ES, SUBJECT("null"), ES256, TOKEN_BAD_SUBJECT},
		{"a number", ES, SUBJECT("7"), ES256, TOKEN_BAD_SUBJECT},
		{"a list", ES, SUBJECT("[\"7\"]"), ES256, TOKEN_BAD_SUBJECT},
		{"empty", ES, SUBJECT("\"\""), ES256, TOKEN_BAD_SUBJECT},
		{"zero", ES, SUBJECT("\"0\""), ES256, TOKEN_BAD_SUBJECT},
		{"negative", ES, SUBJECT("\"-7\""), ES256, TOKEN_BAD_SUBJECT},
		{"plus sign", ES, SUBJECT("\"+7\""), ES256, TOKEN_BAD_SUBJECT},
		{"leading zero", ES, SUBJECT("\"07\""), ES256, TOKEN_BAD_SUBJECT},
		{"leading blank", ES, SUBJECT("\" 7\""), ES256, TOKEN_BAD_SUBJECT},
		{"trailing blank", ES, SUBJECT("\"7 \""), ES256, TOKEN_BAD_SUBJECT},
		{"trailing newline", ES, SUBJECT("\"7\\n\""), ES256, TOKEN_BAD_SUBJECT},
		{"hexadecimal", ES, SUBJECT("\"0x7\""), ES256, TOKEN_BAD_SUBJECT},
		{"exponent", ES, SUBJECT("\"7e0\""), ES256, TOKEN_BAD_SUBJECT},
		{"fraction", ES, SUBJECT("\"7.0\""), ES256, TOKEN_BAD_SUBJECT},
		{"a name", ES, SUBJECT("\"alice\""), ES256, TOKEN_BAD_SUBJECT},
		{"topic characters", ES, SUBJECT("\"7/#\""), ES256, TOKEN_BAD_SUBJECT},
		{"wildcard", ES, SUBJECT("\"+\""), ES256, TOKEN_BAD_SUBJECT},
		{"SQL", ES, SUBJECT("\"7;DROP TABLE chat.users\""), ES256, TOKEN_BAD_SUBJECT},
		{"Arabic-Indic digit", ES, SUBJECT("\"\\u0667\""), ES256, TOKEN_BAD_SUBJECT},
		{"fullwidth digit", ES, SUBJECT("\"\xef\xbc\x97\""), ES256, TOKEN_BAD_SUBJECT},
		{"2^53", ES, SUBJECT("\"9007199254740992\""), ES256, TOKEN_BAD_SUBJECT},
		{"2^63", ES, SUBJECT("\"9223372036854775808\""), ES256, TOKEN_BAD_SUBJECT},
		{"2^64 + 7", ES, SUBJECT("\"18446744073709551623\""), ES256, TOKEN_BAD_SUBJECT},
		{"guest", ES, SUBJECT("\"guest\""), ES256, TOKEN_BAD_SUBJECT},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

#define DEVICE(json) "{\"sub\":\"7\",\"exp\":1790000600,\"device\":" json "}"

static void devices(void **state)
{
	static const struct row rows[] = {
		{"good", ES, DEVICE("31"), ES256, TOKEN_OK},
		{"largest", ES, DEVICE("9007199254740991"), ES256, TOKEN_OK},
		{"too large", ES, DEVICE("9007199254740992"), ES256, TOKEN_MALFORMED},
		{"zero", ES, DEVICE("0"), ES256, TOKEN_BAD_DEVICE},
		{"negative", ES, DEVICE("-1"), ES256, TOKEN_BAD_DEVICE},
		{"fraction", ES, DEVICE("1.5"), ES256, TOKEN_BAD_DEVICE},
		{"a string", ES, DEVICE("\"31\""), ES256, TOKEN_BAD_DEVICE},
		{"null", ES, DEVICE("null"), ES256, TOKEN_BAD_DEVICE},
		{"a list", ES, DEVICE("[31]"), ES256, TOKEN_BAD_DEVICE},
		{"a device token of no device", ES, "{\"sub\":\"7\",\"exp\":1790000600,\"typ\":\"device\"}", ES256,
			TOKEN_BAD_DEVICE},
	};

	(void)state;
	CHECK_ROWS(rows, &no_rules);
}

/* ---- threat 9: signatures ---- */

static void threat_9_signatures(void **state)
{
	static const struct {
		enum signer signer;
		const char *header;
	} rows[] = {{ES256, ES}, {RS256, "{\"alg\":\"RS256\"}"}, {EDDSA, "{\"alg\":\"EdDSA\"}"}, {HS256, "{\"alg\":\"HS256\"}"}};
	struct token_claims claims;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buffer token;
		forge(&token, rows[i].signer, rows[i].header, strlen(rows[i].header), GOOD, strlen(GOOD));
		const char *last_dot = token.data + token.length;
		while (last_dot[-1] != '.') {
			last_dot--;
		}
		size_t shortest = (size_t)(last_dot - token.data);
		assert_int_equal(check(token.data, token.length, &no_rules, NOW_S, &claims), TOKEN_OK);
		for (size_t length = shortest; length < token.length; length++) { /* empty and truncated */
			enum token_result result = check(token.data, length, &no_rules, NOW_S, &claims);
			assert_true(result == TOKEN_BAD_SIGNATURE || result == TOKEN_MALFORMED);
		}
		for (size_t at = 0; at < token.length; at += i == 1 ? 3 : 1) { /* any other letter anywhere */
			char kept = token.data[at];
			token.data[at] = kept == 'A' ? 'B' : 'A';
			assert_int_not_equal(check(token.data, token.length, &no_rules, NOW_S, &claims), TOKEN_OK);
			token.data[at] = kept;
		}
		buffer_free(&token);
	}
}

/* The claims of one good token under the signature of another. */
static void threat_9_signatures_do_not_travel(void **state)
{
	struct buffer first;
	struct buffer second;
	struct token_claims claims;
	static const char other[] = "{\"sub\":\"8\",\"exp\":1790000600}";

	(void)state;
	forge(&first, ES256, ES, strlen(ES), GOOD, strlen(GOOD));
	forge(&second, ES256, ES, strlen(ES), other, strlen(other));
	assert_int_equal(first.length, second.length);
	memcpy(first.data + first.length - 86, second.data + second.length - 86, 86);
	assert_int_equal(check(first.data, first.length, &no_rules, NOW_S, &claims), TOKEN_BAD_SIGNATURE);
	buffer_free(&first);
	buffer_free(&second);
}

/* ---- the ring ---- */

static void several_keys_of_one_algorithm(void **state)
{
	char specs[3 * KEY_PATH_SIZE] = "";
	char error[SIGNING_ERROR_SIZE];
	struct buffer token;
	struct token_claims claims;

	(void)state;
	key_write_public("old", keys[STRANGER], 0644);
	append_path(specs, sizeof(specs), "", "es256");
	append_path(specs, sizeof(specs), " ", "old"); /* blanks around a comma */
	struct token_ring *both = token_ring_load(specs, error, sizeof(error));
	assert_non_null(both);
	static const struct row rows[] = {
		{"first, no kid", ES, GOOD, ES256, TOKEN_OK},
		{"second, no kid", ES, GOOD, STRANGER, TOKEN_OK},
		{"second by name", "{\"alg\":\"ES256\",\"kid\":\"old\"}", GOOD, STRANGER, TOKEN_OK},
		{"second under the first's name", "{\"alg\":\"ES256\",\"kid\":\"es256\"}", GOOD, STRANGER, TOKEN_BAD_SIGNATURE},
		{"an algorithm that this ring lacks", "{\"alg\":\"HS256\"}", GOOD, HS256, TOKEN_WRONG_ALGORITHM},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		forge(&token, rows[i].signer, rows[i].header, strlen(rows[i].header), rows[i].payload, strlen(rows[i].payload));
		enum token_result result = token_check(token.data, token.length, both, &no_rules, NOW_S, &claims);
		if (result != rows[i].wanted) {
			fail_msg("%s: %s", rows[i].name, token_result_text(result));
		}
		buffer_free(&token);
	}
	token_ring_free(both);
}

static void refuses_bad_lists_of_keys(void **state)
{
	char path[KEY_PATH_SIZE];
	char specs[(TOKEN_KEYS_MAX + 1) * KEY_PATH_SIZE] = "";
	char error[SIGNING_ERROR_SIZE];
	static const char *const bad[] = {"", " ", ",", "%s,", ",%s", "%s,,%s", "%s,%s", "%s,/nonexistent/key"};
	static const char *const says[] = {"empty name", "empty name", "empty name", "empty name", "empty name", "empty name",
		"two keys have the id es256", "cannot be opened"};

	(void)state;
	key_path(path, "es256");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		specs[0] = '\0';
		for (const char *c = bad[i]; *c != '\0'; c++) {
			size_t length = strlen(specs);
			bool insert = c[0] == '%';
			assert_true(snprintf(specs + length, sizeof(specs) - length, "%.*s", insert ? KEY_PATH_SIZE : 1,
					    insert ? path : c) > 0);
			c += insert ? 1 : 0;
		}
		error[0] = '\0';
		struct token_ring *made = token_ring_load(specs, error, sizeof(error));
		if (made != NULL || strstr(error, says[i]) == NULL) {
			fail_msg("\"%s\": %s", specs, made != NULL ? "accepted" : error);
		}
	}
	specs[0] = '\0';
	for (int i = 0; i < TOKEN_KEYS_MAX; i++) {
		char name[16];
		assert_true(snprintf(name, sizeof(name), "many-%d", i) > 0);
		key_write_public(name, keys[ES256], 0644);
		append_path(specs, sizeof(specs), "", name);
	}
	struct token_ring *full = token_ring_load(specs, error, sizeof(error));
	assert_non_null(full);
	token_ring_free(full);
	append_path(specs, sizeof(specs), "", "es256");
	assert_null(token_ring_load(specs, error, sizeof(error)));
	assert_string_equal(error, "more than 16 keys");
	token_ring_free(NULL);
}

/* ---- making ---- */

static struct signing_key *load_signer(const char *prefix, const char *name)
{
	char spec[KEY_PATH_SIZE + 16] = "";
	char error[SIGNING_ERROR_SIZE];

	append_path(spec, sizeof(spec), prefix, name);
	struct signing_key *key = signing_key_load(spec, error, sizeof(error));
	if (key == NULL) {
		fail_msg("%s", error);
	}
	return key;
}

/* Replaces the public key file es256 by its private key, under the same name. */
static struct signing_key *load_private(enum signer signer, const char *name)
{
	if (signer == HS256) {
		return load_signer("hs256:", name);
	}
	key_write_private(name, keys[signer], 0600);
	struct signing_key *key = load_signer("", name);
	key_write_public(name, keys[signer], 0644);
	return key;
}

static void makes_tokens_that_are_accepted(void **state)
{
	static const struct {
		enum signer signer;
		const char *name;
	} signers[] = {{ES256, "es256"}, {RS256, "rs256"}, {EDDSA, "eddsa"}, {HS256, "hs256"}};
	static const struct token_claims wanted[] = {
		{.user_id = 1, .expires_at_s = NOW_S + 1},
		{.user_id = TEXT_ID_MAX,
			.device_id = TEXT_ID_MAX,
			.expires_at_s = TEXT_ID_MAX,
			.issued_at_s = NOW_S,
			.device_token = true},
		{.user_id = 7, .device_id = 3, .expires_at_s = NOW_S + 600, .issued_at_s = NOW_S - 5},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(signers) / sizeof(signers[0]); i++) {
		struct signing_key *key = load_private(signers[i].signer, signers[i].name);
		for (size_t j = 0; j < sizeof(wanted) / sizeof(wanted[0]); j++) {
			struct buffer token;
			struct token_claims claims;
			buffer_init(&token, TOKEN_MAX);
			assert_true(token_make(key, &rules, &wanted[j], &token));
			assert_int_equal(check(token.data, token.length, &rules, NOW_S, &claims), TOKEN_OK);
			assert_int_equal(claims.user_id, wanted[j].user_id);
			assert_int_equal(claims.device_id, wanted[j].device_id);
			assert_int_equal(claims.expires_at_s, wanted[j].expires_at_s);
			assert_int_equal(claims.issued_at_s, wanted[j].issued_at_s);
			assert_int_equal(claims.device_token, wanted[j].device_token);
			buffer_reset(&token);
			assert_true(token_make(key, &no_rules, &wanted[j], &token));
			assert_int_equal(check(token.data, token.length, &no_rules, NOW_S, &claims), TOKEN_OK);
			assert_int_equal(check(token.data, token.length, &rules, NOW_S, &claims), TOKEN_WRONG_ISSUER);
			buffer_free(&token);
		}
		signing_key_free(key);
	}
}

static void makes_no_token_that_would_be_refused(void **state)
{
	static const struct token_claims good = {.user_id = 7, .expires_at_s = NOW_S};
	static const struct token_claims bad[] = {
		{.user_id = 0, .expires_at_s = NOW_S},
		{.user_id = -1, .expires_at_s = NOW_S},
		{.user_id = TEXT_ID_MAX + 1, .expires_at_s = NOW_S},
		{.user_id = 7, .device_id = -1, .expires_at_s = NOW_S},
		{.user_id = 7, .expires_at_s = -1},
		{.user_id = 7, .expires_at_s = NOW_S, .issued_at_s = -1},
		{.user_id = 7, .expires_at_s = NOW_S, .device_token = true},
	};
	static char long_text[TOKEN_MAX];
	struct signing_key *key = load_private(ES256, "es256");
	struct signing_key *public = load_signer("", "es256");
	struct buffer out;

	(void)state;
	buffer_init(&out, TOKEN_MAX);
	assert_true(buffer_append_text(&out, "kept"));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(token_make(key, &no_rules, &bad[i], &out));
	}
	assert_false(token_make(public, &no_rules, &good, &out));
	assert_false(token_make(key, &(struct token_rules){.issuer = "caf\xe9"}, &good, &out));
	memset(long_text, 'x', sizeof(long_text) - 1);
	assert_false(token_make(key, &(struct token_rules){.issuer = long_text}, &good, &out));
	long_text[3900] = '\0'; /* fits as JSON, not as base64url */
	assert_false(token_make(key, &(struct token_rules){.audience = long_text}, &good, &out));
	assert_false(out.failed);
	assert_int_equal(out.length, 4);
	assert_memory_equal(out.data, "kept", 4);
	assert_true(token_make(key, &no_rules, &good, &out));
	buffer_free(&out);
	buffer_init(&out, 100); /* too small */
	assert_false(token_make(key, &no_rules, &good, &out));
	assert_true(out.failed);
	buffer_free(&out);
	signing_key_free(public);
	signing_key_free(key);
}

/* What the rules hold is quoted, not pasted. */
static void quotes_issuer_and_audience(void **state)
{
	static const struct token_rules odd = {.issuer = "a\",\"sub\":\"8", .audience = "b\\\n\xc3\xa9"};
	static const struct token_claims wanted = {.user_id = 7, .expires_at_s = NOW_S};
	struct signing_key *key = load_private(ES256, "es256");
	struct buffer token;
	struct token_claims claims;

	(void)state;
	buffer_init(&token, TOKEN_MAX);
	assert_true(token_make(key, &odd, &wanted, &token));
	assert_int_equal(check(token.data, token.length, &odd, NOW_S, &claims), TOKEN_OK);
	assert_int_equal(claims.user_id, 7);
	buffer_free(&token);
	signing_key_free(key);
}

static void every_result_has_its_words(void **state)
{
	(void)state;
	for (int result = TOKEN_OK; result < TOKEN_RESULTS; result++) {
		assert_non_null(token_result_text((enum token_result)result));
		for (int other = TOKEN_OK; other < result; other++) {
			assert_string_not_equal(
				token_result_text((enum token_result)result), token_result_text((enum token_result)other));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_good_tokens),
		cmocka_unit_test(reads_the_claims),
		cmocka_unit_test(threat_1_algorithm_none),
		cmocka_unit_test(threat_2_key_confusion),
		cmocka_unit_test(threat_3_times),
		cmocka_unit_test(threat_5_key_names_and_urls),
		cmocka_unit_test(threat_6_duplicates_and_other_json),
		cmocka_unit_test(looks_at_claims_only_after_the_signature),
		cmocka_unit_test(threat_7_other_spellings),
		cmocka_unit_test(threat_7_has_one_spelling),
		cmocka_unit_test(threat_7_shapes),
		cmocka_unit_test(threat_7_sizes),
		cmocka_unit_test(threat_8_issuer_and_audience),
		cmocka_unit_test(threat_8_subjects),
		cmocka_unit_test(devices),
		cmocka_unit_test(threat_9_signatures),
		cmocka_unit_test(threat_9_signatures_do_not_travel),
		cmocka_unit_test(several_keys_of_one_algorithm),
		cmocka_unit_test(refuses_bad_lists_of_keys),
		cmocka_unit_test(makes_tokens_that_are_accepted),
		cmocka_unit_test(makes_no_token_that_would_be_refused),
		cmocka_unit_test(quotes_issuer_and_audience),
		cmocka_unit_test(every_result_has_its_words),
	};
	return cmocka_run_group_tests_name("token", tests, set_up, tear_down);
}
