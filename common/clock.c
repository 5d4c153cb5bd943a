/* clock.c - the only place that reads a clock, so that everything else can be given the time. Any thread; no state. */
#include "clock.h"

static int64_t read_clock_ns(clockid_t id)
{
	struct timespec now = {0};

	(void)clock_gettime(id, &now); /* fails only for an unknown id or a bad pointer */
	return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t clock_wall_ms(void)
{
	return read_clock_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_monotonic_ms(void)
{
	return read_clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_monotonic_ns(void)
{
	return read_clock_ns(CLOCK_MONOTONIC);
}

struct timespec clock_timespec(int64_t monotonic_ns)
{
	return (struct timespec){.tv_sec = monotonic_ns / 1000000000, .tv_nsec = monotonic_ns % 1000000000};
}

struct timespec clock_deadline(int64_t timeout_ms)
{
	return clock_timespec(clock_monotonic_ns() + timeout_ms * 1000000);
}
