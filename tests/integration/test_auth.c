/* test_auth.c - accounts with passwords: auth.register, auth.login, auth.refresh, auth.logout, auth.change_password. */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct client *guest(struct fixture *fixture)
{
	struct client_options options = {.port = fixture->broker.port, .version = 5, .id = ""};
	struct client *client = client_try(&options);
	assert_int_equal(client_connack(client), 0);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	return client;
}

/* The PUBACK may say no as well. Hashing takes its time, at a low priority: on a busy machine and sanitized, far more than a test
 * waits otherwise. */
static struct message *ask(struct client *client, const char *method, const char *parameters)
{
	assert_true(client_publish(client, text_of("chat/request/%s", method), parameters, 1) != CLOSED);
	struct message *answer = client_receive_by(client, answers_of(client), now_ms() + 90000);
	assert_non_null(answer);
	return answer;
}

static void expect_refusal(struct client *client, const char *method, const char *parameters, const char *code)
{
	print_message("%s %s\n", method, parameters);
	struct message *answer = ask(client, method, parameters);
	assert_string_equal(message_error(answer), code);
	message_free(answer);
}

static void expect_done(struct client *client, const char *method, const char *parameters)
{
	struct message *answer = ask(client, method, parameters);
	if (!message_has(answer, "result"))
		fail_msg("%s: %s", method, answer->payload);
	message_free(answer);
}

/* Of its own device. Whoever is signed out is closed within a second, though the answer may be on its way still. */
static void expect_signed_out(struct client *client, const char *method)
{
	enum { LEAVING_MS = 900 }; /* plugin/chat.h */
	int64_t since_ms = now_ms();
	assert_true(client_publish(client, text_of("chat/request/%s", method), "{}", 1) < 0x80);
	struct message *answer = client_receive_by(client, answers_of(client), now_ms() + 90000);
	if (!answer)
		assert_true(!client_is_connected(client) && now_ms() - since_ms >= LEAVING_MS);
	else if (!message_has(answer, "result"))
		fail_msg("%s: %s", method, answer->payload);
	message_free(answer);
	client_wait_closed(client);
}

struct signed_in {
	int64_t user, device;
	char *token, *device_token;
};

static char *copy_of(const cJSON *result, const char *name)
{
	const cJSON *item = cJSON_GetObjectItem(result, name);
	assert_true(cJSON_IsString(item));
	return strdup(item->valuestring);
}

/* Registers or signs in, or the test fails. */
static struct signed_in sign_in(struct client *client, const char *method, const char *parameters)
{
	struct message *answer = ask(client, method, parameters);
	if (!message_has(answer, "result"))
		fail_msg("%s: %s", method, answer->payload);
	cJSON *tree = cJSON_Parse(answer->payload);
	const cJSON *result = cJSON_GetObjectItem(tree, "result");
	struct signed_in account = {
		.user = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(result, "user_id")),
		.device = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(result, "device_id")),
		.token = copy_of(result, "token"),
		.device_token = copy_of(result, "device_token"),
	};
	double expires_at = cJSON_GetNumberValue(cJSON_GetObjectItem(result, "token_expires_at"));
	assert_true(expires_at > (double)time(NULL) * 1000 + 80000e3 && expires_at < (double)time(NULL) * 1000 + 90000e3);
	cJSON_Delete(tree);
	message_free(answer);
	return account;
}

static void forget(struct signed_in *account)
{
	free(account->token);
	free(account->device_token);
}

static struct client *connect_with(struct fixture *fixture, const char *token)
{
	struct client_options options = {.port = fixture->broker.port, .version = 5, .user = "x", .password = token};
	struct client *client = client_try(&options);
	assert_int_equal(client_connack(client), 0);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	return client;
}

