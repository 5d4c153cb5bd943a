/* test_access.c - who may publish and subscribe where. Threats 20 to 28. */
#include "fixture.h"
#include "raw.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* The failing reasons: SUBACK in version 4, in version 5; PUBACK in version 5 (version 4 has none). */
static int denied(int version)
{
	return version == 5 ? 0x87 : 0x80;
}

static struct client *listener(struct fixture *fixture, int64_t user, int version)
{
	struct client *client = fixture_client(fixture, user, version);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	fixture_await_loaded(client);
	return client;
}

/* A publish that must be refused with the code, in both versions as each says no, and that leaves the connection open. */
static void refuse_publish(struct client *client, int version, const char *topic, const char *payload, const char *code)
{
	print_message("%s\n", topic);
	assert_int_equal(client_publish(client, topic, payload, 1), version == 5 ? 0x87 : 0);
	expect_error(client, code);
	/* QoS 0 has no other answer than the error. */
	client_publish(client, topic, payload, 0);
	expect_error(client, code);
	assert_true(client_is_connected(client));
}

/* See fixture_await_loaded. */
static void await_loaded(struct raw *raw, int version)
{
	while (raw_subscribe(raw, version, "chat/8796093022206/messages", 27, 100) < 0x80)
		;
}

/* threat 20: another's conversation and one that does not exist are told apart by nothing. */
static void test_publish_elsewhere_is_denied(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), dave = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *member = fixture_member(fixture, alice, 4, group);
	for (int version = 4; version <= 5; version++) {
		struct client *client = listener(fixture, dave, version);
		const char *topics[] = {topic_of(group, "send"), topic_of(8796093022206, "send"), topic_of(group, "mark"),
			topic_of(8796093022206, "mark")};
		for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
			refuse_publish(client, version, topics[i], i < 2 ? "hello" : "{\"read\":1}", "not_found");
	}
	expect_silence(member, topic_of(group, "messages"));
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group), 0);
}

/* The two answers are equal to the byte, but for the number. */
static void test_unknown_and_forbidden_look_alike(void **state)
{
	struct fixture *fixture = *state;
	int64_t group = GROUP_OF(fixture, fixture_user(fixture));
	struct client *client = listener(fixture, fixture_user(fixture), 5);
	const int64_t conversations[] = {group, 8796093022206};
	char *texts[2];
	for (size_t i = 0; i < 2; i++) {
		client_publish(client, topic_of(conversations[i], "send"), "hello", 1);
		struct message *message = client_receive(client, answers_of(client));
		texts[i] = strdup(message->payload);
		check(texts[i] != NULL);
		char *number = strstr(texts[i], text_of("%lld", (long long)conversations[i]));
		check(number != NULL);
		size_t length = strlen(text_of("%lld", (long long)conversations[i]));
		memmove(number, number + length, strlen(number + length) + 1);
		message_free(message);
	}
	assert_string_equal(texts[0], texts[1]);
	free(texts[0]);
	free(texts[1]);
}

/* threat 20: ids have one form. */
static void test_malformed_ids_are_denied(void **state)
{
	struct fixture *fixture = *state;
	const char *topics[] = {"chat/01/send", "chat/+1/send", "chat/1 /send", "chat/ 1/send", "chat/-1/send", "chat/0/send",
		"chat/1.0/send", "chat/0x1/send", "chat/9007199254740992/send", "chat/18446744073709551617/send",
		"chat/\xd9\xa1/send", "chat/A/send", "chat//send", "chat/1/send/", "chat/1//send", "/chat/1/send", "chat/1/Send",
		"chat/1/sends", "chat/1", "chat", "chat/", "CHAT/1/send", "chat/1/send/x", "chat/user/1/send", "chat/response",
		"chat/request", "chat/request/", "chat/request/../x"};
	char *token = fixture_token(fixture, ALICE, 0, 600);
	int64_t before = sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages");
	for (int version = 4; version <= 5; version++) {
		struct raw *raw = raw_open(fixture->broker.port);
		assert_int_equal(raw_connect(raw, version, "ids", token, strlen(token)), 0);
		for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
			bool wildcard = strpbrk(topics[i], "+#") != NULL;
			bool foreign = strncmp(topics[i], "chat", 4) != 0; /* not ours to judge, and no other plugin allows it */
			if (wildcard)
				continue; /* the broker itself closes the connection: MQTT-3.3.2-2 */
			int reason = raw_publish(raw, version, topics[i], strlen(topics[i]), "x", 1, (unsigned)i + 1);
			print_message("%s: 0x%x\n", topics[i], (unsigned)reason);
			assert_int_not_equal(reason, CLOSED);
			if (version == 5 && !foreign)
				assert_int_equal(reason, 0x87);
		}
		raw_close(raw);
	}
	free(token);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages"), before);
}

