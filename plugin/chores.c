/* chores.c - see chores.h. The mutex guards the set of noted conversations, which the thread takes whole. */
#include "chores.h"

#include "clock.h"
#include "log.h"
#include "statements.h"
#include "thread.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define EVERY_MS 1000
#define TIDY_EVERY_MS (5 * 60 * 1000)
#define LIFT_EVERY_MS 5000
#define TRIM_EVERY_MS (60 * 60 * 1000)
#define LOOK_EVERY_MS (60 * 60 * 1000)
#define CONNECT_TIMEOUT_MS 5000
#define CALL_TIMEOUT_MS 60000
/* The limit is below the former: what is given up here ends there too. What a crash takes back is done again, so nobody waits for
 * the disk, which the commits of messages need. */
#define SETTINGS "SET statement_timeout = '50s'; SET synchronous_commit = off"
/* Entries of one call, fewer where they are long: some milliseconds, since who commits meanwhile shares the processors with it.
 * More where it has many conversations to look at first, so that it does not look more than it works. */
#define ENTRIES_PER_CALL_MIN 200
#define ENTRIES_PER_CALL_MAX 1000
/* Of one call that erases or removes, and calls in a row before others get their turn; each is some milliseconds. */
#define ROWS_PER_CALL 500
#define CALLS_PER_ROUND 50
/* Of chat.trim_logs: somebody else is at it, or holds a lock. The round goes on with the next second. */
#define NOT_NOW (-2)
/* Entries of logs that everybody has left, removed in a turn: as long. */
#define ABANDONED_PER_TURN 2000
/* Conversations that grow within a second; of more, the look at all finds the others. A power of two. */
#define NOTED_PLACES 4096
#define NOTED_MAX (NOTED_PLACES / 2)

struct noted {
	size_t count;
	int64_t places[NOTED_PLACES];
};

struct chores {
	pthread_mutex_t mutex;
	struct noted *noted, *spare; /* `spare` is the thread's */
	struct database *database;
	struct database_array conversations;
	pthread_t thread;
	bool started;
	int stop_fd;
	int64_t tidied_ms, lifted_ms, looked_ms;
	unsigned search_share; /* per cent */
	int64_t did_due_ms;
	_Atomic bool look_due; /* a look at all conversations shall begin when none is under way */
	int64_t look_after;    /* the conversation to go on after; -1: the look is done */
	_Atomic int64_t retention_days;
	int64_t trimmed_days; /* what retention_days was when the last round through all logs began */
	int64_t trimmed_ms;   /* and when that was */
	int64_t trim_after;   /* the conversation to go on after; -1: the round is done */
	bool removing;        /* there may be more of what everybody has left */
	_Atomic bool stopping;
	struct log_gate trouble;
};

void chores_note(struct chores *chores, int64_t conversation_id)
{
	pthread_mutex_lock(&chores->mutex);
	struct noted *noted = chores->noted;
	size_t at = (size_t)((uint64_t)conversation_id * UINT64_C(0x9e3779b97f4a7c15) >> 52) % NOTED_PLACES;
	while (noted->places[at] != 0 && noted->places[at] != conversation_id) {
		at = (at + 1) % NOTED_PLACES;
	}
	if (noted->count >= NOTED_MAX) {
		chores_note_all(chores);
	} else if (noted->places[at] == 0) {
		noted->places[at] = conversation_id;
		noted->count++;
	}
	pthread_mutex_unlock(&chores->mutex);
}

void chores_note_all(struct chores *chores)
{
	atomic_store(&chores->look_due, true);
}

/* ---- the thread ---- */

static struct noted *take_noted(struct chores *chores)
{
	memset(chores->spare, 0, sizeof(*chores->spare));
	pthread_mutex_lock(&chores->mutex);
	struct noted *noted = chores->noted;
	chores->noted = chores->spare;
	chores->spare = noted;
	pthread_mutex_unlock(&chores->mutex);
	return noted;
}

/* NULL: it was not done. */
static struct database_result *run(struct chores *chores, enum statement statement, const struct database_parameters *parameters)
{
	struct database_call one = {statement, parameters};
	struct database_result *result;
	uint64_t suppressed;

	switch (database_run(chores->database, &one, 1, CALL_TIMEOUT_MS, &result)) {
	case DATABASE_OK:
		return result;
	case DATABASE_REFUSED:
		if (log_gate_open(&chores->trouble, clock_monotonic_ms(), &suppressed)) {
			log_line(LOG_LEVEL_ERROR, "chat: chores: %s: %s; SQLSTATE %s", statements[statement].name,
				database_error(chores->database), database_sqlstate(chores->database));
		}
		return NULL;
	default:
		return NULL;
	}
}

/* *value gets the number that the statement returns. */
static bool call(struct chores *chores, enum statement statement, const struct database_parameters *parameters, int64_t *value)
{
	struct database_result *result = run(chores, statement, parameters);
	if (!result) {
		return false;
	}
	*value = database_rows(result) == 1 ? database_integer(result, 0, 0) : 0;
	database_result_free(result);
	return true;
}

