/* mqtt_load.c - a load generator for MQTT brokers: publishes, receives, checks, measures.
 *
 * One thread, one epoll, no MQTT library: what it costs is printed with the result, so that anyone can see that it was not the
 * generator that was measured. tests/bench/run.sh drives it; docs/performance.md says how to read what it prints.
 *
 *   settings   the command line             connection  a client's socket, buffers, sign-in
 *   load       phases of a run              wire        MQTT packets
 *   publisher  sends                        websocket   frames
 *   receiver   checks                       stream      loss, duplicates, order
 *   report     prints                       histogram   latencies
 *   probe      PINGREQ round trips          usage       CPU and memory of broker and database
 *   storm      many sessions at once
 *   marks      acknowledges what receivers get, counts receipts
 *   requests   questions and answers
 *
 * Exit status: 0 all well, 1 something was lost, doubled or out of order, 2 the run could not be made.
 */
#define _GNU_SOURCE
#include "load.h"
#include "probe.h"
#include "requests.h"
#include "storm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	static struct load load;
	struct settings settings;
	int status = 2;
	if (!settings_read(&settings, argc, argv))
		return argc >= 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	raise_descriptor_limit();
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1UL); /* 1 ns: an open loop keeps its schedule to microseconds, not to the usual 50 */
	if (settings.mode == SETTINGS_PROBE)
		return probe_run(&settings) ? 0 : 2;
	if (settings.mode == SETTINGS_REQUESTS)
		return requests_run(&settings);
	if (settings.mode == SETTINGS_STORM)
		return storm_run(&settings);
	if (load_run(&load, &settings))
		status = report_print(&load) ? 0 : 1;
	else
		fprintf(stderr, "mqtt_load: the run could not be made\n");
	load_release(&load);
	return status;
}
