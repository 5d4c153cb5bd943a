/* spool.c - see spool.h.
 *
 * Threads: `end` is stored by the broker thread (release) and loaded by lanes (acquire); each lane's `released` the
 * other way round. The segment table is written by the broker thread before `end` makes a position in it visible,
 * and a segment is unmapped by the broker thread only after every lane has released it. The mutex guards nothing but
 * sleeping: a lane says that it will sleep, looks once more, and sleeps; the appender signals only sleepers, so that
 * an append costs no system call while the lanes are busy.
 */
#include "spool.h"

#include "clock.h"
#include "uuid.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct lane {
	_Atomic uint64_t released;
	_Atomic bool sleeping;
	pthread_cond_t wake;
};

struct spool {
	uint8_t id[16];
	unsigned lane_count;
	uint64_t segment_count; /* size of the table: segment n lives at [n % segment_count] */
	char **segments;        /* NULL: not mapped */
	uint64_t first_segment; /* oldest still mapped */
	_Atomic uint64_t end;
	_Atomic bool stopped;
	pthread_mutex_t mutex;
	struct lane lanes[SPOOL_LANES_MAX];
};

static uint64_t segment_of(uint64_t position)
{
	return position / SPOOL_SEGMENT_BYTES;
}

static char *address_of(const struct spool *spool, uint64_t position)
{
	return spool->segments[segment_of(position) % spool->segment_count] + position % SPOOL_SEGMENT_BYTES;
}

struct spool *spool_open(int64_t max_bytes, unsigned lanes, char *error, size_t error_size)
{
	struct spool *spool = calloc(1, sizeof(*spool));
	pthread_condattr_t monotonic;

