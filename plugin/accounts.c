/* accounts.c - see accounts.h.
 *
 * Several threads run tasks at once; what they share are the attempts, which lock themselves, and the way tokens are made, under
 * a read-write lock that only SIGHUP takes for writing.
 *
 * Signing in, in this order: find the account, or something just like it; count the attempt; hash; compare. Who is refused
 * learns nothing from how long it took or from what he is told.
 */
#include "accounts.h"

#include "answer.h"
#include "log.h"
#include "password.h"
#include "scram.h"
#include "statements.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define CALL_TIMEOUT_MS 10000
#define ANSWER_JSON_MAX 16384 /* two tokens */
#define NAME_KEY_MAX 1024     /* of 50 characters, each of which may be decomposed */
/* Long-lived: what ends a device token is the device's row. */
#define DEVICE_TOKEN_LIFETIME_S (INT64_C(3650) * 86400)
#define REST_NS 100000

struct accounts {
	struct attempts *attempts;
	pthread_rwlock_t lock; /* of what follows */
	struct signing_key *key;
	char *issuer, *audience;
	int64_t lifetime_s;
};

/* One task on its way through this file. */
struct run {
	struct accounts *accounts;
	struct database *database;
	const struct account_task *task;
	int64_t now_ms, now_wall_ms;
	struct account_answer *answer;
};

struct accounts *accounts_new(struct attempts *attempts)
{
	struct accounts *accounts = calloc(1, sizeof(*accounts));
	if (accounts) {
		accounts->attempts = attempts;
		pthread_rwlock_init(&accounts->lock, NULL);
	}
	return accounts;
}

void accounts_free(struct accounts *accounts)
{
	if (accounts) {
		signing_key_free(accounts->key);
		free(accounts->issuer);
		free(accounts->audience);
		pthread_rwlock_destroy(&accounts->lock);
		free(accounts);
	}
}

bool accounts_set_tokens(struct accounts *accounts, struct signing_key *key, const struct token_rules *rules, int64_t lifetime_s)
{
	char *issuer = rules->issuer ? strdup(rules->issuer) : NULL;
	char *audience = rules->audience ? strdup(rules->audience) : NULL;
	if ((rules->issuer && !issuer) || (rules->audience && !audience)) {
		free(issuer);
		free(audience);
		return false;
	}
	pthread_rwlock_wrlock(&accounts->lock);
	struct signing_key *old_key = accounts->key;
	char *old_issuer = accounts->issuer, *old_audience = accounts->audience;
	accounts->key = key;
	accounts->issuer = issuer;
	accounts->audience = audience;
	accounts->lifetime_s = lifetime_s;
	pthread_rwlock_unlock(&accounts->lock);
	signing_key_free(old_key);
	free(old_issuer);
	free(old_audience);
	return true;
}

/* ---- answering ---- */

static void answer_retry(struct run *run, const struct error_detail *error, int64_t retry_after_ms)
{
	struct answer_subject subject = {.retry_after_ms = retry_after_ms};
	buffer_reset(&run->answer->json);
	answer_error(&run->answer->json, &subject, error);
}

static void answer_code(struct run *run, enum error_code code, const char *field, const char *message)
{
	struct error_detail error = {code, field, message};
	answer_retry(run, &error, error_code_is_transient(code) ? ERROR_RETRY_MS : 0);
}

static void answer_wrong_password(struct run *run)
{
	answer_code(run, ERROR_UNAUTHENTICATED, NULL, "the user name or the password is wrong");
}

static void answer_nothing(struct run *run)
{
	buffer_append_text(&run->answer->json, "{\"result\":{}}");
}

/* ---- the database ---- */

/* The one row of a statement; NULL: the answer is made. */
static struct database_result *query(struct run *run, enum statement statement, const struct database_parameters *parameters)
{
	struct database_call one = {statement, parameters};
	struct database_result *result = NULL;

