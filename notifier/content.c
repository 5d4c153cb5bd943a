/* content.c - see content.h. */
#include "content.h"

#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LANGUAGES_MAX 64
#define TEXT_MAX 300 /* bytes of one template */

static const char *const names[CONTENT_TEXTS] = {
	[CONTENT_TITLE_DIRECT] = "title_direct",
	[CONTENT_TITLE_GROUP] = "title_group",
	[CONTENT_TITLE_HIDDEN] = "title_hidden",
	[CONTENT_BODY_DIRECT] = "body_direct",
	[CONTENT_BODY_GROUP] = "body_group",
	[CONTENT_BODY_SENDER] = "body_sender",
	[CONTENT_BODY_HIDDEN] = "body_hidden",
	[CONTENT_MORE] = "more",
	[CONTENT_SOMEONE] = "someone",
	[CONTENT_A_GROUP] = "a_group",
	[CONTENT_IMAGE] = "image",
	[CONTENT_VIDEO] = "video",
	[CONTENT_AUDIO] = "audio",
	[CONTENT_FILE] = "file",
	[CONTENT_OTHER] = "other",
	[CONTENT_TEST_TITLE] = "test_title",
	[CONTENT_TEST_BODY] = "test_body",
};

static const char *const english[CONTENT_TEXTS] = {
	[CONTENT_TITLE_DIRECT] = "{sender}",
	[CONTENT_TITLE_GROUP] = "{conversation}",
	[CONTENT_TITLE_HIDDEN] = "Chat",
	[CONTENT_BODY_DIRECT] = "{body}",
	[CONTENT_BODY_GROUP] = "{sender}: {body}",
	[CONTENT_BODY_SENDER] = "New message from {sender}",
	[CONTENT_BODY_HIDDEN] = "New message",
	[CONTENT_MORE] = " ({count} new)",
	[CONTENT_SOMEONE] = "Someone",
	[CONTENT_A_GROUP] = "Group",
	[CONTENT_IMAGE] = "Photo",
	[CONTENT_VIDEO] = "Video",
	[CONTENT_AUDIO] = "Voice message",
	[CONTENT_FILE] = "File",
	[CONTENT_OTHER] = "New message",
	[CONTENT_TEST_TITLE] = "Test",
	[CONTENT_TEST_BODY] = "Notifications reach this device.",
};

struct language {
	char tag[16];
	char *texts[CONTENT_TEXTS]; /* NULL: as in English */
};

struct content_templates {
	struct language languages[LANGUAGES_MAX];
	size_t count;
};

/* ---- reading ---- */

static void trim(const char **text, size_t *length)
{
	while (*length > 0 && ((*text)[0] == ' ' || (*text)[0] == '\t')) {
		*text += 1;
		*length -= 1;
	}
	while (*length > 0 && ((*text)[*length - 1] == ' ' || (*text)[*length - 1] == '\t' || (*text)[*length - 1] == '\r')) {
		*length -= 1;
	}
}

static const char *add_language(struct content_templates *templates, const char *tag, size_t length)
{
	if (templates->count == LANGUAGES_MAX || length == 0 || length >= sizeof(templates->languages[0].tag)) {
		return "a language is a tag of 1 to 15 characters, and there are at most 64";
	}
	memcpy(templates->languages[templates->count++].tag, tag, length);
	return NULL;
}

static const char *add_text(struct content_templates *templates, const char *line, size_t length)
{
	const char *equals = memchr(line, '=', length);
	if (!equals) {
		return "neither [language] nor name = text";
	}
	if (templates->count == 0) {
		return "a text before the first [language]";
	}
	const char *value = equals + 1;
	size_t name_length = (size_t)(equals - line), value_length = (size_t)(line + length - value);
	trim(&line, &name_length);
	if (value_length > 0 && value[0] == ' ') { /* one blank after the sign; others belong to the text */
		value++;
		value_length--;
	}
	if (value_length > TEXT_MAX || !text_check_utf8(value, value_length, NULL)) {
		return "a text is UTF-8 and has at most 300 bytes";
	}
	for (size_t i = 0; i < CONTENT_TEXTS; i++) {
		if (strlen(names[i]) == name_length && memcmp(names[i], line, name_length) == 0) {
			char **text = &templates->languages[templates->count - 1].texts[i];
			if (*text) {
				return "this text was given before";
			}
			*text = strndup(value, value_length);
			return *text ? NULL : "no memory";
		}
	}
	return "no text has this name";
}

static const char *parse_line(struct content_templates *templates, const char *line, size_t length)
{
	if (length > 0 && line[length - 1] == '\r') {
		length--;
	}
	const char *trimmed = line;
	size_t trimmed_length = length;
	trim(&trimmed, &trimmed_length);
	if (trimmed_length == 0 || trimmed[0] == '#') {
		return NULL;
	}
	if (trimmed[0] == '[' && trimmed[trimmed_length - 1] == ']') {
		return add_language(templates, trimmed + 1, trimmed_length - 2);
	}
	return add_text(templates, line, length);
}

struct content_templates *content_parse(const char *text, size_t length, char *error, size_t error_size)
{
	struct content_templates *templates = calloc(1, sizeof(*templates));
	const char *end = text ? text + length : NULL;
	int number = 0;

