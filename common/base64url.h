/* base64url.h - RFC 4648 section 5 without padding, strict: no other character, no non-canonical tail bits. Pure. */
#ifndef CHAT_COMMON_BASE64URL_H
#define CHAT_COMMON_BASE64URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE64URL_ENCODED_SIZE(n) (((n)*4 + 2) / 3)
#define BASE64URL_DECODED_SIZE(n) ((n)*3 / 4)

/* `out` holds BASE64URL_ENCODED_SIZE(length) bytes; no NUL is written. Returns the number written. */
size_t base64url_encode(const uint8_t *bytes, size_t length, char *out);
/* `out` holds BASE64URL_DECODED_SIZE(length) bytes. False where text is not canonical base64url. */
bool base64url_decode(const char *text, size_t length, uint8_t *out, size_t *out_length);

#endif
