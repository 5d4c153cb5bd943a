/* account.c - see account.h. Any thread.
 *
 * To add a parameter: its member in struct account_task, a row in fields[].
 */
#include "account.h"

#include "../common/json.h"
#include "../common/text.h"
#include "password.h"

#include <stdlib.h>
#include <string.h>

#define METHOD(method) (1u << (method))
#define LINE_CHARS_MAX 200 /* chat.title */
#define EMAIL_CHARS_MAX 254
#define DEVICE_TOKEN_BYTES_MAX 4096

static const char *const methods[ACCOUNT_METHODS] = {
	[ACCOUNT_REGISTER] = "auth.register",
	[ACCOUNT_LOGIN] = "auth.login",
	[ACCOUNT_REFRESH] = "auth.refresh",
	[ACCOUNT_LOGOUT] = "auth.logout",
	[ACCOUNT_CHANGE_PASSWORD] = "auth.change_password",
};

enum account_method account_method_of(const char *name, size_t length)
{
	for (unsigned method = 0; method < ACCOUNT_METHODS; method++) {
		if (strlen(methods[method]) == length && memcmp(methods[method], name, length) == 0) {
			return (enum account_method)method;
		}
	}
	return ACCOUNT_METHODS;
}

bool account_is_slow(enum account_method method)
{
	return method == ACCOUNT_REGISTER || method == ACCOUNT_LOGIN || method == ACCOUNT_CHANGE_PASSWORD;
}

static bool refuse(struct error_detail *error, enum error_code code, const char *field, const char *message)
{
	*error = (struct error_detail){.code = code, .field = field, .message = message};
	return false;
}

/* ---- values ---- */

/* A line of `min` to `max` characters: no control characters. NULL: no string of that kind. */
static const char *line_of(const cJSON *item, size_t min, size_t max)
{
	size_t chars = 0;
	if (!cJSON_IsString(item) || !text_check_utf8(item->valuestring, strlen(item->valuestring), &chars) || chars < min ||
		chars > max) {
		return NULL;
	}
	for (const char *at = item->valuestring; *at; at++) {
		if ((unsigned char)*at < 0x20 || *at == 0x7f) {
			return NULL;
		}
	}
	return item->valuestring;
}

static bool take_username(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	task->username = line_of(item, ACCOUNT_NAME_CHARS_MIN, ACCOUNT_NAME_CHARS_MAX);
	return task->username || refuse(error, ERROR_INVALID_FIELD, "username", "username has 3 to 50 characters");
}

static bool take_password_into(const char **out, const cJSON *item, const char *field, struct error_detail *error)
{
	if (!cJSON_IsString(item) || !password_length_ok(strlen(item->valuestring))) {
		return refuse(error, ERROR_INVALID_FIELD, field, "a password has 8 to 1,000 bytes");
	}
	*out = item->valuestring;
	return true;
}

static bool take_password(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	return take_password_into(&task->password, item, "password", error);
}

static bool take_old_password(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	return take_password_into(&task->old_password, item, "old_password", error);
}

static bool take_new_password(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	return take_password_into(&task->new_password, item, "new_password", error);
}

static bool take_email(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	task->email = line_of(item, 3, EMAIL_CHARS_MAX);
	return task->email || refuse(error, ERROR_INVALID_FIELD, "email", "email is an address of at most 254 characters");
}

static bool take_display_name(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	task->display_name = line_of(item, 1, LINE_CHARS_MAX);
	return task->display_name || refuse(error, ERROR_INVALID_FIELD, "display_name", "display_name has 1 to 200 characters");
}

static bool device_type_ok(const char *type)
{
	static const char *const types[] = {"web", "mobile", "smart_tv", "iot"};
	for (size_t i = 0; type && i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(type, types[i]) == 0) {
			return true;
		}
	}
	return false;
}

