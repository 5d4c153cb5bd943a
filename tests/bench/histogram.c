/* histogram.c - see histogram.h.
 *
 * A value v with its highest bit at position e >= 6 falls into bucket (e - 6 + 1) * 64 + the 6 bits below the highest; a
 * smaller one is its own bucket. So the buckets are contiguous and ordered.
 */
#include "histogram.h"

#define SUB_COUNT (UINT64_C(1) << HISTOGRAM_SUB_BITS)

static unsigned bucket_of(uint64_t value)
{
	if (value < SUB_COUNT)
		return (unsigned)value;
	unsigned shift = 63U - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
	return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned)((value >> shift) & (SUB_COUNT - 1));
}

static uint64_t upper_edge(unsigned bucket)
{
	if (bucket < SUB_COUNT)
		return bucket;
	unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
	uint64_t lower = (SUB_COUNT + (bucket & (SUB_COUNT - 1))) << shift;
	return lower + (UINT64_C(1) << shift) - 1;
}

void histogram_record(struct histogram *histogram, uint64_t value_ns)
{
	histogram->count++;
	if (value_ns > histogram->max_ns)
		histogram->max_ns = value_ns;
	histogram->buckets[bucket_of(value_ns)]++;
}

uint64_t histogram_percentile_ns(const struct histogram *histogram, double percent)
{
	uint64_t wanted = (uint64_t)((double)histogram->count * percent / 100.0 + 0.999999);
	uint64_t seen = 0;
	for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS && histogram->count > 0; bucket++) {
		seen += histogram->buckets[bucket];
		if (seen >= wanted && seen > 0) {
			uint64_t edge = upper_edge(bucket);
			return edge < histogram->max_ns ? edge : histogram->max_ns;
		}
	}
	return histogram->max_ns;
}
