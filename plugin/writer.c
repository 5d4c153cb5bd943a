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
 * - Rows that somebody else keeps locked (an administrator's open transaction) hold up their own slots only: these are set
 *   aside, the lane reads on without them, and after a while goes back to where the first of their records is.
 */
#include "writer.h"

#include "answer.h"
#include "clock.h"
#include "envelope.h"
#include "log.h"
#include "statements.h"
#include "test_faults.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Above some 500 rows a batch gains nothing more and only holds its row locks longer. */
#define BATCH_RECORDS_MAX 500
/* Long messages fill a batch by their bytes: one parameter array stays small beside the server's memory. */
#define BATCH_BYTES_MAX ((size_t)4 << 20)
/* A commit that takes longer than this is given up on and settled over a new connection. */
#define COMMIT_TIMEOUT_MS 30000
#define CONNECT_TIMEOUT_MS 5000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000
/* A lock that takes longer is not waited for: its slot is set aside, for this long at first and at most. Far above what a
 * transaction of the plugin's own takes; each try costs the lane's other slots this wait, twice. */
#define LOCK_TIMEOUT "250ms"
#define ASIDE_FIRST_MS 1000
#define ASIDE_MAX_MS 16000
/* A lane with nothing to do looks up this often; it is woken for anything that comes. */
#define IDLE_WAIT_MS 10000

enum column {
	C_CONVERSATION,
	C_SENDER,
	C_DEVICE,
	C_ID,
	C_HASH,
	C_TYPE,
	C_BODY,
	C_REPLY_TO,
	C_REF,
	C_EXTRA,
	C_SENT_AT,
	C_EXPIRES_AT,
	COLUMNS
};
static const enum database_type column_types[COLUMNS] = {DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_UUID,
	DATABASE_UUID, DATABASE_TEXT, DATABASE_TEXT, DATABASE_INT8, DATABASE_INT8, DATABASE_JSONB, DATABASE_TIMESTAMPTZ,
	DATABASE_TIMESTAMPTZ};

enum mark_column { M_CONVERSATION, M_USER, M_DEVICE, M_DELIVERED, M_READ, M_AT, MARK_COLUMNS };
static const enum database_type mark_column_types[MARK_COLUMNS] = {
	DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_TIMESTAMPTZ};

struct lane {
	struct writer *writer;
	pthread_t thread;
	bool started;
	struct spool_reader reader;
	struct database *database;
	uint64_t committed[RECORD_SLOTS]; /* position up to which the slot's records are in the tables */
	const struct record_header *batch[BATCH_RECORDS_MAX];
	size_t batch_count;
	uint32_t connects;
	bool objected;        /* said that the spool and the database do not belong together */
	uint64_t backlog_end; /* records before this were accepted before the database last came back */
	struct database_array slots, from, to;
	struct database_array no_slots, no_positions; /* for a call beside one that moves the positions of both */
	struct database_array columns[COLUMNS];
	struct database_array mark_columns[MARK_COLUMNS];
	struct log_gate trouble;
	struct {
		bool slot[RECORD_SLOTS];
		uint64_t from;    /* the first record of all these; ASIDE_NONE */
		uint64_t until;   /* once the reader is here again without setting aside anew, it is over; 0: it is over */
		int64_t pause_ms; /* how long */
		int64_t retry_ms; /* monotonic, when the reader goes back */
	} aside;
};
#define ASIDE_NONE UINT64_MAX

struct writer {
	struct spool *spool;
	struct delivery_queue *deliveries;
	const struct loader *loader;
	unsigned lane_count;
	struct lane *lanes;
	int stop_fd;
	_Atomic bool stopping;
	_Atomic unsigned lanes_down;
	_Atomic uint64_t batches, messages, marks, refused, duplicates;
};

static bool stopping(const struct lane *lane)
{
	return atomic_load(&lane->writer->stopping);
}

/* ---- making the calls' parameters ---- */

static uint64_t record_end(const struct record_header *record)
{
	return record->position + record->length;
}

/* Where each slot of records[0..count) stands now and shall stand after. */
static void fill_positions(struct lane *lane, const struct record_header *const *records, size_t count)
{
	uint64_t to[RECORD_SLOTS] = {0};

	for (size_t i = 0; i < count; i++) {
		to[records[i]->slot] = record_end(records[i]);
	}
	database_array_reset(&lane->slots);
	database_array_reset(&lane->from);
	database_array_reset(&lane->to);
	for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
		if (to[slot]) {
			database_array_integer(&lane->slots, slot);
			database_array_integer(&lane->from, (int64_t)lane->committed[slot]);
			database_array_integer(&lane->to, (int64_t)to[slot]);
		}
	}
}

