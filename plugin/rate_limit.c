/* rate_limit.c - a token bucket, counted in whole numbers.
 *
 * Pure; the time is an argument, the bucket its owner's. What was spent is counted in sixty-thousandths of a token:
 * a minute has 60,000 ms, so every millisecond gives back exactly `per_minute` of them. Nothing is ever rounded, and
 * asking often neither gains nor loses (with thousandths, 5 a minute asked every millisecond would never refill).
 */
#include "rate_limit.h"

#include <stddef.h>

#define TOKEN INT64_C(60000)

/* 12 days: the product with any per_minute stays below 2^62. A bucket that needs longer to fill up just needs another call. */
#define ELAPSED_MS_MAX (INT64_C(1) << 30)

static int64_t capacity_of(const struct rate_limit *limit)
{
	return (int64_t)(limit->burst > 0 ? limit->burst : 1) * TOKEN;
}

/* What is spent at now_ms. A clock that went backwards gives nothing back and takes nothing. */
static int64_t spent_at(const struct rate_bucket *bucket, const struct rate_limit *limit, int64_t now_ms)
{
	int64_t capacity = capacity_of(limit);
	/* A reload may have made the burst smaller: then the bucket is empty, not in debt. */
	int64_t spent = bucket->spent < capacity ? bucket->spent : capacity;
	int64_t elapsed_ms = now_ms > bucket->updated_ms ? now_ms - bucket->updated_ms : 0;
	int64_t refilled;

	if (elapsed_ms > ELAPSED_MS_MAX) {
		elapsed_ms = ELAPSED_MS_MAX;
	}
	refilled = elapsed_ms * (int64_t)limit->per_minute;
	return spent > refilled ? spent - refilled : 0;
}

bool rate_bucket_take_many(
	struct rate_bucket *bucket, const struct rate_limit *limit, uint32_t count, int64_t now_ms, int64_t *retry_after_ms)
{
	int64_t capacity = capacity_of(limit);
	int64_t wanted = (int64_t)count * TOKEN < capacity ? (int64_t)count * TOKEN : capacity;
	int64_t missing;

	if (retry_after_ms != NULL) {
		*retry_after_ms = 0;
	}
	if (limit->per_minute == 0) {
		return true;
	}
	bucket->spent = spent_at(bucket, limit, now_ms);
	if (now_ms > bucket->updated_ms) {
		bucket->updated_ms = now_ms;
	}
	missing = bucket->spent + wanted - capacity;
	if (missing > 0) {
		if (retry_after_ms != NULL) {
			*retry_after_ms = (missing + (int64_t)limit->per_minute - 1) / (int64_t)limit->per_minute;
		}
		return false;
	}
	bucket->spent += wanted;
	return true;
}

bool rate_bucket_take(struct rate_bucket *bucket, const struct rate_limit *limit, int64_t now_ms, int64_t *retry_after_ms)
{
	return rate_bucket_take_many(bucket, limit, 1, now_ms, retry_after_ms);
}

void rate_bucket_give_back(struct rate_bucket *bucket)
{
	bucket->spent = bucket->spent > TOKEN ? bucket->spent - TOKEN : 0;
}

bool rate_bucket_is_full(const struct rate_bucket *bucket, const struct rate_limit *limit, int64_t now_ms)
{
	return limit->per_minute == 0 || spent_at(bucket, limit, now_ms) == 0;
}
