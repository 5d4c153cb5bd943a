/* test_scram.c - MQTT 5 enhanced authentication by SCRAM-SHA-256, with a client of its own: byte by byte, and with its own
 * arithmetic.
 */
#include "fixture.h"
#include "raw.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AUTH = 0xf0, CONNACK = 0x20, CONTINUE = 0x18, REAUTHENTICATE = 0x19, METHOD = 0x15, DATA = 0x16, KEY = 32 };

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, (const char *[]){"scram true", NULL}, NULL);
	broker_start(&fixture->broker);
	/* PostgreSQL makes the verifiers. */
	sql(&fixture->postgres, "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_alice PASSWORD 'pencil pencil'; "
				"INSERT INTO chat.credentials (user_id, verifier) SELECT 1, rolpassword FROM pg_authid WHERE "
				"rolname = 'scram_alice'");
	return 0;
}

/* ---------------------------------------------------------------------------------------------------- packets */

/* CONNECT or AUTH properties: the method and, where given, the data. */
static void put_properties(struct raw *raw, const char *method, const char *data)
{
	size_t length = (method ? 3 + strlen(method) : 0) + (data ? 3 + strlen(data) : 0);
	assert_true(length < 16384);
	if (length >= 128) {
		raw_u8(raw, (unsigned)(length % 128) | 0x80);
		raw_u8(raw, (unsigned)(length / 128));
	} else {
		raw_u8(raw, (unsigned)length);
	}
	if (method) {
		raw_u8(raw, METHOD);
		raw_text(raw, method);
	}
	if (data) {
		raw_u8(raw, DATA);
		raw_text(raw, data);
	}
}

static void put_connect(struct raw *raw, const char *id, int keepalive_s, const char *method, const char *data)
{
	raw_begin(raw, 0x10);
	raw_text(raw, "MQTT");
	raw_u8(raw, 5);
	raw_u8(raw, 0x02);
	raw_u16(raw, (unsigned)keepalive_s);
	put_properties(raw, method, data);
	raw_text(raw, id);
	raw_end(raw);
}

static void put_auth(struct raw *raw, unsigned reason, const char *method, const char *data)
{
	raw_begin(raw, AUTH);
	raw_u8(raw, reason);
	put_properties(raw, method, data);
	raw_end(raw);
}

/* The authentication data of a CONNACK or AUTH, NUL-terminated; "" where there is none. */
static const char *data_of(const struct raw_packet *packet)
{
	size_t at = (packet->head & 0xf0) == CONNACK ? 2 : 1; /* flags and reason, or the reason */
	if (packet->length <= at)
		return "";
	size_t end = at + 1 + packet->body[at];
	if (packet->body[at++] & 0x80)
		end = at + 1 + (packet->body[at - 1] & 0x7fU) + packet->body[at] * 128U, at++;
	while (at < end) {
		unsigned property = packet->body[at++];
		size_t length = (size_t)packet->body[at] << 8 | packet->body[at + 1];
		if (property == DATA)
			return text_of("%.*s", (int)length, packet->body + at + 2);
		if (property == METHOD || property == 0x12) { /* assigned client id */
			at += 2 + length;
		} else if (property == 0x21 || property == 0x22 || property == 0x13) { /* maxima, keepalive */
			at += 2;
		} else if (property == 0x27 || property == 0x11) {
			at += 4;
		} else if (property == 0x24 || property == 0x25 || property == 0x28 || property == 0x29 || property == 0x2a) {
			at += 1;
		} else {
			fail_msg("property 0x%02x", property);
		}
	}
	return "";
}

/* ---------------------------------------------------------------------------------------------------- arithmetic */

static void hmac(const uint8_t key[KEY], const char *text, uint8_t out[KEY])
{
	assert_non_null(HMAC(EVP_sha256(), key, KEY, (const uint8_t *)text, strlen(text), out, NULL));
}