static void add_optional_integer(struct database_array *array, int64_t value)
{
	if (value) {
		database_array_integer(array, value);
	} else {
		database_array_null(array);
	}
}

static void add_message(struct lane *lane, const struct record_header *record)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	struct database_array *columns = lane->columns;
	uint8_t hash[16] = {0};

	if (!envelope_content_hash(parts.type, message->type_length, parts.body, message->body_length, message->reply_to,
		    message->ref, parts.extra, message->extra_length, message->expires_in_s, hash)) {
		columns[C_HASH].bytes.failed = true; /* no memory: the call fails as a whole, and is tried again */
	}
	database_array_integer(&columns[C_CONVERSATION], message->conversation_id);
	database_array_integer(&columns[C_SENDER], message->user_id);
	database_array_integer(&columns[C_DEVICE], message->device_id);
	database_array_bytes(&columns[C_ID], TEST_ID(record, message->id), 16);
	database_array_bytes(&columns[C_HASH], hash, 16);
	database_array_bytes(&columns[C_TYPE], parts.type, message->type_length);
	database_array_bytes(&columns[C_BODY], parts.body, message->body_length);
	add_optional_integer(&columns[C_REPLY_TO], message->reply_to);
	add_optional_integer(&columns[C_REF], message->ref);
	if (parts.extra) {
		database_array_bytes(&columns[C_EXTRA], parts.extra, message->extra_length);
	} else {
		database_array_null(&columns[C_EXTRA]);
	}
	database_array_time(&columns[C_SENT_AT], message->accepted_at_ms);
	if (message->expires_in_s) {
		database_array_time(&columns[C_EXPIRES_AT], message->accepted_at_ms + message->expires_in_s * 1000);
	} else {
		database_array_null(&columns[C_EXPIRES_AT]);
	}
}

static void add_mark(struct lane *lane, const struct record_header *record)
{
	const char *client_id;
	const struct record_mark *mark = record_read_mark(record, &client_id);
	database_array_integer(&lane->mark_columns[M_CONVERSATION], mark->conversation_id);
	database_array_integer(&lane->mark_columns[M_USER], mark->user_id);
	database_array_integer(&lane->mark_columns[M_DEVICE], mark->device_id);
	database_array_integer(&lane->mark_columns[M_DELIVERED], mark->delivered);
	database_array_integer(&lane->mark_columns[M_READ], mark->read);
	database_array_time(&lane->mark_columns[M_AT], mark->accepted_at_ms);
}

struct shares {
	size_t messages, marks;
};

static struct shares fill_columns(struct lane *lane, const struct record_header *const *records, size_t count)
{
	struct shares shares = {0, 0};
	for (int i = 0; i < COLUMNS; i++) {
		database_array_reset(&lane->columns[i]);
	}
	for (int i = 0; i < MARK_COLUMNS; i++) {
		database_array_reset(&lane->mark_columns[i]);
	}
	for (size_t i = 0; i < count; i++) {
		if (records[i]->type == RECORD_MESSAGE) {
			add_message(lane, records[i]);
			shares.messages++;
		} else {
			add_mark(lane, records[i]);
			shares.marks++;
		}
	}
	return shares;
}

static void position_parameters(struct lane *lane, struct database_parameters *parameters)
{
	database_parameters_reset(parameters);
	database_parameter_uuid(parameters, spool_id(lane->writer->spool));
	database_parameter_array(parameters, &lane->slots);
	database_parameter_array(parameters, &lane->from);
	database_parameter_array(parameters, &lane->to);
}

static void reset_positions(struct lane *lane)
{
	database_array_reset(&lane->slots);
	database_array_reset(&lane->from);
	database_array_reset(&lane->to);
}

/* ---- what was committed, for the broker thread ---- */

/* The answer of append_messages or settle_messages, row by row. */
enum { STATUS_STORED = 1, STATUS_DUPLICATE = 2, STATUS_REFUSED = 3 };

static struct delivery_item *begin_item(struct delivery_batch *out, enum delivery_kind kind, int64_t conversation_id)
{
	struct delivery_item *item = delivery_batch_add(out, kind);
	item->conversation_id = conversation_id;
	item->payload_at = (uint32_t)out->bytes.length;
	return item;
}

