/* access.c - see access.h. The rules are acl.c's; here they meet the registry.
 *
 * Clients that another plugin signed in have no session here: nothing under chat/ is theirs, everything else is not
 * ours to judge. A session that has ended has no rights either, so the broker queues nothing for it.
 */
#include "access.h"

#include "acl.h"
#include "answer.h"
#include "envelope.h"
#include "membership.h"
#include "overrun.h"
#include "presence.h"
#include "receipt.h"
#include "topic.h"

static struct acl_subject subject_of(const struct session *session)
{
	return (struct acl_subject){.user_id = session->user ? session->user->id : 0, .client_id = session->client_id};
}

static bool is_of_conversation(enum topic_kind kind)
{
	return kind == TOPIC_MESSAGES || kind == TOPIC_RECEIPTS || kind == TOPIC_TYPING;
}

static struct acl_standing standing_for(const struct chat *chat, const struct session *session, const struct topic *topic)
{
	if (is_of_conversation(topic->kind)) {
		return registry_standing(chat->registry, session, topic->id);
	}
	return (struct acl_standing){.known = session->state == SESSION_LIVE,
		.may_watch = topic->kind == TOPIC_PRESENCE && presence_may_read(chat, session, topic->id)};
}

/* What a session that outlived its connection has left in the broker's queue is asked about before CONNACK, and its new
 * connection may not have it. Mosquitto 2.0 takes it away then and goes on counting it (connection_check_acl() in
 * src/handle_connect.c): with as many as it sends before it is acknowledged it would send nothing any more. So this connection
 * ends, and the next one finds nothing left. */
static enum access_verdict deny_read(struct chat *chat, struct session *session)
{
	if (session->began_tick == chat->ticks && session->end_ms == 0) {
		log_line(LOG_LEVEL_INFO, "chat: client '%s' is disconnected once: messages were left from its connection before",
			session->client_id);
		chat_end_session(chat, session, 0);
	}
	return ACCESS_DENIED;
}

/* Who has just become a member may listen while what was written before is still on its way. (A notice of being behind has no
 * number.) */
static bool is_before(const struct acl_standing *standing, const void *payload, size_t length)
{
	if (standing->first_seq <= 1) {
		return false;
	}
	int64_t seq = message_view_seq(payload, length);
	return seq != 0 && seq < standing->first_seq;
}

enum access_verdict access_read(struct chat *chat, const void *client, const char *topic, const void *payload, size_t length)
{
	struct topic parsed = topic_parse(topic);
	struct session *session;

	overrun_reading(chat);
	if (parsed.kind == TOPIC_FOREIGN) {
		return ACCESS_DEFERRED;
	}
	session = registry_find_session(chat->registry, client);
	if (!session) {
		return parsed.kind == TOPIC_SYSTEM ? ACCESS_DEFERRED : ACCESS_DENIED;
	}
	if (session->state == SESSION_REFUSED || session->overrun || overrun_is_question(length)) {
		return ACCESS_DENIED;
	}
	struct acl_subject subject = subject_of(session);
	struct acl_standing standing = standing_for(chat, session, &parsed);
	if (is_of_conversation(parsed.kind) && !registry_is_subscribed(session, parsed.id, parsed.kind)) {
		return deny_read(
			chat, session); /* a resumed session's old subscription: it does not count until it is made again */
	}
	if (acl_read(&parsed, &subject, &standing) != ACL_ALLOW) {
		return deny_read(chat, session);
	}
	if (parsed.kind == TOPIC_MESSAGES && is_before(&standing, payload, length)) {
		return deny_read(chat, session);
	}
	if (parsed.kind == TOPIC_RECEIPTS && !receipts_are_for(payload, length, session->user->hides_reads)) {
		return ACCESS_DENIED; /* the other form of the same */
	}
	if (parsed.kind != TOPIC_TYPING) { /* of which nobody misses anything */
		overrun_may_read(chat, session, parsed.kind == TOPIC_MESSAGES ? parsed.id : 0);
	}
	return ACCESS_ALLOWED;
}

