/* request_workers.h - the threads that answer requests, and the queue in front of them.
 *
 * The broker thread adds jobs; each caller (a user, or an address that guests come from) has a line of its own. Of a line only
 * the first job is ever worked on, so a caller's answers keep the order of its requests; and the lines that are not being worked
 * on take turns, so that nobody waits for another's hundred.
 *
 *   broker thread --add--> [caller: job job job]   ready lines, in turn   --> request workers   (SQL)
 *                          [caller: job]                                  \-> account workers   (passwords; low priority)
 *                                        answers --> delivery queue --> broker thread
 *
 * message.send goes through the spool; its job only keeps the place in the line until the lane's answer is there.
 * While a kind of worker has no connection nothing waits for it: what is in the lines is answered `unavailable`.
 */
#ifndef CHAT_PLUGIN_REQUEST_WORKERS_H
#define CHAT_PLUGIN_REQUEST_WORKERS_H

#include "accounts.h"
#include "delivery.h"
#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum request_kind {
	REQUEST_CALL,    /* chat_api.call */
	REQUEST_ACCOUNT, /* auth.*: `account` says what; an account worker's where it hashes a password */
	REQUEST_ANSWER,  /* already answered: `parameters` is the answer; waits for its turn */
	REQUEST_SENT     /* message.send: waits for request_workers_answer */
};

struct request_text {
	const char *at;
	size_t length;
};

struct request_job {
	struct request_job *next;
	enum request_kind kind;
	uint64_t caller; /* request_caller() */
	uint64_t ticket; /* SENT */
	bool leaving;    /* it may sign the session out: struct session has it too */
	bool in_vain;    /* nobody waits for the answer any more, and that is all there would be */
	int64_t added_ms;
	uint32_t session_index, session_generation;
	int64_t user_id, device_id;
	struct request_text method, client_id, request_id, correlation, parameters; /* copied into the job */
	struct account_task *account;                                               /* ACCOUNT: owned */
	size_t bytes;                                                               /* of the whole job */
};

/* A copy of `model` and of its texts in one piece of memory, added to the line of its caller. */
enum request_added {
	REQUEST_ADDED,
	REQUEST_QUEUE_FULL,    /* this caller's line, or all together */
	REQUEST_NO_CONNECTION, /* to the database */
	REQUEST_NO_MEMORY
};

struct request_workers;

/* `workers` threads and connections for SQL, and one for passwords for each four of them. NULL: error says why. */
struct request_workers *request_workers_start(const char *conninfo, unsigned workers, struct accounts *accounts,
	struct delivery_queue *deliveries, char *error, size_t error_size);
/* An option that methods depend on; each worker tells its connection before its next job. Broker thread. */
void request_workers_set_group_max(struct request_workers *workers, int64_t group_max_members);
/* Joins and frees; what waits is not answered. NULL is fine. */
void request_workers_stop(struct request_workers *workers);

/* A user's number; a guest's is his address (attempts_address()): as many connections as he likes are one caller. */
uint64_t request_caller(int64_t user_id, uint64_t address);

/* Broker thread. The account task is taken over where the answer is REQUEST_ADDED. */
enum request_added request_workers_add(struct request_workers *workers, const struct request_job *model, int64_t now_ms);
/* Broker thread: the answer of a lane to message.send. False: it has no place in a line (any more), deliver it at once. */
bool request_workers_answer(struct request_workers *workers, uint64_t caller, uint64_t ticket, const char *answer, size_t length);
/* Broker thread: the session has ended. What waits for it, and does nothing but answer it after a quarter of a second of
 * hashing (auth.login), is not done. NULL is fine. */
void request_workers_session_ended(
	struct request_workers *workers, uint64_t caller, uint32_t session_index, uint32_t session_generation);
/* Broker thread, once a second: lines do not wait for ever for a lane. */
void request_workers_expire(struct request_workers *workers, int64_t now_ms);
/* What a method costs in the rate limit; 1 where it is not known here. Any thread. */
uint32_t request_workers_cost(struct request_workers *workers, const char *method, size_t length);

#endif
