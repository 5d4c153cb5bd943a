/* test_positions.c - a spool and a database that do not belong together any more: an older copy of one was put back, or a power
 * cut took the spool's end. It is noticed, at the start or later, and nothing is stored twice or taken for stored.
 */
#include "fixture.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EACH = 10 };

static const char *spool_of(struct fixture *fixture)
{
	return text_of("%s/spool", fixture->broker.directory);
}

static void save_spool(struct fixture *fixture)
{
	directory_copy(spool_of(fixture), text_of("%s/saved", fixture->broker.directory));
}

static void put_back_spool(struct fixture *fixture)
{
	directory_copy(text_of("%s/saved", fixture->broker.directory), spool_of(fixture));
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
	broker_log_wait(
		&fixture->broker, "END IS LOST", said + 1); /* what a lane says the broker's thread writes, when it gets to it */
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

/* The state of a conversation with `sent` entries is put back later, as if the database was restored: positions, rows, numbers.
 */
static void save_positions(struct fixture *fixture)
{
	sql(&fixture->postgres, "CREATE TABLE positions_before AS SELECT * FROM chat.spool_positions");
}

static void put_back_database(struct fixture *fixture, int64_t group, int sent)
{
	sql(&fixture->postgres, "UPDATE chat.spool_positions p SET position_committed = b.position_committed FROM "
				"positions_before b WHERE p.spool = "
				"b.spool AND p.slot = b.slot");
	sql(&fixture->postgres, "DELETE FROM chat.messages WHERE conversation_id = %lld AND seq > %d", (long long)group, sent);
	sql(&fixture->postgres, "UPDATE chat.conversations SET last_seq = %d, last_ordinal = %d WHERE id = %lld", sent, sent,
		(long long)group);
	sql(&fixture->postgres, "DROP TABLE positions_before");
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
	save_positions(fixture);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_stop(&fixture->broker);
	put_back_database(fixture, group, EACH);
	int said = broker_log_count(&fixture->broker, "remove the file `committed`");
	assert_int_not_equal(broker_start_refused(&fixture->broker), 0);
	assert_int_equal(broker_log_count(&fixture->broker, "remove the file `committed`"), said + 1);
	check(unlink(text_of("%s/committed", spool_of(fixture))) == 0);
	broker_start(&fixture->broker);
	await_stored(fixture, group, sent); /* the spool still had them */
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
}

/* Nobody of the plugin's is connected meanwhile. */
static void keep_out(struct fixture *fixture)
{
	sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT 0");
	sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
	sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
}

static void let_in(struct fixture *fixture)
{
	sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT -1");
}

/* A standby takes over that was behind, or so it looks to a running broker: what was stored, acknowledged and delivered, and
 * is still in the spool, is stored again, in the same order and before what comes next. */
static void test_database_goes_back(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_objection(fixture);
	fixture_expect_error(fixture, "the database refused");
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	save_positions(fixture);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	int said = broker_log_count(&fixture->broker, "what the spool still holds is stored again"),
	    lost = broker_log_count(&fixture->broker, "IS LOST");
	keep_out(fixture);
	put_back_database(fixture, group, EACH);
	send(fixture, alice, group, &sent);
	let_in(fixture);
	await_stored(fixture, group, sent);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	broker_log_wait(&fixture->broker, "what the spool still holds is stored again", said + 1);
	assert_int_equal(broker_log_count(&fixture->broker, "IS LOST"), lost);
}

/* The oldest segment's path; the caller's to free. */
static char *oldest_segment(struct fixture *fixture)
{
	glob_t found;
	check(glob(text_of("%s/*.segment", spool_of(fixture)), 0, NULL, &found) == 0);
	char *path = strdup(found.gl_pathv[0]);
	globfree(&found);
	return path;
}

/* The same where the spool has let go of some of it. */
static void test_what_is_lost_is_said(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice), other = GROUP_OF(fixture, alice);
	static char body[20001];
	int sent = 0, filling = 0;
	memset(body, 'x', sizeof body - 1);
	expect_objection(fixture);
	fixture_expect_error(fixture, "the database refused");
	save_positions(fixture);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	char *holds_them = oldest_segment(fixture);
	struct client *client = fixture_client(fixture, alice, 4);
	for (; filling < 450; filling++) /* two segments */
		assert_true(client_publish(client, topic_of(other, "send"), body, 1) < 0x80);
	sql_wait(&fixture->postgres, filling, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)other);
	for (int64_t until_ms = now_ms() + 30000; access(holds_them, F_OK) == 0; clients_turn(20))
		assert_true(now_ms() < until_ms);
	free(holds_them);
	clients_close_all();
	int said = broker_log_count(&fixture->broker, "GONE FROM THE SPOOL IS LOST");
	keep_out(fixture);
	put_back_database(fixture, group, 0);
	let_in(fixture);
	sent = 0;
	send(fixture, alice, group, &sent);
	broker_log_wait(&fixture->broker, "GONE FROM THE SPOOL IS LOST", said + 1);
	await_stored(fixture, group, sent);
}

/* Somebody else has moved the positions of a running broker's spool: nothing is taken for stored, now or by the next one. */
static void moved_by_somebody(struct fixture *fixture, const char *by)
{
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_objection(fixture);
	fixture_expect_error(fixture, "the database refused");
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	int said = broker_log_count(&fixture->broker, "somebody else has moved this spool's positions");
	keep_out(fixture);
	send(fixture, alice, group, &sent);
	sql(&fixture->postgres, "UPDATE chat.spool_positions SET position_committed = position_committed + %s", by);
	let_in(fixture);
	broker_log_wait(&fixture->broker, "somebody else has moved this spool's positions", said + 1);
	send(fixture, alice, group, &sent);
	broker_stop(&fixture->broker);
	broker_start(&fixture->broker);
	await_stored(fixture, group, sent);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
}

static void test_moved_beyond_the_end(void **state)
{
	moved_by_somebody(*state, "1000000");
}

static void test_moved_into_a_record(void **state)
{
	moved_by_somebody(*state, "8");
}

/* What the role has set does not weaken a commit, nor end it. */
static void test_settings_of_the_session(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int sent = 0;
	sql(&fixture->postgres, "ALTER ROLE chat_plugin SET synchronous_commit = off");
	sql(&fixture->postgres, "ALTER ROLE chat_plugin SET statement_timeout = '1h'");
	sql(&fixture->postgres,
		"CREATE FUNCTION weak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'weak'; END $$; "
		"CREATE TRIGGER weak BEFORE INSERT ON chat.messages FOR EACH ROW WHEN (current_setting('synchronous_commit') = "
		"'off' OR current_setting('statement_timeout') <> '0') EXECUTE FUNCTION weak()");
	fixture_restart_broker(fixture, NULL);
	send(fixture, alice, group, &sent);
	await_stored(fixture, group, sent);
	sql(&fixture->postgres, "ALTER ROLE chat_plugin RESET ALL");
	sql(&fixture->postgres, "DROP TRIGGER weak ON chat.messages; DROP FUNCTION weak()");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lost_end),
		TEST(test_lost_end_found_later),
		TEST(test_flushed_end_is_not_lost),
		TEST(test_database_put_back),
		TEST(test_database_goes_back),
		TEST(test_what_is_lost_is_said),
		TEST(test_moved_beyond_the_end),
		TEST(test_moved_into_a_record),
		TEST(test_settings_of_the_session),
	};
	return cmocka_run_group_tests_name("positions", tests, fixture_setup, fixture_teardown);
}
