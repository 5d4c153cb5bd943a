/* status.h - /metrics (Prometheus) and /health over HTTP (libmicrohttpd), in the loop. The only door to libmicrohttpd. */
#ifndef CHAT_NOTIFIER_STATUS_H
#define CHAT_NOTIFIER_STATUS_H

#include "buffer.h"
#include "loop.h"

struct status;

/* Called for each question: brings the numbers up to date; returns whether all is well. */
typedef bool (*status_look)(void *owner);

/* Port 0: any; status_port says which. NULL: a line for a person in error. */
struct status *status_new(
	struct loop *loop, const char *address, int port, status_look look, void *owner, char *error, size_t error_size);
void status_free(struct status *status);
int status_port(const struct status *status);
/* libmicrohttpd's own time-outs. */
void status_tick(struct status *status);

#endif
