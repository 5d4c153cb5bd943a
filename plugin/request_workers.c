/* request_workers.c - see request_workers.h.
 *
 * One mutex guards lines, ready lists and the list of methods. A line is in exactly one of these states:
 *
 *   busy     a worker has its first job, which is then on no list
 *   ready    on the ready list of its first job's kind of worker
 *   waiting  its first job is a SENT without an answer
 *
 * and is freed when it is none of them. line_advance() alone moves it out of busy or waiting.
 *
 * Of idle workers the one is woken that has been idle for the shortest time: its connection's server process has its plans
 * and pages still in the processor's cache.
 */
#include "request_workers.h"

#include "answer.h"
#include "clock.h"
#include "hash_table.h"
#include "log.h"
#include "statements.h"
#include "thread.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* Of one caller: a burst of 50 requests and of 100 messages fit. Of all: some seconds of work. */
#define LINE_JOBS_MAX 200
#define LINE_BYTES_MAX ((size_t)4 << 20)
#define JOBS_MAX 4000
#define JOB_BYTES_MAX ((size_t)32 << 20)
/* Of those that hash: some half a minute of one thread's work. Nobody waits longer for a sign-in. */
#define SLOW_JOBS_MAX 100
/* And of one caller: some seconds, and room for nine others. */
#define LINE_SLOW_JOBS_MAX 10
/* The server gives up first, so that its answer says why; the second limit is for a server that does not answer at all. */
#define STATEMENT_TIMEOUT "5s"
#define CALL_TIMEOUT_MS 10000
#define CONNECT_TIMEOUT_MS 5000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000
/* The functions keep their answers below 256 KiB, or to a single message, which is an envelope written as JSON. */
#define ANSWER_BYTES_MAX ((size_t)2 << 20)
/* A line waits so long for the commit of a message before what comes after it is answered first. */
#define SENT_WAIT_MS 10000
#define METHOD_NAME_MAX 64
#define METHODS_MAX 256

enum worker_kind { WORKER_SQL, WORKER_ACCOUNT, WORKER_KINDS };

struct line {
	uint64_t caller;
	struct request_job *first;
	struct request_job **last;
	unsigned count, slow_jobs;
	size_t bytes;
	bool busy;
	struct line *next_ready;
	UT_hash_handle hh;
};

struct ready {
	struct line *first;
	struct line **last;
	struct worker *idle;        /* last in, first out */
	unsigned connected, failed; /* workers of this kind with a connection; that have tried since one had */
	unsigned workers;
};

struct worker {
	struct request_workers *pool;
	enum worker_kind kind;
	struct worker *next_idle;
	pthread_cond_t more;
	pthread_t thread;
	bool started;
	bool counted;              /* in ready.connected */
	bool tried;                /* in ready.failed */
	int64_t group_max_members; /* as this connection knows it; 0: its own default */
	struct database *database;
};

struct method {
	char name[METHOD_NAME_MAX + 1];
	uint32_t cost;
};

struct request_workers {
	pthread_mutex_t mutex;
	struct delivery_queue *deliveries;
	struct accounts *accounts;
	struct line *lines;
	struct ready ready[WORKER_KINDS];
	size_t jobs, job_bytes, slow_jobs;
	struct method *methods;
	size_t method_count;
	struct worker *workers;
	unsigned worker_count;
	int stop_fd;
	_Atomic int64_t group_max_members;
	_Atomic bool stopping;
	struct log_gate trouble;
};

uint64_t request_caller(int64_t user_id, uint64_t address)
{
	return user_id > 0 ? (uint64_t)user_id : (uint64_t)1 << 63 | address;
}

/* ---- jobs ---- */

static void copy_text(char **at, struct request_text *text)
{
	if (text->length > 0) {
		memcpy(*at, text->at, text->length);
	}
	text->at = *at;
	*at += text->length;
}

