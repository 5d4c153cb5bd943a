/* request.h - the service behind PUBLISH to chat/request/{method}. Broker thread.
 *
 * A request is checked here, and put in line for the request workers; its answer comes back through the delivery queue to
 * the session that asked, and to nobody where that has ended. What cannot be taken at all (too many, too long, not allowed)
 * is refused at once; what is wrong in itself is answered in its turn.
 */
#ifndef CHAT_PLUGIN_REQUEST_H
#define CHAT_PLUGIN_REQUEST_H

#include "publish.h"

enum publish_verdict request_message(struct chat *chat, const struct publish *publish);

#endif
