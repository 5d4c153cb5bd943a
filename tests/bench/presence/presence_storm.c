/* presence_storm.c - a crowd of which some per cent lose their connections each second and come back: who watches must hear of
 * nobody going, and the database of next to nothing.
 *
 *   presence_storm [USERS [SECONDS [PERCENT]]]      10000 users, 30 seconds, 5 per cent each second
 *
 * A PostgreSQL and a broker of its own (tests/integration/fixture.h), the grace period as it is by default. The users are in
 * groups of 100; in each the first two never go, and watch all others. Whoever is cut comes back within three seconds. Beside
 * them one user, the probe, says every second second that it is busy or away: what is measured is how long it takes to its
 * watcher, and into the table.
 *
 * Prints `name value` lines. Exit status 1: somebody was seen offline, there were more than 20 statements a second, the probe
 * took more than 2 s, or the table was wrong in the end.
 */
#include "connection.h"
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_SIZE 100u
#define WATCHERS 2u /* of a group, its first */
#define PROBE 2u    /* its index; it does not go either */
#define FIRST_USER 1000000
#define BACK_WITHIN_NS UINT64_C(3000000000)
#define SLICES 10 /* of a second: the crowd goes bit by bit */
#define SECOND_NS UINT64_C(1000000000)
#define LAG_MAX_MS 2000
#define STATEMENTS_PER_S_MAX 20
#define ASKED_EVERY_NS UINT64_C(20000000)

struct member {
	struct connection connection;
	char client_id[32];
	char *token;
	uint64_t back_ns; /* when it comes back; 0: it has not gone */
	bool ready;
};

static struct crowd {
	struct connection_loop loop;
	struct fixture *fixture;
	struct member *members;
	unsigned count, ready;
	uint64_t firsts, offline, told, lost, came_back;
	bool probing;
	const char *probed; /* the status that is waited for */
	uint64_t probed_ns; /* since when */
	bool heard, written;
	uint64_t heard_max_ns, written_max_ns, probes;
} crowd;

static bool is_watcher(unsigned i)
{
	return i % GROUP_SIZE < WATCHERS;
}

/* ---- what the crowd does */

static void subscribe(struct member *member, unsigned first, unsigned end)
{
	char topics[GROUP_SIZE + 1][64];
	const char *list[GROUP_SIZE + 1];
	uint8_t packet[8192];
	unsigned count = 0;

	snprintf(topics[count], sizeof topics[0], "chat/response/%s", member->client_id);
	list[count] = topics[count];
	count++;
	for (unsigned i = first; i < end; i++) {
		snprintf(topics[count], sizeof topics[0], "chat/user/%u/presence", FIRST_USER + i);
		list[count] = topics[count];
		count++;
	}
	size_t length = wire_subscribe_all(packet, sizeof packet, WIRE_LEVEL_5, 1, list, count, 1);
	connection_send(&member->connection, packet, length);
}

static void on_ready(struct connection *connection)
{
	struct member *member = connection->owner;
	unsigned i = (unsigned)(member - crowd.members);
	member->ready = true;
	crowd.ready++;
	if (crowd.probing && is_watcher(i)) {
		fprintf(stderr, "presence_storm: a watcher connected late\n");
	}
}

static bool has(const struct wire_publish *publish, const char *text)
{
	return memmem(publish->payload, publish->payload_length, text, strlen(text)) != NULL;
}

static void on_presence(const struct wire_publish *publish, uint64_t now_ns)
{
	char user[32], status[32];
	snprintf(user, sizeof user, "\"user\":%u,", FIRST_USER + PROBE);
	snprintf(status, sizeof status, "\"status\":\"%s\"", crowd.probed ? crowd.probed : "");
	crowd.offline += crowd.probing && has(publish, "\"offline\"");
	if (crowd.probed && !crowd.heard && has(publish, user) && has(publish, status)) {
		crowd.heard = true;
		uint64_t took_ns = now_ns - crowd.probed_ns;
		crowd.heard_max_ns = took_ns > crowd.heard_max_ns ? took_ns : crowd.heard_max_ns;
	}
	crowd.told++;
}

static void on_packet(struct connection *connection, const struct wire_packet *packet, uint64_t now_ns)
{
	struct wire_publish publish;
	if (packet->type != WIRE_PUBLISH || !wire_read_publish(packet, connection->level, &publish)) {
		return;
	}
	if (publish.qos > 0) {
		wire_puback(connection_reserve(connection, WIRE_PUBACK_SIZE), publish.packet_id);
	}
	if (publish.topic_length > 10 && memcmp(publish.topic, "chat/user/", 10) == 0) {
		on_presence(&publish, now_ns);
	} else if (has(&publish, "\"status\"")) {
		crowd.firsts++;
	}
}

static void on_closed(struct connection *connection, const char *why)
{
	struct member *member = connection->owner;
	crowd.ready -= member->ready;
	member->ready = false;
	member->back_ns = connection_now_ns();
	if (crowd.lost++ == 0) {
		fprintf(stderr, "presence_storm: %s: %s (the first)\n", member->client_id, why);
	}
}

