/* usage.h - CPU time of other processes, from /proc, so that it covers exactly the measured part of a run.
 *
 * The kernel counts in ticks of 10 ms: differences over several seconds are good to a percent. A child that ends between
 * two readings takes its time along.
 */
#ifndef CHAT_BENCH_USAGE_H
#define CHAT_BENCH_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct usage {
	double process_s;     /* all threads of the process */
	double main_thread_s; /* of these, the first thread */
	double children_s;    /* all threads of its direct children that live */
};

/* False where there is no such process. */
bool usage_read(pid_t pid, struct usage *usage);
/* Bytes of its memory that are resident; 0 where there is no such process. */
uint64_t usage_resident_bytes(pid_t pid);

#endif
