/* test_at_once.c - who was told of a conversation can use it: nobody has to wait after an answer or an event for the inbox. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 100 };                    /* of each protocol version: what overtakes does not do so always */
enum { HELD_MS = 1000, WAIT_MS = 15000 }; /* the former: plugin/respond.c; an answer waits no longer for what it promises */

/* Whether the newest answer came so late that it promised nothing. */
static bool answered_late;

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, (const char *const[]){"rate_requests 0", NULL}, NULL);
	broker_start(&fixture->broker);
	return 0;
}

/* Subscribed to its answers and its inbox. */
static struct client *open_client(struct fixture *fixture, int64_t user, int version)
{
	struct client *client = fixture_client(fixture, user, version);
	assert_true(client_subscribe(client, answers_of(client)) < 0x80);
	assert_true(client_subscribe(client, user_topic(user, "inbox")) < 0x80);
	fixture_await_loaded(client);
	return client;
}

static cJSON *ask(struct client *client, const char *method, const char *parameters)
{
	int64_t since_ms = now_ms();
	client_publish(client, text_of("chat/request/%s", method), parameters, 1);
	struct message *answer = client_receive(client, answers_of(client));
	answered_late = now_ms() - since_ms >= HELD_MS;
	cJSON *json = cJSON_Parse(answer->payload), *result = cJSON_DetachItemFromObject(json, "result");
	if (!result)
		fail_msg("%s %s: %s", method, parameters, answer->payload);
	message_free(answer);
	cJSON_Delete(json);
	return result;
}

static int64_t ask_conversation(struct client *client, const char *method, const char *parameters)
{
	cJSON *result = ask(client, method, parameters);
	const cJSON *id = cJSON_GetObjectItem(cJSON_GetObjectItem(result, "conversation"), "id");
	assert_true(cJSON_IsNumber(id));
	int64_t conversation = (int64_t)id->valuedouble;
	cJSON_Delete(result);
	return conversation;
}

/* The subscription is granted, or refused, at once; or, where the client was told too early, in time. */
static void subscribe(struct client *client, const char *topic, bool granted, bool told_early)
{
	int64_t deadline_ms = now_ms() + WAIT_MS;
	bool is_granted;
	do
		is_granted = client_subscribe(client, topic) < 0x80;
	while (is_granted != granted && told_early && now_ms() < deadline_ms);
	if (is_granted != granted)
		fail_msg("the subscription was %s", is_granted ? "granted" : "refused");
}

/* Right now: subscribes, and sends what then comes. */
static void use(struct client *client, int64_t conversation, bool told_early)
{
	const char *topic = topic_of(conversation, "messages"), *body = new_id();
	subscribe(client, topic, true, told_early);
	assert_true(client_publish(client, topic_of(conversation, "send"), body, 1) < 0x80);
	struct message *message = client_receive(client, topic);
	while (!message_has(message, "from") || strcmp(message_string(message, "body"), body) != 0) { /* a system entry */
		message_free(message);
		message = client_receive(client, topic);
	}
	message_free(message);
	assert_int_equal(client_waiting(client, answers_of(client)), 0);
	client_unsubscribe(client, topic);
}

static int64_t await_added(struct client *client, int64_t user)
{
	struct message *event = client_receive(client, user_topic(user, "inbox"));
	assert_string_equal(message_string(event, "event"), "added");
	int64_t conversation = message_integer(event, "conversation");
	message_free(event);
	return conversation;
}

/* Who makes a group has it with the answer, and who is put into it with the event. */
static void test_create(void **state)
{
	struct fixture *fixture = *state;
	for (int version = 4; version <= 5; version++) {
		int64_t alice = fixture_user(fixture), bob = fixture_user(fixture);
		struct client *maker = open_client(fixture, alice, version), *added = open_client(fixture, bob, 9 - version);
		for (int i = 0; i < ROUNDS; i++) {
			int64_t group = ask_conversation(
				maker, "conversation.create", text_of("{\"type\":\"group\",\"members\":[%lld]}", (long long)bob));
			use(maker, group, answered_late);
			assert_int_equal(await_added(added, bob), group);
			use(added, group, false);
		}
	}
}

/* The same for who joins, who is added by a request, and who is added by SQL. */
static void test_join_and_add(void **state)
{
	struct fixture *fixture = *state;
	for (int version = 4; version <= 5; version++) {
		int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), carol = fixture_user(fixture);
		struct client *owner = open_client(fixture, alice, version), *joining = open_client(fixture, bob, version),
			      *added = open_client(fixture, carol, version);
		for (int i = 0; i < ROUNDS / 4; i++) {
			int64_t group = ask_conversation(owner, "conversation.create", "{\"type\":\"group\"}"), now;
			cJSON_Delete(ask(owner, "conversation.add_members",
				text_of("{\"conversation\":%lld,\"members\":[%lld]}", (long long)group, (long long)carol)));
			use(owner, group, answered_late);
			assert_int_equal(await_added(added, carol), group);
			use(added, group, false);
			sql(&fixture->postgres,
				"INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
				(long long)group, (long long)bob);
			assert_int_equal(await_added(joining, bob), group);
			use(joining, group, false);
			cJSON_Delete(ask(joining, "conversation.leave", text_of("{\"conversation\":%lld}", (long long)group)));
			subscribe(joining, topic_of(group, "messages"), false, answered_late);
			struct message *removed = client_receive(joining, user_topic(bob, "inbox"));
			assert_string_equal(message_string(removed, "event"), "removed");
			message_free(removed);
			int64_t channel = ask_conversation(
				owner, "conversation.create", "{\"type\":\"channel\",\"name\":\"news\",\"public\":true}");
			now = ask_conversation(
				joining, "conversation.join", text_of("{\"conversation\":%lld}", (long long)channel));
			assert_int_equal(now, channel);
			assert_int_equal(await_added(joining, bob), channel);
			assert_true(client_subscribe(joining, topic_of(channel, "messages")) < 0x80);
		}
	}
}

/* Answers keep their order, though the first of them waits. */
static void test_order_of_answers(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture);
	struct client *client = open_client(fixture, alice, 5);
	for (int i = 0; i < ROUNDS; i++) {
		client_send(client, i % 3 ? "chat/request/user.get" : "chat/request/conversation.create",
			text_of("{\"request_id\":%d%s}", i, i % 3 ? "" : ",\"type\":\"group\""));
		if (i % 3 == 2)
			clients_turn(0);
	}
	for (int i = 0; i < ROUNDS; i++) {
		struct message *answer = client_receive(client, answers_of(client));
		assert_int_equal(message_integer(answer, "request_id"), i);
		assert_true(message_has(answer, "result"));
		message_free(answer);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_create),
		TEST(test_join_and_add),
		TEST(test_order_of_answers),
	};
	return cmocka_run_group_tests_name("at_once", tests, setup, fixture_teardown);
}
