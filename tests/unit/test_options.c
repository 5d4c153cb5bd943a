/* test_options.c - defaults, every value's good and bad forms, the file, reload, and the words of each error line. */
#include "../../common/buffer.h"
#include "../../plugin/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define REQUIRED                                                                                                                 \
	{"database", "dbname=chat"},                                                                                             \
	{                                                                                                                        \
		"token_keys", "/keys/a.pem"                                                                                      \
	}

static char directory[256];
static char path[300]; /* of the config file */

static int make_directory(void **state)
{
	const char *root = getenv("TMPDIR");
	int length = snprintf(directory, sizeof(directory), "%s/chat-options-XXXXXX", root != NULL ? root : "/tmp");

	(void)state;
	if (length < 0 || (size_t)length >= sizeof(directory) || mkdtemp(directory) == NULL) {
		return -1;
	}
	return snprintf(path, sizeof(path), "%s/chat.conf", directory) > 0 ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(directory);
}

static void write_file_bytes(const char *bytes, size_t length)
{
	FILE *file = fopen(path, "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

static void write_file(const char *text)
{
	write_file_bytes(text, strlen(text));
}

static void load(const struct option_pair *pairs, size_t count, struct options *options)
{
	char error[1024];

	if (!options_load(pairs, count, options, error, sizeof(error))) {
		fail_msg("%s", error);
	}
	assert_string_equal(error, "");
}

static void expect_error(const struct option_pair *pairs, size_t count, const char *expected)
{
	struct options options;
	char error[1024] = "";

	if (options_load(pairs, count, &options, error, sizeof(error))) {
		fail_msg("accepted, but expected: %s", expected);
	}
	assert_string_equal(error, expected);
	assert_null(options.database);
}

/* ---- defaults ---- */

static void defaults(void **state)
{
	static const struct option_pair pairs[] = {REQUIRED};
	struct options options;

	(void)state;
	load(pairs, COUNT(pairs), &options);
	assert_string_equal(options.database, "dbname=chat");
	assert_string_equal(options.token_keys, "/keys/a.pem");
	assert_null(options.token_issuer);
	assert_null(options.token_audience);
	assert_null(options.token_signing_key);
	assert_int_equal(options.token_lifetime_s, 86400);
	assert_false(options.users_from_tokens);
	assert_false(options.scram);
	assert_false(options.guests);
	assert_false(options.registration_open);
	assert_string_equal(options.spool_dir, "/var/lib/mosquitto/chat-spool");
	assert_int_equal(options.spool_max_bytes, 1 << 30);
	assert_int_equal(options.spool_sync, SPOOL_SYNC_NONE);
	assert_int_equal(options.spool_sync_ms, 50);
	assert_int_equal(options.rate_messages.per_minute, 1200);
	assert_int_equal(options.rate_messages.burst, 100);
	assert_int_equal(options.rate_requests.per_minute, 600);
	assert_int_equal(options.rate_requests.burst, 50);
	assert_int_equal(options.rate_sign_in.per_minute, 5);
	assert_int_equal(options.rate_sign_in.burst, 5);
	assert_int_equal(options.rate_sign_in_address.per_minute, 60);
	assert_int_equal(options.rate_sign_in_address.burst, 60);
	assert_int_equal(options.body_max_chars, 100000);
	assert_int_equal(options.group_max_members, 100);
	assert_int_equal(options.receipt_interval_ms, 200);
	assert_int_equal(options.edit_window_s, 0);
	assert_int_equal(options.retention_days, 0);
	assert_int_equal(options.presence_grace_s, 10);
	assert_int_equal(options.writers, 2);
	assert_int_equal(options.request_workers, 4);
	assert_int_equal(options.search_share, 25);
	assert_null(options.config);
	options_free(&options);
}

static void every_option_set(void **state)
{
	static const struct option_pair pairs[] = {REQUIRED, {"token_issuer", "https://id.example.org"},
		{"token_audience", "chat"}, {"token_signing_key", "/keys/sign.pem"}, {"token_lifetime", "7d"},
		{"users_from_tokens", "true"}, {"scram", "true"}, {"guests", "true"}, {"registration", "open"},
		{"spool_dir", "/spool"}, {"spool_max_bytes", "64M"}, {"spool_sync", "always"}, {"spool_sync_ms", "10"},
		{"rate_messages", "1:2"}, {"rate_requests", "0"}, {"rate_sign_in", "3"}, {"rate_sign_in_address", "0"},
		{"body_max_chars", "2000"}, {"group_max_members", "1024"}, {"receipt_interval", "0"}, {"writers", "8"},
		{"request_workers", "16"}, {"search_share", "100"}};
	struct options options;

	(void)state;
	load(pairs, COUNT(pairs), &options);
	assert_string_equal(options.token_issuer, "https://id.example.org");
	assert_string_equal(options.token_audience, "chat");
	assert_string_equal(options.token_signing_key, "/keys/sign.pem");
	assert_int_equal(options.token_lifetime_s, 7 * 86400);
	assert_true(options.users_from_tokens);
	assert_true(options.scram);
	assert_true(options.guests);
	assert_true(options.registration_open);
	assert_string_equal(options.spool_dir, "/spool");
	assert_int_equal(options.spool_max_bytes, 64 << 20);
	assert_int_equal(options.spool_sync, SPOOL_SYNC_ALWAYS);
	assert_int_equal(options.spool_sync_ms, 10);
	assert_int_equal(options.rate_messages.per_minute, 60);
	assert_int_equal(options.rate_messages.burst, 2);
	assert_int_equal(options.rate_requests.per_minute, 0);
	assert_int_equal(options.rate_sign_in.per_minute, 3);
	assert_int_equal(options.rate_sign_in_address.per_minute, 0);
	assert_int_equal(options.body_max_chars, 2000);
	assert_int_equal(options.group_max_members, 1024);
	assert_int_equal(options.receipt_interval_ms, 0);
	assert_int_equal(options.writers, 8);
	assert_int_equal(options.request_workers, 16);
	assert_int_equal(options.search_share, 100);
	options_free(&options);
}

/* ---- one value ---- */

struct value_case {
	const char *name;
	const char *value;
	bool good;
};

static const struct value_case value_cases[] = {
	{"writers", "1", true},
	{"writers", "64", true},
	{"writers", "0", false},
	{"writers", "65", false},
	{"writers", "02", false},
	{"writers", "+2", false},
	{"writers", "-2", false},
	{"writers", "2 ", false},
	{"writers", "2.0", false},
	{"writers", "0x2", false},
	{"writers", "two", false},
	{"writers", "18446744073709551618", false}, /* 2^64 + 2 */
	{"writers", "99999999999999999999999", false},
	{"body_max_chars", "300000", true},
	{"body_max_chars", "300001", false},
	{"edit_window", "15m", true},
	{"edit_window", "-1", false},
	{"retention_days", "36500", true},
	{"retention_days", "36501", false},
	{"retention_days", "30d", false},
	{"group_max_members", "2", true},
	{"group_max_members", "1", false},
	{"receipt_interval", "60000", true},
	{"receipt_interval", "60001", false},
	{"receipt_interval", "-1", false},
	{"presence_grace", "0", true},
	{"presence_grace", "5m", true},
	{"presence_grace", "301", false},
	{"presence_grace", "-1", false},
	{"guests", "true", true},
	{"guests", "false", true},
	{"guests", "yes", false},
	{"guests", "True", false},
	{"guests", "1", false},
	{"registration", "open", true},
	{"registration", "closed", true},
	{"registration", "true", false},
	{"spool_sync", "none", true},
	{"spool_sync", "interval", true},
	{"spool_sync", "never", false},
	{"spool_max_bytes", "4M", true},
	{"spool_max_bytes", "4194304", true},
	{"spool_max_bytes", "4194303", false},
	{"spool_max_bytes", "4096K", true},
	{"spool_max_bytes", "4096k", true},
	{"spool_max_bytes", "1T", true},
	{"spool_max_bytes", "1024G", true},
	{"spool_max_bytes", "1025G", false},
	{"spool_max_bytes", "2T", false},
	{"spool_max_bytes", "9999999999999T", false},
	{"spool_max_bytes", "1GB", false},
	{"spool_max_bytes", "G", false},
	{"spool_max_bytes", "1 G", false},
	{"spool_max_bytes", "1.5G", false},
	{"spool_max_bytes", "-1G", false},
	{"spool_max_bytes", "0", false},
	{"token_lifetime", "1", true},
	{"token_lifetime", "90s", true},
	{"token_lifetime", "30m", true},
	{"token_lifetime", "24H", true},
	{"token_lifetime", "365d", true},
	{"token_lifetime", "366d", false},
	{"token_lifetime", "0s", false},
	{"token_lifetime", "1w", false},
	{"token_lifetime", "1h30m", false},
	{"token_lifetime", "h", false},
	{"rate_messages", "0", true},
	{"rate_messages", "20:100", true},
	{"rate_messages", "1000000:1000000", true},
	{"rate_messages", "1000001:1", false},
	{"rate_messages", "20", false},
	{"rate_messages", "20:", false},
	{"rate_messages", ":100", false},
	{"rate_messages", ":", false},
	{"rate_messages", "0:0", false},
	{"rate_messages", "20:0", false},
	{"rate_messages", "0:100", false},
	{"rate_messages", "20:100:5", false},
	{"rate_messages", "20 : 100", false},
	{"rate_messages", "00", false},
	{"rate_sign_in", "0", true},
	{"rate_sign_in", "1000000", true},
	{"rate_sign_in", "5:5", false},
	{"rate_sign_in", "1000001", false},
	{"spool_dir", "/a b/c", true},
	{"spool_dir", "relative", false},
	{"spool_dir", "", false},
	{"token_issuer", "", false},
	{"token_issuer", "a\nb", false},
	{"token_issuer", "a\x7f", false},
	{"token_issuer", "gr\xc3\xbc\xc3\x9f", true},
};

static void values(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(value_cases); i++) {
		const struct option_pair pairs[] = {REQUIRED, {value_cases[i].name, value_cases[i].value}};
		struct options options;
		char error[1024] = "";
		bool ok = options_load(pairs, COUNT(pairs), &options, error, sizeof(error));
		if (ok) {
			options_free(&options);
		}
		if (ok != value_cases[i].good) {
			fail_msg("%s \"%s\": %s", value_cases[i].name, value_cases[i].value, ok ? "accepted" : error);
		}
		if (!ok) {
			char start[64];
			assert_true(snprintf(start, sizeof(start), "plugin_opt_%s: ", value_cases[i].name) > 0);
			assert_int_equal(strncmp(error, start, strlen(start)), 0);
			assert_null(strchr(error, '\n'));
		}
	}
}

static void long_values(void **state)
{
	static char value[4098];
	const struct option_pair pairs[] = {REQUIRED, {"token_audience", value}};
	struct options options;

	(void)state;
	memset(value, 'a', 4096);
	load(pairs, COUNT(pairs), &options);
	assert_int_equal(strlen(options.token_audience), 4096);
	options_free(&options);
	value[4096] = 'a';
	expect_error(pairs, COUNT(pairs),
		"plugin_opt_token_audience: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\" is not a text of "
		"1 to 4096 "
		"printable bytes");
}

/* ---- what the lines say ---- */

struct line_case {
	struct option_pair pair;
	const char *error;
};

static const struct line_case line_cases[] = {
	{{"writers", "abc"}, "plugin_opt_writers: \"abc\" is not a whole number from 1 to 64"},
	{{"guests", "yes"}, "plugin_opt_guests: \"yes\" is not true or false"},
	{{"registration", "on"}, "plugin_opt_registration: \"on\" is not open or closed"},
	{{"spool_sync", "fsync"}, "plugin_opt_spool_sync: \"fsync\" is not none, interval or always"},
	{{"spool_max_bytes", "1GB"}, "plugin_opt_spool_max_bytes: \"1GB\" is not a size from 4M to 1024G, as in 1G or 512M"},
	{{"token_lifetime", "1w"}, "plugin_opt_token_lifetime: \"1w\" is not a time from 1s to 365d, as in 90s, 30m, 24h or 7d"},
	{{"rate_messages", "20"},
		"plugin_opt_rate_messages: \"20\" is not N:BURST (per second and burst, each 1 to 1000000), as in "
		"20:100, or 0 for no limit"},
	{{"rate_sign_in", "5/min"},
		"plugin_opt_rate_sign_in: \"5/min\" is not a number per minute from 1 to 1000000, or 0 for no limit"},
	{{"spool_dir", "spool"}, "plugin_opt_spool_dir: \"spool\" is not an absolute path, as in /etc/mosquitto/chat.conf"},
	{{"writers", ""}, "plugin_opt_writers: no value; it must be a whole number from 1 to 64"},
	{{"writers", NULL}, "plugin_opt_writers: no value; it must be a whole number from 1 to 64"},
	/* threat 38 */
	{{"writers", "1\n2\x1b[31m%n\""}, "plugin_opt_writers: \"1\\x0a2\\x1b[31m%n\\x22\" is not a whole number from 1 to 64"},
	/* a misspelt name */
	{{"rate_mesages", "1"}, "plugin_opt_rate_mesages: no such option; did you mean rate_messages?"},
	{{"writer", "1"}, "plugin_opt_writer: no such option; did you mean writers?"},
	{{"Writers", "1"}, "plugin_opt_Writers: no such option; did you mean writers?"},
	{{"token-keys", "1"}, "plugin_opt_token-keys: no such option; did you mean token_keys?"},
	{{"body_max_char", "1"}, "plugin_opt_body_max_char: no such option; did you mean body_max_chars?"},
	{{"guest", "1"}, "plugin_opt_guest: no such option; did you mean guests?"},
	{{"scam", "1"}, "plugin_opt_scam: no such option; did you mean scram?"},
	{{"colour", "1"}, "plugin_opt_colour: no such option; docs/reference.md lists them"},
	{{"x", "1"}, "plugin_opt_x: no such option; docs/reference.md lists them"},
	{{"", "1"}, "plugin_opt_: no such option; docs/reference.md lists them"},
	{{"plugin_opt_writers", "1"},
		"plugin_opt_plugin_opt_writers: no such option: names stand here without the prefix plugin_opt_"},
	{{"a_name_that_is_much_longer_than_any_option_is", "1"},
		"plugin_opt_a_name_that_is_much_longer_than_: no such option; docs/reference.md lists them"},
	/* no secret, whatever was mistyped */
	{{"databse", "password=hunter2"}, "plugin_opt_databse: no such option; did you mean database?"},
	{{"database=dbname=chat password=hunter2", ""}, "plugin_opt_database: a name ends in a blank, and the value follows"},
	{{"database=password=hunter2", "x"}, "plugin_opt_database: a name ends in a blank, and the value follows"},
	{{"token_keys", "hs256:hunter2\n"},
		"plugin_opt_token_keys: the value (not shown) is not a comma-separated list of key files, as in "
		"/etc/mosquitto/chat/token.pem,hs256:/etc/mosquitto/chat/secret"},
	{{"database", "password=hunter2\x01"}, "plugin_opt_database: the value (not shown) is not a libpq connection string, as "
					       "in host=/run/postgresql dbname=chat "
					       "user=chat_plugin"},
	{{"database", ""},
		"plugin_opt_database: no value; it must be a libpq connection string, as in host=/run/postgresql dbname=chat "
		"user=chat_plugin"},
};

static void lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(line_cases); i++) {
		expect_error(&line_cases[i].pair, 1, line_cases[i].error);
		assert_null(strstr(line_cases[i].error, "hunter2"));
	}
}

