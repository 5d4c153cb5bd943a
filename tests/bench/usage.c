/* usage.c - see usage.h, and proc(5) on /proc/[pid]/stat: utime and stime are fields 14 and 15, ppid is field 4; and on
 * /proc/[pid]/statm: resident pages are field 2. */
#include "usage.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_stat(const char *path, double *seconds, pid_t *parent)
{
	char line[1024];
	unsigned long user;
	unsigned long system;
	int ppid;
	FILE *file = fopen(path, "r");
	if (file == NULL)
		return false;
	size_t length = fread(line, 1, sizeof line - 1, file);
	fclose(file);
	line[length] = '\0';
	const char *name_end = strrchr(line, ')'); /* the name may hold anything, a bracket too */
	if (name_end == NULL)
		return false;
	if (sscanf(name_end + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ppid, &user, &system) != 3)
		return false;
	*seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
	*parent = (pid_t)ppid;
	return true;
}

static double children_seconds(pid_t pid)
{
	double sum = 0;
	DIR *proc = opendir("/proc");
	if (proc == NULL)
		return 0;
	for (struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
		char path[sizeof entry->d_name + 16];
		double seconds;
		pid_t parent;
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		if (read_stat(path, &seconds, &parent) && parent == pid)
			sum += seconds;
	}
	closedir(proc);
	return sum;
}

bool usage_read(pid_t pid, struct usage *usage)
{
	char path[64];
	pid_t parent;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (!read_stat(path, &usage->process_s, &parent))
		return false;
	snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)pid);
	if (!read_stat(path, &usage->main_thread_s, &parent))
		return false;
	usage->children_s = children_seconds(pid);
	return true;
}

uint64_t usage_resident_bytes(pid_t pid)
{
	char path[64];
	unsigned long pages = 0;
	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	FILE *file = fopen(path, "r");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