static int64_t whoami(struct client *client)
{
	struct message *answer = ask(client, "user.get", "{}");
	cJSON *tree = cJSON_Parse(answer->payload);
	const cJSON *user = cJSON_GetObjectItem(cJSON_GetObjectItem(tree, "result"), "user");
	int64_t id = user ? (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(user, "id")) : 0;
	cJSON_Delete(tree);
	message_free(answer);
	return id;
}

/* Mosquitto 2.0 forgets at SIGHUP how the ids begin that it gives, where its configuration does not say it. */
static void test_guest_after_reload(void **state)
{
	struct fixture *fixture = *state;
	int before = broker_log_count(&fixture->broker, "reloaded keys and options");
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "reloaded keys and options", before + 1);
	client_close(guest(fixture));
}

/* A newcomer: registers as a guest, connects with the token, signs in again elsewhere. */
static void test_register_and_login(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in account = sign_in(newcomer, "auth.register",
		"{\"username\":\"Erin\",\"password\":\"correct horse\",\"email\":\"erin@example.com\",\"display_name\":\"Erin "
		"E.\"}");
	struct client *client = connect_with(fixture, account.token);
	assert_int_equal(whoami(client), account.user);
	struct client *by_device = connect_with(fixture, account.device_token);
	assert_int_equal(whoami(by_device), account.user);
	struct signed_in again = sign_in(newcomer, "auth.login",
		"{\"username\":\"eRIN\",\"password\":\"correct horse\",\"device\":{\"name\":\"TV\",\"type\":\"smart_tv\"}}");
	assert_int_equal(again.user, account.user);
	assert_true(again.device != account.device);
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.devices WHERE id = %lld AND name = 'TV' AND type = 'smart_tv'",
				 (long long)again.device),
		1);
	/* Nowhere is a password to be read. */
	char *verifier = sql_text(
		&fixture->postgres, "SELECT verifier FROM chat.credentials WHERE user_id = %lld", (long long)account.user);
	assert_int_equal(strncmp(verifier, "SCRAM-SHA-256$600000:", 21), 0);
	free(verifier);
	char *log = file_read(fixture->broker.log);
	assert_null(strstr(log, "correct horse"));
	assert_null(strstr(log, account.token));
	free(log);
	forget(&account);
	forget(&again);
}

/* threat 14: one name is one account, however it is written. */
static void test_names(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in account =
		sign_in(newcomer, "auth.register", "{\"username\":\"Stra\u00dfe\u00e9\",\"password\":\"12345678\"}");
	forget(&account);
	const char *same[] = {
		"stra\u00dfe\u00e9", "STRASSE\u00c9", "strassee\u0301", "\uff33\uff54\uff52\uff41\uff53\uff53\uff45\u00e9"};
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		expect_refusal(newcomer, "auth.register", text_of("{\"username\":\"%s\",\"password\":\"12345678\"}", same[i]),
			"conflict");
		account = sign_in(newcomer, "auth.login", text_of("{\"username\":\"%s\",\"password\":\"12345678\"}", same[i]));
		forget(&account);
	}
	const char *bad[] = {"ab", " abc", "abc ", "a b c", "a\\nb", "a\\u0000b", "ab\\u202ecd", "ab\\u200bcd", "ab\\u2066c",
		"ab\\ufeffc", "a\\u00adbc", "\\u3164\\u3164\\u3164", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		expect_refusal(newcomer, "auth.register", text_of("{\"username\":\"%s\",\"password\":\"12345678\"}", bad[i]),
			strstr(bad[i], "u0000") ? "invalid_json" : "invalid_field");
}

