/* fuzz_topic.c - any bytes as a topic, a filter, a client id and a method name.
 *
 * Beyond memory errors: what is accepted is exactly what would be written, so there is no second spelling of anything.
 */
#include "../../common/text.h"
#include "../../plugin/topic.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

/* The topic as its parts say it; empty where they say nothing. */
static void write_again(const struct topic *topic, char *out, size_t out_size)
{
	int length = 0;

	if (topic->kind == TOPIC_RESPONSE || topic->kind == TOPIC_REQUEST) {
		length = snprintf(out, out_size, "chat/%s/%.*s", topic->kind == TOPIC_RESPONSE ? "response" : "request",
			(int)topic->name_length, topic->name);
	} else if (out_size >= TOPIC_TEXT_MAX) {
		topic_format(topic->kind, topic->id, out);
	}
	require(length >= 0 && (size_t)length < out_size);
}

static void check_topic(const char *text)
{
	struct topic topic = topic_parse(text);
	struct topic filter = topic_parse_filter(text);
	char again[128];
	bool ours = topic_is_up(topic.kind) || topic_is_down(topic.kind);

	require(!(topic_is_up(topic.kind) && topic_is_down(topic.kind)));
	require(topic.kind != TOPIC_COVERING);
	require(filter.kind == topic.kind || filter.kind == TOPIC_COVERING);
	require(strncmp(text, "chat/", 5) != 0 || ours || topic.kind == TOPIC_INVALID);
	if (!ours) {
		require(topic.id == 0 && topic.name == NULL && topic.name_length == 0);
		return;
	}
	require(filter.kind == topic.kind && filter.id == topic.id);
	require(topic.id >= 0 && topic.id <= TEXT_ID_MAX);
	require((topic.id == 0) == (topic.name != NULL));
	write_again(&topic, again, sizeof(again));
	require(strcmp(again, text) == 0);
}

static void check_names(const char *bytes, size_t length)
{
	int64_t owner = topic_client_id_owner(bytes, length);
	char start[32];

	require(owner >= -1 && owner <= TEXT_ID_MAX);
	if (owner > 0) {
		int written = snprintf(start, sizeof(start), "%lld-", (long long)owner);
		require(written > 0 && length >= (size_t)written && memcmp(bytes, start, (size_t)written) == 0);
	}
	if (topic_method_name_ok(bytes, length)) {
		require(topic_client_id_ok(bytes, length)); /* its letters are a part of theirs */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	require(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	check_topic(text);
	check_names((const char *)data, size);
	free(text);
	return 0;
}
