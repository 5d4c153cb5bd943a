/* base64url.c - RFC 4648 section 5 without padding, both ways, strict.
 *
 * Decoding refuses what RFC 4648 section 3.5 lets a decoder refuse: a last character whose unused bits are not zero,
 * so that two texts never mean the same bytes, and a token has one spelling. Pure; any thread.
 */
#include "base64url.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The value of a character, or 64 where it is none. Branches, not a table: the 256 byte table would be mostly cold. */
static uint32_t value_of(char c)
{
	if (c >= 'a' && c <= 'z') {
		return (uint32_t)(c - 'a') + 26;
	}
	if (c >= 'A' && c <= 'Z') {
		return (uint32_t)(c - 'A');
	}
	if (c >= '0' && c <= '9') {
		return (uint32_t)(c - '0') + 52;
	}
	if (c == '-') {
		return 62;
	}
	return c == '_' ? 63 : 64;
}

size_t base64url_encode(const uint8_t *bytes, size_t length, char *out)
{
	size_t at = 0;
	size_t written = 0;

	for (; length - at >= 3; at += 3) {
		uint32_t group = (uint32_t)bytes[at] << 16 | (uint32_t)bytes[at + 1] << 8 | bytes[at + 2];
		out[written++] = alphabet[group >> 18];
		out[written++] = alphabet[group >> 12 & 63];
		out[written++] = alphabet[group >> 6 & 63];
		out[written++] = alphabet[group & 63];
	}
	if (length - at == 1) {
		out[written++] = alphabet[bytes[at] >> 2];
		out[written++] = alphabet[(bytes[at] & 3) << 4];
	} else if (length - at == 2) {
		out[written++] = alphabet[bytes[at] >> 2];
		out[written++] = alphabet[(bytes[at] & 3) << 4 | bytes[at + 1] >> 4];
		out[written++] = alphabet[(bytes[at + 1] & 15) << 2];
	}
	return written;
}

/* The last two or three characters: one or two bytes, and the bits left over must be zero. */
static bool decode_tail(const char *text, size_t length, uint8_t *out)
{
	uint32_t first = value_of(text[0]);
	uint32_t second = value_of(text[1]);
	uint32_t third = length == 3 ? value_of(text[2]) : 0;

	if (((first | second | third) & 64) != 0) {
		return false;
	}
	uint32_t group = first << 18 | second << 12 | third << 6;
	if ((group & (length == 3 ? 0xffU : 0xffffU)) != 0) {
		return false;
	}
	out[0] = (uint8_t)(group >> 16);
	if (length == 3) {
		out[1] = (uint8_t)(group >> 8);
	}
	return true;
}

bool base64url_decode(const char *text, size_t length, uint8_t *out, size_t *out_length)
{
	size_t tail = length % 4;
	size_t written = 0;

	if (tail == 1) {
		return false;
	}
	for (size_t at = 0; at < length - tail; at += 4) {
		uint32_t a = value_of(text[at]);
		uint32_t b = value_of(text[at + 1]);
		uint32_t c = value_of(text[at + 2]);
		uint32_t d = value_of(text[at + 3]);
		if (((a | b | c | d) & 64) != 0) {
			return false;
		}
		uint32_t group = a << 18 | b << 12 | c << 6 | d;
		out[written++] = (uint8_t)(group >> 16);
		out[written++] = (uint8_t)(group >> 8);
		out[written++] = (uint8_t)group;
	}
	if (tail != 0) {
		if (!decode_tail(text + length - tail, tail, out + written)) {
			return false;
		}
		written += tail - 1;
	}
	*out_length = written;
	return true;
}
