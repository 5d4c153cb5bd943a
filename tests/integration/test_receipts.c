/* test_receipts.c - delivered and read marks, and typing. Threat 40. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene {
	struct fixture *fixture;
	int64_t alice, bob, group;
	struct client *sender;   /* alice, version 5 */
	struct client *listener; /* bob, version 4 */
};

static struct scene begin(void **state, int messages)
{
	struct scene scene = {.fixture = *state};
	scene.alice = fixture_user(scene.fixture);
	scene.bob = fixture_user(scene.fixture);
	scene.group = GROUP_OF(scene.fixture, scene.alice, scene.bob);
	scene.sender = fixture_member(scene.fixture, scene.alice, 5, scene.group);
	scene.listener = fixture_member(scene.fixture, scene.bob, 4, scene.group);
	for (int i = 1; i <= messages; i++) {
		client_publish(scene.sender, topic_of(scene.group, "send"), "x", 1);
		expect_message(scene.listener, scene.group, i, scene.alice, "x");
	}
	return scene;
}

static void subscribe(struct scene *scene, struct client *client, const char *noun)
{
	assert_int_equal(client_subscribe(client, topic_of(scene->group, noun)), 1);
}

/* Waits until a receipt of the user says at least this; collected changes may come in several publishes. */
static void expect_receipt(struct scene *scene, struct client *client, int64_t user, int64_t delivered, int64_t read)
{
	for (bool seen = false; !seen;) {
		struct message *message = client_receive(client, topic_of(scene->group, "receipts"));
		cJSON *root = cJSON_Parse(message->payload), *receipt;
		check(root != NULL);
		cJSON_ArrayForEach(receipt, cJSON_GetObjectItemCaseSensitive(root, "receipts"))
		{
			int64_t of = (int64_t)cJSON_GetObjectItemCaseSensitive(receipt, "user")->valuedouble;
			int64_t d = (int64_t)cJSON_GetObjectItemCaseSensitive(receipt, "delivered")->valuedouble;
			int64_t r = (int64_t)cJSON_GetObjectItemCaseSensitive(receipt, "read")->valuedouble;
			assert_true(cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(receipt, "at")));
			assert_true(r <= d);
			seen = seen || (of == user && d == delivered && r == read);
		}
		cJSON_Delete(root);
		message_free(message);
	}
}

static int64_t watermark(struct scene *scene, int64_t user, const char *column)
{
	return sql_integer(&scene->fixture->postgres,
		"SELECT %s FROM chat.participant_watermarks WHERE conversation_id = %lld AND user_id = %lld", column,
		(long long)scene->group, (long long)user);
}

static void test_marks_become_receipts(void **state)
{
	struct scene scene = begin(state, 5);
	subscribe(&scene, scene.sender, "receipts");
	assert_int_equal(client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"delivered\":4}", 1), 0);
	expect_receipt(&scene, scene.sender, scene.bob, 4, 0);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":5}", 1);
	expect_receipt(&scene, scene.sender, scene.bob, 5, 5); /* read implies delivered */
	assert_int_equal(watermark(&scene, scene.bob, "delivered_seq"), 5);
	assert_int_equal(watermark(&scene, scene.bob, "read_seq"), 5);
	/* Sending moves the sender's own. */
	assert_int_equal(watermark(&scene, scene.alice, "read_seq"), 5);
	assert_int_equal(sql_integer(&scene.fixture->postgres,
				 "SELECT count(*) FROM chat.message_status WHERE conversation_id = %lld AND user_id = %lld AND "
				 "status = 'read'",
				 (long long)scene.group, (long long)scene.bob),
		5);
}

/* threat 40: watermarks only rise. */
static void test_marks_only_rise(void **state)
{
	struct scene scene = begin(state, 5);
	subscribe(&scene, scene.sender, "receipts");
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"delivered\":5,\"read\":3}", 1);
	expect_receipt(&scene, scene.sender, scene.bob, 5, 3);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"delivered\":2}", 1);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":1}", 1);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":4}", 1);
	expect_receipt(&scene, scene.sender, scene.bob, 5, 4);
	assert_int_equal(watermark(&scene, scene.bob, "delivered_seq"), 5);
	assert_int_equal(watermark(&scene, scene.bob, "read_seq"), 4);
}

