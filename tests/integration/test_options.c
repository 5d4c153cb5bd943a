/* test_options.c - what the broker does not start with, and what it says then. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

/* Refused, and one line of what the log has more now holds both texts. */
static void refuse(struct fixture *fixture, const char *const options[], const char *what, const char *why)
{
	char *log = file_read(fixture->broker.log);
	size_t before = strlen(log);
	bool said = false;
	free(log);
	print_message("%s: %s\n", what, why);
	fixture_configure(fixture, options, NULL);
	assert_int_not_equal(broker_start_refused(&fixture->broker), 0);
	log = file_read(fixture->broker.log);
	char *line = log + before;
	for (char *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (strstr(line, "chat: "))
			print_message("%s\n", line);
		said = said || (strstr(line, "chat: cannot start") && strstr(line, what) && strstr(line, why));
	}
	free(log);
	if (!said)
		fail_msg("no such line in the log: %s ... %s", what, why);
}

static void test_bad_options_are_refused(void **state)
{
	struct fixture *fixture = *state;
	const struct {
		const char *option, *what, *why;
	} cases[] = {
		{"rate_mesages 5:10", "plugin_opt_rate_mesages", "rate_messages"}, /* what was probably meant */
		{"no_such_thing 1", "plugin_opt_no_such_thing", ""},
		{"writers 0", "plugin_opt_writers", "1"},
		{"writers two", "plugin_opt_writers", "two"},
		{"writers 2x", "plugin_opt_writers", "2x"},
		{"writers 99999999999999999999", "plugin_opt_writers", ""},
		{"rate_messages fast", "plugin_opt_rate_messages", "fast"},
		{"rate_messages 5:", "plugin_opt_rate_messages", ""},
		{"spool_sync sometimes", "plugin_opt_spool_sync", "interval"},
		{"users_from_tokens yes", "plugin_opt_users_from_tokens", "true"},
		{"spool_max_bytes 1X", "plugin_opt_spool_max_bytes", "1X"},
		{"token_lifetime 1w", "plugin_opt_token_lifetime", "1w"},
		{"registration maybe", "plugin_opt_registration", "open"},
		{"database -", "plugin_opt_database", ""},
		{"token_keys -", "plugin_opt_token_keys", ""},
		{"config /nowhere/chat.conf", "/nowhere/chat.conf", "No such file"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *options[] = {cases[i].option, NULL};
		refuse(fixture, options, cases[i].what, cases[i].why);
	}
}

static void test_option_given_twice_is_refused(void **state)
{
	struct fixture *fixture = *state;
	const char *options[] = {"writers 2", "writers 3", NULL};
	refuse(fixture, options, "plugin_opt_writers", "twice");
}

static void test_bad_keys_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct signing_key *secret = fixture_make_key(fixture, "secret", SIGNING_HS256);
	const char *keys = text_of("%s/keys", fixture->directory);
	signing_key_free(secret);

	const char *missing[] = {text_of("token_keys %s/none.pem", keys), NULL};
	refuse(fixture, missing, "none.pem", "No such file");
	const char *empty_list[] = {text_of("token_keys %s,", fixture->public_key), NULL};
	refuse(fixture, empty_list, "token_keys", "");
	file_write(text_of("%s/rubbish.pem", keys), "rubbish", 0644, &fixture->broker.account);
	const char *rubbish[] = {text_of("token_keys %s/rubbish.pem", keys), NULL};
	refuse(fixture, rubbish, "rubbish.pem", "");
	/* A secret that others can read is none. */
	check(chmod(text_of("%s/secret.pem", keys), 0644) == 0);
	const char *open[] = {text_of("token_keys hs256:%s/secret.pem", keys), NULL};
	refuse(fixture, open, "secret.pem", "");
	file_write(text_of("%s/short.key", keys), "31 bytes are not quite enough..", 0600, &fixture->broker.account);
	const char *brief[] = {text_of("token_keys hs256:%s/short.key", keys), NULL};
	refuse(fixture, brief, "short.key", "32");
	const char *same[] = {text_of("token_keys %s,%s", fixture->public_key, fixture->public_key), NULL};
	refuse(fixture, same, "test.pem", "");
	if (geteuid() == 0) {
		file_write(text_of("%s/closed.pem", keys), "closed", 0600, NULL);
		const char *closed[] = {text_of("token_keys %s/closed.pem", keys), NULL};
		refuse(fixture, closed, "closed.pem", "Permission denied");
	}
	/* No secret in the log, not even of a key that was refused. */
	assert_int_equal(broker_log_count(&fixture->broker, "31 bytes are not"), 0);
	assert_int_equal(broker_log_count(&fixture->broker, "which is longer than"), 0);
}