static void end_item(struct delivery_item *item, const char *client_id, size_t client_id_length, const char *correlation,
	size_t correlation_length)
{
	struct buffer *bytes = &item->batch->bytes;
	item->payload_length = (uint32_t)(bytes->length - item->payload_at);
	item->client_id_at = (uint32_t)bytes->length;
	item->client_id_length = (uint32_t)client_id_length;
	buffer_append(bytes, client_id, client_id_length);
	item->correlation_at = (uint32_t)bytes->length;
	item->correlation_length = (uint32_t)correlation_length;
	buffer_append(bytes, correlation, correlation_length);
}

static void post_mark_refusal(struct delivery_batch *out, const struct record_header *record, enum error_code code)
{
	const char *client_id;
	const struct record_mark *mark = record_read_mark(record, &client_id);
	struct delivery_item *item = begin_item(out, DELIVERY_ANSWER, mark->conversation_id);
	struct answer_subject subject = {.conversation_id = mark->conversation_id};
	struct error_detail error = {.code = code};
	item->user_id = mark->user_id;
	answer_error(&out->bytes, &subject, &error);
	end_item(item, client_id, mark->client_id_length, "", 0);
}

/* The answer to a message: its number, or with `code` why not. A request of an earlier process is answered to nobody. */
static void post_answer(const struct lane *lane, struct delivery_batch *out, const struct record_header *record,
	enum error_code code, int64_t seq, int64_t sent_at_ms)
{
	struct record_parts parts;
	if (record->type == RECORD_MARK) {
		post_mark_refusal(out, record, code);
		return;
	}
	const struct record_message *message = record_read_message(record, &parts);
	bool requested = (record->flags & RECORD_FLAG_REQUEST) != 0;
	const char *correlation = parts.correlation, *request_id = NULL;
	size_t correlation_length = message->correlation_length;
	struct record_request request = {0};

	if (requested) {
		request = record_read_request(&correlation, &correlation_length, &request_id);
		if (record->position < spool_recovered_end(lane->writer->spool)) {
			return;
		}
	}
	struct delivery_item *item = begin_item(out, DELIVERY_ANSWER, message->conversation_id);
	struct answer_subject subject = {.id = requested ? NULL : message->id,
		.conversation_id = requested ? 0 : message->conversation_id,
		.request_id = request.request_id_length > 0 ? request_id : NULL,
		.request_id_length = request.request_id_length};
	struct error_detail error = {.code = code};
	item->user_id = message->user_id;
	item->to_session = requested;
	item->session_index = request.session_index;
	item->session_generation = request.session_generation;
	item->ticket = request.ticket;
	if (code != ERROR_NONE) {
		answer_error(&out->bytes, &subject, &error);
	} else if (requested) {
		answer_send_result(&out->bytes, request_id, request.request_id_length, seq, sent_at_ms);
	} else {
		answer_sent(&out->bytes, message->id, message->conversation_id, seq, sent_at_ms);
	}
	end_item(item, parts.client_id, message->client_id_length, correlation, correlation_length);
}

static void post_message(
	struct lane *lane, struct delivery_batch *out, const struct record_header *record, int64_t seq, uint32_t members_version)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	struct message_view view = {
		.conversation_id = message->conversation_id,
		.seq = seq,
		.id = message->id,
		.sender_id = message->user_id,
		.sent_at_ms = message->accepted_at_ms,
		.type = parts.type,
		.type_length = message->type_length,
		.body = parts.body,
		.body_length = message->body_length,
		.reply_to = message->reply_to,
		.ref = message->ref,
		.extra = parts.extra,
		.extra_length = message->extra_length,
		.expires_at_ms = message->expires_in_s ? message->accepted_at_ms + message->expires_in_s * 1000 : 0,
	};
	struct delivery_item *item = begin_item(out, DELIVERY_MESSAGE, message->conversation_id);
	item->seq = seq;
	item->user_id = message->user_id;
	item->at_ms = message->accepted_at_ms;
	item->members_version = members_version;
	item->outage = record->position < lane->backlog_end ? lane->connects : 0;
	message_view_append(&out->bytes, &view);
	item->payload_length = (uint32_t)(out->bytes.length - item->payload_at);
	int64_t mentions[ENVELOPE_MENTIONS_MAX];
	item->mention_count = (uint32_t)envelope_mentions(parts.extra, message->extra_length, mentions);
	item->mentions_at = (uint32_t)out->bytes.length;
	buffer_append(&out->bytes, mentions, item->mention_count * sizeof(mentions[0]));
}

