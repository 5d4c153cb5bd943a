/* test_spool_recover.c - a spool opened again: after a crash, after damage, by another release, twice, on a full disk.
 *
 * Every record carries a serial number and a body that follows from it, so that one that was never written is seen.
 */
#include "../../plugin/spool_files.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "log.h"
#include "spool_directory.h"
#include "threads.h"

#define SEGMENT ((uint64_t)SPOOL_SEGMENT_BYTES)
#define HEADER ((uint64_t)SPOOL_HEADER_BYTES)

static struct spool_directory directory;
static struct spool_recovery found;
static char error[1024];
static _Atomic unsigned lines;

static void count_line(enum log_level level, const char *line)
{
	(void)level;
	(void)line;
	atomic_fetch_add(&lines, 1);
}

static int begin(void **state)
{
	(void)state;
	log_set_sink(count_line);
	atomic_store(&lines, 0);
	return make_spool_directory(&directory) ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	remove_spool_directory(&directory);
	return 0;
}

static struct spool *try_open(int64_t segments, unsigned lanes, enum option_spool_sync sync)
{
	struct spool_settings settings = {.directory = directory.path,
		.max_bytes = segments * (int64_t)SEGMENT,
		.lanes = lanes,
		.sync = sync,
		.sync_ms = 1};
	return spool_open(&settings, &found, error, sizeof(error));
}

static struct spool *open_spool(int64_t segments, unsigned lanes)
{
	struct spool *spool = try_open(segments, lanes, SPOOL_SYNC_NONE);
	if (!spool) {
		fail_msg("%s", error);
	}
	return spool;
}

static void expect_refused(const char *why)
{
	assert_null(try_open(4, 1, SPOOL_SYNC_NONE));
	if (!strstr(error, why)) {
		fail_msg("%s", error);
	}
}

/* ---- records ---- */

static size_t body_length(int64_t serial, size_t longest)
{
	return longest < 200 ? longest : longest - (size_t)(serial % 7) * 8;
}

static bool append(struct spool *spool, int64_t serial, size_t longest)
{
	static char body[RECORD_BYTES_MAX];
	struct record_message message = {
		.conversation_id = serial, .user_id = serial, .body_length = (uint32_t)body_length(serial, longest)};
	size_t size = record_message_size(&message);
	uint64_t position;
	void *at = spool_append(spool, size, &position);

	if (!at) {
		return false;
	}
	memset(body, 'a' + (int)(serial % 26), message.body_length);
	record_write_message(at, position, 0, &message, &(struct record_parts){.body = body});
	return spool_append_done(spool, size, record_slot(serial));
}

/* The serial number; -1 where it is not what was written under it. */
static int64_t serial_of(const struct record_header *record, size_t longest)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	int64_t serial = message->user_id;
	bool good = record->type == RECORD_MESSAGE && message->conversation_id == serial && record->slot == record_slot(serial) &&
		    message->body_length == body_length(serial, longest);
	for (size_t i = 0; good && i < message->body_length; i++) {
		good = parts.body[i] == 'a' + (int)(serial % 26);
	}
	return good ? serial : -1;
}

/* Reads all lanes; marks what it found. Returns how many. */
static size_t read_all(struct spool *spool, unsigned char *seen, size_t count, size_t longest)
{
	size_t total = 0;
	memset(seen, 0, count);
	for (unsigned lane = 0; lane < spool->lane_count; lane++) {
		struct spool_reader reader = spool_reader(spool, lane);
		const struct record_header *record;
		int64_t last = -1;
		bool damaged;
		while ((record = spool_next(&reader, &damaged)) != NULL) {
			int64_t serial = serial_of(record, longest);
			assert_in_range(serial, 0, count - 1);
			assert_true(serial > last && !seen[serial]);
			seen[serial] = 1;
			last = serial;
			total++;
		}
		assert_false(damaged);
		assert_int_equal(reader.at, spool_end(spool));
	}
	return total;
}

static void fill(struct spool *spool, int64_t first, int64_t last, size_t longest)
{
	for (int64_t serial = first; serial < last; serial++) {
		wait_until(append(spool, serial, longest));
	}
}

static const char *file_named(const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", directory.path, name);
	return path;
}

