/* test_content_filter.c - sets of rules that come and go while others use them. */
#include "../../plugin/content_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "threads.h"

enum { SETS = 300, TAKERS = 3 };

/* A set of one rule, which masks a letter; 0: an empty one. */
static struct content_rules *set_of(char letter)
{
	struct content_rules *rules = content_rules_new();
	struct content_rule rule = {.id = letter, .action = CONTENT_MASK, .pattern = &letter, .pattern_length = 1};
	struct content_fault fault;
	assert_non_null(rules);
	if (letter && !content_rules_add(rules, &rule, &fault)) {
		fail_msg("%s", fault.message);
	}
	return rules;
}

/* What is masked of "abc". */
static void mask_abc(const struct content_set *set, struct content_matcher *matcher, char out[4])
{
	struct content_text text = {.bytes = "abc", .length = 3};
	struct content_verdict verdict;
	if (!content_rules_apply(content_set_rules(set), matcher, &text, &verdict) || verdict.masked_length != 3) {
		abort();
	}
	memcpy(out, verdict.masked, 3);
	out[3] = '\0';
	content_verdict_free(&verdict);
}

static void what_is_taken_stays(void **state)
{
	struct content_filter *filter = content_filter_new();
	struct content_matcher *matcher = content_matcher_new();
	char out[4];
	(void)state;

	assert_non_null(filter);
	assert_non_null(matcher);
	assert_false(content_filter_has_any(filter));
	assert_null(content_filter_take(filter));
	assert_true(content_filter_put(filter, set_of('a')));
	assert_true(content_filter_has_any(filter));
	struct content_set *first = content_filter_take(filter), *again = content_filter_take(filter);
	assert_ptr_equal(first, again);
	assert_true(content_filter_put(filter, set_of('b')));
	struct content_set *second = content_filter_take(filter);
	content_filter_give_back(filter, first);
	mask_abc(again, matcher, out);
	assert_string_equal(out, "*bc");
	mask_abc(second, matcher, out);
	assert_string_equal(out, "a*c");
	content_filter_give_back(filter, again);
	assert_true(content_filter_put(filter, set_of(0)));
	assert_false(content_filter_has_any(filter));
	assert_null(content_filter_take(filter));
	mask_abc(second, matcher, out);
	content_filter_give_back(filter, second);
	assert_true(content_filter_put(filter, set_of('c')));
	content_filter_free(filter);
	content_filter_free(NULL);
	content_matcher_free(matcher);
}

struct taker {
	struct content_filter *filter;
	_Atomic bool *stop;
	_Atomic unsigned *taken;
	pthread_t thread;
};

static void *take_and_use(void *argument)
{
	struct taker *taker = argument;
	struct content_matcher *matcher = content_matcher_new();
	char out[4];

	while (!atomic_load(taker->stop)) {
		struct content_set *set = content_filter_take(taker->filter);
		if (set) {
			mask_abc(set, matcher, out);
			if (strchr(out, '*') == NULL) {
				abort();
			}
			content_filter_give_back(taker->filter, set);
			atomic_fetch_add(taker->taken, 1);
		}
	}
	content_matcher_free(matcher);
	return NULL;
}

/* For the sanitizers to look at. */
static void many_threads(void **state)
{
	struct content_filter *filter = content_filter_new();
	_Atomic bool stop = false;
	_Atomic unsigned taken = 0;
	struct taker takers[TAKERS];
	(void)state;

	for (int i = 0; i < TAKERS; i++) {
		takers[i] = (struct taker){.filter = filter, .stop = &stop, .taken = &taken};
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_and_use, &takers[i]), 0);
	}
	for (int i = 0; i < SETS; i++) {
		unsigned before = atomic_load(&taken);
		char letter = "abc"[i % 3];
		assert_true(content_filter_put(filter, set_of(i % 7 == 0 ? '\0' : letter)));
		if (i % 7 != 0) {
			wait_until(atomic_load(&taken) > before);
		}
	}
	atomic_store(&stop, true);
	for (int i = 0; i < TAKERS; i++) {
		pthread_join(takers[i].thread, NULL);
	}
	content_filter_free(filter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_taken_stays), cmocka_unit_test(many_threads)};
	return cmocka_run_group_tests_name("content_filter", tests, NULL, NULL);
}
