/* test_hiding.c - what members do not learn of one another: reads that are hidden, and what a block keeps back. Threat 54. */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WITHOUT_READS "{\"reads\":false,\"receipts\":["

struct scene {
	struct fixture *fixture;
	int64_t alice, bob, carol, group;
	struct client *alices, *bobs, *carols;
};

static struct client *listener(struct fixture *fixture, int64_t user, int version, int64_t conversation)
{
	struct client *client = fixture_member(fixture, user, version, conversation);
	assert_int_equal(client_subscribe(client, topic_of(conversation, "receipts")), 1);
	assert_int_equal(client_subscribe(client, topic_of(conversation, "typing")), 1);
	return client;
}

/* Bob hides what he has read, or not; all have the group's three messages from Alice. */
static struct scene begin(void **state, const char *setting)
{
	struct scene scene = {.fixture = *state};
	scene.alice = fixture_user(scene.fixture);
	scene.bob = fixture_user(scene.fixture);
	scene.carol = fixture_user(scene.fixture);
	sql(&scene.fixture->postgres, "UPDATE chat.users SET settings = '{\"privacy\":{\"read_receipts\":%s}}' WHERE id = %lld",
		setting, (long long)scene.bob);
	scene.group = GROUP_OF(scene.fixture, scene.alice, scene.bob, scene.carol);
	scene.alices = listener(scene.fixture, scene.alice, 5, scene.group);
	scene.bobs = listener(scene.fixture, scene.bob, 4, scene.group);
	scene.carols = listener(scene.fixture, scene.carol, 5, scene.group);
	for (int i = 1; i <= 3; i++) {
		client_publish(scene.alices, topic_of(scene.group, "send"), "x", 1);
		expect_message(scene.bobs, scene.group, i, scene.alice, "x");
		expect_message(scene.carols, scene.group, i, scene.alice, "x");
		expect_message(scene.alices, scene.group, i, scene.alice, "x");
	}
	return scene;
}

static void mark(struct scene *scene, struct client *client, const char *payload)
{
	assert_true(client_publish(client, topic_of(scene->group, "mark"), payload, 1) < 0x80);
}

/* The next receipts, whole: `entry` and `at`, in the form that begins so. */
static void expect_receipts(struct scene *scene, struct client *client, const char *begins, const char *entry)
{
	struct message *message = client_receive(client, topic_of(scene->group, "receipts"));
	const char *expected = text_of("%s%s,\"at\":", begins, entry), *rest = message->payload + strlen(expected);
	if (strncmp(message->payload, expected, strlen(expected)) != 0)
		fail_msg("%s is not %s", message->payload, expected);
	assert_string_equal(rest + strspn(rest, "0123456789"), "}]}");
	message_free(message);
}

static const char *entry(int64_t user, int64_t delivered, int64_t read)
{
	if (read < 0)
		return text_of("{\"user\":%lld,\"delivered\":%lld", (long long)user, (long long)delivered);
	return text_of("{\"user\":%lld,\"delivered\":%lld,\"read\":%lld", (long long)user, (long long)delivered, (long long)read);
}

/* The status of the third message for one member, as the client is told. */
static void expect_status(struct scene *scene, struct client *client, int64_t of, const char *status)
{
	assert_true(client_publish(client, "chat/request/message.status",
			    text_of("{\"conversation\":%lld,\"seq\":3}", (long long)scene->group), 1) < 0x80);
	struct message *answer = client_receive(client, answers_of(client));
	cJSON *root = cJSON_Parse(answer->payload), *member;
	bool found = false;
	cJSON_ArrayForEach(member, cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "result"), "members"))
	{
		if ((int64_t)cJSON_GetObjectItemCaseSensitive(member, "user")->valuedouble == of) {
			found = true;
			assert_string_equal(cJSON_GetObjectItemCaseSensitive(member, "status")->valuestring, status);
			assert_int_equal(cJSON_HasObjectItem(member, "read_at"), strcmp(status, "read") == 0);
		}
	}
	check(found);
	cJSON_Delete(root);
	message_free(answer);
}

