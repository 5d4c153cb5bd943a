/* test_flush.c - spool_sync keeps its word: flushes are counted against PUBACKs, by the thread that waits for them, and one
 * that fails is no PUBACK.
 */
#include "fixture.h"
#include "flush_ledger.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EACH = 40 };

static struct flush_ledger *ledger;

/* The brokers that start from now on have their flushes counted. */
static void preload(struct fixture *fixture)
{
	const char *library = text_of("%s/flush_counted.so", fixture->directory),
		   *path = text_of("%s/flush.ledger", fixture->directory), *before = getenv("CHAT_TEST_PRELOAD");
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *copy[] = {"cp", getenv("CHAT_TEST_FLUSH_COUNTED"), library, NULL};
	check(copy[1] != NULL);
	process_run("cp", copy, NULL, &self, text_of("%s/cp.log", fixture->directory));
	check(chmod(library, 0644) == 0);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check(fd >= 0 && fchmod(fd, 0666) == 0 && ftruncate(fd, sizeof *ledger) == 0);
	ledger = mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(ledger != MAP_FAILED);
	close(fd);
	setenv(FLUSH_LEDGER_VARIABLE, path, 1);
	setenv("CHAT_TEST_PRELOAD", text_of("%s %s", before ? before : "", library), 1);
}

static int setup(void **state)
{
	int rc = fixture_setup(state);
	if (rc == 0)
		preload(*state);
	return rc;
}

static void restart_with(struct fixture *fixture, const char *sync)
{
	const char *options[] = {text_of("spool_sync %s", sync), "spool_sync_ms 1", NULL};
	atomic_store(&ledger->failing, 0);
	fixture_restart_broker(fixture, options);
}

/* One at a time: each PUBACK comes after one more flush, that the broker's thread waited for. */
static void test_always_flushes_before_each_puback(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	restart_with(fixture, "always");
	struct client *clients[2] = {fixture_client(fixture, alice, 4), fixture_client(fixture, alice, 5)};
	for (int i = 0; i < EACH; i++) {
		uint64_t before = atomic_load(&ledger->by_main);
		assert_in_range(client_publish(clients[i % 2], topic_of(group, "send"), text_of("%d", i), 1), 0, 0x7f);
		assert_int_equal(atomic_load(&ledger->by_main), before + 1);
	}
}

/* What could not be flushed is neither acknowledged nor stored; the sender hears of it, and what comes later is served. */
static void test_failed_flush_is_no_puback(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	fixture_expect_error(fixture, "chat: spool: ");
	restart_with(fixture, "always");
	struct client *old = fixture_client(fixture, alice, 4), *new = fixture_member(fixture, alice, 5, group);
	assert_in_range(client_publish(new, topic_of(group, "send"), "before", 1), 0, 0x7f);
	expect_message(new, group, 1, alice, "before");
	atomic_store(&ledger->failing, 1);
	assert_true(client_publish(new, topic_of(group, "send"), "not flushed", 1) >= 0x80);
	expect_error(new, "overloaded");
	assert_int_equal(client_publish(old, topic_of(group, "send"), "not flushed", 1), CLOSED);
	assert_true(client_is_connected(new));
	broker_log_wait(&fixture->broker, "flushing", 1);
	atomic_store(&ledger->failing, 0);
	while (client_publish(new, topic_of(group, "send"), "after", 1) >= 0x80)
		clients_turn(20);
	expect_message(new, group, 2, alice, "after");
	broker_log_wait(&fixture->broker, "succeeds again", 1);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE body = 'not flushed'"), 0);
}

/* Flushed soon, and never by the broker's thread. */
static void test_interval_flushes_elsewhere(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	restart_with(fixture, "interval");
	struct client *client = fixture_client(fixture, alice, 4);
	uint64_t by_main = atomic_load(&ledger->by_main);
	for (int i = 0; i < EACH; i++) {
		uint64_t before = atomic_load(&ledger->by_others);
		assert_in_range(client_publish(client, topic_of(group, "send"), "x", 1), 0, 0x7f);
		for (int64_t deadline_ms = now_ms() + 15000; atomic_load(&ledger->by_others) == before; look_again_soon())
			assert_true(now_ms() < deadline_ms);
	}
	assert_int_equal(atomic_load(&ledger->by_main), by_main);
}

static void test_none_does_not_flush(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	fixture_restart_broker(fixture, (const char *const[]){"spool_sync none", "writers 1", NULL});
	struct client *client = fixture_member(fixture, alice, 4, group);
	/* A lane whose connection is new writes down, once, that it has compared its positions. */
	assert_in_range(client_publish(client, topic_of(group, "send"), "compared", 1), 0, 0x7f);
	expect_message(client, group, 1, alice, "compared");
	uint64_t before = atomic_load(&ledger->by_main) + atomic_load(&ledger->by_others);
	for (int i = 0; i < EACH; i++)
		assert_in_range(client_publish(client, topic_of(group, "send"), "x", 1), 0, 0x7f);
	assert_int_equal(atomic_load(&ledger->by_main) + atomic_load(&ledger->by_others), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_always_flushes_before_each_puback),
		TEST(test_failed_flush_is_no_puback),
		TEST(test_interval_flushes_elsewhere),
		TEST(test_none_does_not_flush),
	};
	return cmocka_run_group_tests_name("flush", tests, setup, fixture_teardown);
}
