/* test_messages.c - what may be said, and what comes of saying it twice. Threats 29 to 39. */
#include "fixture.h"
#include "raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A group of its own for each test: alice sends, bob listens, both versions. */
struct scene {
	struct fixture *fixture;
	int64_t alice, bob, group;
	struct client *sender; /* version 5 */
	struct client *listener;
	int64_t seq; /* the newest that expect_next has seen */
};

static struct scene begin(void **state)
{
	struct scene scene = {.fixture = *state};
	scene.alice = fixture_user(scene.fixture);
	scene.bob = fixture_user(scene.fixture);
	scene.group = GROUP_OF(scene.fixture, scene.alice, scene.bob);
	scene.sender = fixture_member(scene.fixture, scene.alice, 5, scene.group);
	scene.listener = fixture_member(scene.fixture, scene.bob, 4, scene.group);
	return scene;
}

static void accept(struct scene *scene, const char *payload)
{
	int reason = client_publish(scene->sender, topic_of(scene->group, "send"), payload, 1);
	if (reason >= 0x80) {
		struct message *answer = client_receive(scene->sender, answers_of(scene->sender));
		fail_msg("refused: %.200s", answer->payload);
	}
}

/* Refused at once: PUBACK 0x87, and the error; nothing is stored and nobody hears of it. */
static void refuse_bytes(struct scene *scene, const void *payload, size_t length, const char *code)
{
	assert_int_equal(client_publish_bytes(scene->sender, topic_of(scene->group, "send"), payload, length, 1, false), 0x87);
	expect_error(scene->sender, code);
}

static void refuse(struct scene *scene, const char *payload, const char *code)
{
	print_message("%.100s\n", payload);
	refuse_bytes(scene, payload, strlen(payload), code);
}

static struct message *next_message(struct scene *scene)
{
	message_free(client_receive(scene->sender, topic_of(scene->group, "messages")));
	struct message *message = client_receive(scene->listener, topic_of(scene->group, "messages"));
	assert_int_equal(message_integer(message, "seq"), ++scene->seq);
	return message;
}

static void expect_next(struct scene *scene, const char *body)
{
	struct message *message = next_message(scene);
	assert_string_equal(message_string(message, "body"), body);
	message_free(message);
}

/* Nothing of what was refused has got through: the next one has the next number. */
static void expect_nothing_else(struct scene *scene)
{
	accept(scene, "the end");
	expect_next(scene, "the end");
	assert_int_equal(sql_integer(&scene->fixture->postgres, "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld",
				 (long long)scene->group),
		scene->seq);
}

/* --------------------------------------------------------------------------------------------- what is good */

static void test_plain_text(void **state)
{
	struct scene scene = begin(state);
	const char *texts[] = {"hello", " ", "[1,2]", "\"quoted\"", "12", "a { b", "tab\there", "line\nbreak",
		"gr\xc3\xbc\xc3\x9f dich \xf0\x9f\x98\x80"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		print_message("'%s'\n", texts[i]);
		accept(&scene, texts[i]);
		expect_next(&scene, texts[i]);
	}
	refuse(&scene, "", "invalid_field");
	expect_nothing_else(&scene);
}