/* The client's final message, and in *signature what the server's must be. */
static const char *final_message(const char *bare, const char *server_first, const char *password, const char **signature)
{
	char nonce[512], salt64[256];
	unsigned iterations;
	uint8_t salt[200], salted[KEY], key[KEY], stored[KEY], proof[KEY], server_key[KEY];
	char text[100];
	assert_int_equal(sscanf(server_first, "r=%511[^,],s=%255[^,],i=%u", nonce, salt64, &iterations), 3);
	int salt_length = EVP_DecodeBlock(salt, (const uint8_t *)salt64, (int)strlen(salt64));
	for (size_t i = strlen(salt64); i > 0 && salt64[i - 1] == '='; i--)
		salt_length--;
	assert_int_equal(
		PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, salt_length, (int)iterations, EVP_sha256(), KEY, salted),
		1);
	hmac(salted, "Client Key", key);
	hmac(salted, "Server Key", server_key);
	SHA256(key, KEY, stored);
	const char *without_proof = text_of("c=biws,r=%s", nonce);
	const char *message = text_of("%s,%s,%s", bare, server_first, without_proof);
	hmac(stored, message, proof);
	for (int i = 0; i < KEY; i++)
		proof[i] ^= key[i];
	EVP_EncodeBlock((uint8_t *)text, proof, KEY);
	const char *final = text_of("%s,p=%s", without_proof, text);
	hmac(server_key, message, stored);
	EVP_EncodeBlock((uint8_t *)text, stored, KEY);
	*signature = text_of("v=%s", text);
	return final;
}

/* ---------------------------------------------------------------------------------------------------- exchanges */

#define NONCE "fyko+d2lbbFgONRv9qkxdawL"

/* Up to the server's first message; NULL where the connection was closed instead. */
static const char *begin(struct raw *raw, const char *id, const char *name)
{
	struct raw_packet packet;
	put_connect(raw, id, 60, "SCRAM-SHA-256", text_of("n,,n=%s,r=" NONCE, name));
	if (!raw_read(raw, &packet))
		return NULL;
	assert_int_equal(packet.head, AUTH);
	assert_int_equal(packet.body[0], CONTINUE);
	return data_of(&packet);
}

/* The same, and once more after a miss. */
static struct raw *begin_again(struct fixture *fixture, const char *id, const char *name, const char **first)
{
	for (int64_t deadline_ms = now_ms() + 15000; now_ms() < deadline_ms;) {
		struct raw *raw = raw_open(fixture->broker.port);
		*first = begin(raw, id, name);
		if (*first)
			return raw;
		raw_close(raw);
	}
	fail_msg("the verifier of %s is not loaded", name);
	return NULL;
}

/* CONNACK's code, or CLOSED. */
static int end(struct raw *raw, const char *name, const char *first, const char *password)
{
	struct raw_packet packet;
	const char *signature, *final = final_message(text_of("n=%s,r=" NONCE, name), first, password, &signature);
	put_auth(raw, CONTINUE, "SCRAM-SHA-256", final);
	if (!raw_read(raw, &packet))
		return CLOSED;
	assert_int_equal(packet.head, CONNACK);
	if (packet.body[1] == 0)
		assert_string_equal(data_of(&packet), signature);
	return packet.body[1];
}

static int sign_in(struct fixture *fixture, const char *id, const char *name, const char *password)
{
	const char *first;
	struct raw *raw = begin_again(fixture, id, name, &first);
	int code = end(raw, name, first, password);
	raw_close(raw);
	return code;
}