static const char *segment_file(uint64_t number)
{
	char name[64];
	snprintf(name, sizeof(name), "%016" PRIx64 ".segment", number);
	return file_named(name);
}

static void read_file(const char *path, char *bytes, size_t offset, size_t length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && pread(fd, bytes, length, (off_t)offset) == (ssize_t)length);
	close(fd);
}

static void write_file(const char *path, const char *bytes, size_t offset, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length);
	close(fd);
}

/* ---- the cases ---- */

static unsigned char seen[4000];

static void all_is_found_again(void **state)
{
	uint64_t last_end;
	(void)state;
	struct spool *spool = open_spool(16, 3);
	assert_int_equal(found.records, 0);
	fill(spool, 0, 1000, 30000); /* eight segments */
	last_end = spool_end(spool);
	spool_close(spool);
	for (unsigned lanes = 1; lanes <= 32; lanes *= 2) {     /* however many lanes there are */
		spool = open_spool(lanes == 4 ? 2 : 16, lanes); /* even where the bound was lowered */
		assert_int_equal(found.records, 1000);
		assert_int_equal(found.waiting, 1000);
		assert_int_equal(found.cut_bytes + found.damaged_bytes + found.damaged_places + found.missing_segments, 0);
		assert_int_equal(spool_end(spool), last_end);
		assert_int_equal(spool_recovered_end(spool), last_end);
		assert_int_equal(read_all(spool, seen, 1000, 30000), 1000);
		spool_close(spool);
	}
	assert_int_equal(atomic_load(&lines), 0);
}

/* Released by all lanes, a segment goes; positions go on from where they were, however often it is opened. */
static void what_is_released_goes(void **state)
{
	uint64_t before = 0;
	(void)state;
	for (int64_t round = 0; round < 8; round++) {
		struct spool *spool = open_spool(2, 1);
		struct spool_reader reader = spool_reader(spool, 0);
		bool damaged;
		assert_true(spool_end(spool) >= before);
		for (int64_t serial = 0; serial < 150; serial++) {
			wait_until(append(spool, round * 150 + serial, 30000));
			while (spool_next(&reader, &damaged)) {
			}
			spool_release(&reader, reader.at);
		}
		for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
			spool_note_committed(spool, slot, spool_end(spool));
		}
		before = spool_end(spool);
		spool_close(spool);
		assert_true(access(segment_file(before / SEGMENT - 1), F_OK) != 0);
	}
	struct spool *spool = open_spool(2, 1);
	assert_int_equal(found.waiting, 0);
	assert_int_equal(spool_end(spool), before);
	spool_close(spool);
}

static void a_page_of_zeros(void **state)
{
	static const char zeros[4096];
	(void)state;
	struct spool *spool = open_spool(4, 1);
	fill(spool, 0, 300, 30000); /* into the third segment */
	spool_close(spool);
	write_file(segment_file(0), zeros, 1 << 20, sizeof(zeros)); /* in the middle of one */
	write_file(segment_file(1), zeros, SEGMENT - 65536, 4096);  /* and towards the end of another */
	spool = open_spool(4, 1);
	assert_in_range(found.records, 296, 298);
	assert_int_equal(found.damaged_places, 2);
	assert_int_equal(found.cut_bytes, 0);
	assert_int_equal(atomic_load(&lines), 1);
	assert_int_equal(read_all(spool, seen, 300, 30000), found.records);
	assert_true(seen[0] && seen[299]);
	spool_close(spool);
	spool = open_spool(4, 1); /* healed */
	assert_int_equal(found.damaged_places, 0);
	spool_close(spool);
}

static void a_segment_is_missing(void **state)
{
	(void)state;
	struct spool *spool = open_spool(4, 1);
	fill(spool, 0, 300, 30000);
	spool_close(spool);
	assert_int_equal(unlink(segment_file(1)), 0);
	spool = open_spool(4, 1);
	assert_int_equal(found.missing_segments, 1);
	assert_int_equal(atomic_load(&lines), 1);
	assert_int_equal(read_all(spool, seen, 300, 30000), found.records);
	assert_true(seen[0] && seen[299] && !seen[200]);
	spool_close(spool);
}

