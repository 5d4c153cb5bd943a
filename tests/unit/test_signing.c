/* test_signing.c - key files, the RFCs' own signatures, and signatures that are almost right (threats 2 and 9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base64url.h"
#include "key_files.h"
#include "signing.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <pthread.h>

static struct signing_key *load(const char *prefix, const char *name, char error[SIGNING_ERROR_SIZE])
{
	char path[KEY_PATH_SIZE];
	char spec[KEY_PATH_SIZE + 8];

	key_path(path, name);
	int length = snprintf(spec, sizeof(spec), "%s%s", prefix, path);
	assert_true(length > 0 && (size_t)length < sizeof(spec));
	error[0] = '\0';
	return signing_key_load(spec, error, SIGNING_ERROR_SIZE);
}

static struct signing_key *load_good(const char *prefix, const char *name)
{
	char error[SIGNING_ERROR_SIZE];
	struct signing_key *key = load(prefix, name, error);

	if (key == NULL) {
		fail_msg("%s", error);
	}
	return key;
}

/* ---- the RFCs' examples ---- */

static size_t decode(const char *text, uint8_t *out)
{
	size_t length;

	assert_true(base64url_decode(text, strlen(text), out, &length));
	return length;
}

/* Writes the public key made of a JWK's parameters. */
static void write_jwk(const char *name, const char *type, const OSSL_PARAM *parameters)
{
	EVP_PKEY *key = NULL;
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);

	assert_int_equal(EVP_PKEY_fromdata_init(context), 1);
	/* OpenSSL 3.0 declares the parameters without const and does not change them. */
	assert_int_equal(EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)parameters), 1);
	key_write_public(name, key, 0644);
	EVP_PKEY_free(key);
	EVP_PKEY_CTX_free(context);
}

static void write_rfc_keys(void)
{
	uint8_t point[65] = {4}; /* uncompressed */
	uint8_t bytes[256];
	char group[] = "P-256";

	assert_int_equal(decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", point + 1), 32);
	assert_int_equal(decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", point + 33), 32);
	const OSSL_PARAM ec[] = {OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group) - 1),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)), OSSL_PARAM_END};
	write_jwk("rfc-es256.pem", "EC", ec);

	assert_int_equal(decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", bytes), 32);
	const OSSL_PARAM ed[] = {OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, bytes, 32), OSSL_PARAM_END};
	write_jwk("rfc-eddsa.pem", "ED25519", ed);

	assert_int_equal(decode("ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-"
				"4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-"
				"pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"
				"UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_"
				"h9iaGNj8q2ethFkM"
				"Ls91kzk2PAcDTW9gb54h4FRWyuXpoQ",
				 bytes),
		256);
	BIGNUM *n = BN_bin2bn(bytes, 256, NULL);
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	assert_int_equal(OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_ulong(builder, OSSL_PKEY_PARAM_RSA_E, 65537), 1);
	OSSL_PARAM *rsa = OSSL_PARAM_BLD_to_param(builder);
	write_jwk("rfc-rs256.pem", "RSA", rsa);
	OSSL_PARAM_free(rsa);
	OSSL_PARAM_BLD_free(builder);
	BN_free(n);

	size_t length = decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow", bytes);
	key_write_bytes("rfc-hs256", bytes, length, 0600);
}

#define RFC_PAYLOAD ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

