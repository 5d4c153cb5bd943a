/* clock.h - the only place that reads a clock. Any thread. */
#ifndef CHAT_COMMON_CLOCK_H
#define CHAT_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds since the Unix epoch, UTC. May jump; never used for order or for time-outs. */
int64_t clock_wall_ms(void);
/* Monotonic; the origin means nothing. */
int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_ns(void);
/* For waits on CLOCK_MONOTONIC: that time, and the one that is timeout_ms from now. */
struct timespec clock_timespec(int64_t monotonic_ns);
struct timespec clock_deadline(int64_t timeout_ms);

#endif
