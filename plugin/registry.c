/* registry.c - see registry.h.
 *
 * The tables' own parts of an object live behind it in one allocation, so that registry.h need not show them. There are
 * as many of these as clients: what they hold is counted (tests/guard). The two sides of a subscription are plain
 * arrays: a session's and a conversation's.
 */
#include "registry.h"
#include "hash_table.h"
#include "id_table.h"
#include "text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The objects stand first: of a pointer to one, handles_of() and its like make one to the whole. */
struct registry_handles {
	struct session session;
	struct registry_handles *by_client, *by_id; /* the tables' links */
	uint64_t id_key;                            /* of the client id, which clients choose: a hash that they cannot know */
	char client_id[];
};

struct registry_user_handle {
	struct user user;
	struct registry_user_handle *next_idle; /* of those without a session */
	struct registry_user_handle *link;
};

struct registry_conversation_handle {
	struct conversation conversation;
	struct registry_conversation_handle *link;
};

static struct registry_handles *handles_of(struct session *session)
{
	return (struct registry_handles *)session;
}

static struct registry_user_handle *user_handle_of(struct user *user)
{
	return (struct registry_user_handle *)user;
}

static struct registry_conversation_handle *conversation_handle_of(struct conversation *conversation)
{
	return (struct registry_conversation_handle *)conversation;
}

/* The subscriptions of a session that has no connection now. */
struct parked {
	UT_hash_handle hh;
	int64_t user_id;
	char *client_id;
	uint32_t count;
	struct parked_subscription {
		int64_t conversation_id;
		uint8_t kinds;
	} subscriptions[];
};

struct registry {
	struct parked *parked; /* oldest first */
	struct id_table by_client, by_id, users, conversations;
	uint64_t seed; /* of client ids' hashes */
	struct registry_user_handle *idle_users;
	struct session **slots; /* [index]; NULL: free */
	uint32_t *generations;  /* [index] */
	int64_t *expires_at_s;  /* [index]; apart from the sessions, so that the scan touches little memory */
	uint32_t slot_count, slot_capacity;
	uint32_t *free_slots;
	uint32_t free_count;
	uint32_t session_count;
	int64_t *public_ids;
	size_t public_count, public_capacity;
	struct conversation_list queued, timed;
	void (*on_conversation_end)(struct conversation *, void *);
	void *on_conversation_end_argument;
	void (*on_session_end)(struct session *, void *);
	void *on_session_end_argument;
};

static uint64_t key_of_client(const void *object)
{
	return (uintptr_t)((const struct registry_handles *)object)->session.client;
}

static uint64_t key_of_client_id(const void *object)
{
	return ((const struct registry_handles *)object)->id_key;
}

static uint64_t key_of_user(const void *object)
{
	return (uint64_t)((const struct registry_user_handle *)object)->user.id;
}

static uint64_t key_of_conversation(const void *object)
{
	return (uint64_t)((const struct registry_conversation_handle *)object)->conversation.id;
}

struct registry *registry_new(void)
{
	struct registry *registry = calloc(1, sizeof(*registry));
	if (!registry || getrandom(&registry->seed, sizeof(registry->seed), 0) != (ssize_t)sizeof(registry->seed)) {
		free(registry);
		return NULL;
	}
	registry->by_client = (struct id_table){.key_of = key_of_client, .link_at = offsetof(struct registry_handles, by_client)};
	registry->by_id = (struct id_table){.key_of = key_of_client_id, .link_at = offsetof(struct registry_handles, by_id)};
	registry->users = (struct id_table){.key_of = key_of_user, .link_at = offsetof(struct registry_user_handle, link)};
	registry->conversations =
		(struct id_table){.key_of = key_of_conversation, .link_at = offsetof(struct registry_conversation_handle, link)};
	return registry;
}

static void forget_parked(struct registry *registry, struct parked *parked)
{
	if (parked) {
		HASH_DEL(registry->parked, parked);
		free(parked->client_id);
		free(parked);
	}
}