/* threat 21: only the server writes nouns. */
/* What the server itself has to say on the inbox so far has come: events, and nothing else. */
static void settle_inbox(struct fixture *fixture, struct client *client, int64_t user)
{
	sql(&fixture->postgres, "INSERT INTO chat.inbox_events (user_id, payload) VALUES (%lld, '{\"event\":\"%s\"}')",
		(long long)user, client_id(client));
	for (bool settled = false; !settled;) {
		struct message *message = client_receive(client, user_topic(user, "inbox"));
		settled = strcmp(message_string(message, "event"), client_id(client)) == 0;
		message_free(message);
	}
}

static void test_publish_to_nouns_is_denied(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *victim = fixture_member(fixture, bob, 5, group);
	client_subscribe(victim, user_topic(bob, "inbox"));
	client_subscribe(victim, topic_of(group, "receipts"));
	client_subscribe(victim, topic_of(group, "typing"));
	client_subscribe(victim, user_topic(alice, "presence"));
	settle_inbox(fixture, victim, bob);
	for (int version = 4; version <= 5; version++) {
		struct client *client = listener(fixture, alice, version);
		const char *topics[] = {topic_of(group, "messages"), topic_of(group, "receipts"), topic_of(group, "typing"),
			user_topic(bob, "inbox"), user_topic(alice, "inbox"), user_topic(alice, "presence"), answers_of(victim),
			answers_of(client)};
		for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
			refuse_publish(
				client, version, topics[i], "{\"conversation\":1,\"seq\":1,\"body\":\"forged\"}", "forbidden");
	}
	/* What it hears of alice is true. */
	client_fence(victim);
	const char *nouns[] = {
		topic_of(group, "messages"), topic_of(group, "receipts"), topic_of(group, "typing"), user_topic(bob, "inbox")};
	for (size_t i = 0; i < sizeof nouns / sizeof *nouns; i++)
		expect_silence(victim, nouns[i]);
	const char *said_by_the_server[] = {user_topic(alice, "presence"), answers_of(victim)};
	for (size_t i = 0; i < 2; i++) {
		struct message *message;
		while ((message = client_receive_by(victim, said_by_the_server[i], now_ms()))) {
			assert_null(strstr(message->payload, "forged"));
			message_free(message);
		}
	}
}

/* threat 22: nothing under chat/ is retained, and nothing clears what might be. */
static void test_retained_publish_is_denied(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	for (int version = 4; version <= 5; version++) {
		struct client *client = listener(fixture, alice, version);
		const char *payloads[] = {"hello", ""};
		for (size_t i = 0; i < 2; i++) {
			int reason =
				client_publish_bytes(client, topic_of(group, "send"), payloads[i], strlen(payloads[i]), 1, true);
			assert_int_equal(reason, version == 5 ? 0x87 : 0);
			expect_error(client, "forbidden");
			reason = client_publish_bytes(
				client, topic_of(group, "messages"), payloads[i], strlen(payloads[i]), 1, true);
			assert_int_equal(reason, version == 5 ? 0x87 : 0);
			expect_error(client, "forbidden");
		}
		assert_true(client_is_connected(client));
	}
	struct client *late = fixture_member(fixture, alice, 4, group);
	expect_silence(late, NULL);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group), 0);
}

