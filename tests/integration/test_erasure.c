/* test_erasure.c - what is deleted, edited or expired is gone: from the table, from history and search, from what is delivered.
 */
#include "fixture.h"

#include <string.h>

struct scene {
	struct fixture *fixture;
	int64_t owner_id, author_id, group;
	struct client *owner, *author; /* versions 5 and 4 */
};

static struct scene begin(void **state)
{
	struct scene scene = {.fixture = *state};
	scene.owner_id = fixture_user(scene.fixture);
	scene.author_id = fixture_user(scene.fixture);
	scene.group = GROUP_OF(scene.fixture, scene.owner_id, scene.author_id);
	scene.owner = fixture_member(scene.fixture, scene.owner_id, 5, scene.group);
	scene.author = fixture_member(scene.fixture, scene.author_id, 4, scene.group);
	return scene;
}

static void restart(struct scene *scene, const char *option)
{
	fixture_restart_broker(scene->fixture, (const char *[]){"rate_requests 0", option, NULL});
	scene->owner = fixture_member(scene->fixture, scene->owner_id, 5, scene->group);
	scene->author = fixture_member(scene->fixture, scene->author_id, 4, scene->group);
}

static struct message *ask(struct client *client, const char *method, const char *parameters)
{
	client_publish(client, text_of("chat/request/%s", method), parameters, 1);
	return client_receive(client, answers_of(client));
}

static void say(const struct scene *scene, struct client *client, const char *payload)
{
	assert_true(client_publish(client, topic_of(scene->group, "send"), payload, 1) < 0x80);
}

/* Both have it, under this number. The later one's payload, to free. */
static struct message *hear(const struct scene *scene, int64_t seq)
{
	message_free(client_receive(scene->owner, topic_of(scene->group, "messages")));
	struct message *message = client_receive(scene->author, topic_of(scene->group, "messages"));
	assert_int_equal(message_integer(message, "seq"), seq);
	return message;
}

static void expect_kept(const struct scene *scene, int64_t seq, const char *expected)
{
	char *kept = sql_text(&scene->fixture->postgres,
		"SELECT concat_ws(' ', type, body, extra) FROM chat.messages WHERE conversation_id = %lld AND seq = %lld",
		(long long)scene->group, (long long)seq);
	assert_string_equal(kept, expected);
	free(kept);
}

static void expect_in_history(const struct scene *scene, int64_t seq, const char *expected)
{
	struct message *answer = ask(scene->owner, "message.history",
		text_of("{\"conversation\":%lld,\"after\":%lld,\"limit\":1}", (long long)scene->group, (long long)seq - 1));
	if (!strstr(answer->payload, expected))
		fail_msg("no %s in %.500s", expected, answer->payload);
	message_free(answer);
}

/* Until the index has it (or not). */
static void wait_found(const struct scene *scene, const char *word, bool found)
{
	int64_t end = now_ms() + 60000; /* what one call took is rested threefold (search_share) */
	for (bool is = !found; is != found;) {
		struct message *answer = ask(scene->owner, "message.search",
			text_of("{\"query\":\"%s\",\"conversation\":%lld}", word, (long long)scene->group));
		is = strstr(answer->payload, "\"seq\"") != NULL;
		message_free(answer);
		assert_true(is == found || now_ms() < end);
	}
}

static void test_owner_deletes(void **state)
{
	struct scene scene = begin(state);
	say(&scene, scene.author,
		text_of("{\"body\":\"a secret\",\"mentions\":[%lld],\"attachments\":[{\"key\":\"k\"}],\"meta\":{\"a\":1}}",
			(long long)scene.owner_id));
	message_free(hear(&scene, 1));
	wait_found(&scene, "secret", true);
	say(&scene, scene.owner, "{\"type\":\"delete\",\"ref\":1}");
	struct message *message = hear(&scene, 2);
	assert_string_equal(message_string(message, "type"), "delete");
	message_free(message);
	expect_kept(&scene, 1, "deleted");
	expect_in_history(&scene, 1, "{\"seq\":1,\"type\":\"deleted\"}");
	wait_found(&scene, "secret", false);
	assert_int_equal(
		sql_integer(&scene.fixture->postgres, "SELECT count(*) FROM chat.search_entries WHERE words @@ 'secret'"), 0);
	say(&scene, scene.author, "{\"type\":\"edit\",\"ref\":1,\"body\":\"again\"}");
	expect_error(scene.author, "not_found");
}

static void test_others_do_not(void **state)
{
	struct scene scene = begin(state);
	say(&scene, scene.owner, "the owner's");
	message_free(hear(&scene, 1));
	say(&scene, scene.author, "{\"type\":\"edit\",\"ref\":1,\"body\":\"forged\"}");
	expect_error(scene.author, "forbidden");
	say(&scene, scene.author, "{\"type\":\"delete\",\"ref\":1}");
	expect_error(scene.author, "forbidden");
	expect_kept(&scene, 1, "text the owner's");
	say(&scene, scene.author, "{\"type\":\"reaction\",\"ref\":1,\"body\":\"+1\"}");
	message_free(hear(&scene, 2));
	say(&scene, scene.author, "{\"type\":\"reaction\",\"ref\":1,\"body\":\"+1\"}");
	expect_error(scene.author, "conflict");
	assert_int_equal(sql_integer(&scene.fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld",
				 (long long)scene.group),
		2);
}