static void await_read(struct scene *scene, int64_t user, int64_t seq)
{
	sql_wait(&scene->fixture->postgres, seq,
		"SELECT read_seq FROM chat.participant_watermarks WHERE conversation_id = %lld AND user_id = %lld",
		(long long)scene->group, (long long)user);
}

/* Others learn what reached Bob and never what he read: not by a number, nor by being told something that says nothing new. */
static void test_reads_are_not_shown(void **state)
{
	struct scene scene = begin(state, "false");
	struct client *phone = fixture_client(scene.fixture, scene.bob, 5);
	assert_int_equal(client_subscribe(phone, user_topic(scene.bob, "inbox")), 1);
	fixture_await_loaded(phone);
	mark(&scene, scene.bobs, "{\"delivered\":1}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.bob, 1, -1));
	expect_receipts(&scene, scene.carols, "{\"receipts\":[", entry(scene.bob, 1, -1));
	expect_receipts(&scene, scene.bobs, WITHOUT_READS, entry(scene.bob, 1, -1));
	mark(&scene, scene.bobs, "{\"read\":3}"); /* read implies delivered */
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.bob, 3, -1));
	message_free(client_receive(phone, user_topic(scene.bob, "inbox"))); /* his own devices know */
	mark(&scene, scene.carols, "{\"delivered\":3}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.carol, 3, 0));
	await_read(&scene, scene.bob, 3);
	expect_status(&scene, scene.alices, scene.bob, "delivered");
	expect_status(&scene, scene.carols, scene.bob, "delivered");
	assert_int_equal(sql_integer(&scene.fixture->postgres,
				 "SELECT count(*) FROM chat.message_status WHERE conversation_id = %lld AND user_id = %lld AND "
				 "(status <> 'delivered' OR read_at IS NOT NULL)",
				 (long long)scene.group, (long long)scene.bob),
		0);
}

static void test_a_read_alone_is_no_news(void **state)
{
	struct scene scene = begin(state, "false");
	struct client *phone = fixture_client(scene.fixture, scene.bob, 5);
	assert_int_equal(client_subscribe(phone, user_topic(scene.bob, "inbox")), 1);
	fixture_await_loaded(phone);
	mark(&scene, scene.bobs, "{\"delivered\":3}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.bob, 3, -1));
	mark(&scene, scene.bobs, "{\"read\":2}");
	struct message *event = client_receive(phone, user_topic(scene.bob, "inbox"));
	assert_string_equal(
		event->payload, text_of("{\"event\":\"read\",\"conversation\":%lld,\"read\":2}", (long long)scene.group));
	message_free(event);
	mark(&scene, scene.carols, "{\"delivered\":3}"); /* whatever was to be told of Bob would come before or with it */
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.carol, 3, 0));
	expect_silence(scene.alices, topic_of(scene.group, "receipts"));
}

