/* test_receipts.c - delivered and read marks, and the receipts that come of them. Threat 40. */
#include "fixture.h"

#include <signal.h>
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

/* So many publishes the interval allows in the time since then; whatever took the time. */
static int most_publishes(int64_t since_ms, int interval_ms)
{
	return 2 + (int)((now_ms() - since_ms) / interval_ms);
}

/* threat 40: a thousand marks become few publishes, and the last one counts. */
static void test_marks_are_collected(void **state)
{
	enum { INTERVAL_MS = 200 }; /* receipt_interval's default */
	struct scene scene = begin(state, 200);
	subscribe(&scene, scene.sender, "receipts");
	int64_t since_ms = now_ms();
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
	assert_true(publishes <= most_publishes(since_ms, INTERVAL_MS));
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

/* Receipts of a hundred members, counted by one of them: not two for each member and message. */
static void test_a_hundred_readers(void **state)
{
	enum { MEMBERS = 100 };
	struct fixture *fixture = *state;
	static const char *const options[] = {"receipt_interval 1000", NULL};
	int64_t users[MEMBERS + 1] = {0};
	struct client *clients[MEMBERS];
	bool read[MEMBERS] = {true}; /* the author reads it too, but by sending it */
	fixture_restart_broker(fixture, options);
	for (int i = 0; i < MEMBERS; i++)
		users[i] = fixture_user(fixture);
	int64_t group = fixture_group(fixture, users);
	for (int i = 0; i < MEMBERS; i++)
		clients[i] = fixture_client(fixture, users[i], i % 2 ? 4 : 5);
	fixture_await_loaded(clients[0]);
	assert_int_equal(client_subscribe(clients[0], topic_of(group, "messages")), 1);
	assert_int_equal(client_subscribe(clients[0], topic_of(group, "receipts")), 1);
	client_publish(clients[0], topic_of(group, "send"), "to all", 1);
	expect_message(clients[0], group, 1, users[0], "to all");
	int64_t since_ms = now_ms();
	for (int i = 1; i < MEMBERS; i++) {
		client_send(clients[i], topic_of(group, "mark"), "{\"delivered\":1}");
		client_send(clients[i], topic_of(group, "mark"), "{\"read\":1}");
	}
	int publishes = 0;
	for (int missing = MEMBERS - 1; missing > 0; publishes++) {
		struct message *message = client_receive(clients[0], topic_of(group, "receipts"));
		cJSON *root = cJSON_Parse(message->payload), *receipt;
		cJSON_ArrayForEach(receipt, cJSON_GetObjectItemCaseSensitive(root, "receipts"))
		{
			int64_t of = (int64_t)cJSON_GetObjectItemCaseSensitive(receipt, "user")->valuedouble;
			for (int i = 0; i < MEMBERS; i++) {
				if (users[i] == of && !read[i] &&
					cJSON_GetObjectItemCaseSensitive(receipt, "read")->valuedouble == 1) {
					read[i] = true;
					missing--;
				}
			}
		}
		cJSON_Delete(root);
		message_free(message);
	}
	print_message("%d marks came out as %d publishes\n", 2 * (MEMBERS - 1), publishes);
	assert_true(publishes <= most_publishes(since_ms, 1000));
	fixture_restart_broker(fixture, NULL);
}

/* The first change after quiet is told at once, the next ones together when the interval is over. */
static void test_the_interval(void **state)
{
	struct fixture *fixture = *state;
	char path[PATH_SIZE];
	check(snprintf(path, sizeof path, "%s/receipts.conf", fixture->directory) < (int)sizeof path);
	file_write(path, "receipt_interval 60000\n", 0644, NULL);
	fixture_restart_broker(fixture, (const char *[]){text_of("config %s", path), NULL});
	struct scene scene = begin(state, 5);
	int64_t carol = fixture_user(fixture);
	sql(&fixture->postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)scene.group, (long long)carol);
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'now with carol')",
		(long long)scene.group);
	expect_message(scene.listener, scene.group, 6, 0, NULL);
	struct client *third = fixture_client(fixture, carol, 5);
	subscribe(&scene, scene.sender, "receipts");
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":1}", 1);
	expect_receipt(&scene, scene.sender, scene.bob, 1, 1);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":2}", 1);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":4}", 1);
	client_publish(third, topic_of(scene.group, "mark"), "{\"read\":6}", 1);
	sql_wait(&fixture->postgres, 10,
		"SELECT sum(read_seq) FROM chat.participant_watermarks WHERE conversation_id = %lld"
		" AND user_id IN (%lld, %lld)",
		(long long)scene.group, (long long)scene.bob, (long long)carol);
	/* What is stored of a conversation is handed over in its order: with this, those marks have been. */
	client_publish(scene.sender, topic_of(scene.group, "send"), "after them", 1);
	expect_message(scene.listener, scene.group, 7, scene.alice, "after them");
	expect_silence(scene.sender, topic_of(scene.group, "receipts"));
	int reloads = broker_log_count(&fixture->broker, "reloaded keys and options");
	file_write(path, "receipt_interval 0\n", 0644, NULL);
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "reloaded keys and options", reloads + 1);
	struct message *message = client_receive(scene.sender, topic_of(scene.group, "receipts"));
	assert_non_null(strstr(message->payload, text_of("\"user\":%lld,\"delivered\":4,\"read\":4", (long long)scene.bob)));
	assert_non_null(strstr(message->payload, text_of("\"user\":%lld,\"delivered\":6,\"read\":6", (long long)carol)));
	message_free(message);
	expect_silence(scene.sender, topic_of(scene.group, "receipts"));
	fixture_restart_broker(fixture, NULL);
}