/* Who signs in so is a user like any other. */
static void test_sign_in(void **state)
{
	struct fixture *fixture = *state;
	const char *first;
	struct raw *raw = begin_again(fixture, "1-scram", "alice", &first);
	assert_int_equal(strncmp(first, "r=" NONCE, strlen("r=" NONCE)), 0);
	assert_true(strlen(first) > strlen("r=" NONCE) + 20);
	assert_int_equal(end(raw, "alice", first, "pencil pencil"), 0);
	assert_int_equal(raw_subscribe(raw, 5, "chat/response/1-scram", 21, 1), 1);
	assert_int_equal(raw_subscribe(raw, 5, "chat/user/1/inbox", 17, 2), 1);
	assert_int_equal(raw_subscribe(raw, 5, "chat/user/2/inbox", 17, 3), 0x87);
	raw_publish(raw, 5, "chat/request/user.get", 21, "{}", 2, 4);
	struct raw_packet packet;
	assert_true(raw_read_type(raw, 0x30, &packet));
	assert_non_null(memmem(packet.body, packet.length, "\"alice\"", 7));
	/* SIGHUP asks about everybody again, by a password that this client never had. */
	int before = broker_log_count(&fixture->broker, "reloaded keys and options");
	broker_signal(&fixture->broker, SIGHUP);
	broker_log_wait(&fixture->broker, "reloaded keys and options", before + 1);
	assert_int_equal(raw_subscribe(raw, 5, "chat/1/messages", 15, 5), 1);
	raw_close(raw);
	assert_int_equal(sign_in(fixture, "", "ALICE", "pencil pencil"), 0);
}

/* threat 18: a wrong password, a name that nobody has, and an account without a password look the same. */
static void test_wrong(void **state)
{
	struct fixture *fixture = *state;
	assert_int_equal(sign_in(fixture, "", "alice", "pencil pencils"), 0x87);
	assert_int_equal(sign_in(fixture, "", "nobody", "pencil pencil"), 0x87);
	assert_int_equal(sign_in(fixture, "", "bob", "pencil pencil"), 0x87);
	const char *first, *again;
	raw_close(begin_again(fixture, "", "nobody", &first));
	raw_close(begin_again(fixture, "", "nobody", &again));
	assert_string_equal(strstr(first, ",s="), strstr(again, ",s="));
	assert_string_not_equal(first, again);
}

/* All that CONNECT asks is asked here too. */
static void test_connect_rules(void **state)
{
	struct fixture *fixture = *state;
	assert_int_equal(sign_in(fixture, "2-phone", "alice", "pencil pencil"), 0x87);
	assert_int_equal(sign_in(fixture, "a b", "alice", "pencil pencil"), 0x87);
	assert_int_equal(sign_in(fixture, "1-phone", "alice", "pencil pencil"), 0);
	struct raw_packet packet;
	struct raw *raw = raw_open(fixture->broker.port);
	put_connect(raw, "1-phone", 0, "SCRAM-SHA-256", "n,,n=alice,r=" NONCE); /* refused at once: nothing would end it */
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.head, CONNACK);
	assert_int_equal(packet.body[1], 0x87);
	raw_close(raw);
}

static void test_malformed(void **state)
{
	struct fixture *fixture = *state;
	const char *firsts[] = {
		"", "x", "n,,", "n,,n=alice", "p=tls-unique,,n=alice,r=x", "n,a=bob,n=alice,r=x", "n,,n=alice,r=x,m=y"};
	struct raw_packet packet;
	for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
		struct raw *raw = raw_open(fixture->broker.port);
		print_message("%s\n", firsts[i]);
		put_connect(raw, "", 60, "SCRAM-SHA-256", firsts[i]);
		assert_true(raw_read(raw, &packet));
		assert_int_equal(packet.head, CONNACK);
		assert_int_equal(packet.body[1], 0x87);
		raw_close(raw);
	}
	/* No data at all; another method. */
	struct raw *raw = raw_open(fixture->broker.port);
	put_connect(raw, "", 60, "SCRAM-SHA-256", NULL);
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.body[1], 0x87);
	raw_close(raw);
	raw = raw_open(fixture->broker.port);
	put_connect(raw, "", 60, "SCRAM-SHA-1", "n,,n=alice,r=x");
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.body[1], 0x8c);
	raw_close(raw);
	const char *first, *finals[] = {"", "x", "c=biws,r=x,p=AAAA", "e=other-error"};
	for (size_t i = 0; i < sizeof finals / sizeof *finals; i++) {
		raw = begin_again(fixture, "", "alice", &first);
		put_auth(raw, CONTINUE, "SCRAM-SHA-256", finals[i]);
		assert_true(raw_read(raw, &packet));
		assert_int_equal(packet.head, CONNACK);
		assert_int_equal(packet.body[1], 0x87);
		raw_close(raw);
	}
	/* A proof is good for its own exchange. */
	raw = begin_again(fixture, "", "alice", &first);
	const char *signature, *final = final_message("n=alice,r=" NONCE, first, "pencil pencil", &signature);
	raw_close(raw);
	raw = begin_again(fixture, "", "alice", &first);
	put_auth(raw, CONTINUE, "SCRAM-SHA-256", final);
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.body[1], 0x87);
	raw_close(raw);
}

