/* database.c - see database.h. The only file that includes libpq.
 *
 * libpq is used in its non-blocking mode: every wait is one poll() on the connection's socket and the stop
 * descriptor. A connection that once failed a wait is closed: a reply that comes late must never be taken for the
 * reply to the next question.
 */
#include "database.h"

#include "clock.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Our longest parameter is the array of bodies of one batch; the writer bounds its batches far below this. */
#define ARRAY_BYTES_MAX ((size_t)256 << 20)
#define ARRAY_HEADER_BYTES 20 /* ndim, flags, element type, size, lower bound: int32 each */
/* PostgreSQL counts microseconds from 2000-01-01 (src/include/datatype/timestamp.h). */
#define POSTGRES_EPOCH_UNIX_MS INT64_C(946684800000)

struct database {
	int server_process; /* of the newest connection that was made */
	PGconn *connection; /* NULL when not connected */
	char *conninfo;
	const char *application_name;
	const struct database_statement *statements;
	size_t statement_count;
	int stop_fd;
	enum { IDLE, CONNECTING, PREPARING, CALLING } step; /* what database_advance() goes on with */
	size_t prepared;                                    /* statements, while PREPARING */
	bool refused;                                       /* the statement under way */
	PGresult *kept;                                     /* of the statement under way */
	char error[256];
	char sqlstate[6];
};

struct database_result {
	PGresult *pg;
};

/* pg_type.dat; fixed for all versions of PostgreSQL */
static uint32_t type_oid(enum database_type type)
{
	switch (type) {
	case DATABASE_INT2:
		return 21;
	case DATABASE_INT4:
		return 23;
	case DATABASE_INT8:
		return 20;
	case DATABASE_BOOL:
		return 16;
	case DATABASE_TEXT:
		return 25;
	case DATABASE_UUID:
		return 2950;
	case DATABASE_JSONB:
		return 3802;
	case DATABASE_TIMESTAMPTZ:
		return 1184;
	}
	return 0;
}

/* ---- connection ---- */

struct database *database_new(const char *conninfo, const char *application_name, const struct database_statement *statements,
	size_t statement_count, int stop_fd)
{
	struct database *database = calloc(1, sizeof(*database));
	if (!database) {
		return NULL;
	}
	database->conninfo = strdup(conninfo);
	if (!database->conninfo) {
		free(database);
		return NULL;
	}
	database->application_name = application_name;
	database->statements = statements;
	database->statement_count = statement_count;
	database->stop_fd = stop_fd;
	return database;
}

void database_free(struct database *database)
{
	if (!database) {
		return;
	}
	database_disconnect(database);
	free(database->conninfo);
	free(database);
}

void database_disconnect(struct database *database)
{
	PQclear(database->kept);
	database->kept = NULL;
	database->step = IDLE;
	PQfinish(database->connection);
	database->connection = NULL;
}

int database_server_process(const struct database *database)
{
	return database->server_process;
}

bool database_is_connected(const struct database *database)
{
	return database->connection != NULL;
}

const char *database_error(const struct database *database)
{
	return database->error;
}

const char *database_sqlstate(const struct database *database)
{
	return database->sqlstate;
}

/* Keeps the first line of libpq's message: what follows may quote data (DETAIL, CONTEXT). */
static void set_error(struct database *database, const char *message)
{
	size_t length = strcspn(message, "\n");
	if (length >= sizeof(database->error)) {
		length = sizeof(database->error) - 1;
	}
	memcpy(database->error, message, length);
	database->error[length] = '\0';
}

/* Closes a connection whose state is no longer known. */
static enum database_status lost(struct database *database, const char *message)
{
	set_error(database, message);
	database_disconnect(database);
	return DATABASE_LOST;
}

enum wait_result { WAIT_READY, WAIT_STOPPED, WAIT_TIMED_OUT };

static enum wait_result wait_for_socket(const struct database *database, short events, int64_t deadline_ms)
{
	for (;;) {
		int64_t left_ms = deadline_ms - clock_monotonic_ms();
		if (left_ms <= 0) {
			return WAIT_TIMED_OUT;
		}
		struct pollfd fds[2] = {
			{.fd = PQsocket(database->connection), .events = events},
			{.fd = database->stop_fd, .events = POLLIN},
		};
		int ready = poll(fds, 2, left_ms > 60000 ? 60000 : (int)left_ms);
		if (ready < 0 && errno != EINTR) {
			return WAIT_STOPPED;
		}
		if (ready <= 0) {
			continue;
		}
		if (fds[1].revents) {
			return WAIT_STOPPED;
		}
		return WAIT_READY;
	}
}