/* Measured from acceptance to acceptance. */
static void test_edit_window(void **state)
{
	struct scene scene = begin(state);
	say(&scene, scene.author, "first");
	message_free(hear(&scene, 1));
	sql(&scene.fixture->postgres,
		"UPDATE chat.messages SET sent_at = sent_at - interval '1 hour' WHERE conversation_id = %lld",
		(long long)scene.group);
	say(&scene, scene.author, "{\"type\":\"edit\",\"ref\":1,\"body\":\"second\"}");
	message_free(hear(&scene, 2));
	expect_kept(&scene, 1, "text second");
	restart(&scene, "edit_window 30m");
	say(&scene, scene.author, "{\"type\":\"edit\",\"ref\":1,\"body\":\"third\"}");
	expect_error(scene.author, "forbidden");
	expect_kept(&scene, 1, "text second");
	say(&scene, scene.author, "in time");
	message_free(hear(&scene, 3));
	say(&scene, scene.author, "{\"type\":\"edit\",\"ref\":3,\"body\":\"is edited\"}");
	message_free(hear(&scene, 4));
	expect_kept(&scene, 3, "text is edited");
	restart(&scene, NULL);
}

/* The conversation's rule is told with the message; the sweeper comes by itself. */
static void test_expiry(void **state)
{
	struct scene scene = begin(state);
	message_free(ask(
		scene.owner, "conversation.update", text_of("{\"conversation\":%lld,\"expires_in\":1}", (long long)scene.group)));
	message_free(hear(&scene, 1));
	say(&scene, scene.author, "{\"body\":\"fleeting\"}");
	struct message *message = hear(&scene, 2);
	assert_int_equal(message_integer(message, "expires_at") - message_integer(message, "sent_at"), 1000);
	message_free(message);
	say(&scene, scene.author, "{\"body\":\"lasting\",\"expires_in\":3600}");
	message = hear(&scene, 3);
	assert_int_equal(message_integer(message, "expires_at") - message_integer(message, "sent_at"), 3600000);
	message_free(message);
	sql_wait(&scene.fixture->postgres, 1,
		"SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND seq = 2 AND type = 'expired' AND body IS "
		"NULL",
		(long long)scene.group);
	expect_in_history(&scene, 2, "{\"seq\":2,\"type\":\"expired\"}");
	wait_found(&scene, "fleeting", false);
	expect_kept(&scene, 3, "text lasting");
}

static void test_retention(void **state)
{
	struct scene scene = begin(state);
	say(&scene, scene.author, "ancient");
	message_free(hear(&scene, 1));
	say(&scene, scene.author, "old");
	message_free(hear(&scene, 2));
	say(&scene, scene.author, "new");
	message_free(hear(&scene, 3));
	sql(&scene.fixture->postgres,
		"UPDATE chat.messages SET committed_at = committed_at - interval '8 days' WHERE conversation_id = %lld AND seq < "
		"3",
		(long long)scene.group);
	/* Somebody else is at it when the broker begins, which is not the end of the round. */
	PGconn *other = postgres_connect(&scene.fixture->postgres, "postgres");
	PQclear(PQexec(other, "SELECT pg_advisory_lock(1667785076, 1937204581)"));
	restart(&scene, "retention_days 7");
	sql_wait(&scene.fixture->postgres, 1,
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mosquitto-chat chores' AND query LIKE "
		"'%%lift_suspensions%%'");
	PQfinish(other);
	sql_wait(&scene.fixture->postgres, 3, "SELECT first_seq FROM chat.conversations WHERE id = %lld", (long long)scene.group);
	assert_int_equal(sql_integer(&scene.fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)scene.group),
		1);
	struct message *answer = ask(scene.owner, "message.sync", text_of("{\"cursors\":{\"%lld\":1}}", (long long)scene.group));
	assert_non_null(strstr(answer->payload, "\"first_seq\":3"));
	assert_non_null(strstr(answer->payload, "\"unread\":1"));
	assert_null(strstr(answer->payload, "old"));
	message_free(answer);
	say(&scene, scene.author, "newer");
	message_free(hear(&scene, 4));
	restart(&scene, NULL);
}

static int set_up(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, (const char *[]){"rate_requests 0", NULL}, NULL);
	broker_start(&fixture->broker);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_owner_deletes), TEST(test_others_do_not), TEST(test_edit_window),
		TEST(test_expiry), TEST(test_retention)};
	return cmocka_run_group_tests_name("erasure", tests, set_up, fixture_teardown);
}
