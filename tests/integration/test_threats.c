/* test_threats.c - attacks on a system at work, where the program that has the rule has none for the whole: what a request may
 * cost, members who come and go at the worst moment, and clients that do not read, ask for odd limits, or speak WebSocket badly.
 * Each ends with somebody else being served.
 */
#include "fixture.h"
#include "raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, (const char *[]){"rate_requests 0", "rate_messages 200:400", NULL}, NULL);
	broker_start(&fixture->broker);
	return 0;
}

static struct message *ask(struct client *client, const char *method, const char *parameters)
{
	assert_true(client_publish(client, text_of("chat/request/%s", method), parameters, 1) < 0x80);
	return client_receive(client, answers_of(client));
}

/* The code of the answer, or "done". */
static const char *code_of(struct client *client, const char *method, const char *parameters)
{
	struct message *answer = ask(client, method, parameters);
	const char *code = message_has(answer, "error") ? text_of("%s", message_error(answer)) : "done";
	message_free(answer);
	return code;
}

/* Two who have nothing to do with what happens. */
static void expect_others_are_served(struct fixture *fixture)
{
	int64_t one = fixture_user(fixture), other = fixture_user(fixture), group = GROUP_OF(fixture, one, other);
	struct client *sender = fixture_member(fixture, one, 5, group), *listener = fixture_member(fixture, other, 4, group);
	assert_true(client_publish(sender, topic_of(group, "send"), "hello", 1) < 0x80);
	expect_message(listener, group, 1, one, "hello");
	client_close(sender);
	client_close(listener);
}

/* ---- requests */

/* threat 41: a page is at most 200 entries, from where the caller may read, whatever is asked for. */
static void test_history_is_bounded(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, body) SELECT %lld, 'before' FROM generate_series(1, 500)",
		(long long)group);
	sql(&fixture->postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)group, (long long)bob);
	struct client *owner = fixture_member(fixture, alice, 5, group), *newcomer = fixture_member(fixture, bob, 5, group);
	static const char *const odd[] = {"\"limit\":201", "\"limit\":1000000000", "\"limit\":0", "\"limit\":-1", "\"limit\":1.5",
		"\"limit\":\"50\"", "\"after\":-1", "\"before\":0", "\"after\":1,\"before\":2"};
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		print_message("%s\n", odd[i]);
		assert_string_equal(
			code_of(owner, "message.history", text_of("{\"conversation\":%lld,%s}", (long long)group, odd[i])),
			"invalid_field");
	}
	struct message *page =
		ask(owner, "message.history", text_of("{\"conversation\":%lld,\"after\":0,\"limit\":200}", (long long)group));
	assert_non_null(strstr(page->payload, "\"seq\":200,"));
	assert_null(strstr(page->payload, "\"seq\":201,"));
	assert_non_null(strstr(page->payload, "\"more\":true"));
	message_free(page);
	page = ask(newcomer, "message.history", text_of("{\"conversation\":%lld,\"after\":0,\"limit\":200}", (long long)group));
	assert_non_null(strstr(page->payload, "\"messages\":[]"));
	message_free(page);
}

/* threat 42: what a user makes, is in, and hands to others has an end. */
static void test_quotas(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *client = fixture_member(fixture, alice, 5, group);
	sql(&fixture->postgres, "INSERT INTO chat.creations VALUES (%lld, (now() AT TIME ZONE 'UTC')::date, 500, 50)",
		(long long)alice);
	assert_string_equal(code_of(client, "conversation.create", "{\"type\":\"group\"}"), "quota_exceeded");
	assert_string_equal(code_of(client, "conversation.leave",
				    text_of("{\"conversation\":%lld,\"owner\":%lld}", (long long)group, (long long)bob)),
		"quota_exceeded");
	sql(&fixture->postgres,
		"WITH made AS (INSERT INTO chat.conversations (type) SELECT 'group' FROM generate_series(1, 5000) RETURNING id) "
		"INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT id, %lld FROM made",
		(long long)bob);
	assert_string_equal(
		code_of(client, "conversation.create", text_of("{\"type\":\"direct\",\"members\":[%lld]}", (long long)bob)),
		"quota_exceeded");
	sql(&fixture->postgres,
		"DELETE FROM chat.conversations WHERE id IN (SELECT conversation_id FROM chat.conversation_participants "
		"WHERE user_id = %lld AND conversation_id <> %lld)",
		(long long)bob, (long long)group);
}

