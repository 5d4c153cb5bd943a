/* spool_files.c - the spool's directory: see spool_files.h. The keeper's thread, or the one that opens and closes. */
#include "spool_files.h"

#include "clock.h"
#include "log.h"
#include "uuid.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 64
#define SEGMENT_SUFFIX ".segment"

struct segment_header {
	char magic[8];
	uint32_t version;
	uint32_t segment_bytes;
	uint8_t spool_id[16];
	uint64_t number;
	uint32_t crc32c; /* of all before it */
};

static const char magic[8] = {'C', 'H', 'A', 'T', 'S', 'P', 'L', '\n'};

/* ---- names ---- */

static void segment_name(uint64_t number, char name[NAME_MAX_BYTES])
{
	snprintf(name, NAME_MAX_BYTES, "%016" PRIx64 SEGMENT_SUFFIX, number);
}

static bool parse_segment_name(const char *name, uint64_t *number)
{
	char canonical[NAME_MAX_BYTES];
	*number = strtoull(name, NULL, 16);
	segment_name(*number, canonical);
	return strcmp(name, canonical) == 0;
}

static int compare_numbers(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return a < b ? -1 : a > b;
}

bool spool_list_segments(const struct spool *spool, uint64_t **numbers, size_t *count)
{
	int fd = openat(spool->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	size_t capacity = 0;
	bool good = directory != NULL;

	*numbers = NULL;
	*count = 0;
	while (good && (entry = readdir(directory)) != NULL) {
		uint64_t number;
		if (!parse_segment_name(entry->d_name, &number)) {
			continue;
		}
		if (*count == capacity) {
			capacity = capacity * 2 + 64;
			uint64_t *moved = realloc(*numbers, capacity * sizeof(moved[0]));
			good = moved != NULL;
			*numbers = good ? moved : *numbers;
		}
		if (good) {
			(*numbers)[(*count)++] = number;
		}
	}
	if (directory) {
		closedir(directory);
	} else if (fd >= 0) {
		close(fd);
	}
	if (good && *count > 0) {
		qsort(*numbers, *count, sizeof((*numbers)[0]), compare_numbers);
	}
	return good;
}

/* ---- segments ---- */

static char **place_of(const struct spool *spool, uint64_t number)
{
	return &spool->segments[number % spool->segment_count];
}

void spool_write_segment_header(const struct spool *spool, uint64_t number)
{
	struct segment_header header = {
		.version = SPOOL_FORMAT_VERSION, .segment_bytes = (uint32_t)SPOOL_SEGMENT_BYTES, .number = number};
	memcpy(header.magic, magic, sizeof(magic));
	memcpy(header.spool_id, spool->id, sizeof(header.spool_id));
	header.crc32c = record_crc32c(0, &header, offsetof(struct segment_header, crc32c));
	memset(*place_of(spool, number), 0, SPOOL_HEADER_BYTES);
	memcpy(*place_of(spool, number), &header, sizeof(header));
}

enum spool_header spool_read_segment_header(const struct spool *spool, uint64_t number)
{
	struct segment_header header;
	memcpy(&header, *place_of(spool, number), sizeof(header));
	if (memcmp(header.magic, magic, sizeof(magic)) != 0 ||
		header.crc32c != record_crc32c(0, &header, offsetof(struct segment_header, crc32c))) {
		return SPOOL_HEADER_DAMAGED;
	}
	if (header.version != SPOOL_FORMAT_VERSION || header.segment_bytes != SPOOL_SEGMENT_BYTES) {
		return SPOOL_HEADER_OTHER_VERSION;
	}
	bool ours = memcmp(header.spool_id, spool->id, sizeof(spool->id)) == 0 && header.number == number;
	return ours ? SPOOL_HEADER_GOOD : SPOOL_HEADER_OTHER_SPOOL;
}

void spool_fill(const struct spool *spool, uint64_t from, uint64_t to)
{
	size_t left = (size_t)(to - from);
	memset(spool_bytes_at(spool, from), 0, left);
	while (left >= sizeof(struct record_header)) {
		size_t share = left < RECORD_BYTES_MAX ? left : RECORD_BYTES_MAX;
		if (share < left && left - share < sizeof(struct record_header)) {
			share -= RECORD_BYTES_MAX / 2; /* or what is left would be too short for one */
		}
		record_write_filler(spool_bytes_at(spool, from), from, share);
		record_seal(spool_bytes_at(spool, from), spool->seal);
		from += share;
		left -= share;
	}
}

static bool write_zeros(int fd)
{
	static const char zeros[1 << 16];
	for (size_t at = 0; at < SPOOL_SEGMENT_BYTES;) {
		ssize_t written = pwrite(fd, zeros, sizeof(zeros), (off_t)at);
		if (written < 0 && errno == EINTR) {
			continue;
		}
		if (written <= 0) {
			errno = written == 0 ? ENOSPC : errno;
			return false;
		}
		at += (size_t)written;
	}
	return true;
}

/* Maps the file and lets go of its descriptor. False with errno. */
static bool map_and_close(int fd, char **data)
{
	void *mapped = mmap(NULL, SPOOL_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	int why = errno;
	close(fd);
	errno = why;
	*data = mapped == MAP_FAILED ? NULL : mapped;
	return *data != NULL;
}

/* A store into each page now, so that the broker thread's first store finds it mapped writable: that fault would go
 * through the file system, and wait there beside somebody's flush. */
void spool_touch_segment(const struct spool *spool, uint64_t number)
{
	char *data = *place_of(spool, number);
	long page = sysconf(_SC_PAGESIZE);
	for (size_t at = 0; at < SPOOL_SEGMENT_BYTES; at += (size_t)page) {
		char byte = data[at];
		*(volatile char *)(data + at) = byte;
	}
}

static void unmap(char **data)
{
	if (*data) {
		munmap(*data, SPOOL_SEGMENT_BYTES);
		*data = NULL;
	}
}

/* With flushes, or the new file itself could be gone after a power cut. */
static bool make_durable(const struct spool *spool, char *data)
{
	return spool->sync == SPOOL_SYNC_NONE ||
	       (spool->flush(data, SPOOL_SEGMENT_BYTES, MS_SYNC) == 0 && fsync(spool->directory_fd) == 0);
}

bool spool_make_segment(struct spool *spool, uint64_t number)
{
	char name[NAME_MAX_BYTES];
	char **place = place_of(spool, number);

	segment_name(number, name);
	int fd = openat(spool->directory_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		return false;
	}
	bool written = write_zeros(fd);
	int why = errno;
	if (!written) {
		close(fd);
	} else if (map_and_close(fd, place)) {
		spool_write_segment_header(spool, number);
		if (make_durable(spool, *place)) {
			spool_touch_segment(spool, number); /* last: a flush maps them read-only again */
			return true;
		}
		why = errno;
		unmap(place);
	} else {
		why = errno;
	}
	unlinkat(spool->directory_fd, name, 0);
	errno = why;
	return false;
}

/* Read once: what the disk does not give back is an error here, and would be a signal in the mapping. */
static bool is_readable(int fd)
{
	static char bytes[1 << 16];
	off_t at = 0;
	for (;;) {
		ssize_t got = pread(fd, bytes, sizeof(bytes), at);
		if (got == 0 || (got < 0 && errno != EINTR)) {
			return got == 0;
		}
		at += got > 0 ? got : 0;
	}
}

bool spool_map_segment(struct spool *spool, uint64_t number)
{
	char name[NAME_MAX_BYTES];

	segment_name(number, name);
	int fd = openat(spool->directory_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		return false;
	}
	/* A file that was cut short is made whole again: what is missing reads as zeros, and recovery says what it cost.
	 * Always allocated: the zeros may be a hole, and a store into one can fail. */
	int why = is_readable(fd) ? posix_fallocate(fd, 0, (off_t)SPOOL_SEGMENT_BYTES) : errno;
	if (why) {
		close(fd);
		errno = why;
		return false;
	}
	return map_and_close(fd, place_of(spool, number));
}

/* The mapped bytes over themselves: the pages become dirty again, and no byte is changed. */
static bool rewrite_in_segment(const struct spool *spool, uint64_t from, uint64_t to)
{
	char name[NAME_MAX_BYTES];
	segment_name(spool_segment_of(from), name);
	int fd = openat(spool->directory_fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	bool good = fd >= 0;
	while (good && from < to) {
		ssize_t written =
			pwrite(fd, spool_bytes_at(spool, from), (size_t)(to - from), (off_t)(from % SPOOL_SEGMENT_BYTES));
		good = written > 0 || (written < 0 && errno == EINTR);
		from += written > 0 ? (uint64_t)written : 0;
	}
	if (fd >= 0) {
		close(fd);
	}
	return good;
}

bool spool_rewrite(const struct spool *spool, uint64_t from, uint64_t to)
{
	uint64_t first = spool_base_of(atomic_load(&spool->first_segment));
	from = from < first ? first : from; /* what is before that was committed and deleted */
	while (from < to) {
		uint64_t segment_end = spool_base_of(spool_segment_of(from) + 1);
		uint64_t until = to < segment_end ? to : segment_end;
		if (!rewrite_in_segment(spool, from, until)) {
			return false;
		}
		from = until;
	}
	return true;
}

void spool_delete_segment(struct spool *spool, uint64_t number)
{
	char name[NAME_MAX_BYTES];
	segment_name(number, name);
	unmap(place_of(spool, number));
	unlinkat(spool->directory_fd, name, 0);
}

void spool_set_aside(const struct spool *spool, uint64_t position, const void *bytes, size_t length)
{
	char name[NAME_MAX_BYTES];
	snprintf(name, sizeof(name), "damaged-%016" PRIx64, position);
	int fd = openat(spool->directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, length) != (ssize_t)length) {
		log_line(LOG_LEVEL_ERROR, "chat: spool: could not keep %zu damaged bytes in %s/%s: %s", length, spool->directory,
			name, strerror(errno));
	}
	if (fd >= 0) {
		close(fd);
	}
}

/* ---- the directory ---- */

/* False: neither the directory nor what is in it can be used; `what` was tried. */
static bool cannot(const struct spool *spool, const char *what, int why, char *error, size_t error_size)
{
	snprintf(error, error_size,
		"plugin_opt_spool_dir: cannot %s %s: %s; it and all in it must belong to the broker's user, %d", what,
		spool->directory, strerror(why), (int)geteuid());
	return false;
}

static bool open_directory(struct spool *spool, const char *directory, char *error, size_t error_size)
{
	struct stat status;

	if (mkdir(directory, 0700) != 0 && errno != EEXIST) {
		snprintf(error, error_size,
			"plugin_opt_spool_dir: cannot make %s: %s; make it, owned by the broker's user, mode 0700", directory,
			strerror(errno));
		return false;
	}
	spool->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (spool->directory_fd < 0 || fstat(spool->directory_fd, &status) != 0) {
		return cannot(spool, "open", errno, error, error_size);
	}
	if (status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
		snprintf(error, error_size,
			"plugin_opt_spool_dir: %s must belong to the broker's user alone: chown it to user %d and chmod 700",
			directory, (int)geteuid());
		return false;
	}
	return true;
}

static bool lock_directory(struct spool *spool, char *error, size_t error_size)
{
	spool->lock_fd = openat(spool->directory_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (spool->lock_fd < 0) {
		return cannot(spool, "write to", errno, error, error_size);
	}
	if (flock(spool->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		snprintf(error, error_size,
			"plugin_opt_spool_dir: %s is in use by another broker; give each broker a directory of its own",
			spool->directory);
		return false;
	}
	return true;
}

static bool make_identity(struct spool *spool, char *error, size_t error_size)
{
	uuid_make(clock_wall_ms(), spool->id);
	int fd = openat(spool->directory_fd, "identity.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool good = fd >= 0 && write(fd, spool->id, sizeof(spool->id)) == (ssize_t)sizeof(spool->id) && fsync(fd) == 0 &&
		    renameat(spool->directory_fd, "identity.new", spool->directory_fd, "identity") == 0 &&
		    fsync(spool->directory_fd) == 0;
	int why = errno;
	if (fd >= 0) {
		close(fd);
	}
	return good || cannot(spool, "write to", why, error, error_size);
}

static bool read_identity(struct spool *spool, char *error, size_t error_size)
{
	uint64_t *segments = NULL;
	size_t segment_count = 0;
	ssize_t got = 0;
	int fd = openat(spool->directory_fd, "identity", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno != ENOENT) {
		return cannot(spool, "read identity in", errno, error, error_size);
	}
	if (fd < 0) {
		if (!spool_list_segments(spool, &segments, &segment_count)) {
			return cannot(spool, "read", errno, error, error_size);
		}
		free(segments);
		if (segment_count == 0) {
			return make_identity(spool, error, error_size);
		}
	} else {
		got = read(fd, spool->id, sizeof(spool->id));
		close(fd);
	}
	if (got != (ssize_t)sizeof(spool->id)) {
		snprintf(error, error_size,
			"plugin_opt_spool_dir: %s/identity is %s; restore it, or move the directory away (what waits in it is "
			"then "
			"lost)",
			spool->directory, fd < 0 ? "missing" : "damaged");
		return false;
	}
	return true;
}

#define POSITIONS_BYTES (RECORD_SLOTS * sizeof(uint64_t))

static bool map_positions(
	const struct spool *spool, const char *name, _Atomic uint64_t **positions, char *error, size_t error_size)
{
	int fd = openat(spool->directory_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc = fd >= 0 ? posix_fallocate(fd, 0, (off_t)POSITIONS_BYTES) : errno;
	void *mapped = rc == 0 ? mmap(NULL, POSITIONS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	int why = rc ? rc : errno;
	if (fd >= 0) {
		close(fd);
	}
	*positions = mapped == MAP_FAILED ? NULL : mapped;
	return *positions || cannot(spool, "write to", why, error, error_size);
}

bool spool_flush_unchecked(const struct spool *spool)
{
	return spool->flush(spool->unchecked, POSITIONS_BYTES, MS_SYNC) == 0;
}

bool spool_files_open(struct spool *spool, const char *directory, char *error, size_t error_size)
{
	spool->directory = strdup(directory);
	if (!spool->directory) {
		snprintf(error, error_size, "out of memory");
		return false;
	}
	if (!open_directory(spool, directory, error, error_size) || !lock_directory(spool, error, error_size) ||
		!read_identity(spool, error, error_size) ||
		!map_positions(spool, "committed", &spool->committed, error, error_size) ||
		!map_positions(spool, "unchecked", &spool->unchecked, error, error_size)) {
		return false;
	}
	spool->seal = record_crc32c(0, spool->id, sizeof(spool->id));
	return true;
}

void spool_files_close(struct spool *spool)
{
	for (uint64_t i = 0; spool->segments && i < spool->segment_count; i++) {
		unmap(&spool->segments[i]);
	}
	free(spool->segments);
	if (spool->committed) {
		munmap(spool->committed, POSITIONS_BYTES);
	}
	if (spool->unchecked) {
		munmap(spool->unchecked, POSITIONS_BYTES);
	}
	if (spool->lock_fd >= 0) {
		close(spool->lock_fd);
	}
	if (spool->directory_fd >= 0) {
		close(spool->directory_fd);
	}
	free(spool->directory);
}
