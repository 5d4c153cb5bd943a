/* workload.c - see workload.h: options, the driver's thread, and how a run ends.
 *
 * RUNNING -> (workload_settle) FINISHING -> FENCING -> CATCHING -> SETTLED, each when the one before has come to its end;
 * workload_settle only looks on. Then (presence_look) LEAVING -> LEFT. QUIT from anywhere.
 */
#include "workload_inside.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TURN_NS NS_PER_MS
#define BURST_MAX 200
#define FENCE_AGAIN_MS 2000
#define LOOK_MS 5
#define WEBSOCKET_PERCENT 25
#define VERSION_5_PERCENT 60

struct workload_options workload_options_small(void)
{
	return (struct workload_options){.host = "127.0.0.1",
		.users = 6,
		.devices_max = 2,
		.pairs = 2,
		.groups = 2,
		.group_members = 4,
		.hot_members = 5,
		.visitors = 8,
		.comers = 1,
		.window_max = 8,
		.rate_per_s = 2000,
		.hot_percent = 50,
		.own_id_percent = 70,
		.reply_percent = 20,
		.duplicate_percent = 5,
		.reject_percent = 5,
		.mark_percent = 2,
		.body_max = 400,
		.changes_per_s = 10,
		.connected_min_ms = 300,
		.connected_max_ms = 2000};
}

struct workload_options workload_options_full(void)
{
	struct workload_options options = workload_options_small();
	options.users = 40;
	options.devices_max = 3;
	options.pairs = 10;
	options.groups = 10;
	options.group_members = 8;
	options.large_groups = 4;
	options.large_group_members = 30;
	options.deaf_users = 1;
	options.hot_members = 0;
	options.comers = 2;
	options.long_every = 500;
	options.connected_min_ms = 5000;
	options.connected_max_ms = 20000;
	return options;
}

/* ---- the driver's thread ---- */

/* As many as the rate allows, the devices taking turns. */
static void send_new(struct workload *workload, int64_t now_ns)
{
	unsigned rate = atomic_load(&workload->rate_per_s), idle = 0;
	workload->allowance += rate ? (double)(now_ns - workload->allowed_ns) / 1e9 * rate : BURST_MAX;
	workload->allowance = workload->allowance > BURST_MAX ? BURST_MAX : workload->allowance;
	workload->allowed_ns = now_ns;
	while (workload->allowance >= 1 && idle < workload->device_count) {
		struct device *device = &workload->devices[workload->turn++ % workload->device_count];
		if (device_send_new(device, now_ns)) {
			workload->allowance -= 1;
			idle = 0;
		} else {
			idle++;
		}
	}
}

/* Never used up: what hangs is named for the caller. */
__attribute__((format(printf, 2, 3))) static bool hangs(struct workload *workload, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	pthread_mutex_lock(&workload->history.mutex);
	vsnprintf(workload->hung, sizeof workload->hung, format, arguments);
	pthread_mutex_unlock(&workload->history.mutex);
	va_end(arguments);
	return false;
}

static bool has_finished(struct workload *workload)
{
	if (!atomic_load(&workload->changes_finished))
		return hangs(workload, "a change of members is not done");
	for (unsigned i = 0; i < workload->device_count; i++) {
		if (!device_is_idle(&workload->devices[i]))
			return hangs(workload, "messages of %s have no PUBACK", workload->devices[i].client_id);
	}
	for (unsigned i = 0; i < workload->device_count; i++) {
		if (!device_is_ready(&workload->devices[i]))
			return hangs(workload, "%s is not connected, or a subscription is not granted",
				workload->devices[i].client_id);
	}
	return true;
}

static void send_fence(struct workload *workload, unsigned place, int64_t now_ns)
{
	const struct conversation *conversation = &workload->conversations[place];
	for (unsigned i = 0; i < workload->device_count; i++) {
		struct device *device = &workload->devices[i];
		if (conversation->may[device->user] && !conversation->comes[device->user] &&
			device_send_fence(device, place, now_ns))
			return;
	}
}

static bool is_fenced(struct workload *workload, int64_t now_ns)
{
	bool all = true;
	for (unsigned i = 0; i < workload->conversation_count; i++) {
		const struct conversation *conversation = &workload->conversations[i];
		if (conversation->fence_seq)
			continue;
		all = hangs(workload, "the last message of conversation %lld is not answered", (long long)conversation->id);
		if (conversation->fence_ns == 0 || now_ns - conversation->fence_ns > FENCE_AGAIN_MS * NS_PER_MS)
			send_fence(workload, i, now_ns);
	}
	return all;
}

/* A device that subscribed after the fence was sent has no right to see it live. */
static bool has_caught_up(struct workload *workload)
{
	for (unsigned i = 0; i < workload->device_count; i++) {
		struct device *device = &workload->devices[i];
		for (unsigned place = 0; place < workload->conversation_count; place++) {
			const struct conversation *conversation = &workload->conversations[place];
			const struct stake *stake = &device->stakes[place];
			if (device->signed_in && !device->is_deaf && stake->grant == GRANT_GIVEN &&
				stake->granted_ns < conversation->fence_ns &&
				atomic_load(&conversation->is_member[device->user]) && stake->seen < conversation->fence_seq)
				return hangs(workload, "%s has not received seq %lld of conversation %lld", device->client_id,
					(long long)conversation->fence_seq, (long long)conversation->id);
		}
	}
	return true;
}

