/* plugin.c - the entry points, and the broker's callbacks, each turned into a call of a service.
 *
 * Everything here runs on the broker's one thread. The return codes are what Mosquitto 2.0 and 2.1 make of them, not
 * what their names say: only 0 and MOSQ_ERR_ACL_DENIED keep a client connected after MESSAGE and the ACL check, and
 * RELOAD must return 0.
 */
#include "access.h"
#include "broker.h"
#include "clock.h"
#include "exchange.h"
#include "fanout.h"
#include "ingest.h"
#include "membership.h"
#include "overrun.h"
#include "presence.h"
#include "request.h"
#include "respond.h"
#include "sign_in.h"
#include "statements.h"
#include "wakeup.h"

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mqtt_protocol.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a 3.1.1 sender's MESSAGE returns for a transient refusal: any code but success and ACL_DENIED closes the
 * connection without a PUBACK, which is the one way to tell such a client that it still owns the message. */
#define CLOSE_WITHOUT_PUBACK MOSQ_ERR_INVAL
/* MOSQ_ERR_QUOTA_EXCEEDED of Mosquitto 2.1: PUBACK 0x97, the client stays. 2.0 would disconnect. */
#define QUOTA_EXCEEDED_2_1 (-6)
/* How long the start waits for another broker's lock to go, and the end for the lanes to finish. SIGTERM must end in 5 s. */
#define START_TIMEOUT_MS 5000
#define DRAIN_TIMEOUT_MS 3000
#define EVERY_SECOND_MS 1000
/* Contract: who signed in by SCRAM signs in again after a day. */
#define SCRAM_SESSION_S 86400
/* With `per_listener_settings true` Mosquitto 2.0 never calls TICK. */
#define NO_TICK_MS 2000

static struct {
	struct chat chat;
	mosquitto_plugin_id_t *id;
	struct option_pair *pairs; /* owned copies: RELOAD is given no options */
	size_t pair_count;
	int64_t started_ms;
	int64_t last_second_ms;
	bool ticked;
	bool told_no_tick;
	bool is_2_1;
} plugin;

static struct chat *begin_callback(void)
{
	struct chat *chat = &plugin.chat;
	chat->now_ms = clock_monotonic_ms();
	chat->now_wall_ms = clock_wall_ms();
	if (plugin.started_ms == 0) {
		plugin.started_ms = chat->now_ms; /* of the loop: the start itself may take long */
	}
	if (!plugin.ticked && !plugin.told_no_tick && chat->now_ms - plugin.started_ms > NO_TICK_MS) {
		plugin.told_no_tick = true;
		log_line(LOG_LEVEL_ERROR, "chat: the broker gives this plugin no ticks, so nothing can be delivered; set "
					  "per_listener_settings false");
	}
	overrun_settle(chat);
	return chat;
}

/* ---- callbacks ---- */

static struct sign_in_request request_of(const struct mosquitto *client, const char *password)
{
	return (struct sign_in_request){
		.client = client,
		.client_id = mosquitto_client_id(client),
		.password = password,
		.address = mosquitto_client_address(client),
		.keepalive_s = mosquitto_client_keepalive(client),
		.clean_session = mosquitto_client_clean_session(client),
		.protocol_version = mosquitto_client_protocol_version(client),
		.is_websocket = mosquitto_client_protocol(client) == mp_websockets,
	};
}

/* The name of the account, so that the next SIGHUP asks about clients that sent no name too, and `log_type` lines say who. */
static bool set_username(struct chat *chat, struct mosquitto *client, const char *user_name)
{
	const char *known_as = mosquitto_client_username(client);
	if ((!known_as || strcmp(known_as, user_name) != 0) && mosquitto_set_username(client, user_name) != MOSQ_ERR_SUCCESS) {
		sign_in_disconnect(chat, client);
		return false;
	}
	return true;
}

