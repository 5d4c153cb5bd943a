/* sender.c - see sender.h.
 *
 *   sender --> apps (of the newest configuration, and older ones until their last job has ended)
 *   app    --> lane, pool, credential or origins; metrics
 *   job    --> a claimed push on its way; becomes a settlement, which waits for the connection
 */
#include "sender.h"

#include "clock.h"
#include "credential.h"
#include "http.h"
#include "link.h"
#include "log.h"
#include "metrics.h"
#include "origins.h"
#include "subscription.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CLAIM_MAX 100 /* in one call: a few milliseconds of the database */
#define SETTLE_MAX 500
#define STALE_MS 150       /* from the claim's beginning to the last moment at which the request may be written */
#define STALE_LEAST_MS 20  /* though the claim itself took long */
#define STALE_STREAK_MAX 5 /* a service that takes longer to connect to gets its pushes all the same */
#define CHECK_MS 2000
#define QUEUE_MS 10000
#define SUSPECT_MAX 10 /* "bad token" so often in a row, and nothing accepted: more likely the configuration is bad */
#define TOKEN_RETRY_MS 5000
#define CLEAR_ARRAY_MAX PUSH_CLEAR_MAX

struct apps;

struct app {
	struct apps *apps;
	const struct config_app *config;
	struct metrics_app *metrics;
	struct lane lane;
	struct lane_limits origin_limits;
	struct http *http;
	struct credential credential;
	struct origins *origins; /* webpush */
	bool fetching;           /* an access token */
	int64_t fetch_at_ms;     /* not before */
	int64_t claim_at_ms;     /* not before */
	bool empty;              /* the last claim found less than it asked for */
	unsigned suspects, stale_streak;
	struct log_gate complaints;
};

struct apps {
	struct sender *sender;
	struct apps *older;
	struct config *config;
	size_t count;
	unsigned in_flight;
	struct app list[];
};

struct job {
	struct job *next, *previous;
	struct app *app;
	struct origin *origin;
	bool is_token;
	enum push_kind kind;
	int64_t device_id, conversation_id, lease, seq, since_ms, target_us;
	int32_t attempts;
	uint64_t credential_number;
};

struct settlement {
	struct settlement *next;
	int64_t device_id, conversation_id, lease, seq, delay_ms, target_us, gone_ms;
	const char *outcome; /* static */
	const char *error;   /* static, or NULL */
};

struct sender {
	struct loop *loop;
	struct link *finder, *worker;
	struct apps *apps; /* the newest first */
	struct job *jobs;
	struct settlement *first, **last;
	size_t waiting, settling; /* settlements; those in the call under way */
	struct app *claiming;
	struct apps *claiming_apps;
	unsigned claimed; /* asked for in the claim under way */
	int64_t claim_began_ms;
	size_t turn; /* the app whose turn it is */
	int64_t find_at_ms, check_at_ms, queue_at_ms;
	bool stopping, dry_run, found_nothing;
	struct provider_request request;
	struct database_array arrays[9];
	struct database_parameters parameters, finder_parameters;
	struct database_array finder_array;
};

static uint32_t random32(void)
{
	uint32_t value = 0;
	return getrandom(&value, sizeof(value), 0) == (ssize_t)sizeof(value) ? value : 0; /* for spreading alone: 0 will do */
}

/* ---- apps ---- */

static void answered(void *owner, void *tag, const struct http_answer *answer);

static bool app_init(struct app *app, struct apps *apps, const struct config_app *config, int64_t now_ms)
{
	const struct http_options options = {.connections = config->connections,
		.timeout_ms = config->timeout_ms,
		.ca_file = config->ca_file,
		.certificate = config->certificate,
		.certificate_key = config->certificate_key,
		.public_only = config->provider == &provider_webpush && !config->any_host};
	const struct lane_limits limits = {
		.rate = (unsigned)config->rate, .burst = (unsigned)config->burst, .in_flight = (unsigned)config->in_flight};

	app->apps = apps;
	app->config = config;
	app->metrics = metrics_app(config->name);
	app->http = http_new(apps->sender->loop, &options, answered, apps->sender);
	credential_init(&app->credential);
	lane_init(&app->lane, &limits, now_ms);
	if (config->provider == &provider_webpush) {
		app->lane.window = limits.in_flight; /* each origin has a window of its own */
		app->origin_limits.in_flight = limits.in_flight * 3 / 4 + 1;
		app->origins = calloc(1, sizeof(*app->origins));
	}
	return app->metrics && app->http && (app->origins || config->provider != &provider_webpush);
}

static void apps_free(struct apps *apps)
{
	for (size_t i = 0; i < apps->count; i++) {
		struct app *app = &apps->list[i];
		http_free(app->http);
		credential_free(&app->credential);
		if (app->origins) {
			origins_free(app->origins);
			free(app->origins);
		}
	}
	config_free(apps->config);
	free(apps);
}

