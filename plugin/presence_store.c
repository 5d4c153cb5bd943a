/* presence_store.c - see presence_store.h.
 *
 * The mutex guards `pending` and the list of answers. The thread takes all of `pending`, works without the lock, and puts back
 * what it could not do; of a user or device that has changed again meanwhile the newer state stays.
 */
#include "presence_store.h"

#include "clock.h"
#include "hash_table.h"
#include "log.h"
#include "statements.h"
#include "test_faults.h"
#include "thread.h"
#include "wakeup.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CYCLE_MS 500      /* not more often */
#define HEARTBEAT_MS 5000 /* a sixth of what the schema takes for death */
#define RETRY_MS 1000
#define CONNECT_TIMEOUT_MS 5000
#define CALL_TIMEOUT_MS 30000
#define FINISH_TIMEOUT_MS 2000
#define STOP_WAIT_MS 1000
/* One statement's share: some tens of milliseconds of the server's time. */
#define ROWS_PER_CALL 5000

struct state {
	UT_hash_handle hh;
	int64_t user_id, last_seen_ms;
	enum presence_status status;
	size_t text_length;
	char text[];
};

struct device {
	UT_hash_handle hh;
	int64_t id;
	bool active;
};

struct work {
	struct state *states;
	struct device *devices;
	struct presence_question *questions;
	size_t question_count, question_capacity;
	int64_t *reads;
	size_t read_count, read_capacity;
};

struct presence_store {
	struct database *database;
	const struct loader *loader;
	uint8_t broker[16];
	pthread_t thread;
	bool started;
	int stop_fd, wake_fd;
	pthread_mutex_t mutex;
	pthread_cond_t finished;
	bool has_finished;
	struct work pending;
	struct presence_answer *first_answer;
	struct presence_answer **last_answer;
	_Atomic bool any_answer, finishing;
	_Atomic uint64_t statements;
	/* The thread's own. */
	bool opened; /* what the last run left is ended */
	int64_t cycle_ms, heartbeat_ms;
	struct database_array users, statuses, texts, seen, active, inactive;
	struct log_gate trouble;
};

/* ---- what waits */

static void free_work(struct work *work)
{
	struct state *state, *next_state;
	struct device *device, *next_device;
	HASH_ITER(hh, work->states, state, next_state)
	{
		HASH_DEL(work->states, state);
		free(state);
	}
	HASH_ITER(hh, work->devices, device, next_device)
	{
		HASH_DEL(work->devices, device);
		free(device);
	}
	free(work->questions);
	free(work->reads);
	memset(work, 0, sizeof(*work));
}

