/* loader.c - see loader.h.
 *
 * The mutex guards `pending` and the result list. The thread takes all of `pending`, works without the lock, and puts
 * back what a lost connection left undone.
 */
#include "loader.h"

#include "clock.h"
#include "envelope.h"
#include "log.h"
#include "statements.h"
#include "text.h"
#include "thread.h"
#include "wakeup.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* One statement's share: some milliseconds of the server's time, so that announcements are read in between. */
#define SESSIONS_PER_CALL 500
#define PAIRS_PER_CALL 5000
#define CALL_TIMEOUT_MS 30000
#define CONNECT_TIMEOUT_MS 5000
/* Unanswered for so long, the database counts as down for those who would wait for it. */
#define OVERDUE_MS 200
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000
/* After so many requests at once a rest of a millisecond for each: while thousands reconnect, they are asked for by the
 * hundred and not by the three. Who waits for an answer, waits that much longer at most. */
#define REST_MAX_MS 20
/* A round of so many is a crowd's. */
#define PROMPT_ROUND 8

struct session_request {
	uint32_t index, generation;
	int64_t user_id, device_id;
};

struct pair_request {
	int64_t conversation_id, user_id; /* user 0: the facts; the pairs of one question follow it */
	bool whole;
};

struct fetch_request {
	int64_t conversation_id, first, last;
};

struct name_request {
	size_t length;
	char name[LOADER_NAME_BYTES_MAX];
};

struct requests {
	struct session_request *sessions;
	size_t session_count, session_capacity;
	struct pair_request *pairs;
	size_t pair_count, pair_capacity;
	struct fetch_request *fetches;
	size_t fetch_count, fetch_capacity;
	int64_t *events;
	size_t event_count, event_capacity;
	struct name_request *names;
	size_t name_count, name_capacity;
	int64_t settle; /* 0: not asked for */
	bool missed;    /* asked for; after: */
	int64_t missed_after;
};

struct loader {
	struct database *database;
	struct delivery_queue *deliveries;
	pthread_t thread;
	bool started;
	int stop_fd, wake_fd;
	pthread_mutex_t mutex;
	pthread_cond_t result_ready;
	struct requests pending;
	bool accepting; /* requests are kept; else all are asked for anew after LOAD_UP */
	struct load_result *first_result;
	struct load_result **last_result;
	_Atomic bool any_result;
	_Atomic bool create_users;
	_Atomic bool up, claimed, stopping;
	struct content_filter *filter;
	bool rules_changed;                                         /* the thread's: since it last read them */
	_Atomic int64_t call_began_ms;                              /* 0: none under way */
	_Atomic size_t round;                                       /* requests of the round under way, its rest included */
	struct database_array conversations, users, devices, names; /* the thread's, reused */
	struct log_gate trouble;
};

static void free_requests(struct requests *requests)
{
	free(requests->sessions);
	free(requests->pairs);
	free(requests->fetches);
	free(requests->events);
	free(requests->names);
	memset(requests, 0, sizeof(*requests));
}

/* ---- requests: the broker thread ---- */

/* With the mutex held. */
static bool push(struct loader *loader, void **array, size_t *count, size_t *capacity, const void *element, size_t size)
{
	if (!loader->accepting) {
		return true; /* asked for anew after LOAD_UP */
	}
	if (*count == *capacity) {
		size_t larger = *capacity * 2 + 16;
		void *moved = realloc(*array, larger * size);
		if (!moved) {
			return false;
		}
		*array = moved;
		*capacity = larger;
	}
	memcpy((char *)*array + *count * size, element, size);
	*count += 1;
	return true;
}

static bool request_added(struct loader *loader, bool added)
{
	static const uint64_t one = 1;
	pthread_mutex_unlock(&loader->mutex);
	if (added) {
		ssize_t written = write(loader->wake_fd, &one, sizeof(one));
		(void)written; /* EAGAIN: already readable */
	}
	return added;
}

bool loader_session(struct loader *loader, const struct session *session)
{
	struct session_request request = {session->index, session->generation, session->user->id, session->device_id};
	struct requests *pending = &loader->pending;
	pthread_mutex_lock(&loader->mutex);
	return request_added(loader, push(loader, (void **)&pending->sessions, &pending->session_count,
					     &pending->session_capacity, &request, sizeof(request)));
}

bool loader_conversation(struct loader *loader, int64_t conversation_id, const int64_t *users, size_t user_count, bool whole)
{
	struct requests *pending = &loader->pending;
	struct pair_request pair = {.conversation_id = conversation_id, .whole = whole};

	pthread_mutex_lock(&loader->mutex);
	size_t before = pending->pair_count;
	bool added = push(loader, (void **)&pending->pairs, &pending->pair_count, &pending->pair_capacity, &pair, sizeof(pair));
	for (size_t i = 0; i < user_count && added; i++) {
		pair.user_id = users[i];
		added = push(
			loader, (void **)&pending->pairs, &pending->pair_count, &pending->pair_capacity, &pair, sizeof(pair));
	}
	if (!added) {
		pending->pair_count = before;
	}
	return request_added(loader, added);
}

