/* test_moderation.c - content rules, from psql to what members see; and reports, and what moderators do about them. */
#include "fixture.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_FORCE "chat: content rules in force: "

/* Changes the rules (SQL) and waits until the broker has them. */
__attribute__((format(printf, 2, 3))) static void change_rules(struct fixture *fixture, const char *format, ...)
{
	char text[1024];
	int before = broker_log_count(&fixture->broker, IN_FORCE);
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	assert_in_range(length, 1, sizeof(text) - 1);
	sql(&fixture->postgres, "%s", text);
	broker_log_wait(&fixture->broker, IN_FORCE, before + 1);
}

static void send_text(struct client *client, int64_t conversation, const char *text)
{
	assert_true(client_publish(client, topic_of(conversation, "send"), text, 1) < 0x80);
}

/* The refusal of what a rule rejects. */
static void expect_rejected(struct client *client)
{
	struct message *answer = client_receive(client, answers_of(client));
	assert_string_equal(message_error(answer), "forbidden");
	assert_non_null(strstr(answer->payload, "\"field\":\"body\""));
	assert_non_null(strstr(answer->payload, "rules"));
	message_free(answer);
}

static void expect_stored(struct fixture *fixture, int64_t conversation, int64_t seq, const char *body)
{
	char *stored = sql_text(&fixture->postgres, "SELECT body FROM chat.messages WHERE conversation_id = %lld AND seq = %lld",
		(long long)conversation, (long long)seq);
	assert_string_equal(stored, body);
	free(stored);
}

struct room {
	int64_t author, reader, group;
	struct client *sender, *receiver;
};

static struct room open_room(struct fixture *fixture)
{
	struct room room = {.author = fixture_user(fixture), .reader = fixture_user(fixture)};
	room.group = GROUP_OF(fixture, room.author, room.reader);
	room.sender = fixture_member(fixture, room.author, 5, room.group);
	room.receiver = fixture_member(fixture, room.reader, 4, room.group);
	return room;
}

/* ---- rules ---- */

/* Rejected: nobody sees it, its sender is told, it is on record; and the conversation's numbers have no gap. */
static void test_reject(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);
	const char *id = new_id();

	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('\\bbadword\\b', 'reject')");
	send_text(room.sender, room.group, text_of("{\"id\":\"%s\",\"body\":\"a BadWord here\"}", id));
	expect_rejected(room.sender);
	send_text(room.receiver, room.group, "badword"); /* MQTT 3.1.1 alike */
	expect_rejected(room.receiver);
	send_text(room.sender, room.group, "a good word");
	expect_message(room.receiver, room.group, 1, room.author, "a good word");
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)room.group),
		1);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.refusals WHERE client_id = '%s' AND code = 'forbidden'", id),
		1);
	/* What was stored before there was a rule is answered as stored. */
	const char *early = new_id();
	change_rules(fixture, "DELETE FROM chat.content_rules");
	send_text(room.sender, room.group, text_of("{\"id\":\"%s\",\"body\":\"badword\"}", early));
	expect_message(room.receiver, room.group, 2, room.author, "badword");
	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('badword', 'reject')");
	send_text(room.sender, room.group, text_of("{\"id\":\"%s\",\"body\":\"badword\"}", early));
	struct message *answer = client_receive(room.sender, answers_of(room.sender));
	assert_string_equal(message_string(answer, "status"), "sent");
	assert_int_equal(message_integer(answer, "seq"), 2);
	message_free(answer);
	expect_silence(room.receiver, topic_of(room.group, "messages"));
}

