/* content.h - what a push says, in the user's language, from a few templates. Pure.
 *
 * How much it says is the app's choice (`content`): everything, who wrote, or only that something came. What is encrypted end to
 * end never says more than who wrote.
 */
#ifndef CHAT_NOTIFIER_CONTENT_H
#define CHAT_NOTIFIER_CONTENT_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum content_level { CONTENT_FULL, CONTENT_SENDER, CONTENT_NONE };

/* The templates of one language. In them {sender}, {conversation}, {body} and {count} stand for what they say. */
enum content_text {
	CONTENT_TITLE_DIRECT, /* {sender} */
	CONTENT_TITLE_GROUP,  /* {conversation} */
	CONTENT_TITLE_HIDDEN, /* content = none */
	CONTENT_BODY_DIRECT,  /* {body} */
	CONTENT_BODY_GROUP,   /* {sender}: {body} */
	CONTENT_BODY_SENDER,  /* content = sender, or an encrypted message */
	CONTENT_BODY_HIDDEN,  /* content = none */
	CONTENT_MORE,         /* appended where there are several: {count} */
	CONTENT_SOMEONE,      /* a sender without a name */
	CONTENT_A_GROUP,      /* a conversation without a name */
	CONTENT_IMAGE,        /* in place of {body}, by the message's type */
	CONTENT_VIDEO,
	CONTENT_AUDIO,
	CONTENT_FILE,
	CONTENT_OTHER,
	CONTENT_TEST_TITLE,
	CONTENT_TEST_BODY,
	CONTENT_TEXTS
};

struct content_templates;

/* `text`: "[en]" begins a language, "title_direct = {sender}" is a line of it; # begins a comment. What a language does not say
 * is taken from English, which is built in. NULL text: English alone. Returns templates to release with content_free, or NULL
 * with a line for a person in error, the line's number in it. */
struct content_templates *content_parse(const char *text, size_t length, char *error, size_t error_size);
void content_free(struct content_templates *templates);

struct content_message {
	bool test;
	enum content_level level;
	const char *language;          /* "de", "de-AT" or NULL */
	const char *conversation_type; /* "direct", "group", "channel"; NULL: unknown */
	const char *conversation_name; /* NULL: it has none */
	const char *sender_name;       /* NULL: unknown */
	const char *type;              /* of the message; NULL: it is gone */
	const char *body;              /* NULL: not to be seen */
	int64_t count;
};

/* Fills both, NUL-terminated, cut where they are longer than 200 and 1,000 bytes; control characters become spaces. */
void content_make(
	const struct content_templates *templates, const struct content_message *message, char title[204], char body[1004]);

#endif