bool loader_fetch(struct loader *loader, int64_t conversation_id, int64_t first, int64_t last)
{
	struct fetch_request request = {conversation_id, first, last};
	struct requests *pending = &loader->pending;
	pthread_mutex_lock(&loader->mutex);
	return request_added(loader, push(loader, (void **)&pending->fetches, &pending->fetch_count, &pending->fetch_capacity,
					     &request, sizeof(request)));
}

bool loader_inbox(struct loader *loader, int64_t event_id)
{
	struct requests *pending = &loader->pending;
	pthread_mutex_lock(&loader->mutex);
	return request_added(loader, push(loader, (void **)&pending->events, &pending->event_count, &pending->event_capacity,
					     &event_id, sizeof(event_id)));
}

bool loader_verifier(struct loader *loader, const char *name, size_t length)
{
	struct requests *pending = &loader->pending;
	struct name_request request = {.length = length};
	if (length > sizeof(request.name)) {
		return false;
	}
	memcpy(request.name, name, length);
	pthread_mutex_lock(&loader->mutex);
	return request_added(
		loader, pending->name_count < LOADER_NAMES_MAX && push(loader, (void **)&pending->names, &pending->name_count,
									  &pending->name_capacity, &request, sizeof(request)));
}

void loader_settle(struct loader *loader, int64_t number)
{
	pthread_mutex_lock(&loader->mutex);
	if (loader->accepting) {
		loader->pending.settle = number;
	}
	(void)request_added(loader, true);
}

void loader_missed(struct loader *loader, int64_t after)
{
	pthread_mutex_lock(&loader->mutex);
	loader->pending.missed = loader->accepting;
	loader->pending.missed_after = after;
	(void)request_added(loader, true);
}

void loader_set_create_users(struct loader *loader, bool create_users)
{
	atomic_store(&loader->create_users, create_users);
}

/* ---- results ---- */

static struct load_result *new_result(enum load_kind kind, size_t count)
{
	struct load_result *result = calloc(1, sizeof(*result));
	if (!result) {
		return NULL;
	}
	result->kind = kind;
	result->count = count;
	if (count > 0) {
		result->memberships = calloc(count, sizeof(result->memberships[0]));
		result->last_seqs = calloc(count, sizeof(result->last_seqs[0]));
		if (!result->memberships || !result->last_seqs) {
			loader_result_free(result);
			return NULL;
		}
	}
	return result;
}

void loader_result_free(struct load_result *result)
{
	if (result) {
		free(result->memberships);
		free(result->last_seqs);
		free(result->text);
		free(result->name_key);
		free(result);
	}
}

static void post(struct loader *loader, struct load_result *result)
{
	pthread_mutex_lock(&loader->mutex);
	*loader->last_result = result;
	loader->last_result = &result->next;
	atomic_store(&loader->any_result, true);
	pthread_cond_signal(&loader->result_ready);
	pthread_mutex_unlock(&loader->mutex);
	wakeup_signal();
}

struct load_result *loader_take_all(struct loader *loader)
{
	if (!atomic_load(&loader->any_result)) {
		return NULL;
	}
	pthread_mutex_lock(&loader->mutex);
	struct load_result *all = loader->first_result;
	loader->first_result = NULL;
	loader->last_result = &loader->first_result;
	atomic_store(&loader->any_result, false);
	pthread_mutex_unlock(&loader->mutex);
	return all;
}

bool loader_wait_for_result(struct loader *loader, int64_t until_ns)
{
	struct timespec until = clock_timespec(until_ns);
	int rc = 0;
	pthread_mutex_lock(&loader->mutex);
	while (!loader->first_result && rc == 0) {
		rc = pthread_cond_timedwait(&loader->result_ready, &loader->mutex, &until);
	}
	bool there = loader->first_result != NULL;
	pthread_mutex_unlock(&loader->mutex);
	return there;
}

bool loader_is_up(const struct loader *loader)
{
	int64_t began_ms = atomic_load(&loader->call_began_ms);
	return atomic_load(&loader->up) && (began_ms == 0 || clock_monotonic_ms() - began_ms < OVERDUE_MS);
}

bool loader_is_prompt(const struct loader *loader)
{
	return loader_is_up(loader) && atomic_load(&loader->round) <= PROMPT_ROUND;
}

bool loader_is_claimed(const struct loader *loader)
{
	return atomic_load(&loader->claimed);
}

/* ---- calls: the loader thread ---- */