static void a_segment_of_another_spool(void **state)
{
	static char bytes[1 << 16];
	(void)state;
	struct spool *spool = open_spool(2, 1);
	fill(spool, 0, 10, 100);
	spool_close(spool);
	read_file(segment_file(0), bytes, 0, sizeof(bytes));
	empty_spool_directory(&directory);
	spool_close(open_spool(2, 1));
	write_file(segment_file(0), bytes, 0, sizeof(bytes));
	expect_refused("a segment of another spool");
	unlink(segment_file(0));
	write_file(segment_file(UINT64_C(0xffffffffffffffff)), bytes, 0, sizeof(bytes));
	expect_refused("segments are missing");
}

static void a_newer_record_is_refused(void **state)
{
	static char bytes[4096];
	struct record_header *header = (void *)(bytes + HEADER);
	(void)state;
	struct spool *spool = open_spool(2, 1);
	fill(spool, 0, 3, 100);
	uint32_t seal = spool->seal;
	spool_close(spool);
	read_file(segment_file(0), bytes, 0, sizeof(bytes));
	header->version = RECORD_VERSION + 1;
	record_seal(header, seal);
	write_file(segment_file(0), bytes, 0, sizeof(bytes));
	expect_refused("version 3");
	read_file(segment_file(0), bytes, 0, sizeof(bytes)); /* and nothing was touched */
	assert_int_equal(header->version, RECORD_VERSION + 1);
}

static void one_directory_one_opener(void **state)
{
	(void)state;
	struct spool *spool = open_spool(2, 1);
	expect_refused("in use by another broker");
	spool_close(spool);
	spool_close(open_spool(2, 1));
	assert_int_equal(chmod(directory.path, 0750), 0);
	expect_refused("chmod 700");
	assert_int_equal(chmod(directory.path, 0700), 0);
	write_file(file_named("identity"), "x", 0, 1);
	assert_int_equal(truncate(file_named("identity"), 7), 0);
	expect_refused("identity is damaged");
}

/* ---- objections ---- */

static int fail_to_flush(void *address, size_t length, int options)
{
	(void)address, (void)length, (void)options;
	errno = EIO;
	return -1;
}

/* That the slots were compared is on the disk, or not true: it is tried again. */
static void what_is_compared_is_flushed(void **state)
{
	(void)state;
	struct spool *spool = open_spool(8, 1);
	fill(spool, 0, 10, 100);
	wait_until(atomic_load(&spool->ready_end) == 4);
	uint64_t all = spool_end(spool);
	spool->flush = fail_to_flush;
	assert_false(spool_note_checked(spool, 0));
	assert_false(spool_note_checked(spool, 0));
	assert_int_equal(spool_objection(spool, 3, all), SPOOL_LOST_END); /* as before */
	spool->flush = msync;
	assert_true(spool_note_checked(spool, 0));
	assert_int_equal(spool_objection(spool, 3, all), SPOOL_AGREES);
	spool_close(spool);
}

/* A doubt outlives the process. */
static void what_is_doubted_is_compared_again(void **state)
{
	(void)state;
	struct spool *spool = open_spool(8, 1);
	fill(spool, 0, 10, 100);
	assert_true(spool_note_checked(spool, 0));
	spool_note_doubted(spool, 3, 64);
	spool_close(spool);
	spool = open_spool(8, 1);
	assert_int_equal(spool_objection(spool, 3, 64), SPOOL_AGREES);
	assert_int_equal(spool_objection(spool, 3, 72), SPOOL_LOST_END);
	assert_int_equal(spool_true_position(spool, 3), 64);
	assert_int_equal(spool_objection(spool, 4, 72), SPOOL_AGREES);
	spool_close(spool);
}

