/* test_mark.c - marks and typing as a table. */
#include "../../plugin/mark.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEQ_MAX INT64_C(9007199254740991)

struct mark_case {
	const char *payload;
	int64_t delivered;
	int64_t read;
	enum error_code code;
	const char *field;
};

static const struct mark_case mark_cases[] = {
	{"{\"delivered\":1017}", 1017, 0, ERROR_NONE, NULL},
	{"{\"read\":1015}", 1015, 1015, ERROR_NONE, NULL},
	{"{\"delivered\":1017,\"read\":1015}", 1017, 1015, ERROR_NONE, NULL},
	{"{\"read\":1017,\"delivered\":1015}", 1017, 1017, ERROR_NONE, NULL}, /* read implies delivered */
	{" {\n\"read\" : 1 }\r\n", 1, 1, ERROR_NONE, NULL},
	{"{\"read\":9007199254740991}", SEQ_MAX, SEQ_MAX, ERROR_NONE, NULL},
	{"{\"read\":1e3}", 1000, 1000, ERROR_NONE, NULL},

	/* threats 39 and 40 */
	{"{\"read\":0}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"read\":-1}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"read\":1.5}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"read\":\"7\"}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"read\":null}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"read\":true}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"read\":[7]}", 0, 0, ERROR_INVALID_FIELD, "read"},
	{"{\"delivered\":0}", 0, 0, ERROR_INVALID_FIELD, "delivered"},
	{"{\"delivered\":1e-3}", 0, 0, ERROR_INVALID_FIELD, "delivered"},
	{"{\"read\":7,\"delivered\":\"x\"}", 0, 0, ERROR_INVALID_FIELD, "delivered"},
	{"{\"read\":9007199254740992}", 0, 0, ERROR_INVALID_JSON, NULL},
	{"{\"read\":1e999}", 0, 0, ERROR_INVALID_JSON, NULL},
	{"{\"read\":7,\"user\":8}", 0, 0, ERROR_INVALID_FIELD, NULL}, /* forged for another user */
	{"{\"Read\":7}", 0, 0, ERROR_INVALID_FIELD, NULL},
	{"{\"read\":7,\"typing\":true}", 0, 0, ERROR_INVALID_FIELD, NULL},
	{"{}", 0, 0, ERROR_INVALID_FIELD, NULL},
	{"7", 0, 0, ERROR_INVALID_FIELD, NULL},
	{"[{\"read\":7}]", 0, 0, ERROR_INVALID_FIELD, NULL},
	{"null", 0, 0, ERROR_INVALID_FIELD, NULL},
	{"", 0, 0, ERROR_INVALID_JSON, NULL},
	{"read", 0, 0, ERROR_INVALID_JSON, NULL},
	{"{\"read\":7", 0, 0, ERROR_INVALID_JSON, NULL},
	{"{\"read\":7}}", 0, 0, ERROR_INVALID_JSON, NULL},
	{"{\"read\":007}", 0, 0, ERROR_INVALID_JSON, NULL},
	{"{\"read\":7,\"read\":8}", 0, 0, ERROR_INVALID_JSON, NULL},
	{"\xef\xbb\xbf{\"read\":7}", 0, 0, ERROR_INVALID_JSON, NULL},
};

/* A payload as the broker gives it: no NUL behind it, and a sanitizer sees a read past its end. */
static char *exact(const char *text, size_t length)
{
	char *copy = malloc(length > 0 ? length : 1);

	assert_non_null(copy);
	memcpy(copy, text, length);
	return copy;
}

static void check_error(const char *payload, const struct error_detail *error, enum error_code code, const char *field)
{
	bool same_field = field == NULL ? error->field == NULL : error->field != NULL && strcmp(error->field, field) == 0;

	if (error->code != code || !same_field) {
		fail_msg("%s: %s, field %s", payload, error_code_name(error->code), error->field != NULL ? error->field : "none");
	}
	assert_non_null(error->message);
}

