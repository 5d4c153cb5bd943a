/* settings.h - the command line of mqtt_load. */
#ifndef CHAT_BENCH_SETTINGS_H
#define CHAT_BENCH_SETTINGS_H

#include "payload.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SETTINGS_WATCHED_MAX 8

struct settings_watched {
	const char *name;
	pid_t pid;
};

struct settings {
	bool probe; /* or: */
	bool storm; /* or: load */
	bool websocket_publishers;
	bool websocket_receivers;
	bool until_delivery; /* a message leaves the window when all its receivers have it, not when it is acknowledged */
	bool check_seq;
	uint8_t level;
	uint8_t qos;
	uint16_t port;
	uint16_t websocket_port; /* 0: as port */
	const char *host;
	const char *credentials;
	const char *publish_topic;
	const char *subscribe_topic;
	enum payload_form form;
	size_t body_length;
	unsigned first_conversation;
	unsigned conversations;
	unsigned publishers;    /* in each conversation */
	unsigned receivers;     /* in each conversation */
	unsigned clients;       /* of the storm */
	unsigned subscriptions; /* of each of them */
	unsigned window;
	double rate_per_s; /* 0: closed loop */
	double warmup_s;
	double duration_s;
	double drain_s;
	double interval_s; /* of the probe */
	struct settings_watched watched[SETTINGS_WATCHED_MAX];
	unsigned watched_count;
};

/* False: the mistake, or the help that was asked for, has been printed. */
bool settings_read(struct settings *settings, int argc, char **argv);

#endif
