/* writer.c - see writer.h. The lanes' threads, but for start, stop and the counters.
 *
 * A lane's life:  connect -> read positions -> { take a batch -> commit -> post } ...
 *
 * - Nothing is taken before the positions are known: what an earlier process has committed is skipped by them.
 * - A batch is kept as pointers into the spool until it is committed or its fate is settled; then it is released.
 * - Connection lost in a commit: connect again and read the positions, which waits for the row locks of the old
 *   server process. A slot that stands where the batch would have put it was committed: chat.settle_messages then
 *   tells what became of each message. Otherwise the batch is sent again, as it was.
 * - A batch the server refuses for what is in it (SQLSTATE classes 22, 23 and the like) is halved until the bad one
 *   is alone; that one becomes a refusal on record. What the server refuses for its own sake (no disk, read only,
 *   shutting down, deadlock, ...) is tried again until it goes.
 * - Rows that somebody else keeps locked (an administrator's open transaction), or what the server again and again cannot do for
 *   a reason that is neither (a damaged page), hold up their own slots only: these are set aside, the lane reads on without
 *   them, and after a while goes back to where the first of their records is.
 */
#include "writer_lane.h"

#include "clock.h"
#include "statements.h"
#include "test_faults.h"
#include "thread.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Long messages fill a batch by their bytes: one parameter array stays small beside the server's memory. */
#define BATCH_BYTES_MAX ((size_t)4 << 20)
/* A batch that is refused for no clear reason is sent as it is this often, before it is halved. */
#define REFUSALS_OF_THE_WHOLE 2
/* A slot is set aside for this long at first and at most. */
#define ASIDE_FIRST_MS 1000
#define ASIDE_MAX_MS 16000
/* After a batch of so many, the next one waits for company: while more keeps coming, until so much is there, and until the one
 * before was taken GATHER_SHARE times as long ago as its commit took, or GATHER_NS. A batch costs the server as much again as
 * some tens of messages, and one that is busy with small batches has nothing left for the messages in them. */
#define GATHER_AFTER 3
#define GATHER_ENOUGH (BATCH_RECORDS_MAX / 2)
#define GATHER_SHARE 3
#define GATHER_NS INT64_C(8000000)
#define GATHER_LOOK_MS 1
/* A lane with nothing to do looks up this often; it is woken for anything that comes. */
#define IDLE_WAIT_MS 10000

/* Whether the server refused for what is in one of the records, so that sending it again can only fail again (PostgreSQL
 * appendix A): cardinality, data exceptions, constraints, WITH CHECK OPTION, a limit of the program's, PL/pgSQL's own errors,
 * which a trigger raises. */
static bool is_poison(const char *sqlstate)
{
	static const char *const classes[] = {"21", "22", "23", "44", "54", "P0"};
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		if (strncmp(sqlstate, classes[i], 2) == 0) {
			return true;
		}
	}
	return false;
}

/* Whether one of the records may be behind it, and the others go through without it: not where the server or its administrator
 * has to mend something for all (42: privileges, a missing function; CH001: the positions are somebody else's). */
static bool may_be_one_of(const char *sqlstate)
{
	return strcmp(sqlstate, "57014") == 0 || /* cancelled */
	       (statement_refusal(sqlstate) != ERROR_UNAVAILABLE && strncmp(sqlstate, "42", 2) != 0 &&
		       strncmp(sqlstate, "08", 2) != 0 && strncmp(sqlstate, "CH", 2) != 0);
}

/* ---- slots that wait while the others go on ---- */

static bool is_locked(const char *sqlstate)
{
	return strcmp(sqlstate, "55P03") == 0; /* lock_not_available */
}

