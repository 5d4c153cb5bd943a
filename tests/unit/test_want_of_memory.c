/* test_want_of_memory.c - the engines while memory is refused: each allocation fails in turn, then all from each one on.
 *
 * What fails must say so and leave everything as it was; the sanitizers see to what it must free. The engines are compiled
 * into this program with allocators that can be told to fail, so the library's stay out.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

/* Allocations that still succeed; whether one was refused, and whether those behind it are too. Of the test's own thread
 * only: the spool's keeper has all that it wants. */
static unsigned allowance;
static bool refused, for_good;
static _Thread_local bool scarce;

static bool refuse(void)
{
	if (!scarce) {
		return false;
	}
	if (allowance > 0) {
		allowance--;
		return false;
	}
	if (refused && !for_good) {
		return false;
	}
	refused = true;
	return true;
}

static void *scarce_malloc(size_t size)
{
	return refuse() ? NULL : malloc(size);
}

static void *scarce_calloc(size_t count, size_t size)
{
	return refuse() ? NULL : calloc(count, size);
}

static void *scarce_realloc(void *memory, size_t size)
{
	return refuse() ? NULL : realloc(memory, size);
}

static char *scarce_strdup(const char *text)
{
	return refuse() ? NULL : strdup(text);
}

static void *scarce_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (refuse()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return mmap(address, length, protection, flags, fd, offset);
}

#define malloc(size) scarce_malloc(size)
#define calloc(count, size) scarce_calloc(count, size)
#define realloc(memory, size) scarce_realloc(memory, size)
#define strdup(text) scarce_strdup(text)
#define mmap(address, length, protection, flags, fd, offset) scarce_mmap(address, length, protection, flags, fd, offset)
#include "../../plugin/delivery.c"      // NOLINT: with the allocators above
#include "../../plugin/id_table.c"      // NOLINT
#include "../../plugin/registry.c"      // NOLINT
#include "../../plugin/spool.c"         // NOLINT
#include "../../plugin/spool_files.c"   // NOLINT
#include "../../plugin/spool_recover.c" // NOLINT
#undef malloc
#undef calloc
#undef realloc
#undef strdup
#undef mmap

#include "spool_directory.h"

/* Plays the scene with each allocation refused, until it makes no more of them than succeed. */
static void torture(void (*scene)(void))
{
	for (int mode = 0; mode < 2; mode++) {
		unsigned allowed = 0;
		do {
			assert_in_range(allowed, 0, 100000);
			allowance = allowed++;
			refused = false;
			for_good = mode == 1;
			scarce = true;
			scene();
			scarce = false;
		} while (refused);
		assert_in_range(allowed, 3, 100000);
	}
	allowance = UINT32_MAX;
}

/* ---- registry ---- */

enum { SESSIONS = 70, CONVERSATIONS = 30 }; /* more sessions than the slots that are made at first */

static char connections[SESSIONS];
static struct session *sessions[SESSIONS];
static int64_t public_ids[CONVERSATIONS];

static void add_sessions(struct registry *registry)
{
	char client_id[32];
	for (unsigned i = 0; i < SESSIONS; i++) {
		int64_t user_id = i % 10; /* 0: a guest */
		assert_in_range(snprintf(client_id, sizeof(client_id), "%u-x", i), 1, sizeof(client_id) - 1);
		uint32_t before = registry_session_count(registry);
		sessions[i] = registry_add_session(registry, &connections[i], client_id, user_id, 0, 100);
		assert_int_equal(registry_session_count(registry), before + (sessions[i] != NULL));
		assert_ptr_equal(registry_find_session(registry, &connections[i]), sessions[i]);
		assert_ptr_equal(registry_find_client_id(registry, client_id), sessions[i]);
		assert_true(!sessions[i] || sessions[i]->index == before); /* who failed has given its place back */
	}
}

static void give_memberships(struct session *session)
{
	struct membership memberships[] = {{.conversation_id = 1, .role = ACL_ROLE_READER},
		{.conversation_id = 5, .role = ACL_ROLE_MEMBER}, {.conversation_id = 9, .role = ACL_ROLE_OWNER}};
	struct user *user = session->user;

	if (!registry_set_memberships(user, memberships, 3)) {
		assert_false(user->loaded); /* what it holds may be anything, and counts for nothing */
		return;
	}
	for (int64_t id = 2; id < 9; id++) {
		struct membership one = {.conversation_id = id, .role = ACL_ROLE_ADMIN};
		uint32_t before = user->membership_count;
		bool known = registry_membership(user, id) != NULL;
		bool done = registry_set_membership(user, &one);
		assert_int_equal(user->membership_count, before + (done && !known));
		assert_int_equal(registry_membership(user, id) != NULL, done || known);
	}
	assert_int_equal(registry_membership(user, 1)->role, ACL_ROLE_READER);
	assert_int_equal(registry_membership(user, 9)->role, ACL_ROLE_OWNER);
}

