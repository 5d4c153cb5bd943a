/* test_record.c - the spool's records: the checksum, the layout on paper, and that nothing damaged passes.
 *
 * The layout is a contract between a spool and a later version of this program: who changes a figure below raises
 * RECORD_VERSION with it.
 */
#include "../../plugin/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- checksum ---- */

struct crc_case {
	const char *bytes;
	size_t length;
	uint32_t crc;
};

#define ZEROS_8 "\0\0\0\0\0\0\0\0"
#define ONES_8 "\xff\xff\xff\xff\xff\xff\xff\xff"

static const struct crc_case crc_cases[] = {
	/* RFC 3720 B.4, in its order; it prints the bytes as they are sent, least significant first */
	{ZEROS_8 ZEROS_8 ZEROS_8 ZEROS_8, 32, 0x8a9136aa},
	{ONES_8 ONES_8 ONES_8 ONES_8, 32, 0x62a8ab43},
	{"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
	 "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f",
		32, 0x46dd794e},
	{"\x1f\x1e\x1d\x1c\x1b\x1a\x19\x18\x17\x16\x15\x14\x13\x12\x11\x10"
	 "\x0f\x0e\x0d\x0c\x0b\x0a\x09\x08\x07\x06\x05\x04\x03\x02\x01\x00",
		32, 0x113fdb5c},
	{"\x01\xc0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x14\0\0\0\0\0\x04\0\0\0\0\x14\0\0\0\x18"
	 "\x28\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
		48, 0xd9963a56},
	/* the check value of the catalogues of CRCs */
	{"123456789", 9, 0xe3069283},
	{"", 0, 0},
};

static void crc32c_of_rfc_3720(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(crc_cases) / sizeof(crc_cases[0]); i++) {
		uint32_t crc = record_crc32c(0, crc_cases[i].bytes, crc_cases[i].length);
		if (crc != crc_cases[i].crc) {
			fail_msg("vector %zu: %08x, not %08x", i, (unsigned)crc, (unsigned)crc_cases[i].crc);
		}
	}
}

/* The definition, bit by bit. */
static uint32_t plain_crc32c(const unsigned char *bytes, size_t length)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++) {
			crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
		}
	}
	return ~crc;
}

/* Whatever the length, wherever it begins, however it is cut. */
static void crc32c_in_pieces(void **state)
{
	unsigned char bytes[64];
	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (unsigned char)(i * 37 + 11);
	}
	for (size_t begin = 0; begin < 8; begin++) {
		for (size_t length = 0; begin + length <= sizeof(bytes); length++) {
			uint32_t expected = plain_crc32c(bytes + begin, length);
			assert_int_equal(record_crc32c(0, bytes + begin, length), expected);
			for (size_t cut = 0; cut <= length; cut++) {
				uint32_t first = record_crc32c(0, bytes + begin, cut);
				assert_int_equal(record_crc32c(first, bytes + begin + cut, length - cut), expected);
			}
		}
	}
}

/* ---- records to look at ---- */

static const struct record_message sample_message = {
	.accepted_at_ms = 1790000000123,
	.conversation_id = 42,
	.user_id = 7,
	.device_id = 70,
	.id = {0x9f, 0x1c, 0x6f, 0x0e, 0x3d, 0x0b, 0x4a, 0x53, 0x9f, 0x0e, 0x6f, 0x6b, 0x0a, 0x6b, 0x7c, 0x11},
	.reply_to = 1001,
	.ref = 1002,
	.expires_in_s = 86400,
	.body_length = 6,
	.extra_length = 13,
	.correlation_length = 3,
	.client_id_length = 7,
	.type_length = 4,
};
static const struct record_parts sample_parts = {
	.client_id = "7-phone",
	.correlation = "\x00\xff\x01",
	.type = "text",
	.body = "Hello!",
	.extra = "{\"meta\":{}  }",
};
static const struct record_mark sample_mark = {
	.accepted_at_ms = 1790000000123,
	.conversation_id = 42,
	.user_id = 7,
	.device_id = 70,
	.delivered = 1017,
	.read = 1015,
	.client_id_length = 7,
};
#define SAMPLE_POSITION UINT64_C(0x123456789a8)
#define SEAL 0 /* so that the checksum is that of the bytes alone */

/* In memory of just that size, so that a sanitizer sees a step outside; dirty, so that forgotten padding shows. */
static void *new_bytes(size_t length)
{
	void *bytes = malloc(length > 0 ? length : 1);
	assert_non_null(bytes);
	memset(bytes, 0xa5, length);
	return bytes;
}

