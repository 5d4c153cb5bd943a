/* test_registry.c - who is signed in, who is a member of what, who listens: case by case, then against plain models. */
#include "../../plugin/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t random_state;

/* xorshift64*: the same in every run. */
static unsigned random_below(unsigned bound)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (unsigned)((random_state * UINT64_C(2685821657736338717) >> 32) % bound);
}

/* Addresses to stand for the broker's connection objects. */
static char connections[5000];

static struct session *add(struct registry *registry, unsigned connection, const char *client_id, int64_t user_id)
{
	struct session *session = registry_add_session(registry, &connections[connection], client_id, user_id, 0, INT64_MAX);
	assert_non_null(session);
	return session;
}

/* A user with one live session and no memberships yet. */
static struct session *add_live(struct registry *registry, unsigned connection, int64_t user_id)
{
	char client_id[32];
	int length = snprintf(client_id, sizeof(client_id), "%lld-%u", (long long)user_id, connection);
	assert_in_range(length, 1, sizeof(client_id) - 1);
	struct session *session = add(registry, connection, client_id, user_id);
	session->state = SESSION_LIVE;
	assert_true(registry_set_memberships(session->user, NULL, 0));
	return session;
}

static struct conversation *subscribe(
	struct registry *registry, struct session *session, int64_t conversation_id, enum topic_kind kind, bool expect_created)
{
	bool created = !expect_created;
	struct conversation *conversation = registry_subscribe(registry, session, conversation_id, kind, &created);
	assert_non_null(conversation);
	assert_int_equal(conversation->id, conversation_id);
	assert_int_equal(created, expect_created);
	return conversation;
}

/* ---- sessions ---- */

static void a_session_is_found_by_its_connection(void **state)
{
	struct registry *registry = registry_new();
	char client_id[] = "7-phone";

	(void)state;
	struct session *session = registry_add_session(registry, &connections[1], client_id, 7, 70, 1000);
	assert_non_null(session);
	client_id[0] = '8'; /* it keeps a copy */
	assert_string_equal(session->client_id, "7-phone");
	assert_ptr_equal(session->client, &connections[1]);
	assert_int_equal(session->device_id, 70);
	assert_int_equal(session->state, SESSION_PROVISIONAL);
	assert_int_equal(session->user->id, 7);
	assert_false(session->user->loaded);
	assert_ptr_equal(registry_find_session(registry, &connections[1]), session);
	assert_null(registry_find_session(registry, &connections[0]));
	assert_null(registry_find_session(registry, NULL));
	assert_ptr_equal(registry_find_client_id(registry, "7-phone"), session);
	assert_null(registry_find_client_id(registry, "8-phone"));
	assert_null(registry_find_client_id(registry, "7-phon"));
	assert_null(registry_find_client_id(registry, ""));
	assert_int_equal(registry_session_count(registry), 1);
	registry_remove_session(registry, session);
	assert_null(registry_find_session(registry, &connections[1]));
	assert_null(registry_find_client_id(registry, "7-phone"));
	assert_int_equal(registry_session_count(registry), 0);
	registry_free(registry);
	registry_free(NULL);
}

static void a_guest_has_no_user(void **state)
{
	struct registry *registry = registry_new();
	struct session *guest = add(registry, 1, "auto-1", 0);
	(void)state;
	assert_int_equal(guest->state, SESSION_GUEST);
	assert_null(guest->user);
	assert_null(registry_find_user(registry, 0));
	registry_remove_session(registry, guest);
	registry_free(registry);
}

/* What another thread held of a session that has ended names nobody, though its place is taken again. */
static void generations(void **state)
{
	struct registry *registry = registry_new();
	struct session *first = add(registry, 1, "7-a", 7);
	uint32_t index = first->index, generation = first->generation;

	(void)state;
	assert_ptr_equal(registry_session_at(registry, index, generation), first);
	assert_null(registry_session_at(registry, index, generation + 1));
	assert_null(registry_session_at(registry, index + 1, 0));
	assert_null(registry_session_at(registry, UINT32_MAX, 0));
	for (int round = 0; round < 100; round++) {
		registry_remove_session(registry, first);
		assert_null(registry_session_at(registry, index, generation));
		assert_null(registry_session_at(registry, index, generation + 1)); /* nobody there yet */
		first = add(registry, 1, "7-a", 7);
		assert_int_equal(first->index, index);
		assert_int_not_equal(first->generation, generation);
		assert_null(registry_session_at(registry, index, generation));
		generation = first->generation;
		assert_ptr_equal(registry_session_at(registry, index, generation), first);
	}
	registry_free(registry);
}

