/* settlements.c - see settlements.h. */
#include "settlements.h"

#include <stdlib.h>
#include <string.h>

#define LOT_MAX 500

void settlements_init(struct settlements *settlements)
{
	static const enum database_type types[SETTLEMENTS_ARRAYS] = {DATABASE_INT8, DATABASE_INT8, DATABASE_INT8, DATABASE_TEXT,
		DATABASE_INT8, DATABASE_INT8, DATABASE_TEXT, DATABASE_INT8, DATABASE_INT8};

	*settlements = (struct settlements){.first = NULL};
	settlements->last = &settlements->first;
	for (size_t i = 0; i < SETTLEMENTS_ARRAYS; i++) {
		database_array_init(&settlements->arrays[i], types[i]);
	}
}

static void drop_first(struct settlements *settlements)
{
	struct settlement *first = settlements->first;
	settlements->first = first->next;
	if (!settlements->first) {
		settlements->last = &settlements->first;
	}
	free(first);
}

void settlements_free(struct settlements *settlements)
{
	while (settlements->first) {
		drop_first(settlements);
	}
	for (size_t i = 0; i < SETTLEMENTS_ARRAYS; i++) {
		database_array_free(&settlements->arrays[i]);
	}
}

bool settlements_are_done(const struct settlements *settlements)
{
	return !settlements->first;
}

void settlements_add(struct settlements *settlements, const struct settlement *settlement)
{
	struct settlement *copy = malloc(sizeof(*copy));
	if (copy) {
		*copy = *settlement;
		copy->next = NULL;
		*settlements->last = copy;
		settlements->last = &copy->next;
	}
}

static void add_text(struct database_array *array, const char *text)
{
	if (text) {
		database_array_bytes(array, text, strlen(text));
	} else {
		database_array_null(array);
	}
}

const struct database_parameters *settlements_begin(struct settlements *settlements)
{
	struct database_array *arrays = settlements->arrays;

	settlements->lot = 0;
	for (size_t i = 0; i < SETTLEMENTS_ARRAYS; i++) {
		database_array_reset(&arrays[i]);
	}
	for (const struct settlement *each = settlements->first; each && settlements->lot < LOT_MAX; each = each->next) {
		database_array_integer(&arrays[0], each->device_id);
		database_array_integer(&arrays[1], each->conversation_id);
		database_array_integer(&arrays[2], each->lease);
		add_text(&arrays[3], each->outcome);
		database_array_integer(&arrays[4], each->seq);
		database_array_integer(&arrays[5], each->delay_ms);
		add_text(&arrays[6], each->error);
		database_array_integer(&arrays[7], each->target_us);
		database_array_integer(&arrays[8], each->gone_ms);
		settlements->lot++;
	}
	database_parameters_reset(&settlements->parameters);
	for (size_t i = 0; i < SETTLEMENTS_ARRAYS; i++) {
		database_parameter_array(&settlements->parameters, &arrays[i]);
	}
	return &settlements->parameters;
}

void settlements_end(struct settlements *settlements, enum database_status status)
{
	for (; status != DATABASE_LOST && settlements->lot > 0; settlements->lot--) {
		drop_first(settlements);
	}
	settlements->lot = 0;
}
