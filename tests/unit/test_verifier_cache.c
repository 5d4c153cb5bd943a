/* test_verifier_cache.c - verifiers in memory: bounded, the one looked for longest ago goes first. */
#include "../../plugin/verifier_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void put(struct verifier_cache *cache, const char *name, int64_t user_id)
{
	struct verifier_entry entry = {.user_id = user_id};
	verifier_cache_put(cache, name, strlen(name), &entry, 1000);
}

/* -1: not there. */
static int64_t find(struct verifier_cache *cache, const char *name)
{
	const struct verifier_entry *entry = verifier_cache_find(cache, name, strlen(name), 1000);
	return entry ? entry->user_id : -1;
}

/* Somebody and nobody last equally long, however often they are looked for. */
static void test_age(void **state)
{
	struct verifier_cache *cache = verifier_cache_new(10);
	(void)state;
	put(cache, "alice", 1);
	put(cache, "nobody", 0);
	assert_non_null(verifier_cache_find(cache, "alice", 5, 1000 + VERIFIER_LASTS_MS));
	assert_non_null(verifier_cache_find(cache, "nobody", 6, 1000 + VERIFIER_LASTS_MS));
	assert_null(verifier_cache_find(cache, "alice", 5, 1001 + VERIFIER_LASTS_MS));
	assert_null(verifier_cache_find(cache, "nobody", 6, 1001 + VERIFIER_LASTS_MS));
	put(cache, "nobody", 7);
	assert_int_equal(find(cache, "nobody"), 7);
	verifier_cache_free(cache);
}

static void test_bound(void **state)
{
	struct verifier_cache *cache = verifier_cache_new(3);
	(void)state;
	put(cache, "a", 1);
	put(cache, "b", 2);
	put(cache, "c", 3);
	assert_int_equal(find(cache, "a"), 1);
	put(cache, "d", 4);
	assert_int_equal(find(cache, "b"), -1);
	assert_int_equal(find(cache, "a"), 1);
	put(cache, "c", 33);
	assert_int_equal(find(cache, "c"), 33);
	for (int i = 0; i < 1000; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%d", i);
		put(cache, name, i + 1);
	}
	assert_int_equal(find(cache, "a"), -1);
	assert_int_equal(find(cache, "n999"), 1000);
	assert_int_equal(find(cache, "n996"), -1);
	verifier_cache_free(cache);
}

/* threat 18: what becomes of one account shows in no other name. */
static void test_forget(void **state)
{
	struct verifier_cache *cache = verifier_cache_new(10);
	(void)state;
	put(cache, "alice", 1);
	put(cache, "ALICE", 1);
	put(cache, "bob", 2);
	put(cache, "nobody", 0);
	verifier_cache_forget(cache, 1);
	assert_int_equal(find(cache, "alice"), -1);
	assert_int_equal(find(cache, "ALICE"), -1);
	assert_int_equal(find(cache, "nobody"), 0);
	assert_int_equal(find(cache, "bob"), 2);
	verifier_cache_clear(cache);
	assert_int_equal(find(cache, "bob"), -1);
	verifier_cache_free(cache);
	verifier_cache_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_age),
	};
	return cmocka_run_group_tests_name("verifier_cache", tests, NULL, NULL);
}
