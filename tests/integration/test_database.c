/* test_database.c - common/database.c against a PostgreSQL of its own, without a broker: what travels, what is undone, and
 * that no call waits for ever.
 */
#include "fixture.h"

#include "clock.h"
#include "database.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LONG_MS 60000 /* only a fault comes near it */

enum { ECHO, ARRAYS, SCALARS, INSERT, DIVIDE, LOCK, END_SELF, TWENTY, STATEMENTS };

static const struct database_statement statements[STATEMENTS] = {
	[ECHO] = {"echo", "SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::integer[], $4::text[], $5::uuid[], $6::jsonb[],"
			  " $7::timestamptz[])"},
	[ARRAYS] = {"arrays", "SELECT $1::bigint[], $2::smallint[], cardinality($1::bigint[]), ARRAY[1, NULL]::bigint[]"},
	[SCALARS] = {"scalars",
		"SELECT $1::bigint, $2::boolean, $3::uuid, (-32768)::smallint, (-2147483648)::integer, NULL::text,"
		" ''::text"},
	[INSERT] = {"insert", "INSERT INTO probe VALUES ($1::bigint)"},
	[DIVIDE] = {"divide", "SELECT 1 / $1::bigint"},
	[LOCK] = {"lock", "SELECT pg_advisory_xact_lock($1::bigint)"},
	[END_SELF] = {"end_self", "SELECT pg_terminate_backend(pg_backend_pid())"},
	[TWENTY] = {"twenty", "SELECT $1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint,"
			      " $8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::bigint, $13::bigint, $14::bigint,"
			      " $15::bigint, $16::bigint, $17::bigint, $18::bigint, $19::bigint, $20::bigint"},
};

static struct fixture *fixture;
static char conninfo[PATH_SIZE * 2];

static int setup(void **state)
{
	*state = fixture = fixture_new();
	postgres_conninfo(&fixture->postgres, "postgres", conninfo);
	/* a constraint that speaks up only at the commit */
	sql(&fixture->postgres, "CREATE TABLE probe (n bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)");
	return 0;
}

static struct database *open_database(int stop_fd)
{
	struct database *database = database_new(conninfo, "test", statements, STATEMENTS, stop_fd);
	assert_non_null(database);
	if (!database_connect(database, LONG_MS)) {
		fail_msg("%s", database_error(database));
	}
	return database;
}

/* One call with one integer. */
static enum database_status call(struct database *database, size_t statement, int64_t value, int64_t timeout_ms)
{
	struct database_parameters parameters;
	struct database_result *result;
	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, value);
	enum database_status status = database_run(
		database, &(struct database_call){statement, statement == END_SELF ? NULL : &parameters}, 1, timeout_ms, &result);
	assert_int_equal(result != NULL, status == DATABASE_OK);
	database_result_free(result);
	return status;
}

/* Two calls, each with one integer, in one transaction. */
static enum database_status call_two(struct database *database, size_t first, int64_t one, size_t second, int64_t other)
{
	struct database_parameters parameters[2];
	struct database_result *results[2];
	for (int i = 0; i < 2; i++) {
		database_parameters_reset(&parameters[i]);
		database_parameter_integer(&parameters[i], i ? other : one);
	}
	struct database_call calls[] = {
		{first, first == END_SELF ? NULL : &parameters[0]}, {second, second == END_SELF ? NULL : &parameters[1]}};
	enum database_status status = database_run(database, calls, 2, LONG_MS, results);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(results[i] != NULL, status == DATABASE_OK);
		database_result_free(results[i]);
	}
	return status;
}

/* The connection still answers, and answers what it is asked. */
static void expect_alive(struct database *database)
{
	struct database_parameters parameters;
	struct database_result *result;
	static int64_t question = 1000;
	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, ++question);
	database_parameter_bool(&parameters, true);
	database_parameter_uuid(&parameters, (const uint8_t[16]){1});
	assert_int_equal(database_run(database, &(struct database_call){SCALARS, &parameters}, 1, LONG_MS, &result), DATABASE_OK);
	assert_int_equal(database_integer(result, 0, 0), question);
	database_result_free(result);
}