/* threat 23: a will under chat/ is accepted and seen by nobody, and nothing comes of it. */
static void test_wills_reach_nobody(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *victim = fixture_member(fixture, bob, 5, group);
	client_subscribe(victim, user_topic(bob, "inbox"));
	settle_inbox(fixture, victim, bob);
	const char *topics[] = {topic_of(group, "messages"), topic_of(group, "send"), user_topic(bob, "inbox"),
		answers_of(victim), topic_of(group, "mark"), "$CONTROL/dynamic-security/v1"};
	for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
		for (int retain = 0; retain < 2; retain++) {
			struct client_options options = {.version = i % 2 ? 4 : 5,
				.will_topic = topics[i],
				.will_payload = "{\"conversation\":1,\"seq\":99,\"body\":\"from the grave\"}",
				.will_retain = retain};
			struct client *dying = fixture_client_with(fixture, alice, options);
			const char *end = text_of("Client %s closed its connection", client_id(dying));
			client_cut(dying);
			broker_log_wait(&fixture->broker, end, 1); /* and it deals with the will before anything else */
		}
	}
	expect_silence(victim, NULL);
	struct client *late = fixture_member(fixture, bob, 4, group);
	client_subscribe(late, user_topic(bob, "inbox"));
	settle_inbox(fixture, late, bob);
	expect_silence(late, NULL);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group), 0);
}

static int subscribe_raw(struct fixture *fixture, int version, const char *token, const char *filter)
{
	struct raw *raw = raw_open(fixture->broker.port);
	assert_int_equal(raw_connect(raw, version, "filters", token, strlen(token)), 0);
	int code = raw_subscribe(raw, version, filter, strlen(filter), 1);
	raw_close(raw);
	return code;
}

/* threat 24: filters that would see too much are refused, one by one. */
static void test_covering_filters_are_denied(void **state)
{
	struct fixture *fixture = *state;
	const char *filters[] = {"#", "+", "+/#", "+/1/messages", "+/+/messages", "$share/g/chat/1/messages", "$share/g/#",
		"$SYS/#", "$SYS/broker/uptime", "$CONTROL/#", "$CONTROL/dynamic-security/v1", "chat/#", "chat/+/messages",
		"chat/1/+", "chat/1/#", "chat/+/+", "chat/user/+/inbox", "chat/user/1/+", "chat/response/+", "chat/response/#",
		"chat//messages", "chat/1/messages/", "chat/1//messages", "chat/01/messages", "chat/1/send", "chat/1/mark",
		"chat/1/type", "chat/request/message.send", "chat/request/+", "chat", "chat/", "chat/1",
		"chat/response/somebody-else", "chat/user/2/inbox"};
	char *token = fixture_token(fixture, ALICE, 0, 600);
	for (int version = 4; version <= 5; version++) {
		for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
			int code = subscribe_raw(fixture, version, token, filters[i]);
			print_message("%s: 0x%x\n", filters[i], (unsigned)code);
			assert_int_equal(code, denied(version));
		}
		assert_int_equal(subscribe_raw(fixture, version, token, "chat/1/messages"), 1);
		assert_int_equal(subscribe_raw(fixture, version, token, "chat/user/2/presence"), 1);
	}
	free(token);
}

/* threat 24: others in the same packet work. */
static void test_one_bad_filter_spoils_no_other(void **state)
{
	struct fixture *fixture = *state;
	for (int version = 4; version <= 5; version++) {
		struct client *client = listener(fixture, DAVE, version);
		const char *filters[] = {
			answers_of(client), "#", topic_of(TV, "messages"), topic_of(DIRECT, "messages"), "chat/user/4/inbox"};
		int codes[5];
		client_subscribe_many(client, filters, 5, codes);
		assert_int_equal(codes[0], 1);
		assert_int_equal(codes[1], denied(version));
		assert_int_equal(codes[2], 1);
		assert_int_equal(codes[3], denied(version));
		assert_int_equal(codes[4], 1);
	}
}