static void set_aside(struct lane *lane, const struct record_header *first)
{
	if (lane->aside.until == 0) {
		if (is_locked(database_sqlstate(lane->database))) {
			log_line(LOG_LEVEL_WARNING,
				"chat: writer %u: another session keeps rows locked for longer than " LOCK_TIMEOUT
				"; the messages of their conversations wait, see pg_locks",
				lane->reader.lane);
		} else {
			lane_log_trouble(lane, "the server does not do it for some conversations; their messages wait");
		}
		lane->aside.pause_ms = ASIDE_FIRST_MS;
		lane->aside.until = lane->reader.at;
	}
	if (lane->aside.from == ASIDE_NONE) {
		lane->aside.retry_ms = clock_monotonic_ms() + lane->aside.pause_ms;
	}
	lane->aside.from = first->position < lane->aside.from ? first->position : lane->aside.from;
	lane->aside.slot[first->slot] = true;
}

/* Back to the first record that was set aside; those behind it that were committed meanwhile are passed over by their
 * positions. */
static void retry_aside(struct lane *lane)
{
	if (lane->aside.from == ASIDE_NONE || clock_monotonic_ms() < lane->aside.retry_ms) {
		return;
	}
	lane->aside.until = lane->reader.at;
	lane_note_backlog(lane, lane->aside.until);
	lane->reader.at = lane->aside.from;
	lane->aside.from = ASIDE_NONE;
	memset(lane->aside.slot, 0, sizeof(lane->aside.slot));
	lane->aside.pause_ms = lane->aside.pause_ms * 2 > ASIDE_MAX_MS ? ASIDE_MAX_MS : lane->aside.pause_ms * 2;
}

/* All that has been read is committed, or set aside. */
static void release(struct lane *lane)
{
	spool_release(&lane->reader, lane->aside.from < lane->reader.at ? lane->aside.from : lane->reader.at);
	if (lane->aside.from == ASIDE_NONE && lane->aside.until != 0 && lane->reader.at >= lane->aside.until) {
		log_line(LOG_LEVEL_NOTICE, "chat: writer %u: what was set aside is stored", lane->reader.lane);
		lane->aside.until = 0;
	}
}

/* ---- batches that cannot be committed as a whole ---- */

/* Records of one slot (RECORD_SLOTS: of all that are not set aside). */
static size_t select_records(struct lane *lane, const struct record_header *const *records, size_t count, unsigned slot,
	const struct record_header **selected)
{
	size_t found = 0;
	for (size_t i = 0; i < count; i++) {
		if (slot == RECORD_SLOTS ? !lane->aside.slot[records[i]->slot] : records[i]->slot == slot) {
			selected[found++] = records[i];
		}
	}
	return found;
}

static enum database_status commit(struct lane *lane, const struct record_header *const *records, size_t count);

/* Each slot's records by themselves, so that only those stay behind whose rows are locked. */
static enum database_status commit_by_slot(struct lane *lane, const struct record_header *const *records, size_t count)
{
	const struct record_header *part[BATCH_RECORDS_MAX];
	enum database_status status = DATABASE_OK;
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS && status == DATABASE_OK; slot += lane->writer->lane_count) {
		status = commit(lane, part, select_records(lane, records, count, slot, part));
	}
	return status;
}

static enum database_status commit_halves(struct lane *lane, const struct record_header *const *records, size_t count)
{
	enum database_status status = commit(lane, records, count / 2);
	return status == DATABASE_OK ? commit(lane, records + count / 2, count - count / 2) : status;
}

/* Commits records[0..count), splitting around what the tables do not take. Records that were committed are not
 * reported one by one: lane->committed tells. Those of slots that are set aside are left alone. */
static enum database_status commit(struct lane *lane, const struct record_header *const *records, size_t count)
{
	const struct record_header *free_ones[BATCH_RECORDS_MAX];

