/* sign_in.h - the service behind CONNECT, DISCONNECT and the end of tokens. Broker thread.
 *
 * No database is asked in CONNECT: a good token makes a provisional session, and the loader is asked about account,
 * device and memberships; membership.c makes the session live or has it disconnected.
 */
#ifndef CHAT_PLUGIN_SIGN_IN_H
#define CHAT_PLUGIN_SIGN_IN_H

#include "chat.h"

enum sign_in_verdict {
	SIGN_IN_ACCEPTED,
	SIGN_IN_REFUSED,
	SIGN_IN_DEFERRED,  /* another plugin's client */
	SIGN_IN_LEFT_ALONE /* a session without a connection, asked about at SIGHUP */
};

struct sign_in_request {
	const void *client;
	const char *client_id; /* may be NULL */
	const char *password;  /* may be NULL */
	const char *address;   /* may be NULL */
	int keepalive_s;
	bool clean_session;
	int protocol_version;
	bool is_websocket;
};

struct sign_in *sign_in_new(void);
void sign_in_free(struct sign_in *sign_in);
/* After a reload: tokens are held against the keys, issuer and audience now in force. Sessions stay. */
void sign_in_keys_changed(struct sign_in *sign_in);

/* On SIGN_IN_ACCEPTED user_name holds what the broker shall know the client by. */
#define SIGN_IN_NAME_MAX 24
enum sign_in_verdict sign_in_connect(struct chat *chat, const struct sign_in_request *request, char user_name[SIGN_IN_NAME_MAX]);
/* A client that has shown who it is in another way: CONNECT's other checks, and a session that ends at expires_at_s. */
enum sign_in_verdict sign_in_admit(struct chat *chat, const struct sign_in_request *request, int64_t user_id,
	int64_t expires_at_s, char user_name[SIGN_IN_NAME_MAX]);
/* For every connection that ends, signed in or not. */
void sign_in_disconnect(struct chat *chat, const void *client);
/* Once a second or so: has sessions disconnected whose tokens have expired. */
void sign_in_end_expired(struct chat *chat);
/* At a tick: disconnects what chat_refuse_session collected. */
void sign_in_kick_refused(struct chat *chat);

#endif
