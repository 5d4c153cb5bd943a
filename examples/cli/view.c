/* view.c - see view.h. There is one terminal, so its state is static. */
#include "view.h"

#include "clean.h"

#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

enum { HISTORY_LINES = 500, PROMPT_SIZE = 128, SECRET_SIZE = 1100, KEYS_SIZE = 256 };

static struct {
	EditLine *editor;
	History *history;
	view_wait_fn wait;
	void *owner;
	bool terminal; /* can move the cursor */
	bool reading;  /* libedit has the terminal */
	bool hidden;   /* the line that is being typed is not on the screen */
	bool changed;  /* the prompts are others than those on the screen */
	bool typing;
	char prompt[PROMPT_SIZE], aside[PROMPT_SIZE];
	char *line;
	int rows; /* of the screen that the last line took */
	char keys[KEYS_SIZE];
	size_t keys_length, keys_taken;
} view;

static volatile sig_atomic_t ended, resized;

static void on_signal(int number)
{
	if (number == SIGWINCH)
		resized = 1;
	else
		ended = 1;
}

const volatile sig_atomic_t *view_ended(void)
{
	return &ended;
}

/* ----------------------------------------------------------------------------------------- the typed line */

static int columns(void)
{
	struct winsize size;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* As libedit draws it: ^X for a control character, \U+xxxxx for what this locale cannot show. */
static int width_of(wchar_t c)
{
	int width = wcwidth(c);
	return width >= 0 ? width : iswcntrl((wint_t)c) ? 2 : 8;
}

/* On which row below the prompt's the cursor is behind these characters. */
static int row_after(const wchar_t *text, const wchar_t *end)
{
	wchar_t prompt[PROMPT_SIZE];
	int wide = columns(), row = 0, column = 0;
	size_t length = mbstowcs(prompt, view.prompt, PROMPT_SIZE);
	for (size_t i = 0; length != (size_t)-1 && i < length; i++)
		column += width_of(prompt[i]);
	for (; text < end && *text != L'\n'; text++) {
		int width = width_of(*text);
		if (column + width > wide) {
			row++;
			column = 0;
		}
		column += width;
		if (column >= wide) {
			row++;
			column = 0;
		}
	}
	return row;
}

static void erase_rows(int up)
{
	if (up > 0)
		printf("\r\033[%dA\033[J", up);
	else
		printf("\r\033[J");
}

static void hide(void)
{
	if (!view.reading || !view.terminal || view.hidden)
		return;
	const LineInfoW *line = el_wline(view.editor);
	erase_rows(row_after(line->buffer, line->cursor));
	view.hidden = true;
}

void view_show(void)
{
	if (view.changed && view.reading)
		hide();
	view.changed = false;
	if (view.hidden) {
		el_set(view.editor, EL_REFRESH);
		view.hidden = false;
	}
	fflush(stdout);
}

void view_take_back(void)
{
	if (view.terminal)
		erase_rows(view.rows + 1);
}

bool view_is_typing(void)
{
	bool typing = view.typing;
	view.typing = false;
	return typing;
}

/* ------------------------------------------------------------------------------------------------- reading */

/* Waits until there are bytes; false at the end. */
static bool fill_keys(void)
{
	do {
		if (resized) {
			resized = 0;
			hide();
			el_resize(view.editor);
		}
	} while (!ended && !view.wait(view.owner, STDIN_FILENO));
	ssize_t got = ended ? 0 : read(STDIN_FILENO, view.keys, sizeof view.keys);
	view.keys_taken = 0;
	view.keys_length = got > 0 ? (size_t)got : 0;
	return got > 0;
}

static int read_key(EditLine *editor, wchar_t *key)
{
	mbstate_t state = {0};
	(void)editor;
	view_show();
	for (;;) {
		if (view.keys_taken == view.keys_length && !fill_keys())
			return 0;
		size_t used = mbrtowc(key, &view.keys[view.keys_taken++], 1, &state);
		if (used == (size_t)-1)
			state = (mbstate_t){0}; /* no character: skipped */
		else if (used != (size_t)-2)
			break;
	}
	const LineInfoW *line = el_wline(view.editor);
	view.typing = view.typing || (!iswcntrl((wint_t)*key) && (line->lastchar > line->buffer ? *line->buffer : *key) != L'/');
	return 1;
}

static void remember(const char *line)
{
	HistEvent event;
	if (*line)
		history(view.history, &event, H_ENTER, line);
}

const char *view_read_line(void)
{
	int length = 0;
	free(view.line);
	view.line = NULL;
	view.reading = true;
	view.hidden = view.changed = false;
	const char *line = el_gets(view.editor, &length);
	if (line) {
		const LineInfoW *wide = el_wline(view.editor);
		view.rows = row_after(wide->buffer, wide->lastchar);
	}
	view.reading = false;
	if (!line || length <= 0) {
		if (view.terminal)
			printf("\n");
		return NULL;
	}
	view.line = strndup(line, (size_t)length);
	if (view.line)
		view.line[strcspn(view.line, "\r\n")] = '\0';
	if (view.line)
		remember(view.line);
	return view.line;
}

char *view_read_secret(const char *prompt)
{
	char secret[SECRET_SIZE];
	struct termios before, quiet;
	bool echo_off = tcgetattr(STDIN_FILENO, &before) == 0;
	if (echo_off) {
		quiet = before;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		quiet.c_lflag |= ICANON;
		tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet);
	}
	printf("%s", prompt); /* now that nothing is shown any more */
	fflush(stdout);
	size_t length = 0;
	char byte = '\n';
	/* What was read ahead comes first; byte by byte, since what follows the line is for libedit. */
	while (length < sizeof secret - 1) {
		if (view.keys_taken < view.keys_length)
			byte = view.keys[view.keys_taken++];
		else if (ended || read(STDIN_FILENO, &byte, 1) != 1)
			break;
		if (byte == '\n' || byte == '\r')
			break;
		secret[length++] = byte;
	}
	secret[length] = '\0';
	if (echo_off) {
		tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
		printf("\n");
	}
	char *copy = length > 0 ? strdup(secret) : NULL;
	explicit_bzero(secret, sizeof secret);
	return copy;
}

