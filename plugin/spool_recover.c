/* spool_recover.c - opening what an earlier process left: which records are good, where the log ends.
 *
 * Every record says its own position, so a good one cannot be taken for another, wherever bytes were lost:
 *
 *   good | good | ??????????? | good | filler || good | torn...........0000000000000
 *               ^ damage                              ^ end
 *
 * - Behind the last good record of all: a torn tail, which is cut (zeroed). A crash in the middle of an append
 *   leaves this; nothing in it was acknowledged, unless the disk lost it.
 * - Before it: damage. The bytes are set aside in a file, their place becomes a filler, and the log goes on behind.
 *   A segment that others follow is filled to its end, so zeros there are damage too.
 * - A segment file that is missing between others becomes an empty one.
 * - A good record of an unknown version or type refuses: a newer program wrote it, and only that one can carry it on.
 *
 * Runs in spool_open, before the keeper.
 */
#include "spool_files.h"

#include "log.h"
#include "test_faults.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 2^40 segments are 2^62 bytes: positions stay positive as a bigint. */
#define SEGMENT_NUMBER_MAX (UINT64_C(1) << 40)

struct scan {
	struct spool *spool;
	struct spool_recovery *recovery;
	uint64_t end;                        /* behind the last good record of all so far */
	const struct record_header *unknown; /* whole, but of another release */
};

/* How many bytes up to the last one that is not zero. */
static size_t used_bytes(const char *bytes, size_t length)
{
	static const char zeros[4096]; /* most of a segment's rest, and all of one that was only made ready */
	while (length >= sizeof(zeros) && memcmp(bytes + length - sizeof(zeros), zeros, sizeof(zeros)) == 0) {
		length -= sizeof(zeros);
	}
	while (length > 0 && bytes[length - 1] == 0) {
		length--;
	}
	return length;
}

static bool is_whole(const struct spool *spool, uint64_t position)
{
	return record_is_whole(
		spool_bytes_at(spool, position), SPOOL_SEGMENT_BYTES - position % SPOOL_SEGMENT_BYTES, position, spool->seal);
}

/* The next whole record at or behind `from`; `until` where there is none. None is shorter than a header, so behind a damaged
 * one the search begins that far on. */
static uint64_t next_whole(const struct spool *spool, uint64_t from, uint64_t until)
{
	if (from < until && is_whole(spool, from)) {
		return from;
	}
	for (from += sizeof(struct record_header); from < until; from += RECORD_ALIGNMENT) {
		if (is_whole(spool, from)) {
			return from;
		}
	}
	return until;
}

/* Makes from..to unreadable bytes no more: kept in a file, then fillers. */
static void heal(const struct scan *scan, uint64_t from, uint64_t to)
{
	size_t length = (size_t)(to - from);
	const char *bytes = spool_bytes_at(scan->spool, from);

	if (used_bytes(bytes, length) > 0) {
		spool_set_aside(scan->spool, from, bytes, length);
	}
	scan->recovery->damaged_bytes += length;
	scan->recovery->damaged_places++;
	spool_fill(scan->spool, from, to);
}

static void count(const struct scan *scan, const struct record_header *record)
{
	if (record->type != RECORD_FILLER) {
		scan->recovery->records++;
		scan->recovery->waiting += record->position + record->length > atomic_load(&scan->spool->committed[record->slot]);
	}
}

/* Walks one segment: damage before a good record is healed at once. Returns where the rest without one begins. */
static uint64_t scan_segment(struct scan *scan, uint64_t number)
{
	struct spool *spool = scan->spool;
	uint64_t segment_end = spool_base_of(number + 1);
	uint64_t until = spool_base_of(number) + used_bytes(spool_bytes_at(spool, spool_base_of(number)), SPOOL_SEGMENT_BYTES);
	uint64_t at = spool_base_of(number) + SPOOL_HEADER_BYTES;
	uint64_t whole;

	while ((whole = next_whole(spool, at, until)) < until) {
		const struct record_header *record = (const void *)spool_bytes_at(spool, whole);
		if (!record_check(record, segment_end - whole, whole, spool->seal)) {
			scan->unknown = record;
			return at;
		}
		if (whole != at) {
			heal(scan, at, whole);
		}
		count(scan, record);
		at = scan->end = whole + record->length;
	}
	return at;
}

