/* fuzz_spool.c - recovery of a damaged spool: the input is a program that fills a spool and then damages its files.
 *
 * Whatever was done to them, opening either refuses or gives back records that were appended, each as it was, in order and
 * once; and all of those whose bytes are unharmed. Then it goes on: what is appended is found at the next opening, which
 * has nothing left to mend. Some records hold a forged one, sealed as well as a sender can.
 */
#include "../unit/small_spool.h"

#include "../unit/spool_directory.h"

#include <inttypes.h>
#include <sched.h>
#include <stdint.h>

#define SEGMENTS 12
#define RECORDS_MAX 96
#define DAMAGES_MAX 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct spool_directory directory;

static struct {
	const uint8_t *at, *end;
} input;

static struct {
	uint64_t position;
	size_t length;
	char *bytes; /* as they stood in the log */
	bool seen;
} model[RECORDS_MAX];
static size_t model_count;

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static unsigned next_byte(void)
{
	return input.at < input.end ? *input.at++ : 0;
}

static unsigned next_below(unsigned bound)
{
	unsigned high = next_byte();
	return (high << 8 | next_byte()) % bound;
}

static void be_silent(enum log_level level, const char *line)
{
	(void)level;
	(void)line;
}

static void remove_directory(void)
{
	remove_spool_directory(&directory);
}

static const char *path_of(const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", directory.path, name);
	return path;
}

static const char *segment_path(uint64_t number)
{
	char name[NAME_MAX_BYTES];
	segment_name(number, name);
	return path_of(name);
}

