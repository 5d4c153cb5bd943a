/* lane.h - how fast an app may send: a token bucket, a window that opens slowly, and a breaker. Pure; times are arguments
 * (monotonic ms).
 *
 *   CLOSED --pause, or failures in a row--> OPEN --its time is over--> PROBING --accepted--> CLOSED
 *                                            ^----------failed---------------'
 *
 * Open, nothing is sent; probing, one push at a time is. So a broken provider costs its own app a push a minute and the others
 * nothing. The window begins at one: Apple grants a single stream until a first push went through, and Google asks for a ramp.
 */
#ifndef CHAT_NOTIFIER_LANE_H
#define CHAT_NOTIFIER_LANE_H

#include <stdbool.h>
#include <stdint.h>

enum lane_state { LANE_CLOSED, LANE_OPEN, LANE_PROBING };

/* What the end of a push says about the service. */
enum lane_event {
	LANE_ACCEPTED,
	LANE_ANSWERED, /* no, but about this push alone */
	LANE_FAILED,   /* no answer, or a server's error */
	LANE_SLOW,     /* too fast: nothing for delay_ms */
	LANE_PAUSE,    /* nothing will be accepted until somebody acts */
	LANE_NOTHING   /* it was not sent */
};

struct lane_limits {
	unsigned rate; /* pushes a second; 0: as many as go */
	unsigned burst;
	unsigned in_flight; /* the widest window */
};

struct lane {
	struct lane_limits limits;
	enum lane_state state;
	unsigned window;
	unsigned in_flight;
	unsigned failures; /* in a row: no answer, or a server's error */
	unsigned openings; /* in a row, without an acceptance between */
	int64_t until_ms;  /* OPEN: until then; otherwise, nothing is sent before (throttled) */
	int64_t tokens;    /* thousandths */
	int64_t refilled_ms;
};

void lane_init(struct lane *lane, const struct lane_limits *limits, int64_t now_ms);

/* How many pushes may be begun now. */
unsigned lane_room(struct lane *lane, int64_t now_ms);
/* So many were begun. */
void lane_begin(struct lane *lane, unsigned count);
/* One ended. Returns true where that opened or closed the breaker: a line for the log. */
bool lane_end(struct lane *lane, enum lane_event event, int64_t delay_ms, int64_t now_ms, uint32_t random);

/* When to try a push again after its n-th failure (from 1): doubled from 1 s up to 10 minutes, of which a random half, so that
 * what failed together does not come back together. */
int64_t lane_backoff_ms(int32_t attempt, uint32_t random);

#endif
