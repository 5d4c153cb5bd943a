/* test_delivery.c - the way back to the broker thread: order, bounds, who waits and who wakes whom.
 *
 * The bounds are delivery.c's own and are found out here by posting until a producer has to wait.
 */
#include "../../plugin/delivery.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "threads.h"

/* seq numbers the items of one producer, user_id says whose they are. */
static struct delivery_batch *make_batch(uint32_t items, int64_t first_seq, int64_t producer, size_t bytes_each)
{
	static const char filling[1 << 20];
	struct delivery_batch *batch = delivery_batch_new(items);
	if (!batch) {
		abort(); /* also called by threads, where cmocka must not be */
	}
	for (uint32_t i = 0; i < items; i++) {
		struct delivery_item *item = delivery_batch_add(batch, DELIVERY_MESSAGE);
		item->seq = first_seq + i;
		item->user_id = producer;
		item->payload_at = (uint32_t)batch->bytes.length;
		item->payload_length = (uint32_t)bytes_each;
		if (!buffer_append(&batch->bytes, filling, bytes_each)) {
			abort();
		}
	}
	return batch;
}

/* ---- one thread ---- */

static void batches_come_in_the_order_of_posting(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	int64_t seq = 1;

	(void)state;
	assert_non_null(queue);
	assert_null(delivery_take_all(queue));
	for (int64_t first = 1; first < 10; first += 3) {
		delivery_post(queue, make_batch(3, first, 0, 10));
	}
	for (struct delivery_batch *batch = delivery_take_all(queue), *next; batch; batch = next) {
		next = batch->next; /* the last item takes the batch with it */
		assert_int_equal(batch->count, 3);
		for (uint32_t i = 0; i < 3; i++, seq++) {
			assert_int_equal(batch->items[i].kind, DELIVERY_MESSAGE);
			assert_int_equal(batch->items[i].seq, seq);
			assert_ptr_equal(batch->items[i].batch, batch);
		}
		for (uint32_t i = 3; i-- > 0;) {
			delivery_item_done(&batch->items[i]);
		}
	}
	assert_int_equal(seq, 10);
	assert_null(delivery_take_all(queue));
	delivery_post(queue, make_batch(1, 1, 0, 0)); /* the list works after it was emptied */
	struct delivery_batch *batch = delivery_take_all(queue);
	assert_non_null(batch);
	assert_null(batch->next);
	delivery_item_done(&batch->items[0]);
	delivery_queue_free(queue);
}

/* Fan-out keeps items of one batch for as long as their conversations need; the memory must last as long, and no longer
 * (which the sanitizers see). */
static void the_last_item_frees_the_batch(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	struct delivery_batch *batch = delivery_batch_new(3);

	(void)state;
	assert_non_null(batch);
	for (unsigned i = 0; i < 3; i++) {
		struct delivery_item *item = delivery_batch_add(batch, DELIVERY_ANSWER);
		item->payload_at = (uint32_t)batch->bytes.length;
		assert_true(buffer_append_format(&batch->bytes, "answer %u", i));
		item->payload_length = (uint32_t)batch->bytes.length - item->payload_at;
	}
	delivery_post(queue, batch);
	assert_ptr_equal(delivery_take_all(queue), batch);
	struct delivery_item *kept = &batch->items[1];
	delivery_item_done(&batch->items[2]);
	delivery_item_done(&batch->items[0]);
	assert_int_equal(kept->payload_length, 8);
	assert_memory_equal(delivery_bytes(kept, kept->payload_at), "answer 1", 8);
	delivery_item_done(kept);
	delivery_queue_free(queue);
}

static void many_items_out_are_busy(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();

	(void)state;
	assert_non_null(queue);
	delivery_post(queue, make_batch(100, 1, 0, 10));
	assert_false(delivery_is_busy(queue));
	delivery_post(queue, make_batch(5000, 101, 0, 10));
	assert_true(delivery_is_busy(queue));
	for (struct delivery_batch *batch = delivery_take_all(queue), *next; batch; batch = next) {
		next = batch->next;
		assert_true(delivery_is_busy(queue)); /* taken is not given back */
		for (uint32_t i = 0, count = batch->count; i < count; i++) {
			delivery_item_done(&batch->items[i]);
		}
	}
	assert_false(delivery_is_busy(queue));
	delivery_queue_free(queue);
}

static void what_is_never_posted_or_taken_is_freed(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();

	(void)state;
	delivery_batch_free(make_batch(5, 1, 0, 100));
	delivery_batch_free(delivery_batch_new(0));
	delivery_batch_free(NULL);
	delivery_post(queue, delivery_batch_new(10)); /* nothing in it: nobody is woken for that */
	assert_null(delivery_take_all(queue));
	delivery_post(queue, make_batch(5, 1, 0, 100));
	delivery_post(queue, make_batch(5, 6, 0, 100));
	delivery_queue_free(queue);
	delivery_queue_free(NULL);
}

