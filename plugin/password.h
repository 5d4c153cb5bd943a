/* password.h - what is a password, and the one form in which it is hashed. Pure. */
#ifndef CHAT_PLUGIN_PASSWORD_H
#define CHAT_PLUGIN_PASSWORD_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>

#define PASSWORD_BYTES_MIN 8
#define PASSWORD_BYTES_MAX 1000

bool password_length_ok(size_t length);
/* Appends the password as SASLprep has it (RFC 4013): NFKC, so that it is the same however a keyboard composes it; every space an
 * ASCII one; what is not seen left out. Text that SASLprep does not allow, or that is empty by it, is taken as it is: so does
 * PostgreSQL, whose verifiers therefore serve here. Not done of RFC 4013: what Unicode 3.2 did not know yet is allowed.
 * False: no memory. */
__attribute__((warn_unused_result)) bool password_prepare(const char *password, size_t length, struct buffer *out);

#endif