static void required(void **state)
{
	static const struct option_pair only_keys[] = {{"token_keys", "/k"}};
	static const struct option_pair only_database[] = {{"database", "dbname=chat"}};

	(void)state;
	expect_error(only_keys, 1,
		"plugin_opt_database: is required: a libpq connection string, as in host=/run/postgresql dbname=chat "
		"user=chat_plugin");
	expect_error(only_database, 1,
		"plugin_opt_token_keys: is required: a comma-separated list of key files, as in "
		"/etc/mosquitto/chat/token.pem,hs256:/etc/mosquitto/chat/secret");
	expect_error(NULL, 0,
		"plugin_opt_database: is required: a libpq connection string, as in host=/run/postgresql dbname=chat "
		"user=chat_plugin");
}

static void given_twice(void **state)
{
	static const struct option_pair pairs[] = {REQUIRED, {"writers", "2"}, {"guests", "true"}, {"writers", "2"}};

	(void)state;
	expect_error(pairs, COUNT(pairs), "plugin_opt_writers: is given twice");
}

static void short_error_buffer(void **state)
{
	static const struct option_pair pair = {"writers", "abc"};
	struct options options;
	char error[24];

	(void)state;
	assert_false(options_load(&pair, 1, &options, error, sizeof(error)));
	assert_string_equal(error, "plugin_opt_writers: ...");
	assert_false(options_load(&pair, 1, &options, error, 0));
}

