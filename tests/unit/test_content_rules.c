/* test_content_rules.c - sets of rules and what they say of texts, as a table; and that no pattern takes longer than it may. */
#include "../../plugin/content_rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GROUP_TYPE = 2, CHANNEL_TYPE = 3 };

#define RULE(number, what, regexp)                                                                                               \
	{                                                                                                                        \
		.id = number, .action = what, .ignore_case = true, .pattern = regexp                                             \
	}

static struct content_rules *set_of(const struct content_rule rules[])
{
	struct content_rules *set = content_rules_new();
	struct content_fault fault;
	assert_non_null(set);
	for (size_t i = 0; rules[i].pattern; i++) {
		struct content_rule rule = rules[i];
		rule.pattern_length = strlen(rule.pattern);
		if (!content_rules_add(set, &rule, &fault)) {
			fail_msg("%s: offset %zu: %s", rule.pattern, fault.offset, fault.message);
		}
	}
	return set;
}

/* "pass", "reject 7", "****", "flag 3 4", or a mask and flags: "h***o flag 3". */
static const char *judge(const struct content_rules *set, const struct content_text *text, char *out, size_t out_size)
{
	struct content_matcher *matcher = content_matcher_new();
	struct content_verdict verdict;
	int length = 0;

	assert_non_null(matcher);
	assert_true(content_rules_apply(set, matcher, text, &verdict));
	if (verdict.rejected_by) {
		length = snprintf(out, out_size, "reject %lld", (long long)verdict.rejected_by);
		assert_null(verdict.masked);
		assert_int_equal(verdict.flag_count, 0);
	} else {
		length = snprintf(out, out_size, "%.*s", verdict.masked ? (int)verdict.masked_length : 4,
			verdict.masked ? verdict.masked : "pass");
	}
	for (size_t i = 0; i < verdict.flag_count; i++) {
		length += snprintf(out + length, out_size - (size_t)length, "%s%lld", i == 0 ? " flag " : " ",
			(long long)verdict.flagged_by[i]);
	}
	assert_in_range(length, 1, out_size - 1);
	content_verdict_free(&verdict);
	content_matcher_free(matcher);
	return out;
}

static const struct content_rule rules[] = {
	RULE(1, CONTENT_REJECT, "\\bforbidden\\b"),
	RULE(2, CONTENT_MASK, "secret"),
	RULE(3, CONTENT_MASK, "cret word"),
	RULE(4, CONTENT_FLAG, "look at this"),
	RULE(5, CONTENT_FLAG, "at"),
	{.id = 6, .action = CONTENT_MASK, .ignore_case = false, .pattern = "Exact"},
	RULE(7, CONTENT_MASK,
		"stra\xc3\x9f"
		"e"),
	RULE(8, CONTENT_MASK, "\xc3\xbc+"),
	{.id = 9, .action = CONTENT_REJECT, .ignore_case = true, .pattern = "only here", .conversation_id = 42},
	{.id = 10, .action = CONTENT_REJECT, .ignore_case = true, .pattern = "no channels", .conversation_type = CHANNEL_TYPE},
	RULE(11, CONTENT_REJECT, "^(?=.*apple).*pear"),
	RULE(12, CONTENT_MASK, "\\bx\\K\\d+"),
	RULE(13, CONTENT_MASK, "(?<=no: )\\d+"),
	RULE(14, CONTENT_MASK, "\\p{Han}{2}"),
	RULE(15, CONTENT_MASK, "\xf0\x9f\x8d\x86"),
	{0},
};

struct text_case {
	const char *text;
	int type;
	int64_t conversation;
	const char *verdict;
};

