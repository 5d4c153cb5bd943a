/* raw.h - MQTT byte by byte, for what no decent client library sends.
 *
 *   struct raw *raw = raw_open(port);
 *   raw_begin(raw, 0x82);  raw_u16(raw, 1);  raw_u8(raw, 0);  raw_text(raw, "#");  raw_u8(raw, 1);  raw_end(raw);
 *   struct raw_packet packet;  raw_read(raw, &packet);
 *
 * Reads block with a deadline of 60 s. Everything fails the test where the ground gives way, not where the broker refuses.
 */
#ifndef CHAT_TESTS_RAW_H
#define CHAT_TESTS_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct raw;

struct raw_packet {
	uint8_t head; /* type and flags; 0: the connection was closed */
	const uint8_t *body;
	size_t length;
};

struct raw *raw_open(int port);
void raw_close(struct raw *raw);
int raw_socket(const struct raw *raw);

void raw_begin(struct raw *raw, uint8_t head);
void raw_u8(struct raw *raw, unsigned value);
void raw_u16(struct raw *raw, unsigned value);
void raw_bytes(struct raw *raw, const void *bytes, size_t length);
/* With its length in two bytes before it. */
void raw_string(struct raw *raw, const void *bytes, size_t length);
void raw_text(struct raw *raw, const char *text);
/* Puts the fixed header before what was collected and sends it. False: the connection is closed. */
bool raw_end(struct raw *raw);

/* The next packet. False, and head 0, where the connection is closed. */
bool raw_read(struct raw *raw, struct raw_packet *packet);
/* Skips packets until one of this type (the upper four bits, e.g. 0x40 for PUBACK). */
bool raw_read_type(struct raw *raw, uint8_t type, struct raw_packet *packet);

/* CONNECT, clean, keepalive 60; password NULL: no such field. Returns CONNACK's code, or CLOSED (-1). */
int raw_connect(struct raw *raw, int version, const char *id, const void *password, size_t password_length);
/* QoS 1 publish with packet id `mid`. Returns PUBACK's reason (0 in version 4), or CLOSED. */
int raw_publish(
	struct raw *raw, int version, const void *topic, size_t topic_length, const void *payload, size_t length, unsigned mid);
/* SUBACK's first code, or CLOSED. */
int raw_subscribe(struct raw *raw, int version, const void *filter, size_t length, unsigned mid);

#endif
