/* fuzz_record.c - any bytes as a record of the spool.
 *
 * Random bytes never have the right checksum, so each input is tried three times: as it is; with length, position,
 * version, slot and checksum put right; and with the longest of its parts made to fit as well. Whatever passes is read,
 * every byte of it, and every part must lie inside.
 */
#include "../../plugin/record.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define POSITION UINT64_C(4096)
#define SEAL UINT32_C(0x5ea1)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

/* Reads every byte, so that a sanitizer sees one that is not ours; the sum keeps the compiler from leaving it out. */
static size_t touch(const struct record_header *record, const char *part, size_t length)
{
	const char *begin = (const char *)record;
	volatile unsigned char sum = 0;

	require(part >= begin && part <= begin + record->length && length <= record->length - (size_t)(part - begin));
	for (size_t i = 0; i < length; i++) {
		sum = (unsigned char)(sum + (unsigned char)part[i]);
	}
	return length;
}

static void read_message(const struct record_header *record)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	size_t length = sizeof(*record) + touch(record, (const char *)message, sizeof(*message));

	length += touch(record, parts.client_id, message->client_id_length);
	length += touch(record, parts.correlation, message->correlation_length);
	length += touch(record, parts.type, message->type_length);
	length += touch(record, parts.body, message->body_length);
	require((parts.extra != NULL) == (message->extra_length > 0));
	if (parts.extra) {
		length += touch(record, parts.extra, message->extra_length);
	}
	require(length <= record->length && record->length - length < RECORD_ALIGNMENT);
}

static void read_mark(const struct record_header *record)
{
	const char *client_id;
	const struct record_mark *mark = record_read_mark(record, &client_id);
	size_t length = sizeof(*record) + touch(record, (const char *)mark, sizeof(*mark));

	length += touch(record, client_id, mark->client_id_length);
	require(length <= record->length && record->length - length < RECORD_ALIGNMENT);
}

static void check(const struct record_header *record, size_t available, uint64_t position)
{
	if (!record_check(record, available, position, SEAL)) {
		return;
	}
	require(record->length <= available && record->length <= RECORD_BYTES_MAX && record->length % RECORD_ALIGNMENT == 0);
	require(record->position == position && record->slot < RECORD_SLOTS && record->version == RECORD_VERSION);
	switch (record->type) {
	case RECORD_MESSAGE:
		read_message(record);
		break;
	case RECORD_MARK:
		read_mark(record);
		break;
	default:
		require(record->type == RECORD_FILLER);
	}
	require(!record_check(record, record->length - 1, position, SEAL));
	require(!record_check(record, available, position + RECORD_ALIGNMENT, SEAL));
}

static void seal(struct record_header *record, size_t size)
{
	record->length = (uint32_t)(size - size % RECORD_ALIGNMENT);
	record->position = POSITION;
	record->version = RECORD_VERSION;
	record->slot %= RECORD_SLOTS;
	record_seal(record, SEAL);
}

/* Lengthens or shortens a message's body to what is left for it. False: no message, or no room. */
static bool fit(struct record_header *record, size_t size)
{
	struct record_message *message = (struct record_message *)(record + 1);
	size_t room = size - size % RECORD_ALIGNMENT;

	if (record->type != RECORD_MESSAGE || size < sizeof(*record) + sizeof(*message)) {
		return false;
	}
	message->extra_length %= 64;
	message->correlation_length %= 64;
	message->body_length = 0;
	size_t others = sizeof(*record) + sizeof(*message) + message->client_id_length + message->correlation_length +
			message->type_length + message->extra_length;
	if (others > room || room > RECORD_BYTES_MAX) {
		return false;
	}
	message->body_length = (uint32_t)(room - others);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record_header *record = calloc(1, size > 0 ? size : 1);

	require(record != NULL);
	if (size > 0) {
		memcpy(record, data, size);
	}
	check(record, size, POSITION);
	if (size >= sizeof(*record)) {
		check(record, size, record->position);
		seal(record, size);
		check(record, size, POSITION);
		bool fits = fit(record, size);
		seal(record, size);
		require(!fits || record_check(record, size, POSITION, SEAL));
		check(record, size, POSITION);
	}
	free(record);
	return 0;
}
