/* test_base64url.c - RFC 4648's vectors, every length, and every way to spell the same bytes otherwise (threat 7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base64url.h"

#include <stdlib.h>
#include <string.h>

static void encodes_and_decodes_the_vectors(void **state)
{
	static const struct {
		const char *bytes;
		const char *text;
	} rows[] = {
		{"", ""},
		{"f", "Zg"},
		{"fo", "Zm8"},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg"},
		{"fooba", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy"},
		{"\xff\xfe\xfd", "__79"},
		{"\xfb\xff", "-_8"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[16];
		uint8_t bytes[16];
		size_t length = strlen(rows[i].bytes);
		size_t text_length = base64url_encode((const uint8_t *)rows[i].bytes, length, text);
		assert_int_equal(text_length, strlen(rows[i].text));
		assert_int_equal(text_length, BASE64URL_ENCODED_SIZE(length));
		assert_memory_equal(text, rows[i].text, text_length);
		size_t decoded = 99;
		assert_true(base64url_decode(rows[i].text, text_length, bytes, &decoded));
		assert_int_equal(decoded, length);
		assert_int_equal(decoded, BASE64URL_DECODED_SIZE(text_length));
		assert_memory_equal(bytes, rows[i].bytes, length);
	}
}

static void refuses_other_spellings(void **state)
{
	static const struct {
		const char *name;
		const char *text;
	} rows[] = {
		{"one character left over", "Z"},
		{"five characters", "Zm9vY"},
		{"padding", "Zg=="},
		{"padding of one", "Zm8="},
		{"plain base64's plus", "+v8A"},
		{"plain base64's slash", "/v8A"},
		{"blank inside", "Zm 9"},
		{"newline at the end", "Zm9v\n"},
		{"newline for a character", "Zm9\n"},
		{"dot", "Zm9."},
		{"unused bits of two characters", "Zh"},
		{"all unused bits of two characters", "Zv"},
		{"unused bits of three characters", "Zm9"},
		{"all unused bits of three characters", "Zm_"},
		{"byte above 0x7f", "Zm\xc3\xa9"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t bytes[16];
		size_t length;
		if (base64url_decode(rows[i].text, strlen(rows[i].text), bytes, &length)) {
			fail_msg("accepted: %s", rows[i].name);
		}
	}
}

/* Each byte value at each place of a group: the 64 of the alphabet are taken, and fewer where bits are left over. */
static void knows_64_characters(void **state)
{
	static const struct {
		size_t length;
		unsigned accepted[4];
	} rows[] = {{4, {64, 64, 64, 64}}, {3, {64, 64, 16, 0}}, {2, {64, 4, 0, 0}}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t place = 0; place < rows[i].length; place++) {
			unsigned accepted = 0;
			for (unsigned byte = 0; byte < 256; byte++) {
				char text[4] = {'A', 'A', 'A', 'A'};
				uint8_t out[3];
				size_t length;
				text[place] = (char)byte;
				accepted += base64url_decode(text, rows[i].length, out, &length) ? 1 : 0;
			}
			assert_int_equal(accepted, rows[i].accepted[place]);
		}
	}
}

/* Heap memory of the exact size, so that a sanitizer sees a byte too many. */
static void round_trips_every_length(void **state)
{
	(void)state;
	for (size_t length = 1; length < 200; length++) {
		uint8_t *bytes = malloc(length);
		char *text = malloc(BASE64URL_ENCODED_SIZE(length));
		uint8_t *decoded = malloc(length);
		size_t decoded_length;
		for (size_t i = 0; i < length; i++) {
			bytes[i] = (uint8_t)(i * 151 + length * 7);
		}
		assert_int_equal(base64url_encode(bytes, length, text), BASE64URL_ENCODED_SIZE(length));
		assert_true(base64url_decode(text, BASE64URL_ENCODED_SIZE(length), decoded, &decoded_length));
		assert_int_equal(decoded_length, length);
		assert_memory_equal(decoded, bytes, length);
		free(bytes);
		free(text);
		free(decoded);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encodes_and_decodes_the_vectors),
		cmocka_unit_test(refuses_other_spellings),
		cmocka_unit_test(knows_64_characters),
		cmocka_unit_test(round_trips_every_length),
	};
	return cmocka_run_group_tests_name("base64url", tests, NULL, NULL);
}
