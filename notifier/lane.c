/* lane.c - see lane.h. */
#include "lane.h"

#define TOKEN 1000
#define FAILURES_MAX 20 /* in a row; a single lost connection takes a window of pushes with it */
#define OPEN_MS 5000    /* the first time; doubled up to OPEN_MAX_MS */
#define OPEN_MAX_MS 60000
#define BACKOFF_MS 1000
#define BACKOFF_MAX_MS 600000

void lane_init(struct lane *lane, const struct lane_limits *limits, int64_t now_ms)
{
	*lane = (struct lane){.limits = *limits, .window = 1, .tokens = (int64_t)limits->burst * TOKEN, .refilled_ms = now_ms};
}

static void refill(struct lane *lane, int64_t now_ms)
{
	int64_t elapsed_ms = now_ms - lane->refilled_ms;
	int64_t full = (int64_t)lane->limits.burst * TOKEN;

	if (elapsed_ms > 0) {
		elapsed_ms = elapsed_ms > 3600000 ? 3600000 : elapsed_ms;
		lane->tokens += elapsed_ms * (int64_t)lane->limits.rate; /* a token a second is a thousandth a millisecond */
		lane->tokens = lane->tokens > full ? full : lane->tokens;
		lane->refilled_ms = now_ms;
	}
}

unsigned lane_room(struct lane *lane, int64_t now_ms)
{
	if (now_ms < lane->until_ms) {
		return 0;
	}
	if (lane->state == LANE_OPEN) {
		lane->state = LANE_PROBING;
	}
	unsigned window = lane->state == LANE_PROBING ? 1 : lane->window;
	unsigned room = lane->in_flight < window ? window - lane->in_flight : 0;
	if (lane->limits.rate > 0) {
		refill(lane, now_ms);
		int64_t tokens = lane->tokens / TOKEN;
		room = tokens < (int64_t)room ? (unsigned)(tokens > 0 ? tokens : 0) : room;
	}
	return room;
}

void lane_begin(struct lane *lane, unsigned count)
{
	lane->in_flight += count;
	lane->tokens -= lane->limits.rate > 0 ? (int64_t)count * TOKEN : 0;
}

static void open_breaker(struct lane *lane, int64_t now_ms, uint32_t random)
{
	int64_t open_ms = lane->openings < 8 ? (int64_t)OPEN_MS << lane->openings : OPEN_MAX_MS;
	open_ms = open_ms > OPEN_MAX_MS ? OPEN_MAX_MS : open_ms;
	lane->state = LANE_OPEN;
	lane->openings++;
	lane->failures = 0;
	lane->window = 1;
	lane->until_ms = now_ms + open_ms + (int64_t)(random % 1000);
}

bool lane_end(struct lane *lane, enum lane_event event, int64_t delay_ms, int64_t now_ms, uint32_t random)
{
	enum lane_state before = lane->state;

	lane->in_flight -= lane->in_flight > 0 ? 1 : 0;
	switch (event) {
	case LANE_ACCEPTED:
		lane->state = LANE_CLOSED;
		lane->openings = 0;
		lane->failures = 0;
		lane->window += lane->window < lane->limits.in_flight ? 1 : 0;
		break;
	case LANE_ANSWERED:
		lane->failures = 0;
		break;
	case LANE_FAILED:
		lane->failures++;
		if (lane->state == LANE_PROBING || (lane->state == LANE_CLOSED && lane->failures >= FAILURES_MAX)) {
			open_breaker(lane, now_ms, random);
		}
		break;
	case LANE_SLOW:
		delay_ms = delay_ms > 0 ? delay_ms : OPEN_MS;
		lane->until_ms =
			now_ms + delay_ms > lane->until_ms ? now_ms + delay_ms + (int64_t)(random % 1000) : lane->until_ms;
		lane->window = 1;
		break;
	case LANE_PAUSE:
		if (lane->state != LANE_OPEN) {
			open_breaker(lane, now_ms, random);
		}
		break;
	case LANE_NOTHING:
		break;
	}
	return (before == LANE_CLOSED) != (lane->state == LANE_CLOSED);
}

int64_t lane_backoff_ms(int32_t attempt, uint32_t random)
{
	int64_t full_ms = attempt > 10 ? BACKOFF_MAX_MS : (int64_t)BACKOFF_MS << (attempt > 1 ? attempt - 1 : 0);
	full_ms = full_ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : full_ms;
	return full_ms / 2 + (int64_t)random % (full_ms / 2 + 1);
}
