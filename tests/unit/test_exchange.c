/* test_exchange.c - SCRAM's exchanges: what is kept of those that are not finished, and what they cost who begins them. The whole
 * way through is tests/integration/test_scram.c's.
 */
#include "../../plugin/exchange.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- what the service calls elsewhere */

void chat_refuse_session(struct chat *chat, struct session *session)
{
	(void)chat;
	(void)session;
	fail();
}

bool loader_verifier(struct loader *loader, const char *name, size_t length)
{
	(void)loader;
	(void)name;
	(void)length;
	return true;
}

/* ---- */

static const struct rate_limit off = {0};
static char clients[300]; /* their addresses stand for connections */

static void know(struct chat *chat, uint8_t password)
{
	struct verifier_entry entry = {.user_id = 1, .account = 77, .verifier = {.iterations = 4096, .salt_length = 16}};
	entry.verifier.stored_key[0] = password;
	verifier_cache_put(chat->verifiers, "alice", 5, &entry, chat->now_ms);
}

static int setup(void **state)
{
	static struct chat chat;
	chat = (struct chat){.now_ms = 1000};
	chat.registry = registry_new();
	chat.attempts = attempts_new();
	chat.verifiers = verifier_cache_new(10);
	chat.exchanges = exchanges_new();
	attempts_set_limits(chat.attempts, &off, &off);
	know(&chat, 1);
	*state = &chat;
	return 0;
}

static int teardown(void **state)
{
	struct chat *chat = *state;
	exchanges_free(chat->exchanges);
	verifier_cache_free(chat->verifiers);
	attempts_free(chat->attempts);
	registry_free(chat->registry);
	return 0;
}

static enum exchange_verdict start_with(struct chat *chat, int client, const char *address, const char *first, int keepalive_s)
{
	struct exchange_reply reply = {0};
	struct exchange_request request = {.client = &clients[client],
		.address = address,
		.keepalive_s = keepalive_s,
		.method = "SCRAM-SHA-256",
		.data = first,
		.length = strlen(first)};
	enum exchange_verdict verdict = exchange_start(chat, &request, &reply);
	buffer_free(&reply.out);
	return verdict;
}

static enum exchange_verdict start(struct chat *chat, int client, const char *address)
{
	return start_with(chat, client, address, "n,,n=alice,r=abc", 60);
}

/* With a wrong proof: REFUSED where there is something to prove. */
static enum exchange_verdict go_on(struct chat *chat, int client)
{
	struct exchange_reply reply = {0};
	enum exchange_verdict verdict = exchange_continue(chat, &clients[client], "c=biws,r=x,p=AAAA", 17, &reply);
	buffer_free(&reply.out);
	return verdict;
}

/* threat 16: what was begun with a password that is no longer the account's is not finished with it. */
static void test_verifier_changes(void **state)
{
	struct chat *chat = *state;
	assert_int_equal(start(chat, 0, "1.1.1.1"), EXCHANGE_CONTINUE);
	assert_int_equal(go_on(chat, 0), EXCHANGE_REFUSED);
	assert_int_equal(start(chat, 0, "1.1.1.1"), EXCHANGE_CONTINUE);
	know(chat, 2);
	assert_int_equal(go_on(chat, 0), EXCHANGE_CLOSED);
	assert_int_equal(start(chat, 0, "1.1.1.1"), EXCHANGE_CONTINUE);
	verifier_cache_forget(chat->verifiers, 1);
	assert_int_equal(go_on(chat, 0), EXCHANGE_CLOSED);
}

static void test_age(void **state)
{
	struct chat *chat = *state;
	assert_int_equal(start(chat, 0, "1.1.1.1"), EXCHANGE_CONTINUE);
	chat->now_ms += 30000; /* the verifier is still there */
	assert_int_equal(go_on(chat, 0), EXCHANGE_CLOSED);
	assert_int_equal(start_with(chat, 0, "1.1.1.1", "n,,n=alice,r=abc", 0), EXCHANGE_REFUSED);
}

/* One address ends no exchanges but its own, however many it begins. */
static void test_one_address(void **state)
{
	struct chat *chat = *state;
	assert_int_equal(start(chat, 299, "2.2.2.2"), EXCHANGE_CONTINUE);
	for (int i = 0; i < 290; i++) {
		chat->now_ms++;
		assert_int_equal(start(chat, i, "1.1.1.1"), EXCHANGE_CONTINUE);
	}
	assert_int_equal(go_on(chat, 299), EXCHANGE_REFUSED);
	assert_int_equal(go_on(chat, 281), EXCHANGE_DEFERRED); /* given up */
	for (int i = 282; i < 290; i++) {
		assert_int_equal(go_on(chat, i), EXCHANGE_REFUSED);
	}
}

/* Many addresses: the oldest of all makes room. */
static void test_many_addresses(void **state)
{
	struct chat *chat = *state;
	for (int i = 0; i < 257; i++) {
		char address[] = {'1', '.', (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10), '\0'};
		chat->now_ms++;
		assert_int_equal(start(chat, i, address), EXCHANGE_CONTINUE);
	}
	assert_int_equal(go_on(chat, 0), EXCHANGE_DEFERRED);
	assert_int_equal(go_on(chat, 1), EXCHANGE_REFUSED);
	assert_int_equal(go_on(chat, 256), EXCHANGE_REFUSED);
}

/* threats 17 and 18: looking for names costs as much as guessing at passwords. */
static void test_starts_are_counted(void **state)
{
	struct chat *chat = *state;
	struct rate_limit three = {.per_minute = 3, .burst = 3};
	attempts_set_limits(chat->attempts, &off, &three);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(start_with(chat, i, "1.1.1.1", "n,,n=nobody,r=abc", 60), EXCHANGE_CLOSED);
	}
	assert_int_equal(start(chat, 3, "1.1.1.1"), EXCHANGE_REFUSED);
	/* And a whole attempt counts once. */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(start(chat, 4, "2.2.2.2"), EXCHANGE_CONTINUE);
		assert_int_equal(go_on(chat, 4), EXCHANGE_REFUSED);
	}
	assert_int_equal(start(chat, 4, "2.2.2.2"), EXCHANGE_REFUSED);
	assert_int_equal(go_on(chat, 4), EXCHANGE_DEFERRED);
}

int main(void)
{
#define WITH_CHAT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_CHAT(test_verifier_changes),
		WITH_CHAT(test_age),
		WITH_CHAT(test_one_address),
		WITH_CHAT(test_many_addresses),
		WITH_CHAT(test_starts_are_counted),
	};
	return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}
