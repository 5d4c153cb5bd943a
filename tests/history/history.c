/* history.c - see history.h. */
#include "history.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FNV_PRIME UINT64_C(0x100000001b3)
#define FNV_START UINT64_C(0xcbf29ce484222325)

int64_t history_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t history_wall_offset_ns(void)
{
	struct timespec wall;
	int64_t best = 0, best_width = INT64_MAX;
	for (int i = 0; i < 16; i++) { /* the narrowest of some: another program may run in between */
		int64_t before = history_now_ns();
		clock_gettime(CLOCK_REALTIME, &wall);
		int64_t after = history_now_ns();
		if (after - before < best_width) {
			best_width = after - before;
			best = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec - (before + after) / 2;
		}
	}
	return best;
}

void history_init(struct history *history, FILE *lines)
{
	*history = (struct history){.lines = lines};
	pthread_mutex_init(&history->mutex, NULL);
}

void history_free(struct history *history)
{
	pthread_mutex_destroy(&history->mutex);
	free(history->events);
	free(history->clients);
	history->events = NULL;
	history->clients = NULL;
}

static const char *const kind_names[] = {
	[HISTORY_CONNECTED] = "connected",
	[HISTORY_DISCONNECTED] = "disconnected",
	[HISTORY_SUBSCRIBED] = "subscribed",
	[HISTORY_SEND] = "send",
	[HISTORY_PUBACK] = "puback",
	[HISTORY_SENT] = "sent",
	[HISTORY_ERROR] = "error",
	[HISTORY_RECEIVE] = "receive",
	[HISTORY_BEHIND] = "behind",
	[HISTORY_MARK] = "mark",
	[HISTORY_MARK_PUBACK] = "mark_puback",
	[HISTORY_ADDING] = "adding",
	[HISTORY_ADDED] = "added",
	[HISTORY_REMOVING] = "removing",
	[HISTORY_REMOVED] = "removed",
	[HISTORY_FAULT] = "fault",
	[HISTORY_END] = "end",
	[HISTORY_SEEN] = "seen",
	[HISTORY_LOOKED] = "looked",
	[HISTORY_CAUGHT_UP] = "caught_up",
};

static void write_line(FILE *lines, const struct history_event *event)
{
	fprintf(lines,
		"{\"at\":%lld,\"event\":\"%s\",\"client\":%u,\"conversation\":%lld,\"seq\":%lld,\"last\":%lld,\"user\":%lld,"
		"\"writer\":%u,\"number\":%u,\"hash\":\"%016llx\",\"length\":%u,\"own_id\":%s,\"reject\":%s,\"reason\":%u,"
		"\"code\":\"%s\"}\n",
		(long long)event->at_ns, kind_names[event->kind], event->client, (long long)event->conversation,
		(long long)event->seq, (long long)event->last, (long long)event->user, event->message.writer,
		event->message.number, (unsigned long long)event->message.hash, event->message.length,
		event->own_id ? "true" : "false", event->is_reject ? "true" : "false", event->reason, event->code);
	fflush(lines);
}

void history_add(struct history *history, const struct history_event *event)
{
	pthread_mutex_lock(&history->mutex);
	if (history->count == history->capacity) {
		history->capacity = history->capacity * 2 + 4096;
		history->events = realloc(history->events, history->capacity * sizeof *history->events);
		if (!history->events)
			abort();
	}
	struct history_event *added = &history->events[history->count++];
	*added = *event;
	if (added->at_ns == 0)
		added->at_ns = history_now_ns();
	if (history->lines)
		write_line(history->lines, added);
	pthread_mutex_unlock(&history->mutex);
}

/* ---- bodies ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
	return ((hash ^ value) * FNV_PRIME) ^ (hash >> 29);
}

static uint64_t hash_rest(const char *body, size_t length, uint16_t writer, uint32_t number)
{
	uint64_t hash = mix(mix(FNV_START, writer), number);
	for (size_t i = HISTORY_MARK_LENGTH; i < length; i++)
		hash = (hash ^ (uint8_t)body[i]) * FNV_PRIME;
	return hash;
}

void history_mark_body(char *body, size_t length, uint16_t writer, uint32_t number, struct history_message *out)
{
	char mark[HISTORY_MARK_LENGTH + 1];
	*out = (struct history_message){
		.hash = hash_rest(body, length, writer, number), .number = number, .length = (uint32_t)length, .writer = writer};
	snprintf(mark, sizeof mark, "~%04x.%08x.%016llx~", writer, number, (unsigned long long)out->hash);
	memcpy(body, mark, HISTORY_MARK_LENGTH);
}

/* `digits` hexadecimal digits. False: others. */
static bool read_hex(const char *text, int digits, uint64_t *value)
{
	*value = 0;
	for (int i = 0; i < digits; i++) {
		const char *known = "0123456789abcdef", *at = text[i] ? strchr(known, text[i]) : NULL;
		if (!at)
			return false;
		*value = *value << 4 | (uint64_t)(at - known);
	}
	return true;
}

bool history_read_body(const char *body, size_t length, struct history_message *out)
{
	uint64_t writer, number, hash;
	*out = (struct history_message){.length = (uint32_t)length};
	if (length < HISTORY_MARK_LENGTH || body[0] != '~' || body[5] != '.' || body[14] != '.' || body[31] != '~' ||
		!read_hex(body + 1, 4, &writer) || !read_hex(body + 6, 8, &number) || !read_hex(body + 15, 16, &hash))
		return false;
	out->writer = (uint16_t)writer;
	out->number = (uint32_t)number;
	out->hash = hash_rest(body, length, out->writer, out->number);
	if (out->hash == hash)
		return out->number != 0;
	out->hash = mix(out->hash, hash); /* the mark itself may be what was changed */
	return out->number != 0;
}

bool history_is_transient(const char *code)
{
	return !strcmp(code, "rate_limited") || !strcmp(code, "overloaded") || !strcmp(code, "unavailable");
}

uint64_t history_digest(uint64_t digest, int64_t seq, const struct history_message *message)
{
	digest = mix(digest + FNV_START, (uint64_t)seq);
	digest = mix(digest, (uint64_t)message->writer << 32 | message->number);
	return mix(digest, message->hash);
}
