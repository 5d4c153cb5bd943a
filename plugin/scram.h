/* scram.h - SCRAM-SHA-256 (RFC 5802, 7677): verifiers of passwords, and the server's side of the exchange. Pure, but for what
 * is asked of the caller: salts and nonces are arguments.
 *
 * A verifier is kept as PostgreSQL keeps it (src/common/scram-common.c): SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
 * The functions that say so take a quarter of a second of processor time each at SCRAM_ITERATIONS: never on the broker thread.
 *
 *   client                                        server
 *   n,,n=alice,r=CLIENT                    -->    scram_read_first
 *                                          <--    r=CLIENTSERVER,s=SALT,i=600000
 *   c=biws,r=CLIENTSERVER,p=PROOF          -->    scram_read_final
 *                                          <--    v=SIGNATURE
 *
 * Channel binding is not offered: the broker ends TLS and shows a plugin nothing of it.
 */
#ifndef CHAT_PLUGIN_SCRAM_H
#define CHAT_PLUGIN_SCRAM_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCRAM_METHOD "SCRAM-SHA-256"
#define SCRAM_ITERATIONS 600000 /* OWASP's figure for PBKDF2-HMAC-SHA256 (2023) */
#define SCRAM_KEY_BYTES 32
#define SCRAM_SALT_BYTES 16 /* of those made here */
#define SCRAM_SALT_BYTES_MAX 64
#define SCRAM_TEXT_MAX 256 /* of a verifier as text */
#define SCRAM_NONCE_BYTES 18
/* Of one message of the client's: a name of 50 characters, a nonce; libraries' nonces have 20 to 60 bytes. */
#define SCRAM_MESSAGE_MAX 1024

struct scram_verifier {
	uint32_t iterations;
	uint32_t salt_length;
	uint8_t salt[SCRAM_SALT_BYTES_MAX];
	uint8_t stored_key[SCRAM_KEY_BYTES];
	uint8_t server_key[SCRAM_KEY_BYTES];
};

/* Reads the text form, strictly. iterations 4,096 to 10,000,000. */
__attribute__((warn_unused_result)) bool scram_verifier_parse(const char *text, size_t length, struct scram_verifier *out);
bool scram_verifier_equal(const struct scram_verifier *a, const struct scram_verifier *b);
bool scram_verifier_format(const struct scram_verifier *verifier, struct buffer *out);
/* What is slow calls this after each SCRAM_REST_AFTER iterations, some 0.3 ms of work; NULL: never. */
typedef void scram_rest(void);
#define SCRAM_REST_AFTER 2000

/* Slow. The password is prepared (password_prepare). False: no memory. */
__attribute__((warn_unused_result)) bool scram_verifier_make(const char *password, size_t length, const uint8_t *salt,
	uint32_t salt_length, uint32_t iterations, scram_rest *rest, struct scram_verifier *out);
/* Slow, and as slow for every verifier: one with fewer iterations than SCRAM_ITERATIONS is followed by as many as are missing.
 * Compares in constant time. */
__attribute__((warn_unused_result)) bool scram_verifier_matches(
	const struct scram_verifier *verifier, const char *password, size_t length, scram_rest *rest);
/* ---- the exchange ---- */

struct scram_exchange {
	char name[SCRAM_MESSAGE_MAX]; /* of the user, decoded */
	size_t name_length;
	char header[4]; /* gs2-header: "n,," or "y,," */
	char bare[SCRAM_MESSAGE_MAX];
	size_t bare_length; /* client-first-message-bare */
	char nonce[SCRAM_MESSAGE_MAX * 2];
	size_t nonce_length;
	char first[SCRAM_MESSAGE_MAX * 3];
	size_t first_length; /* server-first-message */
};

/* client-first-message. False: malformed, or asks for what is not offered (channel binding, another's rights, extensions). */
__attribute__((warn_unused_result)) bool scram_read_first(const char *message, size_t length, struct scram_exchange *out);
/* Makes exchange->first, to be sent. */
__attribute__((warn_unused_result)) bool scram_write_first(
	struct scram_exchange *exchange, const struct scram_verifier *verifier, const uint8_t nonce[SCRAM_NONCE_BYTES]);
/* client-final-message. True: the client knows the password; `final` gets the server-final-message. */
#define SCRAM_FINAL_MAX 64
__attribute__((warn_unused_result)) bool scram_read_final(const struct scram_exchange *exchange,
	const struct scram_verifier *verifier, const char *message, size_t length, char final[SCRAM_FINAL_MAX],
	size_t *final_length);

#endif
