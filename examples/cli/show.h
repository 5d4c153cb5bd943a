/* show.h - entries of a log as lines for people. Everything that strangers wrote goes through clean.h here. */
#ifndef CHAT_CLI_SHOW_H
#define CHAT_CLI_SHOW_H

#include "state.h"

/* Prints an entry; `conversation` is named where it is not the open one. Entries that are no news to people print nothing. */
void show_entry(struct state *state, const struct conversation *conversation, const cJSON *entry);
/* Prints a hit of message.search with what was found in bold. */
void show_hit(struct state *state, const cJSON *hit);
void show_conversations(const struct state *state);
/* Users, or members with their roles, as a list of profiles. */
void show_users(struct state *state, const cJSON *users);
/* What became of the newest own message, or who is typing, for view_set_aside. */
void show_aside(struct state *state, char *out, size_t size);

#endif
