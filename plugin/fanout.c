/* fanout.c - see fanout.h.
 *
 *   lanes, loader --batches--> incoming --by kind--> a conversation's pending entries (sorted by seq) --> broker
 *                                               \--> answers: at once
 *                                               \--> a conversation's receipts: once per interval
 *
 * Pace. The broker gives each client a queue of max_queued_messages and drops what does not fit, in silence; and in
 * one turn of its loop it reads one PUBACK from each client. So one conversation may send a burst, and after that as
 * many as there were turns (or milliseconds) since: its listeners can keep up, whatever rate four publishers reach.
 *
 * A backlog, what had to wait for the database, comes all at once and in all conversations: of it a conversation pushes
 * BEHIND_ENTRIES, and less where most of its listeners have been given backlog_limit by all their conversations together.
 * Of the rest they are told. For whom the broker drops something all the same, overrun.h.
 */
#include "fanout.h"

#include "clock.h"
#include "host.h"
#include "inbox.h"
#include "membership.h"
#include "overrun.h"
#include "receipt.h"
#include "respond.h"
#include "test_faults.h"
#include "topic.h"
#include "wakeup.h"

#include <stdlib.h>
#include <string.h>

/* A tick holds every client: at most so long. */
#define TICK_BUDGET_NS INT64_C(5000000)
/* What is published is only handed to listeners after the tick, in one go and before any client is read again: some 6 us
 * each. So many, and what those clients send meanwhile is read, and committed while the next are handed out. */
#define TICK_DELIVERIES 800
/* Reading the clock costs as much as a small publish; look every few. */
#define BUDGET_CHECK_EVERY 16
/* Well below any max_queued_messages, and what one turn of the loop can carry without being felt. */
#define PACE_BURST 400
/* Contract: a backlog older or longer than this is told as one "behind" notice. */
#define BEHIND_AGE_MS 30000
#define BEHIND_ENTRIES 500
/* Of a backlog, for one listener: half of what the broker keeps for it (max_queued_messages, max_queued_bytes), since live
 * messages come on top. What is longer than the average that fills both at once counts for several. */
static const struct rate_limit backlog_limit = {.per_minute = 100 * 60, .burst = 5000};
#define BACKLOG_UNIT_BYTES 2000
/* Notices of what listeners may have missed, to one conversation. */
#define MISSED_INTERVAL_MS 1000
/* A notice is told when no more of the backlog has come for so long: one notice, not one per batch. */
#define BEHIND_QUIET_MS 250
/* Those that only wait for a time are looked at this often; without any other work the broker's own tick comes every 100 ms. */
#define TIMED_EVERY_MS 20
#define RECEIPTS_PER_PUBLISH 1000

struct fanout {
	struct delivery_batch *incoming; /* taken, not yet dealt out */
	uint32_t incoming_at;            /* next item of the first of them */
	int64_t deadline_ns;
	int64_t timed_ms; /* when those that wait for a time were looked at */
	unsigned since_check;
	uint32_t deliveries; /* of this tick */
	bool out_of_time;
	uint64_t published;
};

static void drop_pending(struct conversation *conversation, void *argument)
{
	struct delivery_item *next;
	(void)argument;
	for (struct delivery_item *item = conversation->pending; item; item = next) {
		next = item->next;
		delivery_item_done(item);
	}
	conversation->pending = conversation->pending_last = NULL;
}

struct fanout *fanout_new(struct chat *chat)
{
	registry_on_conversation_end(chat->registry, drop_pending, NULL);
	return calloc(1, sizeof(struct fanout));
}

uint64_t fanout_published(const struct fanout *fanout)
{
	return fanout->published;
}

static bool out_of_time(struct fanout *fanout)
{
	if (++fanout->since_check >= BUDGET_CHECK_EVERY) {
		fanout->since_check = 0;
		fanout->out_of_time |= clock_monotonic_ns() >= fanout->deadline_ns;
	}
	fanout->out_of_time |= fanout->deliveries >= TICK_DELIVERIES;
	return fanout->out_of_time;
}

/* ---- dealing out ---- */

static void insert_pending(struct conversation *conversation, struct delivery_item *item)
{
	struct delivery_item **at = &conversation->pending;
	if (conversation->pending_last && conversation->pending_last->seq < item->seq) {
		at = &conversation->pending_last->next;
	}
	while (*at && (*at)->seq < item->seq) {
		at = &(*at)->next;
	}
	if (*at && (*at)->seq == item->seq) {
		(*at)->outage = item->outage ? item->outage : (*at)->outage;
		delivery_item_done(item); /* fetched, and now also from its lane */
		return;
	}
	item->next = *at;
	*at = item;
	if (!item->next) {
		conversation->pending_last = item;
	}
}

