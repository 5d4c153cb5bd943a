/* test_spool_model.c - a spool and a database's positions against a plain model, over many openings with other numbers of
 * lanes; and a small spool cut at every byte, and with every bit flipped.
 *
 * The model is the list of what was appended. The database is 64 positions. Whatever happened in between, each record is
 * committed once, in the order of its slot, as it was appended. CHAT_TEST_SEED=n plays another game.
 */
#include "small_spool.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "spool_directory.h"
#include "threads.h"

#define SEGMENT ((uint64_t)SPOOL_SEGMENT_BYTES)
#define HEADER ((uint64_t)SPOOL_HEADER_BYTES)
#define SEGMENTS 8

enum { RECORDS_MAX = 20000, STEPS = 4000, BODY_MAX = 6000 };

static struct spool_directory directory;
static uint64_t random_state;

/* xorshift64*: the same in every run. */
static uint64_t random_below(uint64_t bound)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * UINT64_C(2685821657736338717) >> 16) % bound;
}

static void be_silent(enum log_level level, const char *line)
{
	(void)level;
	(void)line;
}

static int begin(void **state)
{
	(void)state;
	log_set_sink(be_silent);
	return make_spool_directory(&directory) ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	remove_spool_directory(&directory);
	return 0;
}

static struct spool *open_spool(unsigned lanes, struct spool_recovery *found)
{
	char error[512] = "";
	struct spool_settings settings = {
		.directory = directory.path, .max_bytes = (int64_t)(SEGMENTS * SEGMENT), .lanes = lanes};
	struct spool *spool = spool_open(&settings, found, error, sizeof(error));
	if (!spool) {
		fail_msg("%s", error);
	}
	return spool;
}

/* ---- records: what they hold follows from their serial number ---- */

static char fill_of(int64_t serial)
{
	return (char)('a' + serial % 26);
}

static bool append(struct spool *spool, int64_t serial, int64_t conversation, uint32_t body_length, bool done, uint64_t *end_at)
{
	static char body[BODY_MAX];
	struct record_message message = {.conversation_id = conversation, .user_id = serial, .body_length = body_length};
	size_t length = record_message_size(&message);
	void *at = spool_append(spool, length, end_at);

	if (!at) {
		return false;
	}
	memset(body, fill_of(serial), body_length);
	record_write_message(at, *end_at, 0, &message, &(struct record_parts){.body = body});
	*end_at += length;
	return !done || spool_append_done(spool, length, record_slot(conversation));
}

static bool is_record(const struct record_header *record, int64_t serial, int64_t conversation, uint32_t body_length)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	bool good = record->type == RECORD_MESSAGE && message->user_id == serial && message->conversation_id == conversation &&
		    message->body_length == body_length && record->slot == record_slot(conversation);
	for (uint32_t i = 0; good && i < body_length; i++) {
		good = parts.body[i] == fill_of(serial);
	}
	return good;
}

/* ---- the game ---- */

static struct {
	struct {
		uint64_t end;
		int64_t conversation;
		uint32_t body_length;
		bool committed;
	} records[RECORDS_MAX];
	size_t count, committed;
	uint64_t database[RECORD_SLOTS];
} model;

static struct spool *spool;
static struct spool_reader readers[SPOOL_LANES_MAX];
static unsigned lanes;

static void open_again(void)
{
	struct spool_recovery found;
	uint64_t waiting = 0;

	if (spool) {
		uint64_t torn;
		if (random_below(2)) { /* it died in the middle of an append */
			(void)append(spool, 0, 1, (uint32_t)random_below(BODY_MAX), false, &torn);
		}
		spool_close(spool);
	}
	lanes = 1 + (unsigned)random_below(random_below(4) ? 4 : SPOOL_LANES_MAX);
	spool = open_spool(lanes, &found);
	for (size_t i = 0; i < model.count; i++) {
		waiting += model.records[i].end > model.database[record_slot(model.records[i].conversation)];
	}
	assert_int_equal(found.waiting, waiting);
	assert_int_equal(found.damaged_places + found.missing_segments, 0);
	assert_true(model.count == 0 || spool_end(spool) >= model.records[model.count - 1].end);
	for (unsigned i = 0; i < lanes; i++) {
		readers[i] = spool_reader(spool, i);
	}
}

