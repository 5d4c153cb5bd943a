/* test_presence_rules.c - what others see of a user, and when they are told, as tables.
 *
 * A row of `stories` is a user's day: steps apart by spaces, each "TIME:DEVICES", what is connected at that time (seconds):
 *
 *   o online   b busy   a away   i invisible   ? connected, and it is not known yet what it says   - nothing
 *
 * and a "!" behind it where it became so by choice. The grace is 10 s; a step with "=" only looks again. What is told comes out
 * as "TIME:status", and begins with nobody there.
 */
#include "presence_rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define GRACE_S 10

/* clang-format off */
static const struct {
	const char *what, *steps, *told;
} stories[] = {
	{"nobody is there",                          "0:-",                            ""},
	{"the first device",                         "0:o",                            "0:online"},
	{"from the first to the last",               "0:o 1:oo 2:o 3:- 13:=",          "0:online 13:offline"},
	{"the grace is not over",                    "0:o 3:- 12:=",                   "0:online"},
	{"a reconnect is not seen",                  "0:o 3:- 9:o 30:=",               "0:online"},
	{"a reconnect over and over",                "0:o 3:- 9:o 10:- 19:o 20:- 29:o 90:=", "0:online"},
	{"a takeover: the new one comes first",      "0:o 1:oo 1:o 30:=",              "0:online"},
	{"the highest counts",                       "0:a 1:ab 2:abo",                 "0:away 1:busy 2:online"},
	{"a loss falls to what is left, later",      "0:ao 5:a 15:=",                  "0:online 15:away"},
	{"a choice falls at once",                   "0:o 5:a! 6:b! 7:i!",             "0:online 5:away 6:busy 7:offline"},
	{"invisible is offline for others",          "0:i 1:ii 5:-",                   ""},
	{"one invisible, one not",                   "0:i 1:io 2:i 12:=",              "1:online 12:offline"},
	{"busy is above away, below online",         "0:b 1:ab 2:o!",                  "0:busy 2:online"},
	{"not known yet: nothing rises",             "0:? 1:?",                        ""},
	{"not known yet: nothing falls",             "0:o 1:? 30:=",                   "0:online"},
	{"known at last",                            "0:o 1:? 30:o",                   "0:online"},
	{"known to be away: the grace was over",     "0:o 1:? 30:a",                   "0:online 30:away"},
	{"known to be invisible within the grace",   "0:o 1:? 2:i 11:=",               "0:online 11:offline"},
	{"and refused",                              "0:o 1:? 5:- 11:=",               "0:online 11:offline"},
	{"the clock of a fall begins once",          "0:oba 1:ba 5:a 11:=",            "0:online 11:away"},
};
/* clang-format on */

static struct presence_view view_of(const char *devices, size_t length, bool *unknown)
{
	struct presence_view view = {0};
	*unknown = false;
	for (size_t i = 0; i < length; i++) {
		struct presence_view device = {.status = devices[i] == 'o'   ? PRESENCE_ONLINE
							 : devices[i] == 'b' ? PRESENCE_BUSY
							 : devices[i] == 'a' ? PRESENCE_AWAY
									     : PRESENCE_OFFLINE};
		presence_add(&view, &device);
		*unknown = *unknown || devices[i] == '?';
	}
	return view;
}

static void play(const char *steps, char *told_text, size_t size)
{
	struct presence_told told = {0};
	char devices[16] = "";
	size_t length = 0, used = 0;

	told_text[0] = '\0';
	for (const char *at = steps; *at;) {
		char *rest;
		long now_s = strtol(at, &rest, 10);
		const char *word = rest + 1;
		size_t word_length = strcspn(word, " !");
		if (word[0] != '=') {
			length = word[0] == '-' ? 0 : word_length;
			memcpy(devices, word, length);
		}
		struct presence_change change = {.now_ms = 1000 * now_s, .grace_ms = 1000 * GRACE_S};
		change.status = view_of(devices, length, &change.unknown).status;
		change.chosen = word[word_length] == '!';
		change.same = change.status == told.status;
		if (presence_decide(&told, &change)) {
			used += (size_t)snprintf(told_text + used, size - used, "%s%ld:%s", used ? " " : "", now_s,
				presence_status_name(told.status));
		}
		at = word + word_length + change.chosen;
		at += strspn(at, " ");
	}
}

