/* test_outage.c - the database stops, hangs, dies, loses connections: nobody is disconnected, nothing is lost, doubled or
 * reordered, and the broker goes on.
 */
#include "fixture.h"
#include "raw.h"
#include "stall_probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Longer than this a commit makes an outage, whether the connection breaks or not. */
enum { AWAY_MS = 1500 };
/* The machine may be busy with other things: what the broker itself makes of it would be there every time. */
enum { ATTEMPTS = 6 };

/* What the plugin says when the database goes. */
static void expect_outage(struct fixture *fixture)
{
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "the database refused");
	fixture_expect_error(fixture, "chat: writer ");
}

static void expect_run(struct client *client, int64_t conversation, int64_t first, int64_t count)
{
	for (int64_t seq = first; seq < first + count; seq++) {
		struct message *message = client_receive(client, topic_of(conversation, "messages"));
		assert_int_equal(message_integer(message, "seq"), seq);
		message_free(message);
	}
}

/* Stopped: signing in and publishing go on, subscribers stay; started: all that was accepted comes, in the order of sending. */
static void test_stopped_and_started(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 4, group);
	expect_outage(fixture);
	client_publish(sender, topic_of(group, "send"), "0", 1);
	expect_message(listener, group, 1, alice, "0");
	postgres_stop(&fixture->postgres);
	struct client *late = fixture_client(fixture, alice, 4);
	for (int i = 1; i <= 200; i++)
		assert_true(client_publish(i % 2 ? sender : late, topic_of(group, "send"), text_of("%d", i), 1) < 0x80);
	expect_silence(listener, NULL);
	assert_true(client_is_connected(listener) && client_is_connected(sender));
	broker_log_wait(&fixture->broker, "until it answers", 1); /* else nobody noticed, and says that it is over */
	postgres_start(&fixture->postgres);
	for (int i = 1; i <= 200; i++)
		expect_message(listener, group, i + 1, alice, text_of("%d", i));
	broker_log_wait(&fixture->broker, "connected again", 1);
	/* Said once when it broke, by each part that has a connection, and once when it healed. */
	assert_true(broker_log_count(&fixture->broker, "messages wait until it answers") <= 2);
	/* And what changes afterwards is announced again. */
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'after')", (long long)group);
	expect_message(listener, group, 202, 0, "after");
}

/* Killed with kill -9 under load, twice: what had PUBACK is there exactly once, in the sender's order. */
static void test_killed_under_load(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 4, group);
	int sent = 0;
	expect_outage(fixture);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 150; i++)
			client_send(sender, topic_of(group, "send"), text_of("%d", ++sent));
		expect_run(listener, group, sent - 149, 1);
		postgres_kill(&fixture->postgres);
		client_settle(sender);
		postgres_start(&fixture->postgres);
		expect_run(listener, group, sent - 148, 149);
	}
	expect_silence(listener, NULL);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND body::bigint = seq",
				 (long long)group),
		sent);
}

/* Connections cut one after the other at full speed: the fate of a commit that was under way is found out, not guessed. */
static void test_connections_cut_under_load(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 4, group);
	enum { ROUNDS = 15, EACH = 200 };
	expect_outage(fixture);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < EACH; i++)
			client_send(sender, topic_of(group, "send"), text_of("%d", round * EACH + i + 1));
		clients_turn(1);
		sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		client_settle(sender);
		expect_run(listener, group, round * EACH + 1, EACH);
	}
	expect_silence(listener, NULL);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND body::bigint = seq",
				 (long long)group),
		ROUNDS * EACH);
}

/* LISTEN lost in the very moment of a removal: nothing stale is served. */
static void test_lost_announcements(void **state)
{
	struct fixture *fixture = *state;
	expect_outage(fixture);
	for (int round = 0; round < 5; round++) {
		int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
		struct client *sender = fixture_member(fixture, alice, 5, group),
			      *removed = fixture_member(fixture, bob, 4, group);
		/* New connections are kept out while the change is made, so that its announcement is heard by nobody. */
		sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT 0");
		sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		sql(&fixture->postgres,
			"DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
			(long long)group, (long long)bob);
		sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'secret')",
			(long long)group);
		client_publish(sender, topic_of(group, "send"), "secret too", 1);
		sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT -1");
		expect_message(sender, group, 1, 0, "secret");
		expect_message(sender, group, 2, alice, "secret too");
		expect_silence(removed, NULL);
		assert_true(client_is_connected(removed));
	}
}

