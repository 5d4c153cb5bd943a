/* account.c - see account.h. */
#include "account.h"

#include "json.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ERROR_SIZE = 256, FILE_MAX = 16384 };

char *account_default_path(void)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *path = NULL;
	int length = -1;
	if (state && *state == '/')
		length = asprintf(&path, "%s/mosquitto-chat/account", state);
	else if (home && *home == '/')
		length = asprintf(&path, "%s/.local/state/mosquitto-chat/account", home);
	return length < 0 ? NULL : path;
}

static const char *text_member(const cJSON *object, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	return text ? text : "";
}

static bool parse(struct account *account, const char *text, size_t length, const char *server)
{
	const char *why;
	cJSON *json = json_parse(text, length, 2, &why);
	if (!json)
		return false;
	bool good = json_integer(cJSON_GetObjectItemCaseSensitive(json, "user"), 1, TEXT_ID_MAX, &account->user) &&
		    json_integer(cJSON_GetObjectItemCaseSensitive(json, "device"), 0, TEXT_ID_MAX, &account->device);
	account->name = strdup(text_member(json, "name"));
	account->token = strdup(text_member(json, "device_token"));
	good = good && account->name && account->token && *account->token;
	if (!good || strcmp(text_member(json, "server"), server) != 0)
		account_clear(account);
	cJSON_Delete(json);
	return good;
}

bool account_load(struct account *account, const char *path, const char *server, char *error)
{
	char text[FILE_MAX];
	struct stat about;
	*account = (struct account){0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(error, ERROR_SIZE, "%s: %s", path, strerror(errno));
		return errno == ENOENT;
	}
	bool mine = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_uid == geteuid() && !(about.st_mode & 077);
	ssize_t length = read(fd, text, sizeof text);
	close(fd);
	if (!mine) {
		snprintf(error, ERROR_SIZE, "%s can be read by others: chmod 600 it, or remove it and sign in again", path);
		return false;
	}
	if (length >= 0 && parse(account, text, (size_t)length, server))
		return true;
	snprintf(error, ERROR_SIZE, "%s is damaged: remove it and sign in again", path);
	return false;
}

/* All directories above the file. */
static void make_directories(const char *path)
{
	char *copy = strdup(path);
	for (char *slash = copy ? strchr(copy + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(copy, 0700); /* that it is there already, or cannot be made, is seen when the file is */
		*slash = '/';
	}
	free(copy);
}

static bool write_whole(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	size_t length = strlen(text);
	bool written = write(fd, text, length) == (ssize_t)length && fsync(fd) == 0;
	return close(fd) == 0 && written;
}

bool account_save(const struct account *account, const char *path, const char *server, char *error)
{
	char *text = NULL, *temporary = NULL;
	bool saved = false;
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "server", server);
	cJSON_AddNumberToObject(json, "user", (double)account->user);
	cJSON_AddNumberToObject(json, "device", (double)account->device);
	cJSON_AddStringToObject(json, "name", account->name);
	cJSON_AddStringToObject(json, "device_token", account->token);
	text = cJSON_Print(json);
	cJSON_Delete(json);
	make_directories(path);
	if (text && asprintf(&temporary, "%s.%ld", path, (long)getpid()) > 0) {
		unlink(temporary);
		saved = write_whole(temporary, text) && rename(temporary, path) == 0;
		if (!saved) {
			snprintf(error, ERROR_SIZE, "%s: %s", path, strerror(errno));
			unlink(temporary);
		}
		free(temporary);
	}
	cJSON_free(text);
	return saved;
}

void account_forget(struct account *account, const char *path)
{
	unlink(path);
	account_clear(account);
}

void account_clear(struct account *account)
{
	if (account->token)
		explicit_bzero(account->token, strlen(account->token));
	free(account->token);
	free(account->name);
	*account = (struct account){0};
}
