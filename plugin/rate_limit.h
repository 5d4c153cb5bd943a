/* rate_limit.h - a token bucket. Pure: the time is an argument, the bucket 16 bytes that its owner keeps. */
#ifndef CHAT_PLUGIN_RATE_LIMIT_H
#define CHAT_PLUGIN_RATE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct rate_limit {
	uint32_t per_minute; /* 0: off */
	uint32_t burst;
};

/* All zero is a full bucket. */
struct rate_bucket {
	int64_t updated_ms; /* monotonic; 0: never used */
	int64_t spent;      /* sixty-thousandths of a token, so that nothing is rounded; 0 is full, burst * 60000 is empty */
};

/* Takes one token. False: none left, *retry_after_ms (may be NULL) says when the next one is there. A burst of 0 counts as 1. */
bool rate_bucket_take(struct rate_bucket *bucket, const struct rate_limit *limit, int64_t now_ms, int64_t *retry_after_ms);
/* Takes `count` tokens or none. More than the bucket holds can never be there at once: then all of them are asked for. */
bool rate_bucket_take_many(
	struct rate_bucket *bucket, const struct rate_limit *limit, uint32_t count, int64_t now_ms, int64_t *retry_after_ms);
/* Puts back a token that was taken and turned out not to be owed. */
void rate_bucket_give_back(struct rate_bucket *bucket);
/* Whether the bucket has filled up again, so that forgetting it forgets nothing. */
bool rate_bucket_is_full(const struct rate_bucket *bucket, const struct rate_limit *limit, int64_t now_ms);

#endif