static struct request_job *copy_job(const struct request_job *model, int64_t now_ms)
{
	size_t bytes = sizeof(*model) + model->method.length + model->client_id.length + model->request_id.length +
		       model->correlation.length + model->parameters.length;
	struct request_job *job = malloc(bytes);
	if (!job) {
		return NULL;
	}
	char *at = (char *)(job + 1);
	*job = *model;
	job->next = NULL;
	job->bytes = bytes;
	job->added_ms = now_ms;
	copy_text(&at, &job->method);
	copy_text(&at, &job->client_id);
	copy_text(&at, &job->request_id);
	copy_text(&at, &job->correlation);
	copy_text(&at, &job->parameters);
	return job;
}

static void free_job(struct request_job *job)
{
	if (job) {
		account_task_free(job->account);
		free(job);
	}
}

static enum worker_kind kind_of(const struct request_job *job)
{
	return job->kind == REQUEST_ACCOUNT && account_is_slow(job->account->method) ? WORKER_ACCOUNT : WORKER_SQL;
}

/* ---- lines; all with the mutex held ---- */

/* It is not idle any more: the next job is somebody else's. */
static void wake_one(struct ready *ready)
{
	struct worker *worker = ready->idle;
	if (worker) {
		ready->idle = worker->next_idle;
		pthread_cond_signal(&worker->more);
	}
}

static void wait_for_more(struct ready *ready, struct worker *worker)
{
	worker->next_idle = ready->idle;
	ready->idle = worker;
	pthread_cond_wait(&worker->more, &worker->pool->mutex);
	struct worker **at = &ready->idle; /* it is there still if nobody woke it */
	while (*at && *at != worker) {
		at = &(*at)->next_idle;
	}
	if (*at) {
		*at = worker->next_idle;
	}
}

static void line_advance(struct request_workers *pool, struct line *line)
{
	struct request_job *job = line->first;
	if (!job) {
		HASH_DEL(pool->lines, line);
		free(line);
		return;
	}
	if (job->kind == REQUEST_SENT) {
		return;
	}
	struct ready *ready = &pool->ready[kind_of(job)];
	line->next_ready = NULL;
	*ready->last = line;
	ready->last = &line->next_ready;
	wake_one(ready);
}

/* Takes the job out that `at` points to. */
static struct request_job *line_take(struct request_workers *pool, struct line *line, struct request_job **at)
{
	struct request_job *job = *at;
	*at = job->next;
	if (!*at) {
		line->last = at;
	}
	line->count--;
	line->bytes -= job->bytes;
	pool->jobs--;
	pool->job_bytes -= job->bytes;
	if (kind_of(job) == WORKER_ACCOUNT) {
		line->slow_jobs--;
		pool->slow_jobs--;
	}
	return job;
}

static struct line *line_of(struct request_workers *pool, uint64_t caller)
{
	struct line *line;
	HASH_FIND(hh, pool->lines, &caller, sizeof(caller), line);
	return line;
}

static struct line *line_new(struct request_workers *pool, uint64_t caller)
{
	struct line *line = calloc(1, sizeof(*line));
	if (!line) {
		return NULL;
	}
	line->caller = caller;
	line->last = &line->first;
	HASH_ADD(hh, pool->lines, caller, sizeof(line->caller), line);
	if (!line->hh.tbl) {
		free(line);
		return NULL;
	}
	return line;
}

static bool is_full(const struct request_workers *pool, const struct line *line, const struct request_job *job)
{
	bool slow = kind_of(job) == WORKER_ACCOUNT;
	return pool->jobs >= JOBS_MAX || pool->job_bytes + job->bytes > JOB_BYTES_MAX ||
	       (slow && (pool->slow_jobs >= SLOW_JOBS_MAX || (line && line->slow_jobs >= LINE_SLOW_JOBS_MAX))) ||
	       (line && (line->count >= LINE_JOBS_MAX || line->bytes + job->bytes > LINE_BYTES_MAX));
}

static bool is_down(const struct ready *ready)
{
	return ready->connected == 0 && ready->failed == ready->workers;
}

static enum request_added add(struct request_workers *pool, struct request_job *job)
{
	struct line *line = line_of(pool, job->caller);
	bool idle = !line;

