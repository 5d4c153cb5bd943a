/* requests.c - see requests.h. The number of a request is its place in a ring of slots: an answer names it, in whatever order
 * answers come. */
#define _GNU_SOURCE
#include "requests.h"

#include "connection.h"
#include "credentials.h"
#include "histogram.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS UINT64_C(30000000000)
#define OPENING_AT_ONCE 64 /* below the broker's listen backlog of 100 */
#define SLOTS 65536        /* a power of two: minutes of unanswered requests */
#define METHODS_MAX 8
#define COMPLAINTS_MAX 5
#define PACKET_ID 2 /* 1 is the subscription's; nothing is resent, so one does for all requests */
#define ID_ROOM 32  /* for {"request_id":…, */

enum stage { STAGE_BEFORE, STAGE_MEASURED, STAGE_AFTER };

struct method {
	const char *name;
	struct histogram latency;
};

struct line {
	unsigned client;
	unsigned method;
	const char *parameters; /* behind the opening brace */
};

struct slot {
	uint64_t number; /* 0: free */
	uint64_t due_ns;
	unsigned method;
};

struct asker {
	struct connection connection;
	char topic[SETTINGS_TOPIC_MAX]; /* of the answers */
	bool subscribed;
};

struct requests {
	const struct settings *settings;
	struct credentials credentials;
	struct connection_loop loop;
	struct asker *askers;
	unsigned started, ready;
	char *text; /* the file, which lines point into */
	struct line *lines;
	size_t lines_count;
	struct method methods[METHODS_MAX];
	unsigned methods_count;
	struct slot slots[SLOTS];
	uint64_t start_ns;
	uint64_t asked, answered;
	uint64_t errors;  /* answers that say no */
	uint64_t dropped; /* no slot was free */
	uint64_t answer_bytes;
	bool failed;
};

static volatile sig_atomic_t terminated;
static volatile sig_atomic_t stage = STAGE_BEFORE;

static void on_signal(int signal_number)
{
	if (signal_number == SIGTERM)
		terminated = 1;
	else
		stage = signal_number == SIGUSR1 ? STAGE_MEASURED : STAGE_AFTER;
}

/* ---- the file */

static bool find_method(struct requests *requests, const char *name, unsigned *place)
{
	for (*place = 0; *place < requests->methods_count; ++*place)
		if (strcmp(requests->methods[*place].name, name) == 0)
			return true;
	if (requests->methods_count == METHODS_MAX)
		return false;
	requests->methods[requests->methods_count++].name = name;
	return true;
}

static bool read_line(struct requests *requests, char *text)
{
	struct line *line = &requests->lines[requests->lines_count];
	char *rest = NULL, *end = NULL;
	char *client = strtok_r(text, " ", &rest);
	char *method = strtok_r(NULL, " ", &rest);
	if (client == NULL || method == NULL || rest == NULL || *rest != '{')
		return false;
	unsigned long number = strtoul(client, &end, 10);
	if (*end != '\0' || number >= requests->settings->sessions || !find_method(requests, method, &line->method))
		return false;
	line->client = (unsigned)number;
	line->parameters = rest + 1;
	requests->lines_count++;
	return true;
}

static bool read_lines(struct requests *requests)
{
	size_t size = 0, room = 1;
	FILE *file = requests->settings->requests == NULL ? NULL : fopen(requests->settings->requests, "r");
	bool read = file != NULL && getdelim(&requests->text, &size, '\0', file) > 0;
	if (file != NULL)
		fclose(file);
	for (const char *at = read ? requests->text : ""; *at != '\0'; at++)
		room += *at == '\n';
	requests->lines = calloc(room, sizeof *requests->lines);
	char *rest = NULL;
	char *line = read && requests->lines != NULL ? strtok_r(requests->text, "\n", &rest) : NULL;
	while (line != NULL && read_line(requests, line))
		line = strtok_r(NULL, "\n", &rest);
	if (line == NULL && requests->lines_count > 0)
		return true;
	fprintf(stderr, "mqtt_load: --requests needs a file of lines `client method {parameters}`: line %zu is none\n",
		requests->lines_count + 1);
	return false;
}

/* ---- asking */

