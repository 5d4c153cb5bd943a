/* test_topic.c - every form of a topic and filter as a table; client ids and method names likewise. */
#include "../../plugin/error.h"
#include "../../plugin/topic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ID_MAX INT64_C(9007199254740991)
#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

struct topic_case {
	const char *text;
	enum topic_kind topic;  /* as a topic of a PUBLISH */
	enum topic_kind filter; /* as a filter of a SUBSCRIBE */
	int64_t id;
	const char *name;
};

#define SAME(kind) kind, kind

static const struct topic_case topic_cases[] = {
	{"chat/42/messages", SAME(TOPIC_MESSAGES), 42, NULL},
	{"chat/42/send", SAME(TOPIC_SEND), 42, NULL},
	{"chat/42/mark", SAME(TOPIC_MARK), 42, NULL},
	{"chat/42/type", SAME(TOPIC_TYPE), 42, NULL},
	{"chat/42/receipts", SAME(TOPIC_RECEIPTS), 42, NULL},
	{"chat/42/typing", SAME(TOPIC_TYPING), 42, NULL},
	{"chat/1/messages", SAME(TOPIC_MESSAGES), 1, NULL},
	{"chat/9007199254740991/messages", SAME(TOPIC_MESSAGES), ID_MAX, NULL},
	{"chat/user/7/presence", SAME(TOPIC_PRESENCE), 7, NULL},
	{"chat/user/7/inbox", SAME(TOPIC_INBOX), 7, NULL},
	{"chat/user/9007199254740991/inbox", SAME(TOPIC_INBOX), ID_MAX, NULL},
	{"chat/response/7-phone", SAME(TOPIC_RESPONSE), 0, "7-phone"},
	{"chat/response/" X64, SAME(TOPIC_RESPONSE), 0, X64},
	{"chat/request/message.send", SAME(TOPIC_REQUEST), 0, "message.send"},
	{"chat/request/conversation.add_members", SAME(TOPIC_REQUEST), 0, "conversation.add_members"},

	/* threat 20: ids have one spelling */
	{"chat/0/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/00/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/042/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/-1/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/+1/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/4.2/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42e0/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/0x2a/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/ 42/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42 /messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/\xd9\xa4\xd9\xa2/messages", SAME(TOPIC_INVALID), 0, NULL}, /* Arabic digits */
	{"chat/9007199254740992/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/99999999999999999/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/18446744073709551658/messages", SAME(TOPIC_INVALID), 0, NULL}, /* 2^64 + 42 */
	{"chat/340282366920938463463374607431768211498/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/07/inbox", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/0/inbox", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/9007199254740992/inbox", SAME(TOPIC_INVALID), 0, NULL},

	/* nearly the forms */
	{"chat", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat//", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat//messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat//42/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42//messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/messages/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/messages/x", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/message", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/messagess", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/Messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/inbox", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/t", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/7", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/7/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/7/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/7/inbox/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/users/7/inbox", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/a/b", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/a/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/" X64 "x", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/\xc3\xa9", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/request/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/request/Message.send", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/request/message.send/", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/request/" X64 "x", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/x", SAME(TOPIC_INVALID), 0, NULL},

	/* threat 24: wildcards below the root are no topic of ours, above it they would cover us */
	{"chat/#", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/+", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/+/messages", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/#", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/+", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/42/messages/#", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/+/inbox", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/#", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/user/7/+", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/+", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/response/#", SAME(TOPIC_INVALID), 0, NULL},
	{"chat/request/+", SAME(TOPIC_INVALID), 0, NULL},
	{"#", TOPIC_FOREIGN, TOPIC_COVERING, 0, NULL},
	{"+", TOPIC_FOREIGN, TOPIC_COVERING, 0, NULL},
	{"+/#", TOPIC_FOREIGN, TOPIC_COVERING, 0, NULL},
	{"+/42/messages", TOPIC_FOREIGN, TOPIC_COVERING, 0, NULL},
	{"+chat/42/messages", TOPIC_FOREIGN, TOPIC_COVERING, 0, NULL},
	{"$share/g/chat/42/messages", TOPIC_INVALID, TOPIC_COVERING, 0, NULL},
	{"$share/g/elsewhere", TOPIC_INVALID, TOPIC_COVERING, 0, NULL},
	{"$share//#", TOPIC_INVALID, TOPIC_COVERING, 0, NULL},
	{"$share", TOPIC_INVALID, TOPIC_COVERING, 0, NULL},
	{"$share/", TOPIC_INVALID, TOPIC_COVERING, 0, NULL},
	{"$shared/g", SAME(TOPIC_SYSTEM), 0, NULL},
	{"$shar", SAME(TOPIC_SYSTEM), 0, NULL},
	{"$SYS/#", SAME(TOPIC_SYSTEM), 0, NULL},
	{"$SYS/broker/uptime", SAME(TOPIC_SYSTEM), 0, NULL},
	{"$CONTROL/dynamic-security/v1", SAME(TOPIC_SYSTEM), 0, NULL},
	{"$", SAME(TOPIC_SYSTEM), 0, NULL},

	/* not ours */
	{"", SAME(TOPIC_FOREIGN), 0, NULL},
	{"/", SAME(TOPIC_FOREIGN), 0, NULL},
	{"c", SAME(TOPIC_FOREIGN), 0, NULL},
	{"cha", SAME(TOPIC_FOREIGN), 0, NULL},
	{"chats", SAME(TOPIC_FOREIGN), 0, NULL},
	{"chatter/42/messages", SAME(TOPIC_FOREIGN), 0, NULL},
	{"Chat/42/messages", SAME(TOPIC_FOREIGN), 0, NULL},
	{"/chat/42/messages", SAME(TOPIC_FOREIGN), 0, NULL},
	{"sensors/+/temperature", SAME(TOPIC_FOREIGN), 0, NULL},
	{"sensors/#", SAME(TOPIC_FOREIGN), 0, NULL},
	{"\xef\xbb\xbf"
	 "chat/42/messages",
		SAME(TOPIC_FOREIGN), 0, NULL},
};

static void check_topic(const char *text, const struct topic *got, enum topic_kind kind, const struct topic_case *expected)
{
	bool named = expected->name != NULL && kind != TOPIC_INVALID;

	if (got->kind != kind || got->id != expected->id || (got->name != NULL) != named) {
		fail_msg("\"%s\": kind %d id %lld name %p", text, (int)got->kind, (long long)got->id, (const void *)got->name);
	}
	if (named) {
		assert_int_equal(got->name_length, strlen(expected->name));
		assert_memory_equal(got->name, expected->name, got->name_length);
		assert_ptr_equal(got->name, text + strlen(text) - got->name_length);
	} else {
		assert_int_equal(got->name_length, 0);
	}
}

static void topics_and_filters(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(topic_cases) / sizeof(topic_cases[0]); i++) {
		const struct topic_case *expected = &topic_cases[i];
		struct topic topic = topic_parse(expected->text);
		struct topic filter = topic_parse_filter(expected->text);
		check_topic(expected->text, &topic, expected->topic, expected);
		check_topic(expected->text, &filter, expected->filter, expected);
	}
}

/* Whatever one byte is put in place of another, no other conversation and no other noun comes out. */
static void one_byte_changed(void **state)
{
	static const char original[] = "chat/42/messages";

	(void)state;
	for (size_t at = 0; at < sizeof(original) - 1; at++) {
		for (int byte = 1; byte < 256; byte++) {
			char text[sizeof(original)];
			memcpy(text, original, sizeof(text));
			text[at] = (char)byte;
			struct topic topic = topic_parse(text);
			bool other_id = (at == 5 && byte >= '1' && byte <= '9') || (at == 6 && byte >= '0' && byte <= '9');
			bool valid = text[at] == original[at] || other_id;
			assert_int_equal(topic.kind == TOPIC_MESSAGES, valid);
			assert_int_equal(topic.kind == TOPIC_INVALID, !valid && at >= 5);
		}
	}
}

static void every_prefix(void **state)
{
	static const char *const originals[] = {"chat/42/messages", "chat/user/7/presence"};

	(void)state;
	for (size_t i = 0; i < sizeof(originals) / sizeof(originals[0]); i++) {
		for (size_t length = 0; length < strlen(originals[i]); length++) {
			char text[64] = "";
			memcpy(text, originals[i], length);
			assert_int_equal(topic_parse(text).kind, length < 4 ? TOPIC_FOREIGN : TOPIC_INVALID);
		}
	}
}

static void directions(void **state)
{
	static const enum topic_kind up[] = {TOPIC_SEND, TOPIC_MARK, TOPIC_TYPE, TOPIC_REQUEST};
	static const enum topic_kind down[] = {
		TOPIC_MESSAGES, TOPIC_RECEIPTS, TOPIC_TYPING, TOPIC_PRESENCE, TOPIC_INBOX, TOPIC_RESPONSE};
	static const enum topic_kind neither[] = {TOPIC_FOREIGN, TOPIC_INVALID, TOPIC_SYSTEM, TOPIC_COVERING};

	(void)state;
	for (size_t i = 0; i < sizeof(up) / sizeof(up[0]); i++) {
		assert_true(topic_is_up(up[i]));
		assert_false(topic_is_down(up[i]));
	}
	for (size_t i = 0; i < sizeof(down) / sizeof(down[0]); i++) {
		assert_false(topic_is_up(down[i]));
		assert_true(topic_is_down(down[i]));
	}
	for (size_t i = 0; i < sizeof(neither) / sizeof(neither[0]); i++) {
		assert_false(topic_is_up(neither[i]));
		assert_false(topic_is_down(neither[i]));
	}
}

static void formatted_topics_parse_again(void **state)
{
	static const enum topic_kind kinds[] = {
		TOPIC_MESSAGES, TOPIC_RECEIPTS, TOPIC_TYPING, TOPIC_PRESENCE, TOPIC_INBOX, TOPIC_SEND, TOPIC_MARK, TOPIC_TYPE};
	static const int64_t ids[] = {1, 42, 4294967296, ID_MAX};
	char text[TOPIC_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		for (size_t j = 0; j < sizeof(ids) / sizeof(ids[0]); j++) {
			topic_format(kinds[i], ids[j], text);
			struct topic topic = topic_parse(text);
			assert_int_equal(topic.kind, kinds[i]);
			assert_true(topic.id == ids[j]);
		}
	}
	topic_format(TOPIC_MESSAGES, 42, text);
	assert_string_equal(text, "chat/42/messages");
	topic_format(TOPIC_INBOX, 7, text);
	assert_string_equal(text, "chat/user/7/inbox");
	topic_format(TOPIC_PRESENCE, INT64_MIN, text); /* the longest there can be */
	assert_string_equal(text, "chat/user/-9223372036854775808/presence");
	topic_format(TOPIC_RESPONSE, 7, text);
	assert_string_equal(text, "");
}

struct name_case {
	const char *name;
	bool method;
	bool client_id;
	int64_t owner;
};

static const struct name_case name_cases[] = {
	{"message.send", true, true, 0},
	{"a", true, true, 0},
	{"_", true, true, 0},
	{"a.b.c", true, true, 0},
	{"conversation.remove_members", true, true, 0},
	{X64, true, true, 0},
	{X64 "x", false, false, 0},
	{"", false, false, 0},
	{".", false, true, 0},
	{".a", false, true, 0},
	{"a.", false, true, 0},
	{"a..b", false, true, 0},
	{"a-b", false, true, 0},
	{"A", false, true, 0},
	{"a1", false, true, 0},
	{"a b", false, false, 0},
	{"a/b", false, false, 0},
	{"a+b", false, false, 0},
	{"a#", false, false, 0},
	{"a%", false, false, 0},
	{"a\n", false, false, 0},
	{"\xc3\xa9", false, false, 0},
	/* threat 11: who owns a client id */
	{"7-phone", false, true, 7},
	{"7-", false, true, 7},
	{"7--", false, true, 7},
	{"7-8-9", false, true, 7},
	{"9007199254740991-tv", false, true, ID_MAX},
	{"9007199254740992-tv", false, true, -1},
	{"99999999999999999999-tv", false, true, -1},
	{"07-phone", false, true, -1},
	{"0-phone", false, true, -1},
	{"7", false, true, 0},
	{"7.phone", false, true, 0},
	{"7x-phone", false, true, 0},
	{"x7-phone", false, true, 0},
	{"-7", false, true, 0},
	{"-", false, true, 0},
	{"guest-0123456789abcdef0123456789abcdef", false, true, 0},
	{"auto-1B2C3D4E-0000-1111-2222-333344445555", false, true, 0},
};

static void names(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(name_cases) / sizeof(name_cases[0]); i++) {
		const struct name_case *expected = &name_cases[i];
		size_t length = strlen(expected->name);
		if (topic_method_name_ok(expected->name, length) != expected->method ||
			topic_client_id_ok(expected->name, length) != expected->client_id ||
			topic_client_id_owner(expected->name, length) != expected->owner) {
			fail_msg("\"%s\"", expected->name);
		}
	}
}

