/* signing.c - keys from files, and JOSE signatures made and verified with them.
 *
 * Each key carries contexts that were initialised when it was loaded ("templates"): the algorithm, the digest and the
 * key's own precomputations are looked up once, and a call duplicates a template, uses the copy and throws it away. That
 * keeps a loaded key immutable, so threads need no lock, and spares each verification OpenSSL's look-up of algorithms by name.
 * Ed25519 hashes the message itself and has no template for that: its contexts are made per call.
 *
 * ES256 and RS256 are computed over a digest made here. OpenSSL wants ECDSA signatures in DER, JOSE wants r || s with 32
 * bytes each (RFC 7518 section 3.4): exactly 64 bytes, anything else is refused before OpenSSL sees it.
 *
 * To add an algorithm: a row in signing.h's enum and algorithm_names, its key in classify(), its templates in
 * make_templates(), and a case in signing_verify and signing_sign.
 */
#include "signing.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGEST_BYTES SIGNING_DIGEST_BYTES
#define ES256_HALF 32 /* r, and s */
#define ES256_BYTES 64
#define EDDSA_BYTES 64
#define RSA_BITS_MIN 2048 /* RFC 7518 section 3.3 */
#define RSA_BITS_MAX (SIGNING_SIGNATURE_MAX * 8)

struct signing_key {
	enum signing_algorithm algorithm;
	bool private;
	char id[NAME_MAX + 1];
	EVP_PKEY *pkey;                /* all but HS256 */
	EVP_MD *sha256;                /* ES256, RS256 */
	EVP_PKEY_CTX *verify_template; /* ES256, RS256 */
	EVP_PKEY_CTX *sign_template;   /* ES256, RS256, where private */
	EVP_MAC_CTX *mac_template;     /* HS256 */
};

struct key_file {
	char *bytes; /* NUL-terminated beyond `length` */
	size_t length;
	mode_t mode;
};

static const char *const algorithm_names[] = {
	[SIGNING_ES256] = "ES256",
	[SIGNING_RS256] = "RS256",
	[SIGNING_EDDSA] = "EdDSA",
	[SIGNING_HS256] = "HS256",
};

const char *signing_algorithm_name(enum signing_algorithm algorithm)
{
	return algorithm_names[algorithm];
}

/* ---- loading ---- */

/* Where the sentence about what went wrong goes. */
struct complaint {
	char *text;
	size_t size;
};

/* Always false, so that a check can return it. A line that does not fit is cut: it is only for a person. */
__attribute__((format(printf, 2, 3))) static bool complain(const struct complaint *complaint, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(complaint->text, complaint->size, format, arguments);
	va_end(arguments);
	return false;
}

/* Reads until the end of the file or until `size` bytes are there. -1 with errno set on failure. */
static ssize_t read_fully(int fd, char *bytes, size_t size)
{
	size_t length = 0;

	while (length < size) {
		ssize_t got = read(fd, bytes + length, size - length);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return -1;
		}
		if (got == 0) {
			break;
		}
		length += (size_t)got;
	}
	return (ssize_t)length;
}

/* The mode is that of the open file, whatever the path names by the time it is looked at. */
static bool read_open_file(int fd, const char *path, struct key_file *file, const struct complaint *complaint)
{
	struct stat status;

	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
		return complain(complaint, "key file %s is not a regular file", path);
	}
	file->mode = status.st_mode;
	file->bytes = malloc(SIGNING_FILE_MAX + 1);
	if (file->bytes == NULL) {
		return complain(complaint, "no memory to read key file %s", path);
	}
	ssize_t length = read_fully(fd, file->bytes, SIGNING_FILE_MAX + 1);
	if (length < 0) {
		return complain(complaint, "key file %s cannot be read: %s", path, strerror(errno));
	}
	if (length > SIGNING_FILE_MAX) {
		return complain(complaint, "key file %s is larger than %d bytes: it is no key", path, SIGNING_FILE_MAX);
	}
	file->length = (size_t)length;
	file->bytes[length] = '\0';
	return true;
}

static void free_key_file(struct key_file *file)
{
	if (file->bytes != NULL) {
		OPENSSL_cleanse(file->bytes, SIGNING_FILE_MAX + 1);
		free(file->bytes);
	}
}

