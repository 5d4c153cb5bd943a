/* message.c - what a message holds: see workload_inside.h. Payloads are functions of seed, writer and number. */
#include "workload_inside.h"

#include "uuid.h"

#include <string.h>

/* Mostly letters, so that a body needs no escaping in JSON; and characters of two, three and four bytes. */
static const char *const alphabet[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
	"s", "t", "u", "v", "w", "x", "y", "z", " ", "0", "1", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
#define ALPHABET (sizeof alphabet / sizeof *alphabet)

static bool may_write(const struct device *device, unsigned place)
{
	return device->workload->conversations[place].may[device->user];
}

/* One of those where it may write, or where it may not; false: there is none. */
static bool pick_conversation(struct device *device, bool may, unsigned *place)
{
	unsigned count = device->workload->conversation_count, start = random_below(&device->plans, count);
	for (unsigned i = 0; i < count; i++) {
		*place = (start + i) % count;
		if (may_write(device, *place) == may)
			return true;
	}
	return false;
}

static enum reject pick_reject(struct device *device)
{
	unsigned draw = random_below(&device->plans, 20);
	if (draw > 17 && device->workload->options.poison)
		return REJECT_POISON;
	return draw == 0 ? REJECT_TOO_LONG : draw < 10 ? REJECT_FOREIGN : REJECT_MALFORMED;
}

bool message_plan(struct device *device, struct message *message)
{
	const struct workload_options *options = &device->workload->options;
	bool reject = random_percent(&device->plans, options->reject_percent);
	*message = (struct message){.body_length = HISTORY_MARK_LENGTH + 1 + random_below(&device->plans, options->body_max)};
	bool hot = random_percent(&device->plans, options->hot_percent);
	if (reject)
		message->reject = pick_reject(device);
	if (message->reject == REJECT_FOREIGN && !pick_conversation(device, false, &message->place))
		message->reject = REJECT_MALFORMED;
	if (message->reject != REJECT_FOREIGN && !(hot && may_write(device, 0)) &&
		!pick_conversation(device, true, &message->place))
		return false;
	/* Without an id nobody can tell its refusal from its loss, so only where it cannot be refused. */
	bool stays = !device->workload->conversations[message->place].comes[device->user];
	message->own_id = reject || !stays || random_percent(&device->plans, options->own_id_percent);
	message->reply = message->own_id && random_percent(&device->plans, options->reply_percent);
	message->plain = !message->own_id && random_percent(&device->plans, 50);
	message->number = ++device->numbers;
	/* The refusal of a long one does not name its id. */
	message->is_long = stays && !reject && options->long_every && message->number % options->long_every == 0;
	return true;
}

/* ---- ids: the run, the writer and the number, as a UUID of version 8 (RFC 9562 section 5.8) ---- */

void message_id(const struct workload *workload, unsigned writer, uint32_t number, uint8_t id[16])
{
	uint64_t run = workload->seed;
	memset(id, 0, 16);
	run = next_random(&run);
	for (int i = 0; i < 6; i++)
		id[i] = (uint8_t)(run >> (8 * i));
	id[6] = 0x80;
	id[8] = 0x80;
	id[10] = (uint8_t)(writer >> 8);
	id[11] = (uint8_t)(writer & 0xff);
	for (int i = 0; i < 4; i++)
		id[12 + i] = (uint8_t)(number >> (24 - 8 * i));
}

bool message_of_id(const struct workload *workload, const uint8_t id[16], struct history_message *message)
{
	uint8_t again[16];
	unsigned writer = (unsigned)id[10] << 8 | id[11];
	uint32_t number = (uint32_t)id[12] << 24 | (uint32_t)id[13] << 16 | (uint32_t)id[14] << 8 | id[15];
	message_id(workload, writer, number, again);
	*message = (struct history_message){0};
	if (memcmp(again, id, 16) != 0 || writer >= workload->device_count)
		return false;
	message->writer = (uint16_t)writer;
	message->number = number;
	return true;
}

/* ---- payloads ---- */

/* Bytes behind the mark. Returns the body's length. */
static size_t fill_body(const struct device *device, const struct message *message, char *body)
{
	uint64_t random = device->workload->seed ^ ((uint64_t)device->index << 32 | message->number);
	size_t length = HISTORY_MARK_LENGTH;
	if (message->is_long || message->reject == REJECT_TOO_LONG) {
		unsigned characters = LONG_CHARACTERS + (message->reject == REJECT_TOO_LONG);
		for (unsigned i = HISTORY_MARK_LENGTH; i < characters; i++, length += 3)
			memcpy(body + length, "\xe2\x82\xac", 3);
		return length;
	}
	if (message->reject == REJECT_POISON)
		body[length++] = WORKLOAD_POISON[0];
	while (length < message->body_length) {
		const char *character = alphabet[random_below(&random, ALPHABET)];
		size_t size = strlen(character);
		memcpy(body + length, character, size);
		length += size;
	}
	return length;
}

static size_t put(char *out, size_t at, const char *text)
{
	size_t length = strlen(text);
	memcpy(out + at, text, length);
	return at + length;
}

size_t message_compose(
	const struct device *device, const struct message *message, const char **payload, struct history_message *mark)
{
	char *out = device->workload->payload;
	uint8_t id[16];
	size_t at = 0;
	*payload = out;
	if (!message->plain)
		at = put(out, at, "{");
	if (message->own_id) {
		message_id(device->workload, device->index, message->number, id);
		at = put(out, at, "\"id\":\"");
		uuid_format(id, out + at);
		at = put(out, at + UUID_TEXT_LENGTH, "\",");
	}
	if (message->reply)
		at = put(out, at, "\"reply\":true,");
	if (message->reject == REJECT_MALFORMED)
		at = put(out, at, "\"nonsense\":1,");
	if (!message->plain)
		at = put(out, at, "\"body\":\"");
	size_t length = fill_body(device, message, out + at);
	history_mark_body(out + at, length, (uint16_t)device->index, message->number, mark);
	at += length;
	return message->plain ? at : put(out, at, "\"}");
}
