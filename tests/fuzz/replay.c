/* replay.c - runs a fuzz target without a fuzzer: over each file of a corpus, then over mutations of them.
 *
 *   fuzz_X CORPUS_DIRECTORY COUNT [SEED]
 *
 * The mutations depend on nothing but the corpus, COUNT and SEED, so that a failure in one run is a failure in the next;
 * with CHAT_FUZZ_VERBOSE set each is announced first, so that the last line before a crash names it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEEDS_MAX = 256, SEED_BYTES_MAX = 1 << 16, INPUT_BYTES_MAX = 2 * SEED_BYTES_MAX };

static struct {
	uint8_t *bytes;
	size_t length;
} seeds[SEEDS_MAX];
static size_t seed_count;
static uint64_t state;

/* xorshift64*: small, and the same everywhere. */
static size_t random_below(size_t bound)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return bound == 0 ? 0 : (size_t)((state * UINT64_C(2685821657736338717)) >> 16) % bound;
}

static void add_seed(const uint8_t *bytes, size_t length)
{
	if (seed_count == SEEDS_MAX)
		return;
	/* Exactly as long as the input, so that a sanitizer sees a read past its end. */
	seeds[seed_count].bytes = malloc(length ? length : 1);
	if (!seeds[seed_count].bytes)
		abort();
	memcpy(seeds[seed_count].bytes, bytes, length);
	seeds[seed_count++].length = length;
}

static void load_seed(const char *directory, const char *name)
{
	char path[4096];
	static uint8_t bytes[SEED_BYTES_MAX];
	int length = snprintf(path, sizeof path, "%s/%s", directory, name);
	if (name[0] == '.' || length < 0 || (size_t)length >= sizeof path)
		return;
	FILE *file = fopen(path, "rb");
	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	add_seed(bytes, fread(bytes, 1, sizeof bytes, file));
	fclose(file);
}

static void load_seeds(const char *directory)
{
	DIR *entries = opendir(directory);
	if (!entries) {
		fprintf(stderr, "%s: %s: mutations of the empty input only\n", directory, strerror(errno));
		return;
	}
	for (struct dirent *entry; (entry = readdir(entries));)
		load_seed(directory, entry->d_name);
	closedir(entries);
}

static size_t mutate_once(uint8_t *input, size_t length)
{
	static const char interesting[] = "{}[]\":,\\/+#.-_$ \0\x01\x7f\x80\xc0\xed\xef\xf4\xff"
					  "0129eE";
	size_t at = random_below(length + 1);
	switch (random_below(6)) {
	case 0: /* flip a bit */
		if (at < length)
			input[at] ^= (uint8_t)(1u << random_below(8));
		return length;
	case 1: /* cut */
		return at;
	case 2: /* overwrite with a byte that means something to a parser */
		if (at < length)
			input[at] = (uint8_t)interesting[random_below(sizeof interesting - 1)];
		return length;
	case 3: /* insert one */
		if (length + 1 > INPUT_BYTES_MAX)
			return length;
		memmove(input + at + 1, input + at, length - at);
		input[at] = (uint8_t)interesting[random_below(sizeof interesting - 1)];
		return length + 1;
	case 4: { /* remove a stretch */
		size_t count = random_below(length - at + 1);
		memmove(input + at, input + at + count, length - at - count);
		return length - count;
	}
	default: { /* repeat a stretch */
		size_t count = random_below(length - at + 1);
		if (length + count > INPUT_BYTES_MAX)
			return length;
		memmove(input + at + count, input + at, length - at);
		return length + count;
	}
	}
}

static void run_exact(const uint8_t *bytes, size_t length)
{
	uint8_t *input = malloc(length ? length : 1);
	if (!input)
		abort();
	memcpy(input, bytes, length);
	(void)LLVMFuzzerTestOneInput(input, length);
	free(input);
}

static void run_mutations(unsigned long count)
{
	static uint8_t input[INPUT_BYTES_MAX];
	for (unsigned long i = 0; i < count; i++) {
		size_t chosen = random_below(seed_count), length = seeds[chosen].length;
		memcpy(input, seeds[chosen].bytes, length);
		for (size_t rounds = 1 + random_below(6); rounds; rounds--)
			length = mutate_once(input, length);
		if (getenv("CHAT_FUZZ_VERBOSE"))
			fprintf(stderr, "mutation %lu of seed %zu, %zu bytes\n", i, chosen, length);
		run_exact(input, length);
	}
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: %s CORPUS_DIRECTORY COUNT [SEED]\n", argv[0]);
		return 2;
	}
	state = argc > 3 ? strtoull(argv[3], NULL, 10) | 1 : UINT64_C(0x9e3779b97f4a7c15);
	load_seeds(argv[1]);
	add_seed((const uint8_t *)"", 0);
	for (size_t i = 0; i < seed_count; i++)
		run_exact(seeds[i].bytes, seeds[i].length);
	run_mutations(strtoul(argv[2], NULL, 10));
	printf("%zu seeds, %s mutations\n", seed_count, argv[2]);
	while (seed_count)
		free(seeds[--seed_count].bytes);
	return 0;
}