static void verifies_the_examples_of_the_rfcs(void **state)
{
	static const struct {
		const char *prefix;
		const char *name;
		enum signing_algorithm algorithm;
		const char *input;
		const char *signature;
	} rows[] = {
		/* RFC 7515 appendices A.1, A.2, A.3; RFC 8037 appendix A.4 */
		{"hs256:", "rfc-hs256", SIGNING_HS256, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" RFC_PAYLOAD,
			"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
		{"", "rfc-rs256.pem", SIGNING_RS256, "eyJhbGciOiJSUzI1NiJ9" RFC_PAYLOAD,
			"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_"
			"O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
			"nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_"
			"eSN9383LcOLn6_dO--xi12jzDwusC-"
			"eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVr"
			"Bp0igcN_IoypGlUPQGe77Rw"},
		{"", "rfc-es256.pem", SIGNING_ES256, "eyJhbGciOiJFUzI1NiJ9" RFC_PAYLOAD,
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		{"", "rfc-eddsa.pem", SIGNING_EDDSA, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
	};

	(void)state;
	write_rfc_keys();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct signing_key *key = load_good(rows[i].prefix, rows[i].name);
		uint8_t signature[SIGNING_SIGNATURE_MAX];
		size_t length = decode(rows[i].signature, signature);
		assert_int_equal(signing_key_algorithm(key), rows[i].algorithm);
		assert_string_equal(signing_key_id(key), rows[i].name);
		assert_true(signing_verify(key, rows[i].input, strlen(rows[i].input), signature, length));
		assert_false(signing_verify(key, rows[i].input, strlen(rows[i].input) - 1, signature, length));
		signing_key_free(key);
	}
}

/* ---- fresh keys ---- */

static const struct algorithm_case {
	enum signing_algorithm algorithm;
	const char *prefix;
	const char *private_name;
	const char *public_name;
	size_t signature_length;
} algorithms[] = {
	{SIGNING_ES256, "", "es256.key", "es256.pem", 64},
	{SIGNING_RS256, "", "rs256.key", "rs256.pem", 256},
	{SIGNING_EDDSA, "", "eddsa.key", "eddsa.pem", 64},
	{SIGNING_HS256, "hs256:", "secret", "secret", 32},
};
#define ALGORITHMS (sizeof(algorithms) / sizeof(algorithms[0]))

static const char secret[] = "a secret of some fifty bytes, none of them random\n";
static EVP_PKEY *fresh[ALGORITHMS];

static int set_up(void **state)
{
	(void)state;
	key_directory_make();
	fresh[0] = key_make_ec("P-256");
	fresh[1] = key_make_rsa(2048);
	fresh[2] = key_make("ED25519");
	for (size_t i = 0; i < 3; i++) {
		key_write_private(algorithms[i].private_name, fresh[i], 0600);
		key_write_public(algorithms[i].public_name, fresh[i], 0644);
	}
	key_write_bytes("secret", secret, strlen(secret), 0600);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		EVP_PKEY_free(fresh[i]);
	}
	key_directory_remove();
	return 0;
}

/* What OpenSSL signs is accepted, what is signed here is accepted by the public key. */
static void signs_and_verifies(void **state)
{
	static const char data[] = "header.payload";

	(void)state;
	for (size_t i = 0; i < ALGORITHMS; i++) {
		struct signing_key *private = load_good(algorithms[i].prefix, algorithms[i].private_name);
		struct signing_key *public = load_good(algorithms[i].prefix, algorithms[i].public_name);
		uint8_t signature[SIGNING_SIGNATURE_MAX];
		size_t length = fresh[i] != NULL ? key_sign(fresh[i], data, strlen(data), signature)
						 : key_sign_hmac(secret, strlen(secret) - 1, data, strlen(data), signature);

		assert_int_equal(signing_key_algorithm(private), algorithms[i].algorithm);
		assert_int_equal(signing_key_algorithm(public), algorithms[i].algorithm);
		assert_true(signing_key_can_sign(private));
		assert_int_equal(signing_key_can_sign(public), algorithms[i].algorithm == SIGNING_HS256);
		assert_int_equal(length, algorithms[i].signature_length);
		assert_true(signing_verify(public, data, strlen(data), signature, length));
		assert_true(signing_verify(private, data, strlen(data), signature, length));

		for (int round = 0; round < 20; round++) { /* ECDSA's are of varying DER length */
			assert_true(signing_sign(private, data, strlen(data), signature, &length));
			assert_int_equal(length, algorithms[i].signature_length);
			assert_true(signing_verify(public, data, strlen(data), signature, length));
		}
		if (algorithms[i].algorithm != SIGNING_HS256) {
			assert_false(signing_sign(public, data, strlen(data), signature, &length));
		}
		/* Nothing to sign is something to sign. */
		assert_true(signing_sign(private, "", 0, signature, &length));
		assert_true(signing_verify(public, "", 0, signature, length));
		assert_int_equal(ERR_peek_error(), 0);
		signing_key_free(private);
		signing_key_free(public);
	}
}

static void threat_9_refuses_all_but_the_whole_signature(void **state)
{
	static const char data[] = "header.payload";

	(void)state;
	for (size_t i = 0; i < ALGORITHMS; i++) {
		struct signing_key *key = load_good(algorithms[i].prefix, algorithms[i].private_name);
		uint8_t signature[SIGNING_SIGNATURE_MAX + 1] = {0};
		size_t length;

		assert_true(signing_sign(key, data, strlen(data), signature, &length));
		for (size_t cut = 0; cut < length; cut++) { /* truncated and empty */
			assert_false(signing_verify(key, data, strlen(data), signature, cut));
		}
		for (size_t longer = length + 1; longer <= sizeof(signature); longer += 31) {
			assert_false(signing_verify(key, data, strlen(data), signature, longer));
		}
		for (size_t at = 0; at < length; at++) { /* each byte counts */
			signature[at] ^= 1;
			assert_false(signing_verify(key, data, strlen(data), signature, length));
			signature[at] ^= 1;
		}
		assert_false(signing_verify(key, "Header.payload", strlen(data), signature, length));
		assert_true(signing_verify(key, data, strlen(data), signature, length));
		memset(signature, 0, sizeof(signature));
		assert_false(signing_verify(key, data, strlen(data), signature, length));
		memset(signature, 0xff, sizeof(signature));
		assert_false(signing_verify(key, data, strlen(data), signature, length));
		/* The broker's TLS code reads this thread's error queue. */
		assert_int_equal(ERR_peek_error(), 0);
		signing_key_free(key);
	}
}

/* ECDSA as OpenSSL makes it is DER; JOSE's form is the only one taken. Zero and out of range halves are no signature. */
static void threat_9_es256_is_r_and_s(void **state)
{
	static const char data[] = "header.payload";
	struct signing_key *key = load_good("", "es256.pem");
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t der[128];
	uint8_t raw[1024];
	size_t der_length = sizeof(der);

	(void)state;
	assert_int_equal(EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, fresh[0], NULL), 1);
	assert_int_equal(EVP_DigestSign(context, der, &der_length, (const uint8_t *)data, strlen(data)), 1);
	EVP_MD_CTX_free(context);
	assert_false(signing_verify(key, data, strlen(data), der, der_length));
	assert_false(signing_verify(key, data, strlen(data), der, 64));

	assert_int_equal(key_sign(fresh[0], data, strlen(data), raw), 64);
	assert_true(signing_verify(key, data, strlen(data), raw, 64));
	uint8_t changed[64] = {0};
	memcpy(changed, raw, 32);
	assert_false(signing_verify(key, data, strlen(data), changed, 64)); /* s = 0 */
	memset(changed, 0, 32);
	memcpy(changed + 32, raw + 32, 32);
	assert_false(signing_verify(key, data, strlen(data), changed, 64)); /* r = 0 */
	memcpy(changed, raw + 32, 32);
	memcpy(changed + 32, raw, 32);
	assert_false(signing_verify(key, data, strlen(data), changed, 64)); /* s || r */
	signing_key_free(key);
}