/* ---- what travels ---- */

static void check_bytes(const struct database_result *result, int row, int column, const char *expected)
{
	size_t length = 77;
	const char *bytes = database_bytes(result, row, column, &length);
	assert_int_equal(database_is_null(result, row, column), expected == NULL);
	if (expected) {
		assert_int_equal(length, strlen(expected));
		assert_memory_equal(bytes, expected, length);
	} else {
		assert_null(bytes);
		assert_int_equal(length, 0);
	}
}

enum { COLUMNS = 7 };

static void init_columns(struct database_array columns[COLUMNS], struct database_parameters *parameters)
{
	static const enum database_type types[COLUMNS] = {
		DATABASE_INT8, DATABASE_INT2, DATABASE_INT4, DATABASE_TEXT, DATABASE_UUID, DATABASE_JSONB, DATABASE_TIMESTAMPTZ};
	for (int i = 0; i < COLUMNS; i++) {
		database_array_init(&columns[i], types[i]);
	}
	database_parameters_reset(parameters);
}

static struct database_result *echo(
	struct database *database, struct database_array columns[COLUMNS], struct database_parameters *parameters)
{
	struct database_result *result;
	database_parameters_reset(parameters);
	for (int i = 0; i < COLUMNS; i++) {
		database_parameter_array(parameters, &columns[i]);
	}
	if (database_run(database, &(struct database_call){ECHO, parameters}, 1, LONG_MS, &result) != DATABASE_OK) {
		fail_msg("%s", database_error(database));
	}
	return result;
}

static void every_type_comes_back(void **state)
{
	static const int64_t big[] = {0, 1, -1, INT64_MAX, INT64_MIN}, small[] = {0, 1, -1, 32767, -32768},
			     middle[] = {0, 1, -1, 2147483647, -2147483647 - 1},
			     times[] = {0, 946684800000, 946684799999, 1790000000123, 253402300799999};
	static const char *const texts[] = {
		"", "x", "Gr\xc3\xbc\xc3\x9f\xf0\x9f\x91\x8b", "'; DROP TABLE probe; --", "{NULL,\"\"}"};
	static const char *const jsons[] = {"{}", "{\"a\": [1, null]}", "\"\\\"\"", "null", "{\"z\": \"\xc3\xa9\"}"};
	struct database *database = open_database(-1);
	struct database_array columns[COLUMNS];
	struct database_parameters parameters;
	uint8_t uuid[16];

	(void)state;
	init_columns(columns, &parameters);
	for (int round = 0; round < 2; round++) { /* the arrays are used again */
		for (int i = 0; i < COLUMNS; i++) {
			database_array_reset(&columns[i]);
		}
		for (int i = 0; i < 5; i++) {
			database_array_integer(&columns[0], big[i]);
			database_array_integer(&columns[1], small[i]);
			database_array_integer(&columns[2], middle[i]);
			database_array_bytes(&columns[3], texts[i], strlen(texts[i]));
			memset(uuid, 50 * i, sizeof(uuid));
			database_array_bytes(&columns[4], uuid, sizeof(uuid));
			database_array_bytes(&columns[5], jsons[i], strlen(jsons[i]));
			database_array_time(&columns[6], times[i]);
		}
		for (int i = 0; i < COLUMNS; i++) {
			database_array_null(&columns[i]);
		}
		struct database_result *result = echo(database, columns, &parameters);
		assert_int_equal(database_rows(result), 6);
		for (int i = 0; i < 5; i++) {
			size_t length;
			assert_true(database_integer(result, i, 0) == big[i]);
			assert_true(database_integer(result, i, 1) == small[i]);
			assert_true(database_integer(result, i, 2) == middle[i]);
			check_bytes(result, i, 3, texts[i]);
			memset(uuid, 50 * i, sizeof(uuid));
			assert_memory_equal(database_bytes(result, i, 4, &length), uuid, sizeof(uuid));
			assert_int_equal(length, sizeof(uuid));
			check_bytes(result, i, 5, jsons[i]);
			assert_true(database_time_ms(result, i, 6) == times[i]);
		}
		for (int i = 0; i < COLUMNS; i++) {
			assert_true(database_is_null(result, 5, i));
		}
		assert_int_equal(database_integer(result, 5, 0), 0);
		assert_int_equal(database_time_ms(result, 5, 6), 0);
		check_bytes(result, 5, 3, NULL);
		check_bytes(result, 5, 5, NULL);
		database_result_free(result);
	}
	for (int i = 0; i < COLUMNS; i++) {
		database_array_reset(&columns[i]);
	}
	struct database_result *result = echo(database, columns, &parameters); /* all empty */
	assert_int_equal(database_rows(result), 0);
	database_result_free(result);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_free(&columns[i]);
	}
	database_free(database);
}

