/* config.c - see config.h.
 *
 * To add an option: a field in config.h and a row in the table below; docs/notifier.md and notifier.conf are checked against it.
 */
#include "config.h"

#include "files.h"
#include "json.h"
#include "text.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX 65536
#define LINE_NAME_MAX 64

enum kind { TEXT, NUMBER, DURATION, FLAG, CONTENT, PROVIDER, LISTEN };

struct row {
	struct config_option option;
	enum kind kind;
	size_t offset; /* in struct config, or in struct config_app where option.section is not NULL */
	int64_t min, max;
};

#define GLOBAL(field) offsetof(struct config, field)
#define APP(field) offsetof(struct config_app, field)
#define ALL "fcm,apns,webpush"
#define DAY_MS INT64_C(86400000)

static const struct row rows[] = {
	{{"database", NULL, NULL, "libpq connection string, for the role chat_notifier"}, TEXT, GLOBAL(database), 0, 0},
	{{"grace", NULL, "3s", "how long a message may take to reach a device before a push is sent for it"}, DURATION,
		GLOBAL(grace_ms), 0, 3600000},
	{{"ttl", NULL, "1d", "a push older than this is of no use: it is dropped, and push services are told so"}, DURATION,
		GLOBAL(ttl_ms), 60000, 28 * DAY_MS},
	{{"poll", NULL, "250ms", "how often the database is asked for news"}, DURATION, GLOBAL(poll_ms), 10, 60000},
	{{"lease", NULL, "60s", "after a notifier's death, another takes its pushes over when this is up"}, DURATION,
		GLOBAL(lease_ms), 1000, 3600000},
	{{"drain", NULL, "10s", "at a stop, how long answers under way are waited for"}, DURATION, GLOBAL(drain_ms), 0, 300000},
	{{"listen", NULL, NULL, "address:port for /metrics and /health"}, LISTEN, GLOBAL(listen_address), 0, 0},
	{{"templates", NULL, NULL, "file with the texts of notifications in other languages than English"}, TEXT,
		GLOBAL(templates_file), 0, 0},
	{{"provider", ALL, NULL, "fcm, apns or webpush"}, PROVIDER, APP(provider), 0, 0},
	{{"content", ALL, "sender", "what a push says: full, sender or none"}, CONTENT, APP(content), 0, 0},
	{{"badge", ALL, "on for apns", "count what is unread and send it as the badge"}, FLAG, APP(badge), 0, 0},
	{{"clear", "fcm,apns", "on", "take notifications away, silently, when they were read on another device"}, FLAG,
		APP(clear), 0, 0},
	{{"rate", ALL, "0", "pushes a second, at most; 0: as many as the service takes"}, NUMBER, APP(rate), 0, 100000},
	{{"burst", ALL, "100", "how far a moment may exceed the rate"}, NUMBER, APP(burst), 1, 100000},
	{{"in_flight", ALL, "90 (fcm), 200 (apns), 100 (webpush)", "requests under way at once, at most"}, NUMBER, APP(in_flight),
		1, 1000},
	{{"connections", ALL, "2 (apns: 1)", "connections to one host, at most"}, NUMBER, APP(connections), 1, 4},
	{{"timeout", ALL, "15s", "how long an answer is waited for"}, DURATION, APP(timeout_ms), 1000, 120000},
	{{"url", "fcm,apns", "the service's", "scheme and host to send to, for tests and proxies"}, TEXT, APP(url), 0, 0},
	{{"ca_file", ALL, "the system's", "certificates that servers are checked against"}, TEXT, APP(ca_file), 0, 0},
	{{"service_account", "fcm", NULL, "the JSON key file of the Firebase project"}, TEXT, APP(service_account), 0, 0},
	{{"token_url", "fcm", "the key file's", "where access tokens are fetched"}, TEXT, APP(token_url), 0, 0},
	{{"data_only", "fcm", "off", "send data alone: the app draws the notification itself"}, FLAG, APP(data_only), 0, 0},
	{{"topic", "apns", NULL, "the app's bundle id"}, TEXT, APP(topic), 0, 0},
	{{"environment", "apns", "production", "production or sandbox"}, TEXT, APP(environment), 0, 0},
	{{"team_id", "apns", NULL, "with key_file: the team's id, ten characters"}, TEXT, APP(team_id), 0, 0},
	{{"key_id", "apns", NULL, "with key_file: the key's id, ten characters"}, TEXT, APP(key_id), 0, 0},
	{{"key_file", "apns,webpush", NULL, "apns: the .p8 key; webpush: the VAPID key, a P-256 private key in PEM"}, TEXT,
		APP(key_file), 0, 0},
	{{"certificate", "apns", NULL, "in place of key_file: the client certificate, PEM"}, TEXT, APP(certificate), 0, 0},
	{{"certificate_key", "apns", "the certificate's file", "its private key, PEM"}, TEXT, APP(certificate_key), 0, 0},
	{{"subject", "webpush", NULL, "whom a push service may turn to: mailto: or https:"}, TEXT, APP(subject), 0, 0},
	{{"any_host", "webpush", "off", "push to private addresses and other ports too: for tests, and for nothing else"}, FLAG,
		APP(any_host), 0, 0},
	{{NULL, NULL, NULL, NULL}, TEXT, 0, 0, 0},
};

