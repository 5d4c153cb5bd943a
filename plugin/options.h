/* options.h - the one table of options: name, type, default, range, reloadable, secret, help.
 *
 * Everything that speaks of options (the sample configuration, the reference, the start-up check) is checked against
 * this table by the suite. Used on the broker thread, at start and at SIGHUP.
 */
#ifndef CHAT_PLUGIN_OPTIONS_H
#define CHAT_PLUGIN_OPTIONS_H

#include "rate_limit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_spool_sync { SPOOL_SYNC_NONE, SPOOL_SYNC_INTERVAL, SPOOL_SYNC_ALWAYS };

struct options {
	char *database; /* all strings are owned; NULL where not set */
	char *token_keys;
	char *token_issuer;
	char *token_audience;
	char *token_signing_key;
	int64_t token_lifetime_s;
	bool users_from_tokens;
	bool scram;
	bool guests;
	bool registration_open;
	char *spool_dir;
	int64_t spool_max_bytes;
	enum option_spool_sync spool_sync;
	int64_t spool_sync_ms;
	struct rate_limit rate_messages;
	struct rate_limit rate_requests;
	struct rate_limit rate_sign_in;         /* failed attempts, per account */
	struct rate_limit rate_sign_in_address; /* failed attempts, per address */
	int64_t body_max_chars;
	int64_t group_max_members;
	int64_t receipt_interval_ms;
	int64_t edit_window_s;  /* 0: none */
	int64_t retention_days; /* 0: off */
	int64_t presence_grace_s;
	int64_t writers;
	int64_t request_workers;
	int64_t search_share; /* per cent */
	char *config;
};

struct option_pair {
	const char *name; /* without plugin_opt_ */
	const char *value;
};

/* Defaults, then the pairs, then the file named by `config` (lines "name value", # comments; a value there wins; owner, group
 * readable as any configuration). An unknown name, a name given twice, a bad value, a missing required one: false, and error is
 * one line that names the option (plugin_opt_<name>, or FILE:LINE) and what would be right. Never a secret's value in it.
 * On false nothing is to be released. */
__attribute__((warn_unused_result)) bool options_load(
	const struct option_pair *pairs, size_t count, struct options *out, char *error, size_t error_size);
/* For SIGHUP: reads the same sources again. Values of options that are not reloadable are kept from `current`; if the file asks
 * for another value of one, that is said in `notice` (one line; empty: none). On false `current` stands. */
__attribute__((warn_unused_result)) bool options_reload(const struct option_pair *pairs, size_t count,
	const struct options *current, struct options *out, char *notice, size_t notice_size, char *error, size_t error_size);
void options_free(struct options *options);
/* Prints the table for the documentation check: one line per option "name<TAB>default<TAB>reloadable|fixed<TAB>help". */
struct buffer;
void options_describe(struct buffer *out);

#endif