static void arrays_of_integers(void **state)
{
	static const int64_t values[] = {INT64_MIN, -1, 0, 1, INT64_MAX};
	struct database *database = open_database(-1);
	struct database_array big, small;
	struct database_parameters parameters;
	struct database_result *result;

	(void)state;
	database_array_init(&big, DATABASE_INT8);
	database_array_init(&small, DATABASE_INT2);
	for (int filled = 0; filled < 2; filled++) {
		database_array_reset(&big);
		database_array_reset(&small);
		for (int i = 0; filled && i < 5; i++) {
			database_array_integer(&big, values[i]);
			database_array_integer(&small, i - 2);
		}
		database_parameters_reset(&parameters);
		database_parameter_array(&parameters, &big);
		database_parameter_array(&parameters, &small);
		assert_int_equal(
			database_run(database, &(struct database_call){ARRAYS, &parameters}, 1, LONG_MS, &result), DATABASE_OK);
		struct database_integers bigs = database_integer_array(result, 0, 0);
		struct database_integers smalls = database_integer_array(result, 0, 1);
		assert_int_equal(bigs.count, filled ? 5 : 0);
		assert_int_equal(smalls.count, filled ? 5 : 0);
		assert_int_equal(database_integer(result, 0, 2), filled ? 5 : 0);
		for (int i = 0; filled && i < 5; i++) {
			assert_true(database_integers_next(&bigs) == values[i]);
			assert_true(database_integers_next(&smalls) == i - 2);
		}
		assert_int_equal(database_integer_array(result, 0, 3).count, 0); /* one with a NULL is none of ours */
		database_result_free(result);
	}
	database_array_free(&big);
	database_array_free(&small);
	database_free(database);
}

static void scalars(void **state)
{
	static const uint8_t uuid[16] = {0x9f, 0x1c, 0x6f, 0x0e, 0x3d, 0x0b, 0x4a, 0x53, 0x9f};
	struct database *database = open_database(-1);
	struct database_parameters parameters;
	struct database_result *result;
	size_t length;

	(void)state;
	for (int yes = 0; yes < 2; yes++) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, yes ? INT64_MAX : INT64_MIN);
		database_parameter_bool(&parameters, yes);
		database_parameter_uuid(&parameters, uuid);
		assert_int_equal(
			database_run(database, &(struct database_call){SCALARS, &parameters}, 1, LONG_MS, &result), DATABASE_OK);
		assert_int_equal(database_rows(result), 1);
		assert_true(database_integer(result, 0, 0) == (yes ? INT64_MAX : INT64_MIN));
		assert_int_equal(database_integer(result, 0, 1), yes);
		assert_memory_equal(database_bytes(result, 0, 2, &length), uuid, sizeof(uuid));
		assert_true(database_integer(result, 0, 3) == -32768);
		assert_true(database_integer(result, 0, 4) == -2147483647 - 1);
		check_bytes(result, 0, 5, NULL);
		check_bytes(result, 0, 6, "");
		database_result_free(result);
	}
	database_free(database);
}

