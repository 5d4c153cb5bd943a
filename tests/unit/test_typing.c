/* test_typing.c - which typing notices pass. Threat 55. */
#include "../../plugin/typing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct step {
	int64_t at_ms;
	int64_t conversation_id;
	bool is_typing;
	bool passes;
};

static void play(const struct step *steps, size_t count)
{
	struct typing typing = {0};
	for (size_t i = 0; i < count; i++) {
		print_message("step %zu\n", i);
		assert_int_equal(
			typing_passes(&typing, steps[i].conversation_id, steps[i].is_typing, steps[i].at_ms), steps[i].passes);
	}
}
#define PLAY(...)                                                                                                                \
	do {                                                                                                                     \
		static const struct step steps[] = {__VA_ARGS__};                                                                \
		play(steps, sizeof(steps) / sizeof(steps[0]));                                                                   \
	} while (0)

static void test_one_in_three_seconds(void **state)
{
	(void)state;
	PLAY({10, 1, true, true}, {11, 1, true, false}, {3009, 1, true, false}, {3010, 1, true, true}, {3011, 1, true, false},
		{6010, 1, true, true});
}

/* The end passes at once, and once; a new beginning waits for its time all the same. */
static void test_the_end(void **state)
{
	(void)state;
	PLAY({0, 1, false, false}, {10, 1, true, true}, {20, 1, false, true}, {30, 1, false, false}, {40, 1, true, false},
		{50, 1, false, false}, {3010, 1, true, true}, {9000, 1, false, true}, {9001, 1, true, true});
}

static void test_each_conversation(void **state)
{
	(void)state;
	PLAY({0, 1, true, true}, {1, 2, true, true}, {2, 3, true, true}, {3, 4, true, true}, {4, 1, true, false},
		{5, 2, true, false}, {6, 3, false, true}, {7, 4, false, true});
}

/* Many conversations in turn are no way round it: there is room again when one of those that passed is old enough. */
static void test_too_many_conversations(void **state)
{
	(void)state;
	PLAY({0, 1, true, true}, {1, 2, true, true}, {2, 3, true, true}, {3, 4, true, true}, {4, 5, true, false},
		{2999, 6, true, false}, {3000, 6, true, true}, {3000, 5, true, false}, {3001, 5, true, true},
		{3002, 1, true, true}, {3003, 6, false, true});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_in_three_seconds),
		cmocka_unit_test(test_the_end),
		cmocka_unit_test(test_each_conversation),
		cmocka_unit_test(test_too_many_conversations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
