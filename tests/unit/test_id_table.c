/* test_id_table.c - what was added is found until it is removed, however many there are; of equals the newest first. */
#include "../../plugin/id_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define OBJECTS 5000u

struct object {
	int name;
	struct object *link;
	uint64_t key;
};

static uint64_t key_of(const void *object)
{
	return ((const struct object *)object)->key;
}

static struct id_table new_table(void)
{
	return (struct id_table){.key_of = key_of, .link_at = offsetof(struct object, link)};
}

static uint32_t count_all(const struct id_table *table)
{
	uint32_t count = 0;
	for (const struct object *at = id_table_next(table, NULL); at; at = id_table_next(table, at)) {
		count++;
	}
	return count;
}

static void test_empty(void **state)
{
	struct id_table table = new_table();
	(void)state;
	assert_null(id_table_find(&table, 0));
	assert_null(id_table_next(&table, NULL));
	id_table_free(&table);
	assert_null(id_table_find(&table, 0));
}

/* Keys as ids and as addresses come: in a row, and multiples of 64. */
static void test_many(void **state)
{
	static struct object objects[2 * OBJECTS];
	struct id_table table = new_table();
	(void)state;

	for (uint32_t i = 0; i < 2 * OBJECTS; i++) {
		objects[i].key = i < OBJECTS ? i : UINT64_C(0x7f0000000000) + 64 * i;
		assert_true(id_table_add(&table, &objects[i]));
		assert_ptr_equal(id_table_find(&table, objects[i / 2].key), &objects[i / 2]);
	}
	assert_int_equal(table.count, 2 * OBJECTS);
	assert_int_equal(count_all(&table), 2 * OBJECTS);
	for (uint32_t i = 0; i < 2 * OBJECTS; i += 2) {
		id_table_remove(&table, &objects[i]);
	}
	assert_int_equal(count_all(&table), OBJECTS);
	for (uint32_t i = 0; i < 2 * OBJECTS; i++) {
		assert_ptr_equal(id_table_find(&table, objects[i].key), i % 2 == 0 ? NULL : &objects[i]);
	}
	id_table_free(&table);
}

static void test_removed_while_looking_at_all(void **state)
{
	static struct object objects[100];
	struct id_table table = new_table();
	uint32_t seen = 0;
	(void)state;

	for (uint32_t i = 0; i < 100; i++) {
		objects[i].key = i;
		assert_true(id_table_add(&table, &objects[i]));
	}
	for (struct object *at = id_table_next(&table, NULL), *next; at; at = next) {
		next = id_table_next(&table, at);
		id_table_remove(&table, at);
		seen++;
	}
	assert_int_equal(seen, 100);
	assert_null(id_table_next(&table, NULL));
	id_table_free(&table);
}

/* Also after the table has grown. */
static void test_equal_keys(void **state)
{
	static struct object same[3], others[OBJECTS];
	struct id_table table = new_table();
	(void)state;

	for (int i = 0; i < 3; i++) {
		same[i].key = 7;
		assert_true(id_table_add(&table, &same[i]));
	}
	for (uint32_t i = 0; i < OBJECTS; i++) {
		others[i].key = 1000 + i;
		assert_true(id_table_add(&table, &others[i]));
	}
	assert_ptr_equal(id_table_find(&table, 7), &same[2]);
	assert_ptr_equal(id_table_find_older(&table, &same[2]), &same[1]);
	assert_ptr_equal(id_table_find_older(&table, &same[1]), &same[0]);
	assert_null(id_table_find_older(&table, &same[0]));
	id_table_remove(&table, &same[1]);
	assert_ptr_equal(id_table_find(&table, 7), &same[2]);
	assert_ptr_equal(id_table_find_older(&table, &same[2]), &same[0]);
	id_table_remove(&table, &same[2]);
	assert_ptr_equal(id_table_find(&table, 7), &same[0]);
	id_table_free(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_removed_while_looking_at_all),
		cmocka_unit_test(test_equal_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
