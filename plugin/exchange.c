/* exchange.c - see exchange.h.
 *
 * Mosquitto 2.0 lets a client that is signed in send AUTH again, and hands it to us as if it were a first authentication; an
 * error code would then free the id by which it still finds the client. So such a client is told to go on, which it cannot,
 * and is disconnected at the next tick.
 */
#include "exchange.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Begun and not finished. When there are more, the oldest is given up: its client is refused and may try again. */
#define EXCHANGES_MAX 256
/* Of one address; so nobody's are given up for a stranger's before there are strangers at 32 addresses. */
#define EXCHANGES_OF_ADDRESS_MAX 8
/* Time to hash a password on a slow phone, and to go round the world. */
#define EXCHANGE_LASTS_MS 15000

struct exchange {
	const void *client; /* NULL: a free place */
	int64_t began_ms;
	uint64_t address;
	struct verifier_entry entry;
	struct scram_exchange scram;
};

struct exchanges {
	struct exchange places[EXCHANGES_MAX];
	struct log_gate refused;
};

struct exchanges *exchanges_new(void)
{
	return calloc(1, sizeof(struct exchanges));
}

void exchanges_free(struct exchanges *exchanges)
{
	free(exchanges);
}

static struct exchange *find(struct exchanges *exchanges, const void *client)
{
	for (size_t i = 0; i < EXCHANGES_MAX; i++) {
		if (exchanges->places[i].client == client) {
			return &exchanges->places[i];
		}
	}
	return NULL;
}

/* The oldest of an address, or of all; *count: how many there are. */
static struct exchange *oldest(struct exchanges *exchanges, const uint64_t *address, size_t *count)
{
	struct exchange *found = NULL;
	*count = 0;
	for (size_t i = 0; i < EXCHANGES_MAX; i++) {
		struct exchange *place = &exchanges->places[i];
		if (place->client && (!address || place->address == *address)) {
			found = !found || place->began_ms < found->began_ms ? place : found;
			++*count;
		}
	}
	return found;
}

/* The client's own place, the oldest of an address that has enough, a free one, or the oldest of all. */
static struct exchange *place_for(struct exchanges *exchanges, const void *client, uint64_t address)
{
	size_t count;
	struct exchange *place = find(exchanges, client);
	if (place) {
		return place;
	}
	place = oldest(exchanges, &address, &count);
	if (count >= EXCHANGES_OF_ADDRESS_MAX) {
		return place;
	}
	place = find(exchanges, NULL);
	return place ? place : oldest(exchanges, NULL, &count);
}

static enum exchange_verdict refuse(struct chat *chat, const char *why)
{
	uint64_t suppressed;
	if (log_gate_open(&chat->exchanges->refused, chat->now_ms, &suppressed)) {
		log_line(LOG_LEVEL_NOTICE, "chat: sign-in refused by SCRAM: %s (%llu like this before)", why,
			(unsigned long long)suppressed);
	}
	return EXCHANGE_REFUSED;
}

static bool reply_with(struct exchange_reply *reply, const char *text, size_t length)
{
	return buffer_append(&reply->out, text, length);
}

enum exchange_verdict exchange_start(struct chat *chat, const struct exchange_request *request, struct exchange_reply *reply)
{
	struct exchange *exchange;
	uint8_t nonce[SCRAM_NONCE_BYTES];

