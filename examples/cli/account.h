/* account.h - who is signed in on this machine: a file with the device token, which is as good as the password and readable by
 * its owner alone (0600). A file that others can read is refused, as ssh does with keys. It is for one server: a token is never
 * shown to another one.
 */
#ifndef CHAT_CLI_ACCOUNT_H
#define CHAT_CLI_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

struct account {
	int64_t user; /* 0: nobody */
	int64_t device;
	char *name;
	char *token; /* the device token */
};

/* Where it is kept unless told otherwise: $XDG_STATE_HOME/mosquitto-chat/account, or below ~/.local/state. To free(); NULL where
 * there is no home. Its directory is made when it is saved. */
char *account_default_path(void);
/* False, with a sentence in error[256], where the file is there and cannot be used. No file, or one for another server: true and
 * user 0. `server` is HOST:PORT. */
bool account_load(struct account *account, const char *path, const char *server, char *error);
bool account_save(const struct account *account, const char *path, const char *server, char *error);
void account_forget(struct account *account, const char *path);
void account_clear(struct account *account);

#endif
