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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_message_reaches_every_device),
	};
	return cmocka_run_group_tests_name("conversation", tests, fixture_setup, fixture_teardown);
}
