/* receipt.c - see receipt.h. */
#include "receipt.h"

#include <string.h>

static const char with_reads[] = "{\"receipts\":[";
static const char without_reads[] = "{\"reads\":false,\"receipts\":[";

/* {"user":,"delivered":,"read":,"at":}, and four numbers of at most 20 characters. */
#define RECEIPT_BYTES_MAX 120

size_t receipts_size_max(uint32_t count)
{
	return sizeof(without_reads) + 2 + (size_t)count * RECEIPT_BYTES_MAX;
}

void receipt_merge(struct receipt *waiting, const struct receipt *change)
{
	int64_t delivered_at_ms = change->delivered_at_ms ? change->delivered_at_ms : waiting->delivered_at_ms;
	*waiting = *change;
	waiting->delivered_at_ms = delivered_at_ms;
}

static bool append(struct buffer *out, const struct receipt *receipt, bool read, int64_t at_ms, bool first)
{
	buffer_append_text(out, first ? "{\"user\":" : ",{\"user\":");
	buffer_append_integer(out, receipt->user_id);
	buffer_append_text(out, ",\"delivered\":");
	buffer_append_integer(out, receipt->delivered);
	if (read) {
		buffer_append_text(out, ",\"read\":");
		buffer_append_integer(out, receipt->read);
	}
	buffer_append_text(out, ",\"at\":");
	buffer_append_integer(out, at_ms);
	return buffer_append_text(out, "}");
}

bool receipts_append(struct buffer *out, const struct receipt *receipts, uint32_t count)
{
	buffer_append_text(out, with_reads);
	for (uint32_t i = 0; i < count; i++) {
		append(out, &receipts[i], !receipts[i].hides_read, receipts[i].at_ms, i == 0);
	}
	return buffer_append_text(out, "]}");
}

/* That somebody's entry comes again with nothing new in it, and when, would say that they have read. */
bool receipts_append_without_reads(struct buffer *out, const struct receipt *receipts, uint32_t count)
{
	uint32_t told = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (receipts[i].delivered_at_ms) {
			if (told == 0) {
				buffer_append_text(out, without_reads);
			}
			append(out, &receipts[i], false, receipts[i].delivered_at_ms, told++ == 0);
		}
	}
	return told == 0 || buffer_append_text(out, "]}");
}

bool receipts_are_for(const void *payload, size_t length, bool hides_reads)
{
	const size_t prefix = sizeof(without_reads) - 1;
	bool hidden = payload && length >= prefix && memcmp(payload, without_reads, prefix) == 0;
	return hidden == hides_reads;
}
