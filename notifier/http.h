/* http.h - requests to one app's push service, many at a time, over few HTTP/2 connections (libcurl's multi interface) in the
 * loop.
 *
 * The only door to libcurl. Each app has a pool of its own: connections are bound to a certificate or a team by their first push,
 * and one service's trouble stays its own.
 *
 * libcurl before 8.14 resets every stream that ends without a content-length (lib/http2.c, http2_handle_stream_close), and
 * servers on nghttp2 answer 1,000 resets, less 33 a second, by closing the connection in the middle of others' requests. So with
 * these versions a pool keeps count as such a server does, and moves on to a new connection before that; the old one ends with
 * its last answer.
 *
 * No redirect is followed, no proxy of the environment used, nothing but https spoken, and of an answer no more kept than 8 KiB.
 */
#ifndef CHAT_NOTIFIER_HTTP_H
#define CHAT_NOTIFIER_HTTP_H

#include "loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;

struct http_options {
	int64_t connections; /* to one host */
	int64_t timeout_ms;
	const char *ca_file; /* NULL: the system's */
	const char *certificate, *certificate_key;
	bool public_only; /* refuse to connect to addresses that are not public */
};

enum http_outcome {
	HTTP_ANSWERED,
	HTTP_FAILED,   /* nobody knows whether it arrived */
	HTTP_STALE,    /* it could not be sent before stale_at_ms, so it was not */
	HTTP_FORBIDDEN /* the host's address is not public: nothing was sent */
};

struct http_answer {
	enum http_outcome outcome;
	int status;
	const char *body;
	size_t length;
	int64_t retry_after_ms;
	const char *error; /* libcurl's words for HTTP_FAILED */
};

typedef void (*http_done)(void *tag, const struct http_answer *answer);

/* Once, before everything else; false: libcurl does not work here. Cleans up at exit. */
bool http_start_library(void);

/* Strings of `options` are the caller's, and outlive the pool. NULL: no memory. */
struct http *http_new(struct loop *loop, const struct http_options *options);
/* What is under way is broken off without a word. */
void http_free(struct http *http);

/* POSTs. Headers are NUL-terminated "name: value". `done` gets `tag` and the answer later, exactly once. stale_at_ms: monotonic,
 * 0 for none. False: no memory, and `done` is not called. */
__attribute__((warn_unused_result)) bool http_post(struct http *http, const char *url, const char *const headers[],
	size_t header_count, const void *body, size_t length, int64_t stale_at_ms, http_done done, void *tag);

/* Lets libcurl's time-outs happen. NULL is allowed, here and in http_deadline_ms. */
void http_tick(struct http *http, int64_t now_ms);
int64_t http_deadline_ms(const struct http *http);

uint64_t http_connections_made(const struct http *http);

#endif
