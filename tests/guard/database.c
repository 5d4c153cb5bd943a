/* database.c - what PostgreSQL does for a message: calls, statements, pages looked at, bytes of WAL; from its own counters.
 *
 * A cluster, a spool, the lanes and the loader; no broker. Prints lines `name value` for check.sh. Messages are of 100
 * characters, from 100 people in 50 conversations of two. A batch is what a lane takes when 500 wait; single ones are sent one
 * after the other, each when the one before is in the table. Full page images are switched off: when they come is chance.
 */
#include "check.h"
#include "postgres.h"

#include "clock.h"
#include "record.h"
#include "wakeup.h"
#include "writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONVERSATIONS = 50, FIRST = 1000001, BATCHED = 4000, SINGLE = 200, SESSIONS = 1000, PATIENCE_MS = 60000 };

static const char settings[] = "shared_preload_libraries = 'pg_stat_statements'\n"
			       "pg_stat_statements.track = all\n"
			       "full_page_writes = off\n"
			       "checkpoint_timeout = 1h\n";

struct guard {
	char directory[64];
	char conninfo[PATH_SIZE * 2];
	struct postgres postgres;
	struct spool *spool;
	struct delivery_queue *deliveries;
	struct loader *loader;
	struct writer *writer;
	unsigned written;
};

static void start_database(struct guard *guard)
{
	char path[PATH_SIZE];
	struct account self = account_find((const char *const[]){"root", NULL});
	char *template = file_read(getenv("CHAT_TEST_TEMPLATE") ? getenv("CHAT_TEST_TEMPLATE") : "");

	postgres_create(&guard->postgres, guard->directory, *template ? template : NULL, &self);
	free(template);
	postgres_stop(&guard->postgres);
	check(snprintf(path, sizeof(path), "%s/postgresql.auto.conf", guard->postgres.data) < (int)sizeof(path));
	file_write(path, settings, 0600, &guard->postgres.account);
	postgres_start(&guard->postgres);
	sql(&guard->postgres, "CREATE EXTENSION pg_stat_statements");
	sql(&guard->postgres, "INSERT INTO chat.users (id) SELECT generate_series(%d, %d)", FIRST, FIRST + 2 * CONVERSATIONS - 1);
	sql(&guard->postgres,
		"INSERT INTO chat.conversations (id, type, first_user_id, second_user_id)"
		" SELECT %d + n, 'direct', %d + 2 * n, %d + 2 * n + 1 FROM generate_series(0, %d) n",
		FIRST, FIRST, FIRST, CONVERSATIONS - 1);
	sql(&guard->postgres, "VACUUM ANALYZE");
	postgres_conninfo(&guard->postgres, "chat_plugin", guard->conninfo);
}

static void start_engines(struct guard *guard)
{
	char error[256] = "", path[PATH_SIZE];
	bool reachable;
	struct spool_recovery recovery;
	check(snprintf(path, sizeof(path), "%s/spool", guard->directory) < (int)sizeof(path));
	struct spool_settings spool = {.directory = path, .max_bytes = 64 << 20, .lanes = 1};

	check(wakeup_open());
	guard->deliveries = delivery_queue_new();
	guard->spool = spool_open(&spool, &recovery, error, sizeof(error));
	if (!guard->deliveries || !guard->spool) {
		fail_msg("%s", error);
	}
	guard->loader = loader_start(guard->conninfo, guard->deliveries, false, PATIENCE_MS, &reachable, error, sizeof(error));
	if (!guard->loader || !reachable) {
		fail_msg("%s", error);
	}
	for (int64_t deadline_ms = now_ms() + PATIENCE_MS; !loader_is_up(guard->loader); look_again_soon()) {
		check(now_ms() < deadline_ms);
	}
}

static void append_message(struct guard *guard)
{
	static char body[100];
	unsigned n = guard->written++, conversation = n % CONVERSATIONS;
	struct record_message message = {
		.accepted_at_ms = clock_wall_ms(),
		.conversation_id = FIRST + conversation,
		.user_id = FIRST + 2 * conversation + n / CONVERSATIONS % 2,
		.body_length = sizeof(body),
		.client_id_length = 5,
		.type_length = 4,
	};
	struct record_parts parts = {.client_id = "guard", .correlation = "", .type = "text", .body = body, .extra = ""};
	uint64_t position, scattered = n * UINT64_C(0x9e3779b97f4a7c15); /* ids in no order, and the same in each run */

	memset(body, 'x', sizeof(body));
	memcpy(message.id, &scattered, sizeof(scattered));
	memcpy(message.id + 8, &n, sizeof(n));
	void *at = spool_append(guard->spool, record_message_size(&message), &position);
	check(at != NULL);
	record_write_message(at, position, RECORD_FLAG_OWN_ID, &message, &parts);
	check(spool_append_done(guard->spool, record_message_size(&message), record_slot(message.conversation_id)));
}

