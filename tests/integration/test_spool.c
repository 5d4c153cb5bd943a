/* test_spool.c - what has its PUBACK survives the death of the broker: kill -9 under load, with and without the database.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROUNDS = 10, EACH = 200 };

static void expect_deaths(struct fixture *fixture)
{
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "chat: writer ");
	fixture_expect_error(fixture, "bytes of an unfinished record");
}

static int64_t missing(struct fixture *fixture, int64_t group, int64_t last)
{
	return sql_integer(&fixture->postgres,
		"SELECT count(*) FROM generate_series(1, %lld) n WHERE (SELECT count(*) FROM chat.messages WHERE conversation_id "
		"= %lld "
		"AND body = n::text) <> 1",
		(long long)last, (long long)group);
}

static int64_t gaps(struct fixture *fixture, int64_t group)
{
	return sql_integer(&fixture->postgres,
		"SELECT last_seq - (SELECT count(DISTINCT seq) FROM chat.messages WHERE conversation_id = %lld) FROM "
		"chat.conversations "
		"WHERE id = %lld",
		(long long)group, (long long)group);
}

/* Each message waits for its PUBACK; then others are on their way when the broker dies, and of those nothing is known. */
static void test_broker_killed_under_load(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice), noise = GROUP_OF(fixture, alice);
	int sent = 0;
	expect_deaths(fixture);
	for (int round = 0; round < ROUNDS; round++) {
		struct client *plain = fixture_client(fixture, alice, 4), *other = fixture_client(fixture, alice, 5);
		for (int i = 0; i < EACH; i++, sent++) {
			const char *text =
				i % 2 ? text_of("%d", sent + 1) : text_of("{\"id\":\"%s\",\"body\":\"%d\"}", new_id(), sent + 1);
			client_send(i % 3 ? plain : other, topic_of(group, "send"), text);
		}
		client_settle(plain);
		client_settle(other);
		for (int i = 0; i < EACH; i++)
			client_send(i % 2 ? plain : other, topic_of(noise, "send"), "noise");
		clients_turn(round % 3);
		broker_kill(&fixture->broker);
		clients_close_all();
		broker_start(&fixture->broker);
	}
	sql_wait(&fixture->postgres, sent, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	assert_int_equal(missing(fixture, group, sent), 0);
	assert_int_equal(gaps(fixture, group), 0);
	assert_int_equal(gaps(fixture, noise), 0);
}

/* Nothing but the spool has them. */
static void test_both_down(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	expect_deaths(fixture);
	struct client *client = fixture_client(fixture, alice, 4);
	postgres_kill(&fixture->postgres);
	for (int i = 0; i < 500; i++)
		client_send(client, topic_of(group, "send"), text_of("%d", i + 1));
	client_settle(client);
	broker_kill(&fixture->broker);
	clients_close_all();
	broker_start(&fixture->broker);
	broker_log_wait(&fixture->broker, "500 records from before wait to be committed", 1);
	postgres_start(&fixture->postgres);
	sql_wait(&fixture->postgres, 500, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
	assert_int_equal(missing(fixture, group, 500), 0);
}

/* The broker does not start, and one line says why. */
static void expect_refused(struct broker *broker, const char *why)
{
	int reasons = broker_log_count(broker, "cannot start"), found = broker_log_count(broker, why);
	assert_int_not_equal(broker_start_refused(broker), 0);
	broker_log_wait(broker, why, found + 1);
	assert_int_equal(broker_log_count(broker, "cannot start"), reasons + 1);
	assert_int_equal(broker_log_count(broker, why), found + 1);
}

static void test_directory_must_be_its_own(void **state)
{
	struct fixture *fixture = *state;
	const char *spool = text_of("%s/spool", fixture->broker.directory);
	const char *nowhere[] = {text_of("spool_dir %s/missing/spool", fixture->broker.directory), NULL};
	fixture_expect_error(fixture, "plugin_opt_spool_dir");
	fixture_expect_error(fixture, "Error");
	broker_stop(&fixture->broker);
	check(chmod(spool, 0755) == 0);
	expect_refused(&fixture->broker, "chmod 700");
	check(chmod(spool, 0) == 0);
	expect_refused(&fixture->broker, "Permission denied; it and all in it must belong to the broker's user");
	check(chmod(spool, 0700) == 0);
	fixture_configure(fixture, nowhere, NULL);
	expect_refused(&fixture->broker, "make it, owned by the broker's user, mode 0700");
	fixture_configure(fixture, NULL, NULL);
	broker_start(&fixture->broker);
}

/* Threat 60: the second broker on a directory refuses, and the first does not notice. */
static void test_one_directory_one_broker(void **state)
{
	struct fixture *fixture = *state, other = *fixture;
	int64_t alice = fixture_user(fixture), group = GROUP_OF(fixture, alice);
	struct client *client = fixture_member(fixture, alice, 4, group);
	other.broker.process.pid = 0;
	check(snprintf(other.broker.configuration, PATH_SIZE, "%s/second.conf", other.broker.directory) < PATH_SIZE);
	check(snprintf(other.broker.log, PATH_SIZE, "%s/second.log", other.directory) < PATH_SIZE);
	fixture_configure(&other, NULL, NULL);
	expect_refused(&other.broker, "is in use by another broker; give each broker a directory of its own");
	client_publish(client, topic_of(group, "send"), "still here", 1);
	expect_message(client, group, 1, alice, "still here");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_broker_killed_under_load),
		TEST(test_both_down),
		TEST(test_directory_must_be_its_own),
		TEST(test_one_directory_one_broker),
	};
	return cmocka_run_group_tests_name("spool", tests, fixture_setup, fixture_teardown);
}
