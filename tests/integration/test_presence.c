/* test_presence.c - who is there: told to whom, when, and to nobody else; what the database says of it; what ends it.
 *
 * That nothing was told is shown by what is told next: presences of a user come in their order, so where a choice ("busy")
 * follows an event that must not be seen, the next presence is that choice. The broker runs with a grace of 1 s, or of 5 minutes,
 * in which nobody goes offline by disconnecting.
 */
#include "fixture.h"
#include "raw.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORM 200

/* clang-format off */
static const char *const short_grace[] = {"rate_requests 0", "presence_grace 1s", NULL};
static const char *const long_grace[] = {"rate_requests 0", "presence_grace 300s", NULL};
/* clang-format on */

static const char *presence_of(int64_t user)
{
	return user_topic(user, "presence");
}

/* Connected, hearing its answers, its memberships loaded. */
static struct client *ready(struct client *client)
{
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	fixture_await_loaded(client);
	return client;
}

/* What was announced up to now has been seen by the broker: it tells this client of an event that is announced after it. */
static void settle_announcements(struct fixture *fixture, struct client *client, int64_t user)
{
	const char *word = new_id();
	assert_int_equal(client_subscribe(client, user_topic(user, "inbox")), 1);
	sql(&fixture->postgres, "INSERT INTO chat.inbox_events (user_id, payload) VALUES (%lld, '{\"event\":\"%s\"}')",
		(long long)user, word);
	for (bool settled = false; !settled;) {
		struct message *message = client_receive(client, user_topic(user, "inbox"));
		settled = strcmp(message_string(message, "event"), word) == 0;
		message_free(message);
	}
	client_unsubscribe(client, user_topic(user, "inbox"));
}

/* Ready, and what was announced before is over: it would close a watch for a moment, and what is told then is told on another
 * topic. */
static struct client *connect_user(struct fixture *fixture, int64_t user, int version)
{
	struct client *client = ready(fixture_client(fixture, user, version));
	settle_announcements(fixture, client, user);
	return client;
}

static struct client *try_with(struct fixture *fixture, int64_t user, int64_t device, const char *id, int64_t lifetime_s)
{
	char *token = fixture_token(fixture, user, device, lifetime_s);
	struct client *client = client_try(
		&(struct client_options){.port = fixture->broker.port, .version = 5, .id = id, .user = "x", .password = token});
	free(token);
	return client;
}

static struct client *connect_device(struct fixture *fixture, int64_t user, int64_t device)
{
	struct client *client = try_with(fixture, user, device, NULL, 3600);
	assert_int_equal(client_connack(client), 0);
	ready(client);
	settle_announcements(fixture, client, user);
	return client;
}

static int64_t make_device(struct fixture *fixture, int64_t user)
{
	return sql_integer(&fixture->postgres, "INSERT INTO chat.devices (user_id) VALUES (%lld) RETURNING id", (long long)user);
}

static void check_presence(struct message *message, int64_t user, const char *status)
{
	assert_int_equal(message_integer(message, "user"), user);
	assert_string_equal(message_string(message, "status"), status);
	assert_int_equal(message->qos, 0);
	assert_false(message->retain);
}

/* The next presence on the user's topic. Returns last_seen_at, or 0. */
static int64_t expect_presence(struct client *watcher, int64_t user, const char *status)
{
	struct message *message = client_receive(watcher, presence_of(user));
	check_presence(message, user, status);
	int64_t last_seen_at = message_has(message, "last_seen_at") ? message_integer(message, "last_seen_at") : 0;
	message_free(message);
	return last_seen_at;
}

/* The first one, on the watcher's own topic. */
static int64_t expect_first(struct client *watcher, int64_t user, const char *status)
{
	struct message *message = client_receive(watcher, answers_of(watcher));
	check_presence(message, user, status);
	int64_t last_seen_at = message_has(message, "last_seen_at") ? message_integer(message, "last_seen_at") : 0;
	message_free(message);
	return last_seen_at;
}

