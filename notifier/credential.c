/* credential.c - see credential.h. */
#include "credential.h"

#include "json.h"
#include "jwt.h"

#include <string.h>

#define TEXT_MAX 4000
#define APNS_SLOT_S 2400
#define VAPID_LIFE_MS INT64_C(43200000)
#define GRANT "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="

void credential_init(struct credential *credential)
{
	*credential = (struct credential){.good = false};
	buffer_init(&credential->text, TEXT_MAX);
}

void credential_free(struct credential *credential)
{
	if (credential->text.data) {
		explicit_bzero(credential->text.data, credential->text.length);
	}
	buffer_free(&credential->text);
}

bool credential_is_good(const struct credential *credential, int64_t now_ms)
{
	return credential->good && now_ms < credential->ends_at_ms;
}

bool credential_is_due(const struct credential *credential, int64_t now_ms)
{
	return !credential->good || now_ms >= credential->renew_at_ms;
}

static bool finish(struct credential *credential, bool made, int64_t now_ms, int64_t renew_at_ms, int64_t ends_at_ms)
{
	credential->good = buffer_append(&credential->text, "", 1) && made;
	credential->proved = false;
	credential->made_at_ms = now_ms;
	credential->renew_at_ms = renew_at_ms;
	credential->ends_at_ms = ends_at_ms;
	credential->number++;
	return credential->good;
}

bool credential_make_apns(struct credential *credential, const struct config_app *app, int64_t now_ms)
{
	int64_t slot_s = now_ms / 1000 / APNS_SLOT_S * APNS_SLOT_S;

	buffer_reset(&credential->text);
	bool made = jwt_apns(app->key, app->key_id, app->team_id, slot_s, &credential->text);
	return finish(credential, made, now_ms, (slot_s + APNS_SLOT_S) * 1000, (slot_s + 3500) * 1000);
}

bool credential_make_vapid(struct credential *credential, const struct config_app *app, const char *origin, int64_t now_ms)
{
	buffer_reset(&credential->text);
	bool made = jwt_vapid(app->key, origin, app->subject, (now_ms + VAPID_LIFE_MS) / 1000, &credential->text);
	return finish(credential, made, now_ms, now_ms + VAPID_LIFE_MS / 2, now_ms + VAPID_LIFE_MS);
}

bool credential_google_request(const struct config_app *app, int64_t now_ms, struct buffer *out)
{
	buffer_reset(out);
	buffer_append_text(out, GRANT);
	/* `aud` is what the key file says, wherever the request goes. */
	return jwt_google(app->key, app->key_id, app->client_email, app->token_audience, now_ms / 1000, out);
}

bool credential_google_answer(struct credential *credential, const char *body, size_t length, int64_t now_ms)
{
	const char *why;
	int64_t expires_in_s = 3600;
	cJSON *tree = json_parse(body, length, 4, &why);
	const cJSON *token = cJSON_GetObjectItemCaseSensitive(tree, "access_token");
	bool made = false;

	(void)json_integer(cJSON_GetObjectItemCaseSensitive(tree, "expires_in"), 1, 86400, &expires_in_s);
	if (cJSON_IsString(token) && token->valuestring[0] && !strpbrk(token->valuestring, " \t\r\n")) {
		buffer_reset(&credential->text);
		buffer_append_text(&credential->text, token->valuestring);
		made = finish(credential, true, now_ms, now_ms + expires_in_s * 850, now_ms + expires_in_s * 1000);
	}
	cJSON_Delete(tree);
	return made;
}
