/* password.c - see password.h. Any thread. Unicode is libunistring's. */
#include "password.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

struct range {
	ucs4_t first, last;
};

/* RFC 3454 table B.1: commonly mapped to nothing. */
static const struct range unseen[] = {{0xad, 0xad}, {0x34f, 0x34f}, {0x1806, 0x1806}, {0x180b, 0x180d}, {0x200b, 0x200d},
	{0x2060, 0x2060}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}};
/* Tables C.1.2: other spaces. */
static const struct range spaces[] = {
	{0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
/* Tables C.2.1, C.2.2, C.3 to C.9: controls, private use, no characters, what changes how text is shown, tags. */
static const struct range prohibited[] = {{0, 0x1f}, {0x7f, 0x9f}, {0x340, 0x341}, {0x6dd, 0x6dd}, {0x70f, 0x70f},
	{0x180e, 0x180e}, {0x200c, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x2063}, {0x206a, 0x206f}, {0x2ff0, 0x2ffb},
	{0xd800, 0xf8ff}, {0xfdd0, 0xfdef}, {0xfeff, 0xfeff}, {0xfff9, 0xffff}, {0x1d173, 0x1d17a}, {0x1fffe, 0x1ffff},
	{0x2fffe, 0x2ffff}, {0x3fffe, 0x3ffff}, {0x4fffe, 0x4ffff}, {0x5fffe, 0x5ffff}, {0x6fffe, 0x6ffff}, {0x7fffe, 0x7ffff},
	{0x8fffe, 0x8ffff}, {0x9fffe, 0x9ffff}, {0xafffe, 0xaffff}, {0xbfffe, 0xbffff}, {0xcfffe, 0xcffff}, {0xdfffe, 0xdffff},
	{0xe0001, 0xe0001}, {0xe0020, 0xe007f}, {0xefffe, 0x10ffff}};

#define IN(c, table) is_in(c, table, sizeof(table) / sizeof((table)[0]))

static bool is_in(ucs4_t c, const struct range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (c >= ranges[i].first && c <= ranges[i].last) {
			return true;
		}
	}
	return false;
}

bool password_length_ok(size_t length)
{
	return length >= PASSWORD_BYTES_MIN && length <= PASSWORD_BYTES_MAX;
}

/* RFC 4013 section 2.1, in place; returns the new length. */
static size_t map(uint32_t *text, size_t length)
{
	size_t kept = 0;
	for (size_t i = 0; i < length; i++) {
		if (!IN(text[i], unseen)) {
			text[kept++] = IN(text[i], spaces) ? ' ' : text[i];
		}
	}
	return kept;
}

static bool is_right_to_left(ucs4_t c)
{
	int category = uc_bidi_category(c);
	return category == UC_BIDI_R || category == UC_BIDI_AL;
}

/* RFC 4013 sections 2.3 and 2.4 (RFC 3454 section 6). */
static bool is_allowed(const uint32_t *text, size_t length)
{
	bool right_to_left = false, left_to_right = false;
	for (size_t i = 0; i < length; i++) {
		if (IN(text[i], prohibited)) {
			return false;
		}
		right_to_left = right_to_left || is_right_to_left(text[i]);
		left_to_right = left_to_right || uc_bidi_category(text[i]) == UC_BIDI_L;
	}
	return !right_to_left || (!left_to_right && is_right_to_left(text[0]) && is_right_to_left(text[length - 1]));
}

static void wipe(void *text, size_t bytes)
{
	if (text) {
		explicit_bzero(text, bytes);
		free(text);
	}
}

static bool append(const uint32_t *text, size_t length, struct buffer *out)
{
	size_t bytes_length = 0;
	uint8_t *bytes = u32_to_u8(text, length, NULL, &bytes_length);
	bool appended = bytes && buffer_append(out, bytes, bytes_length);
	wipe(bytes, bytes_length);
	return appended;
}

bool password_prepare(const char *password, size_t length, struct buffer *out)
{
	size_t text_length = 0, normal_length = 0;
	uint32_t *text = u8_to_u32((const uint8_t *)password, length, NULL, &text_length);
	if (!text) {
		return buffer_append(out, password, length); /* not UTF-8 */
	}
	uint32_t *normal = u32_normalize(UNINORM_NFKC, text, map(text, text_length), NULL, &normal_length);
	bool good = normal != NULL;
	if (good) {
		good = normal_length > 0 && is_allowed(normal, normal_length) ? append(normal, normal_length, out)
									      : buffer_append(out, password, length);
	}
	wipe(normal, normal_length * sizeof(normal[0]));
	wipe(text, text_length * sizeof(text[0]));
	return good;
}
