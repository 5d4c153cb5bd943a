/* payload.c - see payload.h. */
#define _GNU_SOURCE
#include "payload.h"

#include <string.h>

#define ID_OFFSET 7 /* behind {"id":" */
#define ID_LENGTH 36

static const char json_start[] = "{\"body\":\"";
static const char json_id_start[] = "{\"id\":\"00000000-0000-4000-8000-000000000000\",\"body\":\"";
static const char json_end[] = "\"}";

static size_t start_of(enum payload_form form, const char **text)
{
	*text = form == PAYLOAD_TEXT ? "" : form == PAYLOAD_JSON ? json_start : json_id_start;
	return strlen(*text);
}

size_t payload_length(enum payload_form form, size_t body_length)
{
	const char *text;
	return start_of(form, &text) + body_length + (form == PAYLOAD_TEXT ? 0 : sizeof json_end - 1);
}

void payload_make(uint8_t *out, enum payload_form form, size_t body_length)
{
	const char *text;
	size_t start = start_of(form, &text);
	memcpy(out, text, start);
	memset(out + start, 'x', body_length);
	if (form != PAYLOAD_TEXT)
		memcpy(out + start + body_length, json_end, sizeof json_end - 1);
}

static void write_hex(uint8_t *out, uint64_t value, unsigned digits)
{
	while (digits-- > 0) {
		out[digits] = (uint8_t) "0123456789abcdef"[value & 15];
		value >>= 4;
	}
}

/* RRRRRRRR-RRRR-4RRR-8PPP-PPPCCCCCCCCC: 60 bits of the run, the publisher, the count. */
static void write_id(uint8_t *id, const struct payload_marker *marker, uint64_t run)
{
	write_hex(id, run, 8);
	write_hex(id + 9, run >> 32, 4);
	write_hex(id + 15, run >> 48, 3);
	write_hex(id + 20, marker->publisher >> 12, 3);
	write_hex(id + 24, marker->publisher, 3);
	write_hex(id + 27, marker->count, 9);
}

void payload_patch(uint8_t *payload, enum payload_form form, const struct payload_marker *marker, uint64_t run)
{
	const char *text;
	uint8_t *at = payload + start_of(form, &text);
	if (form == PAYLOAD_JSON_ID)
		write_id(payload + ID_OFFSET, marker, run);
	at[0] = '!';
	at[1] = 'm';
	write_hex(at + 2, marker->publisher, 6);
	write_hex(at + 8, marker->count, 8);
	write_hex(at + 16, marker->due_ns, 16);
	at[32] = '!';
}

static bool read_hex(const uint8_t *text, unsigned digits, uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < digits; i++) {
		unsigned digit = text[i];
		if (digit >= '0' && digit <= '9')
			digit -= '0';
		else if (digit >= 'a' && digit <= 'f')
			digit -= 'a' - 10U;
		else
			return false;
		*value = (*value << 4) | digit;
	}
	return true;
}

bool payload_find_marker(const uint8_t *payload, size_t length, struct payload_marker *marker)
{
	uint64_t publisher;
	uint64_t count;
	const uint8_t *at = memmem(payload, length, "!m", 2);
	if (at == NULL || (size_t)(payload + length - at) < PAYLOAD_MARKER_LENGTH || at[PAYLOAD_MARKER_LENGTH - 1] != '!')
		return false;
	if (!read_hex(at + 2, 6, &publisher) || !read_hex(at + 8, 8, &count) || !read_hex(at + 16, 16, &marker->due_ns))
		return false;
	marker->publisher = (uint32_t)publisher;
	marker->count = (uint32_t)count;
	return true;
}

uint64_t payload_find_seq(const uint8_t *payload, size_t length)
{
	uint64_t seq = 0;
	const uint8_t *at = memmem(payload, length, "\"seq\":", 6);
	if (at == NULL)
		return 0;
	for (at += 6; at < payload + length && *at >= '0' && *at <= '9'; at++)
		seq = seq * 10 + (uint64_t)(*at - '0');
	return seq;
}

size_t payload_count_receipts(const uint8_t *payload, size_t length)
{
	static const char mark[] = "\"delivered\":";
	const uint8_t *end = payload + length, *at = payload;
	size_t count = 0;
	while ((at = memmem(at, (size_t)(end - at), mark, sizeof mark - 1)) != NULL) {
		at += sizeof mark - 1;
		count++;
	}
	return count;
}

bool payload_is_behind_notice(const uint8_t *payload, size_t length)
{
	return memmem(payload, length, "\"behind\":true", 13) != NULL;
}
