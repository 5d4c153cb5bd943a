/* presence.c - see presence.h.
 *
 * Persons are in one table, by user id. A person is on the list of those to be looked at (`dirty`), in a place of the wheel where
 * something ends by itself (a grace period), or neither; it is freed by the look that finds it of no more use, and nowhere else.
 */
#include "presence.h"

#include "host.h"
#include "id_table.h"
#include "presence_rules.h"
#include "presence_store.h"
#include "topic.h"
#include "wakeup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Looked at in one tick: about a millisecond. */
#define LOOKS_PER_TICK 1000
/* And told in one: the broker hands out what was published in one go, before it reads any client again. */
#define DELIVERIES_PER_TICK 800
/* Questions under way, beyond which sessions wait for their turn; their answers, each of which may be told, come at once. */
#define QUESTIONS_MAX 2000
#define WHEEL_PLACES 64
#define WHEEL_STEP_MS 250

enum watch_state { WATCH_WANTED, WATCH_ASKED, WATCH_OPEN, WATCH_SILENT };

struct presence_watch {
	int64_t user_id;
	struct person *person;
	uint32_t serial; /* of the question under way */
	uint32_t told;   /* the person's version that this session knows, while it is not open; 0: none */
	uint8_t state;   /* enum watch_state */
};

/* What a device says of itself. */
struct setting {
	int64_t device_id; /* 0: by client id */
	char client_id[SESSION_CLIENT_ID_MAX + 1];
	struct presence_view view; /* its text is owned */
};

/* A device that the database was told somebody sits in front of. */
struct active {
	int64_t device_id;
	int64_t ends_ms; /* it is not connected, and will be told so then; 0: it is */
	bool seen;       /* in the look under way */
};

/* There are as many of these as users: the larger fields stand first, so that no room is lost between them. */
struct person {
	int64_t id;
	struct person *link; /* the table's */
	struct person *next_dirty, *next_timed;
	struct setting *settings;
	struct active *actives;
	struct session **watchers;
	char *text;           /* that was told; NULL: none */
	int64_t last_seen_ms; /* 0: not known */
	int64_t falls_ms;     /* struct presence_told's */
	int64_t due_ms;       /* on the wheel */
	uint32_t version;     /* of what was told, from 1 */
	uint32_t open;        /* watches that are */
	uint32_t setting_count, active_count, watcher_count, watcher_capacity, text_length;
	uint8_t status;  /* that was told: enum presence_status */
	uint8_t present; /* of the devices that are connected now: likewise */
	bool known : 1;  /* settings are */
	bool asked : 1;  /* for settings */
	bool chosen : 1; /* settings have changed since the last look */
	bool dirty : 1, timed : 1;
};

struct waiting_session {
	uint32_t index, generation;
};

struct presence {
	struct id_table persons;
	struct person *first_dirty, **last_dirty;
	struct person *wheel[WHEEL_PLACES];
	int64_t wheel_step;              /* the last one that was looked at, in WHEEL_STEP_MS since the clock's origin */
	struct waiting_session *waiting; /* sessions with watches to be asked for: a ring */
	size_t waiting_first, waiting_count, waiting_capacity;
	uint32_t questions, serial;
	uint64_t told;
	uint32_t deliveries; /* of this tick */
};

static void session_ended(struct session *session, void *argument);

static uint64_t key_of_person(const void *object)
{
	return (uint64_t)((const struct person *)object)->id;
}

struct presence *presence_new(struct registry *registry)
{
	struct presence *presence = calloc(1, sizeof(*presence));
	if (presence) {
		presence->last_dirty = &presence->first_dirty;
		presence->persons = (struct id_table){.key_of = key_of_person, .link_at = offsetof(struct person, link)};
		registry_on_session_end(registry, session_ended, presence);
	}
	return presence;
}

static void free_settings(struct person *person)
{
	for (uint32_t i = 0; i < person->setting_count; i++) {
		free((char *)(uintptr_t)person->settings[i].view.text);
	}
	free(person->settings);
	person->settings = NULL;
	person->setting_count = 0;
}

static void free_person(struct person *person)
{
	free_settings(person);
	free(person->text);
	free(person->actives);
	free(person->watchers);
	free(person);
}

