/* test_es256.c - verifying with tables gives OpenSSL's own verdict, and the cases that random numbers do not find (threat 9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "es256.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <string.h>

#define POINT_BYTES 65
#define HALF ES256_HALF_BYTES

static EC_GROUP *curve;
static BN_CTX *numbers;

static int set_up(void **state)
{
	(void)state;
	curve = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	numbers = BN_CTX_new();
	return curve && numbers ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	EC_GROUP_free(curve);
	BN_CTX_free(numbers);
	return 0;
}

static struct es256_key *key_of(const EC_POINT *point)
{
	uint8_t bytes[POINT_BYTES];
	assert_int_equal(
		EC_POINT_point2oct(curve, point, POINT_CONVERSION_UNCOMPRESSED, bytes, sizeof(bytes), numbers), sizeof(bytes));
	struct es256_key *key = es256_key_new(bytes, sizeof(bytes));
	assert_non_null(key);
	return key;
}

static BIGNUM *number(unsigned long value)
{
	BIGNUM *made = BN_new();
	assert_int_equal(BN_set_word(made, value), 1);
	return made;
}

static void put(uint8_t *bytes, const BIGNUM *value)
{
	assert_int_equal(BN_bn2binpad(value, bytes, HALF), HALF);
}

/* ---- RFC 6979, A.2.5: P-256, SHA-256, "sample" */

static void from_hex(const char *hex, uint8_t *bytes)
{
	BIGNUM *value = NULL;
	assert_int_equal(BN_hex2bn(&value, hex), 2 * HALF);
	put(bytes, value);
	BN_free(value);
}

static void verifies_the_example_of_the_rfc(void **state)
{
	uint8_t point[POINT_BYTES] = {4}, compressed[1 + HALF] = {3}, digest[ES256_DIGEST_BYTES], signature[2 * HALF];
	(void)state;

	from_hex("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6", point + 1);
	from_hex("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299", point + 1 + HALF);
	from_hex("EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", signature);
	from_hex("F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8", signature + HALF);
	assert_int_equal(EVP_Digest("sample", 6, digest, NULL, EVP_sha256(), NULL), 1);
	struct es256_key *key = es256_key_new(point, sizeof(point));
	assert_true(es256_verify(key, digest, signature));
	digest[0] ^= 1;
	assert_false(es256_verify(key, digest, signature));
	digest[0] ^= 1;
	es256_key_free(key);

	memcpy(compressed + 1, point + 1, HALF);
	key = es256_key_new(compressed, sizeof(compressed));
	assert_true(es256_verify(key, digest, signature));
	es256_key_free(key);
}

/* ---- OpenSSL's verdict */

static EVP_PKEY *make_pkey(struct es256_key **key)
{
	uint8_t point[POINT_BYTES];
	size_t length;
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	assert_int_equal(EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &length), 1);
	*key = es256_key_new(point, length);
	assert_non_null(*key);
	return pkey;
}

static void sign(EVP_PKEY *pkey, const uint8_t digest[ES256_DIGEST_BYTES], uint8_t signature[2 * HALF])
{
	uint8_t der[80];
	const uint8_t *at = der;
	size_t length = sizeof(der);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	assert_int_equal(EVP_PKEY_sign_init(context), 1);
	assert_int_equal(EVP_PKEY_sign(context, der, &length, digest, ES256_DIGEST_BYTES), 1);
	EVP_PKEY_CTX_free(context);
	ECDSA_SIG *parsed = d2i_ECDSA_SIG(NULL, &at, (long)length);
	put(signature, ECDSA_SIG_get0_r(parsed));
	put(signature + HALF, ECDSA_SIG_get0_s(parsed));
	ECDSA_SIG_free(parsed);
}

static bool openssl_verifies(EVP_PKEY *pkey, const uint8_t *digest, const uint8_t *signature)
{
	ECDSA_SIG *parsed = ECDSA_SIG_new();
	uint8_t *der = NULL;
	ECDSA_SIG_set0(parsed, BN_bin2bn(signature, HALF, NULL), BN_bin2bn(signature + HALF, HALF, NULL));
	int length = i2d_ECDSA_SIG(parsed, &der);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	assert_int_equal(EVP_PKEY_verify_init(context), 1);
	bool valid = EVP_PKEY_verify(context, der, (size_t)length, digest, ES256_DIGEST_BYTES) == 1;
	EVP_PKEY_CTX_free(context);
	OPENSSL_free(der);
	ECDSA_SIG_free(parsed);
	return valid;
}