static enum database_status call(struct loader *loader, enum statement statement, const struct database_parameters *parameters,
	struct database_result **result)
{
	struct database_call one = {statement, parameters};
	atomic_store(&loader->call_began_ms, clock_monotonic_ms());
	enum database_status status = database_run(loader->database, &one, 1, CALL_TIMEOUT_MS, result);
	atomic_store(&loader->call_began_ms, 0);
	if (status == DATABASE_REFUSED) {
		uint64_t suppressed;
		if (log_gate_open(&loader->trouble, clock_monotonic_ms(), &suppressed)) {
			log_line(LOG_LEVEL_ERROR, "chat: the database refused %s: %s (SQLSTATE %s)", statements[statement].name,
				database_error(loader->database), database_sqlstate(loader->database));
		}
		/* Nothing that is asked here can be refused by a schema of our version: begin anew, after a pause. */
		database_disconnect(loader->database);
		return DATABASE_LOST;
	}
	return status;
}

static bool scalar_call(struct loader *loader, enum statement statement, int64_t *value)
{
	struct database_result *result;
	if (call(loader, statement, NULL, &result) != DATABASE_OK) {
		return false;
	}
	*value = database_rows(result) == 1 ? database_integer(result, 0, 0) : 0;
	database_result_free(result);
	return true;
}

/* chat.role_number(), chat.channel_flag(), chat.blocked_flag() */
#define ROLE_MASK 15
#define CHANNEL_FLAG 16
#define BLOCKED_FLAG 32

static void set_role(struct membership *membership, int64_t number)
{
	membership->role = (uint8_t)(number & ROLE_MASK);
	membership->is_channel = (number & CHANNEL_FLAG) != 0;
	membership->is_blocked = (number & BLOCKED_FLAG) != 0;
}

static bool post_sessions(struct loader *loader, const struct session_request *requests, const struct database_result *rows)
{
	for (int row = 0; row < database_rows(rows); row++) {
		const struct session_request *request = &requests[database_integer(rows, row, 0) - 1];
		struct database_integers conversations = database_integer_array(rows, row, 2);
		struct database_integers roles = database_integer_array(rows, row, 3);
		struct database_integers versions = database_integer_array(rows, row, 4);
		struct database_integers last_seqs = database_integer_array(rows, row, 5);
		struct database_integers first_seqs = database_integer_array(rows, row, 7);
		struct load_result *result = new_result(LOAD_SESSION, (size_t)conversations.count);

		if (!result || roles.count != conversations.count || versions.count != conversations.count ||
			last_seqs.count != conversations.count || first_seqs.count != conversations.count) {
			loader_result_free(result);
			return false;
		}
		result->session_index = request->index;
		result->session_generation = request->generation;
		result->allowed = database_is_null(rows, row, 1);
		result->hides_reads = database_integer(rows, row, 6) != 0;
		for (size_t i = 0; i < result->count; i++) {
			result->memberships[i].conversation_id = database_integers_next(&conversations);
			set_role(&result->memberships[i], database_integers_next(&roles));
			result->memberships[i].members_version = (uint32_t)database_integers_next(&versions);
			result->memberships[i].first_seq = database_integers_next(&first_seqs);
			result->last_seqs[i] = database_integers_next(&last_seqs);
		}
		post(loader, result);
	}
	return true;
}

static enum database_status load_sessions(struct loader *loader, const struct session_request *requests, size_t count)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_array_reset(&loader->users);
	database_array_reset(&loader->devices);
	for (size_t i = 0; i < count; i++) {
		database_array_integer(&loader->users, requests[i].user_id);
		database_array_integer(&loader->devices, requests[i].device_id);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &loader->users);
	database_parameter_array(&parameters, &loader->devices);
	database_parameter_bool(&parameters, atomic_load(&loader->create_users));
	enum database_status status = call(loader, STATEMENT_OPEN_SESSIONS, &parameters, &result);
	if (status == DATABASE_OK) {
		if (!post_sessions(loader, requests, result)) {
			database_disconnect(loader->database);
			status = DATABASE_LOST;
		}
		database_result_free(result);
	}
	return status;
}

/* Rows of one conversation stand together, the facts (user 0) first. */
static bool post_conversations(
	struct loader *loader, const struct pair_request *pairs, size_t count, const struct database_result *rows)
{
	size_t next;
	if ((size_t)database_rows(rows) != count) {
		return false;
	}
	for (size_t first = 0; first < count; first = next) {
		for (next = first + 1; next < count && pairs[next].user_id != 0; next++) {
		}
		struct load_result *result = new_result(LOAD_CONVERSATION, next - first - 1);
		if (!result) {
			return false;
		}
		result->conversation_id = pairs[first].conversation_id;
		result->members_version = (uint32_t)database_integer(rows, (int)first, 2);
		result->last_seq = database_integer(rows, (int)first, 3);
		result->is_public = database_integer(rows, (int)first, 4) != 0;
		result->is_channel = (database_integer(rows, (int)first, 1) & CHANNEL_FLAG) != 0;
		result->whole = pairs[first].whole;
		for (size_t i = 0; i < result->count; i++) {
			result->memberships[i].conversation_id = pairs[first + 1 + i].user_id;
			set_role(&result->memberships[i], database_integer(rows, (int)(first + 1 + i), 1));
			result->memberships[i].members_version = result->members_version;
			result->memberships[i].first_seq = database_integer(rows, (int)(first + 1 + i), 5);
		}
		post(loader, result);
	}
	return true;
}