static struct record_header *new_message(const struct record_message *message, const struct record_parts *parts)
{
	struct record_header *record = new_bytes(record_message_size(message));
	record_write_message(record, SAMPLE_POSITION, RECORD_FLAG_ANSWER | RECORD_FLAG_OWN_ID, message, parts);
	record_seal(record, SEAL);
	return record;
}

static struct record_header *new_mark(void)
{
	struct record_header *record = new_bytes(record_mark_size(&sample_mark));
	record_write_mark(record, SAMPLE_POSITION, &sample_mark, "7-phone");
	record_seal(record, SEAL);
	return record;
}

/* ---- layout ---- */

static uint64_t integer_at(const void *record, size_t at, size_t size)
{
	uint64_t value = 0;
	assert_in_range(size, 1, 8);
	for (size_t i = 0; i < size; i++) {
		uint8_t byte;
		memcpy(&byte, (const char *)record + at + i, 1);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		value |= (uint64_t)byte << 8 * i;
#else
		value = value << 8 | byte;
#endif
	}
	return value;
}

struct field {
	const char *name;
	size_t at, size;
	uint64_t value;
};

#define HEADER_FIELDS(whole_length, whole_type, whole_flags)                                                                     \
	{"length", 0, 4, whole_length}, {"position", 8, 8, SAMPLE_POSITION}, {"version", 16, 1, 2}, {"type", 17, 1, whole_type}, \
		{"slot", 18, 1, 61}, {"flags", 19, 1, whole_flags},                                                              \
	{                                                                                                                        \
		"reserved", 20, 4, 0                                                                                             \
	}

static void check_fields(const void *record, const struct field *fields, size_t count)
{
	size_t next = 0;
	for (size_t i = 0; i < count; i++) {
		uint64_t value = integer_at(record, fields[i].at, fields[i].size);
		if (value != fields[i].value) {
			fail_msg("%s: %llx", fields[i].name, (unsigned long long)value);
		}
		if (fields[i].at != next && !(fields[i].at == 8 && next == 4)) { /* 4: the checksum */
			fail_msg("%s: the list above leaves a gap", fields[i].name);
		}
		next = fields[i].at + fields[i].size;
	}
}

static void layout_of_a_message(void **state)
{
	static const struct field fields[] = {
		HEADER_FIELDS(152, 1, 3),
		{"accepted_at_ms", 24, 8, 1790000000123},
		{"conversation_id", 32, 8, 42},
		{"user_id", 40, 8, 7},
		{"device_id", 48, 8, 70},
		{"id", 56, 8, 0x534a0b3d0e6f1c9f},
		{"id", 64, 8, 0x117c6b0a6b6f0e9f},
		{"reply_to", 72, 8, 1001},
		{"ref", 80, 8, 1002},
		{"expires_in_s", 88, 8, 86400},
		{"body_length", 96, 4, 6},
		{"extra_length", 100, 4, 13},
		{"correlation_length", 104, 2, 3},
		{"client_id_length", 106, 1, 7},
		{"type_length", 107, 1, 4},
		{"reserved", 108, 4, 0},
	};
	static const char variable[] = "7-phone\x00\xff\x01textHello!{\"meta\":{}  }\0\0\0\0\0\0";
	struct record_header *record = new_message(&sample_message, &sample_parts);

	(void)state;
	assert_int_equal(sizeof(struct record_header), 24);
	assert_int_equal(sizeof(struct record_message), 88);
	assert_int_equal(record_message_size(&sample_message), 152);
	check_fields(record, fields, sizeof(fields) / sizeof(fields[0]));
	assert_int_equal(sizeof(variable), 40); /* the NUL is the last byte of the padding */
	assert_memory_equal((const char *)record + 112, variable, sizeof(variable));
	assert_int_equal(integer_at(record, 4, 4), plain_crc32c((const unsigned char *)record + 8, 144));
	free(record);
}

static void layout_of_a_mark(void **state)
{
	static const struct field fields[] = {
		HEADER_FIELDS(88, 2, 0),
		{"accepted_at_ms", 24, 8, 1790000000123},
		{"conversation_id", 32, 8, 42},
		{"user_id", 40, 8, 7},
		{"device_id", 48, 8, 70},
		{"delivered", 56, 8, 1017},
		{"read", 64, 8, 1015},
		{"client_id_length", 72, 1, 7},
		{"reserved", 73, 7, 0},
	};
	struct record_header *record = new_mark();

	(void)state;
	assert_int_equal(sizeof(struct record_mark), 56);
	assert_int_equal(record_mark_size(&sample_mark), 88);
	check_fields(record, fields, sizeof(fields) / sizeof(fields[0]));
	assert_memory_equal((const char *)record + 80, "7-phone\0", 8);
	assert_int_equal(integer_at(record, 4, 4), plain_crc32c((const unsigned char *)record + 8, 80));
	free(record);
}

