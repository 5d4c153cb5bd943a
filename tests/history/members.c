/* members.c - what the workload does by SQL: users and conversations at the beginning, changes of members all the time (the
 * administrator's thread), everybody's whole history at the end. See workload_inside.h. */
#include "workload_inside.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AGAIN_MS 50
#define LOOK_MS 5

static void pause_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static void *room(size_t count, size_t size)
{
	void *made = calloc(count, size);
	if (!made)
		abort();
	return made;
}

/* ---- the beginning ---- */

/* The first column of the first row; 0: it failed. */
__attribute__((format(printf, 2, 3))) static int64_t ask(PGconn *connection, const char *format, ...)
{
	char sql[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sql, sizeof sql, format, arguments);
	va_end(arguments);
	PGresult *result = PQexec(connection, sql);
	int64_t value = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0
				? strtoll(PQgetvalue(result, 0, 0), NULL, 10)
				: 0;
	PQclear(result);
	return value;
}

static void note(struct workload *workload, enum history_kind kind, unsigned place, unsigned user)
{
	history_add(&workload->history,
		&(struct history_event){
			.kind = (uint8_t)kind, .conversation = workload->conversations[place].id, .user = workload->users[user]});
}

static bool add_member(struct workload *workload, PGconn *connection, unsigned place, unsigned user)
{
	struct conversation *conversation = &workload->conversations[place];
	if (conversation->may[user])
		return true;
	note(workload, HISTORY_ADDING, place, user);
	if (ask(connection,
		    "INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (%lld, %lld, 'member') "
		    "RETURNING 1",
		    (long long)conversation->id, (long long)workload->users[user]) != 1)
		return false;
	note(workload, HISTORY_ADDED, place, user);
	conversation->may[user] = true;
	atomic_store(&conversation->is_member[user], true);
	return true;
}

/* A conversation of `members` users, beginning with `first`; the last `comers` of them come and go. */
static bool make_conversation(struct workload *workload, PGconn *connection, unsigned first, unsigned members, unsigned comers)
{
	unsigned users = workload->options.users, all = user_count(workload), place = workload->conversation_count++;
	members = members < users ? members : users;
	struct conversation *conversation = &workload->conversations[place];
	conversation->may = room(all, sizeof *conversation->may);
	conversation->comes = room(all, sizeof *conversation->comes);
	conversation->is_member = room(all, sizeof *conversation->is_member);
	conversation->is_hot = place == 0;
	conversation->id =
		ask(connection, "INSERT INTO chat.conversations (type, name) VALUES ('group', 'history') RETURNING id");
	if (!conversation->id)
		return false;
	for (unsigned i = 0; i < members; i++) {
		unsigned user = (first + i) % users;
		if (!add_member(workload, connection, place, user))
			return false;
		conversation->comes[user] = i >= 1 && i + comers >= members;
	}
	return true;
}

static bool make_all(struct workload *workload, PGconn *connection)
{
	const struct workload_options *options = &workload->options;
	unsigned users = options->users, group = options->group_members;
	for (unsigned i = 0; i < user_count(workload); i++) {
		workload->users[i] = ask(connection, "INSERT INTO chat.users DEFAULT VALUES RETURNING id");
		if (!workload->users[i])
			return false;
	}
	unsigned hot = options->hot_members ? options->hot_members : users;
	bool made = make_conversation(workload, connection, 0, hot, options->comers);
	for (unsigned i = 0; made && i < options->groups; i++)
		made = make_conversation(workload, connection, i * group / 2, group, options->comers);
	for (unsigned i = 0; made && i < options->large_groups; i++)
		made = make_conversation(workload, connection, i, options->large_group_members, options->comers);
	for (unsigned i = 0; made && i < options->pairs; i++)
		made = make_conversation(workload, connection, 2 * i, 2, 0);
	return made;
}

bool members_create(struct workload *workload, PGconn *connection, char *error, size_t error_size)
{
	const struct workload_options *options = &workload->options;
	workload->users = room(user_count(workload), sizeof *workload->users);
	workload->tokens = room(user_count(workload), sizeof *workload->tokens);
	workload->present = room(user_count(workload), sizeof *workload->present);
	workload->present_since_ns = room(user_count(workload), sizeof *workload->present_since_ns);
	workload->conversations =
		room(1 + options->groups + options->large_groups + options->pairs, sizeof *workload->conversations);
	if (!make_all(workload, connection)) {
		snprintf(error, error_size, "making users and conversations: %s", PQerrorMessage(connection));
		return false;
	}
	for (unsigned i = 0; i < user_count(workload); i++) {
		workload->tokens[i] = options->make_token(options->context, workload->users[i]);
		if (!workload->tokens[i]) {
			snprintf(error, error_size, "no token");
			return false;
		}
	}
	return true;
}