static int on_basic_auth(int event, void *event_data, void *userdata)
{
	struct mosquitto_evt_basic_auth *data = event_data;
	struct chat *chat = begin_callback();
	char user_name[SIGN_IN_NAME_MAX];
	(void)event;
	(void)userdata;

	struct sign_in_request request = request_of(data->client, data->password);
	switch (sign_in_connect(chat, &request, user_name)) {
	case SIGN_IN_DEFERRED:
		return MOSQ_ERR_PLUGIN_DEFER;
	case SIGN_IN_REFUSED:
		return MOSQ_ERR_AUTH;
	case SIGN_IN_LEFT_ALONE:
		return MOSQ_ERR_SUCCESS;
	case SIGN_IN_ACCEPTED:
		break;
	}
	return set_username(chat, data->client, user_name) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
}

/* What the broker sends it frees with free(). */
static bool hand_over(struct mosquitto_evt_extended_auth *data, const struct buffer *out)
{
	if (out->length == 0) {
		return true;
	}
	data->data_out = malloc(out->length);
	if (!data->data_out) {
		return false;
	}
	memcpy(data->data_out, out->data, out->length);
	data->data_out_len = (uint16_t)out->length;
	return true;
}

/* The password was right: now what CONNECT asks of everybody. */
static int admit(struct chat *chat, struct mosquitto *client, int64_t user_id)
{
	struct sign_in_request request = request_of(client, NULL);
	char user_name[SIGN_IN_NAME_MAX];
	int64_t expires_at_s = chat->now_wall_ms / 1000 + SCRAM_SESSION_S - TOKEN_LEEWAY_S;

	if (sign_in_admit(chat, &request, user_id, expires_at_s, user_name) != SIGN_IN_ACCEPTED ||
		!set_username(chat, client, user_name)) {
		return MOSQ_ERR_AUTH;
	}
	return MOSQ_ERR_SUCCESS;
}

static int exchange_result(
	struct chat *chat, struct mosquitto_evt_extended_auth *data, enum exchange_verdict verdict, struct exchange_reply *reply)
{
	int rc = MOSQ_ERR_ACL_DENIED; /* closed without CONNACK */

	switch (verdict) {
	case EXCHANGE_DEFERRED:
		rc = MOSQ_ERR_PLUGIN_DEFER;
		break;
	case EXCHANGE_CONTINUE:
		rc = MOSQ_ERR_AUTH_CONTINUE;
		break;
	case EXCHANGE_DONE:
		rc = admit(chat, data->client, reply->user_id);
		break;
	case EXCHANGE_REFUSED:
		rc = MOSQ_ERR_AUTH;
		break;
	case EXCHANGE_NOT_OFFERED:
		rc = MOSQ_ERR_NOT_SUPPORTED;
		break;
	case EXCHANGE_CLOSED:
		break;
	}
	if ((rc == MOSQ_ERR_SUCCESS || rc == MOSQ_ERR_AUTH_CONTINUE) && !hand_over(data, &reply->out)) {
		sign_in_disconnect(chat, data->client);
		rc = MOSQ_ERR_ACL_DENIED;
	}
	buffer_free(&reply->out);
	return rc;
}

static int on_ext_auth_start(int event, void *event_data, void *userdata)
{
	struct mosquitto_evt_extended_auth *data = event_data;
	struct chat *chat = begin_callback();
	struct exchange_reply reply = {0};
	(void)event;
	(void)userdata;
	struct exchange_request request = {.client = data->client,
		.address = mosquitto_client_address(data->client),
		.keepalive_s = mosquitto_client_keepalive(data->client),
		.method = data->auth_method,
		.data = data->data_in,
		.length = data->data_in_len};
	enum exchange_verdict verdict = exchange_start(chat, &request, &reply);
	return exchange_result(chat, data, verdict, &reply);
}

static int on_ext_auth_continue(int event, void *event_data, void *userdata)
{
	struct mosquitto_evt_extended_auth *data = event_data;
	struct chat *chat = begin_callback();
	struct exchange_reply reply = {0};
	(void)event;
	(void)userdata;
	enum exchange_verdict verdict = exchange_continue(chat, data->client, data->data_in, data->data_in_len, &reply);
	return exchange_result(chat, data, verdict, &reply);
}

static int acl_result(enum access_verdict verdict)
{
	switch (verdict) {
	case ACCESS_ALLOWED:
		return MOSQ_ERR_SUCCESS;
	case ACCESS_DEFERRED:
		return MOSQ_ERR_PLUGIN_DEFER;
	default:
		return MOSQ_ERR_ACL_DENIED;
	}
}

