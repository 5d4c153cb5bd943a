/* test_json.c - what is JSON and what is not: RFC 8259, and every leniency of cJSON (threats 33, 34 and 35's escapes). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "buffer.h"
#include "json.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

/* Parses a copy of exactly `length` bytes, so that a sanitizer sees a read past the end. */
static cJSON *parse(const char *text, size_t length, unsigned max_depth, const char **why)
{
	char *copy = malloc(length > 0 ? length : 1);

	assert_non_null(copy);
	memcpy(copy, text, length);
	*why = "(not set)";
	cJSON *tree = json_parse(copy, length, max_depth, why);
	free(copy);
	return tree;
}

static void accepts_json(void **state)
{
	static const char *const rows[] = {
		"{}",
		"[]",
		"\"\"",
		"0",
		"-0",
		"true",
		"false",
		"null",
		" \t\r\n{ \"a\" : [ 1 , 2 ] } \n",
		"{\"a\":{\"a\":{\"a\":1}}}",
		"{\"a\":1,\"b\":1,\"A\":1,\"\":1}",
		"{\"a\":1,\"ab\":1,\"abc\":1}",
		"[1,-1,0.5,-0.5,1e3,1E3,1e+3,1e-3,1.25e2,0e0,-0.0]",
		"9007199254740991",
		"-9007199254740991",
		"9.007199254740991e15",
		"1e-308",
		"0.000000000000000000000000000000000000000000000000000000000001",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
		"\"\\u0001\\u00e9\\u20AC\\ud83d\\ude00\\uDBFF\\uDFFF\"",
		"\"\\ud7ff\\ue000\\uffff\"",
		"\"caf\xc3\xa9 \xf0\x9f\x98\x80 \x7f\"",
		"\"a string of more than eight bytes, and an escape \\n after it\"",
		"[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", /* 16 deep */
		"[{},{},{\"a\":1},{\"a\":1}]",
		"{\"a\":[{\"a\":1},{\"a\":2}]}",
	};
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cJSON *tree = parse(rows[i], strlen(rows[i]), JSON_DEPTH_MAX, &why);
		if (tree == NULL) {
			fail_msg("refused (%s): %s", why, rows[i]);
		}
		cJSON_Delete(tree);
	}
}

#define BYTES(text) text, sizeof(text) - 1

