/* options.c - the one table of options, and how their values are read.
 *
 * Broker thread, at start and at SIGHUP. Reading the `config` file is the only input or output; everything else is a
 * function of its arguments.
 *
 *   defaults (rules[]) ──▶ plugin_opt_ pairs ──▶ `config` file ──▶ nothing required missing ──▶ struct options
 *
 * A default is text in the table and goes through the same parser as a value that somebody wrote, so what the table prints
 * is what holds. A mistake stops the load with one line; nothing is guessed and nothing is ignored.
 *
 * What an error line may quote: the value of a known option that is not secret. Never more than a name's own characters of
 * what stands in a name's place: "database=host=... password=..." is one word too.
 *
 * To add an option: a member in struct options, a row in rules[]. The sample configuration and the reference are checked
 * against the table by the suite.
 */
#include "options.h"

#include "../common/buffer.h"
#include "../common/text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STRING_BYTES_MAX ((size_t)4096) /* a libpq connection string with every parameter is under 1000 */
#define FILE_BYTES_MAX ((size_t)65536)
#define QUOTE_BYTES_MAX 64 /* of a value in an error line */
#define NAME_BYTES_MAX 32
#define WHERE_BYTES_MAX 600 /* FILE:LINE: NAME, of an error line */

enum option_kind {
	KIND_STRING,
	KIND_PATH,         /* a string that begins with a slash: the broker changes its working directory */
	KIND_BOOL,         /* false, true */
	KIND_REGISTRATION, /* closed, open */
	KIND_SYNC,         /* none, interval, always */
	KIND_INTEGER,
	KIND_SIZE,            /* bytes, or with K, M, G, T */
	KIND_DURATION,        /* seconds, or with s, m, h, d */
	KIND_RATE_PER_SECOND, /* N:BURST, or 0 */
	KIND_RATE_PER_MINUTE  /* N, which is the burst too, or 0 */
};

struct option_rule {
	const char *name;
	const char *default_text; /* NULL: none */
	const char *help;
	const char *expected; /* completes "... is not"; NULL where the kind says it */
	enum option_kind kind;
	size_t offset; /* of the member in struct options */
	int64_t min;
	int64_t max;
	bool required;
	bool reloadable;
	bool secret; /* its value is never quoted */
};

#define MEMBER(member) offsetof(struct options, member)
#define KIB INT64_C(1024)
#define DAY_S INT64_C(86400)

