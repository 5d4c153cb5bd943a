/* jwt.h - the tokens with which we prove to push services who we are (RFC 7515, 7519). Pure; any thread. */
#ifndef CHAT_NOTIFIER_JWT_H
#define CHAT_NOTIFIER_JWT_H

#include "buffer.h"
#include "signing.h"

/* APNs (Apple, "Establishing a token-based connection to APNs"): issued_at_s is at most an hour old where it is used. */
__attribute__((warn_unused_result)) bool jwt_apns(
	const struct signing_key *key, const char *key_id, const char *team_id, int64_t issued_at_s, struct buffer *out);

/* VAPID (RFC 8292 section 2): audience is the endpoint's origin, expires_at_s at most 24 hours ahead. Appends the whole value of
 * the Authorization header. */
__attribute__((warn_unused_result)) bool jwt_vapid(
	const struct signing_key *key, const char *audience, const char *subject, int64_t expires_at_s, struct buffer *out);

/* Google (RFC 7523 section 2.1): the assertion that is traded for an access token. key_id may be NULL. */
__attribute__((warn_unused_result)) bool jwt_google(const struct signing_key *key, const char *key_id, const char *email,
	const char *audience, int64_t issued_at_s, struct buffer *out);

#endif