static enum database_status load_pairs(struct loader *loader, const struct pair_request *pairs, size_t count)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_array_reset(&loader->conversations);
	database_array_reset(&loader->users);
	for (size_t i = 0; i < count; i++) {
		database_array_integer(&loader->conversations, pairs[i].conversation_id);
		database_array_integer(&loader->users, pairs[i].user_id);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &loader->conversations);
	database_parameter_array(&parameters, &loader->users);
	enum database_status status = call(loader, STATEMENT_LOAD_MEMBERSHIPS, &parameters, &result);
	if (status == DATABASE_OK) {
		if (!post_conversations(loader, pairs, count, result)) {
			database_disconnect(loader->database);
			status = DATABASE_LOST;
		}
		database_result_free(result);
	}
	return status;
}

static bool add_fetched(struct delivery_batch *batch, int64_t conversation_id, const struct database_result *rows, int row)
{
	size_t id_length;
	struct message_view view = {
		.conversation_id = conversation_id,
		.seq = database_integer(rows, row, 0),
		.id = (const uint8_t *)database_bytes(rows, row, 1, &id_length),
		.sender_id = database_integer(rows, row, 2),
		.sent_at_ms = database_time_ms(rows, row, 3),
		.reply_to = database_integer(rows, row, 6),
		.ref = database_integer(rows, row, 7),
		.expires_at_ms = database_time_ms(rows, row, 9),
	};
	view.type = database_bytes(rows, row, 4, &view.type_length);
	view.body = database_bytes(rows, row, 5, &view.body_length);
	view.extra = database_bytes(rows, row, 8, &view.extra_length);

	struct delivery_item *item = delivery_batch_add(batch, DELIVERY_MESSAGE);
	item->conversation_id = conversation_id;
	item->seq = view.seq;
	item->user_id = view.sender_id;
	item->at_ms = view.sent_at_ms;
	item->members_version = (uint32_t)database_integer(rows, row, 10);
	item->payload_at = (uint32_t)batch->bytes.length;
	bool made = message_view_append(&batch->bytes, &view);
	item->payload_length = (uint32_t)(batch->bytes.length - item->payload_at);
	return made;
}

static enum database_status fetch(struct loader *loader, const struct fetch_request *request)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, request->conversation_id);
	database_parameter_integer(&parameters, request->first);
	database_parameter_integer(&parameters, request->last);
	enum database_status status = call(loader, STATEMENT_READ_MESSAGES, &parameters, &result);
	if (status != DATABASE_OK) {
		return status;
	}
	int rows = database_rows(result);
	struct delivery_batch *batch = delivery_batch_new((uint32_t)rows + 1);
	bool made = batch != NULL;
	for (int row = 0; row < rows && made; row++) {
		made = add_fetched(batch, request->conversation_id, result, row);
	}
	if (made) {
		struct delivery_item *end = delivery_batch_add(batch, DELIVERY_FETCHED);
		end->conversation_id = request->conversation_id;
		end->seq = request->last;
		delivery_post(loader->deliveries, batch);
	} else {
		delivery_batch_free(batch);
		database_disconnect(loader->database);
		status = DATABASE_LOST;
	}
	database_result_free(result);
	return status;
}

static char *copy_bytes(const struct database_result *rows, int row, int column, size_t *length)
{
	const char *bytes = database_bytes(rows, row, column, length);
	char *copy = bytes ? malloc(*length + 1) : NULL;
	if (copy) {
		memcpy(copy, bytes, *length);
		copy[*length] = '\0';
	}
	return copy;
}

static bool post_events(struct loader *loader, const struct database_result *rows)
{
	for (int row = 0; row < database_rows(rows); row++) {
		struct load_result *result = new_result(LOAD_INBOX, 0);
		if (!result || !(result->text = copy_bytes(rows, row, 2, &result->text_length))) {
			loader_result_free(result);
			return false;
		}
		result->event_id = database_integer(rows, row, 0);
		result->user_id = database_integer(rows, row, 1);
		post(loader, result);
	}
	return true;
}

