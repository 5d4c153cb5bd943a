/* settings.c - see settings.h. One table: name, kind, range, where it goes, help. */
#define _GNU_SOURCE
#include "settings.h"

#include "wire.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MAX 16384 /* half the packet ids that the ring of a publisher uses */
#define BODY_MAX 8000000

enum kind { KIND_TEXT, KIND_UNSIGNED, KIND_SECONDS, KIND_FLAG, KIND_SPECIAL };

struct option {
	const char *name;
	enum kind kind;
	size_t offset;
	double minimum;
	double maximum;
	const char *help;
};

#define AT(field) offsetof(struct settings, field)

static const struct option options[] = {
	{"--host", KIND_TEXT, AT(host), 0, 0, "address of the broker, IPv4 (127.0.0.1)"},
	{"--port", KIND_SPECIAL, 0, 1, 65535, "its port (1883)"},
	{"--protocol", KIND_SPECIAL, 0, 4, 5, "4 is MQTT 3.1.1, 5 is MQTT 5 (5)"},
	{"--qos", KIND_SPECIAL, 0, 0, 1, "of publishes and subscriptions (1)"},
	{"--websocket-port", KIND_SPECIAL, 0, 1, 65535, "where those who use WebSocket connect (as --port)"},
	{"--websocket", KIND_SPECIAL, 0, 0, 0, "none, receivers or all: who connects by WebSocket (none)"},
	{"--credentials", KIND_TEXT, AT(credentials), 0, 0,
		"file of lines `client-id user password`: of each conversation first its publishers, then its receivers"},
	{"--publish-topic", KIND_TEXT, AT(publish_topic), 0, 0, "%d is the conversation (bench/%d)"},
	{"--subscribe-topic", KIND_TEXT, AT(subscribe_topic), 0, 0, "%d is the conversation (bench/%d)"},
	{"--first-conversation", KIND_UNSIGNED, AT(first_conversation), 0, 1e9, "the number of the first one (1)"},
	{"--conversations", KIND_UNSIGNED, AT(conversations), 1, 1e6, "how many (50)"},
	{"--publishers", KIND_UNSIGNED, AT(publishers), 1, 1e6, "in each conversation (1)"},
	{"--receivers", KIND_UNSIGNED, AT(receivers), 1, 1e6, "in each conversation (1)"},
	{"--payload", KIND_SPECIAL, 0, 0, 0, "text, json or json-id (text)"},
	{"--body-length", KIND_SPECIAL, 0, PAYLOAD_MARKER_LENGTH, BODY_MAX, "characters of the body (100)"},
	{"--window", KIND_UNSIGNED, AT(window), 1, WINDOW_MAX, "messages a publisher may have under way (20)"},
	{"--until-delivery", KIND_FLAG, AT(until_delivery), 0, 0,
		"a message is under way until all receivers have it, not until it is acknowledged"},
	{"--rate", KIND_SECONDS, AT(rate_per_s), 0, 1e7, "messages a second of all publishers together; 0 is a closed loop (0)"},
	{"--warmup", KIND_SECONDS, AT(warmup_s), 0, 3600, "seconds of load before the measured part (1)"},
	{"--duration", KIND_SECONDS, AT(duration_s), 0.1, 86400, "seconds of the measured part (5)"},
	{"--drain", KIND_SECONDS, AT(drain_s), 0.1, 3600, "seconds without progress after which what is missing is lost (5)"},
	{"--interval", KIND_SECONDS, AT(interval_s), 0.001, 60, "probe: seconds between two PINGREQ (0.02)"},
	{"--clients", KIND_UNSIGNED, AT(clients), 1, 1e6, "storm: how many connect at once (1000)"},
	{"--subscriptions", KIND_UNSIGNED, AT(subscriptions), 1, 1000, "storm: how many conversations each subscribes to (20)"},
	{"--check-seq", KIND_FLAG, AT(check_seq), 0, 0, "the \"seq\" of what a receiver gets must rise by one each time"},
	{"--watch", KIND_SPECIAL, 0, 0, 0, "NAME=PID: report the CPU time of this process and its children; may be repeated"},
};

static void print_help(FILE *file)
{
	fprintf(file, "usage: mqtt_load load|probe|storm [option value]...\n"
		      "load publishes and receives, checks loss, duplicates and order, and reports rates and latencies;\n"
		      "probe reports how long PINGREQ takes to be answered;\n"
		      "storm connects and subscribes with all clients at once, and reports how long that takes.\n\n");
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		fprintf(file, "  %-21s %s\n", options[i].name, options[i].help);
}

static bool read_number(const struct option *option, const char *text, double *number)
{
	char *end;
	errno = 0;
	*number = strtod(text, &end);
	if (errno == 0 && end != text && *end == '\0' && *number >= option->minimum && *number <= option->maximum)
		return true;
	fprintf(stderr, "mqtt_load: %s: %s is not a number from %g to %g\n", option->name, text, option->minimum,
		option->maximum);
	return false;
}

