/* storm.h - many sessions that connect at once, subscribe, and prove that they hear: what a broker goes through when a network
 * comes back. Also how much memory a session takes.
 *
 * Session s of n is in `subscriptions` conversations of `members` each; with g = n / members conversations of each kind k:
 *
 *   conversation k * g + (s + k * (s / g)) % g
 *
 * so that no two sessions share many, as people do. Wave by wave: connect all, subscribe (one packet), wait until each has its
 * SUBACK; then one session of each of the first g conversations sends a message, which every session must get, and again each
 * second until every one has got some; from its first on a session must miss none. A connection without a CONNACK after 5 s is
 * begun anew. Before a wave after the first all connections are closed without a DISCONNECT.
 */
#ifndef CHAT_BENCH_STORM_H
#define CHAT_BENCH_STORM_H

#include "settings.h"

/* Prints `name value` lines. 0: all well; 1: some session was refused, or a message was lost or came twice; 2: it could not be
 * run, and the reason has been printed. */
int storm_run(const struct settings *settings);

/* The conversation, counted from 0, of a session's k-th subscription. Pure. */
unsigned storm_conversation(const struct settings *settings, unsigned session, unsigned k);

#endif