	switch (database_run(run->database, &one, 1, CALL_TIMEOUT_MS, &result)) {
	case DATABASE_OK:
		if (database_rows(result) == 1) {
			return result;
		}
		database_result_free(result);
		answer_code(run, ERROR_UNAUTHENTICATED, NULL, NULL); /* the account went away meanwhile */
		return NULL;
	case DATABASE_REFUSED:
		log_line(LOG_LEVEL_ERROR, "chat: accounts: %s: %s; SQLSTATE %s", statements[statement].name,
			database_error(run->database), database_sqlstate(run->database));
		answer_code(run, statement_refusal(database_sqlstate(run->database)), NULL, NULL);
		return NULL;
	default:
		answer_code(run, ERROR_UNAVAILABLE, NULL, NULL);
		return NULL;
	}
}

static void add_text(struct database_parameters *parameters, const char *text)
{
	database_parameter_text(parameters, text, text ? strlen(text) : 0);
}

/* A statement of a few ids that says yes or no; 0 and 1, -1: the answer is made. */
static int ask(struct run *run, enum statement statement, const int64_t *ids, size_t count)
{
	struct database_parameters parameters;
	database_parameters_reset(&parameters);
	for (size_t i = 0; i < count; i++) {
		database_parameter_integer(&parameters, ids[i]);
	}
	struct database_result *result = query(run, statement, &parameters);
	int yes = result ? database_integer(result, 0, 0) != 0 : -1;
	database_result_free(result);
	return yes;
}

/* ---- passwords ---- */

struct credentials {
	int64_t user_id; /* 0: there is no such account; the verifier matches nothing then */
	uint64_t account;
	char text[SCRAM_TEXT_MAX];
	size_t text_length;
	struct scram_verifier verifier;
};

/* From columns `name_key` and `verifier` of a row. A verifier that cannot be read matches nothing, and takes as long. */
static bool read_credentials(
	struct run *run, const struct database_result *rows, int name_key, int verifier, struct credentials *out)
{
	size_t key_length;
	const char *key = database_bytes(rows, 0, name_key, &key_length);
	const char *text = database_bytes(rows, 0, verifier, &out->text_length);

	if (!key || !text || out->text_length > sizeof(out->text)) {
		answer_code(run, ERROR_FORBIDDEN, NULL, "this account has no password");
		return false;
	}
	if (!scram_verifier_parse(text, out->text_length, &out->verifier)) {
		out->verifier = (struct scram_verifier){.iterations = SCRAM_ITERATIONS, .salt_length = SCRAM_SALT_BYTES};
	}
	memcpy(out->text, text, out->text_length);
	out->account = attempts_account(run->accounts->attempts, key, key_length);
	return true;
}

static bool find_credentials(struct run *run, struct credentials *out)
{
	struct database_parameters parameters;
	struct database_array names;

	database_array_init(&names, DATABASE_TEXT);
	database_array_bytes(&names, run->task->username, strlen(run->task->username));
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, &names);
	struct database_result *result = query(run, STATEMENT_FIND_VERIFIERS, &parameters);
	database_array_free(&names);
	bool found = result && read_credentials(run, result, 1, 3, out);
	out->user_id = found ? database_integer(result, 0, 2) : 0;
	database_result_free(result);
	return found;
}

static bool own_credentials(struct run *run, struct credentials *out)
{
	struct database_parameters parameters;

	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, run->task->user_id);
	struct database_result *result = query(run, STATEMENT_READ_VERIFIER, &parameters);
	bool found = result && read_credentials(run, result, 0, 1, out);
	out->user_id = run->task->user_id;
	database_result_free(result);
	return found;
}

/* Being nice is not enough: the scheduler weighs groups of processes first, and in ours is the broker. Others who want this core
 * get it now. */
static void rest(void)
{
	static const struct timespec while_ns = {.tv_nsec = REST_NS};
	nanosleep(&while_ns, NULL);
}

