/* append_load.c - calls chat.append_messages in a loop, as a lane of the plugin does: binary arrays, positions moved.
 *
 *   append_load CONNINFO FIRST CONVERSATIONS BATCH SECONDS
 *
 * One connection. The conversations are those that run.sh makes: FIRST + n has the users FIRST + 2n and FIRST + 2n + 1, who
 * write in turn, 100 characters each time. Prints one line: rows a second; microseconds a row of the server's process
 * (/proc/PID/schedstat) and of this one; bytes of WAL a row; the median time of a call. Fails unless every message was
 * stored.
 */
#include "clock.h"
#include "database.h"
#include "record.h"
#include "statements.h"
#include "uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define TIMEOUT_MS 30000
#define CALLS_MAX 1000000
#define BODY_LENGTH 100

enum { READ_POSITIONS, APPEND, SERVER, OWN_STATEMENTS };
static struct database_statement own_statements[OWN_STATEMENTS];

/* Columns of the call after the positions; the types are those of statements.c. */
enum { CONVERSATION, SENDER, DEVICE, ID, HASH, TYPE, BODY, REPLY_TO, REF, EXTRA, SENT_AT, EXPIRES_AT, COLUMNS };
static const enum database_type types[COLUMNS] = {DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_UUID, DATABASE_UUID,
	DATABASE_TEXT, DATABASE_TEXT, DATABASE_INT8, DATABASE_INT8, DATABASE_JSONB, DATABASE_TIMESTAMPTZ, DATABASE_TIMESTAMPTZ};

struct load {
	struct database *database;
	int64_t first, conversations, batch;
	uint8_t spool[16];
	int64_t positions[RECORD_SLOTS];
	int64_t sent; /* messages, over all */
	struct database_array slots, from, to, columns[COLUMNS];
	int64_t *call_ns;
	size_t calls;
};

static void fail(const struct load *load, const char *what)
{
	fprintf(stderr, "append_load: %s: %s\n", what, database_error(load->database));
	exit(1);
}

static struct database_result *call(struct load *load, size_t statement, const struct database_parameters *parameters)
{
	struct database_call one = {statement, parameters};
	struct database_result *result;
	if (database_run(load->database, &one, 1, TIMEOUT_MS, &result) != DATABASE_OK) {
		fail(load, own_statements[statement].name);
	}
	return result;
}

static void add_message(struct load *load, int64_t conversation, int64_t now_ms, const char *body)
{
	uint8_t id[16];
	uuid_make(now_ms, id);
	database_array_integer(&load->columns[CONVERSATION], conversation);
	database_array_integer(&load->columns[SENDER], 2 * conversation - load->first + load->sent / load->conversations % 2);
	database_array_integer(&load->columns[DEVICE], 0);
	database_array_bytes(&load->columns[ID], id, sizeof(id));
	database_array_bytes(&load->columns[HASH], id, sizeof(id));
	database_array_bytes(&load->columns[TYPE], "text", 4);
	database_array_bytes(&load->columns[BODY], body, BODY_LENGTH);
	database_array_null(&load->columns[REPLY_TO]);
	database_array_null(&load->columns[REF]);
	database_array_null(&load->columns[EXTRA]);
	database_array_time(&load->columns[SENT_AT], now_ms);
	database_array_null(&load->columns[EXPIRES_AT]);
	load->sent++;
}

static void add_positions(struct load *load, const int64_t moved[RECORD_SLOTS])
{
	for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
		if (moved[slot]) {
			database_array_integer(&load->slots, slot);
			database_array_integer(&load->from, load->positions[slot]);
			load->positions[slot] += moved[slot];
			database_array_integer(&load->to, load->positions[slot]);
		}
	}
}

static void fill(struct load *load, struct database_parameters *parameters, const char *body)
{
	int64_t moved[RECORD_SLOTS] = {0};
	int64_t now_ms = clock_wall_ms();

	database_array_reset(&load->slots);
	database_array_reset(&load->from);
	database_array_reset(&load->to);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_reset(&load->columns[i]);
	}
	for (int64_t i = 0; i < load->batch; i++) {
		int64_t conversation = load->first + load->sent % load->conversations;
		add_message(load, conversation, now_ms, body);
		moved[record_slot(conversation)] += 300;
	}
	add_positions(load, moved);
	database_parameters_reset(parameters);
	database_parameter_uuid(parameters, load->spool);
	database_parameter_array(parameters, &load->slots);
	database_parameter_array(parameters, &load->from);
	database_parameter_array(parameters, &load->to);
	for (int i = 0; i < COLUMNS; i++) {
		database_parameter_array(parameters, &load->columns[i]);
	}
}