static void post_message_row(struct lane *lane, struct delivery_batch *out, const struct record_header *record,
	const struct database_result *rows, int row)
{
	struct writer *writer = lane->writer;
	int64_t status = database_integer(rows, row, 1);
	int64_t seq = TEST_NUMBER(record, status == STATUS_STORED, database_integer(rows, row, 2));
	size_t code_length;
	const char *code = database_bytes(rows, row, 4, &code_length);

	if (status == STATUS_REFUSED) {
		atomic_fetch_add(&writer->refused, 1);
		post_answer(lane, out, record, error_code_from_name(code ? code : "", code_length), 0, 0);
		return;
	}
	if (status == STATUS_DUPLICATE) {
		atomic_fetch_add(&writer->duplicates, 1);
	} else {
		post_message(lane, out, record, seq, (uint32_t)database_integer(rows, row, 5));
	}
	/* A resend is always answered: its sender may never have heard the first answer. */
	if (record->flags & RECORD_FLAG_ANSWER || status == STATUS_DUPLICATE) {
		post_answer(lane, out, record, ERROR_NONE, seq, database_time_ms(rows, row, 3));
	}
}

static void post_mark_row(
	struct delivery_batch *out, const struct record_header *record, const struct database_result *rows, int row)
{
	const char *client_id;
	const struct record_mark *mark = record_read_mark(record, &client_id);
	size_t code_length;
	const char *code = database_bytes(rows, row, 1, &code_length);

	if (code) {
		post_mark_refusal(out, record, error_code_from_name(code, code_length));
	} else if (database_integer(rows, row, 4)) {
		struct delivery_item *item = begin_item(out, DELIVERY_RECEIPT, mark->conversation_id);
		item->user_id = mark->user_id;
		item->at_ms = mark->accepted_at_ms;
		item->delivered = database_integer(rows, row, 2);
		item->read = database_integer(rows, row, 3);
		item->members_version = (uint32_t)database_integer(rows, row, 5);
		item->effects = mark->read > 0 ? DELIVERY_READ : 0;
	}
}

/* Rows of messages and of marks come in the order of their records. */
static bool post_rows(struct lane *lane, const struct record_header *const *records, size_t count,
	const struct database_result *message_rows, const struct database_result *mark_rows)
{
	struct delivery_batch *out = delivery_batch_new((uint32_t)count * 2);
	int message_row = 0, mark_row = 0;

	if (!out) {
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		if (records[i]->type == RECORD_MESSAGE) {
			post_message_row(lane, out, records[i], message_rows, message_row++);
		} else {
			post_mark_row(out, records[i], mark_rows, mark_row++);
		}
	}
	if (out->bytes.failed) {
		delivery_batch_free(out);
		return false;
	}
	delivery_post(lane->writer->deliveries, out);
	return true;
}

/* The tables have it, the positions have moved: so has this lane. */
static void note_committed(struct lane *lane, const struct record_header *const *records, size_t count, struct shares shares)
{
	struct writer *writer = lane->writer;
	for (size_t i = 0; i < count; i++) {
		lane->committed[records[i]->slot] = record_end(records[i]);
		spool_note_committed(writer->spool, records[i]->slot, record_end(records[i]));
	}
	atomic_fetch_add(&writer->batches, 1);
	atomic_fetch_add(&writer->messages, shares.messages);
	atomic_fetch_add(&writer->marks, shares.marks);
}

static bool rows_match(const struct database_result *rows, size_t count)
{
	return count == 0 || (rows && (size_t)database_rows(rows) == count);
}

static void log_trouble(struct lane *lane, const char *what)
{
	uint64_t suppressed;
	if (log_gate_open(&lane->trouble, clock_monotonic_ms(), &suppressed)) {
		log_line(LOG_LEVEL_ERROR, "chat: writer %u: %s: %s%s%s", lane->reader.lane, what, database_error(lane->database),
			database_sqlstate(lane->database)[0] ? "; SQLSTATE " : "", database_sqlstate(lane->database));
	}
}

/* ---- committing ---- */

/* One transaction. */
static enum database_status append(struct lane *lane, const struct record_header *const *records, size_t count)
{
	struct database_parameters message_parameters, mark_parameters;
	struct database_call calls[2];
	struct database_result *results[2] = {NULL, NULL};
	size_t call_count = 0;

