/* judge.h - compares what clients saw with each other and with the table, and names every broken promise. Pure.
 *
 * The promise is: a message with a successful PUBACK is in its conversation exactly once, for good, or its refusal is on
 * record; a member sees nothing that a later crash can take back; all members see one order; at the end who is connected is
 * online, and who is not is offline since they went. Each name below is one way to break it; test_judge.c shows each being
 * noticed.
 *
 * What the product cannot be held to is left out: the only word of a refusal at once is, on MQTT 3.1.1, an error that a
 * lost connection takes with it, so a message of someone who came and went is not missed there. (On MQTT 5 it is the
 * PUBACK's reason: after a good one a refusal counts only where the table has it, whatever an answer says.) A live miss counts
 * only on a connection that lasted, with no fault, no "behind" notice and no change of the member's rights in between.
 */
#ifndef CHAT_TESTS_JUDGE_H
#define CHAT_TESTS_JUDGE_H

#include "history.h"
#include "table.h"

enum violation {
	LOST,                /* acknowledged, and neither stored nor refused on record */
	UNDUE_REFUSAL,       /* refused for good, though nothing was wrong with it and its sender was a member all the time */
	REJECTED_BUT_STORED, /* refused for good by the last word, and in the table */
	ALTERED,             /* stored otherwise than sent: body, id, sender or conversation */
	PHANTOM_ROW,         /* stored and never sent */
	DUPLICATE_ROW,       /* one message, several rows */
	DUPLICATE_SEQ,
	DUPLICATE_ID,         /* one id of one sender in one conversation, several rows */
	GAP,                  /* a conversation's numbers are not 1, 2, 3 ... */
	LAST_SEQ,             /* its counter is not its highest number */
	ORDER,                /* sent after another one was acknowledged, and stored before it */
	SENT_DIFFERS,         /* a `sent` answer names a number under which the table has another message or none */
	DELIVERED_NOT_STORED, /* a delivery of a number that the table does not have */
	DELIVERED_EARLY,      /* a delivery from before its commit */
	DIFFERENT_CONTENT,    /* a delivery differs from the row of its number */
	DISAGREE,             /* two receivers saw different messages under one number */
	OUT_OF_ORDER,         /* the first delivery of a number on a connection that was further already */
	NON_MEMBER,           /* delivered to somebody who was not a member at any time between its sending and then */
	NOT_SEEN,             /* a member's final history differs from the table, or lacks a part */
	LIVE_MISS,            /* a hole in what a lasting connection was given */
	MARK_LOST,            /* an acknowledged mark, or a message of their own, is above a member's watermark in the table */
	MARK_INVENTED,        /* a watermark is above all that its member ever marked and wrote */
	PRESENCE_WRONG,       /* connected for a while and not online, or gone for a while and not offline */
	LAST_SEEN,            /* of who is gone: before they were seen online, or long after they went */
	VIOLATIONS
};

struct judge_options {
	uint64_t acks_min; /* fewer make a run that says nothing */
	bool needs_fault;  /* so does one without a fault */
	bool clock_moves;  /* the broker's wall clock was moved: LAST_SEEN says nothing */
};

#define JUDGE_EXAMPLE_SIZE 240

struct judgement {
	uint64_t count[VIOLATIONS];
	char example[VIOLATIONS][JUDGE_EXAMPLE_SIZE]; /* the first of each */
	const char *invalid;                          /* why the run says nothing; NULL: it does */

	uint64_t sent, repeats, acks, refused; /* messages; of them sent more than once; with a good PUBACK; refused for good */
	uint64_t rows, deliveries, redeliveries, behind, connects, faults;
	uint64_t there, gone;      /* users at the end whose presence was compared */
	uint64_t excused_misses;   /* holes with a fault or a change in between */
	int64_t longest_puback_ns; /* from a message's last sending to its PUBACK */
	int64_t recovery_ns;       /* the longest time from a fault to the next delivery */
};

/* The history is read only; so is the table, whose rows may come in any order. */
void judge(const struct history *history, const struct table *table, const struct judge_options *options, struct judgement *out);
/* Valid, and nothing was found. */
bool judgement_is_clean(const struct judgement *judgement);
/* LOST and so on, with hyphens. */
const char *violation_name(enum violation violation);
void judgement_print(const struct judgement *judgement, FILE *out);

#endif
