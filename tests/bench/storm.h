/* storm.h - everybody connects at once: mqtt_load storm. */
#ifndef CHAT_BENCH_STORM_H
#define CHAT_BENCH_STORM_H

#include "settings.h"

#include <stdbool.h>

/* --clients sessions at once, each with --subscriptions conversations: client n belongs to the cohort n / subscriptions, whose
 * members all have the same conversations. Prints how long it took until each had the last SUBACK, CPU time and memory of
 * what is watched. False: it could not be run, or a subscription was refused. */
bool storm_run(const struct settings *settings);

#endif
