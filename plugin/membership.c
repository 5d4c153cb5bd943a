/* membership.c - see membership.h.
 *
 * The order of removal and delivery. A conversation's members_version (here) says: of all who listen to it here, the
 * memberships we hold are at least as new as that version. An entry that was committed under a newer version waits in
 * the fan-out until the conversation has been loaded again. Whenever that promise cannot be kept (a listener whose
 * membership was read earlier, announcements that may have been missed) the version falls back to 0: not known.
 */
#include "membership.h"

#include "clock.h"
#include "inbox.h"
#include "log.h"
#include "presence.h"
#include "respond.h"

#include <stdlib.h>

#define WAIT_WINDOW_MS 1000
#define WAIT_BUDGET_NS INT64_C(50000000)

/* ---- asking ---- */

/* Users of the subscribers, each once in a row at least: sessions of one user often stand together. Caller frees. */
static int64_t *listening_users(const struct conversation *conversation, size_t *count)
{
	int64_t *users = malloc((conversation->subscriber_count + 1) * sizeof(users[0]));
	*count = 0;
	for (uint32_t i = 0; users && i < conversation->subscriber_count; i++) {
		const struct user *user = conversation->subscribers[i]->user;
		if (user && (*count == 0 || users[*count - 1] != user->id)) {
			users[(*count)++] = user->id;
		}
	}
	return users;
}

void membership_reload(struct chat *chat, struct conversation *conversation)
{
	size_t count;
	if (conversation->loading) {
		conversation->load_again = true;
		return;
	}
	int64_t *users = listening_users(conversation, &count);
	if (users && loader_conversation(chat->loader, conversation->id, users, count, true)) {
		conversation->loading = true;
		conversation->load_again = false;
	} else {
		registry_queue(chat->registry, conversation); /* no memory: the fan-out asks again */
	}
	free(users);
}

bool membership_subscribe(struct chat *chat, struct session *session, const struct topic *topic)
{
	bool created;
	struct conversation *conversation = registry_subscribe(chat->registry, session, topic->id, topic->kind, &created);
	if (!conversation) {
		return false;
	}
	if (session->state != SESSION_LIVE) {
		return true; /* its own load will bring what the conversation needs */
	}
	if (created ||
		(conversation->next_seq == 0 && !conversation->loading)) { /* who began it may be gone before its load came */
		membership_reload(chat, conversation);
		return true;
	}
	const struct membership *membership = registry_membership(session->user, topic->id);
	if (!conversation->is_public && (!membership || membership->members_version < conversation->members_version)) {
		conversation->members_version = 0;
	}
	return true;
}

/* ---- waiting ---- */

bool membership_wait(struct chat *chat, const struct session *session)
{
	uint32_t index = session->index, generation = session->generation;
	int64_t now_ns = clock_monotonic_ns();

	if (chat->now_ms - chat->wait_window_ms >= WAIT_WINDOW_MS) {
		chat->wait_window_ms = chat->now_ms;
		chat->wait_spent_ns = 0;
	}
	int64_t until_ns = now_ns + WAIT_BUDGET_NS - chat->wait_spent_ns;
	bool loaded = false;
	while (loader_is_prompt(chat->loader) && now_ns < until_ns && loader_wait_for_result(chat->loader, until_ns)) {
		membership_apply(chat);
		const struct session *now = registry_session_at(chat->registry, index, generation);
		if (!now || now->state != SESSION_PROVISIONAL) {
			loaded = now && now->state == SESSION_LIVE;
			break;
		}
		int64_t later_ns = clock_monotonic_ns();
		chat->wait_spent_ns += later_ns - now_ns;
		now_ns = later_ns;
	}
	chat->wait_spent_ns += clock_monotonic_ns() - now_ns;
	return loaded;
}

/* ---- applying ---- */

/* An entry whose announcement came after somebody began to listen is theirs, though the table was read later still. */
static void begin_with_announced(struct conversation *conversation)
{
	if (!conversation->delivered_any && conversation->announced_first &&
		conversation->announced_first < conversation->next_seq) {
		conversation->next_seq = conversation->announced_first;
	}
}

/* The first entry to deliver, read from the table. What a lane has committed but not yet handed over comes again from
 * the lane, and may lie below this: the fan-out allows for that until something has been delivered. */
