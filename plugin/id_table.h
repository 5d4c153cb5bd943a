/* id_table.h - finds objects by a number of 64 bits, for objects of which there are as many as clients: one pointer in each is
 * all that it takes of them (uthash's handle is 56 bytes). No thread of its own, no lock.
 *
 * The objects are the caller's, and chained to one another through that pointer:
 *
 *   places[hash of the key] --> object --link--> object --link--> NULL
 *
 * Keys may be there twice: the newest is found first. Whoever can choose keys must be kept from choosing equal ones; against
 * others that share a place the hash is no defence, so what strangers choose is hashed with a secret first (text_hash()).
 */
#ifndef CHAT_PLUGIN_ID_TABLE_H
#define CHAT_PLUGIN_ID_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero but for the first two is an empty table. */
struct id_table {
	uint64_t (*key_of)(const void *object);
	size_t link_at; /* where in an object the pointer stands that is the table's */
	void **places;
	uint32_t count;
	uint8_t bits; /* of the number of places */
};

/* Frees what the table holds beside the objects, which are left alone. It is empty then. */
void id_table_free(struct id_table *table);
/* False: no memory; only the first one can fail. */
__attribute__((warn_unused_result)) bool id_table_add(struct id_table *table, void *object);
/* It must be there. */
void id_table_remove(struct id_table *table, const void *object);
/* NULL: none. */
void *id_table_find(const struct id_table *table, uint64_t key);
/* The next one with the same key, which was added before this one. */
void *id_table_find_older(const struct id_table *table, const void *object);
/* All of them, in no order: NULL begins; NULL: that was the last. An object may be removed when the one behind it is known. */
void *id_table_next(const struct id_table *table, const void *object);

#endif
