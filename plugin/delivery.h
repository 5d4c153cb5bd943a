/* delivery.h - the way back to the broker thread: what lanes have committed and readers have fetched.
 *
 * A batch is made by one thread, posted once, and then belongs to the broker thread, which gives back each of its
 * items; the last one frees the batch. The queue counts what is out, and who makes batches waits while that is too
 * much, so that a slow broker thread leaves the rest in the spool.
 */
#ifndef CHAT_PLUGIN_DELIVERY_H
#define CHAT_PLUGIN_DELIVERY_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum delivery_kind {
	DELIVERY_MESSAGE, /* an entry of a conversation's log */
	DELIVERY_ANSWER,  /* for one connection's response topic */
	DELIVERY_RECEIPT, /* a member's watermarks have risen */
	DELIVERY_FETCHED  /* end of a fetch: seq is the last entry asked for; what was found came before this */
};

/* What else there is to an item. */
enum delivery_effect {
	DELIVERY_ENDS_SESSION = 1, /* it is signed out: closed once the answer has gone */
	DELIVERY_LEAVING = 2,      /* to what it asked in order to be signed out */
	DELIVERY_READ = 4,         /* RECEIPT: what was read was told, not only what was delivered */
	DELIVERY_CHANGED = 8,      /* ANSWER: members or a conversation; it waits until that is known here */
	/* RECEIPT: what the other members may see of it. */
	DELIVERY_SHOWS_DELIVERED = 16, /* delivered rose */
	DELIVERY_SHOWS_READ = 32,      /* read rose */
	DELIVERY_HIDES_READ = 64       /* not how far was read */
};

struct delivery_batch;

struct delivery_item {
	struct delivery_item *next; /* the broker thread's, for its own lists */
	struct delivery_batch *batch;
	enum delivery_kind kind;
	uint32_t outage;          /* MESSAGE: had to wait for the database, for the n-th time; 0: not */
	uint32_t members_version; /* of the conversation, when this was committed */
	int64_t conversation_id;
	int64_t seq;                                 /* ANSWER: respond.c's */
	int64_t user_id;                             /* MESSAGE: sender; RECEIPT: whose; ANSWER: for whom */
	int64_t at_ms;                               /* MESSAGE: sent_at; RECEIPT: when; ANSWER: respond.c's */
	int64_t delivered;                           /* RECEIPT */
	int64_t read;                                /* RECEIPT */
	uint32_t payload_at, payload_length;         /* in the batch's bytes */
	uint32_t client_id_at, client_id_length;     /* ANSWER */
	uint32_t correlation_at, correlation_length; /* ANSWER */
	/* ANSWER to a request: for this very session, whatever its client id does; client_id is then empty. */
	bool to_session;
	uint8_t effects;                     /* enum delivery_effect, together */
	uint32_t mentions_at, mention_count; /* MESSAGE from a lane: the users mentioned, int64_t each, not aligned */
	uint32_t session_index, session_generation;
	uint64_t ticket; /* of message.send: its place among the caller's requests; 0: none */
};

struct delivery_batch {
	struct delivery_batch *next;
	struct delivery_queue *queue;
	struct delivery_item *items;
	uint32_t count, capacity;
	uint32_t held; /* items not yet given back */
	struct buffer bytes;
};

struct delivery_queue *delivery_queue_new(void);
/* No other thread uses it any more; batches never taken are freed. */
void delivery_queue_free(struct delivery_queue *queue);

/* Producers. */
struct delivery_batch *delivery_batch_new(uint32_t capacity); /* room for so many items; NULL: no memory */
void delivery_batch_free(struct delivery_batch *batch);       /* one that was not posted */
struct delivery_item *delivery_batch_add(struct delivery_batch *batch, enum delivery_kind kind); /* never more than capacity */
void delivery_post(struct delivery_queue *queue, struct delivery_batch *batch);
/* Waits until what is out is below the bound, or delivery_stop. False: stopped. */
bool delivery_wait_for_room(struct delivery_queue *queue);
void delivery_stop(struct delivery_queue *queue);
/* From now on what is posted is freed at once and nobody waits: the broker thread takes no more. Any thread. */
void delivery_discard(struct delivery_queue *queue);

/* Broker thread. */
struct delivery_batch *delivery_take_all(struct delivery_queue *queue); /* in the order of posting; NULL: none */
void delivery_item_done(struct delivery_item *item);
/* Whether so much is out that what can be left out should be. Any thread. */
bool delivery_is_busy(const struct delivery_queue *queue);
static inline const char *delivery_bytes(const struct delivery_item *item, uint32_t at)
{
	return item->batch->bytes.data + at;
}

#endif
