/* subscription.h - a browser's PushSubscription as JSON (W3C Push API, PushSubscriptionJSON): endpoint and keys. Pure. */
#ifndef CHAT_NOTIFIER_SUBSCRIPTION_H
#define CHAT_NOTIFIER_SUBSCRIPTION_H

#include "endpoint.h"

#include <stdint.h>

struct subscription {
	char endpoint[ENDPOINT_MAX + 1];
	char origin[ENDPOINT_ORIGIN_SIZE];
	uint8_t p256dh[65];
	uint8_t auth[16];
};

/* NULL: it can be pushed to; otherwise what is wrong, a static phrase. any_host as of endpoint_check. */
const char *subscription_parse(const char *json, size_t length, bool any_host, struct subscription *out);

#endif