	if (job->kind != REQUEST_SENT && is_down(&pool->ready[kind_of(job)])) {
		return REQUEST_NO_CONNECTION;
	}
	if (is_full(pool, line, job)) {
		return REQUEST_QUEUE_FULL;
	}
	if (!line && !(line = line_new(pool, job->caller))) {
		return REQUEST_NO_MEMORY;
	}
	*line->last = job;
	line->last = &job->next;
	line->count++;
	line->bytes += job->bytes;
	pool->jobs++;
	pool->job_bytes += job->bytes;
	if (kind_of(job) == WORKER_ACCOUNT) {
		line->slow_jobs++;
		pool->slow_jobs++;
	}
	if (idle) {
		line_advance(pool, line);
	}
	return REQUEST_ADDED;
}

enum request_added request_workers_add(struct request_workers *pool, const struct request_job *model, int64_t now_ms)
{
	struct request_job *job = copy_job(model, now_ms);
	if (!job) {
		return REQUEST_NO_MEMORY;
	}
	pthread_mutex_lock(&pool->mutex);
	enum request_added added = add(pool, job);
	pthread_mutex_unlock(&pool->mutex);
	if (added != REQUEST_ADDED) {
		job->account = NULL; /* stays the caller's */
		free_job(job);
	}
	return added;
}

/* ---- answers ---- */

/* The request_id, where it is not in `text` already, then `text`. */
static void post(struct request_workers *pool, const struct request_job *job, bool framed, const char *text, size_t length,
	uint8_t effects)
{
	struct delivery_batch *batch = delivery_batch_new(1);
	uint64_t suppressed;

	if (batch) {
		struct delivery_item *item = delivery_batch_add(batch, DELIVERY_ANSWER);
		item->to_session = true;
		item->effects = (uint8_t)(effects | (job->leaving ? DELIVERY_LEAVING : 0));
		item->session_index = job->session_index;
		item->session_generation = job->session_generation;
		item->user_id = job->user_id;
		if (!framed) {
			answer_begin(&batch->bytes, job->request_id.at, job->request_id.length);
		}
		buffer_append(&batch->bytes, text, length);
		item->payload_length = (uint32_t)batch->bytes.length;
		item->correlation_at = item->payload_length;
		item->correlation_length = (uint32_t)job->correlation.length;
		buffer_append(&batch->bytes, job->correlation.at, job->correlation.length);
		if (!batch->bytes.failed) {
			delivery_post(pool->deliveries, batch);
			return;
		}
		delivery_batch_free(batch);
	}
	if (log_gate_open(&pool->trouble, clock_monotonic_ms(), &suppressed)) {
		log_line(LOG_LEVEL_ERROR, "chat: requests: out of memory: an answer is lost");
	}
}

static void post_error(struct request_workers *pool, const struct request_job *job, enum error_code code)
{
	struct answer_subject subject = {.request_id = job->request_id.length > 0 ? job->request_id.at : NULL,
		.request_id_length = job->request_id.length,
		.retry_after_ms = error_code_is_transient(code) ? ERROR_RETRY_MS : 0};
	struct error_detail error = {.code = code};
	struct buffer json;

	buffer_init(&json, 2048);
	answer_error(&json, &subject, &error);
	post(pool, job, true, json.data, json.length, 0);
	buffer_free(&json);
}

/* In place of the job that kept the line's place. False: no memory. With the mutex held. */
static bool replace_sent(
	struct request_workers *pool, struct line *line, struct request_job **at, const char *answer, size_t length)
{
	struct request_job *sent = *at;
	struct request_job model = *sent;
	model.kind = REQUEST_ANSWER;
	model.parameters = (struct request_text){answer, length};

	struct request_job *answered = copy_job(&model, model.added_ms);
	if (!answered) {
		return false;
	}
	answered->next = sent->next;
	*at = answered;
	if (line->last == &sent->next) {
		line->last = &answered->next;
	}
	pool->job_bytes += answered->bytes - sent->bytes;
	line->bytes += answered->bytes - sent->bytes;
	free_job(sent);
	return true;
}

