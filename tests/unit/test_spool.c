/* test_spool.c - the spool against a plain model of it, then with threads at both ends.
 *
 * Each record carries a serial number as its user id and a body that follows from it, so that a record read tells
 * whether it is the one that was appended, whole.
 */
#include "../../plugin/spool_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spool_directory.h"
#include "threads.h"

#define SEGMENT ((uint64_t)SPOOL_SEGMENT_BYTES)
#define HEADER ((uint64_t)SPOOL_HEADER_BYTES)
#define RECORD_MIN (sizeof(struct record_header) + sizeof(struct record_message)) /* without a body */

static uint64_t random_state;

/* xorshift64*: the same in every run. */
static uint64_t random_below(uint64_t bound)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * UINT64_C(2685821657736338717) >> 16) % bound;
}

static struct spool_directory directory;

static struct spool *open_bytes(int64_t max_bytes, unsigned lanes)
{
	char error[256] = "";
	struct spool_recovery recovery;
	struct spool_settings settings = {.directory = directory.path, .max_bytes = max_bytes, .lanes = lanes};
	struct spool *spool = spool_open(&settings, &recovery, error, sizeof(error));
	if (!spool) {
		fail_msg("%s", error);
	}
	assert_int_equal(recovery.records, 0);
	return spool;
}

static struct spool *open_spool(int64_t segments, unsigned lanes)
{
	return open_bytes(segments * (int64_t)SEGMENT, lanes);
}

/* Nothing is left for the next test to find. */
static void close_spool(struct spool *spool)
{
	spool_close(spool);
	empty_spool_directory(&directory);
}

/* ---- records ---- */

/* A conversation that falls into the given slot. */
static int64_t conversation_in_slot(unsigned slot)
{
	int64_t id = 1;
	while (record_slot(id) != slot) {
		id++;
	}
	return id;
}

/* Every body is a piece of this, and where it begins follows from the serial number. */
static char pattern[RECORD_BYTES_MAX + 251];

static int make_pattern(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pattern); i++) {
		pattern[i] = (char)(i * 31 + i / 256);
	}
	return make_spool_directory(&directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)state;
	remove_spool_directory(&directory);
	return 0;
}

/* `length` is the whole record's. False: full. */
static bool append(struct spool *spool, int64_t serial, size_t length, unsigned slot, uint64_t *position)
{
	struct record_message message = {
		.conversation_id = conversation_in_slot(slot),
		.user_id = serial,
		.body_length = (uint32_t)(length - RECORD_MIN),
	};
	struct record_parts parts = {.body = pattern + serial % 251};
	uint64_t at = UINT64_MAX;
	void *memory;

	assert_int_equal(record_message_size(&message), length);
	memory = spool_append(spool, length, &at);
	if (!memory) {
		return false;
	}
	record_write_message(memory, at, 0, &message, &parts);
	assert_true(spool_append_done(spool, length, slot));
	if (position) {
		*position = at;
	}
	return true;
}

static bool is_record(const struct record_header *record, int64_t serial, size_t length, unsigned slot)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	return record->type == RECORD_MESSAGE && record->length == length && record->slot == slot && message->user_id == serial &&
	       message->body_length == length - RECORD_MIN &&
	       memcmp(parts.body, pattern + serial % 251, message->body_length) == 0;
}

static const struct record_header *next(struct spool_reader *reader)
{
	bool damaged = true;
	const struct record_header *record = spool_next(reader, &damaged);
	assert_false(damaged);
	return record;
}

static void expect_next(struct spool_reader *reader, int64_t serial, size_t length, unsigned slot)
{
	const struct record_header *record = next(reader);
	assert_non_null(record);
	assert_true(is_record(record, serial, length, slot));
}

/* ---- the model ---- */

enum { MODEL_RECORDS = 3000 };

struct model_record {
	uint64_t position;
	size_t length;
	unsigned slot;
	const struct record_header *where; /* once its lane has read it */
};

static struct model {
	unsigned lanes;
	uint64_t segments;
	uint64_t end;
	uint64_t released[SPOOL_LANES_MAX];
	size_t read[SPOOL_LANES_MAX]; /* records before this index have been read, or are not the lane's */
	struct model_record records[MODEL_RECORDS];
	size_t count;
} model;

