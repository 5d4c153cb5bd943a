/* test_request_payload.c - what is published to chat/request/{method}, as a table. */
#include "../../common/json.h"
#include "../../plugin/request_payload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct payload_case {
	const char *payload, *request_id; /* as JSON; "": none */
	enum error_code code;
} cases[] = {
	{"", "", ERROR_NONE},
	{"{}", "", ERROR_NONE},
	{"{\"a\":1,\"request_id\":\"x\",\"b\":2}", "\"x\"", ERROR_NONE},
	{"{\"request_id\":7}", "7", ERROR_NONE},
	{"{\"request_id\":-7}", "-7", ERROR_NONE},
	{"{\"request_id\":7.0}", "7", ERROR_NONE},
	{"{\"request_id\":9007199254740991}", "9007199254740991", ERROR_NONE},
	{"{\"request_id\":\"\"}", "\"\"", ERROR_NONE},
	{"{\"request_id\":\"\\u00e9\\n\\\"\"}", "\"\xc3\xa9\\n\\\"\"", ERROR_NONE},
	{"{\"request_id\":"
	 "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	 "aa"
	 "aaaaaaaaa\"}",
		"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaa"
		"aaaaaaa\"",
		ERROR_NONE},
	{"{\"request_id\":null}", "", ERROR_INVALID_FIELD},
	{"{\"request_id\":true}", "", ERROR_INVALID_FIELD},
	{"{\"request_id\":[1]}", "", ERROR_INVALID_FIELD},
	{"{\"request_id\":7.5}", "", ERROR_INVALID_FIELD},
	{"{\"request_id\":"
	 "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	 "aa"
	 "aaaaaaaaaa\"}",
		"", ERROR_INVALID_FIELD},
	{"{\"request_id\":9007199254740992}", "", ERROR_INVALID_JSON},
	{"{\"request_id\":1,\"request_id\":2}", "", ERROR_INVALID_JSON},
	{"[]", "", ERROR_INVALID_JSON},
	{"\"x\"", "", ERROR_INVALID_JSON},
	{"null", "", ERROR_INVALID_JSON},
	{"{", "", ERROR_INVALID_JSON},
	{"{}x", "", ERROR_INVALID_JSON},
	{" ", "", ERROR_INVALID_JSON},
	{"[[[[[[[[[[[[[[[[[[[[", "", ERROR_INVALID_JSON},
};

static void test_payloads(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct request_payload payload;
		struct error_detail error = {.code = ERROR_NONE};
		print_message("%s\n", cases[i].payload);
		bool good = request_payload_parse(cases[i].payload, strlen(cases[i].payload), &payload, &error);
		assert_int_equal(error.code, cases[i].code);
		assert_int_equal(good, cases[i].code == ERROR_NONE);
		assert_int_equal(payload.request_id_length, strlen(cases[i].request_id));
		assert_memory_equal(payload.request_id, cases[i].request_id, payload.request_id_length);
		if (good) {
			assert_null(cJSON_GetObjectItemCaseSensitive(payload.parameters, "request_id"));
			request_payload_free(&payload);
		}
	}
}

/* The longest that a string can become. */
static void test_longest_id(void **state)
{
	char text[1000] = "{\"request_id\":\"";
	struct request_payload payload;
	struct error_detail error;
	(void)state;
	for (int i = 0; i < REQUEST_ID_BYTES_MAX; i++) {
		memcpy(text + 15 + i * 6, "\\u0001", 6);
	}
	memcpy(text + 15 + REQUEST_ID_BYTES_MAX * 6, "\"}", 3);
	assert_true(request_payload_parse(text, strlen(text), &payload, &error));
	assert_int_equal(payload.request_id_length, REQUEST_ID_JSON_MAX);
	request_payload_free(&payload);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_payloads),
		cmocka_unit_test(test_longest_id),
	};
	return cmocka_run_group_tests_name("request_payload", tests, NULL, NULL);
}
