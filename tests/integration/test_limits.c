/* test_limits.c - rate limits, failed sign-ins, and what changes at SIGHUP. Threats 17, 43. */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *config_path(struct fixture *fixture)
{
	return text_of("%s/chat.conf", fixture->broker.directory);
}

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	const char *options[] = {"rate_messages 5:20", "rate_requests 2:4", "rate_sign_in 5", "rate_sign_in_address 10",
		text_of("config %s", config_path(fixture)), NULL};
	file_write(config_path(fixture), "# nothing yet\n", 0644, &fixture->broker.account);
	fixture_configure(fixture, options, NULL);
	broker_start(&fixture->broker);
	return 0;
}

/* Publishes until it is refused; returns how many passed. */
static int burst(struct client *client, const char *topic, const char *payload, int at_most)
{
	for (int passed = 0; passed < at_most; passed++) {
		if (client_publish(client, topic, payload, 1) >= 0x80)
			return passed;
	}
	return at_most;
}

/* threat 43: the limit is the user's, over all connections; others are not touched, and it comes back with time. */
static void test_messages_are_limited_per_user(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *first = fixture_member(fixture, alice, 5, group), *second = fixture_member(fixture, alice, 5, group);
	struct client *other = fixture_member(fixture, bob, 5, group);
	int64_t since_ms = now_ms();
	int passed = burst(first, topic_of(group, "send"), "x", 100);
	struct message *error = client_receive(first, answers_of(first));
	assert_string_equal(message_error(error), "rate_limited");
	assert_true(message_has(error, "error"));
	assert_non_null(strstr(error->payload, "retry_after_ms"));
	message_free(error);
	int from_second = burst(second, topic_of(group, "send"), "x", 100);
	int64_t most = 20 + (now_ms() - since_ms) * 5 / 1000 + 1;
	print_message("%d + %d passed, at most %lld allowed\n", passed, from_second, (long long)most);
	assert_true(passed >= 20 && passed + from_second <= most);
	assert_int_equal(burst(other, topic_of(group, "send"), "y", 20), 20);
	assert_true(client_is_connected(first) && client_is_connected(second));
	/* Another one is there after a fifth of a second. */
	int64_t deadline_ms = now_ms() + 15000;
	while (client_publish(first, topic_of(group, "send"), "later", 1) >= 0x80)
		assert_true(now_ms() < deadline_ms);
}

/* MQTT 3.1.1 cannot say "later" but by closing without PUBACK; what it kept is then taken. */
static void test_limited_3_1_1_is_closed_without_puback(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	enum { SENT = 200 };
	struct client *client = fixture_member(fixture, alice, 4, group);
	int64_t since_ms = now_ms();
	for (int i = 0; i < SENT; i++)
		client_send(client, topic_of(group, "send"), text_of("{\"id\":\"%s\",\"body\":\"%d\"}", new_id(), i));
	client_wait_closed(client);
	int unanswered = client_unanswered(client);
	long long most = 20 + (now_ms() - since_ms) * 5 / 1000 + 1;
	assert_true(unanswered > 0);
	client_close(client);
	/* What had PUBACK is stored, and what was refused is not; some PUBACKs may have been lost with the connection. */
	sql_wait(&fixture->postgres, 1, "SELECT last_seq BETWEEN %d AND %lld FROM chat.conversations WHERE id = %lld",
		SENT - unanswered, most, (long long)group);
}

static void test_requests_are_limited(void **state)
{
	struct fixture *fixture = *state;
	struct client *client = fixture_client(fixture, fixture_user(fixture), 5);
	client_subscribe(client, answers_of(client));
	int passed = burst(client, "chat/request/no.such", "{}", 50);
	assert_true(passed >= 4 && passed < 50);
	/* What is not taken is refused at once; what is taken is answered in its turn. */
	int limited = 0;
	for (int i = 0; i < passed + 1; i++) {
		struct message *answer = client_receive(client, answers_of(client));
		const char *code = message_error(answer);
		limited += !strcmp(code, "rate_limited");
		if (strcmp(code, "rate_limited") != 0)
			assert_string_equal(code, "not_found");
		message_free(answer);
	}
	assert_int_equal(limited, 1);
}

