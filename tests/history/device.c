/* device.c - one client of the workload: see workload_inside.h. The driver's thread.
 *
 * A connection's life: CONNECT -> SUBSCRIBE to its answers and its conversations -> messages -> an end, and after a moment
 * the next one. Messages do not wait for the subscriptions. A slot is used from a message's first sending to its last
 * word, over several connections where need be.
 */
#include "workload_inside.h"

#include "uuid.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define TOPIC_SIZE 64
/* Packet ids: slots from 1 on, then what a conversation's place is added to. */
#define PACKET_ANSWERS 99
#define PACKET_MARK 1000
#define PACKET_SUBSCRIBE 10000
#define FENCE_SLOT WINDOW_MAX
#define FAILURE 0x80 /* reason codes from here on (MQTT 5, 2.4; 3.1.1, 3.9.3) */

#define VISIT_MS 200
#define VISIT_SPREAD_MS 1800
#define AWAY_SPREAD_MS 2500 /* some longer than the grace period, some shorter */
#define NEVER INT64_MAX

#define RECONNECT_MS 30
#define RECONNECT_SPREAD_MS 120
#define ASK_AGAIN_MS 500
#define RETRY_MS 200
/* A connection that owes a PUBACK for so long is given up: kill -STOP of the broker, or a network that swallows. */
#define PUBACK_MS 15000

static void note(struct device *device, struct history_event event)
{
	event.client = (uint16_t)device->index;
	history_add(&device->workload->history, &event);
}

static struct device *device_of(const struct connection *connection)
{
	return connection->owner;
}

static int64_t id_of_place(const struct device *device, unsigned place)
{
	return device->workload->conversations[place].id;
}

/* ---- sending ---- */

static void send_slot(struct device *device, struct slot *slot, int64_t now_ns)
{
	struct workload *workload = device->workload;
	const struct message *message = &slot->message;
	struct history_event event = {.kind = HISTORY_SEND,
		.conversation = id_of_place(device, message->place),
		.own_id = message->own_id,
		.is_reject = message->reject != REJECT_NOT};
	char topic[TOPIC_SIZE];
	const char *payload;
	size_t id_at, payload_at, length = message_compose(device, message, &payload, &event.message);

	if (message->own_id)
		message_id(workload, device->index, message->number, event.id);
	snprintf(topic, sizeof topic, "chat/%lld/send", (long long)event.conversation);
	size_t size = wire_publish_size(device->connection.level, 1, topic, length);
	note(device, event);
	uint8_t *packet = connection_reserve(&device->connection, size);
	if (wire_publish_template(packet, size, device->connection.level, 1, topic, length, &id_at, &payload_at) != size)
		abort();
	packet[id_at] = 0;
	packet[id_at + 1] = (uint8_t)(slot - device->slots + 1);
	memcpy(packet + payload_at, payload, length);
	slot->sent_ns = now_ns;
	slot->retry_ns = 0;
	atomic_fetch_add(&workload->sent, 1);
}

bool device_send_new(struct device *device, int64_t now_ns)
{
	if (!device->signed_in || device->is_deaf || device->is_visitor)
		return false;
	for (unsigned i = 0; i < device->window; i++) {
		struct slot *slot = &device->slots[i];
		if (slot->used)
			continue;
		*slot = (struct slot){0};
		if (!message_plan(device, &slot->message))
			return false;
		slot->used = true;
		slot->again = slot->message.own_id && slot->message.reject == REJECT_NOT &&
			      random_percent(&device->plans, device->workload->options.duplicate_percent);
		send_slot(device, slot, now_ns);
		return true;
	}
	return false;
}