static void what_the_database_says_is_compared(void **state)
{
	(void)state;
	struct spool *spool = open_spool(2, 2);
	fill(spool, 0, 10, 100);
	uint64_t all = spool_end(spool);
	spool_note_committed(spool, 3, all);
	assert_true(spool_note_checked(spool, 0));
	assert_true(spool_note_checked(spool, 1));
	spool_close(spool);
	spool = open_spool(2, 2);
	fill(spool, 10, 20, 100);
	assert_int_equal(spool_objection(spool, 3, all), SPOOL_AGREES);
	assert_int_equal(spool_objection(spool, 3, all - 8), SPOOL_DATABASE_BEHIND);
	assert_int_equal(spool_objection(spool, 4, 0), SPOOL_AGREES);
	assert_int_equal(spool_objection(spool, 4, all + 8), SPOOL_LOST_END); /* though there is more by now */
	spool_close(spool);
	spool = open_spool(2, 2); /* and another process has appended it */
	assert_int_equal(spool_objection(spool, 4, all), SPOOL_AGREES);
	assert_int_equal(spool_objection(spool, 4, all + 8), SPOOL_LOST_END);
	assert_int_equal(spool_true_position(spool, 4), all);
	assert_true(spool_note_checked(spool, 0));
	assert_int_equal(spool_objection(spool, 4, all + 8), SPOOL_AGREES);
	assert_int_equal(spool_objection(spool, 4, spool_end(spool) + 8), SPOOL_BEHIND);
	assert_int_equal(spool_objection(spool, 5, all + 8), SPOOL_LOST_END); /* the other lane has not */
	spool_close(spool);
	spool = try_open(2, 2, SPOOL_SYNC_ALWAYS);
	assert_non_null(spool);
	assert_int_equal(spool_objection(spool, 5, all + 8), SPOOL_BEHIND); /* of what is flushed no end is lost */
	spool_close(spool);
}

/* ---- a full disk ---- */

/* In a child, whose files may not grow beyond a segment and a half... of which the second is refused. */
static void a_full_disk_is_full(void **state)
{
	(void)state;
	struct spool *spool = open_spool(16, 1);
	fill(spool, 0, 10, 30000);
	spool_close(spool);
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct rlimit none = {.rlim_cur = SEGMENT / 2, .rlim_max = SEGMENT * 2}, all = {SEGMENT * 2, SEGMENT * 2};
		int64_t serial = 10;
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &none);
		spool = try_open(16, 1, SPOOL_SYNC_NONE);
		if (!spool) {
			_exit(1);
		}
		while (append(spool, serial, 30000)) {
			serial++;
		}
		setrlimit(RLIMIT_FSIZE, &all);
		int64_t give_up_ms = clock_monotonic_ms() + THREADS_DEADLINE_MS;
		while (!append(spool, serial, 30000)) { /* the keeper looks again by itself */
			if (clock_monotonic_ms() > give_up_ms) {
				_exit(2);
			}
			sched_yield();
		}
		spool_close(spool);
		_exit(serial > 100 && serial < 150 ? 0 : 3);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	spool = open_spool(16, 1);
	assert_true(found.records > 100 && found.damaged_bytes + found.cut_bytes == 0);
	spool_close(spool);
}

/* ---- flushes ---- */

static _Atomic int flushes_called, flushes_failing;

static int count_flush(void *address, size_t length, int options)
{
	assert_int_equal((uintptr_t)address % 4096, 0);
	assert_true(length > 0 && options == MS_SYNC);
	atomic_fetch_add(&flushes_called, 1);
	if (atomic_load(&flushes_failing) > 0) {
		atomic_fetch_sub(&flushes_failing, 1);
		errno = EIO;
		return -1;
	}
	return 0;
}

static void always_flushes_each(void **state)
{
	uint64_t done, failed;
	(void)state;
	struct spool *spool = try_open(8, 1, SPOOL_SYNC_ALWAYS);
	assert_non_null(spool);
	wait_until(atomic_load(&spool->ready_end) == 4); /* the keeper flushes too, what it makes */
	spool->flush = count_flush;
	fill(spool, 0, 50, 100);
	spool_flushes(spool, &done, &failed);
	assert_int_equal(done, 50);
	assert_int_equal(failed, 0);
	assert_int_equal(atomic_load(&flushes_called), 50);
	/* it fails: not acknowledged, not seen, and what follows is in the next segment */
	uint64_t before = spool_end(spool);
	atomic_store(&flushes_failing, 1);
	assert_false(append(spool, 50, 100));
	assert_int_equal(spool_end(spool), SEGMENT);
	assert_true(before < SEGMENT);
	assert_true(append(spool, 51, 100));
	spool_flushes(spool, &done, &failed);
	assert_int_equal(failed, 1);
	assert_int_equal(atomic_load(&lines), 2); /* that it fails, that it does no more */
	assert_int_equal(read_all(spool, seen, 52, 100), 51);
	assert_false(seen[50]);
	spool_close(spool);
	spool = open_spool(8, 1);
	assert_int_equal(found.records, 51);
	assert_int_equal(found.damaged_bytes, 0);
	spool_close(spool);
}