static void begin_order(struct conversation *conversation, int64_t last_seq)
{
	if (conversation->next_seq == 0) {
		conversation->next_seq = last_seq + 1;
		begin_with_announced(conversation);
	}
}

/* Whether every listener's membership is as new as the load: one who subscribed meanwhile may not be. */
static bool covers_all_listeners(const struct conversation *conversation, uint32_t members_version)
{
	for (uint32_t i = 0; i < conversation->subscriber_count; i++) {
		const struct user *user = conversation->subscribers[i]->user;
		const struct membership *membership = user && user->loaded ? registry_membership(user, conversation->id) : NULL;
		if (membership && membership->members_version < members_version) {
			return false;
		}
	}
	return true;
}

/* A session that had no rights yet when it subscribed was denied what came before them, though its subscription was granted. */
static void note_missed(struct chat *chat, const struct session *session)
{
	for (uint32_t i = 0; i < session->subscription_count; i++) {
		const struct subscription *subscription = &session->subscriptions[i];
		struct conversation *conversation = subscription->conversation;
		struct acl_standing standing = registry_standing(chat->registry, session, conversation->id);
		if (conversation->delivered_any && conversation->next_seq > subscription->next_seq &&
			(standing.role != ACL_ROLE_NONE || standing.is_public)) {
			conversation->missed = true;
			registry_queue(chat->registry, conversation);
		}
	}
}

static void apply_to_subscriptions(struct chat *chat, const struct session *session, const struct load_result *result)
{
	for (uint32_t i = 0; i < session->subscription_count; i++) {
		struct conversation *conversation = session->subscriptions[i].conversation;
		const struct membership *membership = registry_membership(session->user, conversation->id);
		if (conversation->next_seq != 0) {
			continue; /* known from others; a newer version of this membership does no harm */
		}
		if (!membership) {
			membership_reload(chat, conversation);
			continue;
		}
		if (!conversation->loading && covers_all_listeners(conversation, membership->members_version)) {
			conversation->members_version = membership->members_version;
		}
		begin_order(conversation, result->last_seqs[membership - session->user->memberships]);
		registry_queue(chat->registry, conversation);
	}
}

static void apply_session(struct chat *chat, const struct load_result *result)
{
	struct session *session = registry_session_at(chat->registry, result->session_index, result->session_generation);
	if (!session || session->state == SESSION_REFUSED) {
		return;
	}
	if (!result->allowed && session->leaving) { /* perhaps by its own wish: then the answer to that comes first */
		chat_end_session(chat, session, CHAT_END_LEAVING_MS);
		return;
	}
	if (!result->allowed) {
		log_line(LOG_LEVEL_NOTICE,
			"chat: client '%s' of user %lld is disconnected: the account or the device may not sign in",
			session->client_id, (long long)session->user->id);
		chat_refuse_session(chat, session);
		return;
	}
	if (!registry_set_memberships(session->user, result->memberships, result->count)) {
		chat_refuse_session(chat, session);
		return;
	}
	session->user->hides_reads = result->hides_reads;
	if (session->state == SESSION_PROVISIONAL) {
		session->state = SESSION_LIVE;
		presence_session_live(chat, session);
		note_missed(chat, session);
	}
	apply_to_subscriptions(chat, session, result);
}

static void apply_memberships(struct chat *chat, const struct load_result *result)
{
	for (size_t i = 0; i < result->count; i++) {
		struct user *user = registry_find_user(chat->registry, result->memberships[i].conversation_id);
		struct membership membership = result->memberships[i];
		membership.conversation_id = result->conversation_id;
		if (user && user->loaded && !registry_set_membership(user, &membership)) {
			user->loaded = false; /* no memory for what it may read: then nothing */
		}
	}
}

/* After announcements may have been missed: what the table has is fetched; what it has lost (a failover to a standby
 * that was behind) is numbered anew. Nothing was delivered in between. */
static void resynchronise(struct conversation *conversation, int64_t last_seq)
{
	if (last_seq > conversation->announced_last) {
		conversation->announced_last = last_seq;
	}
	if (conversation->next_seq > last_seq + 1 && conversation->lost_listening) {
		conversation->next_seq = last_seq + 1;
		conversation->announced_last = last_seq;
		conversation->announced_first = conversation->fetched_last = 0;
	}
	conversation->resync = conversation->lost_listening = false;
}

