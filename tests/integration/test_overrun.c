/* test_overrun.c - a client that leaves more unread than the broker keeps for it: threat 44. The broker of this program keeps
 * little; what it drops it says in its log, and nowhere else.
 */
#include "fixture.h"
#include "raw.h"

#include <string.h>

/* What Mosquitto keeps for one client: messages under way and not acknowledged, and those that wait behind them. */
enum { UNDER_WAY = 5, WAITING = 50, KEPT = UNDER_WAY + WAITING };

static const char dropped[] = "Outgoing messages are being dropped", ended[] = "left so much unread";

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, NULL, text_of("max_inflight_messages %d\nmax_queued_messages %d\n", UNDER_WAY, WAITING));
	broker_start(&fixture->broker);
	return 0;
}

static void acknowledge(struct raw *raw, const struct raw_packet *publish)
{
	size_t topic_length = (size_t)publish->body[0] << 8 | publish->body[1];
	raw_begin(raw, 0x40);
	raw_bytes(raw, publish->body + 2 + topic_length, 2);
	assert_true(raw_end(raw));
}

/* A member who has received the conversation's next message, or that there was one; and from now on reads nothing. */
static struct raw *open_reader(struct fixture *fixture, int64_t user, int64_t group, struct client *sender)
{
	struct raw *raw = raw_open(fixture->broker.port);
	struct raw_packet packet;
	char *token = fixture_token(fixture, user, 0, 3600);
	const char *topic = topic_of(group, "messages");
	assert_int_equal(raw_connect(raw, 4, text_of("%lld-slow", (long long)user), token, strlen(token)), 0);
	free(token);
	assert_int_equal(raw_subscribe(raw, 4, topic, strlen(topic), 1), 1);
	client_publish(sender, topic_of(group, "send"), "hello", 1);
	assert_true(raw_read_type(raw, 0x30, &packet));
	acknowledge(raw, &packet);
	return raw;
}

/* The next message of the conversation; notices, that there is one, say nothing new to a listener like this. */
static void expect_next(struct client *listener, int64_t group, int64_t seq)
{
	struct message *message = client_receive(listener, topic_of(group, "messages"));
	while (message_has(message, "behind")) {
		assert_true(message_integer(message, "last_seq") < seq);
		message_free(message);
		message = client_receive(listener, topic_of(group, "messages"));
	}
	assert_int_equal(message_integer(message, "seq"), seq);
	message_free(message);
}

/* Each is sent when the one before has arrived at the listener. */
static void send_through(struct client *sender, struct client *listener, int64_t group, int count)
{
	for (int i = 0; i < count; i++) {
		client_publish(sender, topic_of(group, "send"), text_of("%d", i), 1);
		expect_next(listener, group, 2 + i);
	}
}

/* How many messages it had been sent when the connection ended. */
static int read_to_the_end(struct raw *raw)
{
	struct raw_packet packet;
	int count = 0;
	while (raw_read_type(raw, 0x30, &packet))
		count++;
	raw_close(raw);
	return count;
}

static void expect_history(struct fixture *fixture, int64_t user, int64_t group, int64_t count)
{
	struct client *client = fixture_client(fixture, user, 5);
	assert_true(client_subscribe(client, answers_of(client)) < 0x80);
	client_publish(client, "chat/request/message.history",
		text_of("{\"conversation\":%lld,\"after\":0,\"limit\":200}", (long long)group), 1);
	struct message *answer = client_receive(client, answers_of(client));
	assert_non_null(strstr(answer->payload, text_of("\"seq\":%lld,", (long long)count)));
	message_free(answer);
	client_close(client);
}

/* The others go on as if it was not there; it is disconnected, and has everything when it has asked. */
static void test_reads_nothing(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), carol = fixture_user(fixture);
	int64_t group = GROUP_OF(fixture, alice, bob, carol);
	struct client *sender = fixture_client(fixture, alice, 5), *listener = fixture_member(fixture, carol, 4, group);
	int ends = broker_log_count(&fixture->broker, ended);
	fixture_expect_error(fixture, ended);
	struct raw *slow = open_reader(fixture, bob, group, sender);
	expect_next(listener, group, 1);
	send_through(sender, listener, group, KEPT + 50);
	broker_log_wait(&fixture->broker, ended, ends + 1);
	assert_int_equal(read_to_the_end(slow), UNDER_WAY);
	expect_history(fixture, bob, group, 1 + KEPT + 50);
	assert_true(client_is_connected(listener) && client_is_connected(sender));
	assert_int_equal(broker_log_count(&fixture->broker, ended), ends + 1);
}

