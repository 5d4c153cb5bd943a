/* statements.c - see statements.h. */
#include "statements.h"

const struct database_statement statements[STATEMENTS] = {
	[STATEMENT_VERSION] = {"version", "SELECT chat.version()"},
	[STATEMENT_CLAIM_BROKER] = {"claim_broker", "SELECT chat.claim_broker()"},
	/* spool, slots -> slot, position */
	[STATEMENT_READ_POSITIONS] = {"read_positions",
		"SELECT slot, position_committed FROM chat.read_positions($1::uuid, $2::smallint[])"},
	/* spool, slots, from, to; per message: conversation, sender, device, id, hash, type, body, reply_to, ref, extra,
	 * sent_at, expires_at -> ordinal, status, seq, sent_at, code, members_version */
	[STATEMENT_APPEND_MESSAGES] = {"append_messages",
		"SELECT ordinal, status, seq, sent_at, code, members_version FROM chat.append_messages($1::uuid, $2::smallint[],"
		" $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], $9::uuid[], $10::text[],"
		" $11::text[], $12::bigint[], $13::bigint[], $14::jsonb[], $15::timestamptz[], $16::timestamptz[])"},
	/* spool, slots, from, to; per mark: conversation, user, device, delivered, read, at
	 * -> ordinal, code, delivered, read, changed, members_version */
	[STATEMENT_APPEND_MARKS] = {"append_marks",
		"SELECT ordinal, code, delivered_seq, read_seq, changed, members_version FROM chat.append_marks($1::uuid,"
		" $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], "
		"$9::bigint[],"
		" $10::timestamptz[])"},
	/* conversation, sender, id, hash, sent_at: what became of messages whose commit was not heard; columns as append_messages
	 */
	[STATEMENT_SETTLE_MESSAGES] = {"settle_messages", "SELECT ordinal, status, seq, sent_at, code, members_version FROM "
							  "chat.settle_messages($1::bigint[], $2::bigint[],"
							  " $3::uuid[], $4::uuid[], $5::timestamptz[])"},
	/* spool, slots, from, to; conversation, sender, id, code: messages the tables will never take */
	[STATEMENT_REFUSE_MESSAGES] = {"refuse_messages",
		"SELECT chat.refuse_messages($1::uuid, $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],"
		" $7::uuid[], $8::text[])"},
	/* user, device, create -> ordinal, code, conversations, roles, members_versions, last_seqs */
	[STATEMENT_OPEN_SESSIONS] = {"open_sessions",
		"SELECT ordinal, code, conversations, roles, members_versions, last_seqs FROM chat.open_sessions($1::bigint[],"
		" $2::bigint[], $3::boolean)"},
	/* conversation, user -> ordinal, role, members_version, last_seq, public */
	[STATEMENT_LOAD_MEMBERSHIPS] = {"load_memberships",
		"SELECT ordinal, role, members_version, last_seq, public FROM chat.load_memberships($1::bigint[], $2::bigint[])"},
	[STATEMENT_PUBLIC_CHANNELS] = {"public_channels", "SELECT chat.public_channels()"},
	/* conversation, first, last -> seq, id, sender, sent_at, type, body, reply_to, ref, extra, expires_at, members_version */
	[STATEMENT_READ_MESSAGES] = {"read_messages",
		"SELECT seq, client_id, sender_id, sent_at, type, body, reply_to, ref, extra, expires_at, members_version"
		" FROM chat.read_messages($1::bigint, $2::bigint, $3::bigint)"},
	/* -> name, cost */
	[STATEMENT_READ_METHODS] = {"read_methods", "SELECT name, cost FROM chat_api.read_methods()"},
	/* options that methods depend on, as JSON */
	[STATEMENT_CONFIGURE] = {"configure", "SELECT chat_api.configure($1::text::jsonb)"},
	/* method, user, device, client id, parameters -> the answer as JSON text */
	[STATEMENT_CALL] = {"call", "SELECT chat_api.call($1::text, $2::bigint, $3::bigint, $4::text, $5::text::jsonb)"},
#ifdef CHAT_TEST_FAULTS
	[STATEMENT_TEST_BEGIN] = {"begin", "BEGIN"},
	[STATEMENT_TEST_COMMIT] = {"commit", "COMMIT"},
#endif
};