/* A signature of one key is none of another's, of the same kind or another. */
static void keys_do_not_stand_for_one_another(void **state)
{
	static const char data[] = "header.payload";
	struct signing_key *keys[ALGORITHMS];
	EVP_PKEY *stranger = key_make_ec("P-256");
	uint8_t signature[SIGNING_SIGNATURE_MAX];
	size_t length;

	(void)state;
	for (size_t i = 0; i < ALGORITHMS; i++) {
		keys[i] = load_good(algorithms[i].prefix, algorithms[i].private_name);
	}
	for (size_t signer = 0; signer < ALGORITHMS; signer++) {
		assert_true(signing_sign(keys[signer], data, strlen(data), signature, &length));
		for (size_t i = 0; i < ALGORITHMS; i++) {
			assert_int_equal(signing_verify(keys[i], data, strlen(data), signature, length), i == signer);
		}
	}
	length = key_sign(stranger, data, strlen(data), signature);
	assert_false(signing_verify(keys[0], data, strlen(data), signature, length));
	for (size_t i = 0; i < ALGORITHMS; i++) {
		signing_key_free(keys[i]);
	}
	EVP_PKEY_free(stranger);
}

/* ---- key files ---- */

static int passphrase(char *out, int size, int writing, void *data)
{
	(void)writing;
	(void)data;
	assert_true(size > 8);
	memcpy(out, "password", 8);
	return 8;
}

static void write_encrypted(const char *name, EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());

	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), NULL, 0, passphrase, NULL), 1);
	key_write_bio(name, bio, 0600);
}

static void write_certificate(const char *name, EVP_PKEY *key)
{
	X509 *certificate = X509_new();
	BIO *bio = BIO_new(BIO_s_mem());

	assert_int_equal(X509_set_pubkey(certificate, key), 1);
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), 0));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 60));
	assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
	assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
	X509_free(certificate);
	key_write_bio(name, bio, 0644);
}

