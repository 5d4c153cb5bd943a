/* digest.h - SHA-256, HMAC and HKDF (RFC 6234, 2104, 5869). Pure; any thread. */
#ifndef CHAT_NOTIFIER_DIGEST_H
#define CHAT_NOTIFIER_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_SHA256_SIZE 32

void digest_sha256(const void *data, size_t length, uint8_t digest[DIGEST_SHA256_SIZE]);
__attribute__((warn_unused_result)) bool digest_hmac(
	const void *key, size_t key_length, const void *data, size_t length, uint8_t mac[DIGEST_SHA256_SIZE]);
/* Extract and expand in one, up to 32 bytes of output; info_length up to 200. */
__attribute__((warn_unused_result)) bool digest_hkdf(const void *salt, size_t salt_length, const void *secret,
	size_t secret_length, const void *info, size_t info_length, uint8_t *out, size_t out_length);

#endif
