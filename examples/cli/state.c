/* state.c - see state.h. */
#include "state.h"

#include "clean.h"
#include "clock.h"
#include "json.h"
#include "text.h"
#include "uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SYNC_LIMIT = 200,
	SYNC_AGAIN_MS = 1000, /* where the server could not do it and did not say when it can */
	NAME_MOST = 40,
	OUTBOX_MAX = 200,
};

/* --------------------------------------------------------------------------------------------- JSON, text */

int64_t member_integer(const cJSON *object, const char *name, int64_t absent)
{
	int64_t value = absent;
	json_integer(cJSON_GetObjectItemCaseSensitive(object, name), -TEXT_ID_MAX, TEXT_ID_MAX, &value);
	return value;
}

const char *member_text(const cJSON *object, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	return text ? text : "";
}

/* A cleaned copy, to free(). */
static char *clean_copy(const char *text)
{
	struct buffer buffer;
	buffer_init(&buffer, 4096);
	clean_line(&buffer, text, NAME_MOST);
	char *copy = buffer.length ? strndup(buffer.data, buffer.length) : strdup("");
	buffer_free(&buffer);
	return copy;
}

static char *numbered(const char *word, int64_t number)
{
	char text[64];
	snprintf(text, sizeof text, "%s %lld", word, (long long)number);
	return strdup(text);
}

static void replace(char **text, char *with)
{
	if (!with)
		return;
	free(*text);
	*text = with;
}

/* ----------------------------------------------------------------------------------------- conversations */

struct conversation *state_get(struct state *state, int64_t id)
{
	for (size_t i = 0; i < state->conversation_count; i++) {
		if (state->conversations[i]->id == id)
			return state->conversations[i];
	}
	return NULL;
}

struct conversation *state_find(struct state *state, const char *name)
{
	int64_t id;
	if (text_parse_integer(name, strlen(name), 1, TEXT_ID_MAX, &id))
		return state_get(state, id);
	for (size_t i = 0; i < state->conversation_count; i++) {
		if (!strcasecmp(state->conversations[i]->name, name))
			return state->conversations[i];
	}
	return NULL;
}

static void free_conversation(struct conversation *conversation)
{
	free(conversation->name);
	free(conversation->type);
	free(conversation->role);
	free(conversation->marks);
	free(conversation);
}

void state_forget(struct state *state, int64_t id)
{
	for (size_t i = 0; i < state->conversation_count; i++) {
		struct conversation *conversation = state->conversations[i];
		if (conversation->id != id)
			continue;
		if (state->open == conversation)
			state->open = NULL;
		state->conversations[i] = state->conversations[--state->conversation_count];
		free_conversation(conversation);
		return;
	}
}

static struct conversation *add_conversation(struct state *state, int64_t id)
{
	struct conversation **grown =
		realloc(state->conversations, (state->conversation_count + 1) * sizeof(struct conversation *));
	if (!grown)
		return NULL;
	state->conversations = grown;
	struct conversation *conversation = calloc(1, sizeof *conversation);
	if (!conversation)
		return NULL;
	conversation->id = id;
	conversation->name = numbered("conversation", id);
	conversation->type = strdup("group");
	conversation->role = strdup("");
	state->conversations[state->conversation_count++] = conversation;
	return conversation;
}

/* What a method says of a conversation; sync leaves out the name of one that is known. */
static void update_conversation(struct state *state, struct conversation *conversation, const cJSON *json)
{
	const cJSON *peer = cJSON_GetObjectItemCaseSensitive(json, "peer");
	const char *type = member_text(json, "type"), *name = member_text(json, "name");
	if (*type)
		replace(&conversation->type, clean_copy(type));
	replace(&conversation->role, clean_copy(member_text(json, "role")));
	if (*name)
		replace(&conversation->name, clean_copy(name));
	else if (*member_text(peer, "username"))
		replace(&conversation->name, clean_copy(member_text(peer, "username")));
	else if (*type)
		replace(&conversation->name, numbered(strcmp(type, "channel") != 0 ? "group" : "channel", conversation->id));
	state_learn_user(state, peer);
	conversation->unread = member_integer(json, "unread", 0);
	conversation->marked_read = member_integer(json, "read", 0);
	conversation->marked = member_integer(json, "delivered", conversation->marked_read);
}

