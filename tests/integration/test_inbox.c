/* test_inbox.c - what comes to chat/user/{user}/inbox, and what a thread does now and then: the search index. */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *inbox_of(int64_t user)
{
	return user_topic(user, "inbox");
}

static struct client *listener(struct fixture *fixture, int64_t user, int version)
{
	struct client *client = fixture_client(fixture, user, version);
	assert_int_equal(client_subscribe(client, inbox_of(user)), 1);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	fixture_await_loaded(client);
	return client;
}

/* The next event of the user's that is called so; `text` is somewhere in it. */
static void expect_event(struct client *client, int64_t user, const char *event, const char *text)
{
	struct message *message = client_receive(client, inbox_of(user));
	assert_string_equal(message_string(message, "event"), event);
	assert_non_null(strstr(message->payload, text));
	message_free(message);
}

/* The next event that is called so: being added to the group may be told before it. */
static struct message *await_event(struct client *client, int64_t user, const char *event)
{
	struct message *message = client_receive(client, inbox_of(user));
	while (strcmp(message_string(message, "event"), event) != 0) {
		assert_string_equal(message_string(message, "event"), "added");
		message_free(message);
		message = client_receive(client, inbox_of(user));
	}
	return message;
}

/* Whoever makes the change, all of the user's devices hear of it, and nobody else's. */
static void test_events(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture);
	struct client *one = listener(fixture, user, 4), *two = listener(fixture, user, 5), *other = listener(fixture, BOB, 5);
	int64_t group = GROUP_OF(fixture, user);
	expect_event(one, user, "added", text_of("%lld", (long long)group));
	expect_event(two, user, "added", text_of("%lld", (long long)group));
	client_publish(one, "chat/request/user.update", "{\"display_name\":\"Somebody\"}", 1);
	expect_event(one, user, "profile", "");
	expect_event(two, user, "profile", "");
	sql(&fixture->postgres, "DELETE FROM chat.conversation_participants WHERE conversation_id = %lld", (long long)group);
	expect_event(one, user, "removed", text_of("%lld", (long long)group));
	expect_event(two, user, "removed", text_of("%lld", (long long)group));
	expect_silence(other, inbox_of(BOB));
}

/* Those whom a message mentions are told, where they are members. */
static void test_mentions(void **state)
{
	struct fixture *fixture = *state;
	int64_t author = fixture_user(fixture), member = fixture_user(fixture), stranger = fixture_user(fixture),
		group = GROUP_OF(fixture, author, member);
	struct client *sender = fixture_member(fixture, author, 5, group), *mentioned = listener(fixture, member, 5),
		      *outsider = listener(fixture, stranger, 5);
	assert_true(client_publish(sender, topic_of(group, "send"),
			    text_of("{\"body\":\"hello\",\"mentions\":[%lld,%lld,%lld],\"meta\":{\"mentions\":[1]}}",
				    (long long)author, (long long)member, (long long)stranger),
			    1) < 0x80);
	struct message *message = await_event(mentioned, member, "mention");
	assert_int_equal(message_integer(message, "conversation"), group);
	assert_int_equal(message_integer(message, "seq"), 1);
	assert_int_equal(message_integer(message, "from"), author);
	message_free(message);
	expect_message(sender, group, 1, author, "hello");
	expect_silence(outsider, inbox_of(stranger));
}

/* Who was removed learns nothing of what is committed after it, though the plugin has not heard of the removal; who was not, a
 * little later. */
