/* credential.h - what proves to a push service who we are, and when it is to be renewed. One for an app (Google, Apple), or one
 * for each origin (Web Push). One thread; no I/O: Google's is fetched by whoever owns it.
 */
#ifndef CHAT_NOTIFIER_CREDENTIAL_H
#define CHAT_NOTIFIER_CREDENTIAL_H

#include "config.h"

struct credential {
	struct buffer text; /* NUL-terminated when good */
	bool good;
	bool proved;         /* something was accepted with it */
	int64_t renew_at_ms; /* wall clock */
	int64_t ends_at_ms;
	int64_t made_at_ms;
	uint64_t number; /* rises with every renewal, so that an answer about an older one is known as such */
};

void credential_init(struct credential *credential);
void credential_free(struct credential *credential);
bool credential_is_good(const struct credential *credential, int64_t now_ms);
bool credential_is_due(const struct credential *credential, int64_t now_ms);

/* Apple's: its time of issue is the beginning of a slot of 40 minutes, so that restarts and several notifiers use tokens of one
 * time: Apple wants a new one not more than every 20 minutes and not less than every 60. False: no memory. */
__attribute__((warn_unused_result)) bool credential_make_apns(
	struct credential *credential, const struct config_app *app, int64_t now_ms);
/* For one origin, good for 12 hours, renewed after 6. */
__attribute__((warn_unused_result)) bool credential_make_vapid(
	struct credential *credential, const struct config_app *app, const char *origin, int64_t now_ms);
/* The body of the request that fetches Google's. */
__attribute__((warn_unused_result)) bool credential_google_request(
	const struct config_app *app, int64_t now_ms, struct buffer *out);
/* And what came back; false: it is no token. Renewed at 85 % of its life. */
__attribute__((warn_unused_result)) bool credential_google_answer(
	struct credential *credential, const char *body, size_t length, int64_t now_ms);

#endif