/* More than the socket's buffers hold, in both directions at once. */
static void large_calls(void **state)
{
	enum { ROWS = 40000, TEXT_BYTES = 400 };
	struct database *database = open_database(-1);
	struct database_array columns[COLUMNS];
	struct database_parameters parameters;
	char text[TEXT_BYTES + 1];

	(void)state;
	init_columns(columns, &parameters);
	memset(text, 't', TEXT_BYTES);
	text[TEXT_BYTES] = '\0';
	for (int i = 0; i < ROWS; i++) {
		database_array_integer(&columns[0], i);
		database_array_bytes(&columns[3], text, TEXT_BYTES);
	}
	struct database_result *result = echo(database, columns, &parameters);
	assert_int_equal(database_rows(result), ROWS);
	for (int i = 0; i < ROWS; i += 997) {
		assert_int_equal(database_integer(result, i, 0), i);
		check_bytes(result, i, 3, text);
	}
	database_result_free(result);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_free(&columns[i]);
	}
	database_free(database);
}

static void too_much_is_refused_here(void **state)
{
	struct database *database = open_database(-1);
	struct database_parameters parameters;
	struct database_result *result;
	struct database_array array;

	(void)state;
	database_parameters_reset(&parameters);
	for (int i = 0; i < DATABASE_PARAMETERS_MAX; i++) {
		database_parameter_integer(&parameters, i);
	}
	assert_int_equal(database_run(database, &(struct database_call){TWENTY, &parameters}, 1, LONG_MS, &result), DATABASE_OK);
	assert_int_equal(database_integer(result, 0, 19), 19);
	database_result_free(result);
	database_parameter_integer(&parameters, 20); /* one too many, though the statement wants no more */
	assert_int_equal(
		database_run(database, &(struct database_call){TWENTY, &parameters}, 1, LONG_MS, &result), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "53200");
	assert_null(result);

	database_array_init(&array, DATABASE_INT8);
	array.bytes.maximum = 40;
	for (int i = 0; i < 5; i++) {
		database_array_integer(&array, i);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &array);
	assert_true(parameters.failed);
	assert_int_equal(
		database_run(database, &(struct database_call){INSERT, &parameters}, 1, LONG_MS, &result), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "53200");
	database_array_free(&array);
	expect_alive(database);
	database_free(database);
}

/* ---- what is undone ---- */

static int64_t rows_with(int64_t n)
{
	return sql_integer(&fixture->postgres, "SELECT count(*) FROM probe WHERE n = %lld", (long long)n);
}

static void a_refusal_says_why(void **state)
{
	struct database *database = open_database(-1);
	(void)state;
	assert_int_equal(call(database, DIVIDE, 1, LONG_MS), DATABASE_OK);
	assert_int_equal(call(database, DIVIDE, 0, LONG_MS), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "22012");
	assert_string_equal(database_error(database), "division by zero");
	expect_alive(database);
	assert_int_equal(database_command(database, "SELECT nothing", LONG_MS), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "42703");
	assert_int_equal(database_command(database, "SELECT 1; SELECT 2", LONG_MS), DATABASE_OK);
	expect_alive(database);
	database_free(database);
}

static void several_calls_are_one_transaction(void **state)
{
	struct database *database = open_database(-1);
	(void)state;
	assert_int_equal(call_two(database, INSERT, 1, INSERT, 2), DATABASE_OK);
	assert_int_equal(rows_with(1) + rows_with(2), 2);
	assert_int_equal(call_two(database, INSERT, 3, DIVIDE, 0), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "22012");
	assert_int_equal(call_two(database, DIVIDE, 0, INSERT, 4), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "22012"); /* not: the pipeline is aborted */
	assert_string_equal(database_error(database), "division by zero");
	assert_int_equal(rows_with(3) + rows_with(4), 0);
	expect_alive(database);
	database_free(database);
}

/* Both calls have been answered well when the commit says no. */
static void the_commit_has_the_last_word(void **state)
{
	struct database *database = open_database(-1);
	(void)state;
	assert_int_equal(call(database, INSERT, 10, LONG_MS), DATABASE_OK);
	assert_int_equal(call(database, INSERT, 10, LONG_MS), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "23505");
	expect_alive(database);
	assert_int_equal(call_two(database, INSERT, 10, INSERT, 11), DATABASE_REFUSED);
	assert_string_equal(database_sqlstate(database), "23505");
	assert_int_equal(rows_with(10), 1);
	assert_int_equal(rows_with(11), 0);
	expect_alive(database);
	assert_int_equal(call_two(database, INSERT, 11, INSERT, 12), DATABASE_OK);
	assert_int_equal(rows_with(11) + rows_with(12), 2);
	database_free(database);
}