const struct config_option *config_options(void)
{
	static struct config_option options[sizeof(rows) / sizeof(rows[0])];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		options[i] = rows[i].option;
	}
	return options;
}

/* ---- values ---- */

struct parser {
	struct config *config;
	struct config_app *app; /* NULL before the first section */
	const char *file;
	int line;
	char *error;
	uint64_t given; /* rows given in this section, a bit each */
};

__attribute__((format(printf, 2, 3))) static bool complain(struct parser *parser, const char *format, ...)
{
	char text[CONFIG_ERROR_SIZE - 100];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	(void)snprintf(parser->error, CONFIG_ERROR_SIZE, "%.80s:%d: %s", parser->file, parser->line, text);
	return false;
}

static bool parse_duration(const char *value, int64_t *ms)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}, {"d", DAY_MS}};
	size_t digits = strspn(value, "0123456789");
	int64_t number = 0;

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(value + digits, units[i].unit) == 0) {
			bool valid = text_parse_integer(value, digits, 0, INT64_C(1) << 32, &number);
			*ms = number * units[i].ms;
			return valid;
		}
	}
	return strcmp(value, "0") == 0 ? (*ms = 0, true) : false;
}

static bool parse_flag(const char *value, bool *out)
{
	*out = strcmp(value, "on") == 0;
	return *out || strcmp(value, "off") == 0;
}

static bool parse_listen(struct parser *parser, const char *value)
{
	const char *colon = strrchr(value, ':');
	if (!colon || colon == value ||
		!text_parse_integer(colon + 1, strlen(colon + 1), 0, 65535, &parser->config->listen_port)) {
		return complain(parser, "listen is address:port, such as 127.0.0.1:9465");
	}
	parser->config->listen_address = strndup(value, (size_t)(colon - value));
	return parser->config->listen_address || complain(parser, "no memory");
}

static bool set_value(struct parser *parser, const struct row *row, const char *value)
{
	static const char *const levels[] = {[CONTENT_FULL] = "full", [CONTENT_SENDER] = "sender", [CONTENT_NONE] = "none"};
	char *base = row->option.section ? (char *)parser->app : (char *)parser->config;
	void *field = base + row->offset;
	int64_t number = 0;

	switch (row->kind) {
	case TEXT:
		if (value[0] == '\0') {
			return complain(parser, "%s is empty", row->option.name);
		}
		*(char **)field = strdup(value);
		return *(char **)field || complain(parser, "no memory");
	case NUMBER:
		if (!text_parse_integer(value, strlen(value), row->min, row->max, &number)) {
			return complain(parser, "%s is a number from %lld to %lld", row->option.name, (long long)row->min,
				(long long)row->max);
		}
		*(int64_t *)field = number;
		return true;
	case DURATION:
		if (!parse_duration(value, &number) || number < row->min || number > row->max) {
			return complain(parser, "%s is a time such as 500ms, 3s, 10min, 2h or 1d, from %lldms to %lldms",
				row->option.name, (long long)row->min, (long long)row->max);
		}
		*(int64_t *)field = number;
		return true;
	case FLAG:
		return parse_flag(value, field) || complain(parser, "%s is on or off", row->option.name);
	case CONTENT:
		for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
			if (strcmp(levels[i], value) == 0) {
				*(enum content_level *)field = (enum content_level)i;
				return true;
			}
		}
		return complain(parser, "content is full, sender or none");
	case PROVIDER:
		*(const struct provider **)field = provider_find(value);
		return *(const struct provider **)field || complain(parser, "provider is fcm, apns or webpush");
	case LISTEN:
		return parse_listen(parser, value);
	}
	return false;
}

