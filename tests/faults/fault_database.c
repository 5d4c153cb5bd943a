/* fault_database.c - PostgreSQL dies, hangs, is away for long, refuses to write, keeps rows locked, or is cut off in the
 * middle of a commit. */
#include "fault.h"
#include "relay_database.h"
#include "small_disk.h"
#include "stall_probe.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { STALL_MS = 50, GROWTH_KB = 32 << 10, LAND_MS = 60000 };

static void wait_for_the_moment(struct stage *stage)
{
	stage_wait_random_acks(stage, stage->is_long ? 4000 : 600);
}

/* -------------------------------------------------------------------------------------------------- deaths */

static bool strike_kill(struct stage *stage, unsigned round)
{
	wait_for_the_moment(stage);
	stage_note(stage, "kill_postgres");
	postgres_kill(&stage->fixture->postgres);
	if (round % 2)
		stage_wait_random_acks(stage, 500);
	postgres_start(&stage->fixture->postgres);
	stage_note(stage, "postgres_is_up");
	stage_wait_acks(stage, 100);
	return true;
}

static bool strike_kill_backend(struct stage *stage, unsigned round)
{
	(void)round;
	wait_for_the_moment(stage);
	stage_note(stage, "kill_backend");
	postgres_kill_backend(&stage->fixture->postgres, "chat_plugin", stage_random(stage, 1000));
	stage_note(stage, "postgres_is_up");
	stage_wait_acks(stage, 100);
	return true;
}

static bool strike_restart(struct stage *stage, unsigned round)
{
	(void)round;
	wait_for_the_moment(stage);
	stage_note(stage, "restart_immediate");
	postgres_restart_immediate(&stage->fixture->postgres);
	stage_note(stage, "postgres_is_up");
	stage_wait_acks(stage, 100);
	return true;
}

static bool strike_both(struct stage *stage, unsigned round)
{
	struct fixture *fixture = stage->fixture;
	wait_for_the_moment(stage);
	stage_note(stage, "kill_both");
	/* Each dies first in turn, and each comes back first in turn. */
	if (round % 2) {
		broker_kill(&fixture->broker);
		postgres_kill(&fixture->postgres);
	} else {
		postgres_kill(&fixture->postgres);
		broker_kill(&fixture->broker);
	}
	if (round % 4 >= 2)
		postgres_start(&fixture->postgres);
	stage_start_broker(stage);
	if (round % 4 < 2) {
		stage_wait_random_acks(stage, 500);
		postgres_start(&fixture->postgres);
	}
	stage_note(stage, "both_are_up");
	stage_wait_acks(stage, 100);
	return true;
}

/* -------------------------------------------------------------------------------------------- away for long */

/* KiB of memory that belongs to the broker alone and to no file. */
static int64_t anonymous_kb(const struct broker *broker)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)broker->process.pid);
	char *text = file_read(path);
	char *line = strstr(text, "\nAnonymous:");
	int64_t kb = line ? strtoll(line + strlen("\nAnonymous:"), NULL, 10) : 0;
	free(text);
	check(kb > 0);
	return kb;
}

/* What all conversations have been given. */
static int64_t stored(struct stage *stage)
{
	return sql_integer(&stage->fixture->postgres, "SELECT sum(last_seq)::bigint FROM chat.conversations");
}

static void begin_probe(struct stage *stage, struct probe *probe)
{
	char *token = stage_token(stage->fixture, DAVE);
	probe_start(probe, stage->fixture->broker.port, stage->fixture->broker.process.pid, token);
	free(token);
}

static void check_probe(struct stage *stage, struct probe *probe)
{
	struct probe_report report = probe_end(probe);
	stage_figure(stage, "stall_ms", report.longest_us / 1000);
	stage_figure(stage, "own_stall_ms", report.longest_own_us / 1000);
	if (report.lost)
		stage_complain(stage, "the quiet client was disconnected");
	if (stage->is_long && report.longest_own_us > STALL_MS * 1000)
		stage_complain(stage, "the broker stood still for %" PRId64 " ms", report.longest_own_us / 1000);
}

