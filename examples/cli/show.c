/* show.c - see show.h. */
#include "show.h"

#include "clean.h"
#include "view.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_SIZE = 65536, BODY_MOST = 4000 };

static const char indent[] = "      ";

/* ------------------------------------------------------------------------------------------------ pieces */

static void append_time(struct buffer *line, const cJSON *entry)
{
	time_t at = (time_t)(member_integer(entry, "sent_at", 0) / 1000), now = time(NULL);
	struct tm then, today;
	char text[32];
	localtime_r(&at, &then);
	localtime_r(&now, &today);
	bool same_day = then.tm_yday == today.tm_yday && then.tm_year == today.tm_year;
	strftime(text, sizeof text, same_day ? "%H:%M" : "%d %b %H:%M", &then);
	buffer_append_text(line, text);
}

static void append_names(struct state *state, struct buffer *line, const cJSON *users)
{
	const cJSON *user;
	cJSON_ArrayForEach(user, users)
	{
		buffer_append_format(
			line, "%s%s", user == users->child ? "" : ", ", state_user_name(state, (int64_t)user->valuedouble));
	}
}

/* What the server writes into the log of a conversation itself. */
static void append_event(struct state *state, struct buffer *line, const cJSON *entry)
{
	static const struct {
		const char *event, *words;
	} events[] = {{"created", "made this conversation"}, {"added", "added "}, {"removed", "removed "}, {"left", "left"},
		{"updated", "changed the conversation"}, {"role", "changed the role of "}};
	const char *event = member_text(entry, "event"), *words = event;
	for (size_t i = 0; i < sizeof events / sizeof *events; i++)
		words = strcmp(event, events[i].event) != 0 ? words : events[i].words;
	buffer_append_format(line, "-- %s ", state_user_name(state, member_integer(entry, "by", 0)));
	clean_line(line, words, BODY_MOST);
	if (strcmp(event, "created") != 0)
		append_names(state, line, cJSON_GetObjectItemCaseSensitive(entry, "users"));
	if (*member_text(entry, "name")) {
		buffer_append_text(line, ": ");
		clean_line(line, member_text(entry, "name"), BODY_MOST);
	}
}

static void append_attachments(struct buffer *line, const cJSON *attachments)
{
	const cJSON *attachment;
	cJSON_ArrayForEach(attachment, attachments)
	{
		buffer_append_text(line, " [");
		clean_line(line, *member_text(attachment, "name") ? member_text(attachment, "name") : "attachment", BODY_MOST);
		buffer_append_text(line, "]");
	}
}

static void append_reactions(struct buffer *line, const cJSON *reactions)
{
	const cJSON *reaction;
	cJSON_ArrayForEach(reaction, reactions)
	{
		buffer_append_text(line, "  ");
		clean_line(line, member_text(reaction, "body"), 16);
		buffer_append_format(line, " %lld", (long long)member_integer(reaction, "count", 1));
	}
}

static void append_ref(struct buffer *line, const char *words, const cJSON *entry)
{
	buffer_append_format(line, "%s #%lld: ", words, (long long)member_integer(entry, "ref", 0));
}

/* The part behind the name. */
static void append_content(struct buffer *line, const cJSON *entry)
{
	const char *type = member_text(entry, "type"), *body = member_text(entry, "body");
	if (!strcmp(type, "opaque")) {
		buffer_append_text(line, "(encrypted)");
		return;
	}
	if (!strcmp(type, "delete")) {
		append_ref(line, "deleted", entry);
		return;
	}
	if (!strcmp(type, "edit"))
		append_ref(line, "changed", entry);
	else if (!strcmp(type, "reaction"))
		append_ref(line, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, "remove")) ? "took back" : "reacted to",
			entry);
	else if (strcmp(type, "text") != 0)
		buffer_append_text(line, "("), clean_line(line, type, 32), buffer_append_text(line, ") ");
	clean_lines(line, body, BODY_MOST, indent);
	append_attachments(line, cJSON_GetObjectItemCaseSensitive(entry, "attachments"));
	if (member_integer(entry, "edited_at", 0))
		buffer_append_text(line, " (edited)");
	append_reactions(line, cJSON_GetObjectItemCaseSensitive(entry, "reactions"));
}

static void print_line(struct buffer *line)
{
	view_print("%.*s", (int)line->length, line->data);
	buffer_free(line);
}

