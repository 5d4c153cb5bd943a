/* files.c - see files.h. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The open descriptor of a regular file, or -1. The mode that is looked at is that of the file that will be read. */
static int open_file(const char *path, bool secret, char *error, size_t error_size)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0) {
		(void)snprintf(error, error_size, "%.300s cannot be opened: %s", path, strerror(errno));
		return -1;
	}
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
		(void)snprintf(error, error_size, "%.300s is not a regular file", path);
	} else if (secret && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		(void)snprintf(error, error_size,
			"%.300s holds a secret and is open to group or others (mode %04o): run chmod 600 on it", path,
			(unsigned)(status.st_mode & 07777));
	} else {
		return fd;
	}
	(void)close(fd);
	return -1;
}

static bool read_file(const char *path, bool secret, struct buffer *out, char *error, size_t error_size)
{
	char block[4096];
	ssize_t got = 0;
	int fd = open_file(path, secret, error, error_size);

	if (fd < 0) {
		return false;
	}
	while ((got = read(fd, block, sizeof(block))) > 0 && buffer_append(out, block, (size_t)got)) {
	}
	if (got != 0) {
		(void)snprintf(error, error_size, "%.300s %s", path, got < 0 ? strerror(errno) : "is too large");
	}
	(void)close(fd);
	explicit_bzero(block, sizeof(block));
	return got == 0;
}

bool files_read(const char *path, struct buffer *out, char *error, size_t error_size)
{
	return read_file(path, false, out, error, error_size);
}

bool files_read_secret(const char *path, struct buffer *out, char *error, size_t error_size)
{
	return read_file(path, true, out, error, error_size);
}

bool files_check_secret(const char *path, char *error, size_t error_size)
{
	int fd = open_file(path, true, error, error_size);
	if (fd >= 0) {
		(void)close(fd);
	}
	return fd >= 0;
}
