/* probe.c - see probe.h. PINGREQs go out on schedule whether or not the last one was answered, and each is counted from the time
 * it was due: a stall of one second shows as fifty long answers, not as one. */
#include "probe.h"

#include "connection.h"
#include "credentials.h"
#include "histogram.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define UNANSWERED_MAX 65536 /* a power of two; more than 20 minutes at 20 ms */
#define PATIENCE_NS UINT64_C(30000000000)

struct probe {
	struct connection connection;
	struct connection_loop loop;
	struct histogram histogram;
	uint64_t due_ns[UNANSWERED_MAX];
	uint64_t sent;
	uint64_t answered;
	bool failed;
};

static void on_ready(struct connection *connection)
{
	(void)connection;
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct probe *probe = connection->owner;
	if (packet->type != WIRE_PINGRESP || probe->answered == probe->sent)
		return;
	uint64_t due_ns = probe->due_ns[probe->answered++ % UNANSWERED_MAX];
	histogram_record(&probe->histogram, now_ns > due_ns ? now_ns - due_ns : 0);
}

static void on_closed(struct connection *connection, const char *why)
{
	struct probe *probe = connection->owner;
	fprintf(stderr, "mqtt_load: %s: %s\n", connection->credentials.client_id, why);
	probe->failed = true;
}

static const struct connection_events events = {on_ready, on_packet, on_closed};

static bool turn(struct probe *probe, uint64_t until_ns)
{
	return connection_loop_turn(&probe->loop, until_ns) && !probe->failed;
}

static bool sign_in(struct probe *probe)
{
	uint64_t deadline_ns = connection_now_ns() + PATIENCE_NS;
	connection_start(&probe->connection);
	while (probe->connection.state != CONNECTION_READY)
		if (!turn(probe, deadline_ns) || connection_now_ns() >= deadline_ns)
			return false;
	return true;
}

static bool ping(struct probe *probe, const struct settings *settings)
{
	static const uint8_t request[] = {WIRE_PINGREQ << 4, 0};
	uint64_t interval_ns = (uint64_t)(settings->interval_s * 1e9);
	uint64_t start_ns = connection_now_ns();
	uint64_t end_ns = start_ns + (uint64_t)(settings->duration_s * 1e9);
	for (uint64_t due_ns = start_ns; due_ns < end_ns; due_ns += interval_ns) {
		while (connection_now_ns() < due_ns)
			if (!turn(probe, due_ns))
				return false;
		if (probe->sent - probe->answered == UNANSWERED_MAX)
			return false;
		probe->due_ns[probe->sent++ % UNANSWERED_MAX] = due_ns;
		connection_send(&probe->connection, request, sizeof request);
	}
	end_ns = connection_now_ns() + PATIENCE_NS;
	while (probe->answered < probe->sent && connection_now_ns() < end_ns)
		if (!turn(probe, end_ns))
			return false;
	return probe->answered == probe->sent;
}

bool probe_run(const struct settings *settings)
{
	static struct probe probe;
	struct credentials credentials;
	bool good = false;
	if (!credentials_load(&credentials, settings->credentials, 1) ||
		!connection_loop_open(&probe.loop, settings->host, &events))
		goto out;
	probe.connection.loop = &probe.loop;
	probe.connection.owner = &probe;
	probe.connection.level = settings->level;
	probe.connection.websocket = settings->websocket_receivers;
	probe.connection.port = settings->websocket_receivers ? settings->websocket_port : settings->port;
	probe.connection.credentials = credentials.entries[0];
	good = sign_in(&probe) && ping(&probe, settings);
	printf("pings %" PRIu64 "\nanswered %" PRIu64 "\n", probe.sent, probe.answered);
	printf("ping_p50_ms %.3f\nping_p99_ms %.3f\nping_max_ms %.3f\n",
		(double)histogram_percentile_ns(&probe.histogram, 50) / 1e6,
		(double)histogram_percentile_ns(&probe.histogram, 99) / 1e6, (double)probe.histogram.max_ns / 1e6);
	connection_release(&probe.connection);
	connection_loop_close(&probe.loop);
out:
	credentials_release(&credentials);
	return good;
}
