/* envelope.c - a message as a client sends it, and as clients receive it.
 *
 *   payload ──json_parse──▶ tree ──fields[]──▶ struct envelope ──types[]──▶ accepted
 *                            │ body, type: used where they lie in the tree
 *                            └ attachments, mentions, meta, remove ──canonical──▶ extra
 *
 * Pure; any thread. envelope_parse runs on the broker thread for every message: the tree is walked once, and a large body
 * is never copied after cJSON has decoded it.
 *
 * Canonical: object members sorted by the bytes of their names, no blanks, one spelling for each number and string. So a
 * client whose JSON library writes a dictionary in another order after a restart resends the same message, not a conflict.
 *
 * To add a field: a row in fields[] and its function; if it is kept, its place in write_extra or a column of the
 * message, and in the hash. To add a type: a row in types[].
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_CTX: no memory is asked for, and nothing looked up by name */
#include "envelope.h"

#include "../common/buffer.h"
#include "../common/json.h"
#include "../common/text.h"
#include "../common/uuid.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#define EXPIRES_IN_MAX_S 31536000 /* 365 days */
#define REACTION_CHARS_MAX 64     /* every answer about the message repeats it */

#define ATTACHMENT_KEY_BYTES_MAX 512
#define ATTACHMENT_NAME_CHARS_MAX 255
#define ATTACHMENT_TYPE_BYTES_MAX 255 /* RFC 6838 section 4.2: 127 on either side of the slash */
#define ATTACHMENT_PIXELS_MAX 1000000
#define SHA256_HEX_LENGTH 64

/* No envelope grows more than fourfold ("1e15" is written as 1000000000000000), so a buffer that failed had no memory: meta is
 * measured after it has been written. What is accepted stays below 80 kB. */
#define EXTRA_BYTES_MAX (4 * ENVELOPE_BYTES_MAX)

/* When a message may come with an empty body or none. */
enum body_rule {
	BODY_OR_ATTACHMENT, /* something must be said or shown */
	BODY_REACTION,      /* what is added or taken back */
	BODY_GIVEN,         /* must be there, may be empty: what it means is the application's own */
	BODY_OPTIONAL
};

struct type_rule {
	const char *name;
	bool acts; /* on the message in `ref` */
	enum body_rule body;
};

static const struct type_rule types[] = {
	{"text", false, BODY_OR_ATTACHMENT},
	{"image", false, BODY_OR_ATTACHMENT},
	{"video", false, BODY_OR_ATTACHMENT},
	{"audio", false, BODY_OR_ATTACHMENT},
	{"file", false, BODY_OR_ATTACHMENT},
	{"opaque", false, BODY_OR_ATTACHMENT},
	{"reaction", true, BODY_REACTION},
	{"edit", true, BODY_OR_ATTACHMENT},
	{"delete", true, BODY_OPTIONAL},
};

static const struct type_rule application_type = {"x-", false, BODY_GIVEN};

struct parse {
	struct envelope *out;
	struct error_detail *error;
	const struct type_rule *type;
	bool has_body;
	bool has_remove;
	bool remove;
	const cJSON *attachments; /* NULL: not sent */
	const cJSON *mentions;
	const cJSON *meta;
};

static bool refuse(struct error_detail *error, enum error_code code, const char *field, const char *message)
{
	*error = (struct error_detail){.code = code, .field = field, .message = message};
	return false;
}

static bool invalid(struct parse *parse, const char *field, const char *message)
{
	return refuse(parse->error, ERROR_INVALID_FIELD, field, message);
}

/* ---- the fields ---- */

static bool take_id(struct parse *parse, cJSON *item)
{
	const char *text = cJSON_GetStringValue(item);

	if (text == NULL || !uuid_parse(text, strlen(text), parse->out->id)) {
		return invalid(parse, "id", "id must be a UUID in its usual text form");
	}
	parse->out->has_id = true;
	return true;
}

static bool is_application_type(const char *name, size_t length)
{
	if (length < 3 || length > ENVELOPE_TYPE_BYTES_MAX || memcmp(name, "x-", 2) != 0) {
		return false;
	}
	for (size_t i = 2; i < length; i++) {
		if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || name[i] == '-')) {
			return false;
		}
	}
	return true;
}

static const struct type_rule *find_type(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(types[i].name, name) == 0) {
			return &types[i];
		}
	}
	return is_application_type(name, length) ? &application_type : NULL;
}

