/* storm.c - see storm.h. One thread. */
#define _GNU_SOURCE
#include "storm.h"

#include "connection.h"
#include "credentials.h"
#include "histogram.h"
#include "probe.h"
#include "usage.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#define SECOND_NS UINT64_C(1000000000)
#define SOURCE_FIRST UINT32_C(0x7f0a0001) /* 127.10.0.1 */
#define PATIENCE_S 120                    /* for a wave */
#define TURN_NS (SECOND_NS / 50)
#define RETRY_NS (5 * SECOND_NS) /* a client gives a connection up that has no CONNACK, and tries again */
#define RETRY_LOOK_NS (SECOND_NS / 10)
#define SUBSCRIBE_PACKET_MAX (SETTINGS_SUBSCRIPTIONS_MAX * 64)
#define PROOF_PACKET_MAX 1024
#define PROOF_BODY 100
#define PROOFS_MAX 1000 /* of a wave */
#define PROOF_EVERY_NS SECOND_NS

struct session {
	struct connection connection;
	unsigned index;
	unsigned heard; /* the newest proof; 0: none yet */
	uint64_t begun_ns;
	bool ready;
};

struct proof {
	uint64_t all_heard_ns; /* 0: never */
	unsigned silent;       /* sessions that had not got the first message when the second was sent */
};

struct storm {
	const struct settings *settings;
	struct credentials credentials;
	struct connection_loop loop;
	struct session *sessions;
	uint64_t run;
	uint32_t wave;
	bool connecting;
	uint64_t wave_start_ns;
	unsigned started, ready;
	unsigned proofs;     /* how often all first conversations have been written to */
	unsigned heard;      /* sessions that have got one */
	unsigned heard_last; /* sessions that have got the newest */
	uint64_t refused;    /* subscriptions */
	uint64_t closed;     /* connections that ended by themselves after all were ready */
	uint64_t retried;    /* before */
	uint64_t retry_look_ns;
	uint64_t repeated; /* proofs */
	uint64_t lost;
	uint64_t resident_before[SETTINGS_WATCHED_MAX];
	struct histogram ready_after;
};

unsigned storm_conversation(const struct settings *settings, unsigned session, unsigned k)
{
	unsigned of_a_kind = settings->sessions / settings->members;
	return k * of_a_kind + (session + k * (session / of_a_kind)) % of_a_kind;
}

static struct storm *storm_of(const struct connection *connection)
{
	return (struct storm *)((char *)connection->loop - offsetof(struct storm, loop));
}

/* ---- what a session does */

static void is_ready(struct storm *storm, struct session *session)
{
	session->ready = true;
	storm->ready++;
	histogram_record(&storm->ready_after, connection_now_ns() - storm->wave_start_ns);
}

static void on_ready(struct connection *connection)
{
	struct storm *storm = storm_of(connection);
	struct session *session = connection->owner;
	const struct settings *settings = storm->settings;
	char topics[SETTINGS_SUBSCRIPTIONS_MAX][SETTINGS_TOPIC_MAX];
	const char *list[SETTINGS_SUBSCRIPTIONS_MAX];
	uint8_t packet[SUBSCRIBE_PACKET_MAX];
	if (settings->subscriptions == 0) {
		is_ready(storm, session);
		return;
	}
	for (unsigned k = 0; k < settings->subscriptions; k++) {
		list[k] = topics[k];
		if (!settings_topic(
			    settings, settings->subscribe_topic, storm_conversation(settings, session->index, k), topics[k]))
			return;
	}
	size_t length =
		wire_subscribe_all(packet, sizeof packet, settings->level, 1, list, settings->subscriptions, settings->qos);
	connection_send(connection, packet, length);
}

