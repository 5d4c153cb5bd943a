/* acl.c - see acl.h. */
#include "acl.h"

#include <string.h>

static bool names_subject(const struct topic *topic, const struct acl_subject *subject)
{
	size_t length = strlen(subject->client_id);
	return topic->name_length == length && memcmp(topic->name, subject->client_id, length) == 0;
}

enum acl_verdict acl_read(const struct topic *topic, const struct acl_subject *subject, const struct acl_standing *standing)
{
	bool known = standing->known && subject->user_id != 0; /* a guest reads its own answers and nothing else */
	bool member = known && standing->role != ACL_ROLE_NONE;

	switch (topic->kind) {
	case TOPIC_RESPONSE:
		return names_subject(topic, subject) ? ACL_ALLOW : ACL_DENY;
	case TOPIC_INBOX:
		return known && topic->id == subject->user_id ? ACL_ALLOW : ACL_DENY;
	case TOPIC_PRESENCE:
		return known && standing->may_watch ? ACL_ALLOW : ACL_DENY;
	case TOPIC_MESSAGES:
		return member || (known && standing->is_public) ? ACL_ALLOW : ACL_DENY;
	case TOPIC_RECEIPTS:
	case TOPIC_TYPING:
		return member && !standing->is_channel ? ACL_ALLOW : ACL_DENY;
	default:
		return ACL_DENY;
	}
}

enum acl_verdict acl_subscribe(const struct topic *topic, const struct acl_subject *subject, const struct acl_standing *standing)
{
	switch (topic->kind) {
	case TOPIC_RESPONSE:
		return names_subject(topic, subject) ? ACL_ALLOW : ACL_DENY;
	case TOPIC_INBOX:
		return subject->user_id != 0 && topic->id == subject->user_id ? ACL_ALLOW : ACL_DENY;
	case TOPIC_PRESENCE:
		return subject->user_id != 0 ? ACL_ALLOW : ACL_DENY;
	case TOPIC_MESSAGES:
	case TOPIC_RECEIPTS:
	case TOPIC_TYPING:
		if (subject->user_id == 0) {
			return ACL_DENY;
		}
		return standing->known ? acl_read(topic, subject, standing) : ACL_UNKNOWN;
	default:
		return ACL_DENY;
	}
}

enum error_code acl_publish(const struct topic *topic, const struct acl_subject *subject, const struct acl_standing *standing)
{
	switch (topic->kind) {
	case TOPIC_REQUEST:
		return subject->user_id != 0 || acl_guest_may_call(topic->name, topic->name_length) ? ERROR_NONE
												    : ERROR_UNAUTHENTICATED;
	case TOPIC_SEND:
	case TOPIC_MARK:
	case TOPIC_TYPE:
		break;
	case TOPIC_INVALID:
		return ERROR_NOT_FOUND;
	default:
		return ERROR_FORBIDDEN;
	}
	if (subject->user_id == 0) {
		return ERROR_UNAUTHENTICATED;
	}
	if (!standing->known) {
		return ERROR_NONE;
	}
	if (standing->role == ACL_ROLE_NONE) {
		return standing->is_public && topic->kind == TOPIC_SEND ? ERROR_FORBIDDEN : ERROR_NOT_FOUND;
	}
	if ((topic->kind == TOPIC_SEND && standing->role == ACL_ROLE_READER) ||
		(topic->kind == TOPIC_TYPE && standing->is_channel)) {
		return ERROR_FORBIDDEN;
	}
	return ERROR_NONE;
}

bool acl_guest_may_call(const char *method, size_t length)
{
	static const char *const methods[] = {"auth.register", "auth.login"};
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strlen(methods[i]) == length && memcmp(methods[i], method, length) == 0) {
			return true;
		}
	}
	return false;
}
