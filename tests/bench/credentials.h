/* credentials.h - who the clients of a run are: from a file, or made up for a broker that lets everybody in. */
#ifndef CHAT_BENCH_CREDENTIALS_H
#define CHAT_BENCH_CREDENTIALS_H

#include "wire.h"

struct credentials {
	char *text; /* what the entries point into */
	struct wire_credentials *entries;
	size_t count;
};

/* At least `count` of them, else a line on stderr and false. path NULL: made up. A line is `client-id user password`. */
bool credentials_load(struct credentials *credentials, const char *path, size_t count);
void credentials_release(struct credentials *credentials);

#endif
