/* test_text.c - UTF-8, escaped text, canonical integers; and the log line, which rests on them (threat 38). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "log.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void counts_code_points(void **state)
{
	static const struct {
		const char *text;
		size_t code_points;
	} rows[] = {
		{"", 0},
		{"hello", 5},
		{"seven c", 7},
		{"exactly8", 8},
		{"nine char", 9},
		{"\x01\x7f", 2},
		{"\xc2\x80", 1},
		{"\xdf\xbf", 1},
		{"\xe0\xa0\x80", 1},
		{"\xed\x9f\xbf", 1},
		{"\xee\x80\x80", 1},
		{"\xef\xbf\xbf", 1},
		{"\xf0\x90\x80\x80", 1},
		{"\xf4\x8f\xbf\xbf", 1},
		{"e\xcc\x81", 2},                                    /* a letter and a combining accent */
		{"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7", 3}, /* joined by U+200D */
		{"12345678\xc3\xa9"
		 "2345678\xf0\x9f\x98\x80",
			17},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t code_points = 99;
		if (!text_check_utf8(rows[i].text, strlen(rows[i].text), &code_points) || code_points != rows[i].code_points) {
			fail_msg("row %zu: %zu code points, wanted %zu", i, code_points, rows[i].code_points);
		}
		assert_true(text_check_utf8(rows[i].text, strlen(rows[i].text), NULL));
	}
}

static void refuses_ill_formed_utf8(void **state)
{
	static const struct {
		const char *name;
		const char *bytes;
		size_t length;
	} rows[] = {
		{"NUL", "\0", 1},
		{"continuation alone", "\x80", 1},
		{"last continuation alone", "\xbf", 1},
		{"overlong NUL", "\xc0\x80", 2},
		{"overlong slash", "\xc0\xaf", 2},
		{"overlong, two bytes", "\xc1\xbf", 2},
		{"two bytes cut", "\xc3", 1},
		{"two bytes, second ASCII", "\xc3(", 2},
		{"two bytes, second a lead", "\xc3\xc3", 2},
		{"overlong, three bytes", "\xe0\x9f\xbf", 3},
		{"first surrogate", "\xed\xa0\x80", 3},
		{"last surrogate", "\xed\xbf\xbf", 3},
		{"three bytes cut to two", "\xe2\x82", 2},
		{"three bytes cut to one", "\xe2", 1},
		{"three bytes, third ASCII", "\xe2\x82(", 3},
		{"overlong, four bytes", "\xf0\x8f\xbf\xbf", 4},
		{"beyond U+10FFFF", "\xf4\x90\x80\x80", 4},
		{"lead f5", "\xf5\x80\x80\x80", 4},
		{"five bytes", "\xf8\x88\x80\x80\x80", 5},
		{"lead fe", "\xfe", 1},
		{"lead ff", "\xff", 1},
		{"four bytes cut to three", "\xf0\x9f\x98", 3},
		{"four bytes, fourth ASCII", "\xf0\x9f\x98(", 4},
		{"four bytes, third ASCII", "\xf0\x9f(\x80", 4},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		/* Behind 0 to 17 good bytes, so at each place of a word, and before a good tail or none. */
		for (size_t before = 0; before < 18; before++) {
			for (size_t after = 0; after < 10; after += 9) {
				char text[40];
				size_t code_points = 99;
				memset(text, 'a', sizeof(text));
				memcpy(text + before, rows[i].bytes, rows[i].length);
				if (text_check_utf8(text, before + rows[i].length + after, &code_points)) {
					fail_msg("accepted: %s", rows[i].name);
				}
				assert_int_equal(code_points, 99);
			}
		}
	}
}

/* The table of the standard said once more, as slowly as possible. */
static bool is_utf8_by_definition(const uint8_t *bytes, size_t length, size_t *code_points)
{
	*code_points = 0;
	for (size_t at = 0; at < length;) {
		uint32_t lead = bytes[at];
		size_t more = lead < 0x80             ? 0
			      : (lead & 0xe0) == 0xc0 ? 1
			      : (lead & 0xf0) == 0xe0 ? 2
			      : (lead & 0xf8) == 0xf0 ? 3
						      : 9;
		if (more == 9 || length - at <= more) {
			return false;
		}
		static const uint32_t lowest[4] = {1, 0x80, 0x800, 0x10000};
		uint32_t value = more == 0 ? lead : lead & (0x3fU >> more);
		for (size_t i = 1; i <= more; i++) {
			if ((bytes[at + i] & 0xc0) != 0x80) {
				return false;
			}
			value = value << 6 | (bytes[at + i] & 0x3fU);
		}
		if (value < lowest[more] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
			return false;
		}
		at += more + 1;
		(*code_points)++;
	}
	return true;
}