/* Everything that an envelope can say comes out again, in both versions, and stands in the table. */
static void test_envelope_in_full(void **state)
{
	struct scene scene = begin(state);
	const char *id = new_id();
	accept(&scene, "first");
	expect_next(&scene, "first");
	accept(&scene,
		text_of("  {\"id\":\"%s\",\"type\":\"image\",\"body\":\"Look \\ud83d\\ude00\",\"reply_to\":1,\"mentions\":[%lld],"
			"\"attachments\":[{\"key\":\"k\",\"name\":\"a.jpg\",\"type\":\"image/"
			"jpeg\",\"size\":5,\"sha256\":\"%064d\"}],"
			"\"expires_in\":86400,\"meta\":{\"a\":[1,{\"b\":null}]}}",
			id, (long long)scene.bob, 0));
	struct message *own = client_receive(scene.sender, topic_of(scene.group, "messages"));
	assert_string_equal(own->content_type, "application/json");
	assert_string_equal(own->property_seq, "2");
	assert_string_equal(own->property_from, text_of("%lld", (long long)scene.alice));
	assert_int_equal(own->qos, 1);
	assert_false(own->retain);
	struct message *message = client_receive(scene.listener, topic_of(scene.group, "messages"));
	assert_string_equal(message->payload, own->payload);
	assert_int_equal(message_integer(message, "conversation"), scene.group);
	assert_int_equal(message_integer(message, "seq"), 2);
	assert_int_equal(message_integer(message, "from"), scene.alice);
	assert_string_equal(message_string(message, "id"), id);
	assert_string_equal(message_string(message, "type"), "image");
	assert_string_equal(message_string(message, "body"), "Look \xf0\x9f\x98\x80");
	assert_int_equal(message_integer(message, "reply_to"), 1);
	assert_true(message_has(message, "mentions") && message_has(message, "attachments") && message_has(message, "meta"));
	assert_true(message_integer(message, "expires_at") - message_integer(message, "sent_at") == 86400000);
	assert_int_equal(sql_integer(&scene.fixture->postgres,
				 "SELECT count(*) FROM chat.messages WHERE conversation_id = %lld AND seq = 2 AND sender_id = "
				 "%lld AND client_id = '%s' AND type = 'image' "
				 "AND reply_to = 1 AND extra ? 'meta' AND expires_at = sent_at + interval '1 day'",
				 (long long)scene.group, (long long)scene.alice, id),
		1);
	message_free(own);
	message_free(message);
}

/* Reactions, edits and deletions are entries of the same log. */
static void test_entries_about_others(void **state)
{
	struct scene scene = begin(state);
	accept(&scene, "first");
	expect_next(&scene, "first");
	const char *entries[] = {"{\"type\":\"reaction\",\"ref\":1,\"body\":\"\xf0\x9f\x91\x8d\"}",
		"{\"type\":\"reaction\",\"ref\":1,\"body\":\"\xf0\x9f\x91\x8d\",\"remove\":true}",
		"{\"type\":\"edit\",\"ref\":1,\"body\":\"better\"}", "{\"type\":\"delete\",\"ref\":1,\"body\":\"\"}",
		"{\"type\":\"x-poll\",\"body\":\"?\"}", "{\"type\":\"opaque\",\"body\":\"AAAA\"}"};
	for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
		accept(&scene, entries[i]);
		struct message *message = next_message(&scene);
		if (i < 4)
			assert_int_equal(message_integer(message, "ref"), 1);
		message_free(message);
	}
	refuse(&scene, "{\"type\":\"reaction\",\"body\":\"x\"}", "invalid_field");
	refuse(&scene, "{\"type\":\"text\",\"ref\":1,\"body\":\"x\"}", "invalid_field");
	refuse(&scene, "{\"type\":\"system\",\"body\":\"I am the server\"}", "invalid_field");
	refuse(&scene, "{\"type\":\"unheard-of\",\"body\":\"x\"}", "invalid_field");
	/* A reference to what is not there is found at the commit. */
	accept(&scene, "{\"type\":\"edit\",\"ref\":1000,\"body\":\"x\"}");
	expect_error(scene.sender, "invalid_field");
	accept(&scene, "{\"reply_to\":1000,\"body\":\"x\"}");
	expect_error(scene.sender, "invalid_field");
	expect_nothing_else(&scene);
}

/* The two ways to ask for the number. */
static void test_sent_is_answered(void **state)
{
	struct scene scene = begin(state);
	const char *id = new_id(), *payload = text_of("{\"id\":\"%s\",\"body\":\"x\",\"reply\":true}", id);
	struct client *old = fixture_member(scene.fixture, scene.alice, 4, scene.group);
	accept(&scene, payload);
	struct message *answer = client_receive(scene.sender, answers_of(scene.sender));
	assert_string_equal(message_string(answer, "id"), id);
	assert_string_equal(message_string(answer, "status"), "sent");
	assert_int_equal(message_integer(answer, "seq"), 1);
	assert_int_equal(message_integer(answer, "conversation"), scene.group);
	message_free(answer);

	assert_true(
		client_request(scene.sender, topic_of(scene.group, "send"), "plain", answers_of(scene.sender), "corr-1") < 0x80);
	answer = client_receive(scene.sender, answers_of(scene.sender));
	assert_int_equal(answer->correlation_length, 6);
	assert_memory_equal(answer->correlation, "corr-1", 6);
	assert_int_equal(message_integer(answer, "seq"), 2);
	message_free(answer);

	assert_int_equal(client_publish(old, topic_of(scene.group, "send"), "{\"body\":\"old\",\"reply\":true}", 1), 0);
	answer = client_receive(old, answers_of(old));
	assert_int_equal(message_integer(answer, "seq"), 3);
	message_free(answer);
	/* Nobody else hears an answer, and somebody else's topic is no response topic. */
	assert_int_equal(client_request(scene.sender, topic_of(scene.group, "send"), "x", answers_of(old), NULL), 0x87);
	expect_error(scene.sender, "invalid_field");
	expect_silence(old, answers_of(old));
}

