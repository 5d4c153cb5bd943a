/* origins.h - one app's Web Push services, by origin: each with its own pace, breaker and VAPID token, so that an endpoint of
 * somebody's making that is slow, or says no to everything, holds up nobody else's.
 */
#ifndef CHAT_NOTIFIER_ORIGINS_H
#define CHAT_NOTIFIER_ORIGINS_H

#include "credential.h"
#include "endpoint.h"
#include "lane.h"

#define ORIGINS_MAX 64 /* browsers have a handful; beyond that, the one that was idle longest makes room */

struct origin {
	char name[ENDPOINT_ORIGIN_SIZE]; /* "": free */
	struct lane lane;
	struct credential credential;
	int64_t used_ms;
};

struct origins {
	struct origin entries[ORIGINS_MAX];
};

void origins_free(struct origins *origins);
/* NULL: all are busy. */
struct origin *origins_get(struct origins *origins, const char *name, const struct lane_limits *limits, int64_t now_ms);
/* How many have an open breaker, or are on trial. */
unsigned origins_paused(const struct origins *origins);

#endif