static struct apps *apps_new(struct sender *sender, struct config *config)
{
	int64_t now_ms = clock_monotonic_ms();
	struct apps *apps = calloc(1, sizeof(*apps) + config->app_count * sizeof(apps->list[0]));
	if (!apps) {
		return NULL;
	}
	apps->sender = sender;
	for (size_t i = 0; i < config->app_count; i++) {
		apps->count = i + 1;
		if (!app_init(&apps->list[i], apps, &config->apps[i], now_ms)) {
			apps_free(apps);
			return NULL;
		}
	}
	apps->config = config;
	return apps;
}

/* ---- jobs and settlements ---- */

static struct job *job_new(struct sender *sender, struct app *app)
{
	struct job *job = calloc(1, sizeof(*job));
	if (job) {
		job->app = app;
		job->next = sender->jobs;
		if (job->next) {
			job->next->previous = job;
		}
		sender->jobs = job;
		app->apps->in_flight++;
	}
	return job;
}

static void job_free(struct sender *sender, struct job *job)
{
	if (job->next) {
		job->next->previous = job->previous;
	}
	if (job->previous) {
		job->previous->next = job->next;
	} else {
		sender->jobs = job->next;
	}
	job->app->apps->in_flight--;
	free(job);
}

static void settle(
	struct sender *sender, const struct job *job, const char *outcome, int64_t delay_ms, int64_t gone_ms, const char *error)
{
	struct settlement *settlement = malloc(sizeof(*settlement));
	if (!settlement) {
		return; /* its lease runs out */
	}
	*settlement = (struct settlement){.device_id = job->device_id,
		.conversation_id = job->conversation_id,
		.lease = job->lease,
		.seq = job->kind == PUSH_CLEAR ? 0 : job->seq,
		.delay_ms = delay_ms,
		.target_us = job->target_us,
		.gone_ms = gone_ms,
		.outcome = outcome,
		.error = error};
	*sender->last = settlement;
	sender->last = &settlement->next;
	sender->waiting++;
}

static void fill_settlements(struct sender *sender)
{
	static const enum database_type types[9] = {DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_TEXT, DATABASE_INT8,
		DATABASE_INT8, DATABASE_TEXT, DATABASE_INT8, DATABASE_INT8};
	struct database_array *arrays = sender->arrays;

	sender->settling = 0;
	for (size_t i = 0; i < 9; i++) {
		arrays[i].type = types[i];
		database_array_reset(&arrays[i]);
	}
	for (const struct settlement *each = sender->first; each && sender->settling < SETTLE_MAX; each = each->next) {
		database_array_integer(&arrays[0], each->device_id);
		database_array_integer(&arrays[1], each->conversation_id);
		database_array_integer(&arrays[2], each->lease);
		database_array_bytes(&arrays[3], each->outcome, strlen(each->outcome));
		database_array_integer(&arrays[4], each->seq);
		database_array_integer(&arrays[5], each->delay_ms);
		if (each->error) {
			database_array_bytes(&arrays[6], each->error, strlen(each->error));
		} else {
			database_array_null(&arrays[6]);
		}
		database_array_integer(&arrays[7], each->target_us);
		database_array_integer(&arrays[8], each->gone_ms);
		sender->settling++;
	}
	database_parameters_reset(&sender->parameters);
	for (size_t i = 0; i < 9; i++) {
		database_parameter_array(&sender->parameters, &arrays[i]);
	}
}

/* Lost: asked again with the same leases, so what was done already is not done twice. Refused: it will be refused again. */
static void settled(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	(void)result;
	while (status != DATABASE_LOST && sender->settling > 0) {
		struct settlement *settlement = sender->first;
		sender->first = settlement->next;
		free(settlement);
		sender->settling--;
		sender->waiting--;
	}
	if (!sender->first) {
		sender->last = &sender->first;
	}
	sender->settling = 0;
}

/* ---- answers ---- */

static void complain(struct app *app, enum log_level level, const char *what, const char *reason)
{
	uint64_t suppressed = 0;
	if (log_gate_open(&app->complaints, clock_monotonic_ms(), &suppressed)) {
		log_line(level, "app %s (%s): %s: %s (%llu such lines were left out)", app->config->name,
			app->config->provider->name, what, reason, (unsigned long long)suppressed);
	}
}

static enum lane_event event_of(const struct provider_verdict *verdict, const struct http_answer *answer)
{
	switch (verdict->action) {
	case ACTION_ACCEPTED:
		return LANE_ACCEPTED;
	case ACTION_SLOW:
		return LANE_SLOW;
	case ACTION_PAUSE:
		return LANE_PAUSE;
	case ACTION_RETRY:
		return answer->status == 0 || answer->status >= 500 ? LANE_FAILED : LANE_ANSWERED;
	default:
		return LANE_ANSWERED;
	}
}