static const struct text_case cases[] = {
	{"", 0, 1, "pass"},
	{"hello", 0, 1, "pass"},
	{"this is forbidden.", 0, 1, "reject 1"},
	{"FORBIDDEN", 0, 1, "reject 1"},
	{"unforbiddenly", 0, 1, "pass"},
	{"a secret", 0, 1, "a ******"},
	{"Secret secret", 0, 1, "****** ******"},
	{"secret word", 0, 1, "***********"}, /* two rules that overlap: each against what was sent */
	{"secret and forbidden", 0, 1, "reject 1"},
	{"look at this", 0, 1, "pass flag 4 5"},
	{"a secret, look at this", 0, 1, "a ******, look at this flag 4 5"},
	{"look at this forbidden thing", 0, 1, "reject 1"},
	{"Exact exact", 0, 1, "***** exact"},
	{"STRASSE STRA\xe1\xba\x9e"
	 "E",
		0, 1, "STRASSE ******"},                              /* simple case folding: one letter for one */
	{"\xc3\x9c\xc3\xbc und \xc3\x96l", 0, 1, "** und \xc3\x96l"}, /* a '*' for each code point */
	{"only here", 0, 42, "reject 9"},
	{"only here", 0, 43, "pass"},
	{"no channels", CHANNEL_TYPE, 1, "reject 10"},
	{"no channels", GROUP_TYPE, 1, "pass"},
	{"no channels", 0, 1, "pass"}, /* not known */
	{"pear, apple", 0, 1, "reject 11"},
	{"pear, pear", 0, 1, "pass"},
	{"x123 y123", 0, 1, "x*** y123"},
	{"no: 17, 18", 0, 1, "no: **, 18"},
	{"\xe6\xbc\xa2\xe5\xad\x97 \xe6\xbc\xa2", 0, 1, "** \xe6\xbc\xa2"},
	{"\xf0\x9f\x8d\x86\xf0\x9f\x8d\x86!", 0, 1, "**!"},
};

static void texts(void **state)
{
	struct content_rules *set = set_of(rules);
	char out[256];
	(void)state;

	assert_int_equal(content_rules_count(set), 15);
	assert_true(content_rules_ask_type(set));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* A body as a record holds it: no NUL behind it, and a sanitizer sees a read past its end. */
		size_t length = strlen(cases[i].text);
		char *exact = malloc(length ? length : 1);
		assert_non_null(exact);
		memcpy(exact, cases[i].text, length);
		struct content_text text = {exact, length, cases[i].type, cases[i].conversation};
		assert_string_equal(judge(set, &text, out, sizeof(out)), cases[i].verdict);
		free(exact);
	}
	content_rules_free(set);
}

struct fault_case {
	const char *pattern;
	size_t offset;
	const char *message; /* a part of it */
};

static const struct fault_case faults[] = {
	{"", 0, "empty"}, {"(", 1, "parenthesis"}, {"abc[", 4, "]"}, {"a**+x", 4, NULL}, /* a possessive nothing */
	{"(\\w+)-\\1", 0, "back references"}, {"(?<word>\\w+)-\\k<word>", 0, "back references"}, {"x*", 0, "empty"},
	{"\\b", 0, "empty"}, {"(?=a)", 0, "empty"}, {"a|", 0, "empty"}, {"a\\Cb", 3, NULL}, /* half a code point */
	{"\xff", 0, "UTF-8"},                                                               /* as no database would give it */
	{"(?<=a+)b", 0, "lookbehind"}, {"\\p{Nonsense}", 12, "unknown"},
	{"(?:(?:(?:\\w{900}){900}){900})", 0, NULL}, /* too large */
};

static void faults_are_said(void **state)
{
	struct content_rules *set = content_rules_new();
	(void)state;

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct content_fault fault = {.offset = 77};
		struct content_rule rule = {.id = 1,
			.action = CONTENT_REJECT,
			.pattern = faults[i].pattern,
			.pattern_length = strlen(faults[i].pattern)};
		if (content_rules_add(set, &rule, &fault)) {
			fail_msg("'%s' compiles", faults[i].pattern);
		}
		assert_true(fault.message[0] != '\0');
		if (faults[i].message && !strstr(fault.message, faults[i].message)) {
			fail_msg("'%s': %s", faults[i].pattern, fault.message);
		}
		if (faults[i].message && fault.offset != faults[i].offset) {
			fail_msg("'%s': offset %zu", faults[i].pattern, fault.offset);
		}
	}
	assert_int_equal(content_rules_count(set), 0);
	assert_false(content_rules_ask_type(set));
	content_rules_free(set);
}

/* Patterns that take for ever, each on a text made for it. All of them give up, which is no match, and say so once. */
struct slow_case {
	const char *pattern;
	const char *unit; /* the text: this, again and again, */
	const char *end;  /* and then this */
};

static const struct slow_case slow[] = {
	{"(a+)+$", "a", "!"},
	{"(a|a)*b$", "a", "bc"},
	{"(?:a*)*bx", "a", "cbcx"},
	{"\\w+@x", "a", "@ x"}, /* quadratic: each start walks to the end */
	{"(?:.*,){10}x", "1,", "\nx"},
	{"(\\w+\\s?)+:", "word ", "!:"},
	{"(?:a{999}){3}b", "a", "cb"},
	{"(?<r>\\((?:[^()]|(?&r))*\\)x)", "(", ")yx"},
	{"(?=(\\w+))\\w+:", "a", "!:"},
	{"^(?:\\p{L}|\\pL\\pL)+$", "\xc3\xa9", "!"},
};

