/* json.c - strict JSON: a checker of the whole grammar first, then cJSON as the builder of the tree.
 *
 *   text ──scan: UTF-8, grammar, escapes, depth, count──▶ cJSON ──walk: number range, duplicate keys──▶ tree
 *
 * The scan walks RFC 8259's grammar once, so cJSON never sees a text that it might read otherwise than others do, and
 * hostile text costs no allocation. What only the decoded tree can show (two spellings of one key, the size of a number)
 * is looked at afterwards. Time is linear but for the sorting of the keys of large objects, O(n log n) in the bytes of the
 * text; recursion is bounded by JSON_DEPTH_MAX in the scan, in cJSON and in cJSON_Delete. Pure; any thread (cJSON keeps
 * a global of its own for cJSON_GetErrorPtr, which therefore nobody may use).
 */
#include "json.h"

#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 63 /* cJSON 1.7.15 reads no more of a number */
#define EXPONENT_MAX 308    /* a negative one: no double is smaller, and PostgreSQL's numeric ends at 16,383 places */
#define FEW_KEYS 12         /* up to here comparing each key with each is faster than sorting */

struct scan {
	const char *text;
	size_t length;
	size_t at;
	unsigned depth_left;
	unsigned values_left;
	const char *why; /* set by whoever returns false */
};

static bool scan_value(struct scan *scan);

static bool refuse(struct scan *scan, const char *why)
{
	scan->why = why;
	return false;
}

/* The byte at the cursor, 0 at the end: text_check_utf8 has made sure that there is no other 0. */
static char peek(const struct scan *scan)
{
	return scan->at < scan->length ? scan->text[scan->at] : '\0';
}

static void skip_blank(struct scan *scan)
{
	while (scan->at < scan->length) {
		char c = scan->text[scan->at];
		if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
			return;
		}
		scan->at++;
	}
}

/* The four hexadecimal digits after \u; -1 where there are none. */
static int scan_code_unit(struct scan *scan)
{
	int unit = 0;

	for (unsigned i = 0; i < 4; i++) {
		char c = peek(scan);
		int digit;
		if (c >= '0' && c <= '9') {
			digit = c - '0';
		} else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
			digit = (c | 0x20) - 'a' + 10;
		} else {
			return -1;
		}
		unit = unit << 4 | digit;
		scan->at++;
	}
	return unit;
}

/* After \u: one code unit, or a surrogate pair written as two escapes. */
static bool scan_unicode_escape(struct scan *scan)
{
	int unit = scan_code_unit(scan);

	if (unit < 0) {
		return refuse(scan, "bad escape");
	}
	if (unit == 0) {
		return refuse(scan, "U+0000 in a string");
	}
	if (unit < 0xd800 || unit > 0xdfff) {
		return true;
	}
	if (unit > 0xdbff || scan->length - scan->at < 6 || memcmp(scan->text + scan->at, "\\u", 2) != 0) {
		return refuse(scan, "lone surrogate");
	}
	scan->at += 2;
	unit = scan_code_unit(scan);
	return (unit >= 0xdc00 && unit <= 0xdfff) || refuse(scan, "lone surrogate");
}

static bool scan_escape(struct scan *scan)
{
	scan->at++;
	switch (peek(scan)) {
	case '"':
	case '\\':
	case '/':
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		scan->at++;
		return true;
	case 'u':
		scan->at++;
		return scan_unicode_escape(scan);
	default:
		return refuse(scan, "bad escape");
	}
}

static bool scan_string(struct scan *scan)
{
	scan->at++;
	for (;;) {
		scan->at += text_json_plain_span(scan->text + scan->at, scan->length - scan->at);
		if (scan->at == scan->length) {
			return refuse(scan, "unterminated string");
		}
		switch (scan->text[scan->at]) {
		case '"':
			scan->at++;
			return true;
		case '\\':
			if (!scan_escape(scan)) {
				return false;
			}
			break;
		default:
			return refuse(scan, "control character in a string");
		}
	}
}