bool request_workers_answer(struct request_workers *pool, uint64_t caller, uint64_t ticket, const char *answer, size_t length)
{
	bool taken = false;

	pthread_mutex_lock(&pool->mutex);
	struct line *line = line_of(pool, caller);
	struct request_job **at = line ? &line->first : NULL;
	while (at && *at && !((*at)->kind == REQUEST_SENT && (*at)->ticket == ticket)) {
		at = &(*at)->next;
	}
	if (at && *at) {
		bool waited_for = !line->busy && at == &line->first;
		taken = !is_down(&pool->ready[WORKER_SQL]) && replace_sent(pool, line, at, answer, length);
		if (!taken) {
			free_job(line_take(pool, line, at));
		}
		if (waited_for) {
			line_advance(pool, line);
		}
	}
	pthread_mutex_unlock(&pool->mutex);
	return taken;
}

void request_workers_session_ended(
	struct request_workers *pool, uint64_t caller, uint32_t session_index, uint32_t session_generation)
{
	if (!pool) {
		return;
	}
	pthread_mutex_lock(&pool->mutex);
	struct line *line = pool->slow_jobs > 0 ? line_of(pool, caller) : NULL;
	for (struct request_job *job = line ? line->first : NULL; job; job = job->next) {
		job->in_vain =
			job->in_vain || (job->session_index == session_index && job->session_generation == session_generation &&
						job->kind == REQUEST_ACCOUNT && job->account->method == ACCOUNT_LOGIN);
	}
	pthread_mutex_unlock(&pool->mutex);
}

void request_workers_expire(struct request_workers *pool, int64_t now_ms)
{
	struct line *line = NULL, *next = NULL;

	pthread_mutex_lock(&pool->mutex);
	HASH_ITER(hh, pool->lines, line, next)
	{
		if (!line->busy && line->first->kind == REQUEST_SENT && now_ms - line->first->added_ms > SENT_WAIT_MS) {
			free_job(line_take(pool, line, &line->first));
			line_advance(pool, line);
		}
	}
	pthread_mutex_unlock(&pool->mutex);
}

uint32_t request_workers_cost(struct request_workers *pool, const char *method, size_t length)
{
	uint32_t cost = 1;
	pthread_mutex_lock(&pool->mutex);
	for (size_t i = 0; i < pool->method_count; i++) {
		if (strlen(pool->methods[i].name) == length && memcmp(pool->methods[i].name, method, length) == 0) {
			cost = pool->methods[i].cost;
			break;
		}
	}
	pthread_mutex_unlock(&pool->mutex);
	return cost;
}

void request_workers_set_group_max(struct request_workers *pool, int64_t group_max_members)
{
	atomic_store(&pool->group_max_members, group_max_members);
}

/* ---- work: the threads ---- */

static void log_refusal(struct worker *worker, const char *method, size_t length)
{
	uint64_t suppressed;
	if (log_gate_open(&worker->pool->trouble, clock_monotonic_ms(), &suppressed)) {
		log_line(LOG_LEVEL_ERROR, "chat: requests: %.*s: %s; SQLSTATE %s", (int)length, method,
			database_error(worker->database), database_sqlstate(worker->database));
	}
}

static void post_result(struct request_workers *pool, const struct request_job *job, const struct database_result *result)
{
	size_t length = 0;
	uint64_t suppressed;
	const char *text = database_rows(result) == 1 ? database_bytes(result, 0, 0, &length) : NULL;
	if (text && length > 1 && text[0] == '{' && length <= ANSWER_BYTES_MAX) {
		post(pool, job, false, text + 1, length - 1, database_integer(result, 0, 1) ? DELIVERY_CHANGED : 0);
	} else {
		if (log_gate_open(&pool->trouble, clock_monotonic_ms(), &suppressed)) {
			log_line(LOG_LEVEL_ERROR, "chat: requests: %.*s: an answer of %zu bytes is not sent",
				(int)job->method.length, job->method.at, length);
		}
		post_error(pool, job, ERROR_INTERNAL);
	}
}

