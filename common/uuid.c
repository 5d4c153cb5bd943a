/* uuid.c - UUIDs as 16 bytes (RFC 9562).
 *
 * Each thread keeps a block of random bytes from the kernel and hands it out once, ten bytes to a UUID, so making one
 * takes no lock and rarely a system call. Text is read and written by a fixed table of positions.
 */
#include "uuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RANDOM_BYTES_EACH 10 /* 74 bits are used */
#define RANDOM_BLOCK 250     /* getrandom(2): up to 256 bytes come whole, no signal cuts them short */

/* Where the two hexadecimal digits of each byte stand in the text. */
static const uint8_t digits_at[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
static const uint8_t hyphens_at[4] = {8, 13, 18, 23};

/* 0..15, or -1. */
static int hex_value(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	if (c >= 'a' && c <= 'f') {
		return c - 'a' + 10;
	}
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool uuid_parse(const char *text, size_t length, uint8_t out[16])
{
	uint8_t uuid[16];

	if (length != UUID_TEXT_LENGTH) {
		return false;
	}
	for (size_t i = 0; i < sizeof(hyphens_at); i++) {
		if (text[hyphens_at[i]] != '-') {
			return false;
		}
	}
	for (size_t i = 0; i < sizeof(uuid); i++) {
		int high = hex_value(text[digits_at[i]]);
		int low = hex_value(text[digits_at[i] + 1]);
		if (high < 0 || low < 0) {
			return false;
		}
		uuid[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(out, uuid, sizeof(uuid));
	return true;
}

void uuid_format(const uint8_t uuid[16], char out[UUID_TEXT_LENGTH])
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < sizeof(hyphens_at); i++) {
		out[hyphens_at[i]] = '-';
	}
	for (size_t i = 0; i < 16; i++) {
		out[digits_at[i]] = hex[uuid[i] >> 4];
		out[digits_at[i] + 1] = hex[uuid[i] & 15];
	}
}

/* Ten random bytes that nobody else gets. Aborts where the kernel has none to give (Linux before 3.17, or a system call
 * filter that forbids getrandom): an id that is not unique would make somebody's message look like a resend. */
static void take_random(uint8_t out[RANDOM_BYTES_EACH])
{
	static _Thread_local uint8_t block[RANDOM_BLOCK];
	static _Thread_local size_t left;

	if (left == 0) {
		ssize_t got;
		do {
			got = getrandom(block, sizeof(block), 0);
		} while (got < 0 && errno == EINTR);
		if (got != (ssize_t)sizeof(block)) {
			abort();
		}
		left = sizeof(block);
	}
	left -= RANDOM_BYTES_EACH;
	memcpy(out, block + left, RANDOM_BYTES_EACH);
}

void uuid_make(int64_t unix_ms, uint8_t out[16])
{
	uint64_t time = (uint64_t)unix_ms;

	for (unsigned i = 0; i < 6; i++) {
		out[i] = (uint8_t)(time >> (40 - 8 * i));
	}
	take_random(out + 6);
	out[6] = (uint8_t)((out[6] & 0x0f) | 0x70); /* version 7 */
	out[8] = (uint8_t)((out[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
}
