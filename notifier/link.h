/* link.h - a connection to the database that lives in the loop: one call at a time, connected again by itself.
 *
 * A lost connection is logged once, and once when it is back. A call that ends with it has an unknown fate; the caller asks again
 * or lets the lease run out.
 */
#ifndef CHAT_NOTIFIER_LINK_H
#define CHAT_NOTIFIER_LINK_H

#include "database.h"
#include "loop.h"

enum link_statement { LINK_VERSION, LINK_FIND, LINK_CHECK, LINK_CLAIM, LINK_SETTLE, LINK_QUEUE, LINK_STATEMENTS };

#define LINK_SCHEMA_VERSION 10 /* the oldest schema that has all of it */

struct link;

/* status: OK, REFUSED or LOST. The result is the link's; NULL unless OK. */
typedef void (*link_done)(void *owner, enum database_status status, const struct database_result *result);

/* Nothing is connected yet; link_tick does that. NULL: no memory. */
struct link *link_new(struct loop *loop, const char *conninfo, const char *name);
void link_free(struct link *link);

/* Whether a call can be made now. */
bool link_is_idle(const struct link *link);
/* Connected and with the right schema, whatever it does at the moment. */
bool link_is_up(const struct link *link);
/* Only while idle. `done` is called later, exactly once, never from within. */
void link_call(struct link *link, enum link_statement statement, const struct database_parameters *parameters, link_done done,
	void *owner);

/* Deadlines and reconnects. */
void link_tick(struct link *link, int64_t now_ms);
int64_t link_deadline_ms(const struct link *link);

#endif