static void request(struct client *client, const char *method, const char *parameters)
{
	client_publish(client, text_of("chat/request/%s", method), parameters, 1);
	struct message *answer = client_receive(client, answers_of(client));
	if (!message_has(answer, "result")) {
		fail_msg("%s: %s", method, answer->payload);
	}
	message_free(answer);
}

/* On the topic, or where the watch was closed for a moment and something was missed, as a first one. Returns last_seen_at, or 0.
 */
static int64_t expect_either(struct client *watcher, int64_t user, const char *status)
{
	int64_t deadline_ms = now_ms() + 15000;
	struct message *message = NULL;
	while (!message && now_ms() < deadline_ms) {
		message = client_receive_by(watcher, presence_of(user), now_ms() + 20);
		message = message ? message : client_receive_by(watcher, answers_of(watcher), now_ms() + 20);
	}
	assert_non_null(message);
	check_presence(message, user, status);
	int64_t last_seen_at = message_has(message, "last_seen_at") ? message_integer(message, "last_seen_at") : 0;
	message_free(message);
	return last_seen_at;
}

static void set_presence(struct client *client, const char *parameters)
{
	request(client, "presence.set", parameters);
}

/* Waits until the table says so. */
static void expect_row(struct fixture *fixture, int64_t user, const char *status)
{
	sql_wait(&fixture->postgres, 1, "SELECT count(*) FROM chat.presence WHERE user_id = %lld AND status = '%s'",
		(long long)user, status);
}

static int64_t watch(struct client *watcher, int64_t user, const char *status)
{
	assert_int_equal(client_subscribe(watcher, presence_of(user)), 1);
	return expect_first(watcher, user, status);
}

/* Who has just connected is there once it is known what the device says of itself. */
static void watch_online(struct fixture *fixture, struct client *watcher, int64_t user)
{
	expect_row(fixture, user, "online");
	watch(watcher, user, "online");
}

/* ---- coming and going */

static void test_online_and_offline(void **state)
{
	struct fixture *fixture = *state;
	for (int version = 4; version <= 5; version++) {
		int64_t user = fixture_user(fixture), friend = fixture_user(fixture);
		GROUP_OF(fixture, user, friend);
		struct client *watcher = connect_user(fixture, friend, version);
		assert_int_equal(watch(watcher, user, "offline"), 0);
		int64_t before_ms = clock_wall_ms();
		struct client *client = connect_user(fixture, user, 9 - version);
		assert_true(expect_presence(watcher, user, "online") >= before_ms);
		expect_row(fixture, user, "online");
		client_close(client);
		int64_t last_seen_ms = expect_presence(watcher, user, "offline");
		assert_true(last_seen_ms >= before_ms && last_seen_ms <= clock_wall_ms());
		expect_row(fixture, user, "offline");
		assert_int_equal(
			sql_integer(&fixture->postgres,
				"SELECT round(extract(epoch FROM last_seen_at) * 1000) FROM chat.presence WHERE user_id = %lld",
				(long long)user),
			last_seen_ms);
		client_publish(watcher, "chat/request/presence.get", text_of("{\"users\":[%lld]}", (long long)user), 1);
		struct message *answer = client_receive(watcher, answers_of(watcher));
		assert_non_null(strstr(answer->payload, text_of("\"last_seen_at\": %lld", (long long)last_seen_ms)));
		message_free(answer);
		/* Who comes later sees it too; and hears it again who asks again. */
		struct client *late = connect_user(fixture, friend, version);
		assert_int_equal(watch(late, user, "offline"), last_seen_ms);
		assert_int_equal(watch(late, user, "offline"), last_seen_ms);
		client_unsubscribe(late, presence_of(user));
		client = connect_user(fixture, user, version);
		expect_presence(watcher, user, "online");
		expect_silence(late, NULL);
	}
}

/* From the first device to the last. */
static void test_two_devices(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture);
	GROUP_OF(fixture, user, friend);
	struct client *watcher = connect_user(fixture, friend, 5), *phone = connect_user(fixture, user, 4);
	watch_online(fixture, watcher, user);
	struct client *desktop = connect_user(fixture, user, 5);
	client_cut(phone);
	set_presence(desktop, "{\"status\":\"busy\"}");
	expect_presence(watcher, user, "busy");
	client_close(desktop);
	expect_presence(watcher, user, "offline");
}