/* ------------------------------------------------------------------------------------------------- resends */

/* threat 29: one row, one delivery, the same answer each time. */
static void test_resend_is_harmless(void **state)
{
	struct scene scene = begin(state);
	const char *id = new_id(), *payload = text_of("{\"id\":\"%s\",\"body\":\"once\",\"reply\":true}", id);
	for (int i = 0; i < 20; i++)
		client_send(scene.sender, topic_of(scene.group, "send"), payload);
	client_settle(scene.sender);
	for (int i = 0; i < 20; i++) {
		struct message *answer = client_receive(scene.sender, answers_of(scene.sender));
		assert_string_equal(message_string(answer, "status"), "sent");
		assert_int_equal(message_integer(answer, "seq"), 1);
		message_free(answer);
	}
	expect_next(&scene, "once");
	/* After a reconnect, from another connection, in the other version, and with the same words written otherwise. */
	struct client *again = fixture_member(scene.fixture, scene.alice, 4, scene.group);
	client_publish(again, topic_of(scene.group, "send"),
		text_of("{ \"reply\" : true, \"body\":\"\\u006fnce\", \"id\":\"%s\" }", id), 1);
	struct message *answer = client_receive(again, answers_of(again));
	assert_int_equal(message_integer(answer, "seq"), 1);
	message_free(answer);
	expect_silence(again, topic_of(scene.group, "messages"));
	expect_nothing_else(&scene);
}

/* Who is no member any more may send nothing, what is stored included; what became of it he can ask. */
static void test_resend_after_removal(void **state)
{
	struct scene scene = begin(state);
	const char *id = new_id(), *payload = text_of("{\"id\":\"%s\",\"body\":\"once\"}", id);
	accept(&scene, payload);
	expect_next(&scene, "once");
	assert_true(client_subscribe(scene.sender, user_topic(scene.alice, "inbox")) < 0x80);
	sql(&scene.fixture->postgres,
		"DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)scene.group, (long long)scene.alice);
	for (bool removed = false; !removed;) { /* being added may be told before it, and late */
		struct message *event = client_receive(scene.sender, user_topic(scene.alice, "inbox"));
		removed = strcmp(message_string(event, "event"), "removed") == 0;
		message_free(event);
	}
	assert_true(client_publish(scene.sender, topic_of(scene.group, "send"), payload, 1) >= 0x80);
	expect_error(scene.sender, "not_found");
	client_publish(scene.sender, "chat/request/message.status",
		text_of("{\"conversation\":%lld,\"id\":\"%s\"}", (long long)scene.group, id), 1);
	struct message *answer = client_receive(scene.sender, answers_of(scene.sender));
	cJSON *json = cJSON_Parse(answer->payload), *result = cJSON_GetObjectItem(json, "result");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(result, "status")), "sent");
	assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(result, "seq")), 1);
	cJSON_Delete(json);
	message_free(answer);
}

