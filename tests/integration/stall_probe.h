/* stall_probe.h - how long the broker stands still: a process that sends a PINGREQ every 20 ms on a connection with nothing else
 * on it.
 *
 * A process of its own, so that the test's own work does not look like the broker's.
 */
#ifndef CHAT_TESTS_STALL_PROBE_H
#define CHAT_TESTS_STALL_PROBE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct probe {
	pid_t pid;
	int stop;   /* closing it ends the probe */
	int report; /* where it then writes what it saw */
};

struct probe_report {
	int64_t longest_us;
	int64_t longest_own_us; /* without what the two processes waited for a processor that others had */
	int64_t answers;
	bool lost; /* the connection ended */
};

/* Signs in as "probe" with the token, to the broker with that pid, and begins. */
void probe_start(struct probe *probe, int port, pid_t broker, const char *token);
struct probe_report probe_end(struct probe *probe);

#endif
