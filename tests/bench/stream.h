/* stream.h - what one receiver has seen of one publisher: loss, duplicates and order, told apart exactly.
 *
 * A publisher counts its messages 1, 2, 3 … and writes the count into each. The stream remembers the next count it expects
 * and the counts that were skipped: a count below the next one is late (misordered) if it was skipped, else a duplicate.
 * Pure; a few bytes while nothing goes wrong.
 */
#ifndef CHAT_BENCH_STREAM_H
#define CHAT_BENCH_STREAM_H

#include <stddef.h>
#include <stdint.h>

/* More holes than this in one stream and the oldest is forgotten: it stays lost, and counts as a duplicate if it comes. */
#define STREAM_HOLES_MAX 65536

struct stream {
	uint64_t next; /* 0 before the first message: read as 1 */
	uint64_t received;
	uint64_t duplicates;
	uint64_t misordered;
	uint64_t *holes; /* ascending; owned */
	size_t holes_count;
	size_t holes_size;
};

enum stream_verdict { STREAM_NEW, STREAM_DUPLICATE };

/* STREAM_NEW also for one that comes late. */
enum stream_verdict stream_accept(struct stream *stream, uint64_t count);
void stream_release(struct stream *stream);

#endif