/* A conversation that changed its slot would be committed by two lanes at once. */
static void slots_never_change(void **state)
{
	static const struct {
		int64_t conversation_id;
		unsigned slot;
	} known[] = {{1, 39}, {2, 15}, {3, 54}, {7, 20}, {42, 61}, {1000, 2}, {123456789, 47}, {8796093022207, 45},
		{9007199254740991, 57}};
	unsigned used[RECORD_SLOTS] = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		assert_int_equal(record_slot(known[i].conversation_id), known[i].slot);
	}
	for (int64_t id = 1; id <= 100 * RECORD_SLOTS; id++) {
		assert_in_range(record_slot(id), 0, RECORD_SLOTS - 1);
		used[record_slot(id)]++;
	}
	for (unsigned i = 0; i < RECORD_SLOTS; i++) {
		assert_in_range(used[i], 90, 110); /* ids that were handed out in order spread evenly */
	}
}

/* ---- writing and reading ---- */

static void check_part(const char *name, const char *part, const char *expected, size_t length)
{
	if (length > 0 && memcmp(part, expected, length) != 0) {
		fail_msg("%s, %zu bytes: not what was written", name, length);
	}
}

static void round_trip(const struct record_message *message, const struct record_parts *parts)
{
	struct record_header *record = new_message(message, parts);
	struct record_parts read;

	assert_true(record_check(record, record_message_size(message), SAMPLE_POSITION, SEAL));
	assert_int_equal(record->length % RECORD_ALIGNMENT, 0);
	assert_memory_equal(record_read_message(record, &read), message, sizeof(*message));
	check_part("client id", read.client_id, parts->client_id, message->client_id_length);
	check_part("correlation", read.correlation, parts->correlation, message->correlation_length);
	check_part("type", read.type, parts->type, message->type_length);
	check_part("body", read.body, parts->body, message->body_length);
	assert_int_equal(read.extra != NULL, message->extra_length > 0);
	check_part("extra", read.extra, parts->extra, message->extra_length);
	free(record);
}

/* Each part alone, then each length of the padding, then all at their longest. */
static void messages_are_read_as_written(void **state)
{
	static char longest[1400000];
	struct record_parts parts = {longest, longest + 1, longest + 2, longest + 3, longest + 4};
	struct record_parts none = {NULL, NULL, NULL, NULL, NULL};
	struct record_message message = {.conversation_id = 9007199254740991, .user_id = 1};

	(void)state;
	for (size_t i = 0; i < sizeof(longest); i++) {
		longest[i] = (char)(i * 7 + i / 251);
	}
	round_trip(&sample_message, &sample_parts);
	round_trip(&message, &none);
	message.extra_length = 5;
	round_trip(&message, &parts);
	message.client_id_length = 1;
	message.correlation_length = 2;
	message.type_length = 3;
	for (message.body_length = 0; message.body_length < 17; message.body_length++) {
		round_trip(&message, &parts);
	}
	message.client_id_length = UINT8_MAX;
	message.correlation_length = UINT16_MAX;
	message.type_length = UINT8_MAX;
	message.body_length = 1310720;
	message.extra_length = 400000;
	assert_in_range(record_message_size(&message), 1, RECORD_BYTES_MAX);
	round_trip(&message, &parts);
}

static void marks_are_read_as_written(void **state)
{
	struct record_mark mark = sample_mark;
	char client_id[UINT8_MAX];
	const char *read;

	(void)state;
	memset(client_id, 'c', sizeof(client_id));
	for (unsigned length = 0; length <= UINT8_MAX; length++) {
		mark.client_id_length = (uint8_t)length;
		struct record_header *record = new_bytes(record_mark_size(&mark));
		record_write_mark(record, SAMPLE_POSITION, &mark, client_id);
		record_seal(record, SEAL);
		assert_true(record_check(record, record_mark_size(&mark), SAMPLE_POSITION, SEAL));
		assert_memory_equal(record_read_mark(record, &read), &mark, sizeof(mark));
		assert_memory_equal(read, client_id, length);
		free(record);
	}
}

/* ---- what is refused ---- */