static void test_highest_device(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture), phone_id = make_device(fixture, user),
		desktop_id = make_device(fixture, user);
	GROUP_OF(fixture, user, friend);
	struct client *watcher = connect_user(fixture, friend, 5), *phone = connect_device(fixture, user, phone_id);
	watch_online(fixture, watcher, user);
	set_presence(phone, "{\"status\":\"away\",\"text\":\"in the tram\"}");
	struct message *message = client_receive(watcher, presence_of(user));
	check_presence(message, user, "away");
	assert_string_equal(message_string(message, "text"), "in the tram");
	message_free(message);
	sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM chat.active_devices WHERE device_id = %lld", (long long)phone_id);
	struct client *desktop = connect_device(fixture, user, desktop_id);
	message = client_receive(watcher, presence_of(user));
	check_presence(message, user, "online");
	assert_false(message_has(message, "text"));
	message_free(message);
	sql_wait(&fixture->postgres, 1,
		"SELECT count(*) FROM chat.active_devices WHERE device_id = %lld AND active_until > now()",
		(long long)desktop_id);
	set_presence(desktop, "{\"status\":\"invisible\"}");
	expect_presence(watcher, user, "away");
	set_presence(phone, "{\"status\":\"busy\",\"text\":null}");
	expect_presence(watcher, user, "busy");
	/* What a device says holds over a reconnect, and is seen at once. */
	client_close(desktop);
	client_close(phone);
	expect_presence(watcher, user, "offline");
	sql_wait(&fixture->postgres, 0, "SELECT count(*) FROM chat.active_devices WHERE device_id IN (%lld, %lld)",
		(long long)phone_id, (long long)desktop_id);
	phone = connect_device(fixture, user, phone_id);
	expect_presence(watcher, user, "busy");
	expect_row(fixture, user, "busy");
}

/* Who is invisible is offline for everybody: on the topic, by request, in the table. */
static void test_invisible(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture), device = make_device(fixture, user);
	GROUP_OF(fixture, user, friend);
	struct client *watcher = connect_user(fixture, friend, 5);
	sql(&fixture->postgres, "INSERT INTO chat.device_presence (user_id, device_id, status) VALUES (%lld, %lld, 'invisible')",
		(long long)user, (long long)device);
	assert_int_equal(watch(watcher, user, "offline"), 0);
	struct client *client = connect_device(fixture, user, device);
	set_presence(client, "{\"status\":\"invisible\",\"text\":\"here and not here\"}");
	client_publish(watcher, "chat/request/presence.get", text_of("{\"users\":[%lld]}", (long long)user), 1);
	struct message *answer = client_receive(watcher, answers_of(watcher));
	assert_non_null(strstr(answer->payload, "offline"));
	assert_null(strstr(answer->payload, "here"));
	assert_null(strstr(answer->payload, "last_seen_at"));
	message_free(answer);
	set_presence(client, "{\"status\":\"away\"}");
	expect_presence(watcher, user, "away");
	set_presence(client, "{\"status\":\"invisible\"}");
	expect_presence(watcher, user, "offline");
	expect_row(fixture, user, "offline");
}

/* Comes with a token that is over soon, with the leeway of a minute, is seen, and ends. Where the machine stands still for what
 * is left of it, the next one has more. */
static void come_with_short_token(struct fixture *fixture, struct client *watcher, int64_t user)
{
	static const int64_t lifetimes_s[] = {-57, -50, -30};
	bool seen = false;
	for (size_t i = 0; i < sizeof lifetimes_s / sizeof lifetimes_s[0] && !seen; i++) {
		struct client *client = try_with(fixture, user, 0, NULL, lifetimes_s[i]);
		int64_t deadline_ms = now_ms() + 60000;
		while (client_is_connected(client)) {
			assert_true(now_ms() < deadline_ms);
			clients_turn(20);
		}
		client_fence(watcher);
		seen = client_waiting(watcher, presence_of(user)) > 0;
	}
	expect_presence(watcher, user, "online");
	expect_presence(watcher, user, "offline");
}

