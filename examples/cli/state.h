/* state.h - what this client knows: conversations, how far it has seen each, names of users, what it has not got rid of yet.
 *
 * The bookkeeping is the contract's: each entry of a conversation has the next number. One that was seen is dropped, one that
 * jumps ahead shows that something is missing; then, after every connect, and when the user was added somewhere, message.sync is
 * asked for everything above the numbers that are held. There is no other way of catching up.
 *
 * A message that is sent gets an id here and stays in the outbox until it comes back with its number, or is refused; after a
 * reconnect what is left is sent again under the same id, which makes it arrive once.
 *
 * One thread. Names of users and conversations are cleaned (clean.h) when they come in; bodies are not.
 */
#ifndef CHAT_CLI_STATE_H
#define CHAT_CLI_STATE_H

#include "connection.h"

#include <stddef.h>

struct mark {
	int64_t user, delivered, read;
};

struct conversation {
	int64_t id;
	char *name, *type; /* of a direct one: the other's name */
	char *role;        /* "": only reads a public channel */
	int64_t held;      /* everything up to here was seen */
	int64_t unread;
	int64_t marked, marked_read;  /* what the server was told */
	int64_t own;                  /* the number of the newest message of one's own */
	int64_t oldest_shown;         /* history goes on before it; 0: nothing was shown */
	int64_t typist, typing_until; /* who is typing, until when (monotonic ms) */
	struct mark *marks;           /* of others */
	size_t mark_count;
	bool subscribed;
};

struct user {
	int64_t id;
	char *name;
};

struct outgoing {
	struct outgoing *next;
	char id[37];
	int64_t conversation;
	char *body;
};

/* What happens, told while it is handled. */
struct state_events {
	/* An entry of a log that was not seen before. */
	void (*entry)(void *owner, struct conversation *conversation, const cJSON *entry);
	void (*added)(void *owner, struct conversation *conversation);
	void (*removed)(void *owner, const char *name);
	/* A message of ours was refused for good. */
	void (*refused)(void *owner, const char *body, const char *message);
};

struct state {
	struct connection *connection;
	const struct state_events *events;
	void *owner;
	int64_t self;
	struct conversation **conversations;
	size_t conversation_count;
	struct conversation *open; /* NULL: none */
	struct user *users;
	size_t user_count;
	struct outgoing *outbox; /* oldest first */
	bool synced;             /* at least once: what is new from now on is news */
	bool sync_due;
	int64_t sync_at; /* not before (monotonic ms) */
};

void state_init(struct state *state, struct connection *connection, const struct state_events *events, void *owner, int64_t self);
/* Forgets everything. */
void state_clear(struct state *state);

/* After each connect: subscribes, catches up, sends again what is left. False: the connection has ended, or the server will have
 * none of this device any more (connection_was_dismissed). */
bool state_begin(struct state *state);
/* Handles one that arrived. */
void state_apply(struct state *state, const struct arrival *arrival);
/* What is due: catching up, marks. */
void state_tick(struct state *state, int64_t now_ms);

/* By number or name, whatever its case; NULL: none of these. */
struct conversation *state_find(struct state *state, const char *name);
struct conversation *state_get(struct state *state, int64_t id);
/* Takes over a conversation as a method answers it, subscribes to it. */
struct conversation *state_learn(struct state *state, const cJSON *conversation);
void state_forget(struct state *state, int64_t id);
/* Everything in it counts as read from now on, while it is open. NULL: none. */
void state_open(struct state *state, struct conversation *conversation);
/* A name for people, asked for where it is not known. Valid until the next call of a state function. */
const char *state_user_name(struct state *state, int64_t user);
/* Notes the users of a list as a method answers it. */
void state_learn_user(struct state *state, const cJSON *profile);
/* False where there is no memory. */
bool state_send(struct state *state, struct conversation *conversation, const char *body);
bool state_has_outgoing(const struct state *state, int64_t conversation);

int64_t member_integer(const cJSON *object, const char *name, int64_t absent);
/* "" where it is absent. */
const char *member_text(const cJSON *object, const char *name);

#endif
