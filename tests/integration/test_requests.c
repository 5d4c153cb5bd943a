/* test_requests.c - requests over MQTT: how they are asked and answered, whatever the method. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct client *asker(struct fixture *fixture, int64_t user, int version)
{
	struct client *client = fixture_client(fixture, user, version);
	assert_true(client_subscribe(client, answers_of(client)) < 0x80);
	return client;
}

static struct message *answer_to(struct client *client)
{
	return client_receive(client, answers_of(client));
}

/* The next answer is the one to this request_id. */
static void expect_answer(struct client *client, const char *request_id)
{
	struct message *answer = answer_to(client);
	assert_string_equal(message_string(answer, "request_id"), request_id);
	message_free(answer);
}

/* What mosquitto_pub and mosquitto_rr do. */
static void test_both_protocols(void **state)
{
	struct fixture *fixture = *state;
	for (int version = 4; version <= 5; version++) {
		for (int qos = 0; qos <= 1; qos++) {
			struct client *client = asker(fixture, ALICE, version);
			assert_true(client_publish(client, "chat/request/user.get", "{\"request_id\":\"a\"}", qos) < 0x80);
			struct message *answer = answer_to(client);
			assert_string_equal(message_string(answer, "request_id"), "a");
			assert_true(message_has(answer, "result"));
			assert_non_null(strstr(answer->payload, "alice"));
			message_free(answer);
			client_close(client);
		}
	}
	struct client *client = asker(fixture, ALICE, 5);
	assert_true(client_request(client, "chat/request/user.get", "", answers_of(client), "corr") < 0x80);
	struct message *answer = answer_to(client);
	assert_int_equal(answer->correlation_length, 4);
	assert_memory_equal(answer->correlation, "corr", 4);
	assert_string_equal(answer->content_type, "application/json");
	assert_false(message_has(answer, "request_id"));
	message_free(answer);
}

/* What is wrong with the payload, and what it is answered with. */
static void test_bad_payloads(void **state)
{
	struct fixture *fixture = *state;
	static const struct {
		const char *payload, *code, *request_id;
	} cases[] = {
		{"{", "invalid_json", NULL},
		{"[]", "invalid_json", NULL},
		{"7", "invalid_json", NULL},
		{"hello", "invalid_json", NULL},
		{"{\"user\":1,\"user\":2}", "invalid_json", NULL},
		{"{\"request_id\":\"r\",\"x\":\"\\ud800\"}", "invalid_json", NULL},
		{"{\"request_id\":\"r\",\"x\":\"\\u0000\"}", "invalid_json", NULL},
		{"{\"request_id\":{}}", "invalid_field", NULL},
		{"{\"request_id\":1.5}", "invalid_field", NULL},
		{"{\"request_id\":\"r\",\"no_such\":1}", "invalid_field", "r"},
		{"{\"request_id\":\"r\",\"user\":\"x'; DROP TABLE chat.users; --\"}", "invalid_field", "r"},
		{"{\"request_id\":\"\\\"quoted\\u00e9\",\"user\":999999}", "not_found", "\"quoted\u00e9"},
	};
	struct client *client = asker(fixture, ALICE, 4);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		print_message("%s\n", cases[i].payload);
		client_publish(client, "chat/request/user.get", cases[i].payload, 1);
		struct message *answer = answer_to(client);
		assert_string_equal(message_error(answer), cases[i].code);
		if (cases[i].request_id)
			assert_string_equal(message_string(answer, "request_id"), cases[i].request_id);
		message_free(answer);
	}
	/* Numbers come back as they went, also where a double is at its end. */
	client_publish(client, "chat/request/user.get", "{\"request_id\":9007199254740991}", 1);
	struct message *answer = answer_to(client);
	assert_non_null(strstr(answer->payload, "\"request_id\":9007199254740991,"));
	message_free(answer);
	char *deep = malloc(300001);
	assert_non_null(deep);
	memset(deep, '[', 300000);
	deep[300000] = '\0';
	client_publish(client, "chat/request/user.get", deep, 1);
	expect_error(client, "too_long");
	deep[1000] = '\0';
	client_publish(client, "chat/request/user.get", deep, 1);
	expect_error(client, "invalid_json");
	free(deep);
	client_publish(client, "chat/request/no.such", "{}", 1);
	expect_error(client, "not_found");
}