static void after_discard_nothing_is_kept_and_nobody_waits(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();

	(void)state;
	delivery_post(queue, make_batch(1, 1, 0, 10));
	delivery_discard(queue);
	for (int i = 0; i < 200; i++) { /* far above any bound */
		assert_true(delivery_wait_for_room(queue));
		delivery_post(queue, make_batch(500, 1, 0, 2000));
	}
	struct delivery_batch *batch = delivery_take_all(queue); /* what was posted before it */
	assert_non_null(batch);
	assert_null(batch->next);
	delivery_item_done(&batch->items[0]);
	assert_null(delivery_take_all(queue));
	delivery_stop(queue);
	assert_false(delivery_wait_for_room(queue));
	delivery_queue_free(queue);
}

/* ---- producers and the broker thread ---- */

enum { PRODUCERS = 3 };

struct producer {
	struct delivery_queue *queue;
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic int64_t posted; /* items */
	_Atomic bool ended;
	int64_t number, total; /* which one it is, how many items it makes */
	uint32_t batch_items;
	size_t item_bytes;
};

static void *produce(void *argument)
{
	struct producer *producer = argument;
	int64_t seq = 1;

	atomic_store(&producer->tid, gettid());
	while (seq <= producer->total && delivery_wait_for_room(producer->queue)) {
		delivery_post(producer->queue, make_batch(producer->batch_items, seq, producer->number, producer->item_bytes));
		seq += producer->batch_items;
		atomic_store(&producer->posted, seq - 1);
	}
	atomic_store(&producer->ended, true);
	return NULL;
}

static void start(struct producer *producer, struct delivery_queue *queue, uint32_t batch_items, size_t item_bytes, int64_t total)
{
	producer->queue = queue;
	producer->batch_items = batch_items;
	producer->item_bytes = item_bytes;
	producer->total = total;
	assert_int_equal(pthread_create(&producer->thread, NULL, produce, producer), 0);
}

static void join(struct producer *producer)
{
	assert_int_equal(pthread_join(producer->thread, NULL), 0);
}

/* Asleep, and nothing posted meanwhile, at a hundred looks in a row: a sanitizer's own locks make a thread sleep too. */
static bool waits(struct producer *producer)
{
	int64_t posted = atomic_load(&producer->posted);
	for (int look = 0; look < 100; look++) {
		if (!thread_is_asleep(atomic_load(&producer->tid)) || atomic_load(&producer->posted) != posted) {
			return false;
		}
	}
	return true;
}

/* Returns how much it has posted by then. */
static int64_t wait_until_it_waits(struct producer *producer)
{
	wait_until(atomic_load(&producer->ended) || waits(producer));
	assert_false(atomic_load(&producer->ended));
	return atomic_load(&producer->posted);
}

/* Takes all there is and gives back up to `most` items, in order. */
static struct delivery_batch *held;
static uint32_t held_next;

static int64_t give_back(struct delivery_queue *queue, int64_t most)
{
	int64_t given = 0;
	while (given < most) {
		if (!held) {
			held = delivery_take_all(queue);
			held_next = 0;
			if (!held) {
				break;
			}
		}
		struct delivery_batch *batch = held, *next = batch->next;
		bool last = held_next + 1 == batch->count;
		delivery_item_done(&batch->items[held_next++]);
		given++;
		if (last) {
			held = next;
			held_next = 0;
		}
	}
	return given;
}

static void drain(struct delivery_queue *queue)
{
	while (give_back(queue, INT64_MAX) > 0) {
	}
}

static void too_many_items_make_producers_wait(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	struct producer producer = {0};
	int64_t bound, given = 0;

	(void)state;
	start(&producer, queue, 100, 1, 1000000);
	bound = wait_until_it_waits(&producer);
	assert_in_range(bound, 1000, 100000);
	/* one item less, and there is room for one more batch: never more than bound - 1 + batch are out */
	for (int64_t wanted = 1; wanted < 50000; wanted += 777) {
		given += give_back(queue, wanted - given);
		assert_int_equal(given, wanted);
		int64_t expected = (given + bound + 99) / 100 * 100;
		wait_until(atomic_load(&producer.posted) == expected);
		assert_in_range(atomic_load(&producer.posted) - given, bound, bound + 99);
	}
	assert_int_equal(wait_until_it_waits(&producer), (given + bound + 99) / 100 * 100);
	delivery_stop(queue);
	join(&producer);
	drain(queue);
	delivery_queue_free(queue);
}

