/* writer.h - the lanes: threads that carry the spool into PostgreSQL, one transaction a batch.
 *
 * Lane i of n owns the slots with slot % n == i while it runs. It takes all that waits, up to a limit, calls
 * chat.append_messages and chat.append_marks in one transaction together with the compare-and-set of its positions,
 * and posts what was committed to the broker thread. While little comes, a message does not wait for company; while much
 * comes, some milliseconds.
 */
#ifndef CHAT_PLUGIN_WRITER_H
#define CHAT_PLUGIN_WRITER_H

#include "delivery.h"
#include "loader.h"
#include "spool.h"

struct writer;

/* Counters of all lanes together; any thread. */
struct writer_counters {
	uint64_t batches;
	uint64_t messages; /* rows of append_messages in committed batches */
	uint64_t marks;
	uint64_t refused;
	uint64_t duplicates;
	bool down; /* some lane has no connection */
};

/* Before anything is accepted: whether the positions in the database can be true of this spool. False: error says why they
 * cannot. A database that does not answer now is no objection: the lanes ask again. */
bool writer_check_positions(const char *conninfo, struct spool *spool, int64_t timeout_ms, char *error, size_t error_size);
/* NULL: error says why. */
struct writer *writer_start(const char *conninfo, struct spool *spool, unsigned lanes, struct delivery_queue *deliveries,
	const struct loader *loader, char *error, size_t error_size);
/* Any thread: edits that were accepted later than that after their message are refused; 0: none is too late. */
void writer_set_edit_window(struct writer *writer, int64_t seconds);
/* Waits at most drain_ms until the spool is empty; not at all while a lane has no connection. */
void writer_drain(struct writer *writer, int64_t drain_ms);
/* Joins and frees; NULL is fine. The spool and the queue are stopped by this. */
void writer_stop(struct writer *writer);
struct writer_counters writer_read_counters(const struct writer *writer);

#endif
