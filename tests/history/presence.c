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
/* By so much a time in the table may be cut off. What lies further back than a minute is no matter of what was not written yet.
 */
#define CUT_OFF_US 10000
#define PAST_US (60 * INT64_C(1000000))

/* So long the broker may take to know whose connection it is, a machine that stands still included. */
#define KNOWN_NS (3000 * NS_PER_MS)

static bool is_deaf(const struct workload *workload, unsigned user)
{
	return user < workload->options.users && user + workload->options.deaf_users >= workload->options.users;
}

/* Gone, but since a time before they were seen online: that is of an earlier connection, and what has come since is not written
 * yet. */
static bool is_of_before(const struct table_presence *now, const struct table_presence *seen)
{
	return seen && seen->is_online && !now->is_online && now->last_seen_us < seen->last_seen_us - CUT_OFF_US &&
	       now->last_seen_us > seen->last_seen_us - PAST_US;
}

/* Whether all who are there have been so for long enough. */
static bool all_are_known(const struct workload *workload, int64_t at_ns)
{
	for (unsigned i = 0; i < user_count(workload); i++) {
		if (atomic_load(&workload->present[i]) > 0 && atomic_load(&workload->present_since_ns[i]) >= at_ns - KNOWN_NS)
			return false;
	}
	return true;
}

/* Who reads nothing does not know whether they are connected. `seen`: NULL for the first look. */
static bool is_as_expected(const struct workload *workload, const struct table_presence *seen, int64_t at_ns)
{
	if (!seen && !all_are_known(workload, at_ns))
		return false;
	for (unsigned i = 0; i < user_count(workload); i++) {
		const struct table_presence *now = &workload->presence[i];
		if (!is_deaf(workload, i) &&
			(now->is_online != (atomic_load(&workload->present[i]) > 0) || is_of_before(now, seen ? &seen[i] : NULL)))
			return false;
	}
	return true;
}

/* False: the database does not answer. `seen`: an earlier reading, or NULL. *began_ns: when the last reading began. */
static bool read_until_expected(
	struct workload *workload, PGconn *connection, int64_t timeout_ms, const struct table_presence *seen, int64_t *began_ns)
{
	int64_t deadline_ns = history_now_ns() + timeout_ms * NS_PER_MS;
	for (;;) {
		*began_ns = history_now_ns();
		free(workload->presence);
		workload->presence = table_read_presence(connection, workload->users, user_count(workload));
		if (!workload->presence)
			return false;
		history_add(&workload->history, &(struct history_event){.kind = HISTORY_LOOKED});
		if (is_as_expected(workload, seen, *began_ns) || *began_ns > deadline_ns)
			return true;
		usleep(LOOK_MS * 1000);
	}
}

/* Who came a moment ago may be online on account of an earlier connection, and go before it is known that they were back. */
static bool is_seen(const struct workload *workload, unsigned user, int64_t at_ns)
{
	return workload->presence[user].is_online && atomic_load(&workload->present[user]) > 0 &&
	       atomic_load(&workload->present_since_ns[user]) < at_ns - KNOWN_NS;
}

static void note_seen(struct workload *workload, int64_t at_ns)
{
	for (unsigned i = 0; i < user_count(workload); i++) {
		workload->presence[i].is_online = is_seen(workload, i, at_ns);
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
	if (!read_until_expected(workload, connection, timeout_ms, NULL, &began_ns))
		return false;
	note_seen(workload, began_ns);
	struct table_presence *seen = workload->presence; /* that of one who is online was read as now */
	workload->presence = NULL;
	let_leave(workload, timeout_ms);
	bool done = read_until_expected(workload, connection, timeout_ms, seen, &began_ns);
	free(seen);
	return done;
}