static const char *wait_text(enum wait_result result)
{
	return result == WAIT_STOPPED ? "stopping" : "no answer within the time limit";
}

static bool finish_connect(struct database *database, int64_t deadline_ms)
{
	PostgresPollingStatusType want = PGRES_POLLING_WRITING;
	while (want != PGRES_POLLING_OK) {
		if (want == PGRES_POLLING_FAILED) {
			set_error(database, PQerrorMessage(database->connection));
			return false;
		}
		enum wait_result waited =
			wait_for_socket(database, want == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_ms);
		if (waited != WAIT_READY) {
			set_error(database, wait_text(waited));
			return false;
		}
		want = PQconnectPoll(database->connection);
	}
	return true;
}

/* Reads one result of the statement under way, NULL at its end. *failed says that the connection is unusable. */
static PGresult *next_result(struct database *database, int64_t deadline_ms, bool *failed)
{
	while (PQisBusy(database->connection)) {
		int flushed = PQflush(database->connection);
		if (flushed < 0) {
			*failed = true;
			lost(database, PQerrorMessage(database->connection));
			return NULL;
		}
		enum wait_result waited = wait_for_socket(database, flushed ? POLLIN | POLLOUT : POLLIN, deadline_ms);
		if (waited != WAIT_READY) {
			*failed = true;
			lost(database, wait_text(waited));
			return NULL;
		}
		if (!PQconsumeInput(database->connection)) {
			*failed = true;
			lost(database, PQerrorMessage(database->connection));
			return NULL;
		}
	}
	return PQgetResult(database->connection);
}

static enum database_status note_refusal(struct database *database, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	snprintf(database->sqlstate, sizeof(database->sqlstate), "%s", sqlstate ? sqlstate : "");
	set_error(database, primary ? primary : PQresultErrorMessage(result));
	return DATABASE_REFUSED;
}

/* Takes results up to the end of the statement; keeps the first one with rows in *kept. */
static enum database_status collect(struct database *database, int64_t deadline_ms, PGresult **kept)
{
	enum database_status status = DATABASE_OK;
	for (;;) {
		bool failed = false;
		PGresult *result = next_result(database, deadline_ms, &failed);
		if (failed) {
			return DATABASE_LOST;
		}
		if (!result) {
			break;
		}
		ExecStatusType kind = PQresultStatus(result);
		if (kind == PGRES_FATAL_ERROR) {
			note_refusal(database, result);
			status = DATABASE_REFUSED;
		} else if (kind == PGRES_PIPELINE_ABORTED) {
			status = DATABASE_REFUSED; /* an earlier call of the pipeline has said why */
		} else if (kept && !*kept) {
			*kept = result;
			continue;
		}
		PQclear(result);
	}
	if (PQstatus(database->connection) == CONNECTION_BAD) {
		return lost(database, PQerrorMessage(database->connection));
	}
	return status;
}

enum database_status database_command(struct database *database, const char *sql, int64_t timeout_ms)
{
	if (!database->connection) {
		return DATABASE_LOST;
	}
	if (!PQsendQuery(database->connection, sql)) {
		return lost(database, PQerrorMessage(database->connection));
	}
	return collect(database, clock_monotonic_ms() + timeout_ms, NULL);
}

static bool prepare_all(struct database *database, int64_t deadline_ms)
{
	for (size_t i = 0; i < database->statement_count; i++) {
		const struct database_statement *statement = &database->statements[i];
		if (!PQsendPrepare(database->connection, statement->name, statement->sql, 0, NULL)) {
			set_error(database, PQerrorMessage(database->connection));
			return false;
		}
		if (collect(database, deadline_ms, NULL) != DATABASE_OK) {
			return false;
		}
	}
	return true;
}

static void ignore_notice(void *argument, const char *message)
{
	(void)argument;
	(void)message;
}

