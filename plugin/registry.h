/* registry.h - who is signed in, what they may read, and which conversations somebody here listens to.
 *
 * Broker thread only; no I/O, no clock. Three kinds of object:
 *
 *   session       one signed-in connection, keyed by the broker's connection object, never by client id
 *   user          one user with at least one session (or one whose rate limit still matters); owns the memberships
 *   conversation  one with at least one local subscription; owns the state of its delivery order
 *
 *   session --n:1--> user --owns--> memberships[], sorted by conversation
 *   session <--n:m (subscriptions / subscribers)--> conversation
 *
 * A session's index and generation name it to other threads, which never hold a pointer.
 */
#ifndef CHAT_PLUGIN_REGISTRY_H
#define CHAT_PLUGIN_REGISTRY_H

#include "acl.h"
#include "rate_limit.h"
#include "receipt.h"
#include "token_cache.h"
#include "typing.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A client that asks for more is refused: what one connection may cost is bounded. Far above any phone's number. */
#define REGISTRY_SUBSCRIPTIONS_MAX 2000

/* topic_client_id_ok() lets no longer one in. */
#define SESSION_CLIENT_ID_MAX 64

enum session_state {
	SESSION_PROVISIONAL, /* the token is good; account, device and memberships have not been loaded */
	SESSION_LIVE,
	SESSION_GUEST,
	SESSION_REFUSED /* to be disconnected at the next tick; may do nothing */
};

struct membership {
	int64_t conversation_id;
	int64_t first_seq;        /* the first entry that they may read */
	uint32_t members_version; /* of the conversation, when this was read */
	uint8_t role;             /* enum acl_role */
	bool is_channel;          /* has no receipts and no typing */
	bool is_blocked;          /* direct: one of the two has blocked the other */
};

struct presence_watch;
struct user;
struct session;
struct conversation;

struct conversation_list {
	struct conversation *first, *last;
};

struct subscription {
	int64_t conversation_id;
	struct conversation *conversation;
	int64_t next_seq; /* the conversation's, when it was subscribed to: 0 where that was not known yet */
	uint8_t kinds;    /* bits: 1 << (topic kind - TOPIC_MESSAGES) */
};

struct session {
	const void *client; /* the broker's connection object: a key, never followed here */
	struct user *user;  /* NULL: a guest */
	struct session *next_of_user, *previous_of_user;
	int64_t device_id; /* 0: none */
	uint32_t index, generation;
	uint32_t subscription_count, subscription_capacity;
	struct subscription *subscriptions; /* ascending by conversation */
	enum session_state state;
	uint8_t protocol_version;
	bool is_websocket;
	bool by_device_token; /* signed in with one */
	bool by_scram;
	bool overrun;             /* the broker has dropped something for it: it ends, and is given nothing more */
	bool leaving;             /* has asked to be signed out; ends when that is answered */
	bool watches_queued;      /* presence.c's, with those below */
	uint32_t keys_generation; /* sign_in.c: under which keys the token was found good */
	int64_t began_tick;       /* chat->ticks at its sign-in */
	int64_t end_ms;           /* on the list of those to be disconnected: not before; 0: at once */
	uint64_t address;         /* attempts_address() */
	union {
		struct token_digest token;         /* of a user: what it signed in with; none: by SCRAM */
		struct rate_bucket guest_requests; /* of one without */
	};
	struct rate_bucket backlog; /* what it may still be given of backlogs, see fanout.c */
	const char *client_id;      /* in the session's own allocation */
	/* Whose presence it listens to, ascending by user. */
	struct presence_watch *watches;
	uint32_t watch_count, watch_capacity;
};

struct user {
	int64_t id;
	struct membership *memberships;
	uint32_t membership_count;
	bool loaded;
	bool idle;        /* the registry's: on its list of those without a session */
	bool hides_reads; /* shows nobody what they have read, and sees no one else's */
	struct session *sessions;
	struct rate_bucket messages;
	struct rate_bucket requests;
	struct rate_bucket marks;
	struct typing *typing; /* owned; NULL until the first notice */
};

struct delivery_item;

struct conversation {
	int64_t id;
	int64_t next_seq;           /* what is delivered next; 0: not known yet */
	int64_t behind_seq;         /* entries up to here are told as "behind" rather than delivered; 0: none */
	int64_t fetch_last;         /* a fetch up to this entry is under way; 0: none */
	int64_t fetched_last;       /* what the last fetch asked for: an entry up to here that it did not bring has expired */
	int64_t announced_first;    /* of the entries announced since it began to be listened to, the lowest; 0: none */
	int64_t announced_last;     /* entries up to here are known to exist; 0: nothing known beyond what has arrived */
	uint32_t members_version;   /* all local subscribers' memberships are at least this new; 0: not known */
	uint32_t receipts_version;  /* the newest members_version that came with the receipts below */
	uint32_t pace;              /* deliveries that may still be made, see fanout.c */
	uint32_t outage;            /* which outage's backlog is being delivered; 0: none */
	uint32_t backlog_pushed;    /* how much of it */
	int64_t pace_tick, pace_ms; /* when `pace` was last raised */
	int64_t behind_ms;          /* when behind_seq last rose */
	int64_t missed_ms;          /* when `missed` was last told */
	uint32_t subscriber_count, subscriber_capacity;
	bool is_public;
	bool is_channel;
	bool gone;                      /* the table has no such conversation (any more) */
	bool loading;                   /* a load is under way */
	bool load_again;                /* and what it brings may be too old already */
	bool resync;                    /* announcements may have been missed: what the load says exists is fetched */
	bool lost_listening;            /* for want of a connection: the table itself may have been rolled back */
	bool delivered_any;             /* next_seq has been used, not only read from the table */
	bool missed;                    /* a listener did not get all since it subscribed, and has to be told to fetch */
	struct conversation_list *list; /* the one it is on; NULL: none */
	struct session **subscribers;
	struct delivery_item *pending; /* sorted by seq */
	struct delivery_item *pending_last;
	struct receipt *receipts;
	uint32_t receipt_count, receipt_capacity;
	int64_t receipts_sent_ms;
	struct conversation *next_listed, *previous_listed;
};

