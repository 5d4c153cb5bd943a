/* main.c - chat-cli: a chat client for the terminal.
 *
 *   chat-cli [--host NAME] [--port N] [--cafile FILE] [--account FILE]
 *
 * main reads options and then lines; view.c has the terminal, chat.c keeps the connection and the screen, commands.c does what a
 * line says, state.c knows the conversations, connection.c speaks MQTT, account.c keeps the device token. One thread: everything
 * happens while a key is waited for, or inside a command.
 */
#include "commands.h"
#include "text.h"
#include "view.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: chat-cli [--host NAME] [--port N] [--cafile FILE] [--account FILE]\n"
			    "\n"
			    "  --host NAME     the broker, 127.0.0.1 by default\n"
			    "  --port N        its port, 1883 by default, 8883 with --cafile\n"
			    "  --cafile FILE   TLS: certificates that the broker's must be signed by\n"
			    "  --account FILE  where the sign-in is kept, ~/.local/state/mosquitto-chat/account\n"
			    "                  by default; it is as good as your password\n"
			    "\n"
			    "Then /register NAME or /login NAME; /help lists the commands, /quit or Ctrl-D goes.\n";

struct request {
	const char *host, *ca_file;
	char *path;
	int64_t port;
};

static bool parse(struct request *request, int argc, char *argv[], int *status)
{
	static const struct option options[] = {{"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'},
		{"cafile", required_argument, NULL, 'c'}, {"account", required_argument, NULL, 'a'},
		{"help", no_argument, NULL, '?' + 1}, {NULL, 0, NULL, 0}};
	*request = (struct request){.host = "127.0.0.1"};
	*status = 2;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'h') {
			request->host = optarg;
		} else if (option == 'c') {
			request->ca_file = optarg;
		} else if (option == 'a') {
			free(request->path);
			request->path = strdup(optarg);
		} else if (option == 'p' && text_parse_integer(optarg, strlen(optarg), 1, 65535, &request->port)) {
			continue;
		} else {
			*status = option == '?' + 1 ? 0 : 2;
			fputs(usage, *status ? stderr : stdout);
			return false;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return false;
	}
	if (!request->port)
		request->port = request->ca_file ? 8883 : 1883;
	if (!request->path)
		request->path = account_default_path();
	if (!request->path)
		fprintf(stderr, "chat-cli: there is no HOME to keep the account in: use --account FILE\n");
	return request->path != NULL;
}

int main(int argc, char *argv[])
{
	struct request request;
	struct chat chat;
	char *server = NULL;
	int status;
	if (!parse(&request, argc, argv, &status)) {
		free(request.path);
		return status;
	}
	status = 1;
	if (asprintf(&server, "%s:%d", request.host, (int)request.port) < 0 || !view_open(chat_wait, &chat)) {
		fprintf(stderr, "chat-cli: cannot use this terminal\n");
	} else if (!chat_start(&chat, request.host, (int)request.port, request.ca_file, request.path, server)) {
		fprintf(stderr, "chat-cli: out of memory\n");
	} else {
		const char *line;
		while ((line = view_read_line()) && commands_run(&chat, line))
			;
		chat_stop(&chat);
		status = 0;
	}
	view_close();
	free(request.path);
	free(server);
	return status;
}
