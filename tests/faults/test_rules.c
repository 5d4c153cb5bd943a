/* test_rules.c - content rules and the death of the broker: at whatever moment it dies, a message that a rule masks, flags or
 * rejects is stored, reported or refused once.
 */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIES_MS = 30000, EACH = 5 };

/* Sends, and does not care whether the broker is still there. */
static void send_all(struct fixture *fixture, int64_t user, int64_t group, const char *ids[EACH * 3])
{
	static const char *const texts[] = {"a secret", "a curious thing", "a badword"};
	struct client *client = fixture_member(fixture, user, 5, group);
	for (int i = 0; i < EACH * 3; i++) {
		client_send(client, topic_of(group, "send"), text_of("{\"id\":\"%s\",\"body\":\"%s\"}", ids[i], texts[i % 3]));
	}
	client_settle(client);
}

static void die_at(struct fixture *fixture, const char *point)
{
	struct broker *broker = &fixture->broker;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user);
	const char *ids[EACH * 3];
	int status;

	for (int i = 0; i < EACH * 3; i++) {
		ids[i] = new_id();
	}
	broker_stop(broker);
	broker->environment[0] = text_of("CHAT_CRASH_AT=%s", point);
	broker_start(broker);
	send_all(fixture, user, group, ids);
	if (!process_wait(&broker->process, now_ms() + allowed_ms(DIES_MS), &status)) {
		fail_msg("it has not died at: %s", point);
	}
	broker->environment[0] = NULL;
	clients_close_all();
	broker_start(broker);
	send_all(fixture, user, group, ids); /* whoever got no PUBACK sends again */
	sql_wait(&fixture->postgres, 2 * EACH, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	sql_wait(&fixture->postgres, EACH,
		"SELECT count(DISTINCT client_id) FROM chat.refusals WHERE conversation_id = %lld AND code = 'forbidden'",
		(long long)group);
	broker_stop(broker);
	assert_int_equal(
		sql_integer(&fixture->postgres,
			"SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND body IN ('a ******', 'a curious "
			"thing')",
			(long long)group),
		2 * EACH);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)group),
		2 * EACH);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.reports WHERE conversation_id = %lld",
				 (long long)group),
		EACH);
	broker_start(broker);
}

static void test_dies(void **state)
{
	static const char *const points[] = {"appended", "sending", "committed", "posted", "releasing", "delivered"};
	struct fixture *fixture = *state;

	fixture_use_plugin(fixture, "CHAT_TEST_FAULTY_PLUGIN");
	sql(&fixture->postgres,
		"INSERT INTO chat.content_rules (pattern, action) VALUES ('secret', 'mask'), ('curious', 'flag'), "
		"('badword', 'reject')");
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		die_at(fixture, points[i]);
	}
	fixture_forget_log(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_dies)};
	return cmocka_run_group_tests_name("rules", tests, fixture_setup, fixture_teardown);
}
