/* test_push_tokens.c - what we prove ourselves with: to Apple, to Google, to browsers' services; and when it is renewed. */
#include "credential.h"
#include "json.h"
#include "jwt.h"

#include "base64url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "key_files.h"

#define NOW_MS INT64_C(1790000000000)

static struct signing_key *ec, *rsa;
static struct buffer out;

static struct signing_key *make_key(const char *name, EVP_PKEY *pkey)
{
	char path[KEY_PATH_SIZE], error[SIGNING_ERROR_SIZE];
	key_path(path, name);
	key_write_private(name, pkey, 0600);
	EVP_PKEY_free(pkey);
	struct signing_key *key = signing_key_load(path, error, sizeof(error));
	if (!key) {
		fail_msg("%s", error);
	}
	return key;
}

static int setup(void **state)
{
	(void)state;
	key_directory_make();
	ec = make_key("ec.pem", key_make_ec("P-256"));
	rsa = make_key("rsa.pem", key_make_rsa(2048));
	buffer_init(&out, 8192);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	signing_key_free(ec);
	signing_key_free(rsa);
	buffer_free(&out);
	key_directory_remove();
	return 0;
}

/* Checks the signature of the token that begins at text, and that its header and claims are these. */
static void expect_jwt(const struct signing_key *key, const char *text, size_t length, const char *header, const char *claims)
{
	char decoded[2048];
	size_t size = 0;
	const char *first = memchr(text, '.', length);
	assert_non_null(first);
	const char *second = memchr(first + 1, '.', length - (size_t)(first + 1 - text));
	assert_non_null(second);
	assert_true(base64url_decode(text, (size_t)(first - text), (uint8_t *)decoded, &size));
	decoded[size] = '\0';
	assert_string_equal(decoded, header);
	assert_true(base64url_decode(first + 1, (size_t)(second - first - 1), (uint8_t *)decoded, &size));
	decoded[size] = '\0';
	assert_string_equal(decoded, claims);
	assert_true(base64url_decode(second + 1, length - (size_t)(second + 1 - text), (uint8_t *)decoded, &size));
	assert_true(signing_verify(key, text, (size_t)(second - text), (const uint8_t *)decoded, size));
}

static void apns(void **state)
{
	(void)state;
	buffer_reset(&out);
	assert_true(jwt_apns(ec, "KEYID12345", "TEAMID1234", 1790000000, &out));
	expect_jwt(ec, out.data, out.length, "{\"kid\":\"KEYID12345\",\"alg\":\"ES256\"}",
		"{\"iss\":\"TEAMID1234\",\"iat\":1790000000}");
}

static void vapid(void **state)
{
	uint8_t point[SIGNING_POINT_SIZE], decoded[100];
	size_t size = 0;
	(void)state;
	buffer_reset(&out);
	assert_true(jwt_vapid(ec, "https://push.example.org", "mailto:a@b.c", 1790000000, &out));
	assert_true(buffer_append(&out, "", 1));
	assert_memory_equal(out.data, "vapid t=", 8);
	char *key = strstr(out.data, ", k=");
	assert_non_null(key);
	expect_jwt(ec, out.data + 8, (size_t)(key - out.data - 8), "{\"typ\":\"JWT\",\"alg\":\"ES256\"}",
		"{\"aud\":\"https://push.example.org\",\"sub\":\"mailto:a@b.c\",\"exp\":1790000000}");
	assert_true(signing_key_point(ec, point));
	assert_true(base64url_decode(key + 4, strlen(key + 4), decoded, &size));
	assert_int_equal(size, sizeof(point));
	assert_memory_equal(decoded, point, size);
	assert_false(jwt_vapid(rsa, "https://push.example.org", "mailto:a@b.c", 1790000000, &out));
}

static void google(void **state)
{
	(void)state;
	buffer_reset(&out);
	assert_true(jwt_google(rsa, NULL, "a@b.c", "https://oauth2.googleapis.com/token", 1790000000, &out));
	expect_jwt(rsa, out.data, out.length, "{\"typ\":\"JWT\",\"alg\":\"RS256\"}",
		"{\"iss\":\"a@b.c\",\"scope\":\"https://www.googleapis.com/auth/firebase.messaging\",\"aud\":\"https://"
		"oauth2.googleapis.com/token\","
		"\"iat\":1790000000,\"exp\":1790003600}");
}

/* Two notifiers, or one that was started again, use one time of issue; it is renewed after 20 minutes at the earliest and
 * before 60 have passed. */
static void apns_slots(void **state)
{
	const struct config_app app = {.key = ec, .key_id = (char[]){"K"}, .team_id = (char[]){"T"}};
	struct credential one;
	int64_t renewed = 0, renewed_at_ms = 0;
	(void)state;
	credential_init(&one);
	for (int64_t now_ms = NOW_MS; now_ms < NOW_MS + 86400000; now_ms += 60000) {
		if (credential_is_due(&one, now_ms)) {
			assert_true(renewed == 0 || renewed == 1 || now_ms - renewed_at_ms >= 1200000);
			assert_true(credential_make_apns(&one, &app, now_ms));
			renewed++;
			renewed_at_ms = now_ms;
		}
		assert_true(credential_is_good(&one, now_ms));
		assert_true(one.renew_at_ms - now_ms <= 2400000);
	}
	assert_in_range(renewed, 24, 72);
	credential_free(&one);
}

static void google_answers(void **state)
{
	static const char good[] = "{\"access_token\":\"ya29.x\",\"expires_in\":3599,\"token_type\":\"Bearer\"}";
	static const char *const bad[] = {"", "{}", "<html>", "{\"access_token\":\"\"}", "{\"access_token\":7}",
		"{\"access_token\":\"a\\r\\nx: y\"}", "{\"error\":\"invalid_grant\"}"};
	struct credential token;
	(void)state;
	credential_init(&token);
	assert_true(credential_google_answer(&token, good, strlen(good), NOW_MS));
	assert_string_equal(token.text.data, "ya29.x");
	assert_false(credential_is_due(&token, NOW_MS + 3000000));
	assert_true(credential_is_due(&token, NOW_MS + 3100000)); /* at 85 % */
	assert_true(credential_is_good(&token, NOW_MS + 3598000));
	assert_false(credential_is_good(&token, NOW_MS + 3599000));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(credential_google_answer(&token, bad[i], strlen(bad[i]), NOW_MS));
		assert_string_equal(token.text.data, "ya29.x"); /* the old one stays */
	}
	credential_free(&token);
}

static void parsed_keys(void **state)
{
	char error[SIGNING_ERROR_SIZE];
	(void)state;
	assert_null(signing_key_parse("no key", 6, "x", error, sizeof(error)));
	assert_non_null(strstr(error, "x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(apns), cmocka_unit_test(vapid), cmocka_unit_test(google),
		cmocka_unit_test(apns_slots), cmocka_unit_test(google_answers), cmocka_unit_test(parsed_keys)};
	return cmocka_run_group_tests_name("push_tokens", tests, setup, teardown);
}