bool device_send_fence(struct device *device, unsigned place, int64_t now_ns)
{
	struct slot *slot = &device->slots[FENCE_SLOT];
	if (!device->signed_in || device->is_deaf || slot->used)
		return false;
	*slot = (struct slot){.used = true,
		.message = {.number = ++device->numbers,
			.place = place,
			.own_id = true,
			.reply = true,
			.fence = true,
			.body_length = HISTORY_MARK_LENGTH + 5}};
	send_slot(device, slot, now_ns);
	struct conversation *conversation = &device->workload->conversations[place];
	conversation->fence_ns = now_ns;
	conversation->fence_writer = device->index;
	conversation->fence_number = slot->message.number;
	return true;
}

bool device_is_idle(const struct device *device)
{
	for (unsigned i = 0; i <= WINDOW_MAX; i++) {
		if (device->slots[i].used)
			return false;
	}
	return true;
}

static void send_mark(struct device *device, unsigned place)
{
	struct stake *stake = &device->stakes[place];
	char topic[TOPIC_SIZE], payload[TOPIC_SIZE];
	size_t id_at, payload_at;
	if (stake->mark_sent || stake->seen == 0)
		return;
	stake->mark_sent = stake->seen;
	stake->mark_is_read = random_percent(&device->random, 50);
	int length = snprintf(payload, sizeof payload, "{\"%s\":%lld}", stake->mark_is_read ? "read" : "delivered",
		(long long)stake->mark_sent);
	snprintf(topic, sizeof topic, "chat/%lld/mark", (long long)id_of_place(device, place));
	size_t size = wire_publish_size(device->connection.level, 1, topic, (size_t)length);
	uint8_t *packet = connection_reserve(&device->connection, size);
	if (wire_publish_template(packet, size, device->connection.level, 1, topic, (size_t)length, &id_at, &payload_at) != size)
		abort();
	packet[id_at] = (uint8_t)((PACKET_MARK + place) >> 8);
	packet[id_at + 1] = (uint8_t)((PACKET_MARK + place) & 0xff);
	memcpy(packet + payload_at, payload, (size_t)length);
	note(device, (struct history_event){.kind = HISTORY_MARK,
			     .user = device->workload->users[device->user],
			     .conversation = id_of_place(device, place),
			     .seq = stake->mark_sent,
			     .last = stake->mark_is_read ? stake->mark_sent : 0});
}

/* ---- connecting ---- */

static void subscribe(struct device *device, const char *topic, unsigned packet_id)
{
	uint8_t packet[TOPIC_SIZE * 2];
	size_t length = wire_subscribe(packet, sizeof packet, device->connection.level, (uint16_t)packet_id, topic, 1);
	connection_send(&device->connection, packet, length);
}

static void ask_for(struct device *device, unsigned place)
{
	char topic[TOPIC_SIZE];
	snprintf(topic, sizeof topic, "chat/%lld/messages", (long long)id_of_place(device, place));
	device->stakes[place].grant = GRANT_ASKED;
	subscribe(device, topic, PACKET_SUBSCRIBE + place);
}

static void on_ready(struct connection *connection)
{
	struct device *device = device_of(connection);
	const struct workload_options *options = &device->workload->options;
	device->signed_in = true;
	note(device, (struct history_event){.kind = HISTORY_CONNECTED});
	if (atomic_fetch_add(&device->workload->present[device->user], 1) == 0)
		atomic_store(&device->workload->present_since_ns[device->user], history_now_ns());
	if (device->is_visitor) {
		device->disconnect_ns =
			history_now_ns() + (VISIT_MS + (int64_t)random_below(&device->random, VISIT_SPREAD_MS)) * NS_PER_MS;
		return;
	}
	atomic_fetch_add(&device->workload->connects, 1);
	atomic_fetch_add(&device->workload->connected, 1);
	subscribe(device, device->response_topic, PACKET_ANSWERS);
	for (unsigned i = 0; i < device->workload->conversation_count; i++) {
		if (device->workload->conversations[i].may[device->user])
			ask_for(device, i);
	}
	if (options->connected_max_ms > options->connected_min_ms)
		device->disconnect_ns =
			history_now_ns() +
			(options->connected_min_ms +
				(int64_t)random_below(&device->random, options->connected_max_ms - options->connected_min_ms)) *
				NS_PER_MS;
}

