/* flush_ledger.h - what flush_counted.c, preloaded into a broker, and the test tell each other: a file that both map. */
#ifndef CHAT_TESTS_FLUSH_LEDGER_H
#define CHAT_TESTS_FLUSH_LEDGER_H

#include <stdatomic.h>
#include <stdint.h>

#define FLUSH_LEDGER_VARIABLE "CHAT_TEST_FLUSH_LEDGER" /* in the environment: the file's path */

struct flush_ledger {
	_Atomic uint64_t by_main;   /* flushes that the process's first thread waited for, failed ones included */
	_Atomic uint64_t by_others; /* and those of the other threads */
	_Atomic int failing;        /* set by the test: flushes fail */
};

#endif
