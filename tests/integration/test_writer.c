/* test_writer.c - what the tables do not take, now or ever, holds up nobody else: rows that an administrator keeps locked, and
 * records that can never be stored.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EACH = 30 };

static void execute(PGconn *connection, const char *command)
{
	PGresult *result = PQexec(connection, command);
	check(PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK);
	PQclear(result);
}

static void one_lane(struct fixture *fixture)
{
	const char *options[] = {"writers 1", NULL};
	fixture_restart_broker(fixture, options);
}

/* All conversations are one lane's. Two are locked by open transactions: the others go on, and these two come in their order
 * once they are free, also after the broker was killed meanwhile. */
static void locked_rows(struct fixture *fixture, bool killed)
{
	one_lane(fixture);
	int64_t alice = fixture_user(fixture), groups[8];
	for (int g = 0; g < 8; g++)
		groups[g] = GROUP_OF(fixture, alice);
	fixture_expect_error(fixture, "for longer than");
	fixture_expect_error(fixture, "chat: writer ");
	struct client *sender = fixture_client(fixture, alice, 5), *listener = fixture_client(fixture, alice, 4);
	for (int g = 0; g < 8; g++)
		assert_int_equal(client_subscribe(listener, topic_of(groups[g], "messages")), 1);
	fixture_await_loaded(listener);
	int told = broker_log_count(&fixture->broker, "keeps rows locked"),
	    over = broker_log_count(&fixture->broker, "what was set aside is stored");
	PGconn *session = postgres_connect(&fixture->postgres, "postgres");
	execute(session, "BEGIN");
	execute(session, text_of("SELECT FROM chat.conversations WHERE id IN (%lld, %lld) FOR UPDATE", (long long)groups[2],
				 (long long)groups[5]));
	for (int i = 0; i < EACH; i++) {
		for (int g = 0; g < 8; g++)
			client_send(sender, topic_of(groups[g], "send"), text_of("%d", i + 1));
	}
	client_settle(sender);
	for (int g = 0; g < 8; g++) {
		for (int i = 0; g != 2 && g != 5 && i < EACH; i++)
			expect_message(listener, groups[g], i + 1, alice, text_of("%d", i + 1));
	}
	broker_log_wait(&fixture->broker, "keeps rows locked", told + 1);
	if (killed) {
		broker_kill(&fixture->broker);
		clients_close_all();
		broker_start(&fixture->broker);
	}
	execute(session, "ROLLBACK");
	PQfinish(session);
	for (int g = 0; g < 8; g++) {
		sql_wait(&fixture->postgres, EACH,
			"SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND body::bigint = seq",
			(long long)groups[g]);
	}
	if (!killed) {
		for (int g = 2; g < 6; g += 3) {
			for (int i = 0; i < EACH; i++)
				expect_message(listener, groups[g], i + 1, alice, text_of("%d", i + 1));
		}
		broker_log_wait(&fixture->broker, "what was set aside is stored", over + 1);
		expect_silence(listener, NULL);
	}
}

static void test_locked_rows_hold_up_their_own(void **state)
{
	locked_rows(*state, false);
}

static void test_killed_while_rows_are_locked(void **state)
{
	locked_rows(*state, true);
}

