/* log.c - one line to whoever runs this.
 *
 * The last line of defence against forged lines is here: whatever a caller passed, no control character reaches the
 * sink (threat 38), neither ASCII's nor U+0080..U+009F, which some terminals obey. Any thread; the only state is the sink,
 * which is set before threads start.
 */
#include "log.h"

#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static void write_to_stderr(enum log_level level, const char *line)
{
	static const char *const names[] = {"error", "warning", "notice", "info", "debug"};

	(void)fprintf(stderr, "%s: %s\n", names[level], line);
}

static log_sink current_sink = write_to_stderr;

void log_set_sink(log_sink sink)
{
	current_sink = sink != NULL ? sink : write_to_stderr;
}

/* A line cut inside a UTF-8 sequence loses the rest of that sequence, then says that it was cut. */
static void mark_cut(char line[LOG_LINE_MAX + 1])
{
	size_t at = LOG_LINE_MAX - 3;

	while (at > 0 && ((unsigned char)line[at] & 0xc0) == 0x80) {
		at--;
	}
	memcpy(line + at, "...", 4);
}

static void disarm(char *line)
{
	bool utf8 = text_check_utf8(line, strlen(line), NULL);

	for (char *c = line; *c != '\0'; c++) {
		unsigned char byte = (unsigned char)*c;
		bool control = byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !utf8);
		if (byte == 0xc2 && utf8 && (unsigned char)c[1] < 0xa0) { /* U+0080..U+009F */
			*c++ = '?';
			control = true;
		}
		if (control) {
			*c = '?';
		}
	}
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[LOG_LINE_MAX + 1];
	int errno_before = errno;
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length < 0) {
		(void)snprintf(line, sizeof(line), "(a log line that could not be formatted)");
	} else if (length > LOG_LINE_MAX) {
		mark_cut(line);
	}
	disarm(line);
	current_sink(level, line);
	errno = errno_before;
}

bool log_gate_open(struct log_gate *gate, int64_t now_monotonic_ms, uint64_t *suppressed)
{
	int64_t next_ms = atomic_load(&gate->next_ms);

	if (now_monotonic_ms < next_ms ||
		!atomic_compare_exchange_strong(&gate->next_ms, &next_ms, now_monotonic_ms + LOG_GATE_MS)) {
		atomic_fetch_add(&gate->suppressed, 1);
		return false;
	}
	*suppressed = atomic_exchange(&gate->suppressed, 0);
	return true;
}
