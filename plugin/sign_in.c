/* sign_in.c - see sign_in.h. */
#include "sign_in.h"

#include "host.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How a token begins: '{"' in base64url. */
#define TOKEN_BEGINS "eyJ"

struct sign_in {
	struct log_gate limited;
	struct token_cache *tokens;
	uint32_t keys_generation; /* rises with each reload */
};

struct sign_in *sign_in_new(void)
{
	struct sign_in *sign_in = calloc(1, sizeof(*sign_in));
	if (sign_in && !(sign_in->tokens = token_cache_new(TOKEN_CACHE_MAX))) {
		free(sign_in);
		return NULL;
	}
	return sign_in;
}

void sign_in_free(struct sign_in *sign_in)
{
	if (sign_in) {
		token_cache_free(sign_in->tokens);
		free(sign_in);
	}
}

void sign_in_keys_changed(struct sign_in *sign_in)
{
	sign_in->keys_generation++;
	token_cache_clear(sign_in->tokens);
}

/* ---- refusing ---- */

static enum sign_in_verdict refuse(struct chat *chat, const struct sign_in_request *request, bool failed, const char *why)
{
	char id[80];

	log_line(LOG_LEVEL_NOTICE, "chat: sign-in refused: client '%s' from %s: %s",
		text_escape(id, sizeof(id), request->client_id ? request->client_id : "",
			request->client_id ? strlen(request->client_id) : 0),
		request->address ? request->address : "?", why);
	if (failed) {
		attempts_address_failed(chat->attempts, attempts_address(chat->attempts, request->address), chat->now_ms);
	}
	return SIGN_IN_REFUSED;
}

static enum sign_in_verdict refuse_limited(struct chat *chat, const struct sign_in_request *request)
{
	uint64_t suppressed;
	if (log_gate_open(&chat->sign_in->limited, chat->now_ms, &suppressed)) {
		log_line(LOG_LEVEL_WARNING,
			"chat: sign-in refused: too many failed attempts from %s; refused without a look for now (%llu like this "
			"before)",
			request->address, (unsigned long long)suppressed);
	}
	return SIGN_IN_REFUSED;
}

/* ---- who may use which client id (docs/reference.md, "Connecting") ---- */

/* Broker-assigned ids of Mosquitto are "auto-" and a UUID. */
static bool guest_id_ok(const char *id)
{
	if (strncmp(id, "auto-", 5) == 0) {
		return true;
	}
	return strncmp(id, "guest-", 6) == 0 && strlen(id) == 38 && strspn(id + 6, "0123456789abcdef") == 32;
}

/* NULL: it may. */
static const char *client_id_objection(const struct chat *chat, const struct sign_in_request *request, int64_t user_id)
{
	const char *id = request->client_id;
	if (!id || !topic_client_id_ok(id, strlen(id))) {
		return "client id is not of the form [A-Za-z0-9._-]{1,64}";
	}
	int64_t owner = topic_client_id_owner(id, strlen(id));
	if (user_id == 0 && !guest_id_ok(id)) {
		return "a guest's client id must be assigned by the broker or be guest- and 32 hex digits";
	}
	if (owner != 0) {
		return owner == user_id ? NULL : "client id belongs to another user";
	}
	if (!request->clean_session) {
		return "a session that outlives its connection needs a client id that begins with the user's own number and '-'";
	}
	const struct session *other = registry_find_client_id(chat->registry, id);
	if (other && other->client != request->client && (other->user ? other->user->id : 0) != user_id) {
		return "client id is in use by another user";
	}
	return NULL;
}

/* ---- tokens that need not be checked twice ---- */

static struct token_digest digest_of(const struct chat *chat, const struct sign_in_request *request)
{
	return token_cache_digest(chat->sign_in->tokens, request->password, strlen(request->password));
}

/* What the token of a session claims. False: it was found good under other keys, or is not to be believed any more. */
static bool claims_of(const struct chat *chat, const struct session *session, struct token_claims *claims)
{
	if (!session->user || session->by_scram || session->state == SESSION_REFUSED ||
		session->keys_generation != chat->sign_in->keys_generation) {
		return false;
	}
	*claims = (struct token_claims){.user_id = session->user->id,
		.device_id = session->device_id,
		.expires_at_s = registry_expiry(chat->registry, session),
		.device_token = session->by_device_token};
	return true;
}