static void marks(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(mark_cases) / sizeof(mark_cases[0]); i++) {
		const struct mark_case *expected = &mark_cases[i];
		size_t length = strlen(expected->payload);
		char *payload = exact(expected->payload, length);
		struct mark mark = {77, 77};
		struct error_detail error = {.code = ERROR_NONE};
		bool ok = mark_parse(payload, length, &mark, &error);
		if (ok != (expected->code == ERROR_NONE) || mark.delivered != expected->delivered ||
			mark.read != expected->read) {
			fail_msg("%s: %d, delivered %lld, read %lld", expected->payload, ok, (long long)mark.delivered,
				(long long)mark.read);
		}
		if (!ok) {
			check_error(expected->payload, &error, expected->code, expected->field);
		}
		free(payload);
	}
}

struct typing_case {
	const char *payload;
	bool typing;
	enum error_code code;
	const char *field;
};

static const struct typing_case typing_cases[] = {
	{"{\"typing\":true}", true, ERROR_NONE, NULL},
	{"{\"typing\":false}", false, ERROR_NONE, NULL},
	{" { \"typing\" : true } ", true, ERROR_NONE, NULL},
	{"{\"typing\":1}", false, ERROR_INVALID_FIELD, "typing"},
	{"{\"typing\":\"true\"}", false, ERROR_INVALID_FIELD, "typing"},
	{"{\"typing\":null}", false, ERROR_INVALID_FIELD, "typing"},
	{"{}", false, ERROR_INVALID_FIELD, "typing"},
	{"{\"typing\":true,\"user\":7}", false, ERROR_INVALID_FIELD, NULL},
	{"{\"user\":7,\"typing\":true}", false, ERROR_INVALID_FIELD, NULL},
	{"{\"Typing\":true}", false, ERROR_INVALID_FIELD, NULL},
	{"true", false, ERROR_INVALID_FIELD, NULL},
	{"[true]", false, ERROR_INVALID_FIELD, NULL},
	{"", false, ERROR_INVALID_JSON, NULL},
	{"{\"typing\":True}", false, ERROR_INVALID_JSON, NULL},
	{"{\"typing\":true,\"typing\":false}", false, ERROR_INVALID_JSON, NULL},
};

static void typing(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(typing_cases) / sizeof(typing_cases[0]); i++) {
		const struct typing_case *expected = &typing_cases[i];
		size_t length = strlen(expected->payload);
		char *payload = exact(expected->payload, length);
		bool is_typing = !expected->typing;
		struct error_detail error = {.code = ERROR_NONE};
		bool ok = typing_parse(payload, length, &is_typing, &error);
		if (ok != (expected->code == ERROR_NONE) || is_typing != expected->typing) {
			fail_msg("%s: %d", expected->payload, ok);
		}
		if (!ok) {
			check_error(expected->payload, &error, expected->code, expected->field);
		}
		free(payload);
	}
}

static void bytes_that_text_cannot_hold(void **state)
{
	struct mark mark;
	bool is_typing;
	struct error_detail error;

	(void)state;
	assert_false(mark_parse("{\"read\":7}\0", 11, &mark, &error));
	assert_int_equal(error.code, ERROR_INVALID_JSON);
	assert_false(typing_parse("{\"typ\xffng\":true}", 15, &is_typing, &error));
	assert_int_equal(error.code, ERROR_INVALID_JSON);
}

/* Not parsed at all beyond a length that no honest payload has. */
static void too_long(void **state)
{
	static char payload[1 << 20];
	struct mark mark;
	bool is_typing;
	struct error_detail error;

	(void)state;
	memset(payload, ' ', sizeof(payload));
	memcpy(payload, "{\"read\":7}", 10);
	assert_true(mark_parse(payload, 1024, &mark, &error));
	assert_false(mark_parse(payload, 1025, &mark, &error));
	assert_int_equal(error.code, ERROR_TOO_LONG);
	assert_false(typing_parse(payload, sizeof(payload), &is_typing, &error));
	assert_int_equal(error.code, ERROR_TOO_LONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks),
		cmocka_unit_test(typing),
		cmocka_unit_test(bytes_that_text_cannot_hold),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests_name("mark", tests, NULL, NULL);
}