/* ---- the file ---- */

static void file_wins(void **state)
{
	const struct option_pair pairs[] = {{"database", "dbname=chat"}, {"writers", "3"}, {"config", path}, {"guests", "true"}};
	struct options options;

	(void)state;
	write_file("# limits\n"
		   "\n"
		   "token_keys /keys/a.pem\r\n"
		   "  rate_messages\t 5:7  \n"
		   "\t# indented comment\n"
		   "guests false\n"
		   "database host=/run/postgresql dbname=other password='a # b'\n"
		   "body_max_chars 10"); /* no newline at the end */
	load(pairs, COUNT(pairs), &options);
	assert_string_equal(options.token_keys, "/keys/a.pem");
	assert_string_equal(options.database, "host=/run/postgresql dbname=other password='a # b'");
	assert_int_equal(options.rate_messages.per_minute, 300);
	assert_int_equal(options.rate_messages.burst, 7);
	assert_int_equal(options.body_max_chars, 10);
	assert_int_equal(options.writers, 3);
	assert_false(options.guests);
	assert_string_equal(options.config, path);
	options_free(&options);
}

struct file_case {
	const char *text;
	const char *error; /* behind the path */
};

static const struct file_case file_cases[] = {
	{"writers abc\n", ":1: writers: \"abc\" is not a whole number from 1 to 64"},
	{"# one\n\nguests maybe\n", ":3: guests: \"maybe\" is not true or false"},
	{"writers\n", ":1: writers: no value; it must be a whole number from 1 to 64"},
	{"writers   \n", ":1: writers: no value; it must be a whole number from 1 to 64"},
	{"writers 2\nwriters 2\n", ":2: writers: is given twice"},
	{"writrs 2\n", ":1: writrs: no such option; did you mean writers?"},
	{"plugin_opt_writers 2\n", ":1: plugin_opt_writers: no such option: names stand here without the prefix plugin_opt_"},
	{"config /etc/other.conf\n", ":1: config: may only be a plugin_opt_config line of mosquitto.conf"},
	{"guests = true\n", ":1: guests: \"= true\" is not true or false"},
	{"guests=true\n", ":1: after \"guests\": a line is a name, a blank and a value"},
	{"database=password=hunter2\n", ":1: after \"database\": a line is a name, a blank and a value"},
	{"\"hunter2\"\n", ":1: after \"\": a line is a name, a blank and a value"},
	{"\xef\xbb\xbfguests true\n", ":1: after \"\": a line is a name, a blank and a value"},
	{"a_name_that_is_much_longer_than_any_option_is 1\n",
		":1: after \"a_name_that_is_much_longer_than_\": a line is a name, a blank and a value"},
	{"database dbname=chat\tpassword=hunter2\n",
		":1: database: the value (not shown) is not a libpq connection string, as in host=/run/postgresql dbname=chat "
		"user=chat_plugin"},
	{"guests true \x1b[0m\n", ":1: guests: \"true \\x1b[0m\" is not true or false"},
};