/* Whether this very token is that of a connection that has ended, or of the one that this one takes over. */
static bool known_good(const struct chat *chat, const struct sign_in_request *request, const struct token_digest *digest,
	struct token_claims *claims)
{
	int64_t now_s = chat->now_wall_ms / 1000;
	const struct session *other = request->client_id ? registry_find_client_id(chat->registry, request->client_id) : NULL;
	if (other && other->user && token_digest_equal(&other->token, digest) && claims_of(chat, other, claims)) {
		return now_s < claims->expires_at_s + TOKEN_LEEWAY_S;
	}
	return token_cache_take(chat->sign_in->tokens, digest, now_s, claims);
}

/* ---- CONNECT ---- */

static void name_user(char user_name[SIGN_IN_NAME_MAX], const struct session *session)
{
	if (session->user) {
		snprintf(user_name, SIGN_IN_NAME_MAX, "%lld", (long long)session->user->id);
	} else {
		snprintf(user_name, SIGN_IN_NAME_MAX, "guest");
	}
}

/* `digest` may be NULL: no token. */
static enum sign_in_verdict begin_session(struct chat *chat, const struct sign_in_request *request,
	const struct token_claims *claims, const struct token_digest *digest, char user_name[SIGN_IN_NAME_MAX])
{
	const char *objection = client_id_objection(chat, request, claims->user_id);
	if (objection) {
		return refuse(chat, request, claims->user_id != 0, objection);
	}
	if (request->keepalive_s == 0) {
		return refuse(chat, request, false, "keepalive 0: a connection that died would never be noticed");
	}
	const struct session *taken_over = registry_find_client_id(chat->registry, request->client_id);
	if (taken_over) {
		registry_park(chat->registry, taken_over); /* its end is told after our beginning */
	}
	struct session *session = registry_add_session(chat->registry, request->client, request->client_id, claims->user_id,
		claims->device_id, claims->user_id ? claims->expires_at_s : INT64_MAX);
	if (!session) {
		return refuse(chat, request, false, "out of memory");
	}
	session->protocol_version = (uint8_t)request->protocol_version;
	session->token = digest ? *digest : session->token;
	session->keys_generation = chat->sign_in->keys_generation;
	session->is_websocket = request->is_websocket;
	session->began_tick = chat->ticks;
	session->by_device_token = claims->device_token;
	session->address = attempts_address(chat->attempts, request->address);
	chat->websockets += request->is_websocket;
	registry_resume(chat->registry, session, request->clean_session);
	if (claims->user_id && !loader_session(chat->loader, session)) {
		sign_in_disconnect(chat, request->client);
		return refuse(chat, request, false, "out of memory");
	}
	name_user(user_name, session);
	return SIGN_IN_ACCEPTED;
}

/* At SIGHUP Mosquitto asks about every connection once more: what was good stays good until its own end. */
static bool is_signed_in_already(const struct chat *chat, const struct session *session, const struct sign_in_request *request)
{
	if (!request->client_id || strcmp(session->client_id, request->client_id) != 0) {
		return false;
	}
	if (session->by_scram) {
		return chat->reloading; /* whatever else its CONNECT brought */
	}
	if (!request->password) {
		return !session->user;
	}
	struct token_digest digest = digest_of(chat, request);
	return session->user && token_digest_equal(&session->token, &digest);
}

/* SIGHUP: no connection begins now. A session without a connection keeps its place in the broker and has no rights here. */
static enum sign_in_verdict reload_verdict(const struct sign_in_request *request)
{
	return !request->password || strncmp(request->password, TOKEN_BEGINS, strlen(TOKEN_BEGINS)) == 0 ? SIGN_IN_LEFT_ALONE
													 : SIGN_IN_DEFERRED;
}

enum sign_in_verdict sign_in_connect(struct chat *chat, const struct sign_in_request *request, char user_name[SIGN_IN_NAME_MAX])
{
	struct token_claims claims = {0};
	struct session *session = registry_find_session(chat->registry, request->client);

