/* fuzz_content_rules.c - any pattern against any text.
 *
 * The input is a line of letters that say what the rules do, one for each (r, m, f; upper case: as it is written), the patterns,
 * one a line, an empty line, and the text. Beyond memory errors and endless matching: what is masked has as many characters as
 * before, each of them as it was or '*', and the same text gets the same verdict again.
 */
#include "../../common/text.h"
#include "../../plugin/content_rules.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RULES_MAX 8
#define TEXT_MAX 20000

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

/* Takes a line off the front. */
static size_t take_line(const char **at, size_t *left, const char **line)
{
	const char *end = memchr(*at, '\n', *left);
	size_t length = end ? (size_t)(end - *at) : *left;
	*line = *at;
	*at += length + (end ? 1 : 0);
	*left -= length + (end ? 1 : 0);
	return length;
}

static struct content_rules *read_rules(const char **at, size_t *left)
{
	static const char letters[] = "rmf";
	const char *actions, *pattern;
	size_t actions_length = take_line(at, left, &actions), length;
	struct content_rules *rules = content_rules_new();
	struct content_fault fault;

	require(rules != NULL);
	for (size_t i = 0; (length = take_line(at, left, &pattern)) > 0; i++) {
		char letter = i < actions_length ? actions[i] : 'm';
		const char *known = strchr(letters, letter | 0x20);
		struct content_rule rule = {.id = (int64_t)i + 1,
			.pattern = pattern,
			.pattern_length = length,
			.action = known && *known ? (enum content_action)(known - letters + 1) : CONTENT_MASK,
			.ignore_case = letter >= 'a'};
		size_t before = content_rules_count(rules);
		if (before < RULES_MAX && !content_rules_add(rules, &rule, &fault)) {
			require(content_rules_count(rules) == before && fault.offset <= length &&
				memchr(fault.message, 0, sizeof(fault.message)));
		}
	}
	return rules;
}

/* Character by character. */
static void compare(const struct content_text *text, const struct content_verdict *verdict)
{
	size_t before, after, at = 0;
	require(text_check_utf8(text->bytes, text->length, &before));
	require(text_check_utf8(verdict->masked, verdict->masked_length, &after));
	require(before == after);
	for (size_t i = 0; i < text->length;) {
		size_t width = 1;
		while (i + width < text->length && ((unsigned char)text->bytes[i + width] & 0xc0) == 0x80) {
			width++;
		}
		bool same = at + width <= verdict->masked_length && memcmp(verdict->masked + at, text->bytes + i, width) == 0;
		require(same || verdict->masked[at] == '*');
		at += same ? width : 1;
		i += width;
	}
	require(at == verdict->masked_length);
}

static void check_again(const struct content_rules *rules, struct content_matcher *matcher, const struct content_text *text,
	const struct content_verdict *first)
{
	struct content_verdict again;
	require(content_rules_apply(rules, matcher, text, &again));
	require(again.rejected_by == first->rejected_by && again.flag_count == first->flag_count &&
		again.masked_length == first->masked_length && (again.masked != NULL) == (first->masked != NULL));
	require(!again.masked || memcmp(again.masked, first->masked, first->masked_length) == 0);
	require(memcmp(again.flagged_by, first->flagged_by, sizeof(again.flagged_by)) == 0);
	require(first->gave_up == 0 || again.gave_up != first->gave_up);
	content_verdict_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = (const char *)data;
	size_t left = size;
	struct content_rules *rules = read_rules(&at, &left);
	struct content_matcher *matcher = content_matcher_new();
	struct content_text text = {.bytes = at, .length = left < TEXT_MAX ? left : TEXT_MAX};
	struct content_verdict verdict;

	require(matcher != NULL);
	if (text_check_utf8(text.bytes, text.length, NULL)) {
		require(content_rules_apply(rules, matcher, &text, &verdict));
		require(!verdict.rejected_by || (!verdict.masked && verdict.flag_count == 0));
		if (verdict.masked) {
			compare(&text, &verdict);
		}
		check_again(rules, matcher, &text, &verdict);
		content_verdict_free(&verdict);
	}
	content_matcher_free(matcher);
	content_rules_free(rules);
	return 0;
}
