/* config.h - the notifier's configuration file: a table of options, each with its type, range and help.
 *
 *   # a comment
 *   database = dbname=chat user=chat_notifier
 *
 *   [android]                 a section is an app, by the name that devices register with
 *   provider = fcm
 *   service_account = /etc/mosquitto-chat/firebase.json
 *
 * A mistake is an error with its line's number, never a default in silence. Key files are read here too, so that a reload either
 * works as a whole or changes nothing.
 */
#ifndef CHAT_NOTIFIER_CONFIG_H
#define CHAT_NOTIFIER_CONFIG_H

#include "content.h"
#include "lane.h"
#include "provider.h"
#include "signing.h"

#define CONFIG_APPS_MAX 64
#define CONFIG_ERROR_SIZE 800

struct config_app {
	char *name;
	int line; /* of the section's beginning */
	const struct provider *provider;
	struct provider_settings settings; /* strings below, or static */
	enum content_level content;
	bool badge; /* counted and sent */
	bool clear; /* silent pushes */
	int64_t rate, burst, in_flight, connections, timeout_ms;
	char *url;
	char *ca_file; /* NULL: the system's */
	/* fcm */
	char *service_account;
	char *path;
	char *token_url;
	char *token_audience; /* token_uri of the key file */
	char *client_email;
	char *key_id;
	bool data_only;
	/* apns */
	char *topic;
	char *team_id;
	char *environment;
	char *certificate;
	char *certificate_key;
	/* webpush */
	char *subject;
	bool any_host;
	/* fcm: the account's; apns: the .p8 file; webpush: VAPID */
	char *key_file;
	struct signing_key *key;
};

struct config {
	char *database;
	int64_t grace_ms, ttl_ms, lease_ms, drain_ms, poll_ms;
	char *listen_address; /* of metrics and health; NULL: none */
	int64_t listen_port;
	char *templates_file;
	struct content_templates *templates;
	struct config_app apps[CONFIG_APPS_MAX];
	size_t app_count;
};

/* One option, for documents and tests. */
struct config_option {
	const char *name;
	const char *section;  /* NULL: global; otherwise the providers it is for, comma-separated */
	const char *fallback; /* what holds where it is not given; NULL: nothing */
	const char *help;
};
/* Ends with a row whose name is NULL. */
const struct config_option *config_options(void);

/* Reads the file and all files it names. NULL: `error` says where and what. Release with config_free. */
struct config *config_load(const char *path, char error[CONFIG_ERROR_SIZE]);
/* The same from text; `name` stands for the file in messages. */
struct config *config_parse(const char *text, size_t length, const char *name, char error[CONFIG_ERROR_SIZE]);
void config_free(struct config *config);

/* NULL: there is no such section. */
struct config_app *config_find_app(struct config *config, const char *name);

#endif
