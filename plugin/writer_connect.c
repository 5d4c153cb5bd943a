/* writer_connect.c - see writer_lane.h: connecting a lane, and what it finds then. A lane's own thread, but for the comparison
 * before the start.
 *
 * The positions are read under their row locks, so that a commit of the old connection has either happened or never will.
 */
#include "writer_lane.h"

#include "statements.h"
#include "test_faults.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 5000
#define BACKOFF_MAX_MS 2000

/* Whatever the role or the database has set: what is committed here is acknowledged and let go of, so it is on the server's
 * disk; a batch of hundreds of rows may take longer than an application's statement; and a server that has lost us shall not
 * keep its locks for hours. */
static const char session_settings[] =
	"SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
	" SET statement_timeout = 0; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10;"
	" SET tcp_keepalives_count = 3";

/* The positions of slots first, first + step, ... */
static bool read_positions(struct database *database, struct spool *spool, unsigned first, unsigned step, int64_t timeout_ms,
	uint64_t positions[RECORD_SLOTS])
{
	struct database_parameters parameters;
	struct database_result *result;
	struct database_call call = {STATEMENT_READ_POSITIONS, &parameters};
	struct database_array slots;

	database_array_init(&slots, DATABASE_INT2);
	for (unsigned slot = first; slot < RECORD_SLOTS; slot += step) {
		database_array_integer(&slots, slot);
	}
	database_parameters_reset(&parameters);
	database_parameter_uuid(&parameters, spool_id(spool));
	database_parameter_array(&parameters, &slots);
	bool done = database_run(database, &call, 1, timeout_ms, &result) == DATABASE_OK;
	for (int row = 0; done && row < database_rows(result); row++) {
		positions[database_integer(result, row, 0) % RECORD_SLOTS] = (uint64_t)database_integer(result, row, 1);
	}
	if (done) {
		database_result_free(result);
	}
	database_array_free(&slots);
	return done;
}

bool writer_check_positions(const char *conninfo, struct spool *spool, int64_t timeout_ms, char *error, size_t error_size)
{
	struct database *database = database_new(conninfo, "mosquitto-chat start", statements, STATEMENTS, -1);
	uint64_t positions[RECORD_SLOTS] = {0};
	enum spool_objection objection = SPOOL_AGREES;

	if (database && database_connect(database, timeout_ms) && read_positions(database, spool, 0, 1, timeout_ms, positions)) {
		for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
			enum spool_objection one = spool_objection(spool, slot, positions[slot]);
			objection = one > objection ? one : objection;
		}
	}
	database_free(database);
	if (objection == SPOOL_AGREES || objection == SPOOL_LOST_END) { /* of which the lanes speak, and go on */
		return true;
	}
	snprintf(error, error_size, "plugin_opt_spool_dir: %s", spool_objection_text(objection));
	return false;
}

/* After a reconnect: which part of the batch had been committed? A transaction moves all of its slots or none, so the
 * first records up to the positions found are done. Keeps the rest in the batch. */
static bool settle_batch(struct lane *lane, const uint64_t positions[RECORD_SLOTS])
{
	size_t settled = 0;
	size_t kept = 0;
	const struct record_header *done[BATCH_RECORDS_MAX];

	for (size_t i = 0; i < lane->batch_count; i++) {
		const struct record_header *record = lane->batch[i];
		if (record_end(record) > positions[record->slot]) {
			lane->batch[kept++] = record;
		} else if (record_end(record) > lane->committed[record->slot]) {
			done[settled++] = record;
		} /* else: heard before */
	}
	if (settled > 0 && !lane_settle(lane, done, settled)) {
		return false; /* lane->batch may have lost `done`: the caller's copy still has all */
	}
	lane->batch_count = kept;
	return true;
}

void lane_back_off(struct lane *lane, int64_t *backoff_ms)
{
	struct pollfd stop = {.fd = lane->writer->stop_fd, .events = POLLIN};
	poll(&stop, 1, (int)*backoff_ms);
	*backoff_ms = *backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : *backoff_ms * 2;
}

static bool is_end_in_batch(const struct lane *lane, unsigned slot, uint64_t position)
{
	for (size_t i = 0; i < lane->batch_count; i++) {
		if (lane->batch[i]->slot == slot && record_end(lane->batch[i]) == position) {
			return true;
		}
	}
	return false;
}

/* Once compared, a position is where this lane has put it or tried to; lower, where the database went back to. */
static enum spool_objection lane_objection(const struct lane *lane, unsigned slot, uint64_t position)
{
	if (!lane->compared) {
		return spool_objection(lane->writer->spool, slot, position);
	}
	if (position < lane->committed[slot]) {
		return SPOOL_DATABASE_BEHIND;
	}
	bool own = position == lane->committed[slot] || is_end_in_batch(lane, slot, position);
	return own ? SPOOL_AGREES : SPOOL_FOREIGN;
}

static enum spool_objection lane_worst_objection(const struct lane *lane, const uint64_t positions[RECORD_SLOTS])
{
	enum spool_objection worst = SPOOL_AGREES;
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		enum spool_objection objection = lane_objection(lane, slot, positions[slot]);
		worst = objection > worst ? objection : worst;
	}
	return worst;
}

/* For good: the next process compares anew, and takes nothing for committed that this one has not committed. */
static void hold(struct lane *lane)
{
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		spool_note_doubted(lane->writer->spool, slot, lane->committed[slot]);
	}
	lane->foreign = true;
}

/* Under the rows' locks, so what they say is true, and the spool is judged by it. Beyond what was ever appended, or moved by
 * somebody else: what comes now would be taken for committed, so nothing is. */
