/* content_rules.h - patterns that messages are held against: compiling a set, and what it says of a text. Pure; a set that is
 * complete may be used by any number of threads, each with a matcher of its own.
 *
 * A pattern is a Perl-compatible one (PCRE2), over code points, with Unicode's own idea of letters and case. No pattern can hold
 * up who applies it: each match counts the steps that it takes and the bytes that it walks over, and gives up beyond a bound,
 * which is a number and no time, so the same text is judged alike on every machine. What cannot be counted so (back
 * references) does not compile. Giving up is "does not match".
 *
 * All rules of a set are held against the text as it was sent: one that rejects wins over all others, and what several mask is
 * masked once.
 */
#ifndef CHAT_PLUGIN_CONTENT_RULES_H
#define CHAT_PLUGIN_CONTENT_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum content_action { CONTENT_REJECT = 1, CONTENT_MASK, CONTENT_FLAG }; /* as chat.read_content_rules numbers them */

struct content_rule {
	int64_t id;
	const char *pattern; /* UTF-8 */
	size_t pattern_length;
	enum content_action action;
	bool ignore_case;
	int conversation_type;   /* 0: any; chat.conversation_types has the numbers */
	int64_t conversation_id; /* 0: any */
};

/* Why a pattern does not compile. */
struct content_fault {
	size_t offset; /* in bytes */
	char message[128];
};

struct content_rules;

/* NULL: no memory. */
struct content_rules *content_rules_new(void);
void content_rules_free(struct content_rules *rules); /* NULL is fine */
/* False: the set is as it was, and *fault says why. The rule's pattern is not kept. */
__attribute__((warn_unused_result)) bool content_rules_add(
	struct content_rules *rules, const struct content_rule *rule, struct content_fault *fault);
size_t content_rules_count(const struct content_rules *rules);
/* Whether some rule asks for the type of the conversation. */
bool content_rules_ask_type(const struct content_rules *rules);

/* A thread's own memory for matching. NULL: no memory. */
struct content_matcher *content_matcher_new(void);
void content_matcher_free(struct content_matcher *matcher); /* NULL is fine */

struct content_text {
	const char *bytes; /* valid UTF-8 */
	size_t length;
	int conversation_type; /* 0: not known, and rules that ask for one do not match */
	int64_t conversation_id;
};

#define CONTENT_FLAGS_MAX 16 /* rules that flag one text; more are left out */

struct content_verdict {
	int64_t rejected_by; /* the rule; 0: not rejected. Of a rejected text nothing else is said. */
	char *masked;        /* the text with '*' for each code point that a rule masks; owned; NULL: nothing is masked */
	size_t masked_length;
	int64_t flagged_by[CONTENT_FLAGS_MAX];
	size_t flag_count;
	int64_t gave_up; /* a rule that took too many steps, the first time that this set says so of it; 0: none */
};

/* False: no memory; nothing is then to be released. Otherwise content_verdict_free(). */
__attribute__((warn_unused_result)) bool content_rules_apply(const struct content_rules *rules, struct content_matcher *matcher,
	const struct content_text *text, struct content_verdict *out);
void content_verdict_free(struct content_verdict *verdict);

#endif