static void write_refused_files(void)
{
	static const char big[SIGNING_FILE_MAX + 1] = {'x'};
	EVP_PKEY *key;
	char path[KEY_PATH_SIZE];
	char target[KEY_PATH_SIZE];

	key_write_private("private-0640", fresh[0], 0640);
	key_write_private("private-0604", fresh[0], 0604);
	key_write_private("private-0620", fresh[0], 0620);
	key_write_public("public-0646", fresh[0], 0646);
	key_write_bytes("secret-0644", secret, strlen(secret), 0644);
	key_write_bytes("secret-short", secret, 31, 0600);
	key_write_bytes("secret-newline", "0123456789abcdef0123456789abcde\n", 32, 0600);
	key_write_bytes("secret-big", big, sizeof(big), 0600);
	key_write_bytes("empty", "", 0, 0600);
	key_write_bytes("text", "this is no key\n", 15, 0600);
	key_write_bytes("half", "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0C\n", 44, 0644);
	key_write_bytes("caf\xc3\xa9", secret, strlen(secret), 0600);
	write_encrypted("encrypted", fresh[0]);
	write_certificate("certificate", fresh[0]);
	key = key_make_ec("P-384");
	key_write_public("p-384", key, 0644);
	EVP_PKEY_free(key);
	key = key_make_ec("secp256k1");
	key_write_public("secp256k1", key, 0644);
	EVP_PKEY_free(key);
	key = key_make("ED448");
	key_write_public("ed448", key, 0644);
	EVP_PKEY_free(key);
	key = key_make("X25519");
	key_write_public("x25519", key, 0644);
	EVP_PKEY_free(key);
	key = key_make_rsa(1024);
	key_write_public("rsa-1024", key, 0644);
	EVP_PKEY_free(key);
	key_path(path, "fifo");
	assert_int_equal(mkfifo(path, 0600), 0);
	key_path(path, "link-to-0640");
	key_path(target, "private-0640");
	assert_int_equal(symlink(target, path), 0);
}

static void refuses_bad_key_files_with_the_next_step(void **state)
{
	static const struct {
		const char *prefix;
		const char *name;
		const char *says;
	} rows[] = {
		{"", "missing", "cannot be opened: No such file or directory"},
		{"hs256:", "missing", "cannot be opened: No such file or directory"}, {"", "", "its name must have"},
		{"", "private-0640", "run chmod 600"}, {"", "private-0604", "run chmod 600"},
		{"", "private-0620", "run chmod 600"}, {"", "link-to-0640", "run chmod 600"},
		{"", "public-0646", "run chmod o-w"}, {"hs256:", "secret-0644", "run chmod 600"},
		{"hs256:", "secret-short", "has 31 bytes, at least 32"},
		{"hs256:", "secret-newline", "has 31 bytes, at least 32"}, {"hs256:", "secret-big", "larger than 16384 bytes"},
		{"", "secret-big", "larger than 16384 bytes"}, {"hs256:", "empty", "has 0 bytes"},
		{"hs256:", "es256.pem", "is a PEM file, not a secret"}, /* threat 2 */
		{"hs256:", "rs256.pem", "is a PEM file, not a secret"}, {"hs256:", "fifo", "is not a regular file"},
		{"", "fifo", "is not a regular file"}, {"", ".", "is not a regular file"},
		{"hs256:", "caf\xc3\xa9", "must be printable ASCII"}, {"", "secret", "no PEM key"}, {"", "empty", "no PEM key"},
		{"", "text", "no PEM key"}, {"", "half", "no PEM key"}, {"", "encrypted", "is encrypted"},
		{"", "certificate", "is a certificate"}, {"", "p-384", "EC on secp384r1 is not supported"},
		{"", "secp256k1", "EC on secp256k1 is not supported"}, {"", "ed448", "ED448 is not supported"},
		{"", "x25519", "X25519 is not supported"}, {"", "rsa-1024", "RSA key of 1024 bits"},
		{"rs256:", "rs256.pem", "cannot be opened"}, /* no such prefix */
	};

	(void)state;
	write_refused_files();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char error[SIGNING_ERROR_SIZE];
		struct signing_key *key = load(rows[i].prefix, rows[i].name, error);
		if (key != NULL || strstr(error, rows[i].says) == NULL) {
			fail_msg("%s%s: %s", rows[i].prefix, rows[i].name, key != NULL ? "accepted" : error);
		}
		assert_null(strstr(error, "fifty bytes")); /* nothing of a secret */
		assert_int_equal(ERR_peek_error(), 0);
	}
}