/* Good signatures, and each with one bit turned, in the digest or in the signature. */
static void agrees_with_openssl(void **state)
{
	struct es256_key *key;
	EVP_PKEY *pkey = make_pkey(&key);
	(void)state;

	for (unsigned i = 0; i < 200; i++) {
		uint8_t bytes[ES256_DIGEST_BYTES + 2 * HALF];
		uint8_t *signature = bytes + ES256_DIGEST_BYTES;
		assert_int_equal(EVP_Digest(&i, sizeof(i), bytes, NULL, EVP_sha256(), NULL), 1);
		memset(bytes, i % 3 == 0 ? 0xff : bytes[0], i % 3 == 0 ? 16 : 1); /* also digests above the order */
		sign(pkey, bytes, signature);
		assert_true(openssl_verifies(pkey, bytes, signature));
		assert_true(es256_verify(key, bytes, signature));
		bytes[i % sizeof(bytes)] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(es256_verify(key, bytes, signature), openssl_verifies(pkey, bytes, signature));
	}
	es256_key_free(key);
	EVP_PKEY_free(pkey);
}

/* 0, the order, and what is above it. */
static void threat_9_refuses_numbers_out_of_range(void **state)
{
	struct es256_key *key;
	EVP_PKEY *pkey = make_pkey(&key);
	uint8_t digest[ES256_DIGEST_BYTES] = {7}, good[2 * HALF], bad[2 * HALF];
	const BIGNUM *order = EC_GROUP_get0_order(curve);
	(void)state;

	sign(pkey, digest, good);
	assert_true(es256_verify(key, digest, good));
	for (size_t half = 0; half < 2; half++) {
		memcpy(bad, good, sizeof(bad));
		memset(bad + half * HALF, 0, HALF);
		assert_false(es256_verify(key, digest, bad));
		put(bad + half * HALF, order);
		assert_false(es256_verify(key, digest, bad));
		memset(bad + half * HALF, 0xff, HALF);
		assert_false(es256_verify(key, digest, bad));
	}
	memset(bad, 0, sizeof(bad));
	assert_false(es256_verify(key, digest, bad));
	es256_key_free(key);
	EVP_PKEY_free(pkey);
}

/* threat 9: e = -r d makes the sum the point at infinity, which has no x that could be r. */
static void threat_9_refuses_the_point_at_infinity(void **state)
{
	BIGNUM *secret = number(12345), *r = number(67890), *e = BN_new();
	EC_POINT *point = EC_POINT_new(curve);
	uint8_t digest[ES256_DIGEST_BYTES], signature[2 * HALF];
	const BIGNUM *order = EC_GROUP_get0_order(curve);
	(void)state;

	assert_int_equal(EC_POINT_mul(curve, point, secret, NULL, NULL, numbers), 1);
	assert_int_equal(BN_mod_mul(e, r, secret, order, numbers), 1);
	assert_int_equal(BN_sub(e, order, e), 1);
	put(digest, e);
	put(signature, r);
	put(signature + HALF, r);
	struct es256_key *key = key_of(point);
	assert_false(es256_verify(key, digest, signature));
	es256_key_free(key);
	EC_POINT_free(point);
	BN_free(secret);
	BN_free(r);
	BN_free(e);
}

/* x may lie between the order and the field's prime, one time in 2^32: then r is what is beyond the order. The key is made for
 * it: Q = (s R - e G) / r. */
static void takes_x_beyond_the_order(void **state)
{
	BIGNUM *r = number(0), *x = BN_new(), *s = number(3), *e = number(5), *factor = BN_new();
	EC_POINT *nonce = EC_POINT_new(curve), *point = EC_POINT_new(curve);
	uint8_t digest[ES256_DIGEST_BYTES], signature[2 * HALF];
	const BIGNUM *order = EC_GROUP_get0_order(curve);
	(void)state;

	do {
		assert_int_equal(BN_add_word(r, 1), 1);
		assert_int_equal(BN_add(x, order, r), 1);
	} while (EC_POINT_set_compressed_coordinates(curve, nonce, x, 0, numbers) != 1);
	assert_non_null(BN_mod_inverse(factor, r, order, numbers));
	BN_set_negative(e, 1);
	assert_int_equal(EC_POINT_mul(curve, point, e, nonce, s, numbers), 1);
	BN_set_negative(e, 0);
	assert_int_equal(EC_POINT_mul(curve, point, NULL, point, factor, numbers), 1);
	put(digest, e);
	put(signature, r);
	put(signature + HALF, s);
	struct es256_key *key = key_of(point);
	assert_true(es256_verify(key, digest, signature));
	es256_key_free(key);
	EC_POINT_free(nonce);
	EC_POINT_free(point);
	BN_free(r);
	BN_free(x);
	BN_free(s);
	BN_free(e);
	BN_free(factor);
}

static void refuses_what_is_no_point(void **state)
{
	uint8_t point[POINT_BYTES] = {4, 1};
	(void)state;
	assert_null(es256_key_new(point, sizeof(point))); /* not on the curve */
	point[0] = 0;
	assert_null(es256_key_new(point, 1)); /* infinity */
	assert_null(es256_key_new(point, 0));
	es256_key_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verifies_the_example_of_the_rfc),
		cmocka_unit_test(agrees_with_openssl),
		cmocka_unit_test(threat_9_refuses_numbers_out_of_range),
		cmocka_unit_test(threat_9_refuses_the_point_at_infinity),
		cmocka_unit_test(takes_x_beyond_the_order),
		cmocka_unit_test(refuses_what_is_no_point),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