	assert(lanes > 0 && lanes <= SPOOL_LANES_MAX);
	if (!spool) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	spool->lane_count = lanes;
	spool->segment_count = (uint64_t)max_bytes / SPOOL_SEGMENT_BYTES;
	if (spool->segment_count < 2) {
		spool->segment_count = 2;
	}
	spool->segments = calloc(spool->segment_count, sizeof(spool->segments[0]));
	if (!spool->segments) {
		snprintf(error, error_size, "out of memory");
		free(spool);
		return NULL;
	}
	uuid_make(clock_wall_ms(), spool->id);
	pthread_mutex_init(&spool->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	for (unsigned i = 0; i < lanes; i++) {
		pthread_cond_init(&spool->lanes[i].wake, &monotonic);
	}
	pthread_condattr_destroy(&monotonic);
	return spool;
}

void spool_close(struct spool *spool)
{
	if (!spool) {
		return;
	}
	for (uint64_t i = 0; i < spool->segment_count; i++) {
		if (spool->segments[i]) {
			munmap(spool->segments[i], SPOOL_SEGMENT_BYTES);
		}
	}
	for (unsigned i = 0; i < spool->lane_count; i++) {
		pthread_cond_destroy(&spool->lanes[i].wake);
	}
	pthread_mutex_destroy(&spool->mutex);
	free(spool->segments);
	free(spool);
}

const uint8_t *spool_id(const struct spool *spool)
{
	return spool->id;
}

/* ---- appending: the broker thread ---- */

static uint64_t oldest_needed(const struct spool *spool)
{
	uint64_t oldest = UINT64_MAX;
	for (unsigned i = 0; i < spool->lane_count; i++) {
		uint64_t released = atomic_load_explicit(&spool->lanes[i].released, memory_order_acquire);
		oldest = released < oldest ? released : oldest;
	}
	return oldest;
}

/* Makes segment n usable: a released one is taken over as it is, so that a steady load maps nothing. */
static bool ready_segment(struct spool *spool, uint64_t n)
{
	char **place = &spool->segments[n % spool->segment_count];
	uint64_t needed = segment_of(oldest_needed(spool));

	if (n - needed >= spool->segment_count) {
		return false;
	}
	if (!*place) {
		for (; spool->first_segment < needed; spool->first_segment++) { /* reuse before growing */
			char **old = &spool->segments[spool->first_segment % spool->segment_count];
			if (*old && old != place) {
				*place = *old;
				*old = NULL;
				spool->first_segment++;
				return true;
			}
		}
		void *memory = mmap(NULL, SPOOL_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		*place = memory == MAP_FAILED ? NULL : memory;
	}
	return *place != NULL;
}

void *spool_append(struct spool *spool, size_t length, uint64_t *position)
{
	uint64_t end = atomic_load_explicit(&spool->end, memory_order_relaxed);
	uint64_t offset = end % SPOOL_SEGMENT_BYTES;

	assert(length <= RECORD_BYTES_MAX && length % RECORD_ALIGNMENT == 0);
	if (offset != 0 && offset + length > SPOOL_SEGMENT_BYTES) {
		/* The rest of this segment stays unused. Its length says so to the readers; end moves only with the record. */
		if (!ready_segment(spool, segment_of(end) + 1)) {
			return NULL;
		}
		memset(address_of(spool, end), 0, sizeof(uint32_t));
		end += SPOOL_SEGMENT_BYTES - offset;
	} else if (offset == 0 && !ready_segment(spool, segment_of(end))) {
		return NULL;
	}
	*position = end;
	return address_of(spool, end);
}

static void wake_lane(struct spool *spool, struct lane *lane)
{
	if (atomic_load(&lane->sleeping)) {
		pthread_mutex_lock(&spool->mutex);
		pthread_cond_signal(&lane->wake);
		pthread_mutex_unlock(&spool->mutex);
	}
}

void spool_wake(struct spool *spool)
{
	for (unsigned i = 0; i < spool->lane_count; i++) {
		wake_lane(spool, &spool->lanes[i]);
	}
}

void spool_append_done(struct spool *spool, size_t length, unsigned slot)
{
	uint64_t end = atomic_load_explicit(&spool->end, memory_order_relaxed);
	uint64_t offset = end % SPOOL_SEGMENT_BYTES;
	if (offset != 0 && offset + length > SPOOL_SEGMENT_BYTES) {
		end += SPOOL_SEGMENT_BYTES - offset;
		offset = 0;
	}
	atomic_store(&spool->end, end + length); /* sequentially consistent, against `sleeping` in spool_wait */
	if (offset == 0) {
		spool_wake(spool); /* a lane with nothing to do must let go of the segments behind it */
	} else {
		wake_lane(spool, &spool->lanes[slot % spool->lane_count]);
	}
}

uint64_t spool_used(const struct spool *spool)
{
	return atomic_load(&spool->end) - oldest_needed(spool);
}

/* ---- reading: the lanes ---- */

uint64_t spool_end(const struct spool *spool)
{
	return atomic_load(&spool->end);
}

const struct record_header *spool_next(struct spool_reader *reader, bool *damaged)
{
	const struct spool *spool = reader->spool;
	uint64_t end = atomic_load_explicit(&spool->end, memory_order_acquire);

	*damaged = false;
	while (reader->at < end) {
		uint64_t left = SPOOL_SEGMENT_BYTES - reader->at % SPOOL_SEGMENT_BYTES;
		const struct record_header *header = (const void *)address_of(spool, reader->at);
		if (header->length == 0) {
			reader->at += left;
			continue;
		}
		bool mine = header->slot % spool->lane_count == reader->lane;
		if (mine && !record_check(header, left, reader->at)) {
			*damaged = true;
			return NULL;
		}
		reader->at += header->length;
		if (mine) {
			return header;
		}
	}
	return NULL;
}

void spool_wait(struct spool_reader *reader, int64_t timeout_ms)
{
	struct spool *spool = reader->spool;
	struct lane *lane = &spool->lanes[reader->lane];
	int64_t until_ns = clock_monotonic_ns() + timeout_ms * 1000000;
	struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};

	pthread_mutex_lock(&spool->mutex);
	atomic_store(&lane->sleeping, true);
	if (atomic_load(&spool->end) <= reader->at && !atomic_load(&spool->stopped)) {
		pthread_cond_timedwait(&lane->wake, &spool->mutex, &until);
	}
	atomic_store(&lane->sleeping, false);
	pthread_mutex_unlock(&spool->mutex);
}

void spool_release(struct spool_reader *reader, uint64_t position)
{
	atomic_store_explicit(&reader->spool->lanes[reader->lane].released, position, memory_order_release);
}

void spool_stop(struct spool *spool)
{
	pthread_mutex_lock(&spool->mutex);
	atomic_store(&spool->stopped, true);
	for (unsigned i = 0; i < spool->lane_count; i++) {
		pthread_cond_signal(&spool->lanes[i].wake);
	}
	pthread_mutex_unlock(&spool->mutex);
}

bool spool_stopped(const struct spool *spool)
{
	return atomic_load(&spool->stopped);
}

bool spool_is_drained(const struct spool *spool)
{
	return oldest_needed(spool) >= atomic_load(&spool->end);
}