/* ---- what is lost ---- */

static void expect_lost(struct database *database)
{
	assert_false(database_is_connected(database));
	assert_int_equal(database_descriptor(database), -1);
	assert_int_equal(call(database, DIVIDE, 1, LONG_MS), DATABASE_LOST); /* and does not connect by itself */
	assert_int_equal(database_command(database, "SELECT 1", LONG_MS), DATABASE_LOST);
	assert_false(database_consume(database));
	assert_true(database_connect(database, LONG_MS));
	expect_alive(database);
}

/* A server that ends this connection sends an error first; that must not pass for a refusal, which is known. */
static void an_ended_connection_is_lost(void **state)
{
	struct database *database = open_database(-1);
	(void)state;
	assert_int_equal(call(database, END_SELF, 0, LONG_MS), DATABASE_LOST);
	expect_lost(database);
	assert_int_equal(call_two(database, INSERT, 20, END_SELF, 0), DATABASE_LOST);
	expect_lost(database);
	assert_int_equal(call_two(database, END_SELF, 0, INSERT, 20), DATABASE_LOST);
	expect_lost(database);
	assert_int_equal(rows_with(20), 0);
	database_disconnect(database);
	expect_lost(database);
	database_free(database);
}

static void a_deadline_ends_a_call(void **state)
{
	struct database *database = open_database(-1);
	int64_t begin_ms = clock_monotonic_ms();

	(void)state;
	sql(&fixture->postgres, "SELECT pg_advisory_lock(1)");
	assert_int_equal(call(database, LOCK, 1, 50), DATABASE_LOST);
	assert_string_equal(database_error(database), "no answer within the time limit");
	assert_in_range(clock_monotonic_ms() - begin_ms, 50, LONG_MS);
	expect_lost(database);
	/* the answer to the old question, which comes now, is nobody's */
	sql(&fixture->postgres, "SELECT pg_advisory_unlock(1)");
	expect_alive(database);
	assert_int_equal(call(database, LOCK, 1, LONG_MS), DATABASE_OK);
	database_free(database);
}

static void stopping_ends_a_call(void **state)
{
	int stop_fd = eventfd(0, EFD_CLOEXEC);
	struct database *database = open_database(stop_fd);
	int64_t begin_ms = clock_monotonic_ms();
	uint64_t count = 1;

	(void)state;
	sql(&fixture->postgres, "SELECT pg_advisory_lock(1)");
	assert_int_equal(write(stop_fd, &count, sizeof(count)), sizeof(count));
	assert_int_equal(call(database, LOCK, 1, 3 * LONG_MS), DATABASE_LOST);
	assert_false(database_is_connected(database));
	assert_false(database_connect(database, 3 * LONG_MS));
	assert_string_equal(database_error(database), "stopping");
	assert_in_range(clock_monotonic_ms() - begin_ms, 0, LONG_MS);
	sql(&fixture->postgres, "SELECT pg_advisory_unlock(1)");
	assert_int_equal(read(stop_fd, &count, sizeof(count)), sizeof(count));
	expect_lost(database);
	database_free(database);
	close(stop_fd);
}

static void a_stopped_server_is_not_waited_for(void **state)
{
	struct database *database = open_database(-1), *other = database_new(conninfo, "test", statements, STATEMENTS, -1);
	int64_t begin_ms = clock_monotonic_ms();

	(void)state;
	postgres_pause(&fixture->postgres);
	enum database_status status = call(database, DIVIDE, 1, 50);
	bool connected = database_connect(other, 50);
	postgres_resume(&fixture->postgres); /* before anything fails */
	assert_int_equal(status, DATABASE_LOST);
	assert_false(connected);
	assert_string_equal(database_error(other), "no answer within the time limit");
	assert_in_range(clock_monotonic_ms() - begin_ms, 100, LONG_MS);
	expect_lost(database);
	expect_lost(other);
	database_free(database);
	database_free(other);
}