static const struct connection_events events = {on_ready, on_packet, on_closed};

static void begin(unsigned i)
{
	struct member *member = &crowd.members[i];
	memset(&member->connection, 0, sizeof member->connection);
	member->back_ns = 0;
	member->connection.loop = &crowd.loop;
	member->connection.owner = member;
	member->connection.level = WIRE_LEVEL_5;
	member->connection.port = (uint16_t)crowd.fixture->broker.port;
	member->connection.credentials =
		(struct wire_credentials){.client_id = member->client_id, .user = "x", .password = member->token};
	connection_start(&member->connection);
}

static void turn(uint64_t until_ns)
{
	if (!connection_loop_turn(&crowd.loop, until_ns)) {
		fail_msg("epoll");
	}
}

static void await_all_ready(void)
{
	uint64_t deadline_ns = connection_now_ns() + 120 * SECOND_NS;
	while (crowd.ready < crowd.count && connection_now_ns() < deadline_ns) {
		for (unsigned i = 0; i < crowd.count; i++) {
			if (crowd.members[i].back_ns) {
				begin(i);
			}
		}
		turn(connection_now_ns() + 10 * 1000000);
	}
	assert_int_equal(crowd.ready, crowd.count);
}

/* ---- the system */

static void make_rows(void)
{
	struct postgres *postgres = &crowd.fixture->postgres;
	sql(postgres, "INSERT INTO chat.users (id) SELECT %d + i FROM generate_series(0, %u) i", FIRST_USER, crowd.count - 1);
	sql(postgres, "INSERT INTO chat.conversations (id, type) SELECT %d + i, 'group' FROM generate_series(0, %u) i",
		FIRST_USER, (crowd.count - 1) / GROUP_SIZE);
	sql(postgres,
		"INSERT INTO chat.conversation_participants (conversation_id, user_id) SELECT %d + i / %u, %d + i FROM "
		"generate_series(0, %u) i",
		FIRST_USER, GROUP_SIZE, FIRST_USER, crowd.count - 1);
	sql(postgres, "ANALYZE");
}

static void make_members(void)
{
	crowd.members = calloc(crowd.count, sizeof crowd.members[0]);
	assert_non_null(crowd.members);
	for (unsigned i = 0; i < crowd.count; i++) {
		snprintf(crowd.members[i].client_id, sizeof crowd.members[i].client_id, "%u-phone", FIRST_USER + i);
		crowd.members[i].token = fixture_token(crowd.fixture, FIRST_USER + i, 0, 86400);
	}
}

static int64_t online_in_table(void)
{
	return sql_integer(&crowd.fixture->postgres,
		"SELECT count(*) FROM chat.presence WHERE user_id >= %d AND status <> 'offline'", FIRST_USER);
}

static void await_table(void)
{
	uint64_t deadline_ns = connection_now_ns() + 60 * SECOND_NS;
	while (online_in_table() < crowd.count && connection_now_ns() < deadline_ns) {
		turn(connection_now_ns() + 100 * 1000000);
	}
	assert_int_equal(online_in_table(), crowd.count);
}

static void watch_all(void)
{
	uint64_t expected = 0, deadline_ns = connection_now_ns() + 60 * SECOND_NS;
	for (unsigned i = 0; i < crowd.count; i++) {
		if (is_watcher(i)) {
			unsigned first = i / GROUP_SIZE * GROUP_SIZE;
			unsigned end = first + GROUP_SIZE < crowd.count ? first + GROUP_SIZE : crowd.count;
			subscribe(&crowd.members[i], first, end);
			expected += end - first;
		}
	}
	while (crowd.firsts < expected && connection_now_ns() < deadline_ns) {
		turn(connection_now_ns() + 10 * 1000000);
	}
	assert_int_equal(crowd.firsts, expected);
}

/* ---- the storm */

static void cut_some(unsigned how_many)
{
	connection_flush_all(&crowd.loop); /* none may stay on the loop's list */
	for (unsigned n = 0; n < how_many; n++) {
		unsigned i = (unsigned)random() % crowd.count;
		struct member *member = &crowd.members[i];
		if (is_watcher(i) || i == PROBE || !member->ready) {
			continue;
		}
		connection_release(&member->connection);
		member->ready = false;
		crowd.ready--;
		member->back_ns = connection_now_ns() + (uint64_t)random() % BACK_WITHIN_NS;
	}
}

static void bring_back(uint64_t now_ns)
{
	for (unsigned i = 0; i < crowd.count; i++) {
		if (crowd.members[i].back_ns && crowd.members[i].back_ns <= now_ns) {
			begin(i);
			crowd.came_back++;
		}
	}
}