/* On success and on failure the file is to be released with free_key_file. */
static bool read_key_file(const char *path, struct key_file *file, const struct complaint *complaint)
{
	/* O_NONBLOCK: a FIFO must not hold up the start. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0) {
		return complain(complaint, "key file %s cannot be opened: %s", path, strerror(errno));
	}
	bool read = read_open_file(fd, path, file, complaint);
	(void)close(fd);
	return read;
}

/* The base name, which goes into tokens and log lines. */
static bool set_id(struct signing_key *key, const char *path, const struct complaint *complaint)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	size_t length = strlen(name);

	if (length == 0 || length >= sizeof(key->id)) {
		return complain(complaint, "key file %s: its name must have 1 to %d bytes", path, NAME_MAX);
	}
	for (size_t i = 0; i < length; i++) {
		if (name[i] < 0x20 || name[i] > 0x7e) {
			return complain(complaint, "key file %s: its name is the key id and must be printable ASCII", path);
		}
	}
	memcpy(key->id, name, length + 1);
	return true;
}

static bool check_secrecy(const struct key_file *file, const char *path, const char *what, const struct complaint *complaint)
{
	if ((file->mode & (S_IRWXG | S_IRWXO)) != 0) {
		return complain(complaint, "key file %s holds %s and is open to group or others (mode %04o): run chmod 600 %s",
			path, what, (unsigned)(file->mode & 07777), path);
	}
	return true;
}

static bool load_secret(struct signing_key *key, const struct key_file *file, const char *path, const struct complaint *complaint)
{
	size_t length = file->length;

	/* Threat 2: whoever can fetch the public key could then make tokens. */
	if (length >= 11 && memcmp(file->bytes, "-----BEGIN ", 11) == 0) {
		return complain(complaint, "key file %s is a PEM file, not a secret: name it without hs256:", path);
	}
	if (!check_secrecy(file, path, "a secret", complaint)) {
		return false;
	}
	if (length > 0 && file->bytes[length - 1] == '\n') {
		length--;
	}
	if (length < SIGNING_SECRET_MIN) {
		return complain(complaint,
			"key file %s: the secret has %zu bytes, at least %d are needed: run openssl rand -hex 32 > %s", path,
			length, SIGNING_SECRET_MIN, path);
	}
	key->algorithm = SIGNING_HS256;
	key->private = true;
	char digest[] = "SHA256";
	const OSSL_PARAM parameters[] = {
		OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof(digest) - 1), OSSL_PARAM_END};
	EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	key->mac_template = hmac != NULL ? EVP_MAC_CTX_new(hmac) : NULL;
	bool loaded = key->mac_template != NULL &&
		      EVP_MAC_init(key->mac_template, (const unsigned char *)file->bytes, length, parameters) == 1;
	EVP_MAC_free(hmac);
	return loaded || complain(complaint, "key file %s: OpenSSL cannot make an HMAC with it", path);
}

/* OpenSSL would ask on the terminal. */
static int no_passphrase(char *passphrase, int size, int writing, void *asked)
{
	(void)passphrase;
	(void)size;
	(void)writing;
	*(bool *)asked = true;
	return -1;
}

static bool read_pem(struct signing_key *key, const struct key_file *file, const char *path, const struct complaint *complaint)
{
	bool asked = false;
	BIO *bio = BIO_new_mem_buf(file->bytes, (int)file->length);

	if (bio == NULL) {
		return complain(complaint, "no memory to read key file %s", path);
	}
	key->pkey = key->private ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &asked)
				 : PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, &asked);
	BIO_free(bio);
	if (key->pkey != NULL) {
		return true;
	}
	if (asked) {
		return complain(complaint,
			"key file %s is encrypted: write it without a passphrase with openssl pkey -in %s -out NEW", path, path);
	}
	if (strstr(file->bytes, "-----BEGIN CERTIFICATE-----") != NULL) {
		return complain(complaint,
			"key file %s is a certificate: write its public key with openssl x509 -in %s -noout -pubkey > NEW", path,
			path);
	}
	return complain(
		complaint, "key file %s holds no PEM key that OpenSSL can read (a secret is named as hs256:%s)", path, path);
}

