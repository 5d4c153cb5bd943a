/* wire.h - the part of MQTT 3.1.1 (protocol level 4) and 5 that a load generator needs, as pure functions over bytes.
 *
 * Encoders write one whole packet and return its length, 0 where it does not fit. Decoders look at a packet that
 * wire_next() has cut out; they return false where the packet is malformed. QoS 2 does not exist here. Properties are
 * skipped, but for the server's Receive Maximum. References: MQTT 3.1.1 and MQTT 5.0, OASIS, the section named at each.
 */
#ifndef CHAT_BENCH_WIRE_H
#define CHAT_BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wire_type {
	WIRE_CONNECT = 1,
	WIRE_CONNACK = 2,
	WIRE_PUBLISH = 3,
	WIRE_PUBACK = 4,
	WIRE_SUBSCRIBE = 8,
	WIRE_SUBACK = 9,
	WIRE_PINGREQ = 12,
	WIRE_PINGRESP = 13,
	WIRE_DISCONNECT = 14
};

#define WIRE_LEVEL_3_1_1 4
#define WIRE_LEVEL_5 5
#define WIRE_PUBACK_SIZE 4 /* as we send it: no reason code means success, in both versions */

struct wire_packet {
	uint8_t type;
	uint8_t flags;
	const uint8_t *body; /* after the fixed header */
	size_t body_length;
	size_t total_length;
};

/* Cuts the first packet from `data`: 1, or 0 where more bytes are needed, or -1 where it cannot be MQTT. */
int wire_next(const uint8_t *data, size_t length, struct wire_packet *packet);

struct wire_credentials {
	const char *client_id;
	const char *user;     /* NULL: no such field */
	const char *password; /* NULL: no such field */
};

/* Clean session; MQTT 5: session expiry 0. Section 3.1. */
size_t wire_connect(uint8_t *out, size_t size, uint8_t level, uint16_t keepalive_s, const struct wire_credentials *credentials);
size_t wire_subscribe(uint8_t *out, size_t size, uint8_t level, uint16_t packet_id, const char *topic, uint8_t qos);
/* Several topics in one packet. */
size_t wire_subscribe_all(
	uint8_t *out, size_t size, uint8_t level, uint16_t packet_id, const char *const *topics, size_t count, uint8_t qos);
/* A PUBLISH with `payload_length` bytes of payload left to the caller to write at *payload_offset; for QoS 1 the packet
 * id goes to *id_offset (2 bytes, big endian). Made once a publisher and patched for each message. Section 3.3. */
size_t wire_publish_template(uint8_t *out, size_t size, uint8_t level, uint8_t qos, const char *topic, size_t payload_length,
	size_t *id_offset, size_t *payload_offset);
size_t wire_publish_size(uint8_t level, uint8_t qos, const char *topic, size_t payload_length);
void wire_puback(uint8_t out[WIRE_PUBACK_SIZE], uint16_t packet_id);

/* *receive_maximum: 65535 where the server says nothing (MQTT 5, 3.2.2.3.3). */
bool wire_read_connack(const struct wire_packet *packet, uint8_t level, uint8_t *reason, uint16_t *receive_maximum);
/* Of the last topic. */
bool wire_read_suback(const struct wire_packet *packet, uint8_t level, uint8_t *reason);
/* *refused: how many of the `count` topics asked for were. */
bool wire_read_subacks(const struct wire_packet *packet, uint8_t level, size_t count, size_t *refused);
bool wire_read_puback(const struct wire_packet *packet, uint16_t *packet_id, uint8_t *reason);

struct wire_publish {
	uint8_t qos;
	uint16_t packet_id; /* 0 for QoS 0 */
	const uint8_t *topic;
	size_t topic_length;
	const uint8_t *payload;
	size_t payload_length;
};

bool wire_read_publish(const struct wire_packet *packet, uint8_t level, struct wire_publish *publish);

#endif