	fill_positions(lane, records, count);
	struct shares shares = fill_columns(lane, records, count);
	if (shares.messages > 0) {
		position_parameters(lane, &message_parameters);
		for (int i = 0; i < COLUMNS; i++) {
			database_parameter_array(&message_parameters, &lane->columns[i]);
		}
		calls[call_count++] = (struct database_call){STATEMENT_APPEND_MESSAGES, &message_parameters};
	}
	if (shares.marks > 0) {
		if (shares.messages > 0) { /* the messages' call moves the positions of both */
			database_parameters_reset(&mark_parameters);
			database_parameter_uuid(&mark_parameters, spool_id(lane->writer->spool));
			database_parameter_array(&mark_parameters, &lane->no_slots);
			database_parameter_array(&mark_parameters, &lane->no_positions);
			database_parameter_array(&mark_parameters, &lane->no_positions);
		} else {
			position_parameters(lane, &mark_parameters);
		}
		for (int i = 0; i < MARK_COLUMNS; i++) {
			database_parameter_array(&mark_parameters, &lane->mark_columns[i]);
		}
		calls[call_count++] = (struct database_call){STATEMENT_APPEND_MARKS, &mark_parameters};
	}
	TEST_CRASH_POINT("sending");
	TEST_TRANSACTION(lane->database, STATEMENT_TEST_BEGIN, 0);
	enum database_status status = database_run(lane->database, calls, call_count, COMMIT_TIMEOUT_MS, results);
	if (status == DATABASE_OK) {
		TEST_CRASH_POINT("committed");
		const struct database_result *message_rows = shares.messages > 0 ? results[0] : NULL;
		const struct database_result *mark_rows = shares.marks > 0 ? results[call_count - 1] : NULL;
		if (!rows_match(message_rows, shares.messages) || !rows_match(mark_rows, shares.marks) ||
			!post_rows(lane, records, count, message_rows, mark_rows)) {
			database_disconnect(lane->database); /* committed, but not told: settle it like a lost answer */
			status = DATABASE_LOST;
		} else {
			TEST_CRASH_POINT("posted");
			TEST_TRANSACTION(lane->database, STATEMENT_TEST_COMMIT, TEST_UNCOMMITTED_MS);
			note_committed(lane, records, count, shares);
		}
	}
	for (size_t i = 0; i < call_count; i++) {
		database_result_free(results[i]);
	}
	return status;
}

/* A single record that the tables do not take: its sender is told, and it is moved on from; a message is on record as a
 * refusal. */
static enum database_status refuse(struct lane *lane, const struct record_header *record)
{
	struct database_parameters parameters;
	struct database_array code;
	struct database_result *result = NULL;
	struct shares shares = {0, 0};

	fill_positions(lane, &record, 1);
	database_array_init(&code, DATABASE_TEXT);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_reset(&lane->columns[i]);
	}
	if (record->type == RECORD_MESSAGE) {
		add_message(lane, record);
		database_array_bytes(&code, "internal", strlen("internal"));
		shares.messages = 1;
	}
	position_parameters(lane, &parameters);
	database_parameter_array(&parameters, &lane->columns[C_CONVERSATION]);
	database_parameter_array(&parameters, &lane->columns[C_SENDER]);
	database_parameter_array(&parameters, &lane->columns[C_ID]);
	database_parameter_array(&parameters, &code);
	struct database_call call = {STATEMENT_REFUSE_MESSAGES, &parameters};
	enum database_status status = database_run(lane->database, &call, 1, COMMIT_TIMEOUT_MS, &result);
	if (status == DATABASE_OK) {
		struct delivery_batch *out = delivery_batch_new(1);
		note_committed(lane, &record, 1, shares);
		atomic_fetch_add(&lane->writer->refused, 1);
		if (out) { /* without memory the refusal is on record only */
			if (record->type == RECORD_MARK) {
				post_mark_refusal(out, record, ERROR_INTERNAL);
			} else {
				post_answer(lane, out, record, ERROR_INTERNAL, 0, 0);
			}
			delivery_post(lane->writer->deliveries, out);
		}
	}
	database_result_free(result);
	database_array_free(&code);
	return status;
}

/* Whether the server refused for what was in the call, so that sending it again can only fail again: data exceptions,
 * constraint violations, and errors of syntax or access rule, which for one good and one bad row mean the bad row
 * (PostgreSQL appendix A). Privileges (42501) and a missing function (42883) are the administrator's to mend. */