static void free_watches(struct session *session, void *argument)
{
	(void)argument;
	free(session->watches);
	session->watches = NULL;
	session->watch_count = session->watch_capacity = 0;
}

void presence_free(struct presence *presence, struct registry *registry)
{
	if (!presence) {
		return;
	}
	registry_on_session_end(registry, NULL, NULL);
	registry_each_session(registry, free_watches, NULL);
	for (struct person *person = id_table_next(&presence->persons, NULL), *next; person; person = next) {
		next = id_table_next(&presence->persons, person);
		free_person(person);
	}
	id_table_free(&presence->persons);
	free(presence->waiting);
	free(presence);
}

uint64_t presence_told_count(const struct presence *presence)
{
	return presence->told;
}

/* ---- persons */

static struct person *find_person(const struct presence *presence, int64_t id)
{
	return id_table_find(&presence->persons, (uint64_t)id);
}

static struct person *need_person(struct presence *presence, int64_t id)
{
	struct person *person = find_person(presence, id);
	if (person) {
		return person;
	}
	person = calloc(1, sizeof(*person));
	if (!person) {
		return NULL;
	}
	person->id = id;
	person->version = 1;
	if (!id_table_add(&presence->persons, person)) {
		free(person);
		return NULL;
	}
	return person;
}

/* To be looked at in this tick or the next. */
static void mark_dirty(struct presence *presence, struct person *person)
{
	if (!person->dirty) {
		person->dirty = true;
		person->next_dirty = NULL;
		*presence->last_dirty = person;
		presence->last_dirty = &person->next_dirty;
		wakeup_signal();
	}
}

/* To be looked at then; where it is on the wheel already, at the earlier time at least. */
static void set_timer(struct presence *presence, struct person *person, int64_t due_ms)
{
	if (!person->timed) {
		struct person **place = &presence->wheel[due_ms / WHEEL_STEP_MS % WHEEL_PLACES];
		person->timed = true;
		person->due_ms = due_ms;
		person->next_timed = *place;
		*place = person;
	}
}

/* A place holds those whose time has come, and those of a later turn of the wheel. */
static void turn_place(struct presence *presence, size_t place, int64_t now_ms)
{
	struct person *next, *first = presence->wheel[place];
	presence->wheel[place] = NULL;
	for (struct person *person = first; person; person = next) {
		next = person->next_timed;
		person->timed = false;
		if (person->due_ms <= now_ms) {
			mark_dirty(presence, person);
		} else {
			set_timer(presence, person, person->due_ms);
		}
	}
}

static void turn_wheel(struct presence *presence, int64_t now_ms)
{
	/* The place of this moment is looked at when it is over: then all of it is due. */
	int64_t step = now_ms / WHEEL_STEP_MS - 1;
	int64_t from = step - presence->wheel_step > WHEEL_PLACES ? step - WHEEL_PLACES : presence->wheel_step;
	for (int64_t at = from + 1; at <= step; at++) {
		turn_place(presence, (size_t)(at % WHEEL_PLACES), now_ms);
	}
	if (step > presence->wheel_step) {
		presence->wheel_step = step;
	}
}

/* ---- telling */

static struct presence_view shown(const struct person *person)
{
	return (struct presence_view){
		.status = (enum presence_status)person->status, .text = person->text, .text_length = person->text_length};
}

static int64_t last_seen(const struct chat *chat, const struct person *person)
{
	return person->status == PRESENCE_OFFLINE ? person->last_seen_ms : chat->now_wall_ms;
}

static bool make_payload(const struct chat *chat, const struct person *person, struct buffer *json)
{
	struct presence_view view = shown(person);
	buffer_init(json, PRESENCE_PAYLOAD_BYTES_MAX);
	return presence_payload(json, person->id, &view, last_seen(chat, person));
}

/* QoS 0, like all that come later: what is sent with QoS 1 may be overtaken by those. */
static void tell_session(struct chat *chat, const struct session *session, const struct person *person)
{
	struct host_properties properties = {.json = true};
	char topic[TOPIC_TEXT_MAX + SESSION_CLIENT_ID_MAX];
	struct buffer json;

	snprintf(topic, sizeof(topic), "chat/response/%s", session->client_id);
	if (make_payload(chat, person, &json)) {
		(void)chat_publish(chat, topic, json.data, json.length, 0, &properties);
	}
	buffer_free(&json);
}