/* ----------------------------------------------------------------------------------------------- entries */

static bool is_folded(const cJSON *entry)
{
	const char *type = member_text(entry, "type");
	bool about = !strcmp(type, "reaction") || !strcmp(type, "edit") || !strcmp(type, "delete");
	return about && !member_integer(entry, "from", 0);
}

void show_entry(struct state *state, const struct conversation *conversation, const cJSON *entry)
{
	struct buffer line;
	const char *type = member_text(entry, "type");
	if (is_folded(entry))
		return; /* the message that it is about already says so */
	buffer_init(&line, LINE_SIZE);
	if (!strcmp(type, "deleted") || !strcmp(type, "expired")) {
		buffer_append_format(&line, "      (#%lld is gone)", (long long)member_integer(entry, "seq", 0));
		print_line(&line);
		return;
	}
	append_time(&line, entry);
	if (conversation != state->open)
		buffer_append_format(&line, " [%s]", conversation->name);
	buffer_append_text(&line, " ");
	if (!strcmp(type, "system")) {
		append_event(state, &line, entry);
	} else {
		buffer_append_format(
			&line, "%s%s%s: ", view_bold(), state_user_name(state, member_integer(entry, "from", 0)), view_plain());
		append_content(&line, entry);
	}
	print_line(&line);
}

void show_hit(struct state *state, const cJSON *hit)
{
	struct buffer line;
	const cJSON *part;
	int64_t id = member_integer(hit, "conversation", 0);
	const struct conversation *conversation = state_get(state, id);
	buffer_init(&line, LINE_SIZE);
	append_time(&line, hit);
	buffer_append_format(&line, " [%s #%lld] %s: ", conversation ? conversation->name : "?",
		(long long)member_integer(hit, "seq", 0), state_user_name(state, member_integer(hit, "from", 0)));
	cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(hit, "highlight"))
	{
		bool match = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(part, "match"));
		buffer_append_text(&line, match ? view_bold() : "");
		clean_line(&line, member_text(part, "text"), BODY_MOST);
		buffer_append_text(&line, match ? view_plain() : "");
	}
	print_line(&line);
}

/* ------------------------------------------------------------------------------------------------- lists */

void show_conversations(const struct state *state)
{
	if (state->conversation_count == 0)
		view_print("No conversations yet: /create NAME makes a group, /direct USER talks to one person.");
	for (size_t i = 0; i < state->conversation_count; i++) {
		const struct conversation *conversation = state->conversations[i];
		char unread[32] = "";
		if (conversation->unread > 0)
			snprintf(unread, sizeof unread, "  %lld unread", (long long)conversation->unread);
		view_print("%c %lld  %s  (%s)%s", conversation == state->open ? '*' : ' ', (long long)conversation->id,
			conversation->name, conversation->type, unread);
	}
}

void show_users(struct state *state, const cJSON *users)
{
	const cJSON *user;
	cJSON_ArrayForEach(user, users)
	{
		struct buffer line;
		int64_t id = member_integer(user, "id", 0);
		state_learn_user(state, user);
		buffer_init(&line, LINE_SIZE);
		buffer_append_format(&line, "  %lld  %s  ", (long long)id, state_user_name(state, id));
		clean_line(&line, member_text(user, "display_name"), 60);
		if (*member_text(user, "role")) {
			buffer_append_text(&line, "  ");
			clean_line(&line, member_text(user, "role"), 20);
		}
		print_line(&line);
	}
}

void show_aside(struct state *state, char *out, size_t size)
{
	const struct conversation *open = state->open;
	size_t delivered = 0, read = 0;
	int64_t reader = 0;
	*out = '\0';
	if (!open)
		return;
	for (size_t i = 0; i < open->mark_count; i++) {
		delivered += open->marks[i].delivered >= open->own || open->marks[i].read >= open->own;
		if (open->marks[i].read >= open->own && ++read)
			reader = open->marks[i].user;
	}
	if (open->typist)
		snprintf(out, size, "%s is typing", state_user_name(state, open->typist));
	else if (state_has_outgoing(state, open->id))
		snprintf(out, size, "sending");
	else if (open->own && read == 1)
		snprintf(out, size, "read by %s", state_user_name(state, reader));
	else if (open->own && read)
		snprintf(out, size, "read by %zu", read);
	else if (open->own)
		snprintf(out, size, "%s", delivered ? "delivered" : "sent");
}
