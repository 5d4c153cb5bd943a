/* request.c - see request.h.
 *
 * To add a method that SQL can do, add no C: chat_api.methods is the list. Native are those that need keys or slow hashing
 * (auth.*, done by accounts.c in a worker), and message.send, which goes the way of every message.
 */
#include "request.h"

#include "answer.h"
#include "json.h"
#include "request_payload.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

/* Beside these a record has room for the request's own head: correlation data is counted in 16 bits. */
#define CORRELATION_BYTES_MAX 60000

/* One request on its way through this file. */
struct request {
	struct chat *chat;
	struct session *session;
	const struct publish *publish;
	struct request_payload payload;
};

static bool is_method(const struct topic *topic, const char *name)
{
	return topic->name_length == strlen(name) && memcmp(topic->name, name, topic->name_length) == 0;
}

/* ---- saying no ---- */

/* Not taken. A 3.1.1 client is not disconnected over it: the answer says what there is to say, and it keeps no message. */
static enum publish_verdict refuse(
	const struct request *request, enum error_code code, const char *message, int64_t retry_after_ms)
{
	struct answer_subject subject = {
		.request_id = request->payload.request_id_length > 0 ? request->payload.request_id : NULL,
		.request_id_length = request->payload.request_id_length,
		.retry_after_ms = retry_after_ms,
	};
	struct error_detail error = {.code = code, .message = message};
	enum publish_verdict verdict = publish_refuse(request->chat, request->session, request->publish, &subject, &error);
	return verdict == PUBLISH_TRANSIENT && request->session->protocol_version < 5 ? PUBLISH_REFUSED : verdict;
}

static struct request_job job_of(const struct request *request, enum request_kind kind)
{
	const struct session *session = request->session;
	const struct publish *publish = request->publish;
	int64_t user_id = session->user ? session->user->id : 0;
	return (struct request_job){
		.kind = kind,
		.caller = request_caller(user_id, session->address),
		.session_index = session->index,
		.session_generation = session->generation,
		.user_id = user_id,
		.device_id = session->device_id,
		.method = {publish->topic.name, publish->topic.name_length},
		.client_id = {session->client_id, strlen(session->client_id)},
		.request_id = {request->payload.request_id, request->payload.request_id_length},
		.correlation = {publish->correlation, publish->correlation_length},
	};
}

static enum publish_verdict add(const struct request *request, const struct request_job *job)
{
	switch (request_workers_add(request->chat->request_workers, job, request->chat->now_ms)) {
	case REQUEST_ADDED:
		request->session->leaving = request->session->leaving || job->leaving; /* its answer comes first */
		return PUBLISH_ACCEPTED;
	case REQUEST_NO_CONNECTION:
		return refuse(request, ERROR_UNAVAILABLE, NULL, ERROR_RETRY_MS);
	default:
		return refuse(request, ERROR_OVERLOADED, NULL, ERROR_RETRY_MS);
	}
}

/* Taken, and answered with an error when its turn comes. */
static enum publish_verdict answer_error_in_turn(const struct request *request, const struct error_detail *error)
{
	struct request_job job = job_of(request, REQUEST_ANSWER);
	struct answer_subject subject = {
		.request_id = job.request_id.length > 0 ? job.request_id.at : NULL,
		.request_id_length = job.request_id.length,
		.retry_after_ms = error_code_is_transient(error->code) ? ERROR_RETRY_MS : 0,
	};
	struct buffer json;

	buffer_init(&json, 4096);
	answer_error(&json, &subject, error);
	job.parameters = (struct request_text){json.data, json.length};
	if (json.failed || request_workers_add(request->chat->request_workers, &job, request->chat->now_ms) != REQUEST_ADDED) {
		publish_refuse(request->chat, request->session, request->publish, &subject, error);
	}
	buffer_free(&json);
	return PUBLISH_ACCEPTED;
}

/* ---- message.send ---- */

/* The head and the client's own correlation; NULL: no memory. */
static char *record_correlation(const struct request *request, uint64_t ticket, size_t *length)
{
	struct record_request head = {
		.ticket = ticket,
		.session_index = request->session->index,
		.session_generation = request->session->generation,
		.request_id_length = (uint32_t)request->payload.request_id_length,
	};
	*length = record_request_size(&head, request->publish->correlation_length);
	char *bytes = malloc(*length);
	if (bytes) {
		record_write_request(bytes, &head, request->payload.request_id, request->publish->correlation,
			request->publish->correlation_length);
	}
	return bytes;
}

