/* bench_tool.c - what the benchmark needs of the project's own code: tokens, chat.append_messages in a loop, a look at rows.
 *
 *   bench_tool tokens KEY FIRST_USER COUNT [devices]
 *   bench_tool verifier PASSWORD
 *   bench_tool append CONNINFO BATCH SECONDS FIRST_CONVERSATION CONVERSATIONS FIRST_USER
 *   bench_tool marks CONNINFO BATCH SECONDS FIRST_CONVERSATION CONVERSATIONS FIRST_USER
 *   bench_tool visible CONNINFO <PIPE
 *
 * `verifier` prints what is kept of a password.
 *
 * `tokens` prints lines `client-id user token` for mqtt_load, good for a day; with `devices` each names the device that has its
 * user's number.
 *
 * `append` makes batches as a writer lane makes them (the same statements, the same binary arrays, values where a batch is one
 * message, one spool position that moves with each), of messages of 100 characters under random ids into conversations chosen at
 * random, and calls the function on one connection. What it counts is the call: the server's work, its commit, the wire and the
 * copying by libpq. Conversation FIRST_CONVERSATION + n must have the members FIRST_USER + 2n and FIRST_USER + 2n + 1. `marks`
 * does the same with chat.append_marks: the members in turn, each a message further ("delivered and read up to") than the last
 * time.
 *
 * `visible` reads lines `conversation seq marker`, each written at the moment when a receiver had got that message, and looks at
 * once whether its row is there. It ends with its input.
 *
 * One thread. Exit status: 0, 1 a row was not there, 2 trouble.
 */
#include "clock.h"
#include "database.h"
#include "scram.h"
#include "statements.h"
#include "token.h"
#include "usage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CALL_TIMEOUT_MS 60000
#define BATCH_MAX 10000
#define BODY_LENGTH 100
#define SLOT 0
#define COMPLAINTS_MAX 5
#define TOKEN_LIFETIME_S 86400

enum { APPEND, APPEND_ONE, MARKS, READ_POSITIONS, BACKEND, WAL, ROW_IS_THERE, STATEMENTS_HERE };

static struct database_statement table[STATEMENTS_HERE] = {
	[BACKEND] = {"backend", "SELECT pg_backend_pid()"},
	[WAL] = {"wal", "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"},
	[ROW_IS_THERE] = {"row_is_there",
		"SELECT count(*) FROM chat.messages WHERE conversation_id = $1::bigint AND seq = $2::bigint"
		" AND strpos(body, ($3::text[])[1]) = 1"},
};

static struct database *database;

static void give_up(const char *what)
{
	fprintf(stderr, "bench_tool: %s: %s\n", what, database ? database_error(database) : "out of memory");
	exit(2);
}

static struct database_result *call(size_t statement, const struct database_parameters *parameters)
{
	struct database_call one = {statement, parameters};
	struct database_result *result;
	if (database_run(database, &one, 1, CALL_TIMEOUT_MS, &result) != DATABASE_OK)
		give_up(table[statement].name);
	return result;
}

static int64_t ask_integer(size_t statement, const struct database_parameters *parameters, int column)
{
	struct database_result *result = call(statement, parameters);
	int64_t value = database_rows(result) > 0 ? database_integer(result, 0, column) : 0;
	database_result_free(result);
	return value;
}

static void connect_to(const char *conninfo)
{
	table[APPEND] = statements[STATEMENT_APPEND_MESSAGES];
	table[APPEND_ONE] = statements[STATEMENT_APPEND_MESSAGE];
	table[MARKS] = statements[STATEMENT_APPEND_MARKS];
	table[READ_POSITIONS] = statements[STATEMENT_READ_POSITIONS];
	database = database_new(conninfo, "bench", table, STATEMENTS_HERE, -1);
	if (!database || !database_connect(database, CALL_TIMEOUT_MS))
		give_up("connecting");
}

/* ---- tokens */

