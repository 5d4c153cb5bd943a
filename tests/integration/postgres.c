/* postgres.c - see postgres.h. One thread.
 *
 * CHAT_SOURCE_DIR is the repository, given by the build.
 */
#include "postgres.h"
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_MS = 90000, CONDITION_MS = 30000, QUERY_SIZE = 16384 };

static void join(char out[PATH_SIZE], const char *directory, const char *name)
{
	int length = snprintf(out, PATH_SIZE, "%s/%s", directory, name);
	check(length > 0 && length < PATH_SIZE);
}

/* PostgreSQL's programs are not on the path in Debian: the newest version's, or the path where there is none. */
static const char *program(const char *name, char out[PATH_SIZE])
{
	long newest = 0;
	DIR *versions = opendir("/usr/lib/postgresql");
	for (struct dirent *entry; versions && (entry = readdir(versions));) {
		long version = strtol(entry->d_name, NULL, 10);
		newest = version > newest ? version : newest;
	}
	if (versions)
		closedir(versions);
	if (newest)
		check(snprintf(out, PATH_SIZE, "/usr/lib/postgresql/%ld/bin/%s", newest, name) < PATH_SIZE);
	else
		check(snprintf(out, PATH_SIZE, "%s", name) < PATH_SIZE);
	return out;
}

const char *postgres_conninfo(const struct postgres *postgres, const char *role, char *out)
{
	check(snprintf(out, (size_t)PATH_SIZE * 2, "host=%s dbname=chat user=%s", postgres->socket, role) < PATH_SIZE * 2);
	return out;
}

PGconn *postgres_connect(const struct postgres *postgres, const char *role)
{
	char conninfo[PATH_SIZE * 2];
	PGconn *connection = PQconnectdb(postgres_conninfo(postgres, role, conninfo));
	if (PQstatus(connection) != CONNECTION_OK)
		fail_msg("%s", PQerrorMessage(connection));
	return connection;
}

/* ------------------------------------------------------------------------------------------ making it */

static void make_access_rules(const struct postgres *postgres, const struct account *peer)
{
	static const char *const roles[] = {"postgres", "chat_plugin", "chat_notifier", "chat_admin"};
	char path[PATH_SIZE], map[8192];
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *accounts[] = {postgres->account.name, peer->name, self.name};
	size_t length = 0;
	for (size_t i = 0; i < 3; i++) {
		for (size_t j = 0; j < sizeof roles / sizeof *roles; j++)
			length += (size_t)snprintf(map + length, sizeof map - length, "test %s %s\n", accounts[i], roles[j]);
	}
	check(length < sizeof map);
	join(path, postgres->data, "pg_ident.conf");
	file_write(path, map, 0600, &postgres->account);
	join(path, postgres->data, "pg_hba.conf");
	file_write(path, "local all all peer map=test\n", 0600, &postgres->account);
}

static void make_cluster(const struct postgres *postgres)
{
	char initdb[PATH_SIZE];
	program("initdb", initdb);
	const char *argv[] = {initdb, "-D", postgres->data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=peer",
		"--no-sync", NULL};
	process_run("initdb", argv, NULL, &postgres->account, postgres->log);
}

static void make_schema(struct postgres *postgres, const struct account *self)
{
	char conninfo[PATH_SIZE * 2], host[PATH_SIZE];
	const char *createdb[] = {"createdb", "-h", postgres->socket, "-U", "postgres", "-T", "template0", "-E", "UTF8",
		"--locale=C.UTF-8", "chat", NULL};
	process_run("createdb", createdb, NULL, self, postgres->log);
	postgres_conninfo(postgres, "postgres", conninfo);
	const char *migrate[] = {CHAT_SOURCE_DIR "/schema/migrate", conninfo, NULL};
	process_run("migrate", migrate, NULL, self, postgres->log);
	check(snprintf(host, sizeof host, "%s", postgres->socket) < (int)sizeof host);
	const char *demo[] = {
		"psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-f", CHAT_SOURCE_DIR "/examples/demo.sql", NULL};
	process_run("psql", demo, NULL, self, postgres->log);
}

