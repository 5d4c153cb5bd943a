/* table.c - see table.h. */
#include "table.h"

#include "uuid.h"

#include <stdlib.h>
#include <string.h>

static int64_t integer(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? 0 : strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static void read_uuid(const PGresult *result, int row, int column, uint8_t out[16])
{
	memset(out, 0, 16);
	if (!PQgetisnull(result, row, column) &&
		!uuid_parse(PQgetvalue(result, row, column), (size_t)PQgetlength(result, row, column), out))
		memset(out, 0, 16);
}

/* Runs `sql` with the array as $1. NULL: it failed. */
static PGresult *query(PGconn *connection, const char *sql, const char *array)
{
	PGresult *result = PQexecParams(connection, sql, 1, NULL, &array, NULL, NULL, 0);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	PQclear(result);
	return NULL;
}

static void *room(int rows, size_t size)
{
	void *made = calloc((size_t)rows + 1, size);
	if (!made)
		abort();
	return made;
}

/* The column committed_at is written before the commit; when that was, the server tells (track_commit_timestamp). A row that was
 * changed since then would have the time of its change. */
static bool read_rows(PGconn *connection, const char *conversations, struct table *table)
{
	PGresult *result = query(connection,
		"SELECT conversation_id, seq, sender_id,"
		" (extract(epoch FROM coalesce(pg_xact_commit_timestamp(xmin), committed_at)) * 1000000)::bigint, client_id, body"
		" FROM chat.messages WHERE conversation_id = ANY ($1::bigint[]) ORDER BY conversation_id, seq",
		conversations);
	if (!result)
		return false;
	table->rows = room(PQntuples(result), sizeof *table->rows);
	for (int i = 0; i < PQntuples(result); i++) {
		struct table_row *row = &table->rows[table->row_count++];
		row->conversation = integer(result, i, 0);
		row->seq = integer(result, i, 1);
		row->sender = integer(result, i, 2);
		row->committed_us = integer(result, i, 3);
		read_uuid(result, i, 4, row->id);
		history_read_body(PQgetvalue(result, i, 5), (size_t)PQgetlength(result, i, 5), &row->message);
	}
	PQclear(result);
	return true;
}

static bool read_conversations(PGconn *connection, const char *conversations, struct table *table)
{
	PGresult *result = query(connection,
		"SELECT id, last_seq FROM chat.conversations WHERE id = ANY ($1::bigint[]) ORDER BY id", conversations);
	if (!result)
		return false;
	table->conversations = room(PQntuples(result), sizeof *table->conversations);
	for (int i = 0; i < PQntuples(result); i++)
		table->conversations[table->conversation_count++] =
			(struct table_conversation){integer(result, i, 0), integer(result, i, 1)};
	PQclear(result);
	return true;
}

static bool read_refusals(PGconn *connection, const char *conversations, struct table *table)
{
	PGresult *result = query(connection,
		"SELECT user_id, conversation_id, client_id, code FROM chat.refusals"
		" WHERE conversation_id = ANY ($1::bigint[]) ORDER BY id",
		conversations);
	if (!result)
		return false;
	table->refusals = room(PQntuples(result), sizeof *table->refusals);
	for (int i = 0; i < PQntuples(result); i++) {
		struct table_refusal *refusal = &table->refusals[table->refusal_count++];
		refusal->user = integer(result, i, 0);
		refusal->conversation = integer(result, i, 1);
		read_uuid(result, i, 2, refusal->id);
		snprintf(refusal->code, sizeof refusal->code, "%s", PQgetvalue(result, i, 3));
	}
	PQclear(result);
	return true;
}

static bool read_watermarks(PGconn *connection, const char *conversations, struct table *table)
{
	PGresult *result = query(connection,
		"SELECT user_id, conversation_id, delivered_seq, read_seq FROM chat.participant_watermarks"
		" WHERE conversation_id = ANY ($1::bigint[]) ORDER BY 2, 1",
		conversations);
	if (!result)
		return false;
	table->watermarks = room(PQntuples(result), sizeof *table->watermarks);
	for (int i = 0; i < PQntuples(result); i++)
		table->watermarks[table->watermark_count++] = (struct table_watermark){
			integer(result, i, 0), integer(result, i, 1), integer(result, i, 2), integer(result, i, 3)};
	PQclear(result);
	return true;
}

static bool run(PGconn *connection, const char *sql)
{
	PGresult *result = PQexec(connection, sql);
	bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
	PQclear(result);
	return done;
}

/* {1,2,3}; to free(). */
static char *array_of(const int64_t *values, size_t count)
{
	size_t size = count * 21 + 3, length = 1;
	char *text = room((int)size, 1);
	text[0] = '{';
	for (size_t i = 0; i < count; i++)
		length += (size_t)snprintf(text + length, size - length, i ? ",%lld" : "%lld", (long long)values[i]);
	text[length] = '}';
	return text;
}

bool table_read(PGconn *connection, const int64_t *conversations, size_t count, struct table *table)
{
	char *array = array_of(conversations, count);
	*table = (struct table){0};
	bool good = run(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") && read_rows(connection, array, table) &&
		    read_conversations(connection, array, table) && read_refusals(connection, array, table) &&
		    read_watermarks(connection, array, table) && run(connection, "COMMIT");
	free(array);
	if (!good)
		table_free(table);
	return good;
}

struct table_presence *table_read_presence(PGconn *connection, const int64_t *users, size_t count)
{
	char *array = array_of(users, count);
	PGresult *result = query(connection,
		"SELECT asked, p.status IS NOT DISTINCT FROM 'online', (extract(epoch FROM p.last_seen_at) * 1000000)::bigint"
		" FROM unnest($1::bigint[]) WITH ORDINALITY AS a (asked, i) LEFT JOIN chat.current_presence p ON p.user_id = "
		"asked"
		" ORDER BY i",
		array);
	free(array);
	if (!result)
		return NULL;
	struct table_presence *presence = room(PQntuples(result), sizeof *presence);
	for (int i = 0; i < PQntuples(result); i++)
		presence[i] = (struct table_presence){
			integer(result, i, 0), strcmp(PQgetvalue(result, i, 1), "t") == 0, integer(result, i, 2)};
	PQclear(result);
	return presence;
}

void table_free(struct table *table)
{
	free(table->rows);
	free(table->conversations);
	free(table->refusals);
	free(table->watermarks);
	free(table->presence);
	*table = (struct table){0};
}
