/* claim.c - see claim.h. */
#include "claim.h"

#include "text.h"

#include <stdio.h>
#include <string.h>

/* As link.c asks for them. */
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

enum claim_verdict claim_verdict(const struct database_result *result, int row)
{
	const char *verdict = text_at(result, row, VERDICT);
	if (text_is(verdict, "message") || text_is(verdict, "clear") || text_is(verdict, "test")) {
		return CLAIM_SEND;
	}
	return text_is(verdict, "known") ? CLAIM_CANCELLED : text_is(verdict, "expired") ? CLAIM_EXPIRED : CLAIM_OTHER;
}

/* The device may have changed its target since the row was queued. */
static const char *read_target(struct claim *claim, const struct config_app *app, const struct database_result *result, int row)
{
	struct push *push = &claim->push;
	size_t length = 0;

	if (!text_is(text_at(result, row, PROVIDER), app->provider->name)) {
		return "other_provider";
	}
	if (app->provider != &provider_webpush) {
		push->token = text_at(result, row, TOKEN);
		return push->token ? NULL : "no_token";
	}
	const char *json = database_bytes(result, row, SUBSCRIPTION, &length);
	if (!json || subscription_parse(json, length, app->any_host, &claim->subscription)) {
		return "bad_subscription";
	}
	push->endpoint = claim->subscription.endpoint;
	memcpy(push->p256dh, claim->subscription.p256dh, sizeof(push->p256dh));
	memcpy(push->auth, claim->subscription.auth, sizeof(push->auth));
	return NULL;
}

static void read_text(struct claim *claim, const struct config *config, const struct config_app *app,
	const struct database_result *result, int row)
{
	const struct content_message message = {.test = claim->push.kind == PUSH_TEST,
		.level = app->content,
		.language = text_at(result, row, LANGUAGE),
		.conversation_type = text_at(result, row, CONVERSATION_TYPE),
		.conversation_name = text_at(result, row, CONVERSATION_NAME),
		.sender_name = text_at(result, row, SENDER_NAME),
		.type = text_at(result, row, MESSAGE_TYPE),
		.body = text_at(result, row, BODY),
		.count = claim->push.count};
	content_make(config->templates, &message, claim->title, claim->body);
	claim->push.title = claim->title;
	claim->push.body = claim->body;
}

static void read_cleared(struct claim *claim, const struct database_result *result, int row)
{
	struct database_integers cleared = database_integer_array(result, row, CLEARED);
	for (int32_t i = 0; i < cleared.count && i < PUSH_CLEAR_MAX; i++) {
		claim->cleared[claim->push.cleared_count++] = database_integers_next(&cleared);
	}
	claim->push.cleared = claim->cleared;
}

void claim_read(struct claim *claim, const struct config *config, const struct config_app *app,
	const struct database_result *result, int row)
{
	const char *verdict = text_at(result, row, VERDICT);
	int64_t count = database_integer(result, row, COUNT);
	struct push *push = &claim->push;

	claim->user_id = database_integer(result, row, USER);
	claim->lease = database_integer(result, row, LEASE);
	claim->since_ms = database_time_ms(result, row, SINCE);
	claim->target_us = database_integer(result, row, TARGET);
	claim->attempts = (int32_t)database_integer(result, row, ATTEMPTS);
	memset(push, 0, sizeof(*push));
	push->kind = text_is(verdict, "test") ? PUSH_TEST : text_is(verdict, "clear") ? PUSH_CLEAR : PUSH_MESSAGE;
	push->device_id = database_integer(result, row, DEVICE);
	push->conversation_id = database_integer(result, row, CONVERSATION);
	push->seq = database_integer(result, row, SEQ);
	push->count = count > 0 ? count : 1;
	push->badge = database_is_null(result, row, BADGE) ? PUSH_BADGE_NONE : database_integer(result, row, BADGE);
	push->expires_at_ms = database_time_ms(result, row, EXPIRES);
	push->small = text_is(text_at(result, row, LAST_ERROR), "shrink");
	read_text(claim, config, app, result, row);
	read_cleared(claim, result, row);
	claim->wrong = read_target(claim, app, result, row);
}

void claim_print(const struct claim *claim, const struct config_app *app)
{
	static const char *const kinds[] = {[PUSH_MESSAGE] = "message", [PUSH_CLEAR] = "clear", [PUSH_TEST] = "test"};
	const struct push *push = &claim->push;
	char title[300], body[1200];

	(void)printf("would push to user %lld, device %lld (%s, app %s): %s, conversation %lld, up to %lld, count %lld, title "
		     "\"%s\", body \"%s\"\n",
		(long long)claim->user_id, (long long)push->device_id, app->provider->name, app->name, kinds[push->kind],
		(long long)push->conversation_id, (long long)push->seq, (long long)push->count,
		text_escape(title, sizeof(title), claim->title, strlen(claim->title)),
		text_escape(body, sizeof(body), claim->body, strlen(claim->body)));
	(void)fflush(stdout);
}
