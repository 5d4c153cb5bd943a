/* fixture.c - see fixture.h. One thread, beside a reaper process that removes the directory when the program was killed.
 */
#include "fixture.h"

#include "base64url.h"
#include "buffer.h"
#include "clock.h"
#include "token.h"
#include "uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES_SIZE = 16384 };

/* A conversation that does not exist. */
#define NOWHERE "chat/8796093022206/messages"

/* --------------------------------------------------------------------------------------------------- names */

/* All texts of the running test. */
struct text {
	struct text *next;
	char bytes[];
};

static struct text *texts;

const char *text_of(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	check(length >= 0);
	struct text *text = malloc(sizeof *text + (size_t)length + 1);
	check(text != NULL);
	va_start(arguments, format);
	vsnprintf(text->bytes, (size_t)length + 1, format, arguments);
	va_end(arguments);
	text->next = texts;
	texts = text;
	return text->bytes;
}

static void forget_texts(void)
{
	while (texts) {
		struct text *text = texts;
		texts = text->next;
		free(text);
	}
}

const char *topic_of(int64_t conversation, const char *noun)
{
	return text_of("chat/%lld/%s", (long long)conversation, noun);
}

const char *user_topic(int64_t user, const char *noun)
{
	return text_of("chat/user/%lld/%s", (long long)user, noun);
}

const char *answers_of(const struct client *client)
{
	return text_of("chat/response/%s", client_id(client));
}

const char *new_id(void)
{
	uint8_t uuid[16];
	char text[UUID_TEXT_LENGTH];
	uuid_make(clock_wall_ms(), uuid);
	uuid_format(uuid, text);
	return text_of("%.*s", UUID_TEXT_LENGTH, text);
}

/* ---------------------------------------------------------------------------------------------------- keys */

static EVP_PKEY *generate(enum signing_algorithm algorithm)
{
	switch (algorithm) {
	case SIGNING_ES256:
		return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	case SIGNING_RS256:
		return EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	default:
		return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	}
}

static void write_pem(const char *path, EVP_PKEY *pkey, bool private)
{
	FILE *file = fopen(path, "we");
	check(file != NULL);
	check(private ? PEM_write_PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL) == 1 : PEM_write_PUBKEY(file, pkey) == 1);
	fclose(file);
	check(chmod(path, private ? 0600 : 0644) == 0);
}

struct signing_key *fixture_make_key(struct fixture *fixture, const char *name, enum signing_algorithm algorithm)
{
	char error[256];
	const char *public = text_of("%s/keys/%s.pem", fixture->directory, name);
	const char *private = text_of("%s/private/%s.pem", fixture->directory, name);
	const char *spec = private;
	if (algorithm == SIGNING_HS256) {
		const char *secret = text_of("secret of %s, which is longer than thirty-two bytes", name);
		file_write(public, secret, 0600, &fixture->broker.account);
		file_write(private, secret, 0600, NULL);
		spec = text_of("hs256:%s", private);
	} else {
		EVP_PKEY *pkey = generate(algorithm);
		check(pkey != NULL);
		write_pem(public, pkey, false);
		write_pem(private, pkey, true);
		EVP_PKEY_free(pkey);
	}
	struct signing_key *key = signing_key_load(spec, error, sizeof error);
	if (!key)
		fail_msg("%s", error);
	return key;
}

/* -------------------------------------------------------------------------------------------------- tokens */

static char *finish(struct buffer *buffer)
{
	check(buffer_append(buffer, "", 1));
	char *text = strdup(buffer->data);
	buffer_free(buffer);
	check(text != NULL);
	return text;
}

char *fixture_token(struct fixture *fixture, int64_t user, int64_t device, int64_t lifetime_s)
{
	struct buffer buffer;
	int64_t now_s = clock_wall_ms() / 1000;
	struct token_claims claims = {
		.user_id = user, .device_id = device, .expires_at_s = now_s + lifetime_s, .issued_at_s = now_s};
	struct token_rules rules = {0};
	buffer_init(&buffer, TOKEN_MAX + 1);
	check(token_make(fixture->key, &rules, &claims, &buffer));
	return finish(&buffer);
}

static void append_encoded(struct buffer *buffer, const void *bytes, size_t length)
{
	char *encoded = malloc(BASE64URL_ENCODED_SIZE(length) + 1);
	check(encoded && buffer_append(buffer, encoded, base64url_encode(bytes, length, encoded)));
	free(encoded);
}