static void test_stories(void **state)
{
	char told[256];
	(void)state;
	for (size_t i = 0; i < COUNT(stories); i++) {
		play(stories[i].steps, told, sizeof(told));
		if (strcmp(told, stories[i].told) != 0) {
			fail_msg("%s: told '%s' and not '%s'", stories[i].what, told, stories[i].told);
		}
	}
}

static void test_grace_of_nothing(void **state)
{
	struct presence_told told = {.status = PRESENCE_ONLINE};
	struct presence_change change = {.status = PRESENCE_OFFLINE, .now_ms = 5};
	(void)state;
	change.unknown = true;
	assert_false(presence_decide(&told, &change));
	change.unknown = false;
	assert_true(presence_decide(&told, &change));
	assert_int_equal(told.status, PRESENCE_OFFLINE);
	assert_int_equal(told.falls_ms, 0);
}

/* Another text is told, the same one is not. */
static void test_text(void **state)
{
	struct presence_told told = {.status = PRESENCE_BUSY};
	struct presence_change change = {.status = PRESENCE_BUSY, .same = true, .chosen = true};
	(void)state;
	assert_false(presence_decide(&told, &change));
	change.same = false;
	assert_true(presence_decide(&told, &change));
}

static void test_which_text(void **state)
{
	struct presence_view view = {0}, other = {0};
	const struct presence_view old = {PRESENCE_BUSY, "old", 3, 100}, new = {PRESENCE_BUSY, "new", 3, 200},
				   low = {PRESENCE_AWAY, "low", 3, 300}, hidden = {PRESENCE_OFFLINE, "hidden", 6, 400};
	(void)state;
	presence_add(&view, &hidden);
	assert_int_equal(view.text_length, 0);
	presence_add(&view, &new);
	presence_add(&view, &old);
	presence_add(&view, &low);
	presence_add(&view, &hidden);
	assert_string_equal(view.text, "new");
	assert_false(presence_views_equal(&view, &old));
	assert_true(presence_views_equal(&view, &new));
	assert_false(presence_views_equal(&view, &other));
	assert_true(presence_views_equal(&other, &(struct presence_view){0}));
}

static void test_names(void **state)
{
	static const char *const words[] = {"offline", "away", "busy", "online"};
	enum presence_status status;
	(void)state;
	for (size_t i = 0; i < COUNT(words); i++) {
		assert_true(presence_status_parse(words[i], strlen(words[i]), &status));
		assert_int_equal(status, i);
		assert_string_equal(presence_status_name(status), words[i]);
	}
	assert_true(presence_status_parse("invisible", 9, &status));
	assert_int_equal(status, PRESENCE_OFFLINE);
	assert_false(presence_status_parse("Online", 6, &status));
	assert_false(presence_status_parse("onlin", 5, &status));
	assert_false(presence_status_parse("", 0, &status));
}

static void expect_payload(const struct presence_view *view, int64_t last_seen_ms, const char *expected)
{
	struct buffer out;
	buffer_init(&out, PRESENCE_PAYLOAD_BYTES_MAX);
	assert_true(presence_payload(&out, 7, view, last_seen_ms));
	assert_int_equal(out.length, strlen(expected));
	assert_memory_equal(out.data, expected, out.length);
	buffer_free(&out);
}

static void test_payload(void **state)
{
	char longest[PRESENCE_TEXT_BYTES_MAX];
	struct buffer out;
	(void)state;
	expect_payload(&(struct presence_view){PRESENCE_ONLINE, NULL, 0, 0}, 1790000000123,
		"{\"user\":7,\"status\":\"online\",\"last_seen_at\":1790000000123}");
	expect_payload(&(struct presence_view){PRESENCE_BUSY, "a \"b\"", 5, 1}, 5,
		"{\"user\":7,\"status\":\"busy\",\"last_seen_at\":5,\"text\":\"a \\\"b\\\"\"}");
	expect_payload(&(struct presence_view){0}, 0, "{\"user\":7,\"status\":\"offline\"}");
	memset(longest, '\\', sizeof(longest));
	buffer_init(&out, PRESENCE_PAYLOAD_BYTES_MAX);
	assert_true(presence_payload(&out, INT64_C(9007199254740991),
		&(struct presence_view){PRESENCE_OFFLINE, longest, sizeof(longest), 1}, INT64_C(9007199254740991)));
	buffer_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories),
		cmocka_unit_test(test_grace_of_nothing),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_which_text),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_payload),
	};
	return cmocka_run_group_tests_name("presence_rules", tests, NULL, NULL);
}