static void file_lines(void **state)
{
	const struct option_pair pairs[] = {REQUIRED, {"config", path}};

	(void)state;
	for (size_t i = 0; i < COUNT(file_cases); i++) {
		char expected[1024];
		write_file(file_cases[i].text);
		assert_true(snprintf(expected, sizeof(expected), "%s%s", path, file_cases[i].error) < (int)sizeof(expected));
		expect_error(pairs, COUNT(pairs), expected);
		assert_null(strstr(expected, "hunter2"));
	}
}

static void expect_file_error(const char *file, const char *what)
{
	const struct option_pair pairs[] = {REQUIRED, {"config", file}};
	char expected[1024];

	assert_true(snprintf(expected, sizeof(expected), "plugin_opt_config: %s: %s", file, what) < (int)sizeof(expected));
	expect_error(pairs, COUNT(pairs), expected);
}

static void files_that_are_none(void **state)
{
	static char large[65538];
	struct options options;
	const struct option_pair pairs[] = {REQUIRED, {"config", path}};

	(void)state;
	(void)unlink(path);
	expect_file_error(path, "cannot be opened: No such file or directory");
	expect_file_error(directory, "is not a file");
	expect_file_error("/dev/null", "is not a file");
	assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes: waiting for it would stop the broker */
	expect_file_error(path, "is not a file");
	assert_int_equal(unlink(path), 0);
	memset(large, '\n', sizeof(large));
	write_file_bytes(large, 65537);
	expect_file_error(path, "is no text of at most 65536 bytes");
	write_file_bytes(large, 65536);
	load(pairs, COUNT(pairs), &options);
	options_free(&options);
	write_file_bytes("guests\0true\n", 12);
	expect_file_error(path, "is no text of at most 65536 bytes");
	write_file("");
	load(pairs, COUNT(pairs), &options);
	options_free(&options);
}

