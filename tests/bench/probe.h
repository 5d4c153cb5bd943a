/* probe.h - how long the broker takes to answer a PINGREQ, to show when it stands still.
 *
 * Run beside a load, in its own process, so that the generator's own pauses are not taken for the broker's. The load says
 * with a signal what is going on (mqtt_load --probe PID): SIGUSR1 the measured part begins, SIGUSR2 it is over and all will be
 * cut. Both parts are reported; without signals all is one.
 */
#ifndef CHAT_BENCH_PROBE_H
#define CHAT_BENCH_PROBE_H

#include "settings.h"

/* Prints `name value` lines, when the time is over or at SIGTERM. False: no connection, or it was lost; the reason has been
 * printed. */
bool probe_run(const struct settings *settings);
/* The load's side: sends the signal to the probe, if there is one. */
void probe_tell(const struct settings *settings, int signal_number);

#endif
