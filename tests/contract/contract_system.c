/* contract_system.c - a whole system (fixture.h) for a test in another language.
 *
 *   contract_system COMMAND [ARGUMENT...]
 *
 * The command finds in CHAT_SYSTEM where everything is, as JSON: the broker's port, a connection string for the database as its
 * superuser, the private key that tokens are made with. When it has ended, whatever it did must have left no error in the logs of
 * broker and database, and nothing in chat_api.faults.
 */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const *command;

/* Runs the command with our own output. */
static void run_command(const struct fixture *fixture)
{
	char conninfo[PATH_SIZE * 2];
	postgres_conninfo(&fixture->postgres, "postgres", conninfo);
	const char *system = text_of(
		"{\"port\":%d,\"database\":\"%s\",\"private_key\":\"%s\"}", fixture->broker.port, conninfo, fixture->private_key);
	fflush(NULL);
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		setenv("CHAT_SYSTEM", system, 1);
		execvp(command[0], (char *const *)(uintptr_t)command);
		perror(command[0]);
		_exit(127);
	}
	int status = -1;
	check(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("%s failed", command[0]);
}

static size_t log_length(const struct fixture *fixture)
{
	char *log = file_read(fixture->postgres.log);
	size_t length = strlen(log);
	free(log);
	return length;
}

/* A lane tries again: whoever holds a lock that it wants may stand still on a slow machine, or want one of its own. */
static bool is_tried_again(const char *line)
{
	static const char *const ordinary[] = {"canceling statement due to lock timeout", "deadlock detected"};
	size_t length = strcspn(line, "\n");
	for (size_t i = 0; i < sizeof ordinary / sizeof *ordinary; i++) {
		if (memmem(line, length, ordinary[i], strlen(ordinary[i])))
			return true;
	}
	return false;
}

/* `from`: what was there before does not count. */
static void check_database_log(const struct fixture *fixture, size_t from)
{
	static const char *const levels[] = {" ERROR: ", " FATAL: ", " PANIC: "};
	char *log = file_read(fixture->postgres.log);
	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
		for (const char *line = log + from; (line = strstr(line, levels[i])); line++) {
			if (!is_tried_again(line))
				fail_msg("the database's log:%.800s", line);
		}
	}
	free(log);
}

static void test_nothing_is_in_the_logs(void **state)
{
	struct fixture *fixture = *state;
	size_t logged = log_length(fixture);
	run_command(fixture);
	char *faults = sql_text(&fixture->postgres,
		"SELECT coalesce(string_agg(format('%%s: %%s (%%s) %%s', method, message, sqlstate, context), E'\\n'), '') "
		"FROM chat_api.faults");
	if (*faults)
		fail_msg("chat_api.faults: %.1500s", faults);
	free(faults);
	check_database_log(fixture, logged);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {TEST(test_nothing_is_in_the_logs)};
	if (argc < 2) {
		fprintf(stderr, "usage: %s COMMAND [ARGUMENT...]\n", argv[0]);
		return 2;
	}
	command = (const char *const *)(argv + 1);
	return cmocka_run_group_tests_name("contract", tests, fixture_setup_accounts, fixture_teardown);
}