/* Begins to connect. False: the reason is in `error`. */
static bool start_connect(struct database *database)
{
	/* The last value of a keyword wins, so the administrator's string may not change what we depend on.
	 * tcp_user_timeout: a vanished server is noticed even while data is unacknowledged. */
	static const char *const keywords[] = {
		"dbname", "application_name", "client_encoding", "keepalives_idle", "tcp_user_timeout", NULL};
	const char *const values[] = {database->conninfo, database->application_name, "UTF8", "30", "30000", NULL};

	database_disconnect(database);
	database->sqlstate[0] = '\0';
	database->connection = PQconnectStartParams(keywords, values, 1);
	if (!database->connection) {
		set_error(database, "out of memory");
		return false;
	}
	if (PQstatus(database->connection) == CONNECTION_BAD) {
		set_error(database, PQerrorMessage(database->connection));
		database_disconnect(database);
		return false;
	}
	PQsetNoticeProcessor(database->connection, ignore_notice, NULL);
	return true;
}

bool database_connect(struct database *database, int64_t timeout_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	if (!start_connect(database)) {
		return false;
	}
	if (!finish_connect(database, deadline_ms) || PQsetnonblocking(database->connection, 1) != 0 ||
		!prepare_all(database, deadline_ms)) {
		database_disconnect(database);
		return false;
	}
	database->server_process = PQbackendPID(database->connection);
	return true;
}

/* ---- calls ---- */

