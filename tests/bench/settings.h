/* settings.h - the command line of mqtt_load. */
#ifndef CHAT_BENCH_SETTINGS_H
#define CHAT_BENCH_SETTINGS_H

#include "payload.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SETTINGS_WATCHED_MAX 8
#define SETTINGS_SIZES_MAX 4
#define SETTINGS_TOPIC_MAX 256
#define SETTINGS_SUBSCRIPTIONS_MAX 100

struct settings_watched {
	const char *name;
	pid_t pid;
};

/* A length of bodies, and how many of all messages have it. */
struct settings_size {
	size_t length;
	unsigned share;
};

enum settings_mode { SETTINGS_LOAD, SETTINGS_PROBE, SETTINGS_STORM, SETTINGS_REQUESTS };

struct settings {
	enum settings_mode mode;
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
	const char *mark_topic;     /* NULL: nothing is marked */
	const char *receipts_topic; /* NULL: not subscribed to */
	enum payload_form form;
	struct settings_size sizes[SETTINGS_SIZES_MAX];
	unsigned sizes_count;
	unsigned shares; /* of all sizes together */
	unsigned first_conversation;
	unsigned conversations;
	unsigned publishers; /* in each conversation */
	unsigned receivers;  /* in each conversation */
	unsigned window;
	double rate_per_s; /* 0: closed loop */
	double warmup_s;
	double duration_s;
	double drain_s;
	double interval_s;    /* of the probe */
	const char *requests; /* a file of them */
	pid_t probe;          /* told when the measured part begins and ends; 0: none */
	const char *sample;   /* NULL: none */
	double sample_every_s;
	unsigned sessions;      /* of a storm, and what follows too */
	unsigned subscriptions; /* each; 0: none */
	unsigned members;       /* of each conversation */
	unsigned waves;
	unsigned opening; /* at once; 0: all */
	bool distinct_addresses;
	struct settings_watched watched[SETTINGS_WATCHED_MAX];
	unsigned watched_count;
};

/* False: the mistake, or the help that was asked for, has been printed. */
bool settings_read(struct settings *settings, int argc, char **argv);
/* The topic of a template for a conversation counted from 0, in `out`. False: it does not fit. */
bool settings_topic(
	const struct settings *settings, const char *topic_template, unsigned conversation, char out[SETTINGS_TOPIC_MAX]);

#endif