static int on_acl_check(int event, void *event_data, void *userdata)
{
	const struct mosquitto_evt_acl_check *data = event_data;
	(void)event;
	(void)userdata;

	switch (data->access) {
	case MOSQ_ACL_READ: /* for every delivery: no clock is read */
		return acl_result(access_read(&plugin.chat, data->client, data->topic, data->payload, data->payloadlen));
	case MOSQ_ACL_WRITE:
		return acl_result(access_publish(begin_callback(), data->client, data->topic, data->retain));
	case MOSQ_ACL_SUBSCRIBE:
		return acl_result(access_subscribe(begin_callback(), data->client, data->topic));
	case MOSQ_ACL_UNSUBSCRIBE:
		return acl_result(access_unsubscribe(begin_callback(), data->client, data->topic));
	default:
		return MOSQ_ERR_ACL_DENIED;
	}
}

static enum publish_verdict take_publish(struct chat *chat, const struct publish *publish)
{
	switch (publish->topic.kind) {
	case TOPIC_FOREIGN:
	case TOPIC_SYSTEM:
		return PUBLISH_FOREIGN;
	case TOPIC_REQUEST:
		return request_message(chat, publish);
	default:
		return ingest_message(chat, publish);
	}
}

static int on_message(int event, void *event_data, void *userdata)
{
	const struct mosquitto_evt_message *data = event_data;
	struct chat *chat = begin_callback();
	char *response_topic = NULL;
	void *correlation = NULL;
	struct publish publish = {.client = data->client,
		.topic = topic_parse(data->topic),
		.payload = data->payload,
		.length = data->payloadlen,
		.qos = data->qos};
	(void)event;
	(void)userdata;

	if (data->properties) {
		mosquitto_property_read_string(data->properties, MQTT_PROP_RESPONSE_TOPIC, &response_topic, false);
		mosquitto_property_read_binary(
			data->properties, MQTT_PROP_CORRELATION_DATA, &correlation, &publish.correlation_length, false);
		publish.response_topic = response_topic;
		publish.correlation = correlation;
	}
	enum publish_verdict verdict = take_publish(chat, &publish);
	free(response_topic); /* both were made with calloc() (lib/property_mosq.c) */
	free(correlation);
	switch (verdict) {
	case PUBLISH_FOREIGN:
	case PUBLISH_ACCEPTED:
		return MOSQ_ERR_SUCCESS;
	case PUBLISH_TRANSIENT:
		if (mosquitto_client_protocol_version(data->client) < 5) {
			return CLOSE_WITHOUT_PUBACK;
		}
		return plugin.is_2_1 ? QUOTA_EXCEEDED_2_1 : MOSQ_ERR_ACL_DENIED;
	default:
		return MOSQ_ERR_ACL_DENIED;
	}
}

static int on_disconnect(int event, void *event_data, void *userdata)
{
	const struct mosquitto_evt_disconnect *data = event_data;
	(void)event;
	(void)userdata;
	struct chat *chat = begin_callback();
	if (chat->exchanges) {
		exchange_disconnect(chat, data->client);
	}
	sign_in_disconnect(chat, data->client);
	return MOSQ_ERR_SUCCESS;
}

static void first_tick(void)
{
	plugin.ticked = true;
	broker_raise_backlogs();
	if (!wakeup_attach()) {
		log_line(LOG_LEVEL_WARNING,
			"chat: the broker's epoll set was not found: messages are delivered up to 100 ms late");
	}
}

static void every_second(struct chat *chat)
{
	if (chat->now_ms - plugin.last_second_ms < EVERY_SECOND_MS) {
		return;
	}
	plugin.last_second_ms = chat->now_ms;
	sign_in_end_expired(chat);
	request_workers_expire(chat->request_workers, chat->now_ms);
	registry_forget_users(chat->registry, &chat->options.rate_messages, &chat->options.rate_requests, chat->now_ms);
}

/* WebSocket clients, and all of 2.1's, are written to only after one more turn of the loop; and a WebSocket client gets
 * no more than a piece of a large message in each, or once in 100 ms where nothing turns the loop. */
