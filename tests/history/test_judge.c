/* test_judge.c - the judge judged: every violation is made once, in a small history of two people, and found under its name
 * and no other; what is no violation passes.
 *
 * A scene is a history and a table that grow together: each step below is one event or one row.
 */
#include "judge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* Clients 0 and 1 are Ann's and Ben's, members; client 2 is Cid's, who is not. */
enum { ANN, BEN, CID, CLIENTS };
enum { USER = 10, ROOM = 7, OTHER_ROOM = 8, MESSAGES_MAX = 64, STEP_NS = 1000000 };
#define WALL_NS INT64_C(1700000000000000000)
#define SET(violation) (UINT64_C(1) << (violation))

struct scene {
	struct history history;
	struct table table;
	struct history_message messages[CLIENTS][MESSAGES_MAX];
	struct table_watermark marked[CLIENTS]; /* by a mark that was taken */
	bool watermarks_as_they_are;
	int64_t now_ns;
};

static int64_t user_of(unsigned client)
{
	return USER + (int64_t)client;
}

static void happen(struct scene *scene, struct history_event event)
{
	event.at_ns = scene->now_ns += STEP_NS;
	history_add(&scene->history, &event);
}

static void id_of(unsigned writer, uint32_t number, uint8_t id[16])
{
	memset(id, 0xaa, 16);
	id[10] = 0;
	id[11] = (uint8_t)writer;
	id[12] = id[13] = id[14] = 0;
	id[15] = (uint8_t)number;
}

/* ---- steps ---- */

static void member(struct scene *scene, enum history_kind kind, unsigned client)
{
	happen(scene, (struct history_event){.kind = (uint8_t)kind, .conversation = ROOM, .user = user_of(client)});
}

static void connect_client(struct scene *scene, unsigned client)
{
	happen(scene, (struct history_event){.kind = HISTORY_CONNECTED, .client = (uint16_t)client});
	happen(scene, (struct history_event){.kind = HISTORY_SUBSCRIBED, .client = (uint16_t)client, .conversation = ROOM});
}

static void disconnect_client(struct scene *scene, unsigned client)
{
	happen(scene, (struct history_event){.kind = HISTORY_DISCONNECTED, .client = (uint16_t)client});
}

static struct history_event about(unsigned writer, uint32_t number, enum history_kind kind)
{
	struct history_event event = {.kind = (uint8_t)kind,
		.client = (uint16_t)writer,
		.conversation = ROOM,
		.message = {.writer = (uint16_t)writer, .number = number}};
	id_of(writer, number, event.id);
	return event;
}

/* Even numbers have an id. */
static void send_message(struct scene *scene, unsigned writer, uint32_t number)
{
	char body[HISTORY_MARK_LENGTH + 8] = "";
	struct history_event event = about(writer, number, HISTORY_SEND);
	snprintf(body + HISTORY_MARK_LENGTH, 8, "no. %u", number % 100);
	history_mark_body(body, sizeof body, (uint16_t)writer, number, &scene->messages[writer][number]);
	event.message = scene->messages[writer][number];
	event.own_id = number % 2 == 0;
	if (!event.own_id)
		memset(event.id, 0, 16);
	happen(scene, event);
}

static void send_reject(struct scene *scene, unsigned writer, uint32_t number)
{
	send_message(scene, writer, number);
	scene->history.events[scene->history.count - 1].is_reject = true;
}

static void puback(struct scene *scene, unsigned writer, uint32_t number, uint8_t reason)
{
	struct history_event event = about(writer, number, HISTORY_PUBACK);
	event.reason = reason;
	happen(scene, event);
}

static void answer(struct scene *scene, unsigned writer, uint32_t number, enum history_kind kind, int64_t seq, const char *code)
{
	struct history_event event = about(writer, number, kind);
	event.seq = seq;
	snprintf(event.code, sizeof event.code, "%s", code);
	happen(scene, event);
}

/* The next row of the room. */
static struct table_row *store(struct scene *scene, unsigned writer, uint32_t number)
{
	struct table_row *row = &scene->table.rows[scene->table.row_count++];
	*row = (struct table_row){.conversation = ROOM,
		.seq = ++scene->table.conversations[0].last_seq,
		.sender = user_of(writer),
		.message = scene->messages[writer][number]};
	scene->now_ns += STEP_NS;
	row->committed_us = (scene->now_ns + WALL_NS) / 1000;
	id_of(writer, number, row->id);
	return row;
}

