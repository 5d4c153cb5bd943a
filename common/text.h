/* text.h - UTF-8 and text for people. Pure; any thread. */
#ifndef CHAT_COMMON_TEXT_H
#define CHAT_COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether `bytes` is well-formed UTF-8 (Unicode 15 table 3-7: no overlong form, no surrogate, nothing above U+10FFFF)
 * without U+0000, which PostgreSQL cannot hold. `code_points` (may be NULL) gets the number of code points, and is
 * left alone where the answer is no. */
bool text_check_utf8(const char *bytes, size_t length, size_t *code_points);

/* How many bytes at the start may stand in a JSON string as they are: neither '"' nor '\' nor a control character
 * below U+0020 (RFC 8259 section 7). */
size_t text_json_plain_span(const char *bytes, size_t length);

/* Writes `bytes` to `out` as one printable ASCII line, everything else, '"' and '\' as \xNN, cut with "..." when it
 * does not fit. So it may stand between quotes in a line, and nothing in it ends them.
 * Always NUL-terminated where out_size > 0. For log lines that quote what a stranger sent. Returns `out`. */
const char *text_escape(char *out, size_t out_size, const void *bytes, size_t length);

/* A decimal integer in its one canonical form: no sign, no leading zero, the whole of `text`, min..max.
 * *out is left alone where the answer is no. */
bool text_parse_integer(const char *text, size_t length, int64_t min, int64_t max, int64_t *out);

/* How many bytes at the start of UTF-8 text make whole characters and are at most `size`. */
size_t text_cut(const char *text, size_t size);

/* A number that stands for the text; not 0. With a seed that nobody else knows nobody can find two texts that share one. */
uint64_t text_hash(uint64_t seed, const void *text, size_t length);

#define TEXT_ID_MAX INT64_C(9007199254740991) /* 2^53-1: ids and seqs are exact in every JSON reader */

#endif
