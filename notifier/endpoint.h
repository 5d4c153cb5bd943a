/* endpoint.h - what a browser's push subscription may name as its endpoint, and where a connection may go. Pure.
 *
 * Endpoints are what users say, so a push could be made to knock at any door that our host can reach (threat 49). Two locks, each
 * enough alone: the URL is checked when the push is built, and the address that the name was resolved to is checked when the
 * socket is made, which no later answer of the DNS can undo.
 */
#ifndef CHAT_NOTIFIER_ENDPOINT_H
#define CHAT_NOTIFIER_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

#define ENDPOINT_MAX 1000 /* bytes; the longest in the field has some 400 */
#define ENDPOINT_ORIGIN_SIZE 300

/* Whether the URL may be pushed to: https, a name with a dot in it (no address in any spelling, no local name), port 443,
 * nobody's name or password, no fragment, printable ASCII. `origin` gets "https://host" (lower case; with ":port" where it is not
 * 443). any_host: tests push to 127.0.0.1 and to other ports. NULL where all is well; otherwise what is wrong, a static phrase.
 */
const char *endpoint_check(const char *url, size_t length, bool any_host, char origin[ENDPOINT_ORIGIN_SIZE]);

struct sockaddr;
/* Whether the address is a public one: not loopback, private, link-local, shared, multicast, documentation, or a way to write
 * one of these in IPv6. Anything but IPv4 and IPv6 is not. */
bool endpoint_address_is_public(const struct sockaddr *address);

#endif
