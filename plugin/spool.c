/* spool.c - see spool.h: appending, reading, and the keeper. Opening what an earlier process left is spool_recover.c's.
 *
 * Threads. `end` is stored by the broker thread (release) and loaded by the lanes (acquire); each lane's `released` the
 * other way round. `ready_end` is stored by the keeper after a segment's address stands in the table, and loaded by the
 * broker thread before it uses it; `first` likewise tells which segments are gone, and the keeper lets go of one only
 * after every lane has released it, and under `deleting`, so that a lane can go back to what is still there. The other
 * mutex guards nothing but sleeping: a lane says that it will sleep, looks once
 * more, and sleeps; the appender signals only sleepers, so that an append costs no system call while lanes are busy.
 */
#include "spool.h"

#include "clock.h"
#include "log.h"
#include "spool_files.h"
#include "test_faults.h"
#include "thread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Segments made ready ahead: what arrives while one is being made, with room to spare. */
#define READY_AHEAD 3
/* One that is read while the next is filled. */
#define SEGMENTS_MIN 2
/* How often the keeper looks, when nobody wakes it; and how soon it tries again after a full disk. */
#define KEEPER_IDLE_MS 200

static uint64_t oldest_needed(const struct spool *spool)
{
	uint64_t oldest = UINT64_MAX;
	for (unsigned i = 0; i < spool->lane_count; i++) {
		uint64_t released = atomic_load_explicit(&spool->lanes[i].released, memory_order_acquire);
		oldest = released < oldest ? released : oldest;
	}
	return oldest;
}

const uint8_t *spool_id(const struct spool *spool)
{
	return spool->id;
}

uint64_t spool_used(const struct spool *spool)
{
	return atomic_load(&spool->end) - oldest_needed(spool);
}

uint64_t spool_recovered_end(const struct spool *spool)
{
	return spool->recovered_end;
}

uint64_t spool_end(const struct spool *spool)
{
	return atomic_load(&spool->end);
}

bool spool_is_drained(const struct spool *spool)
{
	return oldest_needed(spool) >= atomic_load(&spool->end);
}

void spool_flushes(const struct spool *spool, uint64_t *done, uint64_t *failed)
{
	*done = atomic_load(&spool->flushes);
	*failed = atomic_load(&spool->flush_failures);
}

/* ---- appending: the broker thread ---- */

static void wake_keeper(struct spool *spool)
{
	if (!atomic_exchange(&spool->keeper_wanted, true)) {
		pthread_mutex_lock(&spool->mutex);
		pthread_cond_signal(&spool->keeper_wake);
		pthread_mutex_unlock(&spool->mutex);
	}
}

/* Whether segment n may be written to. Few left, the keeper is asked for more, where it can make more: after a full disk
 * it looks again by itself. */
static bool segment_is_ready(struct spool *spool, uint64_t n)
{
	uint64_t ready_end = atomic_load_explicit(&spool->ready_end, memory_order_acquire);
	if (n + READY_AHEAD >= ready_end && ready_end < atomic_load(&spool->first_segment) + spool->max_segments &&
		!atomic_load(&spool->disk_full)) {
		wake_keeper(spool);
	}
	return n < ready_end;
}

void *spool_append(struct spool *spool, size_t length, uint64_t *position)
{
	uint64_t end = atomic_load_explicit(&spool->end, memory_order_relaxed);
	uint64_t offset = end % SPOOL_SEGMENT_BYTES;
	uint64_t at = end;

	assert(length <= RECORD_BYTES_MAX && length % RECORD_ALIGNMENT == 0);
	if (offset == 0) {
		at += SPOOL_HEADER_BYTES;
	} else if (offset + length > SPOOL_SEGMENT_BYTES) {
		at += SPOOL_SEGMENT_BYTES - offset + SPOOL_HEADER_BYTES;
	}
	if (!segment_is_ready(spool, spool_segment_of(at))) {
		return NULL;
	}
	if (offset != 0 && at != end) {
		spool_fill(spool, end, at - SPOOL_HEADER_BYTES); /* nobody sees it before `end` has moved past */
	}
	spool->append_at = *position = at;
	return spool_bytes_at(spool, at);
}

