/* test_cli.c - the chat client of examples/cli as a person uses it: through a terminal.
 *
 * Each client runs in a pseudo-terminal of its own. What it prints is kept as it came (`raw`), and without its escape sequences
 * (`seen`), in which terminal_expect looks for what must appear.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_MAX = 4 << 20, TERMINALS_MAX = 4, WAIT_MS = 60000 };

struct terminal {
	int fd; /* -1: none */
	pid_t pid;
	char *raw, *seen;
	size_t raw_length, seen_length, looked; /* `looked`: where in `seen` the next terminal_expect begins */
	int escape;                             /* how far into an escape sequence `raw` is */
};

static struct terminal terminals[TERMINALS_MAX];

/* ----------------------------------------------------------------------------------------------- terminals */

static const char *account_of(struct fixture *fixture, const char *name)
{
	return text_of("%s/cli/%s/account", fixture->directory, name);
}

/* Of the sequences that the client's own libraries make: ESC [ parameters, a letter. */
static void see(struct terminal *terminal, char byte)
{
	if (terminal->escape == 0 && byte == '\033') {
		terminal->escape = 1;
	} else if (terminal->escape == 1) {
		terminal->escape = byte == '[' ? 2 : 0;
	} else if (terminal->escape == 2) {
		terminal->escape = byte >= '@' && byte <= '~' ? 0 : 2;
	} else if (terminal->seen_length < OUTPUT_MAX - 1) {
		terminal->seen[terminal->seen_length++] = byte;
		terminal->seen[terminal->seen_length] = '\0';
	}
}

/* Reads what the client has printed; false at its end. */
static bool terminal_read(struct terminal *terminal, int timeout_ms)
{
	char bytes[4096];
	struct pollfd polled = {.fd = terminal->fd, .events = POLLIN};
	if (poll(&polled, 1, timeout_ms) <= 0)
		return true;
	ssize_t got = read(terminal->fd, bytes, sizeof bytes);
	for (ssize_t i = 0; i < got; i++) {
		if (terminal->raw_length < OUTPUT_MAX - 1)
			terminal->raw[terminal->raw_length++] = bytes[i];
		see(terminal, bytes[i]);
	}
	terminal->raw[terminal->raw_length] = '\0';
	return got > 0;
}

static struct terminal *terminal_start(struct fixture *fixture, const char *name)
{
	static const struct winsize size = {.ws_row = 40, .ws_col = 120};
	const char *program = getenv("CHAT_TEST_CLI"), *port = text_of("%d", fixture->broker.port),
		   *account = account_of(fixture, name);
	struct terminal *terminal = terminals;
	while (terminal->pid)
		terminal++;
	assert_true(terminal < terminals + TERMINALS_MAX);
	assert_non_null(program);
	*terminal = (struct terminal){.raw = calloc(1, OUTPUT_MAX), .seen = calloc(1, OUTPUT_MAX)};
	assert_true(terminal->raw && terminal->seen);
	fflush(NULL);
	pid_t pid = forkpty(&terminal->fd, NULL, NULL, &size);
	assert_true(pid >= 0); /* else there are no pseudo-terminals here: and -1 is nobody to signal later */
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("TERM", "xterm", 1);
		setenv("LC_ALL", "C.UTF-8", 1);
		execl(program, program, "--port", port, "--account", account, (char *)NULL);
		_exit(127);
	}
	terminal->pid = pid;
	fcntl(terminal->fd, F_SETFD, FD_CLOEXEC);
	return terminal;
}

