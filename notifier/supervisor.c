/* supervisor.c - see supervisor.h. */
#include "supervisor.h"

#include "text.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void supervisor_tell(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = path ? strlen(path) : 0;

	if (length == 0 || length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@')) {
		return;
	}
	memcpy(address.sun_path, path, length);
	if (path[0] == '@') {
		address.sun_path[0] = '\0'; /* the abstract namespace */
	}
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
			(const struct sockaddr *)(const void *)&address,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
		(void)close(fd);
	}
}

int64_t supervisor_watchdog_ms(void)
{
	const char *text = getenv("WATCHDOG_USEC");
	int64_t us = 0;
	return text && text_parse_integer(text, strlen(text), 2000, INT64_C(1) << 50, &us) ? us / 2000 : 0;
}
