/* payload.h - the body of a benchmark message and the marker in it by which a receiver knows it again.
 *
 *   marker:  !m PPPPPP CCCCCCCC TTTTTTTTTTTTTTTT !     without the spaces, 33 characters, hexadecimal
 *               publisher, its count, the time in ns at which it was sent or due (CLOCK_MONOTONIC)
 *   text:    marker, then x up to the wanted length
 *   json:    {"body":"marker and x"}
 *   json-id: {"id":"a UUID that no run repeats","body":"marker and x"}
 *
 * The marker survives being carried over into a JSON answer as it is, so a receiver searches for it and need not parse JSON.
 * Pure functions.
 */
#ifndef CHAT_BENCH_PAYLOAD_H
#define CHAT_BENCH_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum payload_form { PAYLOAD_TEXT, PAYLOAD_JSON, PAYLOAD_JSON_ID };

#define PAYLOAD_MARKER_LENGTH 33
#define PAYLOAD_COUNT_MAX UINT32_MAX
#define PAYLOAD_PUBLISHERS_MAX 0xffffff

struct payload_marker {
	uint32_t publisher;
	uint32_t count;
	uint64_t due_ns;
};

/* Bytes of a payload whose body has `body_length` characters, which are PAYLOAD_MARKER_LENGTH at least. */
size_t payload_length(enum payload_form form, size_t body_length);
/* Writes one, marker and id still to be patched in. */
void payload_make(uint8_t *out, enum payload_form form, size_t body_length);
/* Patches marker and id into one made before. `run` keeps ids of different runs apart. */
void payload_patch(uint8_t *payload, enum payload_form form, const struct payload_marker *marker, uint64_t run);

bool payload_find_marker(const uint8_t *payload, size_t length, struct payload_marker *marker);
/* The number behind the first "seq": of a delivered message, 0 where there is none. */
uint64_t payload_find_seq(const uint8_t *payload, size_t length);
/* How many members' watermarks a publish of receipts tells. */
size_t payload_count_receipts(const uint8_t *payload, size_t length);
/* Whether it is the notice that stands for a backlog too long to be pushed. */
bool payload_is_behind_notice(const uint8_t *payload, size_t length);

#endif
