/* test_history.c - the checker at work on the whole system: a run without faults is clean, so is one with a killed broker,
 * and each deliberate break of plugin/test_faults.h is noticed. The plugin is mosquitto_chat_faulty.so throughout.
 *
 * A broken build is given a fault in which the break shows, in rounds on fresh users and conversations, until the judge
 * names the violation: chance decides in which round, so there are many more of them than are ever needed.
 *
 *   test_history small|full SECONDS RATE [SEED]    one long run without faults; RATE 0: as fast as it goes
 */
#include "fixture.h"
#include "judge.h"
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* So that who leaves at the end of a run is soon offline. */
#define SHORT_GRACE "presence_grace 1s"

enum { ACKS_EACH = 1500, ROUNDS_MAX = 20, SETTLE_MS = 60000, BROKEN_SETTLE_MS = 3000, SLOW_MS = 60000 };

static const char *const short_grace[] = {SHORT_GRACE, NULL};

static int setup(void **state)
{
	if (fixture_setup(state))
		return -1;
	fixture_restart_broker(*state, short_grace);
	return 0;
}

static char *make_token(void *context, int64_t user)
{
	return fixture_token(context, user, 0, 3600);
}

static struct workload *start(struct fixture *fixture, struct workload_options options)
{
	char conninfo[PATH_SIZE * 2], error[256];
	options.port = fixture->broker.port;
	options.websocket_port = fixture->broker.websocket_port;
	options.conninfo = postgres_conninfo(&fixture->postgres, "postgres", conninfo);
	options.make_token = make_token;
	options.context = fixture;
	options.lines_path = getenv("CHAT_TEST_LINES");
	struct workload *workload = workload_start(&options, error, sizeof error);
	if (!workload)
		fail_msg("%s", error);
	return workload;
}

static void await_acks(struct workload *workload, uint64_t more)
{
	uint64_t wanted = workload_counts(workload).acked + more;
	int64_t deadline_ms = now_ms() + allowed_ms(SLOW_MS);
	while (workload_counts(workload).acked < wanted) {
		if (now_ms() > deadline_ms)
			fail_msg("%llu more messages are not acknowledged in time", (unsigned long long)more);
		look_again_soon();
	}
}

static void expect_trouble(struct fixture *fixture)
{
	fixture_expect_error(fixture, "database");
	fixture_expect_error(fixture, "chat: writer ");
	fixture_expect_error(fixture, "bytes of an unfinished record");
}

/* ---- faults ---- */

static void no_fault(struct fixture *fixture, struct workload *workload)
{
	(void)fixture;
	await_acks(workload, ACKS_EACH);
}

static void start_again(struct fixture *fixture, struct workload *workload)
{
	broker_start(&fixture->broker);
	workload_set_ports(workload, fixture->broker.port, fixture->broker.websocket_port);
}

static void kill_broker(struct fixture *fixture, struct workload *workload)
{
	await_acks(workload, ACKS_EACH / 2);
	workload_note_fault(workload, "kill -9 broker");
	broker_kill(&fixture->broker);
	start_again(fixture, workload);
	await_acks(workload, ACKS_EACH / 2);
}