static void end_in_lane(struct job *job, enum lane_event event, int64_t delay_ms)
{
	struct app *app = job->app;
	struct lane *lane = job->origin ? &job->origin->lane : &app->lane;
	int64_t now_ms = clock_monotonic_ms();

	if (lane_end(lane, event, delay_ms, now_ms, random32())) {
		log_line(lane->state == LANE_CLOSED ? LOG_LEVEL_NOTICE : LOG_LEVEL_ERROR, "app %s (%s)%s%s: %s",
			app->config->name, app->config->provider->name, job->origin ? ", " : "",
			job->origin ? job->origin->name : "",
			lane->state == LANE_CLOSED ? "accepts pushes again"
						   : "paused; one push at a time will show when it is well");
	}
	if (job->origin) {
		(void)lane_end(&app->lane, LANE_NOTHING, 0, now_ms, 0);
	}
}

/* "This token is bad", from a service that has accepted nothing for a while, is as likely said of every token: the wrong
 * environment, the wrong project. Nothing is removed on such a word. */
static bool is_suspicious(struct app *app, const struct provider_verdict *verdict)
{
	if (verdict->action == ACTION_ACCEPTED) {
		app->suspects = 0;
	}
	if (strcmp(verdict->reason, "BadDeviceToken") == 0 || strcmp(verdict->reason, "SENDER_ID_MISMATCH") == 0 ||
		strcmp(verdict->reason, "other_vapid_key") == 0) {
		app->suspects++;
	}
	return verdict->action == ACTION_FORGET && app->suspects > SUSPECT_MAX;
}

/* The credential was refused: made anew, unless it was just made, or the refused one is not the one in use any more. */
static enum provider_action refresh(struct app *app, const struct job *job)
{
	int64_t now_ms = clock_wall_ms();
	if (job->credential_number != app->credential.number) {
		return ACTION_REFRESH;
	}
	if (now_ms - app->credential.made_at_ms < 60000) {
		return ACTION_PAUSE; /* a second time in a row */
	}
	app->credential.good = false;
	return ACTION_REFRESH;
}

static void act(struct sender *sender, struct job *job, struct provider_verdict *verdict)
{
	struct app *app = job->app;
	int64_t backoff_ms = verdict->delay_ms > 0 ? verdict->delay_ms + (int64_t)(random32() % 1000)
						   : lane_backoff_ms(job->attempts + 1, random32());

	switch (verdict->action) {
	case ACTION_ACCEPTED:
		metrics_count(app->metrics, METRICS_ACCEPTED, 1);
		if (job->kind == PUSH_MESSAGE) {
			metrics_latency(app->metrics, clock_wall_ms() - job->since_ms);
		}
		settle(sender, job, "accepted", 0, 0, NULL);
		return;
	case ACTION_FORGET:
		metrics_count(app->metrics, METRICS_FORGOTTEN, 1);
		settle(sender, job, "forget", 0, verdict->gone_ms, verdict->reason);
		return;
	case ACTION_DEAD:
		metrics_count(app->metrics, METRICS_DEAD, 1);
		complain(app, LOG_LEVEL_ERROR, "a push was given up", verdict->reason);
		settle(sender, job, "dead", 0, 0, verdict->reason);
		return;
	case ACTION_SHRINK:
		if (job->attempts > 3) {
			settle(sender, job, "dead", 0, 0, verdict->reason);
			return;
		}
		metrics_count(app->metrics, METRICS_RETRIED, 1);
		settle(sender, job, "retry", 0, 0, "shrink");
		return;
	case ACTION_PAUSE:
		complain(app, LOG_LEVEL_ERROR, "the configuration is refused; check keys, ids and topic", verdict->reason);
		settle(sender, job, "release", 1000, 0, verdict->reason);
		return;
	case ACTION_REFRESH:
	case ACTION_SLOW:
		metrics_count(app->metrics, METRICS_RETRIED, 1);
		settle(sender, job, "release", 0, 0, verdict->reason);
		return;
	case ACTION_RETRY:
	case ACTION_COUNT:
		metrics_count(app->metrics, METRICS_RETRIED, 1);
		settle(sender, job, "retry", backoff_ms, 0, verdict->reason);
		return;
	}
}

