/* thread.c - what the broker's thread does for a connection, a message and a delivery, and what it keeps, without a broker.
 *
 *   guard_thread scenes        names the scenes
 *   guard_thread SCENE         plays it: what counts happens in measured(); prints `SCENE times`
 *   guard_thread memory        prints bytes of the heap that sessions, memberships and subscriptions take
 *
 * The services are the plugin's own; the broker (host.h) and the threads that ask the database (loader.h, chores.h) are
 * stand-ins, presence's too (presence_store.h). There are as many sessions as make tables and caches what they are in use: each
 * has 20 conversations of 20 members, as in the benchmark's storm.
 */
#include "access.h"
#include "attempts.h"
#include "chores.h"
#include "fanout.h"
#include "host.h"
#include "ingest.h"
#include "membership.h"
#include "presence.h"
#include "sign_in.h"
#include "wakeup.h"

#include <malloc.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SESSIONS 2000u
#define MEMBERS 20u
#define OF_A_KIND (SESSIONS / MEMBERS)
#define CONVERSATIONS (20u * OF_A_KIND)
#define NOW_MS INT64_C(1790000000000)
#define BODY_LENGTH 100

static struct chat chat;
static char connections[SESSIONS]; /* their addresses stand for the broker's objects */
static char directory[] = "/tmp/chat-guard-XXXXXX";

static void need(bool condition, const char *what)
{
	if (!condition) {
		fprintf(stderr, "guard_thread: %s\n", what);
		exit(1);
	}
}

/* ---- stand-ins */

static uint64_t published;

bool host_publish(const char *topic, const void *payload, size_t length, int qos, const struct host_properties *properties)
{
	(void)topic, (void)payload, (void)length, (void)qos, (void)properties;
	published++;
	return true;
}

void host_kick(const char *client_id)
{
	(void)client_id;
}

uint64_t host_dropped(void)
{
	return 0;
}

bool loader_session(struct loader *loader, const struct session *session)
{
	(void)loader, (void)session;
	return true;
}

bool loader_conversation(struct loader *loader, int64_t conversation_id, const int64_t *users, size_t user_count, bool whole)
{
	(void)loader, (void)conversation_id, (void)users, (void)user_count, (void)whole;
	return true;
}

bool loader_fetch(struct loader *loader, int64_t conversation_id, int64_t first, int64_t last)
{
	(void)loader, (void)conversation_id, (void)first, (void)last;
	return true;
}

struct load_result *loader_take_all(struct loader *loader)
{
	(void)loader;
	return NULL;
}

void loader_result_free(struct load_result *result)
{
	(void)result;
}

bool loader_wait_for_result(struct loader *loader, int64_t until_ns)
{
	(void)loader, (void)until_ns;
	return false;
}

void chores_note(struct chores *chores, int64_t conversation_id)
{
	(void)chores, (void)conversation_id;
}

void chores_note_all(struct chores *chores)
{
	(void)chores;
}

bool loader_is_prompt(const struct loader *loader)
{
	(void)loader;
	return false;
}

bool presence_store_put(struct presence_store *store, int64_t user_id, const struct presence_view *view, int64_t last_seen_ms)
{
	(void)store, (void)user_id, (void)view, (void)last_seen_ms;
	return true;
}

bool presence_store_device(struct presence_store *store, int64_t device_id, bool active)
{
	(void)store, (void)device_id, (void)active;
	return true;
}

bool presence_store_ask(struct presence_store *store, const struct presence_question *question)
{
	(void)store, (void)question;
	return true;
}

/* Whose devices are asked about: nobody's says anything. */
static struct presence_said said[SESSIONS];
static struct presence_answer answer = {.kind = PRESENCE_SAID, .said = said};

bool presence_store_read(struct presence_store *store, int64_t user_id)
{
	(void)store;
	said[answer.count++] = (struct presence_said){.user_id = user_id, .nothing = true};
	return true;
}

