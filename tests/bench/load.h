/* load.h - one run: conversations, each with its publishers and receivers, in one process and one thread.
 *
 *   opening -> greeting -> loading (warm-up, then the measured part) -> draining -> done
 *
 * Greeting: each publisher sends messages numbered 0 until every receiver of its conversation has seen one, so that what
 * follows finds all subscriptions at work. From 1 on a publisher's messages are counted and each must arrive once, in
 * order. Publisher and receiver live in the same process, so the clock is the same and "arrived" can open the window.
 *
 * load.c owns phases and connections, publisher.c sends, receiver.c checks, report.c prints.
 */
#ifndef CHAT_BENCH_LOAD_H
#define CHAT_BENCH_LOAD_H

#include "connection.h"
#include "credentials.h"
#include "histogram.h"
#include "marks.h"
#include "settings.h"
#include "stream.h"
#include "usage.h"

struct load;

/* First in publisher and receiver; the owner of a connection. */
struct client {
	struct connection connection;
	struct load *load;
	unsigned conversation; /* from 0 */
	bool publishes;
};

/* A message under way. */
struct slot {
	uint64_t count; /* 0: free */
	uint64_t due_ns;
	unsigned receivers_left;
	bool waits_for_ack;
};

/* A packet that is patched for each message; one for each length of bodies. */
struct template
{
	uint8_t *packet;
	size_t length;
	size_t id_offset;
	size_t payload_offset;
};

struct publisher {
	struct client client;
	unsigned index;
	struct template templates[SETTINGS_SIZES_MAX];
	struct slot *ring; /* by count modulo its size; packet id is the place + 1 */
	unsigned in_flight;
	unsigned window; /* the smaller of the wanted one and the server's receive maximum */
	uint64_t sent;
	uint64_t acked;
	uint64_t refused;
	bool pumped; /* is on the list of those that may send */
	struct publisher *pump_next;
};

struct receiver {
	struct client client;
	unsigned index;
	struct stream *streams; /* one for each publisher of the conversation */
	bool *greeted;
	uint64_t last_seq;
	uint16_t mark_id; /* the last packet id that a mark had */
	uint64_t digest;  /* over publisher and count in the order of arrival: the same for all who saw the same order */
};

struct load_counts {
	uint64_t sent;
	uint64_t acked;
	uint64_t received;
	struct mark_counts marks;
};

struct load_moment {
	uint64_t at_ns;
	struct load_counts counts;
	double own_cpu_s;
	struct usage watched[SETTINGS_WATCHED_MAX];
};

enum load_phase { LOAD_OPENING, LOAD_GREETING, LOAD_LOADING, LOAD_DRAINING, LOAD_DONE, LOAD_FAILED };

struct load {
	const struct settings *settings;
	struct credentials credentials;
	struct connection_loop loop;
	struct publisher *publishers;
	struct receiver *receivers;
	unsigned publishers_count;
	unsigned receivers_count;
	unsigned ring_size; /* power of two */
	enum load_phase phase;
	uint64_t run;

	unsigned started; /* connections begun */
	unsigned ready;   /* of these, ready for use */
	uint64_t greetings_left;
	struct publisher *pump;
	uint64_t scheduled; /* open loop: messages whose time has come */

	uint64_t start_ns;
	uint64_t measure_start_ns;
	uint64_t measure_end_ns;
	uint64_t progress_ns; /* something arrived */
	struct load_counts counts;
	struct load_moment measure_start;
	struct load_moment measure_end;
	int sample_fd; /* -1: none */
	uint64_t sample_next_ns;
	uint64_t sampled;
	struct histogram delivery;
	struct histogram acknowledgement;

	uint64_t refused[256]; /* by reason code of the PUBACK */
	uint64_t unknown;      /* payloads without our marker */
	uint64_t behind;       /* of these, notices of a backlog */
	uint64_t seq_errors;
	uint64_t disconnects;
};

/* Runs it to its end. False: it could not be set up, and the reason has been printed. */
bool load_run(struct load *load, const struct settings *settings);
void load_release(struct load *load);

bool publisher_prepare(struct publisher *publisher);
void publisher_release(struct publisher *publisher);
void publisher_ready(struct publisher *publisher);
void publisher_greet(struct publisher *publisher);
/* Sends as many as window and schedule allow. */
void publisher_pump(struct publisher *publisher, uint64_t now_ns);
void publisher_packet(struct publisher *publisher, const struct wire_packet *packet, uint64_t now_ns);
/* A receiver has the message `count`. */
void publisher_delivered(struct publisher *publisher, uint64_t count);

bool receiver_prepare(struct receiver *receiver);
void receiver_ready(struct receiver *receiver);
void receiver_packet(struct receiver *receiver, const struct wire_packet *packet, uint64_t now_ns);
/* Counted messages it should have by now and has not. */
uint64_t receiver_missing(const struct receiver *receiver);

/* Puts a publisher on the list of those that may send, once. */
void load_may_send(struct publisher *publisher);
void load_client_ready(struct load *load);
bool load_is_measured(const struct load *load, uint64_t due_ns);

/* Prints `name value` lines; true where nothing was lost, doubled or out of order. */
bool report_print(const struct load *load);

#endif