/* Counts the attempt, hashes and compares. False: the answer is made. */
static bool check_password(struct run *run, const struct credentials *credentials, const char *password)
{
	struct attempts *attempts = run->accounts->attempts;
	struct error_detail limited = {ERROR_RATE_LIMITED, NULL, "too many failed attempts to sign in; try again later"};
	struct buffer prepared;
	int64_t retry_after_ms;

	if (!attempts_begin(attempts, credentials->account, run->task->address, run->now_ms, &retry_after_ms)) {
		answer_retry(run, &limited, retry_after_ms);
		return false;
	}
	buffer_init(&prepared, PASSWORD_BYTES_MAX * 20); /* one character of NFKC may become 18 */
	bool right = password_prepare(password, strlen(password), &prepared) &&
		     scram_verifier_matches(&credentials->verifier, prepared.data, prepared.length, rest) &&
		     credentials->user_id != 0;
	if (prepared.data) {
		explicit_bzero(prepared.data, prepared.length);
	}
	buffer_free(&prepared);
	if (right) {
		attempts_succeeded(attempts, credentials->account, run->task->address, run->now_ms);
	} else {
		answer_wrong_password(run);
	}
	return right;
}

/* The verifier of a password, as text. False: no memory. */
static bool hash_password(const char *password, struct buffer *out)
{
	uint8_t salt[SCRAM_SALT_BYTES];
	struct scram_verifier verifier;
	struct buffer prepared;

	buffer_init(&prepared, PASSWORD_BYTES_MAX * 20);
	bool made = password_prepare(password, strlen(password), &prepared) && getrandom(salt, sizeof(salt), 0) == sizeof(salt) &&
		    scram_verifier_make(prepared.data, prepared.length, salt, sizeof(salt), SCRAM_ITERATIONS, rest, &verifier) &&
		    scram_verifier_format(&verifier, out);
	if (prepared.data) {
		explicit_bzero(prepared.data, prepared.length);
	}
	buffer_free(&prepared);
	return made;
}

/* The same of a new one. False: the answer is made. */
static bool make_verifier(struct run *run, const char *password, struct buffer *out)
{
	bool made = hash_password(password, out);
	if (!made) {
		answer_code(run, ERROR_UNAVAILABLE, NULL, NULL);
	}
	return made;
}

/* The password was right, and is kept with fewer iterations than it would be now: once it is known, it is hashed anew. The answer
 * is made already; where this fails, it is tried again next time. */
static void upgrade_verifier(struct run *run, const struct credentials *credentials)
{
	struct database_parameters parameters;
	struct database_call one = {STATEMENT_UPGRADE_VERIFIER, &parameters};
	struct database_result *result = NULL;
	struct buffer verifier;

	buffer_init(&verifier, SCRAM_TEXT_MAX);
	if (credentials->verifier.iterations < SCRAM_ITERATIONS && hash_password(run->task->password, &verifier)) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, credentials->user_id);
		database_parameter_text(&parameters, credentials->text, credentials->text_length);
		database_parameter_text(&parameters, verifier.data, verifier.length);
		if (database_run(run->database, &one, 1, CALL_TIMEOUT_MS, &result) == DATABASE_REFUSED) {
			log_line(LOG_LEVEL_ERROR, "chat: accounts: %s: %s; SQLSTATE %s",
				statements[STATEMENT_UPGRADE_VERIFIER].name, database_error(run->database),
				database_sqlstate(run->database));
		}
		database_result_free(result);
	}
	buffer_free(&verifier);
}

/* ---- tokens ---- */

/* {"name":"TOKEN" */
static bool append_token(struct accounts *accounts, struct buffer *out, const char *name, const struct token_claims *claims)
{
	struct token_rules rules = {.issuer = accounts->issuer, .audience = accounts->audience};
	buffer_append_format(out, "\"%s\":\"", name);
	return accounts->key && token_make(accounts->key, &rules, claims, out) && buffer_append_text(out, "\"");
}

