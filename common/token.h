/* token.h - the JWTs this system accepts and makes (RFC 7519, 8725), and the ring of keys they are checked with.
 *
 * Checking is pure: the time is an argument. A token is at most TOKEN_MAX bytes, compact serialisation, strict
 * base64url, strict JSON. Header: `alg` must be the algorithm of the key; `kid` (if present) must name one of ours; with
 * no `kid` every key of that algorithm is tried; `typ` is absent or "JWT"; `crit` refuses; jku, x5u, jwk, x5c are ignored.
 */
#ifndef CHAT_COMMON_TOKEN_H
#define CHAT_COMMON_TOKEN_H

#include "signing.h"

#define TOKEN_MAX 4096 /* bytes; tokens in the field have 250 to 1,500 */
#define TOKEN_LEEWAY_S 60
#define TOKEN_KEYS_MAX 16

struct token_ring; /* immutable after loading; share it between threads, replace it whole */

/* `specs`: comma-separated signing_key_load() specs, blanks around each allowed. Two keys with one id are refused. Returns a
 * ring of at least one key to release with token_ring_free, or NULL with a line for a person in error. */
struct token_ring *token_ring_load(const char *specs, char *error, size_t error_size);
/* NULL is allowed. */
void token_ring_free(struct token_ring *ring);

struct token_rules {
	const char *issuer;   /* NULL: not checked */
	const char *audience; /* NULL: not checked; `aud` may be a string or an array that holds it */
};

struct token_claims {
	int64_t user_id;      /* `sub`, canonical decimal, 1..2^53-1 */
	int64_t device_id;    /* `device`, an integer; 0 where absent */
	int64_t expires_at_s; /* `exp` */
	int64_t issued_at_s;  /* `iat`; 0 where absent */
	bool device_token;    /* `typ` claim is "device"; then device_id is not 0 */
};

enum token_result {
	TOKEN_OK,
	/* Does not look like one at all: not three parts, of which the first begins as a JSON object does in base64url and the
	 * second is not empty. Another plugin's password. */
	TOKEN_NOT_A_TOKEN,
	TOKEN_TOO_LONG,
	TOKEN_MALFORMED,
	TOKEN_WRONG_ALGORITHM,
	TOKEN_UNKNOWN_KEY,
	TOKEN_BAD_SIGNATURE,
	TOKEN_EXPIRED,
	TOKEN_NOT_YET_VALID, /* `nbf` or `iat` in the future */
	TOKEN_NO_EXPIRY,
	TOKEN_WRONG_ISSUER,
	TOKEN_WRONG_AUDIENCE,
	TOKEN_BAD_SUBJECT,
	TOKEN_BAD_DEVICE,
	TOKEN_RESULTS
};

/* A phrase for a log line, no secret in it: "the token has expired". */
const char *token_result_text(enum token_result result);

/* Claims are looked at only after the signature was found good. Fills *claims where it returns TOKEN_OK, and leaves it alone
 * otherwise. The token is valid until claims->expires_at_s + TOKEN_LEEWAY_S. */
__attribute__((warn_unused_result)) enum token_result token_check(const char *token, size_t length, const struct token_ring *ring,
	const struct token_rules *rules, int64_t now_s, struct token_claims *claims);

/* Appends a token signed with `key`. issuer, audience may be NULL; device_id 0: no such claim; issued_at_s 0: likewise. False,
 * and `out` as it was: claims that token_check would refuse, longer than TOKEN_MAX, no memory, a full buffer, or a key that
 * cannot sign. */
struct buffer;
__attribute__((warn_unused_result)) bool token_make(
	const struct signing_key *key, const struct token_rules *rules, const struct token_claims *claims, struct buffer *out);

#endif
