/* sender.c - see sender.h.
 *
 *   claim --> job, a push on its way --> settlement, which waits for the connection
 *
 * A job belongs to an app and keeps it alive, though a reload has put another in its place.
 */
#include "sender.h"

#include "app.h"
#include "claim.h"
#include "clock.h"
#include "link.h"
#include "settlements.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CLAIM_MAX 16 /* in one call: some 3 ms of the database */
#define CLAIM_MIN 5  /* where the database is slow */
#define CHECK_MAX 500
#define STALE_MS 150            /* from the claim's beginning to the last moment at which the request may be written */
#define STALE_LEAST_MS 20       /* though the smallest claim took long */
#define STALE_PATIENCE_MS 10000 /* a service that takes longer all this time gets its pushes all the same */
#define CHECK_MS 2000
#define QUEUE_MS 10000

struct job {
	struct job *next, *previous;
	struct sender *sender;
	struct app *app;
	struct origin *origin;
	enum push_kind kind;
	int64_t device_id, conversation_id, lease, seq, since_ms, target_us;
	int32_t attempts;
	uint64_t credential_number;
};

struct sender {
	struct loop *loop;
	struct link *finder, *worker;
	struct apps *apps; /* the newest first */
	struct job *jobs;
	struct settlements settlements;
	struct app *claiming;
	unsigned claimed;   /* asked for in the claim under way */
	unsigned claim_max; /* smaller where claims take long */
	bool claim_late;    /* the claim took too long for what it found to be sent */
	int64_t claim_began_ms;
	size_t turn; /* the app whose turn it is */
	int64_t find_at_ms, check_at_ms, queue_at_ms;
	bool stopping, dry_run, found_nothing;
	struct provider_request request;
	struct database_array app_name, clearing_apps;
	struct database_parameters parameters, finder_parameters;
};

/* ---- jobs ---- */

static struct job *job_new(struct sender *sender, struct app *app, const struct claim *claim)
{
	struct job *job = calloc(1, sizeof(*job));
	if (!job) {
		return NULL;
	}
	*job = (struct job){.next = sender->jobs,
		.sender = sender,
		.app = app,
		.kind = claim->push.kind,
		.device_id = claim->push.device_id,
		.conversation_id = claim->push.conversation_id,
		.lease = claim->lease,
		.seq = claim->push.seq,
		.since_ms = claim->since_ms,
		.target_us = claim->target_us,
		.attempts = claim->attempts};
	if (job->next) {
		job->next->previous = job;
	}
	sender->jobs = job;
	app->apps->in_flight++;
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
	const struct settlement settlement = {.device_id = job->device_id,
		.conversation_id = job->conversation_id,
		.lease = job->lease,
		.seq = job->kind == PUSH_CLEAR ? 0 : job->seq,
		.delay_ms = delay_ms,
		.target_us = job->target_us,
		.gone_ms = gone_ms,
		.outcome = outcome,
		.error = error};
	settlements_add(&sender->settlements, &settlement);
}

static void settled(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	(void)result;
	settlements_end(&sender->settlements, status);
}

/* ---- answers ---- */

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