/* A key that makes tokens which are refused here is a mistake that shows at the start, not at the first sign-in. */
static void test_signing_key_must_be_known(void **state)
{
	struct fixture *fixture = *state;
	signing_key_free(fixture_make_key(fixture, "other", SIGNING_ES256));
	char *key = file_read(text_of("%s/private/other.pem", fixture->directory));
	const char *other = text_of("%s/broker/other.pem", fixture->directory),
		   *name = text_of("%s/broker/test.pem", fixture->directory);
	file_write(other, key, 0600, &fixture->broker.account);
	file_write(name, key, 0600, &fixture->broker.account); /* the name of one of token_keys, and another key */
	free(key);
	const char *unknown[] = {text_of("token_signing_key %s", other), NULL};
	refuse(fixture, unknown, "plugin_opt_token_signing_key", "among token_keys");
	const char *wrong[] = {text_of("token_signing_key %s", name), NULL};
	refuse(fixture, wrong, "plugin_opt_token_signing_key", "among token_keys");
	const char *public[] = {text_of("token_signing_key %s", fixture->public_key), NULL};
	refuse(fixture, public, "plugin_opt_token_signing_key", "a private key is needed");
	const char *known[] = {text_of("token_signing_key %s", other),
		text_of("token_keys %s,%s/keys/other.pem", fixture->public_key, fixture->directory), NULL};
	fixture_configure(fixture, known, NULL);
	broker_start(&fixture->broker);
	broker_stop(&fixture->broker);
}

/* threat 60: one database has one broker. */
static void test_second_broker_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct broker first = fixture->broker;
	fixture_configure(fixture, NULL, NULL);
	broker_start(&fixture->broker);
	struct broker second = fixture->broker;
	second.process = (struct process){0};
	check(snprintf(second.configuration, sizeof second.configuration, "%s/second.conf", fixture->broker.directory) > 0);
	check(snprintf(second.log, sizeof second.log, "%s/second.log", fixture->directory) > 0);
	char conninfo[PATH_SIZE * 2];
	mkdir(text_of("%s/spool2", fixture->broker.directory), 0700);
	check(chown(text_of("%s/spool2", fixture->broker.directory), first.account.uid, first.account.gid) == 0);
	broker_configure(&second,
		text_of("plugin %s\nplugin_opt_database %s\nplugin_opt_token_keys %s\nplugin_opt_spool_dir %s/spool2\n",
			fixture->plugin, postgres_conninfo(&fixture->postgres, "chat_plugin", conninfo), fixture->public_key,
			fixture->broker.directory),
		NULL);
	assert_int_not_equal(broker_start_refused(&second), 0);
	assert_int_equal(broker_log_count(&second, "chat: cannot start"), 1);
	assert_int_equal(broker_log_count(&second, "another broker"), 1);
	broker_stop(&fixture->broker);
}

/* A schema that is not there, or too old, is said. */
static void test_wrong_schema_is_refused(void **state)
{
	struct fixture *fixture = *state;
	const char *options[] = {text_of("database host=%s dbname=postgres user=chat_plugin", fixture->postgres.socket), NULL};
	refuse(fixture, options, "migrate", "");
}

/* With per_listener_settings true Mosquitto 2.0 gives no ticks; the plugin says so, once, and how to mend it. */
static void test_missing_ticks_are_said(void **state)
{
	struct fixture *fixture = *state;
	fixture_configure(fixture, NULL, NULL);
	char *text = file_read(fixture->broker.configuration), *line = strstr(text, "per_listener_settings false");
	check(line != NULL);
	memcpy(line, "per_listener_settings true ", 27);
	/* The plugin then belongs to a listener: its lines must follow it. */
	char *plugin = strstr(text, "\nplugin "), *listener = strstr(text, "\nlistener ");
	check(plugin && listener && plugin < listener);
	char *moved = NULL;
	check(asprintf(&moved, "%.*s\nlistener %d 127.0.0.1\nallow_anonymous false%.*s\n", (int)(plugin - text), text,
		      fixture->broker.port, (int)(listener - plugin), plugin) > 0);
	file_write(fixture->broker.configuration, moved, 0600, &fixture->broker.account);
	free(moved);
	free(text);
	broker_start(&fixture->broker);
	/* Callbacks that look at the clock notice it: one comes with each connection. */
	int64_t deadline_ms = now_ms() + 30000;
	while (broker_log_count(&fixture->broker, "per_listener_settings false") == 0) {
		assert_true(now_ms() < deadline_ms);
		char *token = fixture_token(fixture, ALICE, 0, 600);
		struct client_options options = {.port = fixture->broker.port, .version = 4, .user = "u", .password = token};
		client_close(client_try(&options));
		free(token);
		look_again_soon();
	}
	broker_stop(&fixture->broker);
	assert_int_equal(broker_log_count(&fixture->broker, "no ticks"), 1);
}