static void push_answered(struct sender *sender, struct job *job, const struct http_answer *answer)
{
	struct app *app = job->app;
	const struct provider_answer given = {.status = answer->status,
		.body = answer->body,
		.length = answer->length,
		.retry_after_ms = answer->retry_after_ms};

	if (answer->outcome == HTTP_STALE) {
		app->stale_streak++;
		metrics_count(app->metrics, METRICS_STALE, 1);
		end_in_lane(job, LANE_NOTHING, 0);
		settle(sender, job, "release", 0, 0, NULL);
		return;
	}
	app->stale_streak = 0;
	struct provider_verdict verdict = app->config->provider->classify(&given);
	if (answer->outcome == HTTP_FORBIDDEN) {
		verdict = (struct provider_verdict){.action = ACTION_DEAD, .reason = "forbidden_address"};
	} else if (answer->outcome == HTTP_FAILED) {
		complain(app, LOG_LEVEL_WARNING, "no answer", answer->error);
	}
	if (verdict.action == ACTION_REFRESH) {
		verdict.action = refresh(app, job);
	}
	if (is_suspicious(app, &verdict)) {
		verdict.action = ACTION_PAUSE;
	}
	if (verdict.action != ACTION_ACCEPTED) {
		metrics_refused(app->metrics, verdict.reason);
	}
	end_in_lane(job, event_of(&verdict, answer), verdict.delay_ms);
	act(sender, job, &verdict);
}

static void token_answered(struct app *app, const struct http_answer *answer)
{
	int64_t now_ms = clock_monotonic_ms();

	app->fetching = false;
	if (answer->outcome == HTTP_ANSWERED && answer->status == 200 &&
		credential_google_answer(&app->credential, answer->body, answer->length, clock_wall_ms())) {
		metrics_count(app->metrics, METRICS_REFRESHES, 1);
		app->fetch_at_ms = now_ms + 1000;
		return;
	}
	char status[64];
	(void)snprintf(status, sizeof(status), "HTTP %d", answer->status);
	complain(app, LOG_LEVEL_ERROR, "no access token", answer->outcome == HTTP_FAILED ? answer->error : status);
	metrics_refused(app->metrics, "no_access_token");
	app->fetch_at_ms =
		now_ms + (answer->retry_after_ms > 0 ? answer->retry_after_ms : TOKEN_RETRY_MS) + (int64_t)(random32() % 1000);
}

static void answered(void *owner, void *tag, const struct http_answer *answer)
{
	struct sender *sender = owner;
	struct job *job = tag;
	if (job->is_token) {
		token_answered(job->app, answer);
	} else {
		push_answered(sender, job, answer);
	}
	job_free(sender, job);
}

/* ---- credentials ---- */

static void fetch_token(struct sender *sender, struct app *app, int64_t now_ms)
{
	static const char *const headers[] = {"content-type: application/x-www-form-urlencoded"};
	struct buffer body;
	struct job *job = NULL;

	buffer_init(&body, 8192);
	app->fetch_at_ms = now_ms + TOKEN_RETRY_MS;
	if (credential_google_request(app->config, clock_wall_ms(), &body) && (job = job_new(sender, app)) != NULL) {
		job->is_token = true;
		app->fetching = http_post(app->http, app->config->token_url, headers, 1, body.data, body.length, 0, job);
		if (!app->fetching) {
			job_free(sender, job);
		}
	}
	buffer_free(&body);
}

/* Whether pushes can be sent with what is there; sees to it that there is something. */
static bool prepare_credential(struct sender *sender, struct app *app, int64_t now_ms)
{
	const struct config_app *config = app->config;
	int64_t wall_ms = clock_wall_ms();

	if (config->provider == &provider_webpush || config->certificate || sender->dry_run) {
		return true;
	}
	if (credential_is_due(&app->credential, wall_ms)) {
		if (config->provider == &provider_fcm) {
			if (!app->fetching && now_ms >= app->fetch_at_ms) {
				fetch_token(sender, app, now_ms);
			}
		} else if (now_ms >= app->fetch_at_ms) {
			app->fetch_at_ms = now_ms + TOKEN_RETRY_MS;
			if (credential_make_apns(&app->credential, config, wall_ms)) {
				metrics_count(app->metrics, METRICS_REFRESHES, 1);
			}
		}
	}
	return credential_is_good(&app->credential, wall_ms);
}

/* ---- claimed rows become requests ---- */

enum column {
	DEVICE,
	CONVERSATION,
	LEASE,
	VERDICT,
	PROVIDER,
	TOKEN,
	SUBSCRIPTION,
	TARGET,
	USER,
	ATTEMPTS,
	SEQ,
	COUNT,
	BADGE,
	SINCE,
	EXPIRES,
	LANGUAGE,
	CONVERSATION_TYPE,
	CONVERSATION_NAME,
	SENDER_NAME,
	MESSAGE_TYPE,
	BODY,
	CLEARED,
	LAST_ERROR
};

/* A row's texts, NUL-terminated: libpq keeps a NUL after every value. */
static const char *text_at(const struct database_result *result, int row, enum column column)
{
	size_t length;
	return database_bytes(result, row, (int)column, &length);
}

static bool text_is(const char *text, const char *word)
{
	return text && strcmp(text, word) == 0;
}

struct draft {
	struct push push;
	struct subscription subscription;
	int64_t cleared[CLEAR_ARRAY_MAX];
	char title[204], body[1004];
	const char *wrong; /* why it cannot be sent, static */
};