/* For so long in the long form; for so many messages in the short one. Returns the most anonymous memory seen. */
static int64_t stay_away(struct stage *stage, int64_t seconds, uint64_t acks)
{
	int64_t until_ms = now_ms() + seconds * 1000, most_kb = anonymous_kb(&stage->fixture->broker);
	if (!stage->is_long)
		stage_wait_acks(stage, acks);
	while (stage->is_long && now_ms() < until_ms) {
		int64_t kb = anonymous_kb(&stage->fixture->broker);
		most_kb = kb > most_kb ? kb : most_kb;
		poll(NULL, 0, 200);
	}
	return most_kb;
}

static bool stand_still(struct stage *stage, int64_t seconds)
{
	struct probe probe;
	begin_probe(stage, &probe);
	wait_for_the_moment(stage);
	stage_note(stage, "pause_postgres");
	postgres_pause(&stage->fixture->postgres);
	stay_away(stage, seconds, 800);
	postgres_resume(&stage->fixture->postgres);
	stage_note(stage, "postgres_goes_on");
	stage_wait_acks(stage, 200);
	check_probe(stage, &probe);
	return true;
}

static bool strike_pause(struct stage *stage, unsigned round)
{
	(void)round;
	return stand_still(stage, 30);
}

static bool strike_hang(struct stage *stage, unsigned round)
{
	(void)round;
	return stand_still(stage, 20);
}

static bool strike_outage(struct stage *stage, unsigned round)
{
	struct probe probe;
	(void)round;
	begin_probe(stage, &probe);
	wait_for_the_moment(stage);
	int64_t before_kb = anonymous_kb(&stage->fixture->broker), since_ns = now_ns(), before = stored(stage);
	uint64_t acks = workload_counts(stage->workload).acked;
	stage_note(stage, "stop_postgres");
	postgres_stop(&stage->fixture->postgres);
	int64_t most_kb = stay_away(stage, 60, 1500);
	postgres_start(&stage->fixture->postgres);
	stage_note(stage, "postgres_is_up");
	/* Most of what waited: some of the PUBACKs were for repeats, which are stored once. */
	int64_t up_ns = now_ns(), backlog = (int64_t)(workload_counts(stage->workload).acked - acks);
	int64_t rate = backlog * 1000000000 / (up_ns - since_ns);
	while (stored(stage) - before < backlog * 8 / 10) {
		int64_t kb = anonymous_kb(&stage->fixture->broker);
		most_kb = kb > most_kb ? kb : most_kb;
		check(now_ns() - up_ns < (int64_t)120 * 1000000000);
		poll(NULL, 0, 10);
	}
	int64_t catch_up = backlog * 8 / 10 * 1000000000 / (now_ns() - up_ns);
	stage_figure(stage, "came_in_per_s", rate);
	stage_figure(stage, "caught_up_per_s", catch_up);
	stage_figure(stage, "anonymous_growth_kb", most_kb - before_kb);
	check_probe(stage, &probe);
	if (stage->is_long && most_kb - before_kb >= GROWTH_KB)
		stage_complain(stage, "the broker's memory grew by %" PRId64 " KiB", most_kb - before_kb);
	if (stage->is_long && catch_up <= rate)
		stage_complain(stage, "%" PRId64 "/s came in, and only %" PRId64 "/s were caught up", rate, catch_up);
	return true;
}

/* -------------------------------------------------------------------------------- in the middle of a commit */

static struct database_relay *relay;

static const char *begin_cut(struct stage *stage)
{
	struct fixture *fixture = stage->fixture;
	const char *directory = text_of("%s/relay", fixture->directory);
	struct stat there;
	if (stat(directory, &there))
		directory_make(directory, 0755, NULL);
	relay = database_relay_start(directory, fixture->postgres.socket);
	const char *options[] = {text_of("database host=%s dbname=chat user=chat_plugin", directory), NULL};
	stage_restart_broker(stage, options);
	return NULL;
}

static bool strike_cut(struct stage *stage, unsigned round)
{
	static const char *const names[CUTS] = {"cut_answer", "cut_request", "late_commit", "late_rollback", "cut_settle"};
	enum cut cut = (enum cut)(round % CUTS);
	unsigned struck = database_relay_struck(relay);
	int64_t deadline_ms = now_ms() + allowed_ms(LAND_MS);
	stage_wait_random_acks(stage, stage->is_long ? 1000 : 200);
	stage_note(stage, names[cut]);
	database_relay_arm(relay, cut);
	while (database_relay_struck(relay) == struck && now_ms() < deadline_ms)
		look_again_soon();
	if (cut == CUT_SETTLE)
		postgres_kill_backend(&stage->fixture->postgres, "chat_plugin", stage_random(stage, 1000));
	stage_note(stage, names[cut]);
	stage_wait_acks(stage, 50);
	return database_relay_struck(relay) > struck;
}

