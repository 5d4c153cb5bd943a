/* test_request_workers.c - the lines of callers while there is no database. */
#include "../../plugin/request_workers.h"
#include "clock.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct request_job call = {
	.kind = REQUEST_CALL, .caller = 1, .user_id = 1, .method = {"user.get", 8}, .parameters = {"{}", 2}};

/* Answers of lanes that come while the database is away go out at once, and keep no place: a line that was left standing would
 * be full at some time, and hold up what comes after the database is back. */
static void test_answers_without_a_database(void **state)
{
	struct attempts *attempts = attempts_new();
	struct accounts *accounts = accounts_new(attempts);
	struct delivery_queue *deliveries = delivery_queue_new();
	char error[100];
	(void)state;

	struct request_workers *workers =
		request_workers_start("host=/nonexistent", 1, accounts, deliveries, error, sizeof(error));
	assert_non_null(workers);
	for (int64_t deadline_ms = clock_monotonic_ms() + 60000;
		request_workers_add(workers, &call, 0) != REQUEST_NO_CONNECTION;) {
		assert_true(clock_monotonic_ms() < deadline_ms);
		sched_yield();
	}
	struct request_job sent = {.kind = REQUEST_SENT, .caller = 2, .user_id = 2};
	for (sent.ticket = 1; sent.ticket <= 1000; sent.ticket++) {
		assert_int_equal(request_workers_add(workers, &sent, 0), REQUEST_ADDED);
		assert_false(request_workers_answer(workers, sent.caller, sent.ticket, "{}", 2));
	}
	delivery_stop(deliveries);
	request_workers_stop(workers);
	delivery_queue_free(deliveries);
	accounts_free(accounts);
	attempts_free(attempts);
}

/* A guest is his address. */
static void test_callers(void **state)
{
	(void)state;
	assert_int_equal(request_caller(7, 100), 7);
	assert_int_equal(request_caller(7, 200), 7);
	assert_int_not_equal(request_caller(0, 100), request_caller(0, 200));
	assert_int_not_equal(request_caller(0, 7), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers_without_a_database),
		cmocka_unit_test(test_callers),
	};
	return cmocka_run_group_tests_name("request_workers", tests, NULL, NULL);
}