static void threat_33_refuses_what_is_not_json(void **state)
{
	static const struct {
		const char *text;
		size_t length;
		const char *why;
	} rows[] = {
		{BYTES(""), "empty"},
		{BYTES(" \n"), "empty"},
		{BYTES("hello"), "a value is missing"},
		{BYTES("{"), "a key must be a string"},
		{BYTES("["), "a value is missing"},
		{BYTES("[1"), "unterminated array or object"},
		{BYTES("{\"a\":1"), "unterminated array or object"},
		{BYTES("[1 2]"), "',' or a closing bracket missing"},
		{BYTES("[1}"), "',' or a closing bracket missing"},
		{BYTES("{\"a\":1]"), "',' or a closing bracket missing"},
		{BYTES("[1,]"), "a value is missing"},
		{BYTES("[,1]"), "a value is missing"},
		{BYTES("{,}"), "a key must be a string"},
		{BYTES("{\"a\":1,}"), "a key must be a string"},
		{BYTES("{a:1}"), "a key must be a string"},
		{BYTES("{'a':1}"), "a key must be a string"},
		{BYTES("{1:1}"), "a key must be a string"},
		{BYTES("{\"a\"}"), "':' missing after a key"},
		{BYTES("{\"a\" 1}"), "':' missing after a key"},
		{BYTES("{\"a\":}"), "a value is missing"},
		{BYTES("{\"a\"::1}"), "a value is missing"},
		{BYTES("{} {}"), "trailing bytes"},
		{BYTES("{}x"), "trailing bytes"},
		{BYTES("{}]"), "trailing bytes"},
		{BYTES("1,"), "trailing bytes"},
		{BYTES("{}\0"), "not UTF-8, or a NUL in it"},
		{BYTES("{}\0x"), "not UTF-8, or a NUL in it"},
		{BYTES("\xef\xbb\xbf{}"), "byte order mark"},
		{BYTES("\xff\xfe{\0}\0"), "not UTF-8, or a NUL in it"},
		{BYTES("// comment\n{}"), "a value is missing"},
		{BYTES("{}// comment"), "trailing bytes"},
		{BYTES("/* comment */{}"), "a value is missing"},
		{BYTES("[1,/**/2]"), "a value is missing"},
		{BYTES("\x0b{}"), "a value is missing"},
		{BYTES("\x0c{}"), "a value is missing"},
		{BYTES("\x01{}"), "a value is missing"},
		{BYTES("\xc2\xa0{}"), "a value is missing"}, /* no-break space */
		{BYTES("{}\x01"), "trailing bytes"},
		{BYTES("[\x02]"), "a value is missing"},
		/* literals */
		{BYTES("tru"), "unknown literal"},
		{BYTES("True"), "a value is missing"},
		{BYTES("truee"), "trailing bytes"},
		{BYTES("nul"), "unknown literal"},
		{BYTES("NULL"), "a value is missing"},
		{BYTES("fals"), "unknown literal"},
		{BYTES("[truefalse]"), "',' or a closing bracket missing"},
		{BYTES("undefined"), "a value is missing"},
		{BYTES("NaN"), "a value is missing"},
		{BYTES("Infinity"), "a value is missing"},
		{BYTES("-Infinity"), "bad number"},
		/* numbers */
		{BYTES("012"), "bad number"},
		{BYTES("00"), "bad number"},
		{BYTES("-012"), "bad number"},
		{BYTES("-"), "bad number"},
		{BYTES("--1"), "bad number"},
		{BYTES("+1"), "a value is missing"},
		{BYTES("1."), "bad number"},
		{BYTES(".5"), "a value is missing"},
		{BYTES("-.5"), "bad number"},
		{BYTES("1.e3"), "bad number"},
		{BYTES("1e"), "bad number"},
		{BYTES("1e+"), "bad number"},
		{BYTES("1e1.5"), "bad number"},
		{BYTES("1.2.3"), "bad number"},
		{BYTES("1e5e5"), "trailing bytes"},
		{BYTES("0x10"), "trailing bytes"},
		{BYTES("1_000"), "trailing bytes"},
		{BYTES("1-1"), "trailing bytes"},
		{BYTES("1e-309"), "number too small"},
		{BYTES("1E-20000"), "number too small"},
		{BYTES("{\"a\":[0e-99999999999999999999]}"), "number too small"},
		{BYTES("1e999"), "number too large"},
		{BYTES("-1e999"), "number too large"},
		{BYTES("1e16"), "number too large"},
		{BYTES("9007199254740992"), "number too large"},
		{BYTES("-9007199254740992"), "number too large"},
		{BYTES("9007199254740993"), "number too large"},
		{BYTES("{\"a\":[1,{\"b\":18446744073709551616}]}"), "number too large"},
		{BYTES("1.0000000000000000000000000000000000000000000000000000000000000"), NULL},
		{BYTES("1.00000000000000000000000000000000000000000000000000000000000000"), "number too long"},
		{BYTES("0000000000000000000000000000000000000000000000000000000000000001"), "bad number"},
		/* strings */
		{BYTES("\""), "unterminated string"},
		{BYTES("\"abc"), "unterminated string"},
		{BYTES("\"abc\\\""), "unterminated string"},
		{BYTES("\"abc\\"), "bad escape"},
		{BYTES("'abc'"), "a value is missing"},
		{BYTES("\"\\x41\""), "bad escape"},
		{BYTES("\"\\'\""), "bad escape"},
		{BYTES("\"\\a\""), "bad escape"},
		{BYTES("\"\\U0041\""), "bad escape"},
		{BYTES("\"\\u004\""), "bad escape"},
		{BYTES("\"\\u"), "bad escape"},
		{BYTES("\"\\u00"), "bad escape"},
		{BYTES("\"\\u004g\""), "bad escape"},
		{BYTES("\"\\u+041\""), "bad escape"},
		{BYTES("\"\\u 041\""), "bad escape"},
		{BYTES("\"a\nb\""), "control character in a string"},
		{BYTES("\"a\tb\""), "control character in a string"},
		{BYTES("\"\x1f\""), "control character in a string"},
		{BYTES("{\"a\x01\":1}"), "control character in a string"},
		{BYTES("\"a\0b\""), "not UTF-8, or a NUL in it"},
		{BYTES("\"\\u0000\""), "U+0000 in a string"},
		{BYTES("{\"a\\u0000b\":1}"), "U+0000 in a string"},
		{BYTES("\"\\ud83d\""), "lone surrogate"},
		{BYTES("\"\\ude00\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\ud83d\""), "lone surrogate"},
		{BYTES("\"\\ude00\\ud83d\""), "lone surrogate"},
		{BYTES("\"\\ude00\\ude00\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\ue000\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\udbff\""), "lone surrogate"},
		{BYTES("\"\\ud83dx\\ude00\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\n\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\u0041\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\u\""), "lone surrogate"},
		{BYTES("\"\\ud83d\\ude0"), "lone surrogate"},
		{BYTES("\"\\ud83d"), "lone surrogate"},
		{BYTES("\"\xc0\xaf\""), "not UTF-8, or a NUL in it"},
		{BYTES("\"\xed\xa0\xbd\xed\xb8\x80\""), "not UTF-8, or a NUL in it"}, /* CESU-8 */
		{BYTES("\"\xf0\x9f\x98\""), "not UTF-8, or a NUL in it"},
		{BYTES("\"\xff\""), "not UTF-8, or a NUL in it"},
		/* duplicate keys */
		{BYTES("{\"a\":1,\"a\":1}"), "duplicate key"},
		{BYTES("{\"a\":1,\"b\":2,\"a\":3}"), "duplicate key"},
		{BYTES("{\"\":1,\"\":2}"), "duplicate key"},
		{BYTES("{\"a\":1,\"\\u0061\":2}"), "duplicate key"},
		{BYTES("{\"\xf0\x9f\x98\x80\":1,\"\\ud83d\\ude00\":2}"), "duplicate key"},
		{BYTES("{\"/\":1,\"\\/\":2}"), "duplicate key"},
		{BYTES("[{\"x\":{\"a\":1,\"a\":2}}]"), "duplicate key"},
		{BYTES("{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,\"j\":1,\"k\":1,\"l\":1,\"m\":1,"
		       "\"b\":1}"),
			"duplicate key"},
		{BYTES("{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,\"j\":1,\"k\":1,\"l\":1,\"m\":1,"
		       "\"n\":1}"),
			NULL},
		/* depth */
		{BYTES("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]"), "too deeply nested"},
		{BYTES("{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":[[[[[[[[[1]]]]]]]]]}}}}}}}}"),
			"too deeply nested"},
		{BYTES("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["), "too deeply nested"},
	};
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cJSON *tree = parse(rows[i].text, rows[i].length, JSON_DEPTH_MAX, &why);
		if ((tree == NULL) != (rows[i].why != NULL) || (rows[i].why != NULL && strcmp(why, rows[i].why) != 0)) {
			fail_msg("row %zu, %s: %s, wanted %s", i, rows[i].text, tree != NULL ? "accepted" : why,
				rows[i].why != NULL ? rows[i].why : "accepted");
		}
		cJSON_Delete(tree);
	}
}

