/* test_endpoint.c - which endpoints and addresses may be pushed to, from text tables. */
#include "endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static void urls(void **state)
{
	char line[3000], origin[ENDPOINT_ORIGIN_SIZE];
	int refused = 0;
	FILE *file = fopen("endpoints.txt", "re");
	(void)state;
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		char *url = strstr(line, " |");
		if (line[0] == '#' || !url) {
			continue;
		}
		*url = '\0';
		url += url[2] == ' ' ? 3 : 2;
		const char *wrong = endpoint_check(url, strlen(url), false, origin);
		if ((wrong == NULL) != (strncmp(line, "ok", 2) == 0)) {
			fail_msg("%s: %s", url, wrong ? wrong : "taken");
		}
		if (!wrong) {
			assert_string_equal(origin, line + 3);
		}
		refused += wrong != NULL;
	}
	fclose(file);
	assert_true(refused >= 30);
}

static void long_urls(void **state)
{
	char url[ENDPOINT_MAX + 2], origin[ENDPOINT_ORIGIN_SIZE];
	(void)state;
	memset(url, 'a', sizeof(url));
	memcpy(url, "https://push.example.org/", 25);
	assert_null(endpoint_check(url, ENDPOINT_MAX, false, origin));
	assert_non_null(endpoint_check(url, ENDPOINT_MAX + 1, false, origin));
	/* a host of 254 characters */
	memset(url + 8, 'a', 250);
	memcpy(url + 258, ".org/", 5);
	assert_non_null(endpoint_check(url, 263, false, origin));
}

static void nul_in_a_url(void **state)
{
	char origin[ENDPOINT_ORIGIN_SIZE];
	(void)state;
	assert_non_null(endpoint_check("https://a.example.org\0.evil/x", 29, false, origin));
}

static void any_host(void **state)
{
	char origin[ENDPOINT_ORIGIN_SIZE];
	(void)state;
	assert_null(endpoint_check("https://127.0.0.1:8443/x", 24, true, origin));
	assert_string_equal(origin, "https://127.0.0.1:8443");
	assert_non_null(endpoint_check("http://127.0.0.1:8443/x", 23, true, origin));
	assert_non_null(endpoint_check("https:///x", 10, true, origin));
}

static bool is_public(const char *text)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
		return endpoint_address_is_public((const struct sockaddr *)(const void *)&in);
	}
	assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
	return endpoint_address_is_public((const struct sockaddr *)(const void *)&in6);
}

static void addresses(void **state)
{
	char line[200];
	int refused = 0;
	FILE *file = fopen("addresses.txt", "re");
	(void)state;
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '#') {
			continue;
		}
		if (is_public(line + 3) != (strncmp(line, "ok", 2) == 0)) {
			fail_msg("%s", line);
		}
		refused += line[0] == 'n';
	}
	fclose(file);
	assert_true(refused >= 30);
}

static void other_families(void **state)
{
	const struct sockaddr unix_address = {.sa_family = AF_UNIX};
	(void)state;
	assert_false(endpoint_address_is_public(&unix_address));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(urls), cmocka_unit_test(long_urls), cmocka_unit_test(nul_in_a_url),
		cmocka_unit_test(any_host), cmocka_unit_test(addresses), cmocka_unit_test(other_families)};
	return cmocka_run_group_tests_name("endpoint", tests, NULL, NULL);
}
