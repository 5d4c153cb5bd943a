/* test_damage.c - spool files that were damaged while nobody had them open: bits, pages and whole files lost.
 *
 * Each test lets messages wait in the spool of a killed broker, PostgreSQL being down, damages files, and starts both again.
 * The rule: what lies in the damaged bytes is lost and said so, loudly; every other message is stored, once, in order.
 */
#include "fixture.h"

#include "record.h"
#include "spool_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MESSAGES_MAX = 2048, NAME_SIZE = 32, SEGMENTS_MAX = 8, DIES_MS = 20000 };

/* A message that waits, and where. Its body begins with its number, counted from 1. */
struct place {
	char segment[NAME_SIZE];
	off_t offset;
	size_t length;
	bool lost; /* the test has damaged it */
};

struct backlog {
	struct fixture *fixture;
	int64_t group;
	int count;
	struct place places[MESSAGES_MAX + 1];  /* by number */
	char segments[SEGMENTS_MAX][NAME_SIZE]; /* those with a message of this backlog, in order */
	int segment_count;
	int reports; /* how often damage was reported before */
	uint32_t seal;
};

static const char *path_in_spool(const struct fixture *fixture, const char *name)
{
	return text_of("%s/spool/%s", fixture->broker.directory, name);
}

/* The newest may be shorter, where the broker died while it was being made: the rest is zeros then. */
static char *read_segment(const char *path)
{
	char *bytes = aligned_alloc(RECORD_ALIGNMENT, SPOOL_SEGMENT_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(bytes && fd >= 0);
	memset(bytes, 0, SPOOL_SEGMENT_BYTES);
	check(read(fd, bytes, SPOOL_SEGMENT_BYTES) >= 0);
	close(fd);
	return bytes;
}

/* What seals the records: see record.h. */
static uint32_t read_seal(const struct fixture *fixture)
{
	uint8_t identity[16];
	int fd = open(path_in_spool(fixture, "identity"), O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && read(fd, identity, sizeof identity) == (ssize_t)sizeof identity);
	close(fd);
	return record_crc32c(0, identity, sizeof identity);
}

static void note_record(struct backlog *backlog, const char *name, off_t offset, const struct record_header *record)
{
	struct record_parts parts;
	if (record->type != RECORD_MESSAGE || record_read_message(record, &parts)->conversation_id != backlog->group)
		return;
	long number = strtol(parts.body, NULL, 10);
	check(number > 0 && number <= backlog->count);
	struct place *place = &backlog->places[number];
	*place = (struct place){.offset = offset, .length = record->length};
	check(snprintf(place->segment, sizeof place->segment, "%s", name) < NAME_SIZE);
	if (backlog->segment_count == 0 || strcmp(backlog->segments[backlog->segment_count - 1], name) != 0) {
		check(backlog->segment_count < SEGMENTS_MAX);
		check(snprintf(backlog->segments[backlog->segment_count++], NAME_SIZE, "%s", name) < NAME_SIZE);
	}
}

static void find_records(struct backlog *backlog, const char *name)
{
	char *bytes = read_segment(path_in_spool(backlog->fixture, name));
	uint64_t base = spool_base_of(strtoull(name, NULL, 16));
	for (size_t at = SPOOL_HEADER_BYTES; at < SPOOL_SEGMENT_BYTES;) {
		const struct record_header *record = (const void *)(bytes + at);
		if (!record_check(record, SPOOL_SEGMENT_BYTES - at, base + at, backlog->seal))
			break;
		note_record(backlog, name, (off_t)at, record);
		at += record->length;
	}
	free(bytes);
}

static int is_segment(const struct dirent *entry)
{
	return strstr(entry->d_name, ".segment") != NULL;
}

/* So many messages with bodies of so many bytes wait in the spool of a dead broker. */
static struct backlog *make_backlog(struct fixture *fixture, int count, int body_length)
{
	struct backlog *backlog = calloc(1, sizeof *backlog);
	int64_t user = fixture_user(fixture);
	struct dirent **entries;
	check(backlog && count <= MESSAGES_MAX);
	*backlog = (struct backlog){.fixture = fixture, .group = GROUP_OF(fixture, user), .count = count};
	fixture_expect_error(fixture, "database: ");
	fixture_expect_error(fixture, "chat: writer ");
	fixture_expect_error(fixture, "DAMAGED");
	fixture_expect_error(fixture, "bytes of an unfinished record");
	backlog->reports = broker_log_count(&fixture->broker, "DAMAGED");
	struct client *client = fixture_client(fixture, user, 4);
	postgres_stop(&fixture->postgres);
	for (int i = 1; i <= count; i++) {
		client_send(client, topic_of(backlog->group, "send"), text_of("%d %*s", i, body_length, "."));
		if (i % 100 == 0)
			client_settle(client);
	}
	client_settle(client);
	assert_true(client_is_connected(client));
	broker_kill(&fixture->broker);
	clients_close_all();
	backlog->seal = read_seal(fixture);
	int found = scandir(path_in_spool(fixture, ""), &entries, is_segment, alphasort);
	for (int i = 0; i < found; i++) {
		find_records(backlog, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	for (int i = 1; i <= count; i++)
		assert_true(backlog->places[i].length > 0);
	return backlog;
}

/* ---------------------------------------------------------------------------------------------------- damage */

static void change_bytes(const struct backlog *backlog, const char *segment, off_t offset, const void *bytes, size_t length)
{
	int fd = open(path_in_spool(backlog->fixture, segment), O_WRONLY | O_CLOEXEC);
	check(fd >= 0 && pwrite(fd, bytes, length, offset) == (ssize_t)length);
	close(fd);
}

static void flip_bit(struct backlog *backlog, int number, size_t offset, unsigned bit)
{
	struct place *place = &backlog->places[number];
	char byte = 0;
	int fd = open(path_in_spool(backlog->fixture, place->segment), O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && offset < place->length && pread(fd, &byte, 1, place->offset + (off_t)offset) == 1);
	close(fd);
	byte = (char)(byte ^ 1 << bit);
	change_bytes(backlog, place->segment, place->offset + (off_t)offset, &byte, 1);
	place->lost = true;
}

/* Marks what lies in from..to of a segment, in part or whole. */
static void lose(struct backlog *backlog, const char *segment, off_t from, off_t to)
{
	for (int i = 1; i <= backlog->count; i++) {
		struct place *place = &backlog->places[i];
		if (!strcmp(place->segment, segment) && place->offset < to && place->offset + (off_t)place->length > from)
			place->lost = true;
	}
}

/* --------------------------------------------------------------------------------------------------- verdict */

/* Both start again: what was not lost is stored once, in order, and nothing else. `report`: a line that must have come; NULL:
 * none may say that anything was lost. */
static void expect_rest(struct backlog *backlog, const char *report)
{
	struct fixture *fixture = backlog->fixture;
	int said = report ? broker_log_count(&fixture->broker, report) : 0, expected = 0;
	broker_start(&fixture->broker);
	postgres_start(&fixture->postgres);
	for (int i = 1; i <= backlog->count; i++)
		expected += !backlog->places[i].lost;
	sql_wait(&fixture->postgres, expected, "SELECT last_seq FROM chat.conversations WHERE id = %lld",
		(long long)backlog->group);
	PGconn *connection = postgres_connect(&fixture->postgres, "postgres");
	PGresult *rows = PQexec(connection,
		text_of("SELECT split_part(body, ' ', 1) FROM chat.messages WHERE conversation_id = %lld ORDER BY seq",
			(long long)backlog->group));
	assert_int_equal(PQntuples(rows), expected);
	for (int i = 1, row = 0; i <= backlog->count; i++) {
		if (!backlog->places[i].lost)
			assert_int_equal(strtol(PQgetvalue(rows, row++, 0), NULL, 10), i);
	}
	PQclear(rows);
	PQfinish(connection);
	if (report)
		assert_int_equal(broker_log_count(&fixture->broker, report), said + 1);
	else
		assert_int_equal(broker_log_count(&fixture->broker, "DAMAGED"), backlog->reports);
	/* And it goes on. */
	struct client *client = fixture_client(fixture,
		sql_integer(&fixture->postgres,
			"SELECT user_id FROM "
			"chat.conversation_participants WHERE conversation_id = %lld",
			(long long)backlog->group),
		5);
	assert_true(client_publish(client, topic_of(backlog->group, "send"), "after", 1) < 0x80);
	sql_wait(&fixture->postgres, expected + 1, "SELECT last_seq FROM chat.conversations WHERE id = %lld",
		(long long)backlog->group);
	free(backlog);
}

/* ----------------------------------------------------------------------------------------------------- tests */

/* A bit of each field, each in a record of its own between good ones. */
static void test_bit_in_each_field(void **state)
{
	enum { APART = 3 };
	static const size_t fields[] = {offsetof(struct record_header, length), offsetof(struct record_header, length) + 2,
		offsetof(struct record_header, crc32c), offsetof(struct record_header, position),
		offsetof(struct record_header, version), offsetof(struct record_header, type),
		offsetof(struct record_header, slot), offsetof(struct record_header, flags),
		offsetof(struct record_header, reserved),
#define MESSAGE_FIELD(name) sizeof(struct record_header) + offsetof(struct record_message, name)
		MESSAGE_FIELD(accepted_at_ms), MESSAGE_FIELD(conversation_id), MESSAGE_FIELD(user_id), MESSAGE_FIELD(device_id),
		MESSAGE_FIELD(id), MESSAGE_FIELD(reply_to), MESSAGE_FIELD(ref), MESSAGE_FIELD(expires_in_s),
		MESSAGE_FIELD(body_length), MESSAGE_FIELD(extra_length), MESSAGE_FIELD(correlation_length),
		MESSAGE_FIELD(client_id_length), MESSAGE_FIELD(type_length), MESSAGE_FIELD(reserved),
		sizeof(struct record_header) + sizeof(struct record_message)};
	enum { FIELDS = sizeof fields / sizeof *fields };
	struct backlog *backlog = make_backlog(*state, (FIELDS + 1) * APART, 50);
	for (int i = 0; i < FIELDS; i++)
		flip_bit(backlog, 1 + i * APART, fields[i], (unsigned)i % 8);
	flip_bit(backlog, 1 + FIELDS * APART, backlog->places[1 + FIELDS * APART].length - 8, 3); /* its end */
	expect_rest(backlog, "DAMAGED");
}

static void test_zeroed_page(void **state)
{
	static const char zeros[4096];
	struct backlog *backlog = make_backlog(*state, 300, 100);
	const struct place *middle = &backlog->places[150];
	off_t page = middle->offset / 4096 * 4096;
	change_bytes(backlog, middle->segment, page, zeros, sizeof zeros);
	lose(backlog, middle->segment, page, page + (off_t)sizeof zeros);
	expect_rest(backlog, "DAMAGED");
}

/* In the middle of a record, so that its rest is a torn tail. */
static void test_truncated_segment(void **state)
{
	struct backlog *backlog = make_backlog(*state, 200, 100);
	const struct place *place = &backlog->places[170];
	off_t end = place->offset + 60;
	check(truncate(path_in_spool(backlog->fixture, place->segment), end) == 0);
	lose(backlog, place->segment, end, (off_t)SPOOL_SEGMENT_BYTES);
	expect_rest(backlog, "bytes of an unfinished record");
}

static void test_missing_segment(void **state)
{
	struct backlog *backlog = make_backlog(*state, 700, 20000);
	assert_true(backlog->segment_count >= 3);
	const char *middle = backlog->segments[backlog->segment_count / 2];
	check(unlink(path_in_spool(backlog->fixture, middle)) == 0);
	lose(backlog, middle, 0, (off_t)SPOOL_SEGMENT_BYTES);
	expect_rest(backlog, "1 segments are missing");
}

/* A copy under another number does not belong there: the broker refuses and names it. Once it is gone, all is there. */
static void test_duplicated_segment(void **state)
{
	struct backlog *backlog = make_backlog(*state, 500, 20000);
	struct fixture *fixture = backlog->fixture;
	const char *last = backlog->segments[backlog->segment_count - 1];
	uint64_t number = strtoull(last, NULL, 16);
	const char *name = last;
	while (access(path_in_spool(fixture, name), F_OK) == 0) /* behind those that were made ready as well */
		name = text_of("%016" PRIx64 ".segment", ++number);
	struct account self = account_find((const char *const[]){"root", NULL});
	const char *argv[] = {"cp", "-p", path_in_spool(fixture, last), path_in_spool(fixture, name), NULL};
	process_run("cp", argv, NULL, &self, text_of("%s/cp.log", fixture->directory));
	fixture_expect_error(fixture, "plugin_opt_spool_dir");
	fixture_expect_error(fixture, "Error: Plugin");
	int refusals = broker_log_count(&fixture->broker, name);
	assert_int_not_equal(broker_start_refused(&fixture->broker), 0);
	assert_int_equal(broker_log_count(&fixture->broker, name), refusals + 1);
	check(unlink(path_in_spool(fixture, name)) == 0);
	expect_rest(backlog, NULL);
}

/* Until they are stored: `all` with those before. */
static void send_lines(struct fixture *fixture, int64_t user, int64_t group, int count, int all)
{
	struct client *client = fixture_client(fixture, user, 5);
	for (int i = 0; i < count; i++)
		client_send(client, topic_of(group, "send"), "line");
	client_settle(client);
	clients_close_all();
	sql_wait(&fixture->postgres, all, "SELECT last_seq FROM chat.conversations WHERE id = %lld", (long long)group);
}

/* The spool's end is lost, and the broker dies when it has put the positions back and not yet noted that they are checked: the
 * next start does it once more, and nothing that comes is taken for stored. */
static void test_died_at_a_lost_end(void **state)
{
	enum { EACH = 10 };
	struct fixture *fixture = *state;
	struct broker *broker = &fixture->broker;
	int64_t user = fixture_user(fixture), group = GROUP_OF(fixture, user);
	const char *spool = text_of("%s/spool", broker->directory), *saved = text_of("%s/saved", broker->directory);
	int status;
	fixture_expect_error(fixture, "chat: writer ");
	fixture_expect_error(fixture, "database: ");
	broker_stop(broker);
	fixture_use_plugin(fixture, "CHAT_TEST_FAULTY_PLUGIN");
	broker_start(broker);
	send_lines(fixture, user, group, EACH, EACH);
	broker_stop(broker);
	directory_copy(spool, saved);
	broker_start(broker);
	send_lines(fixture, user, group, EACH, 2 * EACH);
	broker_stop(broker);
	directory_copy(saved, spool);
	broker->environment[0] = "CHAT_CRASH_AT=rewound";
	bool started = broker_try_start(broker);
	assert_true(!started || process_wait(&broker->process, now_ms() + allowed_ms(DIES_MS), &status));
	broker->environment[0] = NULL;
	broker_start(broker);
	send_lines(fixture, user, group, EACH, 3 * EACH);
	broker_stop(broker);
	fixture_use_plugin(fixture, "CHAT_TEST_PLUGIN");
	broker_start(broker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bit_in_each_field),
		TEST(test_zeroed_page),
		TEST(test_truncated_segment),
		TEST(test_missing_segment),
		TEST(test_duplicated_segment),
		TEST(test_died_at_a_lost_end),
	};
	return cmocka_run_group_tests_name("damage", tests, fixture_setup, fixture_teardown);
}