static void receive(struct scene *scene, unsigned client, const struct table_row *row)
{
	struct history_event event = {.kind = HISTORY_RECEIVE,
		.client = (uint16_t)client,
		.conversation = ROOM,
		.seq = row->seq,
		.user = row->sender,
		.message = row->message};
	memcpy(event.id, row->id, 16);
	happen(scene, event);
}

static struct history_event *last_event(struct scene *scene)
{
	return &scene->history.events[scene->history.count - 1];
}

/* All of it as it should be. */
static struct table_row *talk(struct scene *scene, unsigned writer, uint32_t number)
{
	send_message(scene, writer, number);
	puback(scene, writer, number, 0);
	struct table_row *row = store(scene, writer, number);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	return row;
}

static void send_mark(struct scene *scene, unsigned client, enum history_kind kind, int64_t delivered, int64_t read)
{
	happen(scene, (struct history_event){.kind = (uint8_t)kind,
			      .client = (uint16_t)client,
			      .user = user_of(client),
			      .conversation = ROOM,
			      .seq = delivered,
			      .last = read});
}

static void mark(struct scene *scene, unsigned client, int64_t delivered, int64_t read)
{
	send_mark(scene, client, HISTORY_MARK, delivered, read);
	send_mark(scene, client, HISTORY_MARK_PUBACK, delivered, read);
	scene->marked[client] = (struct table_watermark){.delivered = delivered, .read = read};
}

/* As the marks that were taken and the rows that are there have it, unless the test has set them. */
static void set_watermarks(struct scene *scene)
{
	for (unsigned i = ANN; i <= BEN && !scene->watermarks_as_they_are; i++) {
		struct table_watermark *watermark = &scene->table.watermarks[i];
		watermark->delivered = scene->marked[i].delivered;
		watermark->read = scene->marked[i].read;
		for (size_t r = 0; r < scene->table.row_count; r++) {
			const struct table_row *row = &scene->table.rows[r];
			if (row->conversation == ROOM && row->sender == watermark->user && row->seq > watermark->read)
				watermark->read = row->seq;
		}
		if (watermark->delivered < watermark->read)
			watermark->delivered = watermark->read;
	}
}

static void watermark(struct scene *scene, unsigned client, int64_t delivered, int64_t read)
{
	set_watermarks(scene);
	scene->watermarks_as_they_are = true;
	scene->table.watermarks[client].delivered = delivered;
	scene->table.watermarks[client].read = read;
}

static void fault(struct scene *scene)
{
	happen(scene, (struct history_event){.kind = HISTORY_FAULT, .code = "kill"});
}

static void behind(struct scene *scene, unsigned client, int64_t seq)
{
	happen(scene,
		(struct history_event){.kind = HISTORY_BEHIND, .client = (uint16_t)client, .conversation = ROOM, .seq = seq});
}

/* ---- a scene's beginning and end ---- */

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	assert_non_null(scene);
	history_init(&scene->history, NULL);
	scene->history.clients = calloc(CLIENTS, sizeof *scene->history.clients);
	scene->history.client_count = CLIENTS;
	scene->history.wall_offset_ns = scene->history.wall_offset_end_ns = WALL_NS;
	scene->table.rows = calloc(MESSAGES_MAX, sizeof *scene->table.rows);
	scene->table.conversations = calloc(2, sizeof *scene->table.conversations);
	scene->table.refusals = calloc(4, sizeof *scene->table.refusals);
	scene->table.watermarks = calloc(CLIENTS, sizeof *scene->table.watermarks);
	scene->table.presence = calloc(CLIENTS, sizeof *scene->table.presence);
	scene->table.presence_count = CLIENTS;
	scene->table.conversation_count = 2;
	scene->table.conversations[0].id = ROOM;
	scene->table.conversations[1].id = OTHER_ROOM;
	for (unsigned i = 0; i < CLIENTS; i++)
		scene->history.clients[i] = (struct history_client){.user = user_of(i), .version = i == BEN ? 4 : 5};
	for (unsigned i = ANN; i <= BEN; i++) {
		member(scene, HISTORY_ADDING, i);
		member(scene, HISTORY_ADDED, i);
		scene->table.watermarks[i] = (struct table_watermark){user_of(i), ROOM, 0, 0};
		connect_client(scene, i);
	}
	scene->table.watermark_count = 2;
	connect_client(scene, CID);
	for (unsigned i = 0; i < CLIENTS; i++)
		scene->table.presence[i] = (struct table_presence){user_of(i), true, 0};
	for (uint32_t number = 1; number <= 4; number++)
		talk(scene, number % 2 ? ANN : BEN, number);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	history_free(&scene->history);
	table_free(&scene->table);
	free(scene);
	return 0;
}