static bool read_watched(struct settings *settings, char *text)
{
	char *equals = strchr(text, '=');
	char *end = NULL;
	long pid = equals == NULL ? 0 : strtol(equals + 1, &end, 10);
	if (pid <= 0 || pid > INT_MAX || *end != '\0' || settings->watched_count == SETTINGS_WATCHED_MAX) {
		fprintf(stderr, "mqtt_load: --watch %s: not NAME=PID, or more than %d\n", text, SETTINGS_WATCHED_MAX);
		return false;
	}
	*equals = '\0';
	settings->watched[settings->watched_count++] = (struct settings_watched){text, (pid_t)pid};
	return true;
}

/* The place of `text` in the NULL-terminated `words`, -1 where it is none of them. */
static int choose(const struct option *option, const char *text, const char *const *words)
{
	for (int i = 0; words[i] != NULL; i++)
		if (strcmp(words[i], text) == 0)
			return i;
	fprintf(stderr, "mqtt_load: %s does not know %s\n", option->name, text);
	return -1;
}

static bool read_special(struct settings *settings, const struct option *option, char *text)
{
	static const char *const forms[] = {"text", "json", "json-id", NULL};
	static const char *const transports[] = {"none", "receivers", "all", NULL};
	double number = 0;
	int choice = 0;
	if (strcmp(option->name, "--watch") == 0)
		return read_watched(settings, text);
	if (strcmp(option->name, "--payload") == 0) {
		choice = choose(option, text, forms);
		settings->form = (enum payload_form)choice;
	} else if (strcmp(option->name, "--websocket") == 0) {
		choice = choose(option, text, transports);
		settings->websocket_receivers = choice >= 1;
		settings->websocket_publishers = choice == 2;
	} else if (!read_number(option, text, &number)) {
		return false;
	} else if (strcmp(option->name, "--port") == 0) {
		settings->port = (uint16_t)number;
	} else if (strcmp(option->name, "--websocket-port") == 0) {
		settings->websocket_port = (uint16_t)number;
	} else if (strcmp(option->name, "--protocol") == 0) {
		settings->level = (uint8_t)number;
	} else if (strcmp(option->name, "--qos") == 0) {
		settings->qos = (uint8_t)number;
	} else {
		settings->body_length = (size_t)number;
	}
	return choice >= 0;
}

static bool read_option(struct settings *settings, const struct option *option, char *text)
{
	char *field = (char *)settings + option->offset;
	double number;
	switch (option->kind) {
	case KIND_FLAG:
		*(bool *)(void *)field = true;
		return true;
	case KIND_TEXT:
		*(const char **)(void *)field = text;
		return true;
	case KIND_SECONDS:
		return read_number(option, text, (double *)(void *)field);
	case KIND_UNSIGNED:
		if (!read_number(option, text, &number))
			return false;
		*(unsigned *)(void *)field = (unsigned)number;
		return true;
	case KIND_SPECIAL:
	default:
		return read_special(settings, option, text);
	}
}

static const struct option *find_option(const char *name)
{
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	fprintf(stderr, "mqtt_load: unknown option %s; mqtt_load --help lists them\n", name);
	return NULL;
}

static bool read_options(struct settings *settings, int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		const struct option *option = find_option(argv[i]);
		if (option == NULL)
			return false;
		char *text = NULL;
		if (option->kind != KIND_FLAG) {
			text = ++i < argc ? argv[i] : NULL;
			if (text == NULL) {
				fprintf(stderr, "mqtt_load: %s needs a value\n", option->name);
				return false;
			}
		}
		if (!read_option(settings, option, text))
			return false;
	}
	return true;
}

bool settings_read(struct settings *settings, int argc, char **argv)
{
	*settings = (struct settings){
		.level = WIRE_LEVEL_5,
		.qos = 1,
		.port = 1883,
		.host = "127.0.0.1",
		.publish_topic = "bench/%d",
		.subscribe_topic = "bench/%d",
		.form = PAYLOAD_TEXT,
		.body_length = 100,
		.first_conversation = 1,
		.conversations = 50,
		.publishers = 1,
		.receivers = 1,
		.clients = 1000,
		.subscriptions = 20,
		.window = 20,
		.warmup_s = 1,
		.duration_s = 5,
		.drain_s = 5,
		.interval_s = 0.02,
	};
	if (argc < 2 || (strcmp(argv[1], "load") != 0 && strcmp(argv[1], "probe") != 0 && strcmp(argv[1], "storm") != 0)) {
		print_help(argc >= 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return false;
	}
	settings->probe = strcmp(argv[1], "probe") == 0;
	settings->storm = strcmp(argv[1], "storm") == 0;
	if (!read_options(settings, argc, argv))
		return false;
	if (settings->websocket_port == 0)
		settings->websocket_port = settings->port;
	if ((uint64_t)settings->conversations * settings->publishers > PAYLOAD_PUBLISHERS_MAX) {
		fprintf(stderr, "mqtt_load: too many publishers\n");
		return false;
	}
	if (settings->qos == 0 && settings->rate_per_s <= 0 && !settings->until_delivery) {
		fprintf(stderr, "mqtt_load: a closed loop with QoS 0 has no acknowledgements: add --until-delivery or --rate\n");
		return false;
	}
	return true;
}
