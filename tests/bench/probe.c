/* probe.c - see probe.h. One PINGREQ is under way at a time: the broker reads one packet of a connection each turn of its loop,
 * so more would queue up behind one another. Those that were due meanwhile are counted as if they had been sent and answered with
 * it: a stall of one second shows as fifty long answers, not as one. */
#include "probe.h"

#include "connection.h"
#include "credentials.h"
#include "histogram.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_NS UINT64_C(30000000000)

enum stage { STAGE_BEFORE, STAGE_MEASURED, STAGE_CLOSING, STAGES };

struct probe {
	struct connection connection;
	struct connection_loop loop;
	struct histogram histograms[STAGES];
	uint64_t interval_ns;
	uint64_t due_ns; /* of the one under way, or of the next */
	bool waiting;    /* one is under way */
	uint64_t answered;
	bool failed;
};

static volatile sig_atomic_t terminated;
static volatile sig_atomic_t stage = STAGE_BEFORE;

static void on_signal(int signal_number)
{
	if (signal_number == SIGTERM)
		terminated = 1;
	else
		stage = signal_number == SIGUSR1 ? STAGE_MEASURED : STAGE_CLOSING;
}

static void on_ready(struct connection *connection)
{
	(void)connection;
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct probe *probe = connection->owner;
	if (packet->type != WIRE_PINGRESP || !probe->waiting)
		return;
	probe->waiting = false;
	probe->answered++;
	for (; probe->due_ns <= now_ns; probe->due_ns += probe->interval_ns)
		histogram_record(&probe->histograms[stage], now_ns - probe->due_ns);
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

static bool ping(struct probe *probe, double duration_s)
{
	static const uint8_t request[] = {WIRE_PINGREQ << 4, 0};
	uint64_t end_ns = connection_now_ns() + (uint64_t)(duration_s * 1e9);
	for (probe->due_ns = connection_now_ns(); probe->due_ns < end_ns && !terminated;) {
		while (!terminated && connection_now_ns() < probe->due_ns)
			if (!turn(probe, probe->due_ns))
				return false;
		uint64_t patience_ns = connection_now_ns() + PATIENCE_NS;
		probe->waiting = true;
		connection_send(&probe->connection, request, sizeof request);
		while (probe->waiting)
			if (!turn(probe, patience_ns) || connection_now_ns() >= patience_ns)
				return false;
	}
	return true;
}

static void print_stage(const char *name, const struct histogram *histogram)
{
	if (histogram->count == 0)
		return;
	printf("%s_p50_ms %.3f\n%s_p99_ms %.3f\n%s_max_ms %.3f\n", name, (double)histogram_percentile_ns(histogram, 50) / 1e6,
		name, (double)histogram_percentile_ns(histogram, 99) / 1e6, name, (double)histogram->max_ns / 1e6);
}

bool probe_run(const struct settings *settings)
{
	static struct probe probe;
	struct credentials credentials;
	bool good = false;
	if (!credentials_load(&credentials, settings->credentials, 1) ||
		!connection_loop_open(&probe.loop, settings->host, &events))
		goto out;
	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	probe.connection.loop = &probe.loop;
	probe.connection.owner = &probe;
	probe.connection.level = settings->level;
	probe.connection.websocket = settings->websocket_receivers;
	probe.connection.port = settings->websocket_receivers ? settings->websocket_port : settings->port;
	probe.connection.credentials = credentials.entries[0];
	probe.interval_ns = (uint64_t)(settings->interval_s * 1e9);
	good = sign_in(&probe) && ping(&probe, settings->duration_s);
	printf("answered %" PRIu64 "\n", probe.answered);
	print_stage("ping", &probe.histograms[stage == STAGE_BEFORE ? STAGE_BEFORE : STAGE_MEASURED]);
	print_stage("closing_ping", &probe.histograms[STAGE_CLOSING]);
	connection_release(&probe.connection);
	connection_loop_close(&probe.loop);
out:
	credentials_release(&credentials);
	return good;
}

void probe_tell(const struct settings *settings, int signal_number)
{
	if (settings->probe > 0)
		kill(settings->probe, signal_number);
}