static uint64_t model_oldest(void)
{
	uint64_t oldest = UINT64_MAX;
	for (unsigned i = 0; i < model.lanes; i++) {
		oldest = model.released[i] < oldest ? model.released[i] : oldest;
	}
	return oldest;
}

/* Where a record goes: behind the last, or to the next segment where it does not fit, if there are segments left. */
static bool model_place(size_t length, uint64_t *position)
{
	uint64_t offset = model.end % SEGMENT;
	*position = offset + length > SEGMENT ? model.end - offset + SEGMENT : model.end;
	*position += *position % SEGMENT == 0 ? HEADER : 0;
	return *position / SEGMENT - model_oldest() / SEGMENT < model.segments;
}

static bool try_append(struct spool *spool)
{
	static const size_t widest[] = {64, 1000, 30000, 300000, RECORD_BYTES_MAX - RECORD_MIN};
	size_t length = RECORD_MIN + (size_t)random_below(widest[random_below(5)] / 8 + 1) * 8;
	unsigned slot = (unsigned)random_below(RECORD_SLOTS);
	uint64_t expected, position = 0;
	bool room = model_place(length, &expected);

	if (!room) {
		assert_false(append(spool, (int64_t)model.count, length, slot, &position));
	} else { /* the keeper may still be making the segment */
		wait_until(append(spool, (int64_t)model.count, length, slot, &position));
		assert_int_equal(position, expected);
		model.end = position + length;
		model.records[model.count++] = (struct model_record){position, length, slot, NULL};
	}
	return room;
}

static void read_one(struct spool_reader *reader)
{
	unsigned lane = reader->lane;
	size_t i = model.read[lane];
	while (i < model.count && model.records[i].slot % model.lanes != lane) {
		i++;
	}
	const struct record_header *record = next(reader);
	if (i == model.count) {
		assert_null(record);
		assert_int_equal(reader->at, model.end);
		model.read[lane] = i;
		return;
	}
	assert_non_null(record);
	assert_true(is_record(record, (int64_t)i, model.records[i].length, model.records[i].slot));
	assert_int_equal(record->position, model.records[i].position);
	model.records[i].where = record;
	model.read[lane] = i + 1;
}

/* All that the lane has read and not released is still what it was; then it lets go of a part of it, or all. */
static void release_some(struct spool_reader *reader)
{
	unsigned lane = reader->lane;
	uint64_t position = random_below(2) ? reader->at : model.released[lane];

	for (size_t i = model.read[lane]; i-- > 0 && model.records[i].position >= model.released[lane];) {
		struct model_record *record = &model.records[i];
		if (record->where && record->slot % model.lanes == lane) {
			assert_true(is_record(record->where, (int64_t)i, record->length, record->slot));
			if (random_below(4) == 0 && position < record->position) {
				position = record->position;
			}
		}
	}
	spool_release(reader, position);
	model.released[lane] = position;
}

static void catch_up(struct spool_reader *reader)
{
	while (model.read[reader->lane] < model.count) {
		read_one(reader);
	}
	spool_release(reader, reader->at);
	model.released[reader->lane] = reader->at;
}

static void check_figures(const struct spool *spool)
{
	assert_int_equal(spool_end(spool), model.end);
	assert_int_equal(spool_used(spool), model.end - model_oldest());
	assert_int_equal(spool_is_drained(spool), model.end == model_oldest());
}

static void play(unsigned lanes, uint64_t segments, uint64_t seed)
{
	struct spool *spool = open_spool((int64_t)segments, lanes);
	struct spool_reader readers[SPOOL_LANES_MAX];
	size_t refused = 0;

	memset(&model, 0, sizeof(model));
	model.lanes = lanes;
	model.segments = segments;
	random_state = seed;
	for (unsigned i = 0; i < lanes; i++) {
		readers[i] = spool_reader(spool, i);
	}
	for (int step = 0; step < 3000; step++) {
		struct spool_reader *reader = &readers[random_below(lanes)];
		/* by turns it is read and fills up; a lane now and then catches up, or full is all that would be seen */
		uint64_t choice = random_below(8) + (step / 250 % 2 ? 0 : 3);
		if (choice < 5) {
			refused += !try_append(spool);
		} else if (choice < 8) {
			read_one(reader);
		} else if (choice < 9) {
			release_some(reader);
		} else {
			catch_up(reader);
		}
		check_figures(spool);
	}
	assert_true(refused > 0);
	assert_true(model.end > 2 * segments * SEGMENT); /* gone round more than once */
	close_spool(spool);
}