/* CONNECT and PUBLISH in one segment. */
static void connect_and_publish(struct raw *raw, const char *token, const char *topic)
{
	int on = 1, off = 0;
	setsockopt(raw_socket(raw), IPPROTO_TCP, TCP_CORK, &on, sizeof on);
	raw_begin(raw, 0x10);
	raw_text(raw, "MQTT");
	raw_u8(raw, 4);
	raw_u8(raw, 0xc2);
	raw_u16(raw, 60);
	raw_text(raw, "phone");
	raw_text(raw, "x");
	raw_text(raw, token);
	assert_true(raw_end(raw));
	raw_begin(raw, 0x32);
	raw_text(raw, topic);
	raw_u16(raw, 1);
	raw_bytes(raw, "x", 1);
	assert_true(raw_end(raw));
	setsockopt(raw_socket(raw), IPPROTO_TCP, TCP_CORK, &off, sizeof off);
}

/* threat 10: what a revoked device sends before anybody has looked whether it may is not stored. */
static void test_revoked_device_writes_nothing(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	int64_t device = sql_integer(&fixture->postgres,
		"INSERT INTO chat.devices (user_id, revoked_at) VALUES (%lld, now()) RETURNING id", (long long)alice);
	char *token = fixture_token(fixture, alice, device, 600);
	struct client *member = fixture_member(fixture, alice, 4, group);
	/* Nobody can look before the publish has been taken. */
	pid_t loader = postgres_hold(&fixture->postgres, "mosquitto-chat loader");
	for (int i = 0; i < 5; i++) {
		struct raw *raw = raw_open(fixture->broker.port);
		struct raw_packet packet;
		connect_and_publish(raw, token, topic_of(group, "send"));
		assert_true(raw_read_type(raw, 0x40, &packet));
		raw_close(raw);
	}
	struct raw *last = raw_open(fixture->broker.port);
	struct raw_packet packet;
	connect_and_publish(last, token, topic_of(group, "send"));
	check(kill(loader, SIGCONT) == 0);
	while (raw_read(last, &packet))
		;
	raw_close(last);
	free(token);
	client_publish(member, topic_of(group, "send"), "hello", 1); /* comes after them in the spool */
	struct message *message = client_receive(member, topic_of(group, "messages"));
	assert_string_equal(message_string(message, "body"), "hello");
	message_free(message);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)group),
		1);
	assert_in_range(sql_integer(&fixture->postgres,
				"SELECT count(*) FROM chat.refusals WHERE code = 'unauthenticated' AND device_id = %lld",
				(long long)device),
		5, 6);
}

/* threat 25: after the removal's commit nothing is sent, though the subscription stands; a new membership sees what comes. */
static void test_removal_ends_delivery(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 5, group), *removed = fixture_member(fixture, bob, 4, group);
	client_publish(sender, topic_of(group, "send"), "before", 1);
	expect_message(removed, group, 1, alice, "before");
	expect_message(sender, group, 1, alice, "before");

	for (int64_t seq = 2; seq < 40; seq += 2) {
		sql(&fixture->postgres,
			"DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
			(long long)group, (long long)bob);
		client_publish(sender, topic_of(group, "send"), "between", 1);
		expect_message(sender, group, seq, alice, "between");
		expect_silence(removed, topic_of(group, "messages"));
		sql(&fixture->postgres,
			"INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
			(long long)group, (long long)bob);
		client_publish(sender, topic_of(group, "send"), "after", 1);
		expect_message(sender, group, seq + 1, alice, "after");
		expect_message(removed, group, seq + 1, alice, "after");
	}
}