static bool has_left(const struct workload *workload)
{
	for (unsigned i = 0; i < workload->device_count; i++) {
		if (device_is_leaving(&workload->devices[i]))
			return false;
	}
	return true;
}

static void note_end(struct workload *workload)
{
	if (!workload->ended)
		history_add(&workload->history, &(struct history_event){.kind = HISTORY_END});
	workload->ended = true;
}

/* A phase that has come to its end is followed by the next; not after QUIT. */
static void advance(struct workload *workload, int64_t now_ns)
{
	int phase = atomic_load(&workload->phase);
	bool done = (phase == PHASE_FINISHING && has_finished(workload)) ||
		    (phase == PHASE_FENCING && is_fenced(workload, now_ns)) ||
		    (phase == PHASE_CATCHING && has_caught_up(workload)) || (phase == PHASE_LEAVING && has_left(workload));
	if (done && phase == PHASE_CATCHING)
		note_end(workload);
	if (done)
		atomic_compare_exchange_strong(&workload->phase, &phase, phase + 1);
}

static void *driver_main(void *argument)
{
	struct workload *workload = argument;
	workload->allowed_ns = history_now_ns();
	while (atomic_load(&workload->phase) != PHASE_QUIT) {
		int64_t now_ns = history_now_ns();
		for (unsigned i = 0; i < workload->device_count; i++)
			device_tick(&workload->devices[i], now_ns);
		if (atomic_load(&workload->phase) == PHASE_RUNNING)
			send_new(workload, now_ns);
		advance(workload, now_ns);
		if (!connection_loop_turn(&workload->loop, (uint64_t)(now_ns + TURN_NS)))
			abort();
	}
	note_end(workload);
	for (unsigned i = 0; i < workload->device_count; i++)
		device_close(&workload->devices[i]);
	return NULL;
}

/* ---- the caller's thread ---- */

static bool make_devices(struct workload *workload)
{
	const struct workload_options *options = &workload->options;
	uint64_t random = workload->seed;
	size_t most = (size_t)options->users * options->devices_max + options->visitors;
	workload->devices = calloc(most, sizeof *workload->devices);
	workload->history.clients = calloc(most, sizeof *workload->history.clients);
	workload->payload = malloc(PAYLOAD_SIZE);
	if (!workload->devices || !workload->history.clients || !workload->payload)
		return false;
	for (unsigned user = 0; user < user_count(workload); user++) {
		bool is_visitor = user >= options->users;
		for (unsigned i = 0, count = is_visitor ? 1 : 1 + random_below(&random, options->devices_max); i < count; i++) {
			struct device *device = &workload->devices[workload->device_count];
			device->workload = workload;
			device->index = workload->device_count++;
			device->user = user;
			device->is_visitor = is_visitor;
			device->is_deaf = !is_visitor && user + options->deaf_users >= options->users;
			device->plans = next_random(&random);
			device->random = next_random(&random);
			device->window = 1 + random_below(&device->random,
						     options->window_max < WINDOW_MAX ? options->window_max : WINDOW_MAX);
			device->connection.level =
				random_percent(&device->random, VERSION_5_PERCENT) ? WIRE_LEVEL_5 : WIRE_LEVEL_3_1_1;
			device->connection.websocket =
				options->websocket_port && random_percent(&device->random, WEBSOCKET_PERCENT);
			device->stakes = calloc(workload->conversation_count, sizeof *device->stakes);
			if (!device->stakes)
				return false;
			workload->history.clients[device->index] = (struct history_client){
				.user = workload->users[user], .version = device->connection.level, .is_deaf = device->is_deaf};
			device_init(device);
		}
	}
	workload->history.client_count = workload->device_count;
	return true;
}

static bool begin(struct workload *workload, char *error, size_t error_size)
{
	const struct workload_options *options = &workload->options;
	if (options->lines_path) {
		workload->history.lines = workload->lines = fopen(options->lines_path, "we");
		if (!workload->lines) {
			snprintf(error, error_size, "cannot write %s", options->lines_path);
			return false;
		}
	}
	PGconn *connection = PQconnectdb(workload->conninfo);
	bool made = members_create(workload, connection, error, error_size);
	PQfinish(connection);
	if (!made)
		return false;
	snprintf(error, error_size, "out of memory, descriptors or threads");
	workload->history.wall_offset_ns = history_wall_offset_ns();
	if (!make_devices(workload) || !connection_loop_open(&workload->loop, workload->host, &device_events))
		return false;
	workload->driver_started = pthread_create(&workload->driver, NULL, driver_main, workload) == 0;
	workload->administrator_started =
		workload->driver_started && pthread_create(&workload->administrator, NULL, administrator_main, workload) == 0;
	return workload->administrator_started;
}

