/* test_acl.c - who may do what, as one table.
 *
 * A row is a topic, a column a standing, a cell what read, subscribe and publish answer, in this order:
 *
 *   read, subscribe   y yes   - no   ? unknown
 *   publish           y go on   n not_found   f forbidden   u unauthenticated
 *
 * The columns: a guest; then signed in: no member, reader, member, admin, owner, no member of a public channel,
 * reader of one, owner of one, reader and owner of a channel (public or not), and memberships not loaded (`?`, with nothing said,
 * and `!`, with everything said: what is not known must not count). Then two guests about whom somebody claims to know
 * something, and who was found to be allowed the presence that is asked for, with memberships loaded and not.
 */
#include "../../plugin/acl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct column {
	const char *name;
	int64_t user_id;
	struct acl_standing standing;
};

/* clang-format off */
static const struct column columns[] = {
	{"guest",             0, {false, false, false, ACL_ROLE_NONE, false, 0}},
	{"no member",         7, {true,  false, false, ACL_ROLE_NONE, false, 0}},
	{"reader",            7, {true,  false, false, ACL_ROLE_READER, false, 0}},
	{"member",            7, {true,  false, false, ACL_ROLE_MEMBER, false, 0}},
	{"admin",             7, {true,  false, false, ACL_ROLE_ADMIN, false, 0}},
	{"owner",             7, {true,  false, false, ACL_ROLE_OWNER, false, 0}},
	{"public, no member", 7, {true,  true,  false, ACL_ROLE_NONE, false, 0}},
	{"public, reader",    7, {true,  true,  false, ACL_ROLE_READER, false, 0}},
	{"public, owner",     7, {true,  true,  false, ACL_ROLE_OWNER, false, 0}},
	{"channel, reader",   7, {.known = true, .is_channel = true, .role = ACL_ROLE_READER}},
	{"channel, owner",    7, {.known = true, .is_channel = true, .role = ACL_ROLE_OWNER}},
	{"not loaded",        7, {false, false, false, ACL_ROLE_NONE, false, 0}},
	{"not loaded, owner", 7, {false, true,  false, ACL_ROLE_OWNER, false, 0}},
	{"guest, public",     0, {true,  true,  false, ACL_ROLE_NONE, false, 0}},
	{"guest, owner",      0, {true,  false, false, ACL_ROLE_OWNER, false, 0}},
	{"may watch",         7, {.known = true, .may_watch = true}},
	{"not loaded, watch", 7, {.known = false, .may_watch = true}},
};

struct row {
	const char *topic;
	const char *cells[COUNT(columns)];
};

