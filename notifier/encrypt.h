/* encrypt.h - the encryption of Web Push messages (RFC 8291 on RFC 8188, aes128gcm), one record. Pure: the ephemeral key and
 * the salt are arguments. Any thread.
 */
#ifndef CHAT_NOTIFIER_ENCRYPT_H
#define CHAT_NOTIFIER_ENCRYPT_H

#include "buffer.h"

#include <stdint.h>

#define ENCRYPT_POINT_SIZE 65
#define ENCRYPT_AUTH_SIZE 16
#define ENCRYPT_SALT_SIZE 16
#define ENCRYPT_SCALAR_SIZE 32
#define ENCRYPT_PLAINTEXT_MAX 3993 /* bytes with padding: 4096 less header 86, delimiter 1, tag 16 (RFC 8291 section 4) */

/* Appends salt, record size, public point and the one encrypted record. `padding`: zeros after the delimiter, so that the
 * length says less. False, and `out` unchanged in what matters to nobody: the browser's point is not on the curve, the scalar
 * is not between 1 and the group's order (once in 2^32 for random bytes), the text is too long, or no memory. */
__attribute__((warn_unused_result)) bool encrypt_push(const uint8_t point[ENCRYPT_POINT_SIZE],
	const uint8_t auth[ENCRYPT_AUTH_SIZE], const uint8_t scalar[ENCRYPT_SCALAR_SIZE], const uint8_t salt[ENCRYPT_SALT_SIZE],
	const void *text, size_t length, size_t padding, struct buffer *out);

/* Whether 65 bytes are an uncompressed point of P-256, so that a push can be encrypted for it. */
__attribute__((warn_unused_result)) bool encrypt_check_point(const uint8_t point[ENCRYPT_POINT_SIZE]);

#endif
