/* postgres.h - a PostgreSQL cluster of a test's own, on a Unix socket in the test's directory and nowhere else.
 *
 * It runs as the account `postgres` where the test is root. Who may be whom is said by peer authentication and an
 * ident map: the test and the broker's account may be any of the roles. Durability against power loss is switched off;
 * a killed process loses nothing all the same.
 */
#ifndef CHAT_TESTS_POSTGRES_H
#define CHAT_TESTS_POSTGRES_H

#include "process.h"

#include <libpq-fe.h>

#define PATH_SIZE 256

struct postgres {
	char data[PATH_SIZE];
	char socket[PATH_SIZE]; /* the directory */
	char log[PATH_SIZE];
	struct account account;
	struct process process;
	PGconn *connection; /* superuser, opened at first use */
};

/* Makes the cluster below `directory`: copied from the template directory where one is given, otherwise made anew with
 * schema and demo rows. Then starts it. `peers`: accounts that may be any role. */
void postgres_create(struct postgres *postgres, const char *directory, const char *template_data, const struct account *peer);
void postgres_start(struct postgres *postgres);
/* Fast shutdown, connections are cut. */
void postgres_stop(struct postgres *postgres);
/* kill -9 of the postmaster and all backends, until all are gone. */
void postgres_kill(struct postgres *postgres);
/* What `pg_ctl restart -m immediate` does: SIGQUIT, nothing is written any more, and recovery at the start. */
void postgres_restart_immediate(struct postgres *postgres);
/* kill -9 of one backend that serves the role, once there is any, whereupon the server ends all others and recovers; until it
 * answers again. `which`: any number. */
void postgres_kill_backend(struct postgres *postgres, const char *role, uint64_t which);
/* SIGSTOP and SIGCONT for the postmaster and all backends. A stopped server accepts connections and never answers. */
void postgres_pause(struct postgres *postgres);
void postgres_resume(struct postgres *postgres);
/* SIGSTOP for the backend with this application_name, at a moment when it waits for its client: it then holds no lock that others
 * need. kill(pid, SIGCONT) lets it go on. */
pid_t postgres_hold(struct postgres *postgres, const char *application);
void postgres_destroy(struct postgres *postgres);

/* A connection string for a role; `out` holds PATH_SIZE * 2. Returns out. */
const char *postgres_conninfo(const struct postgres *postgres, const char *role, char *out);
/* Another superuser connection, for tests that need two; PQfinish it. */
PGconn *postgres_connect(const struct postgres *postgres, const char *role);

/* Runs SQL (printf-like; quote literals yourself, ids only) as superuser and fails the test where it fails. */
__attribute__((format(printf, 2, 3))) void sql(struct postgres *postgres, const char *format, ...);
/* The first column of the first row as an integer, as text (to free()); the test fails where there is no row. NULL is 0 and "".
 */
__attribute__((format(printf, 2, 3))) int64_t sql_integer(struct postgres *postgres, const char *format, ...);
__attribute__((format(printf, 2, 3))) char *sql_text(struct postgres *postgres, const char *format, ...);
/* Waits until the query's first column is `value`; fails the test after 30 s. */
__attribute__((format(printf, 3, 4))) void sql_wait(struct postgres *postgres, int64_t value, const char *format, ...);

#endif
