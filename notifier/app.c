/* app.c - see app.h. */
#include "app.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SUSPECT_MAX 10 /* "bad token" so often in a row, and nothing accepted: more likely the configuration is bad */
#define TOKEN_RETRY_MS 5000
#define FULL_MS 200   /* a push finds its service busy */
#define PROBE_MS 5000 /* or finds it on trial */
#define NEW_MS 60000  /* a credential that was refused from the start is made anew after that */

uint32_t app_random(void)
{
	uint32_t value = 0;
	return getrandom(&value, sizeof(value), 0) == (ssize_t)sizeof(value) ? value : 0; /* for spreading alone: 0 will do */
}

static bool app_init(struct app *app, struct apps *apps, const struct config_app *config, struct loop *loop)
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
	app->http = http_new(loop, &options);
	credential_init(&app->credential);
	lane_init(&app->lane, &limits, clock_monotonic_ms());
	if (config->provider == &provider_webpush) {
		app->lane.window = limits.in_flight; /* each origin has a window of its own */
		app->origin_limits.in_flight = limits.in_flight * 3 / 4 + 1;
		app->origins = calloc(1, sizeof(*app->origins));
	}
	return app->metrics && app->http && (app->origins || config->provider != &provider_webpush);
}

void apps_free(struct apps *apps)
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

struct apps *apps_new(struct loop *loop, struct config *config)
{
	struct apps *apps = calloc(1, sizeof(*apps) + config->app_count * sizeof(apps->list[0]));
	if (!apps) {
		return NULL;
	}
	for (size_t i = 0; i < config->app_count; i++) {
		apps->count = i + 1;
		if (!app_init(&apps->list[i], apps, &config->apps[i], loop)) {
			apps_free(apps);
			return NULL;
		}
	}
	apps->config = config;
	return apps;
}

void apps_abandon(struct apps *apps)
{
	for (size_t i = 0; i < apps->count; i++) {
		http_free(apps->list[i].http);
		apps->list[i].http = NULL;
	}
}

void app_complain(struct app *app, enum log_level level, const char *what, const char *reason)
{
	uint64_t suppressed = 0;
	if (log_gate_open(&app->complaints, clock_monotonic_ms(), &suppressed)) {
		log_line(level, "app %s (%s): %s: %s (%llu such lines were left out)", app->config->name,
			app->config->provider->name, what, reason, (unsigned long long)suppressed);
	}
}

/* ---- credentials ---- */

static void token_answered(void *tag, const struct http_answer *answer)
{
	struct app *app = tag;
	int64_t now_ms = clock_monotonic_ms();

	app->fetching = false;
	app->apps->in_flight--;
	if (answer->outcome == HTTP_ANSWERED && answer->status == 200 &&
		credential_google_answer(&app->credential, answer->body, answer->length, clock_wall_ms())) {
		metrics_count(app->metrics, METRICS_REFRESHES, 1);
		app->renew_at_ms = now_ms + 1000;
		return;
	}
	char status[64];
	(void)snprintf(status, sizeof(status), "HTTP %d", answer->status);
	app_complain(app, LOG_LEVEL_ERROR, "no access token", answer->outcome == HTTP_FAILED ? answer->error : status);
	metrics_refused(app->metrics, "no_access_token");
	app->renew_at_ms =
		now_ms + (answer->retry_after_ms > 0 ? answer->retry_after_ms : TOKEN_RETRY_MS) + (int64_t)(app_random() % 1000);
}

static void fetch_token(struct app *app)
{
	static const char *const headers[] = {"content-type: application/x-www-form-urlencoded"};
	struct buffer body;

	buffer_init(&body, 8192);
	if (credential_google_request(app->config, clock_wall_ms(), &body)) {
		app->fetching =
			http_post(app->http, app->config->token_url, headers, 1, body.data, body.length, 0, token_answered, app);
		app->apps->in_flight += app->fetching ? 1 : 0;
	}
	buffer_free(&body);
}

bool app_prepare(struct app *app, int64_t now_ms)
{
	const struct config_app *config = app->config;
	int64_t wall_ms = clock_wall_ms();

	if (config->provider == &provider_webpush || config->certificate) {
		return true;
	}
	if (credential_is_due(&app->credential, wall_ms) && !app->fetching && now_ms >= app->renew_at_ms) {
		app->renew_at_ms = now_ms + TOKEN_RETRY_MS;
		if (config->provider == &provider_fcm) {
			fetch_token(app);
		} else if (credential_make_apns(&app->credential, config, wall_ms)) {
			metrics_count(app->metrics, METRICS_REFRESHES, 1);
		}
	}
	return credential_is_good(&app->credential, wall_ms);
}

