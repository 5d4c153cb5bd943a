/* receipt.h - what is published to chat/{c}/receipts: gathered changes of watermarks, and for whom each form is. Pure.
 *
 * Two forms on the one topic. The full one tells how far members have read, but for those who hide it; the other tells
 * delivered alone and begins with "reads":false. Whoever hides what they have read gets the second, all others the
 * first: the access check tells them apart by their first bytes, which no client can write.
 */
#ifndef CHAT_PLUGIN_RECEIPT_H
#define CHAT_PLUGIN_RECEIPT_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct receipt {
	int64_t user_id;
	int64_t delivered;
	int64_t read;
	int64_t at_ms;           /* of the last change that is told */
	int64_t delivered_at_ms; /* of the last one of `delivered`; 0: only `read` has risen */
	bool hides_read;
};

/* A change that comes in while another one of the same user waits. */
void receipt_merge(struct receipt *waiting, const struct receipt *change);
/* {"receipts":[{"user":7,"delivered":1017,"read":1015,"at":…},…]}. False: no memory. */
bool receipts_append(struct buffer *out, const struct receipt *receipts, uint32_t count);
/* {"reads":false,"receipts":[{"user":7,"delivered":1017,"at":…},…]}; nothing where none of them has anything but a read. */
bool receipts_append_without_reads(struct buffer *out, const struct receipt *receipts, uint32_t count);
/* Whether a payload is of the form that is for those who hide, or do not hide, what they have read. */
bool receipts_are_for(const void *payload, size_t length, bool hides_reads);
/* Bytes that neither form of so many exceeds. */
size_t receipts_size_max(uint32_t count);

#endif