/* Waits for the client's end and returns its exit status. */
static int terminal_end(struct terminal *terminal)
{
	int status = 0;
	int64_t deadline_ms = now_ms() + WAIT_MS;
	while (terminal_read(terminal, 100) && now_ms() < deadline_ms)
		;
	if (now_ms() >= deadline_ms)
		kill(terminal->pid, SIGKILL);
	assert_int_equal(waitpid(terminal->pid, &status, 0), terminal->pid);
	close(terminal->fd);
	free(terminal->raw);
	free(terminal->seen);
	*terminal = (struct terminal){.fd = -1};
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void terminal_type(struct terminal *terminal, const char *text)
{
	assert_int_equal(write(terminal->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void terminal_command(struct terminal *terminal, const char *line)
{
	terminal_type(terminal, text_of("%s\r", line));
}

static const char *find(const struct terminal *terminal, const char *text)
{
	return strstr(terminal->seen + terminal->looked, text);
}

/* Waits until one of two texts (`other` may be NULL) stands behind what was waited for before. All terminals are read meanwhile,
 * or a client would wait for its terminal. */
static void terminal_expect_one(struct terminal *terminal, const char *text, const char *other)
{
	int64_t deadline_ms = now_ms() + allowed_ms(WAIT_MS);
	const char *found;
	while (!(found = find(terminal, text)) && !(other && (found = find(terminal, other)))) {
		if (now_ms() >= deadline_ms) {
			print_tail(terminal->seen);
			fail_msg("the terminal does not show: %s", text);
		}
		for (size_t i = 0; i < TERMINALS_MAX; i++) {
			if (terminals[i].pid)
				terminal_read(&terminals[i], &terminals[i] == terminal ? 50 : 0);
		}
		clients_turn(0);
	}
	terminal->looked = (size_t)(found - terminal->seen) + strlen(found == find(terminal, text) ? text : other);
}

static void terminal_expect(struct terminal *terminal, const char *text)
{
	terminal_expect_one(terminal, text, NULL);
}

/* Asks again until the index of the search, which follows a moment behind, has the message. */
static void terminal_search(struct terminal *terminal, const char *words, const char *text)
{
	size_t from;
	do {
		terminal_command(terminal, text_of("/search %s", words));
		from = terminal->looked;
		terminal_expect_one(terminal, text, "Nothing found.");
	} while (!strstr(terminal->seen + from, text));
}

static void terminal_sign_up(struct terminal *terminal, const char *name)
{
	terminal_expect(terminal, "Nobody is signed in");
	terminal_command(terminal, text_of("/register %s", name));
	terminal_expect(terminal, "Password: ");
	terminal_command(terminal, text_of("password of %s", name));
	terminal_expect(terminal, "Once more: ");
	terminal_command(terminal, text_of("password of %s", name));
	terminal_expect(terminal, text_of("You are %s.", name));
	assert_null(strstr(terminal->seen, "password of"));
}

/* How often the text was printed. */
static int times_seen(const struct terminal *terminal, const char *text)
{
	int count = 0;
	for (const char *at = terminal->seen; (at = strstr(at, text)); at++)
		count++;
	return count;
}

static int after_test(void **state)
{
	bool ended_well = true;
	for (size_t i = 0; i < TERMINALS_MAX; i++) {
		if (terminals[i].pid) {
			kill(terminals[i].pid, SIGTERM);
			ended_well = terminal_end(&terminals[i]) == 0 && ended_well;
		}
	}
	return fixture_after_test(state) || !ended_well;
}

/* -------------------------------------------------------------------------------------------------- tests */

/* The answer to /create waits for what tells the broker of it, but not for ever, and a subscription to what the broker does not
 * know of yet is refused: it is tried again. */
static void test_conversation_before_it_is_known(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *ann = terminal_start(fixture, "early");
	terminal_sign_up(ann, "earlybird");
	pid_t loader = postgres_hold(&fixture->postgres, "mosquitto-chat loader");
	terminal_command(ann, "/create Early");
	terminal_expect(ann, "earlybird made this conversation: Early");
	check(kill(loader, SIGCONT) == 0);
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, sender_id, type, body) SELECT conversation_id, user_id, 'text', "
		"'from elsewhere' FROM chat.conversation_participants JOIN chat.users u ON u.id = user_id WHERE u.username "
		"= 'earlybird'");
	terminal_expect(ann, "earlybird: from elsewhere");
}

/* The whole of it, in the order in which a newcomer does it. */
static void test_newcomer(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *ann = terminal_start(fixture, "ann"), *ben = terminal_start(fixture, "ben");
	terminal_sign_up(ann, "annabel");
	terminal_sign_up(ben, "benjamin");
	terminal_expect(ann, "No conversations yet");

	terminal_command(ann, "/create Garden party");
	terminal_expect(ann, "annabel made this conversation: Garden party");
	terminal_command(ann, "/invite Benjamin nobody-at-all");
	terminal_expect(ann, "There is no user nobody-at-all.");
	terminal_command(ann, "/invite Benjamin");
	terminal_expect(ann, "annabel added benjamin");
	terminal_expect(ben, "You are in Garden party now");

	/* A message to who has another conversation open, or none; then both talk. */
	terminal_command(ann, "Shall we meet?");
	terminal_expect(ann, "annabel: Shall we meet?");
	terminal_expect(ben, "[Garden party] annabel: Shall we meet?");
	terminal_expect(ann, "delivered");
	terminal_command(ben, "/list");
	terminal_expect(ben, "Garden party  (group)  1 unread");
	terminal_command(ben, "/open garden PARTY");
	terminal_expect(ben, "annabel: Shall we meet?");
	terminal_expect(ann, "read by benjamin");
	terminal_type(ben, "On Sun");
	terminal_expect(ann, "benjamin is typing");

	/* What comes while a line is being typed leaves it as it is. */
	terminal_command(ann, "//slash, and a smile: \xf0\x9f\x99\x82");
	terminal_expect(ben, "annabel: /slash, and a smile: \xf0\x9f\x99\x82");
	terminal_expect(ben, "Garden party> On Sun");
	terminal_command(ben, "day.");
	terminal_expect(ben, "benjamin: On Sunday.");
	terminal_expect(ann, "benjamin: On Sunday.");

	terminal_command(ann, "/members");
	terminal_expect(ann, "owner");
	terminal_search(ann, "sunday", "benjamin: On Sunday.");
	terminal_command(ann, "/search xylophone");
	terminal_expect(ann, "Nothing found.");
	terminal_command(ann, "/nonsense");
	terminal_expect(ann, "There is no such command");
	terminal_command(ann, "/quit");
	assert_int_equal(terminal_end(ann), 0);

	/* The next start needs no password, and what the file holds is for its owner. */
	struct stat about;
	assert_int_equal(stat(account_of(fixture, "ann"), &about), 0);
	assert_int_equal(about.st_mode & 07777, 0600);
	terminal_command(ben, "Are you there?");
	terminal_expect(ben, "benjamin: Are you there?");
	ann = terminal_start(fixture, "ann");
	terminal_expect(ann, "You are annabel.");
	terminal_expect(ann, "Garden party  (group)  1 unread");

	/* Signing out ends that: here, and in the database. */
	terminal_command(ann, "/logout");
	terminal_expect(ann, "Signed out.");
	assert_int_equal(stat(account_of(fixture, "ann"), &about), -1);
	terminal_command(ann, "/login annabel");
	terminal_expect(ann, "Password: ");
	terminal_command(ann, "not the password");
	terminal_expect(ann, "! ");
	terminal_command(ann, "/login annabel");
	terminal_expect(ann, "Password: ");
	terminal_command(ann, "password of annabel");
	terminal_expect(ann, "You are annabel.");
	terminal_expect(ann, "(group)");
	terminal_expect(ann, "> "); /* before that the terminal itself would take the key */
	terminal_type(ann, "\004");
	assert_int_equal(terminal_end(ann), 0);
}

/* A log of several pages, read backwards. */
static void test_history(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *terminal = terminal_start(fixture, "historian");
	terminal_sign_up(terminal, "historian");
	terminal_command(terminal, "/create Archive");
	terminal_expect(terminal, "historian made this conversation: Archive");
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, sender_id, type, body) SELECT c.id, u.id, 'text', "
				"'entry ' || n || '.' "
				"FROM chat.conversations c, chat.users u, generate_series(2, 50) n WHERE c.name = 'Archive' AND "
				"u.username = 'historian'");
	terminal_expect(terminal, "entry 50.");
	terminal_command(terminal, "/open Archive");
	terminal_expect(terminal, "entry 31.");
	terminal_expect(terminal, "entry 50.");
	terminal_expect(terminal, "/history shows what is before");
	terminal_command(terminal, "/history");
	terminal_expect(terminal, "entry 11.");
	terminal_expect(terminal, "entry 30.");
	terminal_command(terminal, "/history");
	terminal_expect(terminal, "historian made this conversation: Archive");
	terminal_expect(terminal, "entry 10.");
	terminal_expect(terminal, "this is the beginning");
	assert_int_equal(times_seen(terminal, "entry 5."), 2);
}