static struct raw *signed_in(struct fixture *fixture, const char *id)
{
	const char *first;
	struct raw *raw = begin_again(fixture, id, "alice", &first);
	assert_int_equal(end(raw, "alice", first, "pencil pencil"), 0);
	return raw;
}

/* threat 16: who is signed in does not authenticate again, in whatever way it is tried; nothing happens to anybody else. */
static void test_no_second_authentication(void **state)
{
	struct fixture *fixture = *state;
	struct client *bystander = fixture_member(fixture, BOB, 5, GROUP);
	struct raw_packet packet;
	struct raw *raw = signed_in(fixture, "1-again");
	put_auth(raw, REAUTHENTICATE, "SCRAM-SHA-256", "n,,n=bob,r=" NONCE);
	assert_true(raw_read(raw, &packet));
	assert_int_equal(packet.head, CONNACK);
	assert_int_equal(packet.body[1], 0x8c);
	raw_close(raw);
	/* An AUTH without a body is let through to the plugin as if it continued something. */
	for (int i = 0; i < 5; i++) {
		raw = signed_in(fixture, "1-again");
		raw_begin(raw, AUTH);
		raw_end(raw);
		while (raw_read(raw, &packet))
			assert_true((packet.head & 0xf0) == AUTH || (packet.head & 0xf0) == 0xe0); /* or DISCONNECT */
		raw_close(raw);
	}
	raw = signed_in(fixture, "1-again");
	put_auth(raw, CONTINUE, "SCRAM-SHA-256", "c=biws");
	while (raw_read(raw, &packet))
		assert_int_equal(packet.head & 0xf0, 0xe0);
	raw_close(raw);
	raw_close(signed_in(fixture, "1-again"));
	assert_true(client_publish(bystander, topic_of(GROUP, "send"), "still here", 1) < 0x80);
	message_free(client_receive(bystander, topic_of(GROUP, "messages")));
}

/* Signs in and changes its password by itself, which ends the connection. True: the answer came first. */
static bool change_password(struct fixture *fixture, const char *old, const char *new)
{
	struct raw_packet packet;
	const char *first;
	struct raw *raw = begin_again(fixture, "1-old", "alice", &first);
	bool answered = false;
	assert_int_equal(end(raw, "alice", first, old), 0);
	assert_int_equal(raw_subscribe(raw, 5, "chat/response/1-old", 19, 1), 1);
	const char *change = text_of("{\"old_password\":\"%s\",\"new_password\":\"%s\"}", old, new);
	raw_publish(raw, 5, "chat/request/auth.change_password", 33, change, strlen(change), 2);
	while (raw_read(raw, &packet)) {
		if ((packet.head & 0xf0) == 0x30)
			answered = memmem(packet.body, packet.length, "\"result\":{}", 11) != NULL;
	}
	raw_close(raw);
	assert_int_equal(sign_in(fixture, "1-old", "alice", new), 0);
	return answered;
}

/* From "another one" to "pencil pencil"; there and back where a machine that stands still keeps the answer for so long that the
 * end may not wait for it. */
