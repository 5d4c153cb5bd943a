/* chat.h - what the services share: the engines, the options in force, and the state of the broker thread.
 *
 * One object for the whole plugin. The services (sign-in, access, membership, ingest, fan-out, requests) know it and
 * the engines in it, never one another. Broker thread only.
 */
#ifndef CHAT_PLUGIN_CHAT_H
#define CHAT_PLUGIN_CHAT_H

#include "accounts.h"
#include "attempts.h"
#include "chores.h"
#include "delivery.h"
#include "loader.h"
#include "log.h"
#include "options.h"
#include "presence_store.h"
#include "registry.h"
#include "request_workers.h"
#include "spool.h"
#include "token.h"
#include "verifier_cache.h"
#include "writer.h"

/* Events of inboxes that are remembered when they have been dealt with: more than are committed in another order than they were
 * numbered. */
#define INBOX_DONE_MAX 1024

struct chat {
	struct options options;
	struct token_ring *keys;
	struct registry *registry;
	struct spool *spool;
	struct delivery_queue *deliveries;
	struct loader *loader;
	struct writer *writer;
	struct request_workers *request_workers;
	struct accounts *accounts;
	struct chores *chores;
	struct attempts *attempts;
	struct fanout *fanout;
	struct sign_in *sign_in;
	struct verifier_cache *verifiers; /* this and the next: NULL where scram is off */
	struct exchanges *exchanges;
	struct presence *presence;
	struct presence_store *presence_store;

	int64_t now_ms;      /* monotonic, read at the beginning of each callback */
	int64_t now_wall_ms; /* likewise */
	int64_t ticks;
	uint64_t request_ticket; /* the last one given to a message.send */
	bool listening;          /* announcements arrive; while not, nothing is delivered */
	bool published;          /* something was handed to the broker in this tick */
	bool reloading;          /* SIGHUP: until the next tick the broker asks about what is there already */
	uint32_t websockets;     /* sessions by WebSocket */
	uint32_t extra_turns;    /* of the broker's loop that they still need */

	struct {
		uint64_t dropped; /* the broker's count when it last asked */
		uint32_t session_index, session_generation;
		int64_t conversation_id;
		bool open; /* what it did then has not been looked at */
	} reading;         /* for whom the broker last asked whether he may read: overrun.c */

	struct {
		struct delivery_item *first, *last; /* in the order in which they came */
		int64_t asked, settled;             /* numbers of loader_settle: at most one is under way */
	} held;                                     /* answers: respond.c */

	struct {
		bool begun;     /* `before` is known */
		bool asking;    /* what was missed behind `after` */
		int64_t before; /* the highest number when the broker began */
		int64_t after;
		int64_t newest;               /* the highest one heard of */
		int64_t done[INBOX_DONE_MAX]; /* the last ones that were told, or whose user was not here: a ring */
		size_t next;
	} events; /* of inboxes; inbox.c's, with the next */
	struct waiting_mention *mentions;
	uint32_t mention_count, mention_capacity;

	struct session **refused; /* to be disconnected at the next tick */
	uint32_t refused_count, refused_capacity;

	/* The one place where the broker thread may wait (architecture, decision 1): how much of this second is spent. */
	int64_t wait_window_ms;
	int64_t wait_spent_ns;
};

/* host_publish(), and the account of it that the next turns of the loop need. */
struct host_properties;
bool chat_publish(struct chat *chat, const char *topic, const void *payload, size_t length, int qos,
	const struct host_properties *properties);
/* Publishes JSON to a client's response topic. */
struct error_detail;
struct answer_subject;
void chat_respond(struct chat *chat, const char *client_id, const char *json, size_t length, const void *correlation,
	uint16_t correlation_length);
void chat_respond_error(struct chat *chat, const char *client_id, const struct answer_subject *subject,
	const struct error_detail *error, const void *correlation, uint16_t correlation_length);
/* Marks a session for disconnection at the next tick; it may do nothing from now on. */
void chat_refuse_session(struct chat *chat, struct session *session);
/* The same a moment later, with its rights until then; where it is to end already, at the earlier time. */
#define CHAT_END_ANSWERED_MS                                                                                                     \
	100                     /* what was just published to it shall still arrive: a WebSocket takes some turns of the loop    \
				 */
#define CHAT_END_LEAVING_MS 900 /* it may wait for an answer for so long: the contract has it closed within a second */
void chat_end_session(struct chat *chat, struct session *session, int64_t delay_ms);

#endif