static void a_killed_server(void **state)
{
	struct database *database = open_database(-1);
	(void)state;
	postgres_kill(&fixture->postgres);
	assert_int_equal(call(database, DIVIDE, 1, LONG_MS), DATABASE_LOST);
	assert_false(database_connect(database, LONG_MS));
	assert_null(strchr(database_error(database), '\n'));
	postgres_start(&fixture->postgres);
	expect_lost(database);
	assert_int_equal(rows_with(1), 1); /* from several tests ago */
	database_free(database);
}

/* ---- connecting ---- */

static void what_a_failed_connect_says(void **state)
{
	static const struct database_statement wrong[] = {{"right", "SELECT 1"}, {"wrong", "SELECT chat.no_such_function()"}};
	static const char *const places[] = {
		"host=/nonexistent user=hunter1 password=hunter2 dbname=chat", "hunter2", "port=hunter2"};

	(void)state;
	for (size_t i = 0; i < COUNT(places); i++) {
		struct database *database = database_new(places[i], "test", statements, STATEMENTS, -1);
		assert_false(database_connect(database, LONG_MS));
		assert_false(database_is_connected(database));
		assert_string_not_equal(database_error(database), "");
		assert_null(strchr(database_error(database), '\n'));
		if (i == 0) {
			assert_null(strstr(database_error(database), "hunter2"));
		}
		database_free(database);
	}
	/* a schema that is too old for this program: known at the connect, not in the middle of the night */
	struct database *database = database_new(conninfo, "test", wrong, COUNT(wrong), -1);
	assert_false(database_connect(database, LONG_MS));
	assert_false(database_is_connected(database));
	assert_string_equal(database_sqlstate(database), "42883");
	assert_non_null(strstr(database_error(database), "no_such_function"));
	database_free(database);
	database_free(NULL);
}

/* ---- announcements ---- */

static bool next_notice(struct database *database, char *payload, size_t payload_size)
{
	int64_t deadline_ms = clock_monotonic_ms() + LONG_MS;
	while (!database_next_notice(database, payload, payload_size)) {
		struct pollfd fd = {.fd = database_descriptor(database), .events = POLLIN};
		if (clock_monotonic_ms() > deadline_ms || poll(&fd, 1, LONG_MS) != 1 || !database_consume(database)) {
			return false;
		}
	}
	return true;
}

static void announcements(void **state)
{
	struct database *database = open_database(-1);
	char payload[16];

	(void)state;
	assert_false(database_next_notice(database, payload, sizeof(payload)));
	assert_int_equal(database_command(database, "LISTEN test_changes", LONG_MS), DATABASE_OK);
	sql(&fixture->postgres, "NOTIFY test_changes, 'm 1 2'");
	sql(&fixture->postgres, "NOTIFY test_changes, 'far too long to be one of ours'");
	sql(&fixture->postgres, "NOTIFY other_changes, 'not asked for'");
	sql(&fixture->postgres, "NOTIFY test_changes, '123456789012345'");
	sql(&fixture->postgres, "NOTIFY test_changes");
	assert_true(next_notice(database, payload, sizeof(payload)));
	assert_string_equal(payload, "m 1 2");
	assert_true(next_notice(database, payload, sizeof(payload)));
	assert_string_equal(payload, "123456789012345");
	assert_true(next_notice(database, payload, sizeof(payload)));
	assert_string_equal(payload, "");
	/* one that comes with the answer to something else is kept */
	sql(&fixture->postgres, "NOTIFY test_changes, 'm 3 4'");
	expect_alive(database);
	assert_true(next_notice(database, payload, sizeof(payload)));
	assert_string_equal(payload, "m 3 4");
	sql(&fixture->postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'");
	assert_false(next_notice(database, payload, sizeof(payload)));
	expect_lost(database);
	database_free(database);
}

/* ---- without waiting */

/* Advances until it is no longer pending, as a loop would. */
static enum database_status finish(struct database *database, struct database_result **result)
{
	short events = 0;
	int64_t deadline_ms = clock_monotonic_ms() + LONG_MS;
	enum database_status status = database_advance(database, result, &events);
	while (status == DATABASE_PENDING) {
		struct pollfd fd = {.fd = database_descriptor(database), .events = events};
		assert_true(clock_monotonic_ms() < deadline_ms);
		assert_true(poll(&fd, 1, LONG_MS) >= 0);
		status = database_advance(database, result, &events);
	}
	return status;
}

static enum database_status call_without_waiting(
	struct database *database, size_t statement, int64_t value, struct database_result **result)
{
	struct database_parameters parameters;
	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, value);
	const struct database_call one = {.statement = statement, .parameters = &parameters};
	assert_true(database_begin(database, &one));
	return finish(database, result);
}

