/* receiver.c - subscribes, acknowledges, and checks what arrives. See load.h. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SUBSCRIBE_PACKET_MAX (2 * SETTINGS_TOPIC_MAX + 16)

bool receiver_prepare(struct receiver *receiver)
{
	unsigned publishers = receiver->client.load->settings->publishers;
	receiver->streams = calloc(publishers, sizeof *receiver->streams);
	receiver->greeted = calloc(publishers, sizeof *receiver->greeted);
	return receiver->streams != NULL && receiver->greeted != NULL;
}

void receiver_ready(struct receiver *receiver)
{
	struct load *load = receiver->client.load;
	const struct settings *settings = load->settings;
	char topics[2][SETTINGS_TOPIC_MAX];
	const char *const list[] = {topics[0], topics[1]};
	uint8_t packet[SUBSCRIBE_PACKET_MAX];
	size_t length = 0;
	if (settings_topic(settings, settings->subscribe_topic, receiver->client.conversation, topics[0]) &&
		settings_topic(settings, settings->receipts_topic ? settings->receipts_topic : "", receiver->client.conversation,
			topics[1]))
		length = wire_subscribe_all(
			packet, sizeof packet, settings->level, 1, list, settings->receipts_topic ? 2 : 1, settings->qos);
	if (length == 0)
		load->phase = LOAD_FAILED;
	else
		connection_send(&receiver->client.connection, packet, length);
}

static void check_seq(struct receiver *receiver, const struct wire_publish *publish)
{
	struct load *load = receiver->client.load;
	uint64_t seq = payload_find_seq(publish->payload, publish->payload_length);
	if (seq == 0 || (receiver->last_seq != 0 && seq != receiver->last_seq + 1))
		load->seq_errors++;
	receiver->last_seq = seq;
}

/* Says what has arrived to whoever looks whether it is in the table now; only when the one before has been taken, so that
 * what is asked about is news. */
static void give_sample(struct receiver *receiver, const struct wire_publish *publish, uint64_t now_ns)
{
	struct load *load = receiver->client.load;
	const uint8_t *marker = memmem(publish->payload, publish->payload_length, "!m", 2);
	char line[128];
	int waiting = 0;
	if (now_ns < load->sample_next_ns || marker == NULL || ioctl(load->sample_fd, FIONREAD, &waiting) != 0 || waiting > 0)
		return;
	load->sample_next_ns = now_ns + (uint64_t)(load->settings->sample_every_s * 1e9);
	int length =
		snprintf(line, sizeof line, "%u %llu %.*s\n", load->settings->first_conversation + receiver->client.conversation,
			(unsigned long long)payload_find_seq(publish->payload, publish->payload_length), PAYLOAD_MARKER_LENGTH,
			(const char *)marker);
	load->sampled += write(load->sample_fd, line, (size_t)length) == length;
}

static void handle_greeting(struct receiver *receiver, unsigned publisher)
{
	struct load *load = receiver->client.load;
	if (receiver->greeted[publisher])
		return;
	receiver->greeted[publisher] = true;
	load->greetings_left--;
}

static void handle_message(struct receiver *receiver, const struct payload_marker *marker, unsigned publisher, uint64_t now_ns)
{
	struct load *load = receiver->client.load;
	load->progress_ns = now_ns;
	if (stream_accept(&receiver->streams[publisher], marker->count) != STREAM_NEW)
		return;
	load->counts.received++;
	/* A chain, so that order matters; the factor is the 64 bit one of Knuth's MMIX generator. */
	receiver->digest = (receiver->digest + marker->publisher + 1) * UINT64_C(6364136223846793005) + marker->count;
	if (load_is_measured(load, marker->due_ns))
		histogram_record(&load->delivery, now_ns - marker->due_ns);
	if (load->settings->until_delivery)
		publisher_delivered(&load->publishers[marker->publisher], marker->count);
}

static void handle_publish(struct receiver *receiver, const struct wire_publish *publish, uint64_t now_ns)
{
	struct load *load = receiver->client.load;
	struct payload_marker marker;
	unsigned first = receiver->client.conversation * load->settings->publishers;
	if (publish->qos > 0)
		wire_puback(connection_reserve(&receiver->client.connection, WIRE_PUBACK_SIZE), publish->packet_id);
	if (marks_take_receipts(receiver, publish))
		return;
	if (!payload_find_marker(publish->payload, publish->payload_length, &marker) || marker.publisher < first ||
		marker.publisher - first >= load->settings->publishers) {
		bool behind = payload_is_behind_notice(publish->payload, publish->payload_length);
		if (behind && load->phase == LOAD_GREETING)
			return; /* subscribed before its rights were known: what that cost it are greetings, which are sent again
				 */
		load->unknown++;
		load->behind += behind;
		return;
	}
	marks_send(receiver, payload_find_seq(publish->payload, publish->payload_length));
	if (load->sample_fd >= 0)
		give_sample(receiver, publish, now_ns);
	if (load->settings->check_seq)
		check_seq(receiver, publish);
	if (marker.count == 0)
		handle_greeting(receiver, marker.publisher - first);
	else
		handle_message(receiver, &marker, marker.publisher - first, now_ns);
}

static void handle_suback(struct receiver *receiver, const struct wire_packet *packet)
{
	struct load *load = receiver->client.load;
	size_t refused;
	if (wire_read_subacks(packet, load->settings->level, load->settings->receipts_topic ? 2 : 1, &refused) && refused == 0) {
		load_client_ready(load);
		return;
	}
	fprintf(stderr, "mqtt_load: %s: a subscription was refused\n", receiver->client.connection.credentials.client_id);
	load->phase = LOAD_FAILED;
}

void receiver_packet(struct receiver *receiver, const struct wire_packet *packet, uint64_t now_ns)
{
	struct wire_publish publish;
	if (packet->type == WIRE_SUBACK)
		handle_suback(receiver, packet);
	else if (packet->type == WIRE_PUBACK)
		marks_puback(receiver, packet);
	else if (packet->type == WIRE_PUBLISH && wire_read_publish(packet, receiver->client.load->settings->level, &publish))
		handle_publish(receiver, &publish, now_ns);
}

uint64_t receiver_missing(const struct receiver *receiver)
{
	const struct load *load = receiver->client.load;
	uint64_t missing = 0;
	for (unsigned i = 0; i < load->settings->publishers; i++) {
		const struct publisher *publisher =
			&load->publishers[receiver->client.conversation * load->settings->publishers + i];
		uint64_t expected = publisher->sent - publisher->refused;
		uint64_t received = receiver->streams[i].received;
		missing += expected > received ? expected - received : 0;
	}
	return missing;
}