/* threat 29: the DUP flag and a packet id used again change nothing; without an id each is a message of its own. */
static void test_packet_resend(void **state)
{
	struct scene scene = begin(state);
	char *token = fixture_token(scene.fixture, scene.alice, 0, 600);
	struct raw *raw = raw_open(scene.fixture->broker.port);
	struct raw_packet packet;
	const char *id = new_id(), *payload = text_of("{\"id\":\"%s\",\"body\":\"dup\"}", id),
		   *topic = topic_of(scene.group, "send");
	assert_int_equal(raw_connect(raw, 4, "dup", token, strlen(token)), 0);
	free(token);
	for (unsigned i = 0; i < 10; i++) {
		raw_begin(raw, i ? 0x3a : 0x32); /* DUP */
		raw_text(raw, topic);
		raw_u16(raw, 7);
		raw_bytes(raw, payload, strlen(payload));
		assert_true(raw_end(raw));
		assert_true(raw_read_type(raw, 0x40, &packet));
	}
	raw_close(raw);
	expect_next(&scene, "dup");
	expect_nothing_else(&scene);
}

/* threat 29: QoS 2 is switched off, so nothing of it is left half done. */
static void test_qos_2_is_refused(void **state)
{
	struct scene scene = begin(state);
	char *token = fixture_token(scene.fixture, scene.alice, 0, 600);
	for (int version = 4; version <= 5; version++) {
		struct raw *raw = raw_open(scene.fixture->broker.port);
		struct raw_packet packet;
		assert_int_equal(raw_connect(raw, version, "two", token, strlen(token)), 0);
		raw_begin(raw, 0x34);
		raw_text(raw, topic_of(scene.group, "send"));
		raw_u16(raw, 1);
		if (version == 5)
			raw_u8(raw, 0);
		raw_bytes(raw, "twice", 5);
		assert_true(raw_end(raw));
		while (raw_read(raw, &packet))
			assert_int_not_equal(packet.head & 0xf0, 0x50); /* PUBREC */
		raw_close(raw);
	}
	free(token);
	expect_nothing_else(&scene);
}

/* threat 30: the first content wins. threat 31: another user's id is another id. */
static void test_same_id_other_content(void **state)
{
	struct scene scene = begin(state);
	const char *id = new_id();
	struct client *other = fixture_member(scene.fixture, scene.bob, 5, scene.group);
	accept(&scene, text_of("{\"id\":\"%s\",\"body\":\"first\"}", id));
	expect_next(&scene, "first");
	const char *others[] = {"\"body\":\"second\"", "\"body\":\"first\",\"type\":\"image\"",
		"\"body\":\"first\",\"reply_to\":1", "\"body\":\"first\",\"expires_in\":5", "\"body\":\"first\",\"meta\":{}",
		"\"body\":\"third\""};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		accept(&scene, text_of("{\"id\":\"%s\",%s}", id, others[i]));
		expect_error(scene.sender, "conflict");
	}
	client_publish(other, topic_of(scene.group, "send"), text_of("{\"id\":\"%s\",\"body\":\"mine\"}", id), 1);
	struct message *message = next_message(&scene);
	assert_string_equal(message_string(message, "body"), "mine");
	assert_int_equal(message_integer(message, "from"), scene.bob);
	message_free(message);
	expect_nothing_else(&scene);
}

/* The same in one batch: four connections send one id with two contents at once. One row. */
static void test_race_for_one_id(void **state)
{
	struct scene scene = begin(state);
	struct client *clients[4];
	for (size_t i = 0; i < 4; i++)
		clients[i] = fixture_member(scene.fixture, scene.alice, i % 2 ? 4 : 5, scene.group);
	for (int round = 0; round < 50; round++) {
		const char *id = new_id();
		for (size_t i = 0; i < 4; i++)
			client_send(clients[i], topic_of(scene.group, "send"),
				text_of("{\"id\":\"%s\",\"body\":\"%zu\",\"reply\":true}", id, i / 2));
		int sent = 0, conflicts = 0;
		for (size_t i = 0; i < 4; i++) {
			struct message *answer = client_receive(clients[i], answers_of(clients[i]));
			if (message_has(answer, "error")) {
				assert_string_equal(message_error(answer), "conflict");
				conflicts++;
			} else {
				assert_int_equal(message_integer(answer, "seq"), scene.seq + 1);
				sent++;
			}
			message_free(answer);
		}
		assert_int_equal(sent, 2);
		assert_int_equal(conflicts, 2);
		message_free(next_message(&scene));
	}
	expect_nothing_else(&scene);
}

/* ---------------------------------------------------------------------------------------------- what is bad */

