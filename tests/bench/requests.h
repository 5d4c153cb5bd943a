/* requests.h - people who ask: requests at a fixed rate from a file, each answer matched with its question and timed.
 *
 * Run beside a load, in its own process, as a probe is (probe.h): SIGUSR1 begins the measured part, SIGUSR2 ends it, SIGTERM ends
 * the run. The file has lines `client method parameters`, where `client` counts the credentials from 0 and the parameters are a
 * JSON object on one line; they are asked in their order, and again from the first. A request is due at its time whatever became
 * of the ones before it, and its latency counts from then on (an open loop).
 */
#ifndef CHAT_BENCH_REQUESTS_H
#define CHAT_BENCH_REQUESTS_H

#include "settings.h"

#include <stdint.h>

/* Prints `name value` lines: of each method p50, p99 and the longest, and what was answered with an error or not at all. 0: all
 * was answered; 1: some was not, or with an error; 2: it could not be run, and the reason has been printed. */
int requests_run(const struct settings *settings);

/* The number in the frame of an answer, `{"request_id":17,…`; 0: there is none. Pure. */
uint64_t requests_answered(const uint8_t *payload, size_t length);

#endif
