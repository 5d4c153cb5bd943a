/* clean.c - see clean.h. */
#include "clean.h"

#include <stdint.h>
#include <string.h>

#define REPLACEMENT 0xFFFDu

static bool ascii_only;

void clean_set_ascii(bool ascii)
{
	ascii_only = ascii;
}

/* The first character of the text and its length in bytes; what is malformed is one replacement character for each byte. */
static uint32_t decode(const char *text, size_t *length)
{
	const unsigned char *byte = (const unsigned char *)text;
	size_t more = byte[0] < 0xC2 ? 0 : byte[0] < 0xE0 ? 1 : byte[0] < 0xF0 ? 2 : byte[0] < 0xF5 ? 3 : 0;
	uint32_t point = more ? byte[0] & (0x3Fu >> more) : byte[0];
	*length = 1;
	if (!more)
		return byte[0] < 0x80 ? point : REPLACEMENT;
	for (size_t i = 1; i <= more; i++) {
		if ((byte[i] & 0xC0) != 0x80) /* the NUL at the end as well */
			return REPLACEMENT;
		point = point << 6 | (byte[i] & 0x3Fu);
	}
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
	if (point < least[more] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
		return REPLACEMENT;
	*length = more + 1;
	return point;
}

static void encode(struct buffer *out, uint32_t point)
{
	char bytes[4];
	size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
	if (length == 1) {
		bytes[0] = (char)point;
	} else {
		for (size_t i = length - 1; i > 0; i--, point >>= 6)
			bytes[i] = (char)(0x80 | (point & 0x3F));
		bytes[0] = (char)((0xF00u >> length) | point);
	}
	buffer_append(out, bytes, length);
}

static bool is_invisible(uint32_t point)
{
	static const uint32_t ranges[][2] = {{0x7F, 0x9F}, {0x61C, 0x61C}, {0x180E, 0x180E}, {0x200B, 0x200B}, {0x200E, 0x200F},
		{0x202A, 0x202E}, {0x2060, 0x206F}, {0xFEFF, 0xFEFF}, {0xFFF0, 0xFFFB}, {0xE0000, 0xE0FFF}};
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		if (point >= ranges[i][0] && point <= ranges[i][1])
			return true;
	}
	return (point & 0xFFFE) == 0xFFFE;
}

static bool is_break(uint32_t point)
{
	return point == '\n' || point == 0x2028 || point == 0x2029;
}

static void clean_point(struct buffer *out, uint32_t point, const char *indent)
{
	if (is_break(point)) {
		buffer_append_text(out, indent ? "\n" : " ");
		buffer_append_text(out, indent ? indent : "");
	} else if (point == '\t') {
		buffer_append_text(out, " ");
	} else if (ascii_only) {
		encode(out, point >= 0x20 && point < 0x7F ? point : '?');
	} else if (point < 0x20) {
		encode(out, 0x2400 + point); /* control pictures */
	} else {
		encode(out, is_invisible(point) ? REPLACEMENT : point);
	}
}

void clean_lines(struct buffer *out, const char *text, size_t most, const char *indent)
{
	size_t length;
	for (; *text; text += length) {
		if (most-- == 0) {
			buffer_append_text(out, "...");
			return;
		}
		uint32_t point = decode(text, &length);
		if (point == '\r' && text[length] == '\n')
			continue;
		clean_point(out, point, indent);
	}
}

void clean_line(struct buffer *out, const char *text, size_t most)
{
	clean_lines(out, text, most, NULL);
}