/* Ann and Ben read their history, whatever the table has of the room. */
static void catch_up(struct scene *scene)
{
	uint64_t digest = 0;
	int64_t last = 0;
	for (int64_t seq = 1; seq <= MESSAGES_MAX; seq++) {
		for (size_t i = 0; i < scene->table.row_count; i++) {
			const struct table_row *row = &scene->table.rows[i];
			if (row->conversation == ROOM && row->seq == seq) {
				digest = history_digest(digest, seq, &row->message);
				last = seq;
			}
		}
	}
	for (unsigned i = ANN; i <= BEN; i++)
		happen(scene, (struct history_event){.kind = HISTORY_CAUGHT_UP,
				      .conversation = ROOM,
				      .user = user_of(i),
				      .seq = 1,
				      .last = last,
				      .hash = digest});
}

static struct judgement judged(struct scene *scene)
{
	struct judgement judgement;
	happen(scene, (struct history_event){.kind = HISTORY_END});
	catch_up(scene);
	set_watermarks(scene);
	judge(&scene->history, &scene->table, &(struct judge_options){0}, &judgement);
	return judgement;
}

/* Exactly these are found. */
static void expect(struct scene *scene, uint64_t violations)
{
	struct judgement judgement = judged(scene);
	uint64_t got = 0;
	for (int i = 0; i < VIOLATIONS; i++)
		got |= judgement.count[i] ? SET(i) : 0;
	if (got != violations)
		judgement_print(&judgement, stderr);
	assert_int_equal(got, violations);
	assert_int_equal(judgement_is_clean(&judgement), violations == 0);
}

/* ---- what is no violation ---- */

static void test_clean(void **state)
{
	struct judgement judgement = judged(*state);
	assert_true(judgement_is_clean(&judgement));
	assert_int_equal(judgement.sent, 4);
	assert_int_equal(judgement.acks, 4);
	assert_int_equal(judgement.rows, 4);
	assert_int_equal(judgement.deliveries, 8);
}

static void test_unacknowledged_may_be_stored_or_not(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	send_message(scene, ANN, 6);
	struct table_row *row = store(scene, ANN, 6);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, 0);
}

static void test_sent_again_after_the_end_of_a_connection(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	struct table_row *row = store(scene, ANN, 6);
	fault(scene);
	disconnect_client(scene, ANN);
	receive(scene, BEN, row);
	connect_client(scene, ANN);
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0);
	answer(scene, ANN, 6, HISTORY_SENT, row->seq, "");
	expect(scene, 0);
}

static void refuse_on_record(struct scene *scene, unsigned writer, uint32_t number, const char *code)
{
	struct table_refusal *refusal = &scene->table.refusals[scene->table.refusal_count++];
	*refusal = (struct table_refusal){user_of(writer), ROOM, {0}, {0}};
	snprintf(refusal->code, sizeof refusal->code, "%s", code);
	id_of(writer, number, refusal->id);
}

/* Cid comes, and goes again, while Ann and Ben talk. */
static void come(struct scene *scene)
{
	member(scene, HISTORY_ADDING, CID);
	member(scene, HISTORY_ADDED, CID);
}

static void go(struct scene *scene)
{
	member(scene, HISTORY_REMOVING, CID);
	member(scene, HISTORY_REMOVED, CID);
}