/* In one batch with good ones, and alone: refused on record, answered, and the others stored without a gap. */
static void test_what_no_table_takes(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int stored = 0, refused = 0;
	fixture_expect_error(fixture, "refused by the tables");
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "chat: writer ");
	one_lane(fixture);
	struct client *sender = fixture_member(fixture, alice, 5, group);
	sql(&fixture->postgres, "ALTER TABLE chat.messages ADD CONSTRAINT no_poison CHECK (body !~ '^poison') NOT VALID");
	postgres_pause(&fixture->postgres);
	for (int i = 0; i < 3 * EACH; i++) {
		bool bad = i % 17 == 3 || i % 17 == 4 || i == 3 * EACH - 1;
		client_send(sender, topic_of(group, "send"), bad ? text_of("poison %d", ++refused) : text_of("%d", ++stored));
	}
	client_settle(sender);
	postgres_resume(&fixture->postgres);
	for (int i = 0; i < stored; i++)
		expect_message(sender, group, i + 1, alice, text_of("%d", i + 1));
	for (int i = 0; i < refused; i++)
		expect_error(sender, "internal");
	assert_true(client_publish(sender, topic_of(group, "send"), "poison alone", 1) < 0x80);
	expect_error(sender, "internal");
	assert_true(client_publish(sender, topic_of(group, "send"), "good", 1) < 0x80);
	expect_message(sender, group, stored + 1, alice, "good");
	expect_silence(sender, NULL);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.refusals WHERE conversation_id = %lld AND code = 'internal'",
				 (long long)group),
		refused + 1);
	/* settled for good: another start finds nothing to do again */
	broker_stop(&fixture->broker);
	broker_start(&fixture->broker);
	sql(&fixture->postgres, "ALTER TABLE chat.messages DROP CONSTRAINT no_poison");
	sender = fixture_member(fixture, alice, 5, group);
	client_publish(sender, topic_of(group, "send"), "poison no more", 1);
	expect_message(sender, group, stored + 2, alice, "poison no more");
}

/* A mark that its table does not take. */
static void test_mark_that_no_table_takes(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	fixture_expect_error(fixture, "refused by the tables");
	struct client *reader = fixture_member(fixture, bob, 5, group);
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, '1'), (%lld, '2')",
		(long long)group, (long long)group);
	expect_message(reader, group, 1, 0, "1");
	expect_message(reader, group, 2, 0, "2");
	sql(&fixture->postgres,
		"ALTER TABLE chat.participant_watermarks ADD CONSTRAINT no_poison CHECK (read_seq <> 1) NOT VALID");
	client_publish(reader, topic_of(group, "mark"), "{\"read\":1}", 1);
	expect_error(reader, "internal");
	client_publish(reader, topic_of(group, "mark"), "{\"read\":2}", 1);
	sql_wait(&fixture->postgres, 2,
		"SELECT read_seq FROM chat.participant_watermarks WHERE conversation_id = %lld AND user_id = %lld",
		(long long)group, (long long)bob);
	sql(&fixture->postgres, "ALTER TABLE chat.participant_watermarks DROP CONSTRAINT no_poison");
}

/* One lane, whose connection will be cut in a commit: it says so, as does the database. */
static void one_lane_unheard(struct fixture *fixture)
{
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "the database refused");
	fixture_expect_error(fixture, "chat: writer ");
	one_lane(fixture);
}

/* Accepted, and then its conversation is gone. */
static void test_conversation_is_gone(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), gone = GROUP_OF(fixture, alice), group = GROUP_OF(fixture, alice);
	one_lane_unheard(fixture);
	struct client *sender = fixture_member(fixture, alice, 5, group);
	client_publish(sender, topic_of(group, "send"), "the lane has connected", 1);
	expect_message(sender, group, 1, alice, "the lane has connected");
	/* the plugin is kept out while the conversation goes */
	sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT 0");
	sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
	sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
	for (int i = 0; i < EACH; i++)
		client_send(sender, topic_of(i % 2 ? gone : group, "send"), "x");
	client_settle(sender);
	sql(&fixture->postgres, "DELETE FROM chat.conversations WHERE id = %lld", (long long)gone);
	sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT -1");
	for (int i = 0; i < EACH / 2; i++)
		expect_message(sender, group, i + 2, alice, "x");
	for (int i = 0; i < EACH / 2; i++)
		expect_error(sender, "not_found");
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.refusals WHERE conversation_id = %lld",
				 (long long)gone),
		EACH / 2);
}

/* A commit that happens, and whose answer is never heard: it waits for a standby that does not exist, and the connection is
 * ended there. begin_unheard, something is sent, end_unheard. In between the plugin is kept out. */
static bool is_waiting(struct fixture *fixture, PGconn *session)
{
	return sql_integer(&fixture->postgres, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = %d",
		       PQbackendPID(session)) == 1;
}