static void test_bad_parameters(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	char password[1002];
	memset(password, 'x', 1001);
	password[1001] = '\0';
	const char *registrations[] = {"{}", "{\"username\":\"frank\"}", "{\"username\":\"frank\",\"password\":\"1234567\"}",
		"{\"username\":\"frank\",\"password\":12345678}", "{\"username\":7,\"password\":\"12345678\"}",
		"{\"username\":\"frank\",\"password\":\"12345678\",\"email\":\"frank\"}",
		"{\"username\":\"frank\",\"password\":\"12345678\",\"email\":\"a b@example.com\"}",
		"{\"username\":\"frank\",\"password\":\"12345678\",\"display_name\":\"\"}",
		"{\"username\":\"frank\",\"password\":\"12345678\",\"admin\":true}",
		"{\"username\":\"frank\",\"password\":\"12345678\",\"device\":{\"type\":\"toaster\"}}",
		text_of("{\"username\":\"frank\",\"password\":\"%s\"}", password)};
	for (size_t i = 0; i < sizeof registrations / sizeof *registrations; i++)
		expect_refusal(newcomer, "auth.register", registrations[i], "invalid_field");
	password[1000] = '\0';
	struct signed_in account = sign_in(newcomer, "auth.register",
		text_of("{\"username\":\"frank\",\"password\":\"%s\",\"email\":\"F@example.com\"}", password));
	forget(&account);
	expect_refusal(newcomer, "auth.register",
		"{\"username\":\"frank2\",\"password\":\"12345678\",\"email\":\"f@EXAMPLE.com\"}", "conflict");
}

/* threat 18: an account that is not there, one that is suspended and a wrong password are one answer. */
static void test_wrong_passwords_are_alike(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in account = sign_in(newcomer, "auth.register", "{\"username\":\"grace\",\"password\":\"12345678\"}");
	const char *tries[] = {"{\"username\":\"grace\",\"password\":\"12345679\"}",
		"{\"username\":\"nobody\",\"password\":\"12345678\"}", "{\"username\":\"alice\",\"password\":\"12345678\"}",
		"{\"username\":\"grace\",\"password\":\"12345678\"}"};
	char *first = NULL;
	sql(&fixture->postgres, "UPDATE chat.users SET status = 'suspended' WHERE id = %lld", (long long)account.user);
	for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
		struct message *answer = ask(newcomer, "auth.login", tries[i]);
		assert_string_equal(message_error(answer), "unauthenticated");
		first = first ? first : strdup(answer->payload);
		assert_string_equal(answer->payload, first);
		message_free(answer);
	}
	free(first);
	forget(&account);
}

/* A device token is traded for tokens, until the device is signed out. */
static void test_refresh(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in account = sign_in(newcomer, "auth.register", "{\"username\":\"heidi\",\"password\":\"12345678\"}");
	struct signed_in other = sign_in(newcomer, "auth.register", "{\"username\":\"ivan\",\"password\":\"12345678\"}");
	struct client *by_device = connect_with(fixture, account.device_token), *by_token = connect_with(fixture, account.token);
	expect_done(by_device, "auth.refresh", "{}");
	expect_refusal(by_token, "auth.refresh", "{}", "invalid_field");
	expect_refusal(by_token, "auth.refresh", text_of("{\"device_token\":\"%s\"}", account.token), "unauthenticated");
	expect_refusal(by_token, "auth.refresh", text_of("{\"device_token\":\"%s\"}", other.device_token), "unauthenticated");
	expect_refusal(by_token, "auth.refresh", "{\"device_token\":\"x\"}", "unauthenticated");
	struct message *answer = ask(by_token, "auth.refresh", text_of("{\"device_token\":\"%s\"}", account.device_token));
	cJSON *tree = cJSON_Parse(answer->payload);
	char *token = copy_of(cJSON_GetObjectItem(tree, "result"), "token");
	cJSON_Delete(tree);
	message_free(answer);
	struct client *refreshed = connect_with(fixture, token);
	assert_int_equal(whoami(refreshed), account.user);
	free(token);
	sql(&fixture->postgres, "UPDATE chat.devices SET revoked_at = now() WHERE id = %lld", (long long)account.device);
	client_wait_closed(by_device);
	client_wait_closed(by_token);
	client_wait_closed(refreshed);
	forget(&account);
	forget(&other);
}

