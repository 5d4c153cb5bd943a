/* load.c - connections and phases of a run. See load.h. */
#define _GNU_SOURCE
#include "load.h"
#include "probe.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
#define OPENING_AT_ONCE 64 /* below the broker's listen backlog of 100 */
#define OPENING_MAX_S 120
#define GREETING_EVERY_NS (SECOND_NS / 2)
#define GREETING_MAX_S 30
#define CHECK_EVERY_NS (SECOND_NS / 50) /* how often phases that wait are looked at */

bool load_is_measured(const struct load *load, uint64_t due_ns)
{
	return due_ns >= load->measure_start_ns && due_ns < load->measure_end_ns;
}

void load_may_send(struct publisher *publisher)
{
	struct load *load = publisher->client.load;
	if (publisher->pumped)
		return;
	publisher->pumped = true;
	publisher->pump_next = load->pump;
	load->pump = publisher;
}

static void pump_all(struct load *load, uint64_t now_ns)
{
	while (load->pump != NULL) {
		struct publisher *publisher = load->pump;
		load->pump = publisher->pump_next;
		publisher->pumped = false;
		publisher_pump(publisher, now_ns);
	}
}

/* Client n of all: of each conversation first the publishers, then the receivers. */
static struct client *client_at(struct load *load, unsigned n)
{
	const struct settings *settings = load->settings;
	unsigned each = settings->publishers + settings->receivers;
	unsigned conversation = n / each;
	unsigned place = n % each;
	if (place < settings->publishers)
		return &load->publishers[conversation * settings->publishers + place].client;
	return &load->receivers[conversation * settings->receivers + place - settings->publishers].client;
}

static void start_some(struct load *load)
{
	unsigned all = load->publishers_count + load->receivers_count;
	while (load->started < all && load->started - load->ready < OPENING_AT_ONCE && load->phase == LOAD_OPENING)
		connection_start(&client_at(load, load->started++)->connection);
}

void load_client_ready(struct load *load)
{
	load->ready++;
	if (load->ready == load->publishers_count + load->receivers_count && load->phase == LOAD_OPENING)
		load->phase = LOAD_GREETING;
}

static void on_ready(struct connection *connection)
{
	struct client *client = connection->owner;
	if (client->publishes)
		publisher_ready((struct publisher *)(void *)client);
	else
		receiver_ready((struct receiver *)(void *)client);
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct client *client = connection->owner;
	if (client->publishes)
		publisher_packet((struct publisher *)(void *)client, packet, now_ns);
	else
		receiver_packet((struct receiver *)(void *)client, packet, now_ns);
}

static void on_closed(struct connection *connection, const char *why)
{
	struct client *client = connection->owner;
	struct load *load = client->load;
	if (load->disconnects++ == 0)
		fprintf(stderr, "mqtt_load: %s: %s (the first of those that lost their connection)\n",
			connection->credentials.client_id, why);
	if (load->phase == LOAD_OPENING || load->phase == LOAD_GREETING)
		load->phase = LOAD_FAILED;
}

static const struct connection_events events = {on_ready, on_packet, on_closed};

static bool prepare_client(struct load *load, struct client *client, unsigned n)
{
	const struct settings *settings = load->settings;
	unsigned each = settings->publishers + settings->receivers;
	client->load = load;
	client->conversation = n / each;
	client->publishes = n % each < settings->publishers;
	client->connection.loop = &load->loop;
	client->connection.owner = client;
	client->connection.fd = -1;
	client->connection.level = settings->level;
	client->connection.websocket = client->publishes ? settings->websocket_publishers : settings->websocket_receivers;
	client->connection.port = client->connection.websocket ? settings->websocket_port : settings->port;
	client->connection.credentials = load->credentials.entries[n];
	if (!client->publishes) {
		struct receiver *receiver = (struct receiver *)(void *)client;
		receiver->index = (unsigned)(receiver - load->receivers);
		return receiver_prepare(receiver);
	}
	struct publisher *publisher = (struct publisher *)(void *)client;
	publisher->index = (unsigned)(publisher - load->publishers);
	return publisher_prepare(publisher);
}

