/* stage.h - what a fault is done to: a whole system (tests/integration), a load on it (tests/history), and the judge's word.
 *
 *   stage_begin -> stage_load -> { the fault } ... -> stage_judge -> stage_end
 *
 * The main thread's. The load runs in threads of its own and goes on through whatever is done. Moments are chosen by the
 * count of PUBACKs and the seed, not by the clock, so that a round can be replayed.
 */
#ifndef CHAT_TESTS_STAGE_H
#define CHAT_TESTS_STAGE_H

#include "fixture.h"
#include "judge.h"
#include "workload.h"

#include <stdbool.h>
#include <stdint.h>

#define FIGURES_MAX 12

/* Something that was measured in each round. */
struct figure {
	const char *name; /* static, with its unit: "first_connack_ms" */
	int64_t worst;
	int64_t sum;
	unsigned count;
};

struct stage {
	struct fixture *fixture;
	struct workload *workload; /* NULL: no load */
	uint64_t random;
	uint64_t seed;      /* of the load under way */
	bool is_long;       /* the soak: faults as long as the promise says, and its figures are checked */
	bool keeps_clients; /* this fault disconnects nobody */
	bool clock_moves;   /* this fault moves the broker's wall clock */
	uint64_t connects;  /* of the load at its beginning */
	uint64_t flowed;    /* PUBACKs that were waited for, and how long that took */
	int64_t flowed_ns;
	struct figure figures[FIGURES_MAX];
	unsigned figure_count;
	char complaint[256]; /* the first promise beside the judge's that was broken; "": none */
};

/* The system runs. is_long: see above. */
void stage_begin(struct stage *stage, bool is_long);
void stage_end(struct stage *stage);

/* Below `below`. */
uint64_t stage_random(struct stage *stage, uint64_t below);

/* Stops the broker (or finds it dead), and starts it with other options of the plugin (fixture.h: fixture_configure). The
 * load follows. */
void stage_restart_broker(struct stage *stage, const char *const options[]);
void stage_use_plugin(struct stage *stage, const char *variable);

/* What a load is like where a fault does not say otherwise. */
struct workload_options stage_options(const struct stage *stage);
/* Starts the load and waits until it flows. */
void stage_load(struct stage *stage, const struct workload_options *options);
/* Until that many more messages have their PUBACK. */
void stage_wait_acks(struct stage *stage, uint64_t more);
/* A random number of them, up to so many. */
void stage_wait_random_acks(struct stage *stage, uint64_t at_most);
/* In the history, too: from then on what the fault excuses is excused. */
void stage_note(struct stage *stage, const char *fault);

/* The dead broker comes back as it was. How long it took until a client was signed in is noted as a figure. */
void stage_start_broker(struct stage *stage);
void stage_figure(struct stage *stage, const char *name, int64_t value);
__attribute__((format(printf, 2, 3))) void stage_complain(struct stage *stage, const char *format, ...);

enum verdict { VERDICT_GOOD, VERDICT_BAD, VERDICT_INVALID };
/* The load ends, everything that was accepted arrives, the judge compares. Prints what it finds; the load is gone then. */
enum verdict stage_judge(struct stage *stage, uint64_t acks_min, struct judgement *judgement);

/* A token that is good whatever the clock does by the hour. */
char *stage_token(void *fixture, int64_t user);

#endif