/* Which algorithm the key belongs to; every other kind of key is refused. */
static bool classify(struct signing_key *key, const char *path, const struct complaint *complaint)
{
	char group[32] = "";

	if (EVP_PKEY_is_a(key->pkey, "RSA")) {
		int bits = EVP_PKEY_get_bits(key->pkey);
		key->algorithm = SIGNING_RS256;
		if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX) {
			return complain(complaint, "key file %s: an RSA key of %d bits, it must have %d to %d", path, bits,
				RSA_BITS_MIN, RSA_BITS_MAX);
		}
		return true;
	}
	if (EVP_PKEY_is_a(key->pkey, "ED25519")) {
		key->algorithm = SIGNING_EDDSA;
		return true;
	}
	key->algorithm = SIGNING_ES256;
	if (EVP_PKEY_is_a(key->pkey, "EC") && EVP_PKEY_get_group_name(key->pkey, group, sizeof(group), NULL) == 1 &&
		strcmp(group, SN_X9_62_prime256v1) == 0) {
		return true;
	}
	return complain(complaint, "key file %s: %s%s%s is not supported, only P-256, RSA and Ed25519 keys are", path,
		EVP_PKEY_get0_type_name(key->pkey) != NULL ? EVP_PKEY_get0_type_name(key->pkey) : "this kind of key",
		group[0] != '\0' ? " on " : "", group);
}

static bool configure(const struct signing_key *key, EVP_PKEY_CTX *context)
{
	return EVP_PKEY_CTX_set_signature_md(context, key->sha256) == 1 &&
	       (key->algorithm != SIGNING_RS256 || EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1);
}

static bool make_templates(struct signing_key *key)
{
	if (key->algorithm == SIGNING_EDDSA) {
		return true;
	}
	key->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	key->verify_template = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
	if (key->sha256 == NULL || key->verify_template == NULL || EVP_PKEY_verify_init(key->verify_template) != 1 ||
		!configure(key, key->verify_template)) {
		return false;
	}
	if (!key->private) {
		return true;
	}
	key->sign_template = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
	return key->sign_template != NULL && EVP_PKEY_sign_init(key->sign_template) == 1 && configure(key, key->sign_template);
}

static bool load_pem(struct signing_key *key, const struct key_file *file, const char *path, const struct complaint *complaint)
{
	key->private = strstr(file->bytes, "PRIVATE KEY-----") != NULL;
	if (key->private && !check_secrecy(file, path, "a private key", complaint)) {
		return false;
	}
	if ((file->mode & S_IWOTH) != 0) {
		return complain(complaint, "key file %s may be written by everybody (mode %04o): run chmod o-w %s", path,
			(unsigned)(file->mode & 07777), path);
	}
	if (!read_pem(key, file, path, complaint) || !classify(key, path, complaint)) {
		return false;
	}
	return make_templates(key) || complain(complaint, "key file %s: OpenSSL cannot use this key", path);
}

struct signing_key *signing_key_load(const char *spec, char *error, size_t error_size)
{
	static const char secret_prefix[] = "hs256:";
	const struct complaint complaint = {error, error_size};
	bool secret = strncmp(spec, secret_prefix, sizeof(secret_prefix) - 1) == 0;
	const char *path = secret ? spec + sizeof(secret_prefix) - 1 : spec;
	struct key_file file = {0};
	struct signing_key *key = calloc(1, sizeof(*key));

	if (key == NULL) {
		complain(&complaint, "no memory for a key");
		return NULL;
	}
	(void)ERR_set_mark();
	bool loaded = set_id(key, path, &complaint) && read_key_file(path, &file, &complaint) &&
		      (secret ? load_secret(key, &file, path, &complaint) : load_pem(key, &file, path, &complaint));
	(void)ERR_pop_to_mark();
	free_key_file(&file);
	if (!loaded) {
		signing_key_free(key);
		return NULL;
	}
	return key;
}

struct signing_key *signing_key_parse(const char *pem, size_t length, const char *id, char *error, size_t error_size)
{
	const struct complaint complaint = {error, error_size};
	struct key_file file = {.bytes = malloc(SIGNING_FILE_MAX + 1), .length = length, .mode = S_IRUSR};
	struct signing_key *key = calloc(1, sizeof(*key));

	if (key == NULL || file.bytes == NULL || length > SIGNING_FILE_MAX) {
		complain(&complaint, length > SIGNING_FILE_MAX ? "the key is too long" : "no memory for a key");
		free(key);
		free(file.bytes);
		return NULL;
	}
	memcpy(file.bytes, pem, length);
	file.bytes[length] = '\0';
	(void)ERR_set_mark();
	bool loaded = set_id(key, id, &complaint) && load_pem(key, &file, id, &complaint);
	(void)ERR_pop_to_mark();
	free_key_file(&file);
	if (!loaded) {
		signing_key_free(key);
		return NULL;
	}
	return key;
}