/* Masked: what members see and what is stored is the same, the text as it was sent is nowhere, a resend is one. */
static void test_mask(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);
	const char *id = new_id();

	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('s\u00e9same|hush', 'mask')");
	send_text(room.sender, room.group, text_of("{\"id\":\"%s\",\"body\":\"open S\u00c9SAME, hush\"}", id));
	expect_message(room.receiver, room.group, 1, room.author, "open ******, ****");
	expect_message(room.sender, room.group, 1, room.author, "open ******, ****");
	expect_stored(fixture, room.group, 1, "open ******, ****");
	send_text(room.sender, room.group, text_of("{\"id\":\"%s\",\"body\":\"open S\u00c9SAME, hush\"}", id));
	struct message *answer = client_receive(room.sender, answers_of(room.sender));
	assert_string_equal(message_string(answer, "status"), "sent");
	assert_int_equal(message_integer(answer, "seq"), 1);
	message_free(answer);
	send_text(room.sender, room.group, text_of("{\"id\":\"%s\",\"body\":\"open ******, ****\"}", id));
	expect_error(room.sender, "conflict"); /* that is not what was sent */
	client_publish(
		room.receiver, "chat/request/message.history", text_of("{\"conversation\":%lld}", (long long)room.group), 1);
	answer = client_receive(room.receiver, answers_of(room.receiver));
	assert_non_null(strstr(answer->payload, "open ******, ****"));
	message_free(answer);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.messages m WHERE conversation_id = %lld AND m::text ~* 'hush|same'",
				 (long long)room.group),
		0);
}

static void test_flag(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);

	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('curious', 'flag'), ('cur', 'mask')");
	send_text(room.sender, room.group, "nothing");
	send_text(room.sender, room.group, "a curious thing");
	expect_message(room.receiver, room.group, 1, room.author, "nothing");
	expect_message(room.receiver, room.group, 2, room.author, "a ***ious thing");
	sql_wait(&fixture->postgres, 1,
		"SELECT count(*) FROM chat.reports WHERE conversation_id = %lld AND seq = 2 AND rule_id IS NOT NULL",
		(long long)room.group);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.reports WHERE conversation_id = %lld",
				 (long long)room.group),
		1);
}

/* The request is the same path; an edit is a text like any other. */
static void test_requests_and_edits(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);

	change_rules(
		fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('badword', 'reject'), ('secret', 'mask')");
	client_publish(room.sender, "chat/request/message.send",
		text_of("{\"request_id\":1,\"conversation\":%lld,\"body\":\"badword\"}", (long long)room.group), 1);
	expect_rejected(room.sender);
	client_publish(room.sender, "chat/request/message.send",
		text_of("{\"request_id\":2,\"conversation\":%lld,\"body\":\"my secret\"}", (long long)room.group), 1);
	struct message *answer = client_receive(room.sender, answers_of(room.sender));
	assert_int_equal(message_integer(answer, "request_id"), 2);
	assert_true(message_has(answer, "result"));
	message_free(answer);
	expect_message(room.receiver, room.group, 1, room.author, "my ******");
	send_text(room.sender, room.group, "{\"type\":\"edit\",\"ref\":1,\"body\":\"badword\"}");
	expect_rejected(room.sender);
	send_text(room.sender, room.group, "{\"type\":\"edit\",\"ref\":1,\"body\":\"no secret\"}");
	expect_message(room.receiver, room.group, 2, room.author, "no ******");
	expect_stored(fixture, room.group, 2, "no ******");
}

/* A rule for one conversation, and one for a type of them. */
static void test_scopes(void **state)
{
	struct fixture *fixture = *state;
	struct room one = open_room(fixture), other = open_room(fixture);
	int64_t direct = sql_integer(&fixture->postgres,
		"INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', %lld, %lld) RETURNING id",
		(long long)one.author, (long long)one.reader);
	struct client *sender = fixture_member(fixture, one.author, 5, direct);

	change_rules(fixture,
		"INSERT INTO chat.content_rules (pattern, action, conversation_id, conversation_type) VALUES ('lemon', 'mask', "
		"%lld, NULL), "
		"('melon', 'mask', NULL, 'group')",
		(long long)one.group);
	send_text(one.sender, one.group, "lemon, melon");
	expect_message(one.receiver, one.group, 1, one.author, "*****, *****");
	send_text(other.sender, other.group, "lemon, melon");
	expect_message(other.receiver, other.group, 1, other.author, "lemon, *****");
	send_text(sender, direct, "lemon, melon");
	expect_message(sender, direct, 1, one.author, "lemon, melon");
}