static void test_refused_is_answered(void **state)
{
	struct scene *scene = *state;
	come(scene);
	send_message(scene, CID, 2);
	puback(scene, CID, 2, 0x87);
	answer(scene, CID, 2, HISTORY_ERROR, 0, "forbidden");
	send_message(scene, CID, 4);
	puback(scene, CID, 4, 0);
	refuse_on_record(scene, CID, 4, "forbidden");
	go(scene);
	send_reject(scene, BEN, 10);
	puback(scene, BEN, 10, 0);
	expect(scene, 0);
}

/* MQTT 3.1.1: the PUBACK says nothing, the answer says it. */
static void test_refused_at_once_on_3_1_1(void **state)
{
	struct scene *scene = *state;
	scene->history.clients[CID].version = 4;
	come(scene);
	send_message(scene, CID, 2);
	puback(scene, CID, 2, 0);
	answer(scene, CID, 2, HISTORY_ERROR, 0, "forbidden");
	go(scene);
	expect(scene, 0);
}

static void test_refused_for_now_and_then_stored(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0x87);
	answer(scene, ANN, 6, HISTORY_ERROR, 0, "overloaded");
	talk(scene, ANN, 6);
	expect(scene, 0);
}

static void test_holes_with_a_reason(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	puback(scene, ANN, 5, 0);
	receive(scene, ANN, store(scene, ANN, 5));
	behind(scene, BEN, 5);
	talk(scene, ANN, 6);
	send_message(scene, ANN, 7);
	puback(scene, ANN, 7, 0);
	receive(scene, ANN, store(scene, ANN, 7));
	fault(scene);
	talk(scene, ANN, 8);
	expect(scene, 0);
}

static void test_comes_and_goes(void **state)
{
	struct scene *scene = *state;
	member(scene, HISTORY_ADDING, CID);
	struct table_row *row = talk(scene, ANN, 6);
	receive(scene, CID, row);
	member(scene, HISTORY_ADDED, CID);
	send_message(scene, ANN, 8);
	member(scene, HISTORY_REMOVING, CID);
	member(scene, HISTORY_REMOVED, CID);
	puback(scene, ANN, 8, 0);
	row = store(scene, ANN, 8);
	for (unsigned i = 0; i < CLIENTS; i++)
		receive(scene, i, row);
	expect(scene, 0);
}

static void test_seen_again_is_counted(void **state)
{
	struct scene *scene = *state;
	receive(scene, BEN, &scene->table.rows[1]);
	struct judgement judgement = judged(scene);
	assert_true(judgement_is_clean(&judgement));
	assert_int_equal(judgement.redeliveries, 1);
}

static void test_a_run_that_says_nothing(void **state)
{
	struct scene *scene = *state;
	struct judgement judgement;
	catch_up(scene);
	judge(&scene->history, &scene->table, &(struct judge_options){.acks_min = 5}, &judgement);
	assert_non_null(judgement.invalid);
	assert_false(judgement_is_clean(&judgement));
	judge(&scene->history, &scene->table, &(struct judge_options){.acks_min = 4, .needs_fault = true}, &judgement);
	assert_non_null(judgement.invalid);
	judge(&scene->history, &scene->table, &(struct judge_options){.acks_min = 4}, &judgement);
	assert_null(judgement.invalid);
}

/* ---- one violation each ---- */

static void test_lost(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	puback(scene, ANN, 5, 0);
	expect(scene, SET(LOST));
}

static void test_lost_after_a_transient_error(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0x87);
	answer(scene, ANN, 6, HISTORY_ERROR, 0, "rate_limited");
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0x10);
	expect(scene, SET(LOST));
}

/* An answer alone is no record: on MQTT 5 a message with a good PUBACK was accepted. */
static void test_lost_and_answered_with_an_error(void **state)
{
	struct scene *scene = *state;
	come(scene);
	send_message(scene, CID, 2);
	puback(scene, CID, 2, 0x10);
	answer(scene, CID, 2, HISTORY_ERROR, 0, "internal");
	go(scene);
	expect(scene, SET(LOST));
}

static void test_lost_by_a_member_and_answered_with_an_error(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0x10);
	answer(scene, ANN, 6, HISTORY_ERROR, 0, "internal");
	expect(scene, SET(LOST) | SET(UNDUE_REFUSAL));
}

static void test_undue_refusal_on_record(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0);
	refuse_on_record(scene, ANN, 6, "internal");
	expect(scene, SET(UNDUE_REFUSAL));
}