/* threat 40: who is no member marks nothing, and learns nothing by trying. */
static void test_strangers_mark_nothing(void **state)
{
	struct scene scene = begin(state, 3);
	struct client *stranger = fixture_client(scene.fixture, fixture_user(scene.fixture), 5);
	assert_int_equal(client_subscribe(stranger, answers_of(stranger)), 1);
	fixture_await_loaded(stranger);
	assert_int_equal(client_publish(stranger, topic_of(scene.group, "mark"), "{\"read\":1}", 1), 0x87);
	expect_error(stranger, "not_found");
	assert_int_equal(client_publish(stranger, topic_of(999999999, "mark"), "{\"read\":1}", 1), 0x87);
	expect_error(stranger, "not_found");
	/* A member as far as the broker knows, and none any more at the commit. */
	assert_int_equal(client_subscribe(scene.listener, answers_of(scene.listener)), 1);
	pid_t loader = postgres_hold(&scene.fixture->postgres, "mosquitto-chat loader");
	sql(&scene.fixture->postgres,
		"DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)scene.group, (long long)scene.bob);
	assert_int_equal(client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":1}", 1), 0);
	expect_error(scene.listener, "not_found");
	check(kill(loader, SIGCONT) == 0);
}

/* A device that was signed out between the PUBACK and the commit, and an account that was suspended. */
static void test_signed_out_devices_mark_nothing(void **state)
{
	struct scene scene = begin(state, 3);
	struct postgres *postgres = &scene.fixture->postgres;
	int64_t device =
		sql_integer(postgres, "INSERT INTO chat.devices (user_id) VALUES (%lld) RETURNING id", (long long)scene.bob);
	char *token = fixture_token(scene.fixture, scene.bob, device, 600);
	struct client *client = client_try(
		&(struct client_options){.port = scene.fixture->broker.port, .version = 5, .user = "u", .password = token});
	free(token);
	assert_int_equal(client_connack(client), 0);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	fixture_await_loaded(client);
	client_publish(client, topic_of(scene.group, "mark"), "{\"delivered\":1}", 1);
	sql_wait(postgres, 1, "SELECT coalesce(max(delivered_seq), 0) FROM chat.device_watermarks WHERE device_id = %lld",
		(long long)device);
	pid_t loader = postgres_hold(postgres, "mosquitto-chat loader"); /* its session has not heard of it */
	sql(postgres, "UPDATE chat.devices SET revoked_at = now() WHERE id = %lld", (long long)device);
	assert_true(client_publish(client, topic_of(scene.group, "mark"), "{\"read\":2}", 1) < 0x80);
	expect_error(client, "unauthenticated");
	sql(postgres, "UPDATE chat.users SET status = 'suspended' WHERE id = %lld", (long long)scene.bob);
	assert_int_equal(client_subscribe(scene.listener, answers_of(scene.listener)), 1);
	client_publish(scene.listener, topic_of(scene.group, "mark"), "{\"read\":2}", 1);
	expect_error(scene.listener, "unauthenticated");
	check(kill(loader, SIGCONT) == 0);
	client_wait_closed(client);
	assert_int_equal(watermark(&scene, scene.bob, "delivered_seq"), 1);
	assert_int_equal(watermark(&scene, scene.bob, "read_seq"), 0);
}

/* threat 40: a thousand marks a second are too many, and say when to go on; those that were taken count. */
static void test_a_flood_of_marks(void **state)
{
	enum { FLOOD = 3000, BURST = 500, PER_SECOND = 100 };
	struct scene scene = begin(state, 5);
	struct client *client = fixture_member(scene.fixture, scene.bob, 5, scene.group);
	int64_t since_ms = now_ms();
	client_publish(client, topic_of(scene.group, "mark"), "{\"read\":4}", 1);
	for (int i = 0; i < FLOOD; i++)
		client_send(client, topic_of(scene.group, "mark"), "{\"read\":3}");
	client_settle(client);
	client_fence(client);
	int refused = client_waiting(client, answers_of(client));
	print_message("%d of %d marks were refused\n", refused, FLOOD);
	assert_in_range(FLOOD - refused, BURST - 1, BURST + (now_ms() - since_ms) * PER_SECOND / 1000 + 1);
	for (int i = 0; i < refused; i++) {
		struct message *error = client_receive(client, answers_of(client));
		assert_string_equal(message_error(error), "rate_limited");
		assert_non_null(strstr(error->payload, "retry_after_ms"));
		message_free(error);
	}
	/* The limit is the user's, and nobody else's. What is stored of a conversation is stored in its order. */
	client_publish(scene.sender, topic_of(scene.group, "send"), "after it", 1);
	expect_message(scene.listener, scene.group, 6, scene.alice, "after it");
	assert_int_equal(watermark(&scene, scene.bob, "read_seq"), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_marks_become_receipts),
		TEST(test_marks_only_rise),
		TEST(test_bad_marks_are_refused),
		TEST(test_marks_are_collected),
		TEST(test_delivered_per_device),
		TEST(test_a_hundred_readers),
		TEST(test_the_interval),
		TEST(test_strangers_mark_nothing),
		TEST(test_signed_out_devices_mark_nothing),
		TEST(test_a_flood_of_marks),
	};
	return cmocka_run_group_tests_name("receipts", tests, fixture_setup, fixture_teardown);
}
