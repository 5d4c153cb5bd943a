/* database.h - one connection to PostgreSQL, used by one thread, that survives the death of its server.
 *
 * The only door to libpq. Parameters and results travel in binary; statements are named in a table that the
 * owner passes, and are prepared at every connect, so that one table shows everything a program may ask.
 *
 * No call waits for ever: each has a deadline, and each ends early once the stop descriptor that was given at
 * database_new() becomes readable. A call that ends in DATABASE_LOST has closed the connection; whether its
 * statement was carried out is then unknown, and the caller settles that after it has connected again.
 */
#ifndef CHAT_COMMON_DATABASE_H
#define CHAT_COMMON_DATABASE_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database;
struct database_result;

struct database_statement {
	const char *name;
	const char *sql; /* parameters carry casts ($1::bigint[]), so the server knows their types */
};

enum database_status {
	DATABASE_OK,
	DATABASE_REFUSED, /* the server said no; nothing of it was done; database_sqlstate() says why */
	DATABASE_LOST,    /* connection gone, deadline passed, or stopped; fate unknown */
	DATABASE_PENDING  /* database_advance() alone: not yet */
};

/* Nothing is connected yet. `statements` must outlive the result. stop_fd: -1 for none. NULL: no memory. */
struct database *database_new(const char *conninfo, const char *application_name, const struct database_statement *statements,
	size_t statement_count, int stop_fd);
void database_free(struct database *database);

/* Connects and prepares. False: database_error() says why. */
__attribute__((warn_unused_result)) bool database_connect(struct database *database, int64_t timeout_ms);
void database_disconnect(struct database *database);
bool database_is_connected(const struct database *database);
/* The server process of the newest connection, also when that is gone; 0: there was none. */
int database_server_process(const struct database *database);

/* One line, never the connection string. */
const char *database_error(const struct database *database);
/* SQLSTATE of the last DATABASE_REFUSED, five characters, or "". */
const char *database_sqlstate(const struct database *database);

/* An array parameter in PostgreSQL's binary format (src/backend/utils/adt/arrayfuncs.c, array_send), or a scalar.
 * Reused from call to call; failed appends surface when the call is made. */
enum database_type {
	DATABASE_INT2,
	DATABASE_INT4,
	DATABASE_INT8,
	DATABASE_BOOL,
	DATABASE_TEXT,
	DATABASE_UUID,
	DATABASE_JSONB,
	DATABASE_TIMESTAMPTZ
};

struct database_array {
	struct buffer bytes;
	enum database_type type;
	int32_t count;
	bool has_null;
};

void database_array_init(struct database_array *array, enum database_type type);
void database_array_free(struct database_array *array);
void database_array_reset(struct database_array *array);
void database_array_null(struct database_array *array);
void database_array_integer(struct database_array *array, int64_t value);                  /* INT2, INT4, INT8 */
void database_array_bytes(struct database_array *array, const void *bytes, size_t length); /* TEXT, UUID, JSONB (its text) */
void database_array_time(struct database_array *array, int64_t unix_ms);

/* A parameter list. Scalars are kept inside. */
#define DATABASE_PARAMETERS_MAX 20
struct database_parameters {
	int count;
	const char *values[DATABASE_PARAMETERS_MAX];
	int lengths[DATABASE_PARAMETERS_MAX];
	uint64_t scalars[DATABASE_PARAMETERS_MAX];
	bool failed;
};
void database_parameters_reset(struct database_parameters *parameters);
void database_parameter_array(
	struct database_parameters *parameters, struct database_array *array);          /* borrowed until the call returns */
void database_parameter_integer(struct database_parameters *parameters, int64_t value); /* a bigint */
void database_parameter_bool(struct database_parameters *parameters, bool value);
void database_parameter_time(struct database_parameters *parameters, int64_t unix_ms);        /* a timestamptz */
void database_parameter_uuid(struct database_parameters *parameters, const uint8_t uuid[16]); /* borrowed */
/* Borrowed until the call returns; valid UTF-8. NULL: an SQL NULL. */
void database_parameter_text(struct database_parameters *parameters, const char *text, size_t length);

/* One call of statements[index]; with several in `calls`, all in one transaction and one round trip (libpq's pipeline
 * mode: the implicit transaction ends at the sync). On DATABASE_OK results[i] is the caller's, to free with
 * database_result_free; otherwise all are NULL. */
struct database_call {
	size_t statement;
	const struct database_parameters *parameters;
};
__attribute__((warn_unused_result)) enum database_status database_run(struct database *database,
	const struct database_call *calls, size_t count, int64_t timeout_ms, struct database_result **results);

/* The same without ever waiting, for a loop that polls other descriptors too: begin one thing at a time, then, whenever
 * database_descriptor() is ready for *events (POLLIN, POLLOUT) or right after beginning, advance it until it is no longer
 * pending. The descriptor may change while a connection is being made. The deadline is the caller's affair: database_disconnect()
 * gives up. False: nothing was begun, database_error() says why. */
__attribute__((warn_unused_result)) bool database_begin_connect(struct database *database);
__attribute__((warn_unused_result)) bool database_begin(struct database *database, const struct database_call *call);
/* DATABASE_OK of a call: *result is the caller's, to free with database_result_free. DATABASE_OK of a connect: *result is NULL,
 * all statements are prepared. DATABASE_REFUSED of a connect: it is closed again. */
__attribute__((warn_unused_result)) enum database_status database_advance(
	struct database *database, struct database_result **result, short *events);

/* A plain command without parameters or rows, such as LISTEN. */
__attribute__((warn_unused_result)) enum database_status database_command(
	struct database *database, const char *sql, int64_t timeout_ms);

void database_result_free(struct database_result *result);
int database_rows(const struct database_result *result);
bool database_is_null(const struct database_result *result, int row, int column);
int64_t database_integer(const struct database_result *result, int row, int column); /* int2, int4, int8, bool; 0 for NULL */
int64_t database_time_ms(const struct database_result *result, int row, int column); /* 0 for NULL */
/* Points into the result. NULL for NULL. jsonb comes as its text. */
const char *database_bytes(const struct database_result *result, int row, int column, size_t *length);

/* An array of int2 or int8 without NULLs, read in place. */
struct database_integers {
	const unsigned char *at;
	int32_t count;
	int width;
};
struct database_integers database_integer_array(const struct database_result *result, int row, int column);
int64_t database_integers_next(struct database_integers *integers); /* only `count` times */

/* LISTEN: the descriptor to poll for reading (-1 when not connected), and what has arrived. */
int database_descriptor(const struct database *database);
/* Reads what the socket has. False: connection lost. */
__attribute__((warn_unused_result)) bool database_consume(struct database *database);
/* The next announcement's payload, copied to `payload` (cut payloads are dropped). False: none left. */
bool database_next_notice(struct database *database, char *payload, size_t payload_size);

#endif