/* clang-format off */
static const struct option_rule rules[] = {
	{.name = "database", .kind = KIND_STRING, .offset = MEMBER(database), .required = true, .secret = true,
		.expected = "a libpq connection string, as in host=/run/postgresql dbname=chat user=chat_plugin",
		.help = "libpq connection string"},
	{.name = "token_keys", .kind = KIND_STRING, .offset = MEMBER(token_keys), .required = true, .reloadable = true, .secret = true,
		.expected = "a comma-separated list of key files, as in /etc/mosquitto/chat/token.pem,hs256:/etc/mosquitto/chat/secret",
		.help = "comma-separated key files: PEM public keys (ES256, RS256, EdDSA), or hs256: and a file with a secret of at "
			"least 32 bytes; a file's base name is its kid"},
	{.name = "token_issuer", .kind = KIND_STRING, .offset = MEMBER(token_issuer), .reloadable = true,
		.help = "the iss that tokens must have; not checked where not set"},
	{.name = "token_audience", .kind = KIND_STRING, .offset = MEMBER(token_audience), .reloadable = true,
		.help = "the aud that tokens must have; not checked where not set"},
	{.name = "token_signing_key", .kind = KIND_STRING, .offset = MEMBER(token_signing_key), .reloadable = true,
		.help = "private key file for tokens made here; without it auth.login is off"},
	{.name = "token_lifetime", .default_text = "24h", .kind = KIND_DURATION, .offset = MEMBER(token_lifetime_s),
		.min = 1, .max = 365 * DAY_S, .reloadable = true,
		.help = "how long a token made here is good, 1s to 365d"},
	{.name = "users_from_tokens", .default_text = "false", .kind = KIND_BOOL, .offset = MEMBER(users_from_tokens), .reloadable = true,
		.help = "make an account at the first sign-in with a valid token of an unknown sub"},
	{.name = "scram", .default_text = "false", .kind = KIND_BOOL, .offset = MEMBER(scram),
		.help = "let MQTT 5 clients sign in by SCRAM-SHA-256"},
	{.name = "guests", .default_text = "false", .kind = KIND_BOOL, .offset = MEMBER(guests), .reloadable = true,
		.help = "let clients without a password connect to call auth.register and auth.login"},
	{.name = "registration", .default_text = "closed", .kind = KIND_REGISTRATION, .offset = MEMBER(registration_open), .reloadable = true,
		.help = "open or closed: whether auth.register makes accounts"},
	{.name = "spool_dir", .default_text = "/var/lib/mosquitto/chat-spool", .kind = KIND_PATH, .offset = MEMBER(spool_dir),
		.help = "directory of what was accepted and is not yet committed; the broker's user must be able to write there"},
	/* The least holds two of the largest record. */
	{.name = "spool_max_bytes", .default_text = "1G", .kind = KIND_SIZE, .offset = MEMBER(spool_max_bytes),
		.min = 4 * KIB * KIB, .max = 1024 * KIB * KIB * KIB,
		.help = "when the spool is that long, publishes are refused as overloaded; 4M to 1024G"},
	{.name = "spool_sync", .default_text = "none", .kind = KIND_SYNC, .offset = MEMBER(spool_sync),
		.help = "when the spool is flushed to the disk: none (left to the kernel), interval, always (before each PUBACK)"},
	{.name = "spool_sync_ms", .default_text = "50", .kind = KIND_INTEGER, .offset = MEMBER(spool_sync_ms), .min = 1, .max = 60000,
		.help = "milliseconds between flushes with spool_sync interval"},
	{.name = "rate_messages", .default_text = "20:100", .kind = KIND_RATE_PER_SECOND, .offset = MEMBER(rate_messages), .reloadable = true,
		.help = "messages per second and burst, per user; 0 is off"},
	{.name = "rate_requests", .default_text = "10:50", .kind = KIND_RATE_PER_SECOND, .offset = MEMBER(rate_requests), .reloadable = true,
		.help = "requests per second and burst, per user; 0 is off"},
	{.name = "rate_sign_in", .default_text = "5", .kind = KIND_RATE_PER_MINUTE, .offset = MEMBER(rate_sign_in), .reloadable = true,
		.help = "failed sign-ins per minute and account; 0 is off"},
	{.name = "rate_sign_in_address", .default_text = "60", .kind = KIND_RATE_PER_MINUTE, .offset = MEMBER(rate_sign_in_address),
		.reloadable = true,
		.help = "failed sign-ins per minute and address; 0 is off"},
	/* The most is what fits into the largest envelope with four bytes for each character. */
	{.name = "body_max_chars", .default_text = "100000", .kind = KIND_INTEGER, .offset = MEMBER(body_max_chars),
		.min = 1, .max = 300000, .reloadable = true,
		.help = "characters (Unicode code points) of a message body"},
	{.name = "group_max_members", .default_text = "100", .kind = KIND_INTEGER, .offset = MEMBER(group_max_members),
		.min = 2, .max = 100000, .reloadable = true,
		.help = "members of a group"},
	{.name = "receipt_interval", .default_text = "200", .kind = KIND_INTEGER, .offset = MEMBER(receipt_interval_ms),
		.min = 0, .max = 60000, .reloadable = true,
		.help = "milliseconds in which a conversation's receipts are gathered into one publish; 0 is each batch that is stored"},
	{.name = "edit_window", .default_text = "0", .kind = KIND_DURATION, .offset = MEMBER(edit_window_s),
		.min = 0, .max = 3650 * DAY_S, .reloadable = true,
		.help = "how long after it was sent a message can be edited; 0 is for ever"},
	{.name = "retention_days", .default_text = "0", .kind = KIND_INTEGER, .offset = MEMBER(retention_days),
		.min = 0, .max = 36500, .reloadable = true,
		.help = "days after which messages are removed from the database; 0 is never"},
	{.name = "presence_grace", .default_text = "10s", .kind = KIND_DURATION, .offset = MEMBER(presence_grace_s),
		.min = 0, .max = 300, .reloadable = true,
		.help = "how long after a lost connection others are told that the user is offline, 0s to 300s; who is back by then never was"},
	/* 64 is the number of slots: a lane without a slot would have nothing to do. */
	{.name = "writers", .default_text = "2", .kind = KIND_INTEGER, .offset = MEMBER(writers), .min = 1, .max = 64,
		.help = "database connections that store messages"},
	{.name = "request_workers", .default_text = "4", .kind = KIND_INTEGER, .offset = MEMBER(request_workers), .min = 1, .max = 64,
		.help = "database connections that answer requests"},
	{.name = "search_share", .default_text = "25", .kind = KIND_INTEGER, .offset = MEMBER(search_share), .min = 1, .max = 100,
		.help = "per cent of its time that the search index may be worked at; below what it needs, it falls behind"},
	{.name = "config", .kind = KIND_PATH, .offset = MEMBER(config),
		.help = "a file of the same options without the prefix; read again at SIGHUP"},
};
/* clang-format on */

