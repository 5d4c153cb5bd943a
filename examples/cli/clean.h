/* clean.h - text of strangers, made fit for a terminal. Pure.
 *
 * A terminal obeys what it is sent: an escape sequence in a message could retitle the window, rewrite earlier lines, or make the
 * terminal type. So nothing of others is printed but through here. What is left can be seen for what it is: control characters
 * become pictures of themselves, marks that turn the direction of writing or cannot be seen become U+FFFD, and so does what is
 * no UTF-8. Zero-width joiners stay: emoji are made with them.
 */
#ifndef CHAT_CLI_CLEAN_H
#define CHAT_CLI_CLEAN_H

#include "buffer.h"

/* For terminals that do not speak UTF-8: everything but ASCII becomes '?', since the bytes of UTF-8 may be commands there. */
void clean_set_ascii(bool ascii);

/* Appends the text as one line: line breaks become spaces. At most `most` characters, then "...". */
void clean_line(struct buffer *out, const char *text, size_t most);
/* Line breaks stay, each followed by `indent`. */
void clean_lines(struct buffer *out, const char *text, size_t most, const char *indent);

#endif