static void count_session(struct session *session, void *argument)
{
	unsigned *count = argument;
	assert_non_null(session->client_id);
	(*count)++;
}

static void many_sessions(void **state)
{
	static struct session *sessions[COUNT(connections)];
	struct registry *registry = registry_new();
	char client_id[32];
	unsigned count = 0;

	(void)state;
	for (unsigned i = 0; i < COUNT(sessions); i++) {
		assert_in_range(snprintf(client_id, sizeof(client_id), "%u-x", i), 1, sizeof(client_id) - 1);
		sessions[i] = add(registry, i, client_id, i / 3 + 1);
	}
	for (unsigned i = 0; i < COUNT(sessions); i += 2) {
		registry_remove_session(registry, sessions[i]);
	}
	for (unsigned i = 0; i < COUNT(sessions); i++) {
		struct session *expected = i % 2 ? sessions[i] : NULL;
		assert_in_range(snprintf(client_id, sizeof(client_id), "%u-x", i), 1, sizeof(client_id) - 1);
		assert_ptr_equal(registry_find_session(registry, &connections[i]), expected);
		assert_ptr_equal(registry_find_client_id(registry, client_id), expected);
		if (expected) {
			assert_ptr_equal(registry_session_at(registry, expected->index, expected->generation), expected);
		}
	}
	registry_each_session(registry, count_session, &count);
	assert_int_equal(count, COUNT(sessions) / 2);
	assert_int_equal(registry_session_count(registry), COUNT(sessions) / 2);
	registry_free(registry);
}

/* The broker tells of the new connection first, and of the old one's end after it. */
static void takeover_of_a_client_id(void **state)
{
	(void)state;
	for (unsigned between = 0; between < 2000; between += 333) { /* so that the tables grow between the two */
		struct registry *registry = registry_new();
		struct session *old = add_live(registry, 0, 7);
		for (unsigned i = 0; i < between; i++) {
			add_live(registry, i + 10, 1000 + i);
		}
		struct session *new = add(registry, 1, old->client_id, 7);
		for (unsigned i = 0; i < between; i++) {
			add_live(registry, i + 2500, 1000 + i);
		}
		assert_ptr_equal(registry_find_session(registry, &connections[0]), old);
		assert_ptr_equal(registry_find_session(registry, &connections[1]), new);
		assert_non_null(registry_find_client_id(registry, "7-0"));
		registry_remove_session(registry, old);
		assert_null(registry_find_session(registry, &connections[0]));
		assert_ptr_equal(registry_find_session(registry, &connections[1]), new);
		assert_ptr_equal(registry_find_client_id(registry, "7-0"), new);
		assert_ptr_equal(new->user->sessions, new);
		assert_true(new->user->loaded); /* the user never was without a session */
		registry_remove_session(registry, new);
		assert_null(registry_find_client_id(registry, "7-0"));
		registry_free(registry);
	}
}

/* The memory of a connection that ended becomes another one's. */
static void takeover_of_a_pointer(void **state)
{
	struct registry *registry = registry_new();
	struct session *first = add_live(registry, 3, 7);
	uint32_t index = first->index, generation = first->generation;

	(void)state;
	subscribe(registry, first, 42, TOPIC_MESSAGES, true);
	registry_remove_session(registry, first);
	struct session *second = add(registry, 3, "8-web", 8);
	assert_ptr_equal(registry_find_session(registry, &connections[3]), second);
	assert_int_equal(second->user->id, 8);
	assert_int_equal(second->state, SESSION_PROVISIONAL);
	assert_int_equal(second->subscription_count, 0);
	assert_null(registry_session_at(registry, index, generation));
	assert_null(registry_find_client_id(registry, "7-3"));
	assert_null(registry_find_conversation(registry, 42));
	registry_free(registry);
}

struct expired {
	struct session *sessions[8];
	unsigned count;
};

static void note_expired(struct session *session, void *argument)
{
	struct expired *expired = argument;
	assert_in_range(expired->count, 0, COUNT(expired->sessions) - 1);
	expired->sessions[expired->count++] = session;
}

static unsigned count_expired(struct registry *registry, int64_t now_s)
{
	struct expired expired = {.count = 0};
	registry_each_expired(registry, now_s, note_expired, &expired);
	return expired.count;
}

