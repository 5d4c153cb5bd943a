/* test_typing.c - who is typing: told to members, never stored, and the first thing to be dropped. Threat 55. */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene {
	struct fixture *fixture;
	int64_t alice, bob, group;
	struct client *sender;   /* alice, version 5 */
	struct client *listener; /* bob, version 4 */
};

static struct scene begin(void **state)
{
	struct scene scene = {.fixture = *state};
	scene.alice = fixture_user(scene.fixture);
	scene.bob = fixture_user(scene.fixture);
	scene.group = GROUP_OF(scene.fixture, scene.alice, scene.bob);
	scene.sender = fixture_member(scene.fixture, scene.alice, 5, scene.group);
	scene.listener = fixture_member(scene.fixture, scene.bob, 4, scene.group);
	assert_int_equal(client_subscribe(scene.listener, topic_of(scene.group, "typing")), 1);
	return scene;
}

static void type(struct client *client, int64_t conversation, bool typing)
{
	assert_true(client_publish(
			    client, topic_of(conversation, "type"), typing ? "{\"typing\":true}" : "{\"typing\":false}", 0) == 0);
}

static void expect_typing(struct client *client, int64_t conversation, int64_t user, bool typing)
{
	struct message *message = client_receive(client, topic_of(conversation, "typing"));
	assert_string_equal(message->payload, text_of("{\"user\":%lld,\"typing\":%s,\"expires_in\":%d}", (long long)user,
						      typing ? "true" : "false", typing ? 6 : 0));
	assert_int_equal(message->qos, 0);
	message_free(message);
}

/* Everything that was published so far has been dealt with, and its effects are here. */
static void fence(struct scene *scene)
{
	client_fence(scene->sender);
	client_fence(scene->listener);
}

static void test_passes_and_is_not_stored(void **state)
{
	struct scene scene = begin(state);
	struct postgres *postgres = &scene.fixture->postgres;
	int64_t rows = sql_integer(postgres, "SELECT (SELECT count(*) FROM chat.messages) + (SELECT count(*) FROM chat.refusals)"
					     " + (SELECT count(*) FROM chat.inbox_events)");
	type(scene.sender, scene.group, true);
	expect_typing(scene.listener, scene.group, scene.alice, true);
	type(scene.sender, scene.group, false);
	expect_typing(scene.listener, scene.group, scene.alice, false);
	const char *bad[] = {"{\"typing\":1}", "{}", "{\"typing\":true,\"user\":1}"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		client_publish(scene.sender, topic_of(scene.group, "type"), bad[i], 0);
		expect_error(scene.sender, "invalid_field");
	}
	expect_silence(scene.listener, NULL);
	assert_int_equal(
		sql_integer(postgres, "SELECT (SELECT count(*) FROM chat.messages) + (SELECT count(*) FROM chat.refusals)"
				      " + (SELECT count(*) FROM chat.inbox_events)"),
		rows);
}

/* What has come to the listener so far, in its order: "1" began, "0" ended. */
static const char *heard(struct client *listener, int64_t conversation)
{
	char seen[64] = "";
	client_fence(listener);
	for (size_t i = 0; client_waiting(listener, topic_of(conversation, "typing")) > 0 && i + 1 < sizeof seen; i++) {
		struct message *message = client_receive(listener, topic_of(conversation, "typing"));
		seen[i] = strstr(message->payload, "\"typing\":true") ? '1' : '0';
		message_free(message);
	}
	return text_of("%s", seen);
}

/* A machine that stands still for longer than the interval in the middle of a test lets more pass: then again. */
enum { INTERVAL_MS = 3000, ATTEMPTS = 10 };

/* One in 3 s for each user and conversation, whichever device; the end, once. */
static void test_once_for_a_user(void **state)
{
	const char *seen = "";
	for (int attempt = 0; attempt < ATTEMPTS && strcmp(seen, "10") != 0; attempt++) {
		struct scene scene = begin(state);
		struct client *phone = fixture_member(scene.fixture, scene.alice, 4, scene.group);
		int64_t since_ms = now_ms();
		type(scene.sender, scene.group, true);
		client_fence(scene.sender);
		type(phone, scene.group, true);
		type(phone, scene.group, false);
		client_fence(phone);
		type(scene.sender, scene.group, false);
		client_fence(scene.sender);
		type(phone, scene.group, true);
		client_fence(phone);
		bool in_time = now_ms() - since_ms < INTERVAL_MS;
		seen = heard(scene.listener, scene.group);
		if (in_time)
			assert_string_equal(seen, "10");
		expect_silence(scene.listener, NULL);
	}
}

/* Going from one conversation to another and back is no way round it. */
static void test_each_conversation(void **state)
{
	bool in_time = false;
	for (int attempt = 0; attempt < ATTEMPTS && !in_time; attempt++) {
		struct scene scene = begin(state);
		int64_t other = GROUP_OF(scene.fixture, scene.alice, scene.bob);
		struct client *client = fixture_member(scene.fixture, scene.alice, 5, other),
			      *listener = fixture_member(scene.fixture, scene.bob, 4, other);
		assert_int_equal(client_subscribe(listener, topic_of(other, "typing")), 1);
		int64_t since_ms = now_ms();
		for (int i = 0; i < 10; i++) {
			type(client, scene.group, true);
			type(client, other, true);
		}
		client_fence(client);
		in_time = now_ms() - since_ms < INTERVAL_MS;
		const char *seen = heard(scene.listener, scene.group), *seen_in_other = heard(listener, other);
		if (in_time) {
			assert_string_equal(seen, "1");
			assert_string_equal(seen_in_other, "1");
		}
		expect_silence(scene.listener, NULL);
		expect_silence(listener, NULL);
	}
}