	if (!templates) {
		(void)snprintf(error, error_size, "no memory");
		return NULL;
	}
	while (text && text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;
		const char *wrong = parse_line(templates, text, (size_t)(stop - text));
		number++;
		if (wrong) {
			(void)snprintf(error, error_size, "line %d: %s", number, wrong);
			content_free(templates);
			return NULL;
		}
		text = stop + 1;
	}
	return templates;
}

void content_free(struct content_templates *templates)
{
	for (size_t i = 0; templates && i < templates->count; i++) {
		for (size_t j = 0; j < CONTENT_TEXTS; j++) {
			free(templates->languages[i].texts[j]);
		}
	}
	free(templates);
}

/* ---- writing ---- */

/* "de-AT" is looked for as such, then as "de". NULL: English. */
static const struct language *find_language(const struct content_templates *templates, const char *tag)
{
	size_t length = tag ? strlen(tag) : 0;

	while (length > 0) {
		for (size_t i = 0; i < templates->count; i++) {
			if (strlen(templates->languages[i].tag) == length &&
				strncasecmp(templates->languages[i].tag, tag, length) == 0) {
				return &templates->languages[i];
			}
		}
		const char *dash = memrchr(tag, '-', length);
		length = dash ? (size_t)(dash - tag) : 0;
	}
	return NULL;
}

static const char *text_of(const struct language *language, enum content_text text)
{
	return language && language->texts[text] ? language->texts[text] : english[text];
}

struct words {
	const char *sender, *conversation, *body;
	char count[24];
};

static const char *word_of(const struct words *words, const char *name, size_t length)
{
	const struct {
		const char *name, *word;
	} known[] = {
		{"sender", words->sender}, {"conversation", words->conversation}, {"body", words->body}, {"count", words->count}};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strlen(known[i].name) == length && memcmp(known[i].name, name, length) == 0) {
			return known[i].word;
		}
	}
	return NULL;
}

/* What a person sees on one line: no control characters. */
static void append_plain(struct buffer *out, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char c = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
		buffer_append(out, &c, 1);
	}
}

static void expand(const char *template, const struct words *words, struct buffer *out)
{
	for (const char *at = template; *at;) {
		const char *close = *at == '{' ? strchr(at, '}') : NULL;
		const char *word = close ? word_of(words, at + 1, (size_t)(close - at - 1)) : NULL;
		if (word) {
			append_plain(out, word, strlen(word));
			at = close + 1;
		} else {
			append_plain(out, at++, 1);
		}
	}
}

static void finish(struct buffer *buffer, char *out, size_t max)
{
	static const char ellipsis[] = "\xe2\x80\xa6";
	const char *text = buffer_append(buffer, "", 1) ? buffer->data : "";
	size_t length = text_cut(text, max);
	bool cut = text[length] != '\0';
	memcpy(out, text, length);
	memcpy(out + length, cut ? ellipsis : "", cut ? sizeof(ellipsis) : 1);
	buffer_free(buffer);
}

static const char *body_of(const struct content_message *message, const struct language *language)
{
	static const struct {
		const char *type;
		enum content_text text;
	} types[] = {{"image", CONTENT_IMAGE}, {"video", CONTENT_VIDEO}, {"audio", CONTENT_AUDIO}, {"file", CONTENT_FILE}};

	if (message->type && strcmp(message->type, "text") == 0 && message->body) {
		return message->body;
	}
	for (size_t i = 0; message->type && i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(types[i].type, message->type) == 0) {
			return message->body && message->body[0] ? message->body : text_of(language, types[i].text);
		}
	}
	return text_of(language, CONTENT_OTHER);
}

void content_make(
	const struct content_templates *templates, const struct content_message *message, char title[204], char body[1004])
{
	const struct language *language = find_language(templates, message->language);
	enum content_level level = message->level;
	bool direct = message->conversation_type && strcmp(message->conversation_type, "direct") == 0;
	struct words words = {.sender = message->sender_name ? message->sender_name : text_of(language, CONTENT_SOMEONE),
		.conversation = message->conversation_name ? message->conversation_name : text_of(language, CONTENT_A_GROUP),
		.body = body_of(message, language)};
	enum content_text title_text = direct ? CONTENT_TITLE_DIRECT : CONTENT_TITLE_GROUP;
	enum content_text body_text = direct ? CONTENT_BODY_DIRECT : CONTENT_BODY_GROUP;
	struct buffer title_buffer, body_buffer;

	(void)snprintf(words.count, sizeof(words.count), "%lld", (long long)message->count);
	if (level == CONTENT_FULL && message->type && strcmp(message->type, "opaque") == 0) {
		level = CONTENT_SENDER;
	}
	if (message->test) {
		title_text = CONTENT_TEST_TITLE;
		body_text = CONTENT_TEST_BODY;
	} else if (level == CONTENT_SENDER) {
		body_text = CONTENT_BODY_SENDER;
	} else if (level == CONTENT_NONE) {
		title_text = CONTENT_TITLE_HIDDEN;
		body_text = CONTENT_BODY_HIDDEN;
	}
	buffer_init(&title_buffer, 4096);
	buffer_init(&body_buffer, 16384);
	expand(text_of(language, title_text), &words, &title_buffer);
	expand(text_of(language, body_text), &words, &body_buffer);
	if (message->count > 1 && !message->test) {
		expand(text_of(language, CONTENT_MORE), &words, &title_buffer);
	}
	finish(&title_buffer, title, 200);
	finish(&body_buffer, body, 1000);
}