struct presence_answer *presence_store_take_all(struct presence_store *store)
{
	(void)store;
	return answer.count > 0 ? &answer : NULL;
}

void presence_answer_free(struct presence_answer *done)
{
	done->count = 0;
}

/* ---- the people */

static int64_t conversation_of(unsigned session, unsigned k)
{
	return 1 + (int64_t)(k * OF_A_KIND + (session + k * (session / OF_A_KIND)) % OF_A_KIND);
}

static struct session *add_session(unsigned i)
{
	char client_id[32];
	snprintf(client_id, sizeof(client_id), "%u-phone", i + 1);
	struct session *session =
		registry_add_session(chat.registry, &connections[i], client_id, (int64_t)i + 1, 0, NOW_MS / 1000 + 3600);
	need(session != NULL, "no session");
	session->state = SESSION_LIVE;
	return session;
}

static void add_memberships(struct session *session, unsigned i)
{
	struct membership memberships[20];
	for (unsigned k = 0; k < 20; k++) {
		memberships[k] = (struct membership){conversation_of(i, k), 1, 1, ACL_ROLE_MEMBER, false, false};
	}
	need(registry_set_memberships(session->user, memberships, 20), "no memberships");
}

static void add_subscriptions(struct session *session, unsigned i)
{
	for (unsigned k = 0; k < 20; k++) {
		bool created;
		struct conversation *conversation =
			registry_subscribe(chat.registry, session, conversation_of(i, k), TOPIC_MESSAGES, &created);
		need(conversation != NULL, "no subscription");
		conversation->members_version = 1;
		conversation->next_seq = 1;
	}
}

static void add_people(void)
{
	for (unsigned i = 0; i < SESSIONS; i++) {
		struct session *session = add_session(i);
		add_memberships(session, i);
		add_subscriptions(session, i);
	}
}

static void start(void)
{
	struct spool_recovery recovery;
	char error[256] = "";
	struct spool_settings settings = {.directory = directory, .max_bytes = 64 << 20, .lanes = 1};
	chat.now_ms = 1000000;
	chat.now_wall_ms = NOW_MS;
	chat.listening = true;
	chat.options.body_max_chars = 100000;
	chat.registry = registry_new();
	chat.deliveries = delivery_queue_new();
	chat.sign_in = sign_in_new();
	chat.attempts = attempts_new();
	chat.fanout = fanout_new(&chat);
	need(wakeup_open() && chat.registry && chat.deliveries && chat.sign_in && chat.attempts && chat.fanout, "no memory");
	need(mkdtemp(directory) != NULL, "no directory");
	chat.spool = spool_open(&settings, &recovery, error, sizeof(error));
	need(chat.spool != NULL, error);
}

static void stop(void)
{
	char command[sizeof(directory) + 16];
	presence_free(chat.presence, chat.registry);
	registry_free(chat.registry);
	fanout_free(&chat);
	delivery_queue_free(chat.deliveries);
	sign_in_free(chat.sign_in);
	attempts_free(chat.attempts);
	token_ring_free(chat.keys);
	spool_close(chat.spool);
	wakeup_close();
	snprintf(command, sizeof(command), "rm -r %s", directory);
	need(system(command) == 0, "the directory stays"); // NOLINT(cert-env33-c): a fixed command
}

/* ---- scenes: what is measured is done `times` times */

struct scene {
	const char *name;
	unsigned times;
	void (*prepare)(void);
	void (*play)(unsigned turn);
};

/* The broker asks about the topic, then hands over the message. */
static char envelope[256];

static void prepare_message(void)
{
	char body[BODY_LENGTH + 1];
	memset(body, 'x', BODY_LENGTH);
	body[BODY_LENGTH] = '\0';
	snprintf(envelope, sizeof(envelope), "{\"id\":\"9f1c6f0e-3d0b-4a53-9f0e-6f6b0a6b7c11\",\"body\":\"%s\"}", body);
}

