/* test_order.c - one order for everybody: 1, 2, 3 without a gap, commit before delivery, whoever commits. Threat 57. */
#include "fixture.h"

#include <signal.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EACH = 1000, PUBLISHERS = 4, TOTAL = EACH * PUBLISHERS, LISTENERS = 3 };
/* So many may be on their way at once: whatever stands still for how long, that is not a backlog of which one is only told. */
enum { WINDOW = 400 };

/* Receives `count` messages on the topic and checks that they are first, first + 1, ... without a gap. */
static void expect_run(struct client *client, int64_t conversation, int64_t first, int64_t count)
{
	const char *topic = topic_of(conversation, "messages");
	for (int64_t seq = first; seq < first + count; seq++) {
		struct message *message = client_receive(client, topic);
		if (message_integer(message, "seq") != seq)
			fail_msg("%s expected seq %lld and got %.100s", client_id(client), (long long)seq, message->payload);
		message_free(message);
	}
}

/* The conversation's next message at all listeners: the same for each, and the sender's next one. */
static void hear(struct client *const listeners[LISTENERS], int64_t group, int64_t seq, const int64_t *users, int64_t *lasts)
{
	char *first = NULL;
	for (size_t i = 0; i < LISTENERS; i++) {
		struct message *message = client_receive(listeners[i], topic_of(group, "messages"));
		assert_int_equal(message_integer(message, "seq"), seq);
		if (!first) {
			int64_t number = strtoll(message_string(message, "body"), NULL, 10),
				from = message_integer(message, "from");
			size_t sender = 0;
			while (users[sender] != from)
				sender++;
			assert_int_equal(number, lasts[sender] + 1);
			lasts[sender] = number;
			first = strdup(message->payload);
		} else {
			assert_string_equal(message->payload, first);
		}
		message_free(message);
	}
	free(first);
}

/* Four publishers at full speed: every subscriber sees the same messages in the same order, and each sender's own stay in the
 * order in which they were sent. Resends between them change nothing. */
static void test_four_publishers(void **state)
{
	struct fixture *fixture = *state;
	int64_t users[] = {fixture_user(fixture), fixture_user(fixture), fixture_user(fixture), fixture_user(fixture), 0};
	int64_t group = fixture_group(fixture, users), lasts[PUBLISHERS] = {0}, seq = 0;
	struct client *publishers[PUBLISHERS], *listeners[LISTENERS];
	const char *topic = topic_of(group, "send");
	char ids[PUBLISHERS][40];
	for (size_t i = 0; i < PUBLISHERS; i++)
		publishers[i] = fixture_client(fixture, users[i], i % 2 ? 4 : 5);
	for (size_t i = 0; i < LISTENERS; i++)
		listeners[i] = fixture_member(fixture, users[i], i % 2 ? 4 : 5, group);
	for (int n = 1; n <= EACH; n++) {
		for (size_t i = 0; i < PUBLISHERS; i++) {
			char payload[128];
			snprintf(ids[i], sizeof ids[i], "%s", new_id());
			snprintf(payload, sizeof payload, "{\"id\":\"%s\",\"body\":\"%d\"}", ids[i], n);
			client_send(publishers[i], topic, payload);
			if (n % 10 == 0)
				client_send(publishers[i], topic, payload);
		}
		if (n % 25 == 0)
			clients_turn(0);
		while (n * PUBLISHERS - seq > WINDOW)
			hear(listeners, group, ++seq, users, lasts);
	}
	while (seq < TOTAL)
		hear(listeners, group, ++seq, users, lasts);
	for (size_t i = 0; i < PUBLISHERS; i++)
		client_settle(publishers[i]);
	for (size_t i = 0; i < LISTENERS; i++)
		expect_silence(listeners[i], NULL);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)group),
		TOTAL);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group),
		TOTAL);
}

/* While psql holds a conversation's row, nothing of it is delivered and others are not held up; then all comes, in order. */
static void test_held_row_holds_delivery(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture);
	/* The other conversation must not be held up by a lane that waits: one of those below is on the other lane. */
	int64_t held = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, held), *listener = fixture_member(fixture, bob, 4, held);
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PQclear(PQexec(holder, "BEGIN"));
	PQclear(PQexec(holder, text_of("SELECT 1 FROM chat.conversations WHERE id = %lld FOR UPDATE", (long long)held)));
	for (int i = 0; i < 500; i++)
		client_send(sender, topic_of(held, "send"), "waiting");
	client_settle(sender);
	/* All is accepted, and a lane is seen waiting for the row: had anything been delivered, it would be here. */
	sql_wait(&fixture->postgres, 1, "SELECT least(count(*), 1) FROM pg_locks WHERE NOT granted");
	expect_silence(listener, NULL);
	expect_silence(sender, NULL);
	PQclear(PQexec(holder, "COMMIT"));
	PQfinish(holder);
	expect_run(listener, held, 1, 500);
	expect_run(sender, held, 1, 500);
}

