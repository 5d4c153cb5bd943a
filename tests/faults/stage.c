/* stage.c - see stage.h. */
#include "stage.h"
#include "raw.h"

#include "buffer.h"
#include "clock.h"
#include "token.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPTIONS_MAX = 8, FLOW_ACKS = 50, FLOW_MS = 60000, SETTLE_MS = 60000, DAY_S = 86400 };

void stage_begin(struct stage *stage, bool is_long)
{
	void *fixture = NULL;
	*stage = (struct stage){.is_long = is_long};
	check(fixture_setup(&fixture) == 0);
	stage->fixture = fixture;
	stage_restart_broker(stage, NULL);
}

void stage_end(struct stage *stage)
{
	void *fixture = stage->fixture;
	fixture_forget_log(stage->fixture);
	fixture_teardown(&fixture);
}

uint64_t stage_random(struct stage *stage, uint64_t below)
{
	/* splitmix64 */
	uint64_t z = stage->random += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (z ^ z >> 31) % below;
}

void stage_restart_broker(struct stage *stage, const char *const options[])
{
	const char *all[OPTIONS_MAX] = {"presence_grace 1s"}; /* the judge waits for it */
	struct broker *broker = &stage->fixture->broker;
	int status;
	if (!process_wait(&broker->process, 0, &status))
		broker_stop(broker);
	for (int i = 0; options && options[i]; i++) {
		check(i + 2 < OPTIONS_MAX);
		all[i + 1] = options[i];
	}
	fixture_configure(stage->fixture, all, NULL);
	broker_start(broker);
	if (stage->workload)
		workload_set_ports(stage->workload, broker->port, broker->websocket_port);
}

void stage_use_plugin(struct stage *stage, const char *variable)
{
	fixture_use_plugin(stage->fixture, variable);
}

char *stage_token(void *context, int64_t user)
{
	struct fixture *fixture = context;
	struct buffer buffer;
	struct token_claims claims = {.user_id = user, .expires_at_s = clock_wall_ms() / 1000 + DAY_S};
	struct token_rules rules = {0};
	buffer_init(&buffer, TOKEN_MAX + 1);
	check(token_make(fixture->key, &rules, &claims, &buffer) && buffer_append(&buffer, "", 1));
	char *token = strdup(buffer.data);
	buffer_free(&buffer);
	check(token != NULL);
	return token;
}

/* -------------------------------------------------------------------------------------------------- the load */

struct workload_options stage_options(const struct stage *stage)
{
	struct workload_options options = workload_options_small();
	if (stage->is_long) {
		options.users = 12;
		options.pairs = 6;
		options.groups = 4;
		options.long_every = 500;
		options.connected_min_ms = 2000;
		options.connected_max_ms = 8000;
		options.rate_per_s = 3000;
	}
	if (stage->keeps_clients)
		options.connected_min_ms = options.connected_max_ms = 0;
	return options;
}

void stage_load(struct stage *stage, const struct workload_options *wanted)
{
	struct workload_options options = *wanted;
	char conninfo[PATH_SIZE * 2], error[256];
	options.seed = stage->seed;
	options.port = stage->fixture->broker.port;
	options.websocket_port = stage->fixture->broker.websocket_port;
	options.conninfo = postgres_conninfo(&stage->fixture->postgres, "postgres", conninfo);
	options.make_token = stage_token;
	options.context = stage->fixture;
	stage->complaint[0] = '\0';
	stage->workload = workload_start(&options, error, sizeof error);
	if (!stage->workload)
		fail_msg("workload: %s", error);
	stage_wait_acks(stage, FLOW_ACKS);
	stage->connects = workload_counts(stage->workload).connects;
	stage->flowed = 0;
	stage->flowed_ns = 0;
}

void stage_wait_acks(struct stage *stage, uint64_t more)
{
	uint64_t before = workload_counts(stage->workload).acked, wanted = before + more;
	int64_t since_ns = now_ns(), deadline_ms = now_ms() + allowed_ms(FLOW_MS);
	while (workload_counts(stage->workload).acked < wanted) {
		if (now_ms() > deadline_ms) {
			char *log = file_read(stage->fixture->broker.log);
			print_tail(log);
			free(log);
			fail_msg("the load does not flow");
		}
		look_again_soon();
	}
	stage->flowed += workload_counts(stage->workload).acked - before;
	stage->flowed_ns += now_ns() - since_ns;
}

void stage_wait_random_acks(struct stage *stage, uint64_t at_most)
{
	stage_wait_acks(stage, 1 + stage_random(stage, at_most));
}

void stage_note(struct stage *stage, const char *fault)
{
	workload_note_fault(stage->workload, fault);
}

/* --------------------------------------------------------------------------------------------------- figures */

void stage_figure(struct stage *stage, const char *name, int64_t value)
{
	struct figure *figure = stage->figures;
	while (figure < stage->figures + stage->figure_count && strcmp(figure->name, name) != 0)
		figure++;
	if (figure == stage->figures + stage->figure_count) {
		check(stage->figure_count < FIGURES_MAX);
		stage->figure_count++;
		*figure = (struct figure){.name = name, .worst = value};
	}
	figure->worst = value > figure->worst ? value : figure->worst;
	figure->sum += value;
	figure->count++;
}

void stage_start_broker(struct stage *stage)
{
	int64_t since_ns = now_ns();
	broker_start(&stage->fixture->broker);
	char *token = stage_token(stage->fixture, DAVE);
	struct raw *raw = raw_open(stage->fixture->broker.port);
	int code = raw_connect(raw, 4, "first", token, strlen(token));
	stage_figure(stage, "first_connack_ms", (now_ns() - since_ns) / 1000000);
	if (code != 0)
		stage_complain(stage, "CONNACK %d after the start", code);
	raw_close(raw);
	free(token);
}

void stage_complain(struct stage *stage, const char *format, ...)
{
	va_list arguments;
	if (stage->complaint[0])
		return;
	va_start(arguments, format);
	vsnprintf(stage->complaint, sizeof stage->complaint, format, arguments);
	va_end(arguments);
}

/* ------------------------------------------------------------------------------------------------ the verdict */

enum verdict stage_judge(struct stage *stage, uint64_t acks_min, struct judgement *judgement)
{
	struct judge_options options = {.acks_min = acks_min, .needs_fault = true, .clock_moves = stage->clock_moves};
	struct table table;
	stage_figure(stage, "acks_per_s", (int64_t)stage->flowed * 1000000 / (stage->flowed_ns / 1000 + 1));
	const char *hung = workload_settle(stage->workload, allowed_ms(SETTLE_MS));
	if (hung)
		stage_complain(stage, "%s", hung);
	if (stage->keeps_clients && workload_counts(stage->workload).connects != stage->connects)
		stage_complain(stage, "%d clients were disconnected",
			(int)(workload_counts(stage->workload).connects - stage->connects));
	if (!workload_read_table(stage->workload, &table))
		fail_msg("the database does not answer");
	judge(workload_history(stage->workload), &table, &options, judgement);
	enum verdict verdict = stage->complaint[0] ? VERDICT_BAD : judgement_is_clean(judgement) ? VERDICT_GOOD : VERDICT_BAD;
	if (verdict == VERDICT_BAD && !stage->complaint[0] && judgement->invalid)
		verdict = VERDICT_INVALID;
	for (int i = 0; i < VIOLATIONS; i++) {
		if (judgement->count[i])
			verdict = VERDICT_BAD;
	}
	if (verdict == VERDICT_BAD)
		judgement_print(judgement, stdout);
	table_free(&table);
	workload_free(stage->workload);
	stage->workload = NULL;
	return verdict;
}
