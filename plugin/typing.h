/* typing.h - which typing notices of a user pass. Pure: the time is an argument, the state its owner's.
 *
 * At most one "typing" passes in TYPING_EVERY_MS for each conversation, and what ends it, once; in so many conversations
 * at a time as one has fingers for. What does not pass is dropped in silence: a notice ends by itself, and the next one
 * says the same.
 */
#ifndef CHAT_PLUGIN_TYPING_H
#define CHAT_PLUGIN_TYPING_H

#include <stdbool.h>
#include <stdint.h>

#define TYPING_EVERY_MS 3000
/* Told to those who see the notice. */
#define TYPING_EXPIRES_IN_S 6
#define TYPING_CONVERSATIONS_MAX 4

/* All zero: not typing anywhere. */
struct typing {
	struct typing_notice {
		int64_t conversation_id; /* 0: free */
		int64_t passed_ms;       /* monotonic, when "typing" last passed */
		bool ended;              /* and its end has passed as well */
	} notices[TYPING_CONVERSATIONS_MAX];
};

bool typing_passes(struct typing *typing, int64_t conversation_id, bool is_typing, int64_t now_ms);

#endif