static void append(struct load *load, const char *body)
{
	struct database_parameters parameters;
	fill(load, &parameters, body);
	int64_t began_ns = clock_monotonic_ns();
	struct database_result *result = call(load, APPEND, &parameters);
	if (load->calls < CALLS_MAX) {
		load->call_ns[load->calls++] = clock_monotonic_ns() - began_ns;
	}
	for (int row = 0; row < database_rows(result); row++) {
		if (database_integer(result, row, 1) != 1) {
			fprintf(stderr, "append_load: a message was not stored\n");
			exit(1);
		}
	}
	database_result_free(result);
}

static void take_positions(struct load *load)
{
	struct database_parameters parameters;
	uuid_make(clock_wall_ms(), load->spool);
	database_array_reset(&load->slots);
	for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
		database_array_integer(&load->slots, slot);
	}
	database_parameters_reset(&parameters);
	database_parameter_uuid(&parameters, load->spool);
	database_parameter_array(&parameters, &load->slots);
	database_result_free(call(load, READ_POSITIONS, &parameters));
}

struct usage {
	int64_t wal_bytes, server_ns, own_ns;
};

static struct usage usage(struct load *load)
{
	struct usage usage = {0, 0, 0};
	struct rusage own;
	char path[64];
	struct database_result *server = call(load, SERVER, NULL);
	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)database_integer(server, 0, 0));
	usage.wal_bytes = database_integer(server, 0, 1);
	database_result_free(server);
	FILE *file = fopen(path, "r");
	if (!file || fscanf(file, "%ld", &usage.server_ns) != 1) {
		fprintf(stderr, "append_load: cannot read %s\n", path);
		exit(1);
	}
	fclose(file);
	getrusage(RUSAGE_SELF, &own);
	usage.own_ns = (own.ru_utime.tv_sec + own.ru_stime.tv_sec) * INT64_C(1000000000) +
		       (own.ru_utime.tv_usec + own.ru_stime.tv_usec) * INT64_C(1000);
	return usage;
}

static int compare(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

static void measure(struct load *load, int64_t seconds)
{
	char body[BODY_LENGTH];
	load->call_ns = malloc(CALLS_MAX * sizeof(load->call_ns[0]));
	if (!load->call_ns) {
		exit(1);
	}
	for (int i = 0; i < BODY_LENGTH; i++) {
		body[i] = (char)('a' + i % 26);
	}
	for (int i = 0; i < 20; i++) {
		append(load, body); /* plans and pages */
	}
	load->calls = 0;
	int64_t first = load->sent;
	struct usage before = usage(load);
	int64_t began_ns = clock_monotonic_ns();
	while (clock_monotonic_ns() - began_ns < seconds * INT64_C(1000000000)) {
		append(load, body);
	}
	double took_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
	struct usage after = usage(load);
	double rows = (double)(load->sent - first);
	qsort(load->call_ns, load->calls, sizeof(load->call_ns[0]), compare);
	printf("%.0f rows/s, %.1f us of CPU a row in the server, %.1f here, %.0f bytes of WAL a row, median call %.0f us\n",
		rows / took_s, (double)(after.server_ns - before.server_ns) / 1e3 / rows,
		(double)(after.own_ns - before.own_ns) / 1e3 / rows, (double)(after.wal_bytes - before.wal_bytes) / rows,
		(double)load->call_ns[load->calls / 2] / 1e3);
	free(load->call_ns);
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: append_load CONNINFO FIRST CONVERSATIONS BATCH SECONDS\n");
		return 2;
	}
	struct load load = {.first = strtol(argv[2], NULL, 10),
		.conversations = strtol(argv[3], NULL, 10),
		.batch = strtol(argv[4], NULL, 10)};
	own_statements[READ_POSITIONS] = statements[STATEMENT_READ_POSITIONS];
	own_statements[APPEND] = statements[STATEMENT_APPEND_MESSAGES];
	own_statements[SERVER] =
		(struct database_statement){"server", "SELECT pg_backend_pid(), (pg_current_wal_insert_lsn() - '0/0')::bigint"};
	database_array_init(&load.slots, DATABASE_INT2);
	database_array_init(&load.from, DATABASE_INT8);
	database_array_init(&load.to, DATABASE_INT8);
	for (int i = 0; i < COLUMNS; i++) {
		database_array_init(&load.columns[i], types[i]);
	}
	load.database = database_new(argv[1], "append_load", own_statements, OWN_STATEMENTS, -1);
	if (!load.database || !database_connect(load.database, TIMEOUT_MS)) {
		fail(&load, "connect");
	}
	take_positions(&load);
	measure(&load, strtol(argv[5], NULL, 10));
	database_free(load.database);
	return 0;
}
