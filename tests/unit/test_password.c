/* test_password.c - passwords: their length, and the form in which they are hashed. */
#include "../../plugin/password.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <malloc.h>

/* ---- what is given back to the allocator (linked with --wrap=free) */

static const char *secret; /* eight ASCII characters; NULL: nobody looks */

void __real_free(void *memory);
void __wrap_free(void *memory);

void __wrap_free(void *memory)
{
	if (memory && secret) {
		uint32_t wide[8];
		for (size_t i = 0; i < 8; i++) {
			wide[i] = (unsigned char)secret[i];
		}
		size_t length = malloc_usable_size(memory);
		assert_null(memmem(memory, length, secret, 8));
		assert_null(memmem(memory, length, wide, sizeof(wide)));
	}
	__real_free(memory);
}

static void test_length(void **state)
{
	(void)state;
	assert_false(password_length_ok(0));
	assert_false(password_length_ok(7));
	assert_true(password_length_ok(8));
	assert_true(password_length_ok(1000));
	assert_false(password_length_ok(1001));
}

static void test_prepare(void **state)
{
	static const struct {
		const char *password, *prepared; /* NULL: as it is */
	} cases[] = {
		/* RFC 4013 section 3 */
		{"I\u00adX", "IX"},
		{"user", NULL},
		{"USER", NULL},
		{"\u00aa", "a"},
		{"\u2168", "IX"},
		{"\x07", NULL},
		{"\u06271", NULL},
		/* composed or not, one password */
		{"e\u0301", "\u00e9"},
		{"\u00e9", NULL},
		{"a\u00a0b\u3000c", "a b c"},
		{"\u0627\u0628", NULL},
		{"\uff30\uff37", "PW"},
		{"\u00ad", NULL}, /* nothing would be left */
		{"a\u202eb", NULL},
		{"a\u2168\ue000", NULL},
		{"\u5bc6\u7801", NULL},
		{"\U0001f511\U0001f511", NULL},
		{"\xff\xfe", NULL}, /* not UTF-8 */
		{"", NULL},
	};
	(void)state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *wanted = cases[i].prepared ? cases[i].prepared : cases[i].password;
		struct buffer out;
		buffer_init(&out, 100);
		assert_true(password_prepare(cases[i].password, strlen(cases[i].password), &out));
		print_message("%zu\n", i);
		assert_int_equal(out.length, strlen(wanted));
		if (out.length > 0) {
			assert_memory_equal(out.data, wanted, out.length);
		}
		buffer_free(&out);
	}
}

/* Of a password that was looked at nothing stays in memory. */
static void test_wiped(void **state)
{
	struct buffer out;
	(void)state;

	buffer_init(&out, 100);
	secret = "pencil42";
	assert_true(password_prepare("pencil42\u2168", 11, &out));
	secret = NULL;
	assert_memory_equal(out.data, "pencil42IX", 10);
	buffer_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_prepare),
		cmocka_unit_test(test_wiped),
	};
	return cmocka_run_group_tests_name("password", tests, NULL, NULL);
}
