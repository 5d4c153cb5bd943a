/* spool_append.c - what an append to the spool costs: the time of each, as the broker thread would spend it.
 *
 *   spool_append DIRECTORY [--sync none|interval|always] [--rate N] [--bytes N] [--seconds N] [--lanes N] [--segments N]
 *
 * Appends at a rate (45,000 records a second of 500 bytes), in a burst every millisecond, while lanes read behind and release at
 * once. DIRECTORY is a spool that nobody else uses. Prints the percentiles, what was refused, and how many segments were ready
 * ahead at the worst moment. The histogram reads at most 1.6 % too high; the two readings of the clock are in the times.
 */
#include "../histogram.h"

#include "clock.h"
#include "spool_files.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define BURST_NS INT64_C(1000000)

static struct {
	const char *directory;
	enum option_spool_sync sync;
	int64_t rate, bytes, seconds, segments;
	unsigned lanes;
} settings = {.rate = 45000, .bytes = 500, .seconds = 10, .lanes = 2, .segments = 256};

static struct histogram histogram;
static uint64_t refused, least_ready = UINT64_MAX;

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "spool_append: %s\n", what);
	exit(2);
}

static void read_arguments(int argc, char **argv)
{
	static const struct option names[] = {{"sync", required_argument, NULL, 'y'}, {"rate", required_argument, NULL, 'r'},
		{"bytes", required_argument, NULL, 'b'}, {"seconds", required_argument, NULL, 's'},
		{"lanes", required_argument, NULL, 'l'}, {"segments", required_argument, NULL, 'g'}, {NULL, 0, NULL, 0}};
	int choice;
	while ((choice = getopt_long(argc, argv, "", names, NULL)) != -1) {
		int64_t number = choice == '?' ? 0 : strtoll(optarg, NULL, 10);
		switch (choice) {
		case 'y':
			settings.sync = strcmp(optarg, "always") == 0     ? SPOOL_SYNC_ALWAYS
					: strcmp(optarg, "interval") == 0 ? SPOOL_SYNC_INTERVAL
									  : SPOOL_SYNC_NONE;
			break;
		case 'r':
			settings.rate = number;
			break;
		case 'b':
			settings.bytes = number;
			break;
		case 's':
			settings.seconds = number;
			break;
		case 'l':
			settings.lanes = (unsigned)number;
			break;
		case 'g':
			settings.segments = number;
			break;
		default:
			exit(2);
		}
	}
	if (optind + 1 != argc || settings.rate <= 0 || settings.bytes < 200 || settings.bytes > 100000 || settings.lanes == 0 ||
		settings.lanes > SPOOL_LANES_MAX) {
		die("usage: spool_append DIRECTORY [--sync none|interval|always] [--rate N] [--bytes N] [--seconds N] [--lanes "
		    "N] "
		    "[--segments N]");
	}
	settings.directory = argv[optind];
}

static void *read_behind(void *argument)
{
	struct spool_reader *reader = argument;
	bool damaged;
	while (!spool_stopped(reader->spool)) {
		while (spool_next(reader, &damaged)) {
		}
		if (damaged) {
			die("a record was not read as it was written");
		}
		spool_release(reader, reader->at);
		spool_wait(reader, 1000);
	}
	return NULL;
}

static void append(struct spool *spool, int64_t serial)
{
	static char body[100000];
	struct record_message message = {.conversation_id = serial % 1000, .user_id = serial};
	message.body_length = (uint32_t)((size_t)settings.bytes - record_message_size(&message));
	size_t length = record_message_size(&message);
	uint64_t position;

	int64_t begin_ns = clock_monotonic_ns();
	void *at = spool_append(spool, length, &position);
	if (at) {
		record_write_message(at, position, 0, &message, &(struct record_parts){.body = body});
	}
	bool good = at && spool_append_done(spool, length, record_slot(message.conversation_id));
	histogram_record(&histogram, (uint64_t)(clock_monotonic_ns() - begin_ns));
	refused += !good;
	uint64_t ready = atomic_load(&spool->ready_end) - spool_segment_of(atomic_load(&spool->end)) - 1;
	least_ready = ready < least_ready ? ready : least_ready;
}

static void append_at_rate(struct spool *spool)
{
	int64_t begin_ns = clock_monotonic_ns(), total = settings.rate * settings.seconds, serial = 0;
	for (int64_t burst = 1; serial < total; burst++) {
		int64_t due = burst * settings.rate * BURST_NS / 1000000000;
		while (serial < due && serial < total) {
			append(spool, serial++);
		}
		struct timespec next = clock_timespec(begin_ns + burst * BURST_NS);
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	double took_s = (double)(clock_monotonic_ns() - begin_ns) / 1e9;
	printf("%" PRId64 " records of %" PRId64 " bytes in %.1f s (%.0f/s), %" PRIu64 " refused\n", serial, settings.bytes,
		took_s, (double)serial / took_s, refused);
}

static void report(const struct spool *spool)
{
	static const double percents[] = {50, 99, 99.9, 99.99, 100};
	struct rusage usage;
	uint64_t flushes, failed;
	spool_flushes(spool, &flushes, &failed);
	for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
		printf("p%-6g %10.2f us\n", percents[i], (double)histogram_percentile_ns(&histogram, percents[i]) / 1e3);
	}
	getrusage(RUSAGE_SELF, &usage);
	printf("segments ready ahead: at least %" PRIu64 "; flushes: %" PRIu64 ", %" PRIu64 " failed; peak RSS %ld MB\n",
		least_ready, flushes, failed, usage.ru_maxrss / 1024);
}

int main(int argc, char **argv)
{
	char error[512];
	struct spool_recovery found;
	struct spool_reader readers[SPOOL_LANES_MAX];
	pthread_t threads[SPOOL_LANES_MAX];

	read_arguments(argc, argv);
	struct spool_settings spool_settings = {.directory = settings.directory,
		.max_bytes = settings.segments * (int64_t)SPOOL_SEGMENT_BYTES,
		.lanes = settings.lanes,
		.sync = settings.sync,
		.sync_ms = 50};
	struct spool *spool = spool_open(&spool_settings, &found, error, sizeof(error));
	if (!spool) {
		die(error);
	}
	for (unsigned i = 0; i < settings.lanes; i++) {
		readers[i] = spool_reader(spool, i);
		if (pthread_create(&threads[i], NULL, read_behind, &readers[i]) != 0) {
			die("no thread");
		}
	}
	append_at_rate(spool);
	spool_stop(spool);
	for (unsigned i = 0; i < settings.lanes; i++) {
		pthread_join(threads[i], NULL);
	}
	report(spool);
	spool_close(spool);
	return 0;
}