/* Who subscribes before the memberships are loaded is granted it, and gets nothing until then: what was delivered to others
 * meanwhile is told as "behind", or that client would not know that it lacks it. */
static void test_subscribed_before_it_was_known(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), dave = fixture_user(fixture);
	int64_t group = GROUP_OF(fixture, alice, bob);
	const char *topic = topic_of(group, "messages");
	struct client *sender = fixture_member(fixture, alice, 5, group);
	client_send(sender, topic_of(group, "send"), "before");
	expect_message(sender, group, 1, alice, "before");
	pid_t loader = postgres_hold(&fixture->postgres, "mosquitto-chat loader"); /* no session can be opened */
	struct client *late = fixture_client(fixture, bob, 4), *stranger = fixture_client(fixture, dave, 4);
	assert_int_equal(client_subscribe(late, topic), 1);
	assert_int_equal(client_subscribe(stranger, topic), 1);
	client_send(sender, topic_of(group, "send"), "meanwhile");
	expect_message(sender, group, 2, alice, "meanwhile");
	check(kill(loader, SIGCONT) == 0);
	struct message *notice = client_receive(late, topic);
	assert_string_equal(notice->payload, text_of("{\"conversation\":%lld,\"behind\":true,\"last_seq\":2}", (long long)group));
	message_free(notice);
	message_free(client_receive(sender, topic)); /* all are told: for who holds the entries it says nothing new */
	client_send(sender, topic_of(group, "send"), "after");
	expect_message(late, group, 3, alice, "after");
	expect_message(sender, group, 3, alice, "after");
	fixture_await_loaded(stranger);
	expect_silence(stranger, topic);
}

/* Delivered means committed: at each receipt the row is there for another connection. */
static void test_commit_comes_before_delivery(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 4, group);
	for (int i = 1; i <= 200; i++) {
		client_send(sender, topic_of(group, "send"), "x");
		expect_run(listener, group, i, 1);
		assert_int_equal(sql_integer(&fixture->postgres,
					 "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND seq = %d",
					 (long long)group, i),
			1);
	}
	client_settle(sender);
}

/* An administrator's entry has its place in the order, and reaches subscribers in it, while others publish. */
static void test_entries_from_psql(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, bob, 4, group);
	int64_t from_psql = 0;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 20; i++)
			client_send(sender, topic_of(group, "send"), "from alice");
		sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'from psql')",
			(long long)group);
		clients_turn(1);
	}
	client_settle(sender);
	for (int64_t seq = 1; seq <= 20 * 21; seq++) {
		struct message *message = client_receive(listener, topic_of(group, "messages"));
		assert_int_equal(message_integer(message, "seq"), seq);
		bool own = !strcmp(message_string(message, "body"), "from psql");
		if (own) {
			assert_string_equal(message_string(message, "type"), "system");
			assert_false(message_has(message, "from"));
		}
		from_psql += own;
		message_free(message);
	}
	assert_int_equal(from_psql, 20);
	/* Several in one transaction, and a transaction that is rolled back leaves no gap. */
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, body) SELECT %lld, 'bulk' FROM generate_series(1, 300)",
		(long long)group);
	sql(&fixture->postgres, "BEGIN; INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'never'); ROLLBACK",
		(long long)group);
	client_send(sender, topic_of(group, "send"), "last");
	expect_run(listener, group, 421, 301);
	expect_silence(listener, NULL);
}

enum { ENTRIES = 50 };

static int by_value(const void *a, const void *b)
{
	const int64_t *one = a, *other = b;
	return (*one > *other) - (*one < *other);
}

static int64_t median(int64_t *values, size_t count)
{
	qsort(values, count, sizeof(values[0]), by_value);
	return values[count / 2];
}

/* What psql does is noticed at once and not at the next time something looks: most entries are delivered within 100 ms and ten
 * round trips through the broker, which are all that this machine makes of nothing while it is busy. */
