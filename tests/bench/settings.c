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
	{"--mark-topic", KIND_TEXT, AT(mark_topic), 0, 0,
		"where receivers mark each message as delivered and as read; %d is the conversation (nowhere)"},
	{"--receipts-topic", KIND_TEXT, AT(receipts_topic), 0, 0,
		"where receivers are told of each other's marks, which are counted; %d is the conversation (nowhere)"},
	{"--first-conversation", KIND_UNSIGNED, AT(first_conversation), 0, 1e9, "the number of the first one (1)"},
	{"--conversations", KIND_UNSIGNED, AT(conversations), 1, 1e6, "how many (50)"},
	{"--publishers", KIND_UNSIGNED, AT(publishers), 1, 1e6, "in each conversation (1)"},
	{"--receivers", KIND_UNSIGNED, AT(receivers), 1, 1e6, "in each conversation (1)"},
	{"--payload", KIND_SPECIAL, 0, 0, 0, "text, json or json-id (text)"},
	{"--body-length", KIND_SPECIAL, 0, PAYLOAD_MARKER_LENGTH, BODY_MAX,
		"characters of the body, or several with their shares as in 100:90,2000:10 (100)"},
	{"--window", KIND_UNSIGNED, AT(window), 1, WINDOW_MAX, "messages a publisher may have under way (20)"},
	{"--until-delivery", KIND_FLAG, AT(until_delivery), 0, 0,
		"a message is under way until all receivers have it, not until it is acknowledged"},
	{"--rate", KIND_SECONDS, AT(rate_per_s), 0, 1e7, "messages a second of all publishers together; 0 is a closed loop (0)"},
	{"--warmup", KIND_SECONDS, AT(warmup_s), 0, 3600, "seconds of load before the measured part (1)"},
	{"--duration", KIND_SECONDS, AT(duration_s), 0.1, 86400, "seconds of the measured part (5)"},
	{"--drain", KIND_SECONDS, AT(drain_s), 0.1, 3600, "seconds without progress after which what is missing is lost (5)"},
	{"--interval", KIND_SECONDS, AT(interval_s), 0.001, 60, "probe: seconds between two PINGREQ (0.02)"},
	{"--requests", KIND_TEXT, AT(requests), 0, 0,
		"requests: a file of lines `client method {parameters}`, which --sessions clients ask at --rate"},
	{"--check-seq", KIND_FLAG, AT(check_seq), 0, 0, "the \"seq\" of what a receiver gets must rise by one each time"},
	{"--probe", KIND_SPECIAL, 0, 1, INT_MAX, "process id of a probe, which is told when the measured part begins and ends"},
	{"--sample", KIND_TEXT, AT(sample), 0, 0,
		"a pipe that gets `conversation seq marker` of some messages, each at the moment it has arrived"},
	{"--sample-every", KIND_SECONDS, AT(sample_every_s), 0, 3600, "seconds between two of these (0.05)"},
	{"--sessions", KIND_UNSIGNED, AT(sessions), 1, 1e6, "storm: how many (10000)"},
	{"--subscriptions", KIND_UNSIGNED, AT(subscriptions), 0, SETTINGS_SUBSCRIPTIONS_MAX, "storm: conversations of each (20)"},
	{"--members", KIND_UNSIGNED, AT(members), 1, 1e6, "storm: sessions in each conversation (20)"},
	{"--waves", KIND_UNSIGNED, AT(waves), 1, 100, "storm: how often all connect (2)"},
	{"--opening", KIND_UNSIGNED, AT(opening), 0, 1e6, "storm: connections begun before others are ready; 0 is all (0)"},
	{"--distinct-addresses", KIND_FLAG, AT(distinct_addresses), 0, 0, "storm: each session comes from its own 127.x address"},
	{"--watch", KIND_SPECIAL, 0, 0, 0,
		"NAME=PID: report CPU time (a storm: memory too) of this process and its children; may be repeated"},
};

