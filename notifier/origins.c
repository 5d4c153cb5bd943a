/* origins.c - see origins.h. */
#include "origins.h"

#include <string.h>

void origins_free(struct origins *origins)
{
	for (size_t i = 0; i < ORIGINS_MAX; i++) {
		credential_free(&origins->entries[i].credential);
	}
}

struct origin *origins_get(struct origins *origins, const char *name, const struct lane_limits *limits, int64_t now_ms)
{
	struct origin *oldest = NULL;

	for (size_t i = 0; i < ORIGINS_MAX; i++) {
		struct origin *entry = &origins->entries[i];
		if (strcmp(entry->name, name) == 0) {
			entry->used_ms = now_ms;
			return entry;
		}
		if (entry->lane.in_flight == 0 && (!oldest || entry->used_ms < oldest->used_ms)) {
			oldest = entry;
		}
	}
	if (oldest) {
		credential_free(&oldest->credential);
		credential_init(&oldest->credential);
		lane_init(&oldest->lane, limits, now_ms);
		memcpy(oldest->name, name, strlen(name) + 1);
		oldest->used_ms = now_ms;
	}
	return oldest;
}

unsigned origins_paused(const struct origins *origins)
{
	unsigned paused = 0;
	for (size_t i = 0; i < ORIGINS_MAX; i++) {
		paused += origins->entries[i].name[0] && origins->entries[i].lane.state != LANE_CLOSED ? 1 : 0;
	}
	return paused;
}