/* ---- members who come and go */

/* threat 58: somebody is brought in while messages are sent: from the entry that says so on they miss none, be it by delivery or
 * by history. */
static void test_added_while_sending(void **state)
{
	struct fixture *fixture = *state;
	enum { COUNT = 300 };
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *sender = fixture_member(fixture, alice, 5, group), *newcomer = fixture_client(fixture, bob, 5);
	assert_int_equal(client_subscribe(newcomer, answers_of(newcomer)), 1);
	assert_int_equal(client_subscribe(newcomer, user_topic(bob, "inbox")), 1);
	for (int i = 1; i <= COUNT; i++) {
		client_send(sender, topic_of(group, "send"), text_of("%d", i));
		if (i == COUNT / 3)
			client_send(sender, "chat/request/conversation.add_members",
				text_of("{\"conversation\":%lld,\"members\":[%lld]}", (long long)group, (long long)bob));
	}
	message_free(client_receive(newcomer, user_topic(bob, "inbox")));
	assert_int_equal(client_subscribe(newcomer, topic_of(group, "messages")), 1);
	client_settle(sender);
	/* And the entry that says that they were added. */
	sql_wait(&fixture->postgres, COUNT + 1, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	int64_t first = sql_integer(&fixture->postgres,
		"SELECT first_visible_seq FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)group, (long long)bob);
	bool had[COUNT + 2] = {false};
	for (int64_t after = first - 1; after < COUNT + 1;) {
		struct message *page = ask(newcomer, "message.history",
			text_of("{\"conversation\":%lld,\"after\":%lld,\"limit\":200}", (long long)group, (long long)after));
		cJSON *tree = cJSON_Parse(page->payload);
		const cJSON *entry, *result = cJSON_GetObjectItem(tree, "result");
		cJSON_ArrayForEach(entry, cJSON_GetObjectItem(result, "messages"))
		{
			after = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "seq"));
			assert_in_range(after, first, COUNT + 1);
			assert_false(had[after]);
			had[after] = true;
		}
		cJSON_Delete(tree);
		message_free(page);
	}
	for (int64_t seq = first; seq <= COUNT + 1; seq++)
		assert_true(had[seq]);
	/* What was delivered is a run up to the end, and none of it from before. (Who subscribed before their rights were known
	 * here may be told to fetch.) */
	assert_true(client_publish(sender, topic_of(group, "send"), "last", 1) < 0x80);
	int64_t expected = 0;
	do {
		struct message *message = client_receive(newcomer, topic_of(group, "messages"));
		if (!message_has(message, "behind")) {
			int64_t seq = message_integer(message, "seq");
			assert_true(seq >= first && (expected == 0 || seq == expected));
			expected = seq + 1;
		}
		message_free(message);
	} while (expected < COUNT + 3);
	print_message("all from %lld on\n", (long long)first);
}

/* threat 58: what is still on its way when somebody becomes a member, and was written before, is not for them. */
static void test_nothing_from_before(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	sql(&fixture->postgres,
		"INSERT INTO chat.conversation_participants (conversation_id, user_id, first_visible_seq) "
		"SELECT id, %lld, last_seq + 3 FROM chat.conversations WHERE id = %lld",
		(long long)bob, (long long)group);
	struct client *sender = fixture_member(fixture, alice, 5, group), *newcomer = fixture_member(fixture, bob, 5, group);
	for (int i = 1; i <= 3; i++)
		assert_true(client_publish(sender, topic_of(group, "send"), text_of("%d", i), 1) < 0x80);
	struct message *message = client_receive(newcomer, topic_of(group, "messages"));
	assert_int_equal(message_integer(message, "seq"), sql_integer(&fixture->postgres,
								  "SELECT first_visible_seq FROM chat.conversation_participants "
								  "WHERE conversation_id = %lld AND user_id = %lld",
								  (long long)group, (long long)bob));
	assert_string_equal(message_string(message, "body"), "3");
	message_free(message);
}