/* ------------------------------------------------------------------------------------------------ printing */

void view_print(const char *format, ...)
{
	va_list arguments;
	hide();
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

void view_set_prompt(const char *text)
{
	view.changed = view.changed || strcmp(view.prompt, text) != 0;
	if (view.changed)
		hide(); /* while its old width is known */
	snprintf(view.prompt, sizeof view.prompt, "%s", text);
}

void view_set_aside(const char *text)
{
	view.changed = view.changed || strcmp(view.aside, text) != 0;
	snprintf(view.aside, sizeof view.aside, "%s", text);
}

const char *view_bold(void)
{
	return view.terminal ? "\033[1m" : "";
}

const char *view_plain(void)
{
	return view.terminal ? "\033[0m" : "";
}

/* -------------------------------------------------------------------------------------------------- opening */

static char *prompt_of(EditLine *editor)
{
	(void)editor;
	return view.prompt;
}

static char *aside_of(EditLine *editor)
{
	(void)editor;
	return view.aside;
}

/* Where nobody said which locale this is, a terminal of today speaks UTF-8. */
static void set_locale(void)
{
	bool said = getenv("LC_ALL") || getenv("LC_CTYPE") || getenv("LANG");
	setlocale(LC_ALL, "");
	if (!said)
		setlocale(LC_CTYPE, "C.UTF-8");
	clean_set_ascii(strcmp(nl_langinfo(CODESET), "UTF-8") != 0);
}

static void catch_signals(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
	struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: waits shall end */
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		sigaction(numbers[i], &action, NULL);
	signal(SIGTSTP, SIG_IGN); /* stopped, it would leave the terminal in the editor's mode */
	signal(SIGPIPE, SIG_IGN);
}

bool view_open(view_wait_fn wait, void *owner)
{
	HistEvent event;
	const char *type = getenv("TERM");
	set_locale();
	catch_signals();
	view.wait = wait;
	view.owner = owner;
	view.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && type && *type && strcmp(type, "dumb") != 0;
	view.history = history_init();
	view.editor = el_init("chat-cli", stdin, stdout, stderr);
	if (!view.editor || !view.history)
		return false;
	history(view.history, &event, H_SETSIZE, HISTORY_LINES);
	history(view.history, &event, H_SETUNIQUE, 1);
	el_set(view.editor, EL_EDITOR, "emacs");
	el_set(view.editor, EL_HIST, history, view.history);
	el_set(view.editor, EL_PROMPT, prompt_of);
	el_set(view.editor, EL_RPROMPT, aside_of);
	el_set(view.editor, EL_GETCFN, read_key);
	el_set(view.editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
	if (!view.terminal)
		el_set(view.editor, EL_EDITMODE, 0);
	return true;
}

void view_close(void)
{
	if (view.editor)
		el_end(view.editor);
	if (view.history)
		history_end(view.history);
	free(view.line);
	view.editor = NULL;
	view.history = NULL;
	view.line = NULL;
}
