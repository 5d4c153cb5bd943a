/* chat.h - one signed-in (or signed-out) run of the client: keeps the connection up and the screen right.
 *
 * One thread. chat_wait is what the view calls while it waits for keys; it applies what arrives, reconnects, catches up. The
 * commands (commands.h) are called between two lines, and talk to the server by themselves.
 */
#ifndef CHAT_CLI_CHAT_H
#define CHAT_CLI_CHAT_H

#include "account.h"
#include "state.h"

struct chat {
	struct connection *connection;
	struct state state;
	struct account account;
	const char *path;   /* of the account's file */
	const char *server; /* HOST:PORT */
	char client_id[64];
	int64_t connect_at; /* monotonic ms */
	int64_t pause_ms;   /* before the next attempt */
	bool told_offline;
	bool dismissed; /* the server does not want this device: no more attempts */
	int64_t typing_at;
	char *query; /* the last search, for /more */
	int64_t query_before;
};

bool chat_start(struct chat *chat, const char *host, int port, const char *ca_file, const char *path, const char *server);
void chat_stop(struct chat *chat);
bool chat_wait(void *owner, int fd);

/* Signs in by auth.register or auth.login and keeps the device token. */
void chat_sign_in(struct chat *chat, const char *method, const char *name, const char *password);
/* Forgets the account, here and in its file. */
void chat_sign_out(struct chat *chat);
/* Asks for a method and prints what went wrong, if it did: result is NULL then. */
struct answer chat_ask(struct chat *chat, const char *method, cJSON *params);
/* Makes a conversation the open one and shows its newest messages. */
void chat_open(struct chat *chat, struct conversation *conversation);
/* Shows a page of the open conversation from before what was shown last. */
void chat_show_page(struct chat *chat);

#endif
