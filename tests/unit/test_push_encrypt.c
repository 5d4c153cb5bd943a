/* test_push_encrypt.c - RFC 8291's example, byte for byte, and what is refused. */
#include "base64url.h"
#include "encrypt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* RFC 8291 section 5 and appendix A */
static const char text[] = "When I grow up, I want to be a watermelon";
static const char ua_public[] = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
static const char auth_secret[] = "BTBZMqHH6r4Tts7J_aSIgg";
static const char as_private[] = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
static const char salt_text[] = "DGv6ra1nlYgDCS1FRnbzlw";
static const char expected[] = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_"
			       "c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6"
			       "cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

static uint8_t point[ENCRYPT_POINT_SIZE], auth[ENCRYPT_AUTH_SIZE], scalar[ENCRYPT_SCALAR_SIZE], salt[ENCRYPT_SALT_SIZE];

static void decode(const char *encoded, uint8_t *out, size_t size)
{
	size_t length = 0;
	assert_true(base64url_decode(encoded, strlen(encoded), out, &length));
	assert_int_equal(length, size);
}

static int setup(void **state)
{
	(void)state;
	decode(ua_public, point, sizeof(point));
	decode(auth_secret, auth, sizeof(auth));
	decode(as_private, scalar, sizeof(scalar));
	decode(salt_text, salt, sizeof(salt));
	return 0;
}

static void vector(void **state)
{
	char encoded[400];
	struct buffer out;
	(void)state;
	buffer_init(&out, 5000);
	assert_true(encrypt_push(point, auth, scalar, salt, text, strlen(text), 0, &out));
	assert_int_equal(out.length, 144);
	size_t length = base64url_encode((const uint8_t *)out.data, out.length, encoded);
	assert_int_equal(length, strlen(expected));
	assert_memory_equal(encoded, expected, length);
	buffer_free(&out);
}

static void sizes(void **state)
{
	static char longest[ENCRYPT_PLAINTEXT_MAX + 1];
	struct buffer out;
	(void)state;
	buffer_init(&out, 5000);
	assert_true(encrypt_push(point, auth, scalar, salt, longest, ENCRYPT_PLAINTEXT_MAX, 0, &out));
	assert_int_equal(out.length, 4096);
	buffer_reset(&out);
	assert_true(encrypt_push(point, auth, scalar, salt, text, 10, 100, &out));
	assert_int_equal(out.length, 86 + 10 + 1 + 100 + 16);
	buffer_reset(&out);
	assert_false(encrypt_push(point, auth, scalar, salt, longest, ENCRYPT_PLAINTEXT_MAX + 1, 0, &out));
	assert_false(encrypt_push(point, auth, scalar, salt, longest, ENCRYPT_PLAINTEXT_MAX, 1, &out));
	buffer_free(&out);
}

static void bad_points(void **state)
{
	uint8_t off[ENCRYPT_POINT_SIZE], zero[ENCRYPT_POINT_SIZE] = {4};
	struct buffer out;
	(void)state;
	buffer_init(&out, 5000);
	memcpy(off, point, sizeof(off));
	off[64] ^= 1; /* not on the curve */
	assert_true(encrypt_check_point(point));
	assert_false(encrypt_check_point(off));
	assert_false(encrypt_check_point(zero));
	assert_false(encrypt_push(off, auth, scalar, salt, text, 5, 0, &out));
	off[64] ^= 1;
	off[0] = 2; /* compressed, with bytes to spare */
	assert_false(encrypt_check_point(off));
	buffer_free(&out);
}

static void bad_scalars(void **state)
{
	uint8_t number[ENCRYPT_SCALAR_SIZE] = {0};
	struct buffer out;
	(void)state;
	buffer_init(&out, 5000);
	assert_false(encrypt_push(point, auth, number, salt, text, 5, 0, &out));
	memset(number, 0xff, sizeof(number)); /* above the order */
	assert_false(encrypt_push(point, auth, number, salt, text, 5, 0, &out));
	buffer_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vector), cmocka_unit_test(sizes), cmocka_unit_test(bad_points), cmocka_unit_test(bad_scalars)};
	return cmocka_run_group_tests_name("push_encrypt", tests, setup, NULL);
}