static bool post_missed(struct loader *loader, const struct database_result *rows)
{
	int count = database_rows(rows);
	struct load_result *result = count > 0 ? new_result(LOAD_MISSED, (size_t)count - 1) : NULL;
	if (!result) {
		return false;
	}
	result->last_seq = database_integer(rows, 0, 0);
	for (int row = 1; row < count; row++) {
		result->last_seqs[row - 1] = database_integer(rows, row, 0);
		result->memberships[row - 1].conversation_id = database_integer(rows, row, 1);
	}
	post(loader, result);
	return true;
}

static enum database_status load_missed(struct loader *loader, int64_t after)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, after);
	database_parameter_integer(&parameters, LOADER_MISSED_MAX);
	enum database_status status = call(loader, STATEMENT_MISSED_INBOX, &parameters, &result);
	if (status == DATABASE_OK) {
		if (!post_missed(loader, result)) {
			database_disconnect(loader->database);
			status = DATABASE_LOST;
		}
		database_result_free(result);
	}
	return status;
}

static enum database_status load_events(struct loader *loader, const int64_t *events, size_t count)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_array_reset(&loader->users);
	for (size_t i = 0; i < count; i++) {
		database_array_integer(&loader->users, events[i]);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &loader->users);
	enum database_status status = call(loader, STATEMENT_READ_INBOX, &parameters, &result);
	if (status == DATABASE_OK) {
		if (!post_events(loader, result)) {
			database_disconnect(loader->database);
			status = DATABASE_LOST;
		}
		database_result_free(result);
	}
	return status;
}

/* What cannot be posted is asked for again by the client's next attempt. */
static void post_verifiers(
	struct loader *loader, const struct name_request *names, size_t count, const struct database_result *rows)
{
	for (int row = 0; row < database_rows(rows) && (size_t)row < count; row++) {
		struct load_result *result = new_result(LOAD_VERIFIER, 0);
		size_t length;
		const char *text = database_bytes(rows, row, 3, &length);
		if (result) {
			result->user_id = database_integer(rows, row, 2);
			result->text = strndup(names[row].name, names[row].length);
			result->text_length = names[row].length;
			result->name_key = copy_bytes(rows, row, 1, &result->name_key_length);
		}
		if (result && result->text && result->name_key && text && scram_verifier_parse(text, length, &result->verifier)) {
			post(loader, result);
		} else {
			loader_result_free(result);
		}
	}
}

static enum database_status load_verifiers(struct loader *loader, const struct name_request *names, size_t count)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_array_reset(&loader->names);
	for (size_t i = 0; i < count; i++) {
		database_array_bytes(&loader->names, names[i].name, names[i].length);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &loader->names);
	enum database_status status = call(loader, STATEMENT_FIND_VERIFIERS, &parameters, &result);
	if (status == DATABASE_OK) {
		post_verifiers(loader, names, count, result);
		database_result_free(result);
	}
	return status;
}

/* ---- content rules ---- */

/* One that does not compile is said, and left out. */
static void add_rule(struct content_rules *rules, const struct database_result *rows, int row)
{
	struct content_fault fault;
	struct content_rule rule = {.id = database_integer(rows, row, 0),
		.action = (enum content_action)database_integer(rows, row, 2),
		.ignore_case = database_integer(rows, row, 3) != 0,
		.conversation_type = (int)database_integer(rows, row, 4),
		.conversation_id = database_integer(rows, row, 5)};
	rule.pattern = database_bytes(rows, row, 1, &rule.pattern_length);
	if (!content_rules_add(rules, &rule, &fault)) {
		log_line(LOG_LEVEL_ERROR, "chat: content rule %lld is not in force: offset %zu: %s", (long long)rule.id,
			fault.offset, fault.message);
	}
}

/* Reads and compiles them anew; a thousand take some 30 ms. */
static bool load_rules(struct loader *loader)
{
	struct database_result *rows;
	bool were_any = content_filter_has_any(loader->filter);

	loader->rules_changed = false;
	if (call(loader, STATEMENT_READ_CONTENT_RULES, NULL, &rows) != DATABASE_OK) {
		return false;
	}
	struct content_rules *rules = content_rules_new();
	for (int row = 0; rules && row < database_rows(rows); row++) {
		add_rule(rules, rows, row);
	}
	database_result_free(rows);
	size_t count = rules ? content_rules_count(rules) : 0;
	if (!rules || !content_filter_put(loader->filter, rules)) {
		database_disconnect(loader->database);
		return false;
	}
	if (count > 0 || were_any) {
		log_line(LOG_LEVEL_NOTICE, "chat: content rules in force: %zu", count);
	}
	return true;
}

struct content_filter *loader_content_filter(const struct loader *loader)
{
	return loader->filter;
}

/* ---- announcements ---- */

