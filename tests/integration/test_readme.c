/* test_readme.c - what README.md tells a newcomer to type, typed as it stands there, but for the port. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADING "\n## With mosquitto_pub and mosquitto_rr alone\n"
#define BLOCK "\n```sh\n"

/* All blocks of shell under the heading, with the broker's port in place of 1883; to free(). */
static char *typed(int port)
{
	char *page = file_read(CHAT_SOURCE_DIR "/README.md"), *end, *at = strstr(page, HEADING);
	char *script = calloc(1, strlen(page) * 2), *out = script;
	assert_non_null(script);
	assert_non_null(at);
	if ((end = strstr(at + 1, "\n## ")))
		*end = '\0';
	while ((at = strstr(at, BLOCK))) {
		at += strlen(BLOCK);
		end = strstr(at, "```");
		assert_non_null(end);
		while (at < end) {
			bool is_port = !strncmp(at, "-p 1883", 7);
			out += is_port ? snprintf(out, 16, "-p %d", port) : snprintf(out, 2, "%c", *at);
			at += is_port ? 7 : 1;
		}
	}
	free(page);
	return script;
}

static int count(const char *text, const char *part)
{
	int found = 0;
	for (; (text = strstr(text, part)); text++)
		found++;
	return found;
}

static void test_newcomer(void **state)
{
	struct fixture *fixture = *state;
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *script = text_of("%s/typed.sh", fixture->directory), *log = text_of("%s/typed.log", fixture->directory);
	char *commands = typed(fixture->broker.port);
	/* The last command is the search; it is typed again until its index has caught up. */
	char *last = strstr(commands, "\nfinn message.search");
	assert_non_null(last);
	const char *again = text_of(
		"\nuntil %.*s | tee -a %s | grep -q '\"match\"'; do :; done\n", (int)strcspn(last + 1, "\n"), last + 1, log);
	file_write(script, text_of("set -euo pipefail\n%s%s", commands, again), 0600, NULL);
	free(commands);
	process_run("bash", (const char *[]){"bash", script, NULL}, NULL, &self, log);

	char *seen = file_read(log);
	print_tail(seen);
	assert_int_equal(count(seen, "\"error\""), 0);
	assert_non_null(strstr(seen, "\"added\""));
	assert_non_null(strstr(seen, "Noodles at twelve?"));
	assert_non_null(strstr(seen, "Noodles, yes!"));
	assert_non_null(strstr(seen, "And tea."));
	assert_non_null(strstr(seen, "\"more\":true"));
	assert_non_null(strstr(seen, "\"Lunch\""));
	free(seen);
	assert_int_equal(sql_integer(&fixture->postgres, "SELECT last_seq FROM chat.conversations WHERE name = 'Lunch'"), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_newcomer)};
	return cmocka_run_group_tests_name("readme", tests, fixture_setup_accounts, fixture_teardown);
}