static void add_receipt(struct conversation *conversation, const struct delivery_item *item)
{
	struct receipt *receipt = NULL;
	struct receipt change = {.user_id = item->user_id,
		.delivered = item->delivered,
		.read = item->read,
		.at_ms = item->at_ms,
		.delivered_at_ms = item->effects & DELIVERY_SHOWS_DELIVERED ? item->at_ms : 0,
		.hides_read = (item->effects & DELIVERY_HIDES_READ) != 0};
	for (uint32_t i = 0; i < conversation->receipt_count && !receipt; i++) {
		if (conversation->receipts[i].user_id == item->user_id) {
			receipt = &conversation->receipts[i];
		}
	}
	if (!receipt) {
		if (conversation->receipt_count == conversation->receipt_capacity) {
			uint32_t larger = conversation->receipt_capacity * 2 + 4;
			struct receipt *moved = realloc(conversation->receipts, larger * sizeof(moved[0]));
			if (!moved) {
				return; /* a later watermark says all that this one did */
			}
			conversation->receipts = moved;
			conversation->receipt_capacity = larger;
		}
		receipt = &conversation->receipts[conversation->receipt_count++];
		*receipt = change;
	}
	receipt_merge(receipt, &change);
	if (item->members_version > conversation->receipts_version) {
		conversation->receipts_version = item->members_version;
	}
}

static void deal_out(struct chat *chat, struct delivery_item *item)
{
	struct conversation *conversation;

	if (item->kind == DELIVERY_ANSWER) {
		respond(chat, item);
		return;
	}
	if (item->kind == DELIVERY_MESSAGE) {
		chores_note(chat->chores, item->conversation_id);
		inbox_mentions(chat, item);
	} else if (item->effects & DELIVERY_READ) {
		inbox_read(chat, item);
	}
	conversation = registry_find_conversation(chat->registry, item->conversation_id);
	if (!conversation || conversation->gone) {
		delivery_item_done(item); /* nobody here listens */
		return;
	}
	switch (item->kind) {
	case DELIVERY_MESSAGE:
		insert_pending(conversation, item);
		break;
	case DELIVERY_RECEIPT:
		if (!conversation->is_channel && item->effects & (DELIVERY_SHOWS_DELIVERED | DELIVERY_SHOWS_READ)) {
			add_receipt(conversation, item);
		}
		delivery_item_done(item);
		break;
	default:
		if (item->seq == conversation->fetch_last) { /* else of a fetch for listeners that have gone since */
			conversation->fetched_last = item->seq;
			conversation->fetch_last = 0;
		}
		delivery_item_done(item);
		break;
	}
	registry_queue(chat->registry, conversation);
}

/* The last item's done may free its batch: step before dealing out. */
static void deal_out_incoming(struct chat *chat)
{
	struct fanout *fanout = chat->fanout;
	if (!fanout->incoming) {
		fanout->incoming = delivery_take_all(chat->deliveries);
		fanout->incoming_at = 0;
	}
	while (fanout->incoming && !fanout->out_of_time) {
		struct delivery_batch *batch = fanout->incoming;
		struct delivery_item *item = &batch->items[fanout->incoming_at++];
		if (fanout->incoming_at == batch->count) {
			fanout->incoming = batch->next;
			fanout->incoming_at = 0;
		}
		deal_out(chat, item);
		out_of_time(fanout);
	}
}

/* ---- one conversation ---- */

enum step {
	STEP_DONE /* nothing more to do now */,
	STEP_LATER /* again at the next tick */,
	STEP_WAITING /* something will queue it again */
};

static void raise_pace(const struct chat *chat, struct conversation *conversation)
{
	int64_t gained = chat->ticks - conversation->pace_tick + chat->now_ms - conversation->pace_ms;
	if (conversation->pace_ms == 0 || gained + conversation->pace > PACE_BURST) {
		conversation->pace = PACE_BURST;
	} else {
		conversation->pace += (uint32_t)gained;
	}
	conversation->pace_tick = chat->ticks;
	conversation->pace_ms = chat->now_ms;
}

