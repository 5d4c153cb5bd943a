/* writer_lane.h - the inside of the writer: a lane's state, and what its four parts ask of one another. For writer*.c only.
 *
 *   writer.c          a lane's life: taking batches, splitting what cannot be committed as a whole, setting aside
 *   writer_connect.c  connecting: judging the positions found, settling what was under way
 *   writer_rules.c    what the content rules say of a batch, before it is sent
 *   writer_calls.c    one call of the database at a time: its parameters, its answer's way to the broker thread
 *
 * All of a lane is its own thread's.
 */
#ifndef CHAT_PLUGIN_WRITER_LANE_H
#define CHAT_PLUGIN_WRITER_LANE_H

#include "database.h"
#include "log.h"
#include "writer.h"

#include <pthread.h>
#include <stdatomic.h>

/* Above some 500 rows a batch gains nothing more and only holds its row locks longer. */
#define BATCH_RECORDS_MAX 500
/* A commit that takes longer than this is given up on and settled over a new connection. */
#define COMMIT_TIMEOUT_MS 30000
#define BACKOFF_FIRST_MS 50
#define WRITER_APPLICATION "mosquitto-chat writer"
/* A lock that takes longer is not waited for: its slot is set aside. Far above what a transaction of the plugin's own takes;
 * each try costs the lane's other slots this wait, twice. */
#define LOCK_TIMEOUT "250ms"

enum column {
	C_CONVERSATION,
	C_SENDER,
	C_DEVICE,
	C_ID,
	C_HASH,
	C_TYPE,
	C_BODY,
	C_REPLY_TO,
	C_REF,
	C_EXTRA,
	C_SENT_AT,
	C_EXPIRES_AT,
	COLUMNS
};
/* Of messages that a content rule rejects, and of those that one flags. */
enum reject_column { R_CONVERSATION, R_SENDER, R_DEVICE, R_ID, R_HASH, R_SENT_AT, REJECT_COLUMNS };
enum flag_column { F_CONVERSATION, F_SENDER, F_ID, F_RULE, FLAG_COLUMNS };
enum mark_column { M_CONVERSATION, M_USER, M_DEVICE, M_DELIVERED, M_READ, M_AT, MARK_COLUMNS };

/* What the content rules say of a message that does not pass as it is. */
struct judgement {
	const struct record_header *record;
	struct content_verdict verdict;
};

struct lane {
	struct writer *writer;
	pthread_t thread;
	bool started;
	struct spool_reader reader;
	struct database *database;
	uint64_t committed[RECORD_SLOTS]; /* position up to which the slot's records are in the tables */
	const struct record_header *batch[BATCH_RECORDS_MAX];
	size_t batch_count, batch_bytes;
	size_t last_count; /* of the batch before, and when it was taken (monotonic) */
	int64_t taken_ns;
	unsigned refusals;    /* of this batch, one after the other */
	uint32_t outages;     /* so many times the database was away or did not answer; the first connection counts */
	bool compared;        /* positions were taken once: from then on only this lane moves them */
	bool foreign;         /* and somebody else did: nothing more is taken or stored */
	int old_process;      /* the server's, of a connection that was given up on; 0: it has been ended */
	bool objected;        /* said that the spool and the database do not belong together */
	uint64_t backlog_end; /* records before this were accepted before the database last came back, or answered again */
	struct database_array slots, from, to;
	struct database_array no_slots, no_positions; /* for a call beside one that moves the positions of both */
	struct database_array columns[COLUMNS];
	struct database_array mark_columns[MARK_COLUMNS];
	struct database_array reject_columns[REJECT_COLUMNS], flag_columns[FLAG_COLUMNS];
	struct content_matcher *matcher; /* this and the next: NULL until there are rules */
	struct judgement *judgements;    /* of this batch */
	size_t judgement_count;
	bool judged;
	struct log_gate trouble;
	struct {
		bool slot[RECORD_SLOTS];
		uint64_t from;    /* the first record of all these; ASIDE_NONE */
		uint64_t until;   /* once the reader is here again without setting aside anew, it is over; 0: it is over */
		int64_t pause_ms; /* how long */
		int64_t retry_ms; /* monotonic, when the reader goes back */
	} aside;
};
#define ASIDE_NONE UINT64_MAX

struct writer {
	struct spool *spool;
	struct delivery_queue *deliveries;
	const struct loader *loader;
	unsigned lane_count;
	struct lane *lanes;
	int stop_fd;
	_Atomic bool stopping;
	_Atomic int64_t edit_window_s; /* 0: none */
	_Atomic unsigned lanes_down;
	_Atomic uint64_t batches, messages, marks, refused, duplicates;
};

static inline bool lane_is_stopping(const struct lane *lane)
{
	return atomic_load(&lane->writer->stopping);
}

/* What was appended before `end` has waited: it is told as a backlog. */
static inline void lane_note_backlog(struct lane *lane, uint64_t end)
{
	lane->backlog_end = end > lane->backlog_end ? end : lane->backlog_end;
	lane->outages++;
}

static inline uint64_t record_end(const struct record_header *record)
{
	return record->position + record->length;
}

/* ---- writer_rules.c ---- */

/* Judges the batch, where that was not done yet. What is not DATABASE_OK: try again, over a new connection. */
enum database_status lane_judge(struct lane *lane);
/* NULL: the message passes as it is. Otherwise good until lane_forget_judgements. */
const struct content_verdict *lane_verdict(const struct lane *lane, const struct record_header *record);
void lane_forget_judgements(struct lane *lane);
void lane_rules_free(struct lane *lane);

/* ---- writer_calls.c ---- */

void lane_calls_init(struct lane *lane);
void lane_calls_free(struct lane *lane);
/* All in one transaction with the move of their positions; what was committed is posted, lane->committed moved. */
enum database_status lane_append(struct lane *lane, const struct record_header *const *records, size_t count);
/* A single record that the tables do not take: its sender is told, and it is moved on from; a message is on record as a
 * refusal. */
enum database_status lane_refuse(struct lane *lane, const struct record_header *record);
/* Tells the broker thread what became of records whose commit was not heard. False: try again over a new connection. */
bool lane_settle(struct lane *lane, const struct record_header *const *records, size_t count);
/* The spool lost its end: the positions are put back to what it holds, so that what comes next is not taken for committed. */
bool lane_rewind_positions(struct lane *lane, uint64_t positions[RECORD_SLOTS]);
/* Once in a while, with the database's last error. */
void lane_log_trouble(struct lane *lane, const char *what);

/* ---- writer_connect.c ---- */

/* Until connected, with what was under way settled, or stopping. */
void lane_connect(struct lane *lane);
/* Waits, and doubles what is waited the next time. */
void lane_back_off(struct lane *lane, int64_t *backoff_ms);

#endif