static void expiry(void **state)
{
	struct registry *registry = registry_new();
	struct session *first = registry_add_session(registry, &connections[0], "7-a", 7, 0, 100);
	struct session *second = registry_add_session(registry, &connections[1], "7-b", 7, 0, 200);
	struct session *guest = registry_add_session(registry, &connections[2], "auto-1", 0, 0, INT64_MAX);
	struct expired expired = {.count = 0};

	(void)state;
	assert_non_null(first);
	assert_non_null(second);
	assert_non_null(guest);
	assert_int_equal(count_expired(registry, 99), 0);
	registry_each_expired(registry, 100, note_expired, &expired);
	assert_int_equal(expired.count, 1);
	assert_ptr_equal(expired.sessions[0], first);
	registry_set_expiry(registry, first, INT64_MAX); /* dealt with */
	assert_int_equal(count_expired(registry, 100), 0);
	assert_int_equal(count_expired(registry, 1000), 1);
	registry_set_expiry(registry, second, 2000);
	assert_int_equal(count_expired(registry, 1000), 0);
	assert_int_equal(count_expired(registry, INT64_MAX - 1), 1);
	registry_remove_session(registry, second);
	assert_int_equal(count_expired(registry, INT64_MAX - 1), 0); /* its place is empty */
	registry_free(registry);
}

/* ---- users ---- */

static unsigned sessions_of(const struct user *user)
{
	unsigned count = 0;
	const struct session *previous = NULL;
	for (const struct session *session = user->sessions; session; session = session->next_of_user) {
		assert_ptr_equal(session->previous_of_user, previous);
		assert_ptr_equal(session->user, user);
		previous = session;
		count++;
	}
	return count;
}

static void sessions_share_their_user(void **state)
{
	static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
	(void)state;
	for (size_t i = 0; i < COUNT(orders); i++) {
		struct registry *registry = registry_new();
		struct session *sessions[3];
		for (unsigned j = 0; j < 3; j++) {
			sessions[j] = add_live(registry, j, 7);
			assert_int_equal(sessions_of(sessions[0]->user), j + 1);
		}
		struct user *user = sessions[0]->user;
		for (unsigned j = 0; j < 3; j++) {
			assert_true(user->loaded);
			registry_remove_session(registry, sessions[orders[i][j]]);
			assert_int_equal(sessions_of(user), 2 - j);
		}
		assert_ptr_equal(registry_find_user(registry, 7), user);
		assert_false(user->loaded);
		registry_free(registry);
	}
}

/* Announcements about a user without a session are not followed, so nothing that was known may count later. */
static void who_returns_is_not_known(void **state)
{
	struct registry *registry = registry_new();
	struct membership membership = {42, 1, 1, ACL_ROLE_OWNER, false, false};
	struct session *session = add_live(registry, 0, 7);
	struct user *user = session->user;
	struct rate_limit limit = {.per_minute = 60, .burst = 2};

	(void)state;
	assert_true(registry_set_memberships(user, &membership, 1));
	assert_true(registry_standing(registry, session, 42).known);
	assert_true(rate_bucket_take(&user->messages, &limit, 1000, NULL));
	assert_true(rate_bucket_take(&user->messages, &limit, 1000, NULL));
	registry_remove_session(registry, session);
	session = add(registry, 1, "7-1", 7);
	session->state = SESSION_LIVE;
	assert_ptr_equal(session->user, user);
	assert_false(user->loaded);
	assert_null(registry_membership(user, 42));
	assert_false(registry_standing(registry, session, 42).known);
	assert_false(rate_bucket_take(&user->messages, &limit, 1000, NULL)); /* what was spent stays spent */
	/* a second device of a user who is known: the device itself is not */
	assert_true(registry_set_memberships(user, &membership, 1));
	struct session *other = add(registry, 2, "7-2", 7);
	assert_int_equal(other->state, SESSION_PROVISIONAL);
	assert_false(registry_standing(registry, other, 42).known);
	registry_free(registry);
}