/* Returns whether there was at least one digit. */
static bool scan_digits(struct scan *scan)
{
	size_t first = scan->at;

	while (peek(scan) >= '0' && peek(scan) <= '9') {
		scan->at++;
	}
	return scan->at > first;
}

/* Whether the digits are at most EXPONENT_MAX; leading zeros are allowed here. */
static bool exponent_fits(const char *digits, size_t length)
{
	unsigned value = 0;

	for (size_t i = 0; i < length && value <= EXPONENT_MAX; i++) {
		value = value * 10 + (unsigned)(digits[i] - '0');
	}
	return value <= EXPONENT_MAX;
}

static bool scan_number(struct scan *scan)
{
	size_t first = scan->at;

	if (peek(scan) == '-') {
		scan->at++;
	}
	if (peek(scan) == '0') {
		scan->at++;
	} else if (!scan_digits(scan)) {
		return refuse(scan, "bad number");
	}
	if (peek(scan) == '.') {
		scan->at++;
		if (!scan_digits(scan)) {
			return refuse(scan, "bad number");
		}
	}
	if (peek(scan) == 'e' || peek(scan) == 'E') {
		scan->at++;
		size_t exponent = scan->at;
		if (peek(scan) == '+' || peek(scan) == '-') {
			scan->at++;
		}
		if (!scan_digits(scan)) {
			return refuse(scan, "bad number");
		}
		if (scan->text[exponent] == '-' && !exponent_fits(scan->text + exponent + 1, scan->at - exponent - 1)) {
			return refuse(scan, "number too small");
		}
	}
	/* A digit here follows a leading zero; a sign, point or letter would be refused by the caller, less clearly. */
	if ((peek(scan) >= '0' && peek(scan) <= '9') || peek(scan) == '.') {
		return refuse(scan, "bad number");
	}
	return scan->at - first <= NUMBER_BYTES_MAX || refuse(scan, "number too long");
}

static bool scan_literal(struct scan *scan, const char *literal, size_t length)
{
	if (scan->length - scan->at < length || memcmp(scan->text + scan->at, literal, length) != 0) {
		return refuse(scan, "unknown literal");
	}
	scan->at += length;
	return true;
}

static bool scan_member(struct scan *scan)
{
	if (peek(scan) != '"') {
		return refuse(scan, "a key must be a string");
	}
	if (!scan_string(scan)) {
		return false;
	}
	skip_blank(scan);
	if (peek(scan) != ':') {
		return refuse(scan, "':' missing after a key");
	}
	scan->at++;
	skip_blank(scan);
	return scan_value(scan);
}

/* From the opening bracket to `close`: an object's members or an array's elements. */
static bool scan_container(struct scan *scan, char close)
{
	if (scan->depth_left == 0) {
		return refuse(scan, "too deeply nested");
	}
	scan->depth_left--;
	scan->at++;
	skip_blank(scan);
	if (peek(scan) != close) {
		for (;;) {
			if (!(close == '}' ? scan_member(scan) : scan_value(scan))) {
				return false;
			}
			skip_blank(scan);
			if (peek(scan) != ',') {
				break;
			}
			scan->at++;
			skip_blank(scan);
		}
		if (peek(scan) != close) {
			return refuse(scan,
				scan->at == scan->length ? "unterminated array or object" : "',' or a closing bracket missing");
		}
	}
	scan->at++;
	scan->depth_left++;
	return true;
}

static bool scan_value(struct scan *scan)
{
	if (scan->values_left == 0) {
		return refuse(scan, "too many values");
	}
	scan->values_left--;
	switch (peek(scan)) {
	case '{':
		return scan_container(scan, '}');
	case '[':
		return scan_container(scan, ']');
	case '"':
		return scan_string(scan);
	case 't':
		return scan_literal(scan, "true", 4);
	case 'f':
		return scan_literal(scan, "false", 5);
	case 'n':
		return scan_literal(scan, "null", 4);
	case '-':
	case '0':
	case '1':
	case '2':
	case '3':
	case '4':
	case '5':
	case '6':
	case '7':
	case '8':
	case '9':
		return scan_number(scan);
	default:
		return refuse(scan, "a value is missing");
	}
}

