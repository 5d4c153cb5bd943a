/* test_rate_limit.c - a token bucket against a clock that the test moves. */
#include "../../plugin/rate_limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static const struct rate_limit messages = {.per_minute = 1200, .burst = 100}; /* 20:100 */
static const struct rate_limit sign_in = {.per_minute = 5, .burst = 5};

/* Takes until refused. */
static unsigned drain(struct rate_bucket *bucket, const struct rate_limit *limit, int64_t now_ms)
{
	unsigned taken = 0;
	int64_t retry_after_ms;

	while (rate_bucket_take(bucket, limit, now_ms, &retry_after_ms)) {
		assert_int_equal(retry_after_ms, 0);
		assert_true(++taken < 1000000);
	}
	assert_true(retry_after_ms > 0);
	return taken;
}

static void burst_then_pace(void **state)
{
	struct rate_bucket bucket = {0};
	int64_t now_ms = 5000000;

	(void)state;
	assert_int_equal(drain(&bucket, &messages, now_ms), 100);
	assert_int_equal(drain(&bucket, &messages, now_ms), 0);
	assert_int_equal(drain(&bucket, &messages, now_ms + 49), 0);
	assert_int_equal(drain(&bucket, &messages, now_ms + 50), 1);
	assert_int_equal(drain(&bucket, &messages, now_ms + 1050), 20);
	assert_int_equal(drain(&bucket, &messages, now_ms + 1050 + 4999), 99);
	assert_int_equal(drain(&bucket, &messages, now_ms + 1000000), 100);
}

/* What retry_after_ms says is the first millisecond at which it works. */
static void retry_after_is_exact(void **state)
{
	static const struct rate_limit limits[] = {
		{1200, 100}, {5, 5}, {60, 60}, {7, 3}, {1, 1}, {60000, 1}, {123457, 11}, {60000000, 9}};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct rate_bucket bucket = {0};
		int64_t now_ms = 1;
		for (unsigned round = 0; round < 50; round++) {
			int64_t retry_after_ms = 0;
			drain(&bucket, &limits[i], now_ms);
			assert_false(rate_bucket_take(&bucket, &limits[i], now_ms, &retry_after_ms));
			struct rate_bucket before = bucket;
			assert_false(rate_bucket_take(&before, &limits[i], now_ms + retry_after_ms - 1, NULL));
			now_ms += retry_after_ms;
			assert_true(rate_bucket_take(&bucket, &limits[i], now_ms, NULL));
		}
	}
}

/* However often it is asked, a minute gives what a minute gives: nothing lost by rounding, nothing won. (With a burst of 1 a
 * bucket that is asked every 5 ms is full for some of them and does lose that; hence 2.) */
static void asking_often_changes_nothing(void **state)
{
	static const struct rate_limit limits[] = {{1200, 100}, {5, 5}, {7, 3}, {59, 2}, {61, 2}, {999, 10}};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		for (int64_t step_ms = 1; step_ms <= 9; step_ms += 4) {
			struct rate_bucket bucket = {0};
			unsigned taken = 0;
			for (int64_t now_ms = 1000; now_ms < 1000 + 10 * 60000; now_ms += step_ms) {
				taken += rate_bucket_take(&bucket, &limits[i], now_ms, NULL);
			}
			unsigned most = limits[i].burst + 10 * limits[i].per_minute;
			assert_in_range(taken, most - 1, most);
		}
	}
}

static void off(void **state)
{
	const struct rate_limit limit = {0};
	struct rate_bucket bucket = {0};
	int64_t retry_after_ms = 7;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		assert_true(rate_bucket_take(&bucket, &limit, 1, &retry_after_ms));
	}
	assert_int_equal(retry_after_ms, 0);
	assert_true(rate_bucket_is_full(&bucket, &limit, 1));
}

static void full_again(void **state)
{
	struct rate_bucket bucket = {0};

	(void)state;
	assert_true(rate_bucket_is_full(&bucket, &sign_in, 0));
	assert_true(rate_bucket_take(&bucket, &sign_in, 1000, NULL));
	assert_false(rate_bucket_is_full(&bucket, &sign_in, 1000));
	assert_false(rate_bucket_is_full(&bucket, &sign_in, 12999));
	assert_true(rate_bucket_is_full(&bucket, &sign_in, 13000)); /* one of five a minute: 12 s */
	assert_int_equal(drain(&bucket, &sign_in, 13000), 5);
}

/* The monotonic clock starts at 0 with the machine. */
static void first_use_at_zero(void **state)
{
	struct rate_bucket bucket = {0};

	(void)state;
	assert_int_equal(drain(&bucket, &sign_in, 0), 5);
	assert_int_equal(drain(&bucket, &sign_in, 11999), 0);
	assert_int_equal(drain(&bucket, &sign_in, 12000), 1);
}