static void test_ends_of_sessions(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture), device = make_device(fixture, user);
	GROUP_OF(fixture, user, friend);
	struct client *watcher = connect_user(fixture, friend, 5);
	watch(watcher, user, "offline");
	come_with_short_token(fixture, watcher, user);
	/* A device that is revoked. */
	struct client *client = connect_device(fixture, user, device);
	expect_presence(watcher, user, "online");
	sql(&fixture->postgres, "UPDATE chat.devices SET revoked_at = now() WHERE id = %lld", (long long)device);
	client_wait_closed(client);
	expect_presence(watcher, user, "offline");
	/* A suspended account that holds a good token was never there. */
	sql(&fixture->postgres, "UPDATE chat.users SET status = 'suspended' WHERE id = %lld", (long long)user);
	client = fixture_client(fixture, user, 5);
	client_wait_closed(client);
	sql(&fixture->postgres, "UPDATE chat.users SET status = 'active' WHERE id = %lld", (long long)user);
	settle_announcements(fixture, watcher, friend);
	client_unsubscribe(watcher, presence_of(user));
	watch(watcher, user, "offline");
	connect_user(fixture, user, 5);
	expect_presence(watcher, user, "online");
}

/* ---- who may know */

/* Sooner or later. What was announced of the two before may close the watch for a moment, and what is told then is a first one.
 */
static void await_presence(struct client *watcher, int64_t user, const char *status)
{
	int64_t deadline_ms = now_ms() + 15000;
	for (bool told = false; !told;) {
		struct message *message = client_receive_by(watcher, presence_of(user), now_ms() + 20);
		message = message ? message : client_receive_by(watcher, answers_of(watcher), now_ms() + 20);
		assert_true(message || now_ms() < deadline_ms);
		told = message && strcmp(message_string(message, "status"), status) == 0;
		message_free(message);
	}
}

/* threats 18, 54: a stranger gets the SUBACK that everybody gets, and nothing else; so for a user who does not exist. */
static void stranger_of_version(struct fixture *fixture, int version)
{
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture), stranger = fixture_user(fixture);
	GROUP_OF(fixture, user, friend);
	int64_t channel = sql_integer(
		&fixture->postgres, "INSERT INTO chat.conversations (type, is_public) VALUES ('channel', true) RETURNING id");
	sql(&fixture->postgres,
		"INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld), (%lld, %lld)",
		(long long)channel, (long long)user, (long long)channel, (long long)stranger);
	struct client *other = connect_user(fixture, stranger, version), *watcher = connect_user(fixture, friend, version);
	const char *filters[] = {presence_of(user), presence_of(user + 1000000), presence_of(stranger)};
	int codes[3];
	expect_row(fixture, stranger, "online");
	client_subscribe_many(other, filters, 3, codes);
	assert_true(codes[0] == 1 && codes[1] == 1 && codes[2] == 1);
	expect_first(other, stranger, "online");
	watch(watcher, user, "offline");
	struct client *client = connect_user(fixture, user, 5);
	await_presence(watcher, user, "online");
	client_close(client);
	await_presence(watcher, user, "offline");
	expect_silence(other, NULL);
	client_publish(other, "chat/request/presence.get",
		text_of("{\"users\":[%lld,%lld]}", (long long)user, (long long)user + 1000000), 1);
	struct message *answer = client_receive(other, answers_of(other));
	assert_string_equal(answer->payload, "{\"result\":{\"presence\": []}}");
	message_free(answer);
	client_close(other);
	client_close(watcher);
}

static void test_stranger(void **state)
{
	/* Each with users of its own: who was there a moment ago may be told of once more. */
	stranger_of_version(*state, 4);
	stranger_of_version(*state, 5);
}