/* A visitor has heard of a fault: until the next one it stays away or not. */
static void notice_faults(struct device *device)
{
	unsigned faults = atomic_load(&device->workload->faults);
	if (!device->is_visitor || faults == device->faults)
		return;
	device->faults = faults;
	device->stays_away = random_percent(&device->random, 50);
	if (!device->stays_away && device->connect_ns == NEVER)
		device->connect_ns = history_now_ns();
}

static int64_t next_connect_ns(struct device *device)
{
	unsigned spread_ms = device->is_visitor ? AWAY_SPREAD_MS : RECONNECT_SPREAD_MS;
	notice_faults(device);
	return device->stays_away
		       ? NEVER
		       : history_now_ns() + (RECONNECT_MS + (int64_t)random_below(&device->random, spread_ms)) * NS_PER_MS;
}

/* What the end of a connection leaves: messages with an id are sent again on the next one; of the others nobody knows. */
static void forget_connection(struct device *device)
{
	if (device->signed_in || device->is_visitor) /* one who knows of no CONNACK may have been seen */
		note(device, (struct history_event){.kind = HISTORY_DISCONNECTED});
	if (device->signed_in) {
		atomic_fetch_sub(&device->workload->present[device->user], 1);
		if (!device->is_visitor)
			atomic_fetch_sub(&device->workload->connected, 1);
	}
	device->signed_in = device->answers_granted = device->stopped_reading = false;
	device->disconnect_ns = 0;
	for (unsigned i = 0; i <= WINDOW_MAX; i++) {
		struct slot *slot = &device->slots[i];
		slot->sent_ns = 0;
		slot->used = slot->used && slot->message.own_id && !slot->refused;
	}
	for (unsigned i = 0; i < device->workload->conversation_count; i++)
		device->stakes[i] = (struct stake){0};
	device->connect_ns = next_connect_ns(device);
}

static void on_closed(struct connection *connection, const char *why)
{
	(void)why;
	forget_connection(device_of(connection));
}

void device_close(struct device *device)
{
	connection_release(&device->connection);
	forget_connection(device);
}

