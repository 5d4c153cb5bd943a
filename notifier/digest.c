/* digest.c - see digest.h. */
#include "digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <string.h>

#define INFO_MAX 200

void digest_sha256(const void *data, size_t length, uint8_t digest[DIGEST_SHA256_SIZE])
{
	(void)SHA256(data, length, digest);
}

bool digest_hmac(const void *key, size_t key_length, const void *data, size_t length, uint8_t mac[DIGEST_SHA256_SIZE])
{
	unsigned int mac_length = 0;
	return HMAC(EVP_sha256(), key, (int)key_length, data, length, mac, &mac_length) != NULL &&
	       mac_length == DIGEST_SHA256_SIZE;
}

bool digest_hkdf(const void *salt, size_t salt_length, const void *secret, size_t secret_length, const void *info,
	size_t info_length, uint8_t *out, size_t out_length)
{
	uint8_t extracted[DIGEST_SHA256_SIZE], block[DIGEST_SHA256_SIZE], input[INFO_MAX + 1];
	bool made = false;

	if (info_length > INFO_MAX || out_length > sizeof(block)) {
		return false;
	}
	memcpy(input, info, info_length);
	input[info_length] = 1; /* the first block, and the only one */
	made = digest_hmac(salt, salt_length, secret, secret_length, extracted) &&
	       digest_hmac(extracted, sizeof(extracted), input, info_length + 1, block);
	if (made) {
		memcpy(out, block, out_length);
	}
	OPENSSL_cleanse(extracted, sizeof(extracted));
	OPENSSL_cleanse(block, sizeof(block));
	return made;
}