void signing_key_free(struct signing_key *key)
{
	if (key == NULL) {
		return;
	}
	EVP_MAC_CTX_free(key->mac_template);
	EVP_PKEY_CTX_free(key->sign_template);
	EVP_PKEY_CTX_free(key->verify_template);
	EVP_MD_free(key->sha256);
	EVP_PKEY_free(key->pkey);
	free(key);
}

const char *signing_key_id(const struct signing_key *key)
{
	return key->id;
}

enum signing_algorithm signing_key_algorithm(const struct signing_key *key)
{
	return key->algorithm;
}

bool signing_key_can_sign(const struct signing_key *key)
{
	return key->private;
}

bool signing_key_point(const struct signing_key *key, uint8_t point[SIGNING_POINT_SIZE])
{
	size_t length = 0;
	(void)ERR_set_mark();
	bool known =
		key->algorithm == SIGNING_ES256 &&
		EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY, point, SIGNING_POINT_SIZE, &length) == 1 &&
		length == SIGNING_POINT_SIZE && point[0] == 4;
	(void)ERR_pop_to_mark();
	return known;
}

/* ---- ES256: r || s and DER ---- */

/* The DER of r || s, to be freed with OPENSSL_free; its length, or -1. */
static int der_from_raw(const uint8_t raw[ES256_BYTES], uint8_t **der)
{
	int length = -1;
	ECDSA_SIG *signature = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(raw, ES256_HALF, NULL);
	BIGNUM *s = BN_bin2bn(raw + ES256_HALF, ES256_HALF, NULL);

	if (signature == NULL || r == NULL || s == NULL) {
		BN_free(r);
		BN_free(s);
		goto done;
	}
	(void)ECDSA_SIG_set0(signature, r, s); /* owns both now; fails only for NULL */
	length = i2d_ECDSA_SIG(signature, der);
done:
	ECDSA_SIG_free(signature);
	return length;
}

static bool raw_from_der(const uint8_t *der, size_t length, uint8_t raw[ES256_BYTES])
{
	ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)length);

	if (signature == NULL) {
		return false;
	}
	bool fits = BN_bn2binpad(ECDSA_SIG_get0_r(signature), raw, ES256_HALF) == ES256_HALF &&
		    BN_bn2binpad(ECDSA_SIG_get0_s(signature), raw + ES256_HALF, ES256_HALF) == ES256_HALF;
	ECDSA_SIG_free(signature);
	return fits;
}

bool signing_digest(const void *data, size_t length, uint8_t digest[SIGNING_DIGEST_BYTES])
{
	(void)ERR_set_mark();
	bool made = EVP_Digest(data, length, digest, NULL, EVP_sha256(), NULL) == 1;
	(void)ERR_pop_to_mark();
	return made;
}

/* ---- verifying ---- */

static bool digest_of(const struct signing_key *key, const void *data, size_t length, uint8_t digest[DIGEST_BYTES])
{
	return EVP_Digest(data, length, digest, NULL, key->sha256, NULL) == 1;
}

/* ES256 (signature in DER) and RS256. */
static bool verify_digest(
	const struct signing_key *key, const void *data, size_t length, const uint8_t *signature, size_t signature_length)
{
	uint8_t digest[DIGEST_BYTES];
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_dup(key->verify_template);
	bool valid = context != NULL && digest_of(key, data, length, digest) &&
		     EVP_PKEY_verify(context, signature, signature_length, digest, sizeof(digest)) == 1;

	EVP_PKEY_CTX_free(context);
	return valid;
}

static bool verify_es256(
	const struct signing_key *key, const void *data, size_t length, const uint8_t *signature, size_t signature_length)
{
	uint8_t *der = NULL;

	if (signature_length != ES256_BYTES) {
		return false;
	}
	int der_length = der_from_raw(signature, &der);
	bool valid = der_length > 0 && verify_digest(key, data, length, der, (size_t)der_length);
	OPENSSL_free(der);
	return valid;
}