/* The length counts, not a NUL: threat 13. */
static void names_with_nul(void **state)
{
	(void)state;
	assert_false(topic_client_id_ok("a\0b", 3));
	assert_false(topic_client_id_ok("a\0", 2));
	assert_false(topic_method_name_ok("a\0b", 3));
	assert_int_equal(topic_client_id_owner("7-x", 1), 0); /* the hyphen lies beyond the end */
	assert_int_equal(topic_client_id_owner("7\0-", 3), 0);
}

/* A topic may have 65,535 bytes; each form must only read what it needs and say no. */
static void long_topics(void **state)
{
	static const char *const starts[] = {
		"chat/", "chat/4", "chat/42/messages", "chat/response/", "chat/request/", "chat/user/", ""};
	static char text[65536];

	(void)state;
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		for (const char *fill = "4a/.-+#"; *fill != '\0'; fill++) {
			size_t start = strlen(starts[i]);
			memset(text, *fill, sizeof(text) - 1);
			text[sizeof(text) - 1] = '\0';
			memcpy(text, starts[i], start);
			enum topic_kind kind = topic_parse(text).kind;
			assert_int_equal(kind, start > 0 ? TOPIC_INVALID : TOPIC_FOREIGN);
		}
	}
}

static void error_names(void **state)
{
	(void)state;
	for (unsigned code = ERROR_NONE + 1; code < ERROR_CODES; code++) {
		const char *name = error_code_name((enum error_code)code);
		assert_non_null(name);
		assert_int_equal(error_code_from_name(name, strlen(name)), code);
		assert_true(strlen(error_code_message((enum error_code)code)) > 0);
		bool transient = code == ERROR_RATE_LIMITED || code == ERROR_OVERLOADED || code == ERROR_UNAVAILABLE;
		assert_int_equal(error_code_is_transient((enum error_code)code), transient);
	}
	assert_string_equal(error_code_name(ERROR_NOT_FOUND), "not_found");
	assert_int_equal(error_code_from_name("not_foun", 8), ERROR_INTERNAL);
	assert_int_equal(error_code_from_name("not_found!", 10), ERROR_INTERNAL);
	assert_int_equal(error_code_from_name("none", 4), ERROR_INTERNAL);
	assert_int_equal(error_code_from_name("", 0), ERROR_INTERNAL);
	assert_string_equal(error_code_name((enum error_code)ERROR_CODES), "internal");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(topics_and_filters),
		cmocka_unit_test(one_byte_changed),
		cmocka_unit_test(every_prefix),
		cmocka_unit_test(directions),
		cmocka_unit_test(formatted_topics_parse_again),
		cmocka_unit_test(names),
		cmocka_unit_test(names_with_nul),
		cmocka_unit_test(long_topics),
		cmocka_unit_test(error_names),
	};

	return cmocka_run_group_tests_name("topic", tests, NULL, NULL);
}
