/* buffer.h - a growable byte buffer that is born with its maximum.
 *
 * Full is an ordinary answer: an append that does not fit (or finds no memory) changes nothing, returns
 * false and leaves the buffer `failed`, and every later append fails too. So a writer may chain appends
 * and look at `failed` once. Not thread-safe: one owner at a time.
 *
 *   0 ........ length ........ capacity ........ maximum
 *   | written  |  allocated    |  may be allocated |
 *
 * What is appended must not lie in the buffer itself. A zeroed struct is an empty buffer with the maximum 0.
 */
#ifndef CHAT_COMMON_BUFFER_H
#define CHAT_COMMON_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
	char *data; /* owned; NULL until the first append; not NUL-terminated */
	size_t length;
	size_t capacity; /* one byte more is allocated, for the NUL that vsnprintf writes */
	size_t maximum;
	bool failed;
};

/* maximum_bytes < SIZE_MAX. Allocates nothing. */
void buffer_init(struct buffer *buffer, size_t maximum_bytes);
/* Releases the memory; the buffer is then empty and may be used again. */
void buffer_free(struct buffer *buffer);
/* Empties, keeps the memory, clears `failed`. */
void buffer_reset(struct buffer *buffer);

bool buffer_append(struct buffer *buffer, const void *bytes, size_t length);
bool buffer_append_text(struct buffer *buffer, const char *text);
bool buffer_append_integer(struct buffer *buffer, int64_t value);
/* A JSON string with its quotes (RFC 8259 section 7). `text` must be valid UTF-8. */
bool buffer_append_json_string(struct buffer *buffer, const char *text, size_t length);
__attribute__((format(printf, 2, 3))) bool buffer_append_format(struct buffer *buffer, const char *format, ...);

#endif
