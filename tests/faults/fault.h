/* fault.h - the faults: what each does to a system under load. To add one: a row in a table of one of the fault_*.c.
 *
 * A fault strikes once a round. What it promises beside the judge's rules, it checks itself (stage_complain), times only in the
 * long form. Whatever it changes about the system, it puts back in `end`.
 */
#ifndef CHAT_TESTS_FAULT_H
#define CHAT_TESTS_FAULT_H

#include "stage.h"

struct fault {
	const char *name;
	const char *what;
	bool keeps_clients;   /* disconnects nobody, so the load has only clients that stay, and counts them */
	unsigned judge_every; /* rounds to one load in the long form; the judge looks at its end */
	/* Before the load. A text says why it cannot be staged here. NULL: nothing to do. */
	const char *(*begin)(struct stage *stage);
	void (*shape)(const struct stage *stage, struct workload_options *options); /* NULL: the usual load */
	/* False: the fault did not land, and the round says nothing. */
	bool (*strike)(struct stage *stage, unsigned round);
	void (*end)(struct stage *stage); /* NULL: nothing to put back */
};

extern const struct fault broker_faults[], database_faults[], spool_faults[]; /* a row without a name ends each */

#endif