/* threat 55: of a flood one passes; nobody is told of the rest, the one who floods included, whose messages pass as ever. */
static void test_a_flood(void **state)
{
	enum { FLOOD = 3000 };
	struct scene scene = begin(state);
	int64_t since_ms = now_ms();
	for (int i = 0; i < FLOOD; i++)
		client_publish(scene.sender, topic_of(scene.group, "type"), "{\"typing\":true}", i % 2);
	expect_typing(scene.listener, scene.group, scene.alice, true);
	client_publish(scene.sender, topic_of(scene.group, "send"), "done", 1);
	expect_message(scene.listener, scene.group, 1, scene.alice, "done");
	int passed = 1;
	for (client_fence(scene.listener); client_waiting(scene.listener, topic_of(scene.group, "typing")) > 0; passed++)
		message_free(client_receive(scene.listener, topic_of(scene.group, "typing")));
	print_message("%d of %d passed\n", passed, FLOOD);
	assert_in_range(passed, 1, 1 + (now_ms() - since_ms) / INTERVAL_MS);
	expect_silence(scene.sender, answers_of(scene.sender));
}

/* Channels have none; who is no member passes none, and is told as if there were nothing. */
static void test_not_in_channels_nor_from_strangers(void **state)
{
	struct scene scene = begin(state);
	int64_t channel = sql_integer(&scene.fixture->postgres,
		"INSERT INTO chat.conversations (type, name, is_public) VALUES ('channel', 'news', true) RETURNING id");
	sql(&scene.fixture->postgres,
		"INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (%lld, %lld, 'owner'), "
		"(%lld, %lld, 'reader')",
		(long long)channel, (long long)scene.alice, (long long)channel, (long long)scene.bob);
	struct client *owner = fixture_member(scene.fixture, scene.alice, 5, channel),
		      *stranger = fixture_client(scene.fixture, fixture_user(scene.fixture), 5);
	assert_true(client_subscribe(owner, topic_of(channel, "typing")) >= 0x80);
	client_publish(owner, topic_of(channel, "type"), "{\"typing\":true}", 0);
	expect_error(owner, "forbidden");
	assert_int_equal(client_subscribe(stranger, answers_of(stranger)), 1);
	fixture_await_loaded(stranger);
	assert_true(client_subscribe(stranger, topic_of(scene.group, "typing")) >= 0x80);
	client_publish(stranger, topic_of(scene.group, "type"), "{\"typing\":true}", 0);
	expect_error(stranger, "not_found");
	fence(&scene);
	expect_silence(scene.listener, NULL);
}

/* While deliveries wait, typing is dropped; messages are not. */
static void test_dropped_under_load(void **state)
{
	enum { WAITING = 1200 };
	struct scene scene = begin(state);
	struct postgres *postgres = &scene.fixture->postgres;
	int64_t other = GROUP_OF(scene.fixture, scene.alice, scene.bob);
	struct client *author = fixture_member(scene.fixture, scene.alice, 5, other),
		      *reader = fixture_member(scene.fixture, scene.bob, 5, other);
	/* Members have changed and cannot be read: what is committed from now on waits for them. */
	pid_t loader = postgres_hold(postgres, "mosquitto-chat loader");
	sql(postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)other, (long long)fixture_user(scene.fixture));
	for (int i = 1; i < WAITING; i++)
		client_send(author, topic_of(other, "send"), "waiting");
	client_send(author, topic_of(other, "send"), "{\"body\":\"waiting\",\"reply\":true}");
	message_free(client_receive(author, answers_of(author))); /* the last one is on its way to those who wait */
	type(scene.sender, scene.group, true);
	client_publish(scene.sender, topic_of(scene.group, "send"), "not dropped", 1);
	expect_message(scene.listener, scene.group, 1, scene.alice, "not dropped");
	expect_silence(scene.listener, NULL);
	check(kill(loader, SIGCONT) == 0);
	/* Of those that waited for the database as well, where it stood still, the reader may only be told. */
	for (int64_t known = 0; known < WAITING;) {
		struct message *message = client_receive(reader, topic_of(other, "messages"));
		bool behind = message_has(message, "behind");
		int64_t seq = message_integer(message, behind ? "last_seq" : "seq");
		assert_true(behind ? seq > known : seq == known + 1);
		known = seq;
		message_free(message);
	}
	type(scene.sender, scene.group, true);
	expect_typing(scene.listener, scene.group, scene.alice, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_passes_and_is_not_stored),
		TEST(test_once_for_a_user),
		TEST(test_each_conversation),
		TEST(test_a_flood),
		TEST(test_not_in_channels_nor_from_strangers),
		TEST(test_dropped_under_load),
	};
	return cmocka_run_group_tests_name("typing", tests, fixture_setup, fixture_teardown);
}
