/* test_positions.c - a spool and a database that do not belong together any more: an older copy of one was put back, or a power
 * cut took the spool's end. It is noticed, at the start or later, and nothing is stored twice or taken for stored.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EACH = 10 };

static const char *spool_of(struct fixture *fixture)
{
	return text_of("%s/spool", fixture->broker.directory);
}

static void copy_spool(struct fixture *fixture, const char *from, const char *to)
{
	const char *argv[] = {"cp", "-a", from, to, NULL};
	struct account self = account_find((const char *const[]){"root", NULL});
	directory_remove(to);
	process_run("cp", argv, NULL, &self, text_of("%s/cp.log", fixture->directory));
}

static void save_spool(struct fixture *fixture)
{
	copy_spool(fixture, spool_of(fixture), text_of("%s/saved", fixture->broker.directory));
}

static void put_back_spool(struct fixture *fixture)
{
	copy_spool(fixture, text_of("%s/saved", fixture->broker.directory), spool_of(fixture));
}

/* EACH more, each with its PUBACK, their bodies counted on. */
static void send(struct fixture *fixture, int64_t user, int64_t group, int *sent)
{
	struct client *client = fixture_client(fixture, user, 4);
	for (int i = 0; i < EACH; i++)
		client_send(client, topic_of(group, "send"), text_of("%d", ++*sent));
	client_settle(client);
	assert_true(client_is_connected(client));
	clients_close_all();
}

static void await_stored(struct fixture *fixture, int64_t group, int sent)
{
	sql_wait(&fixture->postgres, sent,
		"SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND body::bigint = seq", (long long)group);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group),
		sent);
}

static void expect_objection(struct fixture *fixture)
{
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "chat: writer ");
	fixture_expect_error(fixture, "plugin_opt_spool_dir");
	fixture_expect_error(fixture, "Error");
}

static void restart_with(struct fixture *fixture, const char *sync)
{
	const char *options[] = {text_of("spool_sync %s", sync), NULL};
	fixture_configure(fixture, options, NULL);
	broker_start(&fixture->broker);
}

/* The database has committed what the directory no longer holds: said, and what comes next is stored all the same. */
static void test_lost_end(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_objection(fixture);
	send(fixture, alice, group, &sent);
	broker_stop(&fixture->broker);
	save_spool(fixture);
	broker_start(&fixture->broker);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	put_back_spool(fixture);
	int said = broker_log_count(&fixture->broker, "END IS LOST");
	broker_start(&fixture->broker);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_log_wait(&fixture->broker, "END IS LOST", said + 1);
	said = broker_log_count(&fixture->broker, "END IS LOST");
	broker_stop(&fixture->broker);
	broker_start(&fixture->broker);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	assert_int_equal(broker_log_count(&fixture->broker, "END IS LOST"), said); /* once */
}

/* The same, found out only after two processes have accepted messages without a database to compare with. */
static void test_lost_end_found_later(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_objection(fixture);
	send(fixture, alice, group, &sent);
	broker_stop(&fixture->broker);
	save_spool(fixture);
	broker_start(&fixture->broker);
	for (int i = 0; i < 3; i++)
		send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	put_back_spool(fixture);
	postgres_stop(&fixture->postgres);
	broker_start(&fixture->broker);
	for (int i = 0; i < 2; i++) /* still behind what the database has committed */
		send(fixture, alice, group, &sent);
	broker_kill(&fixture->broker);
	broker_start(&fixture->broker);
	for (int i = 0; i < 4; i++) /* and beyond */
		send(fixture, alice, group, &sent);
	int said = broker_log_count(&fixture->broker, "END IS LOST");
	postgres_start(&fixture->postgres);
	await_stored(fixture, group, sent);
	assert_true(broker_log_count(&fixture->broker, "END IS LOST") > said);
}

/* What is flushed before its PUBACK does not get lost, so this is somebody's mistake: refused, with the way out. */
static void test_flushed_end_is_not_lost(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_objection(fixture);
	send(fixture, alice, group, &sent);
	broker_stop(&fixture->broker);
	save_spool(fixture);
	restart_with(fixture, "always");
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	put_back_spool(fixture);
	int said = broker_log_count(&fixture->broker, "start once with plugin_opt_spool_sync none");
	assert_int_not_equal(broker_start_refused(&fixture->broker), 0);
	assert_int_equal(broker_log_count(&fixture->broker, "start once with plugin_opt_spool_sync none"), said + 1);
	restart_with(fixture, "none");
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	restart_with(fixture, "always");
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	restart_with(fixture, "none");
}

/* An older state of the database: refused, with the way out; then what the spool still holds is stored, and nothing twice. */
static void test_database_put_back(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_objection(fixture);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	sql(&fixture->postgres, "CREATE TABLE positions_before AS SELECT * FROM chat.spool_positions");
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	/* as if it was restored: positions, rows and numbers of before */
	sql(&fixture->postgres, "UPDATE chat.spool_positions p SET position_committed = b.position_committed FROM "
				"positions_before b WHERE p.spool = "
				"b.spool AND p.slot = b.slot");
	sql(&fixture->postgres, "DELETE FROM chat.messages WHERE conversation_id = %lld AND seq > %d", (long long)group, EACH);
	sql(&fixture->postgres, "UPDATE chat.conversations SET last_seq = %d, last_ordinal = %d WHERE id = %lld", EACH, EACH,
		(long long)group);
	sql(&fixture->postgres, "DROP TABLE positions_before");
	int said = broker_log_count(&fixture->broker, "remove the file `committed`");
	assert_int_not_equal(broker_start_refused(&fixture->broker), 0);
	assert_int_equal(broker_log_count(&fixture->broker, "remove the file `committed`"), said + 1);
	check(unlink(text_of("%s/committed", spool_of(fixture))) == 0);
	broker_start(&fixture->broker);
	await_stored(fixture, group, sent); /* the spool still had them */
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lost_end),
		TEST(test_lost_end_found_later),
		TEST(test_flushed_end_is_not_lost),
		TEST(test_database_put_back),
	};
	return cmocka_run_group_tests_name("positions", tests, fixture_setup, fixture_teardown);
}
