/* metrics.c - see metrics.h. */
#include "metrics.h"

#include <stdlib.h>
#include <string.h>

#define REASONS_MAX 64 /* there are some 50 static words */
#define NAME_SIZE 201

static const struct {
	const char *name, *help;
} counters[METRICS_COUNTERS] =
	{
		[METRICS_ACCEPTED] = {"accepted_total", "Pushes that the push service accepted."},
		[METRICS_RETRIED] = {"retried_total", "Pushes that were put back to be tried again."},
		[METRICS_CANCELLED] = {"cancelled_total", "Pushes whose message was read or delivered before they were sent."},
		[METRICS_EXPIRED] = {"expired_total", "Pushes that were dropped because their time to live was over."},
		[METRICS_FORGOTTEN] = {"forgotten_total", "Push targets that the push service says are dead."},
		[METRICS_DEAD] = {"dead_total", "Pushes that were given up."},
		[METRICS_STALE] = {"stale_total", "Pushes that could not be written in time and were claimed again."},
		[METRICS_REFRESHES] = {"token_refreshes_total", "Credentials made or fetched."},
},
  gauges[METRICS_GAUGES] = {
	  [METRICS_IN_FLIGHT] = {"in_flight", "Requests under way."},
	  [METRICS_WINDOW] = {"window", "How many may be under way at this moment."},
	  [METRICS_BREAKER] = {"breaker_state", "0 closed (well), 1 open (nothing is sent), 2 probing."},
	  [METRICS_PAUSED] = {"paused_services", "Services of a Web Push app whose own breaker is not closed."},
	  [METRICS_QUEUED] = {"queued", "Pushes that wait in the database."},
	  [METRICS_OLDEST_MS] = {"oldest_queued_milliseconds", "Age of the oldest message in the queue."},
	  [METRICS_DEAD_ROWS] = {"dead", "Pushes given up and kept for an administrator."},
	  [METRICS_CONNECTIONS] = {"connections_made", "Connections made since the start."},
};

static const int64_t bounds_ms[] = {
	100, 250, 500, 1000, 2000, 3000, 3250, 3500, 4000, 5000, 10000, 30000, 60000, 300000, 3600000};
#define BOUNDS (sizeof(bounds_ms) / sizeof(bounds_ms[0]))

struct metrics_app {
	struct metrics_app *next;
	char name[NAME_SIZE];
	uint64_t counters[METRICS_COUNTERS];
	int64_t gauges[METRICS_GAUGES];
	struct {
		const char *reason;
		uint64_t count;
	} refused[REASONS_MAX];
	uint64_t buckets[BOUNDS + 1];
	uint64_t latencies;
	int64_t latency_sum_ms;
};

static struct metrics_app *apps;
static uint64_t messages_total, found_total;
static int64_t log_behind_ms;
static int database_up;

struct metrics_app *metrics_app(const char *name)
{
	struct metrics_app **link = &apps;
	for (; *link; link = &(*link)->next) {
		if (strcmp((*link)->name, name) == 0) {
			return *link;
		}
	}
	if (strlen(name) < NAME_SIZE && (*link = calloc(1, sizeof(**link))) != NULL) {
		memcpy((*link)->name, name, strlen(name) + 1);
	}
	return *link;
}

void metrics_count(struct metrics_app *app, enum metrics_counter counter, uint64_t more)
{
	app->counters[counter] += more;
}

void metrics_refused(struct metrics_app *app, const char *reason)
{
	for (size_t i = 0; i < REASONS_MAX; i++) {
		if (!app->refused[i].reason || strcmp(app->refused[i].reason, reason) == 0) {
			app->refused[i].reason = reason;
			app->refused[i].count++;
			return;
		}
	}
}

void metrics_gauge(struct metrics_app *app, enum metrics_gauge gauge, int64_t value)
{
	app->gauges[gauge] = value;
}

void metrics_latency(struct metrics_app *app, int64_t ms)
{
	size_t i = 0;
	while (i < BOUNDS && ms > bounds_ms[i]) {
		i++;
	}
	app->buckets[i]++;
	app->latencies++;
	app->latency_sum_ms += ms;
}