static void too_many_bytes_make_producers_wait(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	struct producer producer = {0};
	int64_t bound;

	(void)state;
	start(&producer, queue, 2, 1 << 20, 300);
	bound = wait_until_it_waits(&producer);
	assert_in_range(bound, 4, 100); /* MiB; far below the bound of items */
	assert_int_equal(give_back(queue, 1), 1);
	assert_int_equal(wait_until_it_waits(&producer), bound); /* bytes come back with their batch */
	assert_int_equal(give_back(queue, 1), 1);
	wait_until(atomic_load(&producer.posted) == bound + 2);
	assert_int_equal(wait_until_it_waits(&producer), bound + 2);
	delivery_discard(queue);
	wait_until(atomic_load(&producer.ended)); /* nobody waits any more */
	assert_int_equal(atomic_load(&producer.posted), 300);
	join(&producer);
	drain(queue);
	delivery_queue_free(queue);
}

/* One place, several waiting: all are woken, or one of them sleeps for ever. */
static void every_waiting_producer_is_woken(void **state)
{
	(void)state;
	for (int how = 0; how < 3; how++) {
		struct delivery_queue *queue = delivery_queue_new();
		struct producer producers[PRODUCERS] = {0};
		for (unsigned i = 0; i < PRODUCERS; i++) {
			start(&producers[i], queue, 1000, 1, how == 0 ? 60000 : 1000000);
		}
		for (unsigned i = 0; i < PRODUCERS; i++) {
			wait_until_it_waits(&producers[i]);
		}
		if (how == 1) {
			delivery_stop(queue);
		} else if (how == 2) {
			delivery_discard(queue);
		}
		for (unsigned i = 0; i < PRODUCERS; i++) {
			wait_until((give_back(queue, INT64_MAX), atomic_load(&producers[i].ended)));
			join(&producers[i]);
			assert_int_equal(atomic_load(&producers[i].posted) == producers[i].total, how != 1);
		}
		drain(queue);
		delivery_queue_free(queue);
	}
}

/* Each has one batch left to post, so none of them wakes another. */
static void one_look_wakes_all(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	struct producer producers[PRODUCERS] = {0};
	int64_t count = 0;

	(void)state;
	while (count < 100000) { /* far above the bound: who posts without asking is not stopped */
		delivery_post(queue, make_batch(1000, 1, 0, 1));
		count += 1000;
	}
	for (unsigned i = 0; i < PRODUCERS; i++) {
		start(&producers[i], queue, 1, 1, 1);
		wait_until(waits(&producers[i]));
	}
	assert_int_equal(give_back(queue, count), count);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		wait_until(atomic_load(&producers[i].ended));
		join(&producers[i]);
		assert_int_equal(atomic_load(&producers[i].posted), 1);
	}
	drain(queue);
	delivery_queue_free(queue);
}

/* Everything once, each producer's in its order, while never too much is out. */
static void all_arrive_once_and_in_order(void **state)
{
	struct delivery_queue *queue = delivery_queue_new();
	struct producer producers[PRODUCERS] = {0};
	int64_t next[PRODUCERS] = {1, 1, 1}, total = 0;

	(void)state;
	for (unsigned i = 0; i < PRODUCERS; i++) {
		producers[i].number = i;
		start(&producers[i], queue, 7 + i * 50, 10, 107 * 107 * 7);
		total +=
			(producers[i].total + producers[i].batch_items - 1) / producers[i].batch_items * producers[i].batch_items;
	}
	int64_t give_up_ms = clock_monotonic_ms() + THREADS_DEADLINE_MS;
	while (total > 0) {
		struct delivery_batch *batch = delivery_take_all(queue), *following;
		assert_true(clock_monotonic_ms() < give_up_ms);
		for (; batch; batch = following) {
			following = batch->next;
			total -= batch->count;
			for (uint32_t i = 0, count = batch->count; i < count; i++) {
				struct delivery_item *item = &batch->items[i];
				assert_int_equal(item->seq, next[item->user_id]);
				next[item->user_id]++;
				delivery_item_done(item);
			}
		}
	}
	assert_int_equal(total, 0);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		join(&producers[i]);
	}
	assert_null(delivery_take_all(queue));
	delivery_queue_free(queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batches_come_in_the_order_of_posting),
		cmocka_unit_test(the_last_item_frees_the_batch),
		cmocka_unit_test(many_items_out_are_busy),
		cmocka_unit_test(what_is_never_posted_or_taken_is_freed),
		cmocka_unit_test(after_discard_nothing_is_kept_and_nobody_waits),
		cmocka_unit_test(too_many_items_make_producers_wait),
		cmocka_unit_test(too_many_bytes_make_producers_wait),
		cmocka_unit_test(every_waiting_producer_is_woken),
		cmocka_unit_test(one_look_wakes_all),
		cmocka_unit_test(all_arrive_once_and_in_order),
	};

	return cmocka_run_group_tests_name("delivery", tests, NULL, NULL);
}
