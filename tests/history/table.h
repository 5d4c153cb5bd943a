/* table.h - what the database holds at the end of a run: the other half of what the judge looks at. */
#ifndef CHAT_TESTS_TABLE_H
#define CHAT_TESTS_TABLE_H

#include "history.h"

#include <libpq-fe.h>

struct table_row {
	int64_t conversation, seq;
	int64_t sender;       /* 0: a system entry */
	int64_t committed_us; /* wall clock, of its transaction's COMMIT */
	uint8_t id[16];       /* zeros: none */
	struct history_message message;
};

struct table_conversation {
	int64_t id;
	int64_t last_seq; /* its counter */
};

struct table_refusal {
	int64_t user, conversation;
	uint8_t id[16];
	char code[22];
};

struct table_watermark {
	int64_t user, conversation;
	int64_t delivered, read;
};

/* As others see a user. */
struct table_presence {
	int64_t user;
	bool is_online;
	int64_t last_seen_us; /* wall clock; 0: never */
};

struct table {
	struct table_row *rows;
	size_t row_count;
	struct table_conversation *conversations;
	size_t conversation_count;
	struct table_refusal *refusals;
	size_t refusal_count;
	struct table_watermark *watermarks;
	size_t watermark_count;
	struct table_presence *presence; /* by workload_read_table alone: from before the clients went */
	size_t presence_count;
};

/* Everything about these conversations, from one snapshot. False: the connection's error says why. */
bool table_read(PGconn *connection, const int64_t *conversations, size_t count, struct table *table);
/* How these users are seen now: a row for each, in their order; to free(). NULL: the connection's error says why. */
struct table_presence *table_read_presence(PGconn *connection, const int64_t *users, size_t count);
void table_free(struct table *table);

#endif
