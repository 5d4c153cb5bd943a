/* envelope.h - a message as a client sends it: checked, decoded, made canonical. Pure.
 *
 * A payload whose first non-blank byte is '{' is a JSON envelope; any other payload is the body of a text message
 * (it must be valid UTF-8 without NUL, and not empty). Unknown and duplicate fields are errors, and so is null.
 *
 * A body is required, may it be empty?
 *   text, image, video, audio, file, opaque, edit   no; with at least one attachment it may be empty or left out
 *   reaction                                        no; with "remove":true it may be empty or left out
 *   delete                                          it may be empty or left out
 *   x-...                                           it must be there, and may be empty
 *
 * An attachment is an object with key (1..512 bytes) and, as wanted, name (up to 255 characters), type (up to 255 bytes),
 * size (bytes), sha256 (64 hexadecimal digits), width, height (1..1000000), duration (milliseconds). What exceeds a limit of
 * count or length is too_long, what is wrong in itself invalid_field, what is not JSON (or has a field twice) invalid_json.
 */
#ifndef CHAT_PLUGIN_ENVELOPE_H
#define CHAT_PLUGIN_ENVELOPE_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct envelope_limits {
	size_t body_max_chars; /* code points */
};

#define ENVELOPE_BYTES_MAX ((size_t)1310720) /* 100,000 escaped emoji fit: 100,000 * 12 bytes and the fields around them */
#define ENVELOPE_ATTACHMENTS_MAX 10
#define ENVELOPE_MENTIONS_MAX 50
#define ENVELOPE_META_BYTES_MAX 4096
#define ENVELOPE_TYPE_BYTES_MAX 32

/* All pointers are into memory that the envelope owns, or into the payload where it was plain text: the payload must outlive it.
 */
struct envelope {
	bool has_id;
	uint8_t id[16];
	const char *type; /* not NUL-terminated; "text" by default */
	size_t type_length;
	const char *body; /* decoded UTF-8, not NUL-terminated; never NULL */
	size_t body_length;
	int64_t reply_to;  /* seq; 0: none */
	int64_t ref;       /* seq; 0: none; required for reaction, edit, delete; refused for other types */
	const char *extra; /* canonical JSON object (names sorted) of those of attachments, mentions, meta, "remove":true that
			      were sent; NULL: none */
	size_t extra_length;
	int64_t expires_in_s; /* 0: never */
	bool reply;           /* the sender asks for a `sent` answer */
	void *memory;         /* private */
};

/* Returns true with *out filled (release with envelope_free), or false with *error; nothing is then to be released,
 * but out->has_id and out->id are set where the payload let them be read, so that an answer can name the message. */
__attribute__((warn_unused_result)) bool envelope_parse(const char *payload, size_t length, const struct envelope_limits *limits,
	struct envelope *out, struct error_detail *error);
/* The same from a JSON object that was parsed already. The tree is the envelope's on true and deleted on false. */
struct cJSON;
__attribute__((warn_unused_result)) bool envelope_parse_tree(
	struct cJSON *tree, const struct envelope_limits *limits, struct envelope *out, struct error_detail *error);
void envelope_free(struct envelope *envelope);

/* 16 bytes over everything the sender chose but the id and `reply`: the same id with another hash is `conflict`. Any thread. */
void envelope_content_hash(const char *type, size_t type_length, const char *body, size_t body_length, int64_t reply_to,
	int64_t ref, const char *extra, size_t extra_length, int64_t expires_in_s, uint8_t out[16]);

/* The users that `extra` mentions; at most ENVELOPE_MENTIONS_MAX. Any thread. Without memory, none. */
size_t envelope_mentions(const char *extra, size_t length, int64_t users[ENVELOPE_MENTIONS_MAX]);

/* A message as clients receive it, from a lane's batch or from the table: the one place that makes this JSON. */
struct message_view {
	int64_t conversation_id;
	int64_t seq;
	const uint8_t *id; /* 16 bytes; NULL: none */
	int64_t sender_id; /* 0: none (system entries) */
	int64_t sent_at_ms;
	const char *type;
	size_t type_length;
	const char *body; /* NULL: none */
	size_t body_length;
	int64_t reply_to;
	int64_t ref;
	const char *extra; /* JSON object or NULL; its members are put beside the others */
	size_t extra_length;
	int64_t expires_at_ms; /* 0: never */
};
struct buffer;
/* False: the buffer is full (it then holds what it held before). What is absent is left out; an empty body is not absent. */
bool message_view_append(struct buffer *out, const struct message_view *message);
/* The number of the message that message_view_append made this of; 0: it made something else. */
int64_t message_view_seq(const char *json, size_t length);

#endif