static void play_message(unsigned turn)
{
	char topic[64];
	unsigned i = turn % SESSIONS;
	snprintf(topic, sizeof(topic), "chat/%lld/send", (long long)conversation_of(i, turn % 20));
	struct publish publish = {.client = &connections[i],
		.topic = topic_parse(topic),
		.payload = envelope,
		.length = strlen(envelope),
		.qos = 1};
	need(access_publish(&chat, publish.client, topic, false) == ACCESS_ALLOWED, "a publish was refused");
	need(ingest_message(&chat, &publish) == PUBLISH_ACCEPTED, "a message was refused");
}

/* The broker asks for each receiver. */
static void play_delivery(unsigned turn)
{
	char topic[64];
	unsigned i = turn % SESSIONS;
	snprintf(topic, sizeof(topic), "chat/%lld/messages", (long long)conversation_of(i, turn % 20));
	need(access_read(&chat, &connections[i], topic, "{}", BODY_LENGTH) == ACCESS_ALLOWED, "a delivery was refused");
}

/* What a lane has committed: a batch of 500 messages for 50 conversations, up to the hand-over to the broker. */
#define BATCH 500u
static int64_t next_seq = 1;

static void prepare_batch(void)
{
	char payload[BODY_LENGTH + 150];
	struct delivery_batch *batch = delivery_batch_new(BATCH);
	need(batch != NULL, "no batch");
	memset(payload, 'x', sizeof(payload));
	for (unsigned i = 0; i < BATCH; i++) {
		struct delivery_item *item = delivery_batch_add(batch, DELIVERY_MESSAGE);
		item->conversation_id = 1 + i % 50;
		item->seq = next_seq + i / 50;
		item->user_id = 1;
		item->at_ms = NOW_MS;
		item->members_version = 1;
		item->payload_at = (uint32_t)batch->bytes.length;
		item->payload_length = sizeof(payload);
		need(buffer_append(&batch->bytes, payload, sizeof(payload)), "no memory");
	}
	delivery_post(chat.deliveries, batch);
	next_seq += BATCH / 50;
}

static void play_fanout(unsigned turn)
{
	uint64_t wanted = published + BATCH;
	(void)turn;
	while (published < wanted) { /* a tick that has used up its time goes on in the next */
		fanout_tick(&chat);
	}
}

/* A CONNECT with an ES256 token, up to the question to the database. */
static struct buffer token;

static void prepare_connect(void)
{
	char path[sizeof(directory) + 16], error[SIGNING_ERROR_SIZE];
	struct token_rules rules = {0};
	struct token_claims claims = {.user_id = 1000000, .expires_at_s = NOW_MS / 1000 + 3600, .issued_at_s = NOW_MS / 1000};
	if (chat.keys) {
		return;
	}
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	snprintf(path, sizeof(path), "%s/key.pem", directory);
	FILE *file = fopen(path, "we");
	need(pkey && file && PEM_write_PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL) == 1 && fclose(file) == 0, "no key");
	need(chmod(path, 0600) == 0, "no key");
	EVP_PKEY_free(pkey);
	struct signing_key *key = signing_key_load(path, error, sizeof(error));
	need(key != NULL, error);
	chat.keys = token_ring_load(path, error, sizeof(error));
	need(chat.keys != NULL, error);
	buffer_init(&token, TOKEN_MAX);
	need(token_make(key, &rules, &claims, &token) && buffer_append(&token, "", 1), "no token");
	signing_key_free(key);
	unlink(path);
}

static char others[64];

static void play_connect(unsigned turn)
{
	char client_id[32], user_name[SIGN_IN_NAME_MAX];
	struct sign_in_request request = {
		.client = &others[turn % sizeof(others)],
		.client_id = client_id,
		.password = token.data,
		.address = "127.0.0.1",
		.keepalive_s = 60,
		.clean_session = true,
		.protocol_version = 5,
	};
	snprintf(client_id, sizeof(client_id), "1000000-%u", turn);
	need(sign_in_connect(&chat, &request, user_name) == SIGN_IN_ACCEPTED, "a sign-in was refused");
}

