/* test_presence.c - the service with the database and the broker made up: what is asked, told and written, and when; above all
 * that an answer which was under way when something was announced opens nothing (threats 54, 56).
 */
#include "presence.h"

#include "host.h"
#include "wakeup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GRACE_S 10

enum { ALICE = 1, BOB = 2, CAROL = 3 };

static struct chat chat;
static char connections[4000]; /* their addresses stand for the broker's objects */
static unsigned next_connection;

/* ---- the database */

static struct presence_question questions[8192];
static unsigned question_count, read_count, put_count, device_count;
static int64_t reads[64];
static enum presence_status put_status;
static int64_t put_seen_ms;
static bool put_active;
static struct presence_answer *answers, **last_answer = &answers;

bool presence_store_ask(struct presence_store *store, const struct presence_question *question)
{
	(void)store;
	questions[question_count++] = *question;
	return true;
}

bool presence_store_read(struct presence_store *store, int64_t user_id)
{
	(void)store;
	reads[read_count++ % 64] = user_id;
	return true;
}

bool presence_store_put(struct presence_store *store, int64_t user_id, const struct presence_view *view, int64_t last_seen_ms)
{
	(void)store, (void)user_id;
	put_count++;
	put_status = view->status;
	put_seen_ms = last_seen_ms;
	return true;
}

bool presence_store_device(struct presence_store *store, int64_t device_id, bool active)
{
	(void)store, (void)device_id;
	device_count++;
	put_active = active;
	return true;
}

struct presence_answer *presence_store_take_all(struct presence_store *store)
{
	struct presence_answer *all = answers;
	(void)store;
	answers = NULL;
	last_answer = &answers;
	return all;
}

void presence_answer_free(struct presence_answer *answer)
{
	free(answer->sights);
	free(answer->said);
	free(answer);
}

static struct presence_answer *new_answer(enum presence_answer_kind kind)
{
	struct presence_answer *answer = calloc(1, sizeof(*answer));
	answer->kind = kind;
	answer->count = 1;
	*last_answer = answer;
	last_answer = &answer->next;
	return answer;
}

static void answer_question(unsigned number, bool allowed, int64_t last_seen_ms)
{
	struct presence_answer *answer = new_answer(PRESENCE_SIGHTS);
	answer->sights = calloc(1, sizeof(answer->sights[0]));
	answer->sights[0] = (struct presence_sight){questions[number], last_seen_ms, allowed};
}

/* What a device says; NULL: nothing. */
static void answer_read(int64_t user_id, int64_t device_id, const char *status)
{
	struct presence_answer *answer = new_answer(PRESENCE_SAID);
	answer->said = calloc(1, sizeof(answer->said[0]));
	answer->said[0].user_id = user_id;
	answer->said[0].nothing = status == NULL;
	answer->said[0].device_id = device_id;
	if (status) {
		assert_true(presence_status_parse(status, strlen(status), &answer->said[0].view.status));
	}
}

/* ---- the broker */

static unsigned published;
static char published_topic[128], published_payload[1024];

bool chat_publish(
	struct chat *of, const char *topic, const void *payload, size_t length, int qos, const struct host_properties *properties)
{
	(void)of, (void)properties;
	assert_int_equal(qos, 0);
	assert_true(length < sizeof(published_payload));
	snprintf(published_topic, sizeof(published_topic), "%s", topic);
	memcpy(published_payload, payload, length);
	published_payload[length] = '\0';
	published++;
	return true;
}

static void expect_published(const char *topic, const char *status)
{
	char word[64];
	assert_int_equal(published, 1);
	published = 0;
	assert_string_equal(published_topic, topic);
	snprintf(word, sizeof(word), "\"status\":\"%s\"", status);
	assert_non_null(strstr(published_payload, word));
}

static void tick(int64_t later_ms)
{
	chat.now_ms += later_ms;
	chat.now_wall_ms += later_ms;
	presence_tick(&chat);
}