	if (lane->aside.from != ASIDE_NONE) {
		count = select_records(lane, records, count, RECORD_SLOTS, free_ones);
		records = free_ones;
	}
	if (count == 0) {
		return DATABASE_OK;
	}
	enum database_status status = lane_append(lane, records, count);
	if (status != DATABASE_REFUSED) {
		return status;
	}
	const char *sqlstate = database_sqlstate(lane->database);
	if (is_locked(sqlstate)) {
		const struct record_header *same[BATCH_RECORDS_MAX];
		if (select_records(lane, records, count, records[0]->slot, same) < count) {
			return commit_by_slot(lane, records, count);
		}
		set_aside(lane, records[0]);
		return DATABASE_OK;
	}
	bool poison = is_poison(sqlstate);
	if (!poison && (!may_be_one_of(sqlstate) || lane->refusals < REFUSALS_OF_THE_WHOLE)) {
		return status;
	}
	if (count > 1) {
		return commit_halves(lane, records, count);
	}
	if (!poison) {
		set_aside(lane, records[0]);
		return DATABASE_OK;
	}
	lane_log_trouble(lane, "a record was refused by the tables; it is refused to its sender");
	return lane_refuse(lane, records[0]);
}

/* ---- the lane ---- */

/* To the batch, all that waits, up to the limits; but for what an earlier process has committed, which the positions tell. */
static void take_batch(struct lane *lane)
{
	bool damaged = false;
	while (lane->batch_count < BATCH_RECORDS_MAX && lane->batch_bytes < BATCH_BYTES_MAX) {
		const struct record_header *record = spool_next(&lane->reader, &damaged);
		if (!record) {
			break;
		}
		if (lane->aside.slot[record->slot] ||
			(record_end(record) <= lane->committed[record->slot] && !TEST_BREAK("ignore_position"))) {
			continue;
		}
		lane->batch[lane->batch_count++] = record;
		lane->batch_bytes += record->length;
	}
	if (damaged) {
		log_line(LOG_LEVEL_ERROR,
			"chat: writer %u: the spool is damaged at position %llu; this is a fault of the program: please report "
			"it",
			lane->reader.lane, (unsigned long long)lane->reader.at);
		abort();
	}
}

static void gather(struct lane *lane)
{
	struct pollfd stop = {.fd = lane->writer->stop_fd, .events = POLLIN};
	int64_t wait_ns = GATHER_SHARE * (clock_monotonic_ns() - lane->taken_ns);
	int64_t until_ns = lane->taken_ns + (wait_ns < GATHER_NS ? wait_ns : GATHER_NS);
	size_t before = 0;

	while (lane->last_count >= GATHER_AFTER && lane->batch_count < GATHER_ENOUGH && lane->batch_count > before &&
		clock_monotonic_ns() < until_ns && poll(&stop, 1, GATHER_LOOK_MS) == 0) {
		before = lane->batch_count;
		take_batch(lane);
	}
	lane->taken_ns = clock_monotonic_ns();
	lane->last_count = lane->batch_count;
}

static void finish_batch(struct lane *lane)
{
	lane->batch_count = 0;
	lane->batch_bytes = 0;
	lane->refusals = 0;
	lane_forget_judgements(lane);
	TEST_CRASH_POINT("releasing");
	release(lane);
}

/* Sends the batch until it is committed or the lane stops. */
static void commit_batch(struct lane *lane)
{
	int64_t backoff_ms = BACKOFF_FIRST_MS;
	while (lane->batch_count > 0 && !lane_is_stopping(lane)) {
		if (!loader_is_claimed(lane->writer->loader)) {
			database_disconnect(lane->database); /* another broker's database now */
		}
		if (!database_is_connected(lane->database)) {
			lane_connect(lane);
			continue;
		}
		enum database_status status = lane_judge(lane);
		if (status == DATABASE_OK) {
			status = commit(lane, lane->batch, lane->batch_count);
		}
		if (status == DATABASE_OK) {
			finish_batch(lane);
			return;
		}
		if (status == DATABASE_REFUSED) {
			lane_log_trouble(lane, "a commit was refused; trying again");
		} else if (!lane_is_stopping(lane)) { /* else it was cut short here */
			lane_log_trouble(lane, "connection lost in a commit");
		}
		database_disconnect(lane->database); /* settle by the positions, whatever it was */
		if (status == DATABASE_REFUSED) {
			lane->refusals++;
			lane_back_off(lane, &backoff_ms);
		}
	}
	if (lane->batch_count == 0) {
		finish_batch(lane);
	}
}

