/* topic.c - what a topic or a filter under chat/ means.
 *
 * Pure; any thread. topic_parse runs for every publish and for every single delivery (Mosquitto asks for READ each
 * time), so it makes one pass over the string, allocates nothing and copies nothing.
 *
 * To add a topic: a kind in topic.h, a row in `nouns` (under a conversation) or `user_nouns` (under a user), and the
 * direction in topic_is_up or topic_is_down. The access rules are elsewhere (acl).
 *
 * Wildcards need no rule of their own: '+' and '#' are not digits, not in a method name and not in a client id, so a
 * filter that has one below chat/ is none of the forms and thereby TOPIC_INVALID.
 */
#include "topic.h"

#include "../common/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct noun {
	const char *name;
	enum topic_kind kind;
};

static const struct noun nouns[] = {
	{"messages", TOPIC_MESSAGES}, /* first: nearly every topic that is parsed */
	{"send", TOPIC_SEND},
	{"mark", TOPIC_MARK},
	{"receipts", TOPIC_RECEIPTS},
	{"type", TOPIC_TYPE},
	{"typing", TOPIC_TYPING},
};

static const struct noun user_nouns[] = {
	{"inbox", TOPIC_INBOX},
	{"presence", TOPIC_PRESENCE},
};

#define METHOD_NAME_BYTES_MAX 64
#define CLIENT_ID_BYTES_MAX 64
#define ID_DIGITS_MAX 16 /* of 2^53-1 */

static struct topic plain(enum topic_kind kind)
{
	return (struct topic){.kind = kind};
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* What follows `prefix` in `text`, or NULL. */
static const char *after(const char *text, const char *prefix)
{
	for (; *prefix != '\0'; text++, prefix++) {
		if (*text != *prefix) {
			return NULL;
		}
	}
	return text;
}

/* Reads a canonical id; *text then points behind it. 0 where there is none. */
static int64_t take_id(const char **text)
{
	const char *c = *text;
	int64_t id = 0;

	if (*c == '0') {
		return 0;
	}
	for (; is_digit(*c); c++) {
		if (c - *text == ID_DIGITS_MAX) {
			return 0;
		}
		id = id * 10 + (*c - '0');
	}
	*text = c;
	return id <= TEXT_ID_MAX ? id : 0;
}

/* "42/messages" with the conversations' nouns, "7/inbox" with the users'. */
static struct topic parse_id_and_noun(const char *text, const struct noun *list, size_t count)
{
	int64_t id = take_id(&text);

	if (id == 0 || *text != '/') {
		return plain(TOPIC_INVALID);
	}
	text++;
	for (size_t i = 0; i < count; i++) {
		if (*text == *list[i].name && strcmp(text, list[i].name) == 0) {
			return (struct topic){.kind = list[i].kind, .id = id};
		}
	}
	return plain(TOPIC_INVALID);
}

static struct topic parse_name(const char *name, enum topic_kind kind, bool (*ok)(const char *, size_t), size_t max_bytes)
{
	/* One more than allowed tells "too long"; the rest of a topic of 64 kB need not be read. */
	size_t length = strnlen(name, max_bytes + 1);

	if (!ok(name, length)) {
		return plain(TOPIC_INVALID);
	}
	return (struct topic){.kind = kind, .name = name, .name_length = length};
}

static struct topic parse_under_root(const char *text)
{
	const char *rest;

	if (is_digit(*text)) {
		return parse_id_and_noun(text, nouns, sizeof(nouns) / sizeof(nouns[0]));
	}
	if ((rest = after(text, "user/")) != NULL) {
		return parse_id_and_noun(rest, user_nouns, sizeof(user_nouns) / sizeof(user_nouns[0]));
	}
	if ((rest = after(text, "response/")) != NULL) {
		return parse_name(rest, TOPIC_RESPONSE, topic_client_id_ok, CLIENT_ID_BYTES_MAX);
	}
	if ((rest = after(text, "request/")) != NULL) {
		return parse_name(rest, TOPIC_REQUEST, topic_method_name_ok, METHOD_NAME_BYTES_MAX);
	}
	return plain(TOPIC_INVALID);
}

/* "$share" as the whole first level. */
static bool is_share(const char *text)
{
	const char *rest = after(text, "$share");

	return rest != NULL && (*rest == '\0' || *rest == '/');
}

struct topic topic_parse(const char *topic)
{
	const char *rest = after(topic, "chat");