/* "m 42 7": a letter and up to three ids. Anyone can NOTIFY: what is not of this form is nothing. */
static void post_notice(struct loader *loader, const char *payload)
{
	struct load_result notice = {.kind = LOAD_NOTICE, .notice = payload[0]};
	const char *at = payload + 1;
	for (int i = 0; i < 3 && *at == ' '; i++) {
		const char *word = at + 1;
		size_t length = strcspn(word, " ");
		if (!text_parse_integer(word, length, 1, TEXT_ID_MAX, &notice.ids[i])) {
			return;
		}
		at = word + length;
	}
	static const char letters[] = "mcudlipsv";
	static const int wanted[] = {2, 1, 1, 2, 3, 2, 1, 1, 1};
	const char *letter = payload[0] ? strchr(letters, payload[0]) : NULL;
	if (*at != '\0' || !letter || notice.ids[wanted[letter - letters] - 1] == 0) {
		return;
	}
	struct load_result *result = new_result(LOAD_NOTICE, 0);
	if (!result) {
		database_disconnect(
			loader->database); /* a lost announcement is healed as a lost connection is: by reloading all */
		return;
	}
	*result = notice;
	post(loader, result);
}

static void read_notices(struct loader *loader)
{
	char payload[128];
	if (!database_consume(loader->database)) {
		return;
	}
	while (database_next_notice(loader->database, payload, sizeof(payload))) {
		if (strcmp(payload, "rules") == 0) {
			loader->rules_changed = true;
		} else {
			post_notice(loader, payload);
		}
	}
}

/* Once the server has answered, it has sent us all announcements of transactions that were over before it was asked: it was
 * signalled when they ended, and sends what there is before it is ready for the next query (PostgresMain()). */
static enum database_status settle(struct loader *loader, int64_t number)
{
	struct database_result *rows;
	enum database_status status = call(loader, STATEMENT_VERSION, NULL, &rows);
	if (status != DATABASE_OK) {
		return status;
	}
	database_result_free(rows);
	read_notices(loader);
	struct load_result *result = new_result(LOAD_SETTLED, 0);
	if (!result) {
		database_disconnect(loader->database); /* who waits is told by LOAD_DOWN */
		return DATABASE_LOST;
	}
	result->settled = number;
	post(loader, result);
	return DATABASE_OK;
}

/* ---- the thread ---- */

/* LOAD_UP with the public channels. What was asked for before is dropped: the broker thread asks for all when it sees this. */
static bool post_up(struct loader *loader)
{
	struct database_result *rows;
	if (call(loader, STATEMENT_PUBLIC_CHANNELS, NULL, &rows) != DATABASE_OK) {
		return false;
	}
	struct load_result *result = new_result(LOAD_UP, (size_t)database_rows(rows));
	for (size_t i = 0; result && i < result->count; i++) {
		result->memberships[i].conversation_id = database_integer(rows, (int)i, 0);
	}
	database_result_free(rows);
	if (!result) {
		return false;
	}
	pthread_mutex_lock(&loader->mutex);
	free_requests(&loader->pending);
	loader->accepting = true;
	pthread_mutex_unlock(&loader->mutex);
	post(loader, result);
	return true;
}

enum setup { SETUP_DONE, SETUP_UNREACHABLE, SETUP_WRONG_VERSION, SETUP_TAKEN };

/* Connects and takes the broker's lock. `error` gets the reason in one line. */
static enum setup set_up(struct loader *loader, char *error, size_t error_size)
{
	int64_t value = 0;
	if (!database_connect(loader->database, CONNECT_TIMEOUT_MS) || !scalar_call(loader, STATEMENT_VERSION, &value)) {
		bool no_schema = strcmp(database_sqlstate(loader->database), "3F000") == 0 ||
				 strcmp(database_sqlstate(loader->database), "42883") == 0;
		snprintf(error, error_size, "%s%s", database_error(loader->database),
			no_schema ? "; run schema/migrate on this database" : "");
		return no_schema ? SETUP_WRONG_VERSION : SETUP_UNREACHABLE;
	}
	if (value < STATEMENTS_SCHEMA_VERSION) { /* newer: migrations come first in an upgrade, and keep what is in use */
		snprintf(error, error_size,
			"the database has schema version %lld, this plugin needs %d; run the schema/migrate of this release",
			(long long)value, STATEMENTS_SCHEMA_VERSION);
		database_disconnect(loader->database);
		return SETUP_WRONG_VERSION;
	}
	if (!scalar_call(loader, STATEMENT_CLAIM_BROKER, &value)) {
		snprintf(error, error_size, "%s", database_error(loader->database));
		return SETUP_UNREACHABLE;
	}
	if (!value) {
		snprintf(error, error_size, "another broker is working on this database; stop it first");
		database_disconnect(loader->database);
		return SETUP_TAKEN;
	}
	return SETUP_DONE;
}

