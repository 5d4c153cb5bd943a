/* loop.c - see loop.h. */
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 64

struct loop {
	int epoll_fd;
	int ready; /* events of the batch at hand */
	struct epoll_event batch[BATCH];
};

struct loop *loop_new(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (loop) {
		loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		if (loop->epoll_fd < 0) {
			free(loop);
			return NULL;
		}
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (loop) {
		(void)close(loop->epoll_fd);
		free(loop);
	}
}

bool loop_watch(struct loop *loop, struct loop_source *source, int events)
{
	struct epoll_event event = {.data.ptr = source};
	int operation = source->events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

	if (source->events == events) {
		return true;
	}
	event.events = ((events & LOOP_READ) ? EPOLLIN : 0U) | ((events & LOOP_WRITE) ? EPOLLOUT : 0U);
	source->events = events;
	if (events == 0) {
		/* It may be freed right after this: nothing of it may come up later in the batch at hand. */
		for (int i = 0; i < loop->ready; i++) {
			if (loop->batch[i].data.ptr == source) {
				loop->batch[i].data.ptr = NULL;
			}
		}
	}
	int done = epoll_ctl(loop->epoll_fd, operation, source->fd, &event);
	if (done != 0 && operation == EPOLL_CTL_MOD && errno == ENOENT) {
		/* A library closed the descriptor and got the same number again: the kernel had forgotten the old one. */
		done = epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event);
	}
	return done == 0;
}

void loop_wait(struct loop *loop, int64_t timeout_ms)
{
	int wait_ms = timeout_ms < 0 ? 0 : timeout_ms > 60000 ? 60000 : (int)timeout_ms;

	loop->ready = epoll_wait(loop->epoll_fd, loop->batch, BATCH, wait_ms);
	for (int i = 0; i < loop->ready; i++) {
		struct loop_source *source = loop->batch[i].data.ptr;
		uint32_t got = loop->batch[i].events;
		if (source) {
			bool broken = (got & (EPOLLERR | EPOLLHUP)) != 0;
			source->ready(source,
				((got & EPOLLIN) || broken ? LOOP_READ : 0) | ((got & EPOLLOUT) || broken ? LOOP_WRITE : 0));
		}
	}
	loop->ready = 0;
}