static void handle_proof(struct storm *storm, struct session *session, const struct wire_publish *publish)
{
	struct payload_marker marker;
	if (publish->qos > 0)
		wire_puback(connection_reserve(&session->connection, WIRE_PUBACK_SIZE), publish->packet_id);
	if (!payload_find_marker(publish->payload, publish->payload_length, &marker) || marker.count / PROOFS_MAX != storm->wave)
		return;
	unsigned proof = marker.count % PROOFS_MAX;
	if (proof <= session->heard) {
		storm->repeated++;
		return;
	}
	if (session->heard == 0)
		storm->heard++;
	else
		storm->lost += proof - session->heard - 1;
	session->heard = proof;
	if (proof == storm->proofs)
		storm->heard_last++;
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct storm *storm = storm_of(connection);
	struct session *session = connection->owner;
	struct wire_publish publish;
	size_t refused;
	(void)now_ns;
	if (packet->type == WIRE_SUBACK && !session->ready) {
		if (!wire_read_subacks(packet, connection->level, storm->settings->subscriptions, &refused))
			refused = storm->settings->subscriptions;
		storm->refused += refused;
		is_ready(storm, session);
	} else if (packet->type == WIRE_PUBLISH && wire_read_publish(packet, connection->level, &publish)) {
		handle_proof(storm, session, &publish);
	}
}

static void on_closed(struct connection *connection, const char *why)
{
	struct storm *storm = storm_of(connection);
	struct session *session = connection->owner;
	session->begun_ns = 0; /* it is begun anew at the next look */
	if (storm->connecting && session->ready) {
		session->ready = false; /* an earlier attempt was accepted late, and took it over */
		storm->ready--;
	} else if (!storm->connecting && storm->closed++ == 0)
		fprintf(stderr, "mqtt_load: %s: %s (the first of those that lost their connection)\n",
			connection->credentials.client_id, why);
}

static const struct connection_events events = {on_ready, on_packet, on_closed};

/* ---- a wave */

static void begin_session(struct storm *storm, unsigned i)
{
	const struct settings *settings = storm->settings;
	struct session *session = &storm->sessions[i];
	session->index = i;
	session->begun_ns = connection_now_ns();
	session->connection.loop = &storm->loop;
	session->connection.owner = session;
	session->connection.level = settings->level;
	session->connection.websocket = settings->websocket_receivers;
	session->connection.port = settings->websocket_receivers ? settings->websocket_port : settings->port;
	session->connection.credentials = storm->credentials.entries[i];
	if (settings->distinct_addresses)
		session->connection.source.s_addr = htonl(SOURCE_FIRST + i);
	connection_start(&session->connection);
}

static void close_all(struct storm *storm)
{
	connection_flush_all(&storm->loop); /* none may stay on the loop's list */
	for (unsigned i = 0; i < storm->started; i++)
		connection_release(&storm->sessions[i].connection);
	memset(storm->sessions, 0, storm->settings->sessions * sizeof *storm->sessions);
	memset(&storm->ready_after, 0, sizeof storm->ready_after);
	storm->started = storm->ready = storm->proofs = storm->heard = storm->heard_last = 0;
	storm->retried = 0;
}

/* A listener whose queue is full drops what a client believes to be a connection: only the client can end that. */
static void retry_some(struct storm *storm, uint64_t now_ns)
{
	if (now_ns < storm->retry_look_ns)
		return;
	storm->retry_look_ns = now_ns + RETRY_LOOK_NS;
	connection_flush_all(&storm->loop);
	for (unsigned i = 0; i < storm->started; i++) {
		struct session *session = &storm->sessions[i];
		bool open = session->connection.state == CONNECTION_READY;
		if (session->ready || open || now_ns < session->begun_ns + RETRY_NS)
			continue;
		connection_release(&session->connection);
		memset(session, 0, sizeof *session);
		storm->retried++;
		begin_session(storm, i);
	}
}

static bool connect_all(struct storm *storm)
{
	unsigned all = storm->settings->sessions;
	unsigned at_once = storm->settings->opening == 0 ? all : storm->settings->opening;
	while (storm->ready < all) {
		uint64_t now_ns = connection_now_ns();
		while (storm->started < all && storm->started - storm->ready < at_once)
			begin_session(storm, storm->started++);
		retry_some(storm, now_ns);
		if (!connection_loop_turn(&storm->loop, now_ns + TURN_NS))
			return false;
		if (now_ns - storm->wave_start_ns > PATIENCE_S * SECOND_NS) {
			fprintf(stderr, "mqtt_load: %u of %u sessions became ready\n", storm->ready, all);
			return false;
		}
	}
	return true;
}

