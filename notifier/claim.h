/* claim.h - a row of chat.claim_pushes, as the push that it asks for. No I/O; one thread.
 *
 * Texts are borrowed from the result, and hold as long as it does.
 */
#ifndef CHAT_NOTIFIER_CLAIM_H
#define CHAT_NOTIFIER_CLAIM_H

#include "config.h"
#include "database.h"
#include "subscription.h"

enum claim_verdict {
	CLAIM_SEND,      /* message, clear or test: to be sent, and settled */
	CLAIM_CANCELLED, /* read or delivered meanwhile */
	CLAIM_EXPIRED,
	CLAIM_OTHER /* done with, for reasons of the database's */
};

enum claim_verdict claim_verdict(const struct database_result *result, int row);

struct claim {
	struct push push;
	int64_t user_id, lease, since_ms, target_us;
	int32_t attempts;
	struct subscription subscription; /* webpush */
	const char *wrong;                /* NULL, or why it cannot be sent (static) */
	/* what push points to */
	int64_t cleared[PUSH_CLEAR_MAX];
	char title[204], body[1004];
};

/* Fills all of it from a row whose verdict is CLAIM_SEND. */
void claim_read(struct claim *claim, const struct config *config, const struct config_app *app,
	const struct database_result *result, int row);

/* Says on stdout what would be sent, to whom. */
void claim_print(const struct claim *claim, const struct config_app *app);

#endif