/* An older state of the database, in which members were not changed yet: what comes then waits for no version that was. */
static void test_older_members(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	expect_outage(fixture);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 5, group);
	assert_int_equal(client_subscribe(sender, topic_of(group, "receipts")), 1);
	for (int seq = 1; seq <= 2; seq++) {
		client_publish(sender, topic_of(group, "send"), "x", 1);
		expect_message(listener, group, seq, alice, "x");
		client_publish(listener, topic_of(group, "mark"), text_of("{\"read\":%d}", seq), 1);
		struct message *receipt = client_receive(sender, topic_of(group, "receipts"));
		assert_non_null(strstr(receipt->payload, text_of("\"read\":%d,", seq)));
		message_free(receipt);
		sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT 0");
		sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		sql(&fixture->postgres, "UPDATE chat.conversations SET members_version = 1 WHERE id = %lld", (long long)group);
		sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT -1");
	}
}

static void expect_added(struct client *client, int64_t user, int64_t conversation)
{
	struct message *message = client_receive(client, user_topic(user, "inbox"));
	assert_string_equal(message_string(message, "event"), "added");
	assert_int_equal(message_integer(message, "conversation"), conversation);
	message_free(message);
}

/* What concerns a user and is announced to nobody is told when the database is back: once, and nothing from before again. */
static void test_lost_events(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture);
	expect_outage(fixture);
	struct client *client = fixture_client(fixture, user, 5);
	assert_int_equal(client_subscribe(client, user_topic(user, "inbox")), 1);
	fixture_await_loaded(client);
	expect_added(client, user, GROUP_OF(fixture, user));
	for (int round = 0; round < 2; round++) {
		sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT 0");
		sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'");
		int64_t group = GROUP_OF(fixture, user);
		sql(&fixture->postgres, "ALTER ROLE chat_plugin CONNECTION LIMIT -1");
		expect_added(client, user, group);
	}
	expect_added(client, user, GROUP_OF(fixture, user));
	expect_silence(client, user_topic(user, "inbox"));
}