/* The broker goes and comes back: what was said and written meanwhile is there once, in both directions. */
static void test_reconnect(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *one = terminal_start(fixture, "one"), *two = terminal_start(fixture, "two");
	terminal_sign_up(one, "firstperson");
	terminal_sign_up(two, "secondperson");
	terminal_command(one, "/direct secondperson");
	terminal_expect(one, "this is the beginning");
	terminal_expect(two, "You are in firstperson now");
	terminal_command(two, "/open firstperson");
	terminal_expect(two, "this is the beginning");
	terminal_command(one, "before the storm");
	terminal_expect(two, "firstperson: before the storm");
	broker_stop(&fixture->broker);
	terminal_expect(one, "No connection to 127.0.0.1");
	terminal_expect(two, "No connection to 127.0.0.1");
	terminal_command(one, "from one, in the storm");
	terminal_expect(one, "offline");
	terminal_command(two, "from two, in the storm");
	/* What nobody was there to deliver: 300 messages are more than one answer of a sync. */
	sql(&fixture->postgres, "INSERT INTO chat.messages (conversation_id, sender_id, type, body) SELECT c.id, "
				"c.first_user_id, 'text', 'storm ' || n || '.' "
				"FROM chat.conversations c, chat.users u, generate_series(1, 300) n "
				"WHERE u.username = 'firstperson' AND c.first_user_id = u.id");
	broker_start(&fixture->broker);
	struct terminal *both[] = {one, two};
	for (size_t i = 0; i < 2; i++) {
		size_t from = both[i]->looked;
		terminal_expect(both[i], "storm 300.");
		both[i]->looked = from;
		terminal_expect(both[i], "firstperson: from one, in the storm");
		both[i]->looked = from;
		terminal_expect(both[i], "secondperson: from two, in the storm");
		both[i]->looked = from;
		terminal_expect(both[i], "Connected again.");
	}
	terminal_command(one, "after the storm");
	terminal_expect(two, "firstperson: after the storm");
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(times_seen(both[i], "firstperson: from one, in the storm"), 1);
		assert_int_equal(times_seen(both[i], "secondperson: from two, in the storm"), 1);
		for (int n = 1; n <= 300; n++)
			assert_int_equal(times_seen(both[i], text_of("firstperson: storm %d.", n)), 1);
	}
	assert_int_equal(
		sql_integer(&fixture->postgres, "SELECT count(*) FROM chat.messages WHERE body LIKE 'from %%, in the storm'"), 2);
}