static void model_of_one_lane(void **state)
{
	(void)state;
	play(1, 2, 1);
	play(1, 5, 2);
}

static void model_of_several_lanes(void **state)
{
	(void)state;
	play(2, 2, 3);
	play(3, 3, 4);
	play(7, 4, 5);
	play(32, 6, 6);
}

/* ---- single cases ---- */

static void full_is_refused_and_recovers(void **state)
{
	struct spool *spool = open_spool(2, 1);
	struct spool_reader reader = spool_reader(spool, 0);
	int64_t written = 0, read = 0;
	uint64_t position;

	(void)state;
	for (; (uint64_t)written < 2 * (SEGMENT / 100000); written++) {
		assert_true(append(spool, written, 100000, 5, NULL));
	}
	for (int i = 0; i < 10; i++) { /* a refusal changes nothing */
		assert_null(spool_append(spool, 100000, &position));
		assert_null(spool_append(spool, RECORD_BYTES_MAX, &position));
	}
	assert_true(append(spool, written++, 50000, 5, NULL)); /* full for one record is not full for a shorter one */
	for (; read < written - 1; read++) {
		expect_next(&reader, read, 100000, 5);
	}
	expect_next(&reader, read++, 50000, 5);
	assert_null(next(&reader));
	assert_null(spool_append(spool, 100000, &position)); /* read, and not yet let go */
	spool_release(&reader, SEGMENT - 8);
	assert_null(spool_append(spool, 100000, &position));
	spool_release(&reader, SEGMENT);
	wait_until(append(spool, written, 100000, 5, &position));
	written++;
	assert_int_equal(position, 2 * SEGMENT + HEADER);
	expect_next(&reader, read++, 100000, 5);
	spool_release(&reader, reader.at);
	assert_true(spool_is_drained(spool));
	close_spool(spool);
}

static void the_slowest_lane_holds_the_space(void **state)
{
	struct spool *spool = open_spool(2, 2);
	struct spool_reader even = spool_reader(spool, 0), odd = spool_reader(spool, 1);
	uint64_t position;
	const size_t quarter = (SEGMENT - HEADER) / 4;

	(void)state;
	for (int64_t i = 0; i < 8; i++) {
		assert_true(append(spool, i, quarter, 4, NULL));
		expect_next(&even, i, quarter, 4);
	}
	spool_release(&even, even.at);
	assert_null(spool_append(spool, RECORD_MIN, &position));
	assert_int_equal(spool_used(spool), spool_end(spool));
	assert_null(next(&odd)); /* nothing of all that was for this one */
	assert_int_equal(odd.at, 2 * SEGMENT);
	spool_release(&odd, odd.at);
	assert_int_equal(spool_used(spool), 0);
	wait_until(append(spool, 0, RECORD_MIN, 5, NULL));
	assert_null(next(&even));
	expect_next(&odd, 0, RECORD_MIN, 5);
	close_spool(spool);
}

/* While the lanes keep up, what is on the disk is a few segments, however much passes and may wait. */
static void a_steady_load_takes_little_room(void **state)
{
	struct spool *spool = open_spool(16, 2);
	struct spool_reader readers[2] = {spool_reader(spool, 0), spool_reader(spool, 1)};

	(void)state;
	for (int64_t serial = 0; serial < 600; serial++) { /* 60 segments */
		unsigned slot = (unsigned)serial % RECORD_SLOTS;
		wait_until(append(spool, serial, 400000, slot, NULL));
		expect_next(&readers[slot % 2], serial, 400000, slot);
		assert_null(next(&readers[!(slot % 2)]));
		for (unsigned i = 0; i < 2; i++) {
			spool_release(&readers[i], readers[i].at);
		}
		wait_until(atomic_load(&spool->ready_end) - atomic_load(&spool->first_segment) <= 5);
	}
	close_spool(spool);
}