static bool append(const struct request *request, int64_t conversation_id, const struct envelope *envelope, uint64_t ticket)
{
	size_t length;
	char *correlation = record_correlation(request, ticket, &length);
	bool appended = correlation && publish_append_message(request->chat, request->session, conversation_id, envelope,
					       RECORD_FLAG_ANSWER | RECORD_FLAG_REQUEST, correlation, length);
	free(correlation);
	return appended;
}

/* Whether it may be sent: as for a PUBLISH to chat/{conversation}/send. */
static enum error_code may_send(const struct request *request, int64_t conversation_id)
{
	const struct session *session = request->session;
	struct topic topic = {.kind = TOPIC_SEND, .id = conversation_id};
	struct acl_subject subject = {.user_id = session->user->id, .client_id = session->client_id};
	struct acl_standing standing = registry_standing(request->chat->registry, session, conversation_id);
	return acl_publish(&topic, &subject, &standing);
}

static enum publish_verdict send_message(struct request *request)
{
	struct chat *chat = request->chat;
	struct envelope_limits limits = {.body_max_chars = (size_t)chat->options.body_max_chars};
	struct error_detail error = {ERROR_INVALID_FIELD, "conversation", "conversation must be the number of a conversation"};
	struct envelope envelope;
	int64_t conversation_id;

	cJSON *conversation = cJSON_DetachItemFromObjectCaseSensitive(request->payload.parameters, "conversation");
	bool named = json_integer(conversation, 1, TEXT_ID_MAX, &conversation_id);
	cJSON_Delete(conversation);
	if (!named) {
		return answer_error_in_turn(request, &error);
	}
	error = (struct error_detail){.code = may_send(request, conversation_id)};
	if (error.code != ERROR_NONE) {
		return answer_error_in_turn(request, &error);
	}
	cJSON *tree = request->payload.parameters;
	request->payload.parameters = NULL;
	if (!envelope_parse_tree(tree, &limits, &envelope, &error)) {
		return answer_error_in_turn(request, &error);
	}
	uint64_t ticket = ++chat->request_ticket;
	bool appended = append(request, conversation_id, &envelope, ticket);
	envelope_free(&envelope);
	if (!appended) {
		return refuse(request, ERROR_OVERLOADED, NULL, PUBLISH_RETRY_MS);
	}
	struct request_job job = job_of(request, REQUEST_SENT);
	job.ticket = ticket;
	/* It is in the spool: where the line is full, its answer just does not wait for its turn. */
	(void)request_workers_add(chat->request_workers, &job, chat->now_ms);
	return PUBLISH_ACCEPTED;
}

/* ---- all others ---- */

static enum publish_verdict call(const struct request *request)
{
	struct request_job job = job_of(request, REQUEST_CALL);
	job.parameters = request->publish->length > 0 ? (struct request_text){request->publish->payload, request->publish->length}
						      : (struct request_text){"{}", 2};
	job.leaving = is_method(&request->publish->topic, "device.remove"); /* perhaps its own */
	return add(request, &job);
}

/* ---- auth.* ---- */

/* The device that a device token shows: the one given, or the one the connection signed in with. */
static bool find_device(const struct request *request, struct account_task *task, struct error_detail *error)
{
	const struct chat *chat = request->chat;
	const struct session *session = request->session;
	struct token_rules rules = {.issuer = chat->options.token_issuer, .audience = chat->options.token_audience};
	struct token_claims claims;

	if (!task->device_token && !session->by_device_token) {
		*error = (struct error_detail){ERROR_INVALID_FIELD, "device_token", "give a device_token, or connect with one"};
		return false;
	}
	task->device = session->device_id;
	if (!task->device_token) {
		return true;
	}
	if (token_check(task->device_token, strlen(task->device_token), chat->keys, &rules, chat->now_wall_ms / 1000, &claims) !=
			TOKEN_OK ||
		!claims.device_token || claims.user_id != task->user_id) {
		*error = (struct error_detail){ERROR_UNAUTHENTICATED, "device_token", "this device token is not good here"};
		return false;
	}
	task->device = claims.device_id;
	return true;
}

/* What the options say. */
static bool is_switched_on(const struct chat *chat, enum account_method method, struct error_detail *error)
{
	if (!chat->options.token_signing_key && method != ACCOUNT_LOGOUT && method != ACCOUNT_CHANGE_PASSWORD) {
		*error = (struct error_detail){ERROR_FORBIDDEN, NULL, "no tokens are made here: accounts are kept elsewhere"};
		return false;
	}
	if (method == ACCOUNT_REGISTER && !chat->options.registration_open) {
		*error = (struct error_detail){ERROR_FORBIDDEN, NULL, "registration is closed"};
		return false;
	}
	return true;
}

