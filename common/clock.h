/* clock.h - the only place that reads a clock. Any thread. */
#ifndef CHAT_COMMON_CLOCK_H
#define CHAT_COMMON_CLOCK_H

#include <stdint.h>

/* Milliseconds since the Unix epoch, UTC. May jump; never used for order or for time-outs. */
int64_t clock_wall_ms(void);
/* Monotonic; the origin means nothing. */
int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_ns(void);

#endif