static void kill_backends(struct fixture *fixture, struct workload *workload)
{
	for (int i = 0; i < 5; i++) {
		await_acks(workload, ACKS_EACH / 5);
		workload_note_fault(workload, "kill a writer");
		sql(&fixture->postgres,
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%%writer'");
	}
}

/* ---- runs ---- */

typedef void fault_function(struct fixture *fixture, struct workload *workload);

/* Ends the workload. True where the run came to its end. */
static bool finish(struct workload *workload, int64_t settle_ms, bool needs_fault, struct judgement *judgement)
{
	struct table table;
	const char *hung = workload_settle(workload, settle_ms);
	check(workload_read_table(workload, &table));
	judge(workload_history(workload), &table, &(struct judge_options){.acks_min = 1000, .needs_fault = needs_fault},
		judgement);
	if (hung)
		fprintf(stderr, "after %lld ms: %s\n", (long long)settle_ms, hung);
	table_free(&table);
	workload_free(workload);
	return hung == NULL;
}

static bool run(struct fixture *fixture, fault_function *fault, int64_t settle_ms, struct judgement *judgement)
{
	struct workload *workload = start(fixture, workload_options_small());
	fault(fixture, workload);
	return finish(workload, settle_ms, fault != no_fault, judgement);
}

static void expect_clean(struct fixture *fixture, fault_function *fault)
{
	struct judgement judgement;
	bool settled = run(fixture, fault, allowed_ms(SETTLE_MS), &judgement);
	judgement_print(&judgement, stderr);
	assert_true(settled);
	assert_true(judgement_is_clean(&judgement));
}

static void expect_caught(struct fixture *fixture, const char *name, fault_function *fault, enum violation violation)
{
	struct judgement judgement;
	uint64_t caught = 0;
	int64_t settle_ms = BROKEN_SETTLE_MS;
	/* A spool of its own: the plugin may well notice what was done to it, and refuse to go on. */
	const char *options[] = {text_of("spool_dir %s/%s", fixture->broker.directory, name), SHORT_GRACE, NULL};
	check(setenv("CHAT_BREAK", name, 1) == 0);
	fixture_restart_broker(fixture, options);
	for (int i = 0; i < ROUNDS_MAX && caught == 0; i++) {
		/* What is broken may never settle; a slow machine does, with more time. */
		if (!run(fixture, fault, allowed_ms(settle_ms), &judgement) && settle_ms < SETTLE_MS / 4)
			settle_ms *= 2;
		caught = judgement.count[violation];
		fprintf(stderr, "%s, round %d\n", name, i + 1);
		judgement_print(&judgement, stderr);
	}
	check(unsetenv("CHAT_BREAK") == 0);
	fixture_restart_broker(fixture, short_grace);
	fixture_forget_log(fixture);
	assert_true(caught > 0);
}

static void test_clean_run(void **state)
{
	expect_clean(*state, no_fault);
}

static void test_clean_run_with_a_killed_broker(void **state)
{
	expect_trouble(*state);
	expect_clean(*state, kill_broker);
}

static void test_clean_run_with_killed_backends(void **state)
{
	expect_trouble(*state);
	expect_clean(*state, kill_backends);
}

static void test_skip_spool(void **state)
{
	expect_caught(*state, "skip_spool", no_fault, LOST);
}

/* Without anybody's death: the server's own time of each commit tells. */
static void test_publish_before_commit(void **state)
{
	expect_caught(*state, "publish_before_commit", no_fault, DELIVERED_EARLY);
}

static void test_lose_batch(void **state)
{
	expect_caught(*state, "lose_batch", no_fault, UNDUE_REFUSAL);
}

static void test_number_in_memory(void **state)
{
	expect_caught(*state, "number_in_memory", kill_broker, DIFFERENT_CONTENT);
}

static void test_ignore_position(void **state)
{
	expect_caught(*state, "ignore_position", kill_broker, DUPLICATE_ROW);
}

static void test_skip_mark(void **state)
{
	expect_caught(*state, "skip_mark", no_fault, MARK_LOST);
}

static void test_skip_presence(void **state)
{
	expect_caught(*state, "skip_presence", no_fault, PRESENCE_WRONG);
}

static void test_skip_dedupe(void **state)
{
	expect_caught(*state, "skip_dedupe", no_fault, DUPLICATE_ROW);
}

/* ---- by hand ---- */

static struct {
	struct workload_options (*options)(void);
	int64_t seconds;
	unsigned rate_per_s;
	uint64_t seed;
} wanted;

static void test_long_run(void **state)
{
	struct workload_options options = wanted.options();
	struct judgement judgement;
	options.rate_per_s = wanted.rate_per_s;
	fixture_expect_error(*state, "left so much unread"); /* who reads nothing, and at a rate that is too high others too */
	options.seed = wanted.seed;
	struct workload *workload = start(*state, options);
	for (int64_t end_ms = now_ms() + wanted.seconds * 1000; now_ms() < end_ms;)
		look_again_soon();
	fprintf(stderr, "the clients took %.1f s of CPU time\n", (double)clock() / CLOCKS_PER_SEC);
	bool settled = finish(workload, allowed_ms(SETTLE_MS), false, &judgement);
	judgement_print(&judgement, stderr);
	assert_true(settled);
	assert_true(judgement_is_clean(&judgement));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest long_run[] = {TEST(test_long_run)};
	const struct CMUnitTest tests[] = {
		TEST(test_clean_run),
		TEST(test_clean_run_with_a_killed_broker),
		TEST(test_clean_run_with_killed_backends),
		TEST(test_skip_spool),
		TEST(test_skip_mark),
		TEST(test_skip_presence),
		TEST(test_publish_before_commit),
		TEST(test_lose_batch),
		TEST(test_number_in_memory),
		TEST(test_ignore_position),
		TEST(test_skip_dedupe),
	};
	if (argc >= 4) {
		wanted.options = strcmp(argv[1], "full") == 0 ? workload_options_full : workload_options_small;
		wanted.seconds = strtoll(argv[2], NULL, 10);
		wanted.rate_per_s = (unsigned)strtoul(argv[3], NULL, 10);
		wanted.seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
		return cmocka_run_group_tests_name("history, long", long_run, setup, fixture_teardown);
	}
	return cmocka_run_group_tests_name("history", tests, setup, fixture_teardown);
}
