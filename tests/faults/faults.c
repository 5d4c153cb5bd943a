/* faults.c - does named faults to a system under load and lets the judge say what they broke.
 *
 *   faults [--seed N] [--rounds N] [--long] FAULT...      (or `all`; `--list` names them)
 *
 * One fixture for all that are named. A load takes `judge_every` rounds of a fault in the long form, and all its rounds in
 * the short one; then it is judged, and a line is printed:
 *
 *   good kill_broker seed=17 rounds=10 landed=10 acks=20114 violations=0 there=9 gone=11 acks_per_s=2310 first_connack_ms=94(121)
 *
 * there and gone are the users whose presence was compared at the end. Figures are the mean and, in parentheses, the highest. A
 * load with too few messages, or whose faults did not land, is `invalid` and is done again with the next seed, three times at
 * most; `skipped` says why. The exit status is 0 where nothing is bad and nothing stayed invalid. With CHAT_TEST_LINES in the
 * environment the events of the last load are there, as lines of JSON. The same seed gives the same faults, after the same
 * numbers of messages.
 */
#include "fault.h"
#include "small_disk.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SHORT_ACKS = 300, LONG_ACKS = 1000, TRIES = 3 };

struct settings {
	uint64_t seed;
	unsigned rounds; /* of each fault; 0: the usual */
	bool is_long;
};

static const struct fault *const tables[] = {broker_faults, database_faults, spool_faults};

static const struct fault *find(const char *name)
{
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		for (const struct fault *fault = tables[i]; fault->name; fault++) {
			if (!strcmp(fault->name, name))
				return fault;
		}
	}
	return NULL;
}

static void list(void)
{
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		for (const struct fault *fault = tables[i]; fault->name; fault++)
			printf("%-18s %s\n", fault->name, fault->what);
	}
}

static uint64_t violations_of(const struct judgement *judgement)
{
	uint64_t sum = 0;
	for (int i = 0; i < VIOLATIONS; i++)
		sum += judgement->count[i];
	return sum;
}

static void print_line(const struct stage *stage, const struct fault *fault, enum verdict verdict, unsigned rounds,
	unsigned landed, const struct judgement *judgement)
{
	static const char *const words[] = {[VERDICT_GOOD] = "good", [VERDICT_BAD] = "bad", [VERDICT_INVALID] = "invalid"};
	printf("%s %s seed=%" PRIu64 " rounds=%u landed=%u acks=%" PRIu64 " rows=%" PRIu64 " deliveries=%" PRIu64
	       " violations=%" PRIu64,
		words[verdict], fault->name, stage->seed, rounds, landed, judgement->acks, judgement->rows, judgement->deliveries,
		violations_of(judgement));
	printf(" there=%" PRIu64 " gone=%" PRIu64, judgement->there, judgement->gone);
	for (unsigned i = 0; i < stage->figure_count; i++) {
		const struct figure *figure = &stage->figures[i];
		printf(" %s=%" PRId64, figure->name, figure->sum / figure->count);
		if (figure->count > 1)
			printf("(%" PRId64 ")", figure->worst);
	}
	if (stage->complaint[0])
		printf(" - %s", stage->complaint);
	else if (verdict == VERDICT_INVALID)
		printf(" - %s", judgement->invalid ? judgement->invalid : "a fault did not land");
	printf("\n");
	fflush(stdout);
}

/* One load with so many rounds of the fault. */
static enum verdict run_load(struct stage *stage, const struct fault *fault, unsigned first, unsigned rounds)
{
	struct workload_options options = stage_options(stage);
	struct judgement judgement;
	unsigned landed = 0;
	stage->random = stage->seed;
	stage->figure_count = 0;
	options.lines_path = getenv("CHAT_TEST_LINES");
	if (fault->shape)
		fault->shape(stage, &options);
	stage_load(stage, &options);
	for (unsigned round = first; round < first + rounds; round++)
		landed += fault->strike(stage, round);
	uint64_t acks = workload_counts(stage->workload).acked, wanted = stage->is_long ? LONG_ACKS : SHORT_ACKS;
	if (acks < wanted * 5 / 4) /* some of them are for repeats */
		stage_wait_acks(stage, wanted * 5 / 4 - acks);
	enum verdict verdict = stage_judge(stage, wanted, &judgement);
	if (verdict == VERDICT_GOOD && landed < rounds)
		verdict = VERDICT_INVALID;
	print_line(stage, fault, verdict, rounds, landed, &judgement);
	return verdict;
}

/* False: bad, or never valid. */
static bool run_fault(struct stage *stage, const struct fault *fault, const struct settings *settings)
{
	unsigned rounds = settings->rounds ? settings->rounds : settings->is_long ? fault->judge_every : 1;
	bool is_good = true;
	stage->keeps_clients = fault->keeps_clients;
	stage->seed = settings->seed;
	const char *obstacle = fault->begin ? fault->begin(stage) : NULL;
	if (obstacle) {
		printf("skipped %s - %s\n", fault->name, obstacle);
		return true;
	}
	for (unsigned first = 0, tries = 0; first < rounds && is_good; stage->seed++) {
		unsigned share = settings->is_long && rounds - first > fault->judge_every ? fault->judge_every : rounds - first;
		enum verdict verdict = run_load(stage, fault, first, share);
		if (verdict == VERDICT_INVALID && ++tries < TRIES)
			continue;
		is_good = verdict == VERDICT_GOOD;
		tries = 0;
		first += share;
	}
	if (fault->end)
		fault->end(stage);
	fixture_forget_log(stage->fixture);
	return is_good;
}

/* Connections of the load, and of the broker, which inherits the limit. */
static void raise_limits(void)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static bool run_all(struct stage *stage, const struct settings *settings)
{
	bool is_good = true;
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		for (const struct fault *fault = tables[i]; fault->name; fault++)
			is_good = run_fault(stage, fault, settings) && is_good;
	}
	return is_good;
}

static int usage(void)
{
	fprintf(stderr, "usage: faults [--seed N] [--rounds N] [--long] FAULT... | all | --list\n");
	return 2;
}

int main(int argc, char *argv[])
{
	static const struct option known[] = {{"seed", required_argument, NULL, 's'}, {"rounds", required_argument, NULL, 'r'},
		{"long", no_argument, NULL, 'l'}, {"list", no_argument, NULL, 'n'}, {NULL, 0, NULL, 0}};
	struct settings settings = {.seed = (uint64_t)now_ns() % 1000000};
	struct stage stage;
	bool is_good = true;
	for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
		switch (option) {
		case 's':
			settings.seed = strtoull(optarg, NULL, 10);
			break;
		case 'r':
			settings.rounds = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'l':
			settings.is_long = true;
			break;
		case 'n':
			list();
			return 0;
		default:
			return usage();
		}
	}
	if (optind == argc)
		return usage();
	for (int i = optind; i < argc; i++) {
		if (strcmp(argv[i], "all") != 0 && !find(argv[i])) {
			fprintf(stderr, "faults: there is no %s\n", argv[i]);
			return usage();
		}
	}
	raise_limits();
	(void)small_disk_allowed(); /* before anything is started that shall see the disks */
	stage_begin(&stage, settings.is_long);
	for (int i = optind; i < argc; i++) {
		const struct fault *fault = find(argv[i]);
		is_good = (fault ? run_fault(&stage, fault, &settings) : run_all(&stage, &settings)) && is_good;
	}
	stage_end(&stage);
	return is_good ? 0 : 1;
}