	buffer_init(&reply->out, SCRAM_MESSAGE_MAX * 4);
	if (strcmp(request->method, SCRAM_METHOD) != 0) {
		return EXCHANGE_DEFERRED;
	}
	if (registry_find_session(chat->registry, request->client)) {
		return EXCHANGE_NOT_OFFERED; /* who is signed in stays who he is */
	}
	uint64_t from = attempts_address(chat->attempts, request->address);
	if (attempts_address_is_limited(chat->attempts, from, chat->now_ms)) {
		return refuse(chat, "too many failed attempts from this address");
	}
	attempts_address_failed(chat->attempts, from, chat->now_ms); /* given back when it gets as far as its proof */
	if (request->keepalive_s == 0) {
		return refuse(chat, "keepalive 0: a connection that died would never be noticed");
	}
	exchange = place_for(chat->exchanges, request->client, from);
	*exchange = (struct exchange){.began_ms = chat->now_ms, .address = from};
	if (!request->data || !scram_read_first(request->data, request->length, &exchange->scram) ||
		exchange->scram.name_length > LOADER_NAME_BYTES_MAX) {
		return refuse(chat, "the client's first message is malformed");
	}
	const struct verifier_entry *entry =
		verifier_cache_find(chat->verifiers, exchange->scram.name, exchange->scram.name_length, chat->now_ms);
	if (!entry) {
		(void)loader_verifier(chat->loader, exchange->scram.name, exchange->scram.name_length);
		return EXCHANGE_CLOSED;
	}
	exchange->entry = *entry;
	if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce) ||
		!scram_write_first(&exchange->scram, &exchange->entry.verifier, nonce) ||
		!reply_with(reply, exchange->scram.first, exchange->scram.first_length)) {
		return EXCHANGE_CLOSED;
	}
	exchange->client = request->client;
	return EXCHANGE_CONTINUE;
}

/* Whether the verifier that it began with is still what signs in: a password may have been changed since. */
static bool is_current(const struct chat *chat, const struct exchange *exchange)
{
	const struct verifier_entry *now =
		verifier_cache_find(chat->verifiers, exchange->scram.name, exchange->scram.name_length, chat->now_ms);
	return now && now->user_id == exchange->entry.user_id &&
	       scram_verifier_equal(&now->verifier, &exchange->entry.verifier) &&
	       chat->now_ms - exchange->began_ms <= EXCHANGE_LASTS_MS;
}

/* The proof, counted as an attempt of its account and address. */
static enum exchange_verdict check(
	struct chat *chat, const struct exchange *exchange, const void *data, size_t length, struct exchange_reply *reply)
{
	char final[SCRAM_FINAL_MAX];
	size_t final_length;
	int64_t retry_after_ms;

	if (!is_current(chat, exchange)) {
		return EXCHANGE_CLOSED;
	}
	attempts_address_give_back(chat->attempts, exchange->address); /* it is counted here instead */
	if (!attempts_begin(chat->attempts, exchange->entry.account, exchange->address, chat->now_ms, &retry_after_ms)) {
		attempts_address_failed(chat->attempts, exchange->address, chat->now_ms);
		return refuse(chat, "too many failed attempts");
	}
	if (!data || !scram_read_final(&exchange->scram, &exchange->entry.verifier, data, length, final, &final_length) ||
		exchange->entry.user_id == 0) {
		return refuse(chat, "wrong name or password");
	}
	attempts_succeeded(chat->attempts, exchange->entry.account, exchange->address, chat->now_ms);
	reply->user_id = exchange->entry.user_id;
	return reply_with(reply, final, final_length) ? EXCHANGE_DONE : EXCHANGE_CLOSED;
}

enum exchange_verdict exchange_continue(
	struct chat *chat, const void *client, const void *data, size_t length, struct exchange_reply *reply)
{
	struct session *session = registry_find_session(chat->registry, client);
	struct exchange *exchange = find(chat->exchanges, client);

	buffer_init(&reply->out, SCRAM_MESSAGE_MAX);
	if (session) {
		chat_refuse_session(chat, session);
		return EXCHANGE_CONTINUE;
	}
	if (!exchange) {
		return EXCHANGE_DEFERRED;
	}
	enum exchange_verdict verdict = check(chat, exchange, data, length, reply);
	exchange->client = NULL; /* one attempt for each exchange */
	return verdict;
}

void exchange_disconnect(struct chat *chat, const void *client)
{
	struct exchange *exchange = find(chat->exchanges, client);
	if (exchange) {
		exchange->client = NULL;
	}
}