/* A segment filled to its last byte, and one that eight bytes are left of. */
static void ends_of_segments(void **state)
{
	struct spool *spool = open_spool(4, 1);
	struct spool_reader reader = spool_reader(spool, 0);
	uint64_t position;

	(void)state;
	assert_true(append(spool, 0, RECORD_BYTES_MAX, 0, &position));
	assert_int_equal(position, HEADER);
	assert_true(append(spool, 1, RECORD_BYTES_MAX - HEADER, 1, &position));
	assert_int_equal(position, RECORD_BYTES_MAX + HEADER);
	assert_true(append(spool, 2, RECORD_BYTES_MAX, 2, &position));
	assert_int_equal(position, SEGMENT + HEADER);
	assert_true(append(spool, 3, RECORD_BYTES_MAX - HEADER - 8, 3, &position));
	assert_true(append(spool, 4, RECORD_BYTES_MAX, 4, &position));
	assert_int_equal(position, 2 * SEGMENT + HEADER);
	assert_true(append(spool, 5, RECORD_BYTES_MAX - HEADER - 24, 5, &position)); /* what is left is a filler's header */
	wait_until(append(spool, 6, RECORD_MIN, 6, &position));
	assert_int_equal(position, 3 * SEGMENT + HEADER);
	expect_next(&reader, 0, RECORD_BYTES_MAX, 0);
	expect_next(&reader, 1, RECORD_BYTES_MAX - HEADER, 1);
	assert_int_equal(reader.at, SEGMENT);
	expect_next(&reader, 2, RECORD_BYTES_MAX, 2);
	expect_next(&reader, 3, RECORD_BYTES_MAX - HEADER - 8, 3);
	expect_next(&reader, 4, RECORD_BYTES_MAX, 4);
	expect_next(&reader, 5, RECORD_BYTES_MAX - HEADER - 24, 5);
	expect_next(&reader, 6, RECORD_MIN, 6);
	assert_null(next(&reader));
	close_spool(spool);
}

static void nothing_shows_before_it_is_done(void **state)
{
	struct spool *spool = open_spool(2, 1);
	struct spool_reader reader = spool_reader(spool, 0);
	uint64_t first, again;

	(void)state;
	assert_non_null(spool_append(spool, 200, &first));
	assert_null(next(&reader));
	assert_true(spool_is_drained(spool));
	assert_non_null(spool_append(spool, 400, &again)); /* given up, for another */
	assert_int_equal(again, first);
	assert_true(append(spool, 1, 400, 0, NULL));
	expect_next(&reader, 1, 400, 0);
	close_spool(spool);
}

static void damage_is_told_and_not_passed(void **state)
{
	struct spool *spool = open_spool(2, 2);
	struct spool_reader even = spool_reader(spool, 0), odd = spool_reader(spool, 1);
	struct record_message message = {.conversation_id = conversation_in_slot(1)};
	struct record_parts none = {0};
	bool damaged = false;
	uint64_t position;

	(void)state;
	char *memory = spool_append(spool, RECORD_MIN, &position);
	assert_non_null(memory);
	record_write_message(memory, position, 0, &message, &none);
	assert_true(spool_append_done(spool, RECORD_MIN, 1));
	memory[RECORD_MIN - 1] ^= 1;
	assert_true(append(spool, 1, 200, 2, NULL));
	assert_true(append(spool, 2, 200, 3, NULL));
	for (int i = 0; i < 3; i++) {
		assert_null(spool_next(&odd, &damaged));
		assert_true(damaged);
		assert_int_equal(odd.at, HEADER);
	}
	expect_next(&even, 1, 200, 2);
	memory[RECORD_MIN - 1] ^= 1;
	assert_non_null(next(&odd));
	expect_next(&odd, 2, 200, 3);
	close_spool(spool);
}

static void sizes_are_whole_segments(void **state)
{
	static const struct {
		int64_t max_bytes;
		int64_t segments;
	} sizes[] = {{0, 2}, {1, 2}, {(int64_t)SEGMENT * 2 - 1, 2}, {(int64_t)SEGMENT * 3, 3}, {(int64_t)SEGMENT * 4 - 1, 3}};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct spool *spool = open_bytes(sizes[i].max_bytes, 1);
		int64_t count = 0;
		while (count < sizes[i].segments) { /* of this length one fits into a segment */
			wait_until(append(spool, count, RECORD_BYTES_MAX, 0, NULL));
			count++;
		}
		assert_false(append(spool, count, RECORD_BYTES_MAX, 0, NULL));
		close_spool(spool);
	}
}

