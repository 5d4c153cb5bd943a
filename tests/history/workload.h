/* workload.h - clients that use the product as people do, without pause, and write down what they see (history.h).
 *
 * Users with several devices each (MQTT 3.1.1 and 5, TCP and WebSocket), in pairs, groups and one hot conversation that
 * gets half the traffic. Each device keeps 1 to 8 QoS 1 messages under way, sends again under the same id what had no
 * PUBACK when its connection ended, repeats some on purpose, sends some that must be refused, marks what it has read, and
 * disconnects now and then, with DISCONNECT or without. An administrator adds and removes members by SQL. Visitors come and go,
 * and do nothing else; half of those whom a fault meets stay away until the next one.
 *
 *   struct workload_options options = workload_options_small();
 *   options.port = ...; options.conninfo = ...; options.make_token = ...;
 *   struct workload *workload = workload_start(&options, error, sizeof error);
 *   ... faults, each told with workload_note_fault; the broker and the database may die and come back ...
 *   const char *hung = workload_settle(workload, 60000);    NULL, or what did not come to an end
 *   workload_read_table(workload, &table);
 *   judge(workload_history(workload), &table, ...);
 *   workload_free(workload);
 *
 * Everything that a client decides comes from the seed, so a run with the same seed sends the same messages; when it
 * sends them depends on the server. All clients are driven by one thread of the workload's own, the administrator by
 * another; the functions here are for the thread that called workload_start, and none of them but workload_settle waits.
 */
#ifndef CHAT_TESTS_WORKLOAD_H
#define CHAT_TESTS_WORKLOAD_H

#include "history.h"
#include "table.h"

/* Where a body of `poison` begins with this, behind its mark, a trigger of the caller's is to refuse it. No other body does. */
#define WORKLOAD_POISON "!"

struct workload_options {
	uint64_t seed;        /* 0: one is made from the clock. It is printed to stderr */
	const char *host;     /* an IPv4 address */
	int port;             /* TCP */
	int websocket_port;   /* 0: no WebSocket clients */
	const char *conninfo; /* a role that may write all tables: makes users and conversations, changes members, reads */
	char *(*make_token)(void *context, int64_t user); /* to be freed; called by workload_start only */
	void *context;

	unsigned users;
	unsigned devices_max; /* of a user: 1 to so many */
	unsigned pairs;       /* conversations of two, of group_members, and the hot one */
	unsigned groups;
	unsigned group_members;
	unsigned large_groups; /* and of large_group_members */
	unsigned large_group_members;
	unsigned hot_members; /* 0: all */
	unsigned deaf_users;  /* the last so many subscribe, and then read nothing any more; nor do they send */
	unsigned visitors;    /* users beside those, with one device each: for presence */
	unsigned comers;      /* members of each group and of the hot conversation who come and go */
	unsigned window_max;  /* a device's messages under way: 1 to so many, at most 8 */
	unsigned rate_per_s;  /* of all together; 0: as fast as the windows allow, more than the broker carries to everybody */

	unsigned hot_percent;
	unsigned own_id_percent;
	unsigned reply_percent; /* of those with an id: ask for the `sent` answer */
	unsigned duplicate_percent;
	unsigned reject_percent;
	bool poison; /* a tenth of these are WORKLOAD_POISON, the fault of which nobody can tell but the table */
	unsigned mark_percent;
	unsigned body_max;         /* bytes, beside the mark */
	unsigned long_every;       /* each so many'th message of a device has 100,000 characters; 0: none */
	unsigned changes_per_s;    /* of members */
	unsigned connected_min_ms; /* a connection lives between these; 0: until the end */
	unsigned connected_max_ms;

	const char *lines_path; /* NULL: none; the events as JSON lines */
};

/* Some 12 devices, for seconds. */
struct workload_options workload_options_small(void);
/* As threats.md 4.1 says, for minutes: 40 users, 25 conversations. */
struct workload_options workload_options_full(void);

struct workload;

/* Makes the users, the conversations and the devices, and begins. NULL: error says why. */
struct workload *workload_start(const struct workload_options *options, char *error, size_t error_size);
void workload_set_rate(struct workload *workload, unsigned rate_per_s);
/* The broker may come back elsewhere. */
void workload_set_ports(struct workload *workload, int port, int websocket_port);
/* Something was done to the system just now. `name` is cut to 21 bytes. */
void workload_note_fault(struct workload *workload, const char *name);

/* What was counted so far. */
struct workload_counts {
	uint64_t sent;      /* PUBLISHes of messages, repeats included */
	uint64_t acked;     /* successful PUBACKs of messages */
	uint64_t received;  /* deliveries */
	uint64_t connects;  /* of who is no visitor */
	unsigned connected; /* devices that are signed in now */
};
struct workload_counts workload_counts(const struct workload *workload);

/* After the last fault, with everything running again: no more new messages, no more changes and disconnects; waits until
 * all that was sent is acknowledged or refused, until a last message in each conversation has come back (so that all
 * before it is committed) and has reached every member who is connected. Then waits until the database calls online who is
 * connected, lets a part of the users go, waits until it calls them offline (the broker's presence_grace is to be short), and
 * goes on without that when the time, once more for each, is over: the judge says who is wrong. Reads every member's history
 * to its end. NULL: done. Otherwise what did not happen in time; the history is good for the judge all the same. */
const char *workload_settle(struct workload *workload, int64_t timeout_ms);

/* After workload_settle; belongs to the workload. */
const struct history *workload_history(const struct workload *workload);
/* False: the database does not answer. */
bool workload_read_table(struct workload *workload, struct table *table);
uint64_t workload_seed(const struct workload *workload);
/* Ends both threads and all connections. NULL is fine. */
void workload_free(struct workload *workload);

#endif