static bool verify_eddsa(
	const struct signing_key *key, const void *data, size_t length, const uint8_t *signature, size_t signature_length)
{
	if (signature_length != EDDSA_BYTES) {
		return false;
	}
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool valid = context != NULL && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key->pkey) == 1 &&
		     EVP_DigestVerify(context, signature, signature_length, data, length) == 1;
	EVP_MD_CTX_free(context);
	return valid;
}

static bool compute_hs256(const struct signing_key *key, const void *data, size_t length, uint8_t mac[DIGEST_BYTES])
{
	size_t mac_length = 0;
	EVP_MAC_CTX *context = EVP_MAC_CTX_dup(key->mac_template);
	bool made = context != NULL && EVP_MAC_update(context, data, length) == 1 &&
		    EVP_MAC_final(context, mac, &mac_length, DIGEST_BYTES) == 1 && mac_length == DIGEST_BYTES;

	EVP_MAC_CTX_free(context);
	return made;
}

static bool verify_hs256(
	const struct signing_key *key, const void *data, size_t length, const uint8_t *signature, size_t signature_length)
{
	uint8_t mac[DIGEST_BYTES];

	return signature_length == sizeof(mac) && compute_hs256(key, data, length, mac) &&
	       CRYPTO_memcmp(mac, signature, sizeof(mac)) == 0;
}

bool signing_verify(
	const struct signing_key *key, const void *data, size_t data_length, const uint8_t *signature, size_t signature_length)
{
	bool valid = false;

	(void)ERR_set_mark();
	switch (key->algorithm) {
	case SIGNING_ES256:
		valid = verify_es256(key, data, data_length, signature, signature_length);
		break;
	case SIGNING_RS256:
		valid = verify_digest(key, data, data_length, signature, signature_length);
		break;
	case SIGNING_EDDSA:
		valid = verify_eddsa(key, data, data_length, signature, signature_length);
		break;
	case SIGNING_HS256:
		valid = verify_hs256(key, data, data_length, signature, signature_length);
		break;
	}
	(void)ERR_pop_to_mark();
	return valid;
}

/* ---- signing ---- */

/* ES256 (in DER) and RS256. */
static bool sign_digest(const struct signing_key *key, const void *data, size_t length, uint8_t signature[SIGNING_SIGNATURE_MAX],
	size_t *signature_length)
{
	uint8_t digest[DIGEST_BYTES];
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_dup(key->sign_template);

	*signature_length = SIGNING_SIGNATURE_MAX;
	bool made = context != NULL && digest_of(key, data, length, digest) &&
		    EVP_PKEY_sign(context, signature, signature_length, digest, sizeof(digest)) == 1;
	EVP_PKEY_CTX_free(context);
	return made;
}

static bool sign_es256(const struct signing_key *key, const void *data, size_t length, uint8_t signature[SIGNING_SIGNATURE_MAX],
	size_t *signature_length)
{
	uint8_t der[SIGNING_SIGNATURE_MAX];
	size_t der_length;

	*signature_length = ES256_BYTES;
	return sign_digest(key, data, length, der, &der_length) && raw_from_der(der, der_length, signature);
}

static bool sign_eddsa(const struct signing_key *key, const void *data, size_t length, uint8_t signature[SIGNING_SIGNATURE_MAX],
	size_t *signature_length)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	*signature_length = SIGNING_SIGNATURE_MAX;
	bool made = context != NULL && EVP_DigestSignInit(context, NULL, NULL, NULL, key->pkey) == 1 &&
		    EVP_DigestSign(context, signature, signature_length, data, length) == 1;
	EVP_MD_CTX_free(context);
	return made;
}

bool signing_sign(const struct signing_key *key, const void *data, size_t data_length, uint8_t signature[SIGNING_SIGNATURE_MAX],
	size_t *signature_length)
{
	bool made = false;

	if (!key->private) {
		return false;
	}
	(void)ERR_set_mark();
	switch (key->algorithm) {
	case SIGNING_ES256:
		made = sign_es256(key, data, data_length, signature, signature_length);
		break;
	case SIGNING_RS256:
		made = sign_digest(key, data, data_length, signature, signature_length);
		break;
	case SIGNING_EDDSA:
		made = sign_eddsa(key, data, data_length, signature, signature_length);
		break;
	case SIGNING_HS256:
		*signature_length = DIGEST_BYTES;
		made = compute_hs256(key, data, data_length, signature);
		break;
	}
	(void)ERR_pop_to_mark();
	return made;
}
