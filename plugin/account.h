/* account.h - the parameters of the methods auth.*: what they may be, and what is asked for. Pure. */
#ifndef CHAT_PLUGIN_ACCOUNT_H
#define CHAT_PLUGIN_ACCOUNT_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum account_method {
	ACCOUNT_REGISTER,
	ACCOUNT_LOGIN,
	ACCOUNT_REFRESH,
	ACCOUNT_LOGOUT,
	ACCOUNT_CHANGE_PASSWORD,
	ACCOUNT_METHODS /* none of them */
};

#define ACCOUNT_NAME_CHARS_MIN 3
#define ACCOUNT_NAME_CHARS_MAX 50

struct cJSON;

struct account_task {
	enum account_method method;
	struct cJSON *parameters; /* owned; what follows lies in it; NULL where it was not given */
	const char *username, *password, *old_password, *new_password, *email, *display_name, *device_name, *device_type;
	const char *device_token;
	int64_t device; /* auth.logout; 0: not given */
	/* Who asks: filled in by who parsed. */
	int64_t user_id, device_id;
	bool by_password; /* by SCRAM: a change of the password ends this very session too */
	uint64_t address; /* attempts_address() */
};

/* "auth.login" and so on. */
enum account_method account_method_of(const char *name, size_t length);
/* Whether it hashes a password. */
bool account_is_slow(enum account_method method);
/* The task, to be freed with account_task_free; it then owns the parameters. NULL: *error, and the parameters are the caller's.
 */
__attribute__((warn_unused_result)) struct account_task *account_parse(
	enum account_method method, struct cJSON *parameters, struct error_detail *error);
void account_task_free(struct account_task *task);

#endif