static void act(struct sender *sender, struct job *job, struct provider_verdict *verdict)
{
	struct app *app = job->app;
	int64_t backoff_ms = verdict->delay_ms > 0 ? verdict->delay_ms + (int64_t)(app_random() % 1000)
						   : lane_backoff_ms(job->attempts + 1, app_random());

	switch (verdict->action) {
	case ACTION_ACCEPTED:
		metrics_count(app->metrics, METRICS_ACCEPTED, 1);
		app_credential_accepted(app, job->credential_number);
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
		app_complain(app, LOG_LEVEL_ERROR, "a push was given up", verdict->reason);
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
		app_complain(app, LOG_LEVEL_ERROR, "the configuration is refused; check keys, ids and topic", verdict->reason);
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

/* What was looked at too long ago is claimed again. */
static void put_back(struct sender *sender, const struct job *job)
{
	struct app *app = job->app;
	app->stale_since_ms = app->stale_since_ms ? app->stale_since_ms : clock_monotonic_ms();
	metrics_count(app->metrics, METRICS_STALE, 1);
	settle(sender, job, "release", 0, 0, NULL);
}

static void push_answered(struct sender *sender, struct job *job, const struct http_answer *answer)
{
	struct app *app = job->app;
	const struct provider_answer given = {.status = answer->status,
		.body = answer->body,
		.length = answer->length,
		.retry_after_ms = answer->retry_after_ms};

	if (answer->outcome == HTTP_STALE) {
		app_end(app, job->origin, LANE_NOTHING, 0);
		put_back(sender, job);
		return;
	}
	app->stale_since_ms = 0;
	struct provider_verdict verdict = app->config->provider->classify(&given);
	if (answer->outcome == HTTP_FORBIDDEN) {
		verdict = (struct provider_verdict){.action = ACTION_DEAD, .reason = "forbidden_address"};
	} else if (answer->outcome == HTTP_FAILED) {
		app_complain(app, LOG_LEVEL_WARNING, "no answer", answer->error);
	}
	if (verdict.action == ACTION_REFRESH) {
		verdict.action = app_credential_refused(app, job->credential_number);
	}
	if (app_is_suspicious(app, &verdict)) {
		verdict.action = ACTION_PAUSE;
	}
	if (verdict.action != ACTION_ACCEPTED) {
		metrics_refused(app->metrics, verdict.reason);
	}
	app_end(app, job->origin, event_of(&verdict, answer), verdict.delay_ms);
	act(sender, job, &verdict);
}

static void answered(void *tag, const struct http_answer *answer)
{
	struct job *job = tag;
	struct sender *sender = job->sender;
	push_answered(sender, job, answer);
	job_free(sender, job);
}

/* ---- claimed rows become requests ---- */

/* True: it is on its way. */
static bool post(struct sender *sender, struct job *job, const struct push *push, bool *buildable)
{
	uint8_t random[PROVIDER_RANDOM_BYTES];
	const char *headers[PROVIDER_HEADERS_MAX];
	struct app *app = job->app;
	struct provider_request *request = &sender->request;
	const struct credential *credential = job->origin ? &job->origin->credential : &app->credential;
	const struct provider_input input = {.settings = &app->config->settings,
		.push = push,
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
	stale_at_ms = app->stale_since_ms && now_ms - app->stale_since_ms > STALE_PATIENCE_MS ? 0 : stale_at_ms;
	job->credential_number = credential->number;
	return http_post(app->http, request->url.data, headers, request->header_count, request->body.data, request->body.length,
		stale_at_ms, answered, job);
}

static void give_up(struct sender *sender, const struct job *job, const char *reason)
{
	struct app *app = job->app;
	metrics_refused(app->metrics, reason);
	metrics_count(app->metrics, METRICS_DEAD, 1);
	app_complain(app, LOG_LEVEL_WARNING, "a push was given up", reason);
	settle(sender, job, "dead", 0, 0, reason);
}

/* Sends it, or settles it at once; true: it was sent. */
static bool send_or_settle(struct sender *sender, struct job *job, const struct claim *claim)
{
	struct app *app = job->app;
	int64_t delay_ms = 0;
	bool buildable = true;

	if (claim->wrong) {
		give_up(sender, job, claim->wrong);
		return false;
	}
	if (sender->dry_run) {
		claim_print(claim, app->config);
		settle(sender, job, "accepted", 0, 0, NULL);
		return false;
	}
	if (!app->http) { /* abandoned while the claim was under way */
		settle(sender, job, "release", 0, 0, NULL);
		return false;
	}
	if (sender->claim_late) {
		put_back(sender, job);
		return false;
	}
	if (app->origins) {
		job->origin = app_enter_origin(app, claim->subscription.origin, clock_monotonic_ms(), &delay_ms);
		if (!job->origin) {
			settle(sender, job, "release", delay_ms, 0, NULL);
			return false;
		}
	}
	if (post(sender, job, &claim->push, &buildable)) {
		app_begin(app, job->origin);
		return true;
	}
	if (!buildable) {
		give_up(sender, job, "cannot_be_built");
	} else {
		settle(sender, job, "release", 1000, 0, "no_memory");
	}
	return false;
}

static void dispatch(struct sender *sender, struct app *app, const struct database_result *result, int row)
{
	struct claim claim;
	claim_read(&claim, app->apps->config, app->config, result, row);
	struct job *job = job_new(sender, app, &claim);
	if (job && !send_or_settle(sender, job, &claim)) { /* without memory its lease runs out */
		job_free(sender, job);
	}
}

/* A claim that takes so long that its news are old is too large for this database at this moment. */
static void pace_claims(struct sender *sender, int64_t took_ms)
{
	sender->claim_late = took_ms > STALE_MS - STALE_LEAST_MS && sender->claimed > CLAIM_MIN;
	if (took_ms > STALE_MS / 2) {
		sender->claim_max = sender->claim_max / 2 > CLAIM_MIN ? sender->claim_max / 2 : CLAIM_MIN;
	} else if (sender->claim_max < CLAIM_MAX) {
		sender->claim_max++;
	}
}

static void claimed(void *owner, enum database_status status, const struct database_result *result)
{
	struct sender *sender = owner;
	struct app *app = sender->claiming;
	int rows = status == DATABASE_OK ? database_rows(result) : 0;

	sender->claiming = NULL;
	pace_claims(sender, clock_monotonic_ms() - sender->claim_began_ms);
	app->apps->in_flight--;
	app->empty = status == DATABASE_OK && rows == 0;
	app->claim_at_ms = clock_monotonic_ms() + (rows < (int)sender->claimed ? app->apps->config->poll_ms : 0);
	for (int row = 0; row < rows; row++) {
		switch (claim_verdict(result, row)) {
		case CLAIM_SEND:
			dispatch(sender, app, result, row);
			break;
		case CLAIM_CANCELLED:
			metrics_count(app->metrics, METRICS_CANCELLED, 1);
			break;
		case CLAIM_EXPIRED:
			metrics_count(app->metrics, METRICS_EXPIRED, 1);
			break;
		case CLAIM_OTHER:
			break;
		}
	}
}

/* ---- what the connections are used for ---- */

static void begin_claim(struct sender *sender, struct app *app, unsigned room, int64_t now_ms)
{
	struct database_array *name = &sender->app_name;

	sender->claiming = app;
	app->apps->in_flight++; /* a reload must not free it */
	sender->claimed = room > sender->claim_max ? sender->claim_max : room;
	sender->claim_began_ms = now_ms;
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
	if (!settlements_are_done(&sender->settlements)) {
		link_call(sender->worker, LINK_SETTLE, settlements_begin(&sender->settlements), settled, sender);
		return next_ms;
	}
	for (size_t i = 0; i < apps->count && !sender->stopping; i++) {
		struct app *app = &apps->list[(sender->turn + i) % apps->count];
		if (now_ms < app->claim_at_ms) {
			next_ms = app->claim_at_ms < next_ms ? app->claim_at_ms : next_ms;
			continue;
		}
		bool prepared = sender->dry_run || app_prepare(app, now_ms);
		unsigned room = prepared ? lane_room(&app->lane, now_ms) : 0;
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
	bool more = status == DATABASE_OK && database_rows(result) > 0 && database_integer(result, 0, 0) >= CHECK_MAX;
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
			size_t length;
			const char *name = database_bytes(result, row, 0, &length);
			if (name && strcmp(name, app->config->name) == 0) {
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
		database_array_reset(&sender->clearing_apps);
		for (size_t i = 0; i < config->app_count; i++) {
			if (config->apps[i].clear) {
				database_array_bytes(&sender->clearing_apps, config->apps[i].name, strlen(config->apps[i].name));
			}
		}
		database_parameter_array(parameters, &sender->clearing_apps);
		database_parameter_integer(parameters, CHECK_MAX);
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
	sender->claim_max = CLAIM_MAX;
	provider_request_init(&sender->request);
	settlements_init(&sender->settlements);
	database_array_init(&sender->app_name, DATABASE_TEXT);
	database_array_init(&sender->clearing_apps, DATABASE_TEXT);
	sender->finder = link_new(loop, config->database, "log");
	sender->worker = link_new(loop, config->database, "queue");
	sender->apps = apps_new(sender->loop, config);
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
	settlements_free(&sender->settlements);
	database_array_free(&sender->app_name);
	database_array_free(&sender->clearing_apps);
	provider_request_free(&sender->request);
	free(sender);
}

void sender_reload(struct sender *sender, struct config *config)
{
	struct apps *apps = apps_new(sender->loop, config);
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
		settle(sender, job, "release", 0, 0, NULL);
	}
	for (struct apps *apps = sender->apps; apps; apps = apps->older) {
		apps_abandon(apps);
	}
	while (sender->jobs) {
		job_free(sender, sender->jobs);
	}
}

bool sender_is_done(const struct sender *sender)
{
	return !sender->jobs && settlements_are_done(&sender->settlements) && !sender->claiming;
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
		app_measure(&sender->apps->list[i]);
	}
}
