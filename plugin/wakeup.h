/* wakeup.h - how a thread gets the broker thread to call TICK now rather than within 100 ms.
 *
 * Mosquitto 2.0 offers nothing for this, so an eventfd is added, edge-triggered, to the broker's own epoll set, which
 * is found at the first tick as the one epoll descriptor of this process that holds a listening socket. Each write is
 * an edge; the descriptor is never read. Where it cannot be found, the tick still comes every 100 ms, and the log says so.
 */
#ifndef CHAT_PLUGIN_WAKEUP_H
#define CHAT_PLUGIN_WAKEUP_H

#include <stdbool.h>

/* Before any other. False: no descriptor to be had. */
bool wakeup_open(void);
void wakeup_close(void);
/* Broker thread, at the first tick. False: the broker's epoll set was not found. */
bool wakeup_attach(void);
/* Any thread: TICK will be called after what the caller wrote before this call has become visible. Cheap when pending. */
void wakeup_signal(void);
/* Broker thread, first thing in TICK: later signals wake again. */
void wakeup_begin_tick(void);

#endif
