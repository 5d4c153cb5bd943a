/* test_sign_in.c - what no client can bring about (CONNECT on a connection object whose last end was not told), or see: when a
 * token's signature is not checked again. */
#include "../../plugin/host.h"
#include "../../plugin/sign_in.h"
#include "buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "key_files.h"

/* ---- what the service calls elsewhere */

void chat_refuse_session(struct chat *chat, struct session *session)
{
	(void)chat;
	session->state = SESSION_REFUSED;
}

bool loader_session(struct loader *loader, const struct session *session)
{
	(void)loader;
	(void)session;
	return true;
}

void host_kick(const char *client_id)
{
	(void)client_id;
	fail();
}

/* ---- */

/* threat 16: who signed in by SCRAM brought no password that a later CONNECT could be compared with. It is believed at SIGHUP
 * alone, and for its own client id. */
static void test_object_used_again(void **state)
{
	struct chat chat = {.now_ms = 1000, .now_wall_ms = 1000000};
	struct sign_in_request request = {
		.client = &chat, .client_id = "1-phone", .address = "1.1.1.1", .keepalive_s = 60, .protocol_version = 5};
	char name[SIGN_IN_NAME_MAX];
	(void)state;

	chat.registry = registry_new();
	chat.attempts = attempts_new();
	chat.sign_in = sign_in_new();
	assert_int_equal(sign_in_admit(&chat, &request, 1, 2000, name), SIGN_IN_ACCEPTED);
	chat.reloading = true;
	assert_int_equal(sign_in_connect(&chat, &request, name), SIGN_IN_ACCEPTED);
	assert_string_equal(name, "1");
	chat.reloading = false;
	assert_int_equal(sign_in_connect(&chat, &request, name), SIGN_IN_DEFERRED);
	assert_null(registry_find_session(chat.registry, &chat));

	assert_int_equal(sign_in_admit(&chat, &request, 1, 2000, name), SIGN_IN_ACCEPTED);
	chat.reloading = true;
	request.client_id = "2-phone";
	assert_int_not_equal(sign_in_connect(&chat, &request, name), SIGN_IN_ACCEPTED);
	sign_in_free(chat.sign_in);
	attempts_free(chat.attempts);
	registry_free(chat.registry);
}

/* ---- tokens: the ring is taken away where no signature is to be checked */

#define NOW_S INT64_C(1790000000)

static struct chat tokens_chat;
static struct buffer token;
static struct token_ring *ring, *other_ring; /* the second knows only a key that made nothing here */

static struct token_ring *make_ring(const char *name, const char *secret)
{
	char spec[KEY_PATH_SIZE + 16] = "hs256:", error[SIGNING_ERROR_SIZE];
	key_write_bytes(name, secret, strlen(secret), 0600);
	key_path(spec + strlen(spec), name);
	struct token_ring *made = token_ring_load(spec, error, sizeof(error));
	assert_non_null(made);
	if (token.length == 0) {
		struct token_rules rules = {0};
		struct token_claims claims = {.user_id = 7, .device_id = 8, .expires_at_s = NOW_S + 100};
		struct signing_key *key = signing_key_load(spec, error, sizeof(error));
		assert_true(token_make(key, &rules, &claims, &token) && buffer_append(&token, "", 1));
		signing_key_free(key);
	}
	return made;
}

static int set_up_tokens(void **state)
{
	(void)state;
	key_directory_make();
	buffer_init(&token, TOKEN_MAX);
	ring = make_ring("one", "0123456789abcdef0123456789abcdef");
	other_ring = make_ring("two", "fedcba9876543210fedcba9876543210");
	tokens_chat = (struct chat){.now_ms = 1000, .now_wall_ms = NOW_S * 1000, .keys = ring};
	tokens_chat.registry = registry_new();
	tokens_chat.attempts = attempts_new();
	tokens_chat.sign_in = sign_in_new();
	return 0;
}

static int tear_down_tokens(void **state)
{
	(void)state;
	sign_in_free(tokens_chat.sign_in);
	attempts_free(tokens_chat.attempts);
	registry_free(tokens_chat.registry);
	token_ring_free(ring);
	token_ring_free(other_ring);
	buffer_free(&token);
	key_directory_remove();
	return 0;
}

static char first, second; /* their addresses stand for connections */

static bool connects(const char *client, const char *client_id)
{
	char name[SIGN_IN_NAME_MAX];
	struct sign_in_request request = {.client = client,
		.client_id = client_id,
		.password = token.data,
		.address = "1.1.1.1",
		.keepalive_s = 60,
		.clean_session = true,
		.protocol_version = 5};
	if (sign_in_connect(&tokens_chat, &request, name) != SIGN_IN_ACCEPTED) {
		return false;
	}
	const struct session *session = registry_find_session(tokens_chat.registry, client);
	assert_string_equal(name, "7");
	assert_int_equal(session->user->id, 7);
	assert_int_equal(session->device_id, 8);
	assert_false(session->by_device_token);
	assert_int_equal(registry_expiry(tokens_chat.registry, session), NOW_S + 100);
	assert_int_equal(session->state, SESSION_PROVISIONAL); /* the database is asked as after any other */
	return true;
}

static void test_token_comes_again(void **state)
{
	(void)state;
	assert_true(connects(&first, "7-phone"));
	sign_in_disconnect(&tokens_chat, &first);
	tokens_chat.keys = other_ring;
	assert_true(connects(&second, "7-phone"));
	assert_true(connects(&first, "7-phone")); /* a takeover: the other's end is told afterwards */
	sign_in_disconnect(&tokens_chat, &second);
	sign_in_disconnect(&tokens_chat, &first);
	token.data[token.length - 2] ^= 1; /* of the signature */
	assert_false(connects(&first, "7-phone"));
	token.data[token.length - 2] ^= 1;
	assert_true(connects(&first, "7-other"));
}

static void test_token_expires(void **state)
{
	(void)state;
	assert_true(connects(&first, "7-phone"));
	tokens_chat.now_wall_ms = (NOW_S + 100 + TOKEN_LEEWAY_S) * 1000;
	assert_false(connects(&second, "7-phone"));
	sign_in_end_expired(&tokens_chat);
	tokens_chat.now_wall_ms = NOW_S * 1000;
	tokens_chat.keys = other_ring;
	assert_false(connects(&second, "7-phone")); /* what is being refused is no proof */
	sign_in_disconnect(&tokens_chat, &first);
	assert_false(connects(&first, "7-phone"));
}

/* A key that was taken out signs nobody in any more, though those who are in may stay. */
static void test_token_of_a_removed_key(void **state)
{
	(void)state;
	assert_true(connects(&first, "7-phone"));
	assert_true(connects(&second, "7-other"));
	sign_in_disconnect(&tokens_chat, &second);
	tokens_chat.keys = other_ring;
	sign_in_keys_changed(tokens_chat.sign_in);
	assert_true(connects(&first, "7-phone")); /* SIGHUP asks about it once more */
	assert_false(connects(&second, "7-phone"));
	assert_false(connects(&second, "7-other"));
	sign_in_disconnect(&tokens_chat, &first);
	assert_false(connects(&first, "7-phone"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_object_used_again),
		cmocka_unit_test_setup_teardown(test_token_comes_again, set_up_tokens, tear_down_tokens),
		cmocka_unit_test_setup_teardown(test_token_expires, set_up_tokens, tear_down_tokens),
		cmocka_unit_test_setup_teardown(test_token_of_a_removed_key, set_up_tokens, tear_down_tokens),
	};
	return cmocka_run_group_tests_name("sign_in", tests, NULL, NULL);
}