static void ask(struct requests *requests, uint64_t due_ns)
{
	const struct line *line = &requests->lines[requests->asked % requests->lines_count];
	uint64_t number = ++requests->asked;
	struct slot *slot = &requests->slots[number % SLOTS];
	struct asker *asker = &requests->askers[line->client];
	char topic[SETTINGS_TOPIC_MAX], head[ID_ROOM];
	size_t id_offset, payload_offset, rest = strlen(line->parameters);
	if (slot->number != 0) {
		requests->dropped++;
		return;
	}
	snprintf(topic, sizeof topic, "chat/request/%s", requests->methods[line->method].name);
	int length = snprintf(head, sizeof head, "{\"request_id\":%" PRIu64 "%s", number, *line->parameters == '}' ? "" : ",");
	size_t size = wire_publish_size(asker->connection.level, 1, topic, (size_t)length + rest);
	uint8_t *packet = connection_reserve(&asker->connection, size);
	wire_publish_template(
		packet, size, asker->connection.level, 1, topic, (size_t)length + rest, &id_offset, &payload_offset);
	packet[id_offset] = 0;
	packet[id_offset + 1] = PACKET_ID;
	memcpy(packet + payload_offset, head, (size_t)length);
	memcpy(packet + payload_offset + length, line->parameters, rest);
	*slot = (struct slot){number, due_ns, line->method};
}

uint64_t requests_answered(const uint8_t *payload, size_t length)
{
	static const char head[] = "{\"request_id\":";
	uint64_t number = 0;
	if (length < sizeof head || memcmp(payload, head, sizeof head - 1) != 0)
		return 0;
	for (size_t i = sizeof head - 1; i < length && payload[i] >= '0' && payload[i] <= '9'; i++)
		number = number * 10 + (uint64_t)(payload[i] - '0');
	return number;
}

static void complain(struct requests *requests, const struct wire_publish *publish, const char *what)
{
	if (requests->errors++ < COMPLAINTS_MAX)
		fprintf(stderr, "mqtt_load: %s: %.*s\n", what, publish->payload_length < 200 ? (int)publish->payload_length : 200,
			(const char *)publish->payload);
}

static void take_answer(struct requests *requests, const struct wire_publish *publish, uint64_t now_ns)
{
	uint64_t number = requests_answered(publish->payload, publish->payload_length);
	struct slot *slot = &requests->slots[number % SLOTS];
	if (number == 0 || slot->number != number) {
		complain(requests, publish, "nobody has asked for this");
		return;
	}
	requests->answered++;
	requests->answer_bytes += publish->payload_length;
	if (memmem(publish->payload, publish->payload_length < 60 ? publish->payload_length : 60, "\"result\":", 9) == NULL)
		complain(requests, publish, requests->methods[slot->method].name);
	else if (stage == STAGE_MEASURED)
		histogram_record(&requests->methods[slot->method].latency, now_ns - slot->due_ns);
	slot->number = 0;
}

/* ---- connections */

static void on_ready(struct connection *connection)
{
	struct asker *asker = connection->owner;
	uint8_t packet[SETTINGS_TOPIC_MAX + 16];
	size_t length = wire_subscribe(packet, sizeof packet, connection->level, 1, asker->topic, 1);
	connection_send(connection, packet, length);
}

static struct requests requests_here;

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct asker *asker = connection->owner;
	struct wire_publish publish;
	uint8_t reason, puback[WIRE_PUBACK_SIZE];
	if (packet->type == WIRE_SUBACK && !asker->subscribed) {
		asker->subscribed = wire_read_suback(packet, connection->level, &reason) && reason < 0x80;
		requests_here.ready += asker->subscribed;
		requests_here.failed = requests_here.failed || !asker->subscribed;
	} else if (packet->type == WIRE_PUBLISH && wire_read_publish(packet, connection->level, &publish)) {
		take_answer(&requests_here, &publish, now_ns);
		if (publish.qos > 0) {
			wire_puback(puback, publish.packet_id);
			connection_send(connection, puback, sizeof puback);
		}
	}
}

static void on_closed(struct connection *connection, const char *why)
{
	fprintf(stderr, "mqtt_load: %s: %s\n", connection->credentials.client_id, why);
	requests_here.failed = true;
}

static const struct connection_events events = {on_ready, on_packet, on_closed};