static void free_user(struct registry_user_handle *handle)
{
	free(handle->user.memberships);
	free(handle->user.typing);
	free(handle);
}

void registry_free(struct registry *registry)
{
	struct registry_user_handle *user, *next_user;
	if (!registry) {
		return;
	}
	for (uint32_t i = 0; i < registry->slot_count; i++) {
		if (registry->slots[i]) {
			registry_remove_session(registry, registry->slots[i]);
		}
	}
	for (user = id_table_next(&registry->users, NULL); user; user = next_user) {
		next_user = id_table_next(&registry->users, user);
		free_user(user);
	}
	while (registry->parked) {
		forget_parked(registry, registry->parked);
	}
	id_table_free(&registry->by_client);
	id_table_free(&registry->by_id);
	id_table_free(&registry->users);
	id_table_free(&registry->conversations);
	free(registry->slots);
	free(registry->generations);
	free(registry->expires_at_s);
	free(registry->free_slots);
	free(registry->public_ids);
	free(registry);
}

/* Makes room for one more element. */
static bool grow(void **array, uint32_t *capacity, uint32_t count, size_t element_size)
{
	if (count < *capacity) {
		return true;
	}
	uint32_t larger = *capacity ? *capacity + *capacity / 2 + 1 : 4;
	void *moved = realloc(*array, larger * element_size);
	if (!moved) {
		return false;
	}
	*array = moved;
	*capacity = larger;
	return true;
}

/* ---- slots ---- */

static bool grow_slots(struct registry *registry)
{
	uint32_t larger = registry->slot_capacity ? registry->slot_capacity * 2 : 64;
	void *slots = realloc(registry->slots, larger * sizeof(registry->slots[0]));
	registry->slots = slots ? slots : registry->slots;
	void *generations = realloc(registry->generations, larger * sizeof(registry->generations[0]));
	registry->generations = generations ? generations : registry->generations;
	void *expiries = realloc(registry->expires_at_s, larger * sizeof(registry->expires_at_s[0]));
	registry->expires_at_s = expiries ? expiries : registry->expires_at_s;
	void *free_slots = realloc(registry->free_slots, larger * sizeof(registry->free_slots[0]));
	registry->free_slots = free_slots ? free_slots : registry->free_slots;
	if (!slots || !generations || !expiries || !free_slots) {
		return false; /* the larger ones stay; slot_capacity says what all of them hold */
	}
	memset(registry->generations + registry->slot_capacity, 0,
		(larger - registry->slot_capacity) * sizeof(registry->generations[0]));
	registry->slot_capacity = larger;
	return true;
}

static bool take_slot(struct registry *registry, uint32_t *index)
{
	if (registry->free_count > 0) {
		*index = registry->free_slots[--registry->free_count];
		return true;
	}
	if (registry->slot_count == registry->slot_capacity && !grow_slots(registry)) {
		return false;
	}
	*index = registry->slot_count++;
	registry->slots[*index] = NULL;
	return true;
}

static void give_slot(struct registry *registry, uint32_t index)
{
	registry->slots[index] = NULL;
	registry->generations[index]++;
	registry->expires_at_s[index] = INT64_MAX;
	registry->free_slots[registry->free_count++] = index;
}

/* ---- users ---- */

struct user *registry_find_user(const struct registry *registry, int64_t user_id)
{
	struct registry_user_handle *found = id_table_find(&registry->users, (uint64_t)user_id);
	return found ? &found->user : NULL;
}

static struct user *need_user(struct registry *registry, int64_t user_id)
{
	struct user *known = registry_find_user(registry, user_id);
	if (known) {
		return known;
	}
	struct registry_user_handle *made = calloc(1, sizeof(*made));
	if (!made) {
		return NULL;
	}
	made->user.id = user_id;
	if (!id_table_add(&registry->users, made)) {
		free(made);
		return NULL;
	}
	return &made->user;
}