static void change_by_itself(struct fixture *fixture)
{
	enum { ATTEMPTS = 4 };
	bool answered = change_password(fixture, "another one", "pencil pencil");
	for (int attempt = 1; attempt < ATTEMPTS && !answered; attempt++) {
		answered = change_password(fixture, "pencil pencil", "another one");
		answered = change_password(fixture, "another one", "pencil pencil") || answered;
	}
	assert_true(answered);
}

/* A new password, whoever sets it, ends what the old one let in. */
static void test_new_password(void **state)
{
	struct fixture *fixture = *state;
	struct raw_packet packet;
	struct raw *raw = signed_in(fixture, "1-old");
	sql(&fixture->postgres, "SET password_encryption = 'scram-sha-256'; ALTER ROLE scram_alice PASSWORD 'another one'; "
				"UPDATE chat.credentials SET verifier = (SELECT rolpassword FROM pg_authid WHERE rolname = "
				"'scram_alice') WHERE user_id = 1");
	while (raw_read(raw, &packet))
		;
	raw_close(raw);
	assert_int_equal(sign_in(fixture, "1-old", "alice", "pencil pencil"), 0x87);
	assert_int_equal(sign_in(fixture, "1-old", "alice", "another one"), 0);
	raw_close(begin_again(fixture, "1-old", "alice", &(const char *){NULL}));
	/* By itself: the answer comes, then the end. */
	change_by_itself(fixture);
}

/* threat 16: what was begun with the old password is not finished with it. */
static void test_begun_before_a_new_password(void **state)
{
	struct fixture *fixture = *state;
	struct raw_packet packet;
	const char *first;
	struct raw *begun = begin_again(fixture, "1-begun", "alice", &first), *raw = signed_in(fixture, "1-witness");
	sql(&fixture->postgres, "CREATE TABLE before_that AS SELECT verifier FROM chat.credentials WHERE user_id = 1; "
				"SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_new PASSWORD 'another one'; "
				"UPDATE chat.credentials SET verifier = (SELECT rolpassword FROM pg_authid WHERE rolname = "
				"'scram_new') WHERE user_id = 1");
	while (raw_read(raw, &packet))
		;
	raw_close(raw);
	assert_int_equal(end(begun, "alice", first, "pencil pencil"), CLOSED);
	raw_close(begun);
	/* Also where the new one is in memory already. */
	begun = begin_again(fixture, "1-begun", "alice", &first);
	raw = begin_again(fixture, "1-witness", "alice", &(const char *){NULL});
	raw_close(raw);
	assert_int_equal(end(begun, "alice", first, "another one"), 0);
	raw = begun;
	sql(&fixture->postgres, "UPDATE chat.credentials SET verifier = (SELECT verifier FROM before_that) WHERE user_id = 1; "
				"DROP TABLE before_that");
	while (raw_read(raw, &packet))
		;
	raw_close(raw);
	raw_close(begin_again(fixture, "1-witness", "alice", &first));
}

/* Who changes the password ends what the old one let in within a second, also a session that waits for the answer to a wish to
 * be signed out. */
static void test_new_password_while_leaving(void **state)
{
	struct fixture *fixture = *state;
	struct raw_packet packet;
	struct raw *raw = signed_in(fixture, "1-leaving");
	assert_int_equal(raw_subscribe(raw, 5, "chat/response/1-leaving", 23, 1), 1);
	fixture_expect_error(fixture, "SQLSTATE 57014"); /* where it waits for more than 5 s */
	PGconn *holder = postgres_connect(&fixture->postgres, "postgres");
	PQclear(PQexec(holder, "BEGIN; LOCK TABLE chat_api.methods IN ACCESS EXCLUSIVE MODE"));
	const char *other = "{\"device\":999999999}";
	assert_true(raw_publish(raw, 5, "chat/request/device.remove", 26, other, strlen(other), 2) < 0x80);
	sql(&fixture->postgres,
		"UPDATE chat.credentials SET verifier = (SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_new') "
		"WHERE user_id = 1");
	while (raw_read(raw, &packet))
		assert_int_not_equal(packet.head & 0xf0, 0x30); /* before its request could be answered */
	raw_close(raw);
	PQclear(PQexec(holder, "COMMIT"));
	PQfinish(holder);
	sql(&fixture->postgres, "DROP ROLE scram_new");
}

