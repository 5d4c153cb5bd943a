/* app.h - a section of the configuration at work: its connections, credential, pace and breaker, and what its push service's
 * answers say about them. One thread; one app's trouble stays its own.
 *
 *   apps --> of the newest configuration, and older ones until what they began has ended
 *   app  --> lane, http, credential; metrics, which outlive it; Web Push: origins, each with a lane and a credential of its own
 */
#ifndef CHAT_NOTIFIER_APP_H
#define CHAT_NOTIFIER_APP_H

#include "config.h"
#include "credential.h"
#include "http.h"
#include "lane.h"
#include "log.h"
#include "metrics.h"
#include "origins.h"

struct app {
	struct apps *apps;
	const struct config_app *config;
	struct metrics_app *metrics;
	struct lane lane;
	struct lane_limits origin_limits;
	struct http *http;            /* NULL: abandoned */
	struct credential credential; /* not webpush */
	struct origins *origins;      /* webpush */
	bool fetching;                /* an access token */
	int64_t renew_at_ms;          /* monotonic: the credential is not made or fetched before */
	int64_t claim_at_ms;          /* monotonic: nothing is claimed before */
	bool empty;                   /* the last claim found nothing */
	unsigned suspects;            /* "this token is bad" in a row */
	int64_t stale_since_ms;       /* monotonic: since then no request could be written in time; 0: they can */
	struct log_gate complaints;
};

struct apps {
	struct apps *older;
	struct config *config;
	size_t count;
	unsigned in_flight; /* what was begun for them and has not ended */
	struct app list[];
};

/* Takes the configuration over. NULL: no memory, and it is still the caller's. */
struct apps *apps_new(struct loop *loop, struct config *config);
/* What is under way is broken off without a word. */
void apps_free(struct apps *apps);
/* Breaks off what is under way; nothing can be sent any more. */
void apps_abandon(struct apps *apps);

/* A line for whoever runs this, at most one in a while. */
void app_complain(struct app *app, enum log_level level, const char *what, const char *reason);

/* Whether pushes can be sent with the credential there is; sees to it that there is one. */
bool app_prepare(struct app *app, int64_t now_ms);
/* What a push's answer says about the credential of this number. Refused: what to make of that. */
void app_credential_accepted(struct app *app, uint64_t number);
enum provider_action app_credential_refused(struct app *app, uint64_t number);

/* Web Push: the push service that an endpoint belongs to, with its token. NULL: not now, and *delay_ms says when to try again. */
struct origin *app_enter_origin(struct app *app, const char *name, int64_t now_ms, int64_t *delay_ms);

/* "This token is bad", from a service that has accepted nothing for a while, is as likely said of every token: the wrong
 * environment, the wrong project. True: nothing is to be removed on such a word. Asked once for each verdict. */
bool app_is_suspicious(struct app *app, const struct provider_verdict *verdict);

/* A push has begun, or ended, on the way to the origin (or to none). */
void app_begin(struct app *app, struct origin *origin);
void app_end(struct app *app, struct origin *origin, enum lane_event event, int64_t delay_ms);

/* Where it stands, for metrics. */
void app_measure(struct app *app);

/* For spreading what would happen at once. */
uint32_t app_random(void);

#endif
