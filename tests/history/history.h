/* history.h - what happened in a run, as its clients saw it: a log of events with one monotonic clock.
 *
 * The workload writes it (workload.h), the judge reads it (judge.h). Several threads may add; an event has its place by
 * the order of adding, and its time is taken before a write to a socket and after a read from one. The log only grows,
 * so its memory is about 100 bytes an event. With `lines` each event is also a line of JSON, flushed at once: what a
 * killed program meant to send is then known.
 *
 * A message names itself: its body begins with the number of its writer (a client), its own number among those of that
 * writer, and a hash over the rest, so it is known again wherever it turns up, without an id too:
 *
 *   ~WWWW.NNNNNNNN.HHHHHHHHHHHHHHHH~ and any further bytes
 */
#ifndef CHAT_TESTS_HISTORY_H
#define CHAT_TESTS_HISTORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum history_kind {
	HISTORY_CONNECTED,    /* client: signed in */
	HISTORY_DISCONNECTED, /* client: by whomever; a visitor also before they were signed in */
	HISTORY_SUBSCRIBED,   /* client, conversation: granted */
	HISTORY_SEND,         /* client, conversation, message, own_id, id, is_reject: about to be written */
	HISTORY_PUBACK,       /* client, conversation, message, reason */
	HISTORY_SENT,         /* client, conversation, id, message (by the id), seq */
	HISTORY_ERROR,        /* client, conversation, code; id and message where the answer names one of ours */
	HISTORY_RECEIVE,      /* client, conversation, seq, user (from), id, message (by the body; number 0: none of ours) */
	HISTORY_BEHIND,       /* client, conversation, seq (last_seq) */
	HISTORY_MARK,         /* client, user, conversation, seq (delivered), last (read): about to be written */
	HISTORY_MARK_PUBACK,  /* client, user, conversation, seq (delivered), last (read): a mark was acknowledged */
	HISTORY_ADDING,       /* user, conversation: asked the database to */
	HISTORY_ADDED,        /* and heard that it did */
	HISTORY_REMOVING,
	HISTORY_REMOVED,
	HISTORY_FAULT,     /* code: its name, cut */
	HISTORY_END,       /* no more deliveries: the workload begins to close its connections */
	HISTORY_SEEN,      /* user: the database called them online */
	HISTORY_LOOKED,    /* everybody's presence has just been read; the last one is the one that the table has */
	HISTORY_CAUGHT_UP, /* user, conversation, seq..last (read at the end), hash (history_digest over them) */
};

/* A message by what its body says. */
struct history_message {
	uint64_t hash;   /* over what follows the mark */
	uint32_t number; /* from 1; 0: no message of ours */
	uint32_t length; /* of the body, bytes */
	uint16_t writer; /* a client */
};

struct history_event {
	int64_t at_ns;
	int64_t conversation;
	int64_t seq;
	int64_t last;
	int64_t user;
	uint64_t hash;
	struct history_message message;
	uint16_t client;
	uint8_t kind;
	uint8_t reason;
	bool own_id;
	bool is_reject; /* sent to be refused */
	uint8_t id[16];
	char code[22];
};

struct history_client {
	int64_t user;
	uint8_t version; /* 4 or 5 */
	bool is_deaf;    /* reads nothing, so it misses nothing */
};

struct history {
	struct history_event *events;
	size_t count, capacity;
	struct history_client *clients;
	size_t client_count;
	/* Wall clock minus monotonic clock, at the beginning and at the end; 0: not measured. */
	int64_t wall_offset_ns, wall_offset_end_ns;
	pthread_mutex_t mutex;
	FILE *lines;
};

int64_t history_now_ns(void);
int64_t history_wall_offset_ns(void);
void history_init(struct history *history, FILE *lines);
void history_free(struct history *history);
/* at_ns 0: now. Aborts the program where there is no memory: there is nothing to judge then. */
void history_add(struct history *history, const struct history_event *event);

#define HISTORY_MARK_LENGTH 32
/* Writes the mark for the body whose other bytes stand behind it already; `length` is the whole body's. */
void history_mark_body(char *body, size_t length, uint16_t writer, uint32_t number, struct history_message *out);
/* False: not marked (out->number is 0). The hash is counted anew, so that a changed body differs from what was sent. */
bool history_read_body(const char *body, size_t length, struct history_message *out);
/* Whether an error's code says "not now", and not "never". */
bool history_is_transient(const char *code);
/* One entry added to a digest; begin with 0. */
uint64_t history_digest(uint64_t digest, int64_t seq, const struct history_message *message);

#endif
