/* presence_store.h - the thread between presence and the database: writes who is there, asks who may know.
 *
 * The broker thread says what has changed and what it wants to know; the thread takes all of it at most twice a second, at once
 * after a quiet half second, and makes of it one statement of each kind (more only where thousands are waiting):
 *
 *   broker thread --put, device--> newest of each user, of each device --write_presence--> with the heartbeat
 *                 --read, ask----> lists                               --read_device_presence, ask_presence--> answers
 *
 * What is written goes before what is asked, so an answer knows of everything that was put before its question. While the
 * database is away the newest states wait here, one for each user, and so do the questions: each is answered once.
 * It begins to write when the loader has claimed the database for this broker.
 */
#ifndef CHAT_PLUGIN_PRESENCE_STORE_H
#define CHAT_PLUGIN_PRESENCE_STORE_H

#include "loader.h"
#include "presence_rules.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct presence_store;

/* `broker`: the 16 bytes under which the database knows this broker; copied. NULL: error says why. */
struct presence_store *presence_store_start(
	const char *conninfo, const struct loader *loader, const uint8_t *broker, char *error, size_t error_size);
/* The end is near: writes what waits, and that nobody is connected here any more. Returns at once; NULL is fine. */
void presence_store_finish(struct presence_store *store);
/* Waits a second at most for that, joins and frees; NULL is fine. */
void presence_store_stop(struct presence_store *store);

/* ---- broker thread; false: no memory */

/* As others see the user; last_seen_ms 0: as before. The text is copied. */
bool presence_store_put(struct presence_store *store, int64_t user_id, const struct presence_view *view, int64_t last_seen_ms);
/* Whether somebody sits in front of a device. */
bool presence_store_device(struct presence_store *store, int64_t device_id, bool active);
/* What a user's devices say of themselves. */
bool presence_store_read(struct presence_store *store, int64_t user_id);

/* May the one know of the other? */
struct presence_question {
	int64_t watcher_id, user_id;
	uint32_t session_index, session_generation, serial; /* the asker's own, come back */
};
bool presence_store_ask(struct presence_store *store, const struct presence_question *question);

/* ---- answers */

enum presence_answer_kind {
	PRESENCE_SIGHTS, /* answers to presence_store_ask */
	PRESENCE_SAID,   /* answers to presence_store_read: a user's rows stand together */
	PRESENCE_AGAIN   /* the database took this broker for dead: all who are there are to be put again */
};

struct presence_sight {
	struct presence_question question;
	int64_t last_seen_ms; /* 0: never, or not known */
	bool allowed;
};

struct presence_said {
	int64_t user_id;
	int64_t device_id;     /* 0: a connection without a device, by its client id */
	const char *client_id; /* not NUL-terminated; NULL with a device */
	size_t client_id_length;
	struct presence_view view;
	bool nothing; /* the user's devices say nothing: the only row */
};

struct presence_answer {
	struct presence_answer *next;
	enum presence_answer_kind kind;
	size_t count;
	struct presence_sight *sights; /* SIGHTS */
	struct presence_said *said;    /* SAID; texts live in `rows` */
	struct database_result *rows;
};

/* Broker thread: all answers so far, in order; each freed with presence_answer_free. */
struct presence_answer *presence_store_take_all(struct presence_store *store);
void presence_answer_free(struct presence_answer *answer);
/* Any thread: statements executed so far. */
uint64_t presence_store_statements(const struct presence_store *store);

#endif