static void read_target(const struct app *app, const struct database_result *result, int row, struct draft *draft)
{
	size_t length = 0;

	if (!text_is(text_at(result, row, PROVIDER), app->config->provider->name)) {
		draft->wrong = "other_provider";
		return;
	}
	if (app->config->provider != &provider_webpush) {
		draft->push.token = text_at(result, row, TOKEN);
		draft->wrong = draft->push.token ? NULL : "no_token";
		return;
	}
	const char *json = database_bytes(result, row, SUBSCRIPTION, &length);
	if (!json || subscription_parse(json, length, app->config->any_host, &draft->subscription)) {
		draft->wrong = "bad_subscription";
		return;
	}
	draft->push.endpoint = draft->subscription.endpoint;
	memcpy(draft->push.p256dh, draft->subscription.p256dh, sizeof(draft->push.p256dh));
	memcpy(draft->push.auth, draft->subscription.auth, sizeof(draft->push.auth));
}

static void read_draft(const struct app *app, const struct database_result *result, int row, struct draft *draft)
{
	const char *verdict = text_at(result, row, VERDICT);
	struct push *push = &draft->push;
	const struct content_message message = {.test = text_is(verdict, "test"),
		.level = app->config->content,
		.language = text_at(result, row, LANGUAGE),
		.conversation_type = text_at(result, row, CONVERSATION_TYPE),
		.conversation_name = text_at(result, row, CONVERSATION_NAME),
		.sender_name = text_at(result, row, SENDER_NAME),
		.type = text_at(result, row, MESSAGE_TYPE),
		.body = text_at(result, row, BODY),
		.count = database_integer(result, row, COUNT)};
	struct database_integers cleared = database_integer_array(result, row, CLEARED);

	memset(push, 0, sizeof(*push));
	draft->wrong = NULL;
	push->kind = message.test ? PUSH_TEST : text_is(verdict, "clear") ? PUSH_CLEAR : PUSH_MESSAGE;
	push->device_id = database_integer(result, row, DEVICE);
	push->conversation_id = database_integer(result, row, CONVERSATION);
	push->seq = database_integer(result, row, SEQ);
	push->count = message.count > 0 ? message.count : 1;
	push->badge = database_is_null(result, row, BADGE) ? PUSH_BADGE_NONE : database_integer(result, row, BADGE);
	push->expires_at_ms = database_time_ms(result, row, EXPIRES);
	push->small = text_is(text_at(result, row, LAST_ERROR), "shrink");
	content_make(app->apps->config->templates, &message, draft->title, draft->body);
	push->title = draft->title;
	push->body = draft->body;
	for (int32_t i = 0; i < cleared.count && i < CLEAR_ARRAY_MAX; i++) {
		draft->cleared[push->cleared_count++] = database_integers_next(&cleared);
	}
	push->cleared = draft->cleared;
	read_target(app, result, row, draft);
}

static void say(const struct app *app, const struct database_result *result, int row, const struct draft *draft)
{
	static const char *const kinds[] = {[PUSH_MESSAGE] = "message", [PUSH_CLEAR] = "clear", [PUSH_TEST] = "test"};
	char title[300], body[1200];
	(void)printf("would push to user %lld, device %lld (%s, app %s): %s, conversation %lld, up to %lld, count %lld, title "
		     "\"%s\", body \"%s\"\n",
		(long long)database_integer(result, row, USER), (long long)draft->push.device_id, app->config->provider->name,
		app->config->name, kinds[draft->push.kind], (long long)draft->push.conversation_id, (long long)draft->push.seq,
		(long long)draft->push.count, text_escape(title, sizeof(title), draft->title, strlen(draft->title)),
		text_escape(body, sizeof(body), draft->body, strlen(draft->body)));
	(void)fflush(stdout);
}

/* The origin's lane and token; false: not now, and *delay_ms says when to try again. */
static bool enter_origin(struct app *app, struct job *job, const char *name, int64_t now_ms, int64_t *delay_ms)
{
	struct origin *origin = origins_get(app->origins, name, &app->origin_limits, now_ms);
	*delay_ms = 200;
	if (!origin) {
		return false;
	}
	if (lane_room(&origin->lane, now_ms) == 0) {
		*delay_ms = origin->lane.until_ms > now_ms ? origin->lane.until_ms - now_ms : *delay_ms;
		return false;
	}
	if (credential_is_due(&origin->credential, clock_wall_ms())) {
		if (!credential_make_vapid(&origin->credential, app->config, name, clock_wall_ms())) {
			return false;
		}
		metrics_count(app->metrics, METRICS_REFRESHES, 1);
	}
	job->origin = origin;
	return true;
}

