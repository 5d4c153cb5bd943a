/* writer_calls.c - see writer_lane.h: what a lane asks of the database, and what of the answers goes to the broker thread. A
 * lane's own thread.
 *
 * A call's parameters are arrays, one a column, reused from call to call. Its rows come back in the order of the records.
 * Nothing is posted that is not committed, and what is committed counts as heard only once it is posted.
 */
#include "writer_lane.h"

#include "answer.h"
#include "clock.h"
#include "envelope.h"
#include "statements.h"
#include "test_faults.h"

#include <string.h>

/* A database that answers no sooner was away, whether the connection broke or not: what came in meanwhile is a backlog. */
#define OUTAGE_MS 1000

static const enum database_type column_types[COLUMNS] = {DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_UUID,
	DATABASE_UUID, DATABASE_TEXT, DATABASE_TEXT, DATABASE_INT8, DATABASE_INT8, DATABASE_JSONB, DATABASE_TIMESTAMPTZ,
	DATABASE_TIMESTAMPTZ};

static const enum database_type mark_column_types[MARK_COLUMNS] = {
	DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_TIMESTAMPTZ};

static const enum database_type reject_column_types[REJECT_COLUMNS] = {
	DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_UUID, DATABASE_UUID, DATABASE_TIMESTAMPTZ};

static const enum database_type flag_column_types[FLAG_COLUMNS] = {DATABASE_INT8, DATABASE_INT8, DATABASE_UUID, DATABASE_INT8};

/* ---- the lane's arrays ---- */

static void init_arrays(struct database_array *arrays, const enum database_type *types, int count)
{
	for (int i = 0; i < count; i++) {
		database_array_init(&arrays[i], types[i]);
	}
}

static void free_arrays(struct database_array *arrays, int count)
{
	for (int i = 0; i < count; i++) {
		database_array_free(&arrays[i]);
	}
}

static void reset_arrays(struct database_array *arrays, int count)
{
	for (int i = 0; i < count; i++) {
		database_array_reset(&arrays[i]);
	}
}

static void add_arrays(struct database_parameters *parameters, struct database_array *arrays, int count)
{
	for (int i = 0; i < count; i++) {
		database_parameter_array(parameters, &arrays[i]);
	}
}

void lane_calls_init(struct lane *lane)
{
	database_array_init(&lane->slots, DATABASE_INT2);
	database_array_init(&lane->from, DATABASE_INT8);
	database_array_init(&lane->to, DATABASE_INT8);
	database_array_init(&lane->no_slots, DATABASE_INT2);
	database_array_init(&lane->no_positions, DATABASE_INT8);
	init_arrays(lane->columns, column_types, COLUMNS);
	init_arrays(lane->mark_columns, mark_column_types, MARK_COLUMNS);
	init_arrays(lane->reject_columns, reject_column_types, REJECT_COLUMNS);
	init_arrays(lane->flag_columns, flag_column_types, FLAG_COLUMNS);
}

void lane_calls_free(struct lane *lane)
{
	database_array_free(&lane->slots);
	database_array_free(&lane->from);
	database_array_free(&lane->to);
	database_array_free(&lane->no_slots);
	database_array_free(&lane->no_positions);
	free_arrays(lane->columns, COLUMNS);
	free_arrays(lane->mark_columns, MARK_COLUMNS);
	free_arrays(lane->reject_columns, REJECT_COLUMNS);
	free_arrays(lane->flag_columns, FLAG_COLUMNS);
}

/* ---- making the calls' parameters ---- */

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

/* Of what was sent, whatever is stored: a resend of it is one under any rules. */
static void hash_content(const struct record_message *message, const struct record_parts *parts, uint8_t hash[16])
{
	envelope_content_hash(parts->type, message->type_length, parts->body, message->body_length, message->reply_to,
		message->ref, parts->extra, message->extra_length, message->expires_in_s, hash);
}

