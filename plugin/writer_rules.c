/* writer_rules.c - see writer_lane.h: what the content rules say of a batch's messages. A lane's own thread.
 *
 * A batch is judged once, before it is first sent, and what was found is kept until its fate is known: a message that was masked
 * when it was stored is delivered with the same mask, though its commit is settled later and the rules are others by then.
 * Nothing is kept for messages that pass as they are. Where there are no rules, nothing at all is done.
 */
#include "writer_lane.h"

#include "statements.h"

#include <stdlib.h>
#include <string.h>

#define OPAQUE "opaque"

void lane_forget_judgements(struct lane *lane)
{
	for (size_t i = 0; i < lane->judgement_count; i++) {
		content_verdict_free(&lane->judgements[i].verdict);
	}
	lane->judgement_count = 0;
	lane->judged = false;
}

static int compare_positions(const void *key, const void *judgement)
{
	uint64_t wanted = *(const uint64_t *)key, position = ((const struct judgement *)judgement)->record->position;
	return (wanted > position) - (wanted < position);
}

const struct content_verdict *lane_verdict(const struct lane *lane, const struct record_header *record)
{
	if (lane->judgement_count == 0) {
		return NULL;
	}
	/* In the order of the batch, which is that of the spool. */
	const struct judgement *found = bsearch(
		&record->position, lane->judgements, lane->judgement_count, sizeof(lane->judgements[0]), compare_positions);
	return found ? &found->verdict : NULL;
}

/* The type of each record's conversation, row by row; of a mark, of none. */
static enum database_status ask_types(struct lane *lane, struct database_result **types)
{
	struct database_array *conversations = &lane->columns[C_CONVERSATION];
	struct database_parameters parameters;
	struct database_call call = {STATEMENT_CONVERSATION_TYPES, &parameters};
	struct record_parts parts;

	database_array_reset(conversations);
	for (size_t i = 0; i < lane->batch_count; i++) {
		bool message = lane->batch[i]->type == RECORD_MESSAGE;
		database_array_integer(conversations, message ? record_read_message(lane->batch[i], &parts)->conversation_id : 0);
	}
	database_parameters_reset(&parameters);
	database_parameter_array(&parameters, conversations);
	enum database_status status = database_run(lane->database, &call, 1, COMMIT_TIMEOUT_MS, types);
	if (status == DATABASE_OK && (size_t)database_rows(*types) != lane->batch_count) {
		database_result_free(*types);
		*types = NULL;
		return DATABASE_REFUSED;
	}
	return status;
}

/* False: no memory. */
static bool judge_record(
	struct lane *lane, const struct content_rules *rules, const struct record_header *record, int conversation_type)
{
	struct record_parts parts;
	const struct record_message *message = record_read_message(record, &parts);
	struct content_text text = {.bytes = parts.body,
		.length = message->body_length,
		.conversation_type = conversation_type,
		.conversation_id = message->conversation_id};
	struct content_verdict verdict;

	if (message->type_length == strlen(OPAQUE) && memcmp(parts.type, OPAQUE, strlen(OPAQUE)) == 0) {
		return true; /* nobody but its readers can */
	}
	if (!content_rules_apply(rules, lane->matcher, &text, &verdict)) {
		return false;
	}
	if (verdict.gave_up) {
		log_line(LOG_LEVEL_WARNING,
			"chat: content rule %lld gave up on a message, as on one that it does not match: its pattern takes too "
			"many "
			"steps; make it simpler",
			(long long)verdict.gave_up);
	}
	if (verdict.rejected_by || verdict.masked || verdict.flag_count > 0) {
		lane->judgements[lane->judgement_count++] = (struct judgement){record, verdict};
	}
	return true;
}

static bool have_memory(struct lane *lane)
{
	if (!lane->matcher) {
		lane->matcher = content_matcher_new();
	}
	if (!lane->judgements) {
		lane->judgements = calloc(BATCH_RECORDS_MAX, sizeof(lane->judgements[0]));
	}
	return lane->matcher && lane->judgements;
}

static enum database_status judge_batch(struct lane *lane, const struct content_rules *rules)
{
	struct database_result *types = NULL;
	enum database_status status = have_memory(lane) ? DATABASE_OK : DATABASE_REFUSED;

	if (status == DATABASE_OK && content_rules_ask_type(rules)) {
		status = ask_types(lane, &types);
	}
	for (size_t i = 0; i < lane->batch_count && status == DATABASE_OK; i++) {
		int type = types ? (int)database_integer(types, (int)i, 0) : 0;
		if (lane_is_stopping(lane)) {
			status = DATABASE_LOST;
		} else if (lane->batch[i]->type == RECORD_MESSAGE && !judge_record(lane, rules, lane->batch[i], type)) {
			status = DATABASE_REFUSED;
		}
	}
	database_result_free(types);
	return status;
}

enum database_status lane_judge(struct lane *lane)
{
	struct content_filter *filter = loader_content_filter(lane->writer->loader);
	struct content_set *set = lane->judged ? NULL : content_filter_take(filter);
	enum database_status status = DATABASE_OK;

	if (set) {
		status = judge_batch(lane, content_set_rules(set));
		content_filter_give_back(filter, set);
	}
	if (status == DATABASE_OK) {
		lane->judged = true;
	} else {
		lane_forget_judgements(lane);
	}
	return status;
}

void lane_rules_free(struct lane *lane)
{
	lane_forget_judgements(lane);
	free(lane->judgements);
	content_matcher_free(lane->matcher);
}
