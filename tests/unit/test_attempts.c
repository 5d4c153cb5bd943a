/* test_attempts.c - how often signing in may fail. */
#include "../../plugin/attempts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct rate_limit five = {.per_minute = 5, .burst = 5}, sixty = {.per_minute = 60, .burst = 60}, off = {0};

static int setup(void **state)
{
	struct attempts *attempts = attempts_new();
	assert_non_null(attempts);
	attempts_set_limits(attempts, &five, &sixty);
	*state = attempts;
	return 0;
}

static int teardown(void **state)
{
	attempts_free(*state);
	return 0;
}

static int tries(struct attempts *attempts, const char *name, const char *address, int64_t now_ms, int most)
{
	int64_t retry_after_ms;
	int done = 0;
	while (done < most && attempts_begin(attempts, attempts_account(attempts, name, strlen(name)),
				      attempts_address(attempts, address), now_ms, &retry_after_ms)) {
		done++;
	}
	assert_true(done == most || (retry_after_ms > 0 && retry_after_ms <= 60000));
	return done;
}

static void test_addresses(void **state)
{
	struct attempts *attempts = *state;
	assert_int_equal(attempts_address(attempts, NULL), 0);
	assert_int_equal(attempts_address(attempts, "1.2.3.4"), attempts_address(attempts, "::ffff:1.2.3.4"));
	assert_int_not_equal(attempts_address(attempts, "1.2.3.4"), attempts_address(attempts, "1.2.3.5"));
	assert_int_equal(attempts_address(attempts, "2001:db8:1:2:3::4"), attempts_address(attempts, "2001:db8:1:2:5::6"));
	assert_int_not_equal(attempts_address(attempts, "2001:db8:1:2:3::4"), attempts_address(attempts, "2001:db8:1:3:3::4"));
}

/* threat 17: spraying, one account or many, from one address or many */
static void test_limits(void **state)
{
	struct attempts *attempts = *state;
	assert_int_equal(tries(attempts, "alice", "1.1.1.1", 1000, 100), 5);
	assert_int_equal(tries(attempts, "alice", "2.2.2.2", 1000, 100), 0);
	int total = 5;
	for (int i = 0; i < 100; i++) {
		char name[16];
		snprintf(name, sizeof(name), "user%d", i);
		total += tries(attempts, name, "1.1.1.1", 1000, 1);
	}
	assert_int_equal(total, 60);
	/* It comes back with time. */
	assert_int_equal(tries(attempts, "alice", "3.3.3.3", 13000, 100), 1);
}

/* Strangers lock nobody out of the place where he signed in before. */
static void test_known_place(void **state)
{
	struct attempts *attempts = *state;
	uint64_t alice = attempts_account(attempts, "alice", 5), home = attempts_address(attempts, "1.1.1.1");
	int64_t retry_after_ms;
	assert_true(attempts_begin(attempts, alice, home, 1000, &retry_after_ms));
	attempts_succeeded(attempts, alice, home, 1000);
	assert_int_equal(tries(attempts, "alice", "6.6.6.6", 1000, 100), 5);
	assert_int_equal(tries(attempts, "alice", "1.1.1.1", 1000, 100), 5);
	assert_int_equal(tries(attempts, "alice", "1.1.1.1", 1000, 100), 0);
}

/* Only failures count. */
static void test_success_is_free(void **state)
{
	struct attempts *attempts = *state;
	uint64_t alice = attempts_account(attempts, "alice", 5), home = attempts_address(attempts, "1.1.1.1");
	for (int i = 0; i < 1000; i++) {
		int64_t retry_after_ms;
		assert_true(attempts_begin(attempts, alice, home, 1000, &retry_after_ms));
		attempts_succeeded(attempts, alice, home, 1000);
	}
}

static void test_address_alone(void **state)
{
	struct attempts *attempts = *state;
	uint64_t address = attempts_address(attempts, "1.1.1.1");
	for (int i = 0; i < 60; i++) {
		assert_false(attempts_address_is_limited(attempts, address, 1000));
		attempts_address_failed(attempts, address, 1000);
	}
	assert_true(attempts_address_is_limited(attempts, address, 1000));
	assert_false(attempts_address_is_limited(attempts, attempts_address(attempts, NULL), 1000));
	attempts_set_limits(attempts, &off, &off);
	assert_false(attempts_address_is_limited(attempts, address, 1000));
	assert_int_equal(tries(attempts, "bob", "1.1.1.1", 1000, 1000), 1000);
}

int main(void)
{
#define WITH_ATTEMPTS(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_ATTEMPTS(test_addresses),
		WITH_ATTEMPTS(test_limits),
		WITH_ATTEMPTS(test_known_place),
		WITH_ATTEMPTS(test_success_is_free),
		WITH_ATTEMPTS(test_address_alone),
	};
	return cmocka_run_group_tests_name("attempts", tests, NULL, NULL);
}
