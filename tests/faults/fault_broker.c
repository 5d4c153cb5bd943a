/* fault_broker.c - the broker dies, ends, is told to reload, comes back with other options or another time of day. */
#include "fault.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIES_MS = 60000, EXIT_MS = 5000 };

/* ----------------------------------------------------------------------------------------------- kill -9 */

static bool strike_kill(struct stage *stage, unsigned round)
{
	(void)round;
	stage_wait_random_acks(stage, stage->is_long ? 4000 : 600);
	stage_note(stage, "kill_broker");
	broker_kill(&stage->fixture->broker);
	stage_start_broker(stage);
	return true;
}

/* ------------------------------------------------------------------------------------------- crash points */

/* How often each point may be passed before it is the one: some come with every message, some once a start. (The others need
 * more than a load: fault_database.c, test_damage.c.) */
static const struct {
	const char *name;
	unsigned at_most;
} points[] = {{"written", 500}, {"appended", 500}, {"sending", 30}, {"committed", 30}, {"posted", 30}, {"releasing", 30},
	{"delivered", 500}, {"segment_made", 2}, {"segment_freed", 1}, {"recovering", 1}, {"recovered", 1}, {"settling", 2},
	{"refused", 3}};

static const char *begin_crash(struct stage *stage)
{
	sql(&stage->fixture->postgres,
		"CREATE FUNCTION public.refuse_poison() RETURNS trigger LANGUAGE plpgsql AS "
		"'BEGIN IF NEW.body LIKE ''~%%~" WORKLOAD_POISON "%%'' THEN RAISE check_violation; END IF; RETURN NEW; END'");
	sql(&stage->fixture->postgres,
		"CREATE TRIGGER poison BEFORE INSERT ON chat.messages FOR EACH ROW EXECUTE FUNCTION public.refuse_poison()");
	stage_use_plugin(stage, "CHAT_TEST_FAULTY_PLUGIN");
	stage_restart_broker(stage, NULL);
	return NULL;
}

/* Segments of 4 MiB are to be filled, and something is to be refused. */
static void shape_crash(const struct stage *stage, struct workload_options *options)
{
	(void)stage;
	options->body_max = 4000;
	options->poison = true;
}

static bool strike_crash(struct stage *stage, unsigned round)
{
	static char variable[64];
	struct broker *broker = &stage->fixture->broker;
	size_t which = round % (sizeof points / sizeof *points);
	int status;
	snprintf(variable, sizeof variable, "CHAT_CRASH_AT=%s:%u", points[which].name,
		(unsigned)(1 + stage_random(stage, points[which].at_most)));
	stage_wait_random_acks(stage, 300);
	stage_note(stage, points[which].name);
	broker_kill(broker);
	broker->environment[0] = variable;
	bool died = !broker_try_start(broker) || process_wait(&broker->process, now_ms() + allowed_ms(DIES_MS), &status);
	broker->environment[0] = NULL;
	if (!died) {
		printf("%s was not reached\n", variable);
		broker_kill(broker);
	}
	stage_note(stage, points[which].name);
	stage_start_broker(stage);
	return died;
}

static void end_crash(struct stage *stage)
{
	sql(&stage->fixture->postgres, "DROP FUNCTION public.refuse_poison CASCADE");
	stage_use_plugin(stage, "CHAT_TEST_PLUGIN");
	stage_restart_broker(stage, NULL);
}

/* --------------------------------------------------------------------------------------- SIGTERM, writers */

static bool strike_end(struct stage *stage, unsigned round)
{
	(void)round;
	stage_wait_random_acks(stage, stage->is_long ? 4000 : 600);
	stage_note(stage, "SIGTERM");
	int64_t since_ns = now_ns();
	broker_stop(&stage->fixture->broker);
	int64_t took_ms = (now_ns() - since_ns) / 1000000;
	stage_figure(stage, "exit_ms", took_ms);
	if (stage->is_long && took_ms >= EXIT_MS)
		stage_complain(stage, "the broker took %lld ms to end", (long long)took_ms);
	stage_start_broker(stage);
	return true;
}

static bool strike_writers(struct stage *stage, unsigned round)
{
	static const char *const writers[] = {"writers 1", "writers 7", "writers 2", "writers 16", "writers 3", "writers 32"};
	const char *options[] = {writers[round % (sizeof writers / sizeof *writers)], NULL};
	stage_wait_random_acks(stage, stage->is_long ? 4000 : 600);
	stage_note(stage, options[0]);
	broker_kill(&stage->fixture->broker);
	stage_restart_broker(stage, options);
	return true;
}

