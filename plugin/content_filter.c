/* content_filter.c - see content_filter.h. The mutex guards `current` and all counts of users; whether there is anything to take
 * is asked without it. */
#include "content_filter.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct content_set {
	struct content_rules *rules;
	unsigned users; /* one is the filter itself, while it is the current one */
};

struct content_filter {
	pthread_mutex_t mutex;
	_Atomic(struct content_set *) current;
};

struct content_filter *content_filter_new(void)
{
	struct content_filter *filter = calloc(1, sizeof(*filter));
	if (filter) {
		pthread_mutex_init(&filter->mutex, NULL);
	}
	return filter;
}

static void free_set(struct content_set *set)
{
	content_rules_free(set->rules);
	free(set);
}

/* With the mutex held. Returns what is to be freed without it. */
static struct content_set *drop(struct content_set *set)
{
	return set && --set->users == 0 ? set : NULL;
}

bool content_filter_put(struct content_filter *filter, struct content_rules *rules)
{
	struct content_set *set = NULL;

	if (content_rules_count(rules) == 0) {
		content_rules_free(rules);
	} else {
		set = calloc(1, sizeof(*set));
		if (!set) {
			content_rules_free(rules);
			return false;
		}
		*set = (struct content_set){.rules = rules, .users = 1};
	}
	pthread_mutex_lock(&filter->mutex);
	struct content_set *unused = drop(atomic_load(&filter->current));
	atomic_store(&filter->current, set);
	pthread_mutex_unlock(&filter->mutex);
	if (unused) {
		free_set(unused);
	}
	return true;
}

bool content_filter_has_any(const struct content_filter *filter)
{
	return atomic_load(&filter->current) != NULL;
}

struct content_set *content_filter_take(struct content_filter *filter)
{
	if (!content_filter_has_any(filter)) {
		return NULL;
	}
	pthread_mutex_lock(&filter->mutex);
	struct content_set *set = atomic_load(&filter->current);
	if (set) {
		set->users++;
	}
	pthread_mutex_unlock(&filter->mutex);
	return set;
}

const struct content_rules *content_set_rules(const struct content_set *set)
{
	return set->rules;
}

void content_filter_give_back(struct content_filter *filter, struct content_set *set)
{
	pthread_mutex_lock(&filter->mutex);
	struct content_set *unused = drop(set);
	pthread_mutex_unlock(&filter->mutex);
	if (unused) {
		free_set(unused);
	}
}

void content_filter_free(struct content_filter *filter)
{
	if (!filter) {
		return;
	}
	struct content_set *set = atomic_load(&filter->current);
	if (set) {
		free_set(set);
	}
	pthread_mutex_destroy(&filter->mutex);
	free(filter);
}
