/* topic.h - what a topic or a filter under chat/ means. Pure; the list of topics is here and nowhere else.
 *
 * Ids are canonical decimals 1..2^53-1: no sign, no leading zero, ASCII digits only.
 */
#ifndef CHAT_PLUGIN_TOPIC_H
#define CHAT_PLUGIN_TOPIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum topic_kind {
	TOPIC_FOREIGN,  /* outside chat/: the next plugin's business */
	TOPIC_INVALID,  /* under chat/, but none of the forms below (bad id, empty level, trailing slash, wildcard in place of an
			   id, ...) */
	TOPIC_SYSTEM,   /* begins with $ ($SYS, $CONTROL, ...), $share excepted */
	TOPIC_COVERING, /* a filter only: #, +, +/..., or any $share/...: would cover chat/ from above */
	/* verbs: clients publish, nobody subscribes */
	TOPIC_SEND,
	TOPIC_MARK,
	TOPIC_TYPE,
	TOPIC_REQUEST, /* name = the method */
	/* nouns: the server publishes, clients subscribe */
	TOPIC_MESSAGES,
	TOPIC_RECEIPTS,
	TOPIC_TYPING,
	TOPIC_PRESENCE,
	TOPIC_INBOX,
	TOPIC_RESPONSE /* name = the client id */
};

struct topic {
	enum topic_kind kind;
	int64_t id;       /* conversation (SEND..TYPING) or user (PRESENCE, INBOX); 0 otherwise */
	const char *name; /* points into the parsed string: method or client id; NULL otherwise */
	size_t name_length;
};

/* A topic of a PUBLISH or a delivery. The string is NUL-terminated, as the broker gives it. */
struct topic topic_parse(const char *topic);
/* A topic filter of a SUBSCRIBE or UNSUBSCRIBE: as above, and TOPIC_COVERING. `chat/+/messages` or `chat/#` is TOPIC_INVALID. */
struct topic topic_parse_filter(const char *filter);
bool topic_is_up(enum topic_kind kind);
bool topic_is_down(enum topic_kind kind);

/* Writes the NUL-terminated topic of a conversation's or user's noun, e.g. chat/42/messages. */
#define TOPIC_TEXT_MAX 48
void topic_format(enum topic_kind kind, int64_t id, char out[TOPIC_TEXT_MAX]);

/* Method names: [a-z_]+(\.[a-z_]+)*, at most 64 bytes. Client ids: [A-Za-z0-9._-]{1,64}. */
bool topic_method_name_ok(const char *name, size_t length);
bool topic_client_id_ok(const char *id, size_t length);
/* The user id before the first '-' of a client id that matches ^[0-9]+-, else 0; -1 where digits and '-' are there but the number
 * is not a canonical id. */
int64_t topic_client_id_owner(const char *id, size_t length);

#endif