static bool has_receipts(const struct conversation *conversation)
{
	return strcmp(conversation->type, "channel") != 0;
}

static void sync_later(struct state *state, int64_t delay_ms)
{
	state->sync_due = true;
	state->sync_at = clock_monotonic_ms() + delay_ms;
}

/* Subscribes to what is not subscribed to. What is refused is tried again with the next sync, which also says where the user is
 * no member any more: a broker whose database hangs may not know of a conversation that was just made. *more is set where there
 * was something to subscribe to: what was said between the last sync and that is still missing. */
static bool subscribe(struct state *state, bool *more)
{
	static const char *const nouns[] = {"messages", "receipts", "typing"};
	size_t size = state->conversation_count * 3, count = 0;
	char **filters = calloc(size ? size : 1, sizeof *filters);
	if (!filters)
		return false;
	for (size_t i = 0; i < state->conversation_count; i++) {
		struct conversation *conversation = state->conversations[i];
		for (size_t j = 0; !conversation->subscribed && j < (has_receipts(conversation) ? 3 : 1); j++) {
			if (asprintf(&filters[count], "chat/%lld/%s", (long long)conversation->id, nouns[j]) > 0)
				count++;
		}
	}
	bool refused = false, subscribed = connection_subscribe(state->connection, filters, (int)count, &refused);
	for (size_t i = 0; i < state->conversation_count && !refused; i++)
		state->conversations[i]->subscribed = true;
	if (refused)
		sync_later(state, SYNC_AGAIN_MS);
	else if (count > 0)
		*more = true;
	for (size_t i = 0; i < count; i++)
		free(filters[i]);
	free(filters);
	return subscribed;
}

struct conversation *state_learn(struct state *state, const cJSON *json)
{
	int64_t id = member_integer(json, "id", 0);
	struct conversation *conversation = id ? state_get(state, id) : NULL;
	bool is_new = id && !conversation;
	if (is_new)
		conversation = add_conversation(state, id);
	if (!conversation)
		return NULL;
	update_conversation(state, conversation, json);
	if (is_new) {
		conversation->held = member_integer(json, "last_seq", 0);
		subscribe(state, &state->sync_due);
	}
	return conversation;
}

void state_open(struct state *state, struct conversation *conversation)
{
	state->open = conversation;
	if (conversation)
		conversation->unread = 0;
}

/* -------------------------------------------------------------------------------------------------- users */

static const char *known_name(const struct state *state, int64_t id)
{
	for (size_t i = 0; i < state->user_count; i++) {
		if (state->users[i].id == id)
			return state->users[i].name;
	}
	return NULL;
}

static void add_user(struct state *state, int64_t id, char *name)
{
	struct user *grown = name ? realloc(state->users, (state->user_count + 1) * sizeof *grown) : NULL;
	if (!grown) {
		free(name);
		return;
	}
	state->users = grown;
	state->users[state->user_count++] = (struct user){.id = id, .name = name};
}

void state_learn_user(struct state *state, const cJSON *profile)
{
	int64_t id = member_integer(profile, "id", 0);
	const char *name = member_text(profile, "username");
	if (id && !known_name(state, id) && *name)
		add_user(state, id, clean_copy(name));
}

const char *state_user_name(struct state *state, int64_t id)
{
	if (!known_name(state, id)) {
		cJSON *params = cJSON_CreateObject();
		cJSON_AddNumberToObject(params, "user", (double)id);
		struct answer answer = connection_request(state->connection, "user.get", params);
		state_learn_user(state, cJSON_GetObjectItemCaseSensitive(answer.result, "user"));
		bool nameless = answer.result || !strcmp(answer.code, "not_found");
		if (nameless && !known_name(state, id))
			add_user(state, id, numbered("user", id));
		answer_free(&answer);
	}
	const char *name = known_name(state, id);
	return name ? name : "somebody";
}

/* ------------------------------------------------------------------------------------------------ entries */

/* Forgets the outgoing message with this id; its conversation says that it is the very one. */
static struct outgoing *take_outgoing(struct state *state, const char *id)
{
	for (struct outgoing **at = &state->outbox; *at; at = &(*at)->next) {
		struct outgoing *outgoing = *at;
		if (strcmp(outgoing->id, id) != 0)
			continue;
		*at = outgoing->next;
		return outgoing;
	}
	return NULL;
}