static bool is_poison(const char *sqlstate)
{
	return strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0 || strcmp(sqlstate, "54000") == 0 ||
	       strcmp(sqlstate, "P0001") == 0;
}

/* ---- slots that somebody else's lock holds up ---- */

static void set_aside(struct lane *lane, const struct record_header *first)
{
	if (lane->aside.until == 0) {
		log_line(LOG_LEVEL_WARNING,
			"chat: writer %u: another session keeps rows locked for longer than " LOCK_TIMEOUT
			"; the messages of their conversations wait, see pg_locks",
			lane->reader.lane);
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
		log_line(LOG_LEVEL_NOTICE, "chat: writer %u: what waited for rows to be unlocked is stored", lane->reader.lane);
		lane->aside.until = 0;
	}
}

/* ---- batches that cannot be committed as a whole ---- */

static bool is_locked(const char *sqlstate)
{
	return strcmp(sqlstate, "55P03") == 0; /* lock_not_available */
}

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
	enum database_status status = append(lane, records, count);
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
	if (!is_poison(sqlstate)) {
		return status;
	}
	if (count > 1) {
		return commit_halves(lane, records, count);
	}
	log_trouble(lane, "a record was refused by the tables; it is refused to its sender");
	return refuse(lane, records[0]);
}

/* ---- connecting, and settling what was under way ---- */

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

/* The worst that is to be said of any of the positions. */
static enum spool_objection find_objection(
	const struct spool *spool, unsigned first, unsigned step, const uint64_t positions[RECORD_SLOTS])
{
	enum spool_objection worst = SPOOL_AGREES;
	for (unsigned slot = first; slot < RECORD_SLOTS; slot += step) {
		enum spool_objection objection = spool_objection(spool, slot, positions[slot]);
		worst = objection > worst ? objection : worst;
	}
	return worst;
}

bool writer_check_positions(const char *conninfo, struct spool *spool, int64_t timeout_ms, char *error, size_t error_size)
{
	struct database *database = database_new(conninfo, "mosquitto-chat start", statements, STATEMENTS, -1);
	uint64_t positions[RECORD_SLOTS] = {0};
	enum spool_objection objection = SPOOL_AGREES;

	if (database && database_connect(database, timeout_ms) && read_positions(database, spool, 0, 1, timeout_ms, positions)) {
		objection = find_objection(spool, 0, 1, positions);
	}
	database_free(database);
	if (objection == SPOOL_AGREES || objection == SPOOL_LOST_END) { /* of which the lanes speak, and go on */
		return true;
	}
	snprintf(error, error_size, "plugin_opt_spool_dir: %s", spool_objection_text(objection));
	return false;
}

/* Tells the broker thread of messages whose commit was not heard. Marks are sent again: watermarks only rise. */
static bool settle(struct lane *lane, const struct record_header *const *records, size_t count)
{
	struct database_parameters parameters, mark_parameters;
	struct database_call calls[2];
	struct database_result *results[2] = {NULL, NULL};
	size_t call_count = 0;
	bool done = false;

	reset_positions(lane);
	struct shares shares = fill_columns(lane, records, count);
	if (shares.messages > 0) {
		database_parameters_reset(&parameters);
		database_parameter_array(&parameters, &lane->columns[C_CONVERSATION]);
		database_parameter_array(&parameters, &lane->columns[C_SENDER]);
		database_parameter_array(&parameters, &lane->columns[C_ID]);
		database_parameter_array(&parameters, &lane->columns[C_HASH]);
		database_parameter_array(&parameters, &lane->columns[C_SENT_AT]);
		calls[call_count++] = (struct database_call){STATEMENT_SETTLE_MESSAGES, &parameters};
	}
	if (shares.marks > 0) {
		position_parameters(lane, &mark_parameters);
		for (int i = 0; i < MARK_COLUMNS; i++) {
			database_parameter_array(&mark_parameters, &lane->mark_columns[i]);
		}
		calls[call_count++] = (struct database_call){STATEMENT_APPEND_MARKS, &mark_parameters};
	}
	if (database_run(lane->database, calls, call_count, COMMIT_TIMEOUT_MS, results) == DATABASE_OK) {
		const struct database_result *message_rows = shares.messages > 0 ? results[0] : NULL;
		const struct database_result *mark_rows = shares.marks > 0 ? results[call_count - 1] : NULL;
		done = rows_match(message_rows, shares.messages) && rows_match(mark_rows, shares.marks) &&
		       post_rows(lane, records, count, message_rows, mark_rows);
	}
	if (done) {
		note_committed(lane, records, count, shares);
	}
	for (size_t i = 0; i < call_count; i++) {
		database_result_free(results[i]);
	}
	return done;
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
	if (settled > 0 && !settle(lane, done, settled)) {
		return false; /* lane->batch may have lost `done`: the caller's copy still has all */
	}
	lane->batch_count = kept;
	return true;
}