/* From then on no announcement is missed. The rules are read before the lanes may commit. */
static bool listen_and_announce(struct loader *loader)
{
	if (database_command(loader->database, "LISTEN chat_changes", CALL_TIMEOUT_MS) != DATABASE_OK || !load_rules(loader)) {
		return false;
	}
	atomic_store(&loader->claimed, true);
	return post_up(loader);
}

static void take_pending(struct loader *loader, struct requests *mine)
{
	pthread_mutex_lock(&loader->mutex);
	*mine = loader->pending;
	memset(&loader->pending, 0, sizeof(loader->pending));
	pthread_mutex_unlock(&loader->mutex);
}

/* A share of pairs that does not cut a conversation in two. */
static size_t pairs_share(const struct requests *mine, size_t from)
{
	size_t end = from + PAIRS_PER_CALL;
	if (end >= mine->pair_count) {
		return mine->pair_count - from;
	}
	while (end < mine->pair_count && mine->pairs[end].user_id != 0) {
		end++;
	}
	return end - from;
}

/* Removals first: what holds deliveries back and what ends rights goes before those who come. False: connection lost. */
static bool work(struct loader *loader, const struct requests *mine)
{
	enum database_status status = DATABASE_OK;
	size_t share;

	for (size_t at = 0; status == DATABASE_OK && at < mine->pair_count; at += share) {
		share = pairs_share(mine, at);
		status = load_pairs(loader, mine->pairs + at, share);
		read_notices(loader);
	}
	for (size_t at = 0; status == DATABASE_OK && at < mine->fetch_count; at++) {
		status = fetch(loader, &mine->fetches[at]);
		read_notices(loader);
	}
	for (size_t at = 0; status == DATABASE_OK && at < mine->session_count; at += share) {
		share = mine->session_count - at < SESSIONS_PER_CALL ? mine->session_count - at : SESSIONS_PER_CALL;
		status = load_sessions(loader, mine->sessions + at, share);
		read_notices(loader);
	}
	if (status == DATABASE_OK && mine->missed) {
		status = load_missed(loader, mine->missed_after);
		read_notices(loader);
	}
	for (size_t at = 0; status == DATABASE_OK && at < mine->event_count; at += share) {
		share = mine->event_count - at < PAIRS_PER_CALL ? mine->event_count - at : PAIRS_PER_CALL;
		status = load_events(loader, mine->events + at, share);
		read_notices(loader);
	}
	if (status == DATABASE_OK && mine->name_count > 0) {
		status = load_verifiers(loader, mine->names, mine->name_count);
		read_notices(loader);
	}
	if (status == DATABASE_OK && mine->settle) {
		status = settle(loader, mine->settle);
	}
	return status == DATABASE_OK;
}

/* Waits for requests, announcements or stop; returns at once when it finds the connection lost. */
static void wait_for_work(struct loader *loader, int64_t timeout_ms)
{
	uint64_t count;

	read_notices(loader); /* a call may have read them from the socket already */
	if (!database_is_connected(loader->database)) {
		return;
	}
	struct pollfd fds[3] = {
		{.fd = loader->stop_fd, .events = POLLIN},
		{.fd = loader->wake_fd, .events = POLLIN},
		{.fd = database_descriptor(loader->database), .events = POLLIN},
	};
	int ready = poll(fds, 3, loader->rules_changed ? 0 : (int)timeout_ms);
	if (ready > 0 && fds[1].revents) {
		ssize_t got = read(loader->wake_fd, &count, sizeof(count));
		(void)got;
	}
	read_notices(loader);
}

/* Nothing but stop ends it early. */
static void rest(const struct loader *loader, int64_t pause_ms)
{
	struct pollfd stop = {.fd = loader->stop_fd, .events = POLLIN};
	poll(&stop, 1, (int)pause_ms);
}

static void go_down(struct loader *loader)
{
	pthread_mutex_lock(&loader->mutex);
	loader->accepting = false;
	free_requests(&loader->pending);
	pthread_mutex_unlock(&loader->mutex);
	if (atomic_exchange(&loader->up, false)) {
		struct load_result *down = new_result(LOAD_DOWN, 0);
		if (down) {
			post(loader, down);
		}
	}
}

/* From a connection that is just made, or was made by loader_start, to listening. */
static bool go_up(struct loader *loader, char *error, size_t error_size)
{
	enum setup setup = database_is_connected(loader->database) ? SETUP_DONE : set_up(loader, error, error_size);
	if (setup == SETUP_TAKEN) {
		atomic_store(&loader->claimed, false); /* the lanes stop: the database is another broker's now */
	}
	if (setup != SETUP_DONE) {
		return false;
	}
	if (!listen_and_announce(loader)) {
		snprintf(error, error_size, "%s", database_error(loader->database));
		database_disconnect(loader->database);
		return false;
	}
	atomic_store(&loader->up, true);
	return true;
}

