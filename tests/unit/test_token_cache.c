/* test_token_cache.c - tokens in memory: each good once, none after its time, the oldest goes first. */
#include "../../plugin/token_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define EXPIRES_S INT64_C(1000)

static void put(struct token_cache *cache, const char *token, int64_t user_id)
{
	struct token_claims claims = {
		.user_id = user_id, .device_id = user_id + 1, .expires_at_s = EXPIRES_S, .device_token = true};
	struct token_digest digest = token_cache_digest(cache, token, strlen(token));
	token_cache_put(cache, &digest, &claims);
}

/* -1: not there. */
static int64_t take(struct token_cache *cache, const char *token, int64_t now_s)
{
	struct token_claims claims;
	struct token_digest digest = token_cache_digest(cache, token, strlen(token));
	if (!token_cache_take(cache, &digest, now_s, &claims)) {
		return -1;
	}
	assert_int_equal(claims.device_id, claims.user_id + 1);
	assert_int_equal(claims.expires_at_s, EXPIRES_S);
	assert_true(claims.device_token);
	return claims.user_id;
}

static void test_taken_once(void **state)
{
	struct token_cache *cache = token_cache_new(10);
	(void)state;
	assert_int_equal(take(cache, "one", 0), -1);
	put(cache, "one", 1);
	put(cache, "two", 2);
	put(cache, "two", 2);
	assert_int_equal(take(cache, "One", 0), -1);
	assert_int_equal(take(cache, "one", 0), 1);
	assert_int_equal(take(cache, "one", 0), -1);
	assert_int_equal(take(cache, "two", 0), 2);
	assert_int_equal(take(cache, "two", 0), -1);
	token_cache_free(cache);
}

/* As long as token_check() would take it. */
static void test_expiry(void **state)
{
	struct token_cache *cache = token_cache_new(10);
	(void)state;
	put(cache, "one", 1);
	assert_int_equal(take(cache, "one", EXPIRES_S + TOKEN_LEEWAY_S - 1), 1);
	put(cache, "one", 1);
	assert_int_equal(take(cache, "one", EXPIRES_S + TOKEN_LEEWAY_S), -1);
	token_cache_free(cache);
}

static void test_bounded(void **state)
{
	struct token_cache *cache = token_cache_new(2);
	(void)state;
	put(cache, "one", 1);
	put(cache, "two", 2);
	put(cache, "three", 3);
	assert_int_equal(take(cache, "one", 0), -1);
	assert_int_equal(take(cache, "two", 0), 2);
	assert_int_equal(take(cache, "three", 0), 3);
	put(cache, "one", 1);
	token_cache_clear(cache);
	assert_int_equal(take(cache, "one", 0), -1);
	token_cache_free(cache);
}

/* What has no digest is like nothing, itself included. */
static void test_no_token(void **state)
{
	static char longest[TOKEN_MAX + 1];
	struct token_cache *cache = token_cache_new(2), *other = token_cache_new(2);
	struct token_claims claims = {.user_id = 1, .expires_at_s = EXPIRES_S};
	struct token_digest digest = token_cache_digest(cache, longest, sizeof(longest));
	struct token_digest here = token_cache_digest(cache, longest, TOKEN_MAX),
			    there = token_cache_digest(other, longest, TOKEN_MAX);
	(void)state;
	assert_false(token_digest_equal(&digest, &digest));
	token_cache_put(cache, &digest, &claims);
	assert_false(token_cache_take(cache, &digest, 0, &claims));
	assert_true(token_digest_equal(&here, &here));
	assert_false(token_digest_equal(&here, &there)); /* each process has its own */
	token_cache_free(cache);
	token_cache_free(other);
	token_cache_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_once),
		cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_no_token),
	};
	return cmocka_run_group_tests_name("token_cache", tests, NULL, NULL);
}