/* Positions in the database belong to one spool; two must never be taken for one another. */
static void each_spool_has_its_identity(void **state)
{
	uint8_t id[16];
	struct spool *spool = open_spool(2, 1);

	(void)state;
	memcpy(id, spool_id(spool), 16);
	assert_int_equal(id[6] >> 4, 7); /* a UUID of version 7 */
	spool_close(spool);
	spool = open_spool(2, 1);
	assert_memory_equal(id, spool_id(spool), 16); /* the directory's, not the process's */
	close_spool(spool);
	spool = open_spool(2, 1);
	assert_memory_not_equal(id, spool_id(spool), 16);
	close_spool(spool);
	spool_close(NULL);
}

/* ---- threads ---- */

enum { LANES = 3, THREAD_RECORDS = 30000 };

struct lane_thread {
	struct spool_reader reader;
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic uint64_t records;
	uint64_t wrong;
	unsigned char *seen; /* one place for each serial number; a lane writes those of its own records only */
	size_t (*length_of)(int64_t serial);
};

static size_t mixed_length(int64_t serial)
{
	return RECORD_MIN + (size_t)(serial * 7919 % 500) * 8;
}

static size_t long_length(int64_t serial)
{
	(void)serial;
	return 100000;
}

/* As a writer lane does it: takes what is there, lets go, sleeps; ends when stopped and nothing is left. */
static void *run_lane(void *argument)
{
	struct lane_thread *lane = argument;
	int64_t last = -1;
	unsigned batch = 0;

	atomic_store(&lane->tid, gettid());
	for (;;) {
		bool stopped = spool_stopped(lane->reader.spool);
		bool damaged;
		const struct record_header *record;
		while ((record = spool_next(&lane->reader, &damaged)) != NULL) {
			struct record_parts parts;
			int64_t serial = record_read_message(record, &parts)->user_id;
			bool good = serial > last && serial < THREAD_RECORDS && record->slot % LANES == lane->reader.lane &&
				    is_record(record, serial, lane->length_of(serial), record->slot) && !lane->seen[serial];
			lane->wrong += !good;
			if (good) {
				lane->seen[serial] = 1;
			}
			last = serial;
			atomic_fetch_add(&lane->records, 1);
			if (++batch % 50 == 0) {
				spool_release(&lane->reader, lane->reader.at);
			}
		}
		lane->wrong += damaged;
		spool_release(&lane->reader, lane->reader.at);
		if (stopped) {
			return NULL;
		}
		spool_wait(&lane->reader, 2 * THREADS_DEADLINE_MS);
	}
}

static void start_lanes(struct lane_thread *lanes, struct spool *spool, unsigned char *seen, size_t (*length_of)(int64_t serial))
{
	for (unsigned i = 0; i < LANES; i++) {
		lanes[i] = (struct lane_thread){.reader = spool_reader(spool, i), .seen = seen, .length_of = length_of};
		assert_int_equal(pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]), 0);
	}
}

static void stop_lanes(struct lane_thread *lanes, struct spool *spool)
{
	spool_stop(spool);
	for (unsigned i = 0; i < LANES; i++) {
		assert_int_equal(pthread_join(lanes[i].thread, NULL), 0);
		assert_int_equal(lanes[i].wrong, 0);
	}
}

/* The spool is far smaller than what passes through it, so the appender meets its end again and again. */
static void all_arrive_once_and_in_order(void **state)
{
	unsigned char *seen = calloc(THREAD_RECORDS, 1);
	struct spool *spool = open_spool(2, LANES);
	struct lane_thread lanes[LANES];

	(void)state;
	assert_non_null(seen);
	random_state = 7;
	start_lanes(lanes, spool, seen, mixed_length);
	for (int64_t serial = 0; serial < THREAD_RECORDS; serial++) {
		unsigned slot = (unsigned)random_below(RECORD_SLOTS);
		wait_until(append(spool, serial, mixed_length(serial), slot, NULL));
	}
	stop_lanes(lanes, spool);
	assert_true(spool_is_drained(spool));
	for (int64_t serial = 0; serial < THREAD_RECORDS; serial++) {
		if (!seen[serial]) {
			fail_msg("record %lld never arrived", (long long)serial);
		}
	}
	close_spool(spool);
	free(seen);
}

