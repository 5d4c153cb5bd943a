/* spool_positions.c - see spool.h: what is known of the positions that the database has committed, and whether what it says can
 * be true.
 *
 * Two files of the directory, mapped: `committed`, the positions as they were last heard of, and `unchecked`, from where on no
 * slot's position was compared with the database. Opening begins the latter; a lane's first comparison ends it.
 */
#include "spool_files.h"

#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void spool_note_committed(struct spool *spool, unsigned slot, uint64_t position)
{
	atomic_store_explicit(
		&spool->committed[slot], position, memory_order_relaxed); /* in a mapped file: whole, or as before */
}

uint64_t spool_committed(const struct spool *spool, unsigned slot)
{
	return atomic_load(&spool->committed[slot]);
}

/* The most that can be committed of a slot: what was there when it was last known. */
uint64_t spool_true_position(const struct spool *spool, unsigned slot)
{
	uint64_t unchecked = atomic_load(&spool->unchecked[slot]);
	return unchecked ? unchecked - 1 : atomic_load(&spool->end);
}

enum spool_objection spool_objection(const struct spool *spool, unsigned slot, uint64_t position_in_database)
{
	if (position_in_database > spool_true_position(spool, slot)) {
		bool may_be = spool->sync != SPOOL_SYNC_ALWAYS && atomic_load(&spool->unchecked[slot]);
		return may_be ? SPOOL_LOST_END : SPOOL_BEHIND;
	}
	return position_in_database < atomic_load(&spool->committed[slot]) ? SPOOL_DATABASE_BEHIND : SPOOL_AGREES;
}

bool spool_note_checked(struct spool *spool, unsigned lane)
{
	uint64_t before[RECORD_SLOTS];
	bool changed = false;

	for (unsigned slot = lane; slot < RECORD_SLOTS; slot += spool->lane_count) {
		before[slot] = atomic_exchange(&spool->unchecked[slot], 0);
		changed |= before[slot] != 0;
	}
	if (!changed || spool_flush_unchecked(spool)) {
		return true;
	}
	log_line(LOG_LEVEL_ERROR, "chat: spool: cannot flush %s/unchecked: %s; check the disk and the kernel's log",
		spool->directory, strerror(errno));
	for (unsigned slot = lane; slot < RECORD_SLOTS; slot += spool->lane_count) {
		atomic_store(&spool->unchecked[slot], before[slot]); /* so that it is written again */
	}
	return false;
}

void spool_note_doubted(struct spool *spool, unsigned slot, uint64_t committed)
{
	atomic_store(&spool->unchecked[slot], committed + 1);
	(void)spool_flush_unchecked(spool); /* a power cut makes the end doubtful anyway */
}

bool spool_begin_unchecked(struct spool *spool, char *error, size_t error_size)
{
	for (unsigned slot = 0; slot < RECORD_SLOTS; slot++) {
		uint64_t unchecked = atomic_load(&spool->unchecked[slot]);
		if (unchecked == 0 || unchecked - 1 > spool->recovered_end) {
			atomic_store(&spool->unchecked[slot], spool->recovered_end + 1);
		}
	}
	if (spool_flush_unchecked(spool)) {
		return true;
	}
	snprintf(error, error_size, "plugin_opt_spool_dir: cannot flush %s/unchecked: %s; check the disk and the kernel's log",
		spool->directory, strerror(errno));
	return false;
}

const char *spool_objection_text(enum spool_objection objection)
{
	switch (objection) {
	case SPOOL_DATABASE_BEHIND:
		return "the database has committed less of this spool than it once had: an older state of the database was put "
		       "back, or a standby took over that was behind; restore the newest state, or remove the file `committed` "
		       "from "
		       "the spool directory to go on from the older one (what the spool still holds is then stored)";
	case SPOOL_LOST_END:
		return "the spool's END IS LOST: the database has committed more of it than the directory holds. The machine "
		       "lost "
		       "power before its last pages were written (spool_sync none or interval), or an older copy of the "
		       "directory "
		       "was put back: then stop the broker and put the newest back. What was lost and not committed is gone";
	case SPOOL_BEHIND:
		return "the database has committed more of this spool than the directory holds, though what is acknowledged is "
		       "flushed: an older copy of the directory was put back, or is in use elsewhere, or the disk does not keep "
		       "what "
		       "it flushed; put the newest back, or start once with plugin_opt_spool_sync none to go on without what is "
		       "missing";
	case SPOOL_FOREIGN:
		return "somebody else has moved this spool's positions in the database: a copy of the directory is in use "
		       "elsewhere, "
		       "or chat.spool_positions was changed by hand; messages wait until the broker is restarted, which takes "
		       "none of them for stored: see to the other one first";
	default:
		return NULL;
	}
}