/* Tells the connection the options that are new to it. False: lost, or refused. */
static bool configure(struct worker *worker)
{
	int64_t group_max_members = atomic_load(&worker->pool->group_max_members);
	struct database_parameters parameters;
	struct database_call one = {STATEMENT_CONFIGURE, &parameters};
	struct database_result *result;
	char json[64];

	if (worker->group_max_members == group_max_members) {
		return true;
	}
	int length = snprintf(json, sizeof(json), "{\"group_max_members\":%lld}", (long long)group_max_members);
	database_parameters_reset(&parameters);
	database_parameter_text(&parameters, json, (size_t)length);
	if (database_run(worker->database, &one, 1, CALL_TIMEOUT_MS, &result) != DATABASE_OK) {
		return false;
	}
	database_result_free(result);
	worker->group_max_members = group_max_members;
	return true;
}

static void call(struct worker *worker, const struct request_job *job)
{
	struct database_parameters parameters;
	struct database_call one = {STATEMENT_CALL, &parameters};
	struct database_result *result;

	if (!configure(worker)) {
		post_error(worker->pool, job, ERROR_UNAVAILABLE);
		return;
	}
	database_parameters_reset(&parameters);
	database_parameter_text(&parameters, job->method.at, job->method.length);
	database_parameter_integer(&parameters, job->user_id);
	database_parameter_integer(&parameters, job->device_id);
	database_parameter_text(&parameters, job->client_id.at, job->client_id.length);
	database_parameter_text(&parameters, job->parameters.at, job->parameters.length);
	switch (database_run(worker->database, &one, 1, CALL_TIMEOUT_MS, &result)) {
	case DATABASE_OK:
		post_result(worker->pool, job, result);
		database_result_free(result);
		break;
	case DATABASE_REFUSED:
		log_refusal(worker, job->method.at, job->method.length);
		post_error(worker->pool, job, statement_refusal(database_sqlstate(worker->database)));
		break;
	case DATABASE_LOST:    /* done or not: who asked looks for himself */
	case DATABASE_PENDING: /* not of database_run() */
		post_error(worker->pool, job, ERROR_UNAVAILABLE);
		break;
	}
}

static void run_account(struct worker *worker, const struct request_job *job)
{
	struct account_answer answer = {0};
	accounts_run(worker->pool->accounts, worker->database, job->account, clock_monotonic_ms(), clock_wall_ms(), &answer);
	if (answer.json.failed || answer.json.length == 0) {
		post_error(worker->pool, job, ERROR_INTERNAL);
	} else {
		post(worker->pool, job, false, answer.json.data + 1, answer.json.length - 1,
			answer.ends_session ? DELIVERY_ENDS_SESSION : 0);
	}
	buffer_free(&answer.json);
}

static void run(struct worker *worker, const struct request_job *job)
{
	if (job->in_vain) {
		return;
	}
	switch (job->kind) {
	case REQUEST_ANSWER:
		post(worker->pool, job, true, job->parameters.at, job->parameters.length, 0);
		break;
	case REQUEST_ACCOUNT:
		run_account(worker, job);
		break;
	default:
		call(worker, job);
		break;
	}
}

/* Without a connection. */
static void refuse_unavailable(struct worker *worker, const struct request_job *job)
{
	if (job->kind == REQUEST_ANSWER) {
		run(worker, job);
	} else {
		post_error(worker->pool, job, ERROR_UNAVAILABLE);
	}
}

/* The first job of the line whose turn it is; waits for one. NULL: stopping. */
static struct request_job *take(struct worker *worker, struct line **taken_from)
{
	struct request_workers *pool = worker->pool;
	struct ready *ready = &pool->ready[worker->kind];
	struct request_job *job = NULL;

	pthread_mutex_lock(&pool->mutex);
	while (!ready->first && !atomic_load(&pool->stopping)) {
		wait_for_more(ready, worker);
	}
	if (!atomic_load(&pool->stopping)) {
		struct line *line = ready->first;
		ready->first = line->next_ready;
		if (!ready->first) {
			ready->last = &ready->first;
		}
		line->busy = true;
		*taken_from = line;
		job = line_take(pool, line, &line->first);
	}
	pthread_mutex_unlock(&pool->mutex);
	return job;
}

static void finish(struct request_workers *pool, struct line *line)
{
	pthread_mutex_lock(&pool->mutex);
	line->busy = false;
	line_advance(pool, line);
	pthread_mutex_unlock(&pool->mutex);
}

/* ---- connections ---- */