/* ---- reload ---- */

static void reload_takes_limits(void **state)
{
	const struct option_pair pairs[] = {REQUIRED, {"config", path}, {"group_max_members", "50"}};
	struct options current;
	struct options next;
	char notice[1024];
	char error[1024];

	(void)state;
	write_file("rate_messages 5:7\nguests true\n");
	load(pairs, COUNT(pairs), &current);
	write_file("rate_messages 6:8\nregistration open\ntoken_keys /keys/b.pem\ntoken_issuer me\ntoken_lifetime 1h\n"
		   "token_signing_key /keys/s.pem\n");
	assert_true(options_reload(pairs, COUNT(pairs), &current, &next, notice, sizeof(notice), error, sizeof(error)));
	assert_string_equal(notice, "");
	assert_string_equal(error, "");
	assert_int_equal(next.rate_messages.per_minute, 360);
	assert_int_equal(next.rate_messages.burst, 8);
	assert_false(next.guests); /* its line is gone, so is its value */
	assert_true(next.registration_open);
	assert_string_equal(next.token_keys, "/keys/b.pem");
	assert_string_equal(next.token_issuer, "me");
	assert_string_equal(next.token_signing_key, "/keys/s.pem");
	assert_int_equal(next.token_lifetime_s, 3600);
	assert_int_equal(next.group_max_members, 50);
	options_free(&current);
	assert_string_equal(next.database, "dbname=chat"); /* nothing is shared with what was */
	options_free(&next);
}