static bool take_type(struct parse *parse, cJSON *item)
{
	const char *text = cJSON_GetStringValue(item);

	if (text == NULL) {
		return invalid(parse, "type", "type must be a string");
	}
	parse->out->type = text;
	parse->out->type_length = strlen(text);
	parse->type = find_type(text, parse->out->type_length);
	if (parse->type != NULL) {
		return true;
	}
	if (strcmp(text, "system") == 0) {
		return invalid(parse, "type", "system entries come from the server alone");
	}
	return invalid(parse, "type",
		"type must be text, image, video, audio, file, reaction, edit, delete, opaque or x- with lower-case letters, "
		"digits and "
		"hyphens, at most 32 bytes");
}

static bool take_body(struct parse *parse, cJSON *item)
{
	const char *text = cJSON_GetStringValue(item);

	if (text == NULL) {
		return invalid(parse, "body", "body must be a string");
	}
	parse->has_body = true;
	parse->out->body = text;
	parse->out->body_length = strlen(text);
	return true;
}

static bool take_reply_to(struct parse *parse, cJSON *item)
{
	return json_integer(item, 1, TEXT_ID_MAX, &parse->out->reply_to) ||
	       invalid(parse, "reply_to", "reply_to must be a sequence number");
}

static bool take_ref(struct parse *parse, cJSON *item)
{
	return json_integer(item, 1, TEXT_ID_MAX, &parse->out->ref) || invalid(parse, "ref", "ref must be a sequence number");
}

static bool take_expires_in(struct parse *parse, cJSON *item)
{
	return json_integer(item, 1, EXPIRES_IN_MAX_S, &parse->out->expires_in_s) ||
	       invalid(parse, "expires_in", "expires_in must be a whole number of seconds, 1 to 31536000");
}

static bool take_reply(struct parse *parse, cJSON *item)
{
	parse->out->reply = cJSON_IsTrue(item) != 0;
	return cJSON_IsBool(item) || invalid(parse, "reply", "reply must be true or false");
}

static bool take_remove(struct parse *parse, cJSON *item)
{
	parse->has_remove = true;
	parse->remove = cJSON_IsTrue(item) != 0;
	return cJSON_IsBool(item) || invalid(parse, "remove", "remove must be true or false");
}

static bool take_mentions(struct parse *parse, cJSON *item)
{
	int64_t seen[ENVELOPE_MENTIONS_MAX];
	size_t count = 0;

	if (!cJSON_IsArray(item)) {
		return invalid(parse, "mentions", "mentions must be an array of user ids");
	}
	for (const cJSON *mention = item->child; mention != NULL; mention = mention->next) {
		if (count == ENVELOPE_MENTIONS_MAX) {
			return refuse(parse->error, ERROR_TOO_LONG, "mentions", "at most 50 mentions");
		}
		if (!json_integer(mention, 1, TEXT_ID_MAX, &seen[count])) {
			return invalid(parse, "mentions", "mentions must be an array of user ids");
		}
		for (size_t i = 0; i < count; i++) {
			if (seen[i] == seen[count]) {
				return invalid(parse, "mentions", "mentions must name each user once");
			}
		}
		count++;
	}
	parse->mentions = item;
	return true;
}

static bool take_meta(struct parse *parse, cJSON *item)
{
	parse->meta = item;
	return cJSON_IsObject(item) || invalid(parse, "meta", "meta must be an object");
}

/* ---- attachments ---- */

static bool is_string_of(const cJSON *item, size_t bytes_min, size_t bytes_max)
{
	const char *text = cJSON_GetStringValue(item);
	size_t length = text != NULL ? strlen(text) : 0;

	return text != NULL && length >= bytes_min && length <= bytes_max;
}

static bool check_key(cJSON *item)
{
	return is_string_of(item, 1, ATTACHMENT_KEY_BYTES_MAX);
}

static bool check_name(cJSON *item)
{
	const char *text = cJSON_GetStringValue(item);
	size_t chars = 0;

	return text != NULL && text_check_utf8(text, strlen(text), &chars) && chars <= ATTACHMENT_NAME_CHARS_MAX;
}

static bool check_media_type(cJSON *item)
{
	return is_string_of(item, 0, ATTACHMENT_TYPE_BYTES_MAX);
}