/* The queue has a bound: beyond it publishes are refused as overloaded, and nothing that was accepted is lost. */
static void test_full_queue_is_said(void **state)
{
	struct fixture *fixture = *state;
	const char *options[] = {"spool_max_bytes 4M", NULL};
	fixture_restart_broker(fixture, options);
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *old = fixture_member(fixture, alice, 4, group);
	struct client *listener = fixture_member(fixture, bob, 4, group);
	static char body[20001];
	int accepted = 0;
	memset(body, 'x', sizeof body - 1);
	expect_outage(fixture);
	fixture_expect_error(fixture, "full");
	postgres_stop(&fixture->postgres);
	while (client_publish(sender, topic_of(group, "send"), body, 1) < 0x80)
		assert_true(++accepted < 1000);
	struct message *error = client_receive(sender, answers_of(sender));
	assert_string_equal(message_error(error), "overloaded");
	assert_non_null(strstr(error->payload, "retry_after_ms"));
	message_free(error);
	assert_int_equal(client_publish(old, topic_of(group, "send"), body, 1), CLOSED);
	assert_true(client_is_connected(sender) && client_is_connected(listener));
	print_message("%d messages of 20 kB fit\n", accepted);
	assert_true(accepted > 50);
	postgres_start(&fixture->postgres);
	sql_wait(&fixture->postgres, accepted, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	while (client_publish(sender, topic_of(group, "send"), "room again", 1) >= 0x80)
		clients_turn(20);
	fixture_restart_broker(fixture, NULL);
}

/* A backlog that is too long to push is one notice, and what comes next is delivered as ever. Returns how many they were. */
static int long_backlog(struct fixture *fixture, void (*away)(struct postgres *), void (*back)(struct postgres *))
{
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_client(fixture, alice, 5), *listener = fixture_member(fixture, bob, 4, group);
	enum { COUNT = 3000 };
	expect_outage(fixture);
	away(&fixture->postgres);
	int64_t since_ms = now_ms();
	for (int i = 0; i < COUNT; i++)
		client_send(sender, topic_of(group, "send"), "x");
	client_settle(sender);
	while (now_ms() - since_ms < AWAY_MS)
		clients_turn(AWAY_MS);
	back(&fixture->postgres);
	sql_wait(&fixture->postgres, COUNT, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	client_send(sender, topic_of(group, "send"), "new");
	/* Whatever was delivered came in order; the rest is told by notices up to the number before the new one. */
	int64_t known = 0;
	int notices = 0;
	while (known < COUNT + 1) {
		struct message *message = client_receive(listener, topic_of(group, "messages"));
		if (message_has(message, "behind")) {
			assert_true(message_integer(message, "last_seq") > known);
			known = message_integer(message, "last_seq");
			notices++;
		} else {
			assert_int_equal(message_integer(message, "seq"), known + 1);
			known++;
		}
		message_free(message);
	}
	client_send(sender, topic_of(group, "send"), "newest");
	expect_message(listener, group, COUNT + 2, alice, "newest");
	client_close(sender);
	client_close(listener);
	print_message("%d notices\n", notices);
	return notices;
}

/* Where a lane stands still before it sends its batch, the database was not away for it; where it does between two batches, each
 * is a backlog of its own. */
static void few_notices(struct fixture *fixture, void (*away)(struct postgres *), void (*back)(struct postgres *), int fewest)
{
	enum { MOST = 3 };
	int notices = -1;
	for (int attempt = 0; attempt < ATTEMPTS && (notices < fewest || notices > MOST); attempt++)
		notices = long_backlog(fixture, away, back);
	assert_in_range(notices, fewest, MOST);
}

static void test_long_backlog_is_one_notice(void **state)
{
	/* None, where the log was read faster than its lane committed it. */
	few_notices(*state, postgres_stop, postgres_start, 0);
	/* No connection breaks: what the database did not answer in a second is a backlog all the same. */
	few_notices(*state, postgres_pause, postgres_resume, 1);
}

/* SIGTERM under load: it ends by itself, what was accepted is stored by then, and in any case later. (A lane that has no
 * connection at this moment is not waited for, nor a database that takes seconds.) */
static void test_terminated_under_load(void **state)
{
	enum { COUNT = 300 };
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), stored = 0;
	expect_outage(fixture); /* a lane that had nothing to do since the last one finds out now */
	for (int attempt = 0; attempt < ATTEMPTS && stored < COUNT; attempt++) {
		long long group = GROUP_OF(fixture, alice);
		struct client *sender = fixture_client(fixture, alice, 5);
		for (int i = 0; i < COUNT; i++)
			client_send(sender, topic_of(group, "send"), "x");
		client_settle(sender);
		broker_stop(&fixture->broker);
		clients_close_all();
		stored = sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", group);
		broker_start(&fixture->broker);
		sql_wait(&fixture->postgres, COUNT, "SELECT last_seq FROM chat.conversations WHERE id = %lld", group);
	}
	assert_int_equal(stored, COUNT);
}

/* The broker starts while the database is down, and works as soon as it is up. */
static void test_start_without_database(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	expect_outage(fixture);
	broker_stop(&fixture->broker);
	postgres_stop(&fixture->postgres);
	broker_start(&fixture->broker);
	struct client *client = fixture_client(fixture, alice, 5);
	assert_int_equal(client_subscribe(client, topic_of(group, "messages")), 1);
	assert_true(client_publish(client, topic_of(group, "send"), "early", 1) < 0x80);
	postgres_start(&fixture->postgres);
	struct message *message = client_receive(client, topic_of(group, "messages"));
	if (message_has(message, "behind")) /* it was delivered before it was known who this is */
		assert_int_equal(message_integer(message, "last_seq"), 1);
	else
		assert_string_equal(message_string(message, "body"), "early");
	message_free(message);
	assert_true(client_publish(client, topic_of(group, "send"), "next", 1) < 0x80);
	expect_message(client, group, 2, alice, "next");
}

/* ------------------------------------------------------------------------------- the broker's thread goes on */

enum { CLIENTS = 1000, FILTERS = 20, STALL_MS = 60 };

static void subscribe_to_many(struct raw *raw, unsigned first)
{
	raw_begin(raw, 0x82);
	raw_u16(raw, 1);
	for (unsigned i = 0; i < FILTERS; i++) {
		char filter[64];
		snprintf(filter, sizeof filter, "chat/%u/messages", 1 + (first + i) % 3);
		if (i >= 3)
			snprintf(filter, sizeof filter, "chat/%u/messages", 1000 + first * FILTERS + i);
		raw_text(raw, filter);
		raw_u8(raw, 1);
	}
	assert_true(raw_end(raw));
}

/* 1,000 clients that subscribe to 20 conversations each, while the database hangs. Returns the longest stall. */
static int64_t stall_while_paused(struct fixture *fixture)
{
	static struct raw *clients[CLIENTS];
	struct raw_packet packet;
	char *token = fixture_token(fixture, ALICE, 0, 600);
	char *probes = fixture_token(fixture, DAVE, 0, 600);
	struct probe probe;
	probe_start(&probe, fixture->broker.port, fixture->broker.process.pid, probes);
	postgres_pause(&fixture->postgres);
	for (unsigned i = 0; i < CLIENTS; i++) {
		char id[32];
		snprintf(id, sizeof id, "many-%u", i);
		clients[i] = raw_open(fixture->broker.port);
		assert_int_equal(raw_connect(clients[i], 4, id, token, strlen(token)), 0);
		subscribe_to_many(clients[i], i);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_true(raw_read_type(clients[i], 0x90, &packet));
	postgres_resume(&fixture->postgres);
	free(token);
	free(probes);
	/* Loaded again, late: the load of a thousand sessions must not stall it either. */
	struct client *client = fixture_client(fixture, BOB, 4);
	fixture_await_loaded(client);
	struct probe_report report = probe_end(&probe);
	for (unsigned i = 0; i < CLIENTS; i++)
		raw_close(clients[i]);
	client_close(client);
	assert_false(report.lost);
	return report.longest_own_us / 1000;
}

static void test_broker_goes_on_while_database_hangs(void **state)
{
	struct fixture *fixture = *state;
	int64_t shortest_ms = INT64_MAX;
	expect_outage(fixture);
	for (int attempt = 0; attempt < ATTEMPTS && shortest_ms > allowed_ms(STALL_MS); attempt++) {
		int64_t longest_ms = stall_while_paused(fixture);
		print_message("longest stall: %lld ms\n", (long long)longest_ms);
		shortest_ms = longest_ms < shortest_ms ? longest_ms : shortest_ms;
	}
	assert_true(shortest_ms <= allowed_ms(STALL_MS));
}

/* Paused for longer than the plugin waits for an answer: it gives the connection up, and what it had sent is neither lost nor
 * stored twice. */
static void test_paused_and_resumed(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 4, group);
	expect_outage(fixture);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 100; i++)
			client_send(sender, topic_of(group, "send"), text_of("%d", round * 100 + i + 1));
		clients_turn(0);
		postgres_pause(&fixture->postgres);
		client_settle(sender);
		client_fence(listener);
		postgres_resume(&fixture->postgres);
		for (int i = 0; i < 100; i++)
			expect_message(listener, group, round * 100 + i + 1, alice, text_of("%d", round * 100 + i + 1));
	}
}

int main(void)
{
	struct rlimit files;
	const struct CMUnitTest tests[] = {
		TEST(test_stopped_and_started),
		TEST(test_killed_under_load),
		TEST(test_connections_cut_under_load),
		TEST(test_lost_announcements),
		TEST(test_older_members),
		TEST(test_lost_events),
		TEST(test_full_queue_is_said),
		TEST(test_long_backlog_is_one_notice),
		TEST(test_terminated_under_load),
		TEST(test_start_without_database),
		TEST(test_broker_goes_on_while_database_hangs),
		TEST(test_paused_and_resumed),
	};
	/* For a thousand connections, here and in the broker. */
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	return cmocka_run_group_tests_name("outage", tests, fixture_setup, fixture_teardown);
}
