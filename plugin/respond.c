/* respond.c - see respond.h.
 *
 * A change is announced when it is committed, before it is answered; the loader reads the announcement, and we ask it for the
 * rows. So a change is known when the loader has settled twice since the answer came: then the announcement is here, then what
 * was asked for on account of it.
 */
#include "respond.h"

#include <string.h>

#define HELD_MAX_MS 1000

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

/* A place in the line, where it has one, is also kept for a session that has ended. */
static bool takes_its_turn(struct chat *chat, const struct delivery_item *item)
{
	uint64_t caller = request_caller(item->user_id, 0); /* message.send, which no guest may */
	return item->ticket && request_workers_answer(chat->request_workers, caller, item->ticket,
				       delivery_bytes(item, item->payload_at), item->payload_length);
}

static void give(struct chat *chat, struct delivery_item *item)
{
	struct session *session = addressee(chat, item);
	if (item->effects & DELIVERY_ENDS_SESSION && chat->verifiers) { /* what announces a new password may come later still */
		verifier_cache_forget(chat->verifiers, item->user_id);
	}
	if (session) {
		chat_respond(chat, session->client_id, delivery_bytes(item, item->payload_at), item->payload_length,
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

/* ---- answers that wait */

static bool is_held_for(const struct chat *chat, int64_t user_id)
{
	const struct delivery_item *item = chat->held.first;
	while (item && item->user_id != user_id) {
		item = item->next;
	}
	return item != NULL;
}

static void settle(struct chat *chat)
{
	if (chat->held.asked == chat->held.settled) {
		loader_settle(chat->loader, ++chat->held.asked);
	}
}

/* item->seq: the number of loader_settle that it waits for; 0: only for those before it. item->at_ms: since when. */
static void hold(struct chat *chat, struct delivery_item *item)
{
	struct delivery_item **last = chat->held.first ? &chat->held.last->next : &chat->held.first;
	item->next = NULL;
	item->seq = item->effects & DELIVERY_CHANGED ? chat->held.asked + 2 : 0;
	item->at_ms = chat->now_ms;
	*last = chat->held.last = item;
	settle(chat);
}

static void give_first(struct chat *chat)
{
	struct delivery_item *item = chat->held.first;
	chat->held.first = item->next;
	give(chat, item);
}

void respond_settled(struct chat *chat, int64_t number)
{
	chat->held.settled = number;
	while (chat->held.first && chat->held.first->seq <= number) {
		give_first(chat);
	}
	if (chat->held.first) {
		settle(chat);
	}
}

void respond_to_all(struct chat *chat)
{
	chat->held.settled = chat->held.asked;
	while (chat->held.first) {
		give_first(chat);
	}
}

void respond_tick(struct chat *chat)
{
	while (chat->held.first && chat->now_ms - chat->held.first->at_ms >= HELD_MAX_MS) {
		give_first(chat);
	}
}

void respond_free(struct chat *chat)
{
	while (chat->held.first) {
		struct delivery_item *item = chat->held.first;
		chat->held.first = item->next;
		delivery_item_done(item);
	}
}

void respond(struct chat *chat, struct delivery_item *item)
{
	if (takes_its_turn(chat, item)) {
		delivery_item_done(item);
	} else if (item->to_session && chat->listening &&
		   (item->effects & DELIVERY_CHANGED || is_held_for(chat, item->user_id))) {
		hold(chat, item);
	} else {
		give(chat, item);
	}
}