/* threat 10: who is signed out is disconnected, after the answer, and does not come back. */
static void test_logout(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in first = sign_in(newcomer, "auth.register", "{\"username\":\"judy\",\"password\":\"12345678\"}");
	struct signed_in second = sign_in(newcomer, "auth.login", "{\"username\":\"judy\",\"password\":\"12345678\"}");
	struct signed_in third = sign_in(newcomer, "auth.login", "{\"username\":\"judy\",\"password\":\"12345678\"}");
	struct client *one = connect_with(fixture, first.token), *two = connect_with(fixture, second.token),
		      *also_two = connect_with(fixture, second.device_token), *three = connect_with(fixture, third.token);
	expect_refusal(one, "auth.logout", "{\"device\":999999999}", "not_found");
	expect_refusal(one, "auth.logout", "{\"device\":\"1\"}", "invalid_field");
	expect_done(one, "auth.logout", text_of("{\"device\":%lld}", (long long)second.device));
	client_wait_closed(two);
	client_wait_closed(also_two);
	expect_signed_out(one, "auth.logout");
	expect_signed_out(three, "device.remove"); /* the same, by another name */
	struct client_options options = {.port = fixture->broker.port, .version = 5, .user = "x", .password = first.device_token};
	client_wait_closed(client_try(&options));
	forget(&first);
	forget(&second);
	forget(&third);
}

/* The same for who is signed out from elsewhere while he waits to be signed out: nothing that he asked before holds it up. */
static void test_signed_out_while_leaving(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in account = sign_in(newcomer, "auth.register", "{\"username\":\"ruth\",\"password\":\"12345678\"}");
	struct client *client = connect_with(fixture, account.token);
	assert_int_equal(whoami(client), account.user);
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PQclear(PQexec(holder, "BEGIN; LOCK TABLE chat_api.methods IN ACCESS EXCLUSIVE MODE"));
	fixture_expect_error(fixture, "chat: requests: device.remove: "); /* given up, where the rest takes seconds */
	assert_true(client_publish(client, "chat/request/device.remove", "{\"device\":999999999}", 1) < 0x80);
	sql(&fixture->postgres, "UPDATE chat.devices SET revoked_at = now() WHERE id = %lld", (long long)account.device);
	client_wait_closed(client);
	assert_int_equal(client_waiting(client, answers_of(client)), 0);
	PQfinish(holder);
	forget(&account);
}

static void test_change_password(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in first = sign_in(newcomer, "auth.register", "{\"username\":\"mallory\",\"password\":\"12345678\"}");
	struct signed_in second = sign_in(newcomer, "auth.login", "{\"username\":\"mallory\",\"password\":\"12345678\"}");
	struct client *one = connect_with(fixture, first.token), *two = connect_with(fixture, second.token);
	expect_refusal(one, "auth.change_password", "{\"old_password\":\"wrong wrong\",\"new_password\":\"87654321\"}",
		"unauthenticated");
	expect_refusal(
		one, "auth.change_password", "{\"old_password\":\"12345678\",\"new_password\":\"short\"}", "invalid_field");
	expect_done(one, "auth.change_password", "{\"old_password\":\"12345678\",\"new_password\":\"87654321\"}");
	client_wait_closed(two);
	assert_int_equal(whoami(one), first.user);
	expect_refusal(newcomer, "auth.login", "{\"username\":\"mallory\",\"password\":\"12345678\"}", "unauthenticated");
	struct signed_in again = sign_in(newcomer, "auth.login", "{\"username\":\"mallory\",\"password\":\"87654321\"}");
	struct client *alice = fixture_client(fixture, ALICE, 5);
	client_subscribe(alice, answers_of(alice));
	expect_refusal(
		alice, "auth.change_password", "{\"old_password\":\"12345678\",\"new_password\":\"87654321\"}", "forbidden");
	forget(&first);
	forget(&second);
	forget(&again);
}