static void check_damage(struct record_header *record)
{
	size_t length = record->length;
	unsigned char *bytes = (unsigned char *)record;

	assert_true(record_check(record, length, SAMPLE_POSITION, SEAL));
	for (size_t i = 0; i < length * 8; i++) {
		bytes[i / 8] ^= (unsigned char)(1u << i % 8);
		if (record_check(record, length, SAMPLE_POSITION, SEAL)) {
			fail_msg("bit %zu of byte %zu is turned over, and it passes", i % 8, i / 8);
		}
		bytes[i / 8] ^= (unsigned char)(1u << i % 8);
	}
	assert_true(record_check(record, length, SAMPLE_POSITION, SEAL));
	free(record);
}

static void every_bit_matters(void **state)
{
	(void)state;
	check_damage(new_message(&sample_message, &sample_parts));
	check_damage(new_mark());
}

static void check_truncation(struct record_header *record)
{
	for (size_t length = 0; length < record->length; length++) {
		void *part = new_bytes(length);
		memcpy(part, record, length);
		if (record_check(part, length, SAMPLE_POSITION, SEAL)) {
			fail_msg("%zu bytes pass for %u", length, (unsigned)record->length);
		}
		free(part);
	}
	free(record);
}

static void cut_anywhere_is_refused(void **state)
{
	(void)state;
	check_truncation(new_message(&sample_message, &sample_parts));
	check_truncation(new_mark());
}

static void only_where_it_belongs(void **state)
{
	struct record_header *record = new_message(&sample_message, &sample_parts);
	(void)state;
	assert_true(record_check(record, record->length, SAMPLE_POSITION, SEAL));
	assert_true(record_check(record, SIZE_MAX, SAMPLE_POSITION, SEAL)); /* more may follow; not looked at */
	assert_false(record_check(record, record->length, SAMPLE_POSITION + 8, SEAL));
	assert_false(record_check(record, record->length, SAMPLE_POSITION - 8, SEAL));
	assert_false(record_check(record, record->length, 0, SEAL));
	free(record);
}

/* A good checksum makes no good record: what it says of itself must hold too. */
static void check_lie(struct record_header *record, const char *what)
{
	record_seal(record, SEAL);
	if (record_check(record, record->length, SAMPLE_POSITION, SEAL)) {
		fail_msg("%s passes", what);
	}
	free(record);
}

static struct record_message *message_of(struct record_header *record)
{
	return (struct record_message *)(record + 1);
}

static void lengths_that_do_not_add_up(void **state)
{
	/* 6 and 13 are true; up to 13 and 20 the record is as long, with less padding */
	static const uint32_t bodies[] = {0, 5, 14, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
	static const uint32_t extras[] = {0, 12, 21, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
	struct record_header *record;

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		record = new_message(&sample_message, &sample_parts);
		message_of(record)->body_length = bodies[i];
		check_lie(record, "a body length");
		record = new_message(&sample_message, &sample_parts);
		message_of(record)->extra_length = extras[i];
		check_lie(record, "an extra length");
	}
	/* in 32 bits these two would add up to what is there */
	record = new_message(&sample_message, &sample_parts);
	message_of(record)->body_length = 0xfffffff0;
	message_of(record)->extra_length = 6 + 13 + 16;
	check_lie(record, "a sum beyond 32 bits");
	record = new_message(&sample_message, &sample_parts);
	message_of(record)->correlation_length = UINT16_MAX;
	check_lie(record, "a correlation length");
	record = new_message(&sample_message, &sample_parts);
	message_of(record)->client_id_length = UINT8_MAX;
	check_lie(record, "a client id length");
	record = new_message(&sample_message, &sample_parts);
	message_of(record)->type_length = UINT8_MAX;
	check_lie(record, "a type length");
	record = new_mark();
	((struct record_mark *)(record + 1))->client_id_length = 9;
	check_lie(record, "a mark's client id length");
}

static void headers_that_lie(void **state)
{
	static const uint32_t lengths[] = {0, 8, 16, 23, 24, 80, 104, 144, 151};
	static const uint8_t types[] = {0, 2, 3, 4, 127, 254};
	struct record_header *record;

	(void)state;
	for (size_t i = 0; i < sizeof(types); i++) {
		record = new_message(&sample_message, &sample_parts);
		record->type = types[i];
		check_lie(record, "a message under another type");
	}
	record = new_mark();
	record->type = RECORD_MESSAGE;
	check_lie(record, "a mark that calls itself a message");
	for (unsigned version = 0; version <= UINT8_MAX; version++) {
		record = new_message(&sample_message, &sample_parts);
		record->version = (uint8_t)version;
		if (version == RECORD_VERSION) {
			free(record);
		} else {
			check_lie(record, "another version");
		}
	}
	record = new_message(&sample_message, &sample_parts);
	record->slot = RECORD_SLOTS;
	check_lie(record, "slot 64");
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		record = new_message(&sample_message, &sample_parts);
		record->length = lengths[i];
		if (lengths[i] >= offsetof(struct record_header, position)) {
			record_seal(record, SEAL);
		}
		assert_false(record_check(record, 152, SAMPLE_POSITION, SEAL));
		free(record);
	}
}