static void wait_for_more(struct lane *lane)
{
	int64_t wait_ms = lane->aside.from == ASIDE_NONE ? IDLE_WAIT_MS : lane->aside.retry_ms - clock_monotonic_ms();
	spool_wait(&lane->reader, wait_ms > 0 ? wait_ms : 0);
}

static void *lane_main(void *argument)
{
	struct lane *lane = argument;

	lane_connect(lane);
	while (!lane_is_stopping(lane)) {
		retry_aside(lane);
		take_batch(lane);
		if (lane->batch_count == 0) {
			release(lane);
			wait_for_more(lane);
			continue;
		}
		gather(lane);
		if (!delivery_wait_for_room(lane->writer->deliveries)) {
			break;
		}
		commit_batch(lane);
	}
	return NULL;
}

static bool start_lane(struct writer *writer, struct lane *lane, unsigned number, const char *conninfo)
{
	lane->writer = writer;
	lane->reader = spool_reader(writer->spool, number);
	lane->aside.from = ASIDE_NONE;
	lane_calls_init(lane);
	lane->database = database_new(conninfo, WRITER_APPLICATION, statements, STATEMENTS, writer->stop_fd);
	if (!lane->database) {
		return false;
	}
	lane->started = thread_start(&lane->thread, lane_main, lane);
	return lane->started;
}

static void free_lane(struct lane *lane)
{
	database_free(lane->database);
	lane_calls_free(lane);
	lane_rules_free(lane);
}

struct writer *writer_start(const char *conninfo, struct spool *spool, unsigned lanes, struct delivery_queue *deliveries,
	const struct loader *loader, char *error, size_t error_size)
{
	struct writer *writer = calloc(1, sizeof(*writer));
	if (!writer) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	writer->spool = spool;
	writer->deliveries = deliveries;
	writer->loader = loader;
	writer->lane_count = lanes;
	writer->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	writer->lanes = calloc(lanes, sizeof(writer->lanes[0]));
	bool started = writer->stop_fd >= 0 && writer->lanes;
	for (unsigned i = 0; i < lanes && started; i++) {
		started = start_lane(writer, &writer->lanes[i], i, conninfo);
	}
	if (!started) {
		snprintf(error, error_size, "cannot start the writer threads");
		writer_stop(writer);
		return NULL;
	}
	return writer;
}

void writer_set_edit_window(struct writer *writer, int64_t seconds)
{
	atomic_store(&writer->edit_window_s, seconds);
}

void writer_drain(struct writer *writer, int64_t drain_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + drain_ms;
	spool_wake(writer->spool);
	while (!spool_is_drained(writer->spool) && atomic_load(&writer->lanes_down) == 0 && clock_monotonic_ms() < deadline_ms) {
		poll(NULL, 0, 5);
	}
}

void writer_stop(struct writer *writer)
{
	static const uint64_t one = 1;
	if (!writer) {
		return;
	}
	atomic_store(&writer->stopping, true);
	if (writer->stop_fd >= 0) {
		ssize_t written = write(writer->stop_fd, &one, sizeof(one));
		(void)written;
	}
	spool_stop(writer->spool);
	delivery_stop(writer->deliveries);
	for (unsigned i = 0; writer->lanes && i < writer->lane_count; i++) {
		if (writer->lanes[i].started) {
			pthread_join(writer->lanes[i].thread, NULL);
		}
		if (writer->lanes[i].writer) {
			free_lane(&writer->lanes[i]);
		}
	}
	if (writer->stop_fd >= 0) {
		close(writer->stop_fd);
	}
	free(writer->lanes);
	free(writer);
}

struct writer_counters writer_read_counters(const struct writer *writer)
{
	return (struct writer_counters){
		.batches = atomic_load(&writer->batches),
		.messages = atomic_load(&writer->messages),
		.marks = atomic_load(&writer->marks),
		.refused = atomic_load(&writer->refused),
		.duplicates = atomic_load(&writer->duplicates),
		.down = atomic_load(&writer->lanes_down) > 0,
	};
}
