/* test_coexistence.c - another plugin behind this one: plain topics under its rules, chat/ closed to its clients. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Mosquitto's own dynamic-security, with one user who may do everything that it can grant. The salted hash is PBKDF2 with
 * SHA-512, 101 rounds, of the password "plain"; made by mosquitto_ctrl dynsec init. */
static void write_rules(const char *path, const struct account *owner)
{
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *argv[] = {"mosquitto_ctrl", "dynsec", "init", path, "plain", "plain", NULL};
	unlink(path);
	process_run("mosquitto_ctrl", argv, NULL, &self, text_of("%s.log", path));
	char *rules = file_read(path);
	file_write(path, rules, 0600, owner);
	free(rules);
}

static struct client *plain_client(struct fixture *fixture, int version, const char *password)
{
	struct client_options options = {.port = fixture->broker.port, .version = version, .user = "plain", .password = password};
	return client_try(&options);
}

static int command(struct client *client, const char *text)
{
	return client_publish(client, "$CONTROL/dynamic-security/v1", text_of("{\"commands\":[%s]}", text), 1);
}

/* Its administrator gives himself everything that there is, chat/ included; that plugin then disconnects him. */
static void grant_everything(struct fixture *fixture)
{
	struct client *client = plain_client(fixture, 5, "plain");
	assert_int_equal(client_connack(client), 0);
	assert_int_equal(client_subscribe(client, "$CONTROL/dynamic-security/v1/response"), 1);
	assert_true(command(client, "{\"command\":\"createRole\",\"rolename\":\"all\",\"acls\":["
				    "{\"acltype\":\"publishClientSend\",\"topic\":\"#\",\"allow\":true},"
				    "{\"acltype\":\"publishClientReceive\",\"topic\":\"#\",\"allow\":true},"
				    "{\"acltype\":\"subscribePattern\",\"topic\":\"#\",\"allow\":true}]}") < 0x80);
	struct message *answer = client_receive(client, "$CONTROL/dynamic-security/v1/response");
	assert_null(strstr(answer->payload, "\"error\""));
	message_free(answer);
	command(client, "{\"command\":\"addClientRole\",\"username\":\"plain\",\"rolename\":\"all\"}");
	client_wait_closed(client);
	client_close(client);
}

static struct client *administrator(struct fixture *fixture)
{
	struct client *client = plain_client(fixture, 5, "plain");
	assert_int_equal(client_connack(client), 0);
	return client;
}

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	if (access("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so", R_OK)) {
		print_message("no dynamic-security here: nothing to test\n");
		_exit(0);
	}
	const char *rules = text_of("%s/dynsec.json", fixture->broker.directory);
	write_rules(rules, &fixture->broker.account);
	fixture_configure(fixture, NULL,
		text_of("plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so\nplugin_opt_config_file %s\n", rules));
	broker_start(&fixture->broker);
	grant_everything(fixture);
	return 0;
}

static void test_plain_topics_work(void **state)
{
	struct fixture *fixture = *state;
	struct client *client = administrator(fixture);
	assert_int_equal(client_subscribe(client, "plain/topic"), 1);
	assert_int_equal(client_publish(client, "plain/topic", "hello", 1), 0);
	struct message *message = client_receive(client, "plain/topic");
	assert_string_equal(message->payload, "hello");
	message_free(message);
	struct client *wrong = plain_client(fixture, 5, "wrong");
	assert_int_equal(client_connack(wrong), 0x87);
}

static void test_chat_is_closed_to_others(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *member = fixture_member(fixture, alice, 4, group), *client = administrator(fixture);
	const char *filters[] = {
		topic_of(group, "messages"), "chat/#", "chat/+/messages", user_topic(alice, "inbox"), answers_of(client)};
	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
		assert_int_equal(client_subscribe(client, filters[i]), 0x87);
	/* It may have everything else, but what comes through that is not chat/. */
	assert_int_equal(client_subscribe(client, "#"), 1);
	client_publish(member, topic_of(group, "send"), "private", 1);
	expect_message(member, group, 1, alice, "private");
	client_publish(client, "plain/fence", "", 1);
	message_free(client_receive(client, "plain/fence"));
	assert_int_equal(client_waiting(client, topic_of(group, "messages")), 0);
	assert_int_equal(client_waiting(client, topic_of(group, "send")), 0);
	assert_int_equal(client_publish(client, topic_of(group, "send"), "intruder", 1), 0x87);
	assert_int_equal(client_publish(client, topic_of(group, "messages"), "forged", 1), 0x87);
	expect_silence(member, NULL);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group), 1);
}

/* Those whom we signed in get from the other plugin what it grants them: here nothing. */
static void test_our_clients_beyond_chat(void **state)
{
	struct fixture *fixture = *state;
	struct client *member = fixture_client(fixture, fixture_user(fixture), 5);
	assert_int_equal(client_subscribe(member, "plain/topic"), 0x87);
	assert_int_equal(client_subscribe(member, "#"), 0x87);
	assert_int_equal(client_subscribe(member, "$SYS/#"), 0x87);
	assert_int_equal(client_subscribe(member, "$CONTROL/#"), 0x87);
	assert_int_equal(client_publish(member, "plain/topic", "x", 1), 0x87);
	assert_int_equal(client_publish(member, "$CONTROL/dynamic-security/v1", "{\"commands\":[]}", 1), 0x87);
	assert_true(client_is_connected(member));
}

/* A will of theirs under chat/ is seen by nobody. */
static void test_foreign_will(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *member = fixture_member(fixture, alice, 5, group);
	struct client_options options = {.port = fixture->broker.port,
		.version = 4,
		.user = "plain",
		.password = "plain",
		.will_topic = topic_of(group, "messages"),
		.will_payload = "{\"conversation\":1,\"seq\":1}"};
	struct client *client = client_try(&options);
	assert_int_equal(client_connack(client), 0);
	const char *end = text_of("Client %s closed its connection", client_id(client));
	client_cut(client);
	broker_log_wait(&fixture->broker, end, 1);
	expect_silence(member, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_plain_topics_work),
		TEST(test_chat_is_closed_to_others),
		TEST(test_our_clients_beyond_chat),
		TEST(test_foreign_will),
	};
	return cmocka_run_group_tests_name("coexistence", tests, setup, fixture_teardown);
}