static void takes_private_keys_in_their_older_forms(void **state)
{
	BIO *bio = BIO_new(BIO_s_mem());
	static const char parameters[] = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";

	(void)state;
	/* as `openssl ecparam -genkey` writes it */
	assert_int_equal(BIO_write(bio, parameters, (int)strlen(parameters)), (int)strlen(parameters));
	assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, fresh[0], NULL, NULL, 0, NULL, NULL), 1);
	key_write_bio("sec1", bio, 0400);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, fresh[1], NULL, NULL, 0, NULL, NULL), 1);
	key_write_bio("pkcs1", bio, 0600);
	static const char *const names[] = {"sec1", "pkcs1"};
	for (size_t i = 0; i < 2; i++) {
		struct signing_key *key = load_good("", names[i]);
		assert_true(signing_key_can_sign(key));
		signing_key_free(key);
	}
}

/* One trailing newline is an editor's, all other bytes are the secret's. */
static void a_secret_is_its_bytes(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
		size_t used;
	} rows[] = {
		{"0123456789abcdef0123456789abcdef", 32, 32},
		{"0123456789abcdef0123456789abcdef\n", 33, 32},
		{"0123456789abcdef0123456789abcdef\n\n", 34, 33},
		{"0123456789abcdef\0"
		 "123456789abcdef",
			32, 32},
		{" 0123456789abcdef0123456789abcdef ", 34, 34},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t mac[1024];
		key_write_bytes("bytes", rows[i].bytes, rows[i].length, 0600);
		struct signing_key *key = load_good("hs256:", "bytes");
		size_t length = key_sign_hmac(rows[i].bytes, rows[i].used, "x", 1, mac);
		assert_true(signing_verify(key, "x", 1, mac, length));
		signing_key_free(key);
	}
}

static void error_lines_fit_where_there_is_little_room(void **state)
{
	char error[8];

	(void)state;
	memset(error, 'x', sizeof(error));
	assert_null(signing_key_load("/nonexistent/key", error, sizeof(error)));
	assert_int_equal(strlen(error), sizeof(error) - 1);
	signing_key_free(NULL);
}

/* ---- threads ---- */

static void *verify_many(void *data)
{
	const struct signing_key *const *keys = data;
	uint8_t signature[SIGNING_SIGNATURE_MAX];
	size_t length;

	for (size_t round = 0; round < 25; round++) {
		for (size_t i = 0; i < ALGORITHMS; i++) {
			if (!signing_sign(keys[i], "data", 4, signature, &length) ||
				!signing_verify(keys[i], "data", 4, signature, length) ||
				signing_verify(keys[i], "Data", 4, signature, length)) {
				return (void *)(uintptr_t)1;
			}
		}
	}
	return NULL;
}

static void several_threads_share_a_key(void **state)
{
	struct signing_key *keys[ALGORITHMS];
	pthread_t threads[4];

	(void)state;
	for (size_t i = 0; i < ALGORITHMS; i++) {
		keys[i] = load_good(algorithms[i].prefix, algorithms[i].private_name);
	}
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, verify_many, keys), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		void *failed = NULL;
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	for (size_t i = 0; i < ALGORITHMS; i++) {
		signing_key_free(keys[i]);
	}
}

static void names_algorithms_as_jose_does(void **state)
{
	(void)state;
	assert_string_equal(signing_algorithm_name(SIGNING_ES256), "ES256");
	assert_string_equal(signing_algorithm_name(SIGNING_RS256), "RS256");
	assert_string_equal(signing_algorithm_name(SIGNING_EDDSA), "EdDSA");
	assert_string_equal(signing_algorithm_name(SIGNING_HS256), "HS256");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_algorithms_as_jose_does),
		cmocka_unit_test(verifies_the_examples_of_the_rfcs),
		cmocka_unit_test(signs_and_verifies),
		cmocka_unit_test(threat_9_refuses_all_but_the_whole_signature),
		cmocka_unit_test(threat_9_es256_is_r_and_s),
		cmocka_unit_test(keys_do_not_stand_for_one_another),
		cmocka_unit_test(refuses_bad_key_files_with_the_next_step),
		cmocka_unit_test(takes_private_keys_in_their_older_forms),
		cmocka_unit_test(a_secret_is_its_bytes),
		cmocka_unit_test(error_lines_fit_where_there_is_little_room),
		cmocka_unit_test(several_threads_share_a_key),
	};
	return cmocka_run_group_tests_name("signing", tests, set_up, tear_down);
}