/* ---- changes ---- */

/* One who comes and goes; false: there is none. */
static bool pick_comer(const struct workload *workload, uint64_t *random, unsigned *place, unsigned *user)
{
	unsigned users = workload->options.users, all = workload->conversation_count * users, start = random_below(random, all);
	for (unsigned i = 0; i < all; i++) {
		*place = (start + i) % all / users;
		*user = (start + i) % all % users;
		if (workload->conversations[*place].comes[*user])
			return true;
	}
	return false;
}

static bool quitting(const struct workload *workload)
{
	return atomic_load(&workload->phase) == PHASE_QUIT;
}

/* In or out, however often the database has to be asked: it is the same once or twice. False: the run ended before. */
static bool change(struct workload *workload, PGconn *connection, unsigned place, unsigned user)
{
	struct conversation *conversation = &workload->conversations[place];
	bool in = !atomic_load(&conversation->is_member[user]);
	char sql[256];
	snprintf(sql, sizeof sql,
		in ? "INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (%lld, %lld, 'member') "
		     "ON CONFLICT DO NOTHING"
		   : "DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)conversation->id, (long long)workload->users[user]);
	if (!in)
		atomic_store(&conversation->is_member[user], false);
	note(workload, in ? HISTORY_ADDING : HISTORY_REMOVING, place, user);
	for (;;) {
		PGresult *result = PQexec(connection, sql);
		bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
		PQclear(result);
		if (done)
			break;
		if (quitting(workload))
			return false;
		pause_ms(AGAIN_MS);
		if (PQstatus(connection) != CONNECTION_OK)
			PQreset(connection);
	}
	note(workload, in ? HISTORY_ADDED : HISTORY_REMOVED, place, user);
	if (in)
		atomic_store(&conversation->is_member[user], true);
	return true;
}

void *administrator_main(void *argument)
{
	struct workload *workload = argument;
	uint64_t random = workload->seed ^ UINT64_C(0xad317157);
	PGconn *connection = PQconnectdb(workload->conninfo);
	int64_t every_ns = workload->options.changes_per_s ? 1000 * NS_PER_MS / workload->options.changes_per_s : 0;
	int64_t next_ns = history_now_ns() + every_ns;
	unsigned place, user;

	while (every_ns && !quitting(workload) && !atomic_load(&workload->changes_stopped)) {
		if (history_now_ns() < next_ns) {
			pause_ms(LOOK_MS);
			continue;
		}
		next_ns = history_now_ns() + every_ns;
		if (!pick_comer(workload, &random, &place, &user) || !change(workload, connection, place, user))
			break;
	}
	PQfinish(connection);
	atomic_store(&workload->changes_finished, true);
	return NULL;
}

/* ---- the end ---- */

#define PAGE "500"

/* Today by the function that the plugin's own fetches use, which is the same for every member; the request message.history
 * takes its place here. Adds pages first..last with their digest to `pages`. */
struct page {
	int64_t first, last;
	uint64_t digest;
};

static bool read_page(PGconn *connection, int64_t conversation, int64_t after, struct page *page)
{
	char sql[256];
	snprintf(sql, sizeof sql, "SELECT seq, body FROM chat.read_messages(%lld, %lld, %lld + " PAGE ")",
		(long long)conversation, (long long)(after + 1), (long long)after);
	PGresult *result = PQexec(connection, sql);
	bool good = PQresultStatus(result) == PGRES_TUPLES_OK;
	*page = (struct page){0};
	for (int i = 0; good && i < PQntuples(result); i++) {
		struct history_message message;
		int64_t seq = strtoll(PQgetvalue(result, i, 0), NULL, 10);
		history_read_body(PQgetvalue(result, i, 1), (size_t)PQgetlength(result, i, 1), &message);
		page->first = page->first ? page->first : seq;
		page->last = seq;
		page->digest = history_digest(page->digest, seq, &message);
	}
	PQclear(result);
	return good;
}

static bool catch_up(struct workload *workload, PGconn *connection, const struct conversation *conversation)
{
	struct page page;
	int64_t after = 0;
	while (read_page(connection, conversation->id, after, &page)) {
		if (page.first == 0)
			return true;
		for (unsigned i = 0; i < workload->options.users; i++) {
			if (atomic_load(&conversation->is_member[i]))
				history_add(&workload->history, &(struct history_event){.kind = HISTORY_CAUGHT_UP,
									.conversation = conversation->id,
									.user = workload->users[i],
									.seq = page.first,
									.last = page.last,
									.hash = page.digest});
		}
		after = page.last;
	}
	return false;
}

bool members_catch_up(struct workload *workload, PGconn *connection)
{
	for (unsigned i = 0; i < workload->conversation_count; i++) {
		if (!catch_up(workload, connection, &workload->conversations[i]))
			return false;
	}
	return true;
}