/* A user, a friend who may always know (the control), and somebody for whom it changes. */
struct circle {
	struct fixture *fixture;
	int64_t user, friend, other, group;
	struct client *client, *control, *watcher;
};

/* The other is in the group too, sees the user online, and says so. */
static struct circle make_circle(struct fixture *fixture)
{
	struct circle circle = {
		fixture, fixture_user(fixture), fixture_user(fixture), fixture_user(fixture), 0, NULL, NULL, NULL};
	circle.group = GROUP_OF(fixture, circle.user, circle.friend, circle.other);
	/* The control has the user in a conversation of their own. */
	sql(&fixture->postgres,
		"INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', %lld, %lld)",
		(long long)circle.user, (long long)circle.friend);
	circle.client = connect_user(fixture, circle.user, 5);
	circle.control = connect_user(fixture, circle.friend, 5);
	circle.watcher = connect_user(fixture, circle.other, 4);
	watch_online(fixture, circle.control, circle.user);
	watch_online(fixture, circle.watcher, circle.user);
	set_presence(circle.client, "{\"status\":\"away\"}");
	expect_presence(circle.control, circle.user, "away");
	expect_presence(circle.watcher, circle.user, "away");
	return circle;
}

/* After this statement the watcher hears nothing more, and sees nothing by request, while the control does. */
static void closes(const struct circle *circle, const char *statement)
{
	sql(&circle->fixture->postgres, "%s", statement);
	settle_announcements(circle->fixture, circle->control, circle->friend);
	set_presence(circle->client, "{\"status\":\"busy\"}");
	expect_either(circle->control, circle->user, "busy");
	set_presence(circle->client, "{\"status\":\"online\"}");
	expect_either(circle->control, circle->user, "online");
	client_publish(circle->watcher, "chat/request/presence.get", text_of("{\"users\":[%lld]}", (long long)circle->user), 1);
	struct message *answer = client_receive(circle->watcher, answers_of(circle->watcher));
	assert_string_equal(answer->payload, "{\"result\":{\"presence\": []}}");
	message_free(answer);
	expect_silence(circle->watcher, NULL);
}

/* After this one it hears how it is now, and goes on hearing. */
static void opens(const struct circle *circle, const char *statement)
{
	sql(&circle->fixture->postgres, "%s", statement);
	expect_first(circle->watcher, circle->user, "online");
	set_presence(circle->client, "{\"status\":\"away\"}");
	expect_either(circle->watcher, circle->user, "away");
	expect_either(circle->control, circle->user, "away");
}

/* threats 54, 56 */
static void test_block_closes(void **state)
{
	struct circle circle = make_circle(*state);
	long long user = circle.user, other = circle.other;
	closes(&circle, text_of("INSERT INTO chat.blocked_users VALUES (%lld, %lld)", user, other));
	opens(&circle, text_of("DELETE FROM chat.blocked_users WHERE user_id = %lld", user));
	closes(&circle, text_of("INSERT INTO chat.blocked_users VALUES (%lld, %lld)", other, user));
	opens(&circle, text_of("DELETE FROM chat.blocked_users WHERE user_id = %lld", other));
}

static void test_removal_closes(void **state)
{
	struct circle circle = make_circle(*state);
	long long user = circle.user, other = circle.other, group = circle.group;
	closes(&circle, text_of("DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
				group, other));
	opens(&circle, text_of("INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)", group,
			       other));
	closes(&circle, text_of("DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
				group, user));
	opens(&circle,
		text_of("INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', %lld, %lld)",
			user, other));
	closes(&circle,
		text_of("DELETE FROM chat.conversations WHERE type = 'direct' AND %lld IN (first_user_id, second_user_id)",
			other));
}

static void test_group_that_goes_closes(void **state)
{
	struct circle circle = make_circle(*state);
	long long group = circle.group;
	closes(&circle, text_of("UPDATE chat.conversations SET type = 'channel' WHERE id = %lld", group));
	opens(&circle, text_of("UPDATE chat.conversations SET type = 'group' WHERE id = %lld", group));
	closes(&circle, text_of("DELETE FROM chat.conversations WHERE id = %lld", group));
}

