/* test_bench.c - the generator's judgement: loss, duplicates and order are told apart, percentiles are what they are called, and
 * packets, frames and markers are read as they were written, however they are cut. */
#include "../histogram.h"
#include "../payload.h"
#include "../storm.h"
#include "../stream.h"
#include "../websocket.h"
#include "../wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct stream_case {
	uint64_t counts[8]; /* ends at 0 */
	uint64_t received;
	uint64_t duplicates;
	uint64_t misordered;
	size_t holes;
};

static const struct stream_case stream_cases[] = {
	{{1, 2, 3}, 3, 0, 0, 0},
	{{1, 2, 2, 3}, 3, 1, 0, 0},
	{{1, 1}, 1, 1, 0, 0},
	{{2}, 1, 0, 0, 1},
	{{1, 3, 2}, 3, 0, 1, 0},
	{{1, 3, 2, 2, 3}, 3, 2, 1, 0},
	{{4, 3, 2, 1, 5}, 5, 0, 3, 0},
	{{1, 5, 3}, 3, 0, 1, 2},
	{{1, 1000000, 1000001}, 3, 0, 0, STREAM_HOLES_MAX},
};

static void test_stream(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof stream_cases / sizeof *stream_cases; i++) {
		const struct stream_case *expected = &stream_cases[i];
		struct stream stream = {0};
		for (size_t n = 0; expected->counts[n] != 0; n++)
			stream_accept(&stream, expected->counts[n]);
		assert_int_equal(stream.received, expected->received);
		assert_int_equal(stream.duplicates, expected->duplicates);
		assert_int_equal(stream.misordered, expected->misordered);
		assert_int_equal(stream.holes_count, expected->holes);
		stream_release(&stream);
	}
}

static void test_percentiles(void **state)
{
	static struct histogram histogram;
	(void)state;
	assert_int_equal(histogram_percentile_ns(&histogram, 50), 0);
	for (uint64_t i = 1; i <= 100000; i++)
		histogram_record(&histogram, i * 1000);
	static const double percents[] = {1, 50, 90, 99, 99.9, 100};
	for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
		double exact = percents[i] * 1e6;
		double read = (double)histogram_percentile_ns(&histogram, percents[i]);
		assert_true(read >= exact && read <= exact * 1.016);
	}
	assert_int_equal(histogram_percentile_ns(&histogram, 100), 100000000);
	histogram_record(&histogram, UINT64_MAX);
	assert_true(histogram_percentile_ns(&histogram, 100) == UINT64_MAX);
}

static void test_marker(void **state)
{
	static const enum payload_form forms[] = {PAYLOAD_TEXT, PAYLOAD_JSON, PAYLOAD_JSON_ID};
	struct payload_marker marker = {0xabcdef, 0x12345678, 0x1122334455667788};
	struct payload_marker found;
	uint8_t payload[256];
	(void)state;
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		size_t length = payload_length(forms[i], 50);
		payload_make(payload, forms[i], 50);
		payload_patch(payload, forms[i], &marker, UINT64_C(0xfedcba9876543210));
		assert_true(payload_find_marker(payload, length, &found));
		assert_int_equal(found.publisher, marker.publisher);
		assert_int_equal(found.count, marker.count);
		assert_int_equal(found.due_ns, marker.due_ns);
		assert_false(payload_find_marker(payload, PAYLOAD_MARKER_LENGTH - 1, &found));
	}
	assert_memory_equal(payload, "{\"id\":\"76543210-ba98-4edc-8abc-def012345678\",\"body\":\"!m", 55);
}

static void test_seq(void **state)
{
	static const char delivered[] = "{\"conversation\":42,\"seq\":1017,\"id\":\"x\"}";
	static const char notice[] = "{\"conversation\":42,\"behind\":true,\"last_seq\":61017}";
	(void)state;
	assert_int_equal(payload_find_seq((const uint8_t *)delivered, sizeof delivered - 1), 1017);
	assert_int_equal(payload_find_seq((const uint8_t *)notice, sizeof notice - 1), 0);
	assert_true(payload_is_behind_notice((const uint8_t *)notice, sizeof notice - 1));
	assert_false(payload_is_behind_notice((const uint8_t *)delivered, sizeof delivered - 1));
}