static void reload_keeps_what_is_fixed(void **state)
{
	const struct option_pair pairs[] = {REQUIRED, {"config", path}};
	const struct option_pair elsewhere[] = {REQUIRED, {"config", "/nonexistent/other.conf"}};
	struct options current;
	struct options next;
	char notice[1024];
	char error[1024];

	(void)state;
	write_file("writers 3\n");
	load(pairs, COUNT(pairs), &current);
	write_file("writers 5\ndatabase password=hunter2\nspool_dir /other\nscram true\nspool_sync always\nbody_max_chars 9\n");
	assert_true(options_reload(pairs, COUNT(pairs), &current, &next, notice, sizeof(notice), error, sizeof(error)));
	assert_string_equal(
		notice, "changed, but only read at the start of the broker: database, scram, spool_dir, spool_sync, writers");
	assert_int_equal(next.writers, 3);
	assert_string_equal(next.database, "dbname=chat");
	assert_string_equal(next.spool_dir, "/var/lib/mosquitto/chat-spool");
	assert_false(next.scram);
	assert_int_equal(next.spool_sync, SPOOL_SYNC_NONE);
	assert_int_equal(next.body_max_chars, 9);
	options_free(&next);

	write_file("writers 3\n");
	assert_true(options_reload(elsewhere, COUNT(elsewhere), &current, &next, notice, sizeof(notice), error, sizeof(error)));
	assert_string_equal(notice, "changed, but only read at the start of the broker: config");
	assert_string_equal(next.config, path);
	assert_int_equal(next.writers, 3);
	options_free(&next);
	options_free(&current);
}

/* A broker that was started without a file does not begin to read one. */
static void reload_without_file(void **state)
{
	static const struct option_pair pairs[] = {REQUIRED};
	static const struct option_pair with_file[] = {REQUIRED, {"config", "/nonexistent/other.conf"}};
	struct options current;
	struct options next;
	char notice[1024];
	char error[1024];

	(void)state;
	load(pairs, COUNT(pairs), &current);
	assert_true(options_reload(with_file, COUNT(with_file), &current, &next, notice, sizeof(notice), error, sizeof(error)));
	assert_string_equal(notice, "changed, but only read at the start of the broker: config");
	assert_null(next.config);
	options_free(&next);
	options_free(&current);
}

