/* host.h - what the plugin may ask of the broker it lives in, without naming the broker.
 *
 * Implemented in broker.c, the one file beside plugin.c that knows Mosquitto. All of it: broker thread only.
 */
#ifndef CHAT_PLUGIN_HOST_H
#define CHAT_PLUGIN_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MQTT 5 properties of a publish; all zero: none. */
struct host_properties {
	bool json;                    /* content type application/json */
	int64_t seq;                  /* user property; 0: none */
	int64_t from;                 /* user property; 0: none */
	const void *correlation_data; /* NULL: none */
	uint16_t correlation_length;
};

/* Hands a publish to the broker, which routes it at its next turn; all arguments are copied. False: no memory. */
bool host_publish(const char *topic, const void *payload, size_t length, int qos, const struct host_properties *properties);
/* How many messages the broker has dropped so far, for whom it does not say. Always 0 where it keeps the count to itself (2.1).
 */
uint64_t host_dropped(void);
/* Ends the connection of a client id. Not from inside a callback that concerns this client. */
void host_kick(const char *client_id);

#endif