/* threat 32 */
static void test_malformed_ids_are_refused(void **state)
{
	struct scene scene = begin(state);
	static char huge[100000];
	memset(huge, 'a', sizeof huge - 1);
	const char *ids[] = {"\"\"", "\"x\"", "1", "null", "\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1\"",
		"\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c111\"", "\"9f1c6f0e3d0b4a539f0e6f6b0a6b7c11\"",
		"\"{9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11}\"", "\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7g11\"",
		"\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11 \"", "[\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11\"]"};
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		refuse(&scene, text_of("{\"id\":%s,\"body\":\"x\"}", ids[i]), "invalid_field");
	refuse(&scene, "{\"id\":\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c1\\u0000\",\"body\":\"x\"}", "invalid_json");
	char *million = malloc(1100000);
	check(million != NULL);
	memset(million, 'a', 1100000);
	memcpy(million, "{\"body\":\"x\",\"id\":\"", 18);
	memcpy(million + 1050000, "\"}", 2);
	refuse_bytes(&scene, million, 1050002, "invalid_field");
	free(million);
	/* The two cases of the digits are the same id. */
	accept(&scene, "{\"id\":\"9F1C6F0E-3D0B-4A53-9F0E-6F6B0A6B7C11\",\"body\":\"x\"}");
	accept(&scene, "{\"id\":\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11\",\"body\":\"x\"}");
	expect_next(&scene, "x");
	expect_nothing_else(&scene);
}

/* threat 33, threat 34 */
static void test_bad_json_is_refused(void **state)
{
	struct scene scene = begin(state);
	const char *payloads[] = {"{", "{}x", "{\"body\":\"x\"} {}", "{\"body\":\"x\"", "{\"body\":'x'}", "{\"body\":\"x\",}",
		"{body:\"x\"}", "{\"body\":\"x\" /* comment */}", "{\"body\":\"x\"}\n//", "{\"body\":\"x\",\"body\":\"y\"}",
		"{\"body\":\"\\u0000\"}", "{\"body\":\"\\ud800\"}", "{\"body\":\"\\udc00\\ud800\"}", "{\"body\":\"\\x41\"}",
		"{\"body\":\"raw\ttab\"}", "{\"body\":\"x\",\"reply_to\":01}", "{\"body\":\"x\",\"reply_to\":1.}",
		"{\"body\":\"x\",\"reply_to\":1e999}", "{\"body\":\"x\",\"reply_to\":9007199254740992}",
		"{\"body\":\"x\",\"reply_to\":NaN}", "{\"body\":\"\xff\"}", "{\"body\":\"\xc0\xaf\"}",
		"{\"body\":\"\xed\xa0\x80\"}", "{\"body\":\"\xf4\x90\x80\x80\"}", "{\"body\":\"\xe2\x82\"}",
		"{\"body\":\"x\",\"meta\":{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}"};
	for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++)
		refuse(&scene, payloads[i], "invalid_json");
	refuse_bytes(&scene, "{\"body\":\"a\0b\"}", 14, "invalid_json");
	refuse(&scene, "\xef\xbb\xbf{\"body\":\"x\"}", "invalid_json");
	expect_nothing_else(&scene);
}

/* threat 34, threat 39: fields of the wrong name, type and range. */
static void test_bad_fields_are_refused(void **state)
{
	struct scene scene = begin(state);
	const char *fields[] = {"\"boddy\":\"x\"", "\"Body\":\"y\"", "\"seq\":1", "\"from\":1", "\"sent_at\":1",
		"\"__proto__\":{}", "\"type\":1", "\"type\":\"\"", "\"type\":\"TEXT\"", "\"type\":\"x-\"",
		"\"type\":\"x-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "\"reply_to\":0", "\"reply_to\":-1",
		"\"reply_to\":1.5", "\"reply_to\":\"1\"", "\"reply_to\":true", "\"mentions\":1", "\"mentions\":[0]",
		"\"mentions\":[\"1\"]", "\"mentions\":{}", "\"attachments\":{}", "\"attachments\":[1]",
		"\"attachments\":[{\"unknown\":1}]", "\"meta\":[]", "\"meta\":\"x\"", "\"expires_in\":0", "\"expires_in\":-5",
		"\"expires_in\":1e15", "\"expires_in\":\"60\"", "\"reply\":1", "\"reply\":\"true\"", "\"remove\":true"};
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		refuse(&scene, text_of("{\"body\":\"x\",%s}", fields[i]), "invalid_field");
	refuse(&scene, "{}", "invalid_field");
	refuse(&scene, "{\"body\":1}", "invalid_field");
	refuse(&scene, "{\"body\":null}", "invalid_field");
	expect_nothing_else(&scene);
}