/* One busy conversation is one lane's; the others sleep, and must let go of what goes by all the same. */
static void idle_lanes_hold_nobody_up(void **state)
{
	unsigned char *seen = calloc(THREAD_RECORDS, 1);
	struct spool *spool = open_spool(2, LANES);
	struct lane_thread lanes[LANES];

	(void)state;
	assert_non_null(seen);
	start_lanes(lanes, spool, seen, long_length);
	for (unsigned i = 0; i < LANES; i++) {
		wait_until(thread_is_asleep(atomic_load(&lanes[i].tid)));
	}
	for (int64_t serial = 0; serial < 500; serial++) { /* six times what it holds */
		wait_until(append(spool, serial, 100000, 3, NULL));
	}
	wait_until(atomic_load(&lanes[0].records) == 500);
	/* the end of it: lanes 1 and 2 know nothing of the last records until they are asked to look */
	spool_wake(spool);
	wait_until(spool_is_drained(spool));
	stop_lanes(lanes, spool);
	close_spool(spool);
	free(seen);
}

/* Each wake-up alone: a record for a lane that sleeps, then another, then the end. */
static void a_sleeping_lane_is_woken(void **state)
{
	unsigned char *seen = calloc(THREAD_RECORDS, 1);
	struct spool *spool = open_spool(2, LANES);
	struct lane_thread lanes[LANES];

	(void)state;
	assert_non_null(seen);
	start_lanes(lanes, spool, seen, mixed_length);
	for (int64_t serial = 0; serial < 300; serial++) {
		struct lane_thread *lane = &lanes[serial % LANES];
		uint64_t before = atomic_load(&lane->records);
		wait_until(thread_is_asleep(atomic_load(&lane->tid)));
		assert_true(append(spool, serial, mixed_length(serial), (unsigned)(serial % LANES), NULL));
		wait_until(atomic_load(&lane->records) == before + 1);
	}
	for (unsigned i = 0; i < LANES; i++) {
		wait_until(thread_is_asleep(atomic_load(&lanes[i].tid)));
	}
	assert_false(spool_stopped(spool));
	stop_lanes(lanes, spool);
	assert_true(spool_stopped(spool));
	close_spool(spool);
	free(seen);
}

static void waiting_ends_by_itself(void **state)
{
	struct spool *spool = open_spool(2, 1);
	struct spool_reader reader = spool_reader(spool, 0);
	int64_t begin_ms = clock_monotonic_ms();

	(void)state;
	spool_wait(&reader, 0);
	spool_wait(&reader, 1); /* the time is over */
	assert_true(append(spool, 0, 200, 0, NULL));
	spool_wait(&reader, 2 * THREADS_DEADLINE_MS); /* there is something */
	expect_next(&reader, 0, 200, 0);
	spool_stop(spool);
	spool_wait(&reader, 2 * THREADS_DEADLINE_MS); /* it is over */
	assert_in_range(clock_monotonic_ms() - begin_ms, 0, THREADS_DEADLINE_MS);
	close_spool(spool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(model_of_one_lane),
		cmocka_unit_test(model_of_several_lanes),
		cmocka_unit_test(full_is_refused_and_recovers),
		cmocka_unit_test(the_slowest_lane_holds_the_space),
		cmocka_unit_test(a_steady_load_takes_little_room),
		cmocka_unit_test(ends_of_segments),
		cmocka_unit_test(nothing_shows_before_it_is_done),
		cmocka_unit_test(damage_is_told_and_not_passed),
		cmocka_unit_test(sizes_are_whole_segments),
		cmocka_unit_test(each_spool_has_its_identity),
		cmocka_unit_test(all_arrive_once_and_in_order),
		cmocka_unit_test(idle_lanes_hold_nobody_up),
		cmocka_unit_test(a_sleeping_lane_is_woken),
		cmocka_unit_test(waiting_ends_by_itself),
	};

	return cmocka_run_group_tests_name("spool", tests, make_pattern, remove_directory);
}