static void note_idle(struct registry *registry, struct user *user)
{
	user->loaded = false; /* announcements about users without a session are not followed */
	free(user->memberships);
	user->memberships = NULL;
	user->membership_count = 0;
	if (!user->idle) {
		struct registry_user_handle *handle = user_handle_of(user);
		user->idle = true;
		handle->next_idle = registry->idle_users;
		registry->idle_users = handle;
	}
}

void registry_forget_users(
	struct registry *registry, const struct rate_limit *messages, const struct rate_limit *requests, int64_t now_ms)
{
	struct registry_user_handle **at = &registry->idle_users;
	while (*at) {
		struct registry_user_handle *handle = *at;
		struct user *user = &handle->user;
		bool in_use = user->sessions != NULL;
		if (!in_use && !(rate_bucket_is_full(&user->messages, messages, now_ms) &&
				       rate_bucket_is_full(&user->requests, requests, now_ms))) {
			at = &handle->next_idle;
			continue;
		}
		*at = handle->next_idle;
		user->idle = false;
		if (!in_use) {
			id_table_remove(&registry->users, handle);
			free_user(handle);
		}
	}
}

bool registry_set_memberships(struct user *user, const struct membership *memberships, size_t count)
{
	struct membership *copy = NULL;
	user->loaded = false;
	if (count > 0) {
		copy = malloc(count * sizeof(copy[0]));
		if (!copy) {
			return false;
		}
		memcpy(copy, memberships, count * sizeof(copy[0]));
	}
	free(user->memberships);
	user->memberships = copy;
	user->membership_count = (uint32_t)count;
	user->loaded = true;
	return true;
}

