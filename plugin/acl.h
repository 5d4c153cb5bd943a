/* acl.h - who may read, subscribe and publish under chat/. Pure; the table of docs/reference.md as code. */
#ifndef CHAT_PLUGIN_ACL_H
#define CHAT_PLUGIN_ACL_H

#include "error.h"
#include "topic.h"

enum acl_role { ACL_ROLE_NONE, ACL_ROLE_READER, ACL_ROLE_MEMBER, ACL_ROLE_ADMIN, ACL_ROLE_OWNER };

/* Who asks. */
struct acl_subject {
	int64_t user_id; /* 0: a guest */
	const char *client_id;
};

/* What is known of the subject and the topic's conversation. */
struct acl_standing {
	bool known; /* false: memberships have not loaded yet */
	bool is_public;
	bool is_channel; /* of a member; channels have no receipts and no typing */
	enum acl_role role;
	bool may_watch; /* this connection has asked for the topic's user's presence, and it was found that its user may know */
	int64_t first_seq; /* of a member: the first entry that they may read */
};

enum acl_verdict { ACL_ALLOW, ACL_DENY, ACL_UNKNOWN /* ask again once memberships are loaded */ };

/* May this connection be handed what is published to `topic`? Unknown counts as no. */
enum acl_verdict acl_read(const struct topic *topic, const struct acl_subject *subject, const struct acl_standing *standing);
/* The answer to a SUBSCRIBE. Presence is always granted: what is not allowed stays silent, so that nothing can be inferred. */
enum acl_verdict acl_subscribe(const struct topic *topic, const struct acl_subject *subject, const struct acl_standing *standing);
/* The early answer to a PUBLISH to a verb's topic; the commit decides again on the same rules. ERROR_NONE: go on.
 * While nothing is known, all is let through to the commit. */
enum error_code acl_publish(const struct topic *topic, const struct acl_subject *subject, const struct acl_standing *standing);
/* The methods that a guest may call. */
bool acl_guest_may_call(const char *method, size_t length);

#endif
