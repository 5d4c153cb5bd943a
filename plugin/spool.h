/* spool.h - what was accepted and is not yet committed: an append-only log in files, one appender, several readers.
 *
 * The broker thread appends; each writer lane reads behind it, at its own pace, the records of its own slots, and
 * says up to where it needs nothing any more. There is no second queue behind this one, so this is the one place
 * that bounds what waits for the database: full is an ordinary answer.
 *
 * Positions are byte offsets that only grow. A record never crosses a segment; what is left of a segment is a filler.
 *
 *   | segment 0 (deleted) | segment 1 | segment 2 | segment 3        | segment 4 (ready) |
 *                           ^ lane 0    ^ lane 1       ^ end: appended up to here
 *
 * The segments are files that are mapped into memory. What has been appended belongs to the kernel, so it survives
 * the death of this process without a system call; whether it survives the death of the machine is `sync`'s choice:
 *
 *   none      the kernel writes it back when it likes (within some 30 s)
 *   interval  a thread flushes every sync_ms
 *   always    spool_append_done flushes before it returns, and the broker thread waits for that
 *
 * A thread of the spool's own, the keeper, makes segments ready ahead of need: written with zeros and touched, so that
 * a full disk shows itself there, as "full", and never as a signal in the middle of an append; and deletes those that
 * every lane has released.
 *
 * In the directory (mode 0700): lock (held by the process that has the spool open), identity (16 bytes), committed
 * (the lanes' positions, to notice a database that was rolled back), unchecked (from where on no slot's position was compared
 * with the database yet), NNNNNNNNNNNNNNNN.segment by number in hex, and
 * damaged-* (bytes that recovery could not read).
 */
#ifndef CHAT_PLUGIN_SPOOL_H
#define CHAT_PLUGIN_SPOOL_H

#include "options.h"
#include "record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPOOL_LANES_MAX RECORD_SLOTS
#ifndef SPOOL_SEGMENT_BYTES                   /* tests of many small spools make it smaller */
#define SPOOL_SEGMENT_BYTES ((size_t)4 << 20) /* its header and at least one of the longest records */
#endif

struct spool_settings {
	const char *directory; /* made if it is not there */
	int64_t max_bytes;     /* rounded down to whole segments, at least two */
	unsigned lanes;
	enum option_spool_sync sync;
	int64_t sync_ms;
};

/* What opening found. */
struct spool_recovery {
	uint64_t records;       /* good ones, in the segments that are left */
	uint64_t waiting;       /* those of them that no lane is known to have committed */
	uint64_t cut_bytes;     /* of a torn tail */
	uint64_t damaged_bytes; /* in the middle: set aside, good records follow */
	unsigned damaged_places;
	unsigned missing_segments;
};

struct spool;

/* Takes over what an earlier process left. NULL: error says why, in one line with the next step: no permission,
 * another process has it open, a record of a version or type that this program does not know, ... */
struct spool *spool_open(const struct spool_settings *settings, struct spool_recovery *recovery, char *error, size_t error_size);
/* No thread may use the spool any more. What is not released stays in the directory. */
void spool_close(struct spool *spool);
/* The identity under which the database keeps this spool's positions: the directory's, for ever. */
const uint8_t *spool_id(const struct spool *spool);

/* Broker thread. Room for `length` bytes (a record size) at *position, or NULL: full. Nothing is visible before
 * spool_append_done, which must follow before the next spool_append. */
__attribute__((warn_unused_result)) void *spool_append(struct spool *spool, size_t length, uint64_t *position);
/* False: with `always`, the flush failed; the record is withdrawn and must not be acknowledged. */
__attribute__((warn_unused_result)) bool spool_append_done(struct spool *spool, size_t length, unsigned slot);
/* Any thread: bytes that wait. */
uint64_t spool_used(const struct spool *spool);
/* Any thread: flushes so far, and how many of them failed. */
void spool_flushes(const struct spool *spool, uint64_t *done, uint64_t *failed);

/* A lane's own cursor; its thread only. */
struct spool_reader {
	struct spool *spool;
	unsigned lane;
	uint64_t at;
};

/* Where a lane begins: the oldest record kept. */
struct spool_reader spool_reader(struct spool *spool, unsigned lane);
/* The next record of the lane's slots (slot % lanes == lane), checked; NULL: none appended yet. It stays valid until
 * spool_release goes past it. *damaged is set where the log itself is broken since it was opened. */
const struct record_header *spool_next(struct spool_reader *reader, bool *damaged);
/* Waits until there may be a record behind reader->at, or spool_stop, or the time is over. */
void spool_wait(struct spool_reader *reader, int64_t timeout_ms);
/* Back to the oldest record kept, and what follows is needed again. */
void spool_reader_back(struct spool_reader *reader);
/* Everything before `position` is needed by this lane no longer. */
void spool_release(struct spool_reader *reader, uint64_t position);
/* A lane: this slot is committed up to here. Kept in the directory. */
void spool_note_committed(struct spool *spool, unsigned slot, uint64_t position);
/* What was noted last, perhaps by an earlier process. */
uint64_t spool_committed(const struct spool *spool, unsigned slot);

/* Whether what the database says of a slot can be true of this spool, and how bad it is if not, in this order. For the first
 * comparison; afterwards a lane knows better (writer_connect.c). */
enum spool_objection {
	SPOOL_AGREES,
	SPOOL_DATABASE_BEHIND, /* the database has committed less than it once had */
	SPOOL_LOST_END,        /* it has committed more than the spool holds, as it may be after a power cut without flushes */
	SPOOL_BEHIND,          /* the same where it cannot be */
	SPOOL_FOREIGN          /* later: somebody else has moved the position */
};
enum spool_objection spool_objection(const struct spool *spool, unsigned slot, uint64_t position_in_database);
/* After SPOOL_LOST_END: the position that is true of this spool. What the slot has before it was committed, and nothing behind
 * it, however long ago it was appended: no process that appended that has had a database to compare with. */
uint64_t spool_true_position(const struct spool *spool, unsigned slot);
/* A lane: these slots (slot % lanes == lane) have been compared, and the database says what is true. False: that could not be
 * flushed, and nothing may be committed before it is: a power cut would bring the old note back, and with it the position. */
__attribute__((warn_unused_result)) bool spool_note_checked(struct spool *spool, unsigned lane);
/* A lane: not so any more. Nothing behind `committed` is taken for committed, here or by the next process. */
void spool_note_doubted(struct spool *spool, unsigned slot, uint64_t committed);
/* A line for the log, with the next step; NULL for SPOOL_AGREES. */
const char *spool_objection_text(enum spool_objection objection);

uint64_t spool_end(const struct spool *spool);
/* Where the end was when it was opened: what is before that waited for this process. */
uint64_t spool_recovered_end(const struct spool *spool);
/* Has lanes that sleep look again, so that each walks past what is not its own and releases it. Any thread. */
void spool_wake(struct spool *spool);
/* Wakes all waiters, now and for ever. Any thread. */
void spool_stop(struct spool *spool);
bool spool_stopped(const struct spool *spool);
/* Any thread: whether every lane has released all that was appended. */
bool spool_is_drained(const struct spool *spool);

#endif
