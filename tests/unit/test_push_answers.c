/* test_push_answers.c - every answer of the three push services, from text tables (answers/). */
#include "provider.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIELDS 6

/* Cuts " | " apart; what is left of a line that has fewer fields is a mistake in the table. */
static void split(char *line, char *fields[FIELDS])
{
	line[strcspn(line, "\n")] = '\0';
	for (int i = 0; i < FIELDS; i++) {
		fields[i] = line;
		char *bar = strstr(line, " | ");
		if (i + 1 < FIELDS) {
			assert_non_null(bar);
			*bar = '\0';
			line = bar + 3;
		}
	}
}

static void check_row(const struct provider *provider, int number, char *fields[FIELDS])
{
	char got[200];
	const struct provider_answer answer = {.status = (int)strtol(fields[0], NULL, 10),
		.retry_after_ms = strtol(fields[1], NULL, 10) * 1000,
		.body = fields[2],
		.length = strlen(fields[2])};
	struct provider_verdict verdict = provider->classify(&answer);
	snprintf(got, sizeof(got), "%s %s", provider_action_name(verdict.action), verdict.reason);
	if (strcmp(got, fields[3]) != 0 || verdict.delay_ms != strtoll(fields[4], NULL, 10) ||
		verdict.gone_ms != strtoll(fields[5], NULL, 10)) {
		fail_msg("%s, row %d: %s, delay %lld, gone %lld", provider->name, number, got, (long long)verdict.delay_ms,
			(long long)verdict.gone_ms);
	}
}

static void check_table(const char *name, int least)
{
	char path[100], line[2000], *fields[FIELDS];
	int number = 0, rows = 0;
	snprintf(path, sizeof(path), "answers/%s.txt", name);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		number++;
		if (line[0] != '#') {
			split(line, fields);
			check_row(provider_find(name), number, fields);
			rows++;
		}
	}
	fclose(file);
	assert_true(rows >= least);
}

static void fcm(void **state)
{
	(void)state;
	check_table("fcm", 30);
}

static void apns(void **state)
{
	(void)state;
	check_table("apns", 40);
}

static void webpush(void **state)
{
	(void)state;
	check_table("webpush", 20);
}

static void unknown_provider(void **state)
{
	(void)state;
	assert_null(provider_find("carrier pigeon"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fcm), cmocka_unit_test(apns), cmocka_unit_test(webpush), cmocka_unit_test(unknown_provider)};
	return cmocka_run_group_tests_name("push_answers", tests, NULL, NULL);
}