static void end_usual_options(struct stage *stage)
{
	stage_restart_broker(stage, NULL);
}

/* ------------------------------------------------------------------------------------------------- SIGHUP */

static bool strike_reload(struct stage *stage, unsigned round)
{
	unsigned times = stage->is_long ? 100 : 10;
	int before = broker_log_count(&stage->fixture->broker, "reloaded");
	(void)round;
	stage_note(stage, "SIGHUP");
	for (unsigned i = 0; i < times; i++) {
		broker_signal(&stage->fixture->broker, SIGHUP);
		poll(NULL, 0, 100); /* the fault itself: one every 100 ms */
	}
	stage_wait_acks(stage, 100);
	return broker_log_count(&stage->fixture->broker, "reloaded") > before;
}

/* --------------------------------------------------------------------------------------------- wall clock */

#define FAKETIME "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
static char clock_path[PATH_SIZE];

/* Put in its place whole: the broker reads it whenever it asks for the time. */
static void set_clock(const struct stage *stage, const char *offset)
{
	char fresh[PATH_SIZE + 8];
	check(snprintf(fresh, sizeof fresh, "%s.new", clock_path) < (int)sizeof fresh);
	file_write(fresh, offset, 0644, &stage->fixture->broker.account);
	check(rename(fresh, clock_path) == 0);
}

static const char *begin_clock(struct stage *stage)
{
	static char file[PATH_SIZE + 32];
	struct broker *broker = &stage->fixture->broker;
	const char *preload = getenv("CHAT_TEST_PRELOAD");
	if (access(FAKETIME, R_OK))
		return "there is no " FAKETIME " (package faketime)";
	if (preload && *preload)
		return "a sanitizer's library must come first";
	check(snprintf(clock_path, sizeof clock_path, "%s/clock", broker->directory) < (int)sizeof clock_path);
	check(snprintf(file, sizeof file, "FAKETIME_TIMESTAMP_FILE=%s", clock_path) < (int)sizeof file);
	set_clock(stage, "+0");
	broker->environment[0] = "LD_PRELOAD=" FAKETIME;
	broker->environment[1] = file;
	broker->environment[2] = "FAKETIME_NO_CACHE=1";
	broker->environment[3] = "FAKETIME_DONT_FAKE_MONOTONIC=1";
	stage_restart_broker(stage, NULL);
	stage->clock_moves = true;
	return NULL;
}

static bool strike_clock(struct stage *stage, unsigned round)
{
	static const char *const offsets[] = {"+3600", "-3600", "+0"};
	(void)round;
	for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
		stage_wait_random_acks(stage, stage->is_long ? 2000 : 200);
		stage_note(stage, offsets[i]);
		set_clock(stage, offsets[i]);
		stage_wait_acks(stage, 100);
	}
	sql_wait(&stage->fixture->postgres, 2,
		"SELECT count(DISTINCT sign(date_part('epoch', sent_at - committed_at))) FROM chat.messages "
		"WHERE abs(date_part('epoch', sent_at - committed_at)) > 1800");
	return true;
}

static void end_clock(struct stage *stage)
{
	stage->clock_moves = false;
	memset(stage->fixture->broker.environment, 0, sizeof stage->fixture->broker.environment);
	stage_restart_broker(stage, NULL);
}

const struct fault broker_faults[] = {
	{"kill_broker", "kill -9 of the broker", false, 10, NULL, NULL, strike_kill, NULL},
	{"crash_point", "the broker dies at a named point of the code", false, 13, begin_crash, shape_crash, strike_crash,
		end_crash},
	{"sigterm", "SIGTERM to the broker", false, 5, NULL, NULL, strike_end, NULL},
	{"writers", "kill -9 of the broker, which comes back with another number of writers", false, 6, NULL, NULL,
		strike_writers, end_usual_options},
	{"sighup", "SIGHUP every 100 ms", true, 1, NULL, NULL, strike_reload, NULL},
	{"clock", "the broker's wall clock jumps an hour ahead, and two back", true, 2, begin_clock, NULL, strike_clock,
		end_clock},
	{.name = NULL},
};