static void turn_again(struct chat *chat)
{
	if (chat->published) {
		chat->published = false;
		wakeup_signal();
	} else if (chat->extra_turns > 0) {
		wakeup_signal();
	}
	chat->extra_turns -= chat->extra_turns > 0;
}

static int on_tick(int event, void *event_data, void *userdata)
{
	(void)event;
	(void)event_data;
	(void)userdata;
	wakeup_begin_tick();
	struct chat *chat = begin_callback();
	if (!plugin.ticked) {
		first_tick();
	}
	chat->ticks++;
	broker_log_drain();
	membership_apply(chat);
	respond_tick(chat);
	presence_tick(chat);
	every_second(chat);
	sign_in_kick_refused(chat);
	fanout_tick(chat);
	chat->reloading = false;
	turn_again(chat);
	return MOSQ_ERR_SUCCESS;
}

/* ---- the keys, at start and at SIGHUP ---- */

/* Puts the option in front of what is wrong with it. */
static void name_option(const char *option, char *error, size_t error_size)
{
	char reason[SIGNING_ERROR_SIZE];
	snprintf(reason, sizeof(reason), "%s", error);
	snprintf(error, error_size, "plugin_opt_%s: %s", option, reason);
}

/* A token made with the key must be good here. */
static bool try_key(const struct signing_key *key, const struct options *options, const struct token_ring *keys, char *error,
	size_t error_size)
{
	struct token_rules rules = {.issuer = options->token_issuer, .audience = options->token_audience};
	int64_t now_s = clock_wall_ms() / 1000;
	struct token_claims claims = {.user_id = 1, .expires_at_s = now_s + 3600};
	struct buffer token;

	buffer_init(&token, TOKEN_MAX);
	bool made = token_make(key, &rules, &claims, &token);
	enum token_result result = made ? token_check(token.data, token.length, keys, &rules, now_s, &claims) : TOKEN_TOO_LONG;
	buffer_free(&token);
	if (result != TOKEN_OK) {
		snprintf(error, error_size,
			"tokens made with this key would be refused here (%s): its public key must be among token_keys, in a "
			"file of the "
			"same name (%s)",
			token_result_text(result), signing_key_id(key));
	}
	return result == TOKEN_OK;
}

/* The key that tokens are made with, or NULL; false: error says what is wrong with it. */
static bool load_signing_key(
	const struct options *options, const struct token_ring *keys, struct signing_key **key, char *error, size_t error_size)
{
	*key = NULL;
	if (!options->token_signing_key) {
		return true;
	}
	*key = signing_key_load(options->token_signing_key, error, error_size);
	bool good = *key != NULL;
	if (good && !signing_key_can_sign(*key)) {
		snprintf(error, error_size, "this is a public key; a private key is needed to make tokens");
		good = false;
	}
	good = good && try_key(*key, options, keys, error, error_size);
	if (!good) {
		signing_key_free(*key);
		*key = NULL;
		name_option("token_signing_key", error, error_size);
	}
	return good;
}

/* What accounts and attempts must know of the options; the key is taken over. False: no memory. */
static bool apply_account_options(struct chat *chat, const struct options *options, struct signing_key *key)
{
	struct token_rules rules = {.issuer = options->token_issuer, .audience = options->token_audience};
	attempts_set_limits(chat->attempts, &options->rate_sign_in, &options->rate_sign_in_address);
	if (!accounts_set_tokens(chat->accounts, key, &rules, options->token_lifetime_s)) {
		signing_key_free(key);
		return false;
	}
	return true;
}

static bool start_accounts(struct chat *chat, char *error, size_t error_size)
{
	struct signing_key *key;
	if (!load_signing_key(&chat->options, chat->keys, &key, error, error_size)) {
		return false;
	}
	chat->attempts = attempts_new();
	chat->accounts = chat->attempts ? accounts_new(chat->attempts) : NULL;
	if (!chat->accounts) {
		signing_key_free(key);
	}
	if (!chat->accounts || !apply_account_options(chat, &chat->options, key)) {
		snprintf(error, error_size, "out of memory");
		return false;
	}
	return true;
}