static int run_tokens(const char *key_spec, int64_t first, int64_t count, bool devices)
{
	char error[SIGNING_ERROR_SIZE];
	struct signing_key *key = signing_key_load(key_spec, error, sizeof(error));
	struct token_rules rules = {0};
	struct token_claims claims = {.issued_at_s = clock_wall_ms() / 1000};
	struct buffer token;

	if (!key) {
		fprintf(stderr, "bench_tool: %s\n", error);
		return 2;
	}
	claims.expires_at_s = claims.issued_at_s + TOKEN_LIFETIME_S;
	buffer_init(&token, TOKEN_MAX);
	for (claims.user_id = first; claims.user_id < first + count; claims.user_id++) {
		buffer_reset(&token);
		claims.device_id = devices ? claims.user_id : 0;
		if (!token_make(key, &rules, &claims, &token)) {
			fprintf(stderr, "bench_tool: a token could not be made\n");
			return 2;
		}
		printf("%" PRId64 "-bench %" PRId64 " %.*s\n", claims.user_id, claims.user_id, (int)token.length, token.data);
	}
	buffer_free(&token);
	signing_key_free(key);
	return 0;
}

static int run_verifier(const char *password)
{
	uint8_t salt[SCRAM_SALT_BYTES];
	struct scram_verifier verifier;
	struct buffer text;

	buffer_init(&text, SCRAM_TEXT_MAX);
	bool made = getrandom(salt, sizeof(salt), 0) == (ssize_t)sizeof(salt) &&
		    scram_verifier_make(password, strlen(password), salt, sizeof(salt), SCRAM_ITERATIONS, NULL, &verifier) &&
		    scram_verifier_format(&verifier, &text);
	if (made)
		printf("%.*s\n", (int)text.length, text.data);
	buffer_free(&text);
	return made ? 0 : 2;
}

/* ---- append */

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

struct append {
	bool marks;
	int column_count;
	uint64_t marked;
	long batch;
	double seconds;
	int64_t first_conversation, conversations, first_user;
	uint8_t spool[16];
	int64_t position;
	struct database_array slots, from, to, columns[COLUMNS];
	struct database_parameters parameters;
	uint64_t random;
};

/* xorshift64* (Vigna, 2016): cheap, and good enough to spread rows. */
static uint64_t next_random(struct append *append)
{
	append->random ^= append->random >> 12;
	append->random ^= append->random << 25;
	append->random ^= append->random >> 27;
	return append->random * UINT64_C(2685821657736338717);
}

struct message {
	int64_t conversation, sender;
	uint8_t id[16];
	char body[BODY_LENGTH];
};

static void make_message(struct append *append, struct message *message)
{
	int64_t place = (int64_t)(next_random(append) % (uint64_t)append->conversations);
	uint64_t id[2] = {next_random(append), next_random(append)};

	message->conversation = append->first_conversation + place;
	message->sender = append->first_user + 2 * place + (int64_t)(id[0] & 1);
	memcpy(message->id, id, sizeof(id));
	memset(message->body, 'x', sizeof(message->body));
}

static void add_message(struct append *append, int64_t now_ms)
{
	struct database_array *columns = append->columns;
	struct message message;

	make_message(append, &message);
	database_array_integer(&columns[C_CONVERSATION], message.conversation);
	database_array_integer(&columns[C_SENDER], message.sender);
	database_array_integer(&columns[C_DEVICE], 0);
	database_array_bytes(&columns[C_ID], message.id, sizeof(message.id));
	database_array_bytes(&columns[C_HASH], message.id, sizeof(message.id));
	database_array_bytes(&columns[C_TYPE], "text", 4);
	database_array_bytes(&columns[C_BODY], message.body, sizeof(message.body));
	database_array_null(&columns[C_REPLY_TO]);
	database_array_null(&columns[C_REF]);
	database_array_null(&columns[C_EXTRA]);
	database_array_time(&columns[C_SENT_AT], now_ms);
	database_array_null(&columns[C_EXPIRES_AT]);
}

static void add_mark(struct append *append, int64_t now_ms)
{
	struct database_array *columns = append->columns;
	uint64_t people = 2 * (uint64_t)append->conversations;
	int64_t person = (int64_t)(append->marked % people);
	int64_t seq = 1 + (int64_t)(append->marked / people);

	append->marked++;
	database_array_integer(&columns[M_CONVERSATION], append->first_conversation + person / 2);
	database_array_integer(&columns[M_USER], append->first_user + person);
	database_array_integer(&columns[M_DEVICE], 0);
	database_array_integer(&columns[M_DELIVERED], seq);
	database_array_integer(&columns[M_READ], seq);
	database_array_time(&columns[M_AT], now_ms);
}