static void test_mentions_of_who_was_just_removed(void **state)
{
	struct fixture *fixture = *state;
	int64_t author = fixture_user(fixture), member = fixture_user(fixture), removed = fixture_user(fixture),
		group = GROUP_OF(fixture, author, member, removed);
	struct client *sender = fixture_member(fixture, author, 5, group), *stays = listener(fixture, member, 5),
		      *goes = listener(fixture, removed, 4);
	pid_t loader = postgres_hold(&fixture->postgres, "mosquitto-chat loader");
	sql(&fixture->postgres, "DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)group, (long long)removed);
	assert_true(client_publish(sender, topic_of(group, "send"),
			    text_of("{\"body\":\"after\",\"mentions\":[%lld,%lld],\"reply\":true}", (long long)member,
				    (long long)removed),
			    1) < 0x80);
	message_free(client_receive(sender, answers_of(sender))); /* committed, and whoever could be told has been told */
	client_fence(goes);
	while (client_waiting(goes, inbox_of(removed)) > 0) {
		struct message *message = client_receive(goes, inbox_of(removed));
		assert_string_equal(message_string(message, "event"), "added");
		message_free(message);
	}
	check(kill(loader, SIGCONT) == 0);
	message_free(await_event(goes, removed, "removed"));
	struct message *message = await_event(stays, member, "mention");
	assert_int_equal(message_integer(message, "seq"), 1);
	message_free(message);
	expect_silence(goes, inbox_of(removed));
	expect_silence(stays, inbox_of(member)); /* once */
}

/* Who was no member when a message was committed is not told of it, though they are one, and cannot read it, when it is their
 * turn to be told. */
static void test_mentions_of_who_came_after(void **state)
{
	struct fixture *fixture = *state;
	int64_t author = fixture_user(fixture), late = fixture_user(fixture), group = GROUP_OF(fixture, author, late);
	struct client *sender = fixture_member(fixture, author, 5, group), *inbox = listener(fixture, late, 5);
	const char *mention = text_of("{\"body\":\"hello\",\"mentions\":[%lld],\"reply\":true}", (long long)late);
	pid_t loader = postgres_hold(&fixture->postgres, "mosquitto-chat loader");
	sql(&fixture->postgres, "DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)group, (long long)late);
	assert_true(client_publish(sender, topic_of(group, "send"), mention, 1) < 0x80);
	message_free(client_receive(sender, answers_of(sender))); /* committed, and the mention waits for the membership */
	sql(&fixture->postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)group, (long long)late);
	check(kill(loader, SIGCONT) == 0);
	assert_true(client_publish(sender, topic_of(group, "send"), mention, 1) < 0x80);
	/* The first one, among being added, removed and added again. */
	struct message *message = client_receive(inbox, inbox_of(late));
	while (strcmp(message_string(message, "event"), "mention") != 0) {
		message_free(message);
		message = client_receive(inbox, inbox_of(late));
	}
	assert_int_equal(message_integer(message, "seq"), 2);
	message_free(message);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT sum(seq) FROM chat.mentions WHERE conversation_id = %lld AND user_id = %lld",
				 (long long)group, (long long)late),
		2);
}

/* What was read on one device, the others know. */
static void test_read_elsewhere(void **state)
{
	struct fixture *fixture = *state;
	int64_t author = fixture_user(fixture), reader = fixture_user(fixture), group = GROUP_OF(fixture, author, reader);
	struct client *sender = fixture_member(fixture, author, 5, group), *phone = listener(fixture, reader, 4),
		      *desktop = listener(fixture, reader, 5);
	assert_true(client_publish(sender, topic_of(group, "send"), "hello", 1) < 0x80);
	expect_message(sender, group, 1, author, "hello");
	assert_true(client_publish(phone, topic_of(group, "mark"), "{\"delivered\":1}", 1) < 0x80);
	assert_true(client_publish(phone, topic_of(group, "mark"), "{\"read\":1}", 1) < 0x80);
	struct message *message = await_event(desktop, reader, "read");
	assert_int_equal(message_integer(message, "conversation"), group);
	assert_int_equal(message_integer(message, "read"), 1);
	message_free(message);
}

/* Asks again until the index of the search, which follows a moment behind, has the message. */
static void await_found(struct client *client, const char *word, const char *text)
{
	bool found = false;
	for (int64_t deadline_ms = now_ms() + 60000; !found && now_ms() < deadline_ms;) {
		client_publish(client, "chat/request/message.search", text_of("{\"query\":\"%s\"}", word), 1);
		struct message *answer = client_receive(client, answers_of(client));
		found = strstr(answer->payload, text) != NULL;
		message_free(answer);
	}
	assert_true(found);
}

/* A message is found a moment after it was sent. */
static void test_search_follows(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user);
	struct client *client = fixture_member(fixture, user, 4, group);
	assert_true(client_publish(client, topic_of(group, "send"), "a needle in the haystack", 1) < 0x80);
	expect_message(client, group, 1, user, NULL);
	await_found(client, "needle", "haystack");
}

/* The row that says how far the index is: held, as somebody does who erases. */
static PGconn *hold_position(struct fixture *fixture, int64_t conversation)
{
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PGresult *held;
	sql(&fixture->postgres, "INSERT INTO chat.search_positions VALUES (%lld, 0) ON CONFLICT DO NOTHING",
		(long long)conversation);
	PQclear(PQexec(holder, "BEGIN"));
	held = PQexec(holder,
		text_of("SELECT 1 FROM chat.search_positions WHERE conversation_id = %lld FOR UPDATE", (long long)conversation));
	check(PQntuples(held) == 1);
	PQclear(held);
	return holder;
}

static void expect_not_indexed(struct fixture *fixture, int64_t conversation)
{
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT indexed_seq FROM chat.search_positions WHERE conversation_id = %lld",
			(long long)conversation),
		0);
}

