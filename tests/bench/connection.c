/* connection.c - see connection.h. */
#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 1024
#define BUFFER_START 4096 /* thousands of idle connections must stay cheap */
#define BUFFER_MAX (64U << 20)
#define READ_ROOM 16384
#define CONNECT_PACKET_MAX 8192 /* a token is at most 4096 bytes */
#define KEEPALIVE_S 600         /* longer than any run, so that no pings are needed; 0 is refused by some servers */

uint64_t connection_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Makes room for `more` bytes behind `end`. Gives up the whole run where it cannot: there is nothing left to measure. */
static void bytes_make_room(struct bytes *bytes, size_t more)
{
	if (bytes->start > 0 && bytes->size - bytes->end < more) {
		memmove(bytes->data, bytes->data + bytes->start, bytes->end - bytes->start);
		bytes->end -= bytes->start;
		bytes->start = 0;
	}
	if (bytes->size - bytes->end >= more)
		return;
	size_t size = bytes->size == 0 ? BUFFER_START : bytes->size;
	while (size - bytes->end < more)
		size *= 2;
	uint8_t *grown = size > BUFFER_MAX ? NULL : realloc(bytes->data, size);
	if (grown == NULL) {
		fprintf(stderr, "mqtt_load: a connection has more than %u bytes waiting\n", BUFFER_MAX);
		exit(2);
	}
	bytes->data = grown;
	bytes->size = size;
}

static void fail(struct connection *connection, const char *why)
{
	if (connection->state == CONNECTION_CLOSED)
		return;
	connection->state = CONNECTION_CLOSED;
	close(connection->fd);
	connection->fd = -1;
	connection->loop->events->closed(connection, why);
}

static void watch(struct connection *connection, bool write)
{
	struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0U), .data.ptr = connection};
	connection->wants_write = write;
	epoll_ctl(connection->loop->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

static void mark_dirty(struct connection *connection)
{
	if (connection->dirty)
		return;
	connection->dirty = true;
	connection->dirty_next = connection->loop->dirty;
	connection->loop->dirty = connection;
}

uint8_t *connection_reserve(struct connection *connection, size_t length)
{
	uint8_t header[WEBSOCKET_HEADER_MAX];
	size_t header_length = connection->websocket ? websocket_header(header, length) : 0;
	bytes_make_room(&connection->out, header_length + length);
	memcpy(connection->out.data + connection->out.end, header, header_length);
	uint8_t *room = connection->out.data + connection->out.end + header_length;
	connection->out.end += header_length + length;
	mark_dirty(connection);
	return room;
}

void connection_send(struct connection *connection, const uint8_t *packet, size_t length)
{
	memcpy(connection_reserve(connection, length), packet, length);
}

static void flush(struct connection *connection)
{
	struct bytes *out = &connection->out;
	if (connection->state == CONNECTION_CLOSED || connection->state == CONNECTION_OPENING || out->end == out->start)
		return;
	ssize_t sent = send(connection->fd, out->data + out->start, out->end - out->start, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		fail(connection, strerror(errno));
		return;
	}
	out->start += sent > 0 ? (size_t)sent : 0;
	if (out->start == out->end)
		out->start = out->end = 0;
	if ((out->end > 0) != connection->wants_write)
		watch(connection, out->end > 0);
}

void connection_flush_all(struct connection_loop *loop)
{
	while (loop->dirty != NULL) {
		struct connection *connection = loop->dirty;
		loop->dirty = connection->dirty_next;
		connection->dirty = false;
		flush(connection);
	}
}

static void sign_in(struct connection *connection)
{
	uint8_t packet[CONNECT_PACKET_MAX];
	size_t length = wire_connect(packet, sizeof packet, connection->level, KEEPALIVE_S, &connection->credentials);
	connection->state = CONNECTION_SIGNING_IN;
	if (length == 0)
		fail(connection, "its credentials are too long");
	else
		connection_send(connection, packet, length);
}

static void upgrade(struct connection *connection)
{
	char request[WEBSOCKET_REQUEST_MAX];
	size_t length = websocket_request(request, connection->loop->host);
	connection->state = CONNECTION_UPGRADING;
	bytes_make_room(&connection->out, length);
	memcpy(connection->out.data, request, length);
	connection->out.end = length;
	mark_dirty(connection);
}

static void opened(struct connection *connection)
{
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error != 0) {
		fail(connection, strerror(error));
		return;
	}
	if (connection->websocket)
		upgrade(connection);
	else
		sign_in(connection);
	watch(connection, false);
}

static void handle_connack(struct connection *connection, const struct wire_packet *packet)
{
	static char why[64];
	uint8_t reason;
	if (!wire_read_connack(packet, connection->level, &reason, &connection->receive_maximum)) {
		fail(connection, "malformed CONNACK");
	} else if (reason != 0) {
		snprintf(why, sizeof why, "CONNACK reason 0x%02x", reason);
		fail(connection, why);
	} else {
		connection->state = CONNECTION_READY;
		connection->loop->events->ready(connection);
	}
}