static void append_one(void)
{
	int64_t conversation = 1 + (int64_t)random_below(200);
	uint32_t body_length = (uint32_t)random_below(random_below(4) ? 300 : BODY_MAX);
	uint64_t end_at;

	if (model.count < RECORDS_MAX && append(spool, (int64_t)model.count, conversation, body_length, true, &end_at)) {
		assert_true(model.count == 0 || end_at > model.records[model.count - 1].end);
		model.records[model.count].end = end_at;
		model.records[model.count].conversation = conversation;
		model.records[model.count++].body_length = body_length;
	}
}

/* As a lane does it: what the positions say is committed is passed over; of the rest each slot's next one comes. Without
 * `commit` it is read and forgotten, as by a process that dies before its commit. */
static void read_some(struct spool_reader *reader, size_t most, bool commit)
{
	const struct record_header *record;
	bool damaged = false;

	while (most-- > 0 && (record = spool_next(reader, &damaged)) != NULL) {
		struct record_parts parts;
		size_t serial = (size_t)record_read_message(record, &parts)->user_id;
		uint64_t end_at = record->position + record->length;
		assert_in_range(serial, 0, model.count - 1);
		assert_int_equal(end_at, model.records[serial].end);
		assert_true(is_record(
			record, (int64_t)serial, model.records[serial].conversation, model.records[serial].body_length));
		assert_int_equal(record->slot % lanes, reader->lane);
		assert_int_equal(model.records[serial].committed, end_at <= model.database[record->slot]);
		if (commit && !model.records[serial].committed) {
			model.records[serial].committed = true;
			model.committed++;
			model.database[record->slot] = end_at;
			spool_note_committed(spool, record->slot, end_at);
		}
	}
	assert_false(damaged);
	if (commit) {
		spool_release(reader, reader->at);
	}
}

static void play(uint64_t seed)
{
	print_message("seed %llu\n", (unsigned long long)seed);
	memset(&model, 0, sizeof(model));
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	open_again();
	for (int step = 0; step < STEPS; step++) {
		uint64_t choice = random_below(step / 500 % 2 ? 1000 : 1400); /* by turns it fills, and is read empty */
		if (choice < 5) {
			open_again();
		} else if (choice < 8) { /* read, and not committed before the end */
			read_some(&readers[random_below(lanes)], 1 + (size_t)random_below(100), false);
			open_again();
		} else if (choice < 600) {
			append_one();
		} else {
			read_some(&readers[random_below(lanes)], 1 + (size_t)random_below(8), true);
		}
	}
	for (unsigned i = 0; i < lanes; i++) {
		read_some(&readers[i], RECORDS_MAX, true);
	}
	assert_true(spool_is_drained(spool));
	assert_int_equal(model.committed, model.count);
	open_again();
	spool_close(spool);
	spool = NULL;
	empty_spool_directory(&directory);
}

static void each_is_committed_once_and_in_order(void **state)
{
	const char *seed = getenv("CHAT_TEST_SEED");
	(void)state;
	if (seed) {
		play(strtoull(seed, NULL, 10));
		return;
	}
	for (uint64_t i = 1; i <= 5; i++) {
		play(i);
	}
}

/* ---- every byte, every bit ---- */

enum { SMALL = 4, SMALL_BODY = 5 };

static char original[SEGMENT];

static const char *segment_file(void)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%016x.segment", directory.path, 0);
	return path;
}

