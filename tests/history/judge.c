/* judge.c - see judge.h.
 *
 * One pass over the events fills what became of each message and each conversation's stream at each client; then rows are
 * held against messages, messages against rows, and conversations for themselves. Everything is looked up by place or by
 * binary search, so a run of millions of events takes seconds.
 */
#include "judge.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* How far two clocks of one machine may be read apart. */
#define CLOCK_TOLERANCE_NS INT64_C(2000000)
/* How soon a connection's end is noticed, and presence written, at the very latest. */
#define PRESENCE_LATE_NS INT64_C(5000000000)
/* Noticed by a broker that has no processor for long: later than that, the time is invented. */
#define SEEN_LATE_NS INT64_C(20000000000)
#define NEVER INT64_MAX
#define REASON_FAILURE 0x80

struct fate {
	const struct history_event *send; /* the first; NULL: never sent */
	int64_t last_send_ns;
	int64_t first_ack_ns; /* a good one; 0: none */
	int64_t refused_ns;   /* when it was last refused for good; 0: not */
	char code[22];
	bool had_error; /* some attempt was refused for good, perhaps after its PUBACK */
	bool on_record; /* the table says so as well */
	unsigned attempts;
	const struct table_row *row;
};

/* Somebody was a member: surely between added and removing, possibly between adding and removed. */
struct span {
	int64_t user, conversation;
	int64_t adding_ns, added_ns, removing_ns, removed_ns;
};

/* A conversation at a client. */
struct stream {
	uint32_t *seen_on; /* by seq: the connection that it was first seen on, from 1 */
	size_t seen_size;
	uint32_t connection;
	bool open;
	int64_t last_seq, last_ns; /* on this connection; 0: nothing yet */
};

/* How far a member can have come in a conversation. */
struct tide {
	int64_t user, conversation;
	int64_t delivered, read; /* the most that they marked or wrote */
	int64_t written;         /* and wrote */
	const struct table_watermark *mark;
};

struct place {
	int64_t id;
	int64_t last_seq; /* the counter */
	size_t first_row, row_count;
	struct history_message *seen; /* by seq: what the first receiver saw */
	size_t seen_size;
};

struct trial {
	const struct history *history;
	const struct table *table;
	struct judgement *out;
	const struct table_row **rows; /* by conversation and seq */
	struct place *places;
	size_t place_count;
	struct fate **fates; /* by writer, then number */
	uint32_t *numbers;   /* the highest of each writer */
	struct span *spans;
	size_t span_count;
	struct stream *streams; /* client * place_count + place */
	struct tide *tides;     /* by user and conversation; as many as watermarks */
	int64_t *fault_ns;
	size_t fault_count;
	int64_t first_send_ns, end_ns;
};

static void *room(size_t count, size_t size)
{
	void *made = calloc(count + 1, size);
	if (!made)
		abort();
	return made;
}

__attribute__((format(printf, 3, 4))) static void found(struct trial *trial, enum violation violation, const char *format, ...)
{
	va_list arguments;
	if (trial->out->count[violation]++ > 0)
		return;
	va_start(arguments, format);
	vsnprintf(trial->out->example[violation], JUDGE_EXAMPLE_SIZE, format, arguments);
	va_end(arguments);
}

/* ---- looking up ---- */

static int compare_places(const void *left, const void *right)
{
	int64_t a = ((const struct place *)left)->id, b = ((const struct place *)right)->id;
	return a < b ? -1 : a > b;
}

static struct place *place_of(const struct trial *trial, int64_t conversation)
{
	struct place key = {.id = conversation};
	return trial->place_count ? bsearch(&key, trial->places, trial->place_count, sizeof key, compare_places) : NULL;
}

