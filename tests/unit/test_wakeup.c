/* test_wakeup.c - this program plays the broker: an epoll set with a listening socket, found as the broker's is. */
#include "../../plugin/delivery.h"
#include "../../plugin/wakeup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "threads.h"

static int broker_epoll, listener, other_epoll;

/* A socket without a name listens too (Linux gives it an abstract one), so no port is taken. */
static void open_broker(bool listening)
{
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	struct epoll_event event = {.events = EPOLLIN};

	other_epoll = epoll_create1(EPOLL_CLOEXEC); /* first, to be passed over */
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	broker_epoll = epoll_create1(EPOLL_CLOEXEC);
	assert_true(other_epoll >= 0 && listener >= 0 && broker_epoll >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&any, sizeof(any.sun_family)), 0);
	if (listening) {
		assert_int_equal(listen(listener, 1), 0);
	}
	assert_int_equal(epoll_ctl(broker_epoll, EPOLL_CTL_ADD, listener, &event), 0);
}

static void close_broker(void)
{
	close(listener);
	close(broker_epoll);
	close(other_epoll);
}

/* How many events there are at once; the data is what the broker would take for one of its objects. */
static int events(void)
{
	struct epoll_event found[4];
	int count = epoll_wait(broker_epoll, found, 4, 0);
	for (int i = 0; i < count; i++) {
		assert_int_equal(*(const int *)found[i].data.ptr, 0); /* no kind of object that it knows */
	}
	return count;
}

static void signals_wake_until_the_tick_begins(void **state)
{
	(void)state;
	open_broker(true);
	assert_true(wakeup_open());
	assert_true(wakeup_attach());
	wakeup_begin_tick();
	while (events() > 0) {
	}
	for (int tick = 0; tick < 5; tick++) {
		assert_int_equal(events(), 0);
		wakeup_signal();
		wakeup_signal(); /* one edge is enough */
		assert_int_equal(events(), 1);
		wakeup_signal(); /* already on its way */
		assert_int_equal(events(), 0);
		wakeup_begin_tick();
		assert_int_equal(events(), 0);
	}
	/* what comes while a tick is running wakes the next one */
	wakeup_begin_tick();
	wakeup_signal();
	assert_int_equal(events(), 1);
	wakeup_close();
	close_broker();
}

static void a_posted_batch_wakes(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	struct delivery_batch *batch = delivery_batch_new(1);

	(void)state;
	open_broker(true);
	assert_true(wakeup_open());
	assert_true(wakeup_attach());
	while (events() > 0) {
	}
	delivery_post(queue, delivery_batch_new(1)); /* nothing in it */
	assert_int_equal(events(), 0);
	delivery_batch_add(batch, DELIVERY_MESSAGE);
	delivery_post(queue, batch);
	assert_int_equal(events(), 1);
	wakeup_begin_tick();
	assert_ptr_equal(delivery_take_all(queue), batch);
	delivery_item_done(&batch->items[0]);
	delivery_queue_free(queue);
	wakeup_close();
	close_broker();
}

/* What is signalled before there is a set to be woken is not lost: the edge is there when it is found. */
static void signalled_before_attached(void **state)
{
	(void)state;
	open_broker(true);
	assert_true(wakeup_open());
	wakeup_signal();
	assert_int_equal(events(), 0);
	assert_true(wakeup_attach());
	assert_int_equal(events(), 1);
	wakeup_close();
	close_broker();
}

static void no_set_that_listens(void **state)
{
	(void)state;
	open_broker(false);
	assert_true(wakeup_open());
	assert_false(wakeup_attach());
	wakeup_signal(); /* harmless, and so is all of this in any order */
	wakeup_close();
	wakeup_close();
	wakeup_signal();
	close_broker();
}

/* A reload closes and opens it; the broker's set must not be left with a descriptor of ours. */
static void opened_again(void **state)
{
	(void)state;
	open_broker(true);
	for (int i = 0; i < 3; i++) {
		assert_true(wakeup_open());
		assert_true(wakeup_attach());
		wakeup_begin_tick();
		wakeup_signal();
		assert_int_equal(events(), 1);
		wakeup_close();
		assert_int_equal(events(), 0);
	}
	close_broker();
}

enum { SIGNALS = 20000 };

static _Atomic int made;

static void *signal_often(void *argument)
{
	(void)argument;
	for (int i = 0; i < SIGNALS; i++) {
		atomic_fetch_add(&made, 1);
		wakeup_signal();
	}
	return NULL;
}

/* The promise: TICK comes after what was written before the signal is visible. A lost edge ends in the deadline. */
static void no_signal_is_lost(void **state)
{
	pthread_t threads[2];
	int seen = 0;

	(void)state;
	open_broker(true);
	assert_true(wakeup_open());
	assert_true(wakeup_attach());
	atomic_store(&made, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, signal_often, NULL), 0);
	}
	while (seen < 2 * SIGNALS) {
		struct epoll_event event;
		assert_int_equal(epoll_wait(broker_epoll, &event, 1, THREADS_DEADLINE_MS), 1);
		wakeup_begin_tick();
		seen = atomic_load(&made);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
	}
	wakeup_close();
	close_broker();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_wake_until_the_tick_begins),
		cmocka_unit_test(a_posted_batch_wakes),
		cmocka_unit_test(signalled_before_attached),
		cmocka_unit_test(no_set_that_listens),
		cmocka_unit_test(opened_again),
		cmocka_unit_test(no_signal_is_lost),
	};

	return cmocka_run_group_tests_name("wakeup", tests, NULL, NULL);
}