static void obeys_max_depth(void **state)
{
	static const struct {
		const char *text;
		unsigned depth;
	} rows[] = {{"1", 0}, {"\"[[[[\"", 0}, {"[]", 1}, {"{}", 1}, {"[{}]", 2}, {"[[],[],[[]]]", 3},
		{"{\"a\":[],\"b\":{\"c\":{}}}", 3}};
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned max_depth = 0; max_depth < 5; max_depth++) {
			cJSON *tree = parse(rows[i].text, strlen(rows[i].text), max_depth, &why);
			assert_int_equal(tree != NULL, max_depth >= rows[i].depth);
			cJSON_Delete(tree);
		}
	}
	/* A caller's larger number changes nothing. */
	assert_null(parse(BYTES("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]"), 1000, &why));
	assert_string_equal(why, "too deeply nested");
}

/* Cut anywhere an object is no object, and nothing is read beyond the cut. */
static void refuses_every_truncation(void **state)
{
	static const char text[] =
		"{\"id\":\"9f1c\\u00e9\\ud83d\\ude00\",\"n\":[-1.5e+3,true,false,null,{\"x\":\"\xc3\xa9\xf0\x9f\x98\x80\"}]}";
	const char *why;

	(void)state;
	for (size_t length = 0; length < sizeof(text) - 1; length++) {
		assert_null(parse(text, length, JSON_DEPTH_MAX, &why));
	}
	cJSON *tree = parse(text, sizeof(text) - 1, JSON_DEPTH_MAX, &why);
	assert_non_null(tree);
	cJSON_Delete(tree);
}

