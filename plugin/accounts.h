/* accounts.h - what the methods auth.* do: passwords, devices, tokens. Runs in the request workers' threads; what hashes a
 * password, in their account threads.
 *
 * A password costs a quarter of a second of processor time, whether the account is there or not; so these threads are few, and
 * of low priority. What may be tried how often is attempts.c's.
 */
#ifndef CHAT_PLUGIN_ACCOUNTS_H
#define CHAT_PLUGIN_ACCOUNTS_H

#include "account.h"
#include "attempts.h"
#include "buffer.h"
#include "database.h"
#include "token.h"

struct accounts;

/* NULL: no memory. */
struct accounts *accounts_new(struct attempts *attempts);
void accounts_free(struct accounts *accounts);

/* Broker thread, at start and at SIGHUP: how tokens are made from now on. The key is taken over; NULL: none are made. The texts
 * are copied. False: no memory, nothing is changed and the key stays the caller's. */
__attribute__((warn_unused_result)) bool accounts_set_tokens(
	struct accounts *accounts, struct signing_key *key, const struct token_rules *rules, int64_t lifetime_s);

/* What is answered: `{"result":…}` or `{"error":…}`. */
struct account_answer {
	struct buffer json;
	bool ends_session; /* of who asked */
};

/* A worker's thread, with its own connection. */
void accounts_run(struct accounts *accounts, struct database *database, const struct account_task *task, int64_t now_ms,
	int64_t now_wall_ms, struct account_answer *answer);

#endif
