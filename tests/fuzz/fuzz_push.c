/* fuzz_push.c - any bytes as a browser's subscription, as an endpoint, as what a push service answers, and as texts of a
 * language.
 *
 * Beyond memory errors: an endpoint that is taken has an origin that is taken as well and is the same, and names no address.
 */
#include "../../notifier/content.h"
#include "../../notifier/endpoint.h"
#include "../../notifier/provider.h"
#include "../../notifier/subscription.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

static void check_endpoint(const char *text, size_t size)
{
	char origin[ENDPOINT_ORIGIN_SIZE], again[ENDPOINT_ORIGIN_SIZE], url[ENDPOINT_ORIGIN_SIZE + 2];
	if (endpoint_check(text, size, false, origin)) {
		return;
	}
	require(strncmp(origin, "https://", 8) == 0 && !strpbrk(origin + 8, "@:/[]"));
	(void)snprintf(url, sizeof(url), "%s/", origin);
	require(endpoint_check(url, strlen(url), false, again) == NULL && strcmp(origin, again) == 0);
}

static void check_answers(const char *text, size_t size)
{
	static const char *const names[] = {"fcm", "apns", "webpush"};
	static const int statuses[] = {200, 400, 401, 403, 404, 410, 413, 429, 500, 503};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		for (size_t j = 0; j < sizeof(statuses) / sizeof(statuses[0]); j++) {
			const struct provider_answer answer = {.status = statuses[j], .body = text, .length = size};
			struct provider_verdict verdict = provider_find(names[i])->classify(&answer);
			require(verdict.reason && verdict.action < ACTION_COUNT && verdict.delay_ms >= 0 && verdict.gone_ms >= 0);
			require(statuses[j] != 200 || verdict.action == ACTION_ACCEPTED);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct subscription subscription;
	char error[200], origin[ENDPOINT_ORIGIN_SIZE];

	check_endpoint(text, size);
	check_answers(text, size);
	if (!subscription_parse(text, size, false, &subscription)) {
		require(endpoint_check(subscription.endpoint, strlen(subscription.endpoint), false, origin) == NULL);
		require(strcmp(origin, subscription.origin) == 0);
	}
	content_free(content_parse(text, size, error, sizeof(error)));
	return 0;
}