static void add_hash(struct database_array *column, const struct record_message *message, const struct record_parts *parts)
{
	uint8_t hash[16];
	hash_content(message, parts, hash);
	database_array_bytes(column, hash, sizeof(hash));
}

/* The body as it is stored and delivered. */
static void replace_body(const struct content_verdict *verdict, const char **body, size_t *length)
{
	if (verdict && verdict->masked) {
		*body = verdict->masked;
		*length = verdict->masked_length;
	}
}

static void add_message(struct lane *lane, const struct record_header *record, const struct content_verdict *verdict)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	struct database_array *columns = lane->columns;
	const char *body = parts.body;
	size_t body_length = message->body_length;

	replace_body(verdict, &body, &body_length);
	database_array_integer(&columns[C_CONVERSATION], message->conversation_id);
	database_array_integer(&columns[C_SENDER], message->user_id);
	database_array_integer(&columns[C_DEVICE], message->device_id);
	database_array_bytes(&columns[C_ID], TEST_ID(record, message->id), 16);
	add_hash(&columns[C_HASH], message, &parts);
	database_array_bytes(&columns[C_TYPE], parts.type, message->type_length);
	database_array_bytes(&columns[C_BODY], body, body_length);
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

static void add_rejected(struct lane *lane, const struct record_header *record)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	struct database_array *columns = lane->reject_columns;

	database_array_integer(&columns[R_CONVERSATION], message->conversation_id);
	database_array_integer(&columns[R_SENDER], message->user_id);
	database_array_integer(&columns[R_DEVICE], message->device_id);
	database_array_bytes(&columns[R_ID], message->id, sizeof(message->id));
	add_hash(&columns[R_HASH], message, &parts);
	database_array_time(&columns[R_SENT_AT], message->accepted_at_ms);
}

/* A row for each rule that flags the message; returns how many. */
static size_t add_flags(struct lane *lane, const struct record_header *record, const struct content_verdict *verdict)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	struct database_array *columns = lane->flag_columns;

	for (size_t i = 0; i < verdict->flag_count; i++) {
		database_array_integer(&columns[F_CONVERSATION], message->conversation_id);
		database_array_integer(&columns[F_SENDER], message->user_id);
		database_array_bytes(&columns[F_ID], message->id, sizeof(message->id));
		database_array_integer(&columns[F_RULE], verdict->flagged_by[i]);
	}
	return verdict->flag_count;
}

/* How many records the calls are about, and rows of flag_messages. */
struct shares {
	size_t messages, rejected, marks, flags;
};

static bool is_rejected(const struct content_verdict *verdict)
{
	return verdict && verdict->rejected_by != 0;
}

