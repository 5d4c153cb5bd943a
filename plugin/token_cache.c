/* token_cache.c - see token_cache.h. uthash keeps its elements in the order in which they were added: the first is the one to
 * go. */
#include "token_cache.h"
#include "hash_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SALT_BYTES 16

struct element {
	struct token_digest digest;
	struct token_claims claims;
	UT_hash_handle hh;
};

struct token_cache {
	struct element *elements;
	size_t max;
	uint8_t salt[SALT_BYTES];
};

struct token_cache *token_cache_new(size_t entries_max)
{
	struct token_cache *cache = calloc(1, sizeof(*cache));
	if (cache && getrandom(cache->salt, sizeof(cache->salt), 0) != (ssize_t)sizeof(cache->salt)) {
		free(cache);
		return NULL;
	}
	if (cache) {
		cache->max = entries_max;
	}
	return cache;
}

static void drop(struct token_cache *cache, struct element *element)
{
	HASH_DEL(cache->elements, element);
	free(element);
}

void token_cache_clear(struct token_cache *cache)
{
	while (cache->elements) {
		drop(cache, cache->elements);
	}
}

void token_cache_free(struct token_cache *cache)
{
	if (cache) {
		token_cache_clear(cache);
		free(cache);
	}
}

struct token_digest token_cache_digest(const struct token_cache *cache, const char *token, size_t length)
{
	struct token_digest digest = {{0}};
	uint8_t salted[SALT_BYTES + TOKEN_MAX];
	uint8_t whole[SIGNING_DIGEST_BYTES];

	if (length > TOKEN_MAX) {
		return digest;
	}
	memcpy(salted, cache->salt, SALT_BYTES);
	memcpy(salted + SALT_BYTES, token, length);
	if (signing_digest(salted, SALT_BYTES + length, whole)) {
		memcpy(digest.bytes, whole, sizeof(digest.bytes));
	}
	return digest;
}

static bool is_none(const struct token_digest *digest)
{
	static const struct token_digest none;
	return memcmp(digest, &none, sizeof(none)) == 0;
}

bool token_digest_equal(const struct token_digest *one, const struct token_digest *other)
{
	return memcmp(one, other, sizeof(*one)) == 0 && !is_none(one);
}

static struct element *find(const struct token_cache *cache, const struct token_digest *digest)
{
	struct element *found;
	HASH_FIND(hh, cache->elements, digest, sizeof(*digest), found);
	return found;
}

bool token_cache_take(struct token_cache *cache, const struct token_digest *digest, int64_t now_s, struct token_claims *claims)
{
	struct element *found = find(cache, digest);
	if (!found) {
		return false;
	}
	*claims = found->claims;
	drop(cache, found);
	return now_s < claims->expires_at_s + TOKEN_LEEWAY_S;
}

void token_cache_put(struct token_cache *cache, const struct token_digest *digest, const struct token_claims *claims)
{
	if (is_none(digest) || find(cache, digest)) {
		return; /* the same token claims the same */
	}
	struct element *element = calloc(1, sizeof(*element));
	if (!element) {
		return;
	}
	element->digest = *digest;
	element->claims = *claims;
	if (HASH_COUNT(cache->elements) >= cache->max) {
		drop(cache, cache->elements);
	}
	HASH_ADD(hh, cache->elements, digest, sizeof(element->digest), element);
	if (!element->hh.tbl) {
		free(element);
	}
}
