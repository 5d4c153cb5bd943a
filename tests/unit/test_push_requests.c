/* test_push_requests.c - what is sent to Google, Apple and browsers' services, and that it fits. */
#include "json.h"
#include "provider.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1790000000000)

static struct provider_request request;
static const uint8_t random_bytes[PROVIDER_RANDOM_BYTES] = {1, 2, 3};
static const struct provider_settings google = {.url = "https://fcm.example.com", .path = "/v1/projects/p/messages:send"};
static const struct provider_settings apple = {.url = "https://apns.example.com", .topic = "org.example.chat"};
static const int64_t cleared[] = {42, 43};
static const struct push example = {.kind = PUSH_MESSAGE,
	.device_id = 9,
	.conversation_id = 42,
	.seq = 1017,
	.count = 3,
	.badge = 5,
	.expires_at_ms = NOW_MS + 60000,
	.title = "Lunch",
	.body = "Alice: \"Hi\"",
	.token = "abcdef0123456789"};

static int setup(void **state)
{
	(void)state;
	provider_request_init(&request);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	provider_request_free(&request);
	return 0;
}

static bool build(const struct provider *provider, const struct provider_settings *settings, const struct push *push)
{
	const struct provider_input input = {
		.settings = settings, .push = push, .authorization = "secret", .random = random_bytes, .now_ms = NOW_MS};
	return provider->build(&input, &request);
}

static void expect_body(const char *wanted)
{
	const char *why = NULL;
	cJSON *tree = json_parse(request.body.data, request.body.length, JSON_DEPTH_MAX, &why);
	assert_non_null(tree);
	cJSON_Delete(tree);
	assert_int_equal(request.body.length, strlen(wanted));
	assert_memory_equal(request.body.data, wanted, strlen(wanted));
}

static const char *header(const char *name)
{
	for (size_t i = 0; i < request.header_count; i++) {
		const char *line = request.text.data + request.headers[i];
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
			return line + strlen(name) + 2;
		}
	}
	return "";
}

static void fcm(void **state)
{
	(void)state;
	assert_true(build(&provider_fcm, &google, &example));
	assert_string_equal(request.url.data, "https://fcm.example.com/v1/projects/p/messages:send");
	assert_string_equal(header("authorization"), "Bearer secret");
	expect_body("{\"message\":{\"token\":\"abcdef0123456789\",\"data\":{\"conversation\":\"42\",\"seq\":\"1017\",\"count\":"
		    "\"3\",\"badge\":\"5\","
		    "\"kind\":\"message\"},\"notification\":{\"title\":\"Lunch\",\"body\":\"Alice: \\\"Hi\\\"\"},"
		    "\"android\":{\"priority\":\"high\",\"ttl\":\"60s\",\"notification\":{\"tag\":\"conversation-42\",\"channel_"
		    "id\":\"messages\"}},"
		    "\"apns\":{\"headers\":{\"apns-collapse-id\":\"conversation-42\"},\"payload\":{\"aps\":{\"thread-id\":"
		    "\"conversation-42\","
		    "\"mutable-content\":1,\"sound\":\"default\",\"badge\":5}}}}}");
}

static void fcm_data_only(void **state)
{
	const struct provider_settings settings = {.url = "https://x", .path = "/y", .data_only = true};
	struct push push = example;
	(void)state;
	push.badge = PUSH_BADGE_NONE;
	push.expires_at_ms = NOW_MS - 1;
	assert_true(build(&provider_fcm, &settings, &push));
	expect_body(
		"{\"message\":{\"token\":\"abcdef0123456789\",\"data\":{\"conversation\":\"42\",\"seq\":\"1017\",\"count\":\"3\","
		"\"title\":\"Lunch\",\"body\":\"Alice: "
		"\\\"Hi\\\"\",\"kind\":\"message\"},\"android\":{\"priority\":\"high\",\"ttl\":\"0s\"}}}");
}