/* Removed and added again while nobody was looking: what came between is not shown, and not waited for. */
static void test_added_again(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *terminal = terminal_start(fixture, "again");
	terminal_sign_up(terminal, "comesback");
	int64_t user = sql_integer(&fixture->postgres, "SELECT id FROM chat.users WHERE username = 'comesback'");
	int64_t group = GROUP_OF(fixture, BOB, user);
	terminal_expect(terminal, "You are in");
	terminal_command(terminal, text_of("/open %lld", (long long)group));
	terminal_expect(terminal, "this is the beginning");
	broker_stop(&fixture->broker);
	terminal_expect(terminal, "No connection");
	sql(&fixture->postgres, "DELETE FROM chat.conversation_participants WHERE conversation_id = %lld AND user_id = %lld",
		(long long)group, (long long)user);
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, sender_id, type, body) VALUES (%lld, %d, 'text', 'without you')",
		(long long)group, BOB);
	sql(&fixture->postgres, "INSERT INTO chat.conversation_participants (conversation_id, user_id) VALUES (%lld, %lld)",
		(long long)group, (long long)user);
	sql(&fixture->postgres,
		"INSERT INTO chat.messages (conversation_id, sender_id, type, body) VALUES (%lld, %d, 'text', 'with you')",
		(long long)group, BOB);
	broker_start(&fixture->broker);
	terminal_expect(terminal, "bob: with you");
	terminal_expect(terminal, "Connected again.");
	terminal_command(terminal, "and with me");
	terminal_expect(terminal, "comesback: and with me");
	assert_null(strstr(terminal->seen, "without you"));
}