/* Serves until the connection is lost. True: it served at least one request or waited for one. */
static bool serve(struct loader *loader)
{
	struct requests mine;
	bool served = false;

	while (!atomic_load(&loader->stopping) && database_is_connected(loader->database)) {
		take_pending(loader, &mine);
		size_t count = mine.session_count + mine.pair_count + mine.fetch_count + mine.event_count + mine.name_count;
		atomic_store(&loader->round, count);
		bool good = work(loader, &mine) && (!loader->rules_changed || load_rules(loader));
		free_requests(&mine);
		served = served || good;
		if (good && count > 1) {
			rest(loader, count < REST_MAX_MS ? (int64_t)count : REST_MAX_MS);
		}
		if (good) {
			wait_for_work(loader, count > 0 ? 0 : 10000);
		}
	}
	return served;
}

static void *loader_main(void *argument)
{
	struct loader *loader = argument;
	int64_t backoff_ms = BACKOFF_FIRST_MS;
	bool told_down = !database_is_connected(loader->database); /* then loader_start has said so */
	char error[256] = "";

	while (!atomic_load(&loader->stopping)) {
		bool served = false;
		if (go_up(loader, error, sizeof(error))) {
			if (told_down) {
				log_line(LOG_LEVEL_NOTICE, "chat: database: connected again");
				told_down = false;
			}
			served = serve(loader);
			snprintf(error, sizeof(error), "%s", database_error(loader->database));
		}
		go_down(loader);
		if (atomic_load(&loader->stopping)) {
			break;
		}
		if (!told_down && !served) {
			log_line(LOG_LEVEL_ERROR, "chat: database: %s; trying again until it answers", error);
			told_down = true;
		}
		backoff_ms = served ? BACKOFF_FIRST_MS : backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff_ms * 2;
		rest(loader, backoff_ms);
	}
	return NULL;
}

struct loader *loader_start(const char *conninfo, struct delivery_queue *deliveries, bool create_users, int64_t timeout_ms,
	bool *reachable, char *error, size_t error_size)
{
	struct loader *loader = calloc(1, sizeof(*loader));
	pthread_condattr_t monotonic;
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	enum setup setup;

	if (!loader) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	loader->deliveries = deliveries;
	loader->last_result = &loader->first_result;
	atomic_store(&loader->create_users, create_users);
	pthread_mutex_init(&loader->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&loader->result_ready, &monotonic);
	pthread_condattr_destroy(&monotonic);
	database_array_init(&loader->conversations, DATABASE_INT8);
	database_array_init(&loader->users, DATABASE_INT8);
	database_array_init(&loader->devices, DATABASE_INT8);
	database_array_init(&loader->names, DATABASE_TEXT);
	loader->filter = content_filter_new();
	loader->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	loader->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	loader->database = database_new(conninfo, "mosquitto-chat loader", statements, STATEMENTS, loader->stop_fd);
	if (!loader->filter || loader->stop_fd < 0 || loader->wake_fd < 0 || !loader->database) {
		snprintf(error, error_size, "out of memory or descriptors");
		goto failed;
	}
	/* A broker that was killed a moment ago may still hold the lock until its server process notices. */
	while ((setup = set_up(loader, error, error_size)) == SETUP_TAKEN && clock_monotonic_ms() < deadline_ms) {
		poll(NULL, 0, 50);
	}
	*reachable = setup == SETUP_DONE;
	if (setup == SETUP_WRONG_VERSION || setup == SETUP_TAKEN) {
		goto failed;
	}
	loader->started = thread_start(&loader->thread, loader_main, loader);
	if (!loader->started) {
		snprintf(error, error_size, "cannot start a thread");
		goto failed;
	}
	return loader;
failed:
	loader_stop(loader);
	return NULL;
}

void loader_stop(struct loader *loader)
{
	static const uint64_t one = 1;
	if (!loader) {
		return;
	}
	atomic_store(&loader->stopping, true);
	if (loader->started) {
		ssize_t written = write(loader->stop_fd, &one, sizeof(one));
		(void)written;
		pthread_join(loader->thread, NULL);
	}
	database_free(loader->database);
	content_filter_free(loader->filter);
	while (loader->first_result) {
		struct load_result *result = loader->first_result;
		loader->first_result = result->next;
		loader_result_free(result);
	}
	free_requests(&loader->pending);
	database_array_free(&loader->conversations);
	database_array_free(&loader->users);
	database_array_free(&loader->devices);
	database_array_free(&loader->names);
	if (loader->stop_fd >= 0) {
		close(loader->stop_fd);
	}
	if (loader->wake_fd >= 0) {
		close(loader->wake_fd);
	}
	pthread_cond_destroy(&loader->result_ready);
	pthread_mutex_destroy(&loader->mutex);
	free(loader);
}
