/* broker.h - a Mosquitto of a test's own: its ports, its configuration, its log.
 *
 * It never runs as root: as `mosquitto` (or `nobody`) where the test is root. With CHAT_TEST_PRELOAD in the environment
 * (the build sets it for sanitizer presets) these libraries are preloaded, since the broker itself is not sanitized.
 * What the log may hold is checked at every stop: a sanitizer's report or a failed assertion fails the test.
 */
#ifndef CHAT_TESTS_BROKER_H
#define CHAT_TESTS_BROKER_H

#include "postgres.h"

#include <stdbool.h>

#define CONFIGURATION_SIZE 65536
#define BROKER_ENVIRONMENT_MAX 4

struct broker {
	char directory[PATH_SIZE]; /* belongs to the account; configuration, keys */
	char configuration[PATH_SIZE];
	char log[PATH_SIZE];
	struct account account;
	struct process process;
	int port;
	int websocket_port;
	const char *environment[BROKER_ENVIRONMENT_MAX]; /* NAME=VALUE, for starts from now on; borrowed */
};

void broker_create(struct broker *broker, const char *directory);
/* Writes the configuration: the settings that the sample mosquitto.conf shares with every broker of this project, then
 * `plugin_lines`, then a TCP and a WebSocket listener on free ports of 127.0.0.1, then `more`. */
void broker_configure(struct broker *broker, const char *plugin_lines, const char *more);
/* Starts on the configured ports (others where they are taken meanwhile) and waits until it serves. */
void broker_start(struct broker *broker);
/* The same, for one that may die while it starts: false then. */
bool broker_try_start(struct broker *broker);
/* For configurations that must be refused: starts, and waits for the end. Returns the exit status. */
int broker_start_refused(struct broker *broker);
/* SIGTERM. Fails where it does not exit with 0. */
void broker_stop(struct broker *broker);
void broker_kill(struct broker *broker);
void broker_signal(struct broker *broker, int signal_number);
void broker_destroy(struct broker *broker);

/* How many lines of the log hold `text`; since the start of the whole fixture. */
int broker_log_count(const struct broker *broker, const char *text);
/* Waits up to 30 s until at least `count` lines hold it. */
void broker_log_wait(const struct broker *broker, const char *text, int count);
/* Fails on reports of sanitizers and failed assertions. */
void broker_log_check(const struct broker *broker);

/* A port nobody listens on at this moment, and that no other test takes while this program runs. */
int free_port(void);

#endif
