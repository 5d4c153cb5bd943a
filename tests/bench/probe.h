/* probe.h - how long the broker takes to answer a PINGREQ, to show when it stands still.
 *
 * Run beside a load, in its own process, so that the generator's own pauses are not taken for the broker's. */
#ifndef CHAT_BENCH_PROBE_H
#define CHAT_BENCH_PROBE_H

#include "settings.h"

/* Prints `name value` lines. False: no connection, or it was lost; the reason has been printed. */
bool probe_run(const struct settings *settings);

#endif