/* Puts the digest into lower case: the same digest is the same content. */
static bool check_sha256(cJSON *item)
{
	char *text = cJSON_GetStringValue(item);

	if (text == NULL || strlen(text) != SHA256_HEX_LENGTH) {
		return false;
	}
	for (; *text != '\0'; text++) {
		if (*text >= 'A' && *text <= 'F') {
			*text = (char)(*text - 'A' + 'a');
		}
		if (!((*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'f'))) {
			return false;
		}
	}
	return true;
}

static bool check_count(cJSON *item)
{
	int64_t value;

	return json_integer(item, 0, TEXT_ID_MAX, &value);
}

static bool check_pixels(cJSON *item)
{
	int64_t value;

	return json_integer(item, 1, ATTACHMENT_PIXELS_MAX, &value);
}

struct attachment_field {
	const char *name;
	bool (*check)(cJSON *item);
	const char *message;
};

static const struct attachment_field attachment_fields[] = {
	{"key", check_key, "an attachment's key must be a string of 1 to 512 bytes"},
	{"name", check_name, "an attachment's name must be a string of at most 255 characters"},
	{"type", check_media_type, "an attachment's type must be a string of at most 255 bytes"},
	{"size", check_count, "an attachment's size must be a whole number of bytes"},
	{"sha256", check_sha256, "an attachment's sha256 must be 64 hexadecimal digits"},
	{"width", check_pixels, "an attachment's width must be 1 to 1000000"},
	{"height", check_pixels, "an attachment's height must be 1 to 1000000"},
	{"duration", check_count, "an attachment's duration must be a whole number of milliseconds"},
};

static bool check_attachment_member(struct parse *parse, cJSON *member)
{
	for (size_t i = 0; i < sizeof(attachment_fields) / sizeof(attachment_fields[0]); i++) {
		const struct attachment_field *field = &attachment_fields[i];
		if (strcmp(field->name, member->string) == 0) {
			return field->check(member) || invalid(parse, "attachments", field->message);
		}
	}
	return invalid(parse, "attachments", "unknown field in an attachment");
}

static bool check_attachment(struct parse *parse, const cJSON *attachment)
{
	bool has_key = false;

	if (!cJSON_IsObject(attachment)) {
		return invalid(parse, "attachments", "attachments must be an array of objects");
	}
	for (cJSON *member = attachment->child; member != NULL; member = member->next) {
		if (!check_attachment_member(parse, member)) {
			return false;
		}
		has_key = has_key || strcmp(member->string, "key") == 0;
	}
	return has_key || invalid(parse, "attachments", "an attachment must have a key");
}

static bool take_attachments(struct parse *parse, cJSON *item)
{
	size_t count = 0;

	if (!cJSON_IsArray(item)) {
		return invalid(parse, "attachments", "attachments must be an array of objects");
	}
	for (const cJSON *attachment = item->child; attachment != NULL; attachment = attachment->next) {
		if (count++ == ENVELOPE_ATTACHMENTS_MAX) {
			return refuse(parse->error, ERROR_TOO_LONG, "attachments", "at most 10 attachments");
		}
		if (!check_attachment(parse, attachment)) {
			return false;
		}
	}
	parse->attachments = item;
	return true;
}

/* ---- canonical JSON ---- */

static int compare_names(const void *left, const void *right)
{
	return strcmp((*(const cJSON *const *)left)->string, (*(const cJSON *const *)right)->string);
}

/* The members of `object`, sorted; free it. NULL: no memory. */
static const cJSON **sorted_members(const cJSON *object, size_t *count)
{
	const cJSON **members;
	size_t filled = 0;

	*count = (size_t)cJSON_GetArraySize(object);
	members = calloc(*count + 1, sizeof(*members));
	if (members == NULL) {
		return NULL;
	}
	for (const cJSON *member = object->child; member != NULL; member = member->next) {
		members[filled++] = member;
	}
	qsort(members, *count, sizeof(*members), compare_names);
	return members;
}