/* threat 39, threat 40: beyond the newest, below 1, no number, no member. */
static void test_bad_marks_are_refused(void **state)
{
	struct scene scene = begin(state, 3);
	struct client *client = fixture_member(scene.fixture, scene.bob, 5, scene.group);
	const char *bad[] = {"{\"read\":0}", "{\"read\":-1}", "{\"read\":1.5}", "{\"read\":\"1\"}", "{}", "{\"seen\":1}",
		"{\"read\":1,\"user\":1}", "{\"read\":1,\"conversation\":1}"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		print_message("%s\n", bad[i]);
		assert_int_equal(client_publish(client, topic_of(scene.group, "mark"), bad[i], 1), 0x87);
		expect_error(client, "invalid_field");
	}
	const char *no_json[] = {"", "1", "read", "{\"read\":1", "{\"read\":1}x", "{\"read\":1,\"read\":2}",
		"{\"read\":9007199254740992}", "{\"read\":1e999}"};
	for (size_t i = 0; i < sizeof no_json / sizeof *no_json; i++) {
		print_message("%s\n", no_json[i]);
		assert_int_equal(client_publish(client, topic_of(scene.group, "mark"), no_json[i], 1), 0x87);
		struct message *error = client_receive(client, answers_of(client));
		assert_true(!strcmp(message_error(error), "invalid_json") || !strcmp(message_error(error), "invalid_field"));
		message_free(error);
	}
	/* Known at the commit alone. */
	client_publish(client, topic_of(scene.group, "mark"), "{\"read\":4}", 1);
	expect_error(client, "invalid_field");
	assert_int_equal(watermark(&scene, scene.bob, "read_seq"), 0);
}

/* threat 40: a thousand marks become few publishes, and the last one counts. */
static void test_marks_are_collected(void **state)
{
	struct scene scene = begin(state, 200);
	subscribe(&scene, scene.sender, "receipts");
	for (int round = 0; round < 2; round++) {
		for (int seq = 1; seq <= 200; seq++)
			client_send(scene.listener, topic_of(scene.group, "mark"), text_of("{\"read\":%d}", seq));
	}
	client_settle(scene.listener);
	int publishes = 0;
	for (int64_t read = 0; read < 200; publishes++) {
		struct message *message = client_receive(scene.sender, topic_of(scene.group, "receipts"));
		cJSON *root = cJSON_Parse(message->payload);
		int64_t now = (int64_t)cJSON_GetObjectItemCaseSensitive(
			cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "receipts"), 0), "read")
				      ->valuedouble;
		cJSON_Delete(root);
		message_free(message);
		assert_true(now > read);
		read = now;
	}
	print_message("400 marks came out as %d publishes\n", publishes);
	assert_true(publishes < 40);
}

/* Delivered is kept for each device that its token names. */
static void test_delivered_per_device(void **state)
{
	struct scene scene = begin(state, 3);
	int64_t device = sql_integer(
		&scene.fixture->postgres, "INSERT INTO chat.devices (user_id) VALUES (%lld) RETURNING id", (long long)scene.bob);
	char *token = fixture_token(scene.fixture, scene.bob, device, 600);
	struct client_options options = {.port = scene.fixture->broker.port, .version = 5, .user = "u", .password = token};
	struct client *client = client_try(&options);
	free(token);
	assert_int_equal(client_connack(client), 0);
	client_publish(client, topic_of(scene.group, "mark"), "{\"delivered\":2}", 1);
	sql_wait(&scene.fixture->postgres, 2,
		"SELECT coalesce(max(delivered_seq), 0) FROM chat.device_watermarks WHERE device_id = %lld", (long long)device);
	assert_int_equal(watermark(&scene, scene.bob, "delivered_seq"), 2);
}

static void test_typing(void **state)
{
	struct scene scene = begin(state, 0);
	subscribe(&scene, scene.listener, "typing");
	assert_true(client_publish(scene.sender, topic_of(scene.group, "type"), "{\"typing\":true}", 0) == 0);
	struct message *typing = client_receive(scene.listener, topic_of(scene.group, "typing"));
	assert_int_equal(message_integer(typing, "user"), scene.alice);
	assert_int_equal(message_integer(typing, "expires_in"), 6);
	assert_int_equal(typing->qos, 0);
	message_free(typing);
	/* threat 55: more of the same passes on nothing. */
	for (int i = 0; i < 100; i++)
		client_publish(scene.sender, topic_of(scene.group, "type"), "{\"typing\":true}", 0);
	client_publish(scene.sender, topic_of(scene.group, "type"), "{\"typing\":false}", 0);
	typing = client_receive(scene.listener, topic_of(scene.group, "typing"));
	assert_non_null(strstr(typing->payload, "false"));
	message_free(typing);
	const char *bad[] = {"{\"typing\":1}", "{}", "{\"typing\":true,\"user\":1}"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		client_publish(scene.sender, topic_of(scene.group, "type"), bad[i], 0);
		expect_error(scene.sender, "invalid_field");
	}
	expect_silence(scene.listener, NULL);
	assert_int_equal(sql_integer(&scene.fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld",
				 (long long)scene.group),
		0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_marks_become_receipts),
		TEST(test_marks_only_rise),
		TEST(test_bad_marks_are_refused),
		TEST(test_marks_are_collected),
		TEST(test_delivered_per_device),
		TEST(test_typing),
	};
	return cmocka_run_group_tests_name("receipts", tests, fixture_setup, fixture_teardown);
}