/* Of an account whose password has become that of another account when it has been looked up. */
static void change_while_hashing(struct fixture *fixture, int64_t user, const char *other)
{
	sql(&fixture->postgres,
		"ALTER FUNCTION chat.find_verifiers RENAME TO found_verifiers; CREATE FUNCTION chat.find_verifiers(names text[]) "
		"RETURNS TABLE "
		"(ordinal integer, name_key text, user_id bigint, verifier text) LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
		"RETURN QUERY SELECT * FROM chat.found_verifiers(names); UPDATE chat.credentials SET verifier = (SELECT "
		"f.verifier FROM chat.found_verifiers('{%s}') f) WHERE credentials.user_id = %lld; END $$",
		other, (long long)user);
}

static void change_no_more(struct fixture *fixture)
{
	sql(&fixture->postgres,
		"DROP FUNCTION chat.find_verifiers; ALTER FUNCTION chat.found_verifiers RENAME TO find_verifiers");
}

/* A password that is changed while a sign-in by the old one is under way lets nobody in any more; one that is only kept as
 * another verifier does. */
static void test_password_changed_meanwhile(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	struct signed_in ruby = sign_in(newcomer, "auth.register", "{\"username\":\"ruby\",\"password\":\"12345678\"}");
	struct signed_in same = sign_in(newcomer, "auth.register", "{\"username\":\"ruby2\",\"password\":\"12345678\"}");
	struct signed_in other = sign_in(newcomer, "auth.register", "{\"username\":\"ruby3\",\"password\":\"87654321\"}");

	change_while_hashing(fixture, ruby.user, "ruby2");
	struct signed_in again = sign_in(newcomer, "auth.login", "{\"username\":\"ruby\",\"password\":\"12345678\"}");
	change_no_more(fixture);
	assert_int_equal(again.user, ruby.user);
	change_while_hashing(fixture, ruby.user, "ruby3");
	expect_refusal(newcomer, "auth.login", "{\"username\":\"ruby\",\"password\":\"12345678\"}", "unauthenticated");
	change_no_more(fixture);
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.devices WHERE user_id = %lld", (long long)ruby.user),
		2);
	forget(&ruby);
	forget(&same);
	forget(&other);
	forget(&again);
}

/* A verifier as PostgreSQL makes it for a role of its own serves here. */
static void test_verifier_of_postgresql(void **state)
{
	struct fixture *fixture = *state;
	struct client *newcomer = guest(fixture);
	int64_t user = sql_integer(&fixture->postgres, "INSERT INTO chat.users (username) VALUES ('oscar') RETURNING id");
	sql(&fixture->postgres, "SET password_encryption = 'scram-sha-256'; CREATE ROLE oscar PASSWORD 'p\u00e4ssword\u2168'");
	sql(&fixture->postgres,
		"INSERT INTO chat.credentials (user_id, verifier) SELECT %lld, rolpassword FROM pg_authid WHERE rolname = "
		"'oscar'",
		(long long)user);
	struct signed_in account = sign_in(newcomer, "auth.login", "{\"username\":\"oscar\",\"password\":\"p\u00e4sswordIX\"}");
	assert_int_equal(account.user, user);
	forget(&account);
	expect_refusal(newcomer, "auth.login", "{\"username\":\"oscar\",\"password\":\"p\u00e4sswordIY\"}", "unauthenticated");
	/* It had 4,096 iterations; now that the password is known it has as many as any other. */
	assert_int_equal(
		sql_integer(&fixture->postgres,
			"SELECT count(*) FROM chat.credentials WHERE user_id = %lld AND verifier LIKE 'SCRAM-SHA-256$600000:%%'",
			(long long)user),
		1);
	account = sign_in(newcomer, "auth.login", "{\"username\":\"oscar\",\"password\":\"p\u00e4sswordIX\"}");
	forget(&account);
	/* One that cannot be read (its salt is too long) is told from a wrong password by nothing. */
	user = sql_integer(&fixture->postgres, "INSERT INTO chat.users (username) VALUES ('otto') RETURNING id");
	sql(&fixture->postgres,
		"INSERT INTO chat.credentials (user_id, verifier) SELECT %lld, 'SCRAM-SHA-256$4096:' || repeat('A', 88) || '$' "
		"|| repeat('A', 43) || '=:' || repeat('A', 43) || '='",
		(long long)user);
	expect_refusal(newcomer, "auth.login", "{\"username\":\"otto\",\"password\":\"12345678\"}", "unauthenticated");
}

