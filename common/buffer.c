/* buffer.c - a growable byte buffer with a maximum; see the picture in buffer.h.
 *
 * Invariant between calls: length <= capacity <= maximum, and data holds capacity + 1 bytes (none where capacity is 0).
 * Only reserve() allocates and only it sets `failed`, apart from a format that vsnprintf refuses.
 */
#include "buffer.h"

#include "text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY ((size_t)256) /* most answers and receipts fit */

void buffer_init(struct buffer *buffer, size_t maximum_bytes)
{
	assert(maximum_bytes < SIZE_MAX);
	*buffer = (struct buffer){.maximum = maximum_bytes};
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){.maximum = buffer->maximum};
}

void buffer_reset(struct buffer *buffer)
{
	buffer->length = 0;
	buffer->failed = false;
}

static size_t next_capacity(const struct buffer *buffer, size_t need)
{
	size_t capacity = buffer->capacity > buffer->maximum / 2 ? buffer->maximum : buffer->capacity * 2;

	if (capacity < FIRST_CAPACITY) {
		capacity = FIRST_CAPACITY;
	}
	if (capacity < need) {
		capacity = need;
	}
	return capacity < buffer->maximum ? capacity : buffer->maximum;
}

/* Makes room for `extra` more bytes, or fails the buffer. */
static bool reserve(struct buffer *buffer, size_t extra)
{
	if (buffer->failed || extra > buffer->maximum - buffer->length) {
		buffer->failed = true;
		return false;
	}
	size_t need = buffer->length + extra;
	if (need <= buffer->capacity) {
		return true;
	}
	size_t capacity = next_capacity(buffer, need);
	char *data = realloc(buffer->data, capacity + 1);
	if (data == NULL) {
		buffer->failed = true;
		return false;
	}
	buffer->data = data;
	buffer->capacity = capacity;
	return true;
}

bool buffer_append(struct buffer *buffer, const void *bytes, size_t length)
{
	if (!reserve(buffer, length)) {
		return false;
	}
	if (length > 0) {
		memcpy(buffer->data + buffer->length, bytes, length);
		buffer->length += length;
	}
	return true;
}

bool buffer_append_text(struct buffer *buffer, const char *text)
{
	return buffer_append(buffer, text, strlen(text));
}

bool buffer_append_integer(struct buffer *buffer, int64_t value)
{
	char digits[20]; /* "-9223372036854775808" */
	size_t at = sizeof(digits);
	uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

	do {
		digits[--at] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest > 0);
	if (value < 0) {
		digits[--at] = '-';
	}
	return buffer_append(buffer, digits + at, sizeof(digits) - at);
}

/* What stands in a JSON string for a byte that may not stand there itself. */
static bool append_json_escape(struct buffer *buffer, char c)
{
	switch (c) {
	case '"':
		return buffer_append(buffer, "\\\"", 2);
	case '\\':
		return buffer_append(buffer, "\\\\", 2);
	case '\b':
		return buffer_append(buffer, "\\b", 2);
	case '\f':
		return buffer_append(buffer, "\\f", 2);
	case '\n':
		return buffer_append(buffer, "\\n", 2);
	case '\r':
		return buffer_append(buffer, "\\r", 2);
	case '\t':
		return buffer_append(buffer, "\\t", 2);
	default:
		return buffer_append_format(buffer, "\\u%04x", (unsigned)(unsigned char)c);
	}
}

bool buffer_append_json_string(struct buffer *buffer, const char *text, size_t length)
{
	size_t length_before = buffer->length;
	bool appended = buffer_append(buffer, "\"", 1);

	for (size_t at = 0; appended && at < length;) {
		size_t plain = text_json_plain_span(text + at, length - at);
		if (plain > 0) {
			appended = buffer_append(buffer, text + at, plain);
			at += plain;
		} else {
			appended = append_json_escape(buffer, text[at]);
			at++;
		}
	}
	appended = appended && buffer_append(buffer, "\"", 1);
	if (!appended) {
		buffer->length = length_before;
	}
	return appended;
}

/* Formats into the room there is; returns the length the text needs, whether or not it was written. */
__attribute__((format(printf, 2, 0))) static int format_in_place(struct buffer *buffer, const char *format, va_list arguments)
{
	if (buffer->data == NULL) {
		return vsnprintf(NULL, 0, format, arguments);
	}
	return vsnprintf(buffer->data + buffer->length, buffer->capacity - buffer->length + 1, format, arguments);
}

bool buffer_append_format(struct buffer *buffer, const char *format, ...)
{
	va_list arguments;

	if (buffer->failed) {
		return false;
	}
	va_start(arguments, format);
	int need = format_in_place(buffer, format, arguments);
	va_end(arguments);
	if (need < 0) {
		buffer->failed = true;
		return false;
	}
	bool written = buffer->data != NULL && (size_t)need <= buffer->capacity - buffer->length;
	if (!written) {
		if (!reserve(buffer, (size_t)need)) {
			return false;
		}
		if (need > 0) {
			va_start(arguments, format);
			int again = format_in_place(buffer, format, arguments);
			va_end(arguments);
			assert(again == need);
			(void)again;
		}
	}
	buffer->length += (size_t)need;
	return true;
}
