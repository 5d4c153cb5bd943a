/* json.h - the one door through which JSON from outside enters: cJSON, made strict (RFC 8259).
 *
 * cJSON 1.7.15 alone accepts trailing bytes, a BOM, raw control characters and NUL, numbers such as 012 and 1e999,
 * invalid UTF-8, duplicate keys and \u0000 (which cuts the string). All of that is refused here, and so are lone
 * surrogate escapes, more than `max_depth` nested containers, more than JSON_VALUES_MAX values, and numbers beyond
 * +-(2^53-1), which a double cannot say exactly. So every string of the tree is valid UTF-8 whose strlen() is its length,
 * every number is finite, and no object has a key twice. Pure; any thread.
 */
#ifndef CHAT_COMMON_JSON_H
#define CHAT_COMMON_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 16
/* Members and elements, all together. Far above any request (a sync names some thousand conversations); without it a
 * payload of 1.3 MB made of "[1,1,1,..." would take 60 ms and 40 MB of tree. */
#define JSON_VALUES_MAX 16384

/* Parses the whole of text[0..length). max_depth: at most JSON_DEPTH_MAX; 0 allows no array or object at all. Returns a
 * tree to free with cJSON_Delete, or NULL with *why a static phrase for a person ("duplicate key", "trailing bytes", ...). */
cJSON *json_parse(const char *text, size_t length, unsigned max_depth, const char **why);

/* Whether `item` is a number without a fraction in min..max (|value| <= 2^53-1); *out then holds it. 1.0 and 1e0 are the
 * number 1, as in every JSON reader. NULL is no number. */
bool json_integer(const cJSON *item, int64_t min, int64_t max, int64_t *out);

#endif