static void test_receipts(void **state)
{
	static const char two[] =
		"{\"receipts\":[{\"user\":7,\"delivered\":17,\"read\":15,\"at\":1},{\"user\":8,\"delivered\":1,\"at\":2}]}";
	(void)state;
	assert_int_equal(payload_count_receipts((const uint8_t *)two, sizeof two - 1), 2);
	assert_int_equal(payload_count_receipts((const uint8_t *)two, 0), 0);
}

static void test_publish(void **state)
{
	uint8_t bytes[512];
	size_t id;
	size_t payload;
	struct wire_packet packet;
	struct wire_publish publish;
	(void)state;
	for (uint8_t level = WIRE_LEVEL_3_1_1; level <= WIRE_LEVEL_5; level++) {
		size_t length = wire_publish_template(bytes, sizeof bytes, level, 1, "chat/1/send", 300, &id, &payload);
		assert_int_equal(length, wire_publish_size(level, 1, "chat/1/send", 300));
		assert_int_equal(wire_publish_template(bytes, length - 1, level, 1, "chat/1/send", 300, &id, &payload), 0);
		memset(bytes + payload, 'p', 300);
		bytes[id] = 0x12;
		bytes[id + 1] = 0x34;
		for (size_t part = 0; part < length; part++)
			assert_int_equal(wire_next(bytes, part, &packet), 0);
		assert_int_equal(wire_next(bytes, sizeof bytes, &packet), 1);
		assert_int_equal(packet.total_length, length);
		assert_true(wire_read_publish(&packet, level, &publish));
		assert_int_equal(publish.qos, 1);
		assert_int_equal(publish.packet_id, 0x1234);
		assert_int_equal(publish.payload_length, 300);
		assert_memory_equal(publish.topic, "chat/1/send", publish.topic_length);
		packet.body_length = 10;
		assert_false(wire_read_publish(&packet, level, &publish));
	}
}

static void test_subscribe(void **state)
{
	static const char *const topics[] = {"chat/1/messages", "chat/22/messages", "chat/333/messages"};
	uint8_t bytes[128];
	struct wire_packet packet;
	size_t refused;
	uint8_t reason;
	(void)state;
	for (uint8_t level = WIRE_LEVEL_3_1_1; level <= WIRE_LEVEL_5; level++) {
		size_t length = wire_subscribe_all(bytes, sizeof bytes, level, 1, topics, 3, 1);
		assert_int_equal(wire_next(bytes, length, &packet), 1);
		assert_int_equal(packet.total_length, length);
		assert_int_equal(packet.type, WIRE_SUBSCRIBE);
		assert_int_equal(wire_subscribe_all(bytes, length - 1, level, 1, topics, 3, 1), 0);
	}
	static const uint8_t subacks[] = {0x90, 6, 0, 1, 0, 1, 0x87, 0x80};
	assert_int_equal(wire_next(subacks, sizeof subacks, &packet), 1);
	assert_true(wire_read_subacks(&packet, WIRE_LEVEL_5, 3, &refused));
	assert_int_equal(refused, 2);
	assert_true(wire_read_suback(&packet, WIRE_LEVEL_5, &reason));
	assert_int_equal(reason, 0x80);
	assert_false(wire_read_subacks(&packet, WIRE_LEVEL_5, 4, &refused));
	assert_true(wire_read_subacks(&packet, WIRE_LEVEL_3_1_1, 4, &refused));
}

static bool read_body_length(const char *text, struct settings *settings)
{
	char copy[64], *argv[] = {"mqtt_load", "load", "--body-length", copy};
	snprintf(copy, sizeof copy, "%s", text);
	return settings_read(settings, 4, argv);
}

static void test_sizes(void **state)
{
	struct settings settings;
	(void)state;
	assert_true(read_body_length("2000", &settings));
	assert_int_equal(settings.sizes_count, 1);
	assert_int_equal(settings.sizes[0].length, 2000);
	assert_true(read_body_length("100:89,2000:10,100000:1", &settings));
	assert_int_equal(settings.sizes_count, 3);
	assert_int_equal(settings.sizes[2].length, 100000);
	assert_int_equal(settings.shares, 100);
	assert_false(read_body_length("100:0", &settings));
	assert_false(read_body_length("10", &settings));
	assert_false(read_body_length("100,200,300,400,500", &settings));
}