void app_credential_accepted(struct app *app, uint64_t number)
{
	app->credential.proved = app->credential.proved || number == app->credential.number;
}

/* One that was good is made anew, though not twice in TOKEN_RETRY_MS. One that never was is taken for a mistake in the
 * configuration: a new one would fare no better. */
enum provider_action app_credential_refused(struct app *app, uint64_t number)
{
	struct credential *credential = &app->credential;
	int64_t age_ms = clock_wall_ms() - credential->made_at_ms;

	if (number != credential->number || !credential->good) {
		return ACTION_REFRESH; /* it is on its way */
	}
	if (!credential->proved && age_ms < NEW_MS) {
		return ACTION_PAUSE;
	}
	credential->good = false;
	app->renew_at_ms = clock_monotonic_ms() + (age_ms < TOKEN_RETRY_MS ? TOKEN_RETRY_MS - age_ms : 0);
	return ACTION_REFRESH;
}

/* For a push whose service takes none now. While one is paused, what waits for it is not to be looked at over and over: it is put
 * off until the pause is over, and a little longer at random, so that it does not come back all at once. */
static int64_t away_ms(const struct lane *lane, int64_t now_ms)
{
	int64_t left_ms = lane->until_ms > now_ms ? lane->until_ms - now_ms : 0;

	if (lane->state == LANE_PROBING && left_ms < PROBE_MS) {
		left_ms = PROBE_MS;
	}
	return left_ms > 0 ? left_ms + app_random() % (1000 + left_ms / 4) : FULL_MS;
}

struct origin *app_enter_origin(struct app *app, const char *name, int64_t now_ms, int64_t *delay_ms)
{
	struct origin *origin = origins_get(app->origins, name, &app->origin_limits, now_ms);
	*delay_ms = FULL_MS;
	if (!origin) {
		return NULL;
	}
	if (lane_room(&origin->lane, now_ms) == 0) {
		*delay_ms = away_ms(&origin->lane, now_ms);
		return NULL;
	}
	if (credential_is_due(&origin->credential, clock_wall_ms())) {
		if (!credential_make_vapid(&origin->credential, app->config, name, clock_wall_ms())) {
			return NULL;
		}
		metrics_count(app->metrics, METRICS_REFRESHES, 1);
	}
	return origin;
}

/* ---- what answers say ---- */

bool app_is_suspicious(struct app *app, const struct provider_verdict *verdict)
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

void app_begin(struct app *app, struct origin *origin)
{
	lane_begin(&app->lane, 1);
	if (origin) {
		lane_begin(&origin->lane, 1);
	}
}

void app_end(struct app *app, struct origin *origin, enum lane_event event, int64_t delay_ms)
{
	struct lane *lane = origin ? &origin->lane : &app->lane;
	int64_t now_ms = clock_monotonic_ms();

	if (lane_end(lane, event, delay_ms, now_ms, app_random())) {
		log_line(lane->state == LANE_CLOSED ? LOG_LEVEL_NOTICE : LOG_LEVEL_ERROR, "app %s (%s)%s%s: %s",
			app->config->name, app->config->provider->name, origin ? ", " : "", origin ? origin->name : "",
			lane->state == LANE_CLOSED ? "accepts pushes again"
						   : "paused; one push at a time will show when it is well");
	}
	if (origin) {
		(void)lane_end(&app->lane, LANE_NOTHING, 0, now_ms, 0);
	}
}

void app_measure(struct app *app)
{
	metrics_gauge(app->metrics, METRICS_IN_FLIGHT, app->lane.in_flight);
	metrics_gauge(app->metrics, METRICS_WINDOW, app->lane.window);
	metrics_gauge(app->metrics, METRICS_BREAKER, app->lane.state);
	metrics_gauge(app->metrics, METRICS_PAUSED, app->origins ? (int64_t)origins_paused(app->origins) : 0);
	if (app->http) {
		metrics_gauge(app->metrics, METRICS_CONNECTIONS, (int64_t)http_connections_made(app->http));
	}
}
