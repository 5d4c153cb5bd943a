/* presence_rules.c - see presence_rules.h. */
#include "presence_rules.h"

#include <string.h>

static const char *const names[] = {
	[PRESENCE_OFFLINE] = "offline",
	[PRESENCE_AWAY] = "away",
	[PRESENCE_BUSY] = "busy",
	[PRESENCE_ONLINE] = "online",
};
#define NAMES (sizeof(names) / sizeof(names[0]))

static bool is_word(const char *text, size_t length, const char *word)
{
	return strlen(word) == length && memcmp(text, word, length) == 0;
}

const char *presence_status_name(enum presence_status status)
{
	return names[status];
}

bool presence_status_parse(const char *text, size_t length, enum presence_status *status)
{
	for (size_t i = 0; i < NAMES; i++) {
		if (is_word(text, length, names[i])) {
			*status = (enum presence_status)i;
			return true;
		}
	}
	*status = PRESENCE_OFFLINE;
	return is_word(text, length, "invisible");
}

void presence_add(struct presence_view *view, const struct presence_view *device)
{
	if (device->status > view->status || (device->status == view->status && device->set_at_ms > view->set_at_ms)) {
		*view = *device;
	}
	if (view->status == PRESENCE_OFFLINE) { /* an invisible device says nothing to anybody */
		*view = (struct presence_view){0};
	}
}

bool presence_views_equal(const struct presence_view *left, const struct presence_view *right)
{
	return left->status == right->status && left->text_length == right->text_length &&
	       (left->text_length == 0 || memcmp(left->text, right->text, left->text_length) == 0);
}

bool presence_decide(struct presence_told *told, const struct presence_change *change)
{
	if (change->status >= told->status || change->chosen) {
		told->falls_ms = 0;
		told->status = change->status;
		return !change->same;
	}
	if (told->falls_ms == 0) {
		told->falls_ms = change->now_ms + change->grace_ms;
	}
	if (change->now_ms < told->falls_ms || change->unknown) {
		return false;
	}
	told->falls_ms = 0;
	told->status = change->status;
	return true;
}

bool presence_payload(struct buffer *out, int64_t user_id, const struct presence_view *view, int64_t last_seen_ms)
{
	buffer_append_format(out, "{\"user\":%lld,\"status\":\"%s\"", (long long)user_id, presence_status_name(view->status));
	if (last_seen_ms != 0) {
		buffer_append_format(out, ",\"last_seen_at\":%lld", (long long)last_seen_ms);
	}
	if (view->text_length > 0) {
		buffer_append_text(out, ",\"text\":");
		buffer_append_json_string(out, view->text, view->text_length);
	}
	return buffer_append_text(out, "}");
}