static void users_are_forgotten(void **state)
{
	struct rate_limit messages = {.per_minute = 60, .burst = 10}, requests = {.per_minute = 60, .burst = 5};
	struct registry *registry = registry_new();
	struct session *sessions[6];

	(void)state;
	for (unsigned i = 0; i < COUNT(sessions); i++) {
		sessions[i] = add_live(registry, i, 10 + i);
	}
	/* 10 and 11 sent nothing, 12 spent two messages, 13 a request, 14 and 15 stay; one token comes back a second */
	assert_true(rate_bucket_take(&sessions[2]->user->messages, &messages, 100000, NULL));
	assert_true(rate_bucket_take(&sessions[2]->user->messages, &messages, 100000, NULL));
	assert_true(rate_bucket_take(&sessions[3]->user->requests, &requests, 100000, NULL));
	registry_forget_users(registry, &messages, &requests, 1000000);
	for (unsigned i = 0; i < COUNT(sessions); i++) {
		assert_non_null(registry_find_user(registry, 10 + i));
	}
	for (unsigned i = 0; i < 4; i++) {
		registry_remove_session(registry, sessions[i]);
	}
	registry_forget_users(registry, &messages, &requests, 100500);
	assert_null(registry_find_user(registry, 10));
	assert_null(registry_find_user(registry, 11));
	assert_non_null(registry_find_user(registry, 12));
	assert_non_null(registry_find_user(registry, 13));
	sessions[3] = add_live(registry, 3, 13); /* back again: not forgotten, and idle again later */
	registry_forget_users(registry, &messages, &requests, 101000);
	assert_non_null(registry_find_user(registry, 12));
	assert_ptr_equal(registry_find_user(registry, 13), sessions[3]->user);
	registry_forget_users(registry, &messages, &requests, 102000);
	assert_null(registry_find_user(registry, 12));
	registry_remove_session(registry, sessions[3]);
	sessions[3] = add_live(registry, 3, 13); /* idle twice, listed once */
	registry_remove_session(registry, sessions[3]);
	registry_forget_users(registry, &messages, &requests, 102000);
	assert_null(registry_find_user(registry, 13));
	assert_non_null(registry_find_user(registry, 14));
	registry_free(registry);
}

/* ---- memberships ---- */

static void check_memberships(const struct user *user, const uint8_t *roles, size_t count)
{
	uint32_t members = 0;
	for (size_t id = 0; id < count; id++) {
		const struct membership *membership = registry_membership(user, (int64_t)id);
		assert_int_equal(membership != NULL, roles[id] != ACL_ROLE_NONE);
		if (membership) {
			assert_int_equal(membership->conversation_id, id);
			assert_int_equal(membership->role, roles[id]);
			assert_int_equal(membership->members_version, 100 + roles[id]);
			assert_int_equal(membership->is_channel, id % 2);
			members++;
		}
	}
	assert_int_equal(user->membership_count, members);
	for (uint32_t i = 1; i < user->membership_count; i++) {
		assert_true(user->memberships[i - 1].conversation_id < user->memberships[i].conversation_id);
	}
}

/* Single changes and whole replacements, compared with an array of roles. */
static void memberships_stay_sorted(void **state)
{
	struct registry *registry = registry_new();
	struct user *user = add_live(registry, 0, 7)->user;
	uint8_t roles[60] = {0};

	(void)state;
	random_state = 11;
	for (int step = 0; step < 3000; step++) {
		if (random_below(300) == 0) {
			struct membership all[COUNT(roles)];
			size_t count = 0;
			for (unsigned id = 0; id < COUNT(roles); id++) {
				roles[id] = (uint8_t)(random_below(2) ? random_below(ACL_ROLE_OWNER + 1) : ACL_ROLE_NONE);
				if (roles[id]) {
					all[count++] = (struct membership){id, 1, 100u + roles[id], roles[id], id % 2, false};
				}
			}
			assert_true(registry_set_memberships(user, count ? all : NULL, count));
			memset(all, 0xff, sizeof(all)); /* it keeps a copy */
		} else {
			unsigned id = random_below(COUNT(roles));
			uint8_t role = (uint8_t)random_below(ACL_ROLE_OWNER + 1);
			struct membership one = {id, 1, 100u + role, role, id % 2, false};
			assert_true(registry_set_membership(user, &one));
			roles[id] = role;
		}
		check_memberships(user, roles, COUNT(roles));
	}
	assert_true(registry_set_memberships(user, NULL, 0));
	assert_true(user->loaded);
	assert_int_equal(user->membership_count, 0);
	assert_null(registry_membership(user, 1));
	registry_free(registry);
}

static void large_conversation_ids(void **state)
{
	static const int64_t ids[] = {1, INT64_C(4294967297), INT64_C(9007199254740991)}; /* 2^32+1: not cut to 1 */
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7);

	(void)state;
	for (size_t i = COUNT(ids); i-- > 0;) {
		struct membership membership = {ids[i], 1, 1, ACL_ROLE_MEMBER, false, false};
		assert_null(registry_membership(session->user, ids[i]));
		assert_true(registry_set_membership(session->user, &membership));
		assert_true(registry_mark_public(registry, ids[i], true));
		subscribe(registry, session, ids[i], TOPIC_MESSAGES, true);
	}
	for (size_t i = 0; i < COUNT(ids); i++) {
		assert_int_equal(session->user->memberships[i].conversation_id, ids[i]);
		assert_true(registry_is_public(registry, ids[i]));
		assert_int_equal(registry_find_conversation(registry, ids[i])->id, ids[i]);
	}
	assert_null(registry_membership(session->user, 2));
	registry_free(registry);
}