static bool scan_text(struct scan *scan)
{
	if (scan->length >= 3 && memcmp(scan->text, "\xef\xbb\xbf", 3) == 0) {
		return refuse(scan, "byte order mark");
	}
	if (!text_check_utf8(scan->text, scan->length, NULL)) {
		return refuse(scan, "not UTF-8, or a NUL in it");
	}
	skip_blank(scan);
	if (scan->at == scan->length) {
		return refuse(scan, "empty");
	}
	if (!scan_value(scan)) {
		return false;
	}
	skip_blank(scan);
	return scan->at == scan->length || refuse(scan, "trailing bytes");
}

static int compare_keys(const void *left, const void *right)
{
	return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* NULL where no two of the object's `count` keys are equal, else why not. */
static const char *check_many_keys(const cJSON *object, size_t count)
{
	const char *why = NULL;
	const char **keys = malloc(count * sizeof(*keys));

	if (keys == NULL) {
		return "no memory";
	}
	size_t filled = 0;
	for (const cJSON *item = object->child; item != NULL; item = item->next) {
		keys[filled++] = item->string;
	}
	qsort(keys, count, sizeof(*keys), compare_keys);
	for (size_t i = 1; i < count && why == NULL; i++) {
		if (strcmp(keys[i - 1], keys[i]) == 0) {
			why = "duplicate key";
		}
	}
	free(keys);
	return why;
}

static const char *check_few_keys(const cJSON *object)
{
	for (const cJSON *item = object->child; item != NULL; item = item->next) {
		for (const cJSON *other = item->next; other != NULL; other = other->next) {
			if (strcmp(item->string, other->string) == 0) {
				return "duplicate key";
			}
		}
	}
	return NULL;
}

/* NULL, or why the tree is refused. */
static const char *check_tree(const cJSON *tree)
{
	const char *why = NULL;
	size_t count = 0;

	if (cJSON_IsNumber(tree)) {
		return fabs(tree->valuedouble) <= (double)TEXT_ID_MAX ? NULL : "number too large";
	}
	for (const cJSON *item = tree->child; item != NULL && why == NULL; item = item->next) {
		why = check_tree(item);
		count++;
	}
	if (why == NULL && cJSON_IsObject(tree)) {
		why = count <= FEW_KEYS ? check_few_keys(tree) : check_many_keys(tree, count);
	}
	return why;
}

cJSON *json_parse(const char *text, size_t length, unsigned max_depth, const char **why)
{
	struct scan scan = {
		.text = text,
		.length = length,
		.depth_left = max_depth < JSON_DEPTH_MAX ? max_depth : JSON_DEPTH_MAX,
		.values_left = JSON_VALUES_MAX,
	};

	if (!scan_text(&scan)) {
		*why = scan.why;
		return NULL;
	}
	cJSON *tree = cJSON_ParseWithLengthOpts(text, length, NULL, false);
	if (tree == NULL) { /* the grammar is right, so nothing else is left */
		*why = "no memory";
		return NULL;
	}
	*why = check_tree(tree);
	if (*why != NULL) {
		cJSON_Delete(tree);
		return NULL;
	}
	return tree;
}

bool json_integer(const cJSON *item, int64_t min, int64_t max, int64_t *out)
{
	if (!cJSON_IsNumber(item) || !(fabs(item->valuedouble) <= (double)TEXT_ID_MAX)) {
		return false;
	}
	int64_t value = (int64_t)item->valuedouble;
	if ((double)value != item->valuedouble || value < min || value > max) {
		return false;
	}
	*out = value;
	return true;
}