static void reload_of_a_mistake(void **state)
{
	const struct option_pair pairs[] = {REQUIRED, {"config", path}};
	struct options current;
	struct options next;
	char notice[1024];
	char error[1024];
	char expected[1024];

	(void)state;
	write_file("writers 3\n");
	load(pairs, COUNT(pairs), &current);
	write_file("rate_messages 5:7\nwriters many\n");
	assert_false(options_reload(pairs, COUNT(pairs), &current, &next, notice, sizeof(notice), error, sizeof(error)));
	assert_true(snprintf(expected, sizeof(expected), "%s:2: writers: \"many\" is not a whole number from 1 to 64", path) > 0);
	assert_string_equal(error, expected);
	assert_string_equal(notice, "");
	assert_int_equal(current.writers, 3);
	assert_int_equal(unlink(path), 0);
	assert_false(options_reload(pairs, COUNT(pairs), &current, &next, notice, sizeof(notice), error, sizeof(error)));
	assert_non_null(strstr(error, "cannot be opened"));
	options_free(&current);
}

/* ---- the table, as the documentation check reads it ---- */

static const char expected_table[] = "database (required) fixed\n"
				     "token_keys (required) reloadable\n"
				     "token_issuer (none) reloadable\n"
				     "token_audience (none) reloadable\n"
				     "token_signing_key (none) reloadable\n"
				     "token_lifetime 24h reloadable\n"
				     "users_from_tokens false reloadable\n"
				     "scram false fixed\n"
				     "guests false reloadable\n"
				     "registration closed reloadable\n"
				     "spool_dir /var/lib/mosquitto/chat-spool fixed\n"
				     "spool_max_bytes 1G fixed\n"
				     "spool_sync none fixed\n"
				     "spool_sync_ms 50 fixed\n"
				     "rate_messages 20:100 reloadable\n"
				     "rate_requests 10:50 reloadable\n"
				     "rate_sign_in 5 reloadable\n"
				     "rate_sign_in_address 60 reloadable\n"
				     "body_max_chars 100000 reloadable\n"
				     "group_max_members 100 reloadable\n"
				     "receipt_interval 200 reloadable\n"
				     "edit_window 0 reloadable\n"
				     "retention_days 0 reloadable\n"
				     "presence_grace 10s reloadable\n"
				     "writers 2 fixed\n"
				     "request_workers 4 fixed\n"
				     "search_share 25 fixed\n"
				     "config (none) fixed\n";

static void table(void **state)
{
	struct buffer described;
	struct buffer short_form;
	const char *at;
	const char *end;

	(void)state;
	buffer_init(&described, 100000);
	buffer_init(&short_form, 100000);
	options_describe(&described);
	assert_false(described.failed);
	end = described.data + described.length;
	for (at = described.data; at < end;) {
		/* name, default, reloadable, help */
		const char *line_end = memchr(at, '\n', (size_t)(end - at));
		assert_non_null(line_end);
		unsigned tabs = 0;
		for (; at < line_end; at++) {
			if (*at == '\t') {
				tabs++;
			}
			if (tabs < 3) {
				buffer_append(&short_form, *at == '\t' ? " " : at, 1);
			}
		}
		assert_int_equal(tabs, 3);
		assert_true(line_end[-1] != '\t'); /* there is help */
		buffer_append(&short_form, "\n", 1);
		at = line_end + 1;
	}
	assert_int_equal(short_form.length, strlen(expected_table));
	assert_memory_equal(short_form.data, expected_table, short_form.length);
	buffer_free(&described);
	buffer_free(&short_form);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(every_option_set),
		cmocka_unit_test(values),
		cmocka_unit_test(long_values),
		cmocka_unit_test(lines),
		cmocka_unit_test(required),
		cmocka_unit_test(given_twice),
		cmocka_unit_test(short_error_buffer),
		cmocka_unit_test(file_wins),
		cmocka_unit_test(file_lines),
		cmocka_unit_test(files_that_are_none),
		cmocka_unit_test(reload_takes_limits),
		cmocka_unit_test(reload_keeps_what_is_fixed),
		cmocka_unit_test(reload_without_file),
		cmocka_unit_test(reload_of_a_mistake),
		cmocka_unit_test(table),
	};

	return cmocka_run_group_tests_name("options", tests, make_directory, remove_directory);
}