	if (rest != NULL && *rest == '/') {
		return parse_under_root(rest + 1);
	}
	if (rest != NULL && *rest == '\0') {
		return plain(TOPIC_INVALID); /* the root itself is ours too: chat/# would match it (MQTT 5, 4.7.1.2) */
	}
	if (topic[0] == '$') {
		return plain(is_share(topic) ? TOPIC_INVALID : TOPIC_SYSTEM);
	}
	return plain(TOPIC_FOREIGN);
}

struct topic topic_parse_filter(const char *filter)
{
	/* A first level that only begins with a wildcard is malformed and the broker's to refuse; it is no less covering here. */
	if (filter[0] == '#' || filter[0] == '+' || is_share(filter)) {
		return plain(TOPIC_COVERING);
	}
	return topic_parse(filter);
}

bool topic_is_up(enum topic_kind kind)
{
	return kind == TOPIC_SEND || kind == TOPIC_MARK || kind == TOPIC_TYPE || kind == TOPIC_REQUEST;
}

bool topic_is_down(enum topic_kind kind)
{
	switch (kind) {
	case TOPIC_MESSAGES:
	case TOPIC_RECEIPTS:
	case TOPIC_TYPING:
	case TOPIC_PRESENCE:
	case TOPIC_INBOX:
	case TOPIC_RESPONSE:
		return true;
	default:
		return false;
	}
}

static const char *noun_name(enum topic_kind kind, const struct noun *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (list[i].kind == kind) {
			return list[i].name;
		}
	}
	return NULL;
}

void topic_format(enum topic_kind kind, int64_t id, char out[TOPIC_TEXT_MAX])
{
	const char *root = "chat/";
	const char *name = noun_name(kind, nouns, sizeof(nouns) / sizeof(nouns[0]));
	int length;

	if (name == NULL) {
		root = "chat/user/";
		name = noun_name(kind, user_nouns, sizeof(user_nouns) / sizeof(user_nouns[0]));
	}
	out[0] = '\0';
	if (name == NULL) {
		return; /* a kind without an id: the caller's mistake, and an empty topic is refused by the broker */
	}
	/* 10 + 20 + 1 + 8 at most, so it always fits. */
	length = snprintf(out, TOPIC_TEXT_MAX, "%s%" PRId64 "/%s", root, id, name);
	if (length < 0 || length >= TOPIC_TEXT_MAX) {
		out[0] = '\0';
	}
}

static bool is_method_letter(char c)
{
	return (c >= 'a' && c <= 'z') || c == '_';
}

bool topic_method_name_ok(const char *name, size_t length)
{
	bool wants_letter = true; /* at the start and behind a dot */

	if (length == 0 || length > METHOD_NAME_BYTES_MAX) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (name[i] == '.' && !wants_letter) {
			wants_letter = true;
		} else if (is_method_letter(name[i])) {
			wants_letter = false;
		} else {
			return false;
		}
	}
	return !wants_letter;
}

static bool is_client_id_byte(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
}

bool topic_client_id_ok(const char *id, size_t length)
{
	if (length == 0 || length > CLIENT_ID_BYTES_MAX) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (!is_client_id_byte(id[i])) {
			return false;
		}
	}
	return true;
}

int64_t topic_client_id_owner(const char *id, size_t length)
{
	size_t digits = 0;
	int64_t owner;

	while (digits < length && is_digit(id[digits])) {
		digits++;
	}
	if (digits == 0 || digits == length || id[digits] != '-') {
		return 0;
	}
	return text_parse_integer(id, digits, 1, TEXT_ID_MAX, &owner) ? owner : -1;
}
