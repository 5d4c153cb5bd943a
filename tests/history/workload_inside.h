/* workload_inside.h - what the files of the workload share: workload.c (threads, phases), device.c (one client), message.c
 * (what a message holds), members.c (SQL), presence.c (who is there at the end). For them only.
 */
#ifndef CHAT_TESTS_WORKLOAD_INSIDE_H
#define CHAT_TESTS_WORKLOAD_INSIDE_H

#include "connection.h"
#include "workload.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>

#define WINDOW_MAX 8
#define CLIENT_ID_SIZE 48
/* The longest body, escaped nowhere, in an envelope. */
#define PAYLOAD_SIZE 310000
#define LONG_CHARACTERS 100000
#define NS_PER_MS INT64_C(1000000)

enum reject { REJECT_NOT, REJECT_FOREIGN, REJECT_MALFORMED, REJECT_TOO_LONG, REJECT_POISON };

/* All that a message's payload is made from, so that a repeat is the same to the byte. */
struct message {
	uint32_t number; /* of its writer, from 1 */
	unsigned place;  /* of its conversation */
	enum reject reject;
	bool own_id, reply, plain, is_long, fence;
	unsigned body_length; /* bytes, the mark included; is_long and REJECT_TOO_LONG count for themselves */
};

/* A message under way. */
struct slot {
	bool used, again; /* again: to be sent once more after its PUBACK */
	bool refused;     /* for good, by an error */
	struct message message;
	int64_t sent_ns;  /* 0: not on this connection */
	int64_t retry_ns; /* refused for now: when to try again; 0: not */
};

enum grant { GRANT_NONE, GRANT_ASKED, GRANT_GIVEN };

/* A device's side of a conversation. */
struct stake {
	enum grant grant;
	int64_t ask_ns;    /* refused: when to ask again */
	int64_t seen;      /* highest seq, or "behind" notice, on this connection */
	int64_t mark_sent; /* under way: 0 or the seq */
	bool mark_is_read; /* and which of the two */
	int64_t granted_ns;
};

struct device {
	struct connection connection;
	struct workload *workload;
	unsigned index;
	unsigned user; /* its place in users */
	char client_id[CLIENT_ID_SIZE];
	char user_name[CLIENT_ID_SIZE]; /* says nothing, but MQTT 3.1.1 wants one before a password */
	char response_topic[CLIENT_ID_SIZE + 16];
	uint64_t plans;  /* of what it sends, so that nothing else has a part in that */
	uint64_t random; /* of everything else */
	unsigned window;
	uint32_t numbers;                  /* given so far */
	struct slot slots[WINDOW_MAX + 1]; /* the last one for fences */
	struct stake *stakes;              /* by conversation */
	bool is_deaf, stopped_reading;
	bool answers_granted;
	bool signed_in;
	bool is_visitor;       /* in no conversation */
	bool stays_away;       /* once its connection has ended */
	unsigned faults;       /* that it has noticed */
	int64_t connect_ns;    /* when to connect; 0: is */
	int64_t disconnect_ns; /* when to disconnect; 0: not */
};

struct conversation {
	int64_t id;
	bool is_hot;
	bool *may;               /* by user: is or may become a member */
	bool *comes;             /* by user: comes and goes */
	_Atomic bool *is_member; /* by user: as the administrator last heard */
	/* The end of a run: the newest fence, and its seq once that is known. */
	int64_t fence_ns;
	unsigned fence_writer;
	uint32_t fence_number;
	int64_t fence_seq;
};

enum phase {
	PHASE_RUNNING,
	PHASE_FINISHING, /* nothing new; what is under way comes to its end */
	PHASE_FENCING,   /* a last message in each conversation */
	PHASE_CATCHING,  /* which all who are connected shall see */
	PHASE_SETTLED,
	PHASE_LEAVING, /* a part of the users */
	PHASE_LEFT,
	PHASE_QUIT
};

struct workload {
	struct workload_options options;
	struct history history;
	uint64_t seed;
	char *conninfo, *host;
	FILE *lines;

	int64_t *users; /* ids; the visitors are the last */
	char **tokens;
	_Atomic unsigned *present;         /* by user: devices that are signed in */
	_Atomic int64_t *present_since_ns; /* by user: when the first of them did */
	struct table_presence *presence;   /* by user, as it was read last; the caller's thread */
	struct conversation *conversations;
	unsigned conversation_count;
	struct device *devices;
	unsigned device_count;

	struct connection_loop loop;
	pthread_t driver, administrator;
	bool driver_started, administrator_started;
	unsigned turn; /* whose turn it is to send */
	double allowance;
	int64_t allowed_ns;
	char *payload;

	_Atomic int phase;
	_Atomic bool changes_stopped;  /* wanted */
	_Atomic bool changes_finished; /* and so it is */
	_Atomic unsigned rate_per_s;
	_Atomic int port, websocket_port;
	_Atomic uint64_t sent, acked, received, connects;
	_Atomic unsigned connected, faults;
	bool ended; /* HISTORY_END is noted; the driver's */
	char hung[256];
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static inline unsigned random_below(uint64_t *state, unsigned bound)
{
	return bound ? (unsigned)(next_random(state) % bound) : 0;
}

static inline bool random_percent(uint64_t *state, unsigned percent)
{
	return random_below(state, 100) < percent;
}

/* message.c */
/* The device's next one; takes its number. False: it has no conversation to write to. */
bool message_plan(struct device *device, struct message *message);
/* The payload, in the workload's buffer; what to write down of it. */
size_t message_compose(
	const struct device *device, const struct message *message, const char **payload, struct history_message *mark);
void message_id(const struct workload *workload, unsigned writer, uint32_t number, uint8_t id[16]);
/* Whose message an id names. False: none of ours. */
bool message_of_id(const struct workload *workload, const uint8_t id[16], struct history_message *message);

/* device.c */
extern const struct connection_events device_events;
void device_init(struct device *device);
/* Once a turn: connects, disconnects, subscribes and sends again where it is time. */
void device_tick(struct device *device, int64_t now_ns);
/* Sends one new message; false: its window is full, or it is not connected. */
bool device_send_new(struct device *device, int64_t now_ns);
bool device_send_fence(struct device *device, unsigned place, int64_t now_ns);
bool device_is_idle(const struct device *device);
/* Of those who leave before the others, and did not. */
bool device_is_leaving(const struct device *device);
/* Every subscription that it is entitled to is granted; a visitor is where it wants to be. */
bool device_is_ready(const struct device *device);
void device_close(struct device *device);

/* members.c */
/* Users, conversations and members, and the events that say so. */
bool members_create(struct workload *workload, PGconn *connection, char *error, size_t error_size);
void *administrator_main(void *argument);
/* Every member's history, as events. */
bool members_catch_up(struct workload *workload, PGconn *connection);

/* presence.c */
/* After PHASE_SETTLED. False: the database does not answer. */
bool presence_look(struct workload *workload, PGconn *connection, int64_t timeout_ms);
/* Users, visitors included. */
static inline unsigned user_count(const struct workload *workload)
{
	return workload->options.users + workload->options.visitors;
}

#endif