static void end_cut(struct stage *stage)
{
	stage_restart_broker(stage, NULL);
	database_relay_stop(relay);
	relay = NULL;
}

static const char *begin_crash_settle(struct stage *stage)
{
	stage_use_plugin(stage, "CHAT_TEST_FAULTY_PLUGIN");
	return begin_cut(stage);
}

/* The broker comes back, loses the answer to a batch, asks what became of it, and dies with the answer. */
static bool strike_crash_settle(struct stage *stage, unsigned round)
{
	struct broker *broker = &stage->fixture->broker;
	int status;
	(void)round;
	wait_for_the_moment(stage);
	stage_note(stage, "settled");
	broker_kill(broker);
	broker->environment[0] = "CHAT_CRASH_AT=settled";
	broker_start(broker);
	broker->environment[0] = NULL;
	database_relay_arm(relay, CUT_ANSWER);
	bool died = process_wait(&broker->process, now_ms() + allowed_ms(LAND_MS), &status);
	if (!died)
		broker_kill(broker);
	stage_note(stage, "settled");
	stage_start_broker(stage);
	return died;
}

static void end_crash_settle(struct stage *stage)
{
	stage_use_plugin(stage, "CHAT_TEST_PLUGIN");
	end_cut(stage);
}

/* ------------------------------------------------------------------------------------- somebody else's lock */

static int64_t stored_beside(struct stage *stage, int64_t conversation)
{
	return sql_integer(&stage->fixture->postgres, "SELECT sum(last_seq)::bigint FROM chat.conversations WHERE id <> %" PRId64,
		conversation);
}

static long lock_log; /* where the broker's log begins */

static const char *begin_lock(struct stage *stage)
{
	stage_restart_broker(stage, NULL);
	lock_log = file_size(stage->fixture->broker.log);
	return NULL;
}

static int said(const char *log, const char *line)
{
	int count = 0;
	for (; (log = strstr(log, line)); log++)
		count++;
	return count;
}

/* Whether a lane has set messages aside: on a slow machine it may have done so by itself, and says it once. */
static bool waits_for_lock(const struct stage *stage)
{
	char *log = file_read_from(stage->fixture->broker.log, lock_log);
	bool waits = said(log, "another session keeps rows locked") > said(log, "what was set aside is stored");
	free(log);
	return waits;
}

static bool comes_to_wait(const struct stage *stage, bool waits)
{
	int64_t deadline_ms = now_ms() + allowed_ms(LAND_MS);
	bool came = false;
	while (!came && now_ms() < deadline_ms) {
		look_again_soon();
		came = waits_for_lock(stage) == waits;
	}
	return came;
}

/* An administrator's open transaction, on one conversation of the load: it waits, all others go on. */
static bool strike_lock(struct stage *stage, unsigned round)
{
	struct postgres *postgres = &stage->fixture->postgres;
	PGconn *administrator = postgres_connect(postgres, "postgres");
	(void)round;
	wait_for_the_moment(stage);
	int64_t conversation =
		sql_integer(postgres, "SELECT conversation_id FROM chat.messages ORDER BY committed_at DESC LIMIT 1");
	stage_note(stage, "lock_rows");
	PQclear(PQexec(
		administrator, text_of("BEGIN; SELECT FROM chat.conversations WHERE id = %" PRId64 " FOR UPDATE", conversation)));
	bool landed = PQtransactionStatus(administrator) == PQTRANS_INTRANS && comes_to_wait(stage, true);
	int64_t before = stored_beside(stage, conversation), deadline_ms = now_ms() + allowed_ms(LAND_MS);
	while (stored_beside(stage, conversation) - before < (stage->is_long ? 3000 : 200) && now_ms() < deadline_ms)
		look_again_soon();
	if (now_ms() >= deadline_ms)
		stage_complain(stage, "conversations that nobody locked do not go on");
	PQfinish(administrator);
	stage_note(stage, "rows_are_free");
	stage_wait_acks(stage, 100);
	if (!comes_to_wait(stage, false))
		stage_complain(stage, "what was set aside is not stored");
	return landed;
}

/* ----------------------------------------------------------------------------------------- refuses to write */

