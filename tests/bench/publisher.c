/* publisher.c - sends counted messages, in a window or at their due times. See load.h. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREETING_ID UINT16_MAX /* no place in a ring */
#define TOPIC_MAX 256
#define REFUSED 0x80 /* reason codes from here on (MQTT 5, 2.4) */

static struct slot *slot_of(const struct publisher *publisher, uint64_t count)
{
	return &publisher->ring[count & (publisher->client.load->ring_size - 1)];
}

static unsigned place_of(const struct publisher *publisher, uint64_t count)
{
	return (unsigned)(count & (publisher->client.load->ring_size - 1));
}

bool publisher_prepare(struct publisher *publisher)
{
	const struct load *load = publisher->client.load;
	const struct settings *settings = load->settings;
	char topic[TOPIC_MAX];
	if (!load_topic(load, settings->publish_topic, publisher->client.conversation, topic, sizeof topic))
		return false;
	size_t payload = payload_length(settings->form, settings->body_length);
	publisher->packet_length = wire_publish_size(settings->level, settings->qos, topic, payload);
	publisher->packet = malloc(publisher->packet_length);
	publisher->ring = calloc(load->ring_size, sizeof *publisher->ring);
	if (publisher->packet == NULL || publisher->ring == NULL)
		return false;
	size_t made = wire_publish_template(publisher->packet, publisher->packet_length, settings->level, settings->qos, topic,
		payload, &publisher->id_offset, &publisher->payload_offset);
	payload_make(publisher->packet + publisher->payload_offset, settings->form, settings->body_length);
	return made == publisher->packet_length;
}

void publisher_ready(struct publisher *publisher)
{
	const struct settings *settings = publisher->client.load->settings;
	unsigned maximum = publisher->client.connection.receive_maximum;
	publisher->window = settings->window < maximum || settings->until_delivery ? settings->window : maximum;
	load_client_ready(publisher->client.load);
}

static void send_message(struct publisher *publisher, uint64_t count, uint16_t packet_id, uint64_t due_ns)
{
	const struct load *load = publisher->client.load;
	struct payload_marker marker = {publisher->index, (uint32_t)count, due_ns};
	uint8_t *packet = connection_reserve(&publisher->client.connection, publisher->packet_length);
	memcpy(packet, publisher->packet, publisher->packet_length);
	if (load->settings->qos > 0) {
		packet[publisher->id_offset] = (uint8_t)(packet_id >> 8);
		packet[publisher->id_offset + 1] = (uint8_t)(packet_id & 0xff);
	}
	payload_patch(packet + publisher->payload_offset, load->settings->form, &marker, load->run);
}

void publisher_greet(struct publisher *publisher)
{
	/* An id of its own in the time's place: a greeting that is sent again must not be taken for a resend. */
	struct payload_marker marker = {publisher->index, 0, connection_now_ns()};
	uint64_t run = publisher->client.load->run ^ marker.due_ns;
	uint8_t *packet = connection_reserve(&publisher->client.connection, publisher->packet_length);
	memcpy(packet, publisher->packet, publisher->packet_length);
	if (publisher->client.load->settings->qos > 0)
		packet[publisher->id_offset] = packet[publisher->id_offset + 1] = GREETING_ID & 0xff;
	payload_patch(packet + publisher->payload_offset, publisher->client.load->settings->form, &marker, run);
}

/* When the next message is to go: in an open loop the run's n-th message is due at start + n / rate, the publishers taking turns.
 */
static uint64_t next_due(const struct publisher *publisher, uint64_t now_ns)
{
	const struct load *load = publisher->client.load;
	if (load->settings->rate_per_s <= 0)
		return now_ns;
	double turn = (double)publisher->sent * load->publishers_count + publisher->index;
	return load->start_ns + (uint64_t)(turn * 1e9 / load->settings->rate_per_s);
}

void publisher_pump(struct publisher *publisher, uint64_t now_ns)
{
	struct load *load = publisher->client.load;
	if (load->phase != LOAD_LOADING || publisher->client.connection.state != CONNECTION_READY)
		return;
	while (publisher->in_flight < publisher->window) {
		uint64_t due_ns = next_due(publisher, now_ns);
		struct slot *slot = slot_of(publisher, publisher->sent + 1);
		if (due_ns > now_ns || due_ns >= load->measure_end_ns || slot->count != 0)
			return;
		publisher->sent++;
		load->counts.sent++;
		*slot = (struct slot){
			.count = publisher->sent,
			.due_ns = due_ns,
			.receivers_left = load->settings->until_delivery ? load->settings->receivers : 0,
			.waits_for_ack = load->settings->qos > 0,
		};
		publisher->in_flight++;
		send_message(publisher, publisher->sent, (uint16_t)(place_of(publisher, publisher->sent) + 1), due_ns);
		if (load->settings->qos == 0 && slot->receivers_left == 0) {
			slot->count = 0;
			publisher->in_flight--;
		}
	}
}

static void free_slot(struct publisher *publisher, struct slot *slot)
{
	slot->count = 0;
	publisher->in_flight--;
	load_may_send(publisher);
}

static void handle_puback(struct publisher *publisher, uint16_t packet_id, uint8_t reason, uint64_t now_ns)
{
	struct load *load = publisher->client.load;
	if (packet_id == 0 || packet_id > load->ring_size)
		return; /* of a greeting */
	struct slot *slot = &publisher->ring[packet_id - 1];
	if (slot->count == 0 || !slot->waits_for_ack)
		return;
	slot->waits_for_ack = false;
	load->progress_ns = now_ns;
	if (reason >= REFUSED) {
		load->refused[reason]++;
		publisher->refused++;
		free_slot(publisher, slot);
		return;
	}
	publisher->acked++;
	load->counts.acked++;
	if (load_is_measured(load, slot->due_ns))
		histogram_record(&load->acknowledgement, now_ns - slot->due_ns);
	if (slot->receivers_left == 0)
		free_slot(publisher, slot);
}

void publisher_packet(struct publisher *publisher, const struct wire_packet *packet, uint64_t now_ns)
{
	uint16_t packet_id;
	uint8_t reason;
	if (packet->type == WIRE_PUBACK && wire_read_puback(packet, &packet_id, &reason))
		handle_puback(publisher, packet_id, reason, now_ns);
}

void publisher_delivered(struct publisher *publisher, uint64_t count)
{
	struct slot *slot = slot_of(publisher, count);
	if (slot->count != count || slot->receivers_left == 0)
		return;
	slot->receivers_left--;
	if (slot->receivers_left == 0 && !slot->waits_for_ack)
		free_slot(publisher, slot);
}
