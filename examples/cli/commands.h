/* commands.h - what a typed line does. To add a command: a function and a line in the table of commands.c. */
#ifndef CHAT_CLI_COMMANDS_H
#define CHAT_CLI_COMMANDS_H

#include "chat.h"

/* False: the user wants to go. */
bool commands_run(struct chat *chat, const char *line);

#endif