/* What others write never commands the terminal, wherever it is shown. */
static void test_hostile_text(void **state)
{
	struct fixture *fixture = *state;
	static const char *const hostile[] = {"\033]0;owned\007", "\033[31;7m", "\033[2J", "\033c", "\033P1$q\033\\",
		("\xc2\x9b"
		 "31m"),
		"\xc2\x90", "\xe2\x80\xae", "\xe2\x80\x8b", "\xf3\xa0\x81\x81", "\x08\x08\x08", "\x7f"};
	struct terminal *terminal = terminal_start(fixture, "careful");
	terminal_sign_up(terminal, "careful");
	int64_t user = sql_integer(&fixture->postgres, "SELECT id FROM chat.users WHERE username = 'careful'");
	/* The rules of names would refuse these; a client does not count on that. */
	sql(&fixture->postgres, "UPDATE chat.users SET display_name = E'Bob\\033[2J\\u202e' WHERE id = %d", BOB);
	int64_t group = sql_integer(&fixture->postgres,
		"INSERT INTO chat.conversations (type, name) VALUES ('group', E'\\033]0;owned\\007name') RETURNING id");
	sql(&fixture->postgres,
		"INSERT INTO chat.conversation_participants (conversation_id, user_id, role) VALUES (%lld, %lld, 'owner'), "
		"(%lld, "
		"%d, 'member')",
		(long long)group, (long long)user, (long long)group, BOB);
	struct client *bob = fixture_member(fixture, BOB, 5, group);
	terminal_command(terminal, text_of("/open %lld", (long long)group));
	terminal_expect(terminal, "this is the beginning");
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		assert_true(client_publish(bob, topic_of(group, "send"), text_of("%s<%zu needle>", hostile[i], i), 1) < 0x80);
		terminal_expect(terminal, text_of("<%zu needle>", i));
	}
	assert_true(client_publish(bob, topic_of(group, "send"), "one\ntwo\rthree", 1) < 0x80);
	terminal_expect(terminal, "one");
	terminal_expect(terminal, "\n      two\xe2\x90\x8dthree");
	assert_true(client_publish(bob, topic_of(group, "send"),
			    "{\"body\":\"x\",\"type\":\"file\",\"attachments\":[{\"key\":\"k\",\"name\":\"\\u001b[2Jfile\","
			    "\"type\":\"a/b\",\"size\":1}]}",
			    1) < 0x80);
	terminal_expect(terminal, "file]");
	terminal_command(terminal, "/members");
	terminal_expect(terminal, "Bob");
	terminal_command(terminal, "/history");
	terminal_search(terminal, "needle", "bob: ");
	terminal_command(terminal, "/list");
	terminal_expect(terminal, "name  (group)");
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		/* A correction of the typed line may well go back a few places. */
		if (hostile[i][0] != '\x08')
			assert_null(memmem(terminal->raw, terminal->raw_length, hostile[i], strlen(hostile[i])));
	}
	assert_non_null(strstr(terminal->seen, "bob: \xe2\x90\x88\xe2\x90\x88\xe2\x90\x88<10 needle>"));
	sql(&fixture->postgres, "UPDATE chat.users SET display_name = 'Bob' WHERE id = %d", BOB);
}

/* A file that others can read is not used; one for another server is not shown to this one. */
static void test_account_file(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *terminal = terminal_start(fixture, "keeper");
	terminal_sign_up(terminal, "thekeeper");
	terminal_command(terminal, "/quit");
	assert_int_equal(terminal_end(terminal), 0);
	const char *path = account_of(fixture, "keeper");
	assert_int_equal(chmod(path, 0644), 0);
	terminal = terminal_start(fixture, "keeper");
	terminal_expect(terminal, "can be read by others");
	terminal_expect(terminal, "Nobody is signed in");
	terminal_command(terminal, "/quit");
	assert_int_equal(terminal_end(terminal), 0);

	char *text = file_read(path), *port = strstr(text, "127.0.0.1:");
	assert_non_null(port);
	port[10] = port[10] == '9' ? '8' : '9';
	file_write(path, text, 0600, NULL);
	assert_int_equal(chmod(path, 0600), 0);
	free(text);
	terminal = terminal_start(fixture, "keeper");
	terminal_expect(terminal, "Nobody is signed in");
}

/* The device is signed out elsewhere: the client says so and does not come again. */
static void test_dismissed(void **state)
{
	struct fixture *fixture = *state;
	struct terminal *terminal = terminal_start(fixture, "dismissed");
	terminal_sign_up(terminal, "dismissed");
	sql(&fixture->postgres, "UPDATE chat.devices SET revoked_at = now() WHERE user_id = (SELECT id FROM chat.users WHERE "
				"username = 'dismissed')");
	terminal_expect(terminal, "does not let this device in any more");
	terminal_command(terminal, "/quit");
	assert_int_equal(terminal_end(terminal), 0);
	terminal = terminal_start(fixture, "dismissed");
	terminal_expect(terminal, "does not let this device in any more");
	fixture_expect_error(fixture, "is disconnected");
}

static int setup(void **state)
{
	int status = fixture_setup_accounts(state);
	directory_make(text_of("%s/cli", ((struct fixture *)*state)->directory), 0700, NULL);
	return status;
}

#define TERMINAL_TEST(name) cmocka_unit_test_teardown(name, after_test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TERMINAL_TEST(test_conversation_before_it_is_known),
		TERMINAL_TEST(test_newcomer),
		TERMINAL_TEST(test_history),
		TERMINAL_TEST(test_reconnect),
		TERMINAL_TEST(test_added_again),
		TERMINAL_TEST(test_hostile_text),
		TERMINAL_TEST(test_account_file),
		TERMINAL_TEST(test_dismissed),
	};
	return cmocka_run_group_tests_name("cli", tests, setup, fixture_teardown);
}
