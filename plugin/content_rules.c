/* content_rules.c - see content_rules.h. The one file that knows PCRE2.
 *
 * PCRE2's own limits are per starting point of a match, and a text has as many of those as characters: a pattern well
 * below them may still walk a long text a hundred thousand times. So patterns are compiled with a callout before each of their
 * items, which counts for a whole text. What an item does by itself between two callouts is bounded by the length of the text
 * where it succeeds, and that is counted too; where it fails, by the counted repeats that the table allows.
 */
#include "content_rules.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For one rule and one text: a millisecond, and four more for a text of 100,000 bytes. A callout costs about as much as walking
 * over so many bytes. */
#define STEPS_MAX 1000000
#define STEPS_MAX_PER_BYTE 40
#define STEPS_PER_CALLOUT 8
/* Behind the count of steps: what PCRE2 may do and keep from one starting point. */
#define MATCH_LIMIT 1000000
#define DEPTH_LIMIT 100000
#define HEAP_LIMIT_KIB 8192
#define JIT_STACK_FIRST ((size_t)32 << 10)
#define JIT_STACK_MAX ((size_t)1 << 20)

struct compiled_rule {
	pcre2_code *code;
	int64_t id;
	int64_t conversation_id;
	int conversation_type;
	enum content_action action;
	_Atomic bool gave_up; /* and that was said */
};

struct content_rules {
	struct compiled_rule **rules;
	size_t count, capacity;
	bool ask_type;
};

struct step_count {
	size_t at; /* of the last callout */
	uint64_t steps, most;
};

struct content_matcher {
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack; /* NULL where nothing can be compiled just in time */
	struct step_count count;
};

/* ---- a set ---- */

struct content_rules *content_rules_new(void)
{
	return calloc(1, sizeof(struct content_rules));
}

void content_rules_free(struct content_rules *rules)
{
	if (!rules) {
		return;
	}
	for (size_t i = 0; i < rules->count; i++) {
		pcre2_code_free(rules->rules[i]->code);
		free(rules->rules[i]);
	}
	free(rules->rules);
	free(rules);
}

static bool complain(struct content_fault *fault, size_t offset, const char *message)
{
	fault->offset = offset;
	snprintf(fault->message, sizeof(fault->message), "%s", message);
	return false;
}

/* What compiles and still will not do. */
static bool is_usable(const pcre2_code *code, struct content_fault *fault)
{
	uint32_t back_references, matches_empty;

	if (pcre2_pattern_info(code, PCRE2_INFO_BACKREFMAX, &back_references) != 0 ||
		pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty) != 0) {
		return complain(fault, 0, "it cannot be judged");
	}
	if (back_references > 0) {
		return complain(fault, 0, "back references are not supported");
	}
	if (matches_empty) {
		return complain(fault, 0, "it can match the empty text, and so matches everything");
	}
	return true;
}

static pcre2_code *compile(const struct content_rule *rule, struct content_fault *fault)
{
	uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT;
	int error;
	PCRE2_SIZE offset;

	pcre2_code *code = pcre2_compile((PCRE2_SPTR)rule->pattern, rule->pattern_length,
		options | (rule->ignore_case ? PCRE2_CASELESS : 0), &error, &offset, NULL);
	if (!code) {
		fault->offset = offset;
		pcre2_get_error_message(error, (PCRE2_UCHAR *)fault->message, sizeof(fault->message));
		return NULL;
	}
	if (!is_usable(code, fault)) {
		pcre2_code_free(code);
		return NULL;
	}
	(void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where it cannot be, matching is slower */
	return code;
}

static bool make_room(struct content_rules *rules)
{
	if (rules->count == rules->capacity) {
		size_t larger = rules->capacity * 2 + 16;
		struct compiled_rule **moved = realloc(rules->rules, larger * sizeof(moved[0]));
		if (!moved) {
			return false;
		}
		rules->rules = moved;
		rules->capacity = larger;
	}
	return true;
}

bool content_rules_add(struct content_rules *rules, const struct content_rule *rule, struct content_fault *fault)
{
	pcre2_code *code = compile(rule, fault);
	if (!code) {
		return false;
	}
	struct compiled_rule *compiled = make_room(rules) ? calloc(1, sizeof(*compiled)) : NULL;
	if (!compiled) {
		pcre2_code_free(code);
		return complain(fault, 0, "out of memory");
	}
	compiled->code = code;
	compiled->id = rule->id;
	compiled->action = rule->action;
	compiled->conversation_id = rule->conversation_id;
	compiled->conversation_type = rule->conversation_type;
	rules->rules[rules->count++] = compiled;
	rules->ask_type |= rule->conversation_type != 0;
	return true;
}

size_t content_rules_count(const struct content_rules *rules)
{
	return rules->count;
}

bool content_rules_ask_type(const struct content_rules *rules)
{
	return rules->ask_type;
}

/* ---- matching ---- */

static int count_step(pcre2_callout_block *block, void *argument)
{
	struct step_count *count = argument;
	size_t walked = block->current_position > count->at ? block->current_position - count->at : 0;

	count->at = block->current_position;
	count->steps += STEPS_PER_CALLOUT + walked;
	return count->steps > count->most ? PCRE2_ERROR_CALLOUT : 0;
}

struct content_matcher *content_matcher_new(void)
{
	struct content_matcher *matcher = calloc(1, sizeof(*matcher));
	if (!matcher) {
		return NULL;
	}
	matcher->data = pcre2_match_data_create(1, NULL);
	matcher->context = pcre2_match_context_create(NULL);
	matcher->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL);
	if (!matcher->data || !matcher->context) {
		content_matcher_free(matcher);
		return NULL;
	}
	pcre2_set_match_limit(matcher->context, MATCH_LIMIT);
	pcre2_set_depth_limit(matcher->context, DEPTH_LIMIT);
	pcre2_set_heap_limit(matcher->context, HEAP_LIMIT_KIB);
	pcre2_set_callout(matcher->context, count_step, &matcher->count);
	pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
	return matcher;
}