/* True: it is on its way. */
static bool post(struct sender *sender, struct app *app, struct job *job, const struct draft *draft, bool *buildable)
{
	uint8_t random[PROVIDER_RANDOM_BYTES];
	const char *headers[PROVIDER_HEADERS_MAX];
	struct provider_request *request = &sender->request;
	const struct credential *credential = job->origin ? &job->origin->credential : &app->credential;
	const struct provider_input input = {.settings = &app->config->settings,
		.push = &draft->push,
		.authorization = app->config->certificate ? NULL : credential->text.data,
		.random = random,
		.now_ms = clock_wall_ms()};
	int64_t now_ms = clock_monotonic_ms();
	int64_t stale_at_ms = sender->claim_began_ms + STALE_MS;

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
		return false;
	}
	*buildable = app->config->provider->build(&input, request);
	if (!*buildable) {
		return false;
	}
	for (size_t i = 0; i < request->header_count; i++) {
		headers[i] = request->text.data + request->headers[i];
	}
	stale_at_ms = stale_at_ms < now_ms + STALE_LEAST_MS ? now_ms + STALE_LEAST_MS : stale_at_ms;
	stale_at_ms = app->stale_streak >= STALE_STREAK_MAX ? 0 : stale_at_ms;
	job->credential_number = credential->number;
	return http_post(app->http, request->url.data, headers, request->header_count, request->body.data, request->body.length,
		stale_at_ms, job);
}

static void give_up(struct sender *sender, struct app *app, const struct job *job, const char *reason)
{
	metrics_refused(app->metrics, reason);
	metrics_count(app->metrics, METRICS_DEAD, 1);
	complain(app, LOG_LEVEL_WARNING, "a push was given up", reason);
	settle(sender, job, "dead", 0, 0, reason);
}

static void dispatch(struct sender *sender, struct app *app, const struct database_result *result, int row)
{
	struct draft draft;
	int64_t delay_ms = 0;
	bool buildable = true, posted = false;
	struct job *job = job_new(sender, app);

	if (!job) {
		return; /* its lease runs out */
	}
	read_draft(app, result, row, &draft);
	job->kind = draft.push.kind;
	job->device_id = draft.push.device_id;
	job->conversation_id = draft.push.conversation_id;
	job->seq = draft.push.seq;
	job->lease = database_integer(result, row, LEASE);
	job->since_ms = database_time_ms(result, row, SINCE);
	job->target_us = database_integer(result, row, TARGET);
	job->attempts = (int32_t)database_integer(result, row, ATTEMPTS);
	if (draft.wrong) {
		give_up(sender, app, job, draft.wrong);
	} else if (sender->dry_run) {
		say(app, result, row, &draft);
		settle(sender, job, "accepted", 0, 0, NULL);
	} else if (app->origins && !enter_origin(app, job, draft.subscription.origin, clock_monotonic_ms(), &delay_ms)) {
		settle(sender, job, "release", delay_ms, 0, NULL);
	} else {
		posted = post(sender, app, job, &draft, &buildable);
		if (!buildable) {
			give_up(sender, app, job, "cannot_be_built");
		} else if (!posted) {
			settle(sender, job, "release", 1000, 0, "no_memory");
		}
	}
	if (posted) {
		lane_begin(&app->lane, 1);
		if (job->origin) {
			lane_begin(&job->origin->lane, 1);
		}
	} else {
		job_free(sender, job);
	}
}

static void claimed(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	struct app *app = sender->claiming;
	int rows = status == DATABASE_OK ? database_rows(result) : 0;

	sender->claiming = NULL;
	sender->claiming_apps->in_flight--;
	app->empty = status == DATABASE_OK && rows == 0;
	app->claim_at_ms = clock_monotonic_ms() + (rows < (int)sender->claimed ? app->apps->config->poll_ms : 0);
	for (int row = 0; row < rows; row++) {
		const char *verdict = text_at(result, row, VERDICT);
		if (text_is(verdict, "message") || text_is(verdict, "clear") || text_is(verdict, "test")) {
			dispatch(sender, app, result, row);
		} else if (text_is(verdict, "known")) {
			metrics_count(app->metrics, METRICS_CANCELLED, 1);
		} else if (text_is(verdict, "expired")) {
			metrics_count(app->metrics, METRICS_EXPIRED, 1);
		}
	}
}

/* ---- what the connections are used for ---- */

static void begin_claim(struct sender *sender, struct app *app, unsigned room, int64_t now_ms)
{
	struct database_array *name = &sender->arrays[0];

	sender->claiming = app;
	sender->claiming_apps = app->apps;
	app->apps->in_flight++; /* a reload must not free it */
	sender->claimed = room > CLAIM_MAX ? CLAIM_MAX : room;
	sender->claim_began_ms = now_ms;
	name->type = DATABASE_TEXT;
	database_array_reset(name);
	database_array_bytes(name, app->config->name, strlen(app->config->name));
	database_parameters_reset(&sender->parameters);
	database_parameter_array(&sender->parameters, name);
	database_parameter_integer(&sender->parameters, (int64_t)sender->claimed);
	database_parameter_integer(&sender->parameters, app->apps->config->lease_ms);
	database_parameter_bool(&sender->parameters, app->config->badge);
	link_call(sender->worker, LINK_CLAIM, &sender->parameters, claimed, sender);
}

