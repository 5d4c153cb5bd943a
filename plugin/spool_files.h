/* spool_files.h - the spool's inside: its state, its directory, and what recovery needs. For spool*.c and their tests only.
 *
 * No descriptor is kept for a segment: a spool of many segments would take the broker's clients theirs.
 */
#ifndef CHAT_PLUGIN_SPOOL_FILES_H
#define CHAT_PLUGIN_SPOOL_FILES_H

#include "spool.h"

#include <pthread.h>
#include <stdatomic.h>

/* The header of a segment file, padded to this; records begin behind it. */
#define SPOOL_HEADER_BYTES ((size_t)64)
#define SPOOL_FORMAT_VERSION 1

struct spool_lane {
	_Atomic uint64_t released;
	_Atomic bool sleeping;
	pthread_cond_t wake;
};

struct spool {
	uint8_t id[16];
	uint32_t seal; /* of its records: see record.h */
	char *directory;
	int directory_fd, lock_fd;
	enum option_spool_sync sync;
	int64_t sync_ms;
	unsigned lane_count;

	uint64_t max_segments;          /* the bound */
	uint64_t segment_count;         /* size of the table: segment n is at [n % segment_count]; not below the bound */
	char **segments;                /* mapped, SPOOL_SEGMENT_BYTES each; NULL: none */
	_Atomic uint64_t *committed;    /* RECORD_SLOTS positions, a mapped file */
	_Atomic uint64_t *unchecked;    /* likewise, see spool_true_position; 0: compared; else the position + 1 */
	_Atomic uint64_t first_segment; /* oldest that is there; stored by the keeper once it runs */
	_Atomic uint64_t ready_end;     /* segments before this may be used; likewise */
	_Atomic uint64_t end;           /* appended and visible up to here */
	uint64_t recovered_end;
	uint64_t append_at; /* the broker thread's: between spool_append and spool_append_done */
	uint64_t flushed;   /* the keeper's: flushed up to here */
	_Atomic uint64_t flushes, flush_failures;
	_Atomic bool flush_failing;                              /* said, and not succeeded since */
	_Atomic bool disk_full;                                  /* stored by the keeper */
	int (*flush)(void *address, size_t length, int options); /* msync(2), but for tests of its failure */

	_Atomic bool stopped, closing, keeper_wanted;
	bool keeper_started;
	pthread_t keeper;
	pthread_mutex_t mutex;    /* of those who sleep */
	pthread_mutex_t deleting; /* the keeper's while it deletes, a lane's while it goes back; never the broker thread's */
	pthread_cond_t keeper_wake;
	struct spool_lane lanes[SPOOL_LANES_MAX];
};

/* Opens and locks the directory, reads or makes its identity. */
bool spool_files_open(struct spool *spool, const char *directory, char *error, size_t error_size);
/* Unmaps and closes all; safe on a half-opened spool. */
void spool_files_close(struct spool *spool);
/* A new segment full of zeros, mapped and touched, in the table. False with errno: nothing is left of it. */
bool spool_make_segment(struct spool *spool, uint64_t number);
/* Maps one that is there. False with errno. */
bool spool_map_segment(struct spool *spool, uint64_t number);
/* Has its pages mapped writable now. */
void spool_touch_segment(const struct spool *spool, uint64_t number);
void spool_delete_segment(struct spool *spool, uint64_t number);
/* The numbers of all segment files, ascending; caller frees. False: error. */
bool spool_list_segments(const struct spool *spool, uint64_t **numbers, size_t *count);
/* Keeps bytes for a person to look at. */
void spool_set_aside(const struct spool *spool, uint64_t position, const void *bytes, size_t length);
/* from..to, inside one segment, holds nothing: fillers, or zeros where not even a header fits. */
void spool_fill(const struct spool *spool, uint64_t from, uint64_t to);

/* Writes from..to into its files once more, from memory: nobody may write there meanwhile. False: it could not. */
bool spool_rewrite(const struct spool *spool, uint64_t from, uint64_t to);

enum spool_header { SPOOL_HEADER_GOOD, SPOOL_HEADER_DAMAGED, SPOOL_HEADER_OTHER_SPOOL, SPOOL_HEADER_OTHER_VERSION };
enum spool_header spool_read_segment_header(const struct spool *spool, uint64_t number);
void spool_write_segment_header(const struct spool *spool, uint64_t number);

/* Flushed, whatever `sync` says: they change at starts only. */
bool spool_flush_unchecked(const struct spool *spool);

/* spool_positions.c: what is appended from now on waits for the comparison, and so does what an earlier process appended without
 * one. False: error. */
bool spool_begin_unchecked(struct spool *spool, char *error, size_t error_size);

/* spool_recover.c: fills the table, finds `end`. False: error. */
bool spool_recover(struct spool *spool, struct spool_recovery *recovery, char *error, size_t error_size);

static inline uint64_t spool_segment_of(uint64_t position)
{
	return position / SPOOL_SEGMENT_BYTES;
}

static inline uint64_t spool_base_of(uint64_t segment)
{
	return segment * SPOOL_SEGMENT_BYTES;
}

static inline char *spool_bytes_at(const struct spool *spool, uint64_t position)
{
	return spool->segments[spool_segment_of(position) % spool->segment_count] + position % SPOOL_SEGMENT_BYTES;
}

#endif
