/* overrun.c - see overrun.h. */
#include "overrun.h"

#include "host.h"
#include "topic.h"

/* Whether something was dropped since the last question, whose receiver *session then is. */
static bool was_dropped(struct chat *chat, struct session **session)
{
	uint64_t dropped = host_dropped();
	bool open = chat->reading.open && dropped != chat->reading.dropped;

	chat->reading.dropped = dropped;
	chat->reading.open = false;
	*session =
		open ? registry_session_at(chat->registry, chat->reading.session_index, chat->reading.session_generation) : NULL;
	return *session != NULL;
}

void overrun_reading(struct chat *chat)
{
	struct session *session;
	if (was_dropped(chat, &session) && !session->overrun) {
		log_line(LOG_LEVEL_NOTICE,
			"chat: client '%s' is disconnected: it left so much unread that the broker dropped messages for it "
			"(max_queued_messages, max_queued_bytes)",
			session->client_id);
		session->overrun = true;
		chat_end_session(chat, session, 0); /* at the next tick; what it sends until then is taken */
	}
}

void overrun_may_read(struct chat *chat, const struct session *session, int64_t conversation_id)
{
	chat->reading.session_index = session->index;
	chat->reading.session_generation = session->generation;
	chat->reading.conversation_id = conversation_id;
	chat->reading.open = true;
}

void overrun_settle(struct chat *chat)
{
	struct session *session;
	int64_t conversation_id = chat->reading.conversation_id;

	if (!was_dropped(chat, &session)) {
		return;
	}
	for (uint32_t i = 0; i < session->subscription_count && conversation_id == 0; i++) { /* any will do to ask */
		int64_t id = session->subscriptions[i].conversation_id;
		if (registry_is_subscribed(session, id, TOPIC_MESSAGES)) {
			conversation_id = id;
		}
	}
	struct conversation *conversation = registry_find_conversation(chat->registry, conversation_id);
	if (conversation) {
		conversation->missed = true;
		registry_queue(chat->registry, conversation);
	}
}

void overrun_ask(struct chat *chat, int64_t conversation_id)
{
	char topic[TOPIC_TEXT_MAX];
	struct host_properties properties = {0};
	topic_format(TOPIC_MESSAGES, conversation_id, topic);
	(void)chat_publish(chat, topic, "", 0, 0, &properties);
}