static void clock_backwards(void **state)
{
	struct rate_bucket bucket = {0};

	(void)state;
	assert_int_equal(drain(&bucket, &sign_in, 1000000), 5);
	assert_int_equal(drain(&bucket, &sign_in, 1), 0);
	assert_int_equal(drain(&bucket, &sign_in, 1000000 + 11999), 0);
	assert_int_equal(drain(&bucket, &sign_in, 1000000 + 12000), 1);
	bucket = (struct rate_bucket){0};
	assert_true(rate_bucket_take(&bucket, &sign_in, 1000000, NULL));
	assert_int_equal(drain(&bucket, &sign_in, 1), 4); /* nothing is taken away either */
}

/* A reload changes the limit under a bucket in use. */
static void limit_changes(void **state)
{
	const struct rate_limit smaller = {.per_minute = 1200, .burst = 10};
	const struct rate_limit larger = {.per_minute = 1200, .burst = 200};
	const struct rate_limit none = {0};
	struct rate_bucket bucket = {0};

	(void)state;
	assert_int_equal(drain(&bucket, &messages, 1000), 100);
	assert_int_equal(drain(&bucket, &smaller, 1000), 0);
	assert_int_equal(drain(&bucket, &smaller, 1050), 1); /* empty, not in debt */
	bucket = (struct rate_bucket){0};
	assert_int_equal(drain(&bucket, &messages, 1000), 100);
	assert_int_equal(drain(&bucket, &larger, 1000), 100);
	assert_true(rate_bucket_take(&bucket, &none, 1000, NULL));
	assert_int_equal(drain(&bucket, &messages, 1000), 0);
}

static void largest_numbers(void **state)
{
	const struct rate_limit limit = {.per_minute = UINT32_MAX, .burst = UINT32_MAX};
	const struct rate_limit no_burst = {.per_minute = 60, .burst = 0};
	struct rate_bucket bucket = {0};
	int64_t retry_after_ms;

	(void)state;
	assert_true(rate_bucket_take(&bucket, &limit, 1, &retry_after_ms));
	assert_true(rate_bucket_take(&bucket, &limit, INT64_MAX, &retry_after_ms));
	assert_true(rate_bucket_is_full(&bucket, &limit, INT64_MAX) || bucket.spent > 0);
	bucket = (struct rate_bucket){0};
	assert_int_equal(drain(&bucket, &no_burst, 1), 1); /* or nobody could ever do anything */
}

static void several_at_once(void **state)
{
	const struct rate_limit limit = {.per_minute = 60, .burst = 10};
	struct rate_bucket bucket = {0};
	int64_t retry_after_ms;
	(void)state;

	assert_true(rate_bucket_take_many(&bucket, &limit, 7, 1000, &retry_after_ms));
	assert_false(rate_bucket_take_many(&bucket, &limit, 7, 1000, &retry_after_ms));
	assert_int_equal(retry_after_ms, 4000);
	assert_true(rate_bucket_take_many(&bucket, &limit, 3, 1000, &retry_after_ms)); /* a refusal takes nothing */
	assert_true(rate_bucket_take_many(&bucket, &limit, 7, 8000, &retry_after_ms));
	/* More than the bucket holds is all that it holds. */
	assert_false(rate_bucket_take_many(&bucket, &limit, 1000, 17999, &retry_after_ms));
	assert_true(rate_bucket_take_many(&bucket, &limit, 1000, 18000, &retry_after_ms));
	assert_true(rate_bucket_take_many(&bucket, &limit, 0, 18000, &retry_after_ms));
}

static void giving_back(void **state)
{
	const struct rate_limit limit = {.per_minute = 60, .burst = 2};
	struct rate_bucket bucket = {0};
	(void)state;

	rate_bucket_give_back(&bucket); /* never more than full */
	assert_true(rate_bucket_take(&bucket, &limit, 1000, NULL));
	assert_true(rate_bucket_take(&bucket, &limit, 1000, NULL));
	assert_false(rate_bucket_take(&bucket, &limit, 1000, NULL));
	rate_bucket_give_back(&bucket);
	assert_true(rate_bucket_take(&bucket, &limit, 1000, NULL));
	assert_false(rate_bucket_take(&bucket, &limit, 1000, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(burst_then_pace),
		cmocka_unit_test(retry_after_is_exact),
		cmocka_unit_test(asking_often_changes_nothing),
		cmocka_unit_test(off),
		cmocka_unit_test(full_again),
		cmocka_unit_test(first_use_at_zero),
		cmocka_unit_test(clock_backwards),
		cmocka_unit_test(limit_changes),
		cmocka_unit_test(largest_numbers),
		cmocka_unit_test(several_at_once),
		cmocka_unit_test(giving_back),
	};

	return cmocka_run_group_tests_name("rate_limit", tests, NULL, NULL);
}
