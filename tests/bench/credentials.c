/* credentials.c - see credentials.h. */
#define _GNU_SOURCE
#include "credentials.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MADE_UP_LENGTH 40

static bool make_up(struct credentials *credentials, size_t count)
{
	credentials->text = calloc(count, MADE_UP_LENGTH);
	if (credentials->text == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		char *client_id = credentials->text + i * MADE_UP_LENGTH;
		snprintf(client_id, MADE_UP_LENGTH, "bench-%d-%zu", (int)getpid(), i);
		credentials->entries[i].client_id = client_id;
	}
	credentials->count = count;
	return true;
}

static char *read_file(const char *path)
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "r");
	if (file == NULL)
		return NULL;
	if (getdelim(&text, &size, '\0', file) < 0) {
		free(text);
		text = NULL;
	}
	fclose(file);
	return text;
}

static bool parse(struct credentials *credentials, size_t count)
{
	char *lines = NULL;
	char *line = strtok_r(credentials->text, "\n", &lines);
	for (; line != NULL && credentials->count < count; line = strtok_r(NULL, "\n", &lines)) {
		char *words = NULL;
		struct wire_credentials *entry = &credentials->entries[credentials->count];
		entry->client_id = strtok_r(line, " ", &words);
		entry->user = strtok_r(NULL, " ", &words);
		entry->password = strtok_r(NULL, " ", &words);
		if (entry->client_id == NULL || entry->password == NULL)
			return false;
		credentials->count++;
	}
	return credentials->count == count;
}

bool credentials_load(struct credentials *credentials, const char *path, size_t count)
{
	memset(credentials, 0, sizeof *credentials);
	credentials->entries = calloc(count, sizeof *credentials->entries);
	if (credentials->entries != NULL) {
		if (path == NULL)
			return make_up(credentials, count);
		credentials->text = read_file(path);
		if (credentials->text != NULL && parse(credentials, count))
			return true;
	}
	fprintf(stderr, "mqtt_load: %s: needs %zu lines `client-id user password`\n", path == NULL ? "(memory)" : path, count);
	return false;
}

void credentials_release(struct credentials *credentials)
{
	free(credentials->entries);
	free(credentials->text);
}