enum access_verdict access_subscribe(struct chat *chat, const void *client, const char *filter)
{
	struct topic parsed = topic_parse_filter(filter);
	struct session *session = registry_find_session(chat->registry, client);

	if (!session) {
		return parsed.kind == TOPIC_FOREIGN || parsed.kind == TOPIC_SYSTEM || parsed.kind == TOPIC_COVERING
			       ? ACCESS_DEFERRED
			       : ACCESS_DENIED;
	}
	if (parsed.kind == TOPIC_FOREIGN) {
		return ACCESS_DEFERRED;
	}
	if (session->state == SESSION_REFUSED) {
		return ACCESS_DENIED;
	}
	struct acl_subject subject = subject_of(session);
	struct acl_standing standing = standing_for(chat, session, &parsed);
	enum acl_verdict verdict = acl_subscribe(&parsed, &subject, &standing);
	if (verdict == ACL_UNKNOWN && membership_wait(chat, session)) {
		standing = standing_for(chat, session, &parsed);
		verdict = acl_subscribe(&parsed, &subject, &standing);
	}
	if (verdict == ACL_DENY || session->state == SESSION_REFUSED) {
		return ACCESS_DENIED;
	}
	/* Unknown still: granted, and silent until membership says yes. */
	if (is_of_conversation(parsed.kind) && !membership_subscribe(chat, session, &parsed)) {
		return ACCESS_DENIED;
	}
	if (parsed.kind == TOPIC_PRESENCE && !presence_watch(chat, session, parsed.id)) {
		return ACCESS_DENIED;
	}
	return ACCESS_ALLOWED;
}

enum access_verdict access_unsubscribe(struct chat *chat, const void *client, const char *filter)
{
	struct topic parsed = topic_parse_filter(filter);
	struct session *session = registry_find_session(chat->registry, client);

	if (!session || parsed.kind == TOPIC_FOREIGN) {
		return ACCESS_DEFERRED;
	}
	if (is_of_conversation(parsed.kind)) {
		registry_unsubscribe(chat->registry, session, parsed.id, parsed.kind);
	} else if (parsed.kind == TOPIC_PRESENCE) {
		presence_unwatch(chat, session, parsed.id);
	}
	return ACCESS_ALLOWED; /* nobody loses anything when a client wants to hear less */
}

static enum access_verdict refuse_publish(
	struct chat *chat, const struct session *session, const char *topic, enum error_code code, const char *message)
{
	struct answer_subject subject = {.topic = topic};
	struct error_detail error = {.code = code, .message = message};
	chat_respond_error(chat, session->client_id, &subject, &error, NULL, 0);
	return ACCESS_DENIED;
}

enum access_verdict access_publish(struct chat *chat, const void *client, const char *topic, bool retain)
{
	struct topic parsed = topic_parse(topic);
	struct session *session = registry_find_session(chat->registry, client);

	if (parsed.kind == TOPIC_FOREIGN || (!session && parsed.kind == TOPIC_SYSTEM)) {
		return ACCESS_DEFERRED;
	}
	if (!session) {
		/* Also the will of a connection that has just ended: to a verb it goes where nobody listens. */
		return ACCESS_DENIED;
	}
	if (session->state == SESSION_REFUSED) {
		return ACCESS_DENIED;
	}
	if (retain) {
		return refuse_publish(chat, session, topic, ERROR_FORBIDDEN, "retained messages are not allowed under chat/");
	}
	if (!topic_is_up(parsed.kind)) {
		bool invalid = parsed.kind == TOPIC_INVALID;
		return refuse_publish(chat, session, topic, invalid ? ERROR_NOT_FOUND : ERROR_FORBIDDEN,
			invalid ? NULL : "only the server publishes here");
	}
	return ACCESS_ALLOWED;
}