/* Changed while the broker runs, and known when it starts. */
static void test_reload(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);

	send_text(room.sender, room.group, "apple");
	expect_message(room.receiver, room.group, 1, room.author, "apple");
	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('apple', 'mask')");
	send_text(room.sender, room.group, "apple");
	expect_message(room.receiver, room.group, 2, room.author, "*****");
	change_rules(fixture, "UPDATE chat.content_rules SET pattern = 'pear', ignore_case = false");
	send_text(room.sender, room.group, "apple, pear, Pear");
	expect_message(room.receiver, room.group, 3, room.author, "apple, ****, Pear");
	fixture_restart_broker(fixture, (const char *[]){NULL});
	room.sender = fixture_member(fixture, room.author, 5, room.group);
	send_text(room.sender, room.group, "pear");
	expect_message(room.sender, room.group, 4, room.author, "****");
	change_rules(fixture, "UPDATE chat.content_rules SET enabled = false");
	send_text(room.sender, room.group, "pear");
	expect_message(room.sender, room.group, 5, room.author, "pear");
}

/* Nobody heard the announcement: it is made good when there is a connection again. */
static void test_lost_announcement(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);

	change_rules(fixture,
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mosquitto-chat loader'; "
		"INSERT INTO chat.content_rules (pattern, action) VALUES ('apple', 'mask')");
	send_text(room.sender, room.group, "apple");
	expect_message(room.sender, room.group, 1, room.author, "*****");
	/* Where the announcement was heard after all, the rules are read twice: who can sign in twice has seen both. */
	for (int i = 0; i < 2; i++)
		fixture_await_loaded(fixture_client(fixture, room.reader, 5));
	fixture_forget_log(fixture);
}

static void test_bad_pattern(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);
	int64_t bad = sql_integer(&fixture->postgres,
		"INSERT INTO chat.content_rules (pattern, action, enabled) VALUES ('bad(word', 'reject', false) RETURNING id");

	fixture_expect_error(fixture, text_of("chat: content rule %lld is not in force: offset 8", (long long)bad));
	change_rules(fixture, "UPDATE chat.content_rules SET enabled = true; "
			      "INSERT INTO chat.content_rules (pattern, action) VALUES ('good', 'mask')");
	broker_log_wait(&fixture->broker, text_of("chat: content rule %lld is not in force: offset 8: ", (long long)bad), 1);
	send_text(room.sender, room.group, "bad(word, good word");
	expect_message(room.receiver, room.group, 1, room.author, "bad(word, **** word");
}

/* A pattern that takes for ever holds nobody up: its message is stored, and others are beside it. */
static void test_catastrophic_pattern(void **state)
{
	enum { LENGTH = 90000, ROUNDS = 20 };
	struct fixture *fixture = *state;
	struct room room = open_room(fixture), other = open_room(fixture);
	char *text = malloc(LENGTH + 2);

	assert_non_null(text);
	fixture_expect_error(fixture, "gave up on a message");
	memset(text, 'a', LENGTH);
	memcpy(text + LENGTH, "!", 2);
	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('(a+)+$', 'reject'), ('x+', 'mask')");
	for (int i = 0; i < ROUNDS; i++) {
		client_send(room.sender, topic_of(room.group, "send"), text);
		client_send(other.sender, topic_of(other.group, "send"), "xyz");
	}
	client_settle(room.sender);
	client_settle(other.sender);
	for (int i = 1; i <= ROUNDS; i++) {
		expect_message(other.receiver, other.group, i, other.author, "*yz");
		expect_message(room.receiver, room.group, i, room.author, text);
	}
	assert_int_equal(broker_log_count(&fixture->broker, "gave up on a message"), 1);
	assert_int_equal(broker_log_count(&fixture->broker, "aaaa"), 0);
	free(text);
}

/* The server reads nothing in them. */
static void test_opaque(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);

	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('secret', 'reject')");
	send_text(room.sender, room.group, "{\"type\":\"opaque\",\"body\":\"secret\"}");
	expect_message(room.receiver, room.group, 1, room.author, "secret");
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, body) VALUES (%lld, 'secret')",
		(long long)room.group);
	expect_message(room.receiver, room.group, 2, 0, "secret"); /* nor in what it says itself */
}

/* ---- moderation ---- */

/* The answer to a request of this client's. */
static struct message *ask(struct client *client, const char *method, const char *parameters)
{
	client_publish(client, text_of("chat/request/%s", method), parameters, 1);
	return client_receive(client, answers_of(client));
}