/* The rest of a segment that good records follow in a later one: too short for a filler, or it is damage. */
static void check_rest(const struct scan *scan, uint64_t rest, uint64_t segment_end)
{
	size_t length = (size_t)(segment_end - rest);
	if (length >= sizeof(struct record_header) || used_bytes(spool_bytes_at(scan->spool, rest), length) > 0) {
		heal(scan, rest, segment_end);
	}
}

static void cut_tail(const struct scan *scan, uint64_t from, uint64_t segment_end)
{
	char *bytes = from < segment_end ? spool_bytes_at(scan->spool, from) : NULL;
	size_t used = bytes ? used_bytes(bytes, (size_t)(segment_end - from)) : 0;
	if (used > 0) {
		scan->recovery->cut_bytes += used;
		memset(bytes, 0, used);
	}
}

/* Walks all segments; what lies behind a segment's last good record is judged once it is known whether others follow. */
static bool scan_all(struct scan *scan, uint64_t first, uint64_t last)
{
	uint64_t tail = first; /* the segment of `end`; judged are all before it */
	uint64_t tail_rest = spool_base_of(first) + SPOOL_HEADER_BYTES;

	for (uint64_t number = first; number <= last; number++) {
		uint64_t before = scan->end;
		uint64_t rest = scan_segment(scan, number);
		TEST_CRASH_POINT("recovering");
		if (scan->unknown) {
			return false;
		}
		if (scan->end == before) {
			continue;
		}
		for (uint64_t judged = tail; judged < number; judged++) {
			uint64_t from = judged == tail ? tail_rest : spool_base_of(judged) + SPOOL_HEADER_BYTES;
			if (from < spool_base_of(judged + 1)) {
				check_rest(scan, from, spool_base_of(judged + 1));
			}
		}
		tail = number;
		tail_rest = rest;
	}
	cut_tail(scan, tail_rest, spool_base_of(tail + 1));
	for (uint64_t number = tail + 1; number <= last; number++) { /* made ready, and never used */
		cut_tail(scan, spool_base_of(number) + SPOOL_HEADER_BYTES, spool_base_of(number + 1));
		spool_delete_segment(scan->spool, number);
	}
	spool_touch_segment(scan->spool, tail); /* it is appended to again */
	atomic_store(&scan->spool->ready_end, tail + 1);
	return true;
}

/* Records say their own positions, so a segment whose header is damaged is read all the same. */
static bool check_header(struct spool *spool, uint64_t number, struct spool_recovery *recovery, char *error, size_t error_size)
{
	const char *header = spool_bytes_at(spool, spool_base_of(number));

	switch (spool_read_segment_header(spool, number)) {
	case SPOOL_HEADER_GOOD:
		return true;
	case SPOOL_HEADER_OTHER_SPOOL:
		snprintf(error, error_size,
			"plugin_opt_spool_dir: %s holds a segment of another spool, %016" PRIx64
			".segment; move it back to where it "
			"belongs",
			spool->directory, number);
		return false;
	case SPOOL_HEADER_OTHER_VERSION:
		snprintf(error, error_size,
			"plugin_opt_spool_dir: %s was written by another release; start that one, let the spool empty, then "
			"change "
			"over",
			spool->directory);
		return false;
	default:
		break;
	}
	if (used_bytes(header, SPOOL_HEADER_BYTES) > 0) { /* else the process died while it made the segment */
		recovery->damaged_places++;
		recovery->damaged_bytes += SPOOL_HEADER_BYTES;
		spool_set_aside(spool, spool_base_of(number), header, SPOOL_HEADER_BYTES);
	}
	spool_write_segment_header(spool, number);
	return true;
}