static void handle_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	static char why[64];
	if (packet->type == WIRE_DISCONNECT) {
		snprintf(why, sizeof why, "DISCONNECT reason 0x%02x", packet->body_length > 0 ? packet->body[0] : 0);
		fail(connection, why);
	} else if (packet->type == WIRE_CONNACK) {
		handle_connack(connection, packet);
	} else {
		connection->loop->events->packet(connection, packet, now_ns);
	}
}

static void cut_packets(struct connection *connection, uint64_t now_ns)
{
	struct bytes *in = &connection->in;
	struct wire_packet packet;
	int found = 0;
	while (connection->state != CONNECTION_CLOSED) {
		found = wire_next(in->data + in->start, in->end - connection->raw - in->start, &packet);
		if (found <= 0)
			break;
		in->start += packet.total_length;
		handle_packet(connection, &packet, now_ns);
	}
	if (found < 0)
		fail(connection, "malformed packet");
	if (in->start == in->end)
		in->start = in->end = 0;
}

/* Takes the server's answer to the upgrade from the input. False: wait for more, or failed. */
static bool upgraded(struct connection *connection)
{
	struct bytes *in = &connection->in;
	long answer = websocket_answer(in->data + in->start, in->end - in->start);
	if (answer < 0)
		fail(connection, "WebSocket refused");
	if (answer <= 0)
		return false;
	in->start += (size_t)answer;
	connection->raw = in->end - in->start;
	sign_in(connection);
	return true;
}

static bool unframe(struct connection *connection)
{
	struct bytes *in = &connection->in;
	size_t payload;
	size_t rest;
	uint8_t *raw = in->data + in->end - connection->raw;
	if (!websocket_unframe(&connection->reader, raw, connection->raw, &payload, &rest)) {
		fail(connection, "WebSocket closed by the server");
		return false;
	}
	in->end = in->end - connection->raw + payload + rest;
	connection->raw = rest;
	return true;
}

static void readable(struct connection *connection)
{
	struct bytes *in = &connection->in;
	bytes_make_room(in, READ_ROOM);
	ssize_t got = recv(connection->fd, in->data + in->end, in->size - in->end, 0);
	if (got <= 0) {
		if (got == 0)
			fail(connection, "closed by the server");
		else if (errno != EAGAIN && errno != EINTR)
			fail(connection, strerror(errno));
		return;
	}
	uint64_t now_ns = connection_now_ns();
	in->end += (size_t)got;
	if (connection->websocket) {
		if (connection->state == CONNECTION_UPGRADING) {
			if (!upgraded(connection))
				return;
		} else {
			connection->raw += (size_t)got;
		}
		if (!unframe(connection))
			return;
	}
	cut_packets(connection, now_ns);
}

static bool bind_source(const struct connection *connection)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = connection->source};
	int on = 1; /* the port is chosen at connect(), where it need be unique by address pair only */
	setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	return bind(connection->fd, (const struct sockaddr *)&address, sizeof address) == 0;
}

void connection_start(struct connection *connection)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = connection};
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(connection->port), .sin_addr = connection->loop->address};
	int on = 1;
	connection->state = CONNECTION_OPENING;
	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->fd < 0) {
		fail(connection, strerror(errno));
		return;
	}
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connection->source.s_addr != 0 && !bind_source(connection)) {
		fail(connection, strerror(errno));
		return;
	}
	if (connect(connection->fd, (const struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) {
		fail(connection, strerror(errno));
		return;
	}
	connection->wants_write = true;
	if (epoll_ctl(connection->loop->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
		fail(connection, strerror(errno));
}

void connection_release(struct connection *connection)
{
	if (connection->state != CONNECTION_NEW && connection->state != CONNECTION_CLOSED)
		close(connection->fd);
	connection->state = CONNECTION_CLOSED;
	free(connection->in.data);
	free(connection->out.data);
	memset(&connection->in, 0, sizeof connection->in);
	memset(&connection->out, 0, sizeof connection->out);
}

bool connection_loop_open(struct connection_loop *loop, const char *host, const struct connection_events *events)
{
	memset(loop, 0, sizeof *loop);
	loop->events = events;
	loop->host = host;
	if (inet_pton(AF_INET, host, &loop->address) != 1)
		return false;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll_fd >= 0;
}

void connection_loop_close(struct connection_loop *loop)
{
	close(loop->epoll_fd);
}

bool connection_loop_turn(struct connection_loop *loop, uint64_t until_ns)
{
	struct epoll_event events[EVENTS_MAX];
	connection_flush_all(loop);
	uint64_t now_ns = connection_now_ns();
	uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
	struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000), .tv_nsec = (long)(wait_ns % 1000000000)};
	int count = epoll_pwait2(loop->epoll_fd, events, EVENTS_MAX, &wait, NULL);
	if (count < 0)
		return errno == EINTR;
	for (int i = 0; i < count; i++) {
		struct connection *connection = events[i].data.ptr;
		if (connection->state == CONNECTION_CLOSED)
			continue;
		if (connection->state == CONNECTION_OPENING)
			opened(connection);
		else if ((events[i].events & EPOLLOUT) != 0)
			mark_dirty(connection);
		if (connection->state != CONNECTION_CLOSED && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
			readable(connection);
	}
	return true;
}