static void send_proof(struct storm *storm, unsigned sender)
{
	const struct settings *settings = storm->settings;
	struct payload_marker marker = {sender, storm->wave * PROOFS_MAX + storm->proofs, connection_now_ns()};
	char topic[SETTINGS_TOPIC_MAX];
	uint8_t packet[PROOF_PACKET_MAX];
	size_t id, payload;
	if (!settings_topic(settings, settings->publish_topic, storm_conversation(settings, sender, 0), topic))
		return;
	size_t length = wire_publish_template(
		packet, sizeof packet, settings->level, 1, topic, payload_length(settings->form, PROOF_BODY), &id, &payload);
	packet[id + 1] = 1;
	payload_make(packet + payload, settings->form, PROOF_BODY);
	payload_patch(packet + payload, settings->form, &marker, storm->run);
	connection_send(&storm->sessions[sender].connection, packet, length);
}

/* The sessions 0, 1, … are the first members of the conversations 0, 1, … of the first kind, which have all sessions. */
static void send_proofs(struct storm *storm)
{
	storm->proofs++;
	storm->heard_last = 0;
	for (unsigned i = 0; i < storm->settings->sessions / storm->settings->members; i++)
		send_proof(storm, i);
}

/* A subscription may be granted before the server knows what it may read, and be silent until then. So this is repeated until
 * each session has heard; from then on it must miss nothing. */
static bool prove(struct storm *storm, struct proof *proof)
{
	unsigned sessions = storm->settings->sessions;
	uint64_t patience_ns = (uint64_t)(storm->settings->drain_s * 1e9);
	uint64_t start_ns = connection_now_ns();
	uint64_t last_ns = 0;
	while (storm->proofs == 0 || storm->heard_last < sessions) {
		uint64_t now_ns = connection_now_ns();
		bool again = storm->heard < sessions && now_ns - last_ns >= PROOF_EVERY_NS && storm->proofs < PROOFS_MAX - 1;
		if (now_ns - start_ns > patience_ns)
			break;
		if (again) {
			proof->silent = storm->proofs == 1 ? sessions - storm->heard : proof->silent;
			send_proofs(storm);
			last_ns = now_ns;
		}
		if (!connection_loop_turn(&storm->loop, now_ns + TURN_NS))
			return false;
		if (proof->all_heard_ns == 0 && storm->heard == sessions)
			proof->all_heard_ns = connection_now_ns();
	}
	storm->lost += sessions - storm->heard_last;
	return true;
}

static bool turn_for(struct storm *storm, double seconds)
{
	uint64_t end_ns = connection_now_ns() + (uint64_t)(seconds * 1e9);
	while (connection_now_ns() < end_ns)
		if (!connection_loop_turn(&storm->loop, end_ns))
			return false;
	return true;
}

static double own_seconds(void)
{
	struct rusage own;
	getrusage(RUSAGE_SELF, &own);
	return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
}

static void read_usage(const struct settings *settings, struct usage usage[SETTINGS_WATCHED_MAX])
{
	for (unsigned i = 0; i < settings->watched_count; i++)
		usage_read(settings->watched[i].pid, &usage[i]);
}

/* CPU seconds of a stretch, under a name of the wave's. */
static void print_usage(const struct storm *storm, const char *stretch, const struct usage before[], const struct usage after[])
{
	for (unsigned i = 0; i < storm->settings->watched_count; i++)
		printf("wave%u_%s_cpu_%s_s %.2f\n", storm->wave, stretch, storm->settings->watched[i].name,
			after[i].process_s + after[i].children_s - before[i].process_s - before[i].children_s);
}