static int on_reload(int event, void *event_data, void *userdata)
{
	struct chat *chat = begin_callback();
	struct options options;
	char error[SIGNING_ERROR_SIZE + 64] = "out of memory", notice[512] = "";
	(void)event;
	(void)event_data;
	(void)userdata;

	chat->reloading = true;
	if (!options_reload(
		    plugin.pairs, plugin.pair_count, &chat->options, &options, notice, sizeof(notice), error, sizeof(error))) {
		log_line(LOG_LEVEL_ERROR, "chat: reload: %s; the options in force stay", error);
		return MOSQ_ERR_SUCCESS;
	}
	struct token_ring *keys = token_ring_load(options.token_keys, error, sizeof(error));
	if (!keys) {
		log_line(LOG_LEVEL_ERROR, "chat: reload: %s; the options and keys in force stay", error);
		options_free(&options);
		return MOSQ_ERR_SUCCESS;
	}
	struct signing_key *signing_key;
	if (!load_signing_key(&options, keys, &signing_key, error, sizeof(error)) ||
		!apply_account_options(chat, &options, signing_key)) {
		log_line(LOG_LEVEL_ERROR, "chat: reload: %s; the options and keys in force stay", error);
		token_ring_free(keys);
		options_free(&options);
		return MOSQ_ERR_SUCCESS;
	}
	if (notice[0]) {
		log_line(LOG_LEVEL_WARNING, "chat: reload: %s", notice);
	}
	token_ring_free(chat->keys);
	options_free(&chat->options);
	chat->keys = keys;
	chat->options = options;
	sign_in_keys_changed(chat->sign_in);
	loader_set_create_users(chat->loader, options.users_from_tokens);
	request_workers_set_group_max(chat->request_workers, options.group_max_members);
	writer_set_edit_window(chat->writer, options.edit_window_s);
	chores_set_retention(chat->chores, options.retention_days);
	log_line(LOG_LEVEL_NOTICE, "chat: reloaded keys and options");
	return MOSQ_ERR_SUCCESS;
}

static const struct {
	int event;
	MOSQ_FUNC_generic_callback callback;
} callbacks[] = {
	{MOSQ_EVT_BASIC_AUTH, on_basic_auth},
	{MOSQ_EVT_ACL_CHECK, on_acl_check},
	{MOSQ_EVT_MESSAGE, on_message},
	{MOSQ_EVT_DISCONNECT, on_disconnect},
	{MOSQ_EVT_TICK, on_tick},
	{MOSQ_EVT_RELOAD, on_reload},
	/* Only with scram: without them a client that asks for such an authentication gets CONNACK 0x8c. */
	{MOSQ_EVT_EXT_AUTH_START, on_ext_auth_start},
	{MOSQ_EVT_EXT_AUTH_CONTINUE, on_ext_auth_continue},
};

#define CALLBACKS (sizeof(callbacks) / sizeof(callbacks[0]))
#define CALLBACKS_OF_SCRAM 2

static size_t callback_count(void)
{
	return plugin.chat.exchanges ? CALLBACKS : CALLBACKS - CALLBACKS_OF_SCRAM;
}

/* ---- start and end ---- */

static bool copy_pairs(const struct mosquitto_opt *options, int count)
{
	plugin.pairs = calloc((size_t)count + 1, sizeof(plugin.pairs[0]));
	for (int i = 0; plugin.pairs && i < count; i++) {
		plugin.pairs[i].name = strdup(options[i].key);
		plugin.pairs[i].value = strdup(options[i].value ? options[i].value : "");
		plugin.pair_count++;
		if (!plugin.pairs[i].name || !plugin.pairs[i].value) {
			return false;
		}
	}
	return plugin.pairs != NULL;
}

static void free_pairs(void)
{
	for (size_t i = 0; i < plugin.pair_count; i++) {
		free((char *)(uintptr_t)plugin.pairs[i].name);
		free((char *)(uintptr_t)plugin.pairs[i].value);
	}
	free(plugin.pairs);
	plugin.pairs = NULL;
	plugin.pair_count = 0;
}

