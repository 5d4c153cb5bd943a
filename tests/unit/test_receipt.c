/* test_receipt.c - what a publish of receipts says, to those who see what others have read and to those who do not. */
#include "../../plugin/receipt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct receipt both = {.user_id = 7, .delivered = 17, .read = 15, .at_ms = 200, .delivered_at_ms = 100};
static const struct receipt read_only = {.user_id = 8, .delivered = 17, .read = 16, .at_ms = 300};
static const struct receipt hidden = {
	.user_id = 9, .delivered = 17, .read = 14, .at_ms = 400, .delivered_at_ms = 400, .hides_read = true};

static void expect(bool (*append)(struct buffer *, const struct receipt *, uint32_t), const struct receipt *receipts,
	uint32_t count, const char *text)
{
	struct buffer out;
	buffer_init(&out, receipts_size_max(count));
	assert_true(append(&out, receipts, count));
	assert_int_equal(out.length, strlen(text));
	assert_memory_equal(out.length ? out.data : "", text, out.length);
	buffer_free(&out);
}

static void test_forms(void **state)
{
	const struct receipt all[] = {both, read_only, hidden};
	(void)state;
	expect(receipts_append, all, 3,
		"{\"receipts\":[{\"user\":7,\"delivered\":17,\"read\":15,\"at\":200},{\"user\":8,\"delivered\":17,\"read\":16,"
		"\"at\":300},"
		"{\"user\":9,\"delivered\":17,\"at\":400}]}");
	expect(receipts_append_without_reads, all, 3,
		"{\"reads\":false,\"receipts\":[{\"user\":7,\"delivered\":17,\"at\":100},{\"user\":9,\"delivered\":17,\"at\":400}"
		"]}");
	expect(receipts_append_without_reads, &read_only, 1, ""); /* nothing that they may know */
}

static void test_size(void **state)
{
	struct receipt largest[50];
	struct buffer out;
	(void)state;
	for (size_t i = 0; i < 50; i++) {
		largest[i] = (struct receipt){INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, false};
	}
	buffer_init(&out, receipts_size_max(50));
	assert_true(receipts_append(&out, largest, 50));
	buffer_reset(&out);
	assert_true(receipts_append_without_reads(&out, largest, 50));
	buffer_free(&out);
}

/* When `delivered` rose is kept, and not made younger by a read. */
static void test_merge(void **state)
{
	struct receipt waiting = read_only, delivered = both, again = read_only;
	(void)state;
	delivered.user_id = 8;
	receipt_merge(&waiting, &delivered);
	assert_int_equal(waiting.delivered_at_ms, 100);
	again.read = 17;
	receipt_merge(&waiting, &again);
	assert_int_equal(waiting.read, 17);
	assert_int_equal(waiting.at_ms, 300);
	assert_int_equal(waiting.delivered_at_ms, 100);
}

static void test_whose(void **state)
{
	static const struct {
		const char *payload;
		bool hides_reads; /* for whom it is */
	} cases[] = {
		{"{\"receipts\":[{\"user\":7}]}", false},
		{"{\"reads\":false,\"receipts\":[{\"user\":7}]}", true},
		{"{\"reads\":false,\"receipts\":[", true},
		{"{\"reads\":false,\"receipts\":", false},
		{"", false},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(receipts_are_for(cases[i].payload, strlen(cases[i].payload), true), cases[i].hides_reads);
		assert_int_equal(receipts_are_for(cases[i].payload, strlen(cases[i].payload), false), !cases[i].hides_reads);
	}
	assert_false(receipts_are_for(NULL, 0, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_whose),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