static void test_response_topic_must_be_the_own_one(void **state)
{
	struct fixture *fixture = *state;
	struct client *alice = asker(fixture, ALICE, 5), *bob = asker(fixture, BOB, 5);
	const char *topics[] = {answers_of(bob), "chat/1/messages", "chat/user/2/inbox", "elsewhere", "chat/response/"};
	for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
		print_message("%s\n", topics[i]);
		assert_true(client_request(alice, "chat/request/user.get", "{}", topics[i], "c") < 0x80);
		expect_error(alice, "invalid_field");
	}
	expect_silence(bob, NULL);
}

/* Answers come in the order of the requests, whatever each takes: SQL, messages that have to be committed, mistakes. */
static void test_answers_keep_the_order(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user);
	struct client *client = asker(fixture, user, 4);
	fixture_await_loaded(client);
	for (int i = 0; i < 60; i += 4) {
		client_send(client, "chat/request/conversation.list", text_of("{\"request_id\":\"%d\"}", i));
		client_send(client, "chat/request/message.send",
			text_of("{\"request_id\":\"%d\",\"conversation\":%lld,\"body\":\"x\"}", i + 1, (long long)group));
		client_send(client, "chat/request/user.get", text_of("{\"request_id\":\"%d\",\"wrong\":1}", i + 2));
		client_send(client, "chat/request/message.send", text_of("{\"request_id\":\"%d\"}", i + 3));
	}
	for (int i = 0; i < 60; i++)
		expect_answer(client, text_of("%d", i));
	client_settle(client);
}

/* message.send is a message like any other: its checks, its number, its delivery, its resend. */
static void test_message_send(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user, BOB), other = GROUP_OF(fixture, BOB);
	struct client *client = fixture_member(fixture, user, 5, group), *bob = fixture_member(fixture, BOB, 4, group);
	const char *id = new_id();
	const char *payload =
		text_of("{\"request_id\":7,\"conversation\":%lld,\"id\":\"%s\",\"body\":\"by request\"}", (long long)group, id);
	for (int attempt = 0; attempt < 2; attempt++) {
		assert_true(client_request(client, "chat/request/message.send", payload, answers_of(client), "k") < 0x80);
		struct message *answer = answer_to(client);
		assert_non_null(strstr(answer->payload, "\"request_id\":7,\"result\":{\"seq\":1,\"sent_at\":"));
		assert_memory_equal(answer->correlation, "k", 1);
		message_free(answer);
	}
	expect_message(bob, group, 1, user, "by request");
	const struct {
		const char *payload, *code;
	} cases[] = {
		{"{\"body\":\"x\"}", "invalid_field"},
		{"{\"conversation\":\"1\",\"body\":\"x\"}", "invalid_field"},
		{text_of("{\"conversation\":%lld,\"body\":\"\"}", (long long)group), "invalid_field"},
		{text_of("{\"conversation\":%lld,\"body\":\"x\",\"odd\":1}", (long long)group), "invalid_field"},
		{text_of("{\"conversation\":%lld,\"id\":\"%s\",\"body\":\"other\"}", (long long)group, id), "conflict"},
		{text_of("{\"conversation\":%lld,\"body\":\"x\"}", (long long)other), "not_found"},
		{"{\"conversation\":999999999,\"body\":\"x\"}", "not_found"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		print_message("%s\n", cases[i].payload);
		assert_true(client_publish(client, "chat/request/message.send", cases[i].payload, 1) < 0x80);
		struct message *answer = answer_to(client);
		assert_string_equal(message_error(answer), cases[i].code);
		message_free(answer);
	}
	expect_silence(bob, topic_of(group, "messages"));
}

/* What has to wait for a lock that a test holds is cancelled after 5 s, and said. */
static void expect_cancelled(struct fixture *fixture)
{
	fixture_expect_error(fixture, "SQLSTATE 57014");
}

/* The answer is for the very connection that asked: not for another of the user's, not for the next one of its id. */
static void test_answers_are_for_the_asker(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture);
	struct client *other = asker(fixture, user, 5);
	const char *id = text_of("%lld-phone", (long long)user);
	expect_cancelled(fixture);
	/* A lock that user.get waits for, until the asker has gone and another has come with its id. */
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PQclear(PQexec(holder, "BEGIN; LOCK TABLE chat.users IN ACCESS EXCLUSIVE MODE"));
	struct client *gone = fixture_client_with(fixture, user, (struct client_options){.version = 5, .id = id});
	client_subscribe(gone, answers_of(gone));
	assert_true(client_publish(gone, "chat/request/user.get", "{}", 1) < 0x80);
	client_cut(gone);
	struct client *next = fixture_client_with(fixture, user, (struct client_options){.version = 5, .id = id});
	client_subscribe(next, answers_of(next));
	PQclear(PQexec(holder, "COMMIT"));
	PQfinish(holder);
	fixture_await_loaded(next);
	assert_true(client_publish(next, "chat/request/user.get", "{\"request_id\":\"mine\"}", 1) < 0x80);
	expect_answer(next, "mine");
	expect_silence(next, NULL);
	expect_silence(other, NULL);
}