static bool open_spool(struct chat *chat, char *error, size_t error_size)
{
	const struct options *options = &chat->options;
	struct spool_recovery recovery;
	struct spool_settings settings = {
		.directory = options->spool_dir,
		.max_bytes = options->spool_max_bytes,
		.lanes = (unsigned)options->writers,
		.sync = options->spool_sync,
		.sync_ms = options->spool_sync_ms,
	};

	chat->spool = spool_open(&settings, &recovery, error, error_size);
	if (!chat->spool) {
		return false;
	}
	if (recovery.waiting > 0) {
		log_line(LOG_LEVEL_NOTICE, "chat: spool: %llu records from before wait to be committed",
			(unsigned long long)recovery.waiting);
	}
	return true;
}

static bool start_engines(struct chat *chat, char *error, size_t error_size)
{
	const struct options *options = &chat->options;
	unsigned lanes = (unsigned)options->writers;
	bool reachable = false;

	chat->keys = token_ring_load(options->token_keys, error, error_size);
	if (!chat->keys) {
		name_option("token_keys", error, error_size);
		return false;
	}
	if (!start_accounts(chat, error, error_size)) {
		return false;
	}
	chat->registry = registry_new();
	chat->deliveries = delivery_queue_new();
	chat->sign_in = sign_in_new();
	chat->fanout = chat->registry ? fanout_new(chat) : NULL;
	chat->presence = chat->registry ? presence_new(chat->registry) : NULL;
	chat->verifiers = options->scram ? verifier_cache_new(VERIFIER_CACHE_MAX) : NULL;
	chat->exchanges = options->scram ? exchanges_new() : NULL;
	bool scram = !options->scram || (chat->verifiers && chat->exchanges);
	if (!wakeup_open() || !chat->registry || !chat->deliveries || !chat->sign_in || !chat->fanout || !chat->presence ||
		!scram) {
		snprintf(error, error_size, "out of memory or descriptors");
		return false;
	}
	if (!open_spool(chat, error, error_size)) {
		return false;
	}
	chat->loader = loader_start(
		options->database, chat->deliveries, options->users_from_tokens, START_TIMEOUT_MS, &reachable, error, error_size);
	if (!chat->loader) {
		return false;
	}
	if (!reachable) {
		log_line(LOG_LEVEL_ERROR, "chat: database: %s; starting without it, messages wait until it answers", error);
	} else if (!writer_check_positions(options->database, chat->spool, START_TIMEOUT_MS, error, error_size)) {
		return false;
	}
	chat->writer = writer_start(options->database, chat->spool, lanes, chat->deliveries, chat->loader, error, error_size);
	if (!chat->writer) {
		return false;
	}
	writer_set_edit_window(chat->writer, options->edit_window_s);
	chat->request_workers = request_workers_start(
		options->database, (unsigned)options->request_workers, chat->accounts, chat->deliveries, error, error_size);
	if (!chat->request_workers) {
		return false;
	}
	request_workers_set_group_max(chat->request_workers, options->group_max_members);
	chat->chores =
		chores_start(options->database, (unsigned)options->search_share, options->retention_days, error, error_size);
	if (!chat->chores) {
		return false;
	}
	chat->presence_store = presence_store_start(options->database, chat->loader, spool_id(chat->spool), error, error_size);
	return chat->presence_store != NULL;
}

static void log_totals(const struct chat *chat)
{
	struct writer_counters counters = writer_read_counters(chat->writer);
	log_line(LOG_LEVEL_NOTICE,
		"chat: stopping: %llu messages and %llu marks in %llu batches, %llu refused, %llu duplicates, %llu delivered",
		(unsigned long long)counters.messages, (unsigned long long)counters.marks, (unsigned long long)counters.batches,
		(unsigned long long)counters.refused, (unsigned long long)counters.duplicates,
		(unsigned long long)fanout_published(chat->fanout));
	log_line(LOG_LEVEL_NOTICE, "chat: stopping: presence: %llu changes, %llu statements",
		(unsigned long long)presence_told_count(chat->presence),
		chat->presence_store ? (unsigned long long)presence_store_statements(chat->presence_store) : 0ULL);
}