static void ask_ok(struct client *client, const char *method, const char *parameters)
{
	struct message *answer = ask(client, method, parameters);
	if (!message_has(answer, "result")) {
		fail_msg("%s %s: %s", method, parameters, answer->payload);
	}
	message_free(answer);
}

static void ask_refused(struct client *client, const char *method, const char *parameters, const char *code)
{
	struct message *answer = ask(client, method, parameters);
	assert_string_equal(message_error(answer), code);
	message_free(answer);
}

static struct client *asker(struct fixture *fixture, int64_t user)
{
	struct client *client = fixture_client(fixture, user, 5);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	return client;
}

static struct client *moderator(struct fixture *fixture)
{
	int64_t user = fixture_user(fixture);
	sql(&fixture->postgres, "UPDATE chat.users SET moderator = true WHERE id = %lld", (long long)user);
	return asker(fixture, user);
}

static int64_t report_of(struct fixture *fixture, int64_t conversation, int64_t seq)
{
	return sql_integer(&fixture->postgres, "SELECT id FROM chat.reports WHERE conversation_id = %lld AND seq = %lld",
		(long long)conversation, (long long)seq);
}

/* Reported by a member, seen by a moderator, deleted: gone for everybody, while they look on. */
static void test_report_and_delete(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);
	struct client *judge = moderator(fixture), *stranger = asker(fixture, fixture_user(fixture));
	const char *report = text_of("{\"conversation\":%lld,\"seq\":1,\"reason\":\"insults me\"}", (long long)room.group);

	send_text(room.sender, room.group, "something ugly");
	expect_message(room.receiver, room.group, 1, room.author, "something ugly");
	ask_refused(stranger, "moderation.report", report, "not_found");
	ask_ok(room.receiver, "moderation.report", report);
	struct message *list = ask(judge, "moderation.list", "{}");
	assert_non_null(strstr(list->payload, "something ugly"));
	assert_non_null(strstr(list->payload, "insults me"));
	message_free(list);
	ask_ok(judge, "moderation.resolve",
		text_of("{\"report\":%lld,\"resolution\":\"deleted\"}", (long long)report_of(fixture, room.group, 1)));
	struct message *gone = client_receive(room.receiver, topic_of(room.group, "messages"));
	assert_string_equal(message_string(gone, "type"), "delete");
	assert_int_equal(message_integer(gone, "seq"), 2);
	assert_int_equal(message_integer(gone, "ref"), 1);
	message_free(gone);
	struct message *history = ask(room.sender, "message.history", text_of("{\"conversation\":%lld}", (long long)room.group));
	assert_non_null(strstr(history->payload, "\"deleted\""));
	assert_null(strstr(history->payload, "ugly"));
	message_free(history);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages m WHERE m::text LIKE '%%ugly%%'"), 0);
	/* What a rule has flagged takes the same way. */
	change_rules(fixture, "INSERT INTO chat.content_rules (pattern, action) VALUES ('curious', 'flag')");
	send_text(room.sender, room.group, "a curious thing");
	sql_wait(&fixture->postgres, 1, "SELECT count(*) FROM chat.reports WHERE conversation_id = %lld AND NOT resolved",
		(long long)room.group);
	list = ask(judge, "moderation.list", "{}");
	assert_non_null(strstr(list->payload, "a curious thing"));
	message_free(list);
	ask_ok(judge, "moderation.resolve",
		text_of("{\"report\":%lld,\"resolution\":\"dismissed\"}", (long long)report_of(fixture, room.group, 3)));
	expect_stored(fixture, room.group, 3, "a curious thing");
}