/* Who was told of a new password may sign in with it, and not with the old one, though what announces it is not heard yet. */
static void test_new_password_before_it_is_heard_of(void **state)
{
	struct fixture *fixture = *state;
	struct raw_packet packet;
	const char *change = "{\"old_password\":\"another one\",\"new_password\":\"pencil pencil\"}", *first;
	struct raw *raw = begin_again(fixture, "1-unheard", "alice", &first);
	assert_int_equal(end(raw, "alice", first, "another one"), 0);
	assert_int_equal(raw_subscribe(raw, 5, "chat/response/1-unheard", 23, 1), 1);
	assert_int_equal(raw_subscribe(raw, 5, "chat/1/messages", 15, 2), 1);
	pid_t loader = postgres_hold(&fixture->postgres, "mosquitto-chat loader");
	raw_publish(raw, 5, "chat/request/auth.change_password", 33, change, strlen(change), 3);
	assert_true(raw_read_type(raw, 0x30, &packet));
	assert_non_null(memmem(packet.body, packet.length, "\"result\":{}", 11));
	while (raw_read(raw, &packet))
		;
	raw_close(raw);
	raw = raw_open(fixture->broker.port);
	assert_null(begin(raw, "1-unheard", "alice")); /* the old one is not known any more, and the new one not yet */
	raw_close(raw);
	check(kill(loader, SIGCONT) == 0);
	assert_int_equal(sign_in(fixture, "1-unheard", "alice", "pencil pencil"), 0);
}

/* threat 16: a password may have changed while announcements were not heard; so all sign in again. */
static void test_announcements_missed(void **state)
{
	struct fixture *fixture = *state;
	struct raw_packet packet;
	const char *first;
	struct raw *raw = begin_again(fixture, "1-missed", "alice", &first);
	assert_int_equal(end(raw, "alice", first, "pencil pencil"), 0);
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "writer ");
	postgres_stop(&fixture->postgres);
	postgres_start(&fixture->postgres);
	while (raw_read(raw, &packet))
		;
	raw_close(raw);
	assert_int_equal(sign_in(fixture, "1-missed", "alice", "pencil pencil"), 0);
}

/* Who has just got a password is let in. (Where the name was looked for before, that is remembered for a minute.) */
static void test_new_account(void **state)
{
	struct fixture *fixture = *state;
	sql(&fixture->postgres, "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_victor PASSWORD 'pencil pencil'");
	sql(&fixture->postgres, "WITH made AS (INSERT INTO chat.users (username) VALUES ('Victor') RETURNING id) "
				"INSERT INTO chat.credentials (user_id, verifier) SELECT id, rolpassword FROM made, pg_authid "
				"WHERE rolname = 'scram_victor'");
	assert_int_equal(sign_in(fixture, "", "victor", "pencil pencil"), 0);
}

/* With a password or without, MQTT 5 or 3.1.1: other ways to sign in are as they were. */
static void test_tokens_still_work(void **state)
{
	struct fixture *fixture = *state;
	client_close(fixture_client(fixture, ALICE, 4));
	client_close(fixture_client(fixture, ALICE, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sign_in),
		TEST(test_wrong),
		TEST(test_connect_rules),
		TEST(test_malformed),
		TEST(test_no_second_authentication),
		TEST(test_new_password),
		TEST(test_begun_before_a_new_password),
		TEST(test_new_account),
		TEST(test_new_password_while_leaving),
		TEST(test_new_password_before_it_is_heard_of),
		TEST(test_announcements_missed),
		TEST(test_tokens_still_work),
	};
	return cmocka_run_group_tests_name("scram", tests, setup, fixture_teardown);
}