static void make_batch(struct append *append)
{
	int64_t now_ms = clock_wall_ms();

	database_array_reset(&append->slots);
	database_array_reset(&append->from);
	database_array_reset(&append->to);
	database_array_integer(&append->slots, SLOT);
	database_array_integer(&append->from, append->position);
	append->position += append->batch;
	database_array_integer(&append->to, append->position);
	for (int i = 0; i < append->column_count; i++)
		database_array_reset(&append->columns[i]);
	for (long i = 0; i < append->batch; i++)
		append->marks ? add_mark(append, now_ms) : add_message(append, now_ms);

	database_parameters_reset(&append->parameters);
	database_parameter_uuid(&append->parameters, append->spool);
	database_parameter_array(&append->parameters, &append->slots);
	database_parameter_array(&append->parameters, &append->from);
	database_parameter_array(&append->parameters, &append->to);
	for (int i = 0; i < append->column_count; i++)
		database_parameter_array(&append->parameters, &append->columns[i]);
	if (!append->marks)
		database_parameter_integer(&append->parameters, 0); /* edit window */
}

/* As a lane sends a message that comes alone. */
static void make_single(struct append *append)
{
	static struct message message; /* borrowed by the parameters */
	struct database_parameters *parameters = &append->parameters;
	const int64_t position = append->position++;

	make_message(append, &message);
	database_parameters_reset(parameters);
	database_parameter_uuid(parameters, append->spool);
	database_parameter_integer(parameters, SLOT);
	database_parameter_integer(parameters, position);
	database_parameter_integer(parameters, append->position);
	database_parameter_integer(parameters, message.conversation);
	database_parameter_integer(parameters, message.sender);
	database_parameter_integer(parameters, 0); /* device */
	database_parameter_uuid(parameters, message.id);
	database_parameter_uuid(parameters, message.id); /* hash */
	database_parameter_text(parameters, "text", 4);
	database_parameter_text(parameters, message.body, sizeof(message.body));
	database_parameter_text(parameters, NULL, 0); /* reply_to */
	database_parameter_text(parameters, NULL, 0); /* ref */
	database_parameter_text(parameters, NULL, 0); /* extra */
	database_parameter_time(parameters, clock_wall_ms());
	database_parameter_text(parameters, NULL, 0); /* expires_at */
	database_parameter_integer(parameters, 0);    /* edit window */
}

/* Nanoseconds in the call. */
static int64_t append_batch(struct append *append)
{
	bool single = append->batch == 1 && !append->marks;
	single ? make_single(append) : make_batch(append);
	int64_t start_ns = clock_monotonic_ns();
	struct database_result *result = call(append->marks ? MARKS : single ? APPEND_ONE : APPEND, &append->parameters);
	int64_t spent_ns = clock_monotonic_ns() - start_ns;
	for (int row = 0; row < database_rows(result); row++) {
		if (append->marks ? !database_is_null(result, row, 1) : database_integer(result, row, 1) != 1) {
			fprintf(stderr, "bench_tool: a message or mark was not stored\n");
			exit(2);
		}
	}
	database_result_free(result);
	return spent_ns;
}

static void prepare(struct append *append)
{
	if (getrandom(append->spool, sizeof(append->spool), 0) != (ssize_t)sizeof(append->spool) ||
		getrandom(&append->random, sizeof(append->random), 0) != (ssize_t)sizeof(append->random))
		give_up("getrandom");
	append->random |= 1; /* not 0 */
	append->column_count = append->marks ? (int)MARK_COLUMNS : (int)COLUMNS;
	database_array_init(&append->slots, DATABASE_INT2);
	database_array_init(&append->from, DATABASE_INT8);
	database_array_init(&append->to, DATABASE_INT8);
	for (int i = 0; i < append->column_count; i++)
		database_array_init(&append->columns[i], append->marks ? mark_column_types[i] : column_types[i]);
	database_array_integer(&append->slots, SLOT);
	database_parameters_reset(&append->parameters);
	database_parameter_uuid(&append->parameters, append->spool);
	database_parameter_array(&append->parameters, &append->slots);
	append->position = ask_integer(READ_POSITIONS, &append->parameters, 1);
}

