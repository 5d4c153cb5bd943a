/* presence.c - how the database sees the users at the end of a run, before all of them go: see workload_inside.h. The caller's
 * thread; who is connected the driver's thread counts.
 *
 * Presence is written some time after what it tells of, so it is read again and again until it is as it should be, or the time is
 * over: what was read last is for the judge (HISTORY_LOOKED, struct table_presence). Once with all who are connected, once when
 * a part of them has left.
 */
#include "workload_inside.h"

#include <stdlib.h>
#include <unistd.h>

#define LOOK_MS 50

static bool is_deaf(const struct workload *workload, unsigned user)
{
	return user < workload->options.users && user + workload->options.deaf_users >= workload->options.users;
}

/* Who reads nothing does not know whether they are connected. */
static bool is_as_expected(const struct workload *workload)
{
	for (unsigned i = 0; i < user_count(workload); i++) {
		if (!is_deaf(workload, i) && workload->presence[i].is_online != (atomic_load(&workload->present[i]) > 0))
			return false;
	}
	return true;
}

/* False: the database does not answer. *began_ns: when the last reading began. */
static bool read_until_expected(struct workload *workload, PGconn *connection, int64_t timeout_ms, int64_t *began_ns)
{
	int64_t deadline_ns = history_now_ns() + timeout_ms * NS_PER_MS;
	for (;;) {
		*began_ns = history_now_ns();
		free(workload->presence);
		workload->presence = table_read_presence(connection, workload->users, user_count(workload));
		if (!workload->presence)
			return false;
		history_add(&workload->history, &(struct history_event){.kind = HISTORY_LOOKED});
		if (is_as_expected(workload) || *began_ns > deadline_ns)
			return true;
		usleep(LOOK_MS * 1000);
	}
}

static void note_seen(struct workload *workload, int64_t at_ns)
{
	for (unsigned i = 0; i < user_count(workload); i++) {
		if (workload->presence[i].is_online)
			history_add(&workload->history,
				&(struct history_event){.kind = HISTORY_SEEN, .at_ns = at_ns, .user = workload->users[i]});
	}
}

static void let_leave(struct workload *workload, int64_t timeout_ms)
{
	int64_t deadline_ns = history_now_ns() + timeout_ms * NS_PER_MS;
	atomic_store(&workload->phase, PHASE_LEAVING);
	while (atomic_load(&workload->phase) != PHASE_LEFT && history_now_ns() < deadline_ns)
		usleep(LOOK_MS * 1000);
}

bool presence_look(struct workload *workload, PGconn *connection, int64_t timeout_ms)
{
	int64_t began_ns;
	if (!read_until_expected(workload, connection, timeout_ms, &began_ns))
		return false;
	note_seen(workload, began_ns);
	let_leave(workload, timeout_ms);
	return read_until_expected(workload, connection, timeout_ms, &began_ns);
}