char *fixture_forge(struct fixture *fixture, const struct signing_key *key, const char *header, const char *claims)
{
	struct buffer buffer;
	uint8_t signature[SIGNING_SIGNATURE_MAX];
	size_t length;
	buffer_init(&buffer, 1 << 20);
	append_encoded(&buffer, header, strlen(header));
	check(buffer_append_text(&buffer, "."));
	append_encoded(&buffer, claims, strlen(claims));
	check(signing_sign(key ? key : fixture->key, buffer.data, buffer.length, signature, &length));
	check(buffer_append_text(&buffer, "."));
	append_encoded(&buffer, signature, length);
	return finish(&buffer);
}

/* ------------------------------------------------------------------------------------------- configuration */

struct lines {
	char text[LINES_SIZE];
	size_t length;
};

static void add_option(struct lines *lines, const char *option)
{
	const char *value = strchr(option, ' ');
	check(value != NULL);
	if (!strcmp(value, " -"))
		return;
	int written = snprintf(lines->text + lines->length, sizeof lines->text - lines->length, "plugin_opt_%s\n", option);
	check(written > 0 && lines->length + (size_t)written < sizeof lines->text);
	lines->length += (size_t)written;
}

static bool is_named(const char *option, const char *other)
{
	size_t length = (size_t)(strchrnul(option, ' ') - option);
	return !strncmp(option, other, length) && (other[length] == ' ' || other[length] == '\0');
}

void fixture_configure(struct fixture *fixture, const char *const options[], const char *more)
{
	static struct lines lines;
	char conninfo[PATH_SIZE * 2];
	const char *own[] = {text_of("database %s", postgres_conninfo(&fixture->postgres, "chat_plugin", conninfo)),
		text_of("token_keys %s", fixture->public_key), text_of("spool_dir %s/spool", fixture->broker.directory),
		"rate_messages 0", "rate_sign_in 0", "rate_sign_in_address 0"};
	lines.length = (size_t)snprintf(lines.text, sizeof lines.text, "plugin %s\n", fixture->plugin);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		bool replaced = false;
		for (size_t j = 0; options && options[j]; j++)
			replaced = replaced || is_named(own[i], options[j]);
		if (!replaced)
			add_option(&lines, own[i]);
	}
	for (size_t j = 0; options && options[j]; j++)
		add_option(&lines, options[j]);
	broker_configure(&fixture->broker, lines.text, more);
}

void fixture_restart_broker(struct fixture *fixture, const char *const options[])
{
	clients_close_all();
	broker_stop(&fixture->broker);
	fixture_configure(fixture, options, NULL);
	broker_start(&fixture->broker);
}

/* ------------------------------------------------------------------------------------ beginning and ending */

/* Waits for the death of the test program, by the end of a pipe that it alone holds, and removes what it left. */
static void start_reaper(const char *directory)
{
	int ends[2];
	check(pipe(ends) == 0);
	fflush(NULL);
	if (fork() == 0) {
		char byte;
		setsid();
		close(ends[1]);
		while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
			;
		/* Its children die by signal at this very moment and may still be writing. */
		for (int i = 0; i < 100 && access(directory, F_OK) == 0 && !getenv("CHAT_TEST_KEEP"); i++) {
			directory_remove(directory);
			look_again_soon();
		}
		_exit(0);
	}
	close(ends[0]);
	/* ends[1] stays open until this program ends; exec closes it in its children. */
	check(fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0);
}

static char *template_data(void)
{
	const char *path = getenv("CHAT_TEST_TEMPLATE");
	char *data = path ? file_read(path) : NULL;
	if (data && *data && access(data, F_OK) == 0)
		return data;
	free(data);
	return NULL;
}

void fixture_use_plugin(struct fixture *fixture, const char *variable)
{
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *source = getenv(variable);
	check(source != NULL);
	/* A running broker keeps the old file. */
	const char *argv[] = {"cp", "--remove-destination", source, fixture->plugin, NULL};
	process_run("cp", argv, NULL, &self, text_of("%s/cp.log", fixture->directory));
	check(chmod(fixture->plugin, 0644) == 0);
}

