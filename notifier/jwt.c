/* jwt.c - see jwt.h. */
#include "jwt.h"

#include "base64url.h"

#include <string.h>

#define PART_MAX 2048 /* bytes of one part in base64url: the longest holds an audience of 1,000 bytes */
#define GOOGLE_SCOPE "https://www.googleapis.com/auth/firebase.messaging"
#define GOOGLE_LIFETIME_S 3600 /* the most that Google takes */

static void append_encoded(struct buffer *out, const void *bytes, size_t length)
{
	char text[PART_MAX];
	if (BASE64URL_ENCODED_SIZE(length) > sizeof(text)) {
		out->failed = true;
		return;
	}
	buffer_append(out, text, base64url_encode(bytes, length, text));
}

static void append_member(struct buffer *json, const char *name, const char *value)
{
	buffer_append_format(json, "%s\"%s\":", json->length > 1 ? "," : "", name);
	buffer_append_json_string(json, value, strlen(value));
}

/* Appends header.claims.signature. The two are JSON objects without their closing brace. */
static bool append_jwt(const struct signing_key *key, struct buffer *header, struct buffer *claims, struct buffer *out)
{
	uint8_t signature[SIGNING_SIGNATURE_MAX];
	size_t start = out->length, signature_length = 0;

	append_member(header, "alg", signing_algorithm_name(signing_key_algorithm(key)));
	buffer_append_text(header, "}");
	buffer_append_text(claims, "}");
	if (header->failed || claims->failed) {
		return false;
	}
	append_encoded(out, header->data, header->length);
	buffer_append_text(out, ".");
	append_encoded(out, claims->data, claims->length);
	if (out->failed || !signing_sign(key, out->data + start, out->length - start, signature, &signature_length)) {
		return false;
	}
	buffer_append_text(out, ".");
	append_encoded(out, signature, signature_length);
	return !out->failed;
}

bool jwt_apns(const struct signing_key *key, const char *key_id, const char *team_id, int64_t issued_at_s, struct buffer *out)
{
	struct buffer header, claims;
	buffer_init(&header, PART_MAX);
	buffer_init(&claims, PART_MAX);
	buffer_append_text(&header, "{");
	append_member(&header, "kid", key_id);
	buffer_append_text(&claims, "{");
	append_member(&claims, "iss", team_id);
	buffer_append_format(&claims, ",\"iat\":%lld", (long long)issued_at_s);
	bool made = append_jwt(key, &header, &claims, out);
	buffer_free(&header);
	buffer_free(&claims);
	return made;
}

bool jwt_vapid(const struct signing_key *key, const char *audience, const char *subject, int64_t expires_at_s, struct buffer *out)
{
	uint8_t point[SIGNING_POINT_SIZE];
	struct buffer header, claims;
	bool made = false;

	buffer_init(&header, PART_MAX);
	buffer_init(&claims, PART_MAX);
	if (!signing_key_point(key, point)) {
		return false;
	}
	buffer_append_text(&header, "{");
	append_member(&header, "typ", "JWT");
	buffer_append_text(&claims, "{");
	append_member(&claims, "aud", audience);
	append_member(&claims, "sub", subject);
	buffer_append_format(&claims, ",\"exp\":%lld", (long long)expires_at_s);
	buffer_append_text(out, "vapid t=");
	made = append_jwt(key, &header, &claims, out);
	buffer_append_text(out, ", k=");
	append_encoded(out, point, sizeof(point));
	buffer_free(&header);
	buffer_free(&claims);
	return made && !out->failed;
}

bool jwt_google(const struct signing_key *key, const char *key_id, const char *email, const char *audience, int64_t issued_at_s,
	struct buffer *out)
{
	struct buffer header, claims;
	buffer_init(&header, PART_MAX);
	buffer_init(&claims, PART_MAX);
	buffer_append_text(&header, "{");
	append_member(&header, "typ", "JWT");
	if (key_id) {
		append_member(&header, "kid", key_id);
	}
	buffer_append_text(&claims, "{");
	append_member(&claims, "iss", email);
	append_member(&claims, "scope", GOOGLE_SCOPE);
	append_member(&claims, "aud", audience);
	buffer_append_format(
		&claims, ",\"iat\":%lld,\"exp\":%lld", (long long)issued_at_s, (long long)(issued_at_s + GOOGLE_LIFETIME_S));
	bool made = append_jwt(key, &header, &claims, out);
	buffer_free(&header);
	buffer_free(&claims);
	return made;
}