/* threat 59: two owners put each other out, and each makes the other a member, at the same moment: one of them owns it then. */
static void test_owners_against_each_other(void **state)
{
	struct fixture *fixture = *state;
	static const char *const methods[] = {"remove_members", "set_role"};
	for (int round = 0; round < 10; round++) {
		int64_t users[] = {fixture_user(fixture), fixture_user(fixture)};
		int64_t group = GROUP_OF(fixture, users[0], users[1], ALICE);
		sql(&fixture->postgres,
			"UPDATE chat.conversation_participants SET role = 'owner' WHERE conversation_id = %lld AND user_id = "
			"%lld",
			(long long)group, (long long)users[1]);
		struct client *clients[] = {
			fixture_member(fixture, users[0], 5, group), fixture_member(fixture, users[1], 4, group)};
		bool remove = round % 2 == 0;
		for (int i = 0; i < 2; i++) {
			long long other = (long long)users[1 - i];
			client_send(clients[i], text_of("chat/request/conversation.%s", methods[!remove]),
				remove ? text_of("{\"conversation\":%lld,\"members\":[%lld]}", (long long)group, other)
				       : text_of("{\"conversation\":%lld,\"user\":%lld,\"role\":\"member\"}", (long long)group,
						 other));
		}
		int done = 0;
		for (int i = 0; i < 2; i++) {
			struct message *answer = client_receive(clients[i], answers_of(clients[i]));
			done += !message_has(answer, "error");
			message_free(answer);
			client_close(clients[i]);
		}
		assert_int_equal(done, 1);
		assert_int_equal(sql_integer(&fixture->postgres,
					 "SELECT count(*) FROM chat.conversation_participants WHERE conversation_id = %lld AND "
					 "role = 'owner'",
					 (long long)group),
			1);
	}
}

/* ---- clients that do not do their part */

static void put_connect(struct fixture *fixture, struct raw *raw, int64_t user, const void *properties, size_t length)
{
	char *token = fixture_token(fixture, user, 0, 3600);
	raw_begin(raw, 0x10);
	raw_text(raw, "MQTT");
	raw_u8(raw, 5);
	raw_u8(raw, 0xc2);
	raw_u16(raw, 60);
	raw_u8(raw, (unsigned)length);
	raw_bytes(raw, properties, length);
	raw_text(raw, text_of("%lld-threat", (long long)user));
	raw_text(raw, "x");
	raw_text(raw, token);
	assert_true(raw_end(raw));
	free(token);
	struct raw_packet packet;
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.head, 0x20);
	assert_int_equal(packet.body[1], 0);
}

static void put_publish(struct raw *raw, int64_t conversation, const char *body, unsigned mid)
{
	raw_begin(raw, 0x32);
	raw_text(raw, topic_of(conversation, "send"));
	raw_u16(raw, mid);
	raw_u8(raw, 0);
	raw_bytes(raw, body, strlen(body));
	raw_end(raw);
}

/* Subscribes once the plugin knows what the session may read: that it says no to something is the proof. */
static void subscribe_loaded(struct raw *raw, const char *topic)
{
	static const char nowhere[] = "chat/8796093022206/messages";
	int64_t deadline_ms = now_ms() + 15000;
	while (raw_subscribe(raw, 5, nowhere, sizeof nowhere - 1, 1) != 0x87)
		assert_true(now_ms() < deadline_ms);
	assert_int_equal(raw_subscribe(raw, 5, topic, strlen(topic), 2), 1);
}