static bool is_given(const struct parser *parser, const char *name)
{
	for (size_t i = 0; rows[i].option.name; i++) {
		if (strcmp(rows[i].option.name, name) == 0) {
			return parser->given >> i & 1;
		}
	}
	return false;
}

static bool parse_setting(struct parser *parser, const char *name, const char *value)
{
	for (size_t i = 0; rows[i].option.name; i++) {
		const struct row *row = &rows[i];
		if (strcmp(row->option.name, name) != 0 || (row->option.section != NULL) != (parser->app != NULL)) {
			continue;
		}
		if (parser->given >> i & 1) {
			return complain(parser, "%s is given twice", name);
		}
		parser->given |= UINT64_C(1) << i;
		return set_value(parser, row, value);
	}
	return complain(parser, "unknown option %s%s", name, parser->app ? "" : " (options of apps come after a [section])");
}

/* ---- a section as a whole ---- */

static bool load_service_account(struct parser *parser, struct config_app *app)
{
	char why[SIGNING_ERROR_SIZE], path[300];
	const char *phrase;
	struct buffer file;
	bool done = false;

	buffer_init(&file, SIGNING_FILE_MAX);
	if (!files_read_secret(app->service_account, &file, why, sizeof(why))) {
		buffer_free(&file);
		return complain(parser, "%s", why);
	}
	cJSON *tree = json_parse(file.data, file.length, 4, &phrase);
	const cJSON *project = cJSON_GetObjectItemCaseSensitive(tree, "project_id");
	const cJSON *email = cJSON_GetObjectItemCaseSensitive(tree, "client_email");
	const cJSON *key = cJSON_GetObjectItemCaseSensitive(tree, "private_key");
	const cJSON *key_id = cJSON_GetObjectItemCaseSensitive(tree, "private_key_id");
	const cJSON *token_uri = cJSON_GetObjectItemCaseSensitive(tree, "token_uri");
	if (!cJSON_IsString(project) || !cJSON_IsString(email) || !cJSON_IsString(key) || !cJSON_IsString(token_uri) ||
		strspn(project->valuestring, "abcdefghijklmnopqrstuvwxyz0123456789-:.") != strlen(project->valuestring) ||
		strlen(project->valuestring) > 200) {
		complain(parser,
			"%s is not a service account's key: project_id, client_email, private_key and token_uri are needed",
			app->service_account);
		goto done;
	}
	app->key = signing_key_parse(key->valuestring, strlen(key->valuestring), "service-account", why, sizeof(why));
	if (!app->key || signing_key_algorithm(app->key) != SIGNING_RS256 || !signing_key_can_sign(app->key)) {
		complain(parser, "%s: its private_key is not an RSA private key", app->service_account);
		goto done;
	}
	(void)snprintf(path, sizeof(path), "/v1/projects/%s/messages:send", project->valuestring);
	app->path = strdup(path);
	app->client_email = strdup(email->valuestring);
	app->key_id = cJSON_IsString(key_id) ? strdup(key_id->valuestring) : NULL;
	app->token_audience = strdup(token_uri->valuestring);
	app->token_url = app->token_url ? app->token_url : strdup(token_uri->valuestring);
	done = app->path && app->client_email && app->token_audience && app->token_url;
done:
	cJSON_Delete(tree);
	buffer_free(&file);
	return done;
}

static bool load_key(struct parser *parser, struct config_app *app)
{
	char why[SIGNING_ERROR_SIZE];
	app->key = signing_key_load(app->key_file, why, sizeof(why));
	if (!app->key) {
		return complain(parser, "%s", why);
	}
	if (signing_key_algorithm(app->key) != SIGNING_ES256 || !signing_key_can_sign(app->key)) {
		return complain(parser, "key_file %s is not a private key on P-256", app->key_file);
	}
	return true;
}

