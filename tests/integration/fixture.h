/* fixture.h - a whole system for one test program: PostgreSQL with the schema and the demo rows, keys, a broker with the
 * plugin, in one temporary directory.
 *
 *   int main(void)
 *   {
 *   	const struct CMUnitTest tests[] = {TEST(test_x), ...};
 *   	return cmocka_run_group_tests_name("x", tests, fixture_setup, fixture_teardown);
 *   }
 *
 * The fixture is the test's *state. Tests of a program run one after the other on the same system, so each makes users and
 * conversations of its own (or takes the demo ones and does not count on seq 1). After each test all its clients are closed,
 * broker and database run again if it stopped them, and the broker's log is checked: no sanitizer's report, and no line of
 * trouble which the test did not announce with fixture_expect_error.
 *
 * Environment (the build sets it): CHAT_TEST_PLUGIN the .so, CHAT_TEST_PRELOAD a sanitizer's library for the broker,
 * CHAT_TEST_TEMPLATE a file that names the data directory of a cluster to copy, CHAT_TEST_FLUSH_COUNTED see flush_counted.c;
 * CHAT_TEST_KEEP set: leave the directory.
 */
#ifndef CHAT_TESTS_FIXTURE_H
#define CHAT_TESTS_FIXTURE_H

#include "broker.h"
#include "check.h"
#include "client.h"
#include "postgres.h"

#include "signing.h"

enum { ALICE = 1, BOB = 2, CAROL = 3, DAVE = 4 };
enum { DIRECT = 1, GROUP = 2, TV = 3 };

struct fixture {
	char directory[PATH_SIZE];
	char plugin[PATH_SIZE];     /* a copy that the broker's account can read */
	char public_key[PATH_SIZE]; /* of the ES256 key that tokens are made with */
	char private_key[PATH_SIZE];
	struct signing_key *key;
	struct postgres postgres;
	struct broker broker;
	char *expected_errors[32];
	size_t expected_error_count, expected_before_count; /* the first so many are of the test before */
	size_t log_checked; /* bytes of the broker's log that were looked at after earlier tests */
};

/* cmocka's group fixtures: the system with default options, apart from rate_messages 0 and rate_sign_in* 0. */
int fixture_setup(void **state);
/* The same for accounts that are made here: guests, open registration, a signing key, rate_requests 0. */
int fixture_setup_accounts(void **state);
int fixture_teardown(void **state);
int fixture_after_test(void **state);
#define TEST(name) cmocka_unit_test_teardown(name, fixture_after_test)
/* Parts of fixture_setup, for programs that begin otherwise: without broker_configure and broker_start. */
struct fixture *fixture_new(void);

/* The plugin's lines of mosquitto.conf: the fixture's own, with `options` ("name value", NULL-terminated) added or put in their
 * place; a value of "-" leaves an option out. */
void fixture_configure(struct fixture *fixture, const char *const options[], const char *more);
/* Stops the broker, and starts it with other options. */
void fixture_restart_broker(struct fixture *fixture, const char *const options[]);

/* Copies the module that the variable names; the broker loads it at its next start. */
void fixture_use_plugin(struct fixture *fixture, const char *variable);

/* ---- tokens and clients */

/* A token for the user, good for an hour; to free(). device 0: none. */
char *fixture_token(struct fixture *fixture, int64_t user, int64_t device, int64_t lifetime_s);
/* Any header and claims, signed with `key` (NULL: the fixture's) whatever the header says; to free(). */
char *fixture_forge(struct fixture *fixture, const struct signing_key *key, const char *header, const char *claims);
/* Makes DIRECTORY/<name>.pem (or, for HS256, the secret) in private/ and keys/ and loads the private one. */
struct signing_key *fixture_make_key(struct fixture *fixture, const char *name, enum signing_algorithm algorithm);

/* Signed in, or the test fails. version 4 or 5. */
struct client *fixture_client(struct fixture *fixture, int64_t user, int version);
struct client *fixture_client_with(struct fixture *fixture, int64_t user, struct client_options options);
/* Waits until the plugin knows the client's memberships: from then on it can say no at once. (No is the proof: while it does
 * not know, it grants and stays silent.) */
void fixture_await_loaded(struct client *client);
/* fixture_client, subscribed to its answers and to the conversation's messages, and loaded. */
struct client *fixture_member(struct fixture *fixture, int64_t user, int version, int64_t conversation);

/* ---- rows */

int64_t fixture_user(struct fixture *fixture);
/* A group of the users (0 ends the list); the first one owns it. */
int64_t fixture_group(struct fixture *fixture, const int64_t users[]);
#define GROUP_OF(fixture, ...) fixture_group(fixture, (const int64_t[]){__VA_ARGS__, 0})

/* ---- names; what they return lives until the end of the test */

const char *topic_of(int64_t conversation, const char *noun);
const char *user_topic(int64_t user, const char *noun);
const char *answers_of(const struct client *client);
/* A new UUID as text. */
const char *new_id(void);
__attribute__((format(printf, 1, 2))) const char *text_of(const char *format, ...);

/* ---- assertions */

/* Receives the conversation's next message and checks its seq, sender and body (NULL: not checked). Returns it where the caller
 * wants more. */
void expect_message(struct client *client, int64_t conversation, int64_t seq, int64_t from, const char *body);
/* Receives an answer on the client's own topic: an error with this code. */
void expect_error(struct client *client, const char *code);
/* Nothing has come on the topic (NULL: none at all) once everything that the broker had for this client is here. */
void expect_silence(struct client *client, const char *topic);
/* A line with this text may come although it says error; until the end of the test. */
void fixture_expect_error(struct fixture *fixture, const char *text);
/* For tests of nothing but trouble: what the log holds by now is not looked at any more. */
void fixture_forget_log(struct fixture *fixture);

#endif