/* threat 44: one in a group never reads: the others get everything, and what was lost to him is there when he asks. */
static void test_consumer_that_never_reads(void **state)
{
	struct fixture *fixture = *state;
	enum { COUNT = 600, LENGTH = 4000 };
	static char body[LENGTH + 1];
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), carol = fixture_user(fixture);
	int64_t group = GROUP_OF(fixture, alice, bob, carol);
	struct client *sender = fixture_member(fixture, alice, 5, group), *listener = fixture_member(fixture, carol, 5, group);
	struct raw *deaf = raw_open(fixture->broker.port);
	int room = 4096;
	assert_int_equal(setsockopt(raw_socket(deaf), SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
	put_connect(fixture, deaf, bob, "", 0);
	subscribe_loaded(deaf, topic_of(group, "messages"));
	memset(body, 'x', LENGTH);
	for (int i = 1; i <= COUNT; i++) {
		while (client_publish(sender, topic_of(group, "send"), body, 1) >= 0x80)
			clients_turn(20); /* rate_messages */
		expect_message(listener, group, i, alice, NULL);
	}
	expect_others_are_served(fixture);
	raw_close(deaf);
	struct client *again = fixture_member(fixture, bob, 5, group);
	struct message *page = ask(again, "message.history", text_of("{\"conversation\":%lld,\"limit\":1}", (long long)group));
	assert_non_null(strstr(page->payload, text_of("\"seq\":%d,", COUNT)));
	message_free(page);
}

/* threat 45: one who sends and never reads what comes back has the rate of everybody. */
static void test_publisher_that_never_reads(void **state)
{
	struct fixture *fixture = *state;
	enum { COUNT = 20000 };
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct raw *raw = raw_open(fixture->broker.port);
	int64_t since_ms = now_ms();
	put_connect(fixture, raw, alice, "", 0);
	for (unsigned i = 0; i < COUNT; i++)
		put_publish(raw, group, "x", 1 + i % 60000);
	expect_others_are_served(fixture);
	raw_close(raw);
	struct client *client = fixture_member(fixture, alice, 5, group);
	while (client_publish(client, topic_of(group, "send"), "last", 1) >= 0x80)
		clients_turn(20);
	message_free(client_receive(client, topic_of(group, "messages")));
	int64_t stored = sql_integer(&fixture->postgres,
		"SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND body = 'x'", (long long)group);
	int64_t most = 400 + (now_ms() - since_ms) * 200 / 1000 + 1; /* up to now: some may still be read from its socket */
	print_message("%lld of %d stored, at most %lld allowed\n", (long long)stored, COUNT, (long long)most);
	assert_true(stored > 0 && stored <= most);
}

/* threat 46: ten thousand user properties are carried nowhere and do no harm. */
static void test_user_properties(void **state)
{
	struct fixture *fixture = *state;
	enum { PROPERTIES = 10000, EACH = 7 };
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *listener = fixture_member(fixture, bob, 5, group);
	struct raw *raw = raw_open(fixture->broker.port);
	put_connect(fixture, raw, alice, "", 0);
	raw_begin(raw, 0x32);
	raw_text(raw, topic_of(group, "send"));
	raw_u16(raw, 1);
	unsigned length = PROPERTIES * EACH;
	for (; length >= 128; length /= 128)
		raw_u8(raw, length % 128 | 0x80);
	raw_u8(raw, length);
	for (int i = 0; i < PROPERTIES; i++)
		raw_bytes(raw, "\x26\0\1a\0\1b", EACH);
	raw_bytes(raw, "hello", 5);
	struct raw_packet packet;
	assert_true(raw_end(raw));
	assert_true(raw_read_type(raw, 0x40, &packet));
	expect_message(listener, group, 1, alice, "hello");
	raw_close(raw);
}

/* threat 46: who takes packets of 20 bytes at most misses what is longer, and nobody else does. */
static void test_small_packets(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group);
	struct raw *raw = raw_open(fixture->broker.port);
	struct raw_packet packet;
	put_connect(fixture, raw, bob, "\x27\0\0\0\x14", 5);
	subscribe_loaded(raw, topic_of(group, "messages"));
	assert_true(client_publish(sender, topic_of(group, "send"), "longer than that", 1) < 0x80);
	expect_message(sender, group, 1, alice, "longer than that");
	raw_begin(raw, 0xc0);
	assert_true(raw_end(raw));
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.head, 0xd0); /* PINGRESP, and nothing before it */
	raw_close(raw);
	expect_others_are_served(fixture);
}

/* threat 46: who takes one message at a time gets the next one when it has acknowledged the first; others do not wait for that.
 */
