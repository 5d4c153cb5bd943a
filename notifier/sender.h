/* sender.h - the notifier's work: looks for news, claims what is due, hands it to the push services, settles what they said.
 *
 *   database --find--> queue --claim--> job --http--> answer --settle--> queue
 *
 * Two connections: one looks at the log (which may take long after an outage), the other claims and settles. Everything happens
 * in the loop's callbacks and in sender_tick(). How much is claimed is what can be written at once (lane.h), so that what was
 * read meanwhile is not sent: a push that could not be written STALE_MS after its claim began goes back.
 */
#ifndef CHAT_NOTIFIER_SENDER_H
#define CHAT_NOTIFIER_SENDER_H

#include "config.h"
#include "loop.h"

struct sender;

/* Takes the configuration over. dry_run: says on stdout what it would send, and settles that as accepted. NULL: no memory. */
struct sender *sender_new(struct loop *loop, struct config *config, bool dry_run);
/* What is under way is broken off; its leases run out. */
void sender_free(struct sender *sender);

/* Another configuration, taken over: what is under way ends under the old one. The database stays the one it was. */
void sender_reload(struct sender *sender, struct config *config);

/* Begins whatever can be begun. Returns when it wants to be called again at the latest (monotonic ms). */
int64_t sender_tick(struct sender *sender, int64_t now_ms);

/* Claims no more. */
void sender_stop(struct sender *sender);
/* Gives what is under way back to the queue. */
void sender_abandon(struct sender *sender);
/* Nothing is under way, and all that ended is settled. */
bool sender_is_done(const struct sender *sender);
/* Since it was looked at last, neither the log nor the queue had anything left that is due. */
bool sender_is_idle(const struct sender *sender);

/* Both connections are up. */
bool sender_is_healthy(const struct sender *sender);
/* For metrics. */
void sender_measure(struct sender *sender);

#endif