/* {"result":{...}} with a token for the device, and with `signed_in` all that a client keeps. */
static void answer_token(struct run *run, int64_t user_id, int64_t device_id, bool signed_in)
{
	struct accounts *accounts = run->accounts;
	struct buffer *json = &run->answer->json;
	struct token_claims claims = {.user_id = user_id, .device_id = device_id, .issued_at_s = run->now_wall_ms / 1000};

	buffer_append_text(json, "{\"result\":{");
	if (signed_in) {
		buffer_append_format(json, "\"user_id\":%lld,\"device_id\":%lld,", (long long)user_id, (long long)device_id);
	}
	pthread_rwlock_rdlock(&accounts->lock);
	claims.expires_at_s = claims.issued_at_s + accounts->lifetime_s;
	bool made = append_token(accounts, json, "token", &claims);
	buffer_append_format(json, ",\"token_expires_at\":%lld", (long long)claims.expires_at_s * 1000);
	if (signed_in) {
		claims.expires_at_s = claims.issued_at_s + DEVICE_TOKEN_LIFETIME_S;
		claims.device_token = true;
		buffer_append_text(json, ",");
		made = made && append_token(accounts, json, "device_token", &claims);
	}
	pthread_rwlock_unlock(&accounts->lock);
	if (!made || !buffer_append_text(json, "}}")) {
		answer_code(run, ERROR_UNAVAILABLE, NULL, NULL);
	}
}

/* ---- the methods ---- */

/* Whether code and field of a row say no; the answer is then made. */
static bool is_refused(struct run *run, const struct database_result *row)
{
	size_t length;
	const char *code = database_bytes(row, 0, 0, &length);
	if (!code) {
		return false;
	}
	enum error_code number = error_code_from_name(code, length);
	const char *field = database_bytes(row, 0, 1, &length);
	bool email = field && length == 5;
	if (number == ERROR_CONFLICT) {
		answer_code(run, number, email ? "email" : "username",
			email ? "another account has this e-mail address" : "this user name is taken");
	} else {
		answer_code(run, number, email ? "email" : "username",
			email ? "email is not an address"
			      : "username has 3 to 50 characters: no spaces, control characters or direction marks");
	}
	return true;
}

static bool may_register(struct run *run)
{
	const struct account_task *task = run->task;
	struct database_parameters parameters;

	database_parameters_reset(&parameters);
	add_text(&parameters, task->username);
	add_text(&parameters, task->email);
	struct database_result *row = query(run, STATEMENT_CHECK_REGISTRATION, &parameters);
	bool may = row && !is_refused(run, row);
	database_result_free(row);
	return may;
}

static void register_account(struct run *run)
{
	const struct account_task *task = run->task;
	struct error_detail limited = {ERROR_RATE_LIMITED, NULL, "too many attempts from this address; try again later"};
	struct database_parameters parameters;
	struct buffer verifier;

	/* Each counts as a failed sign-in of its address: they cost as much, and tell which names are taken. */
	if (attempts_address_is_limited(run->accounts->attempts, task->address, run->now_ms)) {
		answer_retry(run, &limited, ATTEMPTS_RETRY_MS);
		return;
	}
	attempts_address_failed(run->accounts->attempts, task->address, run->now_ms);
	buffer_init(&verifier, SCRAM_TEXT_MAX);
	if (may_register(run) && make_verifier(run, task->password, &verifier)) {
		database_parameters_reset(&parameters);
		add_text(&parameters, task->username);
		add_text(&parameters, task->email);
		add_text(&parameters, task->display_name);
		database_parameter_text(&parameters, verifier.data, verifier.length);
		add_text(&parameters, task->device_name);
		add_text(&parameters, task->device_type);
		struct database_result *row = query(run, STATEMENT_REGISTER_ACCOUNT, &parameters);
		if (row && !is_refused(run, row)) {
			answer_token(run, database_integer(row, 0, 2), database_integer(row, 0, 3), true);
		}
		database_result_free(row);
	}
	buffer_free(&verifier);
}

/* A device for whom the password has just let in; NULL: the answer is made. A row of nothing: it is kept as something else by
 * now, or the account is suspended. */
static struct database_result *sign_in_device(struct run *run, const struct credentials *credentials)
{
	struct database_parameters parameters;