void content_matcher_free(struct content_matcher *matcher)
{
	if (matcher) {
		pcre2_match_data_free(matcher->data);
		pcre2_match_context_free(matcher->context);
		pcre2_jit_stack_free(matcher->stack);
		free(matcher);
	}
}

enum match { MATCH_NONE, MATCH_FOUND, MATCH_GAVE_UP };

/* The first match at or behind `from`; *end is behind `from`. */
static enum match find(const struct compiled_rule *rule, struct content_matcher *matcher, const struct content_text *text,
	size_t from, size_t *start, size_t *end)
{
	matcher->count.at = from;
	int rc = pcre2_match(rule->code, (PCRE2_SPTR)text->bytes, text->length, from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
		matcher->data, matcher->context);
	if (rc == PCRE2_ERROR_NOMATCH) {
		return MATCH_NONE;
	}
	if (rc < 0) {
		return MATCH_GAVE_UP;
	}
	const PCRE2_SIZE *places = pcre2_get_ovector_pointer(matcher->data);
	*start = places[0];
	*end = places[1];
	return *end > from && *start < *end ? MATCH_FOUND : MATCH_NONE;
}

/* Finds the rule's matches: the first, or all of them, each noted in `masks`. */
static enum match find_all(
	const struct compiled_rule *rule, struct content_matcher *matcher, const struct content_text *text, char *masks)
{
	size_t from = 0, start, end;
	bool any = false;
	enum match match;

	matcher->count = (struct step_count){.most = STEPS_MAX + (uint64_t)STEPS_MAX_PER_BYTE * text->length};
	while ((match = find(rule, matcher, text, from, &start, &end)) == MATCH_FOUND) {
		any = true;
		if (!masks) {
			break;
		}
		memset(masks + start, 1, end - start);
		from = end;
	}
	return match == MATCH_NONE && any ? MATCH_FOUND : match;
}

/* ---- verdicts ---- */

static bool is_meant_for(const struct compiled_rule *rule, const struct content_text *text)
{
	return (rule->conversation_id == 0 || rule->conversation_id == text->conversation_id) &&
	       (rule->conversation_type == 0 || rule->conversation_type == text->conversation_type);
}

/* '*' for each code point whose bytes are noted. */
static bool mask(const struct content_text *text, const char *masks, struct content_verdict *out)
{
	out->masked = malloc(text->length);
	if (!out->masked) {
		return false;
	}
	for (size_t i = 0; i < text->length; i++) {
		bool continues = ((unsigned char)text->bytes[i] & 0xc0) == 0x80;
		if (!masks[i]) {
			out->masked[out->masked_length++] = text->bytes[i];
		} else if (!continues) {
			out->masked[out->masked_length++] = '*';
		}
	}
	return true;
}

static void note_gave_up(struct compiled_rule *rule, struct content_verdict *out)
{
	if (out->gave_up == 0 && !atomic_exchange(&rule->gave_up, true)) {
		out->gave_up = rule->id;
	}
}

/* False: no memory. */
static bool apply_rule(struct compiled_rule *rule, struct content_matcher *matcher, const struct content_text *text, char **masks,
	struct content_verdict *out)
{
	if (rule->action == CONTENT_MASK && !*masks && !(*masks = calloc(1, text->length))) {
		return false;
	}
	enum match match = find_all(rule, matcher, text, rule->action == CONTENT_MASK ? *masks : NULL);
	if (match == MATCH_GAVE_UP) {
		note_gave_up(rule, out);
	} else if (match == MATCH_FOUND && rule->action == CONTENT_REJECT) {
		out->rejected_by = rule->id;
	} else if (match == MATCH_FOUND && rule->action == CONTENT_FLAG && out->flag_count < CONTENT_FLAGS_MAX) {
		out->flagged_by[out->flag_count++] = rule->id;
	}
	return true;
}

bool content_rules_apply(const struct content_rules *rules, struct content_matcher *matcher, const struct content_text *text,
	struct content_verdict *out)
{
	char *masks = NULL;
	bool done = true;

	*out = (struct content_verdict){0};
	for (size_t i = 0; text->length > 0 && i < rules->count && out->rejected_by == 0 && done; i++) {
		if (is_meant_for(rules->rules[i], text)) {
			done = apply_rule(rules->rules[i], matcher, text, &masks, out);
		}
	}
	if (out->rejected_by != 0) {
		out->flag_count = 0;
	} else if (done && masks && memchr(masks, 1, text->length)) {
		done = mask(text, masks, out);
	}
	free(masks);
	return done;
}

void content_verdict_free(struct content_verdict *verdict)
{
	free(verdict->masked);
	*verdict = (struct content_verdict){0};
}