static bool finish_fcm(struct parser *parser, struct config_app *app)
{
	if (!app->service_account) {
		return complain(parser, "[%s] needs service_account", app->name);
	}
	if (!load_service_account(parser, app)) {
		return false;
	}
	app->settings = (struct provider_settings){
		.url = app->url ? app->url : "https://fcm.googleapis.com", .path = app->path, .data_only = app->data_only};
	return true;
}

static bool finish_apns(struct parser *parser, struct config_app *app)
{
	bool sandbox = app->environment && strcmp(app->environment, "sandbox") == 0;
	if (app->environment && !sandbox && strcmp(app->environment, "production") != 0) {
		return complain(parser, "[%s] environment is production or sandbox", app->name);
	}
	if (!app->topic) {
		return complain(parser, "[%s] needs topic, the app's bundle id", app->name);
	}
	if ((app->key_file != NULL) == (app->certificate != NULL)) {
		return complain(parser, "[%s] needs either key_file (with key_id and team_id) or certificate", app->name);
	}
	if (app->key_file && (!app->team_id || !app->key_id)) {
		return complain(parser, "[%s] needs key_id and team_id with key_file", app->name);
	}
	if (app->key_file && !load_key(parser, app)) {
		return false;
	}
	if (app->certificate) {
		char why[SIGNING_ERROR_SIZE];
		if (!files_check_secret(app->certificate_key ? app->certificate_key : app->certificate, why, sizeof(why))) {
			return complain(parser, "%s", why);
		}
	}
	app->settings = (struct provider_settings){.topic = app->topic,
		.url = app->url  ? app->url
		       : sandbox ? "https://api.sandbox.push.apple.com"
				 : "https://api.push.apple.com"};
	return true;
}

static bool finish_webpush(struct parser *parser, struct config_app *app)
{
	if (!app->key_file || !app->subject) {
		return complain(parser, "[%s] needs key_file and subject", app->name);
	}
	/* Apple answers 403 BadJwtToken to anything else. */
	if ((strncmp(app->subject, "mailto:", 7) != 0 || !strchr(app->subject, '@')) &&
		strncmp(app->subject, "https://", 8) != 0) {
		return complain(parser, "[%s] subject is mailto:somebody@example.org or an https: address", app->name);
	}
	return load_key(parser, app);
}

static bool check_names(struct parser *parser, const struct config_app *app)
{
	for (size_t i = 0; rows[i].option.name; i++) {
		if (rows[i].option.section && (parser->given >> i & 1) && !strstr(rows[i].option.section, app->provider->name)) {
			return complain(parser, "[%s] %s is not for %s", app->name, rows[i].option.name, app->provider->name);
		}
	}
	return true;
}

/* At the next section's beginning, or the file's end. */
static bool finish_section(struct parser *parser)
{
	struct config_app *app = parser->app;
	if (!app) {
		return parser->config->database || complain(parser, "database is not given");
	}
	parser->line = app->line;
	if (!app->provider) {
		return complain(parser, "[%s] needs provider", app->name);
	}
	if (!check_names(parser, app)) {
		return false;
	}
	if (app->timeout_ms >= parser->config->lease_ms) {
		return complain(parser,
			"[%s] timeout must be shorter than lease: another notifier would send what is still under way",
			app->name);
	}
	app->badge = is_given(parser, "badge") ? app->badge : app->provider == &provider_apns;
	app->connections = is_given(parser, "connections") ? app->connections : app->provider == &provider_apns ? 1 : 2;
	app->clear = app->provider->clears && (is_given(parser, "clear") ? app->clear : true);
	app->in_flight = is_given(parser, "in_flight") ? app->in_flight : (int64_t)app->provider->in_flight;
	if (app->provider == &provider_fcm) {
		return finish_fcm(parser, app);
	}
	return app->provider == &provider_apns ? finish_apns(parser, app) : finish_webpush(parser, app);
}

static bool begin_section(struct parser *parser, const char *name)
{
	int line = parser->line;
	if (!finish_section(parser)) {
		return false;
	}
	parser->line = line;
	if (name[0] == '\0' || strlen(name) > 200) {
		return complain(parser, "a section has a name of 1 to 200 bytes");
	}
	if (config_find_app(parser->config, name)) {
		return complain(parser, "there are two sections [%s]", name);
	}
	if (parser->config->app_count == CONFIG_APPS_MAX) {
		return complain(parser, "more than %d apps", CONFIG_APPS_MAX);
	}
	parser->app = &parser->config->apps[parser->config->app_count++];
	*parser->app = (struct config_app){
		.name = strdup(name), .line = line, .content = CONTENT_SENDER, .burst = 100, .timeout_ms = 15000};
	parser->given = 0;
	return parser->app->name || complain(parser, "no memory");
}