/* The apps take turns. Returns when the next one may want something. */
static int64_t work(struct sender *sender, int64_t now_ms)
{
	struct apps *apps = sender->apps;
	int64_t next_ms = now_ms + apps->config->poll_ms;

	if (!link_is_idle(sender->worker)) {
		return next_ms;
	}
	if (sender->first) {
		fill_settlements(sender);
		link_call(sender->worker, LINK_SETTLE, &sender->parameters, settled, sender);
		return next_ms;
	}
	for (size_t i = 0; i < apps->count && !sender->stopping; i++) {
		struct app *app = &apps->list[(sender->turn + i) % apps->count];
		if (now_ms < app->claim_at_ms) {
			next_ms = app->claim_at_ms < next_ms ? app->claim_at_ms : next_ms;
			continue;
		}
		unsigned room = prepare_credential(sender, app, now_ms) ? lane_room(&app->lane, now_ms) : 0;
		if (room > 0) {
			sender->turn = (sender->turn + i + 1) % apps->count;
			begin_claim(sender, app, room, now_ms);
			return next_ms;
		}
	}
	return next_ms;
}

static void found(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	int64_t now_ms = clock_monotonic_ms();

	sender->find_at_ms = now_ms + sender->apps->config->poll_ms;
	if (status != DATABASE_OK || database_rows(result) == 0) {
		return;
	}
	int64_t pushes = database_integer(result, 0, 1), behind_ms = database_integer(result, 0, 2);
	metrics_found((uint64_t)database_integer(result, 0, 0), (uint64_t)pushes, behind_ms);
	sender->found_nothing = pushes == 0 && behind_ms == 0;
	if (behind_ms > 0) {
		sender->find_at_ms = now_ms;
	}
	for (size_t i = 0; i < sender->apps->count && pushes > 0; i++) {
		sender->apps->list[i].claim_at_ms = 0;
		sender->apps->list[i].empty = false;
	}
}

static void checked(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	bool more = status == DATABASE_OK && database_rows(result) > 0 && database_integer(result, 0, 0) >= SETTLE_MAX;
	sender->check_at_ms = clock_monotonic_ms() + (more ? 0 : CHECK_MS);
}

static void queue_seen(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	sender->queue_at_ms = clock_monotonic_ms() + QUEUE_MS;
	for (size_t i = 0; i < sender->apps->count && status == DATABASE_OK; i++) {
		struct app *app = &sender->apps->list[i];
		int64_t due = 0, oldest_ms = 0, dead = 0;
		for (int row = 0; row < database_rows(result); row++) {
			if (text_is(text_at(result, row, 0), app->config->name)) {
				due = database_integer(result, row, 1);
				oldest_ms = database_integer(result, row, 2);
				dead = database_integer(result, row, 3);
			}
		}
		metrics_gauge(app->metrics, METRICS_QUEUED, due);
		metrics_gauge(app->metrics, METRICS_OLDEST_MS, oldest_ms);
		metrics_gauge(app->metrics, METRICS_DEAD_ROWS, dead);
	}
}

static void look(struct sender *sender, int64_t now_ms)
{
	struct database_parameters *parameters = &sender->finder_parameters;
	const struct config *config = sender->apps->config;

	if (!link_is_idle(sender->finder) || sender->stopping) {
		return;
	}
	database_parameters_reset(parameters);
	if (now_ms >= sender->find_at_ms) {
		database_parameter_integer(parameters, config->grace_ms);
		database_parameter_integer(parameters, config->ttl_ms);
		link_call(sender->finder, LINK_FIND, parameters, found, sender);
	} else if (now_ms >= sender->check_at_ms) {
		database_array_reset(&sender->finder_array);
		for (size_t i = 0; i < config->app_count; i++) {
			if (config->apps[i].clear) {
				database_array_bytes(&sender->finder_array, config->apps[i].name, strlen(config->apps[i].name));
			}
		}
		database_parameter_array(parameters, &sender->finder_array);
		database_parameter_integer(parameters, SETTLE_MAX);
		link_call(sender->finder, LINK_CHECK, parameters, checked, sender);
	} else if (now_ms >= sender->queue_at_ms) {
		link_call(sender->finder, LINK_QUEUE, parameters, queue_seen, sender);
	}
}

/* ---- outside ---- */

