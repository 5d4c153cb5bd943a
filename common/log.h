/* log.h - one clear line to whoever runs this: what broke or healed, the cause, the next step.
 *
 * The process sets a sink once. Edges, not levels: log when something breaks and when it heals; who handles an
 * error logs it, who passes it on does not. Never a secret, a token or a message body, at any level; what a stranger
 * sent goes through text_escape() first. Any thread, once the sink is set (the sink sees to that).
 */
#ifndef CHAT_COMMON_LOG_H
#define CHAT_COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

#define LOG_LINE_MAX 900 /* bytes without the NUL; Mosquitto 2.0 cuts a plugin's line at 1000 bytes */

/* `line` is valid UTF-8 without control characters, at most LOG_LINE_MAX bytes, without a newline. */
typedef void (*log_sink)(enum log_level level, const char *line);

/* Before the first thread starts. NULL: stderr. */
void log_set_sink(log_sink sink);
/* A control character becomes '?', and what is not UTF-8 too; a line that is too long ends in "...". Keeps errno. */
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *format, ...);

#define LOG_GATE_MS 30000

/* For what can happen a thousand times a second: true at most once per LOG_GATE_MS; *suppressed gets how many were
 * swallowed since the last true. Any thread. A zeroed gate is open. */
struct log_gate {
	_Atomic int64_t next_ms; /* monotonic */
	_Atomic uint64_t suppressed;
};
bool log_gate_open(struct log_gate *gate, int64_t now_monotonic_ms, uint64_t *suppressed);

#endif
