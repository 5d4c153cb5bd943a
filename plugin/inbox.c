/* inbox.c - see inbox.h. */
#include "inbox.h"

#include "buffer.h"
#include "envelope.h"
#include "host.h"
#include "topic.h"

#include <stdlib.h>
#include <string.h>

#define EVENT_BYTES_MAX 256
/* What a few batches can mention while one load is under way. */
#define MENTIONS_WAITING_MAX 10000

void inbox_publish(struct chat *chat, int64_t user_id, const char *json, size_t length)
{
	const struct user *user = registry_find_user(chat->registry, user_id);
	struct host_properties properties = {.json = true};
	char topic[TOPIC_TEXT_MAX];

	if (user && user->sessions) {
		topic_format(TOPIC_INBOX, user_id, topic);
		(void)chat_publish(chat, topic, json, length, 1, &properties);
	}
}

/* ---- events ---- */

static bool is_done(const struct chat *chat, int64_t event_id)
{
	for (size_t i = 0; i < INBOX_DONE_MAX; i++) {
		if (chat->events.done[i] == event_id) {
			return true;
		}
	}
	return false;
}

static void note_done(struct chat *chat, int64_t event_id)
{
	chat->events.done[chat->events.next] = event_id;
	chat->events.next = (chat->events.next + 1) % INBOX_DONE_MAX;
}

void inbox_announced(struct chat *chat, int64_t user_id, int64_t event_id)
{
	const struct user *user = registry_find_user(chat->registry, user_id);

	chat->events.newest = event_id > chat->events.newest ? event_id : chat->events.newest;
	if (user && user->sessions) {
		(void)loader_inbox(chat->loader, event_id);
	} else {
		note_done(chat, event_id);
	}
}

void inbox_event(struct chat *chat, const struct load_result *event)
{
	if (!is_done(chat, event->event_id)) { /* else announced, and found as well */
		note_done(chat, event->event_id);
		inbox_publish(chat, event->user_id, event->text, event->text_length);
	}
}

void inbox_resume(struct chat *chat)
{
	int64_t after = chat->events.newest - INBOX_DONE_MAX / 2; /* of which all that were dealt with are known */

	if (!chat->events.asking) { /* else the question was lost with the connection */
		after = after > chat->events.before ? after : chat->events.before;
		chat->events.after = chat->events.begun ? after : INT64_MAX;
		chat->events.asking = true;
	}
	loader_missed(chat->loader, chat->events.after);
}

void inbox_missed(struct chat *chat, const struct load_result *missed)
{
	chat->events.asking = false;
	if (!chat->events.begun || missed->last_seq < chat->events.newest) { /* an older state of the database: it numbers anew */
		memset(&chat->events, 0, sizeof(chat->events));
		chat->events.begun = true;
		chat->events.before = chat->events.newest = missed->last_seq;
		return;
	}
	for (size_t i = 0; i < missed->count; i++) {
		if (!is_done(chat, missed->last_seqs[i])) {
			inbox_announced(chat, missed->memberships[i].conversation_id, missed->last_seqs[i]);
		}
	}
}

/* ---- mentions ---- */

struct waiting_mention {
	int64_t user_id, conversation_id, seq, from;
	uint32_t members_version;
};

enum fate { FATE_TOLD, FATE_NOT_THEIRS, FATE_UNKNOWN };

static enum fate tell_mention(struct chat *chat, const struct waiting_mention *mention)
{
	const struct user *user = registry_find_user(chat->registry, mention->user_id);
	const struct membership *membership = user && user->loaded ? registry_membership(user, mention->conversation_id) : NULL;
	struct buffer json;

	if (!membership || mention->user_id == mention->from) {
		return FATE_NOT_THEIRS;
	}
	if (membership->members_version < mention->members_version) {
		return FATE_UNKNOWN;
	}
	if (mention->seq < membership->first_seq) {
		return FATE_NOT_THEIRS; /* a member since then */
	}
	buffer_init(&json, EVENT_BYTES_MAX);
	if (buffer_append_format(&json, "{\"event\":\"mention\",\"conversation\":%lld,\"seq\":%lld,\"from\":%lld}",
		    (long long)mention->conversation_id, (long long)mention->seq, (long long)mention->from)) {
		inbox_publish(chat, mention->user_id, json.data, json.length);
	}
	buffer_free(&json);
	return FATE_TOLD;
}

/* False: no room. The mention is not told then; the message is, and says whom it mentions. */
static bool wait_for_membership(struct chat *chat, const struct waiting_mention *mention)
{
	if (chat->mention_count == chat->mention_capacity) {
		uint32_t larger = chat->mention_capacity * 2 + 16;
		struct waiting_mention *moved =
			larger <= MENTIONS_WAITING_MAX ? realloc(chat->mentions, larger * sizeof(moved[0])) : NULL;
		if (!moved) {
			return false;
		}
		chat->mentions = moved;
		chat->mention_capacity = larger;
	}
	chat->mentions[chat->mention_count++] = *mention;
	return true;
}

void inbox_mentions(struct chat *chat, const struct delivery_item *item)
{
	int64_t unknown[ENVELOPE_MENTIONS_MAX];
	size_t unknown_count = 0;

	for (uint32_t i = 0; i < item->mention_count; i++) {
		struct waiting_mention mention = {.conversation_id = item->conversation_id,
			.seq = item->seq,
			.from = item->user_id,
			.members_version = item->members_version};
		memcpy(&mention.user_id, delivery_bytes(item, item->mentions_at) + i * sizeof(mention.user_id),
			sizeof(mention.user_id));
		if (tell_mention(chat, &mention) == FATE_UNKNOWN && wait_for_membership(chat, &mention)) {
			unknown[unknown_count++] = mention.user_id;
		}
	}
	if (unknown_count > 0) { /* without memory for it, the next load of any of them settles it */
		(void)loader_conversation(chat->loader, item->conversation_id, unknown, unknown_count, false);
	}
}

void inbox_settle(struct chat *chat)
{
	uint32_t left = 0;
	for (uint32_t i = 0; i < chat->mention_count; i++) {
		if (tell_mention(chat, &chat->mentions[i]) == FATE_UNKNOWN) {
			chat->mentions[left++] = chat->mentions[i];
		}
	}
	chat->mention_count = left;
}

/* ---- read positions ---- */

void inbox_read(struct chat *chat, const struct delivery_item *item)
{
	const struct user *user = registry_find_user(chat->registry, item->user_id);
	struct buffer json;

	if (!user || !user->sessions || !user->sessions->next_of_user) {
		return; /* no other device is here */
	}
	buffer_init(&json, EVENT_BYTES_MAX);
	if (buffer_append_format(&json, "{\"event\":\"read\",\"conversation\":%lld,\"read\":%lld}",
		    (long long)item->conversation_id, (long long)item->read)) {
		inbox_publish(chat, item->user_id, json.data, json.length);
	}
	buffer_free(&json);
}