struct sender *sender_new(struct loop *loop, struct config *config, bool dry_run)
{
	struct sender *sender = calloc(1, sizeof(*sender));
	if (!sender) {
		config_free(config);
		return NULL;
	}
	sender->loop = loop;
	sender->dry_run = dry_run;
	sender->last = &sender->first;
	provider_request_init(&sender->request);
	for (size_t i = 0; i < 9; i++) {
		database_array_init(&sender->arrays[i], DATABASE_INT8);
	}
	database_array_init(&sender->finder_array, DATABASE_TEXT);
	sender->finder = link_new(loop, config->database, "log");
	sender->worker = link_new(loop, config->database, "queue");
	sender->apps = apps_new(sender, config);
	if (!sender->apps) {
		config_free(config);
	}
	if (!sender->finder || !sender->worker || !sender->apps) {
		sender_free(sender);
		return NULL;
	}
	return sender;
}

void sender_free(struct sender *sender)
{
	if (!sender) {
		return;
	}
	link_free(sender->finder);
	link_free(sender->worker);
	while (sender->jobs) {
		job_free(sender, sender->jobs);
	}
	while (sender->apps) {
		struct apps *apps = sender->apps;
		sender->apps = apps->older;
		apps_free(apps);
	}
	while (sender->first) {
		struct settlement *settlement = sender->first;
		sender->first = settlement->next;
		free(settlement);
	}
	for (size_t i = 0; i < 9; i++) {
		database_array_free(&sender->arrays[i]);
	}
	database_array_free(&sender->finder_array);
	provider_request_free(&sender->request);
	free(sender);
}

void sender_reload(struct sender *sender, struct config *config)
{
	struct apps *apps = apps_new(sender, config);
	if (!apps) {
		log_line(LOG_LEVEL_ERROR, "no memory for the new configuration: the old one stays");
		config_free(config);
		return;
	}
	if (strcmp(sender->apps->config->database, config->database) != 0) {
		log_line(LOG_LEVEL_WARNING, "the new value of database holds after a restart");
	}
	apps->older = sender->apps;
	sender->apps = apps;
}

static void free_older_apps(struct sender *sender)
{
	for (struct apps **link = &sender->apps->older; *link;) {
		struct apps *apps = *link;
		if (apps->in_flight == 0) {
			*link = apps->older;
			apps_free(apps);
		} else {
			link = &apps->older;
		}
	}
}

int64_t sender_tick(struct sender *sender, int64_t now_ms)
{
	int64_t next_ms = INT64_MAX;

	for (struct apps *apps = sender->apps; apps; apps = apps->older) {
		for (size_t i = 0; i < apps->count; i++) {
			http_tick(apps->list[i].http, now_ms);
		}
	}
	free_older_apps(sender);
	link_tick(sender->finder, now_ms);
	link_tick(sender->worker, now_ms);
	look(sender, now_ms);
	next_ms = work(sender, now_ms);
	for (struct apps *apps = sender->apps; apps; apps = apps->older) {
		for (size_t i = 0; i < apps->count; i++) {
			int64_t deadline_ms = http_deadline_ms(apps->list[i].http);
			next_ms = deadline_ms < next_ms ? deadline_ms : next_ms;
		}
	}
	const int64_t others[] = {link_deadline_ms(sender->finder), link_deadline_ms(sender->worker),
		link_is_idle(sender->finder) ? sender->find_at_ms : INT64_MAX};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		next_ms = others[i] < next_ms ? others[i] : next_ms;
	}
	return next_ms;
}

void sender_stop(struct sender *sender)
{
	sender->stopping = true;
}

void sender_abandon(struct sender *sender)
{
	for (struct job *job = sender->jobs; job; job = job->next) {
		if (!job->is_token) {
			settle(sender, job, "release", 0, 0, NULL);
		}
	}
	for (struct apps *apps = sender->apps; apps; apps = apps->older) {
		for (size_t i = 0; i < apps->count; i++) {
			http_free(apps->list[i].http);
			apps->list[i].http = NULL;
		}
	}
	while (sender->jobs) {
		job_free(sender, sender->jobs);
	}
}

bool sender_is_done(const struct sender *sender)
{
	return !sender->jobs && !sender->first && !sender->claiming;
}

bool sender_is_idle(const struct sender *sender)
{
	for (size_t i = 0; i < sender->apps->count; i++) {
		if (!sender->apps->list[i].empty) {
			return false;
		}
	}
	return sender->found_nothing && sender_is_done(sender);
}

bool sender_is_healthy(const struct sender *sender)
{
	return link_is_up(sender->finder) && link_is_up(sender->worker);
}

void sender_measure(struct sender *sender)
{
	metrics_database(sender_is_healthy(sender));
	for (size_t i = 0; i < sender->apps->count; i++) {
		struct app *app = &sender->apps->list[i];
		metrics_gauge(app->metrics, METRICS_IN_FLIGHT, app->lane.in_flight);
		metrics_gauge(app->metrics, METRICS_WINDOW, app->lane.window);
		metrics_gauge(app->metrics, METRICS_BREAKER, app->lane.state);
		metrics_gauge(app->metrics, METRICS_CONNECTIONS, (int64_t)http_connections_made(app->http));
	}
}
