/* marks.c - see marks.h. */
#define _GNU_SOURCE
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSED 0x80 /* reason codes from here on (MQTT 5, 2.4) */
#define PAYLOAD_MAX 64
#define PACKET_MAX (SETTINGS_TOPIC_MAX + PAYLOAD_MAX + 16)

static void send_mark(struct receiver *receiver, const char *topic, const char *what, uint64_t seq)
{
	const struct settings *settings = receiver->client.load->settings;
	char payload[PAYLOAD_MAX];
	uint8_t packet[PACKET_MAX];
	size_t id_at, payload_at;
	size_t length = (size_t)snprintf(payload, sizeof payload, "{\"%s\":%" PRIu64 "}", what, seq);
	size_t size = wire_publish_template(packet, sizeof packet, settings->level, 1, topic, length, &id_at, &payload_at);
	if (size == 0)
		abort();
	receiver->mark_id = receiver->mark_id == UINT16_MAX ? 1 : (uint16_t)(receiver->mark_id + 1);
	packet[id_at] = (uint8_t)(receiver->mark_id >> 8);
	packet[id_at + 1] = (uint8_t)(receiver->mark_id & 0xff);
	memcpy(packet + payload_at, payload, length);
	connection_send(&receiver->client.connection, packet, size);
	receiver->client.load->counts.marks.sent++;
}

void marks_send(struct receiver *receiver, uint64_t seq)
{
	const struct settings *settings = receiver->client.load->settings;
	char topic[SETTINGS_TOPIC_MAX];
	if (settings->mark_topic == NULL || seq == 0 ||
		!settings_topic(settings, settings->mark_topic, receiver->client.conversation, topic))
		return;
	send_mark(receiver, topic, "delivered", seq);
	send_mark(receiver, topic, "read", seq);
}

void marks_puback(struct receiver *receiver, const struct wire_packet *packet)
{
	struct mark_counts *counts = &receiver->client.load->counts.marks;
	uint16_t packet_id;
	uint8_t reason;
	if (wire_read_puback(packet, &packet_id, &reason)) {
		counts->acked += reason < REFUSED;
		counts->refused += reason >= REFUSED;
	}
}

bool marks_take_receipts(struct receiver *receiver, const struct wire_publish *publish)
{
	struct load *load = receiver->client.load;
	char topic[SETTINGS_TOPIC_MAX];
	if (load->settings->receipts_topic == NULL ||
		!settings_topic(load->settings, load->settings->receipts_topic, receiver->client.conversation, topic) ||
		publish->topic_length != strlen(topic) || memcmp(publish->topic, topic, publish->topic_length) != 0)
		return false;
	load->counts.marks.publishes++;
	load->counts.marks.receipts += payload_count_receipts(publish->payload, publish->payload_length);
	load->counts.marks.bytes += publish->payload_length;
	return true;
}

static double by(double value, double of)
{
	return of > 0 ? value / of : 0;
}

/* A receipt told by itself: the bytes of one among others, and the frame around it. */
static double single_bytes(const struct mark_counts *counts)
{
	static const char frame[] = "{\"receipts\":[]}";
	double frames = (double)counts->publishes * (sizeof frame - 1);
	return by((double)counts->bytes - frames, (double)counts->receipts) + (sizeof frame - 1);
}

void marks_print(const struct load *load, double seconds, uint64_t messages)
{
	const struct mark_counts *start = &load->measure_start.counts.marks, *end = &load->measure_end.counts.marks;
	struct mark_counts counts = {.sent = end->sent - start->sent,
		.publishes = end->publishes - start->publishes,
		.receipts = end->receipts - start->receipts,
		.bytes = end->bytes - start->bytes};
	double receivers = load->settings->receivers, naive = 2 * receivers;
	if (load->settings->receipts_topic == NULL)
		return;
	printf("marks_per_s %.0f\nmarks_refused %" PRIu64 "\n", (double)counts.sent / seconds, load->counts.marks.refused);
	printf("marks_unacknowledged %" PRIu64 "\n",
		load->counts.marks.sent - load->counts.marks.acked - load->counts.marks.refused);
	if (load->settings->mark_topic == NULL)
		return;
	printf("receipt_publishes %.2f\nreceipt_publishes_naive %.0f\n",
		by((double)counts.publishes, (double)messages * receivers), naive);
	printf("receipt_bytes %.0f\nreceipt_bytes_naive %.0f\n", by((double)counts.bytes, (double)messages * receivers),
		naive * single_bytes(&counts));
}