/* ---- public channels ---- */

static void the_public_set(void **state)
{
	struct registry *registry = registry_new();
	bool is_public[200] = {false};
	int64_t ids[COUNT(is_public)];

	(void)state;
	assert_false(registry_is_public(registry, 1));
	assert_true(registry_mark_public(registry, 1, false));
	random_state = 12;
	for (int step = 0; step < 3000; step++) {
		if (random_below(500) == 0) {
			size_t count = 0;
			unsigned share = random_below(4);
			for (unsigned id = 0; id < COUNT(is_public); id++) {
				is_public[id] = random_below(4) < share;
				if (is_public[id]) {
					ids[count++] = id;
				}
			}
			assert_true(registry_set_public(registry, count ? ids : NULL, count));
		} else {
			unsigned id = random_below(COUNT(is_public));
			is_public[id] = random_below(2);
			assert_true(registry_mark_public(registry, id, is_public[id]));
		}
		for (unsigned id = 0; id < COUNT(is_public); id++) {
			assert_int_equal(registry_is_public(registry, id), is_public[id]);
		}
	}
	registry_free(registry);
}

/* ---- standing ---- */

static void standing(void **state)
{
	static const enum session_state states[] = {SESSION_PROVISIONAL, SESSION_LIVE, SESSION_REFUSED};
	struct membership membership = {42, 1, 1, ACL_ROLE_READER, true, false}, group = {45, 1, 1, ACL_ROLE_OWNER, false, false};
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7);
	struct session *guest = add(registry, 1, "auto-1", 0);
	struct acl_standing seen;

	(void)state;
	assert_true(registry_set_membership(session->user, &membership));
	assert_true(registry_set_membership(session->user, &group));
	assert_true(registry_mark_public(registry, 42, true));
	assert_true(registry_mark_public(registry, 43, true));
	for (size_t i = 0; i < COUNT(states); i++) {
		session->state = states[i];
		for (int loaded = 0; loaded < 2; loaded++) {
			session->user->loaded = loaded;
			bool known = loaded && states[i] == SESSION_LIVE;
			seen = registry_standing(registry, session, 42);
			assert_int_equal(seen.known, known);
			assert_int_equal(seen.role, known ? ACL_ROLE_READER : ACL_ROLE_NONE);
			assert_int_equal(seen.is_channel, known);
			seen = registry_standing(registry, session, 45);
			assert_int_equal(seen.role, known ? ACL_ROLE_OWNER : ACL_ROLE_NONE);
			assert_false(seen.is_channel);
			seen = registry_standing(registry, session, 43);
			assert_int_equal(seen.known, known);
			assert_int_equal(seen.role, ACL_ROLE_NONE);
			assert_int_equal(seen.is_public, known);
			seen = registry_standing(registry, session, 44);
			assert_int_equal(seen.known, known);
			assert_int_equal(seen.role, ACL_ROLE_NONE);
			assert_false(seen.is_public);
		}
	}
	seen = registry_standing(registry, guest, 43);
	assert_false(seen.known || seen.is_public || seen.role != ACL_ROLE_NONE);
	registry_free(registry);
}

/* ---- subscriptions ---- */

struct ends {
	int64_t ids[4000];
	unsigned count;
};

static void note_end(struct conversation *conversation, void *argument)
{
	struct ends *ends = argument;
	assert_in_range(ends->count, 0, COUNT(ends->ids) - 1);
	ends->ids[ends->count++] = conversation->id;
}