static const struct row rows[] = {
	/*                               guest  none   reader member admin  owner  pub.   p.read p.own  c.read c.own  ?      !      g.pub. g.own  watch  ?watch */
	/* down */
	{"chat/42/messages",            {"--f", "--f", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "-?f", "-?f", "--f", "--f", "--f", "-?f"}},
	{"chat/42/receipts",            {"--f", "--f", "yyf", "yyf", "yyf", "yyf", "--f", "yyf", "yyf", "--f", "--f", "-?f", "-?f", "--f", "--f", "--f", "-?f"}},
	{"chat/42/typing",              {"--f", "--f", "yyf", "yyf", "yyf", "yyf", "--f", "yyf", "yyf", "--f", "--f", "-?f", "-?f", "--f", "--f", "--f", "-?f"}},
	/* presence: always granted; silent but for those who may know, which is decided elsewhere */
	{"chat/user/7/presence",        {"--f", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "--f", "--f", "yyf", "-yf"}},
	{"chat/user/8/presence",        {"--f", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "-yf", "--f", "--f", "yyf", "-yf"}},
	/* one's own inbox: readable once the account has been found good */
	{"chat/user/7/inbox",           {"--f", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "-yf", "-yf", "--f", "--f", "yyf", "-yf"}},
	{"chat/user/8/inbox",           {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	/* the connection's own answers, at once: a refused sign-in must be able to hear why */
	{"chat/response/7-phone",       {"yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf", "yyf"}},
	{"chat/response/7-phon",        {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	{"chat/response/7-phone2",      {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	{"chat/response/7-Phone",       {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	{"chat/response/8-phone",       {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	/* up: nobody subscribes, nobody is handed anything */
	{"chat/42/send",                {"--u", "--n", "--f", "--y", "--y", "--y", "--f", "--f", "--y", "--f", "--y", "--y", "--y", "--u", "--u", "--n", "--y"}},
	{"chat/42/mark",                {"--u", "--n", "--y", "--y", "--y", "--y", "--n", "--y", "--y", "--y", "--y", "--y", "--y", "--u", "--u", "--n", "--y"}},
	{"chat/42/type",                {"--u", "--n", "--y", "--y", "--y", "--y", "--n", "--y", "--y", "--f", "--f", "--y", "--y", "--u", "--u", "--n", "--y"}},
	{"chat/request/auth.register",  {"--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y"}},
	{"chat/request/auth.login",     {"--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y"}},
	{"chat/request/auth.refresh",   {"--u", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--u", "--u", "--y", "--y"}},
	{"chat/request/message.send",   {"--u", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--u", "--u", "--y", "--y"}},
	{"chat/request/auth.login.x",   {"--u", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--y", "--u", "--u", "--y", "--y"}},
	/* nothing of ours */
	{"chat/042/messages",           {"--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n"}},
	{"chat/42/secret",              {"--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n"}},
	{"chat/+/messages",             {"--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n"}},
	{"chat/#",                      {"--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n", "--n"}},
	{"#",                           {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	{"$share/g/chat/42/messages",   {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	{"$SYS/broker/uptime",          {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
	{"weather/berlin",              {"--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f", "--f"}},
};
/* clang-format on */

static char verdict_sign(enum acl_verdict verdict)
{
	switch (verdict) {
	case ACL_ALLOW:
		return 'y';
	case ACL_DENY:
		return '-';
	case ACL_UNKNOWN:
		return '?';
	}
	return 'X';
}

static char publish_sign(enum error_code code)
{
	switch (code) {
	case ERROR_NONE:
		return 'y';
	case ERROR_NOT_FOUND:
		return 'n';
	case ERROR_FORBIDDEN:
		return 'f';
	case ERROR_UNAUTHENTICATED:
		return 'u';
	default:
		return 'X';
	}
}

static void the_table(void **state)
{
	bool seen[TOPIC_RESPONSE + 1] = {false};
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct topic topic = topic_parse_filter(rows[i].topic);
		seen[topic.kind] = true;
		for (size_t j = 0; j < COUNT(columns); j++) {
			struct acl_subject subject = {columns[j].user_id, "7-phone"};
			const struct acl_standing *standing = &columns[j].standing;
			char cell[4] = {verdict_sign(acl_read(&topic, &subject, standing)),
				verdict_sign(acl_subscribe(&topic, &subject, standing)),
				publish_sign(acl_publish(&topic, &subject, standing)), '\0'};
			if (strcmp(cell, rows[i].cells[j]) != 0) {
				print_error("%s, %s: %s, not %s\n", rows[i].topic, columns[j].name, cell, rows[i].cells[j]);
				wrong++;
			}
		}
	}
	for (size_t kind = 0; kind < COUNT(seen); kind++) {
		if (!seen[kind]) {
			fail_msg("no row for topic kind %zu", kind);
		}
	}
	assert_int_equal(wrong, 0);
}

static void what_guests_may_call(void **state)
{
	static const char *const others[] = {"", "auth", "auth.", "auth.logi", "auth.logins", "auth.registe", "auth.register2",
		"Auth.login", "auth.login ", "auth.logout", "auth.refresh", "user.get"};

	(void)state;
	assert_true(acl_guest_may_call("auth.login", 10));
	assert_true(acl_guest_may_call("auth.login and more", 10)); /* the length counts, not a NUL */
	assert_true(acl_guest_may_call("auth.register", 13));
	assert_false(acl_guest_may_call("auth.login\0", 11));
	for (size_t i = 0; i < COUNT(others); i++) {
		if (acl_guest_may_call(others[i], strlen(others[i]))) {
			fail_msg("a guest may call '%s'", others[i]);
		}
	}
}

/* A channel's member reads and posts as anywhere; there are no receipts and no typing. */
static void channels_have_no_receipts(void **state)
{
	const struct acl_subject subject = {7, "7-phone"};
	const struct acl_standing standing = {.known = true, .is_channel = true, .role = ACL_ROLE_OWNER};
	const struct topic messages = topic_parse("chat/3/messages"), receipts = topic_parse("chat/3/receipts"),
			   typing = topic_parse("chat/3/typing"), send = topic_parse("chat/3/send"),
			   type = topic_parse("chat/3/type");

	(void)state;
	assert_int_equal(acl_subscribe(&messages, &subject, &standing), ACL_ALLOW);
	assert_int_equal(acl_subscribe(&receipts, &subject, &standing), ACL_DENY);
	assert_int_equal(acl_subscribe(&typing, &subject, &standing), ACL_DENY);
	assert_int_equal(acl_read(&receipts, &subject, &standing), ACL_DENY);
	assert_int_equal(acl_publish(&send, &subject, &standing), ERROR_NONE);
	assert_int_equal(acl_publish(&type, &subject, &standing), ERROR_FORBIDDEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(channels_have_no_receipts),
		cmocka_unit_test(the_table),
		cmocka_unit_test(what_guests_may_call),
	};

	return cmocka_run_group_tests_name("acl", tests, NULL, NULL);
}