static void restart_with(struct fixture *fixture, const char *first, const char *second)
{
	const char *options[] = {"guests true", "registration open", "rate_requests 0", first, second,
		text_of("token_signing_key %s/signing/test.pem", fixture->directory), NULL};
	fixture_restart_broker(fixture, options);
}

/* How many of four attempts with a wrong password are refused without a look. */
static int refused_of_four(struct client *client, const char *name, const char *other_spelling)
{
	int refused = 0;
	for (int attempt = 0; attempt < 4; attempt++) {
		struct message *answer = ask(client, "auth.login",
			text_of("{\"username\":\"%s\",\"password\":\"wrong wrong\"}", attempt % 2 ? name : other_spelling));
		const char *code = message_error(answer);
		bool limited = !strcmp(code, "rate_limited");
		if (!limited)
			assert_string_equal(code, "unauthenticated");
		else
			assert_non_null(strstr(answer->payload, "retry_after_ms"));
		refused += limited;
		message_free(answer);
	}
	return refused;
}

/* Who asks for an account waits. */
static PGconn *lock_credentials(struct fixture *fixture)
{
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PQclear(PQexec(holder, "BEGIN; LOCK TABLE chat.credentials IN ACCESS EXCLUSIVE MODE"));
	return holder;
}

/* threat 17: passwords are tried a few times a minute, for one account however it is spelt (and whether it is there or not), and
 * from one address whatever the account.
 */
static void test_attempts_are_limited(void **state)
{
	struct fixture *fixture = *state;
	restart_with(fixture, "rate_sign_in 1", "rate_sign_in_address 0");
	struct client *newcomer = guest(fixture);
	struct signed_in account = sign_in(newcomer, "auth.register", "{\"username\":\"niaj\",\"password\":\"12345678\"}");
	forget(&account);
	account = sign_in(newcomer, "auth.register", "{\"username\":\"olivia\",\"password\":\"12345678\"}");
	forget(&account);
	assert_true(refused_of_four(newcomer, "niaj", "NIAJ") > 0); /* one comes back every minute */
	assert_true(refused_of_four(newcomer, "nobody", "Nobody") > 0);
	/* Others are not touched by that. */
	account = sign_in(newcomer, "auth.login", "{\"username\":\"olivia\",\"password\":\"12345678\"}");
	forget(&account);
	client_close(newcomer);
	restart_with(fixture, "rate_sign_in 0", "rate_sign_in_address 1");
	newcomer = guest(fixture);
	assert_true(refused_of_four(newcomer, "niaj", "olivia") > 0);
	expect_refusal(newcomer, "auth.register", "{\"username\":\"peggy\",\"password\":\"12345678\"}", "rate_limited");
	/* Without the database being asked. */
	PGconn *holder = lock_credentials(fixture);
	expect_refusal(newcomer, "auth.login", "{\"username\":\"olivia\",\"password\":\"12345678\"}", "rate_limited");
	PQfinish(holder);
}

