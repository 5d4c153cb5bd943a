/* relay.c - see relay.h. One thread; writes block, which is fine for what tests send. */
#include "relay.h"
#include "check.h"
#include "websocket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536 };

struct relay {
	int listener;
	int client; /* -1: closed */
	int server;
	struct websocket_reader reader;
	uint8_t pending[WEBSOCKET_HEADER_MAX]; /* a frame header that was cut short */
	size_t pending_length;
};

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
}

struct relay *relay_new(int *port)
{
	struct relay *relay = calloc(1, sizeof *relay);
	struct sockaddr_in address = loopback(0);
	socklen_t size = sizeof address;
	check(relay != NULL);
	relay->client = relay->server = -1;
	relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(bind(relay->listener, (struct sockaddr *)&address, size) == 0 && listen(relay->listener, 1) == 0);
	check(getsockname(relay->listener, (struct sockaddr *)&address, &size) == 0);
	*port = ntohs(address.sin_port);
	return relay;
}

static void write_all(int fd, const void *bytes, size_t length)
{
	for (const uint8_t *at = bytes; length;) {
		ssize_t written = send(fd, at, length, MSG_NOSIGNAL);
		if (written < 0 && errno != EINTR)
			return; /* the reading side will see the end */
		if (written > 0) {
			at += written;
			length -= (size_t)written;
		}
	}
}

/* The answer to the upgrade is read byte by byte, so that nothing behind it is taken. */
static void upgrade(int fd)
{
	char request[WEBSOCKET_REQUEST_MAX];
	uint8_t answer[2048];
	size_t length = 0;
	write_all(fd, request, websocket_request(request, "127.0.0.1"));
	while (length < sizeof answer && websocket_answer(answer, length) == 0)
		check(recv(fd, answer + length++, 1, 0) == 1);
	check(websocket_answer(answer, length) > 0);
}

void relay_open(struct relay *relay, int websocket_port)
{
	struct sockaddr_in address = loopback(websocket_port);
	relay->client = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
	relay->server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(relay->client >= 0 && connect(relay->server, (struct sockaddr *)&address, sizeof address) == 0);
	upgrade(relay->server);
}

void relay_fds(const struct relay *relay, int fds[2])
{
	fds[0] = relay->client;
	fds[1] = relay->server;
}

static void end(struct relay *relay)
{
	if (relay->client >= 0)
		close(relay->client);
	if (relay->server >= 0)
		close(relay->server);
	relay->client = relay->server = -1;
}

static void forward_to_server(struct relay *relay)
{
	static uint8_t frame[CHUNK + WEBSOCKET_HEADER_MAX];
	ssize_t length = recv(relay->client, frame + WEBSOCKET_HEADER_MAX, CHUNK, MSG_DONTWAIT);
	if (length > 0) {
		uint8_t header[WEBSOCKET_HEADER_MAX];
		size_t header_length = websocket_header(header, (size_t)length);
		uint8_t *start = frame + WEBSOCKET_HEADER_MAX - header_length;
		memcpy(start, header, header_length);
		write_all(relay->server, start, header_length + (size_t)length);
	} else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		end(relay);
	}
}

static void forward_to_client(struct relay *relay)
{
	static uint8_t data[CHUNK + WEBSOCKET_HEADER_MAX];
	memcpy(data, relay->pending, relay->pending_length);
	ssize_t length = recv(relay->server, data + relay->pending_length, CHUNK, MSG_DONTWAIT);
	if (length > 0) {
		size_t payload, rest;
		if (!websocket_unframe(&relay->reader, data, relay->pending_length + (size_t)length, &payload, &rest)) {
			end(relay);
			return;
		}
		write_all(relay->client, data, payload);
		memcpy(relay->pending, data + payload, rest);
		relay->pending_length = rest;
	} else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		end(relay);
	}
}

void relay_turn(struct relay *relay)
{
	if (relay->client >= 0)
		forward_to_server(relay);
	if (relay->client >= 0)
		forward_to_client(relay);
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	end(relay);
	close(relay->listener);
	free(relay);
}
