/* provider.h - what the three push services have in common: a push goes in, a request comes out; an answer goes in, a verdict
 * comes out. Both directions are pure functions (no I/O, no clock, no randomness of their own), so that every row of the
 * services' error tables is a row of a test.
 *
 * A provider is a const struct of these functions; an app (a section of the configuration) names one. To add a provider: a file
 * like fcm.c, its name in provider_find(), its options in config.c.
 */
#ifndef CHAT_NOTIFIER_PROVIDER_H
#define CHAT_NOTIFIER_PROVIDER_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum push_kind {
	PUSH_MESSAGE,
	PUSH_CLEAR, /* silently: take notifications away, they were read elsewhere */
	PUSH_TEST
};

#define PUSH_BADGE_NONE (-1)
#define PUSH_TITLE_MAX 200 /* bytes */
#define PUSH_BODY_MAX 1000 /* bytes; nobody's lock screen shows more, and it leaves room below the services' 4096 */
#define PUSH_CLEAR_MAX 50  /* conversations named in one silent push */

/* One push. Text is valid UTF-8, and like all pointers borrowed from whoever made the push. */
struct push {
	enum push_kind kind;
	int64_t device_id;
	int64_t conversation_id; /* 0 for a test */
	int64_t seq;             /* the newest message it is about */
	int64_t count;           /* messages it is about, at least 1 */
	int64_t badge;           /* what is unread in all, or PUSH_BADGE_NONE */
	int64_t expires_at_ms;   /* wall clock */
	bool small;              /* ids alone: the whole was too large for the service */
	const char *title;
	const char *body; /* "" where the app's `content` says so */
	const int64_t *cleared;
	size_t cleared_count;
	const char *token; /* fcm, apns */
	/* webpush: the subscription, checked */
	const char *endpoint;
	uint8_t p256dh[65];
	uint8_t auth[16];
};

/* What an app's section says that a request depends on. Strings are the configuration's. */
struct provider_settings {
	const char *url;   /* scheme and host of the service */
	const char *path;  /* fcm: "/v1/projects/X/messages:send" */
	const char *topic; /* apns */
	bool data_only;    /* fcm: the app draws the notification itself */
};

#define PROVIDER_RANDOM_BYTES 48

struct provider_input {
	const struct provider_settings *settings;
	const struct push *push;
	const char *authorization; /* the header's value, or NULL where the connection itself is the proof */
	const uint8_t *random;     /* PROVIDER_RANDOM_BYTES, fresh for each request */
	int64_t now_ms;            /* wall clock */
};

#define PROVIDER_HEADERS_MAX 10

/* Reused from request to request. Headers are "Name: value", one after the other in `text`. */
struct provider_request {
	struct buffer url;  /* NUL-terminated */
	struct buffer body; /* bytes */
	struct buffer text;
	size_t headers[PROVIDER_HEADERS_MAX]; /* offsets into text, each NUL-terminated */
	size_t header_count;
};

void provider_request_init(struct provider_request *request);
void provider_request_free(struct provider_request *request);
void provider_request_reset(struct provider_request *request);
/* Too many headers, or no memory, show as request->text.failed. */
__attribute__((format(printf, 2, 3))) void provider_header(struct provider_request *request, const char *format, ...);
/* True where all three buffers are whole. */
bool provider_request_ok(const struct provider_request *request);

/* What became of a push. */
enum provider_action {
	ACTION_ACCEPTED,
	ACTION_RETRY,   /* this push later: after delay_ms, or by back-off where that is 0 */
	ACTION_SLOW,    /* the whole app was too fast: nothing for delay_ms (or by back-off), then again */
	ACTION_REFRESH, /* the credential is stale: make another, and try at once; a second time in a row it is ACTION_PAUSE */
	ACTION_PAUSE,   /* the app's configuration is wrong: nothing until a probe goes through; whoever runs this must act */
	ACTION_FORGET,  /* the target is dead */
	ACTION_SHRINK,  /* too large: once more with ids alone */
	ACTION_DEAD,    /* this push will never be accepted as it is: kept aside, alarm */
	ACTION_COUNT
};

struct provider_verdict {
	enum provider_action action;
	const char *reason; /* static; the service's own word where it is known, for logs and metrics */
	int64_t delay_ms;
	int64_t gone_ms; /* ACTION_FORGET: dead since then (wall clock); 0: not said */
};

struct provider_answer {
	int status; /* HTTP; 0: there was no answer, so nobody knows what became of the push */
	const char *body;
	size_t length;
	int64_t retry_after_ms; /* 0: not said */
};

struct provider {
	const char *name;
	/* False: this push can never be made (settings or target), or no memory. */
	bool (*build)(const struct provider_input *input, struct provider_request *request);
	struct provider_verdict (*classify)(const struct provider_answer *answer);
	size_t payload_max;  /* bytes of what is counted by the service */
	bool clears;         /* has silent pushes */
	unsigned in_flight;  /* requests under way, at most, unless the configuration says otherwise */
	bool one_connection; /* answers and limits belong to one host */
};

extern const struct provider provider_fcm, provider_apns, provider_webpush;

/* NULL: no such provider. */
const struct provider *provider_find(const char *name);

const char *provider_action_name(enum provider_action action);

/* The push's identity, the same for every try of the same news to the same device: a UUID (RFC 9562 version 8) from device,
 * conversation, seq and kind. */
void provider_push_id(const struct push *push, uint8_t id[16]);

/* Shared by the classifiers: 408, 429 and what begins with 5, or no answer at all. */
struct provider_verdict provider_classify_status(const struct provider_answer *answer);
/* Shared by those whose service explains itself in JSON: accepted, or what `explain` makes of the body's tree. No reason: there
 * is no explanation that is known, and the status has to do. */
struct cJSON;
typedef struct provider_verdict (*provider_explain)(const struct provider_answer *answer, const struct cJSON *tree);
struct provider_verdict provider_classify_json(const struct provider_answer *answer, provider_explain explain);

/* Writes a payload into an empty buffer with at most body_max bytes of the push's body. */
typedef void (*provider_payload)(const struct provider_input *input, size_t body_max, struct buffer *out);
/* Makes the body shorter until the payload has at most `max` bytes. False: even without a body it does not fit, or no memory. */
bool provider_fit(provider_payload payload, const struct provider_input *input, size_t max, struct buffer *out);

/* A JSON string cut at a character's boundary to at most `size` bytes of UTF-8, with an ellipsis where it was cut. */
void provider_append_cut(struct buffer *buffer, const char *text, size_t size);

#endif
