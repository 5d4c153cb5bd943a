/* test_accounts.c - accounts made from tokens, and guests: the two options that let in whom the tables do not know. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	const char *options[] = {"users_from_tokens true", "guests true", NULL};
	*state = fixture;
	fixture_configure(fixture, options, NULL);
	broker_start(&fixture->broker);
	return 0;
}

/* An unknown user with a good token gets an account, once, and is then a user like any other. */
static void test_account_from_token(void **state)
{
	struct fixture *fixture = *state;
	enum { STRANGER = 5000000 };
	struct client *first = fixture_client(fixture, STRANGER, 5), *second = fixture_client(fixture, STRANGER, 4);
	fixture_await_loaded(first);
	fixture_await_loaded(second);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.users WHERE id = %d", STRANGER), 1);
	assert_true(client_subscribe(first, user_topic(STRANGER, "inbox")) < 0x80);
	int64_t group = GROUP_OF(fixture, STRANGER, ALICE);
	struct client *alice = fixture_member(fixture, ALICE, 4, group);
	message_free(client_receive(first, user_topic(STRANGER, "inbox")));
	assert_true(client_subscribe(first, topic_of(group, "messages")) < 0x80);
	assert_true(client_publish(first, topic_of(group, "send"), "I am new here", 1) < 0x80);
	expect_message(alice, group, 1, STRANGER, "I am new here");
}

/* A suspended account is not made anew by its token. */
static void test_suspended_stays_out(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture);
	sql(&fixture->postgres, "UPDATE chat.users SET status = 'suspended' WHERE id = %lld", (long long)user);
	client_wait_closed(fixture_client(fixture, user, 5));
}

static struct client *guest(struct fixture *fixture, int version, const char *id)
{
	struct client_options options = {.port = fixture->broker.port, .version = version, .id = id};
	return client_try(&options);
}

/* A guest reads its own answers and nothing else, and asks what guests may ask. */
static void test_guest_is_confined(void **state)
{
	struct fixture *fixture = *state;
	struct client *alice = fixture_member(fixture, ALICE, 4, TV);
	for (int version = 4; version <= 5; version++) {
		int no = version == 5 ? 0x87 : 0x80;
		struct client *client = guest(fixture, version, "guest-0123456789abcdef0123456789abcdef");
		assert_int_equal(client_connack(client), 0);
		assert_int_equal(client_subscribe(client, answers_of(client)), 1);
		const char *filters[] = {
			"chat/3/messages", "chat/1/messages", "chat/user/1/inbox", "chat/user/1/presence", "#", "chat/#"};
		for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
			print_message("%s\n", filters[i]);
			assert_int_equal(client_subscribe(client, filters[i]), no);
		}
		const char *topics[] = {"chat/3/send", "chat/1/send", "chat/1/mark", "chat/request/message.send"};
		for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
			assert_int_equal(client_publish(client, topics[i], "{\"read\":1}", 1), version == 5 ? 0x87 : 0);
			expect_error(client, "unauthenticated");
		}
		client_publish(client, "chat/request/auth.login", "{}", 1);
		expect_error(client, "forbidden"); /* allowed to ask; but this fixture has no key to make tokens with */
		client_close(client);
	}
	expect_silence(alice, NULL);
}

/* Ids that a guest may not have: a user's, a free one. */
static void test_guest_ids(void **state)
{
	struct fixture *fixture = *state;
	const char *ids[] = {
		"1-phone", "tv", "guest-1", "guest-0123456789ABCDEF0123456789ABCDEF", "guest-0123456789abcdef0123456789abcdef0"};
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		struct client *client = guest(fixture, 5, ids[i]);
		print_message("%s\n", ids[i]);
		assert_int_equal(client_connack(client), 0x87);
		client_close(client);
	}
	struct client *assigned = guest(fixture, 5, "");
	assert_int_equal(client_connack(assigned), 0);
}

/* A bad token does not make a guest. */
static void test_bad_token_is_no_guest(void **state)
{
	struct fixture *fixture = *state;
	struct client_options options = {
		.port = fixture->broker.port, .version = 5, .user = "u", .password = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"};
	assert_int_equal(client_connack(client_try(&options)), 0x87);
	options.password = "secret";
	assert_int_equal(client_connack(client_try(&options)), 0x87);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_account_from_token),
		TEST(test_suspended_stays_out),
		TEST(test_guest_is_confined),
		TEST(test_guest_ids),
		TEST(test_bad_token_is_no_guest),
	};
	return cmocka_run_group_tests_name("accounts", tests, setup, fixture_teardown);
}