static void write_segment(size_t length)
{
	int fd = open(segment_file(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && write(fd, original, length) == (ssize_t)length);
	close(fd);
}

/* A few records; where each ends. */
static void make_small(uint64_t ends[SMALL + 1])
{
	struct spool_recovery found;
	struct spool *small = open_spool(1, &found);
	ends[0] = HEADER;
	for (int64_t i = 0; i < SMALL; i++) {
		assert_true(append(small, i, i + 1, SMALL_BODY, true, &ends[i + 1]));
	}
	spool_close(small);
	int fd = open(segment_file(), O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, original, sizeof(original)) == (ssize_t)sizeof(original));
	close(fd);
}

/* Opens, reads, appends one more. Returns how many of them there are; sets *seen to which. */
static unsigned reopen_small(struct spool_recovery *found, unsigned *seen)
{
	struct spool *small = open_spool(1, found);
	struct spool_reader reader = spool_reader(small, 0);
	const struct record_header *record;
	bool damaged;
	unsigned count = 0;
	uint64_t end_at;
	int64_t last = -1;

	*seen = 0;
	while ((record = spool_next(&reader, &damaged)) != NULL) {
		struct record_parts parts;
		int64_t serial = record_read_message(record, &parts)->user_id;
		assert_in_range(serial, 0, SMALL - 1);
		assert_true(serial > last && is_record(record, serial, serial + 1, SMALL_BODY));
		last = serial;
		*seen |= 1u << serial;
		count++;
	}
	assert_false(damaged);
	assert_int_equal(count, found->records);
	assert_true(append(small, 99, 1, SMALL_BODY, true, &end_at));
	spool_close(small);
	return count;
}

/* The file ends at every byte of the last records: those before are there, the torn one is cut. */
static void cut_at_every_byte(void **state)
{
	uint64_t ends[SMALL + 1];
	struct spool_recovery found;
	unsigned seen;

	(void)state;
	make_small(ends);
	for (uint64_t length = ends[SMALL - 3]; length <= ends[SMALL]; length++) {
		unsigned whole = 0;
		while (whole < SMALL && ends[whole + 1] <= length) {
			whole++;
		}
		/* the last bytes of a record may be zeros of its padding, and then are not missed */
		while (whole < SMALL && used_bytes(original, ends[whole + 1]) <= length) {
			whole++;
		}
		write_segment(length);
		assert_int_equal(reopen_small(&found, &seen), whole);
		assert_int_equal(seen, (1u << whole) - 1);
		assert_int_equal(found.damaged_bytes, 0);
		assert_true(found.cut_bytes <= ends[1] - ends[0]);
		assert_int_equal(found.cut_bytes > 0, length > ends[whole]);
	}
}

/* Any one bit, the segment's header included: the record that it belongs to is lost, and that is said; the others are there. */
static void flip_every_bit(void **state)
{
	uint64_t ends[SMALL + 1];
	struct spool_recovery found;
	unsigned seen;

	(void)state;
	make_small(ends);
	for (uint64_t bit = 0; bit < ends[SMALL] * 8; bit++) {
		unsigned harmed = SMALL; /* none */
		for (unsigned i = 0; i < SMALL; i++) {
			if (bit / 8 >= ends[i] && bit / 8 < ends[i + 1]) {
				harmed = i;
			}
		}
		original[bit / 8] ^= (char)(1 << bit % 8);
		write_segment(ends[SMALL]);
		original[bit / 8] ^= (char)(1 << bit % 8);
		reopen_small(&found, &seen);
		assert_int_equal(seen, ((1u << SMALL) - 1) & ~(1u << harmed));
		if (harmed < SMALL) {
			assert_int_equal(found.cut_bytes > 0, harmed == SMALL - 1);
			assert_int_equal(found.damaged_places, harmed < SMALL - 1);
		}
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(each_is_committed_once_and_in_order),
		CASE(cut_at_every_byte),
		CASE(flip_every_bit),
	};

	return cmocka_run_group_tests_name("spool model", tests, NULL, NULL);
}