/* Returns how many digits more than written here PostgreSQL will print: jsonb spells 1e-300 out. */
static size_t write_number(struct buffer *out, const cJSON *item)
{
	char text[32];
	const char *exponent;
	int64_t integer;
	int length = 0;

	if (json_integer(item, -TEXT_ID_MAX, TEXT_ID_MAX, &integer)) {
		buffer_append_integer(out, integer);
		return 0;
	}
	/* The shortest form that is exact, 17 digits always are: as people write it. */
	for (int digits = 15; digits <= 17; digits++) {
		length = snprintf(text, sizeof(text), "%.*g", digits, item->valuedouble);
		if (strtod(text, NULL) == item->valuedouble) {
			break;
		}
	}
	for (int i = 0; i < length; i++) {
		if (strchr("0123456789+-e", text[i]) == NULL) {
			text[i] = '.'; /* whatever the process's locale has for it */
		}
	}
	buffer_append(out, text, (size_t)length);
	exponent = memchr(text, 'e', (size_t)length);
	return exponent != NULL ? (size_t)labs(strtol(exponent + 1, NULL, 10)) : 0;
}

static size_t write_canonical(struct buffer *out, const cJSON *item);

static size_t write_object(struct buffer *out, const cJSON *object)
{
	size_t count;
	size_t expansion = 0;
	const cJSON **members = sorted_members(object, &count);

	if (members == NULL) {
		out->failed = true;
		return 0;
	}
	buffer_append(out, "{", 1);
	for (size_t i = 0; i < count; i++) {
		if (i > 0) {
			buffer_append(out, ",", 1);
		}
		buffer_append_json_string(out, members[i]->string, strlen(members[i]->string));
		buffer_append(out, ":", 1);
		expansion += write_canonical(out, members[i]);
	}
	buffer_append(out, "}", 1);
	free(members);
	return expansion;
}

static size_t write_array(struct buffer *out, const cJSON *array)
{
	size_t expansion = 0;

	buffer_append(out, "[", 1);
	for (const cJSON *item = array->child; item != NULL; item = item->next) {
		if (item != array->child) {
			buffer_append(out, ",", 1);
		}
		expansion += write_canonical(out, item);
	}
	buffer_append(out, "]", 1);
	return expansion;
}

/* Recursion is bounded by the depth that json_parse let in. Returns what write_number returns, summed up. */
static size_t write_canonical(struct buffer *out, const cJSON *item)
{
	if (cJSON_IsObject(item)) {
		return write_object(out, item);
	}
	if (cJSON_IsArray(item)) {
		return write_array(out, item);
	}
	if (cJSON_IsNumber(item)) {
		return write_number(out, item);
	}
	if (cJSON_IsString(item)) {
		buffer_append_json_string(out, item->valuestring, strlen(item->valuestring));
	} else {
		buffer_append_text(out, cJSON_IsTrue(item) ? "true" : cJSON_IsFalse(item) ? "false" : "null");
	}
	return 0;
}

/* ,"name": or {"name": */
static void write_extra_name(struct buffer *out, const char *name)
{
	buffer_append(out, out->length == 0 ? "{" : ",", 1);
	buffer_append_json_string(out, name, strlen(name));
	buffer_append(out, ":", 1);
}

/* The length of meta as it will be given out again. */
static size_t write_meta(struct buffer *out, const cJSON *meta)
{
	size_t length_before;
	size_t expansion;

	write_extra_name(out, "meta");
	length_before = out->length;
	expansion = write_canonical(out, meta);
	return out->length - length_before + expansion;
}

/* In the order of the names, as everywhere in canonical JSON. */
static bool write_extra(struct parse *parse)
{
	struct buffer extra;
	size_t meta_bytes = 0;

	if (parse->attachments == NULL && parse->mentions == NULL && parse->meta == NULL && !parse->remove) {
		return true;
	}
	buffer_init(&extra, EXTRA_BYTES_MAX);
	if (parse->attachments != NULL) {
		write_extra_name(&extra, "attachments");
		write_canonical(&extra, parse->attachments);
	}
	if (parse->mentions != NULL) {
		write_extra_name(&extra, "mentions");
		write_canonical(&extra, parse->mentions);
	}
	if (parse->meta != NULL) {
		meta_bytes = write_meta(&extra, parse->meta);
	}
	if (parse->remove) {
		write_extra_name(&extra, "remove");
		buffer_append_text(&extra, "true");
	}
	buffer_append(&extra, "}", 1);
	parse->out->extra = extra.data;
	parse->out->extra_length = extra.length;
	if (extra.failed) {
		return refuse(parse->error, ERROR_UNAVAILABLE, NULL, NULL); /* no memory */
	}
	if (meta_bytes > ENVELOPE_META_BYTES_MAX) {
		return refuse(parse->error, ERROR_TOO_LONG, "meta", "meta is longer than 4096 bytes");
	}
	return true;
}

