/* respond.c - see respond.h. */
#include "respond.h"

#include <string.h>

/* The session that asked. Answers to messages may come after a restart: they go to the client id, where it is still that
 * user's. */
static struct session *addressee(const struct chat *chat, const struct delivery_item *item)
{
	char client_id[SESSION_CLIENT_ID_MAX + 1];

	if (item->to_session) {
		return registry_session_at(chat->registry, item->session_index, item->session_generation);
	}
	if (item->client_id_length >= sizeof(client_id)) {
		return NULL;
	}
	memcpy(client_id, delivery_bytes(item, item->client_id_at), item->client_id_length);
	client_id[item->client_id_length] = '\0';
	struct session *session = registry_find_client_id(chat->registry, client_id);
	return session && session->user && session->user->id == item->user_id ? session : NULL;
}

void respond(struct chat *chat, struct delivery_item *item)
{
	struct session *session = addressee(chat, item);
	const char *payload = delivery_bytes(item, item->payload_at);
	uint64_t caller = request_caller(item->user_id, 0); /* message.send, which no guest may */

	/* A place in the line, where it has one, is also kept for a session that has ended. */
	bool in_turn = item->ticket &&
		       request_workers_answer(chat->request_workers, caller, item->ticket, payload, item->payload_length);
	if (session && !in_turn) {
		chat_respond(chat, session->client_id, payload, item->payload_length,
			item->correlation_length ? delivery_bytes(item, item->correlation_at) : NULL,
			(uint16_t)item->correlation_length);
	}
	if (session && item->effects & DELIVERY_ENDS_SESSION) {
		chat_end_session(chat, session, CHAT_END_ANSWERED_MS);
	} else if (session && item->effects & DELIVERY_LEAVING) {
		session->leaving = false; /* it may have been signed out all the same: ask */
		(void)loader_session(chat->loader, session);
	}
	delivery_item_done(item);
}