struct fixture *fixture_new(void)
{
	struct fixture *fixture = calloc(1, sizeof *fixture);
	check(fixture != NULL);
	snprintf(fixture->directory, sizeof fixture->directory, "/tmp/mosquitto-chat-XXXXXX");
	check(mkdtemp(fixture->directory) && chmod(fixture->directory, 0755) == 0);
	if (getenv("CHAT_TEST_KEEP"))
		fprintf(stderr, "kept: %s\n", fixture->directory);
	start_reaper(fixture->directory);
	snprintf(fixture->plugin, sizeof fixture->plugin, "%s", text_of("%s/mosquitto_chat.so", fixture->directory));
	snprintf(fixture->public_key, sizeof fixture->public_key, "%s", text_of("%s/keys/test.pem", fixture->directory));
	snprintf(fixture->private_key, sizeof fixture->private_key, "%s", text_of("%s/private/test.pem", fixture->directory));
	fixture_use_plugin(fixture, "CHAT_TEST_PLUGIN");
	broker_create(&fixture->broker, fixture->directory);
	directory_make(text_of("%s/keys", fixture->directory), 0755, NULL);
	directory_make(text_of("%s/private", fixture->directory), 0700, NULL);
	directory_make(text_of("%s/spool", fixture->broker.directory), 0700, &fixture->broker.account);
	fixture->key = fixture_make_key(fixture, "test", SIGNING_ES256);
	char *data = template_data();
	postgres_create(&fixture->postgres, fixture->directory, data, &fixture->broker.account);
	free(data);
	return fixture;
}

int fixture_setup(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	fixture_configure(fixture, NULL, NULL);
	broker_start(&fixture->broker);
	return 0;
}

/* A copy of the private key that the broker may read; the base name is the key's id. */
static const char *broker_signing_key(struct fixture *fixture)
{
	const char *directory = text_of("%s/signing", fixture->directory), *path = text_of("%s/test.pem", directory);
	char *key = file_read(fixture->private_key);
	directory_make(directory, 0755, NULL);
	file_write(path, key, 0600, &fixture->broker.account);
	free(key);
	return path;
}

int fixture_setup_accounts(void **state)
{
	struct fixture *fixture = fixture_new();
	*state = fixture;
	const char *options[] = {"guests true", "registration open", "scram true", "rate_requests 0",
		text_of("token_signing_key %s", broker_signing_key(fixture)), NULL};
	fixture_configure(fixture, options, NULL);
	broker_start(&fixture->broker);
	return 0;
}

/* What a test expects is expected during the one after it as well: a thread of the broker's may say it a moment later. */
static void forget_expected(struct fixture *fixture)
{
	size_t old = fixture->expected_before_count, kept = fixture->expected_error_count - old;
	for (size_t i = 0; i < old; i++)
		free(fixture->expected_errors[i]);
	memmove(fixture->expected_errors, fixture->expected_errors + old, kept * sizeof *fixture->expected_errors);
	fixture->expected_error_count = fixture->expected_before_count = kept;
}

void fixture_expect_error(struct fixture *fixture, const char *text)
{
	check(fixture->expected_error_count < sizeof fixture->expected_errors / sizeof *fixture->expected_errors);
	fixture->expected_errors[fixture->expected_error_count++] = strdup(text);
}

/* What the plugin says in the course of an ordinary day, refusals of sign-ins included. */
static bool is_ordinary(const char *line)
{
	static const char *const ordinary[] = {" started: ", " stopping: ", "sign-in refused", "its token has expired",
		"is disconnected: the account", "reloaded keys and options", "connected again", "wait to be committed",
		"they wait in the spool", "content rules in force: ",
		/* The machine stood still: a session with a lock for a quarter of a second, or a new one for five. */
		"another session keeps rows locked", "what was set aside is stored", "no answer within the time limit"};
	for (size_t i = 0; i < sizeof ordinary / sizeof *ordinary; i++) {
		if (strstr(line, ordinary[i]))
			return true;
	}
	return false;
}

static bool is_unexpected(const struct fixture *fixture, const char *line)
{
	bool ours = strstr(line, ": chat: ") && !is_ordinary(line);
	if (!ours && !strstr(line, "Error") && !strstr(line, "Warning"))
		return false;
	for (size_t i = 0; i < fixture->expected_error_count; i++) {
		if (strstr(line, fixture->expected_errors[i]))
			return false;
	}
	return true;
}

void fixture_forget_log(struct fixture *fixture)
{
	char *log = file_read(fixture->broker.log);
	fixture->log_checked = strlen(log);
	free(log);
	forget_expected(fixture);
	forget_texts();
	broker_log_check(&fixture->broker);
}