#define RULES (sizeof(rules) / sizeof(rules[0]))

/* One load. `where` is how an error line begins: plugin_opt_NAME, or FILE:LINE: NAME. */
struct load {
	struct options *out;
	char *error;
	size_t error_size;
	char where[WHERE_BYTES_MAX];
};

/* ---- messages ---- */

/* Writes one line; what does not fit ends in "...". */
__attribute__((format(printf, 3, 0))) static void say_arguments(char *out, size_t out_size, const char *format, va_list arguments)
{
	int length = vsnprintf(out, out_size, format, arguments);

	if (out_size >= 4 && (length < 0 || (size_t)length >= out_size)) {
		memcpy(out + out_size - 4, "...", 4);
	}
}

__attribute__((format(printf, 3, 4))) static void say(char *out, size_t out_size, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say_arguments(out, out_size, format, arguments);
	va_end(arguments);
}

/* The error line of this load; always false, so that a check can return it. */
__attribute__((format(printf, 2, 3))) static bool fail(struct load *load, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	say_arguments(text, sizeof(text), format, arguments);
	va_end(arguments);
	say(load->error, load->error_size, "%s%s", load->where, text);
	return false;
}

static bool fail_memory(struct load *load)
{
	return fail(load, ": no memory");
}

/* ---- names ---- */

