/* raw.c - see raw.h. One thread. MQTT 3.1.1 and 5.0; the section stands at each packet. */
#include "raw.h"
#include "check.h"
#include "client.h"
#include "process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 60000, FIRST_SIZE = 2048, IN_SIZE = 1 << 22, HEADER_ROOM = 5 };

struct raw {
	int fd;
	uint8_t *out; /* HEADER_ROOM free bytes, then the body */
	size_t out_length, out_size;
	uint8_t head;
	uint8_t *in;
	size_t in_length, in_taken, in_size;
};

/* Room for `needed` bytes at least. */
static uint8_t *larger(uint8_t *bytes, size_t *size, size_t needed)
{
	while (*size < needed)
		*size = *size ? *size * 2 : FIRST_SIZE;
	bytes = realloc(bytes, *size);
	check(bytes != NULL);
	return bytes;
}

struct raw *raw_open(int port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
	struct raw *raw = calloc(1, sizeof *raw);
	int on = 1;
	check(raw != NULL);
	raw->out = larger(NULL, &raw->out_size, FIRST_SIZE);
	raw->in = larger(NULL, &raw->in_size, FIRST_SIZE);
	raw->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(raw->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(raw->fd, (struct sockaddr *)&address, sizeof address))
		fail_msg("connect: %s", strerror(errno));
	return raw;
}

void raw_close(struct raw *raw)
{
	if (!raw)
		return;
	close(raw->fd);
	free(raw->out);
	free(raw->in);
	free(raw);
}

int raw_socket(const struct raw *raw)
{
	return raw->fd;
}

void raw_begin(struct raw *raw, uint8_t head)
{
	raw->head = head;
	raw->out_length = HEADER_ROOM;
}

void raw_bytes(struct raw *raw, const void *bytes, size_t length)
{
	if (raw->out_length + length > raw->out_size)
		raw->out = larger(raw->out, &raw->out_size, raw->out_length + length);
	memcpy(raw->out + raw->out_length, bytes, length);
	raw->out_length += length;
}

void raw_u8(struct raw *raw, unsigned value)
{
	uint8_t byte = (uint8_t)value;
	raw_bytes(raw, &byte, 1);
}

void raw_u16(struct raw *raw, unsigned value)
{
	raw_u8(raw, value >> 8);
	raw_u8(raw, value & 0xff);
}

void raw_string(struct raw *raw, const void *bytes, size_t length)
{
	check(length <= 65535);
	raw_u16(raw, (unsigned)length);
	raw_bytes(raw, bytes, length);
}

void raw_text(struct raw *raw, const char *text)
{
	raw_string(raw, text, strlen(text));
}

static bool write_all(int fd, const uint8_t *bytes, size_t length)
{
	while (length) {
		ssize_t written = send(fd, bytes, length, MSG_NOSIGNAL);
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		bytes += written;
		length -= (size_t)written;
	}
	return true;
}

bool raw_end(struct raw *raw)
{
	uint8_t header[HEADER_ROOM] = {raw->head};
	size_t left = raw->out_length - HEADER_ROOM, count = 1;
	do {
		header[count] = (uint8_t)(left % 128);
		left /= 128;
		header[count++] |= left ? 0x80 : 0;
	} while (left);
	uint8_t *start = raw->out + HEADER_ROOM - count;
	memcpy(start, header, count);
	return write_all(raw->fd, start, raw->out_length - HEADER_ROOM + count);
}

/* Cuts one packet from what was read. */
static bool cut(struct raw *raw, struct raw_packet *packet)
{
	const uint8_t *at = raw->in + raw->in_taken;
	size_t available = raw->in_length - raw->in_taken, length = 0, used = 1;
	for (unsigned shift = 0;; shift += 7) {
		if (used >= available)
			return false;
		length |= (size_t)(at[used] & 0x7f) << shift;
		if (!(at[used++] & 0x80))
			break;
	}
	if (available < used + length)
		return false;
	*packet = (struct raw_packet){.head = at[0], .body = at + used, .length = length};
	raw->in_taken += used + length;
	return true;
}

bool raw_read(struct raw *raw, struct raw_packet *packet)
{
	int64_t deadline_ms = now_ms() + WAIT_MS;
	*packet = (struct raw_packet){0};
	/* What earlier packets pointed at is given up now. */
	if (raw->in_taken == raw->in_length)
		raw->in_taken = raw->in_length = 0;
	while (!cut(raw, packet)) {
		struct pollfd ready = {.fd = raw->fd, .events = POLLIN};
		int64_t left_ms = deadline_ms - now_ms();
		if (left_ms <= 0 || poll(&ready, 1, (int)left_ms) == 0)
			fail_msg("the broker neither answers nor closes the connection");
		if (raw->in_taken) {
			memmove(raw->in, raw->in + raw->in_taken, raw->in_length - raw->in_taken);
			raw->in_length -= raw->in_taken;
			raw->in_taken = 0;
		}
		if (raw->in_length == raw->in_size)
			raw->in = larger(raw->in, &raw->in_size, raw->in_size + 1);
		check(raw->in_size <= IN_SIZE);
		ssize_t count = recv(raw->fd, raw->in + raw->in_length, raw->in_size - raw->in_length, 0);
		if (count == 0 || (count < 0 && errno != EINTR))
			return false;
		raw->in_length += count > 0 ? (size_t)count : 0;
	}
	return true;
}

bool raw_read_type(struct raw *raw, uint8_t type, struct raw_packet *packet)
{
	while (raw_read(raw, packet)) {
		if ((packet->head & 0xf0) == type)
			return true;
	}
	return false;
}

/* 3.1 */
int raw_connect(struct raw *raw, int version, const char *id, const void *password, size_t password_length)
{
	struct raw_packet packet;
	raw_begin(raw, 0x10);
	raw_text(raw, "MQTT");
	raw_u8(raw, (unsigned)version);
	raw_u8(raw, password ? 0xc2 : 0x02);
	raw_u16(raw, 60);
	if (version == 5)
		raw_u8(raw, 0);
	raw_text(raw, id);
	if (password) {
		raw_text(raw, "raw");
		raw_string(raw, password, password_length);
	}
	if (!raw_end(raw) || !raw_read(raw, &packet))
		return CLOSED;
	check(packet.head == 0x20 && packet.length >= 2);
	return packet.body[1];
}

/* 3.3, 3.4 */
int raw_publish(
	struct raw *raw, int version, const void *topic, size_t topic_length, const void *payload, size_t length, unsigned mid)
{
	struct raw_packet packet;
	raw_begin(raw, 0x32);
	raw_string(raw, topic, topic_length);
	raw_u16(raw, mid);
	if (version == 5)
		raw_u8(raw, 0);
	raw_bytes(raw, payload, length);
	if (!raw_end(raw) || !raw_read_type(raw, 0x40, &packet))
		return CLOSED;
	return packet.length > 2 ? packet.body[2] : 0;
}

/* 3.8, 3.9 */
int raw_subscribe(struct raw *raw, int version, const void *filter, size_t length, unsigned mid)
{
	struct raw_packet packet;
	raw_begin(raw, 0x82);
	raw_u16(raw, mid);
	if (version == 5)
		raw_u8(raw, 0);
	raw_string(raw, filter, length);
	raw_u8(raw, 1);
	if (!raw_end(raw) || !raw_read_type(raw, 0x90, &packet))
		return CLOSED;
	return packet.body[packet.length - 1];
}
