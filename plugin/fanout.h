/* fanout.h - the service that hands to the broker what has been committed, in the order of each conversation. Broker thread.
 *
 * Called at every tick. For each conversation that somebody here listens to, entry after entry: what is next is
 * delivered, what is early waits, what is missing is fetched, what was committed under a newer list of members than
 * the one we hold waits for that list. Receipts are gathered and told at most once per interval.
 */
#ifndef CHAT_PLUGIN_FANOUT_H
#define CHAT_PLUGIN_FANOUT_H

#include "chat.h"

struct fanout *fanout_new(struct chat *chat);
void fanout_free(struct chat *chat);
/* Publishes for at most some milliseconds; what is left is taken up at the next tick, which then comes at once. */
void fanout_tick(struct chat *chat);
uint64_t fanout_published(const struct fanout *fanout);

#endif