static void back_off(struct lane *lane, int64_t *backoff_ms)
{
	struct pollfd stop = {.fd = lane->writer->stop_fd, .events = POLLIN};
	poll(&stop, 1, (int)*backoff_ms);
	*backoff_ms = *backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : *backoff_ms * 2;
}

/* The spool lost its end: the positions are put back to what it holds, so that what comes next is not taken for committed. */
static bool rewind_positions(struct lane *lane, uint64_t positions[RECORD_SLOTS])
{
	const struct spool *spool = lane->writer->spool;
	struct database_parameters parameters;
	struct database_result *result = NULL;
	struct database_call call = {STATEMENT_APPEND_MARKS, &parameters};

	reset_positions(lane);
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		if (spool_objection(spool, slot, positions[slot]) == SPOOL_LOST_END) {
			database_array_integer(&lane->slots, slot);
			database_array_integer(&lane->from, (int64_t)positions[slot]);
			database_array_integer(&lane->to, (int64_t)spool_true_position(spool, slot));
			positions[slot] = spool_true_position(spool, slot);
		}
	}
	fill_columns(lane, NULL, 0);
	position_parameters(lane, &parameters);
	for (int i = 0; i < MARK_COLUMNS; i++) {
		database_parameter_array(&parameters, &lane->mark_columns[i]);
	}
	bool done = database_run(lane->database, &call, 1, COMMIT_TIMEOUT_MS, &result) == DATABASE_OK;
	database_result_free(result);
	return done;
}

/* Under the rows' locks, so what they say is true, and the spool is judged by it.
 * - Lower than what was committed once: goes on from there. What was committed and let go of here cannot be brought back.
 * - The spool's end was lost: goes on from what there is.
 * - Otherwise beyond what was ever appended: what comes now would be taken for committed, so nothing is. */
static bool positions_will_do(struct lane *lane, uint64_t positions[RECORD_SLOTS])
{
	enum spool_objection objection =
		find_objection(lane->writer->spool, lane->reader.lane, lane->writer->lane_count, positions);

	if (objection != SPOOL_AGREES && !lane->objected) {
		log_line(LOG_LEVEL_ERROR, "chat: writer %u: %s%s", lane->reader.lane, spool_objection_text(objection),
			objection == SPOOL_BEHIND ? "; messages wait until then" : "; going on from where it is");
		lane->objected = true;
	}
	return objection != SPOOL_BEHIND && (objection != SPOOL_LOST_END || rewind_positions(lane, positions));
}

static void take_positions(struct lane *lane, const uint64_t positions[RECORD_SLOTS])
{
	for (unsigned slot = lane->reader.lane; slot < RECORD_SLOTS; slot += lane->writer->lane_count) {
		lane->committed[slot] = positions[slot];
		spool_note_committed(lane->writer->spool, slot, positions[slot]);
	}
	spool_note_checked(lane->writer->spool, lane->reader.lane);
	lane->objected = false;
}

