/* commands.c - see commands.h. */
#include "commands.h"

#include "show.h"
#include "text.h"
#include "view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVITED_MAX = 100 };

/* Runs with what follows the command's name, without spaces around it. */
typedef void (*command_fn)(struct chat *chat, char *rest);

enum { FREE = 0, SIGNED_IN = 1, IN_CONVERSATION = 3, WITH_TEXT = 4 };

/* ------------------------------------------------------------------------------------------------ helpers */

static cJSON *with_number(const char *name, int64_t number)
{
	cJSON *params = cJSON_CreateObject();
	cJSON_AddNumberToObject(params, name, (double)number);
	return params;
}

static cJSON *with_text(const char *name, const char *text)
{
	cJSON *params = cJSON_CreateObject();
	cJSON_AddStringToObject(params, name, text);
	return params;
}

static cJSON *about_open(struct chat *chat)
{
	return with_number("conversation", chat->state.open->id);
}

/* A user by name (exactly, whatever its case) or number; 0: said that there is none. */
static int64_t find_user(struct chat *chat, const char *name)
{
	int64_t id = 0;
	const cJSON *user;
	if (text_parse_integer(name, strlen(name), 1, TEXT_ID_MAX, &id))
		return id;
	struct answer answer = chat_ask(chat, "user.search", with_text("query", name));
	cJSON_ArrayForEach(user, cJSON_GetObjectItemCaseSensitive(answer.result, "users"))
	{
		if (!strcasecmp(member_text(user, "username"), name))
			id = member_integer(user, "id", 0);
	}
	if (answer.result && !id)
		view_print("! There is no user %s.", name);
	answer_free(&answer);
	return id;
}

/* All users that are named, as an array; NULL: one of them is not there. */
static cJSON *find_users(struct chat *chat, char *names)
{
	cJSON *users = cJSON_CreateArray();
	for (char *name; (name = strsep(&names, " "));) {
		if (!*name)
			continue;
		int64_t user = cJSON_GetArraySize(users) < INVITED_MAX ? find_user(chat, name) : 0;
		if (!user) {
			cJSON_Delete(users);
			return NULL;
		}
		cJSON_AddItemToArray(users, cJSON_CreateNumber((double)user));
	}
	return users;
}

/* Takes over the conversation that a method answered with. */
static struct conversation *learn(struct chat *chat, struct answer *answer)
{
	struct conversation *conversation =
		answer->result ? state_learn(&chat->state, cJSON_GetObjectItemCaseSensitive(answer->result, "conversation"))
			       : NULL;
	answer_free(answer);
	return conversation;
}

/* ------------------------------------------------------------------------------------------------ account */

