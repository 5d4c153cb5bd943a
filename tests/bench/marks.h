/* marks.h - receivers that acknowledge all they get, as delivered and as read, and count what they are told of the others' marks.
 *
 * Each message is marked twice, delivered at once and read behind it, each in a publish of its own and with QoS 1: what a client
 * does that gathers nothing. See load.h.
 */
#ifndef CHAT_BENCH_MARKS_H
#define CHAT_BENCH_MARKS_H

#include "wire.h"

#include <stdbool.h>
#include <stdint.h>

struct load;
struct receiver;

struct mark_counts {
	uint64_t sent;
	uint64_t acked;
	uint64_t refused;
	/* What all receivers got on their conversations' receipts topics. */
	uint64_t publishes;
	uint64_t receipts; /* in these */
	uint64_t bytes;    /* of payload */
};

/* Both, for the message of this number. */
void marks_send(struct receiver *receiver, uint64_t seq);
void marks_puback(struct receiver *receiver, const struct wire_packet *packet);
/* Whether the publish is one of receipts, which is then counted. */
bool marks_take_receipts(struct receiver *receiver, const struct wire_publish *publish);
/* Of the measured part, as `name value` lines. */
void marks_print(const struct load *load, double seconds, uint64_t messages);

#endif
