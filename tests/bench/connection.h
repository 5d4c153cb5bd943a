/* connection.h - one MQTT client connection of the load generator, over TCP or WebSocket, on one epoll.
 *
 * Owns its socket and two growing buffers. What is sent is gathered and written once a turn of the loop (connection_flush_all),
 * what is read is cut into packets and handed to the owner's functions. Signing in is done here; after `ready` the owner
 * speaks. A connection is never opened again. One thread.
 *
 *   in:   [ parsed | whole packets, being handed out | part of one | raw WebSocket bytes cut inside a header ]
 *   out:  [ written | waiting to be written ]
 */
#ifndef CHAT_BENCH_CONNECTION_H
#define CHAT_BENCH_CONNECTION_H

#include "websocket.h"
#include "wire.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum connection_state {
	CONNECTION_NEW,
	CONNECTION_OPENING,   /* TCP */
	CONNECTION_UPGRADING, /* WebSocket */
	CONNECTION_SIGNING_IN,
	CONNECTION_READY,
	CONNECTION_CLOSED
};

struct connection;

struct connection_events {
	void (*ready)(struct connection *connection);
	/* Every packet but CONNACK. now_ns: when the bytes had been read (CLOCK_MONOTONIC). */
	void (*packet)(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns);
	void (*closed)(struct connection *connection, const char *why);
};

struct bytes {
	uint8_t *data;
	size_t start;
	size_t end;
	size_t size;
};

struct connection_loop {
	int epoll_fd;
	const struct connection_events *events;
	struct connection *dirty; /* those with something to write */
	struct in_addr address;
	const char *host; /* of the WebSocket request */
};

struct connection {
	struct connection_loop *loop;
	struct connection *dirty_next;
	void *owner;
	struct wire_credentials credentials;
	int fd;
	enum connection_state state;
	struct in_addr source; /* the address it comes from; 0: the kernel's choice */
	uint16_t port;
	uint8_t level;
	bool websocket;
	bool dirty;
	bool wants_write;
	uint16_t receive_maximum;
	struct websocket_reader reader;
	size_t raw; /* bytes at the end of `in` that are not unframed yet */
	struct bytes in;
	struct bytes out;
};

uint64_t connection_now_ns(void);

bool connection_loop_open(struct connection_loop *loop, const char *host, const struct connection_events *events);
void connection_loop_close(struct connection_loop *loop);
/* One turn: flush, wait until `until_ns` at most, read. False on an error of epoll itself. */
bool connection_loop_turn(struct connection_loop *loop, uint64_t until_ns);
/* Writes what was gathered, one system call a connection. */
void connection_flush_all(struct connection_loop *loop);

/* Fields loop, owner, credentials, port, level, websocket must be set; source where it matters. */
void connection_start(struct connection *connection);
/* Room for one packet of `length` bytes, framed if need be, which the caller fills; it goes out with the next flush. */
uint8_t *connection_reserve(struct connection *connection, size_t length);
void connection_send(struct connection *connection, const uint8_t *packet, size_t length);
/* Tells nobody. */
void connection_release(struct connection *connection);

#endif
