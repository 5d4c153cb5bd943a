/* chat.c - see chat.h. */
#include "chat.h"

#include "clean.h"
#include "clock.h"
#include "show.h"
#include "uuid.h"
#include "view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	PAUSE_FIRST_MS = 250, /* between two attempts to connect; doubled each time */
	PAUSE_LAST_MS = 15000,
	TYPING_EVERY_MS = 4000, /* the others' clients forget it after six seconds */
	TURN_MS = 500,          /* how long nothing is looked at that has its time */
	PAGE = 20,
};

/* ------------------------------------------------------------------------------------- what the state tells */

static void on_entry(void *owner, struct conversation *conversation, const cJSON *entry)
{
	struct chat *chat = owner;
	show_entry(&chat->state, conversation, entry);
	if (conversation == chat->state.open && !conversation->oldest_shown)
		conversation->oldest_shown = member_integer(entry, "seq", 0); /* the log was empty when it was opened */
}

static void on_added(void *owner, struct conversation *conversation)
{
	(void)owner;
	view_print("* You are in %s now: /open %lld", conversation->name, (long long)conversation->id);
}

static void on_removed(void *owner, const char *name)
{
	(void)owner;
	view_print("* You are not in %s any more.", name);
}

static void on_refused(void *owner, const char *body, const char *message)
{
	struct buffer line;
	(void)owner;
	buffer_init(&line, 4096);
	buffer_append_text(&line, "! Not sent (");
	clean_line(&line, message, 200);
	buffer_append_text(&line, "): ");
	clean_line(&line, body, 200);
	view_print("%.*s", (int)line.length, line.data);
	buffer_free(&line);
}

static const struct state_events events = {on_entry, on_added, on_removed, on_refused};

/* ----------------------------------------------------------------------------------------- the connection */

static void new_client_id(struct chat *chat, int64_t user)
{
	uint8_t uuid[16];
	char digits[33];
	uuid_make(clock_wall_ms(), uuid);
	for (size_t i = 0; i < sizeof uuid; i++)
		snprintf(digits + 2 * i, 3, "%02x", uuid[i]);
	if (user)
		snprintf(chat->client_id, sizeof chat->client_id, "%lld-cli-%s", (long long)user, digits + 16);
	else
		snprintf(chat->client_id, sizeof chat->client_id, "guest-%s", digits);
}

static void dismiss(struct chat *chat)
{
	connection_close(chat->connection);
	chat->dismissed = true;
	view_print("! The server does not let this device in any more: /login NAME signs in again.");
}

static void pause_before_next(struct chat *chat)
{
	if (!chat->told_offline)
		view_print("! No connection to %s: %s. Trying again.", chat->server, connection_error(chat->connection));
	chat->told_offline = true;
	chat->connect_at = clock_monotonic_ms() + chat->pause_ms;
	chat->pause_ms = chat->pause_ms * 2 < PAUSE_LAST_MS ? chat->pause_ms * 2 : PAUSE_LAST_MS;
}

static void connect_now(struct chat *chat)
{
	enum connection_result result = connection_open(chat->connection, chat->client_id, chat->account.token);
	if (result == CONNECTION_REFUSED) {
		dismiss(chat);
		return;
	}
	if (result != CONNECTION_OPEN || !state_begin(&chat->state)) {
		if (connection_was_dismissed(chat->connection))
			dismiss(chat);
		else
			pause_before_next(chat);
		return;
	}
	if (chat->told_offline)
		view_print("* Connected again.");
	chat->told_offline = false;
	chat->pause_ms = PAUSE_FIRST_MS;
}

static void keep_connected(struct chat *chat, int64_t now_ms)
{
	if (!chat->account.user || chat->dismissed || connection_is_open(chat->connection))
		return;
	if (connection_was_dismissed(chat->connection))
		dismiss(chat);
	else if (!chat->told_offline && chat->state.synced)
		pause_before_next(chat);
	else if (now_ms >= chat->connect_at)
		connect_now(chat);
}

/* --------------------------------------------------------------------------------------------- the screen */

static void set_prompts(struct chat *chat)
{
	char prompt[100], aside[100];
	if (!chat->account.user)
		snprintf(prompt, sizeof prompt, "(nobody) ");
	else if (chat->state.open)
		snprintf(prompt, sizeof prompt, "%.80s> ", chat->state.open->name);
	else
		snprintf(prompt, sizeof prompt, "> ");
	show_aside(&chat->state, aside, sizeof aside);
	view_set_prompt(prompt);
	view_set_aside(chat->told_offline || chat->dismissed ? "offline" : aside);
}

static void tell_typing(struct chat *chat, int64_t now_ms)
{
	char topic[64];
	const struct conversation *open = chat->state.open;
	if (!view_is_typing() || !open || now_ms < chat->typing_at || !strcmp(open->type, "channel"))
		return;
	chat->typing_at = now_ms + TYPING_EVERY_MS;
	snprintf(topic, sizeof topic, "chat/%lld/type", (long long)open->id);
	connection_publish(chat->connection, topic, "{\"typing\":true}", 0);
}