static void begin_unheard(struct fixture *fixture)
{
	sql(&fixture->postgres, "SET synchronous_commit = local");
	sql(&fixture->postgres, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	sql(&fixture->postgres, "SELECT pg_reload_conf()");
	/* it holds from when the checkpointer has read it: a commit of ours finds out */
	PGconn *session = postgres_connect(&fixture->postgres, "postgres");
	while (!is_waiting(fixture, session)) {
		check(PQconsumeInput(session) == 1);
		if (!PQisBusy(session)) {
			PQclear(PQgetResult(session));
			check(PQisBusy(session) || PQtransactionStatus(session) != PQTRANS_IDLE ||
				PQsendQuery(session, "SELECT pg_logical_emit_message(true, 'probe', '')") == 1);
		}
	}
	PQfinish(session);
}

static void cut_unheard(struct fixture *fixture)
{
	sql_wait(&fixture->postgres, 1,
		"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'mosquitto-chat "
		"writer'");
	sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT 0");
	sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
	sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
	sql(&fixture->postgres, "ALTER SYSTEM RESET synchronous_standby_names");
	sql(&fixture->postgres, "SELECT pg_reload_conf()");
	sql_wait(&fixture->postgres, 1, "SELECT (current_setting('synchronous_standby_names') = '')::int");
	sql(&fixture->postgres, "RESET synchronous_commit");
}

static void let_in(struct fixture *fixture)
{
	sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT -1");
}

/* A mark whose commit was not heard is sent again, and its row is locked by then: nobody else waits for that. */
static void test_unheard_mark_is_locked(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice), other = GROUP_OF(fixture, alice);
	one_lane_unheard(fixture);
	struct client *client = fixture_member(fixture, alice, 5, group);
	client_publish(client, topic_of(group, "send"), "1", 1);
	expect_message(client, group, 1, alice, "1");
	assert_int_equal(client_subscribe(client, topic_of(other, "messages")), 1);
	begin_unheard(fixture);
	client_publish(client, topic_of(group, "mark"), "{\"read\":1}", 1);
	cut_unheard(fixture);
	PGconn *session = postgres_connect(&fixture->postgres, "postgres");
	execute(session, "BEGIN");
	execute(session,
		text_of("SELECT FROM chat.participant_watermarks WHERE conversation_id = %lld FOR UPDATE", (long long)group));
	let_in(fixture);
	client_publish(client, topic_of(other, "send"), "goes on", 1);
	expect_message(client, other, 1, alice, "goes on");
	execute(session, "ROLLBACK");
	PQfinish(session);
	assert_int_equal(
		sql_integer(&fixture->postgres,
			"SELECT read_seq FROM chat.participant_watermarks WHERE conversation_id = %lld AND user_id = %lld",
			(long long)group, (long long)alice),
		1);
}

/* A mark whose commit was not heard is told to the others all the same. */
static void test_unheard_mark_is_told(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	one_lane_unheard(fixture);
	struct client *client = fixture_member(fixture, alice, 5, group);
	int64_t bob = fixture_user(fixture);
	sql(&fixture->postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)group, (long long)bob);
	struct client *listener = fixture_member(fixture, bob, 5, group);
	client_publish(client, topic_of(group, "send"), "1", 1);
	expect_message(listener, group, 1, alice, "1");
	assert_int_equal(client_subscribe(client, topic_of(group, "receipts")), 1);
	begin_unheard(fixture);
	client_publish(listener, topic_of(group, "mark"), "{\"read\":1}", 1);
	cut_unheard(fixture);
	let_in(fixture);
	struct message *receipt = client_receive(client, topic_of(group, "receipts"));
	assert_non_null(strstr(receipt->payload, text_of("{\"user\":%lld,\"delivered\":1,\"read\":1,", (long long)bob)));
	message_free(receipt);
}