/* All pairs of bytes, and all triples and quadruples over the bytes at which something changes. */
static void agrees_with_the_definition(void **state)
{
	static const uint8_t edges[] = {0x00, 0x01, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
		0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
	const size_t count = sizeof(edges);
	uint8_t bytes[4];
	size_t wanted_points;
	size_t points = 0;

	(void)state;
	for (unsigned pair = 0; pair < 0x10000; pair++) {
		bytes[0] = (uint8_t)(pair >> 8);
		bytes[1] = (uint8_t)pair;
		assert_int_equal(text_check_utf8((const char *)bytes, 2, NULL), is_utf8_by_definition(bytes, 2, &wanted_points));
	}
	for (size_t index = 0; index < count * count * count * count; index++) {
		bytes[0] = edges[index / (count * count * count)];
		bytes[1] = edges[index / (count * count) % count];
		bytes[2] = edges[index / count % count];
		bytes[3] = edges[index % count];
		bool wanted = is_utf8_by_definition(bytes, 4, &wanted_points);
		if (text_check_utf8((const char *)bytes, 4, &points) != wanted || (wanted && points != wanted_points)) {
			fail_msg("%02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
		}
	}
}

static void finds_plain_spans(void **state)
{
	(void)state;
	assert_int_equal(text_json_plain_span("", 0), 0);
	for (size_t place = 0; place < 20; place++) {
		for (unsigned byte = 0; byte < 256; byte++) {
			char text[20];
			memset(text, 'x', sizeof(text));
			text[place] = (char)byte;
			bool plain = byte >= 0x20 && byte != '"' && byte != '\\';
			assert_int_equal(text_json_plain_span(text, sizeof(text)), plain ? sizeof(text) : place);
		}
	}
}

static void escapes_for_people(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
		size_t out_size;
		const char *wanted;
	} rows[] = {
		{"", 0, 10, ""},
		{"plain text", 10, 20, "plain text"},
		{"a\nb", 3, 20, "a\\x0ab"},
		{"\x1b[31m", 5, 20, "\\x1b[31m"},
		{"a\0b", 3, 20, "a\\x00b"},
		{"\xc3\xa9", 2, 20, "\\xc3\\xa9"},
		{"\"\\", 2, 20, "\\x22\\x5c"},
		{"\x7f", 1, 20, "\\x7f"},
		{"%n%s", 4, 20, "%n%s"},
		{"exactly", 7, 8, "exactly"},
		{"one more", 8, 8, "one ..."},
		{"ab\n", 3, 7, "ab\\x0a"},
		{"ab\n", 3, 6, "ab..."},
		{"abc\n", 4, 7, "abc..."},
		{"abcd\n", 5, 8, "abcd..."},
		{"\n\n", 2, 7, "..."},
		{"\n\n", 2, 8, "\\x0a..."},
		{"abc", 3, 3, ".."},
		{"abc", 3, 1, ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *out = malloc(rows[i].out_size); /* exact, for the sanitizer */
		if (strcmp(text_escape(out, rows[i].out_size, rows[i].bytes, rows[i].length), rows[i].wanted) != 0) {
			fail_msg("row %zu: %s, wanted %s", i, out, rows[i].wanted);
		}
		free(out);
	}
	char untouched = 'u';
	assert_ptr_equal(text_escape(&untouched, 0, "x", 1), &untouched);
	assert_int_equal(untouched, 'u');
}

static void escape_never_overruns(void **state)
{
	(void)state;
	for (size_t size = 1; size < 40; size++) {
		for (size_t length = 0; length < 40; length++) {
			char bytes[40];
			char *out = malloc(size);
			for (size_t i = 0; i < length; i++) {
				bytes[i] = i % 3 == 0 ? '\n' : 'a';
			}
			text_escape(out, size, bytes, length);
			assert_true(strlen(out) < size);
			assert_int_equal(strspn(out, "a\\x0."), strlen(out));
			free(out);
		}
	}
}

static void parses_canonical_integers(void **state)
{
	static const struct {
		const char *text;
		int64_t min;
		int64_t max;
		bool accepted;
		int64_t value;
	} rows[] = {
		{"0", 0, 9, true, 0}, {"7", 1, 9, true, 7}, {"10", 0, 10, true, 10}, {"11", 0, 10, false, 0},
		{"0", 1, 10, false, 0}, {"9007199254740991", 1, TEXT_ID_MAX, true, TEXT_ID_MAX},
		{"9007199254740992", 1, TEXT_ID_MAX, false, 0}, {"9223372036854775807", 0, INT64_MAX, true, INT64_MAX},
		{"9223372036854775808", 0, INT64_MAX, false, 0}, {"18446744073709551617", 0, INT64_MAX, false, 0},
		{"99999999999999999999999999999999", 0, INT64_MAX, false, 0}, {"", 0, 9, false, 0}, {"00", 0, 9, false, 0},
		{"01", 0, 9, false, 0}, {"+1", 0, 9, false, 0}, {"-1", -9, 9, false, 0}, {"-0", -9, 9, false, 0},
		{" 1", 0, 9, false, 0}, {"1 ", 0, 9, false, 0}, {"1\n", 0, 9, false, 0}, {"1.0", 0, 9, false, 0},
		{"1e0", 0, 9, false, 0}, {"0x1", 0, 9, false, 0}, {"\xd9\xa1", 0, 9, false, 0}, /* Arabic-Indic digit one */
		{"\xef\xbc\x91", 0, 9, false, 0},                                               /* fullwidth digit one */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t value = -5;
		bool accepted = text_parse_integer(rows[i].text, strlen(rows[i].text), rows[i].min, rows[i].max, &value);
		if (accepted != rows[i].accepted || value != (accepted ? rows[i].value : -5)) {
			fail_msg("row %zu: \"%s\"", i, rows[i].text);
		}
	}
	int64_t value;
	assert_false(text_parse_integer("1\0", 2, 0, 9, &value));
	assert_true(text_parse_integer("12", 1, 0, 9, &value)); /* the length counts, not a NUL */
	assert_int_equal(value, 1);
}

/* ---- log ---- */

static char logged[LOG_LINE_MAX + 100];
static enum log_level logged_level;

static void remember(enum log_level level, const char *line)
{
	logged_level = level;
	assert_true(strlen(line) < sizeof(logged));
	memcpy(logged, line, strlen(line) + 1);
	errno = EPERM; /* a sink may do what it likes */
}

static void threat_38_no_control_character_reaches_the_log(void **state)
{
	static const struct {
		const char *given;
		const char *wanted;
	} rows[] = {
		{"plain", "plain"},
		{"two\nlines\r\n", "two?lines??"},
		{"\x1b[2Jgone", "?[2Jgone"},
		{"tab\tdel\x7f", "tab?del?"},
		{"caf\xc3\xa9", "caf\xc3\xa9"},
		{"c1 \xc2\x9b"
		 "31m",
			"c1 ??31m"},
		{"nbsp \xc2\xa0", "nbsp \xc2\xa0"},
		{"latin1 caf\xe9", "latin1 caf?"},
		{"%n %s", "%n %s"},
		{"", ""},
	};

	(void)state;
	log_set_sink(remember);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		log_line(LOG_LEVEL_WARNING, "%s", rows[i].given);
		assert_string_equal(logged, rows[i].wanted);
		assert_int_equal(logged_level, LOG_LEVEL_WARNING);
	}
	log_set_sink(NULL);
}

static void long_log_lines_say_that_they_were_cut(void **state)
{
	char text[LOG_LINE_MAX + 10];

	(void)state;
	log_set_sink(remember);
	memset(text, 'x', sizeof(text));
	text[LOG_LINE_MAX] = '\0';
	log_line(LOG_LEVEL_INFO, "%s", text);
	assert_string_equal(logged, text);
	text[LOG_LINE_MAX] = 'x';
	text[LOG_LINE_MAX + 1] = '\0';
	log_line(LOG_LEVEL_INFO, "%s", text);
	assert_int_equal(strlen(logged), LOG_LINE_MAX);
	assert_string_equal(logged + LOG_LINE_MAX - 4, "x...");
	/* A four byte character at each place around the cut: never half of it, and nothing else turned to '?'. */
	for (size_t place = LOG_LINE_MAX - 9; place <= LOG_LINE_MAX; place++) {
		memset(text, 'x', sizeof(text));
		memcpy(text + place, "\xf0\x9f\x98\x80", 4);
		text[sizeof(text) - 1] = '\0';
		log_line(LOG_LEVEL_INFO, "%s", text);
		assert_true(text_check_utf8(logged, strlen(logged), NULL));
		assert_null(strchr(logged, '?'));
		assert_string_equal(logged + strlen(logged) - 3, "...");
		assert_true(strlen(logged) >= LOG_LINE_MAX - 3 && strlen(logged) <= LOG_LINE_MAX);
	}
	log_set_sink(NULL);
}

static void logging_keeps_errno(void **state)
{
	(void)state;
	log_set_sink(remember);
	errno = ENOSPC;
	log_line(LOG_LEVEL_ERROR, "disk full");
	assert_int_equal(errno, ENOSPC);
	log_set_sink(NULL);
}

static void a_log_gate_opens_once_in_30_seconds(void **state)
{
	struct log_gate gate = {0};
	uint64_t suppressed = 99;

	(void)state;
	assert_true(log_gate_open(&gate, 5000, &suppressed));
	assert_int_equal(suppressed, 0);
	assert_false(log_gate_open(&gate, 5000, &suppressed));
	assert_false(log_gate_open(&gate, 34999, &suppressed));
	assert_true(log_gate_open(&gate, 35000, &suppressed));
	assert_int_equal(suppressed, 2);
	assert_false(log_gate_open(&gate, 64999, &suppressed));
	assert_true(log_gate_open(&gate, 1000000, &suppressed));
	assert_int_equal(suppressed, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_code_points),
		cmocka_unit_test(refuses_ill_formed_utf8),
		cmocka_unit_test(agrees_with_the_definition),
		cmocka_unit_test(finds_plain_spans),
		cmocka_unit_test(escapes_for_people),
		cmocka_unit_test(escape_never_overruns),
		cmocka_unit_test(parses_canonical_integers),
		cmocka_unit_test(threat_38_no_control_character_reaches_the_log),
		cmocka_unit_test(long_log_lines_say_that_they_were_cut),
		cmocka_unit_test(logging_keeps_errno),
		cmocka_unit_test(a_log_gate_opens_once_in_30_seconds),
	};
	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