static void forget(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

static void do_register(struct chat *chat, char *rest)
{
	char *password = view_read_secret("Password: "), *again = view_read_secret("Once more: ");
	if (password && again && !strcmp(password, again))
		chat_sign_in(chat, "auth.register", rest, password);
	else
		view_print("! These are two different ones, nothing done.");
	forget(password);
	forget(again);
}

static void do_login(struct chat *chat, char *rest)
{
	char *password = view_read_secret("Password: ");
	if (password)
		chat_sign_in(chat, "auth.login", rest, password);
	else
		view_print("! No password, nothing done.");
	forget(password);
}

static void do_logout(struct chat *chat, char *rest)
{
	(void)rest;
	struct answer answer = chat_ask(chat, "auth.logout", cJSON_CreateObject());
	if (!answer.result)
		view_print("! The server still knows this device: remove it from another one (device.remove).");
	answer_free(&answer);
	chat_sign_out(chat);
	view_print("* Signed out.");
}

static void do_password(struct chat *chat, char *rest)
{
	char *old_password = view_read_secret("Old password: "), *new_password = view_read_secret("New password: ");
	(void)rest;
	if (old_password && new_password) {
		cJSON *params = with_text("old_password", old_password);
		cJSON_AddStringToObject(params, "new_password", new_password);
		struct answer answer = chat_ask(chat, "auth.change_password", params);
		if (answer.result)
			view_print("* Changed. All other devices are signed out.");
		answer_free(&answer);
	}
	forget(old_password);
	forget(new_password);
}

static void do_users(struct chat *chat, char *rest)
{
	struct answer answer = chat_ask(chat, "user.search", with_text("query", rest));
	const cJSON *users = cJSON_GetObjectItemCaseSensitive(answer.result, "users");
	show_users(&chat->state, users);
	if (answer.result && (!users || !users->child))
		view_print("Nobody's name begins so.");
	answer_free(&answer);
}

/* ------------------------------------------------------------------------------------------ conversations */

static void do_list(struct chat *chat, char *rest)
{
	(void)rest;
	show_conversations(&chat->state);
}

static void do_open(struct chat *chat, char *rest)
{
	int64_t id;
	struct conversation *conversation = state_find(&chat->state, rest);
	/* It may be a public channel. */
	if (!conversation && text_parse_integer(rest, strlen(rest), 1, TEXT_ID_MAX, &id)) {
		struct answer answer = chat_ask(chat, "conversation.get", with_number("conversation", id));
		conversation = learn(chat, &answer);
	} else if (!conversation) {
		view_print("! You are in no conversation called %s; /list shows them.", rest);
	}
	if (conversation)
		chat_open(chat, conversation);
}

static void do_create(struct chat *chat, char *rest)
{
	cJSON *params = with_text("type", "group");
	cJSON_AddStringToObject(params, "name", rest);
	struct answer answer = chat_ask(chat, "conversation.create", params);
	struct conversation *conversation = learn(chat, &answer);
	if (conversation)
		chat_open(chat, conversation);
}

static void do_direct(struct chat *chat, char *rest)
{
	cJSON *users = find_users(chat, rest), *params;
	if (!users)
		return;
	params = with_text("type", "direct");
	cJSON_AddItemToObject(params, "members", users);
	struct answer answer = chat_ask(chat, "conversation.create", params);
	struct conversation *conversation = learn(chat, &answer);
	if (conversation)
		chat_open(chat, conversation);
}

static void do_invite(struct chat *chat, char *rest)
{
	cJSON *users = find_users(chat, rest), *params;
	if (!users)
		return;
	params = about_open(chat);
	cJSON_AddItemToObject(params, "members", users);
	struct answer answer = chat_ask(chat, "conversation.add_members", params);
	answer_free(&answer); /* the log says who was added */
}

static void do_join(struct chat *chat, char *rest)
{
	int64_t id;
	if (!text_parse_integer(rest, strlen(rest), 1, TEXT_ID_MAX, &id)) {
		view_print("! A channel is joined by its number.");
		return;
	}
	struct answer answer = chat_ask(chat, "conversation.join", with_number("conversation", id));
	struct conversation *conversation = learn(chat, &answer);
	if (conversation)
		chat_open(chat, conversation);
}

static void do_leave(struct chat *chat, char *rest)
{
	(void)rest;
	int64_t id = chat->state.open->id;
	struct answer answer = chat_ask(chat, "conversation.leave", about_open(chat));
	if (answer.result) {
		view_print("* You have left %s.", chat->state.open->name);
		state_forget(&chat->state, id);
	}
	answer_free(&answer);
}

static void do_members(struct chat *chat, char *rest)
{
	cJSON *params = about_open(chat);
	(void)rest;
	cJSON_AddNumberToObject(params, "limit", 200);
	struct answer answer = chat_ask(chat, "conversation.members", params);
	show_users(&chat->state, cJSON_GetObjectItemCaseSensitive(answer.result, "members"));
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer.result, "more")))
		view_print("  and others");
	answer_free(&answer);
}

/* ---------------------------------------------------------------------------------------------- messages */

static void do_history(struct chat *chat, char *rest)
{
	(void)rest;
	chat_show_page(chat);
}

static void search(struct chat *chat)
{
	cJSON *params = with_text("query", chat->query);
	const cJSON *hits, *hit;
	if (chat->query_before)
		cJSON_AddNumberToObject(params, "before", (double)chat->query_before);
	struct answer answer = chat_ask(chat, "message.search", params);
	hits = cJSON_GetObjectItemCaseSensitive(answer.result, "hits");
	cJSON_ArrayForEach(hit, hits)
	{
		show_hit(&chat->state, hit);
	}
	if (answer.result && (!hits || !hits->child))
		view_print("Nothing found.");
	chat->query_before = 0;
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer.result, "more"))) {
		chat->query_before = member_integer(answer.result, "before", 0);
		view_print("  (/more shows older ones)");
	}
	answer_free(&answer);
}