static void test_announcements_are_quick(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *listener = fixture_member(fixture, alice, 5, group);
	int64_t took_ns[ENTRIES], trip_ns[ENTRIES];
	for (int i = 0; i < ENTRIES; i++) {
		trip_ns[i] = -now_ns();
		client_fence(listener);
		trip_ns[i] += now_ns();
		sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'x')", (long long)group);
		int64_t since_ns = now_ns();
		struct message *message = client_receive(listener, topic_of(group, "messages"));
		took_ns[i] = message->received_ns - since_ns;
		message_free(message);
	}
	int64_t most_took_ns = median(took_ns, ENTRIES), most_trips_ns = median(trip_ns, ENTRIES);
	print_message("entries from psql: median %.1f ms, slowest %.1f ms; round trips: median %.1f ms\n",
		(double)most_took_ns / 1e6, (double)took_ns[ENTRIES - 1] / 1e6, (double)most_trips_ns / 1e6);
	assert_true(most_took_ns < allowed_ms(100) * 1000000 + 10 * most_trips_ns);

	struct client *newcomer = fixture_client(fixture, bob, 4);
	fixture_await_loaded(newcomer);
	assert_int_equal(client_subscribe(newcomer, topic_of(group, "messages")), 0x80);
	sql(&fixture->postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)group, (long long)bob);
	int64_t since_ms = now_ms();
	while (client_subscribe(newcomer, topic_of(group, "messages")) != 1)
		assert_true(now_ms() - since_ms < 30000);
	print_message("a new member may subscribe after %lld ms\n", (long long)(now_ms() - since_ms));
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'welcome')", (long long)group);
	expect_message(newcomer, group, ENTRIES + 1, 0, "welcome");
}

/* threat 57: a removal and the removed one's messages have one order: stored with a number, or refused and on record. */
static void test_removed_while_sending(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, bob, 5, group), *listener = fixture_member(fixture, alice, 4, group);
	enum { COUNT = 600 };
	int stored = 0, refused = 0;
	for (int i = 0; i < COUNT; i++) {
		client_send(
			sender, topic_of(group, "send"), text_of("{\"id\":\"%s\",\"body\":\"%d\",\"reply\":true}", new_id(), i));
		if (i == 10)
			expect_run(listener, group, 1, 1);
		if (i == COUNT / 2)
			sql(&fixture->postgres,
				"DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
				(long long)group, (long long)bob);
	}
	client_settle(sender);
	while (stored + refused < COUNT) {
		struct message *answer = client_receive(sender, answers_of(sender));
		if (message_has(answer, "error")) {
			assert_string_equal(message_error(answer), "not_found");
			refused++;
		} else {
			stored++;
		}
		message_free(answer);
	}
	print_message("%d stored, %d refused\n", stored, refused);
	assert_true(refused > 0);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)group),
		stored);
	expect_run(listener, group, 2, stored - 1);
	expect_silence(listener, NULL);
}

/* Batches are really made: what waits while the database stands still is stored in few transactions. */
static void test_batches_are_made(void **state)
{
	enum { CLIENTS = 8, OF_EACH = 500, WAITING = CLIENTS * OF_EACH };
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *clients[CLIENTS];
	const char *topic = topic_of(group, "send");
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "chat: writer ");
	for (size_t i = 0; i < CLIENTS; i++)
		clients[i] = fixture_client(fixture, alice, 4);
	postgres_pause(&fixture->postgres);
	for (int n = 0; n < OF_EACH; n++) {
		for (size_t i = 0; i < CLIENTS; i++)
			client_send(clients[i], topic, "x");
	}
	for (size_t i = 0; i < CLIENTS; i++)
		client_settle(clients[i]);
	postgres_resume(&fixture->postgres);
	sql_wait(&fixture->postgres, WAITING, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	int64_t commits = sql_integer(&fixture->postgres,
		"SELECT count(DISTINCT xmin::text) FROM chat.messages WHERE conversation_id = %lld", (long long)group);
	print_message("%d messages in %lld transactions\n", WAITING, (long long)commits);
	assert_in_range(commits, 1, WAITING / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_four_publishers),
		TEST(test_held_row_holds_delivery),
		TEST(test_subscribed_before_it_was_known),
		TEST(test_commit_comes_before_delivery),
		TEST(test_entries_from_psql),
		TEST(test_announcements_are_quick),
		TEST(test_removed_while_sending),
		TEST(test_batches_are_made),
	};
	return cmocka_run_group_tests_name("order", tests, fixture_setup, fixture_teardown);
}