static void publish_entry(struct chat *chat, const struct conversation *conversation, const struct delivery_item *item)
{
	char topic[TOPIC_TEXT_MAX];
	struct host_properties properties = {.json = true, .seq = item->seq, .from = item->user_id};
	topic_format(TOPIC_MESSAGES, item->conversation_id, topic);
	if (chat_publish(chat, topic, delivery_bytes(item, item->payload_at), item->payload_length, 1, &properties)) {
		chat->fanout->published++;
		chat->fanout->deliveries += conversation->subscriber_count;
		TEST_CRASH_POINT("delivered");
	} /* else: no memory; the listener sees the hole and fetches, as after any drop by the broker */
}

static bool publish_behind(struct chat *chat, const struct conversation *conversation, int64_t last_seq)
{
	char topic[TOPIC_TEXT_MAX];
	struct host_properties properties = {.json = true};
	struct buffer json;

	buffer_init(&json, 128);
	buffer_append_text(&json, "{\"conversation\":");
	buffer_append_integer(&json, conversation->id);
	buffer_append_text(&json, ",\"behind\":true,\"last_seq\":");
	buffer_append_integer(&json, last_seq);
	topic_format(TOPIC_MESSAGES, conversation->id, topic);
	bool published = buffer_append_text(&json, "}") && chat_publish(chat, topic, json.data, json.length, 1, &properties);
	buffer_free(&json);
	return published;
}

static bool end_behind(struct chat *chat, struct conversation *conversation)
{
	if (!publish_behind(chat, conversation, conversation->behind_seq)) {
		return false;
	}
	conversation->behind_seq = 0;
	return true;
}

static void fall_behind(const struct chat *chat, struct conversation *conversation, int64_t seq)
{
	conversation->behind_seq = seq;
	conversation->behind_ms = chat->now_ms;
	conversation->next_seq = seq + 1;
	conversation->delivered_any = true;
}

static void take_head(struct conversation *conversation)
{
	struct delivery_item *item = conversation->pending;
	conversation->pending = item->next;
	if (!conversation->pending) {
		conversation->pending_last = NULL;
	}
	delivery_item_done(item);
}

/* Entries next_seq..last are in the table and not here. */
static enum step fetch_missing(struct chat *chat, struct conversation *conversation, int64_t last)
{
	if (conversation->fetch_last) {
		return STEP_WAITING;
	}
	if (conversation->fetched_last >= conversation->next_seq) { /* it was asked for and is no more: retention has taken it */
		conversation->next_seq = (conversation->fetched_last < last ? conversation->fetched_last : last) + 1;
		return STEP_LATER;
	}
	if (last - conversation->next_seq >= BEHIND_ENTRIES) {
		fall_behind(chat, conversation, last);
		return STEP_LATER;
	}
	if (last - conversation->next_seq >= LOADER_FETCH_MAX) {
		last = conversation->next_seq + LOADER_FETCH_MAX - 1;
	}
	if (!loader_fetch(chat->loader, conversation->id, conversation->next_seq, last)) {
		return STEP_DONE; /* no memory: with the next entry it is tried again */
	}
	conversation->fetch_last = last;
	return STEP_WAITING;
}

/* Takes one entry of a backlog from what each listener may be given. False: for most of them it is too much already. (Most,
 * since there may be one who listens to everything.) */
static bool listeners_have_room(
	const struct chat *chat, const struct conversation *conversation, const struct delivery_item *item)
{
	uint32_t full = 0, cost = 1 + item->payload_length / BACKLOG_UNIT_BYTES;
	for (uint32_t i = 0; i < conversation->subscriber_count; i++) {
		struct rate_bucket *backlog = &conversation->subscribers[i]->backlog;
		full += !rate_bucket_take_many(backlog, &backlog_limit, cost, chat->now_ms, NULL);
	}
	return full * 2 <= conversation->subscriber_count;
}

static bool too_old_or_too_long(
	const struct chat *chat, const struct conversation *conversation, const struct delivery_item *item)
{
	if (item->outage && item->outage == conversation->outage &&
		(conversation->behind_seq || conversation->backlog_pushed >= BEHIND_ENTRIES)) {
		return true;
	}
	return chat->now_wall_ms - item->at_ms > BEHIND_AGE_MS;
}

static void count_backlog(struct conversation *conversation, const struct delivery_item *item)
{
	if (item->outage != 0 && item->outage != conversation->outage) { /* what is fetched in between belongs to none */
		conversation->outage = item->outage;
		conversation->backlog_pushed = 0;
	}
	conversation->backlog_pushed += item->outage != 0;
}