static void check_log(struct fixture *fixture)
{
	char *log = file_read(fixture->broker.log), *unexpected = NULL;
	check(strlen(log) >= fixture->log_checked); /* else somebody has taken it away */
	char *line = log + fixture->log_checked;
	for (char *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (!unexpected && is_unexpected(fixture, line))
			unexpected = strdup(line);
	}
	fixture->log_checked = (size_t)(line - log);
	free(log);
	forget_expected(fixture);
	forget_texts();
	broker_log_check(&fixture->broker);
	if (unexpected) {
		print_error("the broker's log: %s\n", unexpected);
		free(unexpected);
		fail_msg("an unexpected line in the broker's log");
	}
}

int fixture_after_test(void **state)
{
	struct fixture *fixture = *state;
	int status;
	clients_close_all();
	if (fixture->postgres.process.pid > 0)
		postgres_resume(&fixture->postgres);
	else
		postgres_start(&fixture->postgres);
	if (process_wait(&fixture->broker.process, 0, &status))
		broker_start(&fixture->broker);
	check_log(fixture);
	return 0;
}

int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;
	if (!fixture)
		return 0;
	broker_destroy(&fixture->broker);
	check_log(fixture);
	postgres_destroy(&fixture->postgres);
	signing_key_free(fixture->key);
	if (!getenv("CHAT_TEST_KEEP"))
		directory_remove(fixture->directory);
	forget_expected(fixture);
	free(fixture);
	*state = NULL;
	return 0;
}

/* ------------------------------------------------------------------------------------------------- clients */

struct client *fixture_client_with(struct fixture *fixture, int64_t user, struct client_options options)
{
	char *token = fixture_token(fixture, user, 0, 3600);
	options.port = options.websocket ? fixture->broker.websocket_port : fixture->broker.port;
	options.user = options.user ? options.user : "anyone";
	options.password = token;
	struct client *client = client_try(&options);
	free(token);
	if (client_connack(client) != 0)
		fail_msg("user %lld cannot sign in: CONNACK %d", (long long)user, client_connack(client));
	return client;
}

struct client *fixture_client(struct fixture *fixture, int64_t user, int version)
{
	return fixture_client_with(fixture, user, (struct client_options){.version = version});
}

void fixture_await_loaded(struct client *client)
{
	int64_t deadline_ms = now_ms() + 30000;
	while (client_subscribe(client, NOWHERE) < 0x80) {
		client_unsubscribe(client, NOWHERE);
		if (now_ms() > deadline_ms)
			fail_msg("the plugin does not load %s", client_id(client));
	}
}

struct client *fixture_member(struct fixture *fixture, int64_t user, int version, int64_t conversation)
{
	struct client *client = fixture_client(fixture, user, version);
	const char *filters[] = {answers_of(client), topic_of(conversation, "messages")};
	int codes[2];
	client_subscribe_many(client, filters, 2, codes);
	assert_int_equal(codes[0], 1);
	assert_int_equal(codes[1], 1);
	fixture_await_loaded(client);
	return client;
}

/* ---------------------------------------------------------------------------------------------------- rows */

int64_t fixture_user(struct fixture *fixture)
{
	return sql_integer(&fixture->postgres, "INSERT INTO chat.users DEFAULT VALUES RETURNING id");
}

int64_t fixture_group(struct fixture *fixture, const int64_t users[])
{
	int64_t group =
		sql_integer(&fixture->postgres, "INSERT INTO chat.conversations (type, name) VALUES ('group', 'g') RETURNING id");
	for (size_t i = 0; users[i]; i++)
		sql(&fixture->postgres,
			"INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (%lld, %lld, '%s')",
			(long long)group, (long long)users[i], i ? "member" : "owner");
	return group;
}

/* ---------------------------------------------------------------------------------------------- assertions */

void expect_message(struct client *client, int64_t conversation, int64_t seq, int64_t from, const char *body)
{
	struct message *message = client_receive(client, topic_of(conversation, "messages"));
	assert_int_equal(message_integer(message, "conversation"), conversation);
	assert_int_equal(message_integer(message, "seq"), seq);
	if (from)
		assert_int_equal(message_integer(message, "from"), from);
	if (body)
		assert_string_equal(message_string(message, "body"), body);
	message_free(message);
}

void expect_error(struct client *client, const char *code)
{
	struct message *message = client_receive(client, answers_of(client));
	assert_string_equal(message_error(message), code);
	message_free(message);
}

void expect_silence(struct client *client, const char *topic)
{
	client_fence(client);
	assert_int_equal(client_waiting(client, topic), 0);
}
