/* spool_directory.h - directories for the spools of a test: in memory where there is such a place, removed with all in them.
 *
 * Include it after cmocka.h.
 */
#ifndef CHAT_TESTS_SPOOL_DIRECTORY_H
#define CHAT_TESTS_SPOOL_DIRECTORY_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct spool_directory {
	char path[128];
};

static inline bool make_spool_directory(struct spool_directory *directory)
{
	const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
	int length = snprintf(directory->path, sizeof(directory->path), "%s/chat-test-spool-XXXXXX", memory ? memory : "/tmp");
	return length > 0 && (size_t)length < sizeof(directory->path) && mkdtemp(directory->path) != NULL;
}

static inline void empty_spool_directory(const struct spool_directory *directory)
{
	DIR *entries = opendir(directory->path);
	const struct dirent *entry;
	while (entries && (entry = readdir(entries)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			unlinkat(dirfd(entries), entry->d_name, 0);
		}
	}
	if (entries) {
		closedir(entries);
	}
}

static inline void remove_spool_directory(const struct spool_directory *directory)
{
	empty_spool_directory(directory);
	rmdir(directory->path);
}

#endif