static bool prepare(struct requests *requests)
{
	const struct settings *settings = requests->settings;
	requests->askers = calloc(settings->sessions, sizeof *requests->askers);
	if (requests->askers == NULL || !credentials_load(&requests->credentials, settings->credentials, settings->sessions))
		return false;
	for (unsigned i = 0; i < settings->sessions; i++) {
		struct asker *asker = &requests->askers[i];
		asker->connection.loop = &requests->loop;
		asker->connection.owner = asker;
		asker->connection.level = settings->level;
		asker->connection.port = settings->port;
		asker->connection.credentials = requests->credentials.entries[i];
		int length =
			snprintf(asker->topic, sizeof asker->topic, "chat/response/%s", asker->connection.credentials.client_id);
		if (length >= SETTINGS_TOPIC_MAX)
			return false;
	}
	return read_lines(requests);
}

static bool open_all(struct requests *requests)
{
	unsigned all = requests->settings->sessions;
	uint64_t deadline_ns = connection_now_ns() + PATIENCE_NS;
	while (requests->ready < all) {
		while (requests->started < all && requests->started - requests->ready < OPENING_AT_ONCE)
			connection_start(&requests->askers[requests->started++].connection);
		if (!connection_loop_turn(&requests->loop, deadline_ns) || requests->failed || connection_now_ns() >= deadline_ns)
			return false;
	}
	return true;
}

static bool ask_all(struct requests *requests)
{
	const struct settings *settings = requests->settings;
	uint64_t asked = 0;
	requests->start_ns = connection_now_ns();
	uint64_t end_ns = requests->start_ns + (uint64_t)(settings->duration_s * 1e9);
	for (uint64_t now_ns = requests->start_ns; now_ns < end_ns && !terminated; now_ns = connection_now_ns()) {
		uint64_t due_ns = requests->start_ns + (uint64_t)((double)asked * 1e9 / settings->rate_per_s);
		if (due_ns <= now_ns) {
			ask(requests, due_ns);
			asked++;
		} else if (!connection_loop_turn(&requests->loop, due_ns) || requests->failed) {
			return false;
		}
	}
	return true;
}

static bool await_answers(struct requests *requests)
{
	uint64_t deadline_ns = connection_now_ns() + (uint64_t)(requests->settings->drain_s * 1e9);
	while (requests->answered + requests->dropped < requests->asked && connection_now_ns() < deadline_ns)
		if (!connection_loop_turn(&requests->loop, deadline_ns) || requests->failed)
			return false;
	return true;
}

static bool report(const struct requests *requests)
{
	uint64_t missing = requests->asked - requests->answered;
	for (unsigned i = 0; i < requests->methods_count; i++) {
		const struct method *method = &requests->methods[i];
		printf("%s_p50_ms %.3f\n%s_p99_ms %.3f\n%s_max_ms %.3f\n", method->name,
			(double)histogram_percentile_ns(&method->latency, 50) / 1e6, method->name,
			(double)histogram_percentile_ns(&method->latency, 99) / 1e6, method->name,
			(double)method->latency.max_ns / 1e6);
		printf("%s_count %" PRIu64 "\n", method->name, method->latency.count);
	}
	printf("requests %" PRIu64 "\n", requests->asked);
	if (requests->answered > 0)
		printf("request_answer_bytes %" PRIu64 "\n", requests->answer_bytes / requests->answered);
	printf("request_errors %" PRIu64 "\nrequests_unanswered %" PRIu64 "\n", requests->errors, missing);
	return requests->errors + missing == 0;
}

int requests_run(const struct settings *settings)
{
	struct requests *requests = &requests_here;
	int status = 2;
	requests->settings = settings;
	if (!connection_loop_open(&requests->loop, settings->host, &events))
		return 2;
	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	if (prepare(requests) && open_all(requests) && ask_all(requests) && await_answers(requests))
		status = report(requests) ? 0 : 1;
	else
		fprintf(stderr, "mqtt_load: the requests could not be made\n");
	for (unsigned i = 0; requests->askers != NULL && i < requests->started; i++)
		connection_release(&requests->askers[i].connection);
	connection_loop_close(&requests->loop);
	credentials_release(&requests->credentials);
	free(requests->askers);
	free(requests->lines);
	free(requests->text);
	return status;
}