/* {"name":…,"type":…}; of auth.logout a number. */
static bool take_device(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	if (task->method == ACCOUNT_LOGOUT) {
		return json_integer(item, 1, TEXT_ID_MAX, &task->device) ||
		       refuse(error, ERROR_INVALID_FIELD, "device", "device is the number of a device");
	}
	if (!cJSON_IsObject(item)) {
		return refuse(error, ERROR_INVALID_FIELD, "device", "device is an object with name and type");
	}
	for (const cJSON *member = item->child; member; member = member->next) {
		if (strcmp(member->string, "name") == 0) {
			task->device_name = line_of(member, 1, LINE_CHARS_MAX);
			if (!task->device_name) {
				return refuse(
					error, ERROR_INVALID_FIELD, "device.name", "a device's name has 1 to 200 characters");
			}
		} else if (strcmp(member->string, "type") == 0) {
			task->device_type = cJSON_IsString(member) ? member->valuestring : NULL;
			if (!device_type_ok(task->device_type)) {
				return refuse(error, ERROR_INVALID_FIELD, "device.type",
					"a device's type is web, mobile, smart_tv or iot");
			}
		} else {
			return refuse(error, ERROR_INVALID_FIELD, "device", "device has a name and a type");
		}
	}
	return true;
}

static bool take_device_token(struct account_task *task, const cJSON *item, struct error_detail *error)
{
	if (!cJSON_IsString(item) || strlen(item->valuestring) > DEVICE_TOKEN_BYTES_MAX) {
		return refuse(error, ERROR_INVALID_FIELD, "device_token", "device_token is a token");
	}
	task->device_token = item->valuestring;
	return true;
}

/* ---- the whole ---- */

static const struct field {
	const char *name;
	bool (*take)(struct account_task *task, const cJSON *item, struct error_detail *error);
	unsigned allowed, required; /* METHOD() of those methods */
} fields[] = {
	{"username", take_username, METHOD(ACCOUNT_REGISTER) | METHOD(ACCOUNT_LOGIN),
		METHOD(ACCOUNT_REGISTER) | METHOD(ACCOUNT_LOGIN)},
	{"password", take_password, METHOD(ACCOUNT_REGISTER) | METHOD(ACCOUNT_LOGIN),
		METHOD(ACCOUNT_REGISTER) | METHOD(ACCOUNT_LOGIN)},
	{"old_password", take_old_password, METHOD(ACCOUNT_CHANGE_PASSWORD), METHOD(ACCOUNT_CHANGE_PASSWORD)},
	{"new_password", take_new_password, METHOD(ACCOUNT_CHANGE_PASSWORD), METHOD(ACCOUNT_CHANGE_PASSWORD)},
	{"email", take_email, METHOD(ACCOUNT_REGISTER), 0},
	{"display_name", take_display_name, METHOD(ACCOUNT_REGISTER), 0},
	{"device", take_device, METHOD(ACCOUNT_REGISTER) | METHOD(ACCOUNT_LOGIN) | METHOD(ACCOUNT_LOGOUT), 0},
	{"device_token", take_device_token, METHOD(ACCOUNT_REFRESH), 0},
};

#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static bool take_all(struct account_task *task, const cJSON *parameters, struct error_detail *error)
{
	unsigned method = METHOD(task->method);
	for (const cJSON *item = parameters->child; item; item = item->next) {
		size_t i = 0;
		while (i < FIELDS && !((fields[i].allowed & method) && strcmp(fields[i].name, item->string) == 0)) {
			i++;
		}
		if (i == FIELDS) {
			return refuse(error, ERROR_INVALID_FIELD, NULL, "there is no such parameter");
		}
		if (!fields[i].take(task, item, error)) {
			return false;
		}
	}
	for (size_t i = 0; i < FIELDS; i++) {
		if ((fields[i].required & method) && !cJSON_GetObjectItemCaseSensitive(parameters, fields[i].name)) {
			return refuse(error, ERROR_INVALID_FIELD, fields[i].name, "this parameter is required");
		}
	}
	return true;
}

struct account_task *account_parse(enum account_method method, cJSON *parameters, struct error_detail *error)
{
	struct account_task *task = calloc(1, sizeof(*task));
	if (!task) {
		refuse(error, ERROR_UNAVAILABLE, NULL, NULL);
		return NULL;
	}
	task->method = method;
	if (!take_all(task, parameters, error)) {
		free(task);
		return NULL;
	}
	task->parameters = parameters;
	return task;
}

/* A password shall not lie about in freed memory. */
static void wipe(const char *secret)
{
	if (secret) {
		explicit_bzero((char *)(uintptr_t)secret, strlen(secret));
	}
}

void account_task_free(struct account_task *task)
{
	if (task) {
		wipe(task->password);
		wipe(task->old_password);
		wipe(task->new_password);
		wipe(task->device_token);
		cJSON_Delete(task->parameters);
		free(task);
	}
}