static bool map_all(struct spool *spool, const uint64_t *numbers, size_t count, struct spool_recovery *recovery, char *error,
	size_t error_size)
{
	size_t at = 0;
	for (uint64_t number = numbers[0]; number <= numbers[count - 1]; number++) {
		bool there = numbers[at] == number;
		at += there;
		if (there ? !spool_map_segment(spool, number) : !spool_make_segment(spool, number)) {
			snprintf(error, error_size,
				"plugin_opt_spool_dir: cannot read or keep segment %016" PRIx64
				" in %s: %s; mend that, or move the file away to go on without what is in it",
				number, spool->directory, strerror(errno));
			return false;
		}
		recovery->missing_segments += !there;
		if (there && !check_header(spool, number, recovery, error, error_size)) {
			return false;
		}
	}
	return true;
}

/* One place more than there are segments now: there may be more than the bound, where spool_max_bytes was lowered. */
static bool make_table(struct spool *spool, uint64_t segments)
{
	spool->segment_count = segments < spool->max_segments ? spool->max_segments : segments + 1;
	spool->segments = calloc(spool->segment_count, sizeof(spool->segments[0]));
	return spool->segments != NULL;
}

/* A stray file with a number far off must not make millions of segments. */
static bool numbers_are_likely(const struct spool *spool, const uint64_t *numbers, size_t count)
{
	return numbers[count - 1] < SEGMENT_NUMBER_MAX && numbers[count - 1] - numbers[0] - (count - 1) <= spool->max_segments;
}

/* What it says is compared with the database: no more than the log still holds, where its end was lost. */
static void check_committed(struct spool *spool, uint64_t end)
{
	for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
		if (atomic_load(&spool->committed[slot]) > end) {
			atomic_store(&spool->committed[slot], end);
		}
	}
}

static void log_recovery(const struct spool *spool, const struct spool_recovery *recovery)
{
	if (recovery->cut_bytes > 0) {
		log_line(LOG_LEVEL_WARNING, "chat: spool: %" PRIu64 " bytes of an unfinished record at the end were cut",
			recovery->cut_bytes);
	}
	if (recovery->damaged_places > 0 || recovery->missing_segments > 0) {
		log_line(LOG_LEVEL_ERROR,
			"chat: spool: DAMAGED: %" PRIu64 " bytes in %u places could not be read and are kept as %s/damaged-*, "
			"%u segments are missing; acknowledged messages may be lost: check the disk",
			recovery->damaged_bytes, recovery->damaged_places, spool->directory, recovery->missing_segments);
	}
}

bool spool_recover(struct spool *spool, struct spool_recovery *recovery, char *error, size_t error_size)
{
	uint64_t *numbers = NULL;
	size_t count = 0;
	bool good = false;

	if (!spool_list_segments(spool, &numbers, &count)) {
		snprintf(error, error_size, "plugin_opt_spool_dir: cannot read %s: %s", spool->directory, strerror(errno));
		goto out;
	}
	if (count > 0 && !numbers_are_likely(spool, numbers, count)) {
		snprintf(error, error_size,
			"plugin_opt_spool_dir: most segments are missing in %s between %016" PRIx64 " and %016" PRIx64
			"; put them back, or move away what does not belong there",
			spool->directory, numbers[0], numbers[count - 1]);
		goto out;
	}
	if (!make_table(spool, count > 0 ? numbers[count - 1] - numbers[0] + 1 : 0)) {
		snprintf(error, error_size, "out of memory");
		goto out;
	}
	if (count == 0) {
		check_committed(spool, 0);
		good = true;
		goto out;
	}
	if (!map_all(spool, numbers, count, recovery, error, error_size)) {
		goto out;
	}
	struct scan scan = {.spool = spool, .recovery = recovery, .end = spool_base_of(numbers[0])};
	if (!scan_all(&scan, numbers[0], numbers[count - 1])) {
		snprintf(error, error_size,
			"plugin_opt_spool_dir: %s holds records of version %u, type %u, which this release does not know; start "
			"the release "
			"that wrote them, let the spool empty, then change over",
			spool->directory, scan.unknown->version, scan.unknown->type);
		goto out;
	}
	check_committed(spool, scan.end);
	atomic_store(&spool->first_segment, numbers[0]);
	atomic_store(&spool->end, scan.end);
	log_recovery(spool, recovery);
	TEST_CRASH_POINT("recovered");
	good = true;
out:
	free(numbers);
	return good;
}