/* Not less than a millisecond, which is what the clock can tell. */
static void rest_after(const struct chores *chores, int64_t began_ms)
{
	struct pollfd stop = {.fd = chores->stop_fd, .events = POLLIN};
	int64_t took_ms = clock_monotonic_ms() - began_ms + 1;
	poll(&stop, 1, (int)(took_ms * (100 - chores->search_share) / chores->search_share));
}

/* Until nothing is left that has expired, or others shall have their turn. */
static void sweep(struct chores *chores)
{
	struct database_parameters parameters;
	int64_t erased = 1;

	for (int i = 0; i < CALLS_PER_ROUND && erased > 0 && !atomic_load(&chores->stopping); i++) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, ROWS_PER_CALL);
		if (!call(chores, STATEMENT_SWEEP, &parameters, &erased)) {
			return;
		}
	}
}

static void begin_trimming(struct chores *chores, int64_t days)
{
	if (days != chores->trimmed_days || clock_monotonic_ms() - chores->trimmed_ms >= TRIM_EVERY_MS) {
		chores->trimmed_days = days;
		chores->trimmed_ms = clock_monotonic_ms();
		chores->trim_after = days > 0 ? 0 : -1;
	}
}

/* A part of a round through all logs. */
static void trim_logs(struct chores *chores)
{
	struct database_parameters parameters;

	begin_trimming(chores, atomic_load(&chores->retention_days));
	for (int i = 0; i < CALLS_PER_ROUND && chores->trim_after >= 0 && !atomic_load(&chores->stopping); i++) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, chores->trimmed_days);
		database_parameter_integer(&parameters, chores->trim_after);
		database_parameter_integer(&parameters, ROWS_PER_CALL);
		int64_t began_ms = clock_monotonic_ms(), after;
		if (!call(chores, STATEMENT_TRIM_LOGS, &parameters, &after) || after == NOT_NOW) {
			return;
		}
		chores->trim_after = after;
		rest_after(chores, began_ms);
	}
}

static void lift_suspensions(struct chores *chores)
{
	int64_t ignored;
	if (clock_monotonic_ms() - chores->lifted_ms >= LIFT_EVERY_MS &&
		call(chores, STATEMENT_LIFT_SUSPENSIONS, NULL, &ignored)) {
		chores->lifted_ms = clock_monotonic_ms();
	}
}

/* Once a second, however much there is to index. */
static void do_what_is_due(struct chores *chores)
{
	if (clock_monotonic_ms() - chores->did_due_ms >= EVERY_MS) {
		sweep(chores);
		trim_logs(chores);
		lift_suspensions(chores);
		chores->did_due_ms = clock_monotonic_ms();
	}
}

static int64_t entries_per_call(const struct noted *noted)
{
	if (noted->count > ENTRIES_PER_CALL_MAX) {
		return ENTRIES_PER_CALL_MAX;
	}
	return noted->count > ENTRIES_PER_CALL_MIN ? (int64_t)noted->count : ENTRIES_PER_CALL_MIN;
}

/* One call, and the rest after it; *value gets its number. What it passed over, since somebody else held it, has its turn in the
 * next second. */
static bool index_some(
	struct chores *chores, enum statement statement, const struct database_parameters *parameters, int64_t *value)
{
	int64_t began_ms = clock_monotonic_ms();
	struct database_result *result = run(chores, statement, parameters);
	if (!result) {
		chores_note_all(chores); /* this is not done, and a crash may have taken back what was */
		return false;
	}
	struct database_integers passed_over = database_integer_array(result, 0, 1);
	for (int32_t i = 0; i < passed_over.count; i++) {
		chores_note(chores, database_integers_next(&passed_over));
	}
	*value = database_integer(result, 0, 0);
	database_result_free(result);
	rest_after(chores, began_ms);
	return true;
}

/* As long as there is work for whole calls. What came meanwhile waits for the next second: neighbours that are indexed together
 * share an entry, and what is noted one by one costs many times as much. */
static void index_noted(struct chores *chores, const struct noted *noted)
{
	struct database_parameters parameters;
	int64_t most = entries_per_call(noted), done = most;

	if (noted->count == 0) {
		return;
	}
	database_array_reset(&chores->conversations);
	for (size_t i = 0; i < NOTED_PLACES; i++) {
		if (noted->places[i]) {
			database_array_integer(&chores->conversations, noted->places[i]);
		}
	}
	while (done >= most && !atomic_load(&chores->stopping)) {
		database_parameters_reset(&parameters);
		database_parameter_array(&parameters, &chores->conversations);
		database_parameter_integer(&parameters, most);
		if (!index_some(chores, STATEMENT_INDEX_MESSAGES, &parameters, &done)) {
			return;
		}
		do_what_is_due(chores);
	}
}