static void note_connected(struct worker *worker)
{
	struct ready *ready = &worker->pool->ready[worker->kind];
	pthread_mutex_lock(&worker->pool->mutex);
	ready->connected++;
	worker->counted = true;
	pthread_mutex_unlock(&worker->pool->mutex);
}

static void note_lost(struct worker *worker)
{
	struct ready *ready = &worker->pool->ready[worker->kind];
	pthread_mutex_lock(&worker->pool->mutex);
	ready->connected -= worker->counted;
	worker->counted = false;
	pthread_mutex_unlock(&worker->pool->mutex);
}

/* After a failed attempt to connect: whoever waits for workers of this kind, of which none has a connection, is told. */
static void answer_unavailable(struct worker *worker)
{
	struct request_workers *pool = worker->pool;
	struct ready *ready = &pool->ready[worker->kind];
	struct line *line;

	pthread_mutex_lock(&pool->mutex);
	while (ready->connected == 0 && (line = ready->first) != NULL && !atomic_load(&pool->stopping)) {
		struct request_job *job = line_take(pool, line, &line->first);
		ready->first = line->next_ready;
		if (!ready->first) {
			ready->last = &ready->first;
		}
		line->busy = true;
		pthread_mutex_unlock(&pool->mutex);
		refuse_unavailable(worker, job);
		free_job(job);
		pthread_mutex_lock(&pool->mutex);
		line->busy = false;
		line_advance(pool, line);
	}
	pthread_mutex_unlock(&pool->mutex);
}

static bool load_methods(struct worker *worker)
{
	struct request_workers *pool = worker->pool;
	struct database_call one = {STATEMENT_READ_METHODS, NULL};
	struct database_result *rows;

	if (database_run(worker->database, &one, 1, CALL_TIMEOUT_MS, &rows) != DATABASE_OK) {
		return false;
	}
	size_t count = (size_t)database_rows(rows) < METHODS_MAX ? (size_t)database_rows(rows) : METHODS_MAX;
	struct method *methods = calloc(count + 1, sizeof(methods[0]));
	for (size_t i = 0; methods && i < count; i++) {
		size_t length;
		const char *name = database_bytes(rows, (int)i, 0, &length);
		length = length < METHOD_NAME_MAX ? length : METHOD_NAME_MAX;
		memcpy(methods[i].name, name, length);
		methods[i].cost = (uint32_t)database_integer(rows, (int)i, 1);
	}
	database_result_free(rows);
	pthread_mutex_lock(&pool->mutex);
	struct method *before = pool->methods;
	pool->methods = methods;
	pool->method_count = methods ? count : 0;
	pthread_mutex_unlock(&pool->mutex);
	free(before);
	return true;
}

static bool try_connect(struct worker *worker)
{
	worker->group_max_members = 0;
	if (!database_connect(worker->database, CONNECT_TIMEOUT_MS)) {
		return false;
	}
	if (database_command(worker->database, "SET statement_timeout = '" STATEMENT_TIMEOUT "'", CALL_TIMEOUT_MS) !=
			DATABASE_OK ||
		(worker->kind == WORKER_SQL && !load_methods(worker))) {
		database_disconnect(worker->database);
		return false;
	}
	return true;
}

/* Until connected or stopping. */
static void connect_again(struct worker *worker)
{
	struct request_workers *pool = worker->pool;
	struct pollfd stop = {.fd = pool->stop_fd, .events = POLLIN};
	int backoff_ms = BACKOFF_FIRST_MS;

	note_lost(worker);
	while (!atomic_load(&pool->stopping) && !try_connect(worker)) {
		pthread_mutex_lock(&pool->mutex);
		pool->ready[worker->kind].failed += !worker->tried;
		worker->tried = true;
		pthread_mutex_unlock(&pool->mutex);
		answer_unavailable(worker);
		poll(&stop, 1, backoff_ms);
		backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
	}
	pthread_mutex_lock(&pool->mutex);
	pool->ready[worker->kind].failed -= worker->tried;
	worker->tried = false;
	pthread_mutex_unlock(&pool->mutex);
	if (database_is_connected(worker->database)) {
		note_connected(worker);
	}
}