static void test_undue_refusal_at_once(void **state)
{
	struct scene *scene = *state;
	send_message(scene, BEN, 6);
	puback(scene, BEN, 6, 0);
	answer(scene, BEN, 6, HISTORY_ERROR, 0, "forbidden");
	expect(scene, SET(UNDUE_REFUSAL));
}

static void test_rejected_but_stored(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 6);
	answer(scene, ANN, 6, HISTORY_ERROR, 0, "forbidden");
	expect(scene, SET(REJECTED_BUT_STORED) | SET(UNDUE_REFUSAL));
}

static void test_refused_on_record_and_stored(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 6);
	refuse_on_record(scene, ANN, 6, "conflict");
	expect(scene, SET(REJECTED_BUT_STORED) | SET(UNDUE_REFUSAL));
}

static void test_refused_without_an_id_and_stored(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	puback(scene, ANN, 5, 0x87);
	const struct table_row *row = store(scene, ANN, 5);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(REJECTED_BUT_STORED));
}

static void test_stored_what_must_be_refused(void **state)
{
	struct scene *scene = *state;
	send_reject(scene, ANN, 6);
	const struct table_row *row = store(scene, ANN, 6);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(REJECTED_BUT_STORED));
}

static void test_altered(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	puback(scene, ANN, 5, 0);
	struct table_row *row = store(scene, ANN, 5);
	row->message.hash ^= 1;
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(ALTERED));
}

static void test_altered_id(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	puback(scene, ANN, 6, 0);
	struct table_row *row = store(scene, ANN, 6);
	row->id[0] ^= 1;
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(ALTERED));
}

static void test_altered_sender(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	puback(scene, ANN, 5, 0);
	struct table_row *row = store(scene, ANN, 5);
	row->sender = user_of(BEN);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(ALTERED));
}

static void test_phantom_row(void **state)
{
	struct scene *scene = *state;
	scene->messages[ANN][33] = (struct history_message){.writer = ANN, .number = 33, .hash = 1, .length = 40};
	const struct table_row *row = store(scene, ANN, 33);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(PHANTOM_ROW));
}

static void test_duplicate_row(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 5);
	struct table_row *row = store(scene, ANN, 5);
	row->id[0] ^= 1; /* the server made another one */
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(DUPLICATE_ROW));
}

static void test_duplicate_id(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 6);
	send_message(scene, BEN, 5);
	puback(scene, BEN, 5, 0);
	struct table_row *row = store(scene, BEN, 5);
	row[0].sender = row[-1].sender;
	memcpy(row->id, row[-1].id, 16);
	receive(scene, ANN, row);
	receive(scene, BEN, row);
	expect(scene, SET(DUPLICATE_ID) | SET(ALTERED));
}

static void test_duplicate_seq(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	struct table_row *row = store(scene, ANN, 5);
	scene->table.conversations[0].last_seq = --row->seq;
	assert_int_equal(judged(scene).count[DUPLICATE_SEQ], 1);
}

static void test_gap(void **state)
{
	struct scene *scene = *state;
	scene->table.conversations[0].last_seq++;
	fault(scene); /* or it is a live miss too */
	talk(scene, ANN, 5);
	expect(scene, SET(GAP));
}

static void test_first_is_missing(void **state)
{
	struct scene *scene = *state;
	for (size_t i = 0; i < scene->table.row_count; i++)
		scene->table.rows[i].seq++;
	scene->table.conversations[0].last_seq++;
	for (size_t i = 0; i < scene->history.count; i++) {
		if (scene->history.events[i].kind == HISTORY_RECEIVE)
			scene->history.events[i].seq++;
	}
	expect(scene, SET(GAP));
}

static void test_last_seq(void **state)
{
	struct scene *scene = *state;
	scene->table.conversations[0].last_seq++;
	expect(scene, SET(LAST_SEQ));
}

static void test_last_seq_of_an_empty_conversation(void **state)
{
	struct scene *scene = *state;
	scene->table.conversations[1].last_seq = 1;
	expect(scene, SET(LAST_SEQ));
}

