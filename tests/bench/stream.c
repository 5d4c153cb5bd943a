/* stream.c - see stream.h. */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

static void drop_hole(struct stream *stream, size_t index)
{
	stream->holes_count--;
	memmove(stream->holes + index, stream->holes + index + 1, (stream->holes_count - index) * sizeof *stream->holes);
}

static void add_hole(struct stream *stream, uint64_t count)
{
	if (stream->holes_count == STREAM_HOLES_MAX)
		drop_hole(stream, 0);
	if (stream->holes_count == stream->holes_size) {
		size_t size = stream->holes_size == 0 ? 16 : stream->holes_size * 2;
		uint64_t *grown = realloc(stream->holes, size * sizeof *grown);
		if (grown == NULL)
			abort();
		stream->holes = grown;
		stream->holes_size = size;
	}
	stream->holes[stream->holes_count++] = count;
}

static enum stream_verdict accept_late(struct stream *stream, uint64_t count)
{
	for (size_t i = 0; i < stream->holes_count; i++) {
		if (stream->holes[i] == count) {
			drop_hole(stream, i);
			stream->misordered++;
			stream->received++;
			return STREAM_NEW;
		}
	}
	stream->duplicates++;
	return STREAM_DUPLICATE;
}

enum stream_verdict stream_accept(struct stream *stream, uint64_t count)
{
	if (stream->next == 0)
		stream->next = 1;
	if (count < stream->next)
		return accept_late(stream, count);
	/* Of a jump beyond what can be remembered only the end matters. */
	if (count - stream->next > STREAM_HOLES_MAX)
		stream->next = count - STREAM_HOLES_MAX;
	for (; stream->next < count; stream->next++)
		add_hole(stream, stream->next);
	stream->next++;
	stream->received++;
	return STREAM_NEW;
}

void stream_release(struct stream *stream)
{
	free(stream->holes);
	memset(stream, 0, sizeof *stream);
}