/* The same at full speed: what was committed after the removal has not been seen, whatever was on its way. */
static void test_removal_under_load(void **state)
{
	struct fixture *fixture = *state;
	for (int round = 0; round < 5; round++) {
		int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
		struct client *sender = fixture_member(fixture, alice, 5, group),
			      *removed = fixture_member(fixture, bob, 5, group);
		for (int i = 0; i < 400; i++)
			client_send(sender, topic_of(group, "send"), "x");
		expect_message(removed, group, 1, alice, NULL);
		int64_t last = sql_integer(&fixture->postgres,
			"WITH gone AS (DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = "
			"%lld RETURNING 1) "
			"SELECT count(*) FROM gone",
			(long long)group, (long long)bob);
		assert_int_equal(last, 1);
		/* Its commit stands before every message that is numbered above this. */
		int64_t removed_at = sql_integer(
			&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
		client_settle(sender);
		for (int64_t seq = 1; seq <= 400; seq++)
			expect_message(sender, group, seq, alice, "x");
		client_fence(removed);
		struct message *message;
		while ((message = client_receive_by(removed, topic_of(group, "messages"), 0))) {
			assert_true(message_integer(message, "seq") <= removed_at);
			message_free(message);
		}
		client_close(sender);
		client_close(removed);
	}
}

/* threat 25: a session without a connection has no rights, and nothing is kept for it. */
static void test_offline_session_gets_nothing(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	struct client *sender = fixture_member(fixture, alice, 4, group);
	for (int version = 4; version <= 5; version++) {
		const char *id = text_of("%lld-phone-%d", (long long)bob, version);
		struct client_options options = {
			.version = version, .id = id, .keep_session = true, .session_expiry_s = version == 5 ? 600 : 0};
		struct client *phone = fixture_client_with(fixture, bob, options);
		assert_int_equal(client_subscribe(phone, topic_of(group, "messages")), 1);
		client_close(phone);
		client_publish(sender, topic_of(group, "send"), "while away", 1);
		struct message *echo = client_receive(sender, topic_of(group, "messages"));
		int64_t missed = message_integer(echo, "seq");
		message_free(echo);
		phone = fixture_client_with(fixture, bob, options);
		assert_true(client_session_present(phone));
		fixture_await_loaded(phone);
		client_publish(sender, topic_of(group, "send"), "back again", 1);
		expect_message(phone, group, missed + 1, alice, "back again"); /* the subscription was kept, the message not */
		message_free(client_receive(sender, topic_of(group, "messages")));
	}
}

/* What the broker has computed so far: how long others wait for it, on a machine that does nothing else. */
static int64_t worked_ms(const struct broker *broker)
{
	clockid_t clock;
	struct timespec worked;
	check(clock_getcpuclockid(broker->process.pid, &clock) == 0 && clock_gettime(clock, &worked) == 0);
	return (int64_t)worked.tv_sec * 1000 + worked.tv_nsec / 1000000;
}

/* threat 26: ten thousand filters in one packet hold nobody up. */
static void test_many_filters_hold_nobody_up(void **state)
{
	struct fixture *fixture = *state;
	struct client *probe = fixture_client(fixture, BOB, 4);
	char *token = fixture_token(fixture, ALICE, 0, 600);
	struct raw *raw = raw_open(fixture->broker.port);
	struct raw_packet packet;
	client_fence(probe);
	assert_int_equal(raw_connect(raw, 4, "many", token, strlen(token)), 0);
	await_loaded(raw, 4);
	raw_begin(raw, 0x82);
	raw_u16(raw, 2);
	for (int i = 0; i < 10000; i++) {
		raw_text(raw, text_of("chat/%d/messages", 1000000 + i));
		raw_u8(raw, 1);
	}
	int64_t before_ms = worked_ms(&fixture->broker);
	assert_true(raw_end(raw));
	assert_true(raw_read_type(raw, 0x90, &packet));
	client_fence(probe);
	int64_t took_ms = worked_ms(&fixture->broker) - before_ms;
	print_message("10,000 filters: %lld ms of work\n", (long long)took_ms);
	assert_true(took_ms < allowed_ms(500));
	assert_int_equal(packet.length, 2 + 10000);
	for (size_t i = 2; i < packet.length; i++)
		assert_int_equal(packet.body[i], 0x80);
	raw_close(raw);
	free(token);
}

/* threat 27: the same filter twice is one subscription. */
static void test_one_copy_for_one_client(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *client = fixture_member(fixture, alice, 5, group);
	for (int i = 0; i < 3; i++)
		assert_int_equal(client_subscribe(client, topic_of(group, "messages")), 1);
	client_publish(client, topic_of(group, "send"), "once", 1);
	expect_message(client, group, 1, alice, "once");
	expect_silence(client, topic_of(group, "messages"));
	client_unsubscribe(client, topic_of(group, "messages"));
	client_publish(client, topic_of(group, "send"), "{\"body\":\"unheard\",\"reply\":true}", 1);
	message_free(client_receive(client, answers_of(client)));
	expect_silence(client, topic_of(group, "messages"));
}

/* threat 28: an alias is what it stands for. */
static void test_topic_alias_smuggles_nothing(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), dave = fixture_user(fixture), group = GROUP_OF(fixture, alice),
		own = GROUP_OF(fixture, dave);
	struct client *victim = fixture_member(fixture, alice, 5, group);
	char *token = fixture_token(fixture, dave, 0, 600);
	struct raw *raw = raw_open(fixture->broker.port);
	struct raw_packet packet;
	assert_int_equal(raw_connect(raw, 5, "alias", token, strlen(token)), 0);
	free(token);
	await_loaded(raw, 5);
	/* Alias 1 is the own conversation, then, under the same number, the other's. */
	const char *topics[] = {topic_of(own, "send"), "", topic_of(group, "send"), "", topic_of(group, "messages"), ""};
	const int expected[] = {0x10, 0x10, 0x87, 0x87, 0x87, 0x87};
	for (unsigned i = 0; i < 6; i++) {
		raw_begin(raw, 0x32);
		raw_text(raw, topics[i]);
		raw_u16(raw, i + 1);
		raw_u8(raw, 3);
		raw_u8(raw, 0x23); /* topic alias */
		raw_u16(raw, 1);
		raw_bytes(raw, "hello", 5);
		assert_true(raw_end(raw));
		assert_true(raw_read_type(raw, 0x40, &packet));
		assert_int_equal(packet.length > 2 ? packet.body[2] : 0, expected[i]);
	}
	raw_close(raw);
	sql_wait(&fixture->postgres, 2, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)own);
	expect_silence(victim, NULL);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group), 0);
}