static void test_order(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	puback(scene, ANN, 5, 0);
	send_message(scene, BEN, 6);
	puback(scene, BEN, 6, 0);
	const struct table_row *second = store(scene, BEN, 6), *first = store(scene, ANN, 5);
	for (unsigned i = ANN; i <= BEN; i++) {
		receive(scene, i, second);
		receive(scene, i, first);
	}
	expect(scene, SET(ORDER));
}

static void test_sent_differs(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 6);
	answer(scene, ANN, 6, HISTORY_SENT, 3, "");
	expect(scene, SET(SENT_DIFFERS));
}

static void test_sent_and_not_stored(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 6);
	answer(scene, ANN, 6, HISTORY_SENT, 5, "");
	expect(scene, SET(SENT_DIFFERS));
}

static void test_delivered_not_stored(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	struct table_row row = *store(scene, ANN, 5);
	receive(scene, BEN, &row);
	scene->table.row_count--;
	scene->table.conversations[0].last_seq--;
	expect(scene, SET(DELIVERED_NOT_STORED));
}

static void test_delivered_early(void **state)
{
	struct scene *scene = *state;
	struct table_row *row = talk(scene, ANN, 5);
	row->committed_us += 10000;
	expect(scene, SET(DELIVERED_EARLY));
}

static void test_different_content(void **state)
{
	struct scene *scene = *state;
	struct table_row *row = talk(scene, ANN, 5);
	struct history_event *events = last_event(scene);
	events[0].message.hash ^= 1;
	events[-1].message.hash ^= 1;
	assert_int_equal(row->seq, 5);
	expect(scene, SET(DIFFERENT_CONTENT));
}

static void test_different_sender(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 5);
	last_event(scene)->user = user_of(CID);
	expect(scene, SET(DIFFERENT_CONTENT));
}

static void test_disagree(void **state)
{
	struct scene *scene = *state;
	talk(scene, ANN, 5);
	last_event(scene)->message = scene->messages[ANN][3];
	expect(scene, SET(DISAGREE) | SET(DIFFERENT_CONTENT));
}

static void test_out_of_order(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	send_message(scene, ANN, 7);
	const struct table_row *first = store(scene, ANN, 5), *second = store(scene, ANN, 7);
	receive(scene, ANN, first);
	receive(scene, ANN, second);
	receive(scene, BEN, second);
	receive(scene, BEN, first);
	expect(scene, SET(OUT_OF_ORDER) | SET(LIVE_MISS));
}

static void test_never_a_member(void **state)
{
	struct scene *scene = *state;
	const struct table_row *row = talk(scene, ANN, 5);
	receive(scene, CID, row);
	expect(scene, SET(NON_MEMBER));
}

static void test_no_longer_a_member(void **state)
{
	struct scene *scene = *state;
	member(scene, HISTORY_ADDING, CID);
	member(scene, HISTORY_ADDED, CID);
	member(scene, HISTORY_REMOVING, CID);
	member(scene, HISTORY_REMOVED, CID);
	const struct table_row *row = talk(scene, ANN, 5);
	receive(scene, CID, row);
	expect(scene, SET(NON_MEMBER));
}

static void test_not_seen(void **state)
{
	struct scene *scene = *state;
	struct judgement judgement;
	catch_up(scene);
	last_event(scene)->last--;
	judge(&scene->history, &scene->table, &(struct judge_options){0}, &judgement);
	assert_int_equal(judgement.count[NOT_SEEN], 2); /* other entries, and not to the end */
	scene->history.count--;
	judge(&scene->history, &scene->table, &(struct judge_options){0}, &judgement);
	assert_int_equal(judgement.count[NOT_SEEN], 1);
}

static void test_seen_otherwise(void **state)
{
	struct scene *scene = *state;
	struct judgement judgement;
	catch_up(scene);
	last_event(scene)->hash ^= 1;
	judge(&scene->history, &scene->table, &(struct judge_options){0}, &judgement);
	assert_int_equal(judgement.count[NOT_SEEN], 1);
}

static void test_live_miss(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	receive(scene, ANN, store(scene, ANN, 5));
	talk(scene, ANN, 7);
	expect(scene, SET(LIVE_MISS));
}

static void test_live_miss_at_the_end(void **state)
{
	struct scene *scene = *state;
	send_message(scene, ANN, 5);
	receive(scene, ANN, store(scene, ANN, 5));
	expect(scene, SET(LIVE_MISS));
}