/* The first pending entry is not pushed: of it and of what follows a notice will tell. */
static enum step tell_later(const struct chat *chat, struct conversation *conversation)
{
	fall_behind(chat, conversation, conversation->pending->seq);
	take_head(conversation);
	return STEP_LATER;
}

/* The first pending entry: delivered, dropped, or a reason to wait. */
static enum step step_entry(struct chat *chat, struct conversation *conversation)
{
	struct delivery_item *head = conversation->pending;

	if (head->seq < conversation->next_seq) {
		if (conversation->delivered_any) {
			take_head(conversation); /* delivered before: a fetch and a lane brought the same */
			return STEP_LATER;
		}
		conversation->next_seq = head->seq; /* committed before the table was read, handed over after */
	}
	if (head->seq > conversation->next_seq) {
		return fetch_missing(chat, conversation, head->seq - 1);
	}
	if (too_old_or_too_long(chat, conversation, head)) {
		return tell_later(chat, conversation);
	}
	if (conversation->behind_seq && !end_behind(chat, conversation)) {
		return STEP_DONE;
	}
	if (conversation->pace == 0) {
		return STEP_DONE;
	}
	count_backlog(conversation, head);
	if (head->outage && !listeners_have_room(chat, conversation, head)) {
		return tell_later(chat, conversation);
	}
	conversation->pace--;
	publish_entry(chat, conversation, head);
	conversation->next_seq = head->seq + 1;
	conversation->delivered_any = true;
	take_head(conversation);
	return STEP_LATER;
}

/* Whether what was committed under `version` may go to those who listen now, as far as we know. */
static bool members_are_current(struct chat *chat, struct conversation *conversation, uint32_t version)
{
	if (chat->listening && !conversation->loading && conversation->members_version >= version &&
		conversation->members_version > 0 && conversation->next_seq > 0) {
		return true;
	}
	if (chat->listening && !conversation->loading) {
		membership_reload(chat, conversation);
	}
	return false;
}

/* One notice for all who joined late, or for whom the broker may have dropped something. Those who hold the entries see that
 * it brings nothing new. */
static void tell_missed(struct chat *chat, struct conversation *conversation)
{
	if (conversation->missed && chat->now_ms - conversation->missed_ms >= MISSED_INTERVAL_MS &&
		members_are_current(chat, conversation, 1)) {
		conversation->missed = !publish_behind(chat, conversation, conversation->next_seq - 1);
		conversation->missed_ms = chat->now_ms;
		overrun_ask(chat, conversation->id);
	}
}

enum again { AGAIN_NEVER, AGAIN_TIMED, AGAIN_NOW };

/* Nobody will be told anything of it any more. */
static void forget(struct conversation *conversation)
{
	drop_pending(conversation, NULL);
	conversation->receipt_count = 0;
	conversation->behind_seq = conversation->announced_last = conversation->next_seq = 0;
	conversation->missed = false;
}

/* Delivers what can be delivered. AGAIN_NEVER: nothing is left, or a load or a fetch will queue it again. */
static enum again advance_log(struct chat *chat, struct conversation *conversation)
{
	enum step step = STEP_LATER;

	raise_pace(chat, conversation);
	tell_missed(chat, conversation);
	while (step == STEP_LATER && conversation->pending) {
		if (!members_are_current(chat, conversation, conversation->pending->members_version)) {
			return AGAIN_NEVER;
		}
		if (out_of_time(chat->fanout)) {
			return AGAIN_NOW;
		}
		step = step_entry(chat, conversation);
	}
	while (step == STEP_LATER && conversation->next_seq && conversation->announced_last >= conversation->next_seq) {
		step = fetch_missing(chat, conversation, conversation->announced_last);
	}
	if (step == STEP_WAITING) {
		return AGAIN_NEVER;
	}
	if (conversation->behind_seq && chat->now_ms - conversation->behind_ms >= BEHIND_QUIET_MS &&
		members_are_current(chat, conversation, 1)) {
		end_behind(chat, conversation);
	}
	if (conversation->pending) {
		return AGAIN_NOW;
	}
	return conversation->behind_seq || conversation->missed ? AGAIN_TIMED : AGAIN_NEVER;
}

