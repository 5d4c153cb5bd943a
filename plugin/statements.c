/* statements.c - see statements.h. */
#include "statements.h"

#include <string.h>

const struct database_statement statements[STATEMENTS] = {
	[STATEMENT_VERSION] = {"version", "SELECT chat.version()"},
	[STATEMENT_CLAIM_BROKER] = {"claim_broker", "SELECT chat.claim_broker()"},
	/* spool, slots -> slot, position */
	[STATEMENT_READ_POSITIONS] = {"read_positions",
		"SELECT slot, position_committed FROM chat.read_positions($1::uuid, $2::smallint[])"},
	/* spool, slots, from, to; per message: conversation, sender, device, id, hash, type, body, reply_to, ref, extra,
	 * sent_at, expires_at; edit window in s -> ordinal, status, seq, sent_at, code, members_version, expires_at */
	[STATEMENT_APPEND_MESSAGES] = {"append_messages",
		"SELECT ordinal, status, seq, sent_at, code, members_version, expires_at FROM chat.append_messages($1::uuid,"
		" $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], $9::uuid[],"
		" $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::jsonb[], $15::timestamptz[], $16::timestamptz[],"
		" $17::bigint)"},
	/* The same for one message. OFFSET 0: called once, not once a column. */
	[STATEMENT_APPEND_MESSAGE] = {"append_message",
		"SELECT 1, (a).status, (a).seq, (a).sent_at, (a).code, (a).members_version, (a).expires_at FROM (SELECT"
		" chat.append_message($1::uuid, $2::bigint::smallint, $3::bigint, $4::bigint, $5::bigint, $6::bigint,"
		" $7::bigint, $8::uuid, $9::uuid, $10::text, $11::text, $12::bigint, $13::bigint, $14::text::jsonb,"
		" $15::timestamptz, $16::timestamptz, $17::bigint) AS a OFFSET 0) AS one"},
	/* spool, slots, from, to; per mark: conversation, user, device, delivered, read, at; whether they come again
	 * -> ordinal, code, delivered, read, changed, members_version, shows */
	[STATEMENT_APPEND_MARKS] = {"append_marks",
		"SELECT ordinal, code, delivered_seq, read_seq, changed, members_version, shows FROM chat.append_marks($1::uuid,"
		" $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], "
		"$9::bigint[],"
		" $10::timestamptz[], $11::boolean)"},
	/* conversation, sender, id, hash, sent_at: what became of messages whose commit was not heard; columns as append_messages
	 */
	[STATEMENT_SETTLE_MESSAGES] = {"settle_messages",
		"SELECT ordinal, status, seq, sent_at, code, members_version, expires_at FROM chat.settle_messages($1::bigint[],"
		" $2::bigint[], $3::uuid[], $4::uuid[], $5::timestamptz[])"},
	/* spool, slots, from, to; conversation, sender, device, id, sent_at, code: messages the tables will never take */
	[STATEMENT_REFUSE_MESSAGES] = {"refuse_messages",
		"SELECT chat.refuse_messages($1::uuid, $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],"
		" $7::bigint[], $8::uuid[], $9::timestamptz[], $10::text[])"},
	/* -> id, pattern, action, ignore_case, conversation type, conversation (0: any) */
	[STATEMENT_READ_CONTENT_RULES] = {"read_content_rules",
		"SELECT id, pattern, action, ignore_case, conversation_type, conversation_id FROM chat.read_content_rules()"},
	/* conversation -> type */
	[STATEMENT_CONVERSATION_TYPES] = {"conversation_types",
		"SELECT type FROM chat.conversation_types($1::bigint[]) ORDER BY ordinal"},
	/* spool, slots, from, to; conversation, sender, device, id, hash, sent_at: messages that a content rule rejects; columns
	 * as append_messages */
	[STATEMENT_REJECT_MESSAGES] = {"reject_messages",
		"SELECT ordinal, status, seq, sent_at, code, members_version FROM chat.reject_messages($1::uuid, $2::smallint[],"
		" $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], $9::uuid[], "
		"$10::timestamptz[])"},
	/* conversation, sender, id, rule: messages of this transaction that a content rule flags */
	[STATEMENT_FLAG_MESSAGES] = {"flag_messages",
		"SELECT chat.flag_messages($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[])"},
	/* user, device, create -> ordinal, code, conversations, roles, members_versions, last_seqs, hides_reads, first_seqs */
	[STATEMENT_OPEN_SESSIONS] = {"open_sessions",
		"SELECT ordinal, code, conversations, roles, members_versions, last_seqs, hides_reads, first_seqs"
		" FROM chat.open_sessions($1::bigint[], $2::bigint[], $3::boolean)"},
	/* conversation, user -> ordinal, role, members_version, last_seq, public, first_seq */
	[STATEMENT_LOAD_MEMBERSHIPS] = {"load_memberships", "SELECT ordinal, role, members_version, last_seq, public, first_seq "
							    "FROM chat.load_memberships($1::bigint[], $2::bigint[])"},
	[STATEMENT_PUBLIC_CHANNELS] = {"public_channels", "SELECT chat.public_channels()"},
	/* conversation, first, last -> seq, id, sender, sent_at, type, body, reply_to, ref, extra, expires_at, members_version */
	[STATEMENT_READ_MESSAGES] = {"read_messages",
		"SELECT seq, client_id, sender_id, sent_at, type, body, reply_to, ref, extra, expires_at, members_version"
		" FROM chat.read_messages($1::bigint, $2::bigint, $3::bigint)"},
	/* -> name, cost */
	[STATEMENT_READ_METHODS] = {"read_methods", "SELECT name, cost FROM chat_api.read_methods()"},
	/* options that methods depend on, as JSON */
	[STATEMENT_CONFIGURE] = {"configure", "SELECT chat_api.configure($1::text::jsonb)"},
	/* method, user, device, client id, parameters -> the answer as JSON text, and whether members or a conversation changed
	 */
	[STATEMENT_CALL] = {"call", "SELECT answer, coalesce(current_setting('chat.announced', true), '') <> ''"
				    " FROM chat_api.call($1::text, $2::bigint, $3::bigint, $4::text, $5::text::jsonb) AS answer"},
	/* events -> id, user, payload */
	[STATEMENT_READ_INBOX] = {"read_inbox", "SELECT id, user_id, payload FROM chat.read_inbox($1::bigint[])"},
	/* number, how many at most -> the highest number and user 0; then number, user of those behind it */
	[STATEMENT_MISSED_INBOX] = {"missed_inbox", "SELECT id, user_id FROM chat.missed_inbox($1::bigint, $2::bigint::integer)"},
	/* conversations, how many entries at most -> how many they were, conversations that could not be had */
	[STATEMENT_INDEX_MESSAGES] = {"index_messages",
		"SELECT indexed, passed_over FROM chat.index_messages($1::bigint[], $2::bigint::integer)"},
	/* the conversation to go on after, how many entries at most -> the conversation to go on after, -1: done; as before */
	[STATEMENT_INDEX_MISSED] = {"index_missed",
		"SELECT after, passed_over FROM chat.index_missed($1::bigint, $2::bigint::integer)"},
	[STATEMENT_TIDY] = {"tidy", "SELECT chat.tidy()"},
	/* -> how many */
	[STATEMENT_LIFT_SUSPENSIONS] = {"lift_suspensions", "SELECT chat.lift_suspensions()"},
	/* how many messages at most -> how many had expired and were erased */
	[STATEMENT_SWEEP] = {"sweep", "SELECT chat.sweep($1::bigint::integer)"},
	/* days, the conversation to go on after, how many entries at most -> the conversation to go on after, -1: done */
	[STATEMENT_TRIM_LOGS] = {"trim_logs", "SELECT chat.trim_logs($1::bigint, $2::bigint, $3::bigint::integer)"},
	/* how many entries at most -> how many they were */
	[STATEMENT_REMOVE_ABANDONED] = {"remove_abandoned", "SELECT chat.remove_abandoned($1::bigint::integer)"},
	/* names -> ordinal, what each is unique by, user, verifier */
	[STATEMENT_FIND_VERIFIERS] = {"find_verifiers",
		"SELECT ordinal, name_key, user_id, verifier FROM chat.find_verifiers($1::text[])"},
	/* user -> what its name is unique by, verifier */
	[STATEMENT_READ_VERIFIER] = {"read_verifier", "SELECT name_key, verifier FROM chat.read_verifier($1::bigint)"},
	/* name, e-mail -> code, field */
	[STATEMENT_CHECK_REGISTRATION] = {"check_registration",
		"SELECT code, field FROM chat.check_registration($1::text, $2::text)"},
	/* name, e-mail, display name, verifier, device's name and type -> code, field, user, device */
	[STATEMENT_REGISTER_ACCOUNT] = {"register_account",
		"SELECT code, field, user_id, device_id FROM chat.register_account($1::text, $2::text, $3::text, $4::text, "
		"$5::text, $6::text)"},
	/* user, the verifier that the password was checked against, name, type -> device; NULL: it is another one by now */
	[STATEMENT_SIGN_IN_DEVICE] = {"sign_in_device", "SELECT chat.sign_in_device($1::bigint, $2::text, $3::text, $4::text)"},
	[STATEMENT_REFRESH_DEVICE] = {"refresh_device", "SELECT chat.refresh_device($1::bigint, $2::bigint)"},
	/* user, own device, the device -> whether it was signed in; no row: the caller is not */
	[STATEMENT_REVOKE_DEVICE] = {"revoke_device", "SELECT chat.revoke_device($1::bigint, $2::bigint, $3::bigint)"},
	/* user, own device, verifier before and now -> whether it was that; no row: the caller is signed out */
	[STATEMENT_CHANGE_VERIFIER] = {"change_verifier",
		"SELECT chat.change_verifier($1::bigint, $2::bigint, $3::text, $4::text)"},
	/* broker -> how many users its last run had left */
	[STATEMENT_OPEN_PRESENCE] = {"open_presence", "SELECT chat.open_presence($1::uuid)"},
	/* broker; per user: status, text, last seen; devices that are active, that are no longer -> false: taken for dead
	   meanwhile */
	[STATEMENT_WRITE_PRESENCE] = {"write_presence", "SELECT chat.write_presence($1::uuid, $2::bigint[], $3::text[], "
							"$4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[])"},
	[STATEMENT_CLOSE_PRESENCE] = {"close_presence", "SELECT chat.close_presence($1::uuid)"},
	/* watchers, users -> ordinal of those that may, last seen */
	[STATEMENT_ASK_PRESENCE] = {"ask_presence",
		"SELECT ordinal, last_seen_at FROM chat.ask_presence($1::bigint[], $2::bigint[])"},
	/* users -> user, device, client id, status, text, when */
	[STATEMENT_READ_DEVICE_PRESENCE] = {"read_device_presence",
		"SELECT user_id, device_id, client_id, status, text, set_at FROM chat.read_device_presence($1::bigint[])"},
	/* user, verifier before and now -> whether it was that */
	[STATEMENT_UPGRADE_VERIFIER] = {"upgrade_verifier", "SELECT chat.upgrade_verifier($1::bigint, $2::text, $3::text)"},
#ifdef CHAT_TEST_FAULTS
	[STATEMENT_TEST_BEGIN] = {"begin", "BEGIN"},
	[STATEMENT_TEST_COMMIT] = {"commit", "COMMIT"},
	[STATEMENT_TEST_POSITIONS] = {"positions", "SELECT FROM chat.append_marks($1::uuid, $2::smallint[], $3::bigint[], "
						   "$4::bigint[], '{}', '{}', '{}', '{}', '{}', '{}')"},
#endif
};

enum error_code statement_refusal(const char *sqlstate)
{
	/* PostgreSQL appendix A: transaction state (read only), rollback, resources, not in a state for it, an operator, a
	 * system. */
	static const char *const classes[] = {"25", "40", "53", "55", "57", "58"};
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		if (strncmp(sqlstate, classes[i], 2) == 0) {
			return ERROR_UNAVAILABLE;
		}
	}
	return ERROR_INTERNAL;
}
