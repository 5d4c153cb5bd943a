/* threads.h - for tests of what threads hand to one another: waiting for a condition, with a deadline and without a sleep.
 *
 * Include it after cmocka.h.
 */
#ifndef CHAT_TESTS_THREADS_H
#define CHAT_TESTS_THREADS_H

#include "../../common/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define THREADS_DEADLINE_MS 20000 /* an eternity: only a fault comes near it */

/* wait_until(condition): fails the test where it does not come true. The processor is given away meanwhile. */
#define wait_until(condition)                                                                                                    \
	do {                                                                                                                     \
		int64_t give_up_ms = clock_monotonic_ms() + THREADS_DEADLINE_MS;                                                 \
		while (!(condition)) {                                                                                           \
			if (clock_monotonic_ms() > give_up_ms) {                                                                 \
				fail_msg("waited in vain for %s", #condition);                                                   \
			}                                                                                                        \
			sched_yield();                                                                                           \
		}                                                                                                                \
	} while (0)

/* Whether a thread of this process is blocked in the kernel (proc(5), the field behind the name in stat). A thread that
 * has ended is not. `thread`: its gettid(), 0 while it has not said it yet. */
static inline bool thread_is_asleep(pid_t thread)
{
	char path[64], line[256] = "";
	int length = snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)thread);
	FILE *file = length > 0 && (size_t)length < sizeof(path) ? fopen(path, "re") : NULL;
	if (!file) {
		return false;
	}
	const char *read = fgets(line, sizeof(line), file);
	fclose(file);
	const char *name_end = read ? strrchr(line, ')') : NULL;
	return name_end && name_end[1] == ' ' && name_end[2] == 'S';
}

#endif
