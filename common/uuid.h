/* uuid.h - UUIDs as 16 bytes (RFC 9562). */
#ifndef CHAT_COMMON_UUID_H
#define CHAT_COMMON_UUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_TEXT_LENGTH 36

/* Exactly the 8-4-4-4-12 form, either case. Any version: a sender's UUID is taken as it is. `out` is left alone where
 * the answer is no. */
bool uuid_parse(const char *text, size_t length, uint8_t out[16]);
/* Lower case, 36 bytes, no NUL. */
void uuid_format(const uint8_t uuid[16], char out[UUID_TEXT_LENGTH]);
/* Version 7 (RFC 9562 section 5.7): 48 bits of unix_ms, then 74 random bits. Cheap: a system call for every 25th. Any
 * thread. A child of fork() must not go on making UUIDs in the parent's threads' names: it would repeat the parent's. */
void uuid_make(int64_t unix_ms, uint8_t out[16]);

#endif