static void test_privacy_closes(void **state)
{
	struct circle circle = make_circle(*state);
	long long user = circle.user;
	closes(&circle,
		text_of("UPDATE chat.users SET settings = '{\"privacy\":{\"presence\":\"contacts\"}}' WHERE id = %lld", user));
	opens(&circle, text_of("UPDATE chat.users SET settings = '{}' WHERE id = %lld", user));
	request(circle.client, "user.update", "{\"privacy\":{\"presence\":\"nobody\"}}");
	settle_announcements(*state, circle.watcher, circle.other);
	set_presence(circle.client, "{\"status\":\"busy\"}");
	expect_row(*state, circle.user, "busy");
	expect_silence(circle.control, NULL);
	expect_silence(circle.watcher, NULL);
	request(circle.client, "user.update", "{\"privacy\":{\"presence\":\"everyone\"}}");
	expect_first(circle.control, circle.user, "busy");
	expect_first(circle.watcher, circle.user, "busy");
}

/* ---- nobody is deceived about who is there */

static int refused_with(struct fixture *fixture, const char *id, const char *password)
{
	struct client *client = client_try(&(struct client_options){
		.port = fixture->broker.port, .version = 5, .id = id, .user = "x", .password = password});
	return client_connack(client);
}

/* threat 12: a refused CONNECT with a victim's client id, and one of another user, change nothing. */
static void test_refused_connect(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture), thief = fixture_user(fixture);
	GROUP_OF(fixture, user, friend);
	char id[32];
	snprintf(id, sizeof(id), "%lld-phone", (long long)user);
	struct client *client = ready(fixture_client_with(fixture, user, (struct client_options){.version = 5, .id = id})),
		      *watcher = connect_user(fixture, friend, 5);
	watch_online(fixture, watcher, user);
	char *others = fixture_token(fixture, thief, 0, 3600), *expired = fixture_token(fixture, user, 0, -1000);
	assert_int_not_equal(refused_with(fixture, id, others), 0);
	assert_int_not_equal(refused_with(fixture, id, expired), 0);
	assert_int_not_equal(refused_with(fixture, id, "x.y.z"), 0);
	free(others);
	free(expired);
	assert_true(client_is_connected(client));
	set_presence(client, "{\"status\":\"busy\"}");
	expect_presence(watcher, user, "busy");
	/* Nor does one with an id of the user's that is not connected make them appear. */
	client_close(client);
	expect_presence(watcher, user, "offline");
	others = fixture_token(fixture, thief, 0, 3600);
	assert_int_not_equal(refused_with(fixture, id, others), 0);
	free(others);
	expect_silence(watcher, NULL);
	fixture_forget_log(fixture);
}

static void test_takeover(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture);
	GROUP_OF(fixture, user, friend);
	char id[32];
	snprintf(id, sizeof(id), "%lld-phone", (long long)user);
	struct client_options options = {.version = 5, .id = id, .keep_session = true, .session_expiry_s = 3600};
	struct client *first = ready(fixture_client_with(fixture, user, options)), *watcher = connect_user(fixture, friend, 5);
	watch_online(fixture, watcher, user);
	struct client *second = ready(fixture_client_with(fixture, user, options));
	client_wait_closed(first);
	struct client *third = ready(fixture_client_with(fixture, user, options));
	client_wait_closed(second);
	set_presence(third, "{\"status\":\"busy\"}");
	expect_presence(watcher, user, "busy");
	set_presence(third, "{\"status\":\"online\"}");
	expect_presence(watcher, user, "online");
	client_close(third);
	expect_presence(watcher, user, "offline");
	/* Resumed: the broker tells the end of the session that was kept once more. */
	third = ready(fixture_client_with(fixture, user, options));
	assert_true(client_session_present(third));
	expect_presence(watcher, user, "online");
	client_close(third);
	expect_presence(watcher, user, "offline");
}

/* ---- a long grace: nobody goes by disconnecting */

