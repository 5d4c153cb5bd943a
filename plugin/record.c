/* record.c - see record.h. Any thread. */
#include "record.h"

#include <string.h>

/* ---- checksum ---- */

static uint32_t crc_table[256];

static uint32_t crc32c_software(uint32_t crc, const unsigned char *bytes, size_t length)
{
	while (length--) {
		crc = crc >> 8 ^ crc_table[(crc ^ *bytes++) & 0xff];
	}
	return crc;
}

static uint32_t (*crc32c_update)(uint32_t, const unsigned char *, size_t) = crc32c_software;

#if defined(__x86_64__)
/* SSE 4.2 has the instruction for just this polynomial; every x86-64 server since 2008. */
__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t crc, const unsigned char *bytes, size_t length)
{
	uint64_t wide = crc;
	for (; length >= 8; length -= 8, bytes += 8) {
		uint64_t word;
		memcpy(&word, bytes, 8);
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	while (length--) {
		crc = __builtin_ia32_crc32qi(crc, *bytes++);
	}
	return crc;
}
#endif

__attribute__((constructor)) static void choose_crc32c(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++) {
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0); /* the reversed Castagnoli polynomial */
		}
		crc_table[i] = crc;
	}
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2")) {
		crc32c_update = crc32c_hardware;
	}
#endif
}

uint32_t record_crc32c(uint32_t seed, const void *bytes, size_t length)
{
	return ~crc32c_update(~seed, bytes, length);
}

/* ---- layout ---- */

unsigned record_slot(int64_t conversation_id)
{
	/* Fibonacci hashing (Knuth, TAOCP 6.4): ids handed out in order spread evenly over the top six bits. */
	return (unsigned)((uint64_t)conversation_id * UINT64_C(0x9e3779b97f4a7c15) >> 58);
}

static size_t padded(size_t length)
{
	return (length + RECORD_ALIGNMENT - 1) & ~(size_t)(RECORD_ALIGNMENT - 1);
}

static size_t message_variable_size(const struct record_message *message)
{
	return (size_t)message->client_id_length + message->correlation_length + message->type_length + message->body_length +
	       message->extra_length;
}

size_t record_message_size(const struct record_message *message)
{
	return padded(sizeof(struct record_header) + sizeof(*message) + message_variable_size(message));
}

size_t record_mark_size(const struct record_mark *mark)
{
	return padded(sizeof(struct record_header) + sizeof(*mark) + mark->client_id_length);
}

static char *put(char *at, const void *bytes, size_t length)
{
	if (length > 0) {
		memcpy(at, bytes, length);
	}
	return at + length;
}

/* Zeroes the padding, and writes the header but for the checksum. */
static void finish(
	void *record, const char *end, size_t length, uint64_t position, enum record_type type, unsigned slot, uint8_t flags)
{
	struct record_header *header = record;
	memset((char *)record + (end - (char *)record), 0, length - (size_t)(end - (char *)record));
	header->length = (uint32_t)length;
	header->position = position;
	header->version = RECORD_VERSION;
	header->type = (uint8_t)type;
	header->slot = (uint8_t)slot;
	header->flags = flags;
	header->reserved = 0;
}

void record_write_message(
	void *at, uint64_t position, uint8_t flags, const struct record_message *message, const struct record_parts *parts)
{
	char *end = (char *)at + sizeof(struct record_header);
	end = put(end, message, sizeof(*message));
	end = put(end, parts->client_id, message->client_id_length);
	end = put(end, parts->correlation, message->correlation_length);
	end = put(end, parts->type, message->type_length);
	end = put(end, parts->body, message->body_length);
	end = put(end, parts->extra, message->extra_length);
	finish(at, end, record_message_size(message), position, RECORD_MESSAGE, record_slot(message->conversation_id), flags);
}

void record_write_mark(void *at, uint64_t position, const struct record_mark *mark, const char *client_id)
{
	char *end = (char *)at + sizeof(struct record_header);
	end = put(end, mark, sizeof(*mark));
	end = put(end, client_id, mark->client_id_length);
	finish(at, end, record_mark_size(mark), position, RECORD_MARK, record_slot(mark->conversation_id), 0);
}

void record_write_filler(void *at, uint64_t position, size_t length)
{
	finish(at, (char *)at + sizeof(struct record_header), length, position, RECORD_FILLER, 0, 0);
}

static uint32_t checksum(const struct record_header *header, uint32_t seal)
{
	return record_crc32c(seal, &header->position, header->length - offsetof(struct record_header, position));
}

void record_seal(void *at, uint32_t seal)
{
	struct record_header *header = at;
	header->crc32c = checksum(header, seal);
}

bool record_is_whole(const void *bytes, size_t available, uint64_t position, uint32_t seal)
{
	const struct record_header *header = bytes;
	return available >= sizeof(*header) && header->length >= sizeof(*header) && header->length <= available &&
	       header->length <= RECORD_BYTES_MAX && header->length % RECORD_ALIGNMENT == 0 && header->position == position &&
	       header->crc32c == checksum(header, seal);
}

bool record_check(const void *bytes, size_t available, uint64_t position, uint32_t seal)
{
	const struct record_header *header = bytes;
	if (!record_is_whole(bytes, available, position, seal) || header->slot >= RECORD_SLOTS ||
		header->version != RECORD_VERSION) {
		return false;
	}
	const void *fixed = header + 1;
	if (header->type == RECORD_MESSAGE) {
		return header->length >= sizeof(*header) + sizeof(struct record_message) &&
		       header->length == record_message_size(fixed);
	}
	if (header->type == RECORD_MARK) {
		return header->length >= sizeof(*header) + sizeof(struct record_mark) &&
		       header->length == record_mark_size(fixed);
	}
	return header->type == RECORD_FILLER;
}

const struct record_message *record_read_message(const struct record_header *header, struct record_parts *parts)
{
	const struct record_message *message = (const void *)(header + 1);
	const char *at = (const char *)(message + 1);
	parts->client_id = at;
	parts->correlation = at += message->client_id_length;
	parts->type = at += message->correlation_length;
	parts->body = at += message->type_length;
	parts->extra = message->extra_length > 0 ? at + message->body_length : NULL;
	return message;
}

const struct record_mark *record_read_mark(const struct record_header *header, const char **client_id)
{
	const struct record_mark *mark = (const void *)(header + 1);
	*client_id = (const char *)(mark + 1);
	return mark;
}

/* ---- requests ---- */

size_t record_request_size(const struct record_request *request, size_t correlation_length)
{
	return sizeof(*request) + request->request_id_length + correlation_length;
}

void record_write_request(
	char *out, const struct record_request *request, const char *request_id, const void *correlation, size_t length)
{
	out = put(out, request, sizeof(*request));
	out = put(out, request_id, request->request_id_length);
	put(out, correlation, length);
}

struct record_request record_read_request(const char **correlation, size_t *length, const char **request_id)
{
	struct record_request request = {0};
	if (*length < sizeof(request)) {
		return request;
	}
	memcpy(&request, *correlation, sizeof(request));
	if (request.request_id_length > *length - sizeof(request)) {
		request.request_id_length = 0;
	}
	*request_id = *correlation + sizeof(request);
	*correlation = *request_id + request.request_id_length;
	*length -= sizeof(request) + request.request_id_length;
	return request;
}