static void probe(uint64_t now_ns)
{
	static const char topic[] = "chat/request/presence.set";
	uint8_t packet[256];
	char payload[64];
	size_t id_at, payload_at;

	crowd.probed = crowd.probes++ % 2 ? "away" : "busy";
	crowd.probed_ns = now_ns;
	crowd.heard = crowd.written = false;
	int length = snprintf(payload, sizeof payload, "{\"status\":\"%s\"}", crowd.probed);
	size_t size = wire_publish_template(packet, sizeof packet, WIRE_LEVEL_5, 0, topic, (size_t)length, &id_at, &payload_at);
	memcpy(packet + payload_at, payload, (size_t)length);
	connection_send(&crowd.members[PROBE].connection, packet, size);
}

static void look_into_table(void)
{
	if (!crowd.probed || crowd.written) {
		return;
	}
	crowd.written = sql_integer(&crowd.fixture->postgres,
		"SELECT count(*) FROM chat.presence WHERE user_id = %u AND status = '%s'", FIRST_USER + PROBE, crowd.probed);
	if (crowd.written) {
		uint64_t took_ns = connection_now_ns() - crowd.probed_ns;
		crowd.written_max_ns = took_ns > crowd.written_max_ns ? took_ns : crowd.written_max_ns;
	}
}

static void storm(unsigned seconds, unsigned percent)
{
	uint64_t began_ns = connection_now_ns(), asked_ns = 0;
	crowd.probing = true;
	for (unsigned slice = 0; slice < seconds * SLICES; slice++) {
		uint64_t end_ns = began_ns + (slice + 1) * SECOND_NS / SLICES;
		cut_some(crowd.count * percent / 100 / SLICES);
		if (slice % (2 * SLICES) == 0) {
			probe(connection_now_ns());
		}
		for (uint64_t now_ns = connection_now_ns(); now_ns < end_ns; now_ns = connection_now_ns()) {
			bring_back(now_ns);
			turn(now_ns + 5000000 < end_ns ? now_ns + 5000000 : end_ns);
			if (now_ns - asked_ns >= ASKED_EVERY_NS) {
				asked_ns = now_ns;
				look_into_table();
			}
		}
	}
}

/* The totals that the broker logs when it stops. */
static int64_t statements_of(const struct broker *broker)
{
	static const char words[] = " changes, ";
	char *log = file_read(broker->log), *last = NULL;
	for (char *at = log; (at = strstr(at, words)); at += sizeof words - 1) {
		last = at + sizeof words - 1;
	}
	int64_t statements = last ? strtoll(last, NULL, 10) : -1;
	free(log);
	return statements;
}

static unsigned argument(int count, char **words, int index, unsigned otherwise)
{
	return index < count ? (unsigned)strtoul(words[index], NULL, 10) : otherwise;
}

int main(int count, char **words)
{
	unsigned seconds = argument(count, words, 2, 30), percent = argument(count, words, 3, 5);
	void *state;

	crowd.count = argument(count, words, 1, 10000);
	crowd.fixture = fixture_new();
	state = crowd.fixture;
	fixture_configure(crowd.fixture, (const char *[]){"rate_requests 0", NULL}, NULL);
	broker_start(&crowd.fixture->broker);
	make_rows();
	make_members();
	assert_true(connection_loop_open(&crowd.loop, "127.0.0.1", &events));
	uint64_t began_ns = connection_now_ns();
	for (unsigned i = 0; i < crowd.count; i++) {
		begin(i);
		if (i % 64 == 63) {
			turn(connection_now_ns() + 1000000);
		}
	}
	await_all_ready();
	await_table();
	watch_all();
	storm(seconds, percent);
	await_all_ready();
	await_table();
	int64_t online = online_in_table();
	uint64_t lasted_ns = connection_now_ns() - began_ns;
	for (unsigned i = 0; i < crowd.count; i++) {
		connection_release(&crowd.members[i].connection);
		free(crowd.members[i].token);
	}
	broker_stop(&crowd.fixture->broker);
	int64_t statements = statements_of(&crowd.fixture->broker);
	double per_second = (double)statements / ((double)lasted_ns / (double)SECOND_NS);
	printf("users %u\nreconnects %llu\nseen_offline %llu\npresences %llu\nstatements %lld\nstatements_per_s %.2f\n"
	       "probes %llu\nheard_after_max_ms %.0f\nwritten_after_max_ms %.0f\nonline_in_table %lld\nlost %llu\n",
		crowd.count, (unsigned long long)crowd.came_back, (unsigned long long)crowd.offline,
		(unsigned long long)crowd.told, (long long)statements, per_second, (unsigned long long)crowd.probes,
		(double)crowd.heard_max_ns / 1e6, (double)crowd.written_max_ns / 1e6, (long long)online,
		(unsigned long long)crowd.lost);
	bool good = crowd.offline == 0 && crowd.lost == 0 && statements > 0 && per_second <= STATEMENTS_PER_S_MAX &&
		    crowd.heard && crowd.written && (double)crowd.heard_max_ns / 1e6 <= LAG_MAX_MS &&
		    (double)crowd.written_max_ns / 1e6 <= LAG_MAX_MS && online == (int64_t)crowd.count;
	connection_loop_close(&crowd.loop);
	free(crowd.members);
	fixture_teardown(&state);
	return good ? 0 : 1;
}