static const int all_binary[DATABASE_PARAMETERS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static bool send_call(struct database *database, const struct database_call *call)
{
	const struct database_parameters *parameters = call->parameters;
	static const struct database_parameters none;
	if (!parameters) {
		parameters = &none;
	}
	return PQsendQueryPrepared(database->connection, database->statements[call->statement].name, parameters->count,
		       parameters->values, parameters->lengths, all_binary, 1) == 1;
}

static enum database_status run_pipeline(
	struct database *database, const struct database_call *calls, size_t count, int64_t deadline_ms, PGresult **kept)
{
	enum database_status status = DATABASE_OK;
	if (!PQenterPipelineMode(database->connection)) {
		return lost(database, PQerrorMessage(database->connection));
	}
	for (size_t i = 0; i < count; i++) {
		if (!send_call(database, &calls[i])) {
			return lost(database, PQerrorMessage(database->connection));
		}
	}
	if (!PQpipelineSync(database->connection)) {
		return lost(database, PQerrorMessage(database->connection));
	}
	for (size_t i = 0; i < count; i++) {
		enum database_status one = collect(database, deadline_ms, &kept[i]);
		if (one == DATABASE_LOST) {
			return one;
		}
		status = one == DATABASE_OK ? status : one;
	}
	/* The commit happens at the sync: only its answer makes the calls above true. An error there comes before it. */
	bool failed = false;
	bool ended = false; /* an error of the commit is a result of its own, which ends before the sync's begins */
	PGresult *sync = next_result(database, deadline_ms, &failed);
	while (!failed && PQresultStatus(sync) != PGRES_PIPELINE_SYNC) {
		if (!sync && (ended || PQstatus(database->connection) == CONNECTION_BAD)) {
			break;
		}
		ended = !sync;
		if (sync && PQresultStatus(sync) == PGRES_FATAL_ERROR) {
			status = note_refusal(database, sync);
		}
		PQclear(sync);
		sync = next_result(database, deadline_ms, &failed);
	}
	if (failed) {
		return DATABASE_LOST;
	}
	bool synced = sync != NULL;
	PQclear(sync);
	if (!synced || !PQexitPipelineMode(database->connection)) {
		return lost(database, PQerrorMessage(database->connection));
	}
	return status;
}

enum database_status database_run(struct database *database, const struct database_call *calls, size_t count, int64_t timeout_ms,
	struct database_result **results)
{
	PGresult *kept[4] = {NULL, NULL, NULL, NULL};
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	enum database_status status = DATABASE_OK;

	memset(results, 0, count * sizeof(results[0]));
	if (!database->connection) {
		return DATABASE_LOST;
	}
	for (size_t i = 0; i < count; i++) {
		if (count > sizeof(kept) / sizeof(kept[0]) || (calls[i].parameters && calls[i].parameters->failed)) {
			snprintf(database->sqlstate, sizeof(database->sqlstate), "53200"); /* out_of_memory */
			set_error(database, "out of memory");
			return DATABASE_REFUSED;
		}
	}
	if (count == 1) {
		status = send_call(database, &calls[0]) ? collect(database, deadline_ms, &kept[0])
							: lost(database, PQerrorMessage(database->connection));
	} else {
		status = run_pipeline(database, calls, count, deadline_ms, kept);
	}
	for (size_t i = 0; i < count && status == DATABASE_OK; i++) {
		results[i] = malloc(sizeof(*results[i]));
		if (!results[i]) {
			status = lost(database,
				"out of memory"); /* done, but its outcome cannot be held: as unknown as a lost answer */
			break;
		}
		results[i]->pg = kept[i];
		kept[i] = NULL;
	}
	for (size_t i = 0; i < count && i < sizeof(kept) / sizeof(kept[0]); i++) {
		PQclear(kept[i]);
		if (status != DATABASE_OK) {
			database_result_free(results[i]);
			results[i] = NULL;
		}
	}
	return status;
}

/* ---- the same without waiting ---- */

bool database_begin_connect(struct database *database)
{
	if (!start_connect(database)) {
		return false;
	}
	database->step = CONNECTING;
	return true;
}

bool database_begin(struct database *database, const struct database_call *call)
{
	if (!database->connection || database->step != IDLE || (call->parameters && call->parameters->failed)) {
		set_error(database, database->connection ? "out of memory" : "not connected");
		return false;
	}
	if (!send_call(database, call)) {
		lost(database, PQerrorMessage(database->connection));
		return false;
	}
	database->step = CALLING;
	database->refused = false;
	return true;
}

static enum database_status advance_connect(struct database *database, short *events)
{
	PostgresPollingStatusType want = PQconnectPoll(database->connection);
	if (want == PGRES_POLLING_OK && PQsetnonblocking(database->connection, 1) == 0) {
		database->step = PREPARING;
		database->prepared = 0;
		database->refused = false;
		return DATABASE_OK;
	}
	*events = want == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	if (want == PGRES_POLLING_READING || want == PGRES_POLLING_WRITING) {
		return DATABASE_PENDING;
	}
	return lost(database, PQerrorMessage(database->connection));
}

/* Takes what has come of the statement under way. */
static enum database_status advance_statement(struct database *database, short *events)
{
	int flushed = PQflush(database->connection);
	*events = flushed ? POLLIN | POLLOUT : POLLIN;
	if (flushed < 0 || !PQconsumeInput(database->connection)) {
		return lost(database, PQerrorMessage(database->connection));
	}
	while (!PQisBusy(database->connection)) {
		PGresult *result = PQgetResult(database->connection);
		if (!result) {
			return PQstatus(database->connection) == CONNECTION_BAD
				       ? lost(database, PQerrorMessage(database->connection))
				       : (database->refused ? DATABASE_REFUSED : DATABASE_OK);
		}
		if (PQresultStatus(result) == PGRES_FATAL_ERROR) {
			note_refusal(database, result);
			database->refused = true;
			PQclear(result);
		} else {
			PQclear(database->kept);
			database->kept = result;
		}
	}
	return DATABASE_PENDING;
}

static enum database_status advance_prepare(struct database *database, short *events)
{
	for (; database->prepared < database->statement_count; database->prepared++) {
		const struct database_statement *next = &database->statements[database->prepared];
		if (!database->kept && PQtransactionStatus(database->connection) != PQTRANS_ACTIVE &&
			!PQsendPrepare(database->connection, next->name, next->sql, 0, NULL)) {
			return lost(database, PQerrorMessage(database->connection));
		}
		enum database_status status = advance_statement(database, events);
		if (status != DATABASE_OK) {
			return status;
		}
		PQclear(database->kept);
		database->kept = NULL;
	}
	return DATABASE_OK;
}

enum database_status database_advance(struct database *database, struct database_result **result, short *events)
{
	enum database_status status = DATABASE_OK;
	*result = NULL;
	*events = 0;
	if (!database->connection || database->step == IDLE) {
		return DATABASE_LOST;
	}
	if (database->step == CALLING) {
		status = advance_statement(database, events);
		if (status == DATABASE_OK) {
			*result = malloc(sizeof(**result));
			if (!*result) {
				return lost(database, "out of memory"); /* done, but its outcome cannot be held */
			}
			(*result)->pg = database->kept;
			database->kept = NULL;
		}
	} else {
		if (database->step == CONNECTING) {
			status = advance_connect(database, events);
		}
		if (status == DATABASE_OK) {
			status = advance_prepare(database, events);
		}
		if (status == DATABASE_REFUSED) {
			database_disconnect(database);
		}
	}
	if (status == DATABASE_OK || status == DATABASE_REFUSED) {
		PQclear(database->kept);
		database->kept = NULL;
		database->step = IDLE;
	}
	return status;
}

/* ---- arrays and parameters ---- */

static bool append_int32(struct buffer *buffer, uint32_t value)
{
	uint32_t wire = htonl(value);
	return buffer_append(buffer, &wire, sizeof(wire));
}

void database_array_init(struct database_array *array, enum database_type type)
{
	buffer_init(&array->bytes, ARRAY_BYTES_MAX);
	array->type = type;
	database_array_reset(array);
}

void database_array_free(struct database_array *array)
{
	buffer_free(&array->bytes);
}

void database_array_reset(struct database_array *array)
{
	static const char header[ARRAY_HEADER_BYTES];
	buffer_reset(&array->bytes);
	buffer_append(&array->bytes, header, sizeof(header));
	array->count = 0;
	array->has_null = false;
}

void database_array_null(struct database_array *array)
{
	append_int32(&array->bytes, UINT32_MAX);
	array->has_null = true;
	array->count++;
}

void database_array_integer(struct database_array *array, int64_t value)
{
	char element[12];
	uint32_t width = array->type == DATABASE_INT2 ? 2 : array->type == DATABASE_INT4 ? 4 : 8;
	uint32_t wire_width = htonl(width);
	uint64_t wire = htobe64((uint64_t)value << (64 - 8 * width));
	memcpy(element, &wire_width, 4);
	memcpy(element + 4, &wire, width);
	buffer_append(&array->bytes, element, 4 + width);
	array->count++;
}

void database_array_bytes(struct database_array *array, const void *bytes, size_t length)
{
	bool jsonb = array->type == DATABASE_JSONB;
	append_int32(&array->bytes, (uint32_t)(length + (jsonb ? 1 : 0)));
	if (jsonb) {
		buffer_append(&array->bytes, "\1", 1); /* format version of jsonb_recv */
	}
	buffer_append(&array->bytes, bytes, length);
	array->count++;
}

/* A timestamptz as it travels: microseconds since 2000. */
static int64_t timestamp_of(int64_t unix_ms)
{
	return (unix_ms - POSTGRES_EPOCH_UNIX_MS) * 1000;
}

void database_array_time(struct database_array *array, int64_t unix_ms)
{
	database_array_integer(array, timestamp_of(unix_ms));
}

static void array_finish(struct database_array *array)
{
	uint32_t header[5] = {
		htonl(1), htonl(array->has_null ? 1 : 0), htonl(type_oid(array->type)), htonl((uint32_t)array->count), htonl(1)};
	if (array->count == 0) {
		header[0] = 0; /* an empty array has no dimensions */
		array->bytes.length = 12;
		memcpy(array->bytes.data, header, 12);
		return;
	}
	memcpy(array->bytes.data, header, sizeof(header));
}

void database_parameters_reset(struct database_parameters *parameters)
{
	parameters->count = 0;
	parameters->failed = false;
}

static void add_parameter(struct database_parameters *parameters, const void *value, size_t length)
{
	if (parameters->count == DATABASE_PARAMETERS_MAX) {
		parameters->failed = true;
		return;
	}
	parameters->values[parameters->count] = value;
	parameters->lengths[parameters->count] = (int)length;
	parameters->count++;
}

void database_parameter_array(struct database_parameters *parameters, struct database_array *array)
{
	if (array->bytes.failed) {
		parameters->failed = true;
		return;
	}
	array_finish(array);
	add_parameter(parameters, array->bytes.data, array->bytes.length);
}

void database_parameter_integer(struct database_parameters *parameters, int64_t value)
{
	int at = parameters->count;
	if (at == DATABASE_PARAMETERS_MAX) {
		parameters->failed = true;
		return;
	}
	parameters->scalars[at] = htobe64((uint64_t)value);
	add_parameter(parameters, &parameters->scalars[at], 8);
}

void database_parameter_bool(struct database_parameters *parameters, bool value)
{
	add_parameter(parameters, value ? "\1" : "\0", 1);
}

void database_parameter_time(struct database_parameters *parameters, int64_t unix_ms)
{
	database_parameter_integer(parameters, timestamp_of(unix_ms));
}

void database_parameter_uuid(struct database_parameters *parameters, const uint8_t uuid[16])
{
	add_parameter(parameters, uuid, 16);
}

void database_parameter_text(struct database_parameters *parameters, const char *text, size_t length)
{
	add_parameter(parameters, text, length);
}

/* ---- results ---- */

void database_result_free(struct database_result *result)
{
	if (result) {
		PQclear(result->pg);
		free(result);
	}
}

int database_rows(const struct database_result *result)
{
	return PQntuples(result->pg);
}

bool database_is_null(const struct database_result *result, int row, int column)
{
	return PQgetisnull(result->pg, row, column) == 1;
}

static int64_t decode_integer(const unsigned char *at, int width)
{
	uint64_t value = 0;
	for (int i = 0; i < width; i++) {
		value = value << 8 | at[i];
	}
	if (width < 8 && width > 1 && at[0] & 0x80) {
		value |= ~UINT64_C(0) << (8 * width);
	}
	return (int64_t)value;
}

int64_t database_integer(const struct database_result *result, int row, int column)
{
	if (database_is_null(result, row, column)) {
		return 0;
	}
	return decode_integer((const unsigned char *)PQgetvalue(result->pg, row, column), PQgetlength(result->pg, row, column));
}

int64_t database_time_ms(const struct database_result *result, int row, int column)
{
	if (database_is_null(result, row, column)) {
		return 0;
	}
	return database_integer(result, row, column) / 1000 + POSTGRES_EPOCH_UNIX_MS;
}

const char *database_bytes(const struct database_result *result, int row, int column, size_t *length)
{
	*length = 0;
	if (database_is_null(result, row, column)) {
		return NULL;
	}
	const char *bytes = PQgetvalue(result->pg, row, column);
	*length = (size_t)PQgetlength(result->pg, row, column);
	if (PQftype(result->pg, column) == 3802 && *length > 0) { /* jsonb_send: a version byte, then the text */
		*length -= 1;
		return bytes + 1;
	}
	return bytes;
}

struct database_integers database_integer_array(const struct database_result *result, int row, int column)
{
	struct database_integers integers = {NULL, 0, 0};
	if (database_is_null(result, row, column) || PQgetlength(result->pg, row, column) < ARRAY_HEADER_BYTES) {
		return integers;
	}
	const unsigned char *bytes = (const unsigned char *)PQgetvalue(result->pg, row, column);
	int width = decode_integer(bytes + 8, 4) == 21 ? 2 : 8;
	int32_t count = (int32_t)decode_integer(bytes + 12, 4);
	if (decode_integer(bytes, 4) == 1 && decode_integer(bytes + 4, 4) == 0 &&
		PQgetlength(result->pg, row, column) == ARRAY_HEADER_BYTES + count * (4 + width)) {
		integers.at = bytes + ARRAY_HEADER_BYTES;
		integers.count = count;
		integers.width = width;
	}
	return integers;
}

int64_t database_integers_next(struct database_integers *integers)
{
	int64_t value = decode_integer(integers->at + 4, integers->width);
	integers->at += 4 + integers->width;
	return value;
}

/* ---- announcements ---- */

int database_descriptor(const struct database *database)
{
	return database->connection ? PQsocket(database->connection) : -1;
}

bool database_consume(struct database *database)
{
	if (!database->connection) {
		return false;
	}
	if (!PQconsumeInput(database->connection)) {
		lost(database, PQerrorMessage(database->connection));
		return false;
	}
	return true;
}

bool database_next_notice(struct database *database, char *payload, size_t payload_size)
{
	PGnotify *notify;
	while (database->connection && (notify = PQnotifies(database->connection)) != NULL) {
		size_t length = strlen(notify->extra);
		bool fits = length < payload_size;
		if (fits) {
			memcpy(payload, notify->extra, length + 1);
		}
		PQfreemem(notify);
		if (fits) {
			return true;
		}
	}
	return false;
}