static void tell_watchers(struct chat *chat, const struct person *person)
{
	struct host_properties properties = {.json = true};
	char topic[TOPIC_TEXT_MAX];
	struct buffer json;

	if (person->open == 0 || !chat->listening) {
		return;
	}
	topic_format(TOPIC_PRESENCE, person->id, topic);
	if (make_payload(chat, person, &json)) {
		(void)chat_publish(chat, topic, json.data, json.length, 0, &properties);
		chat->presence->deliveries += person->open;
	}
	buffer_free(&json);
}

static void write_down(struct chat *chat, const struct person *person)
{
	struct presence_view view = shown(person);
	(void)presence_store_put(chat->presence_store, person->id, &view, last_seen(chat, person));
}

static void set_shown(struct person *person, const struct presence_view *view)
{
	char *text = view->text_length > 0 ? malloc(view->text_length) : NULL;
	if (text) {
		memcpy(text, view->text, view->text_length);
	}
	free(person->text);
	person->text = text;
	person->text_length = text ? (uint32_t)view->text_length : 0;
	person->status = (uint8_t)view->status;
}

/* ---- what a person's devices say together */

static const struct presence_view *setting_of(const struct person *person, const struct session *session)
{
	static const struct presence_view online = {.status = PRESENCE_ONLINE};
	for (uint32_t i = 0; i < person->setting_count; i++) {
		const struct setting *setting = &person->settings[i];
		if (setting->device_id == session->device_id &&
			(session->device_id != 0 || strcmp(setting->client_id, session->client_id) == 0)) {
			return &setting->view;
		}
	}
	return &online;
}

/* Keeps that somebody sits in front of the device; tells the store where that is new. */
static void note_active(struct chat *chat, struct person *person, int64_t device_id)
{
	for (uint32_t i = 0; i < person->active_count; i++) {
		if (person->actives[i].device_id == device_id) {
			person->actives[i].seen = true;
			person->actives[i].ends_ms = 0;
			return;
		}
	}
	void *moved = realloc(person->actives, (person->active_count + 1) * sizeof(person->actives[0])); /* most have one */
	if (!moved) {
		return; /* at worst a push that was not needed */
	}
	person->actives = moved;
	person->actives[person->active_count++] = (struct active){.device_id = device_id, .seen = true};
	(void)presence_store_device(chat->presence_store, device_id, true);
}

static void end_active(struct chat *chat, struct person *person, int64_t device_id)
{
	for (uint32_t i = 0; i < person->active_count; i++) {
		if (person->actives[i].device_id == device_id) {
			person->actives[i] = person->actives[--person->active_count];
			(void)presence_store_device(chat->presence_store, device_id, false);
			return;
		}
	}
}

/* Those that are not connected any more stay for the grace period, and while a connection is there that is not known yet. Returns
 * when the first of them ends; 0: none does. */
static int64_t end_absent(struct chat *chat, struct person *person, bool unknown, int64_t grace_ms)
{
	int64_t first_ms = 0;
	for (uint32_t i = 0; i < person->active_count;) {
		struct active *active = &person->actives[i];
		if (!active->seen && active->ends_ms == 0) {
			active->ends_ms = chat->now_ms + grace_ms;
		}
		if (!active->seen && active->ends_ms <= chat->now_ms && !unknown) {
			end_active(chat, person, active->device_id);
			continue;
		}
		active->seen = false;
		if (active->ends_ms > chat->now_ms && (first_ms == 0 || active->ends_ms < first_ms)) {
			first_ms = active->ends_ms;
		}
		i++;
	}
	return first_ms;
}

/* What all connected devices say. True: a connection is there of which it is not known what it says. */
static bool sum_sessions(const struct person *person, const struct user *user, struct presence_view *sum)
{
	bool unknown = false;
	*sum = (struct presence_view){0};
	for (const struct session *session = user ? user->sessions : NULL; session; session = session->next_of_user) {
		if (session->state == SESSION_PROVISIONAL || (session->state == SESSION_LIVE && !person->known)) {
			unknown = true;
		} else if (session->state == SESSION_LIVE) {
			presence_add(sum, setting_of(person, session));
		}
	}
	return unknown;
}

