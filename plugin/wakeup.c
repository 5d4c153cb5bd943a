/* wakeup.c - see wakeup.h. */
#include "wakeup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static int event_fd = -1;
static int epoll_fd = -1;
static _Atomic bool pending;

/* The broker takes data.ptr of an event for one of its own objects and looks at their first member, an enumeration in
 * which 0 is no kind of object, and then does nothing (mosquitto src/mux_epoll.c, mux_epoll__handle: "ident"). */
static uint64_t nobody[64];

bool wakeup_open(void)
{
	atomic_store(&pending, false);
	event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return event_fd >= 0;
}

void wakeup_close(void)
{
	if (event_fd >= 0) {
		if (epoll_fd >= 0) {
			epoll_ctl(epoll_fd, EPOLL_CTL_DEL, event_fd, NULL); /* fails where the broker has closed its set: fine */
		}
		close(event_fd);
	}
	event_fd = epoll_fd = -1;
}

static bool is_listening_socket(int fd)
{
	int listening = 0;
	socklen_t size = sizeof(listening);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

/* The kernel lists what an epoll set watches as lines "tfd: FD events: ..." (proc(5), fdinfo). */
static bool watches_listening_socket(const char *fd_name)
{
	char path[64];
	char line[256];
	bool found = false;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%.16s", fd_name);
	FILE *file = fopen(path, "re");
	if (!file) {
		return false;
	}
	while (!found && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "tfd:", 4) == 0) {
			found = is_listening_socket((int)strtol(line + 4, NULL, 10));
		}
	}
	fclose(file);
	return found;
}

bool wakeup_attach(void)
{
	DIR *directory = opendir("/proc/self/fdinfo");
	const struct dirent *entry;
	if (!directory) {
		return false;
	}
	while ((entry = readdir(directory)) != NULL) {
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || !watches_listening_socket(entry->d_name)) {
			continue;
		}
		struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = nobody};
		int fd = (int)strtol(entry->d_name, NULL, 10);
		if (epoll_ctl(fd, EPOLL_CTL_ADD, event_fd, &event) == 0) {
			epoll_fd = fd;
			break;
		}
	}
	closedir(directory);
	return epoll_fd >= 0;
}

void wakeup_signal(void)
{
	static const uint64_t one = 1;
	if (!atomic_exchange(&pending, true)) {
		ssize_t written = write(event_fd, &one, sizeof(one));
		(void)written; /* EAGAIN only at a counter of 2^64-2: the edge has been given long before */
	}
}

void wakeup_begin_tick(void)
{
	atomic_store(&pending, false);
}