struct workload *workload_start(const struct workload_options *options, char *error, size_t error_size)
{
	struct workload *workload = calloc(1, sizeof *workload);
	if (!workload)
		return NULL;
	workload->options = *options;
	workload->seed = options->seed ? options->seed : (uint64_t)history_wall_offset_ns() ^ (uint64_t)history_now_ns();
	workload->conninfo = strdup(options->conninfo);
	workload->host = strdup(options->host);
	workload->loop.epoll_fd = -1;
	atomic_store(&workload->rate_per_s, options->rate_per_s);
	atomic_store(&workload->port, options->port);
	atomic_store(&workload->websocket_port, options->websocket_port);
	history_init(&workload->history, NULL);
	fprintf(stderr, "workload: seed %llu\n", (unsigned long long)workload->seed);
	if (!workload->conninfo || !workload->host || !begin(workload, error, error_size)) {
		workload_free(workload);
		return NULL;
	}
	return workload;
}

void workload_set_rate(struct workload *workload, unsigned rate_per_s)
{
	atomic_store(&workload->rate_per_s, rate_per_s);
}

void workload_set_ports(struct workload *workload, int port, int websocket_port)
{
	atomic_store(&workload->port, port);
	atomic_store(&workload->websocket_port, websocket_port);
}

void workload_note_fault(struct workload *workload, const char *name)
{
	struct history_event event = {.kind = HISTORY_FAULT};
	snprintf(event.code, sizeof event.code, "%s", name);
	history_add(&workload->history, &event);
	atomic_fetch_add(&workload->faults, 1);
}

struct workload_counts workload_counts(const struct workload *workload)
{
	return (struct workload_counts){.sent = atomic_load(&workload->sent),
		.acked = atomic_load(&workload->acked),
		.received = atomic_load(&workload->received),
		.connects = atomic_load(&workload->connects),
		.connected = atomic_load(&workload->connected)};
}

const char *workload_settle(struct workload *workload, int64_t timeout_ms)
{
	int64_t deadline_ns = history_now_ns() + timeout_ms * NS_PER_MS;
	int running = PHASE_RUNNING;
	atomic_store(&workload->changes_stopped, true);
	atomic_compare_exchange_strong(&workload->phase, &running, PHASE_FINISHING);
	while (atomic_load(&workload->phase) != PHASE_SETTLED && history_now_ns() < deadline_ns)
		usleep(LOOK_MS * 1000);
	bool settled = atomic_load(&workload->phase) == PHASE_SETTLED;
	PGconn *connection = PQconnectdb(workload->conninfo);
	bool looked = settled && presence_look(workload, connection, timeout_ms);
	/* From here on the history belongs to the caller. */
	atomic_store(&workload->phase, PHASE_QUIT);
	pthread_join(workload->driver, NULL);
	pthread_join(workload->administrator, NULL);
	workload->driver_started = workload->administrator_started = false;
	workload->history.wall_offset_end_ns = history_wall_offset_ns();
	bool caught_up = members_catch_up(workload, connection);
	PQfinish(connection);
	if (looked && caught_up)
		return NULL;
	return settled ? "the members' histories or presence could not be read" : workload->hung;
}

const struct history *workload_history(const struct workload *workload)
{
	return &workload->history;
}

uint64_t workload_seed(const struct workload *workload)
{
	return workload->seed;
}

bool workload_read_table(struct workload *workload, struct table *table)
{
	int64_t *ids = calloc(workload->conversation_count, sizeof *ids);
	if (!ids)
		return false;
	for (unsigned i = 0; i < workload->conversation_count; i++)
		ids[i] = workload->conversations[i].id;
	PGconn *connection = PQconnectdb(workload->conninfo);
	bool good = table_read(connection, ids, workload->conversation_count, table);
	PQfinish(connection);
	free(ids);
	if (good) { /* the clients are gone since */
		table->presence = workload->presence;
		table->presence_count = workload->presence ? user_count(workload) : 0;
		workload->presence = NULL;
	}
	return good;
}

static void stop_threads(struct workload *workload)
{
	atomic_store(&workload->phase, PHASE_QUIT);
	if (workload->driver_started)
		pthread_join(workload->driver, NULL);
	if (workload->administrator_started)
		pthread_join(workload->administrator, NULL);
}

void workload_free(struct workload *workload)
{
	if (!workload)
		return;
	stop_threads(workload);
	for (unsigned i = 0; i < workload->device_count; i++)
		free(workload->devices[i].stakes);
	for (unsigned i = 0; i < workload->conversation_count; i++) {
		free(workload->conversations[i].may);
		free(workload->conversations[i].comes);
		free((void *)workload->conversations[i].is_member);
	}
	for (unsigned i = 0; workload->tokens && i < user_count(workload); i++)
		free(workload->tokens[i]);
	if (workload->loop.epoll_fd >= 0)
		connection_loop_close(&workload->loop);
	if (workload->lines)
		fclose(workload->lines);
	history_free(&workload->history);
	free(workload->devices);
	free(workload->conversations);
	free(workload->tokens);
	free(workload->users);
	free((void *)workload->present);
	free((void *)workload->present_since_ns);
	free(workload->presence);
	free(workload->payload);
	free(workload->conninfo);
	free(workload->host);
	free(workload);
}