static void apply_conversation(struct chat *chat, const struct load_result *result)
{
	struct conversation *conversation = registry_find_conversation(chat->registry, result->conversation_id);

	if (!registry_mark_public(chat->registry, result->conversation_id, result->is_public)) {
		log_line(LOG_LEVEL_ERROR, "chat: out of memory: channel %lld may stay unreadable until it is announced again",
			(long long)result->conversation_id);
	}
	apply_memberships(chat, result);
	if (!conversation || !result->whole) {
		return;
	}
	conversation->loading = false;
	conversation->is_public = result->is_public;
	conversation->is_channel = result->is_channel;
	conversation->gone = result->members_version == 0;
	if (!conversation->gone) {
		begin_order(conversation, result->last_seq);
	}
	if (conversation->load_again || !covers_all_listeners(conversation, result->members_version)) {
		membership_reload(chat, conversation);
	} else {
		conversation->members_version = result->members_version;
		if (conversation->resync) {
			resynchronise(conversation, result->last_seq);
		}
	}
	registry_queue(chat->registry, conversation);
}

/* ---- announcements ---- */

static void reload_sessions(struct chat *chat, int64_t user_id, int64_t device_id)
{
	const struct user *user = registry_find_user(chat->registry, user_id);
	for (struct session *session = user ? user->sessions : NULL; session; session = session->next_of_user) {
		if ((device_id == 0 || session->device_id == device_id) && !loader_session(chat->loader, session)) {
			chat_refuse_session(chat, session);
		}
	}
}

static void reload_member(struct chat *chat, int64_t conversation_id, int64_t user_id)
{
	struct conversation *conversation = registry_find_conversation(chat->registry, conversation_id);
	const struct user *user = registry_find_user(chat->registry, user_id);

	if (conversation && !conversation->is_public) { /* reading a public one does not hang on membership */
		membership_reload(chat, conversation);
	}
	if (user && user->sessions && !loader_conversation(chat->loader, conversation_id, &user_id, 1, false)) {
		reload_sessions(chat, user_id, 0);
	}
}

/* A hint: anyone may announce. How far the log goes the table says; only where delivery begins, for those who have
 * got nothing yet, is taken from here. */
static void apply_new_entries(struct chat *chat, int64_t conversation_id, int64_t first, int64_t last)
{
	struct conversation *conversation = registry_find_conversation(chat->registry, conversation_id);
	if (!conversation) {
		return;
	}
	if (conversation->announced_first == 0 || first < conversation->announced_first) {
		conversation->announced_first = first;
	}
	if (conversation->next_seq) {
		begin_with_announced(conversation);
	}
	if (last >= conversation->next_seq) {
		conversation->resync = true;
		membership_reload(chat, conversation);
	}
}

/* A password is another one now: what was let in by the old one has to sign in again. */
static void forget_password(struct chat *chat, int64_t user_id)
{
	const struct user *user = registry_find_user(chat->registry, user_id);
	if (!chat->verifiers) {
		return;
	}
	verifier_cache_forget(chat->verifiers, user_id);
	for (struct session *session = user ? user->sessions : NULL; session; session = session->next_of_user) {
		if (session->by_scram && session->leaving) {
			chat_end_session(chat, session, CHAT_END_LEAVING_MS);
		} else if (session->by_scram) {
			chat_refuse_session(chat, session);
		}
	}
}

static void apply_notice(struct chat *chat, const struct load_result *notice)
{
	struct conversation *conversation;

	switch (notice->notice) {
	case 'm':
		reload_member(chat, notice->ids[0], notice->ids[1]);
		presence_reconsider(chat, notice->ids[1]);
		break;
	case 'c':
		conversation = registry_find_conversation(chat->registry, notice->ids[0]);
		if (conversation) {
			membership_reload(chat, conversation);
		} else {
			(void)loader_conversation(chat->loader, notice->ids[0], NULL, 0, false);
		}
		break;
	case 'u':
		if (chat->verifiers) {
			verifier_cache_forget(chat->verifiers, notice->ids[0]);
		}
		reload_sessions(chat, notice->ids[0], 0);
		presence_reconsider(chat, notice->ids[0]);
		break;
	case 'd':
		reload_sessions(chat, notice->ids[0], notice->ids[1]);
		break;
	case 'l':
		chores_note(chat->chores, notice->ids[0]);
		apply_new_entries(chat, notice->ids[0], notice->ids[1], notice->ids[2]);
		break;
	case 'i':
		inbox_announced(chat, notice->ids[0], notice->ids[1]);
		break;
	case 'p':
		forget_password(chat, notice->ids[0]);
		break;
	case 's':
		presence_said(chat, notice->ids[0]);
		break;
	case 'v':
		presence_reconsider_sight(chat, notice->ids[0], notice->ids[1]);
		break;
	default:
		break;
	}
}