void postgres_create(struct postgres *postgres, const char *directory, const char *template_data, const struct account *peer)
{
	struct account self = account_find((const char *const[]){"root", NULL});
	*postgres = (struct postgres){.account = account_find((const char *const[]){"postgres", "nobody", NULL})};
	join(postgres->data, directory, "data");
	join(postgres->socket, directory, "socket");
	join(postgres->log, directory, "postgres.log");
	directory_make(postgres->socket, 0755, &postgres->account);
	if (template_data) {
		const char *copy[] = {"cp", "-a", template_data, postgres->data, NULL};
		process_run("cp", copy, NULL, &self, postgres->log);
	} else {
		directory_make(postgres->data, 0700, &postgres->account);
		make_cluster(postgres);
	}
	make_access_rules(postgres, peer);
	postgres_start(postgres);
	if (!template_data)
		make_schema(postgres, &self);
}

/* ------------------------------------------------------------------------------------ starting, stopping */

static bool answers(const struct postgres *postgres)
{
	char conninfo[PATH_SIZE * 2];
	check(snprintf(conninfo, sizeof conninfo, "host=%s dbname=postgres user=postgres connect_timeout=2", postgres->socket) <
		(int)sizeof conninfo);
	return PQping(conninfo) == PQPING_OK;
}

void postgres_start(struct postgres *postgres)
{
	char server[PATH_SIZE], sockets[PATH_SIZE + 32];
	program("postgres", server);
	check(snprintf(sockets, sizeof sockets, "unix_socket_directories=%s", postgres->socket) < (int)sizeof sockets);
	const char *argv[] = {server, "-D", postgres->data, "-c", "listen_addresses=", "-c", sockets, "-c", "fsync=off", "-c",
		"shared_buffers=32MB", "-c", "max_connections=60", "-c", "log_min_messages=warning", "-c", "autovacuum=off", "-c",
		"track_commit_timestamp=on", NULL};
	int64_t deadline_ms = now_ms() + START_MS;
	/* After kill -9 the old shared memory may still be in use for a moment: the server says so and ends. */
	while (!answers(postgres)) {
		int status;
		if (process_wait(&postgres->process, 0, &status))
			process_start(&postgres->process, "postgres", argv, NULL, &postgres->account, postgres->log, SIGQUIT);
		if (now_ms() > deadline_ms) {
			char *log = file_read(postgres->log);
			print_tail(log);
			free(log);
			fail_msg("PostgreSQL does not answer");
		}
		look_again_soon();
	}
}

static void forget_connection(struct postgres *postgres)
{
	PQfinish(postgres->connection);
	postgres->connection = NULL;
}

void postgres_stop(struct postgres *postgres)
{
	forget_connection(postgres);
	process_end(&postgres->process, SIGINT);
}

void postgres_kill(struct postgres *postgres)
{
	int status;
	forget_connection(postgres);
	process_signal_tree(&postgres->process, SIGKILL);
	check(process_wait(&postgres->process, now_ms() + START_MS, &status));
}

void postgres_restart_immediate(struct postgres *postgres)
{
	forget_connection(postgres);
	process_end(&postgres->process, SIGQUIT);
	postgres_start(postgres);
}

/* 0: the role has none at this moment. */
static pid_t find_backend(struct postgres *postgres, const char *role, uint64_t which)
{
	return (pid_t)sql_integer(postgres,
		"SELECT coalesce((array_agg(pid ORDER BY pid))[1 + %llu %% greatest(count(*), 1)], 0) FROM pg_stat_activity "
		"WHERE usename = '%s'",
		(unsigned long long)which, role);
}

void postgres_kill_backend(struct postgres *postgres, const char *role, uint64_t which)
{
	int64_t deadline_ms = now_ms() + START_MS;
	pid_t pid = 0;
	while (pid == 0 || kill(pid, SIGKILL)) {
		if (now_ms() > deadline_ms)
			fail_msg("nobody is connected as %s", role);
		pid = find_backend(postgres, role, which);
	}
	forget_connection(postgres);
	/* Once the postmaster has reaped it, it answers nobody before it has recovered. */
	while (kill(pid, 0) == 0 || !answers(postgres)) {
		if (now_ms() > deadline_ms)
			fail_msg("PostgreSQL does not recover from the death of a backend");
		look_again_soon();
	}
}

