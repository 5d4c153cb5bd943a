/* id_table.c - see id_table.h. Twice as many places are made as soon as there are two objects for each. */
#include "id_table.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BITS 4
#define LAST_BITS 31
#define OBJECTS_PER_PLACE 2

static void **link_of(const struct id_table *table, const void *object)
{
	return (void **)((uintptr_t)object + table->link_at);
}

/* Fibonacci hashing (Knuth, vol. 3, 6.4): the upper bits of the product with 2^64 / phi. */
static size_t slot_of(uint64_t key, uint8_t bits)
{
	return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - bits));
}

/* What shared a place is shared out between two, in the order in which it was. */
static void split(struct id_table *table, void **places, uint8_t bits, size_t place)
{
	void **last[2] = {&places[2 * place], &places[2 * place + 1]};
	void *next;
	for (void *object = table->places[place]; object; object = next) {
		size_t side = slot_of(table->key_of(object), bits) & 1;
		next = *link_of(table, object);
		*last[side] = object;
		last[side] = link_of(table, object);
	}
	*last[0] = *last[1] = NULL;
}

/* Without memory it stays as it is, and slower. */
static void widen(struct id_table *table)
{
	uint8_t bits = table->places ? (uint8_t)(table->bits + 1) : FIRST_BITS;
	void **places = calloc((size_t)1 << bits, sizeof(places[0]));
	if (!places) {
		return;
	}
	for (size_t i = 0; table->places && i < (size_t)1 << table->bits; i++) {
		split(table, places, bits, i);
	}
	free(table->places);
	table->places = places;
	table->bits = bits;
}

void id_table_free(struct id_table *table)
{
	free(table->places);
	table->places = NULL;
	table->count = 0;
	table->bits = 0;
}

bool id_table_add(struct id_table *table, void *object)
{
	if (!table->places || (table->count >> table->bits >= OBJECTS_PER_PLACE && table->bits < LAST_BITS)) {
		widen(table);
	}
	if (!table->places) {
		return false;
	}
	void **place = &table->places[slot_of(table->key_of(object), table->bits)];
	*link_of(table, object) = *place;
	*place = object;
	table->count++;
	return true;
}

void id_table_remove(struct id_table *table, const void *object)
{
	void **at = &table->places[slot_of(table->key_of(object), table->bits)];
	while (*at != object) {
		at = link_of(table, *at);
	}
	*at = *link_of(table, object);
	table->count--;
}

static void *first_with(const struct id_table *table, void *object, uint64_t key)
{
	while (object && table->key_of(object) != key) {
		object = *link_of(table, object);
	}
	return object;
}

void *id_table_find(const struct id_table *table, uint64_t key)
{
	return table->places ? first_with(table, table->places[slot_of(key, table->bits)], key) : NULL;
}

void *id_table_find_older(const struct id_table *table, const void *object)
{
	return first_with(table, *link_of(table, object), table->key_of(object));
}

void *id_table_next(const struct id_table *table, const void *object)
{
	size_t place = 0, places = table->places ? (size_t)1 << table->bits : 0;
	if (object && *link_of(table, object)) {
		return *link_of(table, object);
	}
	if (object) {
		place = slot_of(table->key_of(object), table->bits) + 1;
	}
	while (place < places && !table->places[place]) {
		place++;
	}
	return place < places ? table->places[place] : NULL;
}
