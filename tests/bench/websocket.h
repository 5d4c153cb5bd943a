/* websocket.h - the client's side of RFC 6455 as far as MQTT over WebSocket needs it, as pure functions over bytes.
 *
 * One MQTT packet is sent as one binary frame, as mqtt.js does. Frames from the server may cut the MQTT stream anywhere;
 * the reader below takes the headers out in place. The masking key is zero, which is valid on the wire and saves the
 * generator the work: the key protects proxies from hostile scripts (RFC 6455, 10.3), and here is neither.
 */
#ifndef CHAT_BENCH_WEBSOCKET_H
#define CHAT_BENCH_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEBSOCKET_HEADER_MAX 14
#define WEBSOCKET_REQUEST_MAX 256

/* The upgrade request, with sub-protocol mqtt (MQTT 5, section 6). Its length. */
size_t websocket_request(char out[WEBSOCKET_REQUEST_MAX], const char *host);
/* Bytes of the server's answer, if it is whole and says 101; 0 where more is needed; -1 where it refuses. */
long websocket_answer(const uint8_t *data, size_t length);
/* The header of a binary frame with `length` bytes of payload. Its length. */
size_t websocket_header(uint8_t out[WEBSOCKET_HEADER_MAX], size_t length);

struct websocket_reader {
	uint64_t frame_left; /* bytes of the current frame's payload still to come */
	bool skip;           /* it is a control frame: drop its payload */
};

/* Takes `length` raw bytes at `data` and moves the payload among them to the front. *payload: how many bytes of payload now
 * stand at the front; *rest: how many raw bytes (a header cut short) follow right behind. False: closed by the server. */
bool websocket_unframe(struct websocket_reader *reader, uint8_t *data, size_t length, size_t *payload, size_t *rest);

#endif