static int compare_rows(const void *left, const void *right)
{
	const struct table_row *a = *(const struct table_row *const *)left, *b = *(const struct table_row *const *)right;
	if (a->conversation != b->conversation)
		return a->conversation < b->conversation ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

static const struct table_row *row_of(const struct trial *trial, const struct place *place, int64_t seq)
{
	const struct table_row key = {.conversation = place->id, .seq = seq}, *wanted = &key;
	const struct table_row **at = place->row_count ? bsearch(&wanted, trial->rows + place->first_row, place->row_count,
								 sizeof *trial->rows, compare_rows)
						       : NULL;
	return at ? *at : NULL;
}

static struct fate *fate_of(const struct trial *trial, const struct history_message *message)
{
	if (message->number == 0 || message->writer >= trial->history->client_count ||
		message->number > trial->numbers[message->writer])
		return NULL;
	return &trial->fates[message->writer][message->number];
}

static int compare_spans(const void *left, const void *right)
{
	const struct span *a = left, *b = right;
	if (a->user != b->user)
		return a->user < b->user ? -1 : 1;
	if (a->conversation != b->conversation)
		return a->conversation < b->conversation ? -1 : 1;
	return a->adding_ns < b->adding_ns ? -1 : a->adding_ns > b->adding_ns;
}

/* The first span of the pair; *end is behind its last. */
static const struct span *spans_of(const struct trial *trial, int64_t user, int64_t conversation, const struct span **end)
{
	struct span key = {.user = user, .conversation = conversation, .adding_ns = INT64_MIN};
	size_t low = 0, high = trial->span_count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (compare_spans(&trial->spans[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	const struct span *first = &trial->spans[low];
	for (*end = first;
		*end < trial->spans + trial->span_count && (*end)->user == user && (*end)->conversation == conversation;)
		(*end)++;
	return first;
}

static bool could_be_member(const struct trial *trial, int64_t user, int64_t conversation, int64_t from_ns, int64_t to_ns)
{
	const struct span *end;
	for (const struct span *span = spans_of(trial, user, conversation, &end); span < end; span++) {
		if (span->adding_ns <= to_ns && span->removed_ns >= from_ns)
			return true;
	}
	return false;
}

static bool was_surely_member(const struct trial *trial, int64_t user, int64_t conversation, int64_t from_ns, int64_t to_ns)
{
	const struct span *end;
	for (const struct span *span = spans_of(trial, user, conversation, &end); span < end; span++) {
		if (span->added_ns <= from_ns && span->removing_ns >= to_ns)
			return true;
	}
	return false;
}

/* Nobody touched the sender's rights in the whole run. */
static bool is_steady(const struct trial *trial, const struct history_event *send)
{
	return was_surely_member(
		trial, trial->history->clients[send->client].user, send->conversation, trial->first_send_ns, trial->end_ns);
}

/* A PUBACK means that the message was accepted. Not so on MQTT 3.1.1, where a refusal is a PUBACK and an error, which the end
 * of a connection may take along: there only of those whose rights nobody touched. (Asked to add somebody, the database
 * is done before the plugin knows.) */
static bool ack_is_accepted(const struct trial *trial, const struct fate *fate)
{
	bool says_no = trial->history->clients[fate->send->client].version == 5;
	return !fate->had_error && (says_no || is_steady(trial, fate->send));
}

static bool had_fault(const struct trial *trial, int64_t from_ns, int64_t to_ns)
{
	for (size_t i = 0; i < trial->fault_count; i++) {
		if (trial->fault_ns[i] >= from_ns && trial->fault_ns[i] <= to_ns)
			return true;
	}
	return false;
}

/* ---- what is known before the events are walked ---- */

static void prepare_rows(struct trial *trial)
{
	const struct table *table = trial->table;
	trial->rows = room(table->row_count, sizeof *trial->rows);
	for (size_t i = 0; i < table->row_count; i++)
		trial->rows[i] = &table->rows[i];
	qsort(trial->rows, table->row_count, sizeof *trial->rows, compare_rows);
	trial->places = room(table->conversation_count, sizeof *trial->places);
	trial->place_count = table->conversation_count;
	for (size_t i = 0; i < table->conversation_count; i++)
		trial->places[i] = (struct place){.id = table->conversations[i].id, .last_seq = table->conversations[i].last_seq};
	qsort(trial->places, trial->place_count, sizeof *trial->places, compare_places);
	for (size_t i = 0; i < table->row_count; i++) {
		struct place *place = place_of(trial, trial->rows[i]->conversation);
		if (place && place->row_count++ == 0)
			place->first_row = i;
	}
	trial->out->rows = table->row_count;
}

static void prepare_fates(struct trial *trial)
{
	const struct history *history = trial->history;
	trial->numbers = room(history->client_count, sizeof *trial->numbers);
	trial->fates = room(history->client_count, sizeof *trial->fates);
	for (size_t i = 0; i < history->count; i++) {
		const struct history_event *event = &history->events[i];
		if (event->kind == HISTORY_SEND && event->message.number > trial->numbers[event->client])
			trial->numbers[event->client] = event->message.number;
	}
	for (size_t i = 0; i < history->client_count; i++)
		trial->fates[i] = room(trial->numbers[i], sizeof *trial->fates[i]);
}

static struct span *open_span(struct trial *trial, const struct history_event *event)
{
	for (size_t i = trial->span_count; i-- > 0;) {
		struct span *span = &trial->spans[i];
		if (span->user == event->user && span->conversation == event->conversation && span->removed_ns == NEVER)
			return span;
	}
	return NULL;
}

static void note_change(struct trial *trial, const struct history_event *event)
{
	struct span *span = event->kind == HISTORY_ADDING ? NULL : open_span(trial, event);
	if (event->kind == HISTORY_ADDING)
		trial->spans[trial->span_count++] =
			(struct span){event->user, event->conversation, event->at_ns, NEVER, NEVER, NEVER};
	else if (span && event->kind == HISTORY_ADDED)
		span->added_ns = event->at_ns;
	else if (span && event->kind == HISTORY_REMOVING)
		span->removing_ns = event->at_ns;
	else if (span)
		span->removed_ns = event->at_ns;
}

static void prepare_times(struct trial *trial)
{
	const struct history *history = trial->history;
	size_t spans = 0, faults = 0;
	for (size_t i = 0; i < history->count; i++) {
		spans += history->events[i].kind == HISTORY_ADDING;
		faults += history->events[i].kind == HISTORY_FAULT;
	}
	trial->spans = room(spans, sizeof *trial->spans);
	trial->fault_ns = room(faults, sizeof *trial->fault_ns);
	for (size_t i = 0; i < history->count; i++) {
		const struct history_event *event = &history->events[i];
		if (event->kind >= HISTORY_ADDING && event->kind <= HISTORY_REMOVED)
			note_change(trial, event);
		else if (event->kind == HISTORY_FAULT)
			trial->fault_ns[trial->fault_count++] = event->at_ns;
		if (event->kind == HISTORY_SEND && trial->first_send_ns == 0)
			trial->first_send_ns = event->at_ns;
		trial->end_ns = event->at_ns > trial->end_ns ? event->at_ns : trial->end_ns;
	}
	qsort(trial->spans, trial->span_count, sizeof *trial->spans, compare_spans);
	trial->out->faults = trial->fault_count;
}

/* ---- what became of the messages ---- */

static void on_send(struct trial *trial, const struct history_event *event)
{
	struct fate *fate = fate_of(trial, &event->message);
	if (!fate)
		return;
	if (!fate->send)
		fate->send = event;
	trial->out->sent += fate->attempts == 0;
	trial->out->repeats += fate->attempts == 1;
	fate->attempts++;
	fate->last_send_ns = event->at_ns;
}

static void on_puback(struct trial *trial, const struct history_event *event)
{
	struct fate *fate = fate_of(trial, &event->message);
	if (!fate || !fate->send)
		return;
	if (event->reason >= REASON_FAILURE) {
		/* With an id the error that comes with it says whether for good. */
		if (!fate->send->own_id)
			fate->refused_ns = event->at_ns;
		return;
	}
	trial->out->acks += fate->first_ack_ns == 0;
	if (fate->first_ack_ns == 0)
		fate->first_ack_ns = event->at_ns;
	if (event->at_ns - fate->last_send_ns > trial->out->longest_puback_ns)
		trial->out->longest_puback_ns = event->at_ns - fate->last_send_ns;
}

static void refuse(struct fate *fate, const char *code, int64_t at_ns)
{
	snprintf(fate->code, sizeof fate->code, "%s", code);
	fate->refused_ns = at_ns;
}

static void on_error(struct trial *trial, const struct history_event *event)
{
	struct fate *fate = fate_of(trial, &event->message);
	if (fate && fate->send && !history_is_transient(event->code)) {
		refuse(fate, event->code, event->at_ns);
		fate->had_error = true;
	}
}

static void on_sent(struct trial *trial, const struct history_event *event)
{
	const struct place *place = place_of(trial, event->conversation);
	const struct table_row *row = place ? row_of(trial, place, event->seq) : NULL;
	struct fate *fate = fate_of(trial, &event->message);
	if (fate)
		fate->refused_ns = 0; /* the later word */
	if (!row || (event->message.number &&
			    (row->message.writer != event->message.writer || row->message.number != event->message.number)))
		found(trial, SENT_DIFFERS, "conversation %lld seq %lld was said to be message %u of client %u",
			(long long)event->conversation, (long long)event->seq, event->message.number, event->message.writer);
}

/* ---- what was delivered ---- */

static bool same_message(const struct history_message *a, const struct history_message *b)
{
	return a->writer == b->writer && a->number == b->number && a->hash == b->hash && a->length == b->length;
}

static void check_agreement(struct trial *trial, struct place *place, const struct history_event *event)
{
	if (event->seq < 1 || event->seq > (int64_t)1 << 32)
		return;
	if ((size_t)event->seq >= place->seen_size) {
		size_t larger = (size_t)event->seq * 2 + 64;
		place->seen = realloc(place->seen, larger * sizeof *place->seen);
		if (!place->seen)
			abort();
		memset(place->seen + place->seen_size, 0, (larger - place->seen_size) * sizeof *place->seen);
		place->seen_size = larger;
	}
	struct history_message *seen = &place->seen[event->seq];
	if (seen->length == 0)
		*seen = event->message;
	else if (!same_message(seen, &event->message))
		found(trial, DISAGREE, "conversation %lld seq %lld is message %u of client %u for some, %u of %u for client %u",
			(long long)place->id, (long long)event->seq, seen->number, seen->writer, event->message.number,
			event->message.writer, event->client);
}

static void check_content(struct trial *trial, const struct place *place, const struct history_event *event)
{
	const struct table_row *row = row_of(trial, place, event->seq);
	int64_t offset = trial->history->wall_offset_ns, later = trial->history->wall_offset_end_ns;
	if (!row) {
		found(trial, DELIVERED_NOT_STORED, "conversation %lld seq %lld, message %u of client %u, at client %u",
			(long long)place->id, (long long)event->seq, event->message.number, event->message.writer, event->client);
		return;
	}
	if (!same_message(&row->message, &event->message) || row->sender != event->user || memcmp(row->id, event->id, 16) != 0)
		found(trial, DIFFERENT_CONTENT,
			"conversation %lld seq %lld is message %u of client %u from %lld, and was message %u of %u from %lld at "
			"client %u",
			(long long)place->id, (long long)event->seq, row->message.number, row->message.writer,
			(long long)row->sender, event->message.number, event->message.writer, (long long)event->user,
			event->client);
	int64_t committed_ns = row->committed_us * 1000;
	if (offset && later && event->at_ns + (later > offset ? later : offset) + CLOCK_TOLERANCE_NS < committed_ns)
		found(trial, DELIVERED_EARLY, "conversation %lld seq %lld, %lld ms before its commit", (long long)place->id,
			(long long)event->seq, (long long)((committed_ns - event->at_ns - offset) / 1000000));
}

static void check_membership(struct trial *trial, const struct place *place, const struct history_event *event)
{
	const struct fate *fate = fate_of(trial, &event->message);
	int64_t user = trial->history->clients[event->client].user;
	if (fate && fate->send && !could_be_member(trial, user, place->id, fate->send->at_ns, event->at_ns))
		found(trial, NON_MEMBER, "user %lld got conversation %lld seq %lld", (long long)user, (long long)place->id,
			(long long)event->seq);
}

static struct stream *stream_of(struct trial *trial, const struct place *place, unsigned client)
{
	return &trial->streams[client * trial->place_count + (size_t)(place - trial->places)];
}

/* A number was not given on a connection that had gone further. From the sending of its message on nothing may have happened
 * that would explain it: what was queued before a change of rights can arrive long after it. */
static bool is_excused(const struct trial *trial, const struct place *place, const struct stream *stream, int64_t user,
	int64_t seq, int64_t now_ns)
{
	const struct table_row *row = row_of(trial, place, seq);
	const struct fate *fate = row ? fate_of(trial, &row->message) : NULL;
	int64_t from_ns = stream->last_ns;
	if (fate && fate->send && fate->send->at_ns < from_ns)
		from_ns = fate->send->at_ns;
	return had_fault(trial, from_ns, now_ns) || !was_surely_member(trial, user, place->id, from_ns, now_ns);
}

/* Numbers up to `last` were not given. */
static void miss(struct trial *trial, const struct place *place, const struct stream *stream, unsigned client, int64_t last,
	int64_t now_ns)
{
	int64_t user = trial->history->clients[client].user;
	if (trial->history->clients[client].is_deaf)
		return;
	for (int64_t seq = stream->last_seq + 1; seq <= last; seq++) {
		if (is_excused(trial, place, stream, user, seq, now_ns))
			trial->out->excused_misses++;
		else
			found(trial, LIVE_MISS, "client %u got conversation %lld up to seq %lld, then from %lld on, and not %lld",
				client, (long long)place->id, (long long)stream->last_seq, (long long)last + 1, (long long)seq);
	}
}

/* Whether this is the first time on this connection; remembers it. */
static bool is_first(struct stream *stream, int64_t seq)
{
	if (seq < 1 || seq > (int64_t)1 << 32)
		return true;
	if ((size_t)seq >= stream->seen_size) {
		size_t larger = (size_t)seq * 2 + 64;
		stream->seen_on = realloc(stream->seen_on, larger * sizeof *stream->seen_on);
		if (!stream->seen_on)
			abort();
		memset(stream->seen_on + stream->seen_size, 0, (larger - stream->seen_size) * sizeof *stream->seen_on);
		stream->seen_size = larger;
	}
	bool first = stream->seen_on[seq] != stream->connection;
	stream->seen_on[seq] = stream->connection;
	return first;
}

static void on_receive(struct trial *trial, const struct history_event *event)
{
	struct place *place = place_of(trial, event->conversation);
	if (!place)
		return;
	struct stream *stream = stream_of(trial, place, event->client);
	trial->out->deliveries++;
	check_agreement(trial, place, event);
	check_content(trial, place, event);
	check_membership(trial, place, event);
	if (!is_first(stream, event->seq)) {
		trial->out->redeliveries++;
		return;
	}
	if (event->seq < stream->last_seq) {
		found(trial, OUT_OF_ORDER, "client %u got conversation %lld seq %lld after %lld", event->client,
			(long long)place->id, (long long)event->seq, (long long)stream->last_seq);
		return;
	}
	if (stream->last_seq && event->seq > stream->last_seq + 1)
		miss(trial, place, stream, event->client, event->seq - 1, event->at_ns);
	stream->last_seq = event->seq;
	stream->last_ns = event->at_ns;
}

static void on_behind(struct trial *trial, const struct history_event *event)
{
	struct place *place = place_of(trial, event->conversation);
	struct stream *stream = place ? stream_of(trial, place, event->client) : NULL;
	trial->out->behind++;
	if (stream && event->seq > stream->last_seq) {
		stream->last_seq = event->seq;
		stream->last_ns = event->at_ns;
	}
}

static void begin_connection(struct trial *trial, const struct history_event *event, bool open)
{
	for (size_t i = 0; i < trial->place_count; i++) {
		struct stream *stream = &trial->streams[event->client * trial->place_count + i];
		stream->connection += open;
		stream->open = open;
		stream->last_seq = 0;
	}
	trial->out->connects += open;
}

/* Connections that lasted to the end have been given everything. */
static void on_end(struct trial *trial, const struct history_event *event)
{
	for (unsigned client = 0; client < trial->history->client_count; client++) {
		for (size_t i = 0; i < trial->place_count; i++) {
			const struct stream *stream = &trial->streams[client * trial->place_count + i];
			const struct place *place = &trial->places[i];
			int64_t last = place->row_count ? trial->rows[place->first_row + place->row_count - 1]->seq : 0;
			if (stream->open && stream->last_seq && stream->last_seq < last)
				miss(trial, place, stream, client, last, event->at_ns);
		}
	}
}

static void on_mark(struct trial *trial, const struct history_event *event)
{
	const struct table *table = trial->table;
	if (!was_surely_member(trial, event->user, event->conversation, event->at_ns, trial->end_ns))
		return; /* who leaves takes the watermark along */
	for (size_t i = 0; i < table->watermark_count; i++) {
		const struct table_watermark *mark = &table->watermarks[i];
		if (mark->user == event->user && mark->conversation == event->conversation) {
			if (mark->delivered < event->seq || mark->read < event->last)
				found(trial, MARK_LOST,
					"user %lld marked conversation %lld up to %lld / %lld, and it is %lld / %lld",
					(long long)event->user, (long long)event->conversation, (long long)event->seq,
					(long long)event->last, (long long)mark->delivered, (long long)mark->read);
			return;
		}
	}
	found(trial, MARK_LOST, "user %lld has no watermark in conversation %lld", (long long)event->user,
		(long long)event->conversation);
}

/* ---- watermarks ---- */

static int compare_tides(const void *left, const void *right)
{
	const struct tide *a = left, *b = right;
	if (a->user != b->user)
		return a->user < b->user ? -1 : 1;
	return a->conversation < b->conversation ? -1 : a->conversation > b->conversation;
}

static void prepare_tides(struct trial *trial)
{
	const struct table *table = trial->table;
	trial->tides = room(table->watermark_count, sizeof *trial->tides);
	for (size_t i = 0; i < table->watermark_count; i++)
		trial->tides[i] = (struct tide){.user = table->watermarks[i].user,
			.conversation = table->watermarks[i].conversation,
			.mark = &table->watermarks[i]};
	qsort(trial->tides, table->watermark_count, sizeof *trial->tides, compare_tides);
}

static struct tide *tide_of(struct trial *trial, int64_t user, int64_t conversation)
{
	struct tide key = {.user = user, .conversation = conversation};
	return bsearch(&key, trial->tides, trial->table->watermark_count, sizeof key, compare_tides);
}

static void raise_tide(struct tide *tide, int64_t delivered, int64_t read)
{
	tide->delivered = delivered > tide->delivered ? delivered : tide->delivered;
	tide->delivered = read > tide->delivered ? read : tide->delivered;
	tide->read = read > tide->read ? read : tide->read;
}

/* What was marked may have been taken; what was acknowledged was (on_mark); who writes has read what came before. */
static void judge_tides(struct trial *trial)
{
	for (size_t i = 0; i < trial->table->row_count; i++) {
		const struct table_row *row = &trial->table->rows[i];
		struct tide *tide = tide_of(trial, row->sender, row->conversation);
		if (tide) {
			tide->written = row->seq > tide->written ? row->seq : tide->written;
			raise_tide(tide, row->seq, row->seq);
		}
	}
	for (size_t i = 0; i < trial->table->watermark_count; i++) {
		const struct tide *tide = &trial->tides[i];
		if (!was_surely_member(trial, tide->user, tide->conversation, trial->first_send_ns, trial->end_ns))
			continue; /* who comes begins with what is there */
		if (tide->mark->read < tide->written || tide->mark->delivered < tide->written)
			found(trial, MARK_LOST, "user %lld wrote conversation %lld seq %lld, and the watermark is %lld / %lld",
				(long long)tide->user, (long long)tide->conversation, (long long)tide->written,
				(long long)tide->mark->delivered, (long long)tide->mark->read);
		if (tide->mark->read > tide->read || tide->mark->delivered > tide->delivered)
			found(trial, MARK_INVENTED,
				"user %lld never marked conversation %lld above %lld / %lld, and it is %lld / %lld",
				(long long)tide->user, (long long)tide->conversation, (long long)tide->delivered,
				(long long)tide->read, (long long)tide->mark->delivered, (long long)tide->mark->read);
	}
}

static void walk(struct trial *trial)
{
	trial->streams = room(trial->history->client_count * trial->place_count, sizeof *trial->streams);
	int64_t waits_since_ns = 0;
	for (size_t i = 0; i < trial->history->count; i++) {
		const struct history_event *event = &trial->history->events[i];
		switch ((enum history_kind)event->kind) {
		case HISTORY_CONNECTED:
		case HISTORY_DISCONNECTED:
			begin_connection(trial, event, event->kind == HISTORY_CONNECTED);
			break;
		case HISTORY_SEND:
			on_send(trial, event);
			break;
		case HISTORY_PUBACK:
			on_puback(trial, event);
			break;
		case HISTORY_SENT:
			on_sent(trial, event);
			break;
		case HISTORY_ERROR:
			on_error(trial, event);
			break;
		case HISTORY_RECEIVE:
			if (waits_since_ns && event->at_ns - waits_since_ns > trial->out->recovery_ns)
				trial->out->recovery_ns = event->at_ns - waits_since_ns;
			waits_since_ns = 0;
			on_receive(trial, event);
			break;
		case HISTORY_BEHIND:
			on_behind(trial, event);
			break;
		case HISTORY_MARK:
			if (tide_of(trial, event->user, event->conversation))
				raise_tide(tide_of(trial, event->user, event->conversation), event->seq, event->last);
			break;
		case HISTORY_MARK_PUBACK:
			on_mark(trial, event);
			break;
		case HISTORY_FAULT:
			waits_since_ns = event->at_ns;
			break;
		case HISTORY_END:
			on_end(trial, event);
			break;
		default:
			break;
		}
	}
}

/* ---- rows against messages ---- */

static void judge_row(struct trial *trial, const struct table_row *row)
{
	struct fate *fate = fate_of(trial, &row->message);
	if (row->sender == 0)
		return; /* an administrator's entry */
	if (!fate || !fate->send) {
		found(trial, PHANTOM_ROW, "conversation %lld seq %lld", (long long)row->conversation, (long long)row->seq);
		return;
	}
	if (fate->row) {
		found(trial, DUPLICATE_ROW, "message %u of client %u is conversation %lld seq %lld and seq %lld",
			row->message.number, row->message.writer, (long long)row->conversation, (long long)fate->row->seq,
			(long long)row->seq);
		return;
	}
	fate->row = row;
	const struct history_event *send = fate->send;
	if (!same_message(&row->message, &send->message) || row->conversation != send->conversation ||
		row->sender != trial->history->clients[send->client].user || (send->own_id && memcmp(row->id, send->id, 16) != 0))
		found(trial, ALTERED, "message %u of client %u, conversation %lld seq %lld", row->message.number,
			row->message.writer, (long long)row->conversation, (long long)row->seq);
}

static int compare_ids(const void *left, const void *right)
{
	const struct table_row *a = *(const struct table_row *const *)left, *b = *(const struct table_row *const *)right;
	int ids = memcmp(a->id, b->id, 16);
	if (ids != 0)
		return ids;
	if (a->sender != b->sender)
		return a->sender < b->sender ? -1 : 1;
	return a->conversation < b->conversation ? -1 : a->conversation > b->conversation;
}

static void judge_ids(struct trial *trial)
{
	static const uint8_t none[16];
	size_t count = trial->table->row_count;
	const struct table_row **rows = room(count, sizeof *rows);
	memcpy(rows, trial->rows, count * sizeof *rows);
	qsort(rows, count, sizeof *rows, compare_ids);
	for (size_t i = 1; i < count; i++) {
		if (memcmp(rows[i]->id, none, 16) != 0 && compare_ids(&rows[i - 1], &rows[i]) == 0)
			found(trial, DUPLICATE_ID, "conversation %lld seq %lld and seq %lld", (long long)rows[i]->conversation,
				(long long)rows[i - 1]->seq, (long long)rows[i]->seq);
	}
	free(rows);
}

/* Numbers without a gap; and from the newest to the oldest, nobody was sent after a newer one had been acknowledged. */
static void judge_place(struct trial *trial, const struct place *place)
{
	int64_t expected = 1, acked_ns = NEVER, acked_seq = 0;
	for (size_t i = 0; i < place->row_count; i++) {
		int64_t seq = trial->rows[place->first_row + i]->seq;
		if (seq == expected - 1 && i > 0)
			found(trial, DUPLICATE_SEQ, "conversation %lld seq %lld", (long long)place->id, (long long)seq);
		else if (seq != expected)
			found(trial, GAP, "conversation %lld: seq %lld where %lld should be", (long long)place->id,
				(long long)seq, (long long)expected);
		expected = seq + 1;
	}
	if (place->last_seq != expected - 1)
		found(trial, LAST_SEQ, "conversation %lld ends with seq %lld and counts %lld", (long long)place->id,
			(long long)expected - 1, (long long)place->last_seq);
	for (size_t i = place->row_count; i-- > 0;) {
		const struct table_row *row = trial->rows[place->first_row + i];
		const struct fate *fate = fate_of(trial, &row->message);
		if (!fate || fate->row != row)
			continue;
		if (fate->send->at_ns > acked_ns)
			found(trial, ORDER, "conversation %lld seq %lld was sent %lld ms after seq %lld was acknowledged",
				(long long)place->id, (long long)row->seq, (long long)((fate->send->at_ns - acked_ns) / 1000000),
				(long long)acked_seq);
		if (fate->first_ack_ns && fate->first_ack_ns < acked_ns && ack_is_accepted(trial, fate)) {
			acked_ns = fate->first_ack_ns;
			acked_seq = row->seq;
		}
	}
}

/* ---- messages against rows ---- */

static void read_refusals(struct trial *trial)
{
	const struct table *table = trial->table;
	for (size_t i = 0; i < table->refusal_count; i++) {
		const struct table_refusal *refusal = &table->refusals[i];
		struct history_message message = {.writer = (uint16_t)(refusal->id[10] << 8 | refusal->id[11]),
			.number = (uint32_t)refusal->id[12] << 24 | (uint32_t)refusal->id[13] << 16 |
				  (uint32_t)refusal->id[14] << 8 | refusal->id[15]};
		struct fate *fate = fate_of(trial, &message);
		if (!fate || !fate->send || !fate->send->own_id || memcmp(fate->send->id, refusal->id, 16) != 0)
			continue;
		fate->had_error = fate->on_record = true;
		if (fate->refused_ns == 0)
			refuse(fate, refusal->code, fate->last_send_ns);
	}
}

/* A refusal before the message was sent once more is not the last word; nor is one to somebody who came or went, at whatever
 * time: he may have been let in for one attempt and not for the other. By contract a resend is refused at once to who is no
 * member any more, though it is stored; and the plugin hears of a change, back and forth perhaps, after the database has made it.
 */
static bool is_contradiction(const struct trial *trial, const struct fate *fate)
{
	if (fate->send->is_reject)
		return true;
	return fate->refused_ns && fate->refused_ns >= fate->last_send_ns &&
	       (fate->attempts == 1 || is_steady(trial, fate->send));
}

/* Acknowledged, and gone. What a good PUBACK of MQTT 5 accepted can be refused by the database only, which writes that down. */
static bool is_lost(const struct trial *trial, const struct fate *fate)
{
	const struct history_event *send = fate->send;
	if (fate->row || fate->on_record || !fate->first_ack_ns || send->is_reject)
		return false;
	if (send->own_id && trial->history->clients[send->client].version == 5)
		return true;
	return !fate->refused_ns && ack_is_accepted(trial, fate);
}

static void judge_fate(struct trial *trial, const struct fate *fate, uint32_t number)
{
	const struct history_event *send = fate->send;
	trial->out->refused += fate->refused_ns != 0;
	if (fate->had_error && !send->is_reject && is_steady(trial, send))
		found(trial, UNDUE_REFUSAL, "message %u of client %u to conversation %lld, refused with %s", number, send->client,
			(long long)send->conversation, fate->code);
	if (fate->row && is_contradiction(trial, fate))
		found(trial, REJECTED_BUT_STORED, "message %u of client %u, refused with %s, is conversation %lld seq %lld",
			number, send->client, fate->code[0] ? fate->code : "a reason code", (long long)send->conversation,
			(long long)fate->row->seq);
	if (is_lost(trial, fate))
		found(trial, LOST, "message %u of client %u (%s, MQTT %u) to conversation %lld, acknowledged after %lld ms%s%s",
			number, send->client, send->own_id ? "with an id" : "without an id",
			trial->history->clients[send->client].version, (long long)send->conversation,
			(long long)((fate->first_ack_ns - send->at_ns) / 1000000), fate->code[0] ? ", answered with " : "",
			fate->code);
}

/* ---- final histories ---- */

static uint64_t digest_of(const struct trial *trial, const struct place *place, int64_t first, int64_t last)
{
	const struct table_row **rows = trial->rows + place->first_row;
	size_t low = 0, high = place->row_count;
	uint64_t digest = 0;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (rows[middle]->seq < first)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < place->row_count && rows[low]->seq <= last; low++)
		digest = history_digest(digest, rows[low]->seq, &rows[low]->message);
	return digest;
}

/* What a member read at the end, page by page, is the table's; the pages follow one another and reach the end. */
static void judge_histories(struct trial *trial)
{
	struct page {
		int64_t last;
	} *reached = room(trial->span_count, sizeof *reached);
	for (size_t i = 0; i < trial->history->count; i++) {
		const struct history_event *event = &trial->history->events[i];
		const struct place *place = event->kind == HISTORY_CAUGHT_UP ? place_of(trial, event->conversation) : NULL;
		const struct span *end, *span = place ? spans_of(trial, event->user, event->conversation, &end) : NULL;
		if (!place || span == end)
			continue;
		struct page *page = &reached[span - trial->spans];
		if ((page->last && event->seq != page->last + 1) ||
			digest_of(trial, place, event->seq, event->last) != event->hash)
			found(trial, NOT_SEEN, "user %lld read conversation %lld %lld..%lld otherwise than the table has it",
				(long long)event->user, (long long)event->conversation, (long long)event->seq,
				(long long)event->last);
		page->last = event->last;
	}
	for (size_t i = 0; i < trial->span_count; i++) {
		const struct span *span = &trial->spans[i], *end, *first = spans_of(trial, span->user, span->conversation, &end);
		const struct place *place = place_of(trial, span->conversation);
		if (!place || place->row_count == 0 || span->removing_ns != NEVER)
			continue;
		int64_t last = trial->rows[place->first_row + place->row_count - 1]->seq;
		if (reached[first - trial->spans].last != last)
			found(trial, NOT_SEEN, "user %lld read conversation %lld up to %lld of %lld", (long long)span->user,
				(long long)span->conversation, (long long)reached[first - trial->spans].last, (long long)last);
	}
	free(reached);
}

/* ---- presence ---- */

/* A user at the time when presence was read last. */
struct attendance {
	bool is_deaf;       /* knows nothing of its own connection */
	unsigned connected; /* clients */
	int64_t changed_ns; /* the last time that one connected or disconnected; 0: never */
	int64_t seen_ns;    /* online in the database; 0: never */
};

static void attend(const struct trial *trial, const struct history_event *event, int64_t user, struct attendance *out)
{
	if (event->kind == HISTORY_SEEN && event->user == user)
		out->seen_ns = event->at_ns;
	if ((event->kind != HISTORY_CONNECTED && event->kind != HISTORY_DISCONNECTED) ||
		trial->history->clients[event->client].user != user)
		return;
	out->is_deaf = out->is_deaf || trial->history->clients[event->client].is_deaf;
	out->connected += event->kind == HISTORY_CONNECTED;
	out->connected -= event->kind == HISTORY_DISCONNECTED && out->connected > 0;
	out->changed_ns = event->at_ns;
}

static void judge_last_seen(struct trial *trial, const struct table_presence *row, const struct attendance *user)
{
	const struct history *history = trial->history;
	if (!history->wall_offset_ns || !history->wall_offset_end_ns)
		return;
	int64_t last_ns = row->last_seen_us * 1000 - history->wall_offset_ns, began_ns = history->events[0].at_ns;
	int64_t drift_ns = llabs(history->wall_offset_end_ns - history->wall_offset_ns) + CLOCK_TOLERANCE_NS;
	int64_t from_ns = user->seen_ns ? user->seen_ns : began_ns;
	if (!row->last_seen_us && !user->seen_ns)
		return; /* came and went while nobody looked */
	if (!row->last_seen_us || last_ns < from_ns - drift_ns)
		found(trial, LAST_SEEN, "user %lld was last seen %lld ms after the beginning, and was there after %lld ms",
			(long long)row->user, (long long)((last_ns - began_ns) / 1000000),
			(long long)((from_ns - began_ns) / 1000000));
	else if (last_ns > user->changed_ns + SEEN_LATE_NS + drift_ns)
		found(trial, LAST_SEEN, "user %lld was last seen %lld ms after they went", (long long)row->user,
			(long long)((last_ns - user->changed_ns) / 1000000));
}

static void judge_user(struct trial *trial, const struct judge_options *options, const struct table_presence *row,
	const struct attendance *user, int64_t looked_ns)
{
	bool is_there = user->connected > 0;
	if (user->is_deaf)
		return;
	trial->out->there += is_there;
	trial->out->gone += !is_there;
	/* One who came a moment ago or went may be seen either way. */
	if (row->is_online != is_there && looked_ns - user->changed_ns > PRESENCE_LATE_NS)
		found(trial, PRESENCE_WRONG, "user %lld is %s, and %s %lld ms ago", (long long)row->user,
			row->is_online ? "online" : "offline", is_there ? "connected" : "went",
			(long long)((looked_ns - user->changed_ns) / 1000000));
	else if (!row->is_online && !is_there && !options->clock_moves)
		judge_last_seen(trial, row, user);
}

static void judge_presence(struct trial *trial, const struct judge_options *options)
{
	const struct history *history = trial->history;
	size_t looked = history->count;
	while (looked > 0 && history->events[looked - 1].kind != HISTORY_LOOKED)
		looked--;
	for (size_t i = 0; looked > 0 && i < trial->table->presence_count; i++) {
		struct attendance user = {0};
		for (size_t at = 0; at < looked; at++)
			attend(trial, &history->events[at], trial->table->presence[i].user, &user);
		judge_user(trial, options, &trial->table->presence[i], &user, history->events[looked - 1].at_ns);
	}
}

/* ---- the whole ---- */

static void release(struct trial *trial)
{
	for (size_t i = 0; i < trial->history->client_count; i++)
		free(trial->fates[i]);
	for (size_t i = 0; i < trial->place_count; i++)
		free(trial->places[i].seen);
	for (size_t i = 0; i < trial->history->client_count * trial->place_count; i++)
		free(trial->streams[i].seen_on);
	free(trial->fates);
	free(trial->numbers);
	free(trial->places);
	free(trial->streams);
	free(trial->spans);
	free(trial->tides);
	free(trial->fault_ns);
	free((void *)trial->rows);
}

void judge(const struct history *history, const struct table *table, const struct judge_options *options, struct judgement *out)
{
	struct trial trial = {.history = history, .table = table, .out = out};
	memset(out, 0, sizeof *out);
	prepare_rows(&trial);
	prepare_fates(&trial);
	prepare_times(&trial);
	prepare_tides(&trial);
	walk(&trial);
	judge_tides(&trial);
	read_refusals(&trial);
	for (size_t i = 0; i < table->row_count; i++)
		judge_row(&trial, trial.rows[i]);
	judge_ids(&trial);
	for (size_t i = 0; i < trial.place_count; i++)
		judge_place(&trial, &trial.places[i]);
	for (size_t writer = 0; writer < history->client_count; writer++) {
		for (uint32_t number = 1; number <= trial.numbers[writer]; number++) {
			if (trial.fates[writer][number].send)
				judge_fate(&trial, &trial.fates[writer][number], number);
		}
	}
	judge_histories(&trial);
	judge_presence(&trial, options);
	if (out->acks < options->acks_min)
		out->invalid = "too few messages were acknowledged";
	else if (options->needs_fault && out->faults == 0)
		out->invalid = "no fault landed";
	release(&trial);
}

static const char *const names[VIOLATIONS] = {
	[LOST] = "LOST",
	[UNDUE_REFUSAL] = "UNDUE-REFUSAL",
	[REJECTED_BUT_STORED] = "REJECTED-BUT-STORED",
	[ALTERED] = "ALTERED",
	[PHANTOM_ROW] = "PHANTOM-ROW",
	[DUPLICATE_ROW] = "DUPLICATE-ROW",
	[DUPLICATE_SEQ] = "DUPLICATE-SEQ",
	[DUPLICATE_ID] = "DUPLICATE-ID",
	[GAP] = "GAP",
	[LAST_SEQ] = "LAST-SEQ",
	[ORDER] = "ORDER",
	[SENT_DIFFERS] = "SENT-DIFFERS",
	[DELIVERED_NOT_STORED] = "DELIVERED-NOT-STORED",
	[DELIVERED_EARLY] = "DELIVERED-EARLY",
	[DIFFERENT_CONTENT] = "DIFFERENT-CONTENT",
	[DISAGREE] = "DISAGREE",
	[OUT_OF_ORDER] = "OUT-OF-ORDER",
	[NON_MEMBER] = "NON-MEMBER",
	[NOT_SEEN] = "NOT-SEEN",
	[LIVE_MISS] = "LIVE-MISS",
	[MARK_LOST] = "MARK-LOST",
	[MARK_INVENTED] = "MARK-INVENTED",
	[PRESENCE_WRONG] = "PRESENCE-WRONG",
	[LAST_SEEN] = "LAST-SEEN",
};

const char *violation_name(enum violation violation)
{
	return names[violation];
}

bool judgement_is_clean(const struct judgement *judgement)
{
	for (int i = 0; i < VIOLATIONS; i++) {
		if (judgement->count[i] > 0)
			return false;
	}
	return judgement->invalid == NULL;
}

void judgement_print(const struct judgement *judgement, FILE *out)
{
	fprintf(out,
		"%llu messages sent (%llu of them again), %llu acknowledged, %llu refused; %llu rows; "
		"%llu deliveries (%llu again), %llu notices of being behind, %llu misses with a reason; %llu connects, %llu "
		"faults\n",
		(unsigned long long)judgement->sent, (unsigned long long)judgement->repeats, (unsigned long long)judgement->acks,
		(unsigned long long)judgement->refused, (unsigned long long)judgement->rows,
		(unsigned long long)judgement->deliveries, (unsigned long long)judgement->redeliveries,
		(unsigned long long)judgement->behind, (unsigned long long)judgement->excused_misses,
		(unsigned long long)judgement->connects, (unsigned long long)judgement->faults);
	fprintf(out, "at the end %llu users there and %llu gone\n", (unsigned long long)judgement->there,
		(unsigned long long)judgement->gone);
	fprintf(out, "longest from sending to PUBACK %lld ms; from a fault to the next delivery %lld ms\n",
		(long long)(judgement->longest_puback_ns / 1000000), (long long)(judgement->recovery_ns / 1000000));
	for (int i = 0; i < VIOLATIONS; i++) {
		if (judgement->count[i] > 0)
			fprintf(out, "VIOLATION %s: %llu, e.g. %s\n", names[i], (unsigned long long)judgement->count[i],
				judgement->example[i]);
	}
	if (judgement->invalid)
		fprintf(out, "INVALID: %s\n", judgement->invalid);
}
