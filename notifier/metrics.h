/* metrics.h - what is counted, by app; printed for Prometheus (text format 0.0.4). One thread.
 *
 * To add a counter: a value in the enum and a row in metrics.c; docs/notifier.md is checked against it.
 */
#ifndef CHAT_NOTIFIER_METRICS_H
#define CHAT_NOTIFIER_METRICS_H

#include "buffer.h"

#include <stdint.h>

enum metrics_counter {
	METRICS_ACCEPTED,  /* by the push service; no word about the device */
	METRICS_RETRIED,   /* will be tried again */
	METRICS_CANCELLED, /* read or delivered before it was sent */
	METRICS_EXPIRED,
	METRICS_FORGOTTEN, /* dead targets removed */
	METRICS_DEAD,      /* given up */
	METRICS_STALE,     /* not sent in time after the last look at the database: claimed again */
	METRICS_REFRESHES, /* credentials made or fetched */
	METRICS_COUNTERS
};

enum metrics_gauge {
	METRICS_IN_FLIGHT,
	METRICS_WINDOW,
	METRICS_BREAKER, /* 0 closed, 1 open, 2 probing */
	METRICS_PAUSED,  /* of Web Push's services */
	METRICS_QUEUED,
	METRICS_OLDEST_MS,
	METRICS_DEAD_ROWS,
	METRICS_CONNECTIONS, /* made since the start */
	METRICS_GAUGES
};

struct metrics_app;

/* The counters of an app, made at its first mention and kept until the end: a reload does not begin anew. NULL: no memory. */
struct metrics_app *metrics_app(const char *name);
void metrics_count(struct metrics_app *app, enum metrics_counter counter, uint64_t more);
/* No to a push, by the service's word (static). */
void metrics_refused(struct metrics_app *app, const char *reason);
void metrics_gauge(struct metrics_app *app, enum metrics_gauge gauge, int64_t value);
/* From the message's commit to the service's acceptance. */
void metrics_latency(struct metrics_app *app, int64_t ms);

/* Of the whole process. */
void metrics_found(uint64_t messages, uint64_t pushes, int64_t behind_ms);
void metrics_database(int up);
void metrics_print(struct buffer *out);
void metrics_free(void);

#endif
