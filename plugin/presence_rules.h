/* presence_rules.h - what others see of a user: statuses, the highest of many, and when a change is told. Pure.
 *
 * A user is as their highest device is, and offline where no device is connected or all are invisible. What rises is told at
 * once; so is what the user chose (presence.set). What falls because a connection ended is told only when nothing has come back
 * within the grace period, so that a reconnect is never seen:
 *
 *            a connection ends             grace is over, nothing came back
 *   online ---------------------> falling ----------------------------------> away, offline: told
 *      ^                             |
 *      +-----------------------------+ something came back: nobody has noticed
 */
#ifndef CHAT_PLUGIN_PRESENCE_RULES_H
#define CHAT_PLUGIN_PRESENCE_RULES_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In rising order, as others see them. A device may be invisible too: that is PRESENCE_OFFLINE here. */
enum presence_status { PRESENCE_OFFLINE, PRESENCE_AWAY, PRESENCE_BUSY, PRESENCE_ONLINE };

/* As in the table and in payloads. */
const char *presence_status_name(enum presence_status status);
/* Also "invisible", which is PRESENCE_OFFLINE for others. False: there is no such status. */
__attribute__((warn_unused_result)) bool presence_status_parse(const char *text, size_t length, enum presence_status *status);

/* What a device says of itself, and what a user's devices say together. */
struct presence_view {
	enum presence_status status;
	const char *text; /* NULL: none; borrowed */
	size_t text_length;
	int64_t set_at_ms; /* when it was said; 0: it was not */
};

/* The higher of the two stays in `view`; of equals, what was said last. Begins with a zeroed view: offline. */
void presence_add(struct presence_view *view, const struct presence_view *device);
bool presence_views_equal(const struct presence_view *left, const struct presence_view *right);

/* What others were told last. */
struct presence_told {
	enum presence_status status;
	int64_t falls_ms; /* monotonic: until then something may come back; 0: nothing falls */
};

struct presence_change {
	enum presence_status status; /* of the devices that are connected now */
	bool same;                   /* text and status are what was told */
	bool chosen;                 /* by presence.set: a fall is not by accident */
	bool unknown;                /* a connection is there of which it is not known yet what it says: nothing falls */
	int64_t now_ms;              /* monotonic */
	int64_t grace_ms;
};

/* True: it is to be told now, and told->status is the new one. Otherwise, where told->falls_ms is not 0, it is to be asked again
 * then, or when what was unknown is known. */
__attribute__((warn_unused_result)) bool presence_decide(struct presence_told *told, const struct presence_change *change);

/* {"user":7,"status":"online","last_seen_at":…,"text":"…"}; last_seen_at 0: left out. False: no memory. */
__attribute__((warn_unused_result)) bool presence_payload(
	struct buffer *out, int64_t user_id, const struct presence_view *view, int64_t last_seen_ms);
#define PRESENCE_TEXT_BYTES_MAX 560                                    /* 140 characters */
#define PRESENCE_PAYLOAD_BYTES_MAX (6 * PRESENCE_TEXT_BYTES_MAX + 128) /* \u00XX for each byte, at worst */

#endif