/* ---- the whole ---- */

struct field {
	const char *name;
	bool (*take)(struct parse *parse, cJSON *item);
};

static const struct field fields[] = {
	{"id", take_id},
	{"type", take_type},
	{"body", take_body},
	{"reply_to", take_reply_to},
	{"ref", take_ref},
	{"remove", take_remove},
	{"attachments", take_attachments},
	{"mentions", take_mentions},
	{"meta", take_meta},
	{"expires_in", take_expires_in},
	{"reply", take_reply},
};

static bool take_member(struct parse *parse, cJSON *member)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strcmp(fields[i].name, member->string) == 0) {
			return fields[i].take(parse, member);
		}
	}
	return invalid(parse, NULL, "unknown field"); /* not named: it is a stranger's text */
}

static bool is_longer(const char *body, size_t length, size_t chars_max)
{
	size_t chars = 0;

	if (length <= chars_max) {
		return false; /* no code point is shorter than a byte */
	}
	for (size_t i = 0; i < length; i++) {
		chars += ((unsigned char)body[i] & 0xc0) != 0x80; /* UTF-8: all but continuation bytes begin one */
	}
	return chars > chars_max;
}

static bool check_body_length(const char *body, size_t length, size_t chars_max, struct error_detail *error)
{
	return !is_longer(body, length, chars_max) ||
	       refuse(error, ERROR_TOO_LONG, "body", "body has more characters than this server accepts");
}

static bool body_may_be_empty(const struct parse *parse)
{
	switch (parse->type->body) {
	case BODY_OR_ATTACHMENT:
		return parse->attachments != NULL && parse->attachments->child != NULL;
	case BODY_REACTION:
		return false;
	case BODY_GIVEN:
		return parse->has_body;
	case BODY_OPTIONAL:
		break;
	}
	return true;
}

/* What the fields must be together. */
static bool check_whole(struct parse *parse)
{
	const struct envelope *envelope = parse->out;

	if (parse->type->acts && envelope->ref == 0) {
		return invalid(parse, "ref", "ref is required for this type: the message it acts on");
	}
	if (!parse->type->acts && envelope->ref != 0) {
		return invalid(parse, "ref", "ref is for reaction, edit and delete; to answer a message use reply_to");
	}
	if (parse->type->acts && envelope->expires_in_s != 0) {
		return invalid(parse, "expires_in", "a reaction, edit or deletion lasts as long as the message");
	}
	if (parse->has_remove && parse->type->body != BODY_REACTION) {
		return invalid(parse, "remove", "remove is for reaction");
	}
	if (parse->type->body == BODY_REACTION && is_longer(envelope->body, envelope->body_length, REACTION_CHARS_MAX)) {
		return refuse(parse->error, ERROR_TOO_LONG, "body", "a reaction has at most 64 characters");
	}
	if (envelope->body_length == 0 && !body_may_be_empty(parse)) {
		return invalid(parse, "body", parse->has_body ? "body must not be empty" : "body is required");
	}
	return true;
}

static bool parse_tree(cJSON *tree, size_t chars_max, struct envelope *out, struct error_detail *error)
{
	struct parse parse = {.out = out, .error = error, .type = &types[0]};
	cJSON *id = cJSON_GetObjectItemCaseSensitive(tree, "id");

	/* First, so that whatever else is wrong can be answered by it. */
	if (id != NULL && !take_id(&parse, id)) {
		return false;
	}
	for (cJSON *member = tree->child; member != NULL; member = member->next) {
		if (member != id && !take_member(&parse, member)) {
			return false;
		}
	}
	return check_whole(&parse) && check_body_length(out->body, out->body_length, chars_max, error) && write_extra(&parse);
}

static bool own_tree(cJSON *tree, size_t chars_max, struct envelope *out, struct error_detail *error)
{
	out->memory = tree;
	if (!parse_tree(tree, chars_max, out, error)) {
		envelope_free(out);
		return false;
	}
	return true;
}