static bool is_name_byte(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

/* The leading bytes that can belong to a name: all that is ever quoted of one. */
static int name_span(const char *text)
{
	int length = 0;

	while (length < NAME_BYTES_MAX && is_name_byte(text[length])) {
		length++;
	}
	return length;
}

static const struct option_rule *find_rule(const char *name)
{
	for (size_t i = 0; i < RULES; i++) {
		if (strcmp(rules[i].name, name) == 0) {
			return &rules[i];
		}
	}
	return NULL;
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
	unsigned ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* How many letters must be put in, left out or exchanged to make one word the other (Levenshtein); both <= NAME_BYTES_MAX. */
static unsigned distance(const char *left, size_t left_length, const char *right, size_t right_length)
{
	unsigned row[NAME_BYTES_MAX + 1];

	for (size_t j = 0; j <= right_length; j++) {
		row[j] = (unsigned)j;
	}
	for (size_t i = 1; i <= left_length; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= right_length; j++) {
			unsigned above = row[j];
			row[j] = least(above + 1, row[j - 1] + 1, diagonal + (left[i - 1] != right[j - 1]));
			diagonal = above;
		}
	}
	return row[right_length];
}

/* The option that was probably meant, or NULL. */
static const char *nearest_name(const char *name, size_t length)
{
	char folded[NAME_BYTES_MAX];
	const char *best = NULL;
	unsigned best_distance = (unsigned)length / 3 + 1; /* up to a third of its letters wrong */

	if (length > NAME_BYTES_MAX) {
		return NULL;
	}
	for (size_t i = 0; i < length; i++) {
		folded[i] = name[i] == '-' ? '_' : (char)tolower((unsigned char)name[i]);
	}
	for (size_t i = 0; i < RULES; i++) {
		unsigned d = distance(folded, length, rules[i].name, strlen(rules[i].name));
		if (d < best_distance) {
			best_distance = d;
			best = rules[i].name;
		}
	}
	return best;
}

static bool fail_unknown(struct load *load, const char *name, size_t length)
{
	static const char prefix[] = "plugin_opt_";
	const char *meant;

	if (length >= sizeof(prefix) - 1 && memcmp(name, prefix, sizeof(prefix) - 1) == 0) {
		return fail(load, ": no such option: names stand here without the prefix plugin_opt_");
	}
	meant = nearest_name(name, length);
	if (meant != NULL) {
		return fail(load, ": no such option; did you mean %s?", meant);
	}
	return fail(load, ": no such option; docs/reference.md lists them");
}

/* ---- values ---- */

static bool parse_word(const char *value, const char *const *words, unsigned count, unsigned *out)
{
	for (unsigned i = 0; i < count; i++) {
		if (strcmp(value, words[i]) == 0) {
			*out = i;
			return true;
		}
	}
	return false;
}

static bool parse_bool(const char *value, const char *no, const char *yes, bool *out)
{
	unsigned word = 0;
	bool ok = parse_word(value, (const char *const[]){no, yes}, 2, &word);

	*out = word == 1;
	return ok;
}

static bool parse_sync(const char *value, enum option_spool_sync *out)
{
	/* In the order of the enum. */
	static const char *const words[] = {"none", "interval", "always"};
	unsigned word = SPOOL_SYNC_NONE;
	bool ok = parse_word(value, words, 3, &word);

	*out = (enum option_spool_sync)word;
	return ok;
}

struct unit {
	char letter;
	int64_t factor;
};

/* A whole number, at the end perhaps one of the units; the whole of `value`. */
static bool parse_scaled(const char *value, const struct unit *units, size_t count, int64_t min, int64_t max, int64_t *out)
{
	size_t length = strlen(value);
	int64_t factor = 1;
	int64_t number;

	for (size_t i = 0; i < count && length > 0; i++) {
		if (tolower((unsigned char)value[length - 1]) == units[i].letter) {
			factor = units[i].factor;
			length--;
			break;
		}
	}
	if (!text_parse_integer(value, length, 0, max / factor, &number) || number * factor < min) {
		return false;
	}
	*out = number * factor;
	return true;
}

static bool parse_size(const char *value, int64_t min, int64_t max, int64_t *out)
{
	static const struct unit units[] = {{'k', KIB}, {'m', KIB * KIB}, {'g', KIB * KIB * KIB}, {'t', KIB * KIB * KIB * KIB}};

	return parse_scaled(value, units, sizeof(units) / sizeof(units[0]), min, max, out);
}

static bool parse_duration(const char *value, int64_t min, int64_t max, int64_t *out)
{
	static const struct unit units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', DAY_S}};

	return parse_scaled(value, units, sizeof(units) / sizeof(units[0]), min, max, out);
}

#define RATE_MAX 1000000 /* per second: far more than the broker can do, and 60 of them a minute still fit 32 bits */

static bool parse_rate_per_second(const char *value, struct rate_limit *out)
{
	const char *colon = strchr(value, ':');
	int64_t per_second;
	int64_t burst;

	*out = (struct rate_limit){0};
	if (strcmp(value, "0") == 0) {
		return true;
	}
	if (colon == NULL || !text_parse_integer(value, (size_t)(colon - value), 1, RATE_MAX, &per_second) ||
		!text_parse_integer(colon + 1, strlen(colon + 1), 1, RATE_MAX, &burst)) {
		return false;
	}
	*out = (struct rate_limit){.per_minute = (uint32_t)(per_second * 60), .burst = (uint32_t)burst};
	return true;
}

static bool parse_rate_per_minute(const char *value, struct rate_limit *out)
{
	int64_t per_minute;

	*out = (struct rate_limit){0};
	if (!text_parse_integer(value, strlen(value), 0, RATE_MAX, &per_minute)) {
		return false;
	}
	*out = (struct rate_limit){.per_minute = (uint32_t)per_minute, .burst = (uint32_t)per_minute};
	return true;
}

static bool has_control(const char *text)
{
	for (; *text != '\0'; text++) {
		if (iscntrl((unsigned char)*text)) {
			return true;
		}
	}
	return false;
}

static bool is_good_string(const struct option_rule *rule, const char *value)
{
	size_t length = strnlen(value, STRING_BYTES_MAX + 1);

	return length > 0 && length <= STRING_BYTES_MAX && !has_control(value) && (rule->kind != KIND_PATH || value[0] == '/');
}

static bool set_string(struct load *load, const struct option_rule *rule, const char *value)
{
	char **member = (char **)(void *)((char *)load->out + rule->offset);
	char *copy = strdup(value);

	if (copy == NULL) {
		return fail_memory(load);
	}
	free(*member);
	*member = copy;
	return true;
}

/* Puts a value that is no string into its member; false where it is not what the rule wants. */
static bool set_scalar(const struct option_rule *rule, const char *value, struct options *out)
{
	void *member = (char *)out + rule->offset;

	switch (rule->kind) {
	case KIND_BOOL:
		return parse_bool(value, "false", "true", member);
	case KIND_REGISTRATION:
		return parse_bool(value, "closed", "open", member);
	case KIND_SYNC:
		return parse_sync(value, member);
	case KIND_INTEGER:
		return text_parse_integer(value, strlen(value), rule->min, rule->max, member);
	case KIND_SIZE:
		return parse_size(value, rule->min, rule->max, member);
	case KIND_DURATION:
		return parse_duration(value, rule->min, rule->max, member);
	case KIND_RATE_PER_SECOND:
		return parse_rate_per_second(value, member);
	case KIND_RATE_PER_MINUTE:
		return parse_rate_per_minute(value, member);
	case KIND_STRING:
	case KIND_PATH:
		break;
	}
	return false;
}

/* What would have been right; ends an error line. */
static void describe_expected(const struct option_rule *rule, char *out, size_t out_size)
{
	switch (rule->kind) {
	case KIND_STRING:
		say(out, out_size, "%s", rule->expected != NULL ? rule->expected : "a text of 1 to 4096 printable bytes");
		break;
	case KIND_PATH:
		say(out, out_size, "an absolute path, as in /etc/mosquitto/chat.conf");
		break;
	case KIND_BOOL:
		say(out, out_size, "true or false");
		break;
	case KIND_REGISTRATION:
		say(out, out_size, "open or closed");
		break;
	case KIND_SYNC:
		say(out, out_size, "none, interval or always");
		break;
	case KIND_INTEGER:
		say(out, out_size, "a whole number from %lld to %lld", (long long)rule->min, (long long)rule->max);
		break;
	case KIND_SIZE:
		say(out, out_size, "a size from %lldM to %lldG, as in 1G or 512M", (long long)(rule->min / KIB / KIB),
			(long long)(rule->max / KIB / KIB / KIB));
		break;
	case KIND_DURATION:
		say(out, out_size, "a time from %llds to %lldd, as in 90s, 30m, 24h or 7d", (long long)rule->min,
			(long long)(rule->max / DAY_S));
		break;
	case KIND_RATE_PER_SECOND:
		say(out, out_size, "N:BURST (per second and burst, each 1 to %d), as in 20:100, or 0 for no limit", RATE_MAX);
		break;
	case KIND_RATE_PER_MINUTE:
		say(out, out_size, "a number per minute from 1 to %d, or 0 for no limit", RATE_MAX);
		break;
	}
}

static bool fail_value(struct load *load, const struct option_rule *rule, const char *value)
{
	char quoted[QUOTE_BYTES_MAX];
	char expected[256];

	describe_expected(rule, expected, sizeof(expected));
	if (value[0] == '\0') {
		return fail(load, ": no value; it must be %s", expected);
	}
	if (rule->secret) {
		return fail(load, ": the value (not shown) is not %s", expected);
	}
	return fail(load, ": \"%s\" is not %s", text_escape(quoted, sizeof(quoted), value, strlen(value)), expected);
}

static bool set_value(struct load *load, const struct option_rule *rule, const char *value)
{
	if (rule->kind == KIND_STRING || rule->kind == KIND_PATH) {
		return is_good_string(rule, value) ? set_string(load, rule, value) : fail_value(load, rule, value);
	}
	return set_scalar(rule, value, load->out) || fail_value(load, rule, value);
}

/* ---- the sources ---- */

/* Which options a source has named so far. */
struct seen {
	bool rule[RULES];
};

static bool take(struct load *load, struct seen *seen, const char *name, size_t name_length, const char *value)
{
	char terminated[NAME_BYTES_MAX + 1];
	const struct option_rule *rule;

	if (name_length > NAME_BYTES_MAX) {
		return fail_unknown(load, name, name_length);
	}
	memcpy(terminated, name, name_length);
	terminated[name_length] = '\0';
	rule = find_rule(terminated);
	if (rule == NULL) {
		return fail_unknown(load, name, name_length);
	}
	if (seen->rule[rule - rules]) {
		return fail(load, ": is given twice");
	}
	seen->rule[rule - rules] = true;
	return set_value(load, rule, value);
}

static bool load_defaults(struct load *load)
{
	*load->out = (struct options){0};
	for (size_t i = 0; i < RULES; i++) {
		say(load->where, sizeof(load->where), "default of %s", rules[i].name);
		if (rules[i].default_text != NULL && !set_value(load, &rules[i], rules[i].default_text)) {
			return false;
		}
	}
	return true;
}

static bool load_pairs(struct load *load, const struct option_pair *pairs, size_t count)
{
	struct seen seen = {0};

	for (size_t i = 0; i < count; i++) {
		const char *name = pairs[i].name;
		int shown = name_span(name);
		say(load->where, sizeof(load->where), "plugin_opt_%.*s", shown, name);
		if (name[shown] != '\0' && !is_name_byte(name[shown])) {
			return fail(load, ": a name ends in a blank, and the value follows"); /* "database=..." */
		}
		if (!take(load, &seen, name, strlen(name), pairs[i].value != NULL ? pairs[i].value : "")) {
			return false;
		}
	}
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static char *trim(char *line)
{
	size_t length;

	while (is_blank(*line)) {
		line++;
	}
	length = strlen(line);
	while (length > 0 && is_blank(line[length - 1])) {
		line[--length] = '\0';
	}
	return line;
}

/* "name value", "# comment" or nothing. */
static bool load_line(struct load *load, struct seen *seen, const char *path, unsigned number, char *line)
{
	char *value;
	int shown;

	line = trim(line);
	if (*line == '\0' || *line == '#') {
		return true;
	}
	shown = name_span(line);
	if (shown == 0 || (line[shown] != '\0' && !is_blank(line[shown]))) {
		say(load->where, sizeof(load->where), "%.400s:%u", path, number);
		return fail(load, ": after \"%.*s\": a line is a name, a blank and a value", shown, line);
	}
	say(load->where, sizeof(load->where), "%.400s:%u: %.*s", path, number, shown, line);
	value = trim(line + shown);
	if (strncmp(line, "config", (size_t)shown) == 0 && shown == 6) {
		return fail(load, ": may only be a plugin_opt_config line of mosquitto.conf");
	}
	return take(load, seen, line, (size_t)shown, value);
}

/* The whole file, NUL-terminated; free it. NULL with the error line said. */
static char *read_file(struct load *load, const char *path)
{
	/* Not to wait, should it be a pipe: the broker's thread calls. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *text = malloc(FILE_BYTES_MAX + 1);
	size_t length = 0;
	struct stat facts;
	bool ok = false;

	say(load->where, sizeof(load->where), "plugin_opt_config: %.400s", path);
	if (text == NULL) {
		fail_memory(load);
		goto done;
	}
	if (fd < 0 || fstat(fd, &facts) != 0) {
		fail(load, ": cannot be opened: %s", strerror(errno));
		goto done;
	}
	if (!S_ISREG(facts.st_mode)) {
		fail(load, ": is not a file");
		goto done;
	}
	while (length <= FILE_BYTES_MAX) {
		ssize_t got = read(fd, text + length, FILE_BYTES_MAX + 1 - length);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			fail(load, ": cannot be read: %s", strerror(errno));
			goto done;
		}
		if (got == 0) {
			break;
		}
		length += (size_t)got;
	}
	if (length > FILE_BYTES_MAX || memchr(text, '\0', length) != NULL) {
		fail(load, ": is no text of at most %zu bytes", FILE_BYTES_MAX);
		goto done;
	}
	text[length] = '\0';
	ok = true;
done:
	if (fd >= 0) {
		close(fd);
	}
	if (!ok) {
		free(text);
		text = NULL;
	}
	return text;
}

static bool load_file(struct load *load, const char *path)
{
	struct seen seen = {0};
	char *text = read_file(load, path);
	char *line = text;
	bool ok = text != NULL;

	for (unsigned number = 1; ok && line != NULL; number++) {
		char *end = strchr(line, '\n');
		if (end != NULL) {
			*end++ = '\0';
		}
		ok = load_line(load, &seen, path, number, line);
		line = end;
	}
	free(text);
	return ok;
}

static bool check_required(struct load *load)
{
	for (size_t i = 0; i < RULES; i++) {
		const char *value;
		if (!rules[i].required) {
			continue;
		}
		memcpy(&value, (const char *)load->out + rules[i].offset, sizeof(value)); /* those required are all strings */
		if (value == NULL) {
			say(load->where, sizeof(load->where), "plugin_opt_%s", rules[i].name);
			return fail(load, ": is required: %s", rules[i].expected);
		}
	}
	return true;
}

/* `current` is NULL at the start; later its `config` is the file to read, whatever the pairs say. */
static bool load_all(const struct option_pair *pairs, size_t count, const struct options *current, struct options *out,
	char *error, size_t error_size)
{
	struct load load = {.out = out, .error = error, .error_size = error_size};
	bool ok = load_defaults(&load) && load_pairs(&load, pairs, count);
	const char *config = current != NULL ? current->config : out->config;

	ok = ok && (config == NULL || load_file(&load, config)) && check_required(&load);
	if (!ok) {
		options_free(out);
	}
	return ok;
}

bool options_load(const struct option_pair *pairs, size_t count, struct options *out, char *error, size_t error_size)
{
	if (error_size > 0) {
		error[0] = '\0';
	}
	return load_all(pairs, count, NULL, out, error, error_size);
}

/* ---- reload ---- */

static bool is_string(const struct option_rule *rule)
{
	return rule->kind == KIND_STRING || rule->kind == KIND_PATH;
}

static size_t scalar_size(const struct option_rule *rule)
{
	switch (rule->kind) {
	case KIND_BOOL:
	case KIND_REGISTRATION:
		return sizeof(bool);
	case KIND_SYNC:
		return sizeof(enum option_spool_sync);
	case KIND_RATE_PER_SECOND:
	case KIND_RATE_PER_MINUTE:
		return sizeof(struct rate_limit);
	default:
		return sizeof(int64_t);
	}
}

/* Gives the member back the value it has in `current`; *changed says whether it had another. False: no memory. */
static bool keep(const struct option_rule *rule, const struct options *current, struct options *out, bool *changed)
{
	const char *from = (const char *)current + rule->offset;
	char *to = (char *)out + rule->offset;

	if (is_string(rule)) {
		char *old;
		char *new;
		memcpy(&old, from, sizeof(old));
		memcpy(&new, to, sizeof(new));
		*changed = old == NULL ? new != NULL : new == NULL || strcmp(old, new) != 0;
		if (*changed) {
			free(new);
			new = old != NULL ? strdup(old) : NULL;
			memcpy(to, &new, sizeof(new));
		}
		return old == NULL || new != NULL;
	}
	*changed = memcmp(from, to, scalar_size(rule)) != 0;
	memcpy(to, from, scalar_size(rule));
	return true;
}

/* The notice: which options keep their value until the next start. */
static bool keep_fixed(const struct options *current, struct options *out, char *notice, size_t notice_size)
{
	struct buffer list;
	bool ok = true;

	buffer_init(&list, 512); /* all names together are shorter */
	for (size_t i = 0; i < RULES && ok; i++) {
		bool changed = false;
		if (rules[i].reloadable) {
			continue;
		}
		ok = keep(&rules[i], current, out, &changed);
		if (changed) {
			buffer_append_format(&list, "%s%s", list.length > 0 ? ", " : "", rules[i].name);
		}
	}
	if (list.length > 0) {
		say(notice, notice_size, "changed, but only read at the start of the broker: %.*s", (int)list.length, list.data);
	}
	buffer_free(&list);
	return ok;
}

bool options_reload(const struct option_pair *pairs, size_t count, const struct options *current, struct options *out,
	char *notice, size_t notice_size, char *error, size_t error_size)
{
	if (notice_size > 0) {
		notice[0] = '\0';
	}
	if (error_size > 0) {
		error[0] = '\0';
	}
	if (!load_all(pairs, count, current, out, error, error_size)) {
		return false;
	}
	if (!keep_fixed(current, out, notice, notice_size)) {
		say(error, error_size, "options: no memory");
		options_free(out);
		return false;
	}
	return true;
}

void options_free(struct options *options)
{
	for (size_t i = 0; i < RULES; i++) {
		if (is_string(&rules[i])) {
			char *text;
			memcpy(&text, (char *)options + rules[i].offset, sizeof(text));
			free(text);
		}
	}
	*options = (struct options){0};
}

void options_describe(struct buffer *out)
{
	for (size_t i = 0; i < RULES; i++) {
		const char *value = rules[i].default_text;
		if (value == NULL) {
			value = rules[i].required ? "(required)" : "(none)";
		}
		buffer_append_format(out, "%s\t%s\t%s\t%s\n", rules[i].name, value, rules[i].reloadable ? "reloadable" : "fixed",
			rules[i].help);
	}
}
