/* websocket.c - see websocket.h. */
#define _GNU_SOURCE
#include "websocket.h"

#include <stdio.h>
#include <string.h>

#define OPCODE_CONTROL 0x08 /* this bit is set in the opcodes of close, ping and pong */
#define OPCODE_CLOSE 0x08
#define FIN_BINARY 0x82
#define MASKED 0x80

size_t websocket_request(char out[WEBSOCKET_REQUEST_MAX], const char *host)
{
	int length = snprintf(out, WEBSOCKET_REQUEST_MAX,
		"GET /mqtt HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
		"Sec-WebSocket-Protocol: mqtt\r\n\r\n",
		host);
	return length > 0 && length < WEBSOCKET_REQUEST_MAX ? (size_t)length : 0;
}

long websocket_answer(const uint8_t *data, size_t length)
{
	static const char accepted[] = "HTTP/1.1 101";
	const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
	if (end == NULL)
		return 0;
	if (memcmp(data, accepted, sizeof accepted - 1) != 0)
		return -1;
	return (long)(end - data) + 4;
}

size_t websocket_header(uint8_t out[WEBSOCKET_HEADER_MAX], size_t length)
{
	size_t size = 2;
	out[0] = FIN_BINARY;
	if (length < 126) {
		out[1] = (uint8_t)(MASKED | length);
	} else if (length <= UINT16_MAX) {
		out[1] = MASKED | 126;
		out[2] = (uint8_t)(length >> 8);
		out[3] = (uint8_t)(length & 0xff);
		size = 4;
	} else {
		out[1] = MASKED | 127;
		for (int i = 0; i < 8; i++)
			out[2 + i] = (uint8_t)((uint64_t)length >> (56 - 8 * i));
		size = 10;
	}
	memset(out + size, 0, 4);
	return size + 4;
}

/* The size of a header from the server (never masked), 0 where it is cut short. */
static size_t read_header(const uint8_t *data, size_t length, uint64_t *payload)
{
	if (length < 2)
		return 0;
	size_t extra = (data[1] & 127) == 126 ? 2 : (data[1] & 127) == 127 ? 8 : 0;
	if (length < 2 + extra)
		return 0;
	*payload = extra == 0 ? data[1] & 127 : 0;
	for (size_t i = 0; i < extra; i++)
		*payload = (*payload << 8) | data[2 + i];
	return 2 + extra;
}

bool websocket_unframe(struct websocket_reader *reader, uint8_t *data, size_t length, size_t *payload, size_t *rest)
{
	size_t from = 0;
	*payload = 0;
	while (from < length) {
		if (reader->frame_left == 0) {
			uint64_t frame;
			size_t header = read_header(data + from, length - from, &frame);
			if (header == 0)
				break;
			if ((data[from] & 15) == OPCODE_CLOSE)
				return false;
			reader->skip = (data[from] & OPCODE_CONTROL) != 0;
			reader->frame_left = frame;
			from += header;
			continue;
		}
		size_t part = length - from < reader->frame_left ? length - from : (size_t)reader->frame_left;
		if (!reader->skip) {
			memmove(data + *payload, data + from, part);
			*payload += part;
		}
		reader->frame_left -= part;
		from += part;
	}
	*rest = length - from;
	memmove(data + *payload, data + from, *rest);
	return true;
}