/* Somebody sits in front of a device unless it says that they do not. */
static void note_devices(struct chat *chat, struct person *person, const struct user *user)
{
	for (const struct session *session = user ? user->sessions : NULL; session; session = session->next_of_user) {
		if (session->state != SESSION_LIVE || session->device_id == 0 || !person->known) {
			continue;
		}
		if (setting_of(person, session)->status != PRESENCE_AWAY) {
			note_active(chat, person, session->device_id);
		} else {
			end_active(chat, person, session->device_id);
		}
	}
}

/* ---- looking at a person */

static void tell(struct chat *chat, struct person *person, const struct presence_view *view)
{
	set_shown(person, view);
	person->version++;
	chat->presence->told++;
	tell_watchers(chat, person);
	write_down(chat, person);
}

static void decide(struct chat *chat, struct person *person, const struct presence_view *sum, bool unknown)
{
	struct presence_told told = {.status = (enum presence_status)person->status, .falls_ms = person->falls_ms};
	struct presence_view before = shown(person);
	struct presence_change change = {.status = sum->status,
		.same = presence_views_equal(sum, &before),
		.chosen = person->chosen && !unknown,
		.unknown = unknown,
		.now_ms = chat->now_ms,
		.grace_ms = chat->options.presence_grace_s * 1000};

	if (person->present != PRESENCE_OFFLINE) {
		person->last_seen_ms = chat->now_wall_ms;
	}
	person->present = (uint8_t)sum->status;
	person->chosen = person->chosen && unknown; /* told at once when all is known */
	bool changed = presence_decide(&told, &change);
	person->falls_ms = told.falls_ms;
	if (changed) {
		tell(chat, person, sum); /* the status is what told.status is now */
	}
}

static void look(struct chat *chat, struct person *person)
{
	struct presence *presence = chat->presence;
	const struct user *user = registry_find_user(chat->registry, person->id);
	struct presence_view sum;
	bool here = user && user->sessions;

	bool unknown = sum_sessions(person, user, &sum);
	note_devices(chat, person, user);
	if (here && !person->known && !person->asked) {
		person->asked = presence_store_read(chat->presence_store, person->id);
	}
	int64_t ends_ms = end_absent(chat, person, unknown, chat->options.presence_grace_s * 1000);
	decide(chat, person, &sum, unknown);
	int64_t falls_ms = person->falls_ms > chat->now_ms ? person->falls_ms : 0;
	int64_t due_ms = falls_ms && (!ends_ms || falls_ms < ends_ms) ? falls_ms : ends_ms;
	if (due_ms) {
		set_timer(presence, person, due_ms);
	}
	if (!here && !person->timed && person->watcher_count == 0 && person->status == PRESENCE_OFFLINE) {
		id_table_remove(&presence->persons, person);
		free_person(person);
	}
}

static void look_at_dirty(struct chat *chat)
{
	struct presence *presence = chat->presence;
	presence->deliveries = 0;
	for (int i = 0; i < LOOKS_PER_TICK && presence->deliveries < DELIVERIES_PER_TICK && presence->first_dirty; i++) {
		struct person *person = presence->first_dirty;
		presence->first_dirty = person->next_dirty;
		if (!presence->first_dirty) {
			presence->last_dirty = &presence->first_dirty;
		}
		person->dirty = false;
		look(chat, person);
	}
	if (presence->first_dirty) {
		wakeup_signal();
	}
}

/* ---- watches */

