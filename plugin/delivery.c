/* delivery.c - see delivery.h. */
#include "delivery.h"

#include "wakeup.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* What may be out at once: some hundred milliseconds of the broker thread's work, so that lanes stop well before memory
 * matters and the spool (which is bounded) takes the rest. */
#define DELIVERY_ITEMS_MAX 20000
#define DELIVERY_BYTES_MAX ((size_t)32 << 20)
/* More than an ordinary tick leaves over: some 10 ms of the broker thread's work. */
#define DELIVERY_BUSY_ITEMS 1000
/* Of one batch: a lane's batch is bounded by its own limits far below. */
#define BATCH_BYTES_MAX ((size_t)256 << 20)

struct delivery_queue {
	pthread_mutex_t mutex;
	pthread_cond_t room;
	struct delivery_batch *first;
	struct delivery_batch **last;
	_Atomic(struct delivery_batch *) any; /* a look without the lock; not NULL: something is there */
	_Atomic uint64_t items_out;
	_Atomic uint64_t bytes_out;
	_Atomic bool waiting;
	_Atomic bool stopped;
	_Atomic bool discarding;
};

struct delivery_queue *delivery_queue_new(void)
{
	struct delivery_queue *queue = calloc(1, sizeof(*queue));
	if (queue) {
		pthread_mutex_init(&queue->mutex, NULL);
		pthread_cond_init(&queue->room, NULL);
		queue->last = &queue->first;
	}
	return queue;
}

void delivery_queue_free(struct delivery_queue *queue)
{
	if (!queue) {
		return;
	}
	while (queue->first) {
		struct delivery_batch *batch = queue->first;
		queue->first = batch->next;
		delivery_batch_free(batch);
	}
	pthread_cond_destroy(&queue->room);
	pthread_mutex_destroy(&queue->mutex);
	free(queue);
}

struct delivery_batch *delivery_batch_new(uint32_t capacity)
{
	struct delivery_batch *batch = calloc(1, sizeof(*batch));
	if (!batch) {
		return NULL;
	}
	batch->items = calloc(capacity ? capacity : 1, sizeof(batch->items[0]));
	if (!batch->items) {
		free(batch);
		return NULL;
	}
	batch->capacity = capacity;
	buffer_init(&batch->bytes, BATCH_BYTES_MAX);
	return batch;
}

void delivery_batch_free(struct delivery_batch *batch)
{
	if (batch) {
		buffer_free(&batch->bytes);
		free(batch->items);
		free(batch);
	}
}

struct delivery_item *delivery_batch_add(struct delivery_batch *batch, enum delivery_kind kind)
{
	assert(batch->count < batch->capacity);
	struct delivery_item *item = &batch->items[batch->count++];
	item->kind = kind;
	item->batch = batch;
	return item;
}

void delivery_post(struct delivery_queue *queue, struct delivery_batch *batch)
{
	if (batch->count == 0 || atomic_load(&queue->discarding)) {
		delivery_batch_free(batch);
		return;
	}
	batch->queue = queue;
	batch->held = batch->count;
	batch->next = NULL;
	atomic_fetch_add(&queue->items_out, batch->count);
	atomic_fetch_add(&queue->bytes_out, batch->bytes.length);
	pthread_mutex_lock(&queue->mutex);
	*queue->last = batch;
	queue->last = &batch->next;
	atomic_store(&queue->any, batch);
	pthread_mutex_unlock(&queue->mutex);
	wakeup_signal();
}

static bool has_room(const struct delivery_queue *queue)
{
	return atomic_load(&queue->discarding) ||
	       (atomic_load(&queue->items_out) < DELIVERY_ITEMS_MAX && atomic_load(&queue->bytes_out) < DELIVERY_BYTES_MAX);
}

bool delivery_is_busy(const struct delivery_queue *queue)
{
	return atomic_load(&queue->items_out) >= DELIVERY_BUSY_ITEMS;
}

bool delivery_wait_for_room(struct delivery_queue *queue)
{
	if (!has_room(queue)) {
		pthread_mutex_lock(&queue->mutex);
		for (;;) {
			atomic_store(&queue->waiting, true); /* before the look: delivery_item_done looks the other way round */
			if (has_room(queue) || atomic_load(&queue->stopped)) {
				break;
			}
			pthread_cond_wait(&queue->room, &queue->mutex);
		}
		pthread_mutex_unlock(&queue->mutex);
	}
	return !atomic_load(&queue->stopped);
}

void delivery_stop(struct delivery_queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	atomic_store(&queue->stopped, true);
	pthread_cond_broadcast(&queue->room);
	pthread_mutex_unlock(&queue->mutex);
}

void delivery_discard(struct delivery_queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	atomic_store(&queue->discarding, true);
	pthread_cond_broadcast(&queue->room);
	pthread_mutex_unlock(&queue->mutex);
}

struct delivery_batch *delivery_take_all(struct delivery_queue *queue)
{
	if (!atomic_load(&queue->any)) {
		return NULL;
	}
	pthread_mutex_lock(&queue->mutex);
	struct delivery_batch *all = queue->first;
	queue->first = NULL;
	queue->last = &queue->first;
	atomic_store(&queue->any, NULL);
	pthread_mutex_unlock(&queue->mutex);
	return all;
}

void delivery_item_done(struct delivery_item *item)
{
	struct delivery_batch *batch = item->batch;
	struct delivery_queue *queue = batch->queue;

	atomic_fetch_sub(&queue->items_out, 1);
	if (--batch->held == 0) {
		atomic_fetch_sub(&queue->bytes_out, batch->bytes.length);
		delivery_batch_free(batch);
	}
	if (atomic_load(&queue->waiting) && has_room(queue)) {
		pthread_mutex_lock(&queue->mutex);
		atomic_store(&queue->waiting, false);
		pthread_cond_broadcast(&queue->room);
		pthread_mutex_unlock(&queue->mutex);
	}
}