static void do_search(struct chat *chat, char *rest)
{
	free(chat->query);
	chat->query = strdup(rest);
	chat->query_before = 0;
	if (chat->query)
		search(chat);
}

static void do_more(struct chat *chat, char *rest)
{
	(void)rest;
	if (chat->query && chat->query_before)
		search(chat);
	else
		view_print("There is no more.");
}

/* ----------------------------------------------------------------------------------------------- the table */

static void do_help(struct chat *chat, char *rest);

static const struct command {
	const char *name;
	command_fn run;
	int needs;
	const char *parameters, *help;
} commands[] = {
	{"register", do_register, WITH_TEXT, "NAME", "make an account; asks for a password"},
	{"login", do_login, WITH_TEXT, "NAME", "sign in; asks for the password"},
	{"logout", do_logout, SIGNED_IN, "", "sign this device out"},
	{"password", do_password, SIGNED_IN, "", "change the password"},
	{"list", do_list, SIGNED_IN, "", "your conversations"},
	{"open", do_open, SIGNED_IN | WITH_TEXT, "CONVERSATION", "read and write here, by name or number"},
	{"create", do_create, SIGNED_IN | WITH_TEXT, "NAME", "make a group"},
	{"direct", do_direct, SIGNED_IN | WITH_TEXT, "USER", "talk to one person"},
	{"invite", do_invite, IN_CONVERSATION | WITH_TEXT, "USER...", "bring people into the open conversation"},
	{"members", do_members, IN_CONVERSATION, "", "who is in it"},
	{"leave", do_leave, IN_CONVERSATION, "", "leave it"},
	{"join", do_join, SIGNED_IN | WITH_TEXT, "NUMBER", "join a public channel"},
	{"history", do_history, IN_CONVERSATION, "", "what was before"},
	{"search", do_search, SIGNED_IN | WITH_TEXT, "WORDS", "find messages in all your conversations"},
	{"more", do_more, SIGNED_IN, "", "older ones of them"},
	{"users", do_users, SIGNED_IN | WITH_TEXT, "BEGINNING", "find people by name"},
	{"help", do_help, FREE, "", "this list"},
};

static void do_help(struct chat *chat, char *rest)
{
	(void)chat, (void)rest;
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		view_print("  /%-9s %-13s %s", commands[i].name, commands[i].parameters, commands[i].help);
	view_print("  /%-9s %-13s %s", "quit", "", "go; the next start needs no password");
	view_print("Anything else is sent to the open conversation; a line that begins with // without the first slash.");
}

static const struct command *find_command(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		if (strlen(commands[i].name) == length && !strncmp(commands[i].name, name, length))
			return &commands[i];
	}
	return NULL;
}

static void run_command(struct chat *chat, const struct command *command, char *rest)
{
	if ((command->needs & SIGNED_IN) && !chat->account.user)
		view_print("! Nobody is signed in: /login NAME or /register NAME.");
	else if ((command->needs & IN_CONVERSATION) == IN_CONVERSATION && !chat->state.open)
		view_print("! No conversation is open: /open one first.");
	else if ((command->needs & WITH_TEXT) && !*rest)
		view_print("! Usage: /%s %s", command->name, command->parameters);
	else
		command->run(chat, rest);
}

static void say(struct chat *chat, const char *body)
{
	if (!chat->account.user || !chat->state.open) {
		view_print("! %s", chat->account.user ? "No conversation is open: /open one first."
						      : "Nobody is signed in: /login NAME or /register NAME.");
		return;
	}
	view_take_back();
	if (!state_send(&chat->state, chat->state.open, body))
		view_print("! Too much is waiting to be sent.");
}

bool commands_run(struct chat *chat, const char *line)
{
	while (*line == ' ')
		line++;
	size_t length = strlen(line);
	while (length > 0 && line[length - 1] == ' ')
		length--;
	if (length == 0)
		return true;
	if (*line != '/' || line[1] == '/') {
		say(chat, *line == '/' ? line + 1 : line);
		return true;
	}
	size_t name = strcspn(line + 1, " ");
	if (!strncmp(line + 1, "quit", name) && name == 4)
		return false;
	const struct command *command = find_command(line + 1, name);
	char *rest = strndup(line + 1 + name, length - 1 - name);
	if (!command)
		view_print("! There is no such command; /help lists them.");
	else if (rest)
		run_command(chat, command, rest + strspn(rest, " "));
	free(rest);
	return true;
}