static struct database *open_without_waiting(const char *where)
{
	struct database *database = database_new(where, "test", statements, STATEMENTS, -1);
	struct database_result *result = NULL;
	assert_non_null(database);
	if (!database_begin_connect(database) || finish(database, &result) != DATABASE_OK) {
		fail_msg("%s", database_error(database));
	}
	assert_null(result);
	return database;
}

static void without_waiting(void **state)
{
	(void)state;
	struct database *database = open_without_waiting(conninfo);
	struct database_result *result = NULL;
	assert_int_equal(call_without_waiting(database, DIVIDE, 1, &result), DATABASE_OK);
	assert_int_equal(database_integer(result, 0, 0), 1);
	database_result_free(result);
	assert_int_equal(call_without_waiting(database, DIVIDE, 0, &result), DATABASE_REFUSED);
	assert_null(result);
	assert_string_equal(database_sqlstate(database), "22012");
	assert_int_equal(call_without_waiting(database, DIVIDE, -1, &result), DATABASE_OK); /* the connection is still good */
	assert_int_equal(database_integer(result, 0, 0), -1);
	database_result_free(result);
	database_free(database);
}

static void without_waiting_a_lost_connection(void **state)
{
	(void)state;
	struct database *database = open_without_waiting(conninfo);
	struct database_result *result = NULL;
	const struct database_call end = {.statement = END_SELF};
	assert_true(database_begin(database, &end));
	enum database_status status = finish(database, &result);
	/* The server says that it ends, and then ends: what is heard of it is the one or the other. */
	if (status == DATABASE_REFUSED) {
		status = database_begin(database, &end) ? finish(database, &result) : DATABASE_LOST;
	}
	assert_int_equal(status, DATABASE_LOST);
	assert_null(result);
	assert_false(database_is_connected(database));
	assert_false(database_begin(database, &end));
	short events = 0;
	assert_int_equal(database_advance(database, &result, &events), DATABASE_LOST);
	database_free(database);
}

static void without_waiting_a_refused_connect(void **state)
{
	char wrong[PATH_SIZE * 2];
	struct database_result *result = NULL;
	(void)state;
	snprintf(wrong, sizeof(wrong), "host=%s dbname=nowhere user=postgres", fixture->postgres.socket);
	struct database *database = database_new(wrong, "test", statements, STATEMENTS, -1);
	assert_non_null(database);
	assert_true(database_begin_connect(database));
	assert_int_equal(finish(database, &result), DATABASE_LOST);
	assert_non_null(strstr(database_error(database), "nowhere"));
	assert_false(database_is_connected(database));
	database_free(database);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_comes_back),
		cmocka_unit_test(arrays_of_integers),
		cmocka_unit_test(scalars),
		cmocka_unit_test(large_calls),
		cmocka_unit_test(too_much_is_refused_here),
		cmocka_unit_test(a_refusal_says_why),
		cmocka_unit_test(several_calls_are_one_transaction),
		cmocka_unit_test(the_commit_has_the_last_word),
		cmocka_unit_test(an_ended_connection_is_lost),
		cmocka_unit_test(a_deadline_ends_a_call),
		cmocka_unit_test(stopping_ends_a_call),
		cmocka_unit_test(a_stopped_server_is_not_waited_for),
		cmocka_unit_test(a_killed_server),
		cmocka_unit_test(what_a_failed_connect_says),
		cmocka_unit_test(announcements),
		cmocka_unit_test(without_waiting),
		cmocka_unit_test(without_waiting_a_lost_connection),
		cmocka_unit_test(without_waiting_a_refused_connect),
	};

	return cmocka_run_group_tests_name("database", tests, setup, fixture_teardown);
}