static void interval_flushes_what_is_new(void **state)
{
	uint64_t done = 0, failed, again;
	(void)state;
	struct spool *spool = try_open(8, 1, SPOOL_SYNC_INTERVAL);
	assert_non_null(spool);
	spool_flushes(spool, &again, &failed);
	assert_int_equal(again, 0);
	fill(spool, 0, 5, 100);
	wait_until((spool_flushes(spool, &done, &failed), done > 0));
	assert_in_range(done, 1, 5);
	spool_close(spool);
}

/* The first flush fails. The next one comes after the bytes were written once more, which the file's time tells. */
static int fail_first_flush(void *address, size_t length, int options)
{
	static const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
	struct stat status;
	(void)options;
	assert_true(address && length > 0);
	if (atomic_fetch_add(&flushes_called, 1) == 0) {
		assert_int_equal(utimensat(AT_FDCWD, segment_file(0), long_ago, 0), 0);
		errno = EIO;
		return -1;
	}
	assert_int_equal(stat(segment_file(0), &status), 0);
	assert_true(status.st_mtim.tv_sec > 1);
	return 0;
}

static void what_was_not_flushed_is_written_again(void **state)
{
	uint64_t done, failed;
	(void)state;
	struct spool *spool = try_open(8, 1, SPOOL_SYNC_INTERVAL);
	assert_non_null(spool);
	wait_until(atomic_load(&spool->ready_end) == 4);
	atomic_store(&flushes_called, 0);
	spool->flush = fail_first_flush;
	fill(spool, 0, 1, 100);
	wait_until((spool_flushes(spool, &done, &failed), done > 1 && failed == 1));
	wait_until(atomic_load(&lines) == 2); /* that it fails, that it does no more */
	assert_int_equal(read_all(spool, seen, 1, 100), 1);
	spool_close(spool);
}

/* As a file system does that is told of every first write after a flush: the pages are no longer mapped writable. */
static int flush_and_unmap_pages(void *address, size_t length, int options)
{
	int result = msync(address, length, options);
	return result == 0 ? madvise(address, length, MADV_DONTNEED) : result;
}

/* The keeper touches a segment after its flush, or the broker thread would take a fault at each page. */
static void a_flushed_segment_is_touched(void **state)
{
	struct rusage before, after;
	(void)state;
	struct spool *spool = try_open(8, 1, SPOOL_SYNC_INTERVAL);
	assert_non_null(spool);
	spool->flush = flush_and_unmap_pages;
	assert_true(spool_make_segment(spool, 7)); /* in the table, and nobody's yet */
	assert_int_equal(getrusage(RUSAGE_THREAD, &before), 0);
	memset(spool_bytes_at(spool, 7 * SPOOL_SEGMENT_BYTES) + SPOOL_HEADER_BYTES, 1, SPOOL_SEGMENT_BYTES - SPOOL_HEADER_BYTES);
	assert_int_equal(getrusage(RUSAGE_THREAD, &after), 0);
	assert_in_range(after.ru_minflt - before.ru_minflt, 0, SPOOL_SEGMENT_BYTES / (size_t)sysconf(_SC_PAGESIZE) / 8);
	spool_delete_segment(spool, 7);
	spool->flush = msync;
	spool_close(spool);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(all_is_found_again),
		CASE(what_is_released_goes),
		CASE(a_page_of_zeros),
		CASE(a_segment_is_missing),
		CASE(a_segment_of_another_spool),
		CASE(a_newer_record_is_refused),
		CASE(one_directory_one_opener),
		CASE(what_the_database_says_is_compared),
		CASE(what_is_compared_is_flushed),
		CASE(what_is_doubted_is_compared_again),
		CASE(a_full_disk_is_full),
		CASE(always_flushes_each),
		CASE(interval_flushes_what_is_new),
		CASE(what_was_not_flushed_is_written_again),
		CASE(a_flushed_segment_is_touched),
	};

	return cmocka_run_group_tests_name("spool recovery", tests, NULL, NULL);
}
