/* files.h - small files, read whole: configuration, texts, keys. */
#ifndef CHAT_NOTIFIER_FILES_H
#define CHAT_NOTIFIER_FILES_H

#include "buffer.h"

/* Appends the file to an empty buffer whose maximum is the file's. False: `error` says why. */
__attribute__((warn_unused_result)) bool files_read(const char *path, struct buffer *out, char *error, size_t error_size);
/* The same for a file that nobody but its owner may read; one that others may is refused. */
__attribute__((warn_unused_result)) bool files_read_secret(const char *path, struct buffer *out, char *error, size_t error_size);
/* Whether it is there and nobody but its owner may read it. */
__attribute__((warn_unused_result)) bool files_check_secret(const char *path, char *error, size_t error_size);

#endif