static bool push(void **array, size_t *count, size_t *capacity, const void *element, size_t size)
{
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

static bool add_state(struct work *work, struct state *state)
{
	HASH_ADD(hh, work->states, user_id, sizeof(state->user_id), state);
	return state->hh.tbl != NULL;
}

static bool add_device(struct work *work, struct device *device)
{
	HASH_ADD(hh, work->devices, id, sizeof(device->id), device);
	return device->hh.tbl != NULL;
}

static struct state *find_state(const struct work *work, int64_t user_id)
{
	struct state *found;
	HASH_FIND(hh, work->states, &user_id, sizeof(user_id), found);
	return found;
}

static struct device *find_device(const struct work *work, int64_t id)
{
	struct device *found;
	HASH_FIND(hh, work->devices, &id, sizeof(id), found);
	return found;
}

static bool work_added(struct presence_store *store, bool added)
{
	static const uint64_t one = 1;
	pthread_mutex_unlock(&store->mutex);
	if (added) {
		ssize_t written = write(store->wake_fd, &one, sizeof(one));
		(void)written; /* EAGAIN: already readable */
	}
	return added;
}

bool presence_store_put(struct presence_store *store, int64_t user_id, const struct presence_view *view, int64_t last_seen_ms)
{
	if (TEST_BREAK("skip_presence")) {
		return true;
	}
	struct state *state = calloc(1, sizeof(*state) + view->text_length);
	if (!state) {
		return false;
	}
	state->user_id = user_id;
	state->status = view->status;
	state->last_seen_ms = last_seen_ms;
	state->text_length = view->text_length;
	if (view->text_length > 0) {
		memcpy(state->text, view->text, view->text_length);
	}
	pthread_mutex_lock(&store->mutex);
	struct state *older = find_state(&store->pending, user_id);
	if (older) {
		state->last_seen_ms = last_seen_ms ? last_seen_ms : older->last_seen_ms;
		HASH_DEL(store->pending.states, older);
		free(older);
	}
	bool added = add_state(&store->pending, state);
	if (!added) {
		free(state);
	}
	return work_added(store, added);
}

bool presence_store_device(struct presence_store *store, int64_t device_id, bool active)
{
	pthread_mutex_lock(&store->mutex);
	struct device *device = find_device(&store->pending, device_id);
	bool added = device != NULL;
	if (!device) {
		device = calloc(1, sizeof(*device));
		if (device) {
			device->id = device_id;
			added = add_device(&store->pending, device);
		}
		if (!added) {
			free(device);
		}
	}
	if (added) {
		device->active = active;
	}
	return work_added(store, added);
}

bool presence_store_read(struct presence_store *store, int64_t user_id)
{
	struct work *pending = &store->pending;
	pthread_mutex_lock(&store->mutex);
	return work_added(
		store, push((void **)&pending->reads, &pending->read_count, &pending->read_capacity, &user_id, sizeof(user_id)));
}

bool presence_store_ask(struct presence_store *store, const struct presence_question *question)
{
	struct work *pending = &store->pending;
	pthread_mutex_lock(&store->mutex);
	return work_added(store, push((void **)&pending->questions, &pending->question_count, &pending->question_capacity,
					 question, sizeof(*question)));
}

static struct work take_work(struct presence_store *store)
{
	pthread_mutex_lock(&store->mutex);
	struct work mine = store->pending;
	memset(&store->pending, 0, sizeof(store->pending));
	pthread_mutex_unlock(&store->mutex);
	return mine;
}

/* With the mutex held. Want of memory loses what the next change writes, or a connection asks for anew. */
static void put_back_all(struct presence_store *store, struct work *mine)
{
	struct work *pending = &store->pending;
	struct state *state, *next_state;
	struct device *device, *next_device;

	HASH_ITER(hh, mine->states, state, next_state)
	{
		HASH_DEL(mine->states, state);
		if (find_state(pending, state->user_id) || !add_state(pending, state)) {
			free(state);
		}
	}
	HASH_ITER(hh, mine->devices, device, next_device)
	{
		HASH_DEL(mine->devices, device);
		if (find_device(pending, device->id) || !add_device(pending, device)) {
			free(device);
		}
	}
	for (size_t i = 0; i < mine->read_count; i++) {
		(void)push((void **)&pending->reads, &pending->read_count, &pending->read_capacity, &mine->reads[i],
			sizeof(mine->reads[0]));
	}
	for (size_t i = 0; i < mine->question_count; i++) {
		(void)push((void **)&pending->questions, &pending->question_count, &pending->question_capacity,
			&mine->questions[i], sizeof(mine->questions[0]));
	}
}

static void put_back(struct presence_store *store, struct work *mine)
{
	pthread_mutex_lock(&store->mutex);
	put_back_all(store, mine);
	pthread_mutex_unlock(&store->mutex);
}

/* ---- answers */

static void post(struct presence_store *store, struct presence_answer *answer)
{
	pthread_mutex_lock(&store->mutex);
	*store->last_answer = answer;
	store->last_answer = &answer->next;
	atomic_store(&store->any_answer, true);
	pthread_mutex_unlock(&store->mutex);
	wakeup_signal();
}

struct presence_answer *presence_store_take_all(struct presence_store *store)
{
	if (!atomic_load(&store->any_answer)) {
		return NULL;
	}
	pthread_mutex_lock(&store->mutex);
	struct presence_answer *all = store->first_answer;
	store->first_answer = NULL;
	store->last_answer = &store->first_answer;
	atomic_store(&store->any_answer, false);
	pthread_mutex_unlock(&store->mutex);
	return all;
}

void presence_answer_free(struct presence_answer *answer)
{
	if (answer) {
		free(answer->sights);
		free(answer->said);
		database_result_free(answer->rows);
		free(answer);
	}
}

uint64_t presence_store_statements(const struct presence_store *store)
{
	return atomic_load(&store->statements);
}

/* ---- statements: the thread */

static bool call(struct presence_store *store, enum statement statement, const struct database_parameters *parameters,
	int64_t timeout_ms, struct database_result **result)
{
	struct database_call one = {statement, parameters};
	uint64_t suppressed;

	*result = NULL;
	atomic_fetch_add(&store->statements, 1);
	enum database_status status = database_run(store->database, &one, 1, timeout_ms, result);
	if (status == DATABASE_REFUSED && log_gate_open(&store->trouble, clock_monotonic_ms(), &suppressed)) {
		log_line(LOG_LEVEL_ERROR, "chat: presence: %s: %s; SQLSTATE %s; it is tried again", statements[statement].name,
			database_error(store->database), database_sqlstate(store->database));
	}
	return status == DATABASE_OK;
}

static bool call_of_broker(struct presence_store *store, enum statement statement, int64_t timeout_ms)
{
	struct database_parameters parameters;
	struct database_result *result;

	database_parameters_reset(&parameters);
	database_parameter_uuid(&parameters, store->broker);
	bool done = call(store, statement, &parameters, timeout_ms, &result);
	database_result_free(result);
	return done;
}

static void fill_states(struct presence_store *store, const struct work *mine)
{
	size_t count = 0;
	database_array_reset(&store->users);
	database_array_reset(&store->statuses);
	database_array_reset(&store->texts);
	database_array_reset(&store->seen);
	for (const struct state *state = mine->states; state && count < ROWS_PER_CALL; state = state->hh.next, count++) {
		const char *status = presence_status_name(state->status);
		database_array_integer(&store->users, state->user_id);
		database_array_bytes(&store->statuses, status, strlen(status));
		if (state->text_length > 0) {
			database_array_bytes(&store->texts, state->text, state->text_length);
		} else {
			database_array_null(&store->texts);
		}
		if (state->last_seen_ms) {
			database_array_time(&store->seen, state->last_seen_ms);
		} else {
			database_array_null(&store->seen);
		}
	}
}

static void fill_devices(struct presence_store *store, const struct work *mine)
{
	size_t count = 0;
	database_array_reset(&store->active);
	database_array_reset(&store->inactive);
	for (const struct device *device = mine->devices; device && count < ROWS_PER_CALL; device = device->hh.next, count++) {
		database_array_integer(device->active ? &store->active : &store->inactive, device->id);
	}
}

/* What one call took. */
static void drop_written(struct work *mine)
{
	for (size_t i = 0; i < ROWS_PER_CALL && mine->states; i++) {
		struct state *first = mine->states;
		HASH_DEL(mine->states, first);
		free(first);
	}
	for (size_t i = 0; i < ROWS_PER_CALL && mine->devices; i++) {
		struct device *first = mine->devices;
		HASH_DEL(mine->devices, first);
		free(first);
	}
}

static void post_again(struct presence_store *store)
{
	struct presence_answer *answer = calloc(1, sizeof(*answer));
	if (answer) {
		answer->kind = PRESENCE_AGAIN;
		post(store, answer);
	}
}

static bool write_share(struct presence_store *store, struct work *mine, int64_t timeout_ms)
{
	struct database_parameters parameters;
	struct database_result *result;

	fill_states(store, mine);
	fill_devices(store, mine);
	database_parameters_reset(&parameters);
	database_parameter_uuid(&parameters, store->broker);
	database_parameter_array(&parameters, &store->users);
	database_parameter_array(&parameters, &store->statuses);
	database_parameter_array(&parameters, &store->texts);
	database_parameter_array(&parameters, &store->seen);
	database_parameter_array(&parameters, &store->active);
	database_parameter_array(&parameters, &store->inactive);
	if (!call(store, STATEMENT_WRITE_PRESENCE, &parameters, timeout_ms, &result)) {
		return false;
	}
	if (database_rows(result) == 1 && !database_integer(result, 0, 0)) {
		post_again(store);
	}
	database_result_free(result);
	drop_written(mine);
	store->heartbeat_ms = clock_monotonic_ms();
	return true;
}

static bool write_all(struct presence_store *store, struct work *mine, int64_t timeout_ms)
{
	while (mine->states || mine->devices) {
		if (!write_share(store, mine, timeout_ms)) {
			return false;
		}
	}
	return clock_monotonic_ms() - store->heartbeat_ms < HEARTBEAT_MS || write_share(store, mine, timeout_ms);
}

static void read_said(const struct database_result *rows, int row, struct presence_said *said)
{
	size_t length;
	said->user_id = database_integer(rows, row, 0);
	said->device_id = database_integer(rows, row, 1);
	said->client_id = database_bytes(rows, row, 2, &said->client_id_length);
	const char *status = database_bytes(rows, row, 3, &length);
	said->nothing = !status || !presence_status_parse(status, length, &said->view.status);
	said->view.text = database_bytes(rows, row, 4, &said->view.text_length);
	if (!said->view.text) {
		said->view.text_length = 0;
	}
	said->view.set_at_ms = database_time_ms(rows, row, 5);
}

static bool read_share(struct presence_store *store, const int64_t *users, size_t count)
{
	struct database_parameters parameters;
	struct database_result *rows;

	database_array_reset(&store->users);
	for (size_t i = 0; i < count; i++) {
		database_array_integer(&store->users, users[i]);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &store->users);
	if (!call(store, STATEMENT_READ_DEVICE_PRESENCE, &parameters, CALL_TIMEOUT_MS, &rows)) {
		return false;
	}
	struct presence_answer *answer = calloc(1, sizeof(*answer));
	if (!answer) {
		database_result_free(rows);
		return false;
	}
	answer->kind = PRESENCE_SAID;
	answer->rows = rows;
	answer->count = (size_t)database_rows(rows);
	answer->said = calloc(answer->count + 1, sizeof(answer->said[0]));
	if (!answer->said) {
		presence_answer_free(answer);
		return false;
	}
	for (size_t i = 0; i < answer->count; i++) {
		read_said(rows, (int)i, &answer->said[i]);
	}
	post(store, answer);
	return true;
}

static bool ask_share(struct presence_store *store, const struct presence_question *questions, size_t count)
{
	struct database_parameters parameters;
	struct database_result *rows;

	database_array_reset(&store->active);
	database_array_reset(&store->users);
	for (size_t i = 0; i < count; i++) {
		database_array_integer(&store->active, questions[i].watcher_id);
		database_array_integer(&store->users, questions[i].user_id);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &store->active);
	database_parameter_array(&parameters, &store->users);
	if (!call(store, STATEMENT_ASK_PRESENCE, &parameters, CALL_TIMEOUT_MS, &rows)) {
		return false;
	}
	struct presence_answer *answer = calloc(1, sizeof(*answer));
	struct presence_sight *sights = calloc(count, sizeof(sights[0]));
	if (!answer || !sights) {
		free(sights);
		free(answer);
		database_result_free(rows);
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		sights[i].question = questions[i];
	}
	for (int row = 0; row < database_rows(rows); row++) {
		struct presence_sight *sight = &sights[database_integer(rows, row, 0) - 1];
		sight->allowed = true;
		sight->last_seen_ms = database_time_ms(rows, row, 1);
	}
	database_result_free(rows);
	answer->kind = PRESENCE_SIGHTS;
	answer->count = count;
	answer->sights = sights;
	post(store, answer);
	return true;
}

static size_t share_of(size_t count)
{
	return count < ROWS_PER_CALL ? count : ROWS_PER_CALL;
}

/* What is done is taken off; false: the rest is still in `mine`. */
static bool answer_all(struct presence_store *store, struct work *mine)
{
	while (mine->read_count > 0) {
		size_t share = share_of(mine->read_count);
		if (!read_share(store, mine->reads + mine->read_count - share, share)) {
			return false;
		}
		mine->read_count -= share;
	}
	while (mine->question_count > 0) {
		size_t share = share_of(mine->question_count);
		if (!ask_share(store, mine->questions + mine->question_count - share, share)) {
			return false;
		}
		mine->question_count -= share;
	}
	return true;
}

/* ---- the thread */

static bool is_ready(struct presence_store *store)
{
	if (!loader_is_claimed(store->loader)) {
		return false;
	}
	/* That the database is away the loader says. */
	if (!database_is_connected(store->database) && !database_connect(store->database, CONNECT_TIMEOUT_MS)) {
		return false;
	}
	if (!store->opened) {
		store->opened = call_of_broker(store, STATEMENT_OPEN_PRESENCE, CALL_TIMEOUT_MS);
		store->heartbeat_ms = clock_monotonic_ms();
	}
	return store->opened;
}

static bool do_cycle(struct presence_store *store)
{
	if (!is_ready(store)) {
		return false;
	}
	struct work mine = take_work(store);
	bool done = write_all(store, &mine, CALL_TIMEOUT_MS) && answer_all(store, &mine);
	if (!done) {
		put_back(store, &mine);
	}
	free_work(&mine);
	return done;
}

static void drain_wake(struct presence_store *store)
{
	uint64_t count;
	ssize_t got = read(store->wake_fd, &count, sizeof(count));
	(void)got;
}

/* Until there is something to do, or a heartbeat is due; and not before the last cycle is CYCLE_MS ago. */
static void wait_for_work(struct presence_store *store)
{
	struct pollfd fds[2] = {{.fd = store->stop_fd, .events = POLLIN}, {.fd = store->wake_fd, .events = POLLIN}};
	int64_t idle_ms = store->heartbeat_ms + HEARTBEAT_MS - clock_monotonic_ms();

	poll(fds, 2, idle_ms > 0 ? (int)idle_ms : 0);
	int64_t rest_ms = store->cycle_ms + CYCLE_MS - clock_monotonic_ms();
	if (rest_ms > 0 && !atomic_load(&store->finishing)) {
		poll(fds, 1, (int)rest_ms);
	}
	drain_wake(store);
}

/* The last words: what waits, and that nobody is connected here any more. */
static void say_goodbye(struct presence_store *store)
{
	if (store->opened && loader_is_claimed(store->loader) && database_is_connected(store->database)) {
		struct work mine = take_work(store);
		if (write_all(store, &mine, FINISH_TIMEOUT_MS)) {
			(void)call_of_broker(store, STATEMENT_CLOSE_PRESENCE, FINISH_TIMEOUT_MS);
		}
		free_work(&mine);
	}
	pthread_mutex_lock(&store->mutex);
	store->has_finished = true;
	pthread_cond_signal(&store->finished);
	pthread_mutex_unlock(&store->mutex);
}

static void *store_main(void *argument)
{
	struct presence_store *store = argument;
	struct pollfd stop = {.fd = store->stop_fd, .events = POLLIN};

	while (!atomic_load(&store->finishing)) {
		store->cycle_ms = clock_monotonic_ms();
		if (do_cycle(store)) {
			wait_for_work(store);
		} else {
			poll(&stop, 1, RETRY_MS);
		}
	}
	say_goodbye(store);
	return NULL;
}

/* ---- start and end */

static void init_arrays(struct presence_store *store)
{
	database_array_init(&store->users, DATABASE_INT8);
	database_array_init(&store->statuses, DATABASE_TEXT);
	database_array_init(&store->texts, DATABASE_TEXT);
	database_array_init(&store->seen, DATABASE_TIMESTAMPTZ);
	database_array_init(&store->active, DATABASE_INT8);
	database_array_init(&store->inactive, DATABASE_INT8);
}

static void free_arrays(struct presence_store *store)
{
	database_array_free(&store->users);
	database_array_free(&store->statuses);
	database_array_free(&store->texts);
	database_array_free(&store->seen);
	database_array_free(&store->active);
	database_array_free(&store->inactive);
}

struct presence_store *presence_store_start(
	const char *conninfo, const struct loader *loader, const uint8_t *broker, char *error, size_t error_size)
{
	struct presence_store *store = calloc(1, sizeof(*store));
	pthread_condattr_t monotonic;

	if (!store) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	store->loader = loader;
	memcpy(store->broker, broker, sizeof(store->broker));
	store->last_answer = &store->first_answer;
	pthread_mutex_init(&store->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&store->finished, &monotonic);
	pthread_condattr_destroy(&monotonic);
	init_arrays(store);
	store->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	store->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	store->database = database_new(conninfo, "mosquitto-chat presence", statements, STATEMENTS, store->stop_fd);
	if (store->stop_fd < 0 || store->wake_fd < 0 || !store->database) {
		goto failed;
	}
	store->started = thread_start(&store->thread, store_main, store);
	if (!store->started) {
		goto failed;
	}
	return store;
failed:
	snprintf(error, error_size, "out of memory, descriptors or threads");
	presence_store_stop(store);
	return NULL;
}

static void wake(int fd)
{
	static const uint64_t one = 1;
	ssize_t written = write(fd, &one, sizeof(one));
	(void)written;
}

void presence_store_finish(struct presence_store *store)
{
	if (store && store->started) {
		atomic_store(&store->finishing, true);
		wake(store->wake_fd);
	}
}

static void wait_finished(struct presence_store *store)
{
	struct timespec until = clock_deadline(STOP_WAIT_MS);
	int rc = 0;
	pthread_mutex_lock(&store->mutex);
	while (!store->has_finished && rc == 0) {
		rc = pthread_cond_timedwait(&store->finished, &store->mutex, &until);
	}
	pthread_mutex_unlock(&store->mutex);
}

void presence_store_stop(struct presence_store *store)
{
	if (!store) {
		return;
	}
	if (store->started) {
		presence_store_finish(store);
		wait_finished(store);
		wake(store->stop_fd);
		pthread_join(store->thread, NULL);
	}
	database_free(store->database);
	while (store->first_answer) {
		struct presence_answer *answer = store->first_answer;
		store->first_answer = answer->next;
		presence_answer_free(answer);
	}
	free_work(&store->pending);
	free_arrays(store);
	if (store->stop_fd >= 0) {
		close(store->stop_fd);
	}
	if (store->wake_fd >= 0) {
		close(store->wake_fd);
	}
	pthread_cond_destroy(&store->finished);
	pthread_mutex_destroy(&store->mutex);
	free(store);
}