static void free_outgoing(struct outgoing *outgoing)
{
	if (outgoing)
		free(outgoing->body);
	free(outgoing);
}

/* Reactions and the like are about something else; what the system says nobody has to read. */
static bool counts_as_unread(const cJSON *entry)
{
	static const char *const quiet[] = {"reaction", "edit", "delete", "system", "deleted", "expired"};
	for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
		if (!strcmp(member_text(entry, "type"), quiet[i]))
			return false;
	}
	return true;
}

static void apply_entry(struct state *state, struct conversation *conversation, const cJSON *entry)
{
	int64_t seq = member_integer(entry, "seq", 0), from = member_integer(entry, "from", 0);
	if (seq <= conversation->held)
		return;
	if (seq != conversation->held + 1) {
		state->sync_due = true;
		return;
	}
	conversation->held = seq;
	if (from == state->self) {
		conversation->own = seq;
		free_outgoing(take_outgoing(state, member_text(entry, "id")));
	} else if (counts_as_unread(entry) && conversation != state->open) {
		conversation->unread++;
	}
	if (from == conversation->typist)
		conversation->typist = 0;
	state->events->entry(state->owner, conversation, entry);
}

static void apply_receipts(struct state *state, struct conversation *conversation, const cJSON *receipts)
{
	const cJSON *receipt;
	cJSON_ArrayForEach(receipt, receipts)
	{
		struct mark mark = {member_integer(receipt, "user", 0), member_integer(receipt, "delivered", 0),
			member_integer(receipt, "read", 0)};
		size_t i = 0;
		while (i < conversation->mark_count && conversation->marks[i].user != mark.user)
			i++;
		if (mark.user == state->self)
			continue;
		if (i == conversation->mark_count) {
			struct mark *grown = realloc(conversation->marks, (i + 1) * sizeof *grown);
			if (!grown)
				return;
			conversation->marks = grown;
			conversation->mark_count++;
			conversation->marks[i] = mark;
		}
		if (mark.delivered > conversation->marks[i].delivered)
			conversation->marks[i].delivered = mark.delivered;
		if (mark.read > conversation->marks[i].read)
			conversation->marks[i].read = mark.read;
	}
}

static void apply_typing(struct state *state, struct conversation *conversation, const cJSON *payload)
{
	int64_t user = member_integer(payload, "user", 0);
	bool typing = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(payload, "typing"));
	if (user == state->self || (!typing && user != conversation->typist))
		return;
	conversation->typist = typing ? user : 0;
	conversation->typing_until = clock_monotonic_ms() + member_integer(payload, "expires_in", 6) * 1000;
}

static void remove_conversation(struct state *state, int64_t id)
{
	struct conversation *conversation = state_get(state, id);
	if (!conversation)
		return;
	char *name = strdup(conversation->name);
	state_forget(state, id);
	state->events->removed(state->owner, name ? name : "");
	free(name);
}

static void apply_inbox(struct state *state, const cJSON *payload)
{
	const char *event = member_text(payload, "event");
	int64_t id = member_integer(payload, "conversation", 0);
	struct conversation *conversation = state_get(state, id);
	if (!strcmp(event, "added") && !conversation)
		state->sync_due = true;
	else if (!strcmp(event, "removed"))
		remove_conversation(state, id);
	else if (!strcmp(event, "read") && conversation && member_integer(payload, "read", 0) >= conversation->held)
		conversation->unread = 0;
}

static bool is_transient(const char *code)
{
	return !strcmp(code, "rate_limited") || !strcmp(code, "overloaded") || !strcmp(code, "unavailable");
}

/* An error that answers no request: a message was refused. */
static void apply_error(struct state *state, const cJSON *payload)
{
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(payload, "error");
	const char *id = member_text(payload, "id");
	if (!error || !*id)
		return;
	if (is_transient(member_text(error, "code"))) {
		/* It is sent again after the next sync. */
		sync_later(state, member_integer(error, "retry_after_ms", SYNC_AGAIN_MS));
		return;
	}
	struct outgoing *outgoing = take_outgoing(state, id);
	if (outgoing)
		state->events->refused(state->owner, outgoing->body, member_text(error, "message"));
	free_outgoing(outgoing);
}

