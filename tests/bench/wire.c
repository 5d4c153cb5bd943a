/* wire.c - see wire.h. Encoders write through a cursor that remembers an overflow, so each checks once, at its end. */
#include "wire.h"

#include <string.h>

#define FLAG_CLEAN 0x02
#define FLAG_PASSWORD 0x40
#define FLAG_USER 0x80
#define PROPERTY_RECEIVE_MAXIMUM 0x21
#define REASON_FAILURE 0x80 /* from here on: MQTT 3.1.1, 3.9.3; MQTT 5, 2.4 */
#define VARINT_BYTES_MAX 4  /* section 2.2.3: 268,435,455 */

struct cursor {
	uint8_t *at;
	uint8_t *end;
	bool full;
};

static void put_bytes(struct cursor *cursor, const void *bytes, size_t length)
{
	if (cursor->full || length > (size_t)(cursor->end - cursor->at)) {
		cursor->full = true;
		return;
	}
	memcpy(cursor->at, bytes, length);
	cursor->at += length;
}

static void put_u8(struct cursor *cursor, unsigned value)
{
	uint8_t byte = (uint8_t)value;
	put_bytes(cursor, &byte, 1);
}

static void put_u16(struct cursor *cursor, unsigned value)
{
	put_u8(cursor, value >> 8);
	put_u8(cursor, value & 0xff);
}

static void put_string(struct cursor *cursor, const char *text)
{
	size_t length = strlen(text);
	if (length > UINT16_MAX) {
		cursor->full = true;
		return;
	}
	put_u16(cursor, (unsigned)length);
	put_bytes(cursor, text, length);
}

static size_t varint_size(size_t value)
{
	return value < 128 ? 1 : value < 16384 ? 2 : value < 2097152 ? 3 : 4;
}

static void put_header(struct cursor *cursor, enum wire_type type, unsigned flags, size_t body_length)
{
	put_u8(cursor, ((unsigned)type << 4) | flags);
	for (; body_length >= 128; body_length >>= 7)
		put_u8(cursor, (unsigned)(body_length & 127) | 128U);
	put_u8(cursor, (unsigned)body_length);
}

static size_t finish(const struct cursor *cursor, const uint8_t *start)
{
	return cursor->full ? 0 : (size_t)(cursor->at - start);
}

/* A variable byte integer: its size in bytes, 0 where more are needed, -1 where it is none. */
static int read_varint(const uint8_t *data, size_t length, size_t *value)
{
	*value = 0;
	for (int i = 0; i < VARINT_BYTES_MAX; i++) {
		if ((size_t)i >= length)
			return 0;
		*value |= (size_t)(data[i] & 127) << (7 * i);
		if ((data[i] & 128) == 0)
			return i + 1;
	}
	return -1;
}

int wire_next(const uint8_t *data, size_t length, struct wire_packet *packet)
{
	size_t body_length;
	if (length < 2)
		return 0;
	int header = read_varint(data + 1, length - 1, &body_length);
	if (header <= 0)
		return header;
	size_t start = 1 + (size_t)header;
	if (length < start + body_length)
		return 0;
	packet->type = data[0] >> 4;
	packet->flags = data[0] & 15;
	packet->body = data + start;
	packet->body_length = body_length;
	packet->total_length = start + body_length;
	return 1;
}

size_t wire_connect(uint8_t *out, size_t size, uint8_t level, uint16_t keepalive_s, const struct wire_credentials *credentials)
{
	struct cursor cursor = {out, out + size, false};
	size_t body = 6U + 1 + 1 + 2 + (level == WIRE_LEVEL_5 ? 1U : 0U) + 2 + strlen(credentials->client_id);
	unsigned flags = FLAG_CLEAN;
	if (credentials->user != NULL) {
		flags |= FLAG_USER;
		body += 2 + strlen(credentials->user);
	}
	if (credentials->password != NULL) {
		flags |= FLAG_PASSWORD;
		body += 2 + strlen(credentials->password);
	}
	put_header(&cursor, WIRE_CONNECT, 0, body);
	put_string(&cursor, "MQTT");
	put_u8(&cursor, level);
	put_u8(&cursor, flags);
	put_u16(&cursor, keepalive_s);
	if (level == WIRE_LEVEL_5)
		put_u8(&cursor, 0); /* no properties */
	put_string(&cursor, credentials->client_id);
	if (credentials->user != NULL)
		put_string(&cursor, credentials->user);
	if (credentials->password != NULL)
		put_string(&cursor, credentials->password);
	return finish(&cursor, out);
}

size_t wire_subscribe(uint8_t *out, size_t size, uint8_t level, uint16_t packet_id, const char *topic, uint8_t qos)
{
	return wire_subscribe_all(out, size, level, packet_id, &topic, 1, qos);
}

size_t wire_subscribe_all(
	uint8_t *out, size_t size, uint8_t level, uint16_t packet_id, const char *const *topics, size_t count, uint8_t qos)
{
	struct cursor cursor = {out, out + size, false};
	size_t body = 2 + (level == WIRE_LEVEL_5 ? 1U : 0U);
	for (size_t i = 0; i < count; i++)
		body += 2 + strlen(topics[i]) + 1;
	put_header(&cursor, WIRE_SUBSCRIBE, 2, body);
	put_u16(&cursor, packet_id);
	if (level == WIRE_LEVEL_5)
		put_u8(&cursor, 0);
	for (size_t i = 0; i < count; i++) {
		put_string(&cursor, topics[i]);
		put_u8(&cursor, qos);
	}
	return finish(&cursor, out);
}

static size_t publish_body(uint8_t level, uint8_t qos, const char *topic, size_t payload_length)
{
	return 2 + strlen(topic) + (qos > 0 ? 2U : 0U) + (level == WIRE_LEVEL_5 ? 1U : 0U) + payload_length;
}

