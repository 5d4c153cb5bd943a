/* relay_database.h - stands between the plugin and PostgreSQL and cuts a writer's connection in the middle of a commit.
 *
 * A Unix socket of its own in front of the server's; it follows both streams message by message (PostgreSQL documentation,
 * 55.7), so that it cuts exactly where it is told to. One thread, its own.
 */
#ifndef CHAT_TESTS_RELAY_DATABASE_H
#define CHAT_TESTS_RELAY_DATABASE_H

#include <stdbool.h>

/* A batch is committed by the server when it reads the Sync that ends it, and answered by ReadyForQuery. */
enum cut {
	CUT_ANSWER,        /* committed; everything from ReadyForQuery on is swallowed */
	CUT_REQUEST,       /* the Sync never arrives, and the server sees the connection end */
	CUT_LATE_COMMIT,   /* the plugin's connection ends; the Sync arrives when the plugin is back and asks for its positions,
			      unless it had the old server process ended by then */
	CUT_LATE_ROLLBACK, /* the same, but the server's connection ends then */
	CUT_SETTLE,        /* as CUT_ANSWER; and when the plugin asks what became of the batch, this is held for ever */
	CUTS
};

struct database_relay;

/* Listens in `directory` (which is to be there, and readable for the broker) for the server in `server_directory`. */
struct database_relay *database_relay_start(const char *directory, const char *server_directory);
/* The next batch of any writer is cut like this. */
void database_relay_arm(struct database_relay *relay, enum cut cut);
/* How many cuts were carried out to their end. */
unsigned database_relay_struck(const struct database_relay *relay);
/* NULL is fine. */
void database_relay_stop(struct database_relay *relay);

#endif