static void stop_engines(struct chat *chat)
{
	if (chat->deliveries) {
		delivery_discard(chat->deliveries);
	}
	presence_store_finish(chat->presence_store);
	chores_stop(chat->chores);
	request_workers_stop(chat->request_workers);
	if (chat->writer) {
		writer_drain(chat->writer, DRAIN_TIMEOUT_MS);
		log_totals(chat);
		if (!spool_is_drained(chat->spool)) {
			log_line(LOG_LEVEL_NOTICE,
				"chat: spool: %llu bytes are not committed yet; they wait in the spool for the next start",
				(unsigned long long)spool_used(chat->spool));
		}
	}
	writer_stop(chat->writer);
	presence_store_stop(chat->presence_store);
	loader_stop(chat->loader);
	presence_free(chat->presence, chat->registry);
	registry_free(chat->registry);
	fanout_free(chat);
	respond_free(chat);
	delivery_queue_free(chat->deliveries);
	spool_close(chat->spool);
	sign_in_free(chat->sign_in);
	exchanges_free(chat->exchanges);
	verifier_cache_free(chat->verifiers);
	accounts_free(chat->accounts);
	attempts_free(chat->attempts);
	token_ring_free(chat->keys);
	options_free(&chat->options);
	free(chat->refused);
	free(chat->mentions);
	wakeup_close();
	broker_log_stop();
	memset(chat, 0, sizeof(*chat));
}

static void unregister_callbacks(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		mosquitto_callback_unregister(plugin.id, callbacks[i].event, callbacks[i].callback, NULL);
	}
}

static bool register_callbacks(void)
{
	for (size_t i = 0; i < callback_count(); i++) {
		if (mosquitto_callback_register(plugin.id, callbacks[i].event, callbacks[i].callback, NULL, NULL) !=
			MOSQ_ERR_SUCCESS) {
			unregister_callbacks(i);
			return false;
		}
	}
	return true;
}

__attribute__((visibility("default"))) int mosquitto_plugin_version(int supported_version_count, const int *supported_versions)
{
	for (int i = 0; i < supported_version_count; i++) {
		if (supported_versions[i] == MOSQ_PLUGIN_VERSION) {
			return MOSQ_PLUGIN_VERSION;
		}
	}
	return -1;
}

__attribute__((visibility("default"))) int mosquitto_plugin_init(
	mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options, int option_count)
{
	struct chat *chat = &plugin.chat;
	char error[SIGNING_ERROR_SIZE + 64] = "out of memory";
	(void)userdata;

	memset(&plugin, 0, sizeof(plugin));
	plugin.id = identifier;
	plugin.is_2_1 = broker_is_2_1();
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a full disk to the spool, not the broker's end */
	broker_log_start();
	log_set_sink(broker_log_sink);
	if (!copy_pairs(options, option_count) ||
		!options_load(plugin.pairs, plugin.pair_count, &chat->options, error, sizeof(error)) ||
		!start_engines(chat, error, sizeof(error))) {
		goto failed;
	}
	if (!register_callbacks()) {
		snprintf(error, sizeof(error), "the broker refused a callback");
		goto failed;
	}
	if (!broker_find_dropped()) {
		log_line(LOG_LEVEL_NOTICE,
			"chat: this broker does not show what it drops: clients that leave too much unread miss it "
			"and stay connected");
	}
	log_line(LOG_LEVEL_NOTICE, "chat: mosquitto-chat %s started: %lld writers, schema version %d", CHAT_VERSION,
		(long long)chat->options.writers, STATEMENTS_SCHEMA_VERSION);
	return MOSQ_ERR_SUCCESS;
failed:
	log_line(LOG_LEVEL_ERROR, "chat: cannot start: %s", error);
	stop_engines(chat);
	free_pairs();
	return MOSQ_ERR_INVAL;
}

__attribute__((visibility("default"))) int mosquitto_plugin_cleanup(
	void *userdata, struct mosquitto_opt *options, int option_count)
{
	(void)userdata;
	(void)options;
	(void)option_count;
	unregister_callbacks(callback_count());
	stop_engines(&plugin.chat);
	free_pairs();
	return MOSQ_ERR_SUCCESS;
}