/* Flushes what lies between two positions of one segment. With msync(), which on Linux is fdatasync() of a range
 * (mm/msync.c: vfs_fsync_range with datasync), device cache included; and it reports what failed since the mapping was made,
 * while a descriptor opened anew for fdatasync() may not hear of it. None has to be kept open for each segment. */
static bool flush_range(struct spool *spool, uint64_t from, uint64_t to)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t begin = from - from % page;

	if (from == to || spool->flush(spool_bytes_at(spool, begin), (size_t)(to - begin), MS_SYNC) == 0) {
		return true;
	}
	atomic_fetch_add(&spool->flush_failures, 1);
	if (!atomic_exchange(&spool->flush_failing, true)) {
		log_line(LOG_LEVEL_ERROR, "chat: spool: flushing %s failed: %s; check the disk and the kernel's log",
			spool->directory, strerror(errno));
	}
	return false;
}

/* Flushes from..to, which are in the same segment or in neighbours. */
static bool flush(struct spool *spool, uint64_t from, uint64_t to)
{
	atomic_fetch_add(&spool->flushes, 1);
	while (from < to) {
		uint64_t segment_end = spool_base_of(spool_segment_of(from) + 1);
		uint64_t until = to < segment_end ? to : segment_end;
		if (from >= spool_base_of(atomic_load(&spool->first_segment)) && !flush_range(spool, from, until)) {
			return false;
		}
		from = until;
	}
	if (atomic_exchange(&spool->flush_failing, false)) {
		log_line(LOG_LEVEL_NOTICE, "chat: spool: flushing %s succeeds again", spool->directory);
	}
	return true;
}

/* After a failed flush the kernel takes the pages for clean, and calls the next flush a success though nothing was written
 * (PostgreSQL's fsyncgate, 2018). So it is not tried again: nothing more goes into this segment, and what its last pages
 * hold of records that were acknowledged is kept by memory alone until it is committed. */
static void abandon_segment(struct spool *spool)
{
	uint64_t next = spool_base_of(spool_segment_of(spool->append_at) + 1);
	spool_fill(spool, spool->append_at, next);
	atomic_store(&spool->end, next);
	spool_wake(spool);
}

static void wake_lane(struct spool *spool, struct spool_lane *lane)
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

bool spool_append_done(struct spool *spool, size_t length, unsigned slot)
{
	uint64_t end = atomic_load_explicit(&spool->end, memory_order_relaxed);

	record_seal(spool_bytes_at(spool, spool->append_at), spool->seal);
	if (spool->sync == SPOOL_SYNC_ALWAYS && !flush(spool, end, spool->append_at + length)) {
		abandon_segment(spool);
		return false;
	}
	TEST_CRASH_POINT("written");
	atomic_store(&spool->end, spool->append_at + length); /* sequentially consistent, against `sleeping` in spool_wait */
	if (spool->append_at % SPOOL_SEGMENT_BYTES == SPOOL_HEADER_BYTES) {
		spool_wake(spool); /* a lane with nothing to do must let go of the segments behind it */
	} else {
		wake_lane(spool, &spool->lanes[slot % spool->lane_count]);
	}
	TEST_CRASH_POINT("appended");
	return true;
}

/* ---- reading: the lanes ---- */

struct spool_reader spool_reader(struct spool *spool, unsigned lane)
{
	return (struct spool_reader){.spool = spool, .lane = lane, .at = atomic_load(&spool->lanes[lane].released)};
}