/* And Bob does not learn what others read. */
static void test_reads_are_not_seen(void **state)
{
	struct scene scene = begin(state, "false");
	mark(&scene, scene.carols, "{\"delivered\":2}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.carol, 2, 0));
	expect_receipts(&scene, scene.bobs, WITHOUT_READS, entry(scene.carol, 2, -1));
	mark(&scene, scene.carols, "{\"read\":1}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.carol, 2, 1));
	expect_silence(scene.bobs, topic_of(scene.group, "receipts"));
	mark(&scene, scene.carols, "{\"read\":3}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.carol, 3, 3));
	expect_receipts(&scene, scene.bobs, WITHOUT_READS, entry(scene.carol, 3, -1));
	expect_status(&scene, scene.alices, scene.carol, "read");
	expect_status(&scene, scene.bobs, scene.carol, "delivered");
	expect_silence(scene.bobs, topic_of(scene.group, "receipts"));
	expect_silence(scene.alices, topic_of(scene.group, "receipts"));
}

/* Who hides and belonged nowhere when they signed in sees no reads where they are added later. */
static void test_added_later(void **state)
{
	struct fixture *fixture = *state;
	struct scene scene = {.fixture = fixture, .alice = fixture_user(fixture), .bob = fixture_user(fixture)};
	sql(&fixture->postgres, "UPDATE chat.users SET settings = '{\"privacy\":{\"read_receipts\":false}}' WHERE id = %lld",
		(long long)scene.bob);
	scene.bobs = fixture_client(fixture, scene.bob, 5);
	fixture_await_loaded(scene.bobs);
	scene.group = GROUP_OF(fixture, scene.alice, scene.bob);
	for (int64_t deadline_ms = now_ms() + 15000; client_subscribe(scene.bobs, topic_of(scene.group, "receipts")) != 1;)
		check(now_ms() < deadline_ms); /* refused until the broker has heard of it */
	scene.alices = listener(fixture, scene.alice, 5, scene.group);
	client_publish(scene.alices, topic_of(scene.group, "send"), "x", 1);
	expect_message(scene.alices, scene.group, 1, scene.alice, "x");
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'x')", (long long)scene.group);
	expect_message(scene.alices, scene.group, 2, 0, "x");
	mark(&scene, scene.alices, "{\"read\":2}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.alice, 2, 2));
	expect_receipts(&scene, scene.bobs, WITHOUT_READS, entry(scene.alice, 2, -1));
}

/* Changed by request while all are connected, both ways; whoever changes something else is not disturbed. */
static void test_changed_while_connected(void **state)
{
	struct scene scene = begin(state, "true");
	static const struct {
		const char *params, *begins;
	} changes[] = {
		{"{\"privacy\":{\"read_receipts\":false}}", WITHOUT_READS},
		{"{\"privacy\":{\"read_receipts\":true}}", "{\"receipts\":["},
	};
	int64_t seq = 3;
	for (size_t i = 0; i < 2; i++) {
		assert_true(client_publish(scene.bobs, "chat/request/user.update", changes[i].params, 1) < 0x80);
		message_free(client_receive(scene.bobs, answers_of(scene.bobs)));
		for (bool changed = false; !changed;) { /* his session hears of it a moment after the answer */
			client_publish(scene.alices, topic_of(scene.group, "send"), "x", 1);
			expect_message(scene.bobs, scene.group, ++seq, scene.alice, "x");
			mark(&scene, scene.carols, text_of("{\"delivered\":%lld}", (long long)seq));
			struct message *message = client_receive(scene.bobs, topic_of(scene.group, "receipts"));
			changed = strncmp(message->payload, changes[i].begins, strlen(changes[i].begins)) == 0;
			message_free(message);
			expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.carol, seq, 0));
		}
		/* What Bob reads is hidden, or shown, from the answer on. */
		mark(&scene, scene.bobs, text_of("{\"read\":%lld}", (long long)seq));
		expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.bob, seq, i == 0 ? -1 : seq));
		expect_receipts(&scene, scene.bobs, changes[i].begins, entry(scene.bob, seq, i == 0 ? -1 : seq));
	}
}

/* Between two it is the same as in a group: neither learns what the other has read. */
static void test_between_two(void **state)
{
	struct fixture *fixture = *state;
	struct scene scene = {.fixture = fixture, .alice = fixture_user(fixture), .bob = fixture_user(fixture)};
	sql(&fixture->postgres, "UPDATE chat.users SET settings = '{\"privacy\":{\"read_receipts\":false}}' WHERE id = %lld",
		(long long)scene.bob);
	scene.group = sql_integer(&fixture->postgres,
		"INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', %lld, %lld) RETURNING id",
		(long long)scene.alice, (long long)scene.bob);
	scene.alices = listener(fixture, scene.alice, 5, scene.group);
	scene.bobs = listener(fixture, scene.bob, 5, scene.group);
	client_publish(scene.alices, topic_of(scene.group, "send"), "x", 1);
	expect_message(scene.bobs, scene.group, 1, scene.alice, "x");
	client_publish(scene.bobs, topic_of(scene.group, "send"), "y", 1);
	expect_message(scene.bobs, scene.group, 2, scene.bob, "y");
	mark(&scene, scene.alices, "{\"read\":2}");
	expect_receipts(&scene, scene.bobs, WITHOUT_READS, entry(scene.alice, 2, -1));
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.alice, 2, 2)); /* her own devices alone */
	expect_silence(scene.bobs, topic_of(scene.group, "receipts"));
}

