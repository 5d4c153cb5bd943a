/* test_answer.c - the answers, to the letter: clients written against an earlier version read these. */
#include "../../plugin/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ID_TEXT "9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11"
#define ID_MAX INT64_C(9007199254740991)

static const uint8_t id[16] = {0x9f, 0x1c, 0x6f, 0x0e, 0x3d, 0x0b, 0x4a, 0x53, 0x9f, 0x0e, 0x6f, 0x6b, 0x0a, 0x6b, 0x7c, 0x11};

struct error_case {
	struct answer_subject subject;
	struct error_detail error;
	const char *answer;
};

#define CONFLICT "\"error\":{\"code\":\"conflict\",\"message\":\"this id was already used with other content\"}}"

static const struct error_case error_cases[] = {
	{{0}, {ERROR_CONFLICT, NULL, NULL}, "{" CONFLICT},
	{{.id = id}, {ERROR_CONFLICT, NULL, NULL}, "{\"id\":\"" ID_TEXT "\"," CONFLICT},
	{{.conversation_id = 42}, {ERROR_CONFLICT, NULL, NULL}, "{\"conversation\":42," CONFLICT},
	{{.conversation_id = ID_MAX}, {ERROR_CONFLICT, NULL, NULL}, "{\"conversation\":9007199254740991," CONFLICT},
	{{.topic = "chat/042/send"}, {ERROR_CONFLICT, NULL, NULL}, "{\"topic\":\"chat/042/send\"," CONFLICT},
	/* a topic is a stranger's text: it must not end the string that it stands in */
	{{.topic = "chat/\",\"error\":\\/\n\x01\x7f\xc3\xa9"}, {ERROR_CONFLICT, NULL, NULL},
		"{\"topic\":\"chat/\\\",\\\"error\\\":\\\\/\\n\\u0001\x7f\xc3\xa9\"," CONFLICT},
	/* a request's id comes back as it came, number or text */
	{{.request_id = "\"a\\u0041\"}", .request_id_length = 9}, {ERROR_CONFLICT, NULL, NULL},
		"{\"request_id\":\"a\\u0041\"," CONFLICT},
	{{.request_id = "17", .request_id_length = 2}, {ERROR_CONFLICT, NULL, NULL}, "{\"request_id\":17," CONFLICT},
	{{.retry_after_ms = 1500}, {ERROR_RATE_LIMITED, NULL, NULL},
		"{\"error\":{\"code\":\"rate_limited\",\"message\":\"too fast; try again later\",\"retry_after_ms\":1500}}"},
	{{0}, {ERROR_INVALID_FIELD, "ref", "a \"ref\" is required"},
		"{\"error\":{\"code\":\"invalid_field\",\"message\":\"a \\\"ref\\\" is required\",\"field\":\"ref\"}}"},
	{{id, 42, "chat/42/send", "{\"n\":1}", 7, 1}, {ERROR_OVERLOADED, "body", "later"},
		"{\"request_id\":{\"n\":1},\"id\":\"" ID_TEXT "\",\"conversation\":42,\"topic\":\"chat/42/send\","
		"\"error\":{\"code\":\"overloaded\",\"message\":\"later\",\"field\":\"body\",\"retry_after_ms\":1}}"},
};

static void check_text(const struct buffer *out, const char *expected)
{
	if (out->length != strlen(expected) || memcmp(out->data, expected, out->length) != 0) {
		fail_msg("%.*s\nnot\n%s", (int)out->length, out->data ? out->data : "", expected);
	}
}

static void errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(error_cases); i++) {
		struct buffer out;
		buffer_init(&out, 4096);
		assert_true(answer_error(&out, &error_cases[i].subject, &error_cases[i].error));
		check_text(&out, error_cases[i].answer);
		buffer_free(&out);
	}
}

/* Every code of the list, with the sentence that stands beside it. */
static void every_code(void **state)
{
	(void)state;
	for (unsigned code = ERROR_NONE + 1; code < ERROR_CODES; code++) {
		struct answer_subject subject = {0};
		struct error_detail error = {.code = (enum error_code)code};
		char expected[256];
		struct buffer out;
		int length = snprintf(expected, sizeof(expected), "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}",
			error_code_name(error.code), error_code_message(error.code));
		assert_in_range(length, 1, sizeof(expected) - 1);
		buffer_init(&out, 4096);
		assert_true(answer_error(&out, &subject, &error));
		check_text(&out, expected);
		buffer_free(&out);
	}
}

static void sent(void **state)
{
	struct buffer out;
	(void)state;
	buffer_init(&out, 4096);
	assert_true(answer_sent(&out, id, 42, 1017, 1790000000123));
	check_text(
		&out, "{\"id\":\"" ID_TEXT "\",\"conversation\":42,\"seq\":1017,\"sent_at\":1790000000123,\"status\":\"sent\"}");
	buffer_reset(&out);
	assert_true(answer_sent(&out, id, ID_MAX, ID_MAX, 1));
	check_text(&out, "{\"id\":\"" ID_TEXT "\",\"conversation\":9007199254740991,\"seq\":9007199254740991,\"sent_at\":1,"
			 "\"status\":\"sent\"}");
	buffer_free(&out);
}

/* A lane puts answers one behind the other into its batch. */
static void behind_what_is_there(void **state)
{
	struct answer_subject subject = {.conversation_id = 1};
	struct error_detail error = {.code = ERROR_CONFLICT};
	struct buffer out;
	(void)state;
	buffer_init(&out, 4096);
	buffer_append_text(&out, "before");
	assert_true(answer_error(&out, &subject, &error));
	check_text(&out, "before{\"conversation\":1," CONFLICT);
	buffer_free(&out);
}

/* No room, wherever it ends, is said; half an answer is never taken for one. */
static void no_room(void **state)
{
	const struct error_case *longest = &error_cases[COUNT(error_cases) - 1];
	size_t length = strlen(longest->answer);
	(void)state;
	for (size_t maximum = 0; maximum <= length; maximum++) {
		struct buffer out;
		buffer_init(&out, maximum);
		assert_int_equal(answer_error(&out, &longest->subject, &longest->error), maximum == length);
		assert_int_equal(out.failed, maximum < length);
		buffer_free(&out);
		buffer_init(&out, maximum);
		assert_int_equal(
			answer_sent(&out, id, 1, 1, 1), maximum >= strlen("{\"id\":\"" ID_TEXT "\",\"conversation\":1,"
									  "\"seq\":1,\"sent_at\":1,\"status\":\"sent\"}"));
		buffer_free(&out);
	}
}

static void result_of_send(void **state)
{
	struct buffer json;
	static const char with[] = "{\"request_id\":\"r\",\"result\":{\"seq\":7,\"sent_at\":1790000000123}}";
	static const char without[] = "{\"result\":{\"seq\":7,\"sent_at\":1790000000123}}";
	(void)state;
	buffer_init(&json, 200);
	assert_true(answer_send_result(&json, "\"r\"", 3, 7, INT64_C(1790000000123)));
	assert_int_equal(json.length, sizeof(with) - 1);
	assert_memory_equal(json.data, with, json.length);
	buffer_reset(&json);
	assert_true(answer_send_result(&json, NULL, 0, 7, INT64_C(1790000000123)));
	assert_int_equal(json.length, sizeof(without) - 1);
	assert_memory_equal(json.data, without, json.length);
	buffer_free(&json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors),
		cmocka_unit_test(every_code),
		cmocka_unit_test(sent),
		cmocka_unit_test(behind_what_is_there),
		cmocka_unit_test(no_room),
		cmocka_unit_test(result_of_send),
	};

	return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