/* `count` times the text, as the body of an envelope where `envelope`; to free(). */
static char *repeat(const char *text, size_t count, bool envelope, size_t *length)
{
	const char *before = envelope ? "{\"body\":\"" : "", *after = envelope ? "\"}" : "";
	size_t each = strlen(text), start = strlen(before), end = start + count * each;
	char *payload = malloc(end + strlen(after) + 1);
	check(payload != NULL);
	memcpy(payload, before, start);
	for (size_t i = 0; i < count; i++)
		memcpy(payload + start + i * each, text, each);
	memcpy(payload + end, after, strlen(after));
	*length = end + strlen(after);
	return payload;
}

/* threat 35: 100,000 code points, whatever they are made of, and not one more. */
static void test_longest_body(void **state)
{
	struct scene scene = begin(state);
	const char *pieces[] = {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xcc\x81", "\xe2\x80\x8d"};
	size_t length;
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		for (int envelope = 0; envelope < 2; envelope++) {
			char *payload = repeat(pieces[i], 100000, envelope, &length);
			assert_true(client_publish_bytes(scene.sender, topic_of(scene.group, "send"), payload, length, 1, false) <
				    0x80);
			struct message *message = next_message(&scene);
			assert_int_equal(strlen(message_string(message, "body")), 100000 * strlen(pieces[i]));
			message_free(message);
			free(payload);
			payload = repeat(pieces[i], 100001, envelope, &length);
			refuse_bytes(&scene, payload, length, "too_long");
			free(payload);
		}
	}
	/* Twelve bytes for one code point: the largest envelope that can be needed. */
	char *escaped = repeat("\\ud83d\\ude00", 100000, true, &length);
	assert_true(client_publish_bytes(scene.sender, topic_of(scene.group, "send"), escaped, length, 1, false) < 0x80);
	struct message *message = next_message(&scene);
	assert_int_equal(strlen(message_string(message, "body")), 400000);
	message_free(message);
	free(escaped);
	escaped = repeat("\\ud83d\\ude00", 100001, true, &length);
	refuse_bytes(&scene, escaped, length, "too_long");
	free(escaped);
	char *lone = repeat("\\ud83d", 10, true, &length);
	refuse_bytes(&scene, lone, length, "invalid_json");
	free(lone);
	assert_int_equal(
		sql_integer(&scene.fixture->postgres,
			"SELECT max(char_length(body)) FROM chat.messages WHERE conversation_id = %lld", (long long)scene.group),
		100000);
	expect_nothing_else(&scene);
}

/* threat 36: what PostgreSQL cannot hold does not get there. */
static void test_bad_utf8_is_refused(void **state)
{
	struct scene scene = begin(state);
	const struct {
		const char *bytes;
		size_t length;
	} texts[] = {{"\xff", 1}, {"\xc0\x80", 2}, {"\xed\xa0\x80", 3}, {"\xf5\x80\x80\x80", 4}, {"abc\xe2\x82", 5}, {"a\0b", 3},
		{"\0", 1}, {"\x80", 1}};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		refuse_bytes(&scene, texts[i].bytes, texts[i].length, "invalid_field");
	expect_nothing_else(&scene);
}

/* threat 37, threat 38: text is text. */
static void test_injections_are_text(void **state)
{
	struct scene scene = begin(state);
	const char *texts[] = {"'; DROP TABLE chat.messages; --", "\\'; SELECT pg_sleep(10); --", "$1", "$$", "%s%n%x", "\\N",
		"{1,2}", "NULL", "\\u0000", "\x1b[31mred", "line\n1700000000: chat: forged"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (texts[i][0] == '{')
			continue; /* that one would be an envelope */
		accept(&scene, texts[i]);
		expect_next(&scene, texts[i]);
	}
	refuse(&scene, "{\"type\":\"x-a'b\",\"body\":\"x\"}", "invalid_field");
	assert_int_equal(broker_log_count(&scene.fixture->broker, "forged"), 0);
	assert_int_equal(broker_log_count(&scene.fixture->broker, "DROP TABLE"), 0);
}

