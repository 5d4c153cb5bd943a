/* storm.c - see storm.h. A client is ready when its last SUBACK has come, counted from the moment at which all began. One
 * whose connection is closed stays out, and is counted. */
#include "storm.h"

#include "connection.h"
#include "credentials.h"
#include "histogram.h"
#include "usage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS UINT64_C(120000000000)
#define TOPIC_MAX 128

struct storm_client {
	struct connection connection;
	struct storm *storm;
	unsigned number;
	unsigned answered;
};

struct storm {
	const struct settings *settings;
	struct connection_loop loop;
	struct storm_client *clients;
	struct histogram ready;
	uint64_t start_ns;
	unsigned ready_count, closed, refused;
};

static void on_ready(struct connection *connection)
{
	const struct storm_client *client = connection->owner;
	const struct settings *settings = client->storm->settings;
	unsigned first = settings->first_conversation + client->number / settings->subscriptions * settings->subscriptions;
	const char *number = strstr(settings->subscribe_topic, "%d");
	uint8_t packet[TOPIC_MAX + 16];
	char topic[TOPIC_MAX];
	for (unsigned i = 0; number && i < settings->subscriptions; i++) {
		snprintf(topic, sizeof topic, "%.*s%u%s", (int)(number - settings->subscribe_topic), settings->subscribe_topic,
			first + i, number + 2);
		size_t length = wire_subscribe(packet, sizeof packet, settings->level, (uint16_t)(i + 1), topic, 1);
		connection_send(connection, packet, length);
	}
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct storm_client *client = connection->owner;
	struct storm *storm = client->storm;
	uint8_t reason;
	if (packet->type != WIRE_SUBACK)
		return;
	if (!wire_read_suback(packet, storm->settings->level, &reason) || reason > 2)
		storm->refused++;
	if (++client->answered == storm->settings->subscriptions) {
		storm->ready_count++;
		histogram_record(&storm->ready, now_ns - storm->start_ns);
	}
}

static void on_closed(struct connection *connection, const char *why)
{
	struct storm_client *client = connection->owner;
	if (client->storm->closed++ == 0)
		fprintf(stderr, "mqtt_load: %s: %s\n", connection->credentials.client_id, why);
}

static const struct connection_events events = {on_ready, on_packet, on_closed};

static long memory_kb(pid_t pid)
{
	char path[64], line[256];
	long kb = 0;
	snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kb = strtol(line + 6, NULL, 10);
	if (file)
		fclose(file);
	return kb;
}

static void print_watched(const struct settings *settings, const struct usage *before, const long *kb)
{
	for (unsigned i = 0; i < settings->watched_count; i++) {
		const struct settings_watched *watched = &settings->watched[i];
		struct usage now;
		if (!usage_read(watched->pid, &now))
			continue;
		printf("cpu_%s_s %.2f\n", watched->name,
			now.process_s + now.children_s - before[i].process_s - before[i].children_s);
		printf("rss_%s_bytes_per_client %ld\n", watched->name,
			(memory_kb(watched->pid) - kb[i]) * 1024 / (long)settings->clients);
	}
}

static bool run(struct storm *storm, const struct credentials *credentials)
{
	const struct settings *settings = storm->settings;
	storm->start_ns = connection_now_ns();
	for (unsigned i = 0; i < settings->clients; i++) {
		struct storm_client *client = &storm->clients[i];
		client->storm = storm;
		client->number = i;
		client->connection.loop = &storm->loop;
		client->connection.owner = client;
		client->connection.level = settings->level;
		client->connection.port = settings->port;
		client->connection.credentials = credentials->entries[i];
		connection_start(&client->connection);
	}
	uint64_t end_ns = storm->start_ns + PATIENCE_NS;
	while (storm->ready_count + storm->closed < settings->clients && connection_now_ns() < end_ns)
		if (!connection_loop_turn(&storm->loop, end_ns))
			return false;
	return storm->ready_count == settings->clients && storm->refused == 0;
}

bool storm_run(const struct settings *settings)
{
	static struct storm storm;
	struct usage before[SETTINGS_WATCHED_MAX];
	long kb[SETTINGS_WATCHED_MAX];
	struct credentials credentials;
	bool good = false;
	storm.settings = settings;
	storm.clients = calloc(settings->clients, sizeof storm.clients[0]);
	if (!credentials_load(&credentials, settings->credentials, settings->clients) || !storm.clients ||
		!connection_loop_open(&storm.loop, settings->host, &events))
		goto out;
	for (unsigned i = 0; i < settings->watched_count; i++) {
		if (!usage_read(settings->watched[i].pid, &before[i]))
			memset(&before[i], 0, sizeof before[i]);
		kb[i] = memory_kb(settings->watched[i].pid);
	}
	good = run(&storm, &credentials);
	printf("clients %u\nready %u\nclosed %u\nrefused %u\n", settings->clients, storm.ready_count, storm.closed,
		storm.refused);
	printf("ready_p50_s %.3f\nready_p99_s %.3f\nready_max_s %.3f\n", (double)histogram_percentile_ns(&storm.ready, 50) / 1e9,
		(double)histogram_percentile_ns(&storm.ready, 99) / 1e9, (double)storm.ready.max_ns / 1e9);
	print_watched(settings, before, kb);
	for (unsigned i = 0; i < settings->clients; i++)
		connection_release(&storm.clients[i].connection);
	connection_loop_close(&storm.loop);
out:
	free(storm.clients);
	credentials_release(&credentials);
	return good;
}