/* A mark that its table does not take, whose refusal was not heard. */
static void test_unheard_mark_is_poison(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	one_lane_unheard(fixture);
	struct client *client = fixture_member(fixture, alice, 5, group);
	client_publish(client, topic_of(group, "send"), "1", 1);
	expect_message(client, group, 1, alice, "1");
	sql(&fixture->postgres,
		"ALTER TABLE chat.participant_watermarks ADD CONSTRAINT no_poison CHECK (read_seq <> 1) NOT VALID");
	begin_unheard(fixture);
	client_publish(client, topic_of(group, "mark"), "{\"read\":1}", 1);
	cut_unheard(fixture);
	let_in(fixture);
	client_publish(client, topic_of(group, "send"), "goes on", 1);
	expect_message(client, group, 2, alice, "goes on");
	sql(&fixture->postgres, "ALTER TABLE chat.participant_watermarks DROP CONSTRAINT no_poison");
}

/* What content rules said of a message holds until its fate is known, though they are gone by then: what is delivered is what was
 * stored, and who was refused is told why. */
static void test_unheard_and_judged(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	one_lane_unheard(fixture);
	struct client *client = fixture_member(fixture, alice, 5, group);
	client_publish(client, topic_of(group, "send"), "the lane has connected", 1); /* that is a commit too */
	expect_message(client, group, 1, alice, "the lane has connected");
	for (int rejected = 0; rejected < 2; rejected++) {
		int loaded = broker_log_count(&fixture->broker, "content rules in force: 2");
		sql(&fixture->postgres,
			"INSERT INTO chat.content_rules (pattern, action) VALUES ('secret', '%s'), ('secret', 'flag')",
			rejected ? "reject" : "mask");
		broker_log_wait(&fixture->broker, "content rules in force: 2", loaded + 1);
		begin_unheard(fixture);
		client_publish(client, topic_of(group, "send"), "a secret", 1);
		cut_unheard(fixture);
		int unloaded = broker_log_count(&fixture->broker, "content rules in force: 0");
		sql(&fixture->postgres, "DELETE FROM chat.content_rules");
		let_in(fixture);
		/* What was stored may be delivered before the lane is back, and the next round is about a lane that has
		 * connected. */
		sql_wait(&fixture->postgres, 1,
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mosquitto-chat writer' AND state = "
			"'idle' AND "
			"query LIKE '%%settle_messages%%'");
		if (rejected) {
			struct message *answer = client_receive(client, answers_of(client));
			assert_string_equal(message_error(answer), "forbidden");
			assert_non_null(strstr(answer->payload, "\"field\":\"body\""));
			message_free(answer);
		} else {
			expect_message(client, group, 2, alice, "a ******");
		}
		broker_log_wait(&fixture->broker, "content rules in force: 0", unloaded + 1);
	}
	client_publish(client, topic_of(group, "send"), "no secret", 1);
	expect_message(client, group, 3, alice, "no secret");
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.reports WHERE conversation_id = %lld AND seq = 2", (long long)group),
		1);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.refusals WHERE conversation_id = %lld",
				 (long long)group),
		1);
}

/* The server's end of a connection that was given up on stands there with all its locks: it is ended. */
static void test_old_connection_is_ended(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "chat: writer ");
	one_lane(fixture);
	struct client *client = fixture_member(fixture, alice, 5, group);
	sql(&fixture->postgres, "CREATE SEQUENCE stand; GRANT ALL ON SEQUENCE stand TO PUBLIC; "
				"CREATE FUNCTION stand() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
				"IF nextval('public.stand') = 1 THEN PERFORM pg_sleep(600); END IF; RETURN new; END $$; "
				"CREATE TRIGGER stand BEFORE INSERT ON chat.messages FOR EACH ROW EXECUTE FUNCTION stand()");
	sql(&fixture->postgres, "REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC");
	int refused = broker_log_count(&fixture->broker, "permission denied for function pg_terminate_backend; messages wait");
	client_publish(client, topic_of(group, "send"), "1", 1);
	int told = broker_log_count(&fixture->broker, "no answer within the time limit");
	for (int64_t until_ms = now_ms() + 60000; /* after its 30 s */
		broker_log_count(&fixture->broker, "no answer within the time limit") == told; clients_turn(100))
		assert_true(now_ms() < until_ms);
	/* It has tried in vain to end it: it tries again, and not only to end what it tried with. */
	broker_log_wait(&fixture->broker, "permission denied for function pg_terminate_backend; messages wait", refused + 1);
	sql(&fixture->postgres, "GRANT EXECUTE ON FUNCTION pg_terminate_backend TO PUBLIC");
	sql_wait(&fixture->postgres, 1, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	sql(&fixture->postgres, "DROP TRIGGER stand ON chat.messages; DROP FUNCTION stand(); DROP SEQUENCE stand");
}

