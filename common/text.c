/* text.c - UTF-8 and text for people.
 *
 * Both scans look at eight bytes at a time while nothing needs care, since nearly all text that passes is ASCII; the
 * word tests may say "look closer" too often, never too seldom, and the byte loop after them decides. Pure; any thread.
 */
#include "text.h"

#include <string.h>

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))
#define HIGH_BITS EACH_BYTE(0x80U)

static uint64_t load_word(const char *bytes)
{
	uint64_t word;
	memcpy(&word, bytes, sizeof(word));
	return word;
}

/* Nonzero if a byte of `word` is below `limit` (at most 0x80), or (only then it may be wrong about the bytes above it)
 * follows one that is. Bit Twiddling Hacks, "Determine if a word has a byte less than n". */
static uint64_t has_below(uint64_t word, uint64_t limit)
{
	return (word - EACH_BYTE(limit)) & ~word & HIGH_BITS;
}

static uint64_t has_byte(uint64_t word, uint64_t byte)
{
	return has_below(word ^ EACH_BYTE(byte), 1);
}

/* The number of bytes in U+0001..U+007F at the start. */
static size_t ascii_span(const char *bytes, size_t length)
{
	size_t at = 0;

	while (length - at >= sizeof(uint64_t)) {
		uint64_t word = load_word(bytes + at);
		if (((word & HIGH_BITS) | has_below(word, 1)) != 0) {
			break;
		}
		at += sizeof(uint64_t);
	}
	while (at < length && (uint8_t)(bytes[at] - 1) < 0x7f) {
		at++;
	}
	return at;
}

size_t text_json_plain_span(const char *bytes, size_t length)
{
	size_t at = 0;

	while (length - at >= sizeof(uint64_t)) {
		uint64_t word = load_word(bytes + at);
		if ((has_below(word, 0x20) | has_byte(word, '"') | has_byte(word, '\\')) != 0) {
			break;
		}
		at += sizeof(uint64_t);
	}
	while (at < length && (uint8_t)bytes[at] >= 0x20 && bytes[at] != '"' && bytes[at] != '\\') {
		at++;
	}
	return at;
}

/* Unicode 15 table 3-7, all but its first row: the length of the sequence of two or more bytes at the start, 0 if ill-formed. */
static size_t sequence_length(const char *bytes, size_t length)
{
	uint8_t lead = (uint8_t)bytes[0];
	size_t need;
	uint8_t low = 0x80;
	uint8_t high = 0xbf;

	if (lead >= 0xc2 && lead <= 0xdf) {
		need = 2;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		need = 3;
		low = lead == 0xe0 ? 0xa0 : 0x80;  /* below: overlong */
		high = lead == 0xed ? 0x9f : 0xbf; /* above: surrogates */
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		need = 4;
		low = lead == 0xf0 ? 0x90 : 0x80;  /* below: overlong */
		high = lead == 0xf4 ? 0x8f : 0xbf; /* above: beyond U+10FFFF */
	} else {
		return 0;
	}
	if (length < need || (uint8_t)bytes[1] < low || (uint8_t)bytes[1] > high) {
		return 0;
	}
	for (size_t i = 2; i < need; i++) {
		if (((uint8_t)bytes[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	return need;
}

bool text_check_utf8(const char *bytes, size_t length, size_t *code_points)
{
	size_t at = 0;
	size_t continuation_bytes = 0;

	while (at < length) {
		size_t step = ascii_span(bytes + at, length - at);
		if (step == 0) {
			step = sequence_length(bytes + at, length - at);
			if (step == 0) {
				return false;
			}
			continuation_bytes += step - 1;
		}
		at += step;
	}
	if (code_points != NULL) {
		*code_points = length - continuation_bytes;
	}
	return true;
}

const char *text_escape(char *out, size_t out_size, const void *bytes, size_t length)
{
	static const char hex[] = "0123456789abcdef";
	static const char cut[] = "...";
	const uint8_t *source = bytes;
	size_t written = 0;
	size_t safe = 0; /* where the mark of a cut still fits */

	if (out_size == 0) {
		return out;
	}
	for (size_t i = 0; i < length; i++) {
		bool plain = source[i] >= 0x20 && source[i] < 0x7f && source[i] != '"' && source[i] != '\\';
		size_t need = plain ? 1 : 4;
		if (written + need >= out_size) {
			size_t mark = out_size - 1 < sizeof(cut) - 1 ? out_size - 1 : sizeof(cut) - 1;
			memcpy(out + safe, cut, mark);
			written = safe + mark;
			break;
		}
		if (plain) {
			out[written] = (char)source[i];
		} else {
			out[written] = '\\';
			out[written + 1] = 'x';
			out[written + 2] = hex[source[i] >> 4];
			out[written + 3] = hex[source[i] & 15];
		}
		written += need;
		if (written + sizeof(cut) <= out_size) {
			safe = written;
		}
	}
	out[written] = '\0';
	return out;
}

bool text_parse_integer(const char *text, size_t length, int64_t min, int64_t max, int64_t *out)
{
	int64_t value = 0;

	if (length == 0 || (length > 1 && text[0] == '0')) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9') {
			return false;
		}
		int64_t digit = text[i] - '0';
		if (value > (INT64_MAX - digit) / 10) {
			return false;
		}
		value = value * 10 + digit;
	}
	if (value < min || value > max) {
		return false;
	}
	*out = value;
	return true;
}

size_t text_cut(const char *text, size_t size)
{
	size_t length = strnlen(text, size + 1);
	if (length <= size) {
		return length;
	}
	/* text[size] begins a character unless it is a continuation byte (10xxxxxx). */
	for (length = size; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80; length--) {
	}
	return length;
}

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

uint64_t text_hash(uint64_t seed, const void *text, size_t length)
{
	const unsigned char *bytes = text;
	uint64_t value = seed;
	for (size_t i = 0; i < length; i++) {
		value = mix(value + bytes[i] + 1);
	}
	return value ? value : 1;
}
