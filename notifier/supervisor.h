/* supervisor.h - what systemd is told (sd_notify(3), the protocol by hand: one datagram to $NOTIFY_SOCKET). Without one, nothing.
 */
#ifndef CHAT_NOTIFIER_SUPERVISOR_H
#define CHAT_NOTIFIER_SUPERVISOR_H

#include <stdint.h>

/* "READY=1", "STOPPING=1", "WATCHDOG=1", ... */
void supervisor_tell(const char *state);
/* How often WATCHDOG=1 is due: half of what the unit says. 0: never. */
int64_t supervisor_watchdog_ms(void);

#endif