/* An address that has failed too often: it takes no place in the line of what is slow, and costs no database a question. */
static bool is_limited(const struct request *request, enum account_method method)
{
	struct chat *chat = request->chat;
	return account_is_slow(method) && attempts_address_is_limited(chat->attempts, request->session->address, chat->now_ms);
}

static enum publish_verdict account(struct request *request, enum account_method method)
{
	struct error_detail error;
	struct account_task *task = NULL;

	if (is_limited(request, method)) {
		return refuse(request, ERROR_RATE_LIMITED, "too many failed attempts from this address; try again later",
			ATTEMPTS_RETRY_MS);
	}

	if (is_switched_on(request->chat, method, &error)) {
		task = account_parse(method, request->payload.parameters, &error);
	}
	if (!task) {
		return answer_error_in_turn(request, &error);
	}
	request->payload.parameters = NULL;
	struct request_job job = job_of(request, REQUEST_ACCOUNT);
	job.account = task;
	task->user_id = job.user_id;
	task->device_id = job.device_id;
	task->address = request->session->address;
	task->by_password = request->session->by_scram;
	if (method == ACCOUNT_REFRESH && !find_device(request, task, &error)) {
		account_task_free(task);
		return answer_error_in_turn(request, &error);
	}
	job.leaving = method == ACCOUNT_LOGOUT ? task->device == 0 || task->device == task->device_id
					       : method == ACCOUNT_CHANGE_PASSWORD && task->by_password;
	enum publish_verdict verdict = add(request, &job);
	if (verdict != PUBLISH_ACCEPTED) {
		account_task_free(task);
	}
	return verdict;
}

static enum publish_verdict dispatch(struct request *request)
{
	const struct publish *publish = request->publish;
	struct error_detail error;

	if (!request_payload_parse(publish->payload, publish->length, &request->payload, &error) ||
		!publish_check_response_topic(request->session, publish, &error)) {
		return answer_error_in_turn(request, &error);
	}
	if (is_method(&publish->topic, "message.send")) {
		return send_message(request);
	}
	enum account_method method = account_method_of(publish->topic.name, publish->topic.name_length);
	return method == ACCOUNT_METHODS ? call(request) : account(request, method);
}

static bool take_from_bucket(const struct request *request, int64_t *retry_after_ms)
{
	struct chat *chat = request->chat;
	struct user *user = request->session->user;
	const struct topic *topic = &request->publish->topic;

	if (user && is_method(topic, "message.send")) {
		return rate_bucket_take(&user->messages, &chat->options.rate_messages, chat->now_ms, retry_after_ms);
	}
	struct rate_bucket *bucket = user ? &user->requests : &request->session->guest_requests;
	uint32_t cost = request_workers_cost(chat->request_workers, topic->name, topic->name_length);
	return rate_bucket_take_many(bucket, &chat->options.rate_requests, cost, chat->now_ms, retry_after_ms);
}

enum publish_verdict request_message(struct chat *chat, const struct publish *publish)
{
	struct request request = {.chat = chat, .publish = publish};
	size_t bytes_max = is_method(&publish->topic, "message.send") ? ENVELOPE_BYTES_MAX : REQUEST_BYTES_MAX;
	int64_t retry_after_ms = 0;

	request.session = registry_find_session(chat->registry, publish->client);
	if (!request.session || request.session->state == SESSION_REFUSED) {
		return PUBLISH_REFUSED;
	}
	if (publish->length > bytes_max || publish->correlation_length > CORRELATION_BYTES_MAX) {
		return refuse(&request, ERROR_TOO_LONG, NULL, 0);
	}
	if (publish->qos > 1) {
		return refuse(&request, ERROR_INVALID_FIELD, "publish with QoS 0 or 1", 0);
	}
	if (!take_from_bucket(&request, &retry_after_ms)) {
		return refuse(&request, ERROR_RATE_LIMITED, NULL, retry_after_ms);
	}
	struct acl_subject subject = {
		.user_id = request.session->user ? request.session->user->id : 0, .client_id = request.session->client_id};
	struct acl_standing standing = {0};
	enum error_code code = acl_publish(&publish->topic, &subject, &standing);
	if (code != ERROR_NONE) {
		return refuse(&request, code, NULL, 0);
	}
	enum publish_verdict verdict = dispatch(&request);
	request_payload_free(&request.payload);
	return verdict;
}