static struct session *begin(int64_t user_id, int64_t device_id)
{
	char client_id[32];
	snprintf(client_id, sizeof(client_id), "%lld-%u", (long long)user_id, next_connection);
	struct session *session =
		registry_add_session(chat.registry, &connections[next_connection++], client_id, user_id, device_id, INT64_MAX);
	assert_non_null(session);
	return session;
}

/* Signed in, and known to say nothing of itself. */
static struct session *live(int64_t user_id, int64_t device_id)
{
	struct session *session = begin(user_id, device_id);
	unsigned before = read_count;
	session->state = SESSION_LIVE;
	presence_session_live(&chat, session);
	tick(0);
	if (read_count > before) {
		answer_read(user_id, 0, NULL);
		tick(0);
	}
	return session;
}

static void end(struct session *session)
{
	registry_remove_session(chat.registry, session);
	tick(0);
}

/* A watch that is open; what comes first is taken. */
static void open_watch(struct session *session, int64_t user_id)
{
	assert_true(presence_watch(&chat, session, user_id));
	tick(0);
	answer_question(question_count - 1, true, 0);
	tick(0);
	assert_true(presence_may_read(&chat, session, user_id));
	published = 0;
}

static int start(void **state)
{
	(void)state;
	memset(&chat, 0, sizeof(chat));
	chat.now_ms = 5000000;
	chat.now_wall_ms = INT64_C(1790000000000);
	chat.listening = true;
	chat.options.presence_grace_s = GRACE_S;
	chat.registry = registry_new();
	chat.presence = presence_new(chat.registry);
	next_connection = question_count = read_count = put_count = device_count = published = 0;
	tick(0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	presence_free(chat.presence, chat.registry);
	registry_free(chat.registry);
	assert_null(answers);
	return 0;
}

/* ---- who may know */

static void test_granted_and_silent(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	put_count = 0;
	assert_true(presence_watch(&chat, alice, BOB));
	assert_false(presence_may_read(&chat, alice, BOB));
	tick(0);
	assert_int_equal(question_count, 1);
	assert_int_equal(questions[0].watcher_id, ALICE);
	assert_int_equal(questions[0].user_id, BOB);
	answer_question(0, false, 123);
	tick(0);
	live(BOB, 0);
	assert_int_equal(put_count, 1);
	assert_true(presence_watch(&chat, alice, BOB)); /* again */
	tick(0);
	assert_int_equal(question_count, 1);
	assert_false(presence_may_read(&chat, alice, BOB));
	assert_int_equal(published, 0);
}

static void test_first_and_later(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	assert_true(presence_watch(&chat, alice, BOB));
	tick(0);
	answer_question(0, true, 1234567);
	tick(0);
	expect_published("chat/response/1-0", "offline");
	assert_non_null(strstr(published_payload, "1234567"));
	live(BOB, 0);
	expect_published("chat/user/2/presence", "online");
	/* Again, and again: one question, and one answer. */
	assert_true(presence_watch(&chat, alice, BOB));
	assert_true(presence_watch(&chat, alice, BOB));
	assert_int_equal(published, 0);
	tick(0);
	assert_int_equal(question_count, 2);
	answer_question(1, true, 0);
	tick(0);
	expect_published("chat/response/1-0", "online");
	presence_unwatch(&chat, alice, BOB);
	assert_false(presence_may_read(&chat, alice, BOB));
	presence_unwatch(&chat, alice, BOB);
}

/* The answer was made before what is announced now was committed. */
static void test_stale_answer_opens_nothing(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	assert_true(presence_watch(&chat, alice, BOB));
	tick(0);
	presence_reconsider_sight(&chat, BOB, 0);
	answer_question(0, true, 0);
	presence_tick(&chat);
	assert_false(presence_may_read(&chat, alice, BOB));
	assert_int_equal(published, 0);
	assert_int_equal(question_count, 2);
	answer_question(1, false, 0);
	tick(0);
	assert_false(presence_may_read(&chat, alice, BOB));
	answer_question(0, true, 0); /* and whenever it comes */
	tick(0);
	assert_false(presence_may_read(&chat, alice, BOB));
}

static void test_announcement_closes_at_once(void **state)
{
	static const struct {
		int64_t user, other; /* other -1: as for a membership, in both directions */
		bool closes;
	} announced[] = {{BOB, 0, true}, {ALICE, 0, false}, {BOB, ALICE, true}, {ALICE, BOB, true}, {BOB, CAROL, false},
		{CAROL, ALICE, false}, {BOB, -1, true}, {ALICE, -1, true}, {CAROL, -1, false}};
	struct session *alice = live(ALICE, 0);
	(void)state;
	for (size_t i = 0; i < sizeof(announced) / sizeof(announced[0]); i++) {
		open_watch(alice, BOB);
		if (announced[i].other < 0) {
			presence_reconsider(&chat, announced[i].user);
		} else {
			presence_reconsider_sight(&chat, announced[i].user, announced[i].other);
		}
		assert_int_equal(presence_may_read(&chat, alice, BOB), !announced[i].closes);
		tick(0);
		if (announced[i].closes) {
			answer_question(question_count - 1, true, 0);
			tick(0);
		}
		assert_true(presence_may_read(&chat, alice, BOB));
		assert_int_equal(published, 0); /* nothing was missed */
		presence_unwatch(&chat, alice, BOB);
	}
}

/* What was missed while it was closed comes when it is open again. */
static void test_missed_while_closed(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	open_watch(alice, BOB);
	presence_reconsider(&chat, BOB);
	live(BOB, 0);
	assert_int_equal(published, 0);
	answer_question(question_count - 1, true, 0);
	tick(0);
	expect_published("chat/response/1-0", "online");
}

/* While announcements do not arrive nothing is told. */
static void test_silence(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	open_watch(alice, BOB);
	chat.listening = false;
	presence_silence(&chat);
	assert_false(presence_may_read(&chat, alice, BOB));
	unsigned asked = question_count;
	live(BOB, 0);
	assert_int_equal(question_count, asked);
	assert_int_equal(published, 0);
	chat.listening = true;
	read_count = 0;
	presence_resume(&chat);
	tick(0);
	assert_int_equal(question_count, asked + 1);
	assert_int_equal(read_count, 2);
	answer_question(asked, true, 0);
	tick(0);
	expect_published("chat/response/1-0", "online");
}

static void test_session_that_ends(void **state)
{
	struct session *alice = live(ALICE, 0), *other = live(ALICE, 0);
	(void)state;
	assert_true(presence_watch(&chat, alice, BOB));
	tick(0);
	end(alice);
	alice = live(ALICE, 0); /* in its place */
	assert_true(presence_watch(&chat, alice, CAROL));
	answer_question(0, true, 0);
	tick(0);
	assert_false(presence_may_read(&chat, alice, BOB));
	assert_int_equal(published, 0);
	open_watch(other, BOB);
	end(other);
	live(BOB, 0);
	assert_int_equal(published, 0);
}

static void test_so_many(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	for (int64_t i = 0; i < PRESENCE_WATCHES_MAX; i++) {
		assert_true(presence_watch(&chat, alice, 5000 - i));
	}
	assert_false(presence_watch(&chat, alice, 9000));
	assert_true(presence_watch(&chat, alice, 5000));
	presence_unwatch(&chat, alice, 4000);
	assert_true(presence_watch(&chat, alice, 9000));
	tick(0);
	assert_int_equal(question_count, PRESENCE_WATCHES_MAX);
}

/* A session that is not known yet may ask, and is answered once it is. */
static void test_provisional(void **state)
{
	struct session *alice = begin(ALICE, 0);
	(void)state;
	assert_true(presence_watch(&chat, alice, BOB));
	tick(0);
	assert_int_equal(question_count, 0);
	alice->state = SESSION_LIVE;
	presence_session_live(&chat, alice);
	tick(0);
	assert_int_equal(question_count, 1);
}

/* ---- who is there */

static void test_grace(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	open_watch(alice, BOB);
	struct session *bob = live(BOB, 0);
	published = put_count = 0;
	int64_t gone_ms = chat.now_wall_ms;
	end(bob);
	for (int i = 0; i < GRACE_S * 10 - 1; i++) {
		tick(100);
	}
	assert_int_equal(published, 0);
	assert_int_equal(put_count, 0);
	tick(100);
	tick(500); /* the wheel's step, twice */
	expect_published("chat/user/2/presence", "offline");
	assert_int_equal(put_count, 1);
	assert_int_equal(put_seen_ms, gone_ms);
}

/* Reconnects: nothing is told, written or asked, however long it goes on. */
static void test_reconnects(void **state)
{
	struct session *alice = live(ALICE, 0), *bob;
	(void)state;
	open_watch(alice, BOB);
	bob = live(BOB, 7);
	published = put_count = read_count = device_count = 0;
	for (int i = 0; i < 50; i++) {
		end(bob);
		tick(GRACE_S * 900);
		bob = begin(BOB, 7);
		tick(i % 2 ? 20 * GRACE_S * 1000 : 0); /* sometimes the database takes its time */
		bob->state = SESSION_LIVE;
		presence_session_live(&chat, bob);
		tick(100);
	}
	assert_int_equal(published + put_count + read_count + device_count, 0);
}

static void test_takeover(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	open_watch(alice, BOB);
	struct session *old = live(BOB, 0);
	published = put_count = 0;
	begin(BOB, 0);
	end(old);
	tick(100 * GRACE_S * 1000);
	assert_int_equal(published + put_count, 0);
}

static void test_chosen(void **state)
{
	struct session *alice = live(ALICE, 0);
	(void)state;
	open_watch(alice, BOB);
	live(BOB, 7);
	published = put_count = read_count = 0;
	assert_true(put_active);
	presence_said(&chat, BOB);
	assert_int_equal(read_count, 1);
	presence_said(&chat, CAROL); /* of whom nobody knows here */
	assert_int_equal(read_count, 1);
	answer_read(BOB, 7, "away");
	tick(0);
	expect_published("chat/user/2/presence", "away");
	assert_false(put_active);
	answer_read(BOB, 7, "invisible");
	tick(0);
	expect_published("chat/user/2/presence", "offline");
	assert_true(put_active);     /* somebody sits there all the same */
	answer_read(BOB, 8, "busy"); /* another device, which is not connected */
	tick(0);
	expect_published("chat/user/2/presence", "online");
	assert_int_equal(put_status, PRESENCE_ONLINE);
}

/* A device goes after the grace period. */
static void test_device_goes(void **state)
{
	struct session *bob = live(BOB, 7);
	(void)state;
	assert_int_equal(device_count, 1);
	end(bob);
	tick(GRACE_S * 1000 - 1000);
	assert_int_equal(device_count, 1);
	tick(2000);
	assert_int_equal(device_count, 2);
	assert_false(put_active);
}

/* The database took this broker for dead. */
static void test_again(void **state)
{
	(void)state;
	live(BOB, 7);
	end(live(CAROL, 0));
	tick(100 * GRACE_S * 1000);
	put_count = device_count = 0;
	new_answer(PRESENCE_AGAIN);
	tick(0);
	assert_int_equal(put_count, 1);
	assert_int_equal(put_status, PRESENCE_ONLINE);
	assert_int_equal(device_count, 1);
}

#define PRESENCE_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PRESENCE_TEST(test_granted_and_silent),
		PRESENCE_TEST(test_first_and_later),
		PRESENCE_TEST(test_stale_answer_opens_nothing),
		PRESENCE_TEST(test_announcement_closes_at_once),
		PRESENCE_TEST(test_missed_while_closed),
		PRESENCE_TEST(test_silence),
		PRESENCE_TEST(test_session_that_ends),
		PRESENCE_TEST(test_so_many),
		PRESENCE_TEST(test_provisional),
		PRESENCE_TEST(test_grace),
		PRESENCE_TEST(test_reconnects),
		PRESENCE_TEST(test_takeover),
		PRESENCE_TEST(test_chosen),
		PRESENCE_TEST(test_device_goes),
		PRESENCE_TEST(test_again),
	};
	return cmocka_run_group_tests_name("presence", tests, NULL, NULL);
}