void postgres_pause(struct postgres *postgres)
{
	process_signal_tree(&postgres->process, SIGSTOP);
}

void postgres_resume(struct postgres *postgres)
{
	process_signal_tree(&postgres->process, SIGCONT);
}

/* Of a stopped process: whether it was waiting for a socket. Where the kernel does not tell (/proc/pid/syscall), it is taken for
 * granted. */
static bool stopped_while_waiting(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	for (char state = '?'; state != 'T' && state != 'Z'; look_again_soon()) {
		char *stat = file_read(path), *end = strrchr(stat, ')');
		state = end && end[1] ? end[2] : 'Z';
		free(stat);
	}
	snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	char *text = file_read(path), *rest;
	long number = strtol(text, &rest, 10);
	bool waiting = rest == text || number == SYS_epoll_pwait;
#ifdef SYS_epoll_wait
	waiting = waiting || number == SYS_epoll_wait;
#endif
	free(text);
	return waiting;
}

pid_t postgres_hold(struct postgres *postgres, const char *application)
{
	int64_t deadline_ms = now_ms() + CONDITION_MS;
	pid_t pid = (pid_t)sql_integer(postgres, "SELECT pid FROM pg_stat_activity WHERE application_name = '%s'", application);
	check(pid > 0 && kill(pid, SIGSTOP) == 0);
	while (!stopped_while_waiting(pid)) {
		check(kill(pid, SIGCONT) == 0 && now_ms() < deadline_ms);
		look_again_soon();
		check(kill(pid, SIGSTOP) == 0);
	}
	return pid;
}

void postgres_destroy(struct postgres *postgres)
{
	forget_connection(postgres);
	if (postgres->process.pid > 0) {
		postgres_resume(postgres);
		process_end(&postgres->process, SIGQUIT);
	}
}

/* --------------------------------------------------------------------------------------------------- SQL */

__attribute__((format(printf, 2, 0))) static PGresult *run(struct postgres *postgres, const char *format, va_list arguments)
{
	char query[QUERY_SIZE];
	int length = vsnprintf(query, sizeof query, format, arguments);
	check(length > 0 && (size_t)length < sizeof query);
	if (!postgres->connection)
		postgres->connection = postgres_connect(postgres, "postgres");
	PGresult *result = PQexec(postgres->connection, query);
	ExecStatusType status = PQresultStatus(result);
	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
		char error[1024];
		snprintf(error, sizeof error, "%s", PQresultErrorMessage(result));
		PQclear(result);
		fail_msg("%s\n%s", query, error);
	}
	return result;
}

void sql(struct postgres *postgres, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	PQclear(run(postgres, format, arguments));
	va_end(arguments);
}

static char *first_field(PGresult *result)
{
	if (PQntuples(result) < 1 || PQnfields(result) < 1) {
		PQclear(result);
		fail_msg("the query returned no row");
	}
	char *text = strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	check(text != NULL);
	return text;
}

static int64_t take_integer(char *text)
{
	int64_t value = text[0] == 't' ? 1 : strtoll(text, NULL, 10);
	free(text);
	return value;
}

int64_t sql_integer(struct postgres *postgres, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	char *text = first_field(run(postgres, format, arguments));
	va_end(arguments);
	return take_integer(text);
}

char *sql_text(struct postgres *postgres, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	char *text = first_field(run(postgres, format, arguments));
	va_end(arguments);
	return text;
}

void sql_wait(struct postgres *postgres, int64_t value, const char *format, ...)
{
	int64_t deadline_ms = now_ms() + CONDITION_MS, seen;
	do {
		va_list arguments;
		va_start(arguments, format);
		seen = take_integer(first_field(run(postgres, format, arguments)));
		va_end(arguments);
		if (seen == value)
			return;
		look_again_soon();
	} while (now_ms() < deadline_ms);
	fail_msg("waited for %lld, last saw %lld: %s", (long long)value, (long long)seen, format);
}