static bool try_connect(struct lane *lane)
{
	uint64_t positions[RECORD_SLOTS] = {0};
	const struct record_header *whole[BATCH_RECORDS_MAX];
	size_t whole_count = lane->batch_count;

	if (!loader_is_claimed(lane->writer->loader) || !database_connect(lane->database, CONNECT_TIMEOUT_MS) ||
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
	take_positions(lane, positions);
	return true;
}

/* Until connected or stopping. */
static void connect_lane(struct lane *lane)
{
	int64_t backoff_ms = BACKOFF_FIRST_MS;
	bool told = false;

	atomic_fetch_add(&lane->writer->lanes_down, 1);
	while (!stopping(lane) && !try_connect(lane)) {
		if (!loader_is_claimed(lane->writer->loader)) {
			backoff_ms = BACKOFF_FIRST_MS; /* the loader says what is the matter */
		} else if (!told && !lane->objected && !stopping(lane)) {
			log_line(LOG_LEVEL_ERROR, "chat: writer %u: database: %s; messages wait until it answers",
				lane->reader.lane, database_error(lane->database));
			told = true;
		}
		back_off(lane, &backoff_ms);
	}
	if (told && !stopping(lane)) {
		log_line(LOG_LEVEL_NOTICE, "chat: writer %u: database: connected again", lane->reader.lane);
	}
	/* At the start nothing has waited for longer than that, but for what an earlier process left. */
	lane->backlog_end = lane->connects == 0 ? spool_recovered_end(lane->writer->spool) : spool_end(lane->writer->spool);
	lane->connects++;
	atomic_fetch_sub(&lane->writer->lanes_down, 1);
}

/* ---- the lane ---- */

/* All that waits, up to the limits; but for what an earlier process has committed, which the positions tell. */
static void take_batch(struct lane *lane)
{
	size_t bytes = 0;
	bool damaged = false;
	while (lane->batch_count < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX) {
		const struct record_header *record = spool_next(&lane->reader, &damaged);
		if (!record) {
			break;
		}
		if (lane->aside.slot[record->slot] ||
			(record_end(record) <= lane->committed[record->slot] && !TEST_BREAK("ignore_position"))) {
			continue;
		}
		lane->batch[lane->batch_count++] = record;
		bytes += record->length;
	}
	if (damaged) {
		log_line(LOG_LEVEL_ERROR,
			"chat: writer %u: the spool is damaged at position %llu; this is a fault of the program: please report "
			"it",
			lane->reader.lane, (unsigned long long)lane->reader.at);
		abort();
	}
}

static void finish_batch(struct lane *lane)
{
	lane->batch_count = 0;
	TEST_CRASH_POINT("releasing");
	release(lane);
}

/* Sends the batch until it is committed or the lane stops. */
static void commit_batch(struct lane *lane)
{
	int64_t backoff_ms = BACKOFF_FIRST_MS;
	while (lane->batch_count > 0 && !stopping(lane)) {
		if (!loader_is_claimed(lane->writer->loader)) {
			database_disconnect(lane->database); /* another broker's database now */
		}
		if (!database_is_connected(lane->database)) {
			connect_lane(lane);
			continue;
		}
		enum database_status status = commit(lane, lane->batch, lane->batch_count);
		if (status == DATABASE_OK) {
			finish_batch(lane);
			return;
		}
		log_trouble(lane, status == DATABASE_LOST ? "connection lost in a commit" : "a commit was refused; trying again");
		database_disconnect(lane->database); /* settle by the positions, whatever it was */
		if (status == DATABASE_REFUSED) {
			back_off(lane, &backoff_ms);
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

	connect_lane(lane);
	while (!stopping(lane)) {
		retry_aside(lane);
		take_batch(lane);
		if (lane->batch_count == 0) {
			release(lane);
			wait_for_more(lane);
			continue;
		}
		if (!delivery_wait_for_room(lane->writer->deliveries)) {
			break;
		}
		commit_batch(lane);
	}
	return NULL;
}

static bool start_lane(struct writer *writer, struct lane *lane, unsigned number, const char *conninfo)
{
	sigset_t all, before;

	lane->writer = writer;
	lane->reader = spool_reader(writer->spool, number);
	lane->aside.from = ASIDE_NONE;
	database_array_init(&lane->slots, DATABASE_INT2);
	database_array_init(&lane->from, DATABASE_INT8);
	database_array_init(&lane->to, DATABASE_INT8);
	database_array_init(&lane->no_slots, DATABASE_INT2);
	database_array_init(&lane->no_positions, DATABASE_INT8);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_init(&lane->columns[i], column_types[i]);
	}
	for (int i = 0; i < MARK_COLUMNS; i++) {
		database_array_init(&lane->mark_columns[i], mark_column_types[i]);
	}
	lane->database = database_new(conninfo, "mosquitto-chat writer", statements, STATEMENTS, writer->stop_fd);
	if (!lane->database) {
		return false;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the broker's */
	lane->started = pthread_create(&lane->thread, NULL, lane_main, lane) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return lane->started;
}

static void free_lane(struct lane *lane)
{
	database_free(lane->database);
	database_array_free(&lane->slots);
	database_array_free(&lane->from);
	database_array_free(&lane->to);
	database_array_free(&lane->no_slots);
	database_array_free(&lane->no_positions);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_free(&lane->columns[i]);
	}
	for (int i = 0; i < MARK_COLUMNS; i++) {
		database_array_free(&lane->mark_columns[i]);
	}
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