/* ---- the file ---- */

static char *trim(char *text)
{
	text += strspn(text, " \t");
	size_t length = strlen(text);
	while (length > 0 && strchr(" \t\r", text[length - 1])) {
		text[--length] = '\0';
	}
	return text;
}

static bool parse_line(struct parser *parser, char *line)
{
	line = trim(line);
	size_t length = strlen(line);
	if (length == 0 || line[0] == '#') {
		return true;
	}
	if (line[0] == '[') {
		if (line[length - 1] != ']') {
			return complain(parser, "a section is [name]");
		}
		line[length - 1] = '\0';
		return begin_section(parser, trim(line + 1));
	}
	char *equals = strchr(line, '=');
	if (!equals) {
		return complain(parser, "neither [section] nor name = value");
	}
	*equals = '\0';
	return parse_setting(parser, trim(line), trim(equals + 1));
}

static bool parse_lines(struct parser *parser, char *text)
{
	while (text) {
		char *newline = strchr(text, '\n');
		if (newline) {
			*newline = '\0';
		}
		parser->line++;
		if (!parse_line(parser, text)) {
			return false;
		}
		text = newline ? newline + 1 : NULL;
	}
	return finish_section(parser);
}

static bool load_templates(struct config *config, char error[CONFIG_ERROR_SIZE])
{
	char why[400];
	struct buffer file;
	buffer_init(&file, FILE_BYTES_MAX);
	bool read = !config->templates_file || files_read(config->templates_file, &file, why, sizeof(why));
	if (read) {
		config->templates = content_parse(file.data, file.length, why, sizeof(why));
	}
	if (!config->templates) {
		(void)snprintf(error, CONFIG_ERROR_SIZE, "%.300s: %s",
			config->templates_file ? config->templates_file : "templates", why);
	}
	buffer_free(&file);
	return config->templates != NULL;
}

struct config *config_parse(const char *text, size_t length, const char *name, char error[CONFIG_ERROR_SIZE])
{
	struct config *config = calloc(1, sizeof(*config));
	char *copy = strndup(text, length);
	struct parser parser = {.config = config, .file = name, .error = error};

	(void)snprintf(error, CONFIG_ERROR_SIZE, "no memory");
	if (config && copy) {
		config->grace_ms = 3000;
		config->ttl_ms = DAY_MS;
		config->poll_ms = 250;
		config->lease_ms = 60000;
		config->drain_ms = 10000;
	}
	if (!config || !copy || !parse_lines(&parser, copy) || !load_templates(config, error)) {
		config_free(config);
		config = NULL;
	}
	free(copy);
	return config;
}

struct config *config_load(const char *path, char error[CONFIG_ERROR_SIZE])
{
	struct buffer file;
	struct config *config = NULL;
	buffer_init(&file, FILE_BYTES_MAX);
	if (files_read(path, &file, error, CONFIG_ERROR_SIZE)) {
		config = config_parse(file.data ? file.data : "", file.length, path, error);
	}
	buffer_free(&file);
	return config;
}

static void free_app(struct config_app *app)
{
	char *const strings[] = {app->name, app->url, app->ca_file, app->service_account, app->path, app->token_url,
		app->token_audience, app->client_email, app->key_id, app->topic, app->team_id, app->environment, app->certificate,
		app->certificate_key, app->subject, app->key_file};
	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
		free(strings[i]);
	}
	signing_key_free(app->key);
}

void config_free(struct config *config)
{
	if (!config) {
		return;
	}
	for (size_t i = 0; i < config->app_count; i++) {
		free_app(&config->apps[i]);
	}
	free(config->database);
	free(config->listen_address);
	free(config->templates_file);
	content_free(config->templates);
	free(config);
}

struct config_app *config_find_app(struct config *config, const char *name)
{
	for (size_t i = 0; i < config->app_count; i++) {
		if (config->apps[i].name && strcmp(config->apps[i].name, name) == 0) {
			return &config->apps[i];
		}
	}
	return NULL;
}
