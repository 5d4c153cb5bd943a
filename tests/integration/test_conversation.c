/* test_conversation.c - the main job: what one publishes, the others receive, numbered and committed. */
#include "fixture.h"

#include <string.h>

/* alice publishes; bob, her second device and she herself receive the same number, in both versions. */
static void test_message_reaches_every_device(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *phone = fixture_member(fixture, alice, 5, group), *tablet = fixture_member(fixture, alice, 4, group);
	struct client *other = fixture_member(fixture, bob, 4, group);

	assert_true(client_publish(phone, topic_of(group, "send"), "hello", 1) < 0x80);
	expect_message(phone, group, 1, alice, "hello");
	expect_message(tablet, group, 1, alice, "hello");
	expect_message(other, group, 1, alice, "hello");
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group), 1);
}

/* What is committed after SUBACK is delivered, however soon, whoever wrote it. */
static void test_nothing_is_missed_after_suback(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture);
	for (int i = 0; i < 50; i++) {
		int64_t group = GROUP_OF(fixture, alice, bob);
		struct client *client = fixture_client(fixture, i % 2 ? alice : bob, i % 4 < 2 ? 4 : 5);
		assert_int_equal(client_subscribe(client, topic_of(group, "messages")), 1);
		sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'now')",
			(long long)group);
		expect_message(client, group, 1, 0, "now");
		client_close(client);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_message_reaches_every_device),
		TEST(test_nothing_is_missed_after_suback),
	};
	return cmocka_run_group_tests_name("conversation", tests, fixture_setup, fixture_teardown);
}