static void slow_patterns_give_up(void **state)
{
	enum { LENGTH = 100000 };
	struct content_matcher *matcher = content_matcher_new();
	(void)state;

	assert_non_null(matcher);
	for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
		const struct content_rule one[] = {RULE(7, CONTENT_REJECT, slow[i].pattern), RULE(8, CONTENT_MASK, "q"), {0}};
		struct content_rules *set = set_of(one);
		size_t unit = strlen(slow[i].unit), length = 0;
		char *bytes = malloc(LENGTH + 16);
		struct content_verdict verdict;

		assert_non_null(bytes);
		memcpy(bytes, "q", 2);
		for (length = 1; length + unit <= LENGTH; length += unit) {
			memcpy(bytes + length, slow[i].unit, unit);
		}
		memcpy(bytes + length, slow[i].end, strlen(slow[i].end));
		struct content_text text = {.bytes = bytes, .length = length + strlen(slow[i].end)};
		for (int64_t told = 7; told >= 0; told -= 7) {
			assert_true(content_rules_apply(set, matcher, &text, &verdict));
			assert_int_equal(verdict.rejected_by, 0);
			if (verdict.gave_up != told) {
				fail_msg("%s: gave up %lld, not %lld", slow[i].pattern, (long long)verdict.gave_up,
					(long long)told);
			}
			assert_non_null(verdict.masked); /* the other rules are as ever */
			assert_int_equal(verdict.masked_length, text.length);
			assert_int_equal(verdict.masked[0], '*');
			content_verdict_free(&verdict);
		}
		free(bytes);
		content_rules_free(set);
	}
	content_matcher_free(matcher);
}

/* What people write in earnest does not come near the bound, on the longest message. */
static void plain_patterns_do_not(void **state)
{
	static const char *const patterns[] = {"\\b(?:foo|bar|baz)\\w*", "[a-z0-9.]++@[a-z0-9.]+\\.com", "https?://\\S+",
		"(?:\\d[ -]?){13,16}", "f\\s*u\\s*n", "\\bword\\b.{0,50}\\bother\\b", "[^\\x00-\\x{ffff}]{20,}"};
	enum { LENGTH = 100000 };
	static const char words[] = "The quick brown fox, 12 of them, jumps over https the lazy dog. ";
	struct content_matcher *matcher = content_matcher_new();
	char *bytes = malloc(LENGTH);
	(void)state;

	assert_non_null(matcher);
	assert_non_null(bytes);
	for (size_t i = 0; i < LENGTH; i++) {
		bytes[i] = words[i % (sizeof(words) - 1)];
	}
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		const struct content_rule one[] = {RULE(7, CONTENT_REJECT, patterns[i]), {0}};
		struct content_rules *set = set_of(one);
		struct content_text text = {.bytes = bytes, .length = LENGTH};
		struct content_verdict verdict;
		assert_true(content_rules_apply(set, matcher, &text, &verdict));
		assert_int_equal(verdict.rejected_by, 0);
		assert_int_equal(verdict.gave_up, 0);
		content_verdict_free(&verdict);
		content_rules_free(set);
	}
	free(bytes);
	content_matcher_free(matcher);
}

static void many_flags(void **state)
{
	struct content_rule many[CONTENT_FLAGS_MAX + 5] = {{0}};
	struct content_matcher *matcher = content_matcher_new();
	struct content_text text = {.bytes = "x", .length = 1};
	struct content_verdict verdict;
	(void)state;

	for (int i = 0; i < CONTENT_FLAGS_MAX + 4; i++) {
		many[i] = (struct content_rule)RULE(i + 1, CONTENT_FLAG, "x");
	}
	struct content_rules *set = set_of(many);
	assert_true(content_rules_apply(set, matcher, &text, &verdict));
	assert_int_equal(verdict.flag_count, CONTENT_FLAGS_MAX);
	assert_int_equal(verdict.flagged_by[CONTENT_FLAGS_MAX - 1], CONTENT_FLAGS_MAX);
	content_verdict_free(&verdict);
	content_rules_free(set);
	content_matcher_free(matcher);
	content_rules_free(NULL);
	content_matcher_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(faults_are_said),
		cmocka_unit_test(slow_patterns_give_up), cmocka_unit_test(plain_patterns_do_not), cmocka_unit_test(many_flags)};
	return cmocka_run_group_tests_name("content_rules", tests, NULL, NULL);
}