/* Ann wrote the third message, Ben the fourth. */
static void test_marks(void **state)
{
	struct scene *scene = *state;
	mark(scene, ANN, 4, 0);
	mark(scene, BEN, 4, 4);
	expect(scene, 0);
}

static void test_mark_lost(void **state)
{
	struct scene *scene = *state;
	mark(scene, ANN, 4, 0);
	watermark(scene, ANN, 3, 3);
	expect(scene, SET(MARK_LOST));
}

static void test_read_mark_lost(void **state)
{
	struct scene *scene = *state;
	mark(scene, ANN, 4, 4);
	watermark(scene, ANN, 4, 3);
	expect(scene, SET(MARK_LOST));
}

static void test_own_message_not_read(void **state)
{
	struct scene *scene = *state;
	watermark(scene, BEN, 4, 3);
	expect(scene, SET(MARK_LOST));
}

static void test_mark_of_unknown_fate(void **state)
{
	struct scene *scene = *state;
	send_mark(scene, ANN, HISTORY_MARK, 4, 4);
	watermark(scene, ANN, 4, 4);
	expect(scene, 0);
}

static void test_mark_invented(void **state)
{
	struct scene *scene = *state;
	watermark(scene, ANN, 4, 3);
	expect(scene, SET(MARK_INVENTED));
}

static void test_read_mark_invented(void **state)
{
	struct scene *scene = *state;
	mark(scene, ANN, 4, 0);
	watermark(scene, ANN, 4, 4);
	expect(scene, SET(MARK_INVENTED));
}

/* ---- bodies ---- */