	if (session && is_signed_in_already(chat, session, request)) {
		name_user(user_name, session);
		return SIGN_IN_ACCEPTED;
	}
	if (!session && chat->reloading) {
		return reload_verdict(request);
	}
	if (session) { /* the object has been reused for another connection, and its end was never told */
		sign_in_disconnect(chat, request->client);
	}
	if (!request->password) {
		if (!chat->options.guests) {
			return SIGN_IN_DEFERRED;
		}
		return begin_session(chat, request, &claims, NULL, user_name);
	}
	bool limited =
		attempts_address_is_limited(chat->attempts, attempts_address(chat->attempts, request->address), chat->now_ms);
	struct token_rules rules = {.issuer = chat->options.token_issuer, .audience = chat->options.token_audience};
	size_t length = strlen(request->password);
	if (limited && strncmp(request->password, TOKEN_BEGINS, strlen(TOKEN_BEGINS)) == 0) {
		return refuse_limited(chat, request);
	}
	struct token_digest digest = digest_of(chat, request);
	enum token_result result = TOKEN_OK;
	if (!known_good(chat, request, &digest, &claims)) {
		result = token_check(request->password, length, chat->keys, &rules, chat->now_wall_ms / 1000, &claims);
	}
	if (result == TOKEN_NOT_A_TOKEN) {
		return SIGN_IN_DEFERRED;
	}
	if (result != TOKEN_OK) {
		return refuse(chat, request, true, token_result_text(result));
	}
	return begin_session(chat, request, &claims, &digest, user_name);
}

enum sign_in_verdict sign_in_admit(struct chat *chat, const struct sign_in_request *request, int64_t user_id,
	int64_t expires_at_s, char user_name[SIGN_IN_NAME_MAX])
{
	struct token_claims claims = {.user_id = user_id, .expires_at_s = expires_at_s};
	enum sign_in_verdict verdict = begin_session(chat, request, &claims, NULL, user_name);
	if (verdict == SIGN_IN_ACCEPTED) {
		registry_find_session(chat->registry, request->client)->by_scram = true;
	}
	return verdict;
}

void sign_in_disconnect(struct chat *chat, const void *client)
{
	struct session *session = registry_find_session(chat->registry, client);
	if (!session) {
		return;
	}
	for (uint32_t i = 0; i < chat->refused_count; i++) {
		if (chat->refused[i] == session) {
			chat->refused[i] = NULL;
		}
	}
	struct token_claims claims;
	if (claims_of(chat, session, &claims)) {
		token_cache_put(chat->sign_in->tokens, &session->token, &claims);
	}
	chat->websockets -= session->is_websocket;
	request_workers_session_ended(chat->request_workers,
		request_caller(session->user ? session->user->id : 0, session->address), session->index, session->generation);
	if (session->user && topic_client_id_owner(session->client_id, strlen(session->client_id)) == session->user->id &&
		registry_find_client_id(chat->registry, session->client_id) == session) { /* else it was taken over */
		registry_park(chat->registry, session);
	}
	registry_remove_session(chat->registry, session);
}

/* ---- ends ---- */

static void end_expired(struct session *session, void *argument)
{
	struct chat *chat = argument;
	log_line(LOG_LEVEL_INFO, "chat: client '%s': its token has expired", session->client_id);
	registry_set_expiry(chat->registry, session, INT64_MAX);
	chat_refuse_session(chat, session);
}

void sign_in_end_expired(struct chat *chat)
{
	registry_each_expired(chat->registry, chat->now_wall_ms / 1000 - TOKEN_LEEWAY_S, end_expired, chat);
}

void sign_in_kick_refused(struct chat *chat)
{
	uint32_t count = chat->refused_count, kept = 0;

	/* Each kick calls back into sign_in_disconnect, which blanks the entry. */
	for (uint32_t i = 0; i < count; i++) {
		struct session *session = chat->refused[i];
		if (session && session->end_ms > chat->now_ms) {
			chat->refused[kept++] = session;
			chat->refused[i] = kept - 1 == i ? session : NULL;
			continue;
		}
		if (session) {
			host_kick(session->client_id);
		}
		if (chat->refused[i]) { /* the broker knows no such connection (any more) */
			sign_in_disconnect(chat, session->client);
		}
	}
	chat->refused_count = kept;
}
