/* mark.h - payloads of chat/{c}/mark and chat/{c}/type. Pure. */
#ifndef CHAT_PLUGIN_MARK_H
#define CHAT_PLUGIN_MARK_H

#include "error.h"

#include <stdint.h>

struct mark {
	int64_t delivered; /* 0: not said; read implies delivered: delivered >= read on return */
	int64_t read;
};

/* {"delivered":1017} or {"read":1015} or both; nothing else. */
__attribute__((warn_unused_result)) bool mark_parse(
	const char *payload, size_t length, struct mark *out, struct error_detail *error);
/* {"typing":true} or {"typing":false}; nothing else. */
__attribute__((warn_unused_result)) bool typing_parse(
	const char *payload, size_t length, bool *typing, struct error_detail *error);

#endif
