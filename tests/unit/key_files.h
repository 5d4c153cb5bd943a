/* key_files.h - for tests that need keys: a private directory, files in it, fresh keys of each kind, and signatures made
 * with OpenSSL directly, so that what the code under test accepts does not rest on what it makes.
 *
 * Every function fails the running test where something goes wrong. Include it after cmocka.h.
 */
#ifndef CHAT_TESTS_KEY_FILES_H
#define CHAT_TESTS_KEY_FILES_H

#include <dirent.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_PATH_SIZE 512

/* The directory of this test program; removed with key_directory_remove. */
static char key_directory[KEY_PATH_SIZE];

static inline void key_directory_make(void)
{
	const char *parent = getenv("TMPDIR");
	int length = snprintf(key_directory, sizeof(key_directory), "%s/chat-keys-XXXXXX", parent != NULL ? parent : "/tmp");
	assert_true(length > 0 && (size_t)length < sizeof(key_directory));
	assert_non_null(mkdtemp(key_directory));
}

static inline void key_path(char path[KEY_PATH_SIZE], const char *name)
{
	int length = snprintf(path, KEY_PATH_SIZE, "%s/%s", key_directory, name);
	assert_true(length > 0 && length < KEY_PATH_SIZE);
}

static inline void key_directory_remove(void)
{
	DIR *directory = opendir(key_directory);
	struct dirent *entry;

	assert_non_null(directory);
	while ((entry = readdir(directory)) != NULL) {
		char path[KEY_PATH_SIZE];
		if (entry->d_name[0] != '.') {
			key_path(path, entry->d_name);
			assert_int_equal(remove(path), 0);
		}
	}
	closedir(directory);
	assert_int_equal(rmdir(key_directory), 0);
}

static inline void key_write_bytes(const char *name, const void *bytes, size_t length, mode_t mode)
{
	char path[KEY_PATH_SIZE];

	key_path(path, name);
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static inline void key_write_bio(const char *name, BIO *bio, mode_t mode)
{
	char *text = NULL;
	long length = BIO_get_mem_data(bio, &text);

	assert_true(length > 0);
	key_write_bytes(name, text, (size_t)length, mode);
	BIO_free(bio);
}

static inline void key_write_private(const char *name, EVP_PKEY *key, mode_t mode)
{
	BIO *bio = BIO_new(BIO_s_mem());
	assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
	key_write_bio(name, bio, mode);
}

static inline void key_write_public(const char *name, EVP_PKEY *key, mode_t mode)
{
	BIO *bio = BIO_new(BIO_s_mem());
	assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
	key_write_bio(name, bio, mode);
}

static inline EVP_PKEY *key_make_ec(const char *curve)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curve);
	assert_non_null(key);
	return key;
}

static inline EVP_PKEY *key_make_rsa(size_t bits)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", bits);
	assert_non_null(key);
	return key;
}

static inline EVP_PKEY *key_make(const char *type)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, type);
	assert_non_null(key);
	return key;
}

/* The JOSE signature: ECDSA as r || s; RSA with PKCS#1 v1.5; Ed25519. Returns its length. */
static inline size_t key_sign(EVP_PKEY *key, const void *data, size_t length, uint8_t out[1024])
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	const char *digest = EVP_PKEY_is_a(key, "ED25519") ? NULL : "SHA256";
	size_t out_length = 1024;

	assert_int_equal(EVP_DigestSignInit_ex(context, NULL, digest, NULL, NULL, key, NULL), 1);
	assert_int_equal(EVP_DigestSign(context, out, &out_length, data, length), 1);
	EVP_MD_CTX_free(context);
	if (EVP_PKEY_is_a(key, "EC")) {
		const uint8_t *der = out;
		ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)out_length);
		assert_non_null(signature);
		assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(signature), out, 32), 32);
		assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(signature), out + 32, 32), 32);
		ECDSA_SIG_free(signature);
		out_length = 64;
	}
	return out_length;
}

static inline size_t key_sign_hmac(const void *secret, size_t secret_length, const void *data, size_t length, uint8_t out[1024])
{
	size_t out_length = 0;

	assert_non_null(
		EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, secret, secret_length, data, length, out, 1024, &out_length));
	return out_length;
}

#endif
