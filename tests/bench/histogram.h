/* histogram.h - latencies in logarithmic buckets, in the manner of HdrHistogram.
 *
 * Each power of two is cut into 64 equal buckets, so a value read back is at most 1.6 % too high, from nanoseconds to
 * days, in a fixed 30 KiB. Recording is an increment: it may stand in the hot path. Not thread safe.
 */
#ifndef CHAT_BENCH_HISTOGRAM_H
#define CHAT_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t count;
	uint64_t max_ns;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_record(struct histogram *histogram, uint64_t value_ns);

/* The value below or at which `percent` of the records lie (the upper edge of its bucket, never above the maximum);
 * 0 where nothing was recorded. */
uint64_t histogram_percentile_ns(const struct histogram *histogram, double percent);

#endif