/* Where the conversation is, or belongs. */
static uint32_t membership_place(const struct user *user, int64_t conversation_id)
{
	uint32_t low = 0, high = user->membership_count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (user->memberships[middle].conversation_id < conversation_id) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

const struct membership *registry_membership(const struct user *user, int64_t conversation_id)
{
	uint32_t place = membership_place(user, conversation_id);
	if (place < user->membership_count && user->memberships[place].conversation_id == conversation_id) {
		return &user->memberships[place];
	}
	return NULL;
}

bool registry_set_membership(struct user *user, const struct membership *membership)
{
	uint32_t place = membership_place(user, membership->conversation_id);
	bool there = place < user->membership_count && user->memberships[place].conversation_id == membership->conversation_id;
	struct membership *at;

	if (membership->role == ACL_ROLE_NONE) {
		if (there) {
			at = user->memberships + place;
			memmove(at, at + 1, (user->membership_count - place - 1) * sizeof(at[0]));
			user->membership_count--;
		}
		return true;
	}
	if (!there) { /* seldom: not worth any room to grow */
		at = realloc(user->memberships, (user->membership_count + 1) * sizeof(at[0]));
		if (!at) {
			return false;
		}
		user->memberships = at;
		at += place;
		memmove(at + 1, at, (user->membership_count - place) * sizeof(at[0]));
		user->membership_count++;
	}
	user->memberships[place] = *membership;
	return true;
}

/* ---- sessions ---- */

static bool add_to_tables(struct registry *registry, struct registry_handles *made)
{
	if (!id_table_add(&registry->by_client, made)) {
		return false;
	}
	if (!id_table_add(&registry->by_id, made)) {
		id_table_remove(&registry->by_client, made);
		return false;
	}
	return true;
}

struct session *registry_add_session(struct registry *registry, const void *client, const char *client_id, int64_t user_id,
	int64_t device_id, int64_t expires_at_s)
{
	size_t id_size = strlen(client_id) + 1;
	struct registry_handles *made = calloc(1, sizeof(*made) + id_size);
	uint32_t index;

	if (!made) {
		return NULL;
	}
	struct session *session = &made->session;
	memcpy(made->client_id, client_id, id_size);
	made->id_key = text_hash(registry->seed, client_id, id_size - 1);
	session->client = client;
	session->device_id = device_id;
	session->client_id = made->client_id;
	session->state = user_id ? SESSION_PROVISIONAL : SESSION_GUEST;
	if (!take_slot(registry, &index)) {
		goto failed;
	}
	session->user = user_id ? need_user(registry, user_id) : NULL;
	if (user_id && !session->user) {
		give_slot(registry, index);
		goto failed;
	}
	if (!add_to_tables(registry, made)) {
		give_slot(registry, index);
		if (session->user && !session->user->sessions) {
			note_idle(registry, session->user);
		}
		goto failed;
	}
	if (session->user) {
		session->next_of_user = session->user->sessions;
		if (session->next_of_user) {
			session->next_of_user->previous_of_user = session;
		}
		session->user->sessions = session;
		if (session->user->loaded) {
			session->state = SESSION_PROVISIONAL; /* this device's own standing is not known yet */
		}
	}
	session->index = index;
	session->generation = registry->generations[index];
	registry->slots[index] = session;
	registry->expires_at_s[index] = expires_at_s;
	registry->session_count++;
	return session;
failed:
	free(made);
	return NULL;
}

static void remove_subscriber(struct registry *registry, struct conversation *conversation, const struct session *session);

void registry_remove_session(struct registry *registry, struct session *session)
{
	struct registry_handles *handles = handles_of(session);
	struct user *user = session->user;

	if (registry->on_session_end) {
		registry->on_session_end(session, registry->on_session_end_argument);
	}
	for (uint32_t i = 0; i < session->subscription_count; i++) {
		remove_subscriber(registry, session->subscriptions[i].conversation, session);
	}
	free(session->subscriptions);
	if (user) {
		if (session->previous_of_user) {
			session->previous_of_user->next_of_user = session->next_of_user;
		} else {
			user->sessions = session->next_of_user;
		}
		if (session->next_of_user) {
			session->next_of_user->previous_of_user = session->previous_of_user;
		}
		if (!user->sessions) {
			note_idle(registry, user);
		}
	}
	id_table_remove(&registry->by_client, handles);
	id_table_remove(&registry->by_id, handles);
	give_slot(registry, session->index);
	registry->session_count--;
	free(handles);
}

void registry_on_session_end(struct registry *registry, void (*callback)(struct session *, void *), void *argument)
{
	registry->on_session_end = callback;
	registry->on_session_end_argument = argument;
}

struct session *registry_find_session(const struct registry *registry, const void *client)
{
	struct registry_handles *found = id_table_find(&registry->by_client, (uintptr_t)client);
	return found ? &found->session : NULL;
}

struct session *registry_find_client_id(const struct registry *registry, const char *client_id)
{
	struct registry_handles *found = id_table_find(&registry->by_id, text_hash(registry->seed, client_id, strlen(client_id)));
	while (found && strcmp(found->client_id, client_id) != 0) {
		found = id_table_find_older(&registry->by_id, found);
	}
	return found ? &found->session : NULL;
}

struct session *registry_session_at(const struct registry *registry, uint32_t index, uint32_t generation)
{
	if (index >= registry->slot_count || registry->generations[index] != generation) {
		return NULL;
	}
	return registry->slots[index];
}

uint32_t registry_session_count(const struct registry *registry)
{
	return registry->session_count;
}

void registry_each_expired(struct registry *registry, int64_t now_s, void (*callback)(struct session *, void *), void *argument)
{
	for (uint32_t i = 0; i < registry->slot_count; i++) {
		if (registry->expires_at_s[i] <= now_s && registry->slots[i]) {
			callback(registry->slots[i], argument);
		}
	}
}

int64_t registry_expiry(const struct registry *registry, const struct session *session)
{
	return registry->expires_at_s[session->index];
}

void registry_set_expiry(struct registry *registry, struct session *session, int64_t expires_at_s)
{
	registry->expires_at_s[session->index] = expires_at_s;
}

void registry_each_session(struct registry *registry, void (*callback)(struct session *, void *), void *argument)
{
	for (uint32_t i = 0; i < registry->slot_count; i++) {
		if (registry->slots[i]) {
			callback(registry->slots[i], argument);
		}
	}
}

/* ---- public channels ---- */

static size_t public_place(const struct registry *registry, int64_t id)
{
	size_t low = 0, high = registry->public_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (registry->public_ids[middle] < id) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

bool registry_is_public(const struct registry *registry, int64_t conversation_id)
{
	size_t place = public_place(registry, conversation_id);
	return place < registry->public_count && registry->public_ids[place] == conversation_id;
}

static bool reserve_public(struct registry *registry, size_t count)
{
	if (count <= registry->public_capacity) {
		return true;
	}
	size_t larger = count + count / 2 + 16;
	int64_t *moved = realloc(registry->public_ids, larger * sizeof(moved[0]));
	if (!moved) {
		return false;
	}
	registry->public_ids = moved;
	registry->public_capacity = larger;
	return true;
}

bool registry_set_public(struct registry *registry, const int64_t *ids, size_t count)
{
	if (!reserve_public(registry, count)) {
		return false;
	}
	if (count > 0) {
		memcpy(registry->public_ids, ids, count * sizeof(ids[0]));
	}
	registry->public_count = count;
	return true;
}

bool registry_mark_public(struct registry *registry, int64_t conversation_id, bool is_public)
{
	if (registry_is_public(registry, conversation_id) == is_public) {
		return true;
	}
	if (!reserve_public(registry, registry->public_count + 1)) {
		return false;
	}
	size_t place = public_place(registry, conversation_id);
	int64_t *at = registry->public_ids + place;
	size_t behind = registry->public_count - place;
	if (is_public) {
		memmove(at + 1, at, behind * sizeof(at[0]));
		*at = conversation_id;
		registry->public_count++;
	} else {
		memmove(at, at + 1, (behind - 1) * sizeof(at[0]));
		registry->public_count--;
	}
	return true;
}

/* ---- conversations ---- */

struct conversation *registry_find_conversation(const struct registry *registry, int64_t conversation_id)
{
	struct registry_conversation_handle *found = id_table_find(&registry->conversations, (uint64_t)conversation_id);
	return found ? &found->conversation : NULL;
}

static struct conversation *add_conversation(struct registry *registry, int64_t conversation_id)
{
	struct registry_conversation_handle *made = calloc(1, sizeof(*made));
	if (!made) {
		return NULL;
	}
	made->conversation.id = conversation_id;
	made->conversation.is_public = registry_is_public(registry, conversation_id);
	if (!id_table_add(&registry->conversations, made)) {
		free(made);
		return NULL;
	}
	return &made->conversation;
}

static void unlist(struct conversation *conversation)
{
	struct conversation_list *list = conversation->list;
	if (!list) {
		return;
	}
	if (conversation->previous_listed) {
		conversation->previous_listed->next_listed = conversation->next_listed;
	} else {
		list->first = conversation->next_listed;
	}
	if (conversation->next_listed) {
		conversation->next_listed->previous_listed = conversation->previous_listed;
	} else {
		list->last = conversation->previous_listed;
	}
	conversation->list = NULL;
}

static void list_last(struct conversation_list *list, struct conversation *conversation)
{
	unlist(conversation);
	conversation->list = list;
	conversation->next_listed = NULL;
	conversation->previous_listed = list->last;
	if (list->last) {
		list->last->next_listed = conversation;
	} else {
		list->first = conversation;
	}
	list->last = conversation;
}

void registry_queue(struct registry *registry, struct conversation *conversation)
{
	if (conversation->list != &registry->queued) {
		list_last(&registry->queued, conversation);
	}
}

void registry_queue_timed(struct registry *registry, struct conversation *conversation)
{
	if (!conversation->list) {
		list_last(&registry->timed, conversation);
	}
}

void registry_queue_all_timed(struct registry *registry)
{
	while (registry->timed.first) {
		list_last(&registry->queued, registry->timed.first);
	}
}

struct conversation *registry_next_queued(struct registry *registry)
{
	struct conversation *first = registry->queued.first;
	if (first) {
		unlist(first);
	}
	return first;
}

bool registry_any_queued(const struct registry *registry)
{
	return registry->queued.first != NULL;
}

static void end_conversation(struct registry *registry, struct conversation *conversation)
{
	struct registry_conversation_handle *handle = conversation_handle_of(conversation);
	if (registry->on_conversation_end) {
		registry->on_conversation_end(conversation, registry->on_conversation_end_argument);
	}
	unlist(conversation);
	id_table_remove(&registry->conversations, handle);
	free(conversation->subscribers);
	free(conversation->receipts);
	free(handle);
}

static void remove_subscriber(struct registry *registry, struct conversation *conversation, const struct session *session)
{
	for (uint32_t i = 0; i < conversation->subscriber_count; i++) {
		if (conversation->subscribers[i] == session) {
			conversation->subscribers[i] = conversation->subscribers[--conversation->subscriber_count];
			break;
		}
	}
	if (conversation->subscriber_count == 0) {
		end_conversation(registry, conversation);
	}
}

/* Where the subscription is, or belongs. */
static uint32_t subscription_place(const struct session *session, int64_t conversation_id)
{
	uint32_t low = 0, high = session->subscription_count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (session->subscriptions[middle].conversation_id < conversation_id) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

static struct subscription *find_subscription(const struct session *session, int64_t conversation_id)
{
	uint32_t place = subscription_place(session, conversation_id);
	if (place < session->subscription_count && session->subscriptions[place].conversation_id == conversation_id) {
		return &session->subscriptions[place];
	}
	return NULL;
}

static uint8_t kind_bit(enum topic_kind kind)
{
	return (uint8_t)(1u << (kind - TOPIC_MESSAGES));
}

bool registry_is_subscribed(const struct session *session, int64_t conversation_id, enum topic_kind kind)
{
	const struct subscription *subscription = find_subscription(session, conversation_id);
	return subscription && (subscription->kinds & kind_bit(kind)) != 0;
}

static void insert_subscription(struct session *session, struct conversation *conversation, enum topic_kind kind)
{
	struct subscription *at = session->subscriptions + subscription_place(session, conversation->id);
	memmove(at + 1, at, (size_t)(session->subscriptions + session->subscription_count - at) * sizeof(at[0]));
	*at = (struct subscription){.conversation_id = conversation->id,
		.conversation = conversation,
		.next_seq = conversation->next_seq,
		.kinds = kind_bit(kind)};
	session->subscription_count++;
}

static void delete_subscription(struct session *session, struct subscription *at)
{
	session->subscription_count--;
	memmove(at, at + 1, (size_t)(session->subscriptions + session->subscription_count - at) * sizeof(at[0]));
}

struct conversation *registry_subscribe(
	struct registry *registry, struct session *session, int64_t conversation_id, enum topic_kind kind, bool *created)
{
	struct subscription *subscription = find_subscription(session, conversation_id);

	*created = false;
	if (subscription) {
		subscription->kinds |= kind_bit(kind);
		return subscription->conversation;
	}
	if (session->subscription_count >= REGISTRY_SUBSCRIPTIONS_MAX) {
		return NULL;
	}
	struct conversation *conversation = registry_find_conversation(registry, conversation_id);
	if (!conversation) {
		conversation = add_conversation(registry, conversation_id);
		*created = conversation != NULL;
	}
	if (!conversation) {
		return NULL;
	}
	if (!grow((void **)&session->subscriptions, &session->subscription_capacity, session->subscription_count,
		    sizeof(session->subscriptions[0])) ||
		!grow((void **)&conversation->subscribers, &conversation->subscriber_capacity, conversation->subscriber_count,
			sizeof(conversation->subscribers[0]))) {
		if (*created) {
			end_conversation(registry, conversation);
		}
		return NULL;
	}
	conversation->subscribers[conversation->subscriber_count++] = session;
	insert_subscription(session, conversation, kind);
	return conversation;
}

void registry_unsubscribe(struct registry *registry, struct session *session, int64_t conversation_id, enum topic_kind kind)
{
	struct subscription *subscription = find_subscription(session, conversation_id);
	if (!subscription) {
		return;
	}
	subscription->kinds &= (uint8_t)~kind_bit(kind);
	if (subscription->kinds == 0) {
		struct conversation *conversation = subscription->conversation;
		delete_subscription(session, subscription);
		remove_subscriber(registry, conversation, session);
	}
}

/* ---- sessions that outlive their connections ---- */

static struct parked *find_parked(const struct registry *registry, const char *client_id)
{
	struct parked *found;
	HASH_FIND(hh, registry->parked, client_id, strlen(client_id), found);
	return found;
}

void registry_park(struct registry *registry, const struct session *session)
{
	forget_parked(registry, find_parked(registry, session->client_id));
	if (!session->user || session->subscription_count == 0) {
		return;
	}
	struct parked *parked = calloc(1, sizeof(*parked) + session->subscription_count * sizeof(parked->subscriptions[0]));
	char *client_id = strdup(session->client_id);
	if (!parked || !client_id) {
		goto failed; /* it subscribes anew, as every client should after every connect */
	}
	parked->client_id = client_id;
	parked->user_id = session->user->id;
	parked->count = session->subscription_count;
	for (uint32_t i = 0; i < parked->count; i++) {
		parked->subscriptions[i].conversation_id = session->subscriptions[i].conversation_id;
		parked->subscriptions[i].kinds = session->subscriptions[i].kinds;
	}
	HASH_ADD_KEYPTR(hh, registry->parked, parked->client_id, strlen(parked->client_id), parked);
	if (!parked->hh.tbl) {
		goto failed;
	}
	if (HASH_COUNT(registry->parked) > REGISTRY_PARKED_MAX) {
		forget_parked(registry, registry->parked);
	}
	return;
failed:
	free(client_id);
	free(parked);
}

void registry_resume(struct registry *registry, struct session *session, bool clean)
{
	struct parked *parked = find_parked(registry, session->client_id);
	bool created;

	if (!parked) {
		return;
	}
	if (!clean && session->user && session->user->id == parked->user_id) {
		for (uint32_t i = 0; i < parked->count; i++) {
			for (unsigned kind = 0; parked->subscriptions[i].kinds >> kind; kind++) {
				if (parked->subscriptions[i].kinds >> kind & 1) {
					(void)registry_subscribe(registry, session, parked->subscriptions[i].conversation_id,
						(enum topic_kind)(TOPIC_MESSAGES + kind), &created);
				}
			}
		}
	}
	forget_parked(registry, parked);
}

void registry_each_conversation(struct registry *registry, void (*callback)(struct conversation *, void *), void *argument)
{
	struct registry_conversation_handle *handle, *next;
	for (handle = id_table_next(&registry->conversations, NULL); handle; handle = next) {
		next = id_table_next(&registry->conversations, handle);
		callback(&handle->conversation, argument);
	}
}

void registry_on_conversation_end(struct registry *registry, void (*callback)(struct conversation *, void *), void *argument)
{
	registry->on_conversation_end = callback;
	registry->on_conversation_end_argument = argument;
}

struct acl_standing registry_standing(const struct registry *registry, const struct session *session, int64_t conversation_id)
{
	struct acl_standing standing = {.known = session->state == SESSION_LIVE && session->user->loaded};
	if (standing.known) {
		const struct membership *membership = registry_membership(session->user, conversation_id);
		standing.role = membership ? membership->role : ACL_ROLE_NONE;
		standing.first_seq = membership ? membership->first_seq : 0;
		standing.is_channel = membership && membership->is_channel;
		standing.is_public = !membership && registry_is_public(registry, conversation_id);
	}
	return standing;
}
