/* overrun.h - notices for whom the broker has dropped something, and ends that connection. Broker thread.
 *
 * Mosquitto keeps a queue for each client (max_queued_messages, max_queued_bytes), and drops in silence what does not fit. A
 * jump in seq would show the client what it lacks, but only if something came after it. So who was dropped for is
 * disconnected: the client connects again and asks for what it lacks, as after any other end of a connection, at its own
 * pace; and what the broker kept for it is freed.
 *
 * How it is noticed. The broker counts what it drops, of all clients together (host_dropped). When it routes what we have
 * published it asks for one receiver after the other whether that may read, and queues or drops: if the count has risen from one
 * such question to the next, it was dropped for the receiver of the first. After the last question the broker goes on to its
 * clients, and what it drops then (acknowledgements for one who does not read them) counts as well. So of the last
 * receiver it is only a suspicion; nobody may be disconnected by what a stranger does. A suspicion makes a notice in the
 * conversation, which mends a hole if there was one, and behind that a question (overrun_ask) by which the next drop is certain.
 */
#ifndef CHAT_PLUGIN_OVERRUN_H
#define CHAT_PLUGIN_OVERRUN_H

#include "chat.h"

/* The broker asks whether somebody may read: anybody, anything. */
void overrun_reading(struct chat *chat);
/* And this session may; conversation_id 0: something else than a conversation's messages. */
void overrun_may_read(struct chat *chat, const struct session *session, int64_t conversation_id);
/* The broker calls for any other reason. */
void overrun_settle(struct chat *chat);
/* Has the broker ask once more for each who listens to the conversation, about a publish that nobody may read. */
void overrun_ask(struct chat *chat, int64_t conversation_id);
static inline bool overrun_is_question(size_t payload_length)
{
	return payload_length == 0;
}

#endif
