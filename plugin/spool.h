/* spool.h - what was accepted and is not yet committed: an append-only log with one appender and several readers.
 *
 * The broker thread appends; each writer lane reads behind it, at its own pace, the records of its own slots, and
 * says up to where it needs nothing any more. There is no second queue behind this one, so this is the one place
 * that bounds what waits for the database: full is an ordinary answer.
 *
 * Positions are byte offsets that only grow. A record never crosses a segment; what is left of a segment is a filler.
 *
 *   | segment 0 (released) | segment 1 | segment 2 | segment 3        |
 *                            ^ lane 0    ^ lane 1       ^ end: appended up to here
 *
 * This spool is in memory: it survives the database, not the process.
 */
#ifndef CHAT_PLUGIN_SPOOL_H
#define CHAT_PLUGIN_SPOOL_H

#include "record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPOOL_LANES_MAX 32
#define SPOOL_SEGMENT_BYTES ((size_t)4 << 20) /* two of the longest records */

struct spool;

/* max_bytes is rounded down to whole segments, at least two. NULL: error says why. */
struct spool *spool_open(int64_t max_bytes, unsigned lanes, char *error, size_t error_size);
/* No thread may use the spool any more. */
void spool_close(struct spool *spool);
/* The identity under which the database keeps this spool's positions. */
const uint8_t *spool_id(const struct spool *spool);

/* Broker thread. Room for `length` bytes (a record size) at *position, or NULL: full. Nothing is visible before
 * spool_append_done, which must follow before the next spool_append. */
__attribute__((warn_unused_result)) void *spool_append(struct spool *spool, size_t length, uint64_t *position);
void spool_append_done(struct spool *spool, size_t length, unsigned slot);
/* Broker thread: bytes that wait. */
uint64_t spool_used(const struct spool *spool);

/* A lane's own cursor; its thread only. */
struct spool_reader {
	struct spool *spool;
	unsigned lane;
	uint64_t at;
};

/* The next record of the lane's slots (slot % lanes == lane), checked; NULL: none appended yet. It stays valid until
 * spool_release goes past it. *damaged is set where the log itself is broken: a fault of this program. */
const struct record_header *spool_next(struct spool_reader *reader, bool *damaged);
/* Waits until there may be a record behind reader->at, or spool_stop, or the time is over. */
void spool_wait(struct spool_reader *reader, int64_t timeout_ms);
/* Everything before `position` is needed by this lane no longer. */
void spool_release(struct spool_reader *reader, uint64_t position);
uint64_t spool_end(const struct spool *spool);
/* Has lanes that sleep look again, so that each walks past what is not its own and releases it. Any thread. */
void spool_wake(struct spool *spool);
/* Wakes all waiters, now and for ever. Any thread. */
void spool_stop(struct spool *spool);
bool spool_stopped(const struct spool *spool);
/* Any thread: whether every lane has released all that was appended. */
bool spool_is_drained(const struct spool *spool);

#endif
