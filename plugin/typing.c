/* typing.c - see typing.h. */
#include "typing.h"

#include <stddef.h>

static struct typing_notice *find(struct typing *typing, int64_t conversation_id)
{
	for (int i = 0; i < TYPING_CONVERSATIONS_MAX; i++) {
		if (typing->notices[i].conversation_id == conversation_id) {
			return &typing->notices[i];
		}
	}
	return NULL;
}

static bool is_due(const struct typing_notice *notice, int64_t now_ms)
{
	return notice->conversation_id == 0 || now_ms - notice->passed_ms >= TYPING_EVERY_MS;
}

/* One that is free or was longest ago; NULL while all of them are too young to be forgotten. */
static struct typing_notice *find_room(struct typing *typing, int64_t now_ms)
{
	struct typing_notice *oldest = &typing->notices[0];
	for (int i = 1; i < TYPING_CONVERSATIONS_MAX && oldest->conversation_id != 0; i++) {
		struct typing_notice *notice = &typing->notices[i];
		if (notice->conversation_id == 0 || notice->passed_ms < oldest->passed_ms) {
			oldest = notice;
		}
	}
	return is_due(oldest, now_ms) ? oldest : NULL;
}

bool typing_passes(struct typing *typing, int64_t conversation_id, bool is_typing, int64_t now_ms)
{
	struct typing_notice *notice = find(typing, conversation_id);

	if (!is_typing) {
		bool passes = notice && !notice->ended;
		if (passes) {
			notice->ended = true;
		}
		return passes;
	}
	if (!notice) {
		notice = find_room(typing, now_ms);
	}
	if (!notice || !is_due(notice, now_ms)) {
		return false;
	}
	*notice = (struct typing_notice){.conversation_id = conversation_id, .passed_ms = now_ms};
	return true;
}