/* While one has blocked the other, neither sees the other read or type; afterwards both do again. */
static void test_blocked(void **state)
{
	struct fixture *fixture = *state;
	struct scene scene = {.fixture = fixture, .alice = fixture_user(fixture), .bob = fixture_user(fixture)};
	scene.group = sql_integer(&fixture->postgres,
		"INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', %lld, %lld) RETURNING id",
		(long long)scene.alice, (long long)scene.bob);
	scene.alices = listener(fixture, scene.alice, 5, scene.group);
	scene.bobs = listener(fixture, scene.bob, 4, scene.group);
	assert_int_equal(client_subscribe(scene.bobs, user_topic(scene.bob, "inbox")), 1);
	for (int i = 1; i <= 3; i++) {
		client_publish(scene.alices, topic_of(scene.group, "send"), "x", 1);
		expect_message(scene.bobs, scene.group, i, scene.alice, "x");
	}
	client_publish(scene.alices, topic_of(scene.group, "type"), "{\"typing\":true}", 0);
	message_free(client_receive(scene.bobs, topic_of(scene.group, "typing")));
	mark(&scene, scene.bobs, "{\"read\":1}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.bob, 1, 1));
	client_fence(scene.alices);
	while (client_waiting(scene.alices, topic_of(scene.group, "typing")) > 0)
		message_free(client_receive(scene.alices, topic_of(scene.group, "typing")));
	while (client_waiting(scene.bobs, topic_of(scene.group, "receipts")) > 0)
		message_free(client_receive(scene.bobs, topic_of(scene.group, "receipts")));
	client_publish(scene.bobs, "chat/request/user.block", text_of("{\"user\":%lld}", (long long)scene.alice), 1);
	message_free(client_receive(scene.bobs, answers_of(scene.bobs)));
	message_free(
		client_receive(scene.bobs, user_topic(scene.bob, "inbox"))); /* by now the broker has read the memberships anew */
	client_publish(scene.alices, topic_of(scene.group, "type"), "{\"typing\":false}", 0);
	client_publish(scene.bobs, topic_of(scene.group, "type"), "{\"typing\":true}", 0);
	mark(&scene, scene.bobs, "{\"read\":2}");
	mark(&scene, scene.alices, "{\"read\":3}");
	await_read(&scene, scene.bob, 2);
	await_read(&scene, scene.alice, 3);
	expect_status(&scene, scene.alices, scene.bob, "sent");
	expect_silence(scene.alices, topic_of(scene.group, "typing"));
	expect_silence(scene.bobs, topic_of(scene.group, "typing"));
	expect_silence(scene.alices, topic_of(scene.group, "receipts"));
	expect_silence(scene.bobs, topic_of(scene.group, "receipts"));

	client_publish(scene.bobs, "chat/request/user.unblock", text_of("{\"user\":%lld}", (long long)scene.alice), 1);
	message_free(client_receive(scene.bobs, answers_of(scene.bobs)));
	message_free(client_receive(scene.bobs, user_topic(scene.bob, "inbox")));
	client_publish(scene.bobs, topic_of(scene.group, "type"), "{\"typing\":true}", 0);
	message_free(client_receive(scene.alices, topic_of(scene.group, "typing")));
	mark(&scene, scene.bobs, "{\"delivered\":3}");
	expect_receipts(&scene, scene.alices, "{\"receipts\":[", entry(scene.bob, 3, 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reads_are_not_shown),
		TEST(test_a_read_alone_is_no_news),
		TEST(test_reads_are_not_seen),
		TEST(test_added_later),
		TEST(test_changed_while_connected),
		TEST(test_between_two),
		TEST(test_blocked),
	};
	return cmocka_run_group_tests_name("hiding", tests, fixture_setup, fixture_teardown);
}