/* Members and strangers alike get one answer, whatever they ask about. */
static void test_only_moderators(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);
	struct client *stranger = asker(fixture, fixture_user(fixture));
	struct client *clients[] = {room.sender, stranger};

	send_text(room.sender, room.group, "hello");
	expect_message(room.receiver, room.group, 1, room.author, "hello");
	ask_ok(room.receiver, "moderation.report", text_of("{\"conversation\":%lld,\"seq\":1}", (long long)room.group));
	int64_t report = report_of(fixture, room.group, 1);
	for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
		ask_refused(clients[i], "moderation.list", "{}", "forbidden");
		ask_refused(clients[i], "moderation.resolve",
			text_of("{\"report\":%lld,\"resolution\":\"deleted\"}", (long long)report), "forbidden");
		ask_refused(clients[i], "moderation.resolve", "{\"report\":999999,\"resolution\":\"deleted\"}", "forbidden");
		ask_refused(clients[i], "moderation.suspend", text_of("{\"user\":%lld}", (long long)room.reader), "forbidden");
		ask_refused(clients[i], "moderation.suspend", "{\"user\":999999}", "forbidden");
		ask_refused(clients[i], "moderation.unsuspend", text_of("{\"user\":%lld}", (long long)room.reader), "forbidden");
	}
	expect_stored(fixture, room.group, 1, "hello");
}

/* A token opens nothing: in, and out without having read anything. */
static void expect_locked_out(struct fixture *fixture, int64_t user, int64_t conversation)
{
	char *token = fixture_token(fixture, user, 0, 3600);
	struct client *client =
		client_try(&(struct client_options){.port = fixture->broker.port, .version = 5, .user = "x", .password = token});
	free(token);
	if (client_connack(client) == 0) {
		client_subscribe(client, topic_of(conversation, "messages"));
		client_wait_closed(client);
	}
	assert_int_equal(client_waiting(client, NULL), 0);
}

static void test_suspend(void **state)
{
	struct fixture *fixture = *state;
	struct room room = open_room(fixture);
	struct client *judge = moderator(fixture), *other_device = fixture_member(fixture, room.author, 4, room.group);

	send_text(room.sender, room.group, "spam");
	expect_message(room.receiver, room.group, 1, room.author, "spam");
	ask_ok(room.receiver, "moderation.report", text_of("{\"conversation\":%lld,\"seq\":1}", (long long)room.group));
	ask_ok(judge, "moderation.resolve",
		text_of("{\"report\":%lld,\"resolution\":\"suspended\"}", (long long)report_of(fixture, room.group, 1)));
	client_wait_closed(room.sender);
	client_wait_closed(other_device);
	expect_locked_out(fixture, room.author, room.group);
	ask_ok(judge, "moderation.unsuspend", text_of("{\"user\":%lld}", (long long)room.author));
	room.sender = fixture_member(fixture, room.author, 5, room.group);
	send_text(room.sender, room.group, "sorry");
	expect_message(room.receiver, room.group, 2, room.author, "sorry");
	/* For a time, and nobody has to think of it. */
	ask_ok(judge, "moderation.suspend",
		text_of("{\"user\":%lld,\"until\":%lld}", (long long)room.author, (long long)clock_wall_ms() + 3600000));
	client_wait_closed(room.sender);
	sql(&fixture->postgres, "UPDATE chat.users SET suspended_until = now() WHERE id = %lld", (long long)room.author);
	int64_t active = 0;
	for (int64_t deadline_ms = now_ms() + 60000; !active && now_ms() < deadline_ms; clients_turn(50)) {
		active = sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.users WHERE id = %lld AND status = 'active'",
			(long long)room.author);
	}
	assert_true(active);
	room.sender = fixture_member(fixture, room.author, 5, room.group);
}

static int after_test(void **state)
{
	struct fixture *fixture = *state;
	if (sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.read_content_rules()") > 0) {
		change_rules(fixture, "DELETE FROM chat.content_rules");
	}
	sql(&fixture->postgres, "DELETE FROM chat.content_rules");
	return fixture_after_test(state);
}

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, (const char *[]){"rate_requests 0", NULL}, NULL);
	broker_start(&fixture->broker);
	return 0;
}

#define MODERATION(name) cmocka_unit_test_teardown(name, after_test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MODERATION(test_reject),
		MODERATION(test_mask),
		MODERATION(test_flag),
		MODERATION(test_requests_and_edits),
		MODERATION(test_scopes),
		MODERATION(test_reload),
		MODERATION(test_lost_announcement),
		MODERATION(test_bad_pattern),
		MODERATION(test_catastrophic_pattern),
		MODERATION(test_opaque),
		MODERATION(test_report_and_delete),
		MODERATION(test_only_moderators),
		MODERATION(test_suspend),
	};
	return cmocka_run_group_tests_name("moderation", tests, setup, fixture_teardown);
}