static void *worker_main(void *argument)
{
	struct worker *worker = argument;
	struct request_workers *pool = worker->pool;
	struct line *line;

	if (worker->kind == WORKER_ACCOUNT) {
		setpriority(PRIO_PROCESS, 0, 10); /* of this thread alone (Linux) */
	}
	while (!atomic_load(&pool->stopping)) {
		if (!database_is_connected(worker->database)) {
			connect_again(worker);
			continue;
		}
		if (!delivery_wait_for_room(pool->deliveries)) {
			break;
		}
		struct request_job *job = take(worker, &line);
		if (!job) {
			break;
		}
		/* A server that went away meanwhile has closed the socket: better to notice before than after. */
		if (database_consume(worker->database) || try_connect(worker)) {
			run(worker, job);
		} else {
			refuse_unavailable(worker, job);
		}
		free_job(job);
		finish(pool, line);
	}
	return NULL;
}

/* ---- start and end ---- */

static bool start_worker(struct request_workers *pool, enum worker_kind kind, const char *conninfo)
{
	struct worker *worker = &pool->workers[pool->worker_count++];

	worker->pool = pool;
	worker->kind = kind;
	pthread_cond_init(&worker->more, NULL);
	worker->database = database_new(conninfo, "mosquitto-chat requests", statements, STATEMENTS, pool->stop_fd);
	if (!worker->database) {
		return false;
	}
	worker->started = thread_start(&worker->thread, worker_main, worker);
	return worker->started;
}

struct request_workers *request_workers_start(const char *conninfo, unsigned workers, struct accounts *accounts,
	struct delivery_queue *deliveries, char *error, size_t error_size)
{
	struct request_workers *pool = calloc(1, sizeof(*pool));
	unsigned share[WORKER_KINDS] = {[WORKER_SQL] = workers, [WORKER_ACCOUNT] = (workers + 3) / 4};

	if (!pool) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&pool->mutex, NULL);
	pool->deliveries = deliveries;
	pool->accounts = accounts;
	for (int kind = 0; kind < WORKER_KINDS; kind++) {
		pool->ready[kind].last = &pool->ready[kind].first;
		pool->ready[kind].workers = share[kind];
	}
	pool->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pool->workers = calloc(share[WORKER_SQL] + share[WORKER_ACCOUNT], sizeof(pool->workers[0]));
	bool started = pool->stop_fd >= 0 && pool->workers;
	for (int kind = 0; kind < WORKER_KINDS && started; kind++) {
		for (unsigned i = 0; i < share[kind] && started; i++) {
			started = start_worker(pool, (enum worker_kind)kind, conninfo);
		}
	}
	if (!started) {
		snprintf(error, error_size, "out of memory, descriptors or threads");
		request_workers_stop(pool);
		return NULL;
	}
	return pool;
}

static void free_lines(struct request_workers *pool)
{
	struct line *line = NULL, *next = NULL;
	HASH_ITER(hh, pool->lines, line, next)
	{
		while (line->first) {
			free_job(line_take(pool, line, &line->first));
		}
		HASH_DEL(pool->lines, line);
		free(line);
	}
}

void request_workers_stop(struct request_workers *pool)
{
	static const uint64_t one = 1;
	if (!pool) {
		return;
	}
	pthread_mutex_lock(&pool->mutex);
	atomic_store(&pool->stopping, true);
	for (unsigned i = 0; i < pool->worker_count; i++) {
		pthread_cond_signal(&pool->workers[i].more);
	}
	pthread_mutex_unlock(&pool->mutex);
	if (pool->stop_fd >= 0) {
		ssize_t written = write(pool->stop_fd, &one, sizeof(one));
		(void)written;
	}
	for (unsigned i = 0; i < pool->worker_count; i++) {
		if (pool->workers[i].started) {
			pthread_join(pool->workers[i].thread, NULL);
		}
		database_free(pool->workers[i].database);
		pthread_cond_destroy(&pool->workers[i].more);
	}
	free_lines(pool);
	free(pool->workers);
	free(pool->methods);
	if (pool->stop_fd >= 0) {
		close(pool->stop_fd);
	}
	pthread_mutex_destroy(&pool->mutex);
	free(pool);
}