void metrics_found(uint64_t messages, uint64_t pushes, int64_t behind_ms)
{
	messages_total += messages;
	found_total += pushes;
	log_behind_ms = behind_ms;
}

void metrics_database(int up)
{
	database_up = up;
}

/* ---- printing ---- */

static void print_head(struct buffer *out, const char *name, const char *help, const char *type)
{
	buffer_append_format(out, "# HELP chat_notifier_%s %s\n# TYPE chat_notifier_%s %s\n", name, help, name, type);
}

/* {app="...": a label's value is escaped as a JSON string is, as far as section names go. */
static void print_app(struct buffer *out, const char *name, const struct metrics_app *app)
{
	buffer_append_format(out, "chat_notifier_%s{app=", name);
	buffer_append_json_string(out, app->name, strlen(app->name));
}

static void print_latency(struct buffer *out)
{
	print_head(out, "latency_seconds", "From the message's commit to the acceptance of its push.", "histogram");
	for (const struct metrics_app *app = apps; app; app = app->next) {
		uint64_t sum = 0;
		for (size_t i = 0; i < BOUNDS; i++) {
			sum += app->buckets[i];
			print_app(out, "latency_seconds_bucket", app);
			buffer_append_format(out, ",le=\"%g\"} %llu\n", (double)bounds_ms[i] / 1000, (unsigned long long)sum);
		}
		print_app(out, "latency_seconds_bucket", app);
		buffer_append_format(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)app->latencies);
		print_app(out, "latency_seconds_sum", app);
		buffer_append_format(out, "} %.3f\n", (double)app->latency_sum_ms / 1000);
		print_app(out, "latency_seconds_count", app);
		buffer_append_format(out, "} %llu\n", (unsigned long long)app->latencies);
	}
}

static void print_refused(struct buffer *out)
{
	print_head(out, "refused_total", "Pushes that were not accepted, by the push service's reason.", "counter");
	for (const struct metrics_app *app = apps; app; app = app->next) {
		for (size_t i = 0; i < REASONS_MAX && app->refused[i].reason; i++) {
			print_app(out, "refused_total", app);
			buffer_append_format(
				out, ",reason=\"%s\"} %llu\n", app->refused[i].reason, (unsigned long long)app->refused[i].count);
		}
	}
}

void metrics_print(struct buffer *out)
{
	print_head(out, "messages_total", "Messages that were looked at.", "counter");
	buffer_append_format(out, "chat_notifier_messages_total %llu\n", (unsigned long long)messages_total);
	print_head(out, "found_total", "Pushes that were queued.", "counter");
	buffer_append_format(out, "chat_notifier_found_total %llu\n", (unsigned long long)found_total);
	print_head(out, "log_behind_milliseconds", "So much of the message log is still to be looked at.", "gauge");
	buffer_append_format(out, "chat_notifier_log_behind_milliseconds %lld\n", (long long)log_behind_ms);
	print_head(out, "database_up", "1 while the database can be asked.", "gauge");
	buffer_append_format(out, "chat_notifier_database_up %d\n", database_up);
	for (size_t i = 0; i < METRICS_COUNTERS; i++) {
		print_head(out, counters[i].name, counters[i].help, "counter");
		for (const struct metrics_app *app = apps; app; app = app->next) {
			print_app(out, counters[i].name, app);
			buffer_append_format(out, "} %llu\n", (unsigned long long)app->counters[i]);
		}
	}
	for (size_t i = 0; i < METRICS_GAUGES; i++) {
		print_head(out, gauges[i].name, gauges[i].help, "gauge");
		for (const struct metrics_app *app = apps; app; app = app->next) {
			print_app(out, gauges[i].name, app);
			buffer_append_format(out, "} %lld\n", (long long)app->gauges[i]);
		}
	}
	print_refused(out);
	print_latency(out);
}

void metrics_free(void)
{
	while (apps) {
		struct metrics_app *app = apps;
		apps = app->next;
		free(app);
	}
}