static int run_append(struct append *append)
{
	struct usage before, after;
	struct database_parameters none;
	int64_t spent_ns = 0, rows = 0;

	prepare(append);
	append_batch(append); /* the first call makes the plans */
	database_parameters_reset(&none);
	pid_t backend = (pid_t)ask_integer(BACKEND, &none, 0);
	int64_t wal = ask_integer(WAL, &none, 0);
	usage_read(backend, &before);
	while ((double)spent_ns < append->seconds * 1e9) {
		spent_ns += append_batch(append);
		rows += append->batch;
	}
	usage_read(backend, &after);
	wal = ask_integer(WAL, &none, 0) - wal;
	printf("rows_per_s %.0f\n", (double)rows * 1e9 / (double)spent_ns);
	printf("call_us %.1f\n", (double)spent_ns / 1e3 / ((double)rows / (double)append->batch));
	printf("cpu_postgres_us %.2f\n", (after.process_s - before.process_s) * 1e6 / (double)rows);
	printf("wal_bytes_per_row %.0f\n", (double)wal / (double)rows);
	return 0;
}

/* ---- visible */

static bool row_is_there(int64_t conversation, int64_t seq, const char *marker)
{
	static struct database_array text;
	struct database_parameters parameters;

	if (!text.type)
		database_array_init(&text, DATABASE_TEXT);
	database_array_reset(&text);
	database_array_bytes(&text, marker, strlen(marker));
	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, conversation);
	database_parameter_integer(&parameters, seq);
	database_parameter_array(&parameters, &text);
	return ask_integer(ROW_IS_THERE, &parameters, 0) == 1;
}

static int run_visible(void)
{
	char line[256], marker[64];
	int64_t conversation, seq, checked = 0, missing = 0;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%" SCNd64 " %" SCNd64 " %63s", &conversation, &seq, marker) != 3)
			continue;
		checked++;
		if (row_is_there(conversation, seq, marker))
			continue;
		if (++missing <= COMPLAINTS_MAX)
			fprintf(stderr, "bench_tool: delivered, and no such row: %s", line);
	}
	printf("visible_checked %" PRId64 "\nvisible_missing %" PRId64 "\n", checked, missing);
	return missing > 0;
}

int main(int argc, char **argv)
{
	static struct append append;
	int status = 2;

	if (argc == 3 && strcmp(argv[1], "visible") == 0) {
		connect_to(argv[2]);
		status = run_visible();
	} else if (argc == 8 && (strcmp(argv[1], "append") == 0 || strcmp(argv[1], "marks") == 0)) {
		append.marks = strcmp(argv[1], "marks") == 0;
		append.batch = strtol(argv[3], NULL, 10);
		append.seconds = strtod(argv[4], NULL);
		append.first_conversation = strtoll(argv[5], NULL, 10);
		append.conversations = strtoll(argv[6], NULL, 10);
		append.first_user = strtoll(argv[7], NULL, 10);
		if (append.batch < 1 || append.batch > BATCH_MAX || append.conversations < 1) {
			fprintf(stderr, "bench_tool: a batch is of 1 to %d, conversations are 1 at least\n", BATCH_MAX);
			return 2;
		}
		connect_to(argv[2]);
		status = run_append(&append);
	} else if ((argc == 5 || (argc == 6 && strcmp(argv[5], "devices") == 0)) && strcmp(argv[1], "tokens") == 0) {
		status = run_tokens(argv[2], strtoll(argv[3], NULL, 10), strtoll(argv[4], NULL, 10), argc == 6);
	} else if (argc == 3 && strcmp(argv[1], "verifier") == 0) {
		status = run_verifier(argv[2]);
	} else {
		fprintf(stderr,
			"usage: bench_tool tokens KEY FIRST_USER COUNT [devices]\n"
			"       bench_tool verifier PASSWORD\n"
			"       bench_tool append|marks CONNINFO BATCH SECONDS FIRST_CONVERSATION CONVERSATIONS FIRST_USER\n"
			"       bench_tool visible CONNINFO <PIPE\n");
	}
	database_free(database);
	return status;
}