struct registry;

struct registry *registry_new(void);
void registry_free(struct registry *registry);

/* ---- sessions ---- */

/* user_id 0: a guest. The client id is copied. NULL: no memory. */
struct session *registry_add_session(struct registry *registry, const void *client, const char *client_id, int64_t user_id,
	int64_t device_id, int64_t expires_at_s);
/* Ends all its subscriptions. The user object stays until registry_forget_users. */
void registry_remove_session(struct registry *registry, struct session *session);
/* Called for every session that is about to be removed. NULL: nobody wants to know. */
void registry_on_session_end(struct registry *registry, void (*callback)(struct session *, void *), void *argument);
struct session *registry_find_session(const struct registry *registry, const void *client);
/* A live session with this client id, or NULL. */
struct session *registry_find_client_id(const struct registry *registry, const char *client_id);
/* NULL where that session has ended. */
struct session *registry_session_at(const struct registry *registry, uint32_t index, uint32_t generation);
uint32_t registry_session_count(const struct registry *registry);
/* Calls back for every session whose token has expired at now_s; the callback may mark, not remove. */
void registry_each_expired(struct registry *registry, int64_t now_s, void (*callback)(struct session *, void *), void *argument);
int64_t registry_expiry(const struct registry *registry, const struct session *session);
/* After a callback has dealt with it: not reported again. */
void registry_set_expiry(struct registry *registry, struct session *session, int64_t expires_at_s);
void registry_each_session(struct registry *registry, void (*callback)(struct session *, void *), void *argument);

/* Mosquitto gives a session that outlived its connection its old subscriptions back, without asking. So they are kept
 * here too, by client id, the last REGISTRY_PARKED_MAX of them: registry_park() before such a session is removed,
 * registry_resume() when a new one has begun with its id (`clean`: what was kept is only forgotten). */
#define REGISTRY_PARKED_MAX 100000
void registry_park(struct registry *registry, const struct session *session);
void registry_resume(struct registry *registry, struct session *session, bool clean);

/* ---- users ---- */

struct user *registry_find_user(const struct registry *registry, int64_t user_id);
/* Replaces all memberships: ids ascending. False: no memory, and the user is then not loaded. */
__attribute__((warn_unused_result)) bool registry_set_memberships(
	struct user *user, const struct membership *memberships, size_t count);
/* One membership; role ACL_ROLE_NONE removes it. */
__attribute__((warn_unused_result)) bool registry_set_membership(struct user *user, const struct membership *membership);
const struct membership *registry_membership(const struct user *user, int64_t conversation_id);
/* Frees users without a session whose rate buckets are full again. */
void registry_forget_users(
	struct registry *registry, const struct rate_limit *messages, const struct rate_limit *requests, int64_t now_ms);

/* ---- public channels: one sorted set for all ---- */

__attribute__((warn_unused_result)) bool registry_set_public(struct registry *registry, const int64_t *ids, size_t count);
__attribute__((warn_unused_result)) bool registry_mark_public(struct registry *registry, int64_t conversation_id, bool is_public);
bool registry_is_public(const struct registry *registry, int64_t conversation_id);

/* ---- conversations ---- */

struct conversation *registry_find_conversation(const struct registry *registry, int64_t conversation_id);
/* Subscribes; makes the conversation object with the first subscription (*created). NULL: no memory or too many. */
struct conversation *registry_subscribe(
	struct registry *registry, struct session *session, int64_t conversation_id, enum topic_kind kind, bool *created);
void registry_unsubscribe(struct registry *registry, struct session *session, int64_t conversation_id, enum topic_kind kind);
/* Whether this very session has subscribed to this noun of the conversation. Mosquitto gives a resumed session its old
 * subscriptions without asking; such a one has not. */
bool registry_is_subscribed(const struct session *session, int64_t conversation_id, enum topic_kind kind);
void registry_each_conversation(struct registry *registry, void (*callback)(struct conversation *, void *), void *argument);
/* Conversations with something to do: at the next tick (queued), or some time later (timed). Each is on one list at most;
 * what is queued is not put off. */
void registry_queue(struct registry *registry, struct conversation *conversation);
void registry_queue_timed(struct registry *registry, struct conversation *conversation);
void registry_queue_all_timed(struct registry *registry);             /* their time has come */
struct conversation *registry_next_queued(struct registry *registry); /* takes the first off; NULL: none */
bool registry_any_queued(const struct registry *registry);
/* Called for a conversation that is about to be freed since nobody listens any more. */
void registry_on_conversation_end(struct registry *registry, void (*callback)(struct conversation *, void *), void *argument);

/* What acl.h wants to know of a session and a conversation. */
struct acl_standing registry_standing(const struct registry *registry, const struct session *session, int64_t conversation_id);

#endif
