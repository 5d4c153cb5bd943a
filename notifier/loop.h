/* loop.h - the one place where the notifier waits: descriptors and what is to be called when they are ready (epoll).
 *
 * Everything in this process happens in callbacks of the loop, on its one thread. A callback may change or remove any source,
 * its own included. Who needs time keeps a deadline of its own, which main.c asks for before each wait.
 */
#ifndef CHAT_NOTIFIER_LOOP_H
#define CHAT_NOTIFIER_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

/* Embedded in whatever it belongs to; zeroed before the first use. Errors and hang-ups are reported as both. */
struct loop_source {
	void (*ready)(struct loop_source *source, int events);
	int fd;
	int events; /* what is watched now; 0: not in the loop */
};

/* NULL: no descriptor or no memory. */
struct loop *loop_new(void);
void loop_free(struct loop *loop);

/* Watches source->fd for `events`; 0 takes it out (before the descriptor is closed). False: the kernel would not. */
bool loop_watch(struct loop *loop, struct loop_source *source, int events);

/* Waits at most timeout_ms (0: only looks) and calls what is ready. */
void loop_wait(struct loop *loop, int64_t timeout_ms);

#endif
