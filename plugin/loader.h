/* loader.h - the thread that reads for the broker thread: who may sign in, memberships, missing entries, announcements.
 *
 * One thread with one connection, which also LISTENs; so answers come in the order of their snapshots, and the last
 * one applied is the newest. Requests wait in arrays that the broker thread fills; what is asked for twice before the
 * thread gets to it travels in one statement. Results come back as a list that the broker thread drains at its tick.
 * Requests die with the connection: after LOAD_UP the broker thread asks anew for all that it needs, and until then
 * nothing is kept, however many sign in.
 *
 *   broker thread --requests--> [pending] --> loader thread --results--> [list] --> broker thread
 *
 * Also held by this connection: the lock that makes this the only broker on its database. Lanes must not commit
 * before loader_is_claimed(); from then on the content rules are known too.
 */
#ifndef CHAT_PLUGIN_LOADER_H
#define CHAT_PLUGIN_LOADER_H

#include "content_filter.h"
#include "delivery.h"
#include "registry.h"
#include "scram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loader;

/* Entries of one fetch: of the longest kind they are some 30 MB. */
#define LOADER_FETCH_MAX 64

enum load_kind {
	LOAD_UP,           /* listening (again): all that was loaded before may be stale; public is set */
	LOAD_DOWN,         /* not listening any more */
	LOAD_SESSION,      /* an answer to loader_session */
	LOAD_CONVERSATION, /* an answer to loader_conversation */
	LOAD_NOTICE,       /* an announcement: a hint, ids only */
	LOAD_INBOX,        /* an answer to loader_inbox */
	LOAD_MISSED,       /* an answer to loader_missed */
	LOAD_VERIFIER,     /* an answer to loader_verifier */
	LOAD_SETTLED       /* an answer to loader_settle */
};

struct load_result {
	struct load_result *next;
	enum load_kind kind;
	/* SESSION */
	uint32_t session_index, session_generation;
	bool allowed;
	bool hides_reads;
	/* CONVERSATION */
	int64_t conversation_id;
	uint32_t members_version; /* 0: no such conversation */
	bool is_public;
	bool is_channel;
	bool whole; /* the roles are those of all who were listening when it was asked for */
	/* SESSION: the user's memberships, ascending, and their last seqs. CONVERSATION: users' roles in it, the user's id
	 * standing in conversation_id. UP: public channels, in conversation_id. MISSED: users, in conversation_id, and events, in
	 * last_seqs. */
	struct membership *memberships;
	int64_t *last_seqs;
	size_t count;
	int64_t last_seq; /* CONVERSATION. MISSED: the highest number that an event has */
	int64_t settled;  /* SETTLED: the number */
	/* NOTICE */
	char notice; /* m c u d l i p s v, as docs/schema.md lists them */
	int64_t ids[3];
	/* INBOX, VERIFIER */
	int64_t event_id; /* INBOX */
	int64_t user_id;  /* whose; VERIFIER: 0 where there is no such account */
	char *text;       /* INBOX: the payload. VERIFIER: the name as it was asked for */
	size_t text_length;
	char *name_key; /* VERIFIER: what the name is unique by */
	size_t name_key_length;
	struct scram_verifier verifier;
};

/* Connects once, at most timeout_ms, to learn whether this database will do: wrong schema version, or another broker
 * on it, is an error. A database that cannot be reached now is none: *reachable says so, and the thread keeps trying.
 * NULL: error says why. */
struct loader *loader_start(const char *conninfo, struct delivery_queue *deliveries, bool create_users, int64_t timeout_ms,
	bool *reachable, char *error, size_t error_size);
void loader_stop(struct loader *loader); /* joins and frees; NULL is fine */

/* Broker thread: requests. Lost for want of memory: logged by the caller's false. */
bool loader_session(struct loader *loader, const struct session *session);
/* Facts of a conversation, and the roles in it of these users; `whole` comes back in the result. */
bool loader_conversation(struct loader *loader, int64_t conversation_id, const int64_t *users, size_t user_count, bool whole);
/* Entries first..last of a log, at most LOADER_FETCH_MAX, as DELIVERY_MESSAGE items and one DELIVERY_FETCHED. */
bool loader_fetch(struct loader *loader, int64_t conversation_id, int64_t first, int64_t last);
/* An event for a user's inbox. */
bool loader_inbox(struct loader *loader, int64_t event_id);
/* Which events there are behind a number, the last LOADER_MISSED_MAX of them. One question at a time. */
#define LOADER_MISSED_MAX 10000
void loader_missed(struct loader *loader, int64_t after);
/* The verifier that goes with a name, or one that nothing matches. At most LOADER_NAMES_MAX wait at a time; more are dropped. */
#define LOADER_NAMES_MAX 100
#define LOADER_NAME_BYTES_MAX 200 /* 50 characters */
bool loader_verifier(struct loader *loader, const char *name, size_t length);
/* When all that was asked for before is answered, and all is announced that was committed before: `number` comes back. One at a
 * time. */
void loader_settle(struct loader *loader, int64_t number);
void loader_set_create_users(struct loader *loader, bool create_users);

/* Broker thread: all results so far, in order; each freed with loader_result_free. */
struct load_result *loader_take_all(struct loader *loader);
void loader_result_free(struct load_result *result);
/* Broker thread: waits until there is a result, at most until the monotonic time. */
bool loader_wait_for_result(struct loader *loader, int64_t until_ns);

/* Any thread. */
bool loader_is_up(const struct loader *loader); /* connected, listening and claimed, and not overdue with an answer */
/* Up, and not busy with what many ask for at once: then an answer takes milliseconds, and not a part of a second. */
bool loader_is_prompt(const struct loader *loader);
bool loader_is_claimed(const struct loader *loader); /* this is the only broker on the database */
/* What messages are held against; lives as long as the loader. */
struct content_filter *loader_content_filter(const struct loader *loader);

#endif