/* What the index could not have when it was its turn, it has soon after, without another message. */
static void test_search_comes_back(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user), other = GROUP_OF(fixture, user);
	PGconn *holder = hold_position(fixture, group);
	struct client *client = fixture_member(fixture, user, 4, group);
	assert_true(client_publish(client, topic_of(group, "send"), "a pin in the haystack", 1) < 0x80);
	expect_message(client, group, 1, user, NULL);
	assert_true(client_publish(client, topic_of(other, "send"), "a thimble somewhere else", 1) < 0x80);
	await_found(client, "thimble", "somewhere"); /* its turn was not before the other's */
	expect_not_indexed(fixture, group);
	PQfinish(holder);
	await_found(client, "pin", "haystack");
}

/* The same where the index looks for what it missed: at the start. */
static void test_search_comes_back_after_start(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user), other = GROUP_OF(fixture, user);
	PGconn *holder = hold_position(fixture, group);
	broker_stop(&fixture->broker);
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, sender_id, type, body) VALUES (%lld, %lld, 'text', 'a bobbin in the "
		"haystack'), "
		"(%lld, %lld, 'text', 'a bodkin somewhere else')",
		(long long)group, (long long)user, (long long)other, (long long)user);
	broker_start(&fixture->broker);
	struct client *client = fixture_member(fixture, user, 4, group);
	await_found(client, "bodkin", "somewhere");
	expect_not_indexed(fixture, group);
	PQfinish(holder);
	await_found(client, "bobbin", "haystack");
}

/* Makes the first look at all conversations one without an end, which goes_on ends: entries that are more than a call's share of
 * bytes, in a conversation whose position does not move. */
static void look_without_end(struct fixture *fixture, int64_t conversation)
{
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, type, body) SELECT %lld, 'system', repeat('x', 90000) FROM "
		"generate_series(1, 3); "
		"INSERT INTO chat.search_positions VALUES (%lld, 0); "
		"CREATE FUNCTION public.moved() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
		"CREATE TRIGGER moved BEFORE UPDATE ON chat.search_positions FOR EACH ROW WHEN (NEW.conversation_id = %lld) "
		"EXECUTE FUNCTION public.moved()",
		(long long)conversation, (long long)conversation, (long long)conversation);
}

static void look_goes_on(struct fixture *fixture)
{
	sql(&fixture->postgres,
		"CREATE OR REPLACE FUNCTION public.moved() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
}

/* A look at all conversations goes on over many calls, to the last of them, and what is sent meanwhile does not wait for its end.
 */
static void test_search_follows_during_long_look(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), slow = GROUP_OF(fixture, user);
	broker_stop(&fixture->broker);
	look_without_end(fixture, slow);
	sql(&fixture->postgres, "INSERT INTO chat.conversations (type) SELECT 'group' FROM generate_series(1, 2500)");
	int64_t last = GROUP_OF(fixture, user), other = GROUP_OF(fixture, user);
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, sender_id, type, body) VALUES (%lld, %lld, 'text', 'a spindle in "
		"the haystack')",
		(long long)last, (long long)user);
	broker_start(&fixture->broker);
	struct client *client = fixture_member(fixture, user, 4, other);
	assert_true(client_publish(client, topic_of(other, "send"), "a shuttle somewhere else", 1) < 0x80);
	expect_message(client, other, 1, user, NULL);
	await_found(client, "shuttle", "somewhere");
	expect_not_indexed(fixture, slow);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.search_positions WHERE conversation_id = %lld", (long long)last),
		0);
	look_goes_on(fixture);
	await_found(client, "spindle", "haystack");
}

/* Whose announcement nobody heard, since there was no connection to hear it on. */
static void test_search_makes_good(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user);
	struct client *client = fixture_client(fixture, user, 4);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	sql(&fixture->postgres,
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mosquitto-chat loader'; "
		"INSERT INTO chat.messages (conversation_id, sender_id, type, body) VALUES (%lld, %lld, 'text', 'a button in the "
		"haystack')",
		(long long)group, (long long)user);
	await_found(client, "button", "haystack");
	fixture_forget_log(fixture);
}

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, (const char *[]){"rate_requests 0", NULL}, NULL);
	broker_start(&fixture->broker);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_events),
		TEST(test_mentions),
		TEST(test_mentions_of_who_was_just_removed),
		TEST(test_mentions_of_who_came_after),
		TEST(test_read_elsewhere),
		TEST(test_search_follows),
		TEST(test_search_comes_back),
		TEST(test_search_comes_back_after_start),
		TEST(test_search_follows_during_long_look),
		TEST(test_search_makes_good),
	};
	return cmocka_run_group_tests_name("inbox", tests, setup, fixture_teardown);
}
