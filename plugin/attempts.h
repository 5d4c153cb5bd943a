/* attempts.h - how often signing in may fail: for each account, and from each address. Any thread.
 *
 * Counted in tables of fixed size, so that the memory of it is bounded whatever comes: who collides shares a bucket. Places are
 * chosen with a number of this process's own, so nobody can aim at another's.
 *
 * Strangers shall not lock somebody out of his account: an address from which an account was signed in to is counted apart,
 * with a bucket for this account and address alone.
 */
#ifndef CHAT_PLUGIN_ATTEMPTS_H
#define CHAT_PLUGIN_ATTEMPTS_H

#include "rate_limit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When to try again from an address that is limited. */
#define ATTEMPTS_RETRY_MS 60000

struct attempts;

struct attempts *attempts_new(void);
void attempts_free(struct attempts *attempts);
void attempts_set_limits(struct attempts *attempts, const struct rate_limit *account, const struct rate_limit *address);

/* An IPv4 address whole, also as ::ffff:1.2.3.4 (which is how WebSocket listeners give it); of an IPv6 address the first 64 bits,
 * which is what one customer commonly has (RFC 6177). NULL: 0, which is not limited. */
uint64_t attempts_address(const struct attempts *attempts, const char *address);
/* An account, by what is unique about its name. */
uint64_t attempts_account(const struct attempts *attempts, const char *name, size_t length);

bool attempts_address_is_limited(struct attempts *attempts, uint64_t address, int64_t now_ms);
void attempts_address_failed(struct attempts *attempts, uint64_t address, int64_t now_ms);
/* It was no failure after all. */
void attempts_address_give_back(struct attempts *attempts, uint64_t address);
/* Before a password is looked at: counts it as failed. False: too many already; *retry_after_ms. */
__attribute__((warn_unused_result)) bool attempts_begin(
	struct attempts *attempts, uint64_t account, uint64_t address, int64_t now_ms, int64_t *retry_after_ms);
/* It was the right one. */
void attempts_succeeded(struct attempts *attempts, uint64_t account, uint64_t address, int64_t now_ms);

#endif
