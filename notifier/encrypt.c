/* encrypt.c - see encrypt.h. Variables are named as in RFC 8291 section 3.4. */
#include "encrypt.h"

#include "digest.h"

#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <string.h>

#define RECORD_SIZE 4096
#define TAG_SIZE 16
#define SECRET_SIZE 32
#define KEY_SIZE 16
#define NONCE_SIZE 12

static bool put_point(const EC_GROUP *group, const EC_POINT *point, uint8_t out[ENCRYPT_POINT_SIZE], BN_CTX *context)
{
	return EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, out, ENCRYPT_POINT_SIZE, context) ==
	       ENCRYPT_POINT_SIZE;
}

/* as_public = scalar * G; ecdh_secret = x of scalar * ua_public (SP 800-56A section 5.7.1.2). EC_POINT_oct2point refuses what is
 * not on the curve, which is what an attacker would send to learn about the scalar; the group has no points of small order. */
static bool agree(const uint8_t ua_public[ENCRYPT_POINT_SIZE], const uint8_t scalar[ENCRYPT_SCALAR_SIZE],
	uint8_t as_public[ENCRYPT_POINT_SIZE], uint8_t ecdh_secret[SECRET_SIZE])
{
	uint8_t shared[ENCRYPT_POINT_SIZE];
	BN_CTX *context = BN_CTX_new();
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	EC_POINT *theirs = group ? EC_POINT_new(group) : NULL;
	EC_POINT *point = group ? EC_POINT_new(group) : NULL;
	BIGNUM *number = BN_bin2bn(scalar, ENCRYPT_SCALAR_SIZE, NULL);
	bool agreed = false;

	if (!context || !theirs || !point || !number || BN_is_zero(number) || BN_cmp(number, EC_GROUP_get0_order(group)) >= 0) {
		goto done;
	}
	BN_set_flags(number, BN_FLG_CONSTTIME);
	agreed = EC_POINT_oct2point(group, theirs, ua_public, ENCRYPT_POINT_SIZE, context) == 1 &&
		 EC_POINT_mul(group, point, number, NULL, NULL, context) == 1 && put_point(group, point, as_public, context) &&
		 EC_POINT_mul(group, point, NULL, theirs, number, context) == 1 && put_point(group, point, shared, context);
	if (agreed) {
		memcpy(ecdh_secret, shared + 1, SECRET_SIZE);
	}
	OPENSSL_cleanse(shared, sizeof(shared));
done:
	BN_clear_free(number);
	EC_POINT_clear_free(point);
	EC_POINT_free(theirs);
	EC_GROUP_free(group);
	BN_CTX_free(context);
	ERR_clear_error();
	return agreed;
}

bool encrypt_check_point(const uint8_t point[ENCRYPT_POINT_SIZE])
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	EC_POINT *parsed = group ? EC_POINT_new(group) : NULL;
	bool valid = parsed && point[0] == 4 && EC_POINT_oct2point(group, parsed, point, ENCRYPT_POINT_SIZE, NULL) == 1;
	EC_POINT_free(parsed);
	EC_GROUP_free(group);
	ERR_clear_error();
	return valid;
}

static bool derive(const uint8_t ua_public[ENCRYPT_POINT_SIZE], const uint8_t as_public[ENCRYPT_POINT_SIZE],
	const uint8_t auth_secret[ENCRYPT_AUTH_SIZE], const uint8_t ecdh_secret[SECRET_SIZE],
	const uint8_t salt[ENCRYPT_SALT_SIZE], uint8_t key[KEY_SIZE], uint8_t nonce[NONCE_SIZE])
{
	static const char key_label[] = "WebPush: info"; /* all with their NUL */
	static const char cek_info[] = "Content-Encoding: aes128gcm", nonce_info[] = "Content-Encoding: nonce";
	uint8_t key_info[sizeof(key_label) + 2 * ENCRYPT_POINT_SIZE], ikm[SECRET_SIZE];

	memcpy(key_info, key_label, sizeof(key_label));
	memcpy(key_info + sizeof(key_label), ua_public, ENCRYPT_POINT_SIZE);
	memcpy(key_info + sizeof(key_label) + ENCRYPT_POINT_SIZE, as_public, ENCRYPT_POINT_SIZE);
	bool derived = digest_hkdf(auth_secret, ENCRYPT_AUTH_SIZE, ecdh_secret, SECRET_SIZE, key_info, sizeof(key_info), ikm,
			       sizeof(ikm)) &&
		       digest_hkdf(salt, ENCRYPT_SALT_SIZE, ikm, sizeof(ikm), cek_info, sizeof(cek_info), key, KEY_SIZE) &&
		       digest_hkdf(salt, ENCRYPT_SALT_SIZE, ikm, sizeof(ikm), nonce_info, sizeof(nonce_info), nonce, NONCE_SIZE);
	OPENSSL_cleanse(ikm, sizeof(ikm));
	return derived;
}

/* Appends AES-128-GCM of text || 0x02 || zeros, and the tag. */
static bool seal(const uint8_t key[KEY_SIZE], const uint8_t nonce[NONCE_SIZE], const void *text, size_t length, size_t padding,
	struct buffer *out)
{
	uint8_t record[ENCRYPT_PLAINTEXT_MAX + 1], sealed[ENCRYPT_PLAINTEXT_MAX + 1], tag[TAG_SIZE];
	int written = 0, size = (int)(length + 1 + padding);
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	memset(record, 0, sizeof(record));
	memcpy(record, text, length);
	record[length] = 2; /* the delimiter of the last record */
	bool done = context && EVP_EncryptInit_ex2(context, EVP_aes_128_gcm(), key, nonce, NULL) == 1 &&
		    EVP_EncryptUpdate(context, sealed, &written, record, size) == 1 && written == size &&
		    EVP_EncryptFinal_ex(context, sealed + size, &written) == 1 &&
		    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, tag) == 1 &&
		    buffer_append(out, sealed, (size_t)size) && buffer_append(out, tag, TAG_SIZE);
	EVP_CIPHER_CTX_free(context);
	return done;
}

bool encrypt_push(const uint8_t point[ENCRYPT_POINT_SIZE], const uint8_t auth[ENCRYPT_AUTH_SIZE],
	const uint8_t scalar[ENCRYPT_SCALAR_SIZE], const uint8_t salt[ENCRYPT_SALT_SIZE], const void *text, size_t length,
	size_t padding, struct buffer *out)
{
	/* Record size as a big-endian number, then the length of the key id, which is our public point. */
	static const uint8_t head[5] = {
		RECORD_SIZE >> 24, RECORD_SIZE >> 16 & 0xff, RECORD_SIZE >> 8 & 0xff, RECORD_SIZE & 0xff, ENCRYPT_POINT_SIZE};
	uint8_t as_public[ENCRYPT_POINT_SIZE], ecdh_secret[SECRET_SIZE], key[KEY_SIZE], nonce[NONCE_SIZE];

	if (length > ENCRYPT_PLAINTEXT_MAX || padding > ENCRYPT_PLAINTEXT_MAX - length ||
		!agree(point, scalar, as_public, ecdh_secret)) {
		return false;
	}
	bool done = derive(point, as_public, auth, ecdh_secret, salt, key, nonce) &&
		    buffer_append(out, salt, ENCRYPT_SALT_SIZE) && buffer_append(out, head, sizeof(head)) &&
		    buffer_append(out, as_public, sizeof(as_public)) && seal(key, nonce, text, length, padding, out);
	OPENSSL_cleanse(ecdh_secret, sizeof(ecdh_secret));
	OPENSSL_cleanse(key, sizeof(key));
	return done;
}
