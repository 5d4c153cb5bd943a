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

/* The client's own place, a free one, or the oldest. */
static struct exchange *place_for(struct exchanges *exchanges, const void *client)
{
	struct exchange *place = find(exchanges, client);
	place = place ? place : find(exchanges, NULL);
	if (place) {
		return place;
	}
	place = &exchanges->places[0];
	for (size_t i = 1; i < EXCHANGES_MAX; i++) {
		if (exchanges->places[i].began_ms < place->began_ms) {
			place = &exchanges->places[i];
		}
	}
	return place;
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

enum exchange_verdict exchange_start(struct chat *chat, const void *client, const char *address, const char *method,
	const void *data, size_t length, struct exchange_reply *reply)
{
	struct exchange *exchange;
	uint8_t nonce[SCRAM_NONCE_BYTES];

	buffer_init(&reply->out, SCRAM_MESSAGE_MAX * 4);
	if (strcmp(method, SCRAM_METHOD) != 0) {
		return EXCHANGE_DEFERRED;
	}
	if (registry_find_session(chat->registry, client)) {
		return EXCHANGE_NOT_OFFERED; /* who is signed in stays who he is */
	}
	uint64_t from = attempts_address(chat->attempts, address);
	if (attempts_address_is_limited(chat->attempts, from, chat->now_ms)) {
		return refuse(chat, "too many failed attempts from this address");
	}
	exchange = place_for(chat->exchanges, client);
	*exchange = (struct exchange){.began_ms = chat->now_ms, .address = from};
	if (!data || !scram_read_first(data, length, &exchange->scram) || exchange->scram.name_length > LOADER_NAME_BYTES_MAX) {
		attempts_address_failed(chat->attempts, from, chat->now_ms);
		return refuse(chat, "the client's first message is malformed");
	}
	const struct verifier_entry *entry =
		verifier_cache_find(chat->verifiers, exchange->scram.name, exchange->scram.name_length);
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
	exchange->client = client;
	return EXCHANGE_CONTINUE;
}

/* The proof, counted as an attempt of its account and address. */
static enum exchange_verdict check(
	struct chat *chat, const struct exchange *exchange, const void *data, size_t length, struct exchange_reply *reply)
{
	char final[SCRAM_FINAL_MAX];
	size_t final_length;
	int64_t retry_after_ms;

	if (!attempts_begin(chat->attempts, exchange->entry.account, exchange->address, chat->now_ms, &retry_after_ms)) {
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