static bool prepare(struct load *load)
{
	const struct settings *settings = load->settings;
	load->publishers_count = settings->conversations * settings->publishers;
	load->receivers_count = settings->conversations * settings->receivers;
	unsigned all = load->publishers_count + load->receivers_count;
	load->greetings_left = (uint64_t)load->receivers_count * settings->publishers;
	for (load->ring_size = 64; load->ring_size < 2 * settings->window; load->ring_size *= 2)
		;
	load->publishers = calloc(load->publishers_count, sizeof *load->publishers);
	load->receivers = calloc(load->receivers_count, sizeof *load->receivers);
	if (load->publishers == NULL || load->receivers == NULL)
		return false;
	if (getrandom(&load->run, sizeof load->run, 0) != (ssize_t)sizeof load->run)
		return false;
	if (!credentials_load(&load->credentials, settings->credentials, all))
		return false;
	for (unsigned n = 0; n < all; n++)
		if (!prepare_client(load, client_at(load, n), n))
			return false;
	return connection_loop_open(&load->loop, settings->host, &events);
}

static bool turn(struct load *load, uint64_t until_ns)
{
	if (!connection_loop_turn(&load->loop, until_ns))
		load->phase = LOAD_FAILED;
	return load->phase != LOAD_FAILED;
}

static bool open_all(struct load *load)
{
	uint64_t deadline_ns = connection_now_ns() + OPENING_MAX_S * SECOND_NS;
	while (load->phase == LOAD_OPENING) {
		start_some(load);
		uint64_t now_ns = connection_now_ns();
		if (!turn(load, now_ns + CHECK_EVERY_NS))
			break;
		if (now_ns > deadline_ns) {
			fprintf(stderr, "mqtt_load: only %u of %u clients were ready after %d s\n", load->ready,
				load->publishers_count + load->receivers_count, OPENING_MAX_S);
			return false;
		}
	}
	return load->phase == LOAD_GREETING;
}

static bool greet(struct load *load)
{
	uint64_t now_ns = connection_now_ns();
	uint64_t deadline_ns = now_ns + GREETING_MAX_S * SECOND_NS;
	uint64_t next_ns = 0;
	for (; load->greetings_left > 0 && load->phase == LOAD_GREETING; now_ns = connection_now_ns()) {
		for (unsigned i = 0; now_ns >= next_ns && i < load->publishers_count; i++)
			publisher_greet(&load->publishers[i]);
		if (now_ns >= next_ns)
			next_ns = now_ns + GREETING_EVERY_NS;
		turn(load, now_ns + CHECK_EVERY_NS);
		if (now_ns > deadline_ns) {
			fprintf(stderr, "mqtt_load: after %d s, %llu first messages have not arrived\n", GREETING_MAX_S,
				(unsigned long long)load->greetings_left);
			return false;
		}
	}
	return load->phase == LOAD_GREETING;
}

