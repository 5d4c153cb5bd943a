/* signing.h - keys, and signatures made and verified with them (RFC 7515, 7518, 8037), on OpenSSL's EVP.
 *
 * The algorithm belongs to the key and is fixed when the key is loaded; nothing that comes from outside chooses it.
 * A loaded key is immutable and may be used by several threads at once. OpenSSL's error queue of the calling thread is
 * left as it was: the broker's own TLS code reads it.
 */
#ifndef CHAT_COMMON_SIGNING_H
#define CHAT_COMMON_SIGNING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum signing_algorithm { SIGNING_ES256, SIGNING_RS256, SIGNING_EDDSA, SIGNING_HS256 };

#define SIGNING_SIGNATURE_MAX 1024 /* RS256 with an 8192 bit key; larger keys are refused */
#define SIGNING_SECRET_MIN 32      /* bytes; RFC 7518 section 3.2 */
#define SIGNING_FILE_MAX 16384     /* bytes; an 8192 bit RSA private key in PEM takes 6,400 */
#define SIGNING_ERROR_SIZE 512     /* for the `error` of signing_key_load and token_ring_load */

struct signing_key;

/* "ES256", ... as JOSE spells it. */
const char *signing_algorithm_name(enum signing_algorithm algorithm);

/* Loads one key. `spec` is a path of a PEM file (public or private: P-256, RSA of 2048..8192 bits, Ed25519) or "hs256:" and
 * the path of a file whose bytes (one trailing newline dropped) are the secret. Refused: not readable, no regular file, a
 * secret or a private key that group or others may read, any key that others may write, an encrypted key, any other kind of
 * key. The key id is the file's base name. Never asks for a passphrase on a terminal.
 * Returns a key to release with signing_key_free, or NULL with a line for a person in error (never key material; cut where
 * error_size is too small). */
struct signing_key *signing_key_load(const char *spec, char *error, size_t error_size);
/* The same from PEM text that came in another file, whose secrecy the caller has seen to; `id` becomes the key id. */
struct signing_key *signing_key_parse(const char *pem, size_t length, const char *id, char *error, size_t error_size);
/* NULL is allowed. */
void signing_key_free(struct signing_key *key);
const char *signing_key_id(const struct signing_key *key);
enum signing_algorithm signing_key_algorithm(const struct signing_key *key);
bool signing_key_can_sign(const struct signing_key *key);

#define SIGNING_POINT_SIZE 65
/* An ES256 key's public point, uncompressed (SEC 1 section 2.3.3), as browsers take it. False: another kind of key. */
__attribute__((warn_unused_result)) bool signing_key_point(const struct signing_key *key, uint8_t point[SIGNING_POINT_SIZE]);

/* JOSE signature formats: ES256 is 64 bytes r || s. Constant time where a secret is compared. No memory is a no. */
__attribute__((warn_unused_result)) bool signing_verify(
	const struct signing_key *key, const void *data, size_t data_length, const uint8_t *signature, size_t signature_length);
#define SIGNING_DIGEST_BYTES 32
/* SHA-256. False: no memory. */
__attribute__((warn_unused_result)) bool signing_digest(const void *data, size_t length, uint8_t digest[SIGNING_DIGEST_BYTES]);
/* False: a public key, or no memory. */
__attribute__((warn_unused_result)) bool signing_sign(const struct signing_key *key, const void *data, size_t data_length,
	uint8_t signature[SIGNING_SIGNATURE_MAX], size_t *signature_length);

#endif
