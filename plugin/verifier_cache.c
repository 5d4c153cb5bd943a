/* verifier_cache.c - see verifier_cache.h. uthash keeps its elements in the order in which they were added: the first is the
 * one to go. */
#include "verifier_cache.h"
#include "hash_table.h"

#include <stdlib.h>
#include <string.h>

struct element {
	struct verifier_entry entry;
	int64_t loaded_ms;
	UT_hash_handle hh;
	char name[];
};

struct verifier_cache {
	struct element *elements;
	size_t count, max;
};

struct verifier_cache *verifier_cache_new(size_t entries_max)
{
	struct verifier_cache *cache = calloc(1, sizeof(*cache));
	if (cache) {
		cache->max = entries_max;
	}
	return cache;
}

static void drop(struct verifier_cache *cache, struct element *element)
{
	HASH_DEL(cache->elements, element);
	free(element);
	cache->count--;
}

void verifier_cache_clear(struct verifier_cache *cache)
{
	while (cache->elements) {
		drop(cache, cache->elements);
	}
}

void verifier_cache_free(struct verifier_cache *cache)
{
	if (cache) {
		verifier_cache_clear(cache);
		free(cache);
	}
}

static bool add(struct verifier_cache *cache, struct element *element, size_t length)
{
	HASH_ADD_KEYPTR(hh, cache->elements, element->name, length, element);
	if (!element->hh.tbl) {
		free(element);
		return false;
	}
	cache->count++;
	return true;
}

const struct verifier_entry *verifier_cache_find(struct verifier_cache *cache, const char *name, size_t length, int64_t now_ms)
{
	struct element *element;
	HASH_FIND(hh, cache->elements, name, length, element);
	if (!element) {
		return NULL;
	}
	if (now_ms - element->loaded_ms > VERIFIER_LASTS_MS) {
		drop(cache, element);
		return NULL;
	}
	/* To the end of the order. */
	HASH_DEL(cache->elements, element);
	cache->count--;
	return add(cache, element, length) ? &element->entry : NULL;
}

void verifier_cache_put(
	struct verifier_cache *cache, const char *name, size_t length, const struct verifier_entry *entry, int64_t now_ms)
{
	struct element *element;
	HASH_FIND(hh, cache->elements, name, length, element);
	if (element) {
		element->entry = *entry;
		element->loaded_ms = now_ms;
		return;
	}
	element = calloc(1, sizeof(*element) + length);
	if (!element) {
		return;
	}
	element->entry = *entry;
	element->loaded_ms = now_ms;
	memcpy(element->name, name, length);
	if (cache->count >= cache->max) {
		drop(cache, cache->elements);
	}
	(void)add(cache, element, length);
}

void verifier_cache_forget(struct verifier_cache *cache, int64_t user_id)
{
	struct element *element = NULL, *next = NULL;
	HASH_ITER(hh, cache->elements, element, next)
	{
		if (element->entry.user_id == user_id) {
			drop(cache, element);
		}
	}
}
