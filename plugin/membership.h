/* membership.h - the service that keeps what sessions may read current: loads, announcements, subscriptions. Broker thread.
 *
 * What the loader brings is applied to the registry here, in the order in which it was read from the database; a
 * conversation whose state has changed is queued, and the fan-out looks at it at the next tick.
 */
#ifndef CHAT_PLUGIN_MEMBERSHIP_H
#define CHAT_PLUGIN_MEMBERSHIP_H

#include "chat.h"

/* Applies all that has been loaded since. */
void membership_apply(struct chat *chat);
/* Waits for a provisional session's memberships within the budget of 50 ms in any second over all clients, and not at
 * all while the database is known to be down, or a crowd signs in. True: they are there. */
bool membership_wait(struct chat *chat, const struct session *session);
/* A granted SUBSCRIBE. False: no memory, or more subscriptions than one connection may hold. */
__attribute__((warn_unused_result)) bool membership_subscribe(
	struct chat *chat, struct session *session, const struct topic *topic);
/* Asks for a conversation's facts and the roles of all who listen to it here. */
void membership_reload(struct chat *chat, struct conversation *conversation);

#endif
