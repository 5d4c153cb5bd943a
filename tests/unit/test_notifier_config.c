/* test_notifier_config.c - the configuration file: what is read, and that a mistake is an error with its line. */
#include "config.h"

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

static char error[CONFIG_ERROR_SIZE];

static struct config *parse(const char *text)
{
	error[0] = '\0';
	return config_parse(text, strlen(text), "n.conf", error);
}

static void defaults(void **state)
{
	struct config *config = parse("# nothing but\n\n  database = dbname=chat user=x \r\n");
	(void)state;
	assert_non_null(config);
	assert_string_equal(config->database, "dbname=chat user=x");
	assert_int_equal(config->grace_ms, 3000);
	assert_int_equal(config->ttl_ms, 86400000);
	assert_int_equal(config->app_count, 0);
	assert_null(config->listen_address);
	config_free(config);
}

static void values(void **state)
{
	struct config *config = parse("database = x\ngrace = 0\nttl = 2h\npoll=500ms\nlisten = 127.0.0.1:9465\ndrain = 1min\n");
	(void)state;
	assert_non_null(config);
	assert_int_equal(config->grace_ms, 0);
	assert_int_equal(config->ttl_ms, 7200000);
	assert_int_equal(config->poll_ms, 500);
	assert_int_equal(config->drain_ms, 60000);
	assert_string_equal(config->listen_address, "127.0.0.1");
	assert_int_equal(config->listen_port, 9465);
	config_free(config);
}

static void mistakes(void **state)
{
	static const struct {
		const char *text, *message;
	} wrong[] = {
		{"", "n.conf:1: database is not given"},
		{"database =\n", "n.conf:1: database is empty"},
		{"database = x\ndatabase = y\n", "n.conf:2: database is given twice"},
		{"database = x\n\ngrase = 3s\n", "n.conf:3: unknown option grase (options of apps come after a [section])"},
		{"database = x\ngrace = 3\n",
			"n.conf:2: grace is a time such as 500ms, 3s, 10min, 2h or 1d, from 0ms to 3600000ms"},
		{"database = x\ngrace = -3s\n",
			"n.conf:2: grace is a time such as 500ms, 3s, 10min, 2h or 1d, from 0ms to 3600000ms"},
		{"database = x\nttl = 99999999999d\n",
			"n.conf:2: ttl is a time such as 500ms, 3s, 10min, 2h or 1d, from 60000ms to 2419200000ms"},
		{"database = x\nlisten = 9465\n", "n.conf:2: listen is address:port, such as 127.0.0.1:9465"},
		{"database = x\nprovider = fcm\n", "n.conf:2: unknown option provider (options of apps come after a [section])"},
		{"database = x\nhello\n", "n.conf:2: neither [section] nor name = value"},
		{"database = x\n[a\n", "n.conf:2: a section is [name]"},
		{"database = x\n[]\n", "n.conf:2: a section has a name of 1 to 200 bytes"},
		{"database = x\n[a]\n\n", "n.conf:2: [a] needs provider"},
		{"database = x\n[a]\ngrace = 3s\n", "n.conf:3: unknown option grace"},
		{"database = x\n[a]\nprovider = gcm\n", "n.conf:3: provider is fcm, apns or webpush"},
		{"database = x\n[a]\nprovider = webpush\ntopic = t\n", "n.conf:2: [a] topic is not for webpush"},
		{"database = x\n[a]\nprovider = webpush\ncontent = all\n", "n.conf:4: content is full, sender or none"},
		{"database = x\n[a]\nprovider = webpush\nbadge = yes\n", "n.conf:4: badge is on or off"},
		{"database = x\n[a]\nprovider = webpush\nin_flight = 0\n", "n.conf:4: in_flight is a number from 1 to 1000"},
		{"database = x\n[a]\nprovider = webpush\nconnections = 5\n", "n.conf:4: connections is a number from 1 to 4"},
		{"database = x\n[a]\nprovider = webpush\n", "n.conf:2: [a] needs key_file and subject"},
		{"database = x\nlease = 15s\n[a]\nprovider = webpush\n",
			"n.conf:3: [a] timeout must be shorter than lease: another notifier would send what is still under way"},
		{"database = x\n[a]\nprovider = webpush\nkey_file = k\nsubject = me\n",
			"n.conf:2: [a] subject is mailto:somebody@example.org or an https: address"},
		{"database = x\n[a]\nprovider = apns\n", "n.conf:2: [a] needs topic, the app's bundle id"},
		{"database = x\n[a]\nprovider = apns\ntopic = t\n",
			"n.conf:2: [a] needs either key_file (with key_id and team_id) or certificate"},
		{"database = x\n[a]\nprovider = apns\ntopic = t\nkey_file = k\n",
			"n.conf:2: [a] needs key_id and team_id with key_file"},
		{"database = x\n[a]\nprovider = apns\ntopic = t\nenvironment = test\n",
			"n.conf:2: [a] environment is production or sandbox"},
		{"database = x\n[a]\nprovider = fcm\n", "n.conf:2: [a] needs service_account"},
		{"database = x\n[a]\nprovider = fcm\nservice_account = /nowhere/x.json\n",
			"n.conf:2: /nowhere/x.json cannot be opened: No such file or directory"},
		{"database = x\ntemplates = /nowhere/t\n", "/nowhere/t: /nowhere/t cannot be opened: No such file or directory"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_null(parse(wrong[i].text));
		assert_string_equal(error, wrong[i].message);
	}
}

/* Secrets that others may read are refused. */
static void open_secrets(void **state)
{
	char path[] = "/tmp/chat-config-XXXXXX", text[300];
	int fd = mkstemp(path);
	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "{}", 2), 2);
	assert_int_equal(fchmod(fd, 0640), 0);
	close(fd);
	snprintf(text, sizeof(text), "database = x\n[a]\nprovider = fcm\nservice_account = %s\n", path);
	assert_null(parse(text));
	assert_non_null(strstr(error, "open to group or others (mode 0640)"));
	assert_int_equal(chmod(path, 0600), 0);
	assert_null(parse(text));
	assert_non_null(strstr(error, "is not a service account's key"));
	snprintf(text, sizeof(text), "database = x\n[a]\nprovider = apns\ntopic = t\ncertificate = %s\n", path);
	assert_int_equal(chmod(path, 0604), 0);
	assert_null(parse(text));
	assert_non_null(strstr(error, "open to group or others (mode 0604)"));
	unlink(path);
}

/* The table that documents are checked against names every option once for its place. */
static void table(void **state)
{
	(void)state;
	for (const struct config_option *one = config_options(); one->name; one++) {
		for (const struct config_option *other = one + 1; other->name; other++) {
			assert_true(strcmp(one->name, other->name) != 0);
		}
		assert_true(strlen(one->help) > 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(defaults), cmocka_unit_test(values), cmocka_unit_test(mistakes),
		cmocka_unit_test(open_secrets), cmocka_unit_test(table)};
	return cmocka_run_group_tests_name("notifier_config", tests, NULL, NULL);
}
