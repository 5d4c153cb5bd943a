/* test_lane.c - pace, window and breaker of an app, against a clock that the test moves. */
#include "lane.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct lane_limits wide = {.rate = 0, .burst = 1, .in_flight = 100};

static void end(struct lane *lane, enum lane_event event, int64_t now_ms)
{
	(void)lane_end(lane, event, 0, now_ms, 0);
}

/* Apple grants one stream until a first push went through. */
static void window_opens_slowly(void **state)
{
	struct lane lane;
	(void)state;
	lane_init(&lane, &wide, 0);
	assert_int_equal(lane_room(&lane, 0), 1);
	lane_begin(&lane, 1);
	assert_int_equal(lane_room(&lane, 0), 0);
	end(&lane, LANE_ACCEPTED, 0);
	assert_int_equal(lane_room(&lane, 0), 2);
	lane_begin(&lane, 2);
	end(&lane, LANE_ACCEPTED, 0);
	end(&lane, LANE_ANSWERED, 0); /* "no" to one push opens nothing */
	assert_int_equal(lane_room(&lane, 0), 3);
	for (int i = 0; i < 300; i++) {
		lane_begin(&lane, 1);
		end(&lane, LANE_ACCEPTED, 0);
	}
	assert_int_equal(lane_room(&lane, 0), 100);
}

static void rate(void **state)
{
	const struct lane_limits limits = {.rate = 10, .burst = 5, .in_flight = 100};
	struct lane lane;
	(void)state;
	lane_init(&lane, &limits, 0);
	lane.window = 100;
	assert_int_equal(lane_room(&lane, 0), 5);
	lane_begin(&lane, 5);
	assert_int_equal(lane_room(&lane, 99), 0);
	assert_int_equal(lane_room(&lane, 100), 1);
	assert_int_equal(lane_room(&lane, 10000), 5);
	assert_int_equal(lane_room(&lane, 9000), 5); /* a clock that goes backwards takes nothing */
}

static void breaker_opens_and_heals(void **state)
{
	struct lane lane;
	int opened = 0;
	(void)state;
	lane_init(&lane, &wide, 0);
	lane.window = 50;
	lane_begin(&lane, 30);
	for (int i = 0; i < 30; i++) {
		opened += lane_end(&lane, LANE_FAILED, 0, 1000, 0);
	}
	assert_int_equal(opened, 1);
	assert_int_equal(lane.state, LANE_OPEN);
	assert_int_equal(lane_room(&lane, 5999), 0);
	assert_int_equal(lane_room(&lane, 6000), 1); /* one probe */
	lane_begin(&lane, 1);
	assert_int_equal(lane_room(&lane, 6000), 0);
	assert_false(lane_end(&lane, LANE_FAILED, 0, 6000, 0));
	assert_int_equal(lane_room(&lane, 15999), 0); /* twice as long */
	assert_int_equal(lane_room(&lane, 16000), 1);
	lane_begin(&lane, 1);
	assert_true(lane_end(&lane, LANE_ACCEPTED, 0, 16000, 0));
	assert_int_equal(lane.state, LANE_CLOSED);
	assert_int_equal(lane_room(&lane, 16000), 2);
}

static void pauses_are_bounded(void **state)
{
	struct lane lane;
	int64_t now_ms = 0;
	(void)state;
	lane_init(&lane, &wide, 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(lane_room(&lane, now_ms), 1);
		lane_begin(&lane, 1);
		end(&lane, LANE_PAUSE, now_ms);
		assert_int_equal(lane_room(&lane, now_ms), 0);
		now_ms += 60000;
	}
}

/* A probe that is answered about itself alone leaves the question open: the next probe follows at once. */
static void probe_without_verdict(void **state)
{
	struct lane lane;
	(void)state;
	lane_init(&lane, &wide, 0);
	lane_begin(&lane, 1);
	end(&lane, LANE_PAUSE, 0);
	assert_int_equal(lane_room(&lane, 5000), 1);
	lane_begin(&lane, 1);
	end(&lane, LANE_ANSWERED, 5000);
	assert_int_equal(lane_room(&lane, 5000), 1);
	assert_int_equal(lane.state, LANE_PROBING);
}

static void slowed(void **state)
{
	struct lane lane;
	(void)state;
	lane_init(&lane, &wide, 0);
	lane.window = 10;
	lane_begin(&lane, 2);
	(void)lane_end(&lane, LANE_SLOW, 60000, 0, 0);
	(void)lane_end(&lane, LANE_SLOW, 1000, 0, 0); /* a shorter word does not undo a longer one */
	assert_int_equal(lane_room(&lane, 59999), 0);
	assert_int_equal(lane_room(&lane, 60000), 1);
}

static void backoff(void **state)
{
	(void)state;
	assert_int_equal(lane_backoff_ms(1, 0), 500);
	assert_int_equal(lane_backoff_ms(1, 500), 1000);
	assert_int_equal(lane_backoff_ms(4, 0), 4000);
	for (int32_t attempt = 1; attempt < 100; attempt++) {
		assert_in_range(lane_backoff_ms(attempt, UINT32_MAX), 500, 600000);
	}
	assert_in_range(lane_backoff_ms(2000000000, 7), 300000, 600000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(window_opens_slowly), cmocka_unit_test(rate),
		cmocka_unit_test(breaker_opens_and_heals), cmocka_unit_test(pauses_are_bounded),
		cmocka_unit_test(probe_without_verdict), cmocka_unit_test(slowed), cmocka_unit_test(backoff)};
	return cmocka_run_group_tests_name("lane", tests, NULL, NULL);
}
