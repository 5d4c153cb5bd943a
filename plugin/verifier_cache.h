/* verifier_cache.h - verifiers of those who signed in by SCRAM lately, held in memory. Broker thread.
 *
 * The broker asks for an answer at once, and no database is asked in CONNECT: so a name that is not here is refused and
 * loaded, and here when the client comes again. Names that nobody has are kept like all others, and like all others for
 * VERIFIER_LASTS_MS: what is here and what is not tells nothing about who there is, and who gets a name is found by it soon.
 * Bounded: the one that was looked for longest ago makes room.
 */
#ifndef CHAT_PLUGIN_VERIFIER_CACHE_H
#define CHAT_PLUGIN_VERIFIER_CACHE_H

#include "scram.h"

#define VERIFIER_CACHE_MAX 10000 /* some 4 MB */
/* From loading: long enough for a client that waits half a minute before it comes again. */
#define VERIFIER_LASTS_MS 60000

struct verifier_cache;

struct verifier_entry {
	int64_t user_id;  /* 0: there is no such account */
	uint64_t account; /* attempts_account() */
	struct scram_verifier verifier;
};

struct verifier_cache *verifier_cache_new(size_t entries_max);
void verifier_cache_free(struct verifier_cache *cache);
/* Valid until the cache is changed. NULL: not here. */
const struct verifier_entry *verifier_cache_find(struct verifier_cache *cache, const char *name, size_t length, int64_t now_ms);
/* In place of what the name has. Without memory it is not kept. */
void verifier_cache_put(
	struct verifier_cache *cache, const char *name, size_t length, const struct verifier_entry *entry, int64_t now_ms);
/* The user's entries. */
void verifier_cache_forget(struct verifier_cache *cache, int64_t user_id);
void verifier_cache_clear(struct verifier_cache *cache);

#endif