static bool positions_will_do(struct lane *lane, uint64_t positions[RECORD_SLOTS])
{
	enum spool_objection objection = lane_worst_objection(lane, positions);

	if (objection >= SPOOL_LOST_END && !lane->objected) {
		log_line(LOG_LEVEL_ERROR, "chat: writer %u: %s%s", lane->reader.lane, spool_objection_text(objection),
			objection == SPOOL_BEHIND     ? "; messages wait until then"
			: objection == SPOOL_LOST_END ? "; going on from where it is"
						      : "");
		lane->objected = true;
	}
	if (objection == SPOOL_FOREIGN) {
		hold(lane);
	}
	return objection < SPOOL_LOST_END || (objection == SPOOL_LOST_END && lane_rewind_positions(lane, positions));
}

/* An older state of the database was put back, or a standby took over that was behind: all that the spool still holds is read
 * again, and stored where the positions say that it is not. The batch under way is part of that. */
static void go_back(struct lane *lane, const uint64_t positions[RECORD_SLOTS])
{
	const struct spool *spool = lane->writer->spool;
	bool back = false, lost = false;

	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		back |= positions[slot] < spool_committed(spool, slot);
	}
	if (!back) {
		return;
	}
	spool_reader_back(&lane->reader);
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		lost |= positions[slot] < spool_committed(spool, slot) && positions[slot] < lane->reader.at;
	}
	lane->batch_count = 0;
	memset(&lane->aside, 0, sizeof(lane->aside));
	lane->aside.from = ASIDE_NONE;
	log_line(LOG_LEVEL_ERROR,
		"chat: writer %u: the database has committed less of this spool than it once had: an older state of it was put "
		"back, or a standby took over that was behind; what the spool still holds is stored again%s",
		lane->reader.lane, lost ? "; WHAT WAS STORED SINCE THEN AND IS GONE FROM THE SPOOL IS LOST" : "");
}

static bool take_positions(struct lane *lane, const uint64_t positions[RECORD_SLOTS])
{
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		lane->committed[slot] = positions[slot];
		spool_note_committed(lane->writer->spool, slot, positions[slot]);
	}
	lane->compared = lane->compared || spool_note_checked(lane->writer->spool, lane->reader.lane);
	lane->objected = false;
	return lane->compared;
}

/* A connection that broke here may stand on the server, for hours, with all the locks of its batch: it has executed the calls
 * and waits for the end of the transaction. (By its number, and of this role: another server may have one of that number.) */
static bool end_old_connection(struct lane *lane)
{
	char command[256];
	if (lane->old_process == 0) {
		return true;
	}
	snprintf(command, sizeof(command),
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %d AND pid <> pg_backend_pid()"
		" AND usename = session_user AND application_name = '" WRITER_APPLICATION "'",
		lane->old_process);
	if (database_command(lane->database, command, COMMIT_TIMEOUT_MS) != DATABASE_OK) {
		return false;
	}
	lane->old_process = 0;
	return true;
}

static bool try_connect(struct lane *lane)
{
	uint64_t positions[RECORD_SLOTS] = {0};
	const struct record_header *whole[BATCH_RECORDS_MAX];
	size_t whole_count = lane->batch_count;

	if (lane->old_process == 0) { /* else it is the one that has a batch, and those tried since have nothing */
		lane->old_process = database_server_process(lane->database);
	}
	if (lane->foreign || !database_connect(lane->database, CONNECT_TIMEOUT_MS) ||
		database_command(lane->database, session_settings, COMMIT_TIMEOUT_MS) != DATABASE_OK ||
		!end_old_connection(lane) ||
		!read_positions(lane->database, lane->writer->spool, lane->reader.lane, lane->writer->lane_count,
			COMMIT_TIMEOUT_MS, positions) ||
		database_command(lane->database, "SET lock_timeout = '" LOCK_TIMEOUT "'", COMMIT_TIMEOUT_MS) != DATABASE_OK) {
		return false;
	}
	if (!positions_will_do(lane, positions)) {
		database_disconnect(lane->database);
		return false;
	}
	TEST_CRASH_POINT("settling");
	memcpy(whole, lane->batch, whole_count * sizeof(whole[0]));
	if (!settle_batch(lane, positions)) {
		memcpy(lane->batch, whole, whole_count * sizeof(whole[0]));
		lane->batch_count = whole_count;
		return false;
	}
	go_back(lane, positions);
	return take_positions(lane, positions);
}

/* Until connected or stopping. */
void lane_connect(struct lane *lane)
{
	const struct loader *loader = lane->writer->loader;
	int64_t backoff_ms = BACKOFF_FIRST_MS;
	bool told = false;

	atomic_fetch_add(&lane->writer->lanes_down, 1);
	while (!lane_is_stopping(lane)) {
		bool tried = loader_is_claimed(loader);
		if (tried && try_connect(lane)) {
			break;
		}
		if (!tried || !loader_is_claimed(loader)) {
			backoff_ms = BACKOFF_FIRST_MS; /* the loader says what is the matter */
		} else if (!told && !lane->objected && *database_error(lane->database) && !lane_is_stopping(lane)) {
			/* (without an error of the database's the spool has said what is the matter) */
			log_line(LOG_LEVEL_ERROR, "chat: writer %u: database: %s; messages wait until it answers",
				lane->reader.lane, database_error(lane->database));
			told = true;
		}
		lane_back_off(lane, &backoff_ms);
	}
	if (told && !lane_is_stopping(lane)) {
		log_line(LOG_LEVEL_NOTICE, "chat: writer %u: database: connected again", lane->reader.lane);
	}
	/* At the start nothing has waited for longer than that, but for what an earlier process left. */
	lane_note_backlog(lane, lane->outages == 0 ? spool_recovered_end(lane->writer->spool) : spool_end(lane->writer->spool));
	atomic_fetch_sub(&lane->writer->lanes_down, 1);
}
