/* test_clean.c - what the chat client of examples/cli lets through to a terminal. */
#include "../../examples/cli/clean.h"

#include "text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SOME = 1000 };

static void expect_cleaned(const char *text, size_t most, const char *indent, const char *wanted)
{
	struct buffer out;
	buffer_init(&out, 65536);
	clean_lines(&out, text, most, indent);
	assert_true(buffer_append(&out, "", 1));
	assert_string_equal(out.data, wanted);
	buffer_free(&out);
}

static void test_table(void **state)
{
	static const struct {
		const char *text, *cleaned;
	} cases[] = {
		{"", ""},
		{"plain, na\xc3\xafve, \xe6\xbc\xa2\xe5\xad\x97, \xf0\x9f\x99\x82",
			"plain, na\xc3\xafve, \xe6\xbc\xa2\xe5\xad\x97, \xf0\x9f\x99\x82"},
		{"\033]0;t\007", "\xe2\x90\x9b]0;t\xe2\x90\x87"},
		{"a\nb\r\nc\rd\te", "a b c\xe2\x90\x8d"
				    "d e"},
		{"\xc2\x9b"
		 "2J",
			"\xef\xbf\xbd"
			"2J"}, /* CSI of eight bits */
		{"\x9b"
		 "2J",
			"\xef\xbf\xbd"
			"2J"}, /* the same, and no UTF-8 */
		{"\xe2\x80\xae"
		 "x",
			"\xef\xbf\xbdx"}, /* right to left from here */
		{"\xe2\x80\xa8"
		 "x",
			" x"}, /* line separator */
		{"\xc0\x9b\xed\xa0\x80",
			"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* overlong, surrogate */
		{"cut\xe6\xbc", "cut\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80",
			"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80"}, /* joined emoji */
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_cleaned(cases[i].text, SOME, NULL, cases[i].cleaned);
	expect_cleaned("one\ntwo", SOME, "  ", "one\n  two");
	expect_cleaned("12345", 3, NULL, "123...");
	expect_cleaned("123", 3, NULL, "123");
}

/* Of any two bytes comes well-formed UTF-8 without a control character of either kind. */
static void test_all_bytes(void **state)
{
	(void)state;
	for (unsigned pair = 1; pair < 65536; pair++) {
		const char text[] = {(char)(pair >> 8 ? pair >> 8 : 'x'), (char)(pair & 0xff), 'x', '\0'};
		struct buffer out;
		buffer_init(&out, 64);
		clean_line(&out, text, SOME);
		assert_true(text_check_utf8(out.data, out.length, NULL));
		for (size_t i = 0; i < out.length; i++) {
			unsigned char byte = (unsigned char)out.data[i];
			assert_true(byte >= 0x20 && byte != 0x7F);
			if (byte == 0xC2)
				assert_true((unsigned char)out.data[i + 1] >= 0xA0);
		}
		buffer_free(&out);
	}
}

static void test_ascii(void **state)
{
	(void)state;
	clean_set_ascii(true);
	expect_cleaned("na\xc3\xafve\033", SOME, NULL, "na?ve?");
	clean_set_ascii(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_all_bytes),
		cmocka_unit_test(test_ascii),
	};
	return cmocka_run_group_tests_name("clean", tests, NULL, NULL);
}