static int64_t statements_so_far(struct fixture *fixture)
{
	char *log = file_read(fixture->broker.log), *last = NULL;
	for (char *at = log; (at = strstr(at, "presence: ")); at++) {
		if (strstr(at, " changes, ") == strchr(at + 10, ' ')) {
			last = at;
		}
	}
	assert_non_null(last);
	int64_t statements = strtol(strstr(last, " changes, ") + 10, NULL, 10);
	free(log);
	return statements;
}

/* Sessions that come and go by the hundred: nobody who watches hears a thing, nothing is written but the heartbeat. */
static void test_storm(void **state)
{
	struct fixture *fixture = *state;
	static struct client *clients[STORM];
	int64_t users[STORM], friend = fixture_user(fixture), last = fixture_user(fixture);
	fixture_restart_broker(fixture, long_grace);
	int64_t began_ms = now_ms();
	for (int i = 0; i < STORM; i++) {
		users[i] = fixture_user(fixture);
		GROUP_OF(fixture, users[i], friend, last);
		clients[i] = fixture_client(fixture, users[i], 4 + i % 2);
	}
	struct client *watcher = connect_user(fixture, friend, 5), *idle = connect_user(fixture, last, 5);
	for (int i = 0; i < STORM; i++) {
		expect_row(fixture, users[i], "online");
		assert_int_equal(client_subscribe(watcher, presence_of(users[i])), 1);
	}
	for (int i = 0; i < STORM; i++) {
		struct message *message = client_receive(watcher, answers_of(watcher));
		assert_string_equal(message_string(message, "status"), "online");
		message_free(message);
	}
	expect_row(fixture, friend, "online");
	expect_row(fixture, last, "online");
	char *written = sql_text(&fixture->postgres, "SELECT max(changed_at) FROM chat.presence");
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < STORM; i++) {
			client_cut(clients[i]);
			clients[i] = fixture_client(fixture, users[i], 4 + i % 2);
		}
	}
	int64_t changed = users[STORM - 1];
	set_presence(ready(clients[STORM - 1]), "{\"status\":\"busy\"}");
	expect_presence(watcher, changed, "busy");
	expect_row(fixture, changed, "busy");
	expect_silence(watcher, NULL);
	expect_silence(idle, NULL);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.presence WHERE changed_at > '%s'", written), 1);
	free(written);
	int64_t lasted_ms = now_ms() - began_ms;
	broker_stop(&fixture->broker);
	assert_true(statements_so_far(fixture) <= 20 + 20 * lasted_ms / 1000);
	broker_start(&fixture->broker);
}

/* kill -9: nobody is there any more, last seen at the broker's last heartbeat; who comes back is. */
static void test_kill(void **state)
{
	struct fixture *fixture = *state;
	struct postgres *postgres = &fixture->postgres;
	int64_t user = fixture_user(fixture), friend = fixture_user(fixture), device = make_device(fixture, user);
	GROUP_OF(fixture, user, friend);
	int64_t before_ms = clock_wall_ms();
	struct client *client = connect_device(fixture, user, device), *watcher = connect_user(fixture, friend, 5);
	watch_online(fixture, watcher, user);
	expect_row(fixture, user, "online");
	expect_row(fixture, friend, "online");
	sql_wait(postgres, 1, "SELECT count(*) FROM chat.active_devices WHERE device_id = %lld", (long long)device);
	int64_t heartbeat_ms =
		sql_integer(postgres, "SELECT floor(extract(epoch FROM max(heartbeat_at)) * 1000) FROM chat.brokers");
	broker_kill(&fixture->broker);
	client_wait_closed(client);
	client_wait_closed(watcher);
	sql_wait(
		postgres, 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chat_plugin'"); /* its last words are over */
	int64_t killed_ms = clock_wall_ms();
	assert_int_equal(sql_integer(postgres, "SELECT count(*) FROM chat.presence WHERE user_id = %lld AND status = 'online'",
				 (long long)user),
		1);
	broker_start(&fixture->broker);
	expect_row(fixture, user, "offline");
	sql_wait(postgres, 0, "SELECT count(*) FROM chat.active_devices WHERE device_id = %lld", (long long)device);
	watcher = connect_user(fixture, friend, 5);
	int64_t last_seen_ms = watch(watcher, user, "offline");
	assert_true(last_seen_ms >= before_ms && last_seen_ms >= heartbeat_ms && last_seen_ms <= killed_ms);
	client = connect_user(fixture, user, 5);
	expect_presence(watcher, user, "online");
	expect_row(fixture, user, "online");
}

/* A broker that is stopped leaves nobody behind. (It waits a second for the database; one that stands still for longer than that
 * does not do so every time.) */
static void test_stop(void **state)
{
	enum { ATTEMPTS = 5 };
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), left = 1;
	for (int attempt = 0; attempt < ATTEMPTS && left > 0; attempt++) {
		connect_user(fixture, user, 5);
		expect_row(fixture, user, "online");
		broker_stop(&fixture->broker);
		left = sql_integer(&fixture->postgres,
			"SELECT (SELECT count(*) FROM chat.brokers) + (SELECT count(*) FROM chat.presence WHERE user_id = %lld "
			"AND status <> 'offline')",
			(long long)user);
		fixture_restart_broker(fixture, short_grace);
	}
	assert_int_equal(left, 0);
}

