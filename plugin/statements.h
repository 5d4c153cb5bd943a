/* statements.h - everything this plugin may ask of the database, in one table.
 *
 * Each is a call of a function of the schema; the rules live there. To add one: a line here, a line in the enum.
 */
#ifndef CHAT_PLUGIN_STATEMENTS_H
#define CHAT_PLUGIN_STATEMENTS_H

#include "database.h"
#include "error.h"

/* The schema that this plugin needs: the number of the migration that brought the last of what it calls. A newer one will do. */
#define STATEMENTS_SCHEMA_VERSION 21

enum statement {
	STATEMENT_VERSION,
	STATEMENT_CLAIM_BROKER,
	STATEMENT_READ_POSITIONS,
	STATEMENT_APPEND_MESSAGES,
	STATEMENT_APPEND_MARKS,
	STATEMENT_SETTLE_MESSAGES,
	STATEMENT_REFUSE_MESSAGES,
	STATEMENT_READ_CONTENT_RULES,
	STATEMENT_CONVERSATION_TYPES,
	STATEMENT_REJECT_MESSAGES,
	STATEMENT_FLAG_MESSAGES,
	STATEMENT_OPEN_SESSIONS,
	STATEMENT_LOAD_MEMBERSHIPS,
	STATEMENT_PUBLIC_CHANNELS,
	STATEMENT_READ_MESSAGES,
	STATEMENT_READ_METHODS,
	STATEMENT_CONFIGURE,
	STATEMENT_CALL,
	STATEMENT_READ_INBOX,
	STATEMENT_INDEX_MESSAGES,
	STATEMENT_TIDY,
	STATEMENT_LIFT_SUSPENSIONS,
	STATEMENT_SWEEP,
	STATEMENT_TRIM_LOGS,
	STATEMENT_FIND_VERIFIERS,
	STATEMENT_READ_VERIFIER,
	STATEMENT_CHECK_REGISTRATION,
	STATEMENT_REGISTER_ACCOUNT,
	STATEMENT_OPEN_DEVICE,
	STATEMENT_REFRESH_DEVICE,
	STATEMENT_REVOKE_DEVICE,
	STATEMENT_CHANGE_VERIFIER,
	STATEMENT_OPEN_PRESENCE,
	STATEMENT_WRITE_PRESENCE,
	STATEMENT_CLOSE_PRESENCE,
	STATEMENT_ASK_PRESENCE,
	STATEMENT_READ_DEVICE_PRESENCE,
#ifdef CHAT_TEST_FAULTS
	STATEMENT_TEST_BEGIN,
	STATEMENT_TEST_COMMIT,
	STATEMENT_TEST_POSITIONS,
#endif
	STATEMENTS
};

extern const struct database_statement statements[STATEMENTS];

/* What it means for who asked that the server refused a statement as a whole. The functions answer expected errors themselves,
 * so this is the server's own trouble (unavailable), or a fault (internal). */
enum error_code statement_refusal(const char *sqlstate);

#endif
