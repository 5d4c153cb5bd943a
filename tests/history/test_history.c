/* test_history.c - the checker at work on the whole system: a run without faults is clean, and each deliberate break of
 * plugin/test_faults.h is noticed. The plugin is mosquitto_chat_faulty.so throughout.
 */
#include "fixture.h"
#include "judge.h"
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	int64_t deadline_ms = now_ms() + allowed_ms(60000);
	while (workload_counts(workload).acked < wanted) {
		if (now_ms() > deadline_ms)
			fail_msg("no %llu messages are acknowledged in time", (unsigned long long)more);
		look_again_soon();
	}
}

static void test_clean_run(void **state)
{
	struct fixture *fixture = *state;
	struct workload_options options = workload_options_small();
	struct judgement judgement;
	struct table table;
	options.rate_per_s = (unsigned)(getenv("RATE") ? strtoul(getenv("RATE"), NULL, 10) : 2000);
	struct workload *workload = start(fixture, options);
	await_acks(workload, 4000);
	const char *hung = workload_settle(workload, 8000);
	check(workload_read_table(workload, &table));
	judge(workload_history(workload), &table, &(struct judge_options){.acks_min = 1000}, &judgement);
	judgement_print(&judgement, stderr);
	if (hung)
		fprintf(stderr, "hung: %s\n", hung);
	assert_null(hung);
	assert_true(judgement_is_clean(&judgement));
	table_free(&table);
	workload_free(workload);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_clean_run)};
	return cmocka_run_group_tests_name("history", tests, fixture_setup, fixture_teardown);
}