static bool any_listener_hides_reads(const struct conversation *conversation)
{
	for (uint32_t i = 0; i < conversation->subscriber_count; i++) {
		const struct user *user = conversation->subscribers[i]->user;
		if (user && user->hides_reads) {
			return true;
		}
	}
	return false;
}

static bool publish_receipts(struct chat *chat, int64_t conversation_id, const struct buffer *json)
{
	char topic[TOPIC_TEXT_MAX];
	struct host_properties properties = {.json = true};
	topic_format(TOPIC_RECEIPTS, conversation_id, topic);
	return json->length == 0 || chat_publish(chat, topic, json->data, json->length, 1, &properties);
}

/* To those who see what others have read, and to those who do not where there are any. */
static bool tell_receipts(
	struct chat *chat, const struct conversation *conversation, const struct receipt *receipts, uint32_t count)
{
	struct buffer all, without_reads;
	buffer_init(&all, receipts_size_max(count));
	buffer_init(&without_reads, receipts_size_max(count));
	bool told = receipts_append(&all, receipts, count) &&
		    (!any_listener_hides_reads(conversation) || receipts_append_without_reads(&without_reads, receipts, count)) &&
		    publish_receipts(chat, conversation->id, &all) && publish_receipts(chat, conversation->id, &without_reads);
	buffer_free(&all);
	buffer_free(&without_reads);
	return told;
}

static enum again advance_receipts(struct chat *chat, struct conversation *conversation)
{
	if (conversation->receipt_count == 0) {
		return AGAIN_NEVER;
	}
	if (!members_are_current(chat, conversation, conversation->receipts_version)) {
		return AGAIN_NEVER;
	}
	if (conversation->receipts_sent_ms && chat->now_ms - conversation->receipts_sent_ms < chat->options.receipt_interval_ms) {
		return AGAIN_TIMED;
	}
	uint32_t count = conversation->receipt_count < RECEIPTS_PER_PUBLISH ? conversation->receipt_count : RECEIPTS_PER_PUBLISH;
	uint32_t rest = conversation->receipt_count - count;
	if (tell_receipts(chat, conversation, conversation->receipts + rest, count)) {
		conversation->receipt_count = rest;
		conversation->receipts_sent_ms = chat->now_ms;
	}
	return conversation->receipt_count > 0 ? AGAIN_TIMED : AGAIN_NEVER;
}

/* ---- the tick ---- */

/* Conversations that want another look go to the end of the list; this tick sees each once. */
static void advance_conversations(struct chat *chat)
{
	const struct conversation *first_again = NULL;
	struct conversation *conversation;

	while (!chat->fanout->out_of_time && (conversation = registry_next_queued(chat->registry)) != NULL) {
		if (conversation == first_again) {
			registry_queue(chat->registry, conversation);
			break;
		}
		if (conversation->gone) {
			forget(conversation);
			continue;
		}
		enum again log = advance_log(chat, conversation);
		enum again receipts = advance_receipts(chat, conversation);
		if (log == AGAIN_NOW) {
			registry_queue(chat->registry, conversation);
			first_again = first_again ? first_again : conversation;
		} else if (log == AGAIN_TIMED || receipts == AGAIN_TIMED) {
			registry_queue_timed(chat->registry, conversation);
		}
		out_of_time(chat->fanout);
	}
}

void fanout_tick(struct chat *chat)
{
	struct fanout *fanout = chat->fanout;
	fanout->deadline_ns = clock_monotonic_ns() + TICK_BUDGET_NS;
	fanout->since_check = 0;
	fanout->deliveries = 0;
	fanout->out_of_time = false;
	if (chat->now_ms - fanout->timed_ms >= TIMED_EVERY_MS) {
		fanout->timed_ms = chat->now_ms;
		registry_queue_all_timed(chat->registry);
	}
	deal_out_incoming(chat);
	advance_conversations(chat);
	if (fanout->out_of_time || fanout->incoming || registry_any_queued(chat->registry)) {
		wakeup_signal();
	}
}

void fanout_free(struct chat *chat)
{
	struct fanout *fanout = chat->fanout;
	if (!fanout) {
		return;
	}
	while (fanout->incoming) {
		struct delivery_batch *batch = fanout->incoming;
		uint32_t at = fanout->incoming_at;
		fanout->incoming = batch->next;
		fanout->incoming_at = 0;
		for (uint32_t count = batch->count; at < count; at++) {
			delivery_item_done(&batch->items[at]);
		}
	}
	free(fanout);
	chat->fanout = NULL;
}
