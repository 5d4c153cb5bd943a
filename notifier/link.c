/* link.c - see link.h. */
#include "link.h"

#include "clock.h"
#include "log.h"

#include <poll.h>
#include <stdlib.h>

#define CONNECT_MS 10000
#define CALL_MS 30000 /* a look at the log after a long outage takes longest */
#define PAUSE_MS 500
#define PAUSE_MAX_MS 10000

static const struct database_statement statements[LINK_STATEMENTS] = {
	[LINK_VERSION] = {"version", "SELECT chat.version()"},
	/* grace, ttl -> messages, pushes, behind */
	[LINK_FIND] = {"find", "SELECT messages, pushes, behind_ms FROM chat.find_pushes($1::bigint, $2::bigint)"},
	/* apps that clear, count -> looked at */
	[LINK_CHECK] = {"check", "SELECT chat.check_shown($1::text[], $2::bigint::integer)"},
	/* app, count, lease, badge */
	[LINK_CLAIM] = {"claim",
		"SELECT device_id, conversation_id, lease, verdict, provider, token, subscription, target_us, user_id, attempts, "
		"seq, count,"
		" badge, since, expires_at, language, conversation_type, conversation_name, sender_name, message_type, body, "
		"cleared,"
		" last_error FROM chat.claim_pushes(($1::text[])[1], $2::bigint::integer, $3::bigint, $4::boolean)"},
	/* device, conversation, lease, outcome, seq, delay, error, target, gone -> settled */
	[LINK_SETTLE] = {"settle", "SELECT chat.settle_pushes($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], "
				   "$5::bigint[], $6::bigint[], $7::text[],"
				   " $8::bigint[], $9::bigint[])"},
	/* -> app, due, oldest, dead */
	[LINK_QUEUE] = {"queue", "SELECT app, due, oldest_ms, dead FROM chat.push_queue()"},
};

struct link {
	struct loop_source source; /* first: the loop's pointer is ours */
	struct loop *loop;
	struct database *database;
	const char *name;
	enum { DOWN, CONNECTING, CHECKING, IDLE, CALLING } state;
	link_done done;
	void *owner;
	int64_t deadline_ms; /* DOWN: when to connect; otherwise when to give up */
	int64_t pause_ms;
	bool complained;
};

static void go_on(struct link *link);

static void when_ready(struct loop_source *source, int events)
{
	(void)events;
	go_on((struct link *)source);
}

struct link *link_new(struct loop *loop, const char *conninfo, const char *name)
{
	struct link *link = calloc(1, sizeof(*link));
	if (!link) {
		return NULL;
	}
	link->source = (struct loop_source){.ready = when_ready, .fd = -1};
	link->loop = loop;
	link->name = name;
	link->pause_ms = PAUSE_MS;
	link->database = database_new(conninfo, "chat-notifier", statements, LINK_STATEMENTS, -1);
	if (!link->database) {
		free(link);
		return NULL;
	}
	return link;
}

/* The descriptor may have been closed, or be another one: out of the loop before anything else happens to it. */
static void unwatch(struct link *link)
{
	(void)loop_watch(link->loop, &link->source, 0);
	link->source.fd = -1;
}

void link_free(struct link *link)
{
	if (link) {
		unwatch(link);
		database_free(link->database);
		free(link);
	}
}

bool link_is_idle(const struct link *link)
{
	return link->state == IDLE;
}

bool link_is_up(const struct link *link)
{
	return link->state == IDLE || link->state == CALLING;
}

static void end_call(struct link *link, enum database_status status, const struct database_result *result)
{
	link_done done = link->done;
	link->done = NULL;
	if (done) {
		done(link->owner, status, result);
	}
}

static void go_down(struct link *link, const char *why)
{
	unwatch(link);
	database_disconnect(link->database);
	if (!link->complained) {
		log_line(LOG_LEVEL_ERROR, "database (%s): %s; trying again", link->name, why);
		link->complained = true;
	}
	link->state = DOWN;
	link->deadline_ms = clock_monotonic_ms() + link->pause_ms;
	link->pause_ms = link->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : link->pause_ms * 2;
	end_call(link, DATABASE_LOST, NULL);
}

static void begin_check(struct link *link)
{
	const struct database_call call = {.statement = LINK_VERSION};
	link->state = CHECKING;
	if (!database_begin(link->database, &call)) {
		go_down(link, database_error(link->database));
	}
}

static void end_check(struct link *link, const struct database_result *result)
{
	int64_t version = result && database_rows(result) > 0 ? database_integer(result, 0, 0) : 0;
	if (version < LINK_SCHEMA_VERSION) {
		go_down(link, "the schema is older than this program needs: run schema/migrate");
		return;
	}
	if (link->complained) {
		log_line(LOG_LEVEL_NOTICE, "database (%s): connected again", link->name);
		link->complained = false;
	}
	link->pause_ms = PAUSE_MS;
	link->state = IDLE;
	link->deadline_ms = INT64_MAX;
}

/* One step further, until the server has to be waited for. */
static void go_on(struct link *link)
{
	while (link->state == CONNECTING || link->state == CHECKING || link->state == CALLING) {
		struct database_result *result = NULL;
		short events = 0;
		/* While connecting, libpq may change the descriptor from one step to the next. */
		if (link->state == CONNECTING) {
			unwatch(link);
		}
		enum database_status status = database_advance(link->database, &result, &events);
		if (status == DATABASE_PENDING) {
			link->source.fd = database_descriptor(link->database);
			(void)loop_watch(link->loop, &link->source,
				((events & POLLIN) ? LOOP_READ : 0) | ((events & POLLOUT) ? LOOP_WRITE : 0));
			return;
		}
		if (status == DATABASE_LOST || (status == DATABASE_REFUSED && link->state != CALLING)) {
			go_down(link, database_error(link->database));
			return;
		}
		if (link->state == CONNECTING) {
			begin_check(link);
		} else if (link->state == CHECKING) {
			end_check(link, result);
		} else {
			link->state = IDLE;
			link->deadline_ms = INT64_MAX;
			if (status == DATABASE_REFUSED) {
				log_line(LOG_LEVEL_ERROR, "database (%s): %s", link->name, database_error(link->database));
			}
			end_call(link, status, result);
		}
		database_result_free(result);
	}
	if (link->state == IDLE) {
		unwatch(link); /* that the server has gone is found out by the next call, a quarter of a second later */
	}
}

void link_call(struct link *link, enum link_statement statement, const struct database_parameters *parameters, link_done done,
	void *owner)
{
	const struct database_call call = {.statement = statement, .parameters = parameters};
	link->done = done;
	link->owner = owner;
	link->state = CALLING;
	link->deadline_ms = clock_monotonic_ms() + CALL_MS;
	if (!database_begin(link->database, &call)) {
		link->deadline_ms = 0; /* the next tick says so */
		return;
	}
	link->source.fd = database_descriptor(link->database);
	(void)loop_watch(link->loop, &link->source, LOOP_READ | LOOP_WRITE);
}

void link_tick(struct link *link, int64_t now_ms)
{
	if (now_ms < link->deadline_ms) {
		return;
	}
	if (link->state != DOWN) {
		go_down(link, link->deadline_ms == 0 ? database_error(link->database) : "no answer within the time limit");
		return;
	}
	link->deadline_ms = now_ms + CONNECT_MS;
	link->state = CONNECTING;
	if (!database_begin_connect(link->database)) {
		go_down(link, database_error(link->database));
		return;
	}
	go_on(link);
}

int64_t link_deadline_ms(const struct link *link)
{
	return link->deadline_ms;
}
