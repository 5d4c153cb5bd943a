/* webpush.c - Web Push (RFC 8030), encrypted (RFC 8291), with VAPID (RFC 8292). Pure.
 *
 * There is no silent push here: browsers show something for each, or take the permission away.
 */
#include "provider.h"

#include "base64url.h"
#include "digest.h"
#include "encrypt.h"

#include <stdio.h>
#include <string.h>

#define PAD_TO 256                 /* bytes: the length of the ciphertext says no more than this about the text */
#define TOPIC_BYTES 24             /* 32 characters of base64url, the most that RFC 8030 section 5.4 allows */
#define TTL_MAX_S INT64_C(2419200) /* four weeks; services shorten it themselves */

static void payload(const struct provider_input *input, size_t body_max, struct buffer *out)
{
	const struct push *push = input->push;

	buffer_append_format(out, "{\"kind\":\"%s\",\"conversation\":%lld,\"seq\":%lld,\"count\":%lld",
		push->kind == PUSH_TEST ? "test" : "message", (long long)push->conversation_id, (long long)push->seq,
		(long long)push->count);
	if (push->badge != PUSH_BADGE_NONE) {
		buffer_append_format(out, ",\"badge\":%lld", (long long)push->badge);
	}
	if (!push->small) {
		buffer_append_text(out, ",\"title\":");
		provider_append_cut(out, push->title, PUSH_TITLE_MAX);
		buffer_append_text(out, ",\"body\":");
		provider_append_cut(out, push->body, body_max);
	}
	buffer_append_text(out, "}");
}

/* One topic for each conversation, so that the service keeps the newest push of it alone; keyed with what only the browser and
 * we know, so that the service cannot tell which subscriptions share a conversation. */
static bool make_topic(const struct push *push, char topic[BASE64URL_ENCODED_SIZE(TOPIC_BYTES)])
{
	uint8_t mac[DIGEST_SHA256_SIZE];
	char text[64];
	int length = snprintf(text, sizeof(text), "topic %lld", (long long)push->conversation_id);

	if (!digest_hmac(push->auth, sizeof(push->auth), text, (size_t)length, mac)) {
		return false;
	}
	(void)base64url_encode(mac, TOPIC_BYTES, topic);
	return true;
}

static bool build(const struct provider_input *input, struct provider_request *request)
{
	const struct push *push = input->push;
	char topic[BASE64URL_ENCODED_SIZE(TOPIC_BYTES)];
	int64_t ttl_s = (push->expires_at_ms - input->now_ms) / 1000;
	struct buffer text;

	provider_request_reset(request);
	ttl_s = ttl_s < 0 ? 0 : ttl_s > TTL_MAX_S ? TTL_MAX_S : ttl_s;
	buffer_init(&text, ENCRYPT_PLAINTEXT_MAX * 2);
	bool built = provider_fit(payload, input, ENCRYPT_PLAINTEXT_MAX, &text) && make_topic(push, topic);
	if (built) {
		size_t padding = (PAD_TO - text.length % PAD_TO) % PAD_TO;
		padding = text.length + padding > ENCRYPT_PLAINTEXT_MAX ? ENCRYPT_PLAINTEXT_MAX - text.length : padding;
		built = encrypt_push(push->p256dh, push->auth, input->random, input->random + ENCRYPT_SCALAR_SIZE, text.data,
			text.length, padding, &request->body);
	}
	buffer_free(&text);
	buffer_append(&request->url, push->endpoint, strlen(push->endpoint) + 1);
	provider_header(request, "authorization: %s", input->authorization);
	provider_header(request, "content-encoding: aes128gcm");
	provider_header(request, "content-type: application/octet-stream");
	provider_header(request, "ttl: %lld", (long long)ttl_s);
	provider_header(request, "urgency: normal");
	provider_header(request, "topic: %.*s", (int)sizeof(topic), topic);
	return built && provider_request_ok(request);
}

static bool mentions(const struct provider_answer *answer, const char *word)
{
	return answer->length > 0 && memmem(answer->body, answer->length, word, strlen(word)) != NULL;
}

static struct provider_verdict classify(const struct provider_answer *answer)
{
	switch (answer->status) {
	case 200:
	case 201:
	case 202:
	case 204:
		return (struct provider_verdict){.action = ACTION_ACCEPTED, .reason = "accepted"};
	case 404:
	case 410:
		return (struct provider_verdict){.action = ACTION_FORGET, .reason = "subscription_gone"};
	case 401:
	case 403:
		/* One service's "no" to our key must not stop the others: it is their host that is left alone for a while. */
		return (struct provider_verdict){.action = ACTION_PAUSE, .reason = "vapid_refused"};
	case 413:
		return (struct provider_verdict){.action = ACTION_SHRINK, .reason = "payload_too_large"};
	case 429:
		return (struct provider_verdict){
			.action = ACTION_RETRY, .reason = "too_many_requests", .delay_ms = answer->retry_after_ms};
	case 400:
		/* Subscribed with another key than ours: no try will help, the page must subscribe anew. */
		if (mentions(answer, "VapidPkHashMismatch") || mentions(answer, "UnauthorizedRegistration")) {
			return (struct provider_verdict){.action = ACTION_FORGET, .reason = "other_vapid_key"};
		}
		return (struct provider_verdict){.action = ACTION_DEAD, .reason = "bad_request"};
	default:
		if (answer->status >= 300 && answer->status < 400) {
			return (struct provider_verdict){.action = ACTION_DEAD, .reason = "redirect_refused"};
		}
		return provider_classify_status(answer);
	}
}

const struct provider provider_webpush = {
	.name = "webpush",
	.build = build,
	.classify = classify,
	.payload_max = ENCRYPT_PLAINTEXT_MAX,
	.clears = false,
	.in_flight = 100,
	.one_connection = false,
};