/* Every conversation has as many members as were asked for, and nobody is in one twice. */
static void test_storm(void **state)
{
	enum { SESSIONS = 400, MEMBERS = 20, KINDS = 20 };
	struct settings settings = {.sessions = SESSIONS, .members = MEMBERS, .subscriptions = KINDS};
	unsigned members[SESSIONS / MEMBERS * KINDS] = {0};
	(void)state;
	for (unsigned session = 0; session < SESSIONS; session++) {
		for (unsigned k = 0; k < KINDS; k++) {
			unsigned conversation = storm_conversation(&settings, session, k);
			assert_int_equal(conversation / (SESSIONS / MEMBERS), k);
			members[conversation]++;
		}
	}
	for (unsigned i = 0; i < sizeof members / sizeof *members; i++)
		assert_int_equal(members[i], MEMBERS);
}

static void test_connack(void **state)
{
	static const uint8_t bytes[] = {0x20, 10, 0, 0x87, 7, 0x22, 0, 10, 0x21, 0x01, 0x02, 0x25};
	static const uint8_t malformed[] = {0x20, 5, 0, 0, 2, 0x21, 0x01};
	struct wire_packet packet;
	uint8_t reason;
	uint16_t receive_maximum;
	(void)state;
	assert_int_equal(wire_next(bytes, sizeof bytes, &packet), 1);
	packet.body_length -= 1; /* the last property is cut off: its length says so */
	assert_false(wire_read_connack(&packet, WIRE_LEVEL_5, &reason, &receive_maximum));
	assert_int_equal(reason, 0x87);
	assert_int_equal(wire_next(malformed, sizeof malformed, &packet), 1);
	assert_false(wire_read_connack(&packet, WIRE_LEVEL_5, &reason, &receive_maximum));
	static const uint8_t good[] = {0x20, 9, 0, 0, 6, 0x22, 0, 10, 0x21, 0x01, 0x02};
	assert_int_equal(wire_next(good, sizeof good, &packet), 1);
	assert_true(wire_read_connack(&packet, WIRE_LEVEL_5, &reason, &receive_maximum));
	assert_int_equal(receive_maximum, 0x0102);
}

/* Three frames from a server, a control frame between them, in pieces of every size: the payload comes out whole. */
static void test_websocket(void **state)
{
	uint8_t stream[1024];
	size_t length = 0;
	static const uint8_t ping[] = {0x89, 3, 'a', 'b', 'c'};
	static const uint8_t middle[] = {0x82, 126, 1, 44}; /* 300 bytes */
	(void)state;
	stream[length++] = 0x82;
	stream[length++] = 5;
	memcpy(stream + length, "first", 5);
	length += 5;
	memcpy(stream + length, ping, sizeof ping);
	length += sizeof ping;
	memcpy(stream + length, middle, sizeof middle);
	length += sizeof middle;
	memset(stream + length, 'm', 300);
	length += 300;
	for (size_t piece = 1; piece <= length; piece++) {
		struct websocket_reader reader = {0};
		uint8_t buffer[1024];
		size_t taken = 0; /* payload at the front */
		size_t raw = 0;   /* behind it, not unframed yet */
		for (size_t at = 0; at < length; at += piece) {
			size_t part = length - at < piece ? length - at : piece;
			size_t payload;
			memcpy(buffer + taken + raw, stream + at, part);
			assert_true(websocket_unframe(&reader, buffer + taken, raw + part, &payload, &raw));
			taken += payload;
		}
		assert_int_equal(taken, 305);
		assert_int_equal(raw, 0);
		assert_memory_equal(buffer, "firstmmm", 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_marker),
		cmocka_unit_test(test_seq),
		cmocka_unit_test(test_receipts),
		cmocka_unit_test(test_publish),
		cmocka_unit_test(test_subscribe),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_connack),
		cmocka_unit_test(test_websocket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
