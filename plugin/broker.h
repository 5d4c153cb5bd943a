/* broker.h - the door to Mosquitto for plugin.c: what its callbacks and events need beyond the broker's own headers.
 *
 * broker.c and plugin.c alone know Mosquitto; everyone else uses host.h.
 */
#ifndef CHAT_PLUGIN_BROKER_H
#define CHAT_PLUGIN_BROKER_H

#include "log.h"

#include <stdbool.h>

/* Where log lines of other threads wait for the next tick: Mosquitto's log function is for its own thread. */
void broker_log_start(void); /* from the broker thread, which is remembered */
void broker_log_drain(void); /* broker thread */
void broker_log_stop(void);  /* broker thread; lines go straight to the broker from now on */
void broker_log_sink(enum log_level level, const char *line);

/* Whether this broker is Mosquitto 2.1 or newer: then MOSQ_ERR_QUOTA_EXCEEDED is a failing PUBACK. */
bool broker_is_2_1(void);

/* Finds what host_dropped() reads. False: this broker does not show it. */
bool broker_find_dropped(void);

/* Broker thread, once the listeners are there: lets them hold more connections that wait to be accepted. */
void broker_raise_backlogs(void);

#endif