/* A 3.1.1 client, which no PUBACK can tell, learns from the error; and one that sends QoS 0 too. */
static void test_refusals_in_3_1_1(void **state)
{
	struct scene scene = begin(state);
	struct client *old = fixture_member(scene.fixture, scene.alice, 4, scene.group);
	const char *id = new_id();
	assert_int_equal(client_publish(old, topic_of(scene.group, "send"), text_of("{\"id\":\"%s\",\"body\":1}", id), 1), 0);
	struct message *error = client_receive(old, answers_of(old));
	assert_string_equal(message_error(error), "invalid_field");
	assert_string_equal(message_string(error, "id"), id);
	assert_int_equal(message_integer(error, "conversation"), scene.group);
	message_free(error);
	client_publish(old, topic_of(scene.group, "send"), "{", 0);
	expect_error(old, "invalid_json");
	assert_true(client_is_connected(old));
	expect_nothing_else(&scene);
}

/* Direct conversations: blocked closes both ways, and is said. */
static void test_blocked(void **state)
{
	struct fixture *fixture = *state;
	int64_t alice = fixture_user(fixture), bob = fixture_user(fixture);
	int64_t direct = sql_integer(&fixture->postgres,
		"INSERT INTO chat.conversations (type, first_user_id, second_user_id) VALUES ('direct', %lld, %lld) RETURNING id",
		(long long)alice, (long long)bob);
	struct client *first = fixture_member(fixture, alice, 5, direct), *second = fixture_member(fixture, bob, 4, direct);
	client_publish(first, topic_of(direct, "send"), "hi", 1);
	expect_message(second, direct, 1, alice, "hi");
	sql(&fixture->postgres, "INSERT INTO chat.blocked_users (user_id, blocked_user_id) VALUES (%lld, %lld)", (long long)bob,
		(long long)alice);
	client_publish(first, topic_of(direct, "send"), "are you there?", 1);
	expect_error(first, "blocked");
	client_publish(second, topic_of(direct, "send"), "no", 1);
	expect_error(second, "blocked");
	sql(&fixture->postgres, "DELETE FROM chat.blocked_users WHERE user_id = %lld", (long long)bob);
	client_publish(first, topic_of(direct, "send"), "hi again", 1);
	expect_message(second, direct, 2, alice, "hi again");
	/* The refusals are on record. */
	assert_int_equal(sql_integer(&fixture->postgres,
				 "SELECT count(*) FROM chat.refusals WHERE conversation_id = %lld AND code = 'blocked'",
				 (long long)direct),
		2);
}

/* There is no such method: the answer says so, with what the asker can recognise it by. */
static void test_unknown_request(void **state)
{
	struct scene scene = begin(state);
	assert_true(client_request(scene.sender, "chat/request/no.such", "{\"request_id\":\"r-1\"}", answers_of(scene.sender),
			    "c") < 0x80);
	struct message *answer = client_receive(scene.sender, answers_of(scene.sender));
	assert_string_equal(message_error(answer), "not_found");
	assert_string_equal(message_string(answer, "request_id"), "r-1");
	assert_int_equal(answer->correlation_length, 1);
	message_free(answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_plain_text),
		TEST(test_envelope_in_full),
		TEST(test_entries_about_others),
		TEST(test_sent_is_answered),
		TEST(test_resend_is_harmless),
		TEST(test_resend_after_removal),
		TEST(test_packet_resend),
		TEST(test_qos_2_is_refused),
		TEST(test_same_id_other_content),
		TEST(test_race_for_one_id),
		TEST(test_malformed_ids_are_refused),
		TEST(test_bad_json_is_refused),
		TEST(test_bad_fields_are_refused),
		TEST(test_longest_body),
		TEST(test_bad_utf8_is_refused),
		TEST(test_injections_are_text),
		TEST(test_refusals_in_3_1_1),
		TEST(test_blocked),
		TEST(test_unknown_request),
	};
	return cmocka_run_group_tests_name("messages", tests, fixture_setup, fixture_teardown);
}