/* The same identity in every run, so that a failure in one is a failure in the next. */
static void begin_empty(void)
{
	static const uint8_t id[16] = "same in each run";
	if (!directory.path[0]) {
		log_set_sink(be_silent);
		require(make_spool_directory(&directory));
		atexit(remove_directory);
	}
	empty_spool_directory(&directory);
	int fd = open(path_of("identity"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	require(fd >= 0 && write(fd, id, sizeof(id)) == (ssize_t)sizeof(id));
	close(fd);
}

static struct spool *open_it(unsigned lanes, struct spool_recovery *found)
{
	char error[512];
	struct spool_settings settings = {
		.directory = directory.path, .max_bytes = SEGMENTS * (int64_t)SPOOL_SEGMENT_BYTES, .lanes = lanes};
	return spool_open(&settings, found, error, sizeof(error));
}

/* ---- filling ---- */

/* A whole record at the first place in the body where the scan would look for one. */
static void forge(char *body, size_t body_length, uint64_t position)
{
	const struct record_message message = {.conversation_id = 1, .user_id = 666};
	uint64_t body_at = position + sizeof(struct record_header) + sizeof(struct record_message);
	uint64_t at = (body_at + RECORD_ALIGNMENT - 1) / RECORD_ALIGNMENT * RECORD_ALIGNMENT;
	_Alignas(8) char forged[256];
	size_t length = record_message_size(&message);

	if (at - body_at + length <= body_length) {
		record_write_message(forged, at, 0, &message, &(struct record_parts){0});
		record_seal(forged, 0);
		memcpy(body + (at - body_at), forged, length);
	}
}

static void append(struct spool *spool, unsigned longest, bool forged)
{
	static char body[SPOOL_SEGMENT_BYTES];
	struct record_message message = {
		.conversation_id = (int64_t)next_byte() + 1, .user_id = (int64_t)model_count, .body_length = next_below(longest)};
	size_t length = record_message_size(&message);
	uint64_t position;
	void *at;

	while (!(at = spool_append(spool, length, &position))) {
		if (atomic_load(&spool->ready_end) == SEGMENTS) {
			return; /* full */
		}
		sched_yield();
	}
	memset(body, (int)next_byte(), message.body_length);
	if (forged) {
		forge(body, message.body_length, position);
	}
	record_write_message(at, position, 0, &message, &(struct record_parts){.body = body});
	require(spool_append_done(spool, length, record_slot(message.conversation_id)));
	model[model_count].position = position;
	model[model_count].length = length;
	model[model_count].bytes = malloc(length);
	require(model[model_count].bytes != NULL);
	memcpy(model[model_count++].bytes, at, length);
}

/* ---- reading ---- */

static void check_record(const struct record_header *record)
{
	size_t i = 0;
	while (i < model_count && model[i].position != record->position) {
		i++;
	}
	require(i < model_count && !model[i].seen && record->length == model[i].length &&
		memcmp(record, model[i].bytes, model[i].length) == 0);
	model[i].seen = true;
}

static void read_all(struct spool *spool, const struct spool_recovery *found)
{
	uint64_t count = 0;
	for (size_t i = 0; i < model_count; i++) {
		model[i].seen = false;
	}
	for (unsigned lane = 0; lane < spool->lane_count; lane++) {
		struct spool_reader reader = spool_reader(spool, lane);
		const struct record_header *record;
		uint64_t last = 0;
		bool damaged;
		while ((record = spool_next(&reader, &damaged)) != NULL) {
			require(record->position > last);
			last = record->position;
			check_record(record);
			count++;
		}
		require(!damaged && reader.at == spool_end(spool));
	}
	require(count == found->records);
}

static void require_clean(const struct spool_recovery *found)
{
	require(found->cut_bytes == 0 && found->damaged_bytes == 0 && found->damaged_places == 0 && found->missing_segments == 0);
	for (size_t i = 0; i < model_count; i++) {
		require(model[i].seen);
	}
}

/* ---- damaging ---- */

/* A place that something was written to, or a little behind it. */
static uint64_t next_place(uint64_t used)
{
	uint64_t place = (uint64_t)next_below(65536) << 16 | next_below(65536);
	return place % (used + 64);
}

static void overwrite(uint64_t place, const void *bytes, size_t length)
{
	uint64_t offset = place % SPOOL_SEGMENT_BYTES;
	size_t room = (size_t)(SPOOL_SEGMENT_BYTES - offset);
	int fd = open(segment_path(place / SPOOL_SEGMENT_BYTES), O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = length < room ? length : room;
		require(pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length);
		close(fd);
	}
}

/* Of a file that is gone, or short: zeros. */
static void read_back(uint64_t place, char *bytes, size_t length)
{
	int fd = open(segment_path(place / SPOOL_SEGMENT_BYTES), O_RDONLY | O_CLOEXEC);
	memset(bytes, 0, length);
	if (fd >= 0) {
		require(pread(fd, bytes, length, (off_t)(place % SPOOL_SEGMENT_BYTES)) >= 0);
		close(fd);
	}
}

static void damage(uint64_t used)
{
	static char bytes[1 << 14];
	uint64_t place = next_place(used);
	size_t length = 1 + next_below(sizeof(bytes));

	switch (next_byte() % 8) {
	case 0:
		memset(bytes, 0, length);
		overwrite(place, bytes, length);
		break;
	case 1:
		memset(bytes, (int)next_byte(), length);
		overwrite(place, bytes, length);
		break;
	case 2: { /* what was written elsewhere */
		uint64_t from = next_place(used);
		size_t room = (size_t)(SPOOL_SEGMENT_BYTES - from % SPOOL_SEGMENT_BYTES);
		length = length < room ? length : room;
		read_back(from, bytes, length);
		overwrite(place, bytes, length);
		break;
	}
	case 3:
		require(truncate(segment_path(place / SPOOL_SEGMENT_BYTES), (off_t)(place % SPOOL_SEGMENT_BYTES)) == 0 ||
			errno == ENOENT);
		break;
	case 4:
		if (next_byte() % 4 == 0) {
			unlink(segment_path(place / SPOOL_SEGMENT_BYTES));
			break;
		}
		/* fall through */
	default: { /* a bit of a byte */
		char byte;
		read_back(place, &byte, 1);
		byte = (char)(byte ^ 1 << next_byte() % 8);
		overwrite(place, &byte, 1);
	}
	}
}

static bool is_unharmed(size_t i)
{
	static char bytes[SPOOL_SEGMENT_BYTES];
	read_back(model[i].position, bytes, model[i].length);
	return memcmp(bytes, model[i].bytes, model[i].length) == 0;
}

/* ---- the whole ---- */

static uint64_t fill(void)
{
	struct spool_recovery found;
	struct spool *spool = open_it(1 + next_byte() % 8, &found);
	unsigned choice;

	require(spool != NULL);
	while (input.at < input.end && model_count < RECORDS_MAX / 2 && (choice = next_byte() % 16) != 15) {
		if (choice == 14) {
			spool_close(spool);
			spool = open_it(1 + next_byte() % 8, &found);
			require(spool != NULL);
			read_all(spool, &found);
			require_clean(&found);
		} else {
			append(spool, choice < 10 ? 2000 : 30000, choice % 5 == 4);
		}
	}
	uint64_t used = spool_end(spool);
	spool_close(spool);
	return used;
}

/* What recovery left is whole: it is appended to, and opened again. */
static void go_on(struct spool *spool)
{
	struct spool_recovery found;
	size_t kept = 0;

	for (size_t i = 0; i < model_count; i++) {
		if (model[i].seen) {
			model[kept++] = model[i];
		} else {
			free(model[i].bytes);
		}
	}
	model_count = kept;
	for (unsigned i = 0; i < 4; i++) {
		append(spool, 20000, false);
	}
	spool_close(spool);
	spool = open_it(3, &found);
	require(spool != NULL);
	read_all(spool, &found);
	require_clean(&found);
	spool_close(spool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool unharmed[RECORDS_MAX];
	struct spool_recovery found;

	input.at = data;
	input.end = data + size;
	model_count = 0;
	begin_empty();
	uint64_t used = fill();
	for (unsigned i = 0; input.at < input.end && i < DAMAGES_MAX; i++) {
		damage(used);
	}
	for (size_t i = 0; i < model_count; i++) {
		unharmed[i] = is_unharmed(i);
	}
	struct spool *spool = open_it(2, &found);
	if (spool) {
		read_all(spool, &found);
		for (size_t i = 0; i < model_count; i++) {
			require(model[i].seen == unharmed[i]);
		}
		go_on(spool);
	}
	while (model_count > 0) {
		free(model[--model_count].bytes);
	}
	return 0;
}