	database_parameters_reset(&parameters);
	database_parameter_integer(&parameters, credentials->user_id);
	database_parameter_text(&parameters, credentials->text, credentials->text_length);
	add_text(&parameters, run->task->device_name);
	add_text(&parameters, run->task->device_type);
	return query(run, STATEMENT_SIGN_IN_DEVICE, &parameters);
}

/* While it was hashed the password may have been changed, or only be kept as another verifier: once more, then. */
#define LOGIN_TRIES 2

static void login(struct run *run)
{
	struct credentials credentials;

	for (int i = 0; i < LOGIN_TRIES; i++) {
		if (!find_credentials(run, &credentials) || !check_password(run, &credentials, run->task->password)) {
			return;
		}
		struct database_result *row = sign_in_device(run, &credentials);
		bool done = !row || !database_is_null(row, 0, 0);
		if (row && done) {
			answer_token(run, credentials.user_id, database_integer(row, 0, 0), true);
			upgrade_verifier(run, &credentials);
		}
		database_result_free(row);
		if (done) {
			return;
		}
	}
	answer_wrong_password(run);
}

/* `device` was shown by a device token: the connection's, or the parameter that the broker thread has checked. */
static void refresh(struct run *run)
{
	int64_t ids[] = {run->task->user_id, run->task->device};
	int good = ask(run, STATEMENT_REFRESH_DEVICE, ids, 2);
	if (good > 0) {
		answer_token(run, run->task->user_id, run->task->device, false);
	} else if (good == 0) {
		answer_code(run, ERROR_UNAUTHENTICATED, NULL, "the device is signed out");
	}
}

static void logout(struct run *run)
{
	const struct account_task *task = run->task;
	bool own = task->device == 0 || task->device == task->device_id;
	int64_t ids[] = {task->user_id, task->device_id, own ? task->device_id : task->device};
	/* A connection without a device has nothing that could be revoked: it is just closed. */
	int done = ids[2] ? ask(run, STATEMENT_REVOKE_DEVICE, ids, 3) : 1;
	if (done == 0 && !own) {
		answer_code(run, ERROR_NOT_FOUND, NULL, NULL);
	} else if (done >= 0) {
		run->answer->ends_session = own;
		answer_nothing(run);
	}
}

static void change_password(struct run *run)
{
	const struct account_task *task = run->task;
	struct credentials credentials;
	struct database_parameters parameters;
	struct buffer verifier;

	buffer_init(&verifier, SCRAM_TEXT_MAX);
	if (own_credentials(run, &credentials) && check_password(run, &credentials, task->old_password) &&
		make_verifier(run, task->new_password, &verifier)) {
		database_parameters_reset(&parameters);
		database_parameter_integer(&parameters, task->user_id);
		database_parameter_integer(&parameters, task->device_id);
		database_parameter_text(&parameters, credentials.text, credentials.text_length);
		database_parameter_text(&parameters, verifier.data, verifier.length);
		struct database_result *row = query(run, STATEMENT_CHANGE_VERIFIER, &parameters);
		if (row && database_integer(row, 0, 0)) {
			run->answer->ends_session = task->by_password;
			answer_nothing(run);
		} else if (row) {
			answer_wrong_password(run); /* it has been changed meanwhile */
		}
		database_result_free(row);
	}
	buffer_free(&verifier);
}

void accounts_run(struct accounts *accounts, struct database *database, const struct account_task *task, int64_t now_ms,
	int64_t now_wall_ms, struct account_answer *answer)
{
	static void (*const methods[ACCOUNT_METHODS])(struct run *) = {
		[ACCOUNT_REGISTER] = register_account,
		[ACCOUNT_LOGIN] = login,
		[ACCOUNT_REFRESH] = refresh,
		[ACCOUNT_LOGOUT] = logout,
		[ACCOUNT_CHANGE_PASSWORD] = change_password,
	};
	struct run run = {accounts, database, task, now_ms, now_wall_ms, answer};

	buffer_init(&answer->json, ANSWER_JSON_MAX);
	answer->ends_session = false;
	methods[task->method](&run);
}