/* With DISCONNECT, or as if the cable was cut. */
static void disconnect(struct device *device)
{
	static const uint8_t packet[] = {WIRE_DISCONNECT << 4, 0};
	struct linger at_once = {.l_onoff = 1};
	if (random_percent(&device->random, 50)) {
		connection_send(&device->connection, packet, sizeof packet);
		connection_flush_all(device->connection.loop);
	} else {
		setsockopt(device->connection.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	}
	if (device->signed_in) /* writing may have found the connection closed */
		device_close(device);
}

static void connect_again(struct device *device)
{
	struct workload *workload = device->workload;
	struct connection *connection = &device->connection;
	connection_flush_all(&workload->loop); /* or the old one may still be on the list of those with something to write */
	connection_release(connection);
	*connection = (struct connection){.loop = &workload->loop,
		.owner = device,
		.credentials = {.client_id = device->client_id,
			.user = device->user_name,
			.password = workload->tokens[device->user]},
		.level = connection->level,
		.websocket = connection->websocket,
		.fd = -1};
	connection->port = (uint16_t)atomic_load(connection->websocket ? &workload->websocket_port : &workload->port);
	device->connect_ns = 0;
	connection_start(connection);
}

void device_init(struct device *device)
{
	snprintf(device->client_id, sizeof device->client_id, "%lld-h%u", (long long)device->workload->users[device->user],
		device->index);
	snprintf(device->user_name, sizeof device->user_name, "%lld", (long long)device->workload->users[device->user]);
	snprintf(device->response_topic, sizeof device->response_topic, "chat/response/%s", device->client_id);
	device->connect_ns = history_now_ns();
	device->connection.state = CONNECTION_CLOSED;
}

/* Whether the connection owes an answer for too long. */
static bool is_stuck(const struct device *device, int64_t now_ns)
{
	for (unsigned i = 0; i <= WINDOW_MAX; i++) {
		const struct slot *slot = &device->slots[i];
		if (slot->used && slot->sent_ns && now_ns - slot->sent_ns > PUBACK_MS * NS_PER_MS)
			return true;
	}
	return false;
}

static bool is_entitled(const struct device *device, unsigned place)
{
	return atomic_load(&device->workload->conversations[place].is_member[device->user]);
}

bool device_is_ready(const struct device *device)
{
	if (device->is_visitor)
		return device->signed_in != device->stays_away;
	if (device->stopped_reading)
		return true; /* it would not hear of it */
	bool ready = device->signed_in && device->answers_granted;
	for (unsigned i = 0; ready && i < device->workload->conversation_count; i++)
		ready = !is_entitled(device, i) || device->stakes[i].grant == GRANT_GIVEN;
	return ready;
}

/* What the broker has for it stays in the socket, and then in the broker. */
static void stop_reading(struct device *device)
{
	epoll_ctl(device->workload->loop.epoll_fd, EPOLL_CTL_DEL, device->connection.fd, NULL);
	device->stopped_reading = true;
}

/* Half the visitors; of others the users with all their devices, with all but the first, or not at all. */
static bool leaves(const struct device *device)
{
	bool is_first = device->index == 0 || device[-1].user != device->user;
	if (device->is_visitor)
		return device->user % 2 == 0;
	return !device->is_deaf && (device->user % 3 == 0 || (device->user % 3 == 1 && !is_first));
}

bool device_is_leaving(const struct device *device)
{
	return device->signed_in && (device->stays_away || leaves(device));
}

void device_tick(struct device *device, int64_t now_ns)
{
	int phase = atomic_load(&device->workload->phase);
	notice_faults(device);
	if (phase == PHASE_LEAVING && leaves(device)) {
		device->stays_away = true;
		device->disconnect_ns = now_ns;
	}
	if (device->connect_ns && now_ns >= device->connect_ns) {
		connect_again(device);
		return;
	}
	if (!device->signed_in)
		return;
	bool due = device->disconnect_ns && now_ns >= device->disconnect_ns;
	if ((due && (phase == PHASE_RUNNING || device->stays_away)) || is_stuck(device, now_ns)) {
		disconnect(device);
		return;
	}
	if (device->is_deaf && !device->stopped_reading && device_is_ready(device))
		stop_reading(device);
	for (unsigned i = 0; i <= WINDOW_MAX; i++) {
		struct slot *slot = &device->slots[i];
		if (slot->used && !slot->sent_ns && now_ns >= slot->retry_ns)
			send_slot(device, slot, now_ns);
	}
	for (unsigned i = 0; i < device->workload->conversation_count; i++) {
		struct stake *stake = &device->stakes[i];
		if (stake->ask_ns && now_ns >= stake->ask_ns && is_entitled(device, i)) {
			stake->ask_ns = 0;
			ask_for(device, i);
		}
	}
}

/* ---- what comes ---- */

static void on_suback(struct device *device, const struct wire_packet *packet, int64_t now_ns)
{
	uint8_t reason = FAILURE;
	if (packet->body_length < 3 || !wire_read_suback(packet, device->connection.level, &reason))
		return;
	unsigned packet_id = (unsigned)packet->body[0] << 8 | packet->body[1];
	if (packet_id == PACKET_ANSWERS) {
		device->answers_granted = reason < FAILURE;
		return;
	}
	unsigned place = packet_id - PACKET_SUBSCRIBE;
	if (place >= device->workload->conversation_count)
		return;
	device->stakes[place].grant = reason < FAILURE ? GRANT_GIVEN : GRANT_NONE;
	device->stakes[place].granted_ns = now_ns;
	if (reason < FAILURE)
		note(device, (struct history_event){
				     .kind = HISTORY_SUBSCRIBED, .at_ns = now_ns, .conversation = id_of_place(device, place)});
	else
		device->stakes[place].ask_ns = now_ns + ASK_AGAIN_MS * NS_PER_MS;
}

static void on_mark_puback(struct device *device, unsigned place, uint8_t reason, int64_t now_ns)
{
	struct stake *stake = &device->stakes[place];
	if (stake->mark_sent && reason < FAILURE)
		note(device, (struct history_event){.kind = HISTORY_MARK_PUBACK,
				     .at_ns = now_ns,
				     .user = device->workload->users[device->user],
				     .conversation = id_of_place(device, place),
				     .seq = stake->mark_sent,
				     .last = stake->mark_is_read ? stake->mark_sent : 0});
	stake->mark_sent = 0;
}

static void on_puback(struct device *device, const struct wire_packet *packet, int64_t now_ns)
{
	uint16_t packet_id;
	uint8_t reason;
	if (!wire_read_puback(packet, &packet_id, &reason))
		return;
	if (packet_id >= PACKET_MARK && packet_id - PACKET_MARK < (int)device->workload->conversation_count) {
		on_mark_puback(device, packet_id - PACKET_MARK, reason, now_ns);
		return;
	}
	struct slot *slot = packet_id >= 1 && packet_id <= WINDOW_MAX + 1 ? &device->slots[packet_id - 1] : NULL;
	if (!slot || !slot->used || !slot->sent_ns)
		return;
	note(device, (struct history_event){.kind = HISTORY_PUBACK,
			     .at_ns = now_ns,
			     .reason = reason,
			     .conversation = id_of_place(device, slot->message.place),
			     .message = {.writer = (uint16_t)device->index, .number = slot->message.number}});
	slot->sent_ns = 0;
	if (reason < FAILURE) {
		atomic_fetch_add(&device->workload->acked, 1);
		slot->used = slot->again && !slot->refused;
		slot->again = false;
		return;
	}
	/* MQTT 5 says no: for good, or for now, which the error tells that comes with it. Without an id it is the last word, and
	 * so it is for somebody who was removed: that error names no id. */
	slot->used = slot->message.own_id && slot->message.reject == REJECT_NOT && !slot->refused &&
		     is_entitled(device, slot->message.place);
	slot->retry_ns = now_ns + RETRY_MS * NS_PER_MS;
}

/* ---- JSON as the server writes it: fields in a known order, no blanks, no escapes in our bodies ---- */

static const char *find(const char *text, size_t length, const char *field)
{
	const char *at = memmem(text, length, field, strlen(field));
	return at ? at + strlen(field) : NULL;
}

static int64_t find_integer(const char *text, size_t length, const char *field)
{
	const char *at = find(text, length, field);
	int64_t value = 0;
	for (; at && at < text + length && *at >= '0' && *at <= '9'; at++)
		value = value * 10 + (*at - '0');
	return value;
}

static bool find_id(const char *text, size_t length, uint8_t id[16])
{
	const char *at = find(text, length, "\"id\":\"");
	return at && (size_t)(text + length - at) >= UUID_TEXT_LENGTH && uuid_parse(at, UUID_TEXT_LENGTH, id);
}

static struct slot *slot_of(struct device *device, const struct history_message *message)
{
	for (unsigned i = 0; i <= WINDOW_MAX; i++) {
		struct slot *slot = &device->slots[i];
		if (slot->used && message->writer == device->index && slot->message.number == message->number)
			return slot;
	}
	return NULL;
}

static void on_sent(struct device *device, struct history_event *event)
{
	event->kind = HISTORY_SENT;
	note(device, *event);
	for (unsigned i = 0; i < device->workload->conversation_count; i++) {
		struct conversation *conversation = &device->workload->conversations[i];
		if (conversation->fence_number && conversation->fence_writer == event->message.writer &&
			conversation->fence_number == event->message.number)
			conversation->fence_seq = event->seq;
	}
}

static void on_error(struct device *device, struct history_event *event, const char *text, size_t length)
{
	const char *code = find(text, length, "\"code\":\"");
	const char *end = code ? memchr(code, '"', (size_t)(text + length - code)) : NULL;
	event->kind = HISTORY_ERROR;
	if (end)
		snprintf(event->code, sizeof event->code, "%.*s", (int)(end - code), code);
	note(device, *event);
	struct slot *slot = event->message.number && !history_is_transient(event->code) ? slot_of(device, &event->message) : NULL;
	if (!slot)
		return;
	slot->refused = true;
	slot->used = slot->sent_ns != 0; /* else its PUBACK was here before */
}

static void on_answer(struct device *device, const char *text, size_t length, int64_t now_ns)
{
	struct history_event event = {.at_ns = now_ns,
		.conversation = find_integer(text, length, "\"conversation\":"),
		.seq = find_integer(text, length, "\"seq\":")};
	if (find_id(text, length, event.id))
		event.own_id = message_of_id(device->workload, event.id, &event.message);
	if (find(text, length, "\"status\":\"sent\""))
		on_sent(device, &event);
	else if (find(text, length, "\"error\":"))
		on_error(device, &event, text, length);
}

static void on_entry(struct device *device, const char *text, size_t length, int64_t now_ns)
{
	size_t head = length < 300 ? length : 300; /* everything before the body */
	struct history_event event = {.kind = HISTORY_RECEIVE,
		.at_ns = now_ns,
		.conversation = find_integer(text, head, "\"conversation\":"),
		.seq = find_integer(text, head, "\"seq\":"),
		.user = find_integer(text, head, "\"from\":")};
	const char *body = find(text, head, "\"body\":\"");
	const char *end = body ? memchr(body, '"', (size_t)(text + length - body)) : NULL;
	unsigned place = 0;
	while (place < device->workload->conversation_count && id_of_place(device, place) != event.conversation)
		place++;
	if (place == device->workload->conversation_count)
		return;
	struct stake *stake = &device->stakes[place];
	if (find(text, head, "\"behind\":true")) {
		event.kind = HISTORY_BEHIND;
		event.seq = find_integer(text, head, "\"last_seq\":");
	} else {
		find_id(text, head, event.id);
		if (end)
			history_read_body(body, (size_t)(end - body), &event.message);
		atomic_fetch_add(&device->workload->received, 1);
	}
	note(device, event);
	stake->seen = event.seq > stake->seen ? event.seq : stake->seen;
	if (event.kind == HISTORY_RECEIVE && device->signed_in &&
		random_percent(&device->random, device->workload->options.mark_percent))
		send_mark(device, place);
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct device *device = device_of(connection);
	struct wire_publish publish;
	if (packet->type == WIRE_SUBACK) {
		on_suback(device, packet, (int64_t)now_ns);
	} else if (packet->type == WIRE_PUBACK) {
		on_puback(device, packet, (int64_t)now_ns);
	} else if (packet->type == WIRE_PUBLISH && wire_read_publish(packet, connection->level, &publish)) {
		const char *text = (const char *)publish.payload;
		if (publish.qos > 0)
			wire_puback(connection_reserve(connection, WIRE_PUBACK_SIZE), publish.packet_id);
		if (publish.topic_length > 14 && !memcmp(publish.topic, "chat/response/", 14))
			on_answer(device, text, publish.payload_length, (int64_t)now_ns);
		else
			on_entry(device, text, publish.payload_length, (int64_t)now_ns);
	}
}

const struct connection_events device_events = {.ready = on_ready, .packet = on_packet, .closed = on_closed};