static void a_conversation_lives_while_somebody_listens(void **state)
{
	static struct ends ends;
	struct registry *registry = registry_new();
	struct session *one = add_live(registry, 0, 7), *other = add_live(registry, 1, 8);
	struct conversation *conversation;

	(void)state;
	ends.count = 0;
	registry_on_conversation_end(registry, note_end, &ends);
	assert_true(registry_mark_public(registry, 43, true));
	conversation = subscribe(registry, one, 42, TOPIC_MESSAGES, true);
	assert_false(conversation->is_public);
	assert_int_equal(conversation->next_seq, 0);
	assert_ptr_equal(registry_find_conversation(registry, 42), conversation);
	assert_ptr_equal(subscribe(registry, one, 42, TOPIC_MESSAGES, false), conversation); /* twice is once */
	assert_ptr_equal(subscribe(registry, one, 42, TOPIC_TYPING, false), conversation);
	assert_int_equal(conversation->subscriber_count, 1);
	assert_int_equal(one->subscriptions[0].kinds, 1 | 4);
	assert_ptr_equal(subscribe(registry, other, 42, TOPIC_RECEIPTS, false), conversation);
	assert_int_equal(conversation->subscriber_count, 2);
	assert_true(subscribe(registry, other, 43, TOPIC_MESSAGES, true)->is_public);

	registry_unsubscribe(registry, one, 42, TOPIC_RECEIPTS); /* never asked for */
	registry_unsubscribe(registry, one, 44, TOPIC_MESSAGES);
	registry_unsubscribe(registry, one, 43, TOPIC_MESSAGES); /* the other's */
	assert_int_equal(conversation->subscriber_count, 2);
	registry_unsubscribe(registry, one, 42, TOPIC_MESSAGES);
	assert_int_equal(one->subscriptions[0].kinds, 4);
	assert_int_equal(conversation->subscriber_count, 2);
	registry_unsubscribe(registry, one, 42, TOPIC_TYPING);
	assert_int_equal(conversation->subscriber_count, 1);
	assert_int_equal(one->subscription_count, 0);
	assert_ptr_equal(conversation->subscribers[0], other);
	assert_int_equal(ends.count, 0);
	registry_unsubscribe(registry, other, 42, TOPIC_RECEIPTS);
	assert_int_equal(ends.count, 1);
	assert_int_equal(ends.ids[0], 42);
	assert_null(registry_find_conversation(registry, 42));

	/* made anew: nothing of the old one is left */
	conversation = subscribe(registry, one, 42, TOPIC_MESSAGES, true);
	assert_int_equal(conversation->subscriber_count, 1);
	registry_remove_session(registry, one);
	registry_remove_session(registry, other);
	assert_int_equal(ends.count, 3);
	assert_null(registry_find_conversation(registry, 43));
	registry_free(registry);
}

static void one_connection_may_not_cost_too_much(void **state)
{
	static struct ends ends;
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7);
	bool created = true;

	(void)state;
	ends.count = 0;
	registry_on_conversation_end(registry, note_end, &ends);
	for (int64_t id = 1; id <= REGISTRY_SUBSCRIPTIONS_MAX; id++) {
		subscribe(registry, session, id, TOPIC_MESSAGES, true);
	}
	assert_null(registry_subscribe(registry, session, 100000, TOPIC_MESSAGES, &created));
	assert_false(created);
	assert_null(registry_find_conversation(registry, 100000));
	subscribe(registry, session, 1, TOPIC_RECEIPTS, false); /* a second topic of one it has costs nothing */
	registry_unsubscribe(registry, session, 2, TOPIC_MESSAGES);
	subscribe(registry, session, 100000, TOPIC_MESSAGES, true);
	subscribe(registry, add_live(registry, 1, 7), 100001, TOPIC_MESSAGES, true); /* each connection for itself */
	registry_free(registry);
	assert_int_equal(ends.count, REGISTRY_SUBSCRIPTIONS_MAX + 2);
}

/* Random subscriptions of random sessions that come and go, compared with a table of bits. */
enum { MODEL_SESSIONS = 12, MODEL_CONVERSATIONS = 15 };

static struct model {
	struct session *sessions[MODEL_SESSIONS];
	uint8_t kinds[MODEL_SESSIONS][MODEL_CONVERSATIONS];
	unsigned conversations; /* as registry_each_conversation found */
} model;

static void check_session(unsigned i)
{
	const struct session *session = model.sessions[i];
	uint32_t count = 0;
	for (unsigned id = 0; id < MODEL_CONVERSATIONS; id++) {
		count += model.kinds[i][id] != 0;
	}
	assert_int_equal(session->subscription_count, count);
	for (uint32_t j = 0; j < count; j++) {
		const struct subscription *subscription = &session->subscriptions[j];
		assert_int_equal(subscription->conversation_id, subscription->conversation->id);
		assert_true(j == 0 || subscription[-1].conversation_id < subscription->conversation_id);
	}
	for (unsigned id = 0; id < MODEL_CONVERSATIONS; id++) {
		for (unsigned kind = 0; kind < 3; kind++) {
			assert_int_equal(
				registry_is_subscribed(session, id, TOPIC_MESSAGES + kind), model.kinds[i][id] >> kind & 1);
		}
	}
}