static void begin_looking(struct chores *chores)
{
	if (clock_monotonic_ms() - chores->looked_ms >= LOOK_EVERY_MS) {
		chores->looked_ms = clock_monotonic_ms();
		chores_note_all(chores);
	}
	if (chores->look_after < 0 && atomic_exchange(&chores->look_due, false)) {
		chores->look_after = 0;
	}
}

/* For what nobody has noted after all: a part of a look at all conversations, 1.3 us of PostgreSQL for each. It takes the time
 * until those that are noted meanwhile have their turn; false: it needs none. */
static bool look_everywhere(struct chores *chores)
{
	struct database_parameters parameters;
	int64_t until_ms = clock_monotonic_ms() + EVERY_MS;

	begin_looking(chores);
	while (chores->look_after >= 0 && clock_monotonic_ms() < until_ms && !atomic_load(&chores->stopping)) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, chores->look_after);
		database_parameter_integer(&parameters, ENTRIES_PER_CALL_MAX);
		if (!index_some(chores, STATEMENT_INDEX_MISSED, &parameters, &chores->look_after)) {
			return false;
		}
	}
	return chores->look_after >= 0;
}

static void tidy(struct chores *chores)
{
	int64_t ignored;
	if (clock_monotonic_ms() - chores->tidied_ms >= TIDY_EVERY_MS && call(chores, STATEMENT_TIDY, NULL, &ignored)) {
		chores->tidied_ms = clock_monotonic_ms();
		chores->removing = true;
	}
}

static void remove_abandoned(struct chores *chores)
{
	struct database_parameters parameters;
	int64_t removed = 0;

	if (chores->removing) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, ABANDONED_PER_TURN);
		chores->removing = call(chores, STATEMENT_REMOVE_ABANDONED, &parameters, &removed) && removed > 0;
	}
}

static bool connect_chores(struct chores *chores)
{
	if (!database_connect(chores->database, CONNECT_TIMEOUT_MS)) {
		return false;
	}
	if (database_command(chores->database, SETTINGS, CALL_TIMEOUT_MS) != DATABASE_OK) {
		database_disconnect(chores->database);
		return false;
	}
	return true;
}

static void *chores_main(void *argument)
{
	struct chores *chores = argument;
	struct pollfd stop = {.fd = chores->stop_fd, .events = POLLIN};

	setpriority(PRIO_PROCESS, 0, 10); /* of this thread alone (Linux) */
	while (!atomic_load(&chores->stopping)) {
		bool looking = false;
		/* That the database is away the loader says. */
		if (database_is_connected(chores->database) || connect_chores(chores)) {
			index_noted(chores, take_noted(chores));
			do_what_is_due(chores);
			tidy(chores);
			remove_abandoned(chores);
			looking = look_everywhere(chores);
		}
		poll(&stop, 1, looking ? 0 : EVERY_MS);
	}
	return NULL;
}

/* ---- start and end ---- */

void chores_set_retention(struct chores *chores, int64_t days)
{
	atomic_store(&chores->retention_days, days);
}

struct chores *chores_start(const char *conninfo, unsigned search_share, int64_t retention_days, char *error, size_t error_size)
{
	struct chores *chores = calloc(1, sizeof(*chores));
	if (!chores) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&chores->mutex, NULL);
	database_array_init(&chores->conversations, DATABASE_INT8);
	chores->tidied_ms = chores->looked_ms = clock_monotonic_ms();
	chores->search_share = search_share;
	chores->retention_days = retention_days;
	chores->trim_after = chores->look_after = -1;
	chores->look_due = true;
	chores->noted = calloc(1, sizeof(*chores->noted));
	chores->spare = calloc(1, sizeof(*chores->spare));
	chores->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	chores->database = database_new(conninfo, "mosquitto-chat chores", statements, STATEMENTS, chores->stop_fd);
	if (!chores->noted || !chores->spare || chores->stop_fd < 0 || !chores->database) {
		goto failed;
	}
	chores->started = thread_start(&chores->thread, chores_main, chores);
	if (!chores->started) {
		goto failed;
	}
	return chores;
failed:
	snprintf(error, error_size, "out of memory, descriptors or threads");
	chores_stop(chores);
	return NULL;
}

void chores_stop(struct chores *chores)
{
	static const uint64_t one = 1;
	if (!chores) {
		return;
	}
	atomic_store(&chores->stopping, true);
	if (chores->started) {
		ssize_t written = write(chores->stop_fd, &one, sizeof(one));
		(void)written;
		pthread_join(chores->thread, NULL);
	}
	database_free(chores->database);
	database_array_free(&chores->conversations);
	if (chores->stop_fd >= 0) {
		close(chores->stop_fd);
	}
	free(chores->noted);
	free(chores->spare);
	pthread_mutex_destroy(&chores->mutex);
	free(chores);
}
