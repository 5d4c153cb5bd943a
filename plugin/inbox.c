/* inbox.c - see inbox.h. */
#include "inbox.h"

#include "buffer.h"
#include "host.h"
#include "topic.h"

#include <string.h>

#define EVENT_BYTES_MAX 256

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

void inbox_mentions(struct chat *chat, const struct delivery_item *item)
{
	struct buffer json;

	for (uint32_t i = 0; i < item->mention_count; i++) {
		int64_t user_id;
		memcpy(&user_id, delivery_bytes(item, item->mentions_at) + i * sizeof(user_id), sizeof(user_id));
		const struct user *user = registry_find_user(chat->registry, user_id);
		if (!user || !user->loaded || user_id == item->user_id || !registry_membership(user, item->conversation_id)) {
			continue;
		}
		buffer_init(&json, EVENT_BYTES_MAX);
		if (buffer_append_format(&json, "{\"event\":\"mention\",\"conversation\":%lld,\"seq\":%lld,\"from\":%lld}",
			    (long long)item->conversation_id, (long long)item->seq, (long long)item->user_id)) {
			inbox_publish(chat, user_id, json.data, json.length);
		}
		buffer_free(&json);
	}
}

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
