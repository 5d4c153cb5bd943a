/* settlements.h - what became of claimed pushes, on its way back to the database: a queue, handed over in lots. One thread.
 *
 * A lot stays at the head of the queue until the database has said something about it, so that it can be asked again.
 */
#ifndef CHAT_NOTIFIER_SETTLEMENTS_H
#define CHAT_NOTIFIER_SETTLEMENTS_H

#include "database.h"

#define SETTLEMENTS_ARRAYS 9

struct settlement {
	struct settlement *next; /* the queue's */
	int64_t device_id, conversation_id, lease;
	int64_t seq; /* up to which the device was told; 0 for a silent push */
	int64_t delay_ms, target_us, gone_ms;
	const char *outcome; /* static; chat.settle_pushes lists them */
	const char *error;   /* static, or NULL */
};

struct settlements {
	struct settlement *first, **last;
	size_t lot; /* so many of the first are with the database */
	struct database_array arrays[SETTLEMENTS_ARRAYS];
	struct database_parameters parameters;
};

void settlements_init(struct settlements *settlements);
void settlements_free(struct settlements *settlements);

bool settlements_are_done(const struct settlements *settlements);
/* Without memory it is dropped, and the push's lease runs out. */
void settlements_add(struct settlements *settlements, const struct settlement *settlement);
/* The next lot, as parameters of LINK_SETTLE: good until settlements_end. */
const struct database_parameters *settlements_begin(struct settlements *settlements);
/* Lost: the lot comes again, with the same leases, so that what was done already is not done twice. Anything else: it is over,
 * since what was refused will be refused again. */
void settlements_end(struct settlements *settlements, enum database_status status);

#endif