/* Whether nothing is stored while messages go on to be acknowledged. */
static bool nothing_is_stored(struct stage *stage)
{
	int64_t before = stored(stage);
	stage_wait_acks(stage, 200);
	return stored(stage) == before;
}

/* The server takes its time until nothing is. False: that did not come. */
static bool comes_to_a_stop(struct stage *stage)
{
	int64_t deadline_ms = now_ms() + allowed_ms(LAND_MS);
	bool stopped = false;
	while (!stopped && now_ms() < deadline_ms)
		stopped = nothing_is_stored(stage);
	return stopped;
}

static bool strike_read_only(struct stage *stage, unsigned round)
{
	struct postgres *postgres = &stage->fixture->postgres;
	(void)round;
	wait_for_the_moment(stage);
	stage_note(stage, "read_only");
	sql(postgres, "ALTER SYSTEM SET default_transaction_read_only = on");
	sql(postgres, "SELECT pg_reload_conf()");
	bool landed = comes_to_a_stop(stage);
	sql(postgres, "ALTER SYSTEM RESET default_transaction_read_only");
	sql(postgres, "SELECT pg_reload_conf()");
	stage_note(stage, "read_write");
	stage_wait_acks(stage, 100);
	return landed;
}

static char disk[PATH_SIZE];
enum { DISK_BYTES = 1 << 20, DISK_LARGE_BYTES = 1 << 30 };

static const char *begin_full(struct stage *stage)
{
	struct fixture *fixture = stage->fixture;
	if (!small_disk_allowed())
		return "a small disk can be made by root alone";
	check(snprintf(disk, sizeof disk, "%s/disk", fixture->directory) < (int)sizeof disk);
	directory_make(disk, 0700, &fixture->postgres.account);
	small_disk_mount(disk, DISK_LARGE_BYTES, &fixture->postgres.account);
	sql(&fixture->postgres, "CREATE TABLESPACE small LOCATION '%s'", disk);
	sql(&fixture->postgres, "ALTER TABLE chat.messages SET TABLESPACE small");
	return NULL;
}

static bool strike_full(struct stage *stage, unsigned round)
{
	(void)round;
	stage_note(stage, "database_full");
	small_disk_leave(disk, DISK_BYTES);
	bool landed = comes_to_a_stop(stage);
	small_disk_leave(disk, DISK_LARGE_BYTES);
	stage_note(stage, "room_again");
	stage_wait_acks(stage, 100);
	return landed;
}

static void end_full(struct stage *stage)
{
	sql(&stage->fixture->postgres, "ALTER TABLE chat.messages SET TABLESPACE pg_default");
	sql(&stage->fixture->postgres, "DROP TABLESPACE small");
	small_disk_unmount(disk);
	directory_remove(disk);
}

const struct fault database_faults[] = {
	{"kill_postgres", "kill -9 of the postmaster and all backends", true, 5, NULL, NULL, strike_kill, NULL},
	{"kill_backend", "kill -9 of one backend, which ends all others", true, 5, NULL, NULL, strike_kill_backend, NULL},
	{"restart_immediate", "pg_ctl restart -m immediate", true, 5, NULL, NULL, strike_restart, NULL},
	{"kill_both", "kill -9 of the broker and of PostgreSQL at once", false, 5, NULL, NULL, strike_both, NULL},
	{"pause", "PostgreSQL stands still", true, 1, NULL, NULL, strike_pause, NULL},
	{"hang", "the same, but it answers before a commit is given up, so no connection ends", true, 1, NULL, NULL, strike_hang,
		NULL},
	{"outage", "PostgreSQL is stopped for long", true, 1, NULL, NULL, strike_outage, NULL},
	{"cut_commit", "the connection is cut between COMMIT and its answer, or before, or the commit comes late", true, 10,
		begin_cut, NULL, strike_cut, end_cut},
	{"crash_settle", "the broker dies when it has just settled a batch whose answer was lost", false, 5, begin_crash_settle,
		NULL, strike_crash_settle, end_crash_settle},
	{"lock_rows", "somebody else keeps a conversation's row locked", true, 3, begin_lock, NULL, strike_lock, NULL},
	{"read_only", "the database is read-only", true, 3, NULL, NULL, strike_read_only, NULL},
	{"database_full", "the database's disk is full", true, 3, begin_full, NULL, strike_full, end_full},
	{.name = NULL},
};
