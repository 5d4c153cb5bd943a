/* chores.h - what has to be done now and then, and nobody waits for: the search index, erasing what has expired, removing what is
 * kept for a time only, and ending suspensions.
 *
 * A thread of low priority with a connection of its own, so that neither commits nor requests wait for it. Once a second it
 * brings the index up to date for the conversations that were noted since, and for those that it could not have the last time.
 * Then it erases what has expired, and once an hour goes through all logs for what is older than the retention. At its start,
 * whenever it may have missed something, and once an hour, it looks at all conversations for those that are behind, a part of
 * them between one second's work and the next. All of this is done in calls that are transactions of some milliseconds.
 */
#ifndef CHAT_PLUGIN_CHORES_H
#define CHAT_PLUGIN_CHORES_H

#include <stddef.h>
#include <stdint.h>

struct chores;

/* NULL: error says why. retention_days 0: nothing is removed for its age. search_share: per cent of the time, 1 to 100, that the
 * index may be worked at: it rests after each call for as long as that asks for, so that where commits take all that the machine
 * has, the index falls behind and not they. */
struct chores *chores_start(const char *conninfo, unsigned search_share, int64_t retention_days, char *error, size_t error_size);
/* Joins and frees; NULL is fine. */
void chores_stop(struct chores *chores);
/* Any thread: the conversation's log has grown. */
void chores_note(struct chores *chores, int64_t conversation_id);
/* Any thread: logs may have grown, and nobody knows which. */
void chores_note_all(struct chores *chores);
/* Any thread: from the next round on, which then begins at once. */
void chores_set_retention(struct chores *chores, int64_t days);

#endif
