/* token_cache.h - tokens that were found good, of connections that have ended since. Broker thread.
 *
 * To check a signature costs more than all else that a CONNECT costs together, and after a cut in the network thousands come
 * again at once, each with the token it had. Such a one need not be checked twice: what a token claims cannot change, and
 * whether its time is over is looked at each time. Whether the account and the device may still sign in is asked of the
 * database after every sign-in, as always.
 *
 * Kept is a digest, never a token, made with a number of this process's own: nobody can make two tokens that share one. Only
 * good tokens come in, so nobody can fill it who has none. It holds only while the keys and rules are what they were: whoever
 * changes these clears it. Bounded: the oldest makes room.
 */
#ifndef CHAT_PLUGIN_TOKEN_CACHE_H
#define CHAT_PLUGIN_TOKEN_CACHE_H

#include "token.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_CACHE_MAX 100000 /* some 14 MB */

struct token_cache;

/* All zero: of no token. */
struct token_digest {
	uint8_t bytes[16];
};

/* NULL: no memory. */
struct token_cache *token_cache_new(size_t entries_max);
void token_cache_free(struct token_cache *cache);
/* Of more than TOKEN_MAX bytes, or without memory, it is that of no token. */
struct token_digest token_cache_digest(const struct token_cache *cache, const char *token, size_t length);
bool token_digest_equal(const struct token_digest *one, const struct token_digest *other); /* of no token: never */
/* What the token claims, which is then forgotten. False: it is not here, or it has expired. */
__attribute__((warn_unused_result)) bool token_cache_take(
	struct token_cache *cache, const struct token_digest *digest, int64_t now_s, struct token_claims *claims);
/* That of no token is not kept, nor any without memory. */
void token_cache_put(struct token_cache *cache, const struct token_digest *digest, const struct token_claims *claims);
void token_cache_clear(struct token_cache *cache);

#endif
