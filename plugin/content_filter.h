/* content_filter.h - the content rules in force: the loader puts a set, the lanes take it. Any thread.
 *
 * A set never changes. Who has taken one may use it until it is given back; the last one to do so frees it, where another set
 * has come meanwhile.
 */
#ifndef CHAT_PLUGIN_CONTENT_FILTER_H
#define CHAT_PLUGIN_CONTENT_FILTER_H

#include "content_rules.h"

struct content_filter;
struct content_set;

/* With no rules. NULL: no memory. */
struct content_filter *content_filter_new(void);
/* Nothing is taken any more; NULL is fine. */
void content_filter_free(struct content_filter *filter);
/* From now on these, which are taken over; without rules in it, none. False: no memory; the rules in force stay and `rules` is
 * freed. */
__attribute__((warn_unused_result)) bool content_filter_put(struct content_filter *filter, struct content_rules *rules);
bool content_filter_has_any(const struct content_filter *filter);
/* NULL: there are no rules, which costs nothing. */
struct content_set *content_filter_take(struct content_filter *filter);
const struct content_rules *content_set_rules(const struct content_set *set);
void content_filter_give_back(struct content_filter *filter, struct content_set *set);

#endif