/* The database is away: what changes is kept, the newest of each, and written when it is back. What is told waits too, until it
 * is known again who may hear it. */
static void test_outage(void **state)
{
	struct fixture *fixture = *state;
	int64_t gone = fixture_user(fixture), here = fixture_user(fixture), friend = fixture_user(fixture);
	GROUP_OF(fixture, gone, here, friend);
	struct client *leaver = connect_user(fixture, gone, 5), *stayer = connect_user(fixture, here, 5),
		      *watcher = connect_user(fixture, friend, 5);
	watch_online(fixture, watcher, gone);
	watch_online(fixture, watcher, here);
	expect_row(fixture, gone, "online");
	expect_row(fixture, here, "online");
	fixture_expect_error(fixture, "chat: database: ");
	postgres_stop(&fixture->postgres);
	broker_log_wait(&fixture->broker, "chat: database: ", 1);
	int64_t before_ms = clock_wall_ms();
	client_close(leaver);
	postgres_start(&fixture->postgres);
	assert_true(expect_either(watcher, gone, "offline") >= before_ms - 1000);
	expect_row(fixture, gone, "offline");
	sql(&fixture->postgres, "INSERT INTO chat.device_presence (user_id, client_id, status) VALUES (%lld, '%s', 'busy')",
		(long long)here, client_id(stayer));
	expect_either(watcher, here, "busy");
	expect_row(fixture, here, "busy");
}

/* Taken for dead by another broker while the database did not hear of us: who is here is written again. */
static void test_taken_for_dead(void **state)
{
	struct fixture *fixture = *state;
	int64_t user = fixture_user(fixture), device = make_device(fixture, user);
	connect_device(fixture, user, device);
	expect_row(fixture, user, "online");
	sql(&fixture->postgres, "UPDATE chat.presence SET status = 'offline', broker = NULL; DELETE FROM chat.active_devices; "
				"DELETE FROM chat.brokers");
	expect_row(fixture, user, "online");
	sql_wait(&fixture->postgres, 1, "SELECT count(*) FROM chat.active_devices WHERE device_id = %lld", (long long)device);
}

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, short_grace, NULL);
	broker_start(&fixture->broker);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_online_and_offline),
		TEST(test_two_devices),
		TEST(test_highest_device),
		TEST(test_invisible),
		TEST(test_ends_of_sessions),
		TEST(test_stranger),
		TEST(test_block_closes),
		TEST(test_removal_closes),
		TEST(test_group_that_goes_closes),
		TEST(test_privacy_closes),
		TEST(test_refused_connect),
		TEST(test_takeover),
		TEST(test_taken_for_dead),
		TEST(test_storm),
		TEST(test_kill),
		TEST(test_stop),
		TEST(test_outage),
	};
	return cmocka_run_group_tests_name("presence", tests, setup, fixture_teardown);
}