static void count_conversation(struct conversation *conversation, void *argument)
{
	(void)argument;
	assert_true(conversation->subscriber_count > 0);
	model.conversations++;
}

static void check_conversations(struct registry *registry)
{
	unsigned alive = 0;
	for (unsigned id = 0; id < MODEL_CONVERSATIONS; id++) {
		const struct conversation *conversation = registry_find_conversation(registry, id);
		uint32_t listeners = 0;
		for (unsigned i = 0; i < MODEL_SESSIONS; i++) {
			bool listens = model.sessions[i] && model.kinds[i][id];
			bool listed = false;
			for (uint32_t j = 0; conversation && j < conversation->subscriber_count; j++) {
				listed |= conversation->subscribers[j] == model.sessions[i];
			}
			if (model.sessions[i]) {
				assert_int_equal(listed, listens);
			}
			listeners += listens;
		}
		assert_int_equal(conversation ? conversation->subscriber_count : 0, listeners);
		alive += listeners > 0;
	}
	model.conversations = 0;
	registry_each_conversation(registry, count_conversation, NULL);
	assert_int_equal(model.conversations, alive);
}

static void play_subscription(struct registry *registry, unsigned i)
{
	unsigned id = random_below(MODEL_CONVERSATIONS), kind = random_below(3);
	if (random_below(2)) {
		bool created;
		bool known = registry_find_conversation(registry, id) != NULL;
		assert_non_null(registry_subscribe(registry, model.sessions[i], id, TOPIC_MESSAGES + kind, &created));
		assert_int_equal(created, !known);
		model.kinds[i][id] = (uint8_t)(model.kinds[i][id] | 1u << kind);
	} else {
		registry_unsubscribe(registry, model.sessions[i], id, TOPIC_MESSAGES + kind);
		model.kinds[i][id] = (uint8_t)(model.kinds[i][id] & ~(1u << kind));
	}
}

static void subscriptions_against_a_model(void **state)
{
	struct registry *registry = registry_new();

	(void)state;
	random_state = 13;
	memset(&model, 0, sizeof(model));
	for (int step = 0; step < 8000; step++) {
		unsigned i = random_below(MODEL_SESSIONS);
		if (!model.sessions[i]) {
			model.sessions[i] = add_live(registry, i, i / 2 + 1);
		} else if (random_below(40) == 0) {
			registry_remove_session(registry, model.sessions[i]);
			model.sessions[i] = NULL;
			memset(model.kinds[i], 0, sizeof(model.kinds[i]));
		} else {
			play_subscription(registry, i);
		}
		if (model.sessions[i]) {
			check_session(i);
		}
		check_conversations(registry);
	}
	registry_free(registry);
}

/* ---- the queue of conversations ---- */

static struct conversation *queue_one(struct registry *registry, struct session *session, int64_t id)
{
	struct conversation *conversation = subscribe(registry, session, id, TOPIC_MESSAGES, true);
	registry_queue(registry, conversation);
	assert_non_null(conversation->list);
	return conversation;
}

static void expect_queue(struct registry *registry, const char *ids)
{
	char taken[32] = "";
	size_t count = 0;
	struct conversation *conversation;
	while ((conversation = registry_next_queued(registry)) != NULL) {
		assert_null(conversation->list);
		assert_in_range(count, 0, sizeof(taken) - 2);
		taken[count++] = (char)('0' + conversation->id);
	}
	assert_string_equal(taken, ids);
}

static void queued_in_order_and_once(void **state)
{
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7);
	struct conversation *conversations[6];

	(void)state;
	expect_queue(registry, "");
	for (int64_t id = 1; id <= 5; id++) {
		conversations[id] = queue_one(registry, session, id);
	}
	registry_queue(registry, conversations[1]);
	registry_queue(registry, conversations[3]);
	registry_queue(registry, conversations[5]);
	assert_ptr_equal(registry_next_queued(registry), conversations[1]);
	registry_queue(registry, conversations[1]); /* to the end: others have waited longer */
	expect_queue(registry, "23451");
	registry_queue(registry, conversations[4]);
	expect_queue(registry, "4");
	registry_free(registry);
}