const struct record_header *spool_next(struct spool_reader *reader, bool *damaged)
{
	const struct spool *spool = reader->spool;
	uint64_t end = atomic_load_explicit(&spool->end, memory_order_acquire);

	*damaged = false;
	while (reader->at < end) {
		uint64_t offset = reader->at % SPOOL_SEGMENT_BYTES;
		if (offset == 0) {
			reader->at += SPOOL_HEADER_BYTES;
			continue;
		}
		uint64_t left = SPOOL_SEGMENT_BYTES - offset;
		if (left < sizeof(struct record_header)) {
			reader->at += left;
			continue;
		}
		/* What is another lane's is checked by that lane; of it only the length is used here. */
		const struct record_header *header = (const void *)spool_bytes_at(spool, reader->at);
		bool mine = header->type != RECORD_FILLER && header->slot % spool->lane_count == reader->lane;
		if (header->length < sizeof(*header) || header->length > left ||
			(mine && !record_check(header, left, reader->at, spool->seal))) {
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
	struct spool_lane *lane = &spool->lanes[reader->lane];
	struct timespec until = clock_deadline(timeout_ms);

	pthread_mutex_lock(&spool->mutex);
	atomic_store(&lane->sleeping, true);
	if (atomic_load(&spool->end) <= reader->at && !atomic_load(&spool->stopped)) {
		pthread_cond_timedwait(&lane->wake, &spool->mutex, &until);
	}
	atomic_store(&lane->sleeping, false);
	pthread_mutex_unlock(&spool->mutex);
}

void spool_reader_back(struct spool_reader *reader)
{
	struct spool *spool = reader->spool;
	pthread_mutex_lock(&spool->deleting); /* what the keeper has not begun to delete, it keeps now */
	reader->at = spool_base_of(atomic_load(&spool->first_segment));
	atomic_store(&spool->lanes[reader->lane].released, reader->at);
	pthread_mutex_unlock(&spool->deleting);
}

void spool_release(struct spool_reader *reader, uint64_t position)
{
	struct spool *spool = reader->spool;
	uint64_t before = atomic_load_explicit(&spool->lanes[reader->lane].released, memory_order_relaxed);
	atomic_store_explicit(&spool->lanes[reader->lane].released, position, memory_order_release);
	if (spool_segment_of(before) != spool_segment_of(position)) {
		wake_keeper(spool);
	}
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

/* ---- the keeper ---- */

static void note_disk_full(struct spool *spool, bool full, int why)
{
	if (atomic_exchange(&spool->disk_full, full) == full) {
		return;
	}
	if (full) {
		log_line(LOG_LEVEL_ERROR,
			"chat: spool: no room for another segment in %s: %s; messages are refused when the last is full",
			spool->directory, strerror(why));
	} else {
		log_line(LOG_LEVEL_NOTICE, "chat: spool: there is room again in %s", spool->directory);
	}
}

static void make_ready(struct spool *spool)
{
	uint64_t ready_end = atomic_load_explicit(&spool->ready_end, memory_order_relaxed);
	uint64_t wanted_end = spool_segment_of(atomic_load(&spool->end)) + 1 + READY_AHEAD;
	uint64_t bound = atomic_load(&spool->first_segment) + spool->max_segments;

	while (ready_end < wanted_end && ready_end < bound) {
		if (!spool_make_segment(spool, ready_end)) {
			note_disk_full(spool, true, errno);
			return;
		}
		note_disk_full(spool, false, 0);
		TEST_CRASH_POINT("segment_made");
		atomic_store_explicit(&spool->ready_end, ++ready_end, memory_order_release);
	}
}

/* All that every lane has released, but one always stays: its number says where the positions go on. */
static void delete_released(struct spool *spool)
{
	pthread_mutex_lock(&spool->deleting);
	uint64_t needed = spool_segment_of(oldest_needed(spool));
	uint64_t last = atomic_load(&spool->ready_end) - 1;
	uint64_t first = atomic_load_explicit(&spool->first_segment, memory_order_relaxed);

	for (needed = needed < last ? needed : last; first < needed; first++) {
		spool_delete_segment(spool, first);
		TEST_CRASH_POINT("segment_freed");
		atomic_store(&spool->first_segment, first + 1);
	}
	pthread_mutex_unlock(&spool->deleting);
}

/* Only what has changed since: an idle spool is not flushed. What failed is written once more before it is flushed again
 * (see abandon_segment), up to where it was tried: behind that the broker thread writes. */
static void flush_interval(struct spool *spool)
{
	uint64_t end = atomic_load(&spool->end);
	if (spool->sync != SPOOL_SYNC_INTERVAL || end == spool->flushed) {
		return;
	}
	if (atomic_load(&spool->flush_failing) && !spool_rewrite(spool, spool->flushed, end)) {
		return;
	}
	if (flush(spool, spool->flushed, end)) {
		spool->flushed = end;
	}
}

/* What an earlier process left may never have been flushed, and recovery has mended some of it. */
static bool flush_recovered(struct spool *spool, char *error, size_t error_size)
{
	uint64_t first = spool_base_of(atomic_load(&spool->first_segment)), end = atomic_load(&spool->end);
	if (spool->sync == SPOOL_SYNC_NONE || first == end || flush(spool, first, end)) {
		return true;
	}
	snprintf(error, error_size, "plugin_opt_spool_dir: cannot flush %s; check the disk and the kernel's log",
		spool->directory);
	return false;
}

static void *keeper_main(void *argument)
{
	struct spool *spool = argument;
	int64_t pause_ms =
		spool->sync == SPOOL_SYNC_INTERVAL && spool->sync_ms < KEEPER_IDLE_MS ? spool->sync_ms : KEEPER_IDLE_MS;

	while (!atomic_load(&spool->closing)) {
		atomic_store(&spool->keeper_wanted, false);
		flush_interval(spool);
		delete_released(spool);
		make_ready(spool);
		struct timespec until = clock_deadline(pause_ms);
		pthread_mutex_lock(&spool->mutex);
		if (!atomic_load(&spool->keeper_wanted) && !atomic_load(&spool->closing)) {
			pthread_cond_timedwait(&spool->keeper_wake, &spool->mutex, &until);
		}
		pthread_mutex_unlock(&spool->mutex);
	}
	delete_released(spool);
	flush_interval(spool);
	return NULL;
}

/* ---- opening and closing ---- */

static void init_threads(struct spool *spool)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&spool->mutex, NULL);
	pthread_mutex_init(&spool->deleting, NULL);
	pthread_cond_init(&spool->keeper_wake, &monotonic);
	for (unsigned i = 0; i < spool->lane_count; i++) {
		pthread_cond_init(&spool->lanes[i].wake, &monotonic);
	}
	pthread_condattr_destroy(&monotonic);
}

struct spool *spool_open(const struct spool_settings *settings, struct spool_recovery *recovery, char *error, size_t error_size)
{
	struct spool *spool = calloc(1, sizeof(*spool));

	assert(settings->lanes > 0 && settings->lanes <= SPOOL_LANES_MAX);
	memset(recovery, 0, sizeof(*recovery));
	if (!spool) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	spool->directory_fd = spool->lock_fd = -1;
	spool->lane_count = settings->lanes;
	spool->sync = settings->sync;
	spool->sync_ms = settings->sync_ms;
	spool->flush = msync;
	spool->max_segments = (uint64_t)settings->max_bytes / SPOOL_SEGMENT_BYTES;
	if (spool->max_segments < SEGMENTS_MIN) {
		spool->max_segments = SEGMENTS_MIN;
	}
	init_threads(spool);
	if (!spool_files_open(spool, settings->directory, error, error_size) ||
		!spool_recover(spool, recovery, error, error_size) || !flush_recovered(spool, error, error_size)) {
		goto failed;
	}
	spool->recovered_end = spool->flushed = atomic_load(&spool->end);
	if (!spool_begin_unchecked(spool, error, error_size)) {
		goto failed;
	}
	for (unsigned i = 0; i < spool->lane_count; i++) {
		atomic_store(&spool->lanes[i].released, spool_base_of(atomic_load(&spool->first_segment)));
	}
	make_ready(spool);
	if (atomic_load(&spool->ready_end) == 0) {
		snprintf(error, error_size, "plugin_opt_spool_dir: %s has no room for a segment of %zu bytes; free some",
			settings->directory, SPOOL_SEGMENT_BYTES);
		goto failed;
	}
	spool->keeper_started = thread_start(&spool->keeper, keeper_main, spool);
	if (!spool->keeper_started) {
		snprintf(error, error_size, "cannot start a thread");
		goto failed;
	}
	return spool;
failed:
	spool_close(spool);
	return NULL;
}

void spool_close(struct spool *spool)
{
	if (!spool) {
		return;
	}
	if (spool->keeper_started) {
		pthread_mutex_lock(&spool->mutex);
		atomic_store(&spool->closing, true);
		pthread_cond_signal(&spool->keeper_wake);
		pthread_mutex_unlock(&spool->mutex);
		pthread_join(spool->keeper, NULL);
	}
	spool_files_close(spool);
	for (unsigned i = 0; i < spool->lane_count; i++) {
		pthread_cond_destroy(&spool->lanes[i].wake);
	}
	pthread_cond_destroy(&spool->keeper_wake);
	pthread_mutex_destroy(&spool->deleting);
	pthread_mutex_destroy(&spool->mutex);
	free(spool);
}