static void test_bodies(void **state)
{
	char body[HISTORY_MARK_LENGTH + 4];
	struct history_message sent, got;
	(void)state;
	for (size_t length = HISTORY_MARK_LENGTH; length <= sizeof body; length++) {
		memset(body, 'x', sizeof body);
		history_mark_body(body, length, 258, 65537, &sent);
		assert_true(history_read_body(body, length, &got));
		assert_true(got.hash == sent.hash && got.writer == 258 && got.number == 65537 && got.length == length);
		for (size_t i = 0; i < length; i++) {
			body[i] ^= 1;
			bool known = history_read_body(body, length, &got);
			assert_true(!known || got.hash != sent.hash || got.number != sent.number || got.writer != sent.writer);
			body[i] ^= 1;
		}
		assert_false(history_read_body(body, length - 1, &got) && got.hash == sent.hash && length > HISTORY_MARK_LENGTH);
	}
	assert_false(history_read_body("hello", 5, &got));
	assert_int_equal(got.number, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ---- presence ---- */

/* Ann was seen online and goes; a minute later presence is read. Returns hers. */
static struct table_presence *ann_goes(struct scene *scene)
{
	struct table_presence *presence = &scene->table.presence[ANN];
	happen(scene, (struct history_event){.kind = HISTORY_SEEN, .user = user_of(ANN)});
	disconnect_client(scene, ANN);
	*presence = (struct table_presence){user_of(ANN), false, (scene->now_ns + WALL_NS) / 1000};
	scene->now_ns += INT64_C(60000000000);
	happen(scene, (struct history_event){.kind = HISTORY_LOOKED});
	return presence;
}

static void test_presence(void **state)
{
	struct judgement judgement;
	ann_goes(*state);
	judgement = judged(*state);
	assert_true(judgement_is_clean(&judgement));
	assert_int_equal(judgement.there, 2);
	assert_int_equal(judgement.gone, 1);
}

static void test_online_and_gone(void **state)
{
	ann_goes(*state)->is_online = true;
	expect(*state, SET(PRESENCE_WRONG));
}

static void test_offline_and_there(void **state)
{
	struct scene *scene = *state;
	ann_goes(scene);
	scene->table.presence[BEN].is_online = false;
	expect(scene, SET(PRESENCE_WRONG));
}

/* Nothing that was read before counts, and nothing that happened a moment ago. */
static void test_presence_of_who_just_went(void **state)
{
	struct scene *scene = *state;
	ann_goes(scene);
	disconnect_client(scene, BEN);
	happen(scene, (struct history_event){.kind = HISTORY_LOOKED});
	disconnect_client(scene, CID);
	expect(scene, 0);
}

/* With one of two devices. */
static void test_presence_of_who_did_not_go(void **state)
{
	struct scene *scene = *state;
	scene->history.clients[CID].user = user_of(ANN);
	scene->table.presence_count = 2;
	ann_goes(scene)->is_online = true;
	expect(scene, 0);
}

static void test_offline_with_one_device_left(void **state)
{
	struct scene *scene = *state;
	scene->history.clients[CID].user = user_of(ANN);
	scene->table.presence_count = 2;
	ann_goes(scene);
	expect(scene, SET(PRESENCE_WRONG));
}

static void test_last_seen_before_they_were_seen(void **state)
{
	ann_goes(*state)->last_seen_us -= 10000;
	expect(*state, SET(LAST_SEEN));
}

static void test_never_last_seen(void **state)
{
	ann_goes(*state)->last_seen_us = 0;
	expect(*state, SET(LAST_SEEN));
}

static void test_last_seen_after_they_went(void **state)
{
	ann_goes(*state)->last_seen_us += 30000000;
	expect(*state, SET(LAST_SEEN));
}

static void test_last_seen_by_a_clock_that_was_moved(void **state)
{
	struct scene *scene = *state;
	struct judgement judgement;
	ann_goes(scene)->last_seen_us += 30000000;
	set_watermarks(scene);
	catch_up(scene);
	judge(&scene->history, &scene->table, &(struct judge_options){.clock_moves = true}, &judgement);
	assert_true(judgement_is_clean(&judgement));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_clean),
		CASE(test_unacknowledged_may_be_stored_or_not),
		CASE(test_sent_again_after_the_end_of_a_connection),
		CASE(test_refused_is_answered),
		CASE(test_refused_at_once_on_3_1_1),
		CASE(test_refused_for_now_and_then_stored),
		CASE(test_holes_with_a_reason),
		CASE(test_comes_and_goes),
		CASE(test_seen_again_is_counted),
		CASE(test_a_run_that_says_nothing),
		CASE(test_lost),
		CASE(test_lost_after_a_transient_error),
		CASE(test_lost_and_answered_with_an_error),
		CASE(test_lost_by_a_member_and_answered_with_an_error),
		CASE(test_undue_refusal_on_record),
		CASE(test_undue_refusal_at_once),
		CASE(test_rejected_but_stored),
		CASE(test_refused_on_record_and_stored),
		CASE(test_refused_without_an_id_and_stored),
		CASE(test_stored_what_must_be_refused),
		CASE(test_altered),
		CASE(test_altered_id),
		CASE(test_altered_sender),
		CASE(test_phantom_row),
		CASE(test_duplicate_row),
		CASE(test_duplicate_id),
		CASE(test_duplicate_seq),
		CASE(test_gap),
		CASE(test_first_is_missing),
		CASE(test_last_seq),
		CASE(test_last_seq_of_an_empty_conversation),
		CASE(test_order),
		CASE(test_sent_differs),
		CASE(test_sent_and_not_stored),
		CASE(test_delivered_not_stored),
		CASE(test_delivered_early),
		CASE(test_different_content),
		CASE(test_different_sender),
		CASE(test_disagree),
		CASE(test_out_of_order),
		CASE(test_never_a_member),
		CASE(test_no_longer_a_member),
		CASE(test_not_seen),
		CASE(test_seen_otherwise),
		CASE(test_live_miss),
		CASE(test_live_miss_at_the_end),
		CASE(test_marks),
		CASE(test_mark_lost),
		CASE(test_read_mark_lost),
		CASE(test_own_message_not_read),
		CASE(test_mark_of_unknown_fate),
		CASE(test_mark_invented),
		CASE(test_read_mark_invented),
		CASE(test_presence),
		CASE(test_online_and_gone),
		CASE(test_offline_and_there),
		CASE(test_presence_of_who_just_went),
		CASE(test_presence_of_who_did_not_go),
		CASE(test_offline_with_one_device_left),
		CASE(test_last_seen_before_they_were_seen),
		CASE(test_never_last_seen),
		CASE(test_last_seen_after_they_went),
		CASE(test_last_seen_by_a_clock_that_was_moved),
		cmocka_unit_test(test_bodies),
	};
	return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