/* What is dropped is the last message, so that no later one shows the hole: wherever the reader stands among those the broker
 * asks about. */
static void test_last_message_dropped(void **state)
{
	struct fixture *fixture = *state;
	enum { BEFORE, BEHIND, ALONE, PLACES };
	fixture_expect_error(fixture, ended);
	for (int place = 0; place < PLACES; place++) {
		int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
		int drops = broker_log_count(&fixture->broker, dropped), ends = broker_log_count(&fixture->broker, ended);
		struct client *sender = fixture_client(fixture, alice, 5), *listener = NULL;
		if (place == BEHIND)
			listener = fixture_member(fixture, alice, 4, group);
		struct raw *slow = open_reader(fixture, bob, group, sender);
		if (place == BEFORE)
			listener = fixture_member(fixture, alice, 4, group);
		if (place == BEHIND)
			expect_next(listener, group, 1);
		if (listener) {
			send_through(sender, listener, group, KEPT);
			client_fence(listener);
		} else {
			for (int i = 0; i < KEPT; i++)
				client_publish(sender, topic_of(group, "send"), "x", 1);
			sql_wait(&fixture->postgres, 1 + KEPT, "SELECT last_seq FROM chat.conversations WHERE id = %lld",
				(long long)group);
		}
		assert_int_equal(broker_log_count(&fixture->broker, dropped), drops);
		client_publish(sender, topic_of(group, "send"), "the last", 1);
		broker_log_wait(&fixture->broker, ended, ends + 1);
		assert_int_equal(read_to_the_end(slow), UNDER_WAY);
		if (listener)
			expect_next(listener, group, 2 + KEPT);
		assert_true(!listener || client_is_connected(listener));
	}
}

/* CONNECT, keepalive 60, with a session that outlives the connection. Returns whether there was one. */
static bool resume(struct raw *raw, const char *id, const char *token)
{
	struct raw_packet packet;
	raw_begin(raw, 0x10);
	raw_text(raw, "MQTT");
	raw_u8(raw, 4);
	raw_u8(raw, 0xc0);
	raw_u16(raw, 60);
	raw_text(raw, id);
	raw_text(raw, "raw");
	raw_text(raw, token);
	assert_true(raw_end(raw) && raw_read(raw, &packet));
	assert_int_equal(packet.head, 0x20);
	assert_int_equal(packet.body[1], 0);
	return packet.body[0] & 1;
}

/* A session that outlived its connection has messages left in the broker's queue, which its next connection may not have: they
 * must not count for ever, or the broker would send it nothing any more. */
static void test_resumed_with_messages_left(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group);
	const char *id = text_of("%lld-keeps", (long long)bob), *topic = topic_of(group, "messages");
	char *token = fixture_token(fixture, bob, 0, 3600);
	struct raw *raw = raw_open(fixture->broker.port);
	struct raw_packet packet;
	int64_t sent = 0;
	fixture_expect_error(fixture, "is disconnected once");
	assert_false(resume(raw, id, token));
	assert_int_equal(raw_subscribe(raw, 4, topic, strlen(topic), 1), 1);
	for (; sent < UNDER_WAY + 2; sent++) {
		client_publish(sender, topic_of(group, "send"), "left", 1);
		expect_next(sender, group, sent + 1);
	}
	assert_true(raw_read_type(raw, 0x30, &packet));
	for (int connections = 0; connections < 2; connections++) {
		raw_close(raw);
		raw = raw_open(fixture->broker.port);
		assert_true(resume(raw, id, token));
		if (raw_subscribe(raw, 4, topic, strlen(topic), 2) == 1)
			break;
	}
	client_publish(sender, topic_of(group, "send"), "hello again", 1);
	assert_true(raw_read_type(raw, 0x30, &packet));
	raw_close(raw);
	free(token);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reads_nothing),
		TEST(test_last_message_dropped),
		TEST(test_resumed_with_messages_left),
	};
	return cmocka_run_group_tests_name("overrun", tests, setup, fixture_teardown);
}
