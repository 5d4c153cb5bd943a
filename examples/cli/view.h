/* view.h - the terminal: a line that is being typed at the bottom, and lines that scroll above it.
 *
 * One thread. libedit reads and edits the line; while it waits for a key it calls `wait`, in which everything else happens.
 * Whoever prints in there does not disturb what is being typed: the line is taken away, and comes back below. Without a terminal
 * (a pipe, TERM=dumb) lines are read and printed as they come.
 *
 * Only text that went through clean.h may be printed, apart from the program's own words.
 */
#ifndef CHAT_CLI_VIEW_H
#define CHAT_CLI_VIEW_H

#include <signal.h>
#include <stdbool.h>

/* Serves the rest of the program for a moment; true where fd can be read. Calls view_show before it waits. */
typedef bool (*view_wait_fn)(void *owner, int fd);

/* False where the terminal cannot be used. Sets the locale, and catches SIGINT, SIGTERM, SIGHUP and SIGWINCH. */
bool view_open(view_wait_fn wait, void *owner);
void view_close(void);
/* Set once a signal says that the program shall end. */
const volatile sig_atomic_t *view_ended(void);

/* The next line without its end; NULL at the end of the input or by signal. Valid until the next call. */
const char *view_read_line(void);
/* Takes the line that was just read off the screen again: it comes back otherwise. */
void view_take_back(void);
/* One line without echo, to free(); NULL where there is none. */
char *view_read_secret(const char *prompt);
/* Whether a key was pressed since the last call, with a line that is no command being typed. */
bool view_is_typing(void);

/* Prints one or several whole lines; the end of line is added. */
__attribute__((format(printf, 1, 2))) void view_print(const char *format, ...);
/* What stands before the line, and at its right where there is room. Cleaned text. */
void view_set_prompt(const char *text);
void view_set_aside(const char *text);
/* Brings the line back after printing. */
void view_show(void);

/* What makes text bold and ordinary again on this terminal: "" where it cannot. */
const char *view_bold(void);
const char *view_plain(void);

#endif
