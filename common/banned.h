/* banned.h - included before the first line of every file of this project by the build (-include).
 *
 * Functions that cut, overflow or share state in silence do not compile here. Their prototypes come first, since a
 * poisoned name may not even be declared afterwards. What to use instead: snprintf with its result checked, memcpy with
 * a length, struct buffer, text_parse_integer(), gmtime_r().
 *
 * To ban another one: include the header that declares it, add the name.
 */
#ifndef CHAT_COMMON_BANNED_H
#define CHAT_COMMON_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#pragma GCC poison strcpy strncpy stpcpy strcat strncat sprintf vsprintf gets
#pragma GCC poison strtok
#pragma GCC poison atoi atol atoll atof
#pragma GCC poison gmtime localtime ctime asctime

#endif