/* The end of a connection, and the same client's next one with the token it had. */
static void prepare_reconnect(void)
{
	prepare_connect();
	play_connect(0);
}

static void play_reconnect(unsigned turn)
{
	(void)turn;
	sign_in_disconnect(&chat, &others[0]);
	play_connect(0);
}

static const struct scene scenes[] = {
	{"connect", 20, prepare_connect, play_connect},
	{"reconnect", 20, prepare_reconnect, play_reconnect},
	{"message", 1000, prepare_message, play_message},
	{"delivery", 1000, NULL, play_delivery},
	{"fanout_of_500", 4, prepare_batch, play_fanout},
};
#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

/* Named on callgrind's command line. */
__attribute__((noinline)) void measured(const struct scene *scene, unsigned turn);
void measured(const struct scene *scene, unsigned turn)
{
	scene->play(turn);
}

static void run_scene(const struct scene *scene)
{
	start();
	add_people();
	for (unsigned turn = 0; turn < scene->times + 1; turn++) {
		if (scene->prepare) {
			scene->prepare();
		}
		if (turn == 0) {
			scene->play(turn); /* what is done once in a life does not count */
		} else {
			measured(scene, turn);
		}
	}
	printf("%s %u\n", scene->name, scene->times);
	stop();
}

/* ---- memory */

static size_t heap(void)
{
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
}

static size_t print_bytes(const char *name, size_t before, size_t count)
{
	size_t now = heap();
	printf("%s %.1f\n", name, (double)(now - before) / (double)count);
	return now;
}

/* Everybody is online with a device. */
static void add_presence(struct session **sessions)
{
	chat.presence = presence_new(chat.registry);
	need(chat.presence != NULL, "no presence");
	for (unsigned i = 0; i < SESSIONS; i++) {
		sessions[i]->device_id = (int64_t)i + 1;
		presence_session_live(&chat, sessions[i]);
	}
	for (unsigned turn = 0; turn < 10; turn++) { /* a tick looks at some of them; each is looked at twice */
		presence_tick(&chat);
	}
	need(presence_told_count(chat.presence) == SESSIONS, "somebody is not online");
}

static void run_memory(void)
{
	uint64_t end;
	start();
	size_t at = heap();
	struct session *sessions[SESSIONS];
	for (unsigned i = 0; i < SESSIONS; i++) {
		sessions[i] = add_session(i);
	}
	at = print_bytes("session", at, SESSIONS);
	add_presence(sessions);
	at = print_bytes("person", at, SESSIONS);
	for (unsigned i = 0; i < SESSIONS; i++) {
		add_memberships(sessions[i], i);
	}
	at = print_bytes("membership", at, 20 * SESSIONS);
	for (unsigned i = 0; i < SESSIONS; i++) {
		add_subscriptions(sessions[i], i);
	}
	print_bytes("subscription", at, 20 * SESSIONS);
	prepare_message();
	end = spool_end(chat.spool);
	play_message(0);
	printf("spool_record %llu\n", (unsigned long long)(spool_end(chat.spool) - end));
	stop();
}

int main(int argc, char **argv)
{
	const char *name = argc == 2 ? argv[1] : "";
	if (strcmp(name, "memory") == 0) {
		run_memory();
		return 0;
	}
	for (size_t i = 0; i < SCENES; i++) {
		if (strcmp(name, "scenes") == 0) {
			puts(scenes[i].name);
		} else if (strcmp(name, scenes[i].name) == 0) {
			run_scene(&scenes[i]);
			return 0;
		}
	}
	return strcmp(name, "scenes") == 0 ? 0 : 2;
}