static void take_moment(const struct load *load, struct load_moment *moment)
{
	struct rusage own;
	getrusage(RUSAGE_SELF, &own);
	moment->at_ns = connection_now_ns();
	moment->counts = load->counts;
	moment->own_cpu_s =
		(double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
	for (unsigned i = 0; i < load->settings->watched_count; i++)
		usage_read(load->settings->watched[i].pid, &moment->watched[i]);
}

/* Open loop: lets those send whose time has come. Returns when the next one's comes. */
static uint64_t run_schedule(struct load *load, uint64_t now_ns)
{
	double rate = load->settings->rate_per_s;
	if (rate <= 0)
		return UINT64_MAX;
	for (;;) {
		uint64_t due_ns = load->start_ns + (uint64_t)((double)load->scheduled * 1e9 / rate);
		if (due_ns > now_ns)
			return due_ns;
		load_may_send(&load->publishers[load->scheduled % load->publishers_count]);
		load->scheduled++;
	}
}

static void load_until(struct load *load, uint64_t end_ns)
{
	for (uint64_t now_ns = connection_now_ns(); now_ns < end_ns; now_ns = connection_now_ns()) {
		uint64_t next_ns = run_schedule(load, now_ns);
		pump_all(load, now_ns);
		if (!turn(load, next_ns < end_ns ? next_ns : end_ns))
			return;
	}
}

static void load_and_measure(struct load *load)
{
	const struct settings *settings = load->settings;
	load->start_ns = connection_now_ns();
	load->measure_start_ns = load->start_ns + (uint64_t)(settings->warmup_s * 1e9);
	load->measure_end_ns = load->measure_start_ns + (uint64_t)(settings->duration_s * 1e9);
	load->phase = LOAD_LOADING;
	for (unsigned i = 0; i < load->publishers_count && settings->rate_per_s <= 0; i++)
		load_may_send(&load->publishers[i]);
	load_until(load, load->measure_start_ns);
	probe_tell(settings, SIGUSR1);
	take_moment(load, &load->measure_start);
	load_until(load, load->measure_end_ns);
	take_moment(load, &load->measure_end);
}

static bool is_complete(const struct load *load)
{
	for (unsigned i = 0; i < load->publishers_count && load->settings->qos > 0; i++)
		if (load->publishers[i].acked + load->publishers[i].refused < load->publishers[i].sent)
			return false;
	for (unsigned i = 0; i < load->receivers_count; i++)
		if (receiver_missing(&load->receivers[i]) > 0)
			return false;
	return true;
}

static void drain(struct load *load)
{
	uint64_t patience_ns = (uint64_t)(load->settings->drain_s * 1e9);
	load->phase = LOAD_DRAINING;
	load->progress_ns = connection_now_ns();
	while (!is_complete(load)) {
		uint64_t now_ns = connection_now_ns();
		if (now_ns > load->progress_ns && now_ns - load->progress_ns > patience_ns)
			break;
		if (!turn(load, now_ns + CHECK_EVERY_NS))
			return;
	}
	/* What comes once too often comes last: one more look. */
	turn(load, connection_now_ns() + CHECK_EVERY_NS);
	load->phase = LOAD_DONE;
}

bool load_run(struct load *load, const struct settings *settings)
{
	memset(load, 0, sizeof *load);
	load->settings = settings;
	load->loop.epoll_fd = -1;
	load->sample_fd = -1;
	if (settings->sample != NULL) {
		load->sample_fd = open(settings->sample, O_WRONLY | O_CLOEXEC);
		if (load->sample_fd < 0) {
			perror(settings->sample);
			return false;
		}
	}
	if (!prepare(load) || !open_all(load) || !greet(load))
		return false;
	load_and_measure(load);
	drain(load);
	probe_tell(settings, SIGUSR2);
	return load->phase == LOAD_DONE;
}

void load_release(struct load *load)
{
	for (unsigned i = 0; load->publishers != NULL && i < load->publishers_count; i++) {
		connection_release(&load->publishers[i].client.connection);
		publisher_release(&load->publishers[i]);
	}
	for (unsigned i = 0; load->receivers != NULL && i < load->receivers_count; i++) {
		struct receiver *receiver = &load->receivers[i];
		connection_release(&receiver->client.connection);
		for (unsigned s = 0; receiver->streams != NULL && s < load->settings->publishers; s++)
			stream_release(&receiver->streams[s]);
		free(receiver->streams);
		free(receiver->greeted);
	}
	free(load->publishers);
	free(load->receivers);
	credentials_release(&load->credentials);
	if (load->loop.epoll_fd >= 0)
		connection_loop_close(&load->loop);
	if (load->sample_fd >= 0)
		close(load->sample_fd);
}