/* The public channel: anyone signed in reads, only its members write. */
static void test_public_channel(void **state)
{
	struct fixture *fixture = *state;
	struct client *owner = fixture_member(fixture, ALICE, 5, TV);
	for (int version = 4; version <= 5; version++) {
		struct client *tv = fixture_member(fixture, DAVE, version, TV);
		client_publish(owner, topic_of(TV, "send"), "news", 1);
		struct message *news = client_receive(tv, topic_of(TV, "messages"));
		assert_string_equal(message_string(news, "body"), "news");
		message_free(news);
		refuse_publish(tv, version, topic_of(TV, "send"), "me too", "forbidden");
		assert_int_equal(client_subscribe(tv, topic_of(TV, "receipts")), denied(version));
		assert_int_equal(client_subscribe(tv, topic_of(TV, "typing")), denied(version));
	}
}

/* Roles: a reader reads. */
static void test_reader_may_not_post(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture), group = GROUP_OF(fixture, alice, bob);
	sql(&fixture->postgres,
		"UPDATE chat.conversation_participants SET role = 'reader' WHERE conversation_id = %lld AND user_id = %lld",
		(long long)group, (long long)bob);
	struct client *owner = fixture_member(fixture, alice, 5, group), *reader = fixture_member(fixture, bob, 5, group);
	refuse_publish(reader, 5, topic_of(group, "send"), "hello", "forbidden");
	client_publish(owner, topic_of(group, "send"), "read this", 1);
	expect_message(reader, group, 1, alice, "read this");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_publish_elsewhere_is_denied),
		TEST(test_unknown_and_forbidden_look_alike),
		TEST(test_malformed_ids_are_denied),
		TEST(test_publish_to_nouns_is_denied),
		TEST(test_retained_publish_is_denied),
		TEST(test_wills_reach_nobody),
		TEST(test_covering_filters_are_denied),
		TEST(test_one_bad_filter_spoils_no_other),
		TEST(test_revoked_device_writes_nothing),
		TEST(test_removal_ends_delivery),
		TEST(test_removal_under_load),
		TEST(test_offline_session_gets_nothing),
		TEST(test_many_filters_hold_nobody_up),
		TEST(test_one_copy_for_one_client),
		TEST(test_topic_alias_smuggles_nothing),
		TEST(test_public_channel),
		TEST(test_reader_may_not_post),
	};
	return cmocka_run_group_tests_name("access", tests, fixture_setup, fixture_teardown);
}
