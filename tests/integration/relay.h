/* relay.h - lets a TCP-only MQTT client speak through a WebSocket listener: a socket on one side, frames on the other.
 *
 * Nothing runs by itself: whoever owns it polls relay_fds and calls relay_turn.
 */
#ifndef CHAT_TESTS_RELAY_H
#define CHAT_TESTS_RELAY_H

#include <stdbool.h>

struct relay;

/* Listens on a port of its own, to which exactly one client shall connect. */
struct relay *relay_new(int *port);
/* After the client has called connect(): takes its connection, and upgrades one to the broker's listener. */
void relay_open(struct relay *relay, int websocket_port);
void relay_fds(const struct relay *relay, int fds[2]);
/* Moves what can be read in both directions. */
void relay_turn(struct relay *relay);
void relay_free(struct relay *relay);

#endif