/* The end of a segment: nothing but a header, and whole words. */
static void fillers(void **state)
{
	(void)state;
	for (size_t length = sizeof(struct record_header); length < 100; length++) {
		struct record_header *record = new_bytes(length);
		*record = (struct record_header){.length = (uint32_t)length,
			.position = SAMPLE_POSITION,
			.version = RECORD_VERSION,
			.type = RECORD_FILLER};
		record_seal(record, SEAL);
		assert_int_equal(record_check(record, length, SAMPLE_POSITION, SEAL), length % RECORD_ALIGNMENT == 0);
		free(record);
	}
}

static void too_long_to_be_one_of_ours(void **state)
{
	size_t length = RECORD_BYTES_MAX + 8;
	struct record_header *record = new_bytes(length);
	struct record_message message = {.body_length = (uint32_t)(length - 24 - 88)};
	struct record_parts parts = {.body = calloc(1, length)};

	(void)state;
	record_write_message(record, SAMPLE_POSITION, 0, &message, &parts);
	record_seal(record, SEAL);
	assert_int_equal(record->length, length);
	assert_false(record_check(record, length, SAMPLE_POSITION, SEAL));
	free((void *)(uintptr_t)parts.body);
	free(record);
}

/* What a request leaves in a record's correlation bytes. */
static void requests_are_read_as_written(void **state)
{
	static const struct {
		const char *request_id, *correlation;
	} cases[] = {{"", ""}, {"\"a\"", ""}, {"", "xyz"}, {"12345", "c"}};
	char bytes[256];
	(void)state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct record_request request = {.ticket = UINT64_MAX - i, .session_index = 7, .session_generation = 8};
		size_t correlation_length = strlen(cases[i].correlation);
		request.request_id_length = (uint32_t)strlen(cases[i].request_id);
		size_t length = record_request_size(&request, correlation_length);
		record_write_request(bytes + 1, &request, cases[i].request_id, cases[i].correlation, correlation_length);
		const char *at = bytes + 1, *request_id = NULL;
		struct record_request read = record_read_request(&at, &length, &request_id);
		assert_int_equal(read.ticket, request.ticket);
		assert_int_equal(read.session_index, 7);
		assert_int_equal(read.session_generation, 8);
		assert_int_equal(read.request_id_length, request.request_id_length);
		assert_memory_equal(request_id, cases[i].request_id, request.request_id_length);
		assert_int_equal(length, correlation_length);
		assert_memory_equal(at, cases[i].correlation, correlation_length);
	}
	/* Too short, or a length that lies. */
	const char *at = bytes, *request_id = NULL;
	size_t length = 5;
	assert_int_equal(record_read_request(&at, &length, &request_id).ticket, 0);
	struct record_request lie = {.ticket = 1, .request_id_length = 1000};
	memcpy(bytes, &lie, sizeof(lie));
	length = sizeof(lie) + 3;
	assert_int_equal(record_read_request(&at, &length, &request_id).request_id_length, 0);
	assert_int_equal(length, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_of_rfc_3720),
		cmocka_unit_test(crc32c_in_pieces),
		cmocka_unit_test(layout_of_a_message),
		cmocka_unit_test(layout_of_a_mark),
		cmocka_unit_test(slots_never_change),
		cmocka_unit_test(messages_are_read_as_written),
		cmocka_unit_test(marks_are_read_as_written),
		cmocka_unit_test(every_bit_matters),
		cmocka_unit_test(requests_are_read_as_written),
		cmocka_unit_test(cut_anywhere_is_refused),
		cmocka_unit_test(only_where_it_belongs),
		cmocka_unit_test(lengths_that_do_not_add_up),
		cmocka_unit_test(headers_that_lie),
		cmocka_unit_test(fillers),
		cmocka_unit_test(too_long_to_be_one_of_ours),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