/* To settle, what was rejected is asked for with the others. */
static struct shares fill_columns(struct lane *lane, const struct record_header *const *records, size_t count, bool settling)
{
	struct shares shares = {0};
	reset_arrays(lane->columns, COLUMNS);
	reset_arrays(lane->mark_columns, MARK_COLUMNS);
	reset_arrays(lane->reject_columns, REJECT_COLUMNS);
	reset_arrays(lane->flag_columns, FLAG_COLUMNS);
	for (size_t i = 0; i < count; i++) {
		const struct content_verdict *verdict = lane_verdict(lane, records[i]);
		if (records[i]->type != RECORD_MESSAGE) {
			add_mark(lane, records[i]);
			shares.marks++;
		} else if (is_rejected(verdict) && !settling) {
			add_rejected(lane, records[i]);
			shares.rejected++;
		} else {
			add_message(lane, records[i], verdict);
			shares.messages++;
			shares.flags += verdict ? add_flags(lane, records[i], verdict) : 0;
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

/* The first call of a transaction moves the positions of all. */
static void position_parameters_once(struct lane *lane, struct database_parameters *parameters, bool first)
{
	if (first) {
		position_parameters(lane, parameters);
		return;
	}
	database_parameters_reset(parameters);
	database_parameter_uuid(parameters, spool_id(lane->writer->spool));
	database_parameter_array(parameters, &lane->no_slots);
	database_parameter_array(parameters, &lane->no_positions);
	database_parameter_array(parameters, &lane->no_positions);
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
	if (code == ERROR_FORBIDDEN && is_rejected(lane_verdict(lane, record))) {
		error.field = "body";
		error.message = "the rules of this conversation do not allow this text";
	}
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

/* expires_at_ms as it was stored: it may be the conversation's rule. 0: it stays. */
static void post_message(struct lane *lane, struct delivery_batch *out, const struct record_header *record, int64_t seq,
	int64_t expires_at_ms, uint32_t members_version)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	const char *body = parts.body;
	size_t body_length = message->body_length;

	replace_body(lane_verdict(lane, record), &body, &body_length);
	struct message_view view = {
		.conversation_id = message->conversation_id,
		.seq = seq,
		.id = message->id,
		.sender_id = message->user_id,
		.sent_at_ms = message->accepted_at_ms,
		.type = parts.type,
		.type_length = message->type_length,
		.body = body,
		.body_length = body_length,
		.reply_to = message->reply_to,
		.ref = message->ref,
		.extra = parts.extra,
		.extra_length = message->extra_length,
		.expires_at_ms = expires_at_ms,
	};
	struct delivery_item *item = begin_item(out, DELIVERY_MESSAGE, message->conversation_id);
	item->seq = seq;
	item->user_id = message->user_id;
	item->at_ms = message->accepted_at_ms;
	item->members_version = members_version;
	item->outage = record->position < lane->backlog_end ? lane->outages : 0;
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
		post_message(lane, out, record, seq, database_time_ms(rows, row, 6), (uint32_t)database_integer(rows, row, 5));
	}
	/* A resend is always answered: its sender may never have heard the first answer. */
	if (record->flags & RECORD_FLAG_ANSWER || status == STATUS_DUPLICATE) {
		post_answer(lane, out, record, ERROR_NONE, seq, database_time_ms(rows, row, 3));
	}
}

/* chat.append_marks: shows */
enum { SHOWS_DELIVERED = 1, SHOWS_READ = 2, HIDES_READ = 4 };

static uint8_t mark_effects(const struct record_mark *mark, int64_t shows)
{
	return (uint8_t)((mark->read > 0 ? DELIVERY_READ : 0) | (shows & SHOWS_DELIVERED ? DELIVERY_SHOWS_DELIVERED : 0) |
			 (shows & SHOWS_READ ? DELIVERY_SHOWS_READ : 0) | (shows & HIDES_READ ? DELIVERY_HIDES_READ : 0));
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
		item->effects = mark_effects(mark, database_integer(rows, row, 6));
	}
}

/* The rows of each call, in the order of their records; NULL: there was no such call. */
struct answer_rows {
	const struct database_result *messages, *rejected, *marks;
};

static bool post_rows(struct lane *lane, const struct record_header *const *records, size_t count, const struct answer_rows *rows)
{
	struct delivery_batch *out = delivery_batch_new((uint32_t)count * 2);
	int message_row = 0, rejected_row = 0, mark_row = 0;

	if (!out) {
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		if (records[i]->type != RECORD_MESSAGE) {
			post_mark_row(out, records[i], rows->marks, mark_row++);
		} else if (rows->rejected && is_rejected(lane_verdict(lane, records[i]))) {
			post_message_row(lane, out, records[i], rows->rejected, rejected_row++);
		} else {
			post_message_row(lane, out, records[i], rows->messages, message_row++);
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
	atomic_fetch_add(&writer->messages, shares.messages + shares.rejected);
	atomic_fetch_add(&writer->marks, shares.marks);
}

static bool rows_match(const struct database_result *rows, size_t count)
{
	return count == 0 || (rows && (size_t)database_rows(rows) == count);
}

void lane_log_trouble(struct lane *lane, const char *what)
{
	uint64_t suppressed;
	if (log_gate_open(&lane->trouble, clock_monotonic_ms(), &suppressed)) {
		log_line(LOG_LEVEL_ERROR, "chat: writer %u: %s: %s%s%s", lane->reader.lane, what, database_error(lane->database),
			database_sqlstate(lane->database)[0] ? "; SQLSTATE " : "", database_sqlstate(lane->database));
	}
}

/* ---- committing ---- */

/* The calls of one transaction: of messages, then of those rejected, of flags, of marks; those that there are. */
#define CALLS_MAX 4
struct transaction {
	struct shares shares;
	size_t count;
	struct database_call calls[CALLS_MAX];
	struct database_parameters parameters[CALLS_MAX];
};

static struct database_parameters *add_call(struct transaction *transaction, enum statement statement)
{
	struct database_parameters *parameters = &transaction->parameters[transaction->count];
	transaction->calls[transaction->count++] = (struct database_call){statement, parameters};
	return parameters;
}

static const struct database_result *rows_of(
	const struct transaction *transaction, struct database_result *const results[], size_t share, enum statement statement)
{
	for (size_t i = 0; i < transaction->count && share > 0; i++) {
		if (transaction->calls[i].statement == (size_t)statement) {
			return results[i];
		}
	}
	return NULL;
}

/* Carries the calls out and posts what they answer. What is not told is to be settled like a lost answer. `message_statement` is
 * the one whose rows are those of messages. */
static enum database_status run_and_post(struct lane *lane, const struct record_header *const *records, size_t count,
	const struct transaction *transaction, enum statement message_statement)
{
	struct database_result *results[CALLS_MAX] = {NULL};
	struct shares shares = transaction->shares;
	int64_t began_ms = clock_monotonic_ms();
	enum database_status status =
		database_run(lane->database, transaction->calls, transaction->count, COMMIT_TIMEOUT_MS, results);

	if (clock_monotonic_ms() - began_ms >= OUTAGE_MS) {
		lane_note_backlog(lane, spool_end(lane->writer->spool));
	}
	if (status == DATABASE_OK) {
		TEST_CRASH_POINT("committed");
		struct answer_rows rows = {
			.messages = rows_of(transaction, results, shares.messages, message_statement),
			.rejected = rows_of(transaction, results, shares.rejected, STATEMENT_REJECT_MESSAGES),
			.marks = rows_of(transaction, results, shares.marks, STATEMENT_APPEND_MARKS),
		};
		if (!rows_match(rows.messages, shares.messages) || !rows_match(rows.rejected, shares.rejected) ||
			!rows_match(rows.marks, shares.marks) || !post_rows(lane, records, count, &rows)) {
			database_disconnect(lane->database);
			status = DATABASE_LOST;
		} else {
			TEST_CRASH_POINT("posted");
			TEST_TRANSACTION(lane->database, STATEMENT_TEST_COMMIT, TEST_UNCOMMITTED_MS);
			note_committed(lane, records, count, shares);
		}
	}
	for (size_t i = 0; i < transaction->count; i++) {
		database_result_free(results[i]);
	}
	return status;
}

static enum database_status send_and_post(struct lane *lane, const struct record_header *const *records, size_t count,
	const struct transaction *transaction, enum statement message_statement)
{
	TEST_CRASH_POINT("sending");
	TEST_TRANSACTION(lane->database, STATEMENT_TEST_BEGIN, 0);
	return run_and_post(lane, records, count, transaction, message_statement);
}

static void optional_integer_parameter(struct database_parameters *parameters, int64_t value)
{
	if (value) {
		database_parameter_integer(parameters, value);
	} else {
		database_parameter_text(parameters, NULL, 0);
	}
}

/* A message that comes alone: values instead of arrays of one, which the server takes apart one by one. */
static enum database_status append_single(struct lane *lane, const struct record_header *const *record)
{
	struct transaction transaction = {.shares = {.messages = 1}};
	struct database_parameters *parameters = add_call(&transaction, STATEMENT_APPEND_MESSAGE);
	const struct record_header *header = record[0];
	struct record_parts parts;
	const struct record_message *message = record_read_message(header, &parts);
	uint8_t hash[16];

	hash_content(message, &parts, hash);
	database_parameters_reset(parameters);
	database_parameter_uuid(parameters, spool_id(lane->writer->spool));
	database_parameter_integer(parameters, header->slot);
	database_parameter_integer(parameters, (int64_t)lane->committed[header->slot]);
	database_parameter_integer(parameters, (int64_t)record_end(header));
	database_parameter_integer(parameters, message->conversation_id);
	database_parameter_integer(parameters, message->user_id);
	database_parameter_integer(parameters, message->device_id);
	database_parameter_uuid(parameters, TEST_ID(header, message->id));
	database_parameter_uuid(parameters, hash);
	database_parameter_text(parameters, parts.type, message->type_length);
	database_parameter_text(parameters, parts.body, message->body_length);
	optional_integer_parameter(parameters, message->reply_to);
	optional_integer_parameter(parameters, message->ref);
	database_parameter_text(parameters, parts.extra, message->extra_length);
	database_parameter_time(parameters, message->accepted_at_ms);
	if (message->expires_in_s) {
		database_parameter_time(parameters, message->accepted_at_ms + message->expires_in_s * 1000);
	} else {
		database_parameter_text(parameters, NULL, 0);
	}
	database_parameter_integer(parameters, atomic_load(&lane->writer->edit_window_s));
	return send_and_post(lane, record, 1, &transaction, STATEMENT_APPEND_MESSAGE);
}

/* One transaction. */
enum database_status lane_append(struct lane *lane, const struct record_header *const *records, size_t count)
{
	struct transaction transaction = {.count = 0};

	if (count == 1 && records[0]->type == RECORD_MESSAGE && !lane_verdict(lane, records[0]) && !TEST_BREAK("lose_batch")) {
		return append_single(lane, records);
	}
	fill_positions(lane, records, count);
	struct shares shares = transaction.shares = fill_columns(lane, records, count, false);
	if (shares.messages > 0) {
		struct database_parameters *parameters = add_call(&transaction, STATEMENT_APPEND_MESSAGES);
		position_parameters(lane, parameters);
		TEST_LOSE_BATCH(lane->database, STATEMENT_TEST_POSITIONS, parameters);
		add_arrays(parameters, lane->columns, COLUMNS);
		database_parameter_integer(parameters, atomic_load(&lane->writer->edit_window_s));
	}
	if (shares.rejected > 0) {
		bool first = transaction.count == 0;
		struct database_parameters *parameters = add_call(&transaction, STATEMENT_REJECT_MESSAGES);
		position_parameters_once(lane, parameters, first);
		add_arrays(parameters, lane->reject_columns, REJECT_COLUMNS);
	}
	if (shares.flags > 0) {
		struct database_parameters *parameters = add_call(&transaction, STATEMENT_FLAG_MESSAGES);
		database_parameters_reset(parameters);
		add_arrays(parameters, lane->flag_columns, FLAG_COLUMNS);
	}
	if (shares.marks > 0) {
		bool first = transaction.count == 0;
		struct database_parameters *parameters = add_call(&transaction, STATEMENT_APPEND_MARKS);
		position_parameters_once(lane, parameters, first);
		add_arrays(parameters, lane->mark_columns, MARK_COLUMNS);
		database_parameter_bool(parameters, false);
	}
	return send_and_post(lane, records, count, &transaction, STATEMENT_APPEND_MESSAGES);
}

/* A single record that the tables do not take: its sender is told, and it is moved on from; a message is on record as a
 * refusal. */
enum database_status lane_refuse(struct lane *lane, const struct record_header *record)
{
	struct database_parameters parameters;
	struct database_array code;
	struct database_result *result = NULL;
	struct shares shares = {0};

	fill_positions(lane, &record, 1);
	database_array_init(&code, DATABASE_TEXT);
	reset_arrays(lane->columns, COLUMNS);
	if (record->type == RECORD_MESSAGE) {
		add_message(lane, record, NULL);
		database_array_bytes(&code, "internal", strlen("internal"));
		shares.messages = 1;
	}
	position_parameters(lane, &parameters);
	database_parameter_array(&parameters, &lane->columns[C_CONVERSATION]);
	database_parameter_array(&parameters, &lane->columns[C_SENDER]);
	database_parameter_array(&parameters, &lane->columns[C_DEVICE]);
	database_parameter_array(&parameters, &lane->columns[C_ID]);
	database_parameter_array(&parameters, &lane->columns[C_SENT_AT]);
	database_parameter_array(&parameters, &code);
	struct database_call call = {STATEMENT_REFUSE_MESSAGES, &parameters};
	enum database_status status = database_run(lane->database, &call, 1, COMMIT_TIMEOUT_MS, &result);
	if (status == DATABASE_OK) {
		TEST_CRASH_POINT("refused");
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

static enum database_status settle_records(struct lane *lane, const struct record_header *const *records, size_t count)
{
	struct transaction transaction = {.count = 0};

	reset_positions(lane);
	struct shares shares = transaction.shares = fill_columns(lane, records, count, true);
	if (shares.messages > 0) {
		struct database_parameters *parameters = add_call(&transaction, STATEMENT_SETTLE_MESSAGES);
		database_parameters_reset(parameters);
		database_parameter_array(parameters, &lane->columns[C_CONVERSATION]);
		database_parameter_array(parameters, &lane->columns[C_SENDER]);
		database_parameter_array(parameters, &lane->columns[C_ID]);
		database_parameter_array(parameters, &lane->columns[C_HASH]);
		database_parameter_array(parameters, &lane->columns[C_SENT_AT]);
	}
	if (shares.marks > 0) {
		struct database_parameters *parameters = add_call(&transaction, STATEMENT_APPEND_MARKS);
		position_parameters(lane, parameters);
		add_arrays(parameters, lane->mark_columns, MARK_COLUMNS);
		database_parameter_bool(parameters, true);
	}
	return run_and_post(lane, records, count, &transaction, STATEMENT_SETTLE_MESSAGES);
}

static size_t select_messages(const struct record_header *const *records, size_t count, const struct record_header **selected)
{
	size_t found = 0;
	for (size_t i = 0; i < count; i++) {
		if (records[i]->type == RECORD_MESSAGE) {
			selected[found++] = records[i];
		}
	}
	return found;
}

/* Marks are sent again, since watermarks only rise; what they moved the first time is answered as moved. Where the tables do not
 * take them again (a row that somebody keeps locked; one that was refused the first time) they are left at that: their position
 * has moved, so all that is missed is a receipt. */
bool lane_settle(struct lane *lane, const struct record_header *const *records, size_t count)
{
	const struct record_header *messages[BATCH_RECORDS_MAX];
	enum database_status status = settle_records(lane, records, count);

	if (status == DATABASE_REFUSED) {
		size_t message_count = select_messages(records, count, messages);
		if (message_count < count) {
			lane_log_trouble(lane, "what became of marks was not heard, and is told to nobody");
			status = message_count > 0 ? settle_records(lane, messages, message_count) : DATABASE_OK;
		}
	}
	TEST_CRASH_POINT("settled");
	return status == DATABASE_OK;
}

/* The spool lost its end: the positions are put back to what it holds, so that what comes next is not taken for committed. */
bool lane_rewind_positions(struct lane *lane, uint64_t positions[RECORD_SLOTS])
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
	fill_columns(lane, NULL, 0, true);
	position_parameters(lane, &parameters);
	add_arrays(&parameters, lane->mark_columns, MARK_COLUMNS);
	database_parameter_bool(&parameters, false);
	bool done = database_run(lane->database, &call, 1, COMMIT_TIMEOUT_MS, &result) == DATABASE_OK;
	TEST_CRASH_POINT("rewound");
	database_result_free(result);
	return done;
}