static bool run_wave(struct storm *storm)
{
	const struct settings *settings = storm->settings;
	struct usage start[SETTINGS_WATCHED_MAX] = {0}, ready[SETTINGS_WATCHED_MAX] = {0}, held[SETTINGS_WATCHED_MAX] = {0};
	struct proof proof = {0};
	double own_s = own_seconds();
	close_all(storm);
	read_usage(settings, start);
	storm->wave_start_ns = connection_now_ns();
	storm->connecting = true;
	if (!connect_all(storm))
		return false;
	storm->connecting = false;
	double ready_s = (double)(connection_now_ns() - storm->wave_start_ns) / 1e9;
	if (settings->subscriptions > 0 && !prove(storm, &proof))
		return false;
	printf("wave%u_ready_s %.3f\n", storm->wave, ready_s);
	printf("wave%u_retried %" PRIu64 "\n", storm->wave, storm->retried);
	printf("wave%u_ready_p50_s %.3f\n", storm->wave, (double)histogram_percentile_ns(&storm->ready_after, 50) / 1e9);
	if (proof.all_heard_ns > 0)
		printf("wave%u_proved_s %.3f\nwave%u_silent %u\n", storm->wave,
			(double)(proof.all_heard_ns - storm->wave_start_ns) / 1e9, storm->wave, proof.silent);
	read_usage(settings, ready);
	print_usage(storm, "ready", start, ready);
	printf("wave%u_ready_cpu_generator_s %.2f\n", storm->wave, own_seconds() - own_s);
	if (!turn_for(storm, settings->duration_s))
		return false;
	read_usage(settings, held);
	print_usage(storm, "held", ready, held);
	return true;
}

static void print_memory(const struct storm *storm)
{
	const struct settings *settings = storm->settings;
	for (unsigned i = 0; i < settings->watched_count; i++) {
		uint64_t now = usage_resident_bytes(settings->watched[i].pid);
		uint64_t more = now > storm->resident_before[i] ? now - storm->resident_before[i] : 0;
		printf("resident_%s_mb %.1f\n", settings->watched[i].name, (double)now / 1e6);
		printf("bytes_per_session_%s %.0f\n", settings->watched[i].name, (double)more / settings->sessions);
	}
}

static bool run(struct storm *storm)
{
	const struct settings *settings = storm->settings;
	storm->sessions = calloc(settings->sessions, sizeof *storm->sessions);
	if (storm->sessions == NULL || getrandom(&storm->run, sizeof storm->run, 0) != (ssize_t)sizeof storm->run ||
		!credentials_load(&storm->credentials, settings->credentials, settings->sessions) ||
		!connection_loop_open(&storm->loop, settings->host, &events))
		return false;
	for (unsigned i = 0; i < settings->watched_count; i++)
		storm->resident_before[i] = usage_resident_bytes(settings->watched[i].pid);
	probe_tell(settings, SIGUSR1);
	for (storm->wave = 1; storm->wave <= settings->waves; storm->wave++) {
		if (!run_wave(storm))
			return false;
		if (storm->wave == 1)
			print_memory(storm);
	}
	probe_tell(settings, SIGUSR2);
	return true;
}

int storm_run(const struct settings *settings)
{
	static struct storm storm;
	int status = 2;
	storm.settings = settings;
	storm.loop.epoll_fd = -1;
	if (run(&storm)) {
		bool good = storm.refused + storm.lost + storm.repeated + storm.closed == 0;
		printf("sessions %u\nrefused %" PRIu64 "\nlost %" PRIu64 "\nduplicates %" PRIu64 "\ndisconnects %" PRIu64 "\n",
			settings->sessions, storm.refused, storm.lost, storm.repeated, storm.closed);
		printf("verdict %s\n", good ? "good" : "BAD");
		status = good ? 0 : 1;
	}
	for (unsigned i = 0; storm.sessions != NULL && i < settings->sessions; i++)
		connection_release(&storm.sessions[i].connection);
	free(storm.sessions);
	credentials_release(&storm.credentials);
	if (storm.loop.epoll_fd >= 0)
		connection_loop_close(&storm.loop);
	return status;
}