/* Where the watch is, or belongs. */
static uint32_t watch_place(const struct session *session, int64_t user_id)
{
	uint32_t low = 0, high = session->watch_count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (session->watches[middle].user_id < user_id) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

static struct presence_watch *find_watch(const struct session *session, int64_t user_id)
{
	uint32_t place = watch_place(session, user_id);
	if (place < session->watch_count && session->watches[place].user_id == user_id) {
		return &session->watches[place];
	}
	return NULL;
}

bool presence_may_read(const struct chat *chat, const struct session *session, int64_t user_id)
{
	const struct presence_watch *watch = find_watch(session, user_id);
	return watch && watch->state == WATCH_OPEN && chat->listening;
}

static bool grow_ring(struct presence *presence)
{
	if (presence->waiting_count < presence->waiting_capacity) {
		return true;
	}
	size_t larger = presence->waiting_capacity * 2 + 16;
	struct waiting_session *moved = malloc(larger * sizeof(moved[0]));
	if (!moved) {
		return false;
	}
	for (size_t i = 0; i < presence->waiting_count; i++) {
		moved[i] = presence->waiting[(presence->waiting_first + i) % presence->waiting_capacity];
	}
	free(presence->waiting);
	presence->waiting = moved;
	presence->waiting_first = 0;
	presence->waiting_capacity = larger;
	return true;
}

/* What its watches want to know is asked at the next tick, or when it is its turn. */
static void queue_session(struct presence *presence, struct session *session)
{
	if (session->watches_queued || session->state != SESSION_LIVE || !grow_ring(presence)) {
		return;
	}
	size_t at = (presence->waiting_first + presence->waiting_count++) % presence->waiting_capacity;
	presence->waiting[at] = (struct waiting_session){session->index, session->generation};
	session->watches_queued = true;
	wakeup_signal();
}

static void ask_watches(struct chat *chat, struct session *session)
{
	struct presence *presence = chat->presence;
	for (uint32_t i = 0; i < session->watch_count; i++) {
		struct presence_watch *watch = &session->watches[i];
		struct presence_question question = {
			session->user->id, watch->user_id, session->index, session->generation, ++presence->serial};
		if (watch->state == WATCH_WANTED && presence_store_ask(chat->presence_store, &question)) {
			watch->state = WATCH_ASKED;
			watch->serial = question.serial;
			presence->questions++;
		}
	}
}

static void ask_waiting(struct chat *chat)
{
	struct presence *presence = chat->presence;
	while (presence->waiting_count > 0 && presence->questions < QUESTIONS_MAX && chat->listening) {
		struct waiting_session first = presence->waiting[presence->waiting_first];
		presence->waiting_first = (presence->waiting_first + 1) % presence->waiting_capacity;
		presence->waiting_count--;
		struct session *session = registry_session_at(chat->registry, first.index, first.generation);
		if (session) {
			session->watches_queued = false;
			ask_watches(chat, session);
		}
	}
}

static void close_watch(struct presence_watch *watch)
{
	if (watch->state == WATCH_OPEN) {
		watch->person->open--;
		watch->told = watch->person->version;
	}
	watch->state = WATCH_WANTED;
}

static void close_and_ask(struct presence *presence, struct session *session, struct presence_watch *watch)
{
	close_watch(watch);
	queue_session(presence, session);
}

static void remove_watcher(struct presence *presence, struct person *person, const struct session *session)
{
	for (uint32_t i = 0; i < person->watcher_count; i++) {
		if (person->watchers[i] == session) {
			person->watchers[i] = person->watchers[--person->watcher_count];
			break;
		}
	}
	if (person->watcher_count == 0) {
		mark_dirty(presence, person); /* perhaps it is of no more use */
	}
}

/* Makes room for one more element. */
static bool grow(void **array, uint32_t *capacity, uint32_t count, size_t element_size)
{
	if (count < *capacity) {
		return true;
	}
	uint32_t larger = *capacity + *capacity / 2 + 4;
	void *moved = realloc(*array, larger * element_size);
	if (!moved) {
		return false;
	}
	*array = moved;
	*capacity = larger;
	return true;
}

bool presence_watch(struct chat *chat, struct session *session, int64_t user_id)
{
	struct presence *presence = chat->presence;
	struct presence_watch *watch = find_watch(session, user_id);

	if (watch) { /* again: it wants to hear how it is */
		if (watch->state == WATCH_OPEN) {
			close_and_ask(presence, session, watch); /* it is told with the answer, however often it asks */
		}
		watch->told = 0;
		return true;
	}
	struct person *person = session->watch_count < PRESENCE_WATCHES_MAX ? need_person(presence, user_id) : NULL;
	if (!person ||
		!grow((void **)&session->watches, &session->watch_capacity, session->watch_count, sizeof(session->watches[0])) ||
		!grow((void **)&person->watchers, &person->watcher_capacity, person->watcher_count,
			sizeof(person->watchers[0]))) {
		if (person) {
			mark_dirty(presence, person);
		}
		return false;
	}
	person->watchers[person->watcher_count++] = session;
	watch = session->watches + watch_place(session, user_id);
	memmove(watch + 1, watch, (size_t)(session->watches + session->watch_count - watch) * sizeof(watch[0]));
	*watch = (struct presence_watch){.user_id = user_id, .person = person, .state = WATCH_WANTED};
	session->watch_count++;
	queue_session(presence, session);
	return true;
}

void presence_unwatch(struct chat *chat, struct session *session, int64_t user_id)
{
	struct presence_watch *watch = find_watch(session, user_id);
	if (!watch) {
		return;
	}
	close_watch(watch);
	remove_watcher(chat->presence, watch->person, session);
	session->watch_count--;
	memmove(watch, watch + 1, (size_t)(session->watches + session->watch_count - watch) * sizeof(watch[0]));
}

/* ---- sessions */

void presence_session_live(struct chat *chat, struct session *session)
{
	struct person *person = need_person(chat->presence, session->user->id);
	if (person) {
		mark_dirty(chat->presence, person);
	}
	if (session->watch_count > 0) {
		queue_session(chat->presence, session);
	}
}

/* Called for every session, before it is taken out of the registry. */
static void session_ended(struct session *session, void *argument)
{
	struct presence *presence = argument;
	struct person *person = session->user ? find_person(presence, session->user->id) : NULL;

	for (uint32_t i = 0; i < session->watch_count; i++) {
		close_watch(&session->watches[i]);
		remove_watcher(presence, session->watches[i].person, session);
	}
	free_watches(session, NULL);
	if (person) {
		mark_dirty(presence, person);
	}
}

/* ---- answers */

static void apply_sight(struct chat *chat, const struct presence_sight *sight)
{
	const struct presence_question *question = &sight->question;
	const struct session *session =
		registry_session_at(chat->registry, question->session_index, question->session_generation);
	struct presence_watch *watch = session ? find_watch(session, question->user_id) : NULL;

	chat->presence->questions--;
	if (!watch || watch->state != WATCH_ASKED || watch->serial != question->serial) {
		return; /* it is asked anew, or nobody wants to know */
	}
	watch->state = sight->allowed ? WATCH_OPEN : WATCH_SILENT;
	if (!sight->allowed) {
		return;
	}
	struct person *person = watch->person;
	person->open++;
	if (person->last_seen_ms == 0) {
		person->last_seen_ms = sight->last_seen_ms;
	}
	if (watch->told != person->version) {
		tell_session(chat, session, person);
	}
}

static bool take_setting(struct setting *setting, const struct presence_said *said)
{
	char *text = said->view.text_length > 0 ? malloc(said->view.text_length) : NULL;
	if (said->client_id_length > SESSION_CLIENT_ID_MAX || (said->view.text_length > 0 && !text)) {
		free(text);
		return false;
	}
	*setting = (struct setting){.device_id = said->device_id, .view = said->view};
	if (said->client_id) {
		memcpy(setting->client_id, said->client_id, said->client_id_length);
	}
	if (text) {
		memcpy(text, said->view.text, said->view.text_length);
	}
	setting->view.text = text;
	return true;
}

/* Rows of one user. */
static void apply_said(struct chat *chat, const struct presence_said *said, size_t count)
{
	const struct user *user = registry_find_user(chat->registry, said[0].user_id);
	struct person *person = find_person(chat->presence, said[0].user_id);
	struct presence_view before, after;

	if (!person) {
		return;
	}
	sum_sessions(person, user, &before);
	enum presence_status status_before = before.status; /* its text goes with the settings */
	free_settings(person);
	person->settings = said[0].nothing ? NULL : calloc(count, sizeof(person->settings[0]));
	for (size_t i = 0; i < count && person->settings; i++) {
		if (take_setting(&person->settings[person->setting_count], &said[i])) {
			person->setting_count++;
		}
	}
	person->known = said[0].nothing || person->setting_count == count; /* no memory: it is read again */
	person->asked = false;
	sum_sessions(person, user, &after);
	person->chosen = person->chosen || after.status < status_before;
	mark_dirty(chat->presence, person);
}

/* The database has forgotten who is here. */
static void write_all(struct chat *chat)
{
	const struct id_table *persons = &chat->presence->persons;
	for (struct person *person = id_table_next(persons, NULL); person; person = id_table_next(persons, person)) {
		if (person->status != PRESENCE_OFFLINE) {
			write_down(chat, person);
		}
		for (uint32_t i = 0; i < person->active_count; i++) {
			(void)presence_store_device(chat->presence_store, person->actives[i].device_id, true);
		}
	}
}

static void apply_answer(struct chat *chat, const struct presence_answer *answer)
{
	size_t next;
	switch (answer->kind) {
	case PRESENCE_SIGHTS:
		for (size_t i = 0; i < answer->count; i++) {
			apply_sight(chat, &answer->sights[i]);
		}
		break;
	case PRESENCE_SAID:
		for (size_t first = 0; first < answer->count; first = next) {
			for (next = first + 1; next < answer->count && answer->said[next].user_id == answer->said[first].user_id;
				next++) {
			}
			apply_said(chat, &answer->said[first], next - first);
		}
		break;
	case PRESENCE_AGAIN:
		write_all(chat);
		break;
	}
}

/* ---- announcements */

void presence_said(struct chat *chat, int64_t user_id)
{
	struct person *person = find_person(chat->presence, user_id);
	if (person && (person->known || person->asked)) {
		(void)presence_store_read(chat->presence_store, user_id);
	}
}

static void reconsider_watchers(struct presence *presence, const struct person *person)
{
	for (uint32_t i = 0; i < person->watcher_count; i++) {
		close_and_ask(presence, person->watchers[i], find_watch(person->watchers[i], person->id));
	}
}

/* What one user's sessions may see; of the other alone, where one is named (not 0). */
static void reconsider_watching(struct chat *chat, int64_t user_id, int64_t other_id)
{
	const struct user *user = registry_find_user(chat->registry, user_id);
	for (struct session *session = user ? user->sessions : NULL; session; session = session->next_of_user) {
		for (uint32_t i = 0; i < session->watch_count; i++) {
			if (other_id == 0 || session->watches[i].user_id == other_id) {
				close_and_ask(chat->presence, session, &session->watches[i]);
			}
		}
	}
}

void presence_reconsider(struct chat *chat, int64_t user_id)
{
	presence_reconsider_sight(chat, user_id, 0);
	reconsider_watching(chat, user_id, 0);
}

void presence_reconsider_sight(struct chat *chat, int64_t user_id, int64_t other_id)
{
	const struct person *person = find_person(chat->presence, user_id);
	if (other_id != 0) {
		reconsider_watching(chat, user_id, other_id);
		reconsider_watching(chat, other_id, user_id);
	} else if (person) {
		reconsider_watchers(chat->presence, person);
	}
}

static void close_watches(struct session *session, void *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < session->watch_count; i++) {
		close_watch(&session->watches[i]);
	}
}

void presence_silence(struct chat *chat)
{
	registry_each_session(chat->registry, close_watches, NULL);
}

static void ask_session_again(struct session *session, void *argument)
{
	close_watches(session, NULL);
	if (session->watch_count > 0) {
		queue_session(argument, session);
	}
}

void presence_resume(struct chat *chat)
{
	registry_each_session(chat->registry, ask_session_again, chat->presence);
	const struct id_table *persons = &chat->presence->persons;
	for (struct person *person = id_table_next(persons, NULL); person; person = id_table_next(persons, person)) {
		if (person->known || person->asked) {
			(void)presence_store_read(chat->presence_store, person->id);
		}
	}
}

/* ---- the tick */

void presence_tick(struct chat *chat)
{
	struct presence_answer *next;
	for (struct presence_answer *answer = presence_store_take_all(chat->presence_store); answer; answer = next) {
		next = answer->next;
		apply_answer(chat, answer);
		presence_answer_free(answer);
	}
	turn_wheel(chat->presence, chat->now_ms);
	look_at_dirty(chat);
	ask_waiting(chat);
}
