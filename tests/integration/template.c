/* template.c - makes, once for a whole run of the suite, the cluster that every test program copies; and removes it.
 *
 *   integration_template make PATH_FILE    writes the data directory's path to PATH_FILE
 *   integration_template remove PATH_FILE
 */
#include "check.h"
#include "postgres.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void make(const char *path_file)
{
	struct postgres postgres;
	struct account peer = account_find((const char *const[]){"mosquitto", "nobody", NULL});
	char directory[] = "/tmp/mosquitto-chat-template-XXXXXX";
	check(mkdtemp(directory) && chmod(directory, 0755) == 0);
	postgres_create(&postgres, directory, NULL, &peer);
	postgres_stop(&postgres);
	file_write(path_file, postgres.data, 0644, NULL);
}

static void remove_all(const char *path_file)
{
	char *data = file_read(path_file), *name = strstr(data, "/mosquitto-chat-template-");
	/* The file is ours, but a directory is about to be removed by what it says. */
	if (name && strstr(name, "/data") && !strstr(data, ".."))
		directory_remove(dirname(data));
	free(data);
	unlink(path_file);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: %s make|remove PATH_FILE\n", argv[0]);
		return 2;
	}
	remove_all(argv[2]);
	if (!strcmp(argv[1], "make"))
		make(argv[2]);
	return 0;
}
