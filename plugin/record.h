/* record.h - one entry of the spool: its layout, its checksum, writing and reading it. Pure.
 *
 * A record holds all that the commit and its answer need, so that a replay long after the sender has gone does
 * exactly what the first attempt would have done. Integers are in the machine's order (a spool never leaves its
 * machine); the fixed part is followed by the variable parts without gaps; the whole is padded to 8 bytes.
 *
 *   header | fixed part of the type | client id | correlation | type | body | extra | padding
 *
 * An unknown type or version refuses to start; it is never skipped. To extend: raise RECORD_VERSION, and keep the
 * reader of the old one for as long as an upgrade may meet an old spool.
 */
#ifndef CHAT_PLUGIN_RECORD_H
#define CHAT_PLUGIN_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_VERSION 2 /* 2: the correlation bytes of requests */
#define RECORD_ALIGNMENT 8
#define RECORD_SLOTS 64 /* fixed for ever: positions in the database are per slot (architecture: 64 fixed slots) */
/* The longest envelope, decoded, with the largest of all other parts; rounded up. */
#define RECORD_BYTES_MAX ((size_t)1 << 21)

enum record_type { RECORD_MESSAGE = 1, RECORD_MARK = 2, RECORD_FILLER = 255 /* the unused end of a segment */ };

struct record_header {
	uint32_t length;   /* of the whole record, a multiple of 8 */
	uint32_t crc32c;   /* of the seal, then of everything behind this field */
	uint64_t position; /* offset in the spool of the record's first byte */
	uint8_t version;
	uint8_t type;
	uint8_t slot;
	uint8_t flags; /* RECORD_FLAG_... */
	uint32_t reserved;
};

#define RECORD_FLAG_ANSWER 1u /* the sender asked for a `sent` answer */
#define RECORD_FLAG_OWN_ID 2u /* `id` is the sender's, not made here */
/* Came as the request message.send: the correlation bytes begin with a struct record_request and the request_id as JSON. */
#define RECORD_FLAG_REQUEST 4u

/* Who asked, of the process that wrote it: after a restart there is nobody to answer. */
struct record_request {
	uint64_t ticket;
	uint32_t session_index, session_generation;
	uint32_t request_id_length;
	uint32_t reserved;
};

struct record_message {
	int64_t accepted_at_ms;
	int64_t conversation_id;
	int64_t user_id;
	int64_t device_id; /* 0: none */
	uint8_t id[16];
	int64_t reply_to;
	int64_t ref;
	int64_t expires_in_s;
	uint32_t body_length;
	uint32_t extra_length;
	uint16_t correlation_length;
	uint8_t client_id_length;
	uint8_t type_length;
	uint32_t reserved;
	/* not stored like this: where the variable parts are */
};

struct record_mark {
	int64_t accepted_at_ms;
	int64_t conversation_id;
	int64_t user_id;
	int64_t device_id;
	int64_t delivered;
	int64_t read;
	uint8_t client_id_length;
	uint8_t reserved[7];
};

/* The variable parts: borrowed from the caller when writing, pointing into the record when reading. */
struct record_parts {
	const char *client_id;
	const char *correlation;
	const char *type;
	const char *body;
	const char *extra;
};

/* slot = hash(conversation) % 64; fixed for ever. */
unsigned record_slot(int64_t conversation_id);

size_t record_message_size(const struct record_message *message);
size_t record_mark_size(const struct record_mark *mark);
/* `at` has the size given above and is 8-byte aligned. None is a record before record_seal. */
void record_write_message(
	void *at, uint64_t position, uint8_t flags, const struct record_message *message, const struct record_parts *parts);
void record_write_mark(void *at, uint64_t position, const struct record_mark *mark, const char *client_id);

/* A record that says nothing: `length` bytes, at least a header's, at most RECORD_BYTES_MAX, a multiple of 8. */
void record_write_filler(void *at, uint64_t position, size_t length);
/* Completes what was written at `at`: its checksum. `seal` is that of something which senders do not know, the spool's
 * identity. Without it who can put bytes of his own into a record (correlation data) could put a whole record there, to be
 * found and believed once the outer one's header is damaged. */
void record_seal(void *at, uint32_t seal);

/* Whether the bytes are a record that somebody wrote for `position`: length, position and checksum are right. It may be
 * of a version or type that is not known here. */
__attribute__((warn_unused_result)) bool record_is_whole(const void *bytes, size_t available, uint64_t position, uint32_t seal);
/* Whether the bytes are one whole good record that belongs at `position`. */
__attribute__((warn_unused_result)) bool record_check(const void *bytes, size_t available, uint64_t position, uint32_t seal);
/* For records that were checked. */
const struct record_message *record_read_message(const struct record_header *header, struct record_parts *parts);
const struct record_mark *record_read_mark(const struct record_header *header, const char **client_id);

/* Writes struct, request_id and the client's own correlation one after the other; `out` holds record_request_size(). */
size_t record_request_size(const struct record_request *request, size_t correlation_length);
void record_write_request(
	char *out, const struct record_request *request, const char *request_id, const void *correlation, size_t length);
/* Takes them apart again, for a record with RECORD_FLAG_REQUEST: *correlation and *length are then the client's own. */
struct record_request record_read_request(const char **correlation, size_t *length, const char **request_id);

/* CRC-32C (Castagnoli; RFC 3720 appendix B.4). `seed` is 0 or an earlier result. */
uint32_t record_crc32c(uint32_t seed, const void *bytes, size_t length);

#endif
