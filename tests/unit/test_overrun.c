/* test_overrun.c - for whom the broker dropped something: who is disconnected for it, and who must not be. */
#include "../../plugin/host.h"
#include "../../plugin/overrun.h"
#include "../../plugin/topic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- what the service calls elsewhere */

static uint64_t dropped;
static const struct session *ended;
static unsigned ends;

uint64_t host_dropped(void)
{
	return dropped;
}

void chat_end_session(struct chat *chat, struct session *session, int64_t delay_ms)
{
	(void)chat;
	assert_int_equal(delay_ms, 0);
	ended = session;
	ends++;
}

bool chat_publish(struct chat *chat, const char *topic, const void *payload, size_t length, int qos,
	const struct host_properties *properties)
{
	(void)chat, (void)payload, (void)qos, (void)properties;
	assert_string_equal(topic, "chat/42/messages");
	assert_true(overrun_is_question(length));
	return true;
}

/* ---- */

static const char one_connection, other_connection;

struct scene {
	struct chat chat;
	struct session *one, *other;
	struct conversation *conversation;
};

static int setup(void **state)
{
	static struct scene scene;
	bool created;
	memset(&scene, 0, sizeof(scene));
	scene.chat.registry = registry_new();
	scene.one = registry_add_session(scene.chat.registry, &one_connection, "7-a", 7, 0, INT64_MAX);
	scene.other = registry_add_session(scene.chat.registry, &other_connection, "9-a", 9, 0, INT64_MAX);
	scene.conversation = registry_subscribe(scene.chat.registry, scene.one, 42, TOPIC_MESSAGES, &created);
	dropped = 5; /* before our time */
	ended = NULL;
	ends = 0;
	overrun_settle(&scene.chat);
	*state = &scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	registry_free(scene->chat.registry);
	return 0;
}

static void ask(struct scene *scene, const struct session *session, int64_t conversation_id)
{
	overrun_reading(&scene->chat);
	overrun_may_read(&scene->chat, session, conversation_id);
}

static void test_dropped_between_two_questions(void **state)
{
	struct scene *scene = *state;
	ask(scene, scene->other, 42);
	ask(scene, scene->one, 42);
	dropped++;
	ask(scene, scene->other, 42);
	assert_ptr_equal(ended, scene->one);
	overrun_settle(&scene->chat);
	assert_int_equal(ends, 1);
	assert_false(scene->conversation->missed);
}

/* Said once, whatever else is dropped. */
static void test_dropped_again(void **state)
{
	struct scene *scene = *state;
	for (int i = 0; i < 3; i++) {
		ask(scene, scene->one, 42);
		dropped++;
	}
	ask(scene, scene->other, 42);
	assert_ptr_equal(ended, scene->one);
	assert_int_equal(ends, 1);
}

/* What the broker drops while it serves its clients may be a stranger's: nobody is disconnected, and the one whom it may
 * concern is told. */
static void test_dropped_behind_the_last_question(void **state)
{
	struct scene *scene = *state;
	ask(scene, scene->other, 42);
	ask(scene, scene->one, 42);
	dropped++;
	overrun_settle(&scene->chat);
	assert_int_equal(ends, 0);
	assert_true(scene->conversation->missed);
	assert_ptr_equal(registry_next_queued(scene->chat.registry), scene->conversation);
	/* The notice, and the question behind it. */
	ask(scene, scene->one, 42);
	dropped++;
	overrun_ask(&scene->chat, 42);
	overrun_reading(&scene->chat);
	assert_ptr_equal(ended, scene->one);
}

/* An answer: any conversation that the client listens to will do. */
static void test_dropped_answer(void **state)
{
	struct scene *scene = *state;
	ask(scene, scene->one, 0);
	dropped++;
	overrun_settle(&scene->chat);
	assert_true(scene->conversation->missed);
	scene->conversation->missed = false;
	ask(scene, scene->other, 0); /* listens to none */
	dropped++;
	overrun_settle(&scene->chat);
	assert_false(scene->conversation->missed);
	assert_int_equal(ends, 0);
}

/* What was refused, or has ended, has nothing dropped for it; and between callbacks a stranger's drops are nobody's. */
static void test_nobodys(void **state)
{
	struct scene *scene = *state;
	overrun_reading(&scene->chat); /* and it may not */
	dropped++;
	ask(scene, scene->other, 42);
	overrun_settle(&scene->chat);
	dropped++;
	overrun_settle(&scene->chat);
	dropped++;
	ask(scene, scene->one, 42);
	registry_remove_session(scene->chat.registry, scene->one);
	dropped++;
	overrun_reading(&scene->chat);
	assert_int_equal(ends, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_dropped_between_two_questions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dropped_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dropped_behind_the_last_question, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dropped_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobodys, setup, teardown),
	};
	return cmocka_run_group_tests_name("overrun", tests, NULL, NULL);
}
