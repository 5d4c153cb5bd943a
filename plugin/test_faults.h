/* test_faults.h - crash points and deliberate breaks, for the tests alone.
 *
 * Without CHAT_TEST_FAULTS, as in everything that is installed, nothing of this file is compiled: a point is an empty
 * statement, a break is `false`. With it the build makes a second module, mosquitto_chat_faulty.so, for the tests of
 * tests/history/ and tests/faults/, which obeys two variables of the broker's environment:
 *
 *   CHAT_CRASH_AT=NAME[:N]   the process dies by SIGKILL when the point is reached for the N-th time (1 where not said)
 *   CHAT_BREAK=NAME          one promise is broken on purpose, so that the checker can show that it notices
 *
 * Points, in the order of a record's life:
 *
 *   written       in the spool's memory, not yet visible to the lanes
 *   appended      visible; the PUBACK is not yet sent
 *   sending       a batch is about to go to the database
 *   committed     its transaction is committed, nobody here knows
 *   posted        what was committed is on its way to the broker thread, the position is not noted yet
 *   releasing     the spool is about to forget the batch
 *   delivered     a message was handed to the broker for its members
 *   segment_made  the keeper has made a segment that the appender may not use yet
 *   segment_freed the keeper has deleted a segment that still counts
 *   recovering    opening: a segment was walked
 *   recovered     opening: all that was kept is known, the database has not been asked
 *   settling      connected (again): the positions are read, the batch under way is not settled
 *   settled       what became of the batch under way is on its way to the broker thread, its positions are not taken
 *   refused       a record that the tables do not take is refused there, and nobody told
 *   rewound       the spool had lost its end: the positions are put back, and the spool still says that they are not checked
 *
 * Breaks:
 *
 *   skip_spool             one message in 32 is acknowledged and not kept
 *   skip_mark              marks are acknowledged and not kept
 *   skip_presence          nobody's presence is written
 *   publish_before_commit  what a transaction will store is delivered before COMMIT, and taken for committed
 *   number_in_memory       seq as delivered is counted in the process and not by the table
 *   ignore_position        replay begins at the oldest record kept, whatever the position says; ids that were made here
 *                          are made again (or the table would know the message)
 *   skip_dedupe            the sender's own id is not used
 *   lose_batch             of one batch in 16 the positions are moved and nothing is stored; its fate is then asked for as after
 *                          a lost connection
 *
 * A new point or break: its line here, its macro there. Any thread.
 */
#ifndef CHAT_PLUGIN_TEST_FAULTS_H
#define CHAT_PLUGIN_TEST_FAULTS_H

#ifdef CHAT_TEST_FAULTS

#include "clock.h"
#include "database.h"
#include "record.h"
#include "uuid.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether the point named `name`, reached `reached` times before, is the one to die at. */
static inline bool test_faults_is_here(const char *name, unsigned reached)
{
	const char *wanted = getenv("CHAT_CRASH_AT");
	size_t length = strlen(name);
	if (!wanted || strncmp(wanted, name, length) != 0 || (wanted[length] != '\0' && wanted[length] != ':')) {
		return false;
	}
	return reached + 1 == (wanted[length] ? strtoul(wanted + length + 1, NULL, 10) : 1);
}

static inline void test_faults_point(const char *name, _Atomic unsigned *reached)
{
	if (test_faults_is_here(name, atomic_fetch_add(reached, 1))) {
		kill(getpid(), SIGKILL);
		for (;;) {
			pause();
		}
	}
}

static inline bool test_faults_break(const char *name)
{
	const char *wanted = getenv("CHAT_BREAK");
	return wanted && strcmp(wanted, name) == 0;
}

/* number_in_memory: a conversation belongs to one lane, and so to one thread, for the life of the process. */
static inline int64_t test_faults_number(const struct record_header *record, bool is_new, int64_t seq)
{
	static _Thread_local struct {
		int64_t conversation_id, count;
	} counters[64];
	struct record_parts parts;
	int64_t conversation_id = record_read_message(record, &parts)->conversation_id;

	if (!is_new || !test_faults_break("number_in_memory")) {
		return seq;
	}
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		if (counters[i].count == 0 || counters[i].conversation_id == conversation_id) {
			counters[i].conversation_id = conversation_id;
			return ++counters[i].count;
		}
	}
	return seq;
}

/* ignore_position: the id under which a record is stored. (Not changed in the record: its checksum is over it.) */
static inline const uint8_t *test_faults_id(const struct record_header *record, const uint8_t *id)
{
	static _Thread_local uint8_t fresh[16];
	if ((record->flags & RECORD_FLAG_OWN_ID) || !test_faults_break("ignore_position")) {
		return id;
	}
	uuid_make(clock_wall_ms(), fresh);
	return fresh;
}

/* publish_before_commit: BEGIN before a batch, COMMIT after its publication and some time. */
static inline void test_faults_transaction(struct database *database, size_t statement, int wait_ms)
{
	struct database_call call = {statement, NULL};
	struct database_result *result = NULL;
	if (test_faults_break("publish_before_commit")) {
		poll(NULL, 0, wait_ms);
		enum database_status unseen = database_run(database, &call, 1, 30000, &result);
		(void)unseen; /* a careless writer does not look */
		database_result_free(result);
	}
}

/* lose_batch: only the positions, which are all that `parameters` hold so far, go to the database. */
static inline void test_faults_lose(struct database *database, size_t statement, const struct database_parameters *parameters)
{
	static _Atomic unsigned batches;
	struct database_call call = {statement, parameters};
	struct database_result *result = NULL;
	if (test_faults_break("lose_batch") && atomic_fetch_add(&batches, 1) % 16 == 15) {
		enum database_status unseen = database_run(database, &call, 1, 30000, &result);
		(void)unseen;
		database_result_free(result);
		database_disconnect(database);
	}
}

#define TEST_CRASH_POINT(name)                                                                                                   \
	do {                                                                                                                     \
		static _Atomic unsigned test_faults_reached;                                                                     \
		test_faults_point((name), &test_faults_reached);                                                                 \
	} while (0)
#define TEST_BREAK(name) test_faults_break(name)
#define TEST_NUMBER(record, is_new, seq) test_faults_number((record), (is_new), (seq))
#define TEST_ID(record, id) test_faults_id((record), (id))
/* Long enough that a fault falls into it. */
#define TEST_UNCOMMITTED_MS 20
#define TEST_TRANSACTION(database, statement, wait_ms) test_faults_transaction((database), (statement), (wait_ms))
#define TEST_LOSE_BATCH(database, statement, parameters) test_faults_lose((database), (statement), (parameters))

#else

#define TEST_CRASH_POINT(name) ((void)0)
#define TEST_BREAK(name) false
#define TEST_NUMBER(record, is_new, seq) (seq)
#define TEST_ID(record, id) (id)
#define TEST_TRANSACTION(database, statement, wait_ms) ((void)0)
#define TEST_LOSE_BATCH(database, statement, parameters) ((void)0)

#endif
#endif
