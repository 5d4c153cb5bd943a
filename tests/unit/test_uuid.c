/* test_uuid.c - the text form, and the ids made here (RFC 9562). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "uuid.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void reads_and_writes(void **state)
{
	static const struct {
		const char *text;
		const char *canonical;
		uint8_t bytes[16];
	} rows[] = {
		{"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11",
			{0x9f, 0x1c, 0x6f, 0x0e, 0x3d, 0x0b, 0x4a, 0x53, 0x9f, 0x0e, 0x6f, 0x6b, 0x0a, 0x6b, 0x7c, 0x11}},
		{"9F1C6F0E-3D0B-4A53-9F0E-6F6B0A6B7C11", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11",
			{0x9f, 0x1c, 0x6f, 0x0e, 0x3d, 0x0b, 0x4a, 0x53, 0x9f, 0x0e, 0x6f, 0x6b, 0x0a, 0x6b, 0x7c, 0x11}},
		{"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000", {0}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t uuid[16];
		char text[UUID_TEXT_LENGTH];
		assert_true(uuid_parse(rows[i].text, strlen(rows[i].text), uuid));
		assert_memory_equal(uuid, rows[i].bytes, sizeof(uuid));
		uuid_format(uuid, text);
		assert_memory_equal(text, rows[i].canonical, sizeof(text));
	}
}

static void refuses_other_forms(void **state)
{
	static const struct {
		const char *name;
		const char *text;
	} rows[] = {
		{"empty", ""},
		{"a digit short", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1"},
		{"a digit more", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c111"},
		{"no hyphens", "9f1c6f0e3d0b4a539f0e6f6b0a6b7c110000"},
		{"32 digits", "9f1c6f0e3d0b4a539f0e6f6b0a6b7c11"},
		{"hyphen moved", "9f1c6f0-e3d0b-4a53-9f0e-6f6b0a6b7c11"},
		{"braces", "{9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1}"},
		{"no hexadecimal digit", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7g11"},
		{"sign", "+f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11"},
		{"blank", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1 "},
		{"urn", "urn:uuid:9f1c6f0e-3d0b-4a53-9f0e-6f6b"},
		{"hyphen for a digit", "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c-1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t uuid[16];
		uint8_t before[16];
		memset(uuid, 0x5a, sizeof(uuid));
		memcpy(before, uuid, sizeof(uuid));
		if (uuid_parse(rows[i].text, strlen(rows[i].text), uuid)) {
			fail_msg("accepted: %s", rows[i].name);
		}
		assert_memory_equal(uuid, before, sizeof(uuid));
	}
}

static void makes_version_7(void **state)
{
	static const struct {
		int64_t unix_ms;
		uint8_t first[6];
	} rows[] = {
		{INT64_C(0x017f22e279b0), {0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0}}, /* RFC 9562 appendix A.6 */
		{0, {0}},
		{INT64_C(0xffffffffffff), {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t uuid[16];
		uuid_make(rows[i].unix_ms, uuid);
		assert_memory_equal(uuid, rows[i].first, 6);
		assert_int_equal(uuid[6] >> 4, 7);
		assert_int_equal(uuid[8] >> 6, 2);
	}
}

enum { THREADS = 4, EACH = 5000 };

static uint8_t made[THREADS * EACH][16];

static void *make_many(void *first)
{
	uint8_t(*out)[16] = first;

	for (size_t i = 0; i < EACH; i++) {
		uuid_make(1, out[i]);
	}
	return NULL;
}

static int compare(const void *left, const void *right)
{
	return memcmp(left, right, 16);
}

/* Several threads at once, over many blocks of random bytes: no two alike, and no bit of the 74 stuck. */
static void are_all_different(void **state)
{
	pthread_t threads[THREADS];
	uint8_t ever_set[16] = {0};
	uint8_t always_set[16];

	(void)state;
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, make_many, made[i * EACH]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	}
	qsort(made, THREADS * EACH, 16, compare);
	memset(always_set, 0xff, sizeof(always_set));
	for (size_t i = 0; i < THREADS * EACH; i++) {
		assert_true(i == 0 || memcmp(made[i - 1], made[i], 16) != 0);
		for (size_t byte = 0; byte < 16; byte++) {
			ever_set[byte] |= made[i][byte];
			always_set[byte] &= made[i][byte];
		}
	}
	static const uint8_t random_bits[16] = {0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	for (size_t byte = 6; byte < 16; byte++) {
		assert_int_equal(ever_set[byte] & random_bits[byte], random_bits[byte]);
		assert_int_equal(always_set[byte] & random_bits[byte], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_writes),
		cmocka_unit_test(refuses_other_forms),
		cmocka_unit_test(makes_version_7),
		cmocka_unit_test(are_all_different),
	};
	return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}
