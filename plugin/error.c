/* error.c - the error codes of the contract, in one table.
 *
 * Pure; any thread. A new code: the enum, one line here, the list in the reference. The names are what clients and
 * the database read, so a name that was released does not change.
 */
#include "error.h"

#include <string.h>

struct error_row {
	const char *name;
	const char *message;
	bool transient;
};

static const struct error_row rows[ERROR_CODES] = {
	[ERROR_NONE] = {"none", "no error", false},
	[ERROR_INVALID_JSON] = {"invalid_json", "the payload is not valid JSON", false},
	[ERROR_INVALID_FIELD] = {"invalid_field", "a field is missing, unknown or has a wrong value", false},
	[ERROR_TOO_LONG] = {"too_long", "longer than this server accepts", false},
	[ERROR_NOT_FOUND] = {"not_found", "no such thing, or it is not yours to see", false},
	[ERROR_FORBIDDEN] = {"forbidden", "your role does not allow this", false},
	[ERROR_BLOCKED] = {"blocked", "one of you has blocked the other", false},
	[ERROR_CONFLICT] = {"conflict", "this id was already used with other content", false},
	[ERROR_RATE_LIMITED] = {"rate_limited", "too fast; try again later", true},
	[ERROR_OVERLOADED] = {"overloaded", "the server has too much to do; try again later", true},
	[ERROR_UNAVAILABLE] = {"unavailable", "not available at the moment; try again later", true},
	[ERROR_QUOTA_EXCEEDED] = {"quota_exceeded", "the limit for this account is reached", false},
	[ERROR_UNAUTHENTICATED] = {"unauthenticated", "not signed in, or no longer", false},
	[ERROR_INTERNAL] = {"internal", "an error of the server", false},
};

static const struct error_row *row_of(enum error_code code)
{
	return (unsigned)code < ERROR_CODES ? &rows[code] : &rows[ERROR_INTERNAL];
}

const char *error_code_name(enum error_code code)
{
	return row_of(code)->name;
}

enum error_code error_code_from_name(const char *name, size_t length)
{
	/* From 1: "none" is no error, and nobody reports it by name. */
	for (unsigned code = ERROR_NONE + 1; code < ERROR_CODES; code++) {
		if (strlen(rows[code].name) == length && memcmp(rows[code].name, name, length) == 0) {
			return (enum error_code)code;
		}
	}
	return ERROR_INTERNAL;
}

bool error_code_is_transient(enum error_code code)
{
	return row_of(code)->transient;
}

const char *error_code_message(enum error_code code)
{
	return row_of(code)->message;
}