void state_apply(struct state *state, const struct arrival *arrival)
{
	static const char root[] = "chat/";
	const char *topic = arrival->topic + strlen(root), *noun;
	int64_t id;
	if (strncmp(arrival->topic, root, strlen(root)) != 0)
		return;
	if (!strncmp(topic, "response/", 9)) {
		apply_error(state, arrival->payload);
		return;
	}
	if (!strncmp(topic, "user/", 5)) {
		apply_inbox(state, arrival->payload);
		return;
	}
	noun = strchrnul(topic, '/');
	struct conversation *conversation =
		text_parse_integer(topic, (size_t)(noun - topic), 1, TEXT_ID_MAX, &id) ? state_get(state, id) : NULL;
	if (!conversation)
		return; /* just left */
	if (!strcmp(noun, "/messages") && cJSON_GetObjectItemCaseSensitive(arrival->payload, "behind"))
		state->sync_due = true;
	else if (!strcmp(noun, "/messages"))
		apply_entry(state, conversation, arrival->payload);
	else if (!strcmp(noun, "/receipts"))
		apply_receipts(state, conversation, cJSON_GetObjectItemCaseSensitive(arrival->payload, "receipts"));
	else if (!strcmp(noun, "/typing"))
		apply_typing(state, conversation, arrival->payload);
}

/* --------------------------------------------------------------------------------------------- catching up */

static cJSON *cursors_of(const struct state *state)
{
	char id[24];
	cJSON *params = cJSON_CreateObject(), *cursors = cJSON_AddObjectToObject(params, "cursors");
	for (size_t i = 0; i < state->conversation_count; i++) {
		snprintf(id, sizeof id, "%lld", (long long)state->conversations[i]->id);
		cJSON_AddNumberToObject(cursors, id, (double)state->conversations[i]->held);
	}
	/* At the beginning only the conversations are wanted, and how far they are. */
	cJSON_AddNumberToObject(params, "limit", state->synced ? SYNC_LIMIT : 1);
	return params;
}

/* One conversation of a sync. True where there is more of it, or it has to be subscribed to. */
static bool take_synced(struct state *state, const cJSON *json)
{
	int64_t id = member_integer(json, "id", 0);
	struct conversation *conversation = state_get(state, id);
	const cJSON *messages = cJSON_GetObjectItemCaseSensitive(json, "messages"), *entry;
	bool is_new = !conversation;
	if (is_new && !(conversation = add_conversation(state, id)))
		return false;
	/* The answer has everything above what is held: what it begins beyond that is not for this user, or has become history.
	 */
	int64_t first = member_integer(messages ? messages->child : NULL, "seq", 0);
	if (is_new && !(state->synced && first))
		conversation->held = member_integer(json, "last_seq", 0);
	else if (first > conversation->held + 1)
		conversation->held = first - 1;
	update_conversation(state, conversation, json);
	if (is_new && state->synced)
		state->events->added(state->owner, conversation);
	int64_t unread = conversation->unread;
	cJSON_ArrayForEach(entry, messages)
	{
		apply_entry(state, conversation, entry);
	}
	conversation->unread = conversation == state->open ? 0 : unread;
	return is_new || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "more"));
}

/* Asks once. *more: whether to ask again. False where the server did not answer with a result. */
static bool sync_once(struct state *state, bool *more)
{
	struct answer answer = connection_request(state->connection, "message.sync", cursors_of(state));
	const cJSON *item;
	if (!answer.result) {
		sync_later(state, answer.retry_after_ms ? answer.retry_after_ms : SYNC_AGAIN_MS);
		return false;
	}
	*more = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer.result, "more"));
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(answer.result, "conversations"))
	{
		if (take_synced(state, item))
			*more = true;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(answer.result, "gone"))
	{
		remove_conversation(state, (int64_t)item->valuedouble);
	}
	answer_free(&answer);
	return true;
}

