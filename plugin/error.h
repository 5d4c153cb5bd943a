/* error.h - the error codes of the contract, in one list. */
#ifndef CHAT_PLUGIN_ERROR_H
#define CHAT_PLUGIN_ERROR_H

#include <stdbool.h>
#include <stddef.h>

enum error_code {
	ERROR_NONE,
	ERROR_INVALID_JSON,
	ERROR_INVALID_FIELD,
	ERROR_TOO_LONG,
	ERROR_NOT_FOUND, /* does not exist or is none of the caller's business: always the same */
	ERROR_FORBIDDEN, /* visible, but the role does not allow it */
	ERROR_BLOCKED,
	ERROR_CONFLICT,
	ERROR_RATE_LIMITED,
	ERROR_OVERLOADED,
	ERROR_UNAVAILABLE,
	ERROR_QUOTA_EXCEEDED,
	ERROR_UNAUTHENTICATED,
	ERROR_INTERNAL,
	ERROR_CODES
};

const char *error_code_name(enum error_code code);
/* ERROR_INTERNAL for a name that is not in the list (the database speaks names). */
enum error_code error_code_from_name(const char *name, size_t length);
/* rate_limited, overloaded, unavailable: the sender shall keep what it has and send it again. */
bool error_code_is_transient(enum error_code code);
/* When to ask again after `overloaded` or `unavailable`; chat_api.call says the same of its own. */
#define ERROR_RETRY_MS 1000
/* The default sentence for a person; says no user's data. */
const char *error_code_message(enum error_code code);

/* What a rule says no with. `field` and `message` are static text or empty; never a user's data. */
struct error_detail {
	enum error_code code;
	const char *field;   /* NULL: none */
	const char *message; /* NULL: error_code_message(code) */
};

#endif
