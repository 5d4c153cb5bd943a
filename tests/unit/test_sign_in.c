/* test_sign_in.c - what no client can bring about: CONNECT on a connection object whose last end was not told. */
#include "../../plugin/host.h"
#include "../../plugin/sign_in.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_object_used_again),
	};
	return cmocka_run_group_tests_name("sign_in", tests, NULL, NULL);
}