static void apns(void **state)
{
	(void)state;
	assert_true(build(&provider_apns, &apple, &example));
	assert_string_equal(request.url.data, "https://apns.example.com/3/device/abcdef0123456789");
	assert_string_equal(header("authorization"), "bearer secret");
	assert_string_equal(header("apns-topic"), "org.example.chat");
	assert_string_equal(header("apns-push-type"), "alert");
	assert_string_equal(header("apns-priority"), "10");
	assert_string_equal(header("apns-expiration"), "1790000060");
	assert_string_equal(header("apns-collapse-id"), "conversation-42");
	assert_int_equal(strlen(header("apns-id")), 36);
	expect_body("{\"aps\":{\"alert\":{\"title\":\"Lunch\",\"body\":\"Alice: "
		    "\\\"Hi\\\"\"},\"sound\":\"default\",\"mutable-content\":1,"
		    "\"thread-id\":\"conversation-42\",\"badge\":5},\"kind\":\"message\",\"conversation\":42,\"seq\":1017,"
		    "\"count\":3}");
}

static void silent(void **state)
{
	struct push push = example;
	(void)state;
	push.kind = PUSH_CLEAR;
	push.cleared = cleared;
	push.cleared_count = 2;
	assert_true(build(&provider_apns, &apple, &push));
	assert_string_equal(header("apns-push-type"), "background");
	assert_string_equal(header("apns-priority"), "5"); /* 10 is an error */
	assert_string_equal(header("apns-collapse-id"), "");
	expect_body("{\"aps\":{\"content-available\":1,\"badge\":5},\"kind\":\"clear\",\"conversations\":[42,43]}");
	assert_true(build(&provider_fcm, &google, &push));
	expect_body("{\"message\":{\"token\":\"abcdef0123456789\",\"data\":{\"conversations\":\"42,43\",\"badge\":\"5\",\"kind\":"
		    "\"clear\"},"
		    "\"android\":{\"priority\":\"normal\",\"ttl\":\"60s\"}}}");
}

static void apns_tokens(void **state)
{
	static const char *const bad[] = {"", "a", "abcdefgh", "ab/../../x", "ab?x", "ab cd", "ab\r\nx: y"};
	struct push push = example;
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		push.token = bad[i];
		assert_false(build(&provider_apns, &apple, &push));
	}
}

/* What grows most when it is written as JSON: a control character takes six bytes. */
static void large(void **state)
{
	static char body[PUSH_BODY_MAX + 4], title[PUSH_TITLE_MAX + 4];
	struct push push = example;
	const char *why;
	(void)state;
	memset(body, 1, PUSH_BODY_MAX);
	memset(title, 1, PUSH_TITLE_MAX);
	push.body = body;
	push.title = title;
	assert_true(build(&provider_apns, &apple, &push));
	assert_in_range(request.body.length, 3900, 4096);
	cJSON *tree = json_parse(request.body.data, request.body.length, JSON_DEPTH_MAX, &why);
	assert_non_null(tree);
	cJSON_Delete(tree);
	assert_true(build(&provider_fcm, &google, &push));
	assert_in_range(request.body.length, 3800, 4096);
}

static void cut_between_characters(void **state)
{
	struct buffer out;
	(void)state;
	buffer_init(&out, 100);
	provider_append_cut(&out, "a\xe2\x82\xac\xe2\x82\xac", 6); /* a€€ is seven bytes */
	assert_int_equal(out.length, 1 + 4 + 3 + 1);
	assert_memory_equal(out.data, "\"a\xe2\x82\xac\xe2\x80\xa6\"", 9);
	buffer_free(&out);
}

static void small(void **state)
{
	struct push push = example;
	(void)state;
	push.small = true;
	assert_true(build(&provider_fcm, &google, &push));
	assert_null(memmem(request.body.data, request.body.length, "Alice", 5));
	assert_true(build(&provider_apns, &apple, &push));
	assert_null(memmem(request.body.data, request.body.length, "Alice", 5));
}

/* The same for every try of the same news; another for other news. */
static void identity(void **state)
{
	uint8_t one[16], again[16], other[16];
	struct push push = example;
	(void)state;
	provider_push_id(&example, one);
	push.body = "other words";
	push.count = 9;
	provider_push_id(&push, again);
	assert_memory_equal(one, again, 16);
	push.seq++;
	provider_push_id(&push, other);
	assert_memory_not_equal(one, other, 16);
	assert_int_equal(one[6] >> 4, 8);
	assert_int_equal(one[8] >> 6, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(fcm), cmocka_unit_test(fcm_data_only), cmocka_unit_test(apns),
		cmocka_unit_test(silent), cmocka_unit_test(apns_tokens), cmocka_unit_test(large),
		cmocka_unit_test(cut_between_characters), cmocka_unit_test(small), cmocka_unit_test(identity)};
	return cmocka_run_group_tests_name("push_requests", tests, setup, teardown);
}