static void make_public(struct registry *registry)
{
	for (int64_t id = 0; id < CONVERSATIONS; id++) {
		public_ids[id] = id;
		bool done = registry_mark_public(registry, id, true);
		assert_int_equal(registry_is_public(registry, id), done);
	}
	if (registry_set_public(registry, public_ids, CONVERSATIONS)) {
		assert_true(registry_is_public(registry, CONVERSATIONS - 1));
	}
}

static void subscribe_all(struct registry *registry, struct session *session)
{
	for (int64_t id = 1; id <= CONVERSATIONS; id++) {
		bool created = true;
		bool known = registry_find_conversation(registry, id) != NULL;
		uint32_t before = session->subscription_count;
		struct conversation *conversation = registry_subscribe(registry, session, id, TOPIC_MESSAGES, &created);
		assert_int_equal(session->subscription_count, before + (conversation != NULL));
		if (conversation) {
			assert_int_equal(created, !known);
			registry_queue(registry, conversation);
		} else {
			assert_int_equal(registry_find_conversation(registry, id) != NULL, known); /* no empty one is left */
		}
	}
}

static void check_conversation(struct conversation *conversation, void *argument)
{
	(void)argument;
	assert_true(conversation->subscriber_count > 0);
}

static void registry_scene(void)
{
	struct registry *registry = registry_new();
	uint32_t removed = 0;

	if (!registry) {
		assert_true(refused);
		return;
	}
	add_sessions(registry);
	make_public(registry);
	for (unsigned i = 0; i < SESSIONS; i++) {
		if (sessions[i] && sessions[i]->user && i < 30) {
			give_memberships(sessions[i]);
		}
		if (sessions[i] && i % 9 == 0) {
			subscribe_all(registry, sessions[i]);
		}
	}
	registry_each_conversation(registry, check_conversation, NULL);
	uint32_t count = registry_session_count(registry);
	for (unsigned i = 0; i < SESSIONS; i += 2) {
		if (sessions[i]) {
			registry_remove_session(registry, sessions[i]);
			removed++;
		}
	}
	assert_int_equal(registry_session_count(registry), count - removed);
	registry_each_conversation(registry, check_conversation, NULL);
	registry_forget_users(registry, &(struct rate_limit){1, 1}, &(struct rate_limit){1, 1}, 1);
	for (int64_t user_id = 1; user_id < 10; user_id++) {
		const struct user *user = registry_find_user(registry, user_id);
		assert_true(!user || user->sessions); /* none is left over from a session that could not be made */
	}
	while (registry_next_queued(registry)) {
	}
	registry_free(registry);
}

static void registry_without_memory(void **state)
{
	(void)state;
	torture(registry_scene);
}

/* ---- delivery ---- */

static void delivery_scene(void)
{
	struct delivery_queue *queue = delivery_queue_new();
	if (!queue) {
		assert_true(refused);
		return;
	}
	for (int i = 0; i < 3; i++) {
		struct delivery_batch *batch = delivery_batch_new(2);
		if (batch) {
			delivery_batch_add(batch, DELIVERY_MESSAGE);
			delivery_post(queue, batch);
		}
	}
	struct delivery_batch *batch = delivery_take_all(queue);
	while (batch) {
		struct delivery_batch *next = batch->next;
		delivery_item_done(&batch->items[0]);
		batch = next;
	}
	delivery_queue_free(queue);
}

static void delivery_without_memory(void **state)
{
	(void)state;
	torture(delivery_scene);
}

/* ---- spool ---- */

static struct spool_directory directory;

/* It opens whole, or says why it does not; and what was appended by those that opened is found by those that follow. */
static void spool_scene(void)
{
	static const char body[1000];
	static uint64_t appended;
	char error[512] = "";
	struct spool_recovery recovery;
	struct spool_settings settings = {.directory = directory.path, .lanes = 1};
	struct spool *spool = spool_open(&settings, &recovery, error, sizeof(error));
	struct record_message message = {.conversation_id = 1, .body_length = sizeof(body)};
	uint64_t position;

	if (!spool) {
		assert_true(refused);
		assert_true(error[0] != '\0');
		return;
	}
	assert_int_equal(recovery.records, appended);
	assert_int_equal(recovery.damaged_bytes + recovery.cut_bytes, 0);
	void *at = spool_append(spool, record_message_size(&message), &position);
	if (at) { /* else there was no memory for its first segment, and the keeper is about to try again */
		record_write_message(at, position, 0, &message, &(struct record_parts){.body = body});
		assert_true(spool_append_done(spool, record_message_size(&message), record_slot(1)));
		appended++;
	}
	spool_close(spool);
}

static void spool_without_memory(void **state)
{
	(void)state;
	assert_true(make_spool_directory(&directory));
	torture(spool_scene);
	remove_spool_directory(&directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registry_without_memory),
		cmocka_unit_test(delivery_without_memory),
		cmocka_unit_test(spool_without_memory),
	};

	return cmocka_run_group_tests_name("want of memory", tests, NULL, NULL);
}