static void decodes_strings_whole(void **state)
{
	static const struct {
		const char *json;
		const char *decoded;
	} rows[] = {
		{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
		{"\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\"\\uD800\\uDC00\\uDBFF\\uDFFF\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
		{"\"\\u0001\\u007f\\u0080\\u07ff\\u0800\\uffff\"", "\x01\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"},
	};
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cJSON *tree = parse(rows[i].json, strlen(rows[i].json), 0, &why);
		assert_non_null(tree);
		assert_string_equal(tree->valuestring, rows[i].decoded);
		cJSON_Delete(tree);
	}
}

/* 100,000 emoji, each as twelve bytes of escapes: the largest body that the contract allows (threat 35). */
static void takes_the_largest_body(void **state)
{
	enum { EMOJI = 100000 };
	struct buffer json;
	const char *why;
	size_t code_points = 0;

	(void)state;
	buffer_init(&json, EMOJI * 12 + 2);
	assert_true(buffer_append_text(&json, "\""));
	for (size_t i = 0; i < EMOJI; i++) {
		assert_true(buffer_append_text(&json, "\\ud83d\\ude00"));
	}
	assert_true(buffer_append_text(&json, "\""));
	cJSON *tree = parse(json.data, json.length, 0, &why);
	assert_non_null(tree);
	assert_true(text_check_utf8(tree->valuestring, strlen(tree->valuestring), &code_points));
	assert_int_equal(code_points, EMOJI);
	cJSON_Delete(tree);
	buffer_free(&json);
}

/* `count` elements or members in one container; the container is a value too. */
static void append_many(struct buffer *json, bool object, size_t count)
{
	buffer_reset(json);
	buffer_append_text(json, object ? "{" : "[");
	for (size_t i = 0; i < count; i++) {
		if (object) {
			buffer_append_format(json, "%s\"a key with a long beginning %zu\":1", i > 0 ? "," : "", i);
		} else {
			buffer_append_text(json, i > 0 ? ",1" : "1");
		}
	}
	buffer_append_text(json, object ? "}" : "]");
	assert_false(json->failed);
}

static void bounds_the_number_of_values(void **state)
{
	struct buffer json;
	const char *why;

	(void)state;
	buffer_init(&json, 2000000);
	for (int object = 0; object < 2; object++) {
		append_many(&json, object != 0, JSON_VALUES_MAX - 1);
		cJSON *tree = parse(json.data, json.length, 1, &why);
		assert_non_null(tree);
		cJSON_Delete(tree);
		append_many(&json, object != 0, JSON_VALUES_MAX);
		assert_null(parse(json.data, json.length, 1, &why));
		assert_string_equal(why, "too many values");
	}
	buffer_free(&json);
}

/* A duplicate among many keys, wherever the two stand. */
static void finds_duplicates_in_large_objects(void **state)
{
	struct buffer json;
	const char *why;

	(void)state;
	buffer_init(&json, 2000000);
	for (size_t count = 2; count < 5000; count = count * 3 / 2 + 1) {
		for (size_t twin = 0; twin < count; twin += count / 2 + 1) {
			append_many(&json, true, count);
			cJSON *tree = parse(json.data, json.length, 1, &why);
			assert_non_null(tree);
			cJSON_Delete(tree);
			json.length--; /* the closing brace */
			assert_true(buffer_append_format(&json, ",\"\\u0061 key with a long beginning %zu\":1}", twin));
			assert_null(parse(json.data, json.length, 1, &why));
			assert_string_equal(why, "duplicate key");
		}
	}
	buffer_free(&json);
}

static void threat_39_integers_are_whole_and_in_range(void **state)
{
	static const struct {
		const char *json;
		int64_t min;
		int64_t max;
		bool accepted;
		int64_t value;
	} rows[] = {
		{"0", 0, 10, true, 0},
		{"-0", 0, 10, true, 0},
		{"10", 0, 10, true, 10},
		{"11", 0, 10, false, 0},
		{"-1", 0, 10, false, 0},
		{"-1", -1, 10, true, -1},
		{"1.0", 0, 10, true, 1},
		{"1e1", 0, 10, true, 10},
		{"1.5", 0, 10, false, 0},
		{"0.1", 0, 10, false, 0},
		{"1e-1", 0, 10, false, 0},
		{"9007199254740991", 1, TEXT_ID_MAX, true, TEXT_ID_MAX},
		{"-9007199254740991", -TEXT_ID_MAX, 0, true, -TEXT_ID_MAX},
		{"9007199254740991", 1, INT64_MAX, true, TEXT_ID_MAX},
		{"9007199254740990", 1, TEXT_ID_MAX - 1, true, TEXT_ID_MAX - 1},
		{"9007199254740991", 1, TEXT_ID_MAX - 1, false, 0},
		{"\"1\"", 0, 10, false, 0},
		{"true", 0, 10, false, 0},
		{"null", 0, 10, false, 0},
		{"[1]", 0, 10, false, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *why;
		int64_t value = -77;
		cJSON *tree = parse(rows[i].json, strlen(rows[i].json), 1, &why);
		assert_non_null(tree);
		bool accepted = json_integer(tree, rows[i].min, rows[i].max, &value);
		if (accepted != rows[i].accepted || value != (accepted ? rows[i].value : -77)) {
			fail_msg("row %zu: %s", i, rows[i].json);
		}
		cJSON_Delete(tree);
	}
	int64_t value;
	assert_false(json_integer(NULL, 0, 10, &value));
	/* A tree that did not come through json_parse. */
	static const double numbers[] = {1e300, -1e300, 9007199254740992.0};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		cJSON *number = cJSON_CreateNumber(numbers[i]);
		assert_false(json_integer(number, INT64_MIN, INT64_MAX, &value));
		cJSON_Delete(number);
	}
}

/* Any single byte changed in a good text: refused, or a tree whose strings are good; never anything read or written out
 * of bounds (the sanitizers look), never a crash. */
static void survives_every_changed_byte(void **state)
{
	static const char text[] = "{\"a\":\"\\u00e9\xc3\xa9\",\"b\":[1,-2.5e1,true,null],\"c\":{\"d\":\"\\ud83d\\ude00\"}}";
	char changed[sizeof(text)];
	const char *why;

	(void)state;
	for (size_t at = 0; at < sizeof(text) - 1; at++) {
		for (unsigned byte = 0; byte < 256; byte++) {
			memcpy(changed, text, sizeof(text));
			changed[at] = (char)byte;
			cJSON *tree = parse(changed, sizeof(text) - 1, JSON_DEPTH_MAX, &why);
			assert_true(tree == NULL || cJSON_IsObject(tree));
			cJSON_Delete(tree);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_json),
		cmocka_unit_test(threat_33_refuses_what_is_not_json),
		cmocka_unit_test(obeys_max_depth),
		cmocka_unit_test(refuses_every_truncation),
		cmocka_unit_test(decodes_strings_whole),
		cmocka_unit_test(takes_the_largest_body),
		cmocka_unit_test(bounds_the_number_of_values),
		cmocka_unit_test(finds_duplicates_in_large_objects),
		cmocka_unit_test(threat_39_integers_are_whole_and_in_range),
		cmocka_unit_test(survives_every_changed_byte),
	};
	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