/* One who asks much does not make others wait; one who asks too much is told. True: the modest one had its answer while most of
 * the other's were still to come. */
static bool take_turns(struct fixture *fixture)
{
	enum { MANY = 300 };
	struct client *greedy = asker(fixture, fixture_user(fixture), 5), *modest = asker(fixture, fixture_user(fixture), 5);
	bool cancelled = false;
	/* All wait: the table is locked. */
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PQclear(PQexec(holder, "BEGIN; LOCK TABLE chat_api.methods IN ACCESS EXCLUSIVE MODE"));
	for (int i = 0; i < MANY; i++)
		client_send(greedy, "chat/request/user.get", text_of("{\"request_id\":\"g%d\"}", i));
	client_settle(greedy);
	assert_true(client_publish(modest, "chat/request/user.get", "{\"request_id\":\"m\"}", 1) < 0x80);
	PQclear(PQexec(holder, "COMMIT"));
	PQfinish(holder);
	message_free(answer_to(modest));
	bool in_turn = client_waiting(greedy, answers_of(greedy)) < MANY - 10;
	int overloaded = 0, answered = 0;
	int64_t last = -1;
	for (int i = 0; i < MANY; i++) {
		struct message *answer = answer_to(greedy);
		if (!message_has(answer, "error")) {
			/* In order. (Who takes one while they come makes room for a later one.) */
			int64_t number = strtoll(message_string(answer, "request_id") + 1, NULL, 10);
			assert_true(number > last);
			last = number;
			answered++;
		} else if (strcmp(message_error(answer), "overloaded") == 0) {
			assert_non_null(strstr(answer->payload, "retry_after_ms"));
			overloaded++;
		} else {
			assert_string_equal(message_error(answer), "unavailable");
			cancelled = true;
		}
		message_free(answer);
	}
	client_close(greedy);
	client_close(modest);
	assert_true(cancelled || (overloaded > 0 && answered >= 200));
	return in_turn && !cancelled;
}

/* A worker that stands still with the modest one's request, on a machine that does other things, does not do so every time. */
static void test_callers_take_turns(void **state)
{
	enum { ATTEMPTS = 5 };
	bool in_turn = false;
	expect_cancelled(*state);
	for (int attempt = 0; attempt < ATTEMPTS && !in_turn; attempt++)
		in_turn = take_turns(*state);
	assert_true(in_turn);
}

/* Without a database requests are answered so, soon; with it again, as ever. */
static void test_unavailable(void **state)
{
	struct fixture *fixture = *state;
	struct client *client = asker(fixture, ALICE, 4);
	fixture_await_loaded(client);
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "writer ");
	postgres_kill(&fixture->postgres);
	for (int i = 0; i < 5; i++) {
		client_publish(client, "chat/request/user.get", text_of("{\"request_id\":\"%d\"}", i), 1);
		struct message *answer = answer_to(client);
		assert_string_equal(message_error(answer), "unavailable");
		assert_string_equal(message_string(answer, "request_id"), text_of("%d", i));
		assert_non_null(strstr(answer->payload, "retry_after_ms"));
		message_free(answer);
	}
	postgres_start(&fixture->postgres);
	bool answered = false;
	for (int64_t deadline_ms = now_ms() + 30000; !answered && now_ms() < deadline_ms;) {
		client_publish(client, "chat/request/user.get", "{}", 1);
		struct message *answer = answer_to(client);
		answered = message_has(answer, "result");
		message_free(answer);
	}
	assert_true(answered);
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
		TEST(test_both_protocols),
		TEST(test_bad_payloads),
		TEST(test_response_topic_must_be_the_own_one),
		TEST(test_answers_keep_the_order),
		TEST(test_message_send),
		TEST(test_answers_are_for_the_asker),
		TEST(test_callers_take_turns),
		TEST(test_unavailable),
	};
	return cmocka_run_group_tests_name("requests", tests, setup, fixture_teardown);
}