/* One that ends while it is queued leaves the queue; from every place. */
static void removed_while_queued(void **state)
{
	static const struct {
		const char *removed;
		const char *left;
	} cases[] = {{"1", "2345"}, {"3", "1245"}, {"5", "1234"}, {"15", "234"}, {"23", "145"}, {"54", "123"}, {"51423", ""}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct registry *registry = registry_new();
		struct session *session = add_live(registry, 0, 7), *other = add_live(registry, 1, 8);
		for (int64_t id = 1; id <= 5; id++) {
			queue_one(registry, session, id);
		}
		for (const char *at = cases[i].removed; *at; at++) {
			registry_unsubscribe(registry, session, *at - '0', TOPIC_MESSAGES);
		}
		expect_queue(registry, cases[i].left);
		queue_one(registry, other, 6); /* the list still has an end to put something behind */
		queue_one(registry, other, 7);
		expect_queue(registry, "67");
		registry_free(registry);
	}
	/* and all at once, with their session */
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7), *other = add_live(registry, 1, 8);
	queue_one(registry, session, 1);
	queue_one(registry, other, 2);
	queue_one(registry, session, 3);
	registry_remove_session(registry, session);
	expect_queue(registry, "2");
	registry_free(registry);
}

/* What waits for a time is not among what is to be done now, until its time comes; work to do now overtakes it. */
static void timed_and_queued(void **state)
{
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7);
	struct conversation *conversations[4];

	(void)state;
	for (int64_t id = 1; id <= 4; id++) {
		conversations[id - 1] = subscribe(registry, session, id, TOPIC_MESSAGES, true);
		registry_queue_timed(registry, conversations[id - 1]);
	}
	assert_false(registry_any_queued(registry));
	assert_null(registry_next_queued(registry));
	registry_queue(registry, conversations[2]);
	registry_queue_timed(registry, conversations[2]); /* not put off */
	assert_true(registry_any_queued(registry));
	registry_unsubscribe(registry, session, 2, TOPIC_MESSAGES); /* ends while it waits */
	registry_queue_all_timed(registry);
	expect_queue(registry, "314");
	registry_queue_all_timed(registry);
	assert_false(registry_any_queued(registry));
	registry_queue_timed(registry, conversations[0]);
	registry_queue_timed(registry, conversations[3]);
	registry_unsubscribe(registry, session, 4, TOPIC_MESSAGES); /* the last one of those that wait */
	registry_queue_timed(registry, conversations[2]);
	registry_queue(registry, conversations[0]);
	registry_queue_all_timed(registry);
	expect_queue(registry, "13");
	registry_queue_timed(registry, conversations[0]); /* and one is left for the end */
	registry_free(registry);
}

/* A session holds exactly what it subscribed to, noun by noun. */
static void subscribed_is_per_noun(void **state)
{
	struct registry *registry = registry_new();
	struct session *session = add_live(registry, 0, 7);

	(void)state;
	subscribe(registry, session, 9, TOPIC_MESSAGES, true);
	subscribe(registry, session, 5, TOPIC_TYPING, true);
	assert_true(registry_is_subscribed(session, 9, TOPIC_MESSAGES));
	assert_false(registry_is_subscribed(session, 9, TOPIC_TYPING));
	assert_true(registry_is_subscribed(session, 5, TOPIC_TYPING));
	assert_false(registry_is_subscribed(session, 7, TOPIC_MESSAGES));
	registry_unsubscribe(registry, session, 9, TOPIC_MESSAGES);
	assert_false(registry_is_subscribed(session, 9, TOPIC_MESSAGES));
	registry_free(registry);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_is_found_by_its_connection),
		cmocka_unit_test(a_guest_has_no_user),
		cmocka_unit_test(generations),
		cmocka_unit_test(many_sessions),
		cmocka_unit_test(takeover_of_a_client_id),
		cmocka_unit_test(takeover_of_a_pointer),
		cmocka_unit_test(expiry),
		cmocka_unit_test(sessions_share_their_user),
		cmocka_unit_test(who_returns_is_not_known),
		cmocka_unit_test(users_are_forgotten),
		cmocka_unit_test(memberships_stay_sorted),
		cmocka_unit_test(large_conversation_ids),
		cmocka_unit_test(the_public_set),
		cmocka_unit_test(standing),
		cmocka_unit_test(a_conversation_lives_while_somebody_listens),
		cmocka_unit_test(one_connection_may_not_cost_too_much),
		cmocka_unit_test(subscriptions_against_a_model),
		cmocka_unit_test(queued_in_order_and_once),
		cmocka_unit_test(removed_while_queued),
		cmocka_unit_test(timed_and_queued),
		cmocka_unit_test(subscribed_is_per_noun),
	};

	return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
