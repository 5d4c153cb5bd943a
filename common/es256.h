/* es256.h - ECDSA over P-256 (FIPS 186-5 section 6.4.2), verified with a table made once for the key. Any thread.
 *
 * A verification multiplies two points: the curve's generator, for which OpenSSL ships a table, and the key, for which
 * ECDSA_verify() has none: that is four fifths of its time. Here the key gets such a table too, OpenSSL's own
 * (EC_GROUP_precompute_mult), some 150 KB and made in some 30 ms. Thousands of tokens of one key come after a cut in the network.
 * Nothing here is secret, so none of it need take constant time.
 */
#ifndef CHAT_COMMON_ES256_H
#define CHAT_COMMON_ES256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ES256_DIGEST_BYTES 32
#define ES256_HALF_BYTES 32
#define ES256_SIGNATURE_BYTES 64 /* r || s, RFC 7518 section 3.4 */

/* Immutable once made. */
struct es256_key;

/* A point as SEC 1 section 2.3.3 has it. NULL: it is none of the curve, or no memory. */
struct es256_key *es256_key_new(const uint8_t *point, size_t length);
/* NULL is allowed. */
void es256_key_free(struct es256_key *key);
/* No memory is a no. OpenSSL's error queue may have grown. */
__attribute__((warn_unused_result)) bool es256_verify(
	const struct es256_key *key, const uint8_t digest[ES256_DIGEST_BYTES], const uint8_t signature[ES256_SIGNATURE_BYTES]);

#endif