/* SIGHUP reads the file again: limits change for everybody who is connected, and nobody is dropped. */
static void test_reload_changes_limits(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *client = fixture_member(fixture, alice, 5, group);
	assert_true(burst(client, topic_of(group, "send"), "x", 100) < 100);
	expect_error(client, "rate_limited");
	file_write(config_path(fixture), "rate_messages 0\nbody_max_chars 10\n", 0644, &fixture->broker.account);
	int before = broker_log_count(&fixture->broker, "reloaded keys and options");
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "reloaded keys and options", before + 1);
	assert_int_equal(burst(client, topic_of(group, "send"), "x", 200), 200);
	assert_int_equal(client_publish(client, topic_of(group, "send"), "eleven char", 1), 0x87);
	expect_error(client, "too_long");
	/* A mistake in the file changes nothing, and the log says where it is. */
	fixture_expect_error(fixture, "reload: ");
	file_write(config_path(fixture), "rate_messages 0\nbody_max_chars many\n", 0644, &fixture->broker.account);
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "chat.conf:2: body_max_chars", 1);
	assert_int_equal(burst(client, topic_of(group, "send"), "x", 50), 50);
	file_write(config_path(fixture), "# nothing\n", 0644, &fixture->broker.account);
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "reloaded keys and options", before + 2);
	assert_true(client_is_connected(client));
}

static int connack_with(struct fixture *fixture, const struct signing_key *key)
{
	char *token = fixture_forge(fixture, key, "{\"alg\":\"ES256\"}", "{\"sub\":\"1\",\"exp\":4102444800}");
	struct client_options options = {.port = fixture->broker.port, .version = 5, .user = "u", .password = token};
	struct client *client = client_try(&options);
	int connack = client_connack(client);
	client_close(client);
	free(token);
	return connack;
}

static void reload_with(struct fixture *fixture, const char *text)
{
	int before = broker_log_count(&fixture->broker, "reloaded keys and options");
	file_write(config_path(fixture), text, 0644, &fixture->broker.account);
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "reloaded keys and options", before + 1);
}

/* A new key is good as soon as SIGHUP has read it, the old one until it is taken out; and who is in stays in. */
static void test_reload_changes_keys(void **state)
{
	struct fixture *fixture = *state;
	struct signing_key *new = fixture_make_key(fixture, "new", SIGNING_ES256);
	const char *new_path = text_of("%s/keys/new.pem", fixture->directory);
	struct client *inside = fixture_client(fixture, ALICE, 4);
	assert_int_equal(connack_with(fixture, new), 0x87);
	reload_with(fixture, text_of("token_keys %s,%s\n", fixture->public_key, new_path));
	assert_int_equal(connack_with(fixture, new), 0);
	assert_int_equal(connack_with(fixture, NULL), 0);
	reload_with(fixture, text_of("token_keys %s\n", new_path));
	assert_int_equal(connack_with(fixture, new), 0);
	assert_int_equal(connack_with(fixture, NULL), 0x87);
	client_fence(inside);
	assert_true(client_is_connected(inside));
	reload_with(fixture, "# nothing\n");
	assert_int_equal(connack_with(fixture, new), 0x87);
	signing_key_free(new);
}

/* threat 17: after so many failures an address is refused without a look; who is in stays in. Last: it locks this machine out. */
static void test_failed_sign_ins_are_limited(void **state)
{
	struct fixture *fixture = *state;
	struct client *inside = fixture_client(fixture, ALICE, 4);
	char *good = fixture_token(fixture, BOB, 0, 600);
	struct client_options options = {
		.port = fixture->broker.port, .version = 5, .user = "u", .password = text_of("%sAAAA", good)};
	fixture_expect_error(fixture, "too many failed attempts");
	reload_with(fixture, "rate_sign_in_address 1\n"); /* the next one is a minute away */
	for (int i = 0; i < 15; i++) {
		struct client *client = client_try(&options);
		assert_int_equal(client_connack(client), 0x87);
		client_close(client);
	}
	assert_int_equal(broker_log_count(&fixture->broker, "too many failed attempts"), 1);
	options.password = good;
	struct client *client = client_try(&options);
	assert_int_equal(client_connack(client), 0x87);
	client_close(client);
	client_fence(inside);
	assert_true(client_is_connected(inside));
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_messages_are_limited_per_user),
		TEST(test_limited_3_1_1_is_closed_without_puback),
		TEST(test_requests_are_limited),
		TEST(test_reload_changes_limits),
		TEST(test_reload_changes_keys),
		TEST(test_failed_sign_ins_are_limited),
	};
	return cmocka_run_group_tests_name("limits", tests, setup, fixture_teardown);
}