static bool parse_json(const char *payload, size_t length, size_t chars_max, struct envelope *out, struct error_detail *error)
{
	const char *why = NULL;
	cJSON *tree = json_parse(payload, length, JSON_DEPTH_MAX, &why);

	if (tree == NULL) {
		/* The one reason that is not the payload's: the sender shall keep the message and send it again. */
		bool no_memory = strcmp(why, "no memory") == 0;
		return refuse(error, no_memory ? ERROR_UNAVAILABLE : ERROR_INVALID_JSON, NULL, no_memory ? NULL : why);
	}
	return own_tree(tree, chars_max, out, error);
}

static bool parse_plain(const char *payload, size_t length, size_t chars_max, struct envelope *out, struct error_detail *error)
{
	size_t chars = 0;

	if (length == 0) {
		return refuse(error, ERROR_INVALID_FIELD, "body", "body must not be empty");
	}
	if (!text_check_utf8(payload, length, &chars)) {
		return refuse(error, ERROR_INVALID_FIELD, "body", "body must be UTF-8 without NUL");
	}
	if (chars > chars_max) {
		return refuse(error, ERROR_TOO_LONG, "body", "body has more characters than this server accepts");
	}
	out->body = payload;
	out->body_length = length;
	return true;
}

/* A byte order mark counts as blank here, so that what follows is refused as bad JSON and not taken for a text. */
static bool looks_like_json(const char *payload, size_t length)
{
	size_t at = length >= 3 && memcmp(payload, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

	while (at < length && (payload[at] == ' ' || payload[at] == '\t' || payload[at] == '\n' || payload[at] == '\r')) {
		at++;
	}
	return at < length && payload[at] == '{';
}

static void begin(struct envelope *out, struct error_detail *error)
{
	*error = (struct error_detail){.code = ERROR_NONE};
	*out = (struct envelope){.type = "text", .type_length = 4, .body = ""};
}

bool envelope_parse_tree(cJSON *tree, const struct envelope_limits *limits, struct envelope *out, struct error_detail *error)
{
	begin(out, error);
	return own_tree(tree, limits->body_max_chars, out, error);
}

bool envelope_parse(const char *payload, size_t length, const struct envelope_limits *limits, struct envelope *out,
	struct error_detail *error)
{
	begin(out, error);
	if (length > ENVELOPE_BYTES_MAX) {
		return refuse(error, ERROR_TOO_LONG, NULL, "the payload has more bytes than this server accepts");
	}
	if (looks_like_json(payload, length)) {
		return parse_json(payload, length, limits->body_max_chars, out, error);
	}
	return parse_plain(payload, length, limits->body_max_chars, out, error);
}

void envelope_free(struct envelope *envelope)
{
	struct envelope empty = {.has_id = envelope->has_id, .type = "text", .type_length = 4, .body = ""};

	memcpy(empty.id, envelope->id, sizeof(empty.id));
	cJSON_Delete(envelope->memory);
	free((void *)envelope->extra); /* const for everybody but its owner */
	*envelope = empty;
}

size_t envelope_mentions(const char *extra, size_t length, int64_t users[ENVELOPE_MENTIONS_MAX])
{
	static const char name[] = "\"mentions\":[";
	const char *why;
	size_t count = 0;

	if (length == 0 || memmem(extra, length, name, sizeof(name) - 1) == NULL) {
		return 0; /* nearly always */
	}
	cJSON *tree = json_parse(extra, length, JSON_DEPTH_MAX, &why);
	const cJSON *mentions = tree != NULL ? cJSON_GetObjectItemCaseSensitive(tree, "mentions") : NULL;
	for (const cJSON *item = mentions != NULL ? mentions->child : NULL; item != NULL && count < ENVELOPE_MENTIONS_MAX;
		item = item->next) {
		count += json_integer(item, 1, TEXT_ID_MAX, &users[count]);
	}
	cJSON_Delete(tree);
	return count;
}

/* ---- the hash ---- */

static void put_integer(uint8_t out[8], uint64_t value)
{
	for (int i = 0; i < 8; i++) {
		out[i] = (uint8_t)(value >> (56 - 8 * i));
	}
}

void envelope_content_hash(const char *type, size_t type_length, const char *body, size_t body_length, int64_t reply_to,
	int64_t ref, const char *extra, size_t extra_length, int64_t expires_in_s, uint8_t out[16])
{
	/* All lengths and numbers first, in a head of fixed size: no two messages give the same bytes. These bytes are kept in
	 * tables, so what stands here stays; anything new goes to the end, and only when it is sent. */
	uint8_t head[6 * 8];
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA256_CTX context;

	put_integer(head, type_length);
	put_integer(head + 8, body_length);
	put_integer(head + 16, extra != NULL ? extra_length : 0);
	put_integer(head + 24, (uint64_t)reply_to);
	put_integer(head + 32, (uint64_t)ref);
	put_integer(head + 40, (uint64_t)expires_in_s);
	SHA256_Init(&context);
	SHA256_Update(&context, head, sizeof(head));
	SHA256_Update(&context, type, type_length);
	SHA256_Update(&context, body, body_length);
	if (extra != NULL) {
		SHA256_Update(&context, extra, extra_length);
	}
	SHA256_Final(digest, &context);
	memcpy(out, digest, 16);
}

/* ---- as clients receive it ---- */

static void append_member_integer(struct buffer *out, const char *name, int64_t value)
{
	buffer_append_text(out, name);
	buffer_append_integer(out, value);
}

static void append_member_string(struct buffer *out, const char *name, const char *text, size_t length)
{
	buffer_append_text(out, name);
	buffer_append_json_string(out, text, length);
}

static void append_id(struct buffer *out, const uint8_t id[16])
{
	char text[UUID_TEXT_LENGTH];

	uuid_format(id, text);
	append_member_string(out, ",\"id\":", text, sizeof(text));
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The members of the object `extra`, without its braces, however it is spaced. */
static void append_extra(struct buffer *out, const char *extra, size_t length)
{
	while (length > 0 && is_blank(*extra)) {
		extra++;
		length--;
	}
	while (length > 0 && is_blank(extra[length - 1])) {
		length--;
	}
	if (length < 2 || extra[0] != '{' || extra[length - 1] != '}') {
		return; /* no object: nothing that has members */
	}
	extra++;
	length -= 2;
	while (length > 0 && is_blank(*extra)) {
		extra++;
		length--;
	}
	if (length > 0) {
		buffer_append(out, ",", 1);
		buffer_append(out, extra, length);
	}
}

#define BEGINS_WITH "{\"conversation\":"
#define GOES_ON_WITH ",\"seq\":"

bool message_view_append(struct buffer *out, const struct message_view *message)
{
	size_t length_before = out->length;

	append_member_integer(out, BEGINS_WITH, message->conversation_id);
	append_member_integer(out, GOES_ON_WITH, message->seq);
	if (message->id != NULL) {
		append_id(out, message->id);
	}
	if (message->sender_id != 0) {
		append_member_integer(out, ",\"from\":", message->sender_id);
	}
	append_member_integer(out, ",\"sent_at\":", message->sent_at_ms);
	append_member_string(out, ",\"type\":", message->type, message->type_length);
	if (message->body != NULL) {
		append_member_string(out, ",\"body\":", message->body, message->body_length);
	}
	if (message->reply_to != 0) {
		append_member_integer(out, ",\"reply_to\":", message->reply_to);
	}
	if (message->ref != 0) {
		append_member_integer(out, ",\"ref\":", message->ref);
	}
	if (message->extra != NULL) {
		append_extra(out, message->extra, message->extra_length);
	}
	if (message->expires_at_ms != 0) {
		append_member_integer(out, ",\"expires_at\":", message->expires_at_ms);
	}
	buffer_append(out, "}", 1);
	if (out->failed) {
		out->length = length_before;
	}
	return !out->failed;
}

/* Those of TEXT_ID_MAX: no number that we write has more. */
#define DIGITS_MAX 16

/* Reads `name` and the number behind it. False: something else stands there. */
static bool read_member(const char **at, const char *end, const char *name, int64_t *value)
{
	size_t length = strlen(name);
	if ((size_t)(end - *at) < length || memcmp(*at, name, length) != 0) {
		return false;
	}
	*at += length;
	*value = 0;
	for (int i = 0; i < DIGITS_MAX && *at < end && **at >= '0' && **at <= '9'; i++, ++*at) {
		*value = *value * 10 + (**at - '0');
	}
	return true;
}

int64_t message_view_seq(const char *json, size_t length)
{
	int64_t conversation_id, seq;
	const char *at = json, *end = json + length;
	bool found = read_member(&at, end, BEGINS_WITH, &conversation_id) && read_member(&at, end, GOES_ON_WITH, &seq);
	return found ? seq : 0;
}