bool chat_wait(void *owner, int fd)
{
	struct chat *chat = owner;
	struct arrival *arrival;
	int64_t now_ms = clock_monotonic_ms();
	keep_connected(chat, now_ms);
	while ((arrival = connection_take(chat->connection))) {
		state_apply(&chat->state, arrival);
		arrival_free(arrival);
	}
	state_tick(&chat->state, now_ms);
	tell_typing(chat, now_ms);
	set_prompts(chat);
	view_show();
	return connection_wait(chat->connection, fd, TURN_MS);
}

/* ----------------------------------------------------------------------------------------- signing in, out */

struct answer chat_ask(struct chat *chat, const char *method, cJSON *params)
{
	struct answer answer = connection_request(chat->connection, method, params);
	if (!answer.result) {
		struct buffer line;
		buffer_init(&line, 1024);
		clean_line(&line, answer.message, 250);
		view_print("! %.*s", (int)line.length, line.data);
		buffer_free(&line);
	}
	return answer;
}

static bool take_account(struct chat *chat, const cJSON *result, const char *name)
{
	account_clear(&chat->account);
	chat->account.user = member_integer(result, "user_id", 0);
	chat->account.device = member_integer(result, "device_id", 0);
	chat->account.name = strdup(name);
	chat->account.token = strdup(member_text(result, "device_token"));
	if (chat->account.user && chat->account.name && chat->account.token && *chat->account.token)
		return true;
	account_clear(&chat->account);
	return false;
}

/* What begins when somebody is signed in: the account is known. */
static void begin(struct chat *chat)
{
	state_init(&chat->state, chat->connection, &events, chat, chat->account.user);
	new_client_id(chat, chat->account.user);
	chat->dismissed = chat->told_offline = false;
	chat->pause_ms = PAUSE_FIRST_MS;
	chat->connect_at = 0;
	connect_now(chat);
	if (!connection_is_open(chat->connection))
		return;
	view_print("* You are %s.", chat->account.name);
	show_conversations(&chat->state);
}

void chat_sign_in(struct chat *chat, const char *method, const char *name, const char *password)
{
	char host[64] = "", device_name[100], error[256];
	chat_sign_out(chat);
	new_client_id(chat, 0);
	if (connection_open(chat->connection, chat->client_id, NULL) != CONNECTION_OPEN) {
		view_print("! No connection to %s: %s", chat->server, connection_error(chat->connection));
		return;
	}
	gethostname(host, sizeof host - 1);
	snprintf(device_name, sizeof device_name, "chat-cli on %s", host);
	cJSON *params = cJSON_CreateObject(), *device = cJSON_CreateObject();
	cJSON_AddStringToObject(params, "username", name);
	cJSON_AddStringToObject(params, "password", password);
	cJSON_AddStringToObject(device, "name", device_name);
	cJSON_AddItemToObject(params, "device", device);
	struct answer answer = chat_ask(chat, method, params);
	bool taken = answer.result && take_account(chat, answer.result, name);
	answer_free(&answer);
	connection_close(chat->connection);
	if (!taken)
		return;
	if (!account_save(&chat->account, chat->path, chat->server, error))
		view_print("! %s: the password will be needed again", error);
	begin(chat);
}

void chat_sign_out(struct chat *chat)
{
	connection_close(chat->connection);
	if (chat->account.user)
		account_forget(&chat->account, chat->path);
	state_clear(&chat->state);
}

bool chat_start(struct chat *chat, const char *host, int port, const char *ca_file, const char *path, const char *server)
{
	char error[256];
	*chat = (struct chat){.path = path, .server = server};
	chat->connection = connection_new(host, port, ca_file, view_ended());
	if (!chat->connection)
		return false;
	state_init(&chat->state, chat->connection, &events, chat, 0);
	if (!account_load(&chat->account, path, server, error))
		view_print("! %s", error);
	if (chat->account.user)
		begin(chat);
	else
		view_print("Nobody is signed in: /register NAME makes an account, /login NAME signs in, /help says more.");
	return true;
}

void chat_stop(struct chat *chat)
{
	connection_close(chat->connection);
	account_clear(&chat->account);
	state_clear(&chat->state);
	connection_free(chat->connection);
	free(chat->query);
}

/* ------------------------------------------------------------------------------------------ conversations */

void chat_show_page(struct chat *chat)
{
	struct conversation *open = chat->state.open;
	const cJSON *messages, *entry;
	cJSON *params = cJSON_CreateObject();
	cJSON_AddNumberToObject(params, "conversation", (double)open->id);
	cJSON_AddNumberToObject(params, "limit", PAGE);
	if (open->oldest_shown)
		cJSON_AddNumberToObject(params, "before", (double)open->oldest_shown);
	struct answer answer = chat_ask(chat, "message.history", params);
	messages = cJSON_GetObjectItemCaseSensitive(answer.result, "messages");
	cJSON_ArrayForEach(entry, messages)
	{
		show_entry(&chat->state, open, entry);
	}
	if (messages && messages->child)
		open->oldest_shown = member_integer(messages->child, "seq", 0);
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer.result, "more")))
		view_print("  (/history shows what is before)");
	else if (answer.result)
		view_print("  (this is the beginning)");
	answer_free(&answer);
}

void chat_open(struct chat *chat, struct conversation *conversation)
{
	state_open(&chat->state, conversation);
	conversation->oldest_shown = 0;
	view_print("* %s (%s, %lld)", conversation->name, conversation->type, (long long)conversation->id);
	chat_show_page(chat);
}
