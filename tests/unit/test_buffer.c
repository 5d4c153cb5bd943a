/* test_buffer.c - appends, the maximum, and that a failed append changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "buffer.h"
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_holds(const struct buffer *buffer, const char *text)
{
	assert_false(buffer->failed);
	assert_int_equal(buffer->length, strlen(text));
	assert_memory_equal(buffer->data, text, buffer->length);
}

static void appends_in_order(void **state)
{
	struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 1000);
	assert_null(buffer.data);
	assert_true(buffer_append(&buffer, "ab", 2));
	assert_true(buffer_append(&buffer, NULL, 0));
	assert_true(buffer_append_text(&buffer, "cd"));
	assert_true(buffer_append_text(&buffer, ""));
	assert_true(buffer_append_integer(&buffer, -12));
	assert_true(buffer_append_format(&buffer, "%s=%d", "x", 7));
	assert_true(buffer_append_format(&buffer, "%s", ""));
	assert_holds(&buffer, "abcd-12x=7");
	buffer_reset(&buffer);
	assert_int_equal(buffer.length, 0);
	assert_non_null(buffer.data);
	assert_true(buffer_append_text(&buffer, "again"));
	assert_holds(&buffer, "again");
	buffer_free(&buffer);
	assert_null(buffer.data);
	assert_true(buffer_append_text(&buffer, "reborn"));
	assert_holds(&buffer, "reborn");
	buffer_free(&buffer);
}

static void writes_integers(void **state)
{
	static const int64_t values[] = {0, 1, -1, 9, 10, 99, 100, 1017, -1017, INT64_C(9007199254740991), INT64_MAX, INT64_MIN};
	struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 100);
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		char wanted[32];
		assert_true(snprintf(wanted, sizeof(wanted), "%" PRId64, values[i]) > 0);
		buffer_reset(&buffer);
		assert_true(buffer_append_integer(&buffer, values[i]));
		assert_holds(&buffer, wanted);
	}
	buffer_free(&buffer);
}

static void writes_json_strings(void **state)
{
	static const struct {
		const char *text;
		const char *json;
	} rows[] = {
		{"", "\"\""},
		{"plain", "\"plain\""},
		{"\"", "\"\\\"\""},
		{"a\\b", "\"a\\\\b\""},
		{"\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\""},
		{"\x01\x1f", "\"\\u0001\\u001f\""},
		{"\x7f", "\"\x7f\""},
		{"/", "\"/\""},
		{"\xc3\xa9\xf0\x9f\x98\x80", "\"\xc3\xa9\xf0\x9f\x98\x80\""},
		{"eight by\"te", "\"eight by\\\"te\""},
		{"sixteen bytes, 7\nand on", "\"sixteen bytes, 7\\nand on\""},
	};
	struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 100);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		buffer_reset(&buffer);
		assert_true(buffer_append_json_string(&buffer, rows[i].text, strlen(rows[i].text)));
		assert_holds(&buffer, rows[i].json);
	}
	buffer_free(&buffer);
}

/* Every byte that may stand in a text, at each place of a word, comes back out of the parser. */
static void json_strings_read_back(void **state)
{
	struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 100);
	for (size_t place = 0; place < 20; place++) {
		for (char byte = 1; byte < 127; byte++) {
			char text[20];
			const char *why = NULL;
			memset(text, 'x', sizeof(text));
			text[place] = byte;
			buffer_reset(&buffer);
			assert_true(buffer_append_json_string(&buffer, text, sizeof(text)));
			cJSON *tree = json_parse(buffer.data, buffer.length, 0, &why);
			assert_non_null(tree);
			assert_int_equal(strlen(tree->valuestring), sizeof(text));
			assert_memory_equal(tree->valuestring, text, sizeof(text));
			cJSON_Delete(tree);
		}
	}
	buffer_free(&buffer);
}

static bool append_three(struct buffer *buffer)
{
	return buffer_append(buffer, "abc", 3);
}

static bool append_number(struct buffer *buffer)
{
	return buffer_append_integer(buffer, 123);
}

static bool append_quoted(struct buffer *buffer)
{
	return buffer_append_json_string(buffer, "a", 1);
}

static bool append_escaped(struct buffer *buffer)
{
	return buffer_append_json_string(buffer, "a\n", 2);
}

static bool append_formatted(struct buffer *buffer)
{
	return buffer_append_format(buffer, "%03d", 5);
}

static void full_is_an_answer(void **state)
{
	static const struct {
		bool (*append)(struct buffer *buffer);
		size_t need;
	} rows[] = {{append_three, 3}, {append_number, 3}, {append_quoted, 3}, {append_escaped, 5}, {append_formatted, 3}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t room = 0; room <= rows[i].need; room++) {
			struct buffer buffer;
			buffer_init(&buffer, 4 + room);
			assert_true(buffer_append(&buffer, "1234", 4));
			assert_int_equal(rows[i].append(&buffer), room == rows[i].need);
			assert_int_equal(buffer.failed, room != rows[i].need);
			assert_int_equal(buffer.length, room == rows[i].need ? 4 + room : 4);
			assert_memory_equal(buffer.data, "1234", 4);
			if (room != rows[i].need) {
				assert_false(buffer_append(&buffer, "", 0)); /* failed stays failed */
				assert_false(buffer_append_format(&buffer, "%s", ""));
				assert_int_equal(buffer.length, 4);
				buffer_reset(&buffer);
				assert_true(buffer_append(&buffer, "1234", 4));
			}
			buffer_free(&buffer);
		}
	}
}

/* What does not fit at all must not overflow the arithmetic. */
static void huge_appends_fail(void **state)
{
	struct buffer buffer;

	(void)state;
	buffer_init(&buffer, SIZE_MAX - 1);
	assert_true(buffer_append(&buffer, "x", 1));
	assert_false(buffer_append(&buffer, "x", SIZE_MAX - 1));
	assert_int_equal(buffer.length, 1);
	buffer_free(&buffer);
	buffer_init(&buffer, 0);
	assert_true(buffer_append(&buffer, "", 0));
	assert_false(buffer_append(&buffer, "x", 1));
	buffer_free(&buffer);
}

static void grows_to_its_maximum(void **state)
{
	enum { MAXIMUM = 100000 };
	struct buffer buffer;

	(void)state;
	buffer_init(&buffer, MAXIMUM);
	for (size_t i = 0; i < MAXIMUM; i++) {
		char c = (char)('a' + i % 26);
		assert_true(buffer_append(&buffer, &c, 1));
		assert_true(buffer.length <= buffer.capacity && buffer.capacity <= buffer.maximum);
	}
	assert_false(buffer_append(&buffer, "x", 1));
	assert_int_equal(buffer.length, MAXIMUM);
	for (size_t i = 0; i < MAXIMUM; i++) {
		assert_int_equal(buffer.data[i], 'a' + i % 26);
	}
	buffer_free(&buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends_in_order),
		cmocka_unit_test(writes_integers),
		cmocka_unit_test(writes_json_strings),
		cmocka_unit_test(json_strings_read_back),
		cmocka_unit_test(full_is_an_answer),
		cmocka_unit_test(huge_appends_fail),
		cmocka_unit_test(grows_to_its_maximum),
	};
	return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