static void await_stored(struct guard *guard)
{
	for (int64_t deadline_ms = now_ms() + PATIENCE_MS; writer_read_counters(guard->writer).messages < guard->written;
		look_again_soon()) {
		check(now_ms() < deadline_ms);
	}
}

static int64_t wal_position(struct guard *guard)
{
	return sql_integer(&guard->postgres, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint");
}

static void print(const char *name, int64_t amount, int64_t of)
{
	printf("%s %.2f\n", name, (double)amount / (double)of);
}

/* What the statements behind one call have cost. */
static int64_t cost(struct guard *guard, const char *what, const char *function)
{
	return sql_integer(&guard->postgres,
		"SELECT coalesce(sum(%s), 0)::bigint FROM pg_stat_statements s JOIN pg_roles ON pg_roles.oid = s.userid"
		" WHERE toplevel AND rolname = 'chat_plugin' AND query LIKE '%%%s%%'",
		what, function);
}

static void measure_batches(struct guard *guard)
{
	char error[256] = "";
	for (unsigned i = 0; i < BATCHED; i++) {
		append_message(guard);
	}
	sql(&guard->postgres, "SELECT pg_stat_statements_reset()");
	int64_t wal = wal_position(guard);
	guard->writer = writer_start(guard->conninfo, guard->spool, 1, guard->deliveries, guard->loader, error, sizeof(error));
	if (!guard->writer) {
		fail_msg("%s", error);
	}
	await_stored(guard);
	print("batch_wal_bytes", wal_position(guard) - wal, BATCHED);
	int64_t calls = cost(guard, "calls", "append_messages");
	print("batch_calls_per_thousand", calls * 1000, BATCHED);
	print("batch_pages", cost(guard, "shared_blks_hit + shared_blks_read", "append_messages"), BATCHED);
	print("batch_statements",
		sql_integer(&guard->postgres, "SELECT sum(calls)::bigint FROM pg_stat_statements WHERE NOT toplevel"), calls);
}

static void measure_single(struct guard *guard)
{
	sql(&guard->postgres, "SELECT pg_stat_statements_reset()");
	int64_t wal = wal_position(guard);
	for (unsigned i = 0; i < SINGLE; i++) {
		append_message(guard);
		await_stored(guard);
	}
	print("single_wal_bytes", wal_position(guard) - wal, SINGLE);
	print("single_calls", cost(guard, "calls", ""), SINGLE);
	print("single_pages", cost(guard, "shared_blks_hit + shared_blks_read", "append_message("), SINGLE);
	print("single_statements",
		sql_integer(&guard->postgres, "SELECT sum(calls)::bigint FROM pg_stat_statements WHERE NOT toplevel"), SINGLE);
}

/* As many sessions at once as after an outage. */
static void measure_sign_ins(struct guard *guard)
{
	struct registry *registry = registry_new();
	int answered = 0;
	static char connections[SESSIONS];
	check(registry != NULL);
	sql(&guard->postgres, "SELECT pg_stat_statements_reset()");
	for (int i = 0; i < SESSIONS; i++) {
		char client_id[32];
		check(snprintf(client_id, sizeof(client_id), "%d-x", i) > 0);
		const struct session *session =
			registry_add_session(registry, &connections[i], client_id, FIRST + i % (2 * CONVERSATIONS), 0, INT64_MAX);
		check(session && loader_session(guard->loader, session));
	}
	for (int64_t deadline_ns = now_ns() + PATIENCE_MS * INT64_C(1000000); answered < SESSIONS;) {
		check(loader_wait_for_result(guard->loader, deadline_ns));
		struct load_result *next;
		for (struct load_result *result = loader_take_all(guard->loader); result; result = next) {
			next = result->next;
			answered += result->kind == LOAD_SESSION;
			loader_result_free(result);
		}
	}
	print("sign_in_calls_per_thousand", cost(guard, "calls", "open_sessions"), SESSIONS / 1000);
	print("sign_in_pages", cost(guard, "shared_blks_hit + shared_blks_read", "open_sessions"), SESSIONS);
	registry_free(registry);
}

static void test_costs(void **state)
{
	struct guard *guard = *state;
	start_database(guard);
	start_engines(guard);
	measure_batches(guard);
	measure_single(guard);
	measure_sign_ins(guard);
}

static int set_up(void **state)
{
	static struct guard guard = {.directory = "/tmp/mosquitto-chat-guard-XXXXXX"};
	*state = &guard;
	return mkdtemp(guard.directory) && chmod(guard.directory, 0755) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	struct guard *guard = *state;
	if (guard->deliveries) {
		delivery_discard(guard->deliveries);
	}
	writer_stop(guard->writer);
	loader_stop(guard->loader);
	delivery_queue_free(guard->deliveries);
	if (guard->spool) {
		spool_close(guard->spool);
	}
	wakeup_close();
	postgres_destroy(&guard->postgres);
	directory_remove(guard->directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_costs, set_up, tear_down)};
	return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