static void test_receive_maximum(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group);
	struct raw *raw = raw_open(fixture->broker.port);
	struct raw_packet packet;
	put_connect(fixture, raw, bob, "\x21\0\1", 3);
	subscribe_loaded(raw, topic_of(group, "messages"));
	for (int i = 1; i <= 3; i++) {
		assert_true(client_publish(sender, topic_of(group, "send"), text_of("%d", i), 1) < 0x80);
		expect_message(sender, group, i, alice, text_of("%d", i));
	}
	for (int i = 1; i <= 3; i++) {
		assert_true(raw_read_type(raw, 0x30, &packet));
		assert_non_null(memmem(packet.body, packet.length, text_of("\"seq\":%d,", i), strlen(text_of("\"seq\":%d,", i))));
		size_t topic_length = (size_t)(packet.body[0] << 8 | packet.body[1]);
		unsigned mid = (unsigned)(packet.body[2 + topic_length] << 8 | packet.body[3 + topic_length]);
		raw_begin(raw, 0xc0);
		assert_true(raw_end(raw));
		assert_true(raw_read(raw, &packet));
		assert_int_equal(packet.head, 0xd0); /* the second is not sent before the first is acknowledged */
		raw_begin(raw, 0x40);
		raw_u16(raw, mid);
		assert_true(raw_end(raw));
	}
	raw_close(raw);
}

static void put_upgrade(const struct raw *raw, const char *protocol, const char *more)
{
	const char *request = text_of("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
				      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
				      "Sec-WebSocket-Protocol: %s\r\n%s\r\n",
		protocol, more);
	assert_int_equal(send(raw_socket(raw), request, strlen(request), MSG_NOSIGNAL), strlen(request));
}

/* The first bytes that come back; "" where the connection is closed. */
static const char *reply_of(const struct raw *raw)
{
	static char reply[1000];
	ssize_t length = recv(raw_socket(raw), reply, sizeof reply - 1, 0);
	reply[length > 0 ? length : 0] = '\0';
	return reply;
}

/* threat 47: another subprotocol is not spoken; a page of another site brings no rights along, since there are none but a
 * token's; a frame that says it has 256 MB keeps nobody waiting. */
static void test_bad_websockets(void **state)
{
	struct fixture *fixture = *state;
	static const unsigned char frame[] = {0x82, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0, 1, 2, 3, 4};
	/* In a frame, masked with zeros: MQTT 5, clean, no name, no password. */
	static const unsigned char nobody[] = {
		0x82, 0x8f, 0, 0, 0, 0, 0x10, 0x0d, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 0};
	static char filler[100000];
	struct raw *raw = raw_open(fixture->broker.websocket_port);
	put_upgrade(raw, "graphql-ws", "");
	assert_null(strstr(reply_of(raw), "graphql-ws"));
	raw_close(raw);

	raw = raw_open(fixture->broker.websocket_port);
	put_upgrade(raw, "mqtt", "Origin: https://elsewhere.example\r\nCookie: session=1\r\n");
	assert_non_null(strstr(reply_of(raw), " 101 "));
	assert_int_equal(send(raw_socket(raw), nobody, sizeof nobody, MSG_NOSIGNAL), sizeof nobody);
	const unsigned char *said = (const unsigned char *)reply_of(raw);
	assert_true(said[0] == 0 || (said[2] == 0x20 && said[5] >= 0x80)); /* closed, or CONNACK's no */
	raw_close(raw);

	raw = raw_open(fixture->broker.websocket_port);
	put_upgrade(raw, "mqtt", "");
	assert_non_null(strstr(reply_of(raw), " 101 "));
	assert_int_equal(send(raw_socket(raw), frame, sizeof frame, MSG_NOSIGNAL), sizeof frame);
	(void)!send(raw_socket(raw), filler, sizeof filler, MSG_NOSIGNAL | MSG_DONTWAIT);
	expect_others_are_served(fixture);
	raw_close(raw);
	expect_others_are_served(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_history_is_bounded),
		TEST(test_quotas),
		TEST(test_added_while_sending),
		TEST(test_nothing_from_before),
		TEST(test_owners_against_each_other),
		TEST(test_consumer_that_never_reads),
		TEST(test_publisher_that_never_reads),
		TEST(test_user_properties),
		TEST(test_small_packets),
		TEST(test_receive_maximum),
		TEST(test_bad_websockets),
	};
	return cmocka_run_group_tests_name("threats", tests, setup, fixture_teardown);
}