static void send_outgoing(struct state *state, const struct outgoing *outgoing)
{
	char topic[64];
	cJSON *envelope = cJSON_CreateObject();
	cJSON_AddStringToObject(envelope, "id", outgoing->id);
	cJSON_AddStringToObject(envelope, "body", outgoing->body);
	char *payload = cJSON_PrintUnformatted(envelope);
	cJSON_Delete(envelope);
	snprintf(topic, sizeof topic, "chat/%lld/send", (long long)outgoing->conversation);
	if (payload)
		connection_publish(state->connection, topic, payload, 1);
	cJSON_free(payload);
}

/* Everything that is missing; then what is still in the outbox goes once more. */
static void catch_up(struct state *state)
{
	bool more = true;
	state->sync_due = false;
	while (more && connection_is_open(state->connection)) {
		if (!sync_once(state, &more) || !subscribe(state, &more))
			return;
		state->synced = true;
	}
	for (const struct outgoing *outgoing = state->outbox; outgoing; outgoing = outgoing->next)
		send_outgoing(state, outgoing);
}

bool state_begin(struct state *state)
{
	char *inbox = NULL;
	for (size_t i = 0; i < state->conversation_count; i++)
		state->conversations[i]->subscribed = false;
	if (asprintf(&inbox, "chat/user/%lld/inbox", (long long)state->self) < 0)
		return false;
	bool refused, more = false;
	bool subscribed = connection_subscribe(state->connection, &inbox, 1, &refused) && subscribe(state, &more);
	free(inbox);
	if (subscribed)
		catch_up(state);
	return connection_is_open(state->connection);
}

/* -------------------------------------------------------------------------------------- what is told to others */

static void mark(struct state *state, struct conversation *conversation)
{
	char topic[64], payload[64];
	bool read = conversation == state->open;
	if (conversation->held <= (read ? conversation->marked_read : conversation->marked) || !*conversation->role)
		return;
	snprintf(topic, sizeof topic, "chat/%lld/mark", (long long)conversation->id);
	snprintf(payload, sizeof payload, "{\"%s\":%lld}", read ? "read" : "delivered", (long long)conversation->held);
	connection_publish(state->connection, topic, payload, 1);
	conversation->marked = conversation->held;
	if (read)
		conversation->marked_read = conversation->held;
}

void state_tick(struct state *state, int64_t now_ms)
{
	if (!connection_is_open(state->connection))
		return;
	if (connection_lost(state->connection))
		state->sync_due = true;
	if (state->sync_due && now_ms >= state->sync_at)
		catch_up(state);
	for (size_t i = 0; i < state->conversation_count; i++) {
		struct conversation *conversation = state->conversations[i];
		mark(state, conversation);
		if (conversation->typist && now_ms >= conversation->typing_until)
			conversation->typist = 0;
	}
}

bool state_send(struct state *state, struct conversation *conversation, const char *body)
{
	uint8_t uuid[16];
	struct outgoing *outgoing = calloc(1, sizeof *outgoing), **last = &state->outbox;
	int waiting = 0;
	for (; *last; last = &(*last)->next)
		waiting++;
	if (!outgoing || waiting >= OUTBOX_MAX || !(outgoing->body = strdup(body))) {
		free(outgoing);
		return false;
	}
	uuid_make(clock_wall_ms(), uuid);
	uuid_format(uuid, outgoing->id);
	outgoing->conversation = conversation->id;
	*last = outgoing;
	send_outgoing(state, outgoing);
	return true;
}

bool state_has_outgoing(const struct state *state, int64_t conversation)
{
	for (const struct outgoing *outgoing = state->outbox; outgoing; outgoing = outgoing->next) {
		if (outgoing->conversation == conversation)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------------------ beginning and ending */

void state_init(struct state *state, struct connection *connection, const struct state_events *events, void *owner, int64_t self)
{
	*state = (struct state){.connection = connection, .events = events, .owner = owner, .self = self};
}

void state_clear(struct state *state)
{
	for (size_t i = 0; i < state->conversation_count; i++)
		free_conversation(state->conversations[i]);
	for (size_t i = 0; i < state->user_count; i++)
		free(state->users[i].name);
	while (state->outbox) {
		struct outgoing *next = state->outbox->next;
		free_outgoing(state->outbox);
		state->outbox = next;
	}
	free(state->conversations);
	free(state->users);
	state_init(state, state->connection, state->events, state->owner, 0);
}
