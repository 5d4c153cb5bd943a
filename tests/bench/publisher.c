/* publisher.c - sends counted messages, in a window or at their due times. See load.h. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREETING_ID UINT16_MAX /* no place in a ring */
#define REFUSED 0x80           /* reason codes from here on (MQTT 5, 2.4) */

static struct slot *slot_of(const struct publisher *publisher, uint64_t count)
{
	return &publisher->ring[count & (publisher->client.load->ring_size - 1)];
}

static unsigned place_of(const struct publisher *publisher, uint64_t count)
{
	return (unsigned)(count & (publisher->client.load->ring_size - 1));
}

static bool make_template(const struct publisher *publisher, const char *topic, size_t body_length, struct template *template)
{
	const struct settings *settings = publisher->client.load->settings;
	size_t payload = payload_length(settings->form, body_length);
	template->length = wire_publish_size(settings->level, settings->qos, topic, payload);
	template->packet = malloc(template->length);
	if (template->packet == NULL)
		return false;
	size_t made = wire_publish_template(template->packet, template->length, settings->level, settings->qos, topic, payload,
		&template->id_offset, &template->payload_offset);
	payload_make(template->packet + template->payload_offset, settings->form, body_length);
	return made == template->length;
}

bool publisher_prepare(struct publisher *publisher)
{
	const struct load *load = publisher->client.load;
	const struct settings *settings = load->settings;
	char topic[SETTINGS_TOPIC_MAX];
	publisher->ring = calloc(load->ring_size, sizeof *publisher->ring);
	if (publisher->ring == NULL || !settings_topic(settings, settings->publish_topic, publisher->client.conversation, topic))
		return false;
	for (unsigned i = 0; i < settings->sizes_count; i++)
		if (!make_template(publisher, topic, settings->sizes[i].length, &publisher->templates[i]))
			return false;
	return true;
}

void publisher_release(struct publisher *publisher)
{
	for (size_t i = 0; i < SETTINGS_SIZES_MAX; i++)
		free(publisher->templates[i].packet);
	free(publisher->ring);
}

void publisher_ready(struct publisher *publisher)
{
	const struct settings *settings = publisher->client.load->settings;
	unsigned maximum = publisher->client.connection.receive_maximum;
	publisher->window = settings->window < maximum || settings->until_delivery ? settings->window : maximum;
	load_client_ready(publisher->client.load);
}

/* The sizes take turns by their shares; each publisher begins at another one. */
static const struct template *template_of(const struct publisher *publisher, uint64_t count)
{
	const struct settings *settings = publisher->client.load->settings;
	uint64_t turn = (count + publisher->index) % settings->shares;
	unsigned i = 0;
	while (turn >= settings->sizes[i].share)
		turn -= settings->sizes[i++].share;
	return &publisher->templates[i];
}

/* `run` keeps the ids of different runs apart. */
static void send_message(struct publisher *publisher, const struct payload_marker *marker, uint16_t packet_id, uint64_t run)
{
	const struct settings *settings = publisher->client.load->settings;
	const struct template *template = template_of(publisher, marker->count);
	uint8_t *packet = connection_reserve(&publisher->client.connection, template->length);
	memcpy(packet, template->packet, template->length);
	if (settings->qos > 0) {
		packet[template->id_offset] = (uint8_t)(packet_id >> 8);
		packet[template->id_offset + 1] = (uint8_t)(packet_id & 0xff);
	}
	payload_patch(packet + template->payload_offset, settings->form, marker, run);
}

void publisher_greet(struct publisher *publisher)
{
	/* An id of its own in the time's place: a greeting that is sent again must not be taken for a resend. */
	struct payload_marker marker = {publisher->index, 0, connection_now_ns()};
	send_message(publisher, &marker, GREETING_ID, publisher->client.load->run ^ marker.due_ns);
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
		struct payload_marker marker = {publisher->index, (uint32_t)publisher->sent, due_ns};
		send_message(publisher, &marker, (uint16_t)(place_of(publisher, publisher->sent) + 1), load->run);
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