size_t wire_publish_size(uint8_t level, uint8_t qos, const char *topic, size_t payload_length)
{
	size_t body = publish_body(level, qos, topic, payload_length);
	return 1 + varint_size(body) + body;
}

size_t wire_publish_template(uint8_t *out, size_t size, uint8_t level, uint8_t qos, const char *topic, size_t payload_length,
	size_t *id_offset, size_t *payload_offset)
{
	struct cursor cursor = {out, out + size, false};
	put_header(&cursor, WIRE_PUBLISH, (unsigned)qos << 1, publish_body(level, qos, topic, payload_length));
	put_string(&cursor, topic);
	*id_offset = (size_t)(cursor.at - out);
	if (qos > 0)
		put_u16(&cursor, 0);
	if (level == WIRE_LEVEL_5)
		put_u8(&cursor, 0);
	*payload_offset = (size_t)(cursor.at - out);
	if (cursor.full || payload_length > (size_t)(cursor.end - cursor.at))
		return 0;
	return *payload_offset + payload_length;
}

void wire_puback(uint8_t out[WIRE_PUBACK_SIZE], uint16_t packet_id)
{
	out[0] = WIRE_PUBACK << 4;
	out[1] = 2;
	out[2] = (uint8_t)(packet_id >> 8);
	out[3] = (uint8_t)(packet_id & 0xff);
}

static uint16_t get_u16(const uint8_t *data)
{
	return (uint16_t)((data[0] << 8) | data[1]);
}

/* Bytes that the value of a CONNACK property takes (section 2.2.2.2), 0 where it is unknown or cut off. */
static size_t property_size(const uint8_t *value, size_t left, uint8_t id)
{
	switch (id) {
	case 0x24: /* maximum QoS */
	case 0x25: /* retain available */
	case 0x28: /* wildcards available */
	case 0x29: /* subscription identifiers available */
	case 0x2a: /* shared subscriptions available */
		return 1;
	case 0x13: /* server keep alive */
	case 0x21: /* receive maximum */
	case 0x22: /* topic alias maximum */
		return 2;
	case 0x11: /* session expiry */
	case 0x27: /* maximum packet size */
		return 4;
	case 0x12: /* assigned client id */
	case 0x15: /* authentication method */
	case 0x16: /* authentication data */
	case 0x1a: /* response information */
	case 0x1c: /* server reference */
	case 0x1f: /* reason string */
		return left < 2 ? 0 : 2U + get_u16(value);
	case 0x26: { /* user property */
		size_t key = left < 2 ? left : 2U + get_u16(value);
		return key + 2 > left ? 0 : key + 2U + get_u16(value + key);
	}
	default:
		return 0;
	}
}

static bool read_receive_maximum(const uint8_t *data, size_t length, uint16_t *receive_maximum)
{
	size_t properties;
	int header = read_varint(data, length, &properties);
	if (header <= 0 || properties > length - (size_t)header)
		return false;
	data += header;
	while (properties > 0) {
		size_t value = property_size(data + 1, properties - 1, data[0]);
		if (value == 0 || value > properties - 1)
			return false;
		if (data[0] == PROPERTY_RECEIVE_MAXIMUM)
			*receive_maximum = get_u16(data + 1);
		data += 1 + value;
		properties -= 1 + value;
	}
	return true;
}

bool wire_read_connack(const struct wire_packet *packet, uint8_t level, uint8_t *reason, uint16_t *receive_maximum)
{
	if (packet->body_length < 2)
		return false;
	*reason = packet->body[1];
	*receive_maximum = UINT16_MAX;
	if (level != WIRE_LEVEL_5 || packet->body_length == 2)
		return true;
	return read_receive_maximum(packet->body + 2, packet->body_length - 2, receive_maximum);
}

bool wire_read_suback(const struct wire_packet *packet, uint8_t level, uint8_t *reason)
{
	if (packet->body_length < (level == WIRE_LEVEL_5 ? 4U : 3U))
		return false;
	*reason = packet->body[packet->body_length - 1];
	return true;
}

bool wire_read_subacks(const struct wire_packet *packet, uint8_t level, size_t count, size_t *refused)
{
	*refused = 0;
	if (packet->body_length < (level == WIRE_LEVEL_5 ? 3U : 2U) + count)
		return false;
	for (size_t i = 0; i < count; i++)
		*refused += packet->body[packet->body_length - count + i] >= REASON_FAILURE;
	return true;
}

bool wire_read_puback(const struct wire_packet *packet, uint16_t *packet_id, uint8_t *reason)
{
	if (packet->body_length < 2)
		return false;
	*packet_id = get_u16(packet->body);
	*reason = packet->body_length > 2 ? packet->body[2] : 0;
	return true;
}

bool wire_read_publish(const struct wire_packet *packet, uint8_t level, struct wire_publish *publish)
{
	const uint8_t *at = packet->body;
	size_t left = packet->body_length;
	publish->qos = (packet->flags >> 1) & 3;
	publish->packet_id = 0;
	if (left < 2U || left - 2U < get_u16(at))
		return false;
	publish->topic_length = get_u16(at);
	publish->topic = at + 2;
	at += 2 + publish->topic_length;
	left -= 2 + publish->topic_length;
	if (publish->qos > 0) {
		if (left < 2)
			return false;
		publish->packet_id = get_u16(at);
		at += 2;
		left -= 2;
	}
	if (level == WIRE_LEVEL_5) {
		size_t properties;
		int header = read_varint(at, left, &properties);
		if (header <= 0 || properties > left - (size_t)header)
			return false;
		at += (size_t)header + properties;
		left -= (size_t)header + properties;
	}
	publish->payload = at;
	publish->payload_length = left;
	return true;
}