/* ---- the connection that announces ---- */

/* What is held back here was committed before now, so a load from now on knows of all that it was committed under, whatever
 * version that is: the database may be an older state of itself, which numbers anew. */
static void forget_version(struct conversation *conversation, void *argument)
{
	(void)argument;
	conversation->members_version = conversation->receipts_version = 0;
	for (struct delivery_item *item = conversation->pending; item; item = item->next) {
		item->members_version = 0;
	}
	conversation->resync = conversation->lost_listening = true;
	conversation->loading = conversation->load_again = false; /* requests die with the connection */
	conversation->fetch_last = 0;
}

static void load_session_again(struct session *session, void *argument)
{
	struct chat *chat = argument;
	if (session->user && session->state != SESSION_REFUSED && (session->by_scram || !loader_session(chat->loader, session))) {
		chat_refuse_session(chat, session); /* of a password nothing shows whether it has been changed meanwhile */
	}
}

/* The answer to a question from before may come first: what is held back waits for the one behind it. */
static void load_conversation_again(struct conversation *conversation, void *argument)
{
	membership_reload(argument, conversation);
	conversation->load_again = conversation->loading && (conversation->pending || conversation->receipt_count > 0);
}

/* Announcements may have been missed: nothing is delivered on the strength of what was known before. */
static void apply_up(struct chat *chat, const struct load_result *result)
{
	int64_t *ids = malloc((result->count + 1) * sizeof(ids[0]));
	for (size_t i = 0; ids && i < result->count; i++) {
		ids[i] = result->memberships[i].conversation_id;
	}
	if (!ids || !registry_set_public(chat->registry, ids, result->count)) {
		log_line(LOG_LEVEL_ERROR,
			"chat: out of memory: public channels cannot be read until the next connection to the database");
	}
	free(ids);
	if (chat->verifiers) {
		verifier_cache_clear(chat->verifiers);
	}
	registry_each_conversation(chat->registry, forget_version, NULL);
	registry_each_session(chat->registry, load_session_again, chat);
	registry_each_conversation(chat->registry, load_conversation_again, chat);
	chores_note_all(chat->chores); /* entries that were announced to nobody */
	chat->listening = true;
	inbox_resume(chat);
	presence_resume(chat);
}

static void apply_verifier(struct chat *chat, const struct load_result *result)
{
	struct verifier_entry entry = {.user_id = result->user_id,
		.account = attempts_account(chat->attempts, result->name_key, result->name_key_length),
		.verifier = result->verifier};
	if (chat->verifiers) {
		verifier_cache_put(chat->verifiers, result->text, result->text_length, &entry, chat->now_ms);
	}
}

void membership_apply(struct chat *chat)
{
	struct load_result *next, *result = loader_take_all(chat->loader);
	if (!result) {
		return;
	}
	for (; result; result = next) {
		next = result->next;
		switch (result->kind) {
		case LOAD_UP:
			apply_up(chat, result);
			respond_to_all(chat);
			break;
		case LOAD_DOWN:
			chat->listening = false;
			registry_each_conversation(chat->registry, forget_version, NULL);
			respond_to_all(chat);
			presence_silence(chat);
			break;
		case LOAD_SESSION:
			apply_session(chat, result);
			break;
		case LOAD_CONVERSATION:
			apply_conversation(chat, result);
			break;
		case LOAD_NOTICE:
			apply_notice(chat, result);
			break;
		case LOAD_INBOX:
			inbox_event(chat, result);
			break;
		case LOAD_MISSED:
			inbox_missed(chat, result);
			break;
		case LOAD_VERIFIER:
			apply_verifier(chat, result);
			break;
		case LOAD_SETTLED:
			respond_settled(chat, result->settled);
			break;
		}
		loader_result_free(result);
	}
	inbox_settle(chat);
}