/* Exchanges the one place that holds `from`; frees the text it was given. */
static char *exchange(char *text, const char *from, const char *to)
{
	char *at = strstr(text, from), *exchanged = NULL;
	if (!at)
		fail_msg("mosquitto.conf no longer says: %s", from);
	check(asprintf(&exchanged, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
	free(text);
	return exchanged;
}

/* The shipped mosquitto.conf, with this machine's paths and ports, starts and serves on both listeners, TLS included. */
static void test_sample_configuration(void **state)
{
	struct fixture *fixture = *state;
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *certificate = text_of("%s/keys/server.crt", fixture->directory),
		   *key = text_of("%s/keys/server.key", fixture->directory);
	const char *openssl[] = {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-days", "2", "-subj", "/CN=localhost", "-out", certificate, "-keyout", key, NULL};
	char conninfo[PATH_SIZE * 2], *text = file_read(CHAT_SOURCE_DIR "/mosquitto.conf");
	process_run("openssl", openssl, NULL, &self, text_of("%s/openssl.log", fixture->directory));
	check(geteuid() != 0 || chown(key, fixture->broker.account.uid, fixture->broker.account.gid) == 0);
	fixture->broker.port = free_port();
	fixture->broker.websocket_port = free_port();
	text = exchange(text, "pid_file /run/mosquitto/mosquitto.pid", "");
	text = exchange(text, "log_dest file /var/log/mosquitto/mosquitto.log", "log_dest stderr");
	text = exchange(text, "plugin /usr/lib/x86_64-linux-gnu/mosquitto_chat.so", text_of("plugin %s", fixture->plugin));
	text = exchange(text, "host=/run/postgresql dbname=chat user=chat_plugin",
		postgres_conninfo(&fixture->postgres, "chat_plugin", conninfo));
	text = exchange(text, "plugin_opt_token_keys /etc/mosquitto/chat/token.pem",
		text_of("plugin_opt_token_keys %s", fixture->public_key));
	text = exchange(text, "#plugin_opt_spool_dir /var/lib/mosquitto/chat-spool",
		text_of("plugin_opt_spool_dir %s/spool", fixture->broker.directory));
	text = exchange(text, "listener 8883", text_of("listener %d 127.0.0.1", fixture->broker.port));
	text = exchange(text, "/etc/mosquitto/certs/server.crt", certificate);
	text = exchange(text, "/etc/mosquitto/certs/server.key", key);
	text = exchange(text, "listener 9001", text_of("listener %d 127.0.0.1", fixture->broker.websocket_port));
	file_write(fixture->broker.configuration, text, 0600, &fixture->broker.account);
	free(text);
	broker_start(&fixture->broker);

	struct client *client = fixture_client_with(fixture, ALICE, (struct client_options){.version = 5, .websocket = true});
	fixture_await_loaded(client);
	char *token = fixture_token(fixture, BOB, 0, 600);
	const char *publish[] = {"mosquitto_pub", "-h", "localhost", "-p", text_of("%d", fixture->broker.port), "--cafile",
		certificate, "-u", "bob", "-P", token, "-t", "chat/1/send", "-m", "over TLS", "-q", "1", NULL};
	assert_int_equal(client_subscribe(client, topic_of(DIRECT, "messages")), 1);
	process_run("mosquitto_pub", publish, NULL, &self, text_of("%s/openssl.log", fixture->directory));
	expect_message(client, DIRECT, 1, BOB, "over TLS");
	free(token);
}

/* These tests are about lines of trouble: what the log says otherwise is not looked at. */
static int after_test(void **state)
{
	struct fixture *fixture = *state;
	clients_close_all();
	broker_stop(&fixture->broker);
	fixture_forget_log(fixture);
	return 0;
}

#define OPTION_TEST(name) cmocka_unit_test_teardown(name, after_test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OPTION_TEST(test_bad_options_are_refused),
		OPTION_TEST(test_option_given_twice_is_refused),
		OPTION_TEST(test_bad_keys_are_refused),
		OPTION_TEST(test_signing_key_must_be_known),
		OPTION_TEST(test_second_broker_is_refused),
		OPTION_TEST(test_wrong_schema_is_refused),
		OPTION_TEST(test_missing_ticks_are_said),
		OPTION_TEST(test_sample_configuration),
	};
	return cmocka_run_group_tests_name("options", tests, setup, fixture_teardown);
}