/* Refused by a trigger for what is in one message, in a class of errors that is not of data as such. */
static void test_what_a_trigger_refuses(void **state)
{
	static const char *const codes[] = {"P0002", "21000", "44000"};
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int seq = 0;
	fixture_expect_error(fixture, "refused by the tables");
	one_lane(fixture);
	struct client *client = fixture_member(fixture, alice, 5, group);
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
		sql(&fixture->postgres,
			"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '%s'; "
			"END $$; "
			"CREATE TRIGGER refuse BEFORE INSERT ON chat.messages FOR EACH ROW WHEN (new.body = 'bad') "
			"EXECUTE FUNCTION refuse()",
			codes[i]);
		client_publish(client, topic_of(group, "send"), "bad", 1);
		expect_error(client, "internal");
		client_publish(client, topic_of(group, "send"), "good", 1);
		expect_message(client, group, ++seq, alice, "good");
		sql(&fixture->postgres, "DROP TRIGGER refuse ON chat.messages; DROP FUNCTION refuse()");
	}
}

/* What the server cannot do with one record (a damaged page, say) and can with others: its slot alone waits, and is not refused.
 */
static void test_what_the_server_cannot_do(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), groups[8];
	fixture_expect_error(fixture, "chat: writer ");
	one_lane(fixture);
	for (int g = 0; g < 8; g++)
		groups[g] = GROUP_OF(fixture, alice);
	struct client *client = fixture_client(fixture, alice, 5);
	for (int g = 0; g < 8; g++)
		assert_int_equal(client_subscribe(client, topic_of(groups[g], "messages")), 1);
	fixture_await_loaded(client);
	int over = broker_log_count(&fixture->broker, "what was set aside is stored");
	sql(&fixture->postgres, "CREATE FUNCTION damaged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
				"RAISE 'invalid page' USING ERRCODE = 'XX001'; END $$; "
				"CREATE TRIGGER damaged BEFORE INSERT ON chat.messages FOR EACH ROW WHEN (new.body = 'bad') "
				"EXECUTE FUNCTION damaged()");
	for (int g = 0; g < 8; g++)
		client_send(client, topic_of(groups[g], "send"), g == 3 ? "bad" : "1");
	for (int g = 0; g < 8; g++)
		client_send(client, topic_of(groups[g], "send"), "2");
	client_settle(client);
	for (int g = 0; g < 8; g++) {
		if (g != 3) {
			expect_message(client, groups[g], 1, alice, "1");
			expect_message(client, groups[g], 2, alice, "2");
		}
	}
	sql(&fixture->postgres, "DROP TRIGGER damaged ON chat.messages; DROP FUNCTION damaged()");
	expect_message(client, groups[3], 1, alice, "bad");
	expect_message(client, groups[3], 2, alice, "2");
	broker_log_wait(&fixture->broker, "what was set aside is stored", over + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_locked_rows_hold_up_their_own),
		TEST(test_killed_while_rows_are_locked),
		TEST(test_what_no_table_takes),
		TEST(test_mark_that_no_table_takes),
		TEST(test_conversation_is_gone),
		TEST(test_unheard_mark_is_locked),
		TEST(test_unheard_mark_is_told),
		TEST(test_unheard_mark_is_poison),
		TEST(test_unheard_and_judged),
		TEST(test_old_connection_is_ended),
		TEST(test_what_a_trigger_refuses),
		TEST(test_what_the_server_cannot_do),
	};
	return cmocka_run_group_tests_name("writer", tests, fixture_setup, fixture_teardown);
}