static void print_help(FILE *file)
{
	fprintf(file, "usage: mqtt_load load|storm|probe|requests [option value]...\n"
		      "load publishes and receives, checks loss, duplicates and order, and reports rates and latencies;\n"
		      "storm connects many sessions at once, each subscribing to several conversations;\n"
		      "probe reports how long PINGREQ takes to be answered, until the time is over or SIGTERM;\n"
		      "requests asks what a file says, and reports how long the answers take, until then too.\n\n");
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

/* LENGTH or LENGTH:SHARE,... */
static bool read_sizes(struct settings *settings, const struct option *option, char *text)
{
	char *rest = NULL;
	settings->sizes_count = settings->shares = 0;
	for (char *part = strtok_r(text, ",", &rest); part != NULL; part = strtok_r(NULL, ",", &rest)) {
		double length, share = 1;
		char *colon = strchr(part, ':');
		if (colon != NULL)
			*colon++ = '\0';
		if (!read_number(option, part, &length))
			return false;
		if (colon != NULL)
			share = strtod(colon, NULL);
		if (settings->sizes_count == SETTINGS_SIZES_MAX || !(share >= 1 && share <= 1000)) {
			fprintf(stderr, "mqtt_load: %s: a share from 1 to 1000, %d sizes at most\n", option->name,
				SETTINGS_SIZES_MAX);
			return false;
		}
		settings->sizes[settings->sizes_count++] = (struct settings_size){(size_t)length, (unsigned)share};
		settings->shares += (unsigned)share;
	}
	return settings->sizes_count > 0;
}

static bool read_special(struct settings *settings, const struct option *option, char *text)
{
	static const char *const forms[] = {"text", "json", "json-id", NULL};
	static const char *const transports[] = {"none", "receivers", "all", NULL};
	double number = 0;
	int choice = 0;
	if (strcmp(option->name, "--watch") == 0)
		return read_watched(settings, text);
	if (strcmp(option->name, "--body-length") == 0)
		return read_sizes(settings, option, text);
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
	} else if (strcmp(option->name, "--probe") == 0) {
		settings->probe = (pid_t)number;
	} else {
		settings->qos = (uint8_t)number;
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

bool settings_topic(
	const struct settings *settings, const char *topic_template, unsigned conversation, char out[SETTINGS_TOPIC_MAX])
{
	const char *place = strstr(topic_template, "%d");
	int length;
	if (place == NULL)
		length = snprintf(out, SETTINGS_TOPIC_MAX, "%s", topic_template);
	else
		length = snprintf(out, SETTINGS_TOPIC_MAX, "%.*s%u%s", (int)(place - topic_template), topic_template,
			settings->first_conversation + conversation, place + 2);
	return length >= 0 && length < SETTINGS_TOPIC_MAX;
}

static bool is_consistent(const struct settings *settings)
{
	if ((uint64_t)settings->conversations * settings->publishers > PAYLOAD_PUBLISHERS_MAX) {
		fprintf(stderr, "mqtt_load: too many publishers\n");
		return false;
	}
	if (settings->qos == 0 && settings->rate_per_s <= 0 && !settings->until_delivery) {
		fprintf(stderr, "mqtt_load: a closed loop with QoS 0 has no acknowledgements: add --until-delivery or --rate\n");
		return false;
	}
	if (settings->mode == SETTINGS_REQUESTS && settings->rate_per_s <= 0) {
		fprintf(stderr, "mqtt_load: requests need a --rate\n");
		return false;
	}
	if (settings->mode == SETTINGS_STORM && settings->sessions % settings->members != 0) {
		fprintf(stderr, "mqtt_load: --sessions is a multiple of --members\n");
		return false;
	}
	return true;
}

bool settings_read(struct settings *settings, int argc, char **argv)
{
	static const char *const modes[] = {"load", "probe", "storm", "requests", NULL};
	size_t mode = 0;
	*settings = (struct settings){
		.level = WIRE_LEVEL_5,
		.qos = 1,
		.port = 1883,
		.host = "127.0.0.1",
		.publish_topic = "bench/%d",
		.subscribe_topic = "bench/%d",
		.form = PAYLOAD_TEXT,
		.sizes = {{100, 1}},
		.sizes_count = 1,
		.shares = 1,
		.first_conversation = 1,
		.conversations = 50,
		.publishers = 1,
		.receivers = 1,
		.window = 20,
		.warmup_s = 1,
		.duration_s = 5,
		.drain_s = 5,
		.interval_s = 0.02,
		.sample_every_s = 0.05,
		.sessions = 10000,
		.subscriptions = 20,
		.members = 20,
		.waves = 2,
	};
	while (argc >= 2 && modes[mode] != NULL && strcmp(argv[1], modes[mode]) != 0)
		mode++;
	if (argc < 2 || modes[mode] == NULL) {
		print_help(argc >= 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return false;
	}
	settings->mode = (enum settings_mode)mode;
	if (!read_options(settings, argc, argv))
		return false;
	if (settings->websocket_port == 0)
		settings->websocket_port = settings->port;
	return is_consistent(settings);
}