/* threat 17: as many guests as somebody likes are one caller, who has ten places in the line of those that wait for hashing. */
static void test_guests_of_one_address_share_a_line(void **state)
{
	struct fixture *fixture = *state;
	enum { GUESTS = 30 };
	struct client *guests[GUESTS];
	int overloaded = 0;
	for (int i = 0; i < GUESTS; i++)
		guests[i] = guest(fixture);
	/* In the same line as what earlier tests left there. */
	expect_refusal(guests[0], "auth.login", "{\"username\":\"nobody\",\"password\":\"12345678\"}", "unauthenticated");
	fixture_expect_error(fixture, "chat: accounts: "); /* where that takes seconds */
	PGconn *holder = lock_credentials(fixture);
	for (int i = 0; i < GUESTS; i++) {
		client_send(guests[i], "chat/request/auth.login", "{\"username\":\"nobody\",\"password\":\"12345678\"}");
		client_settle(guests[i]);
	}
	PQfinish(holder);
	for (int i = 0; i < GUESTS; i++) {
		struct message *answer = client_receive_by(guests[i], answers_of(guests[i]), now_ms() + 90000);
		assert_non_null(answer);
		overloaded += !strcmp(message_error(answer), "overloaded");
		message_free(answer);
	}
	assert_true(overloaded >= GUESTS / 2 && overloaded <= GUESTS - 10);
}

/* Whoever signs in and is gone before their turn comes is not signed in: no password is hashed for nobody. */
static void test_logins_of_the_gone(void **state)
{
	struct fixture *fixture = *state;
	struct client *first = guest(fixture), *gone = guest(fixture), *last = guest(fixture);
	struct signed_in account = sign_in(first, "auth.register", "{\"username\":\"quentin\",\"password\":\"12345678\"}");
	const char *login = "{\"username\":\"quentin\",\"password\":\"12345678\"}";
	const char *ended = text_of("Client %s disconnected", client_id(gone));
	PGconn *holder = lock_credentials(fixture);
	client_send(first, "chat/request/auth.login", login);
	client_settle(first);
	client_send(gone, "chat/request/auth.login", login);
	client_settle(gone);
	client_close(gone);
	broker_log_wait(&fixture->broker, ended, 1);
	PQfinish(holder);
	/* All guests of an address are one line: what is answered last was asked last. */
	forget(&account);
	account = sign_in(last, "auth.login", login);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.devices WHERE user_id = %lld",
				 (long long)account.user),
		3);
	forget(&account);
}

/* Logins take their time in threads of their own: other requests do not wait for them, though they last for ever. */
static void test_logins_hold_up_nobody(void **state)
{
	struct fixture *fixture = *state;
	enum { GUESTS = 2, LOGINS = 3 };
	struct client *guests[GUESTS];
	struct client *client = fixture_client(fixture, ALICE, 5);
	assert_int_equal(client_subscribe(client, answers_of(client)), 1);
	PGconn *holder = lock_credentials(fixture);
	fixture_expect_error(fixture, "chat: accounts: "); /* not quite for ever */
	for (int i = 0; i < GUESTS; i++) {
		guests[i] = guest(fixture);
		for (int n = 0; n < LOGINS; n++)
			client_send(guests[i], "chat/request/auth.login", "{\"username\":\"nobody\",\"password\":\"12345678\"}");
	}
	for (int i = 0; i < 10; i++)
		assert_int_equal(whoami(client), ALICE);
	int answered = 0;
	for (int i = 0; i < GUESTS; i++)
		answered += client_waiting(guests[i], answers_of(guests[i]));
	assert_true(answered < GUESTS * LOGINS);
	PQfinish(holder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_guest_after_reload),
		TEST(test_register_and_login),
		TEST(test_names),
		TEST(test_bad_parameters),
		TEST(test_wrong_passwords_are_alike),
		TEST(test_refresh),
		TEST(test_logout),
		TEST(test_signed_out_while_leaving),
		TEST(test_change_password),
		TEST(test_password_changed_meanwhile),
		TEST(test_verifier_of_postgresql),
		TEST(test_logins_of_the_gone),
		TEST(test_logins_hold_up_nobody),
		TEST(test_guests_of_one_address_share_a_line),
		TEST(test_attempts_are_limited),
	};
	return cmocka_run_group_tests_name("auth", tests, fixture_setup_accounts, fixture_teardown);
}
