/* small_disk.h - a file system of a few megabytes, to be full.
 *
 * A tmpfs in a mount namespace of the program's own, so that nothing of it is left however the program ends. Root only;
 * elsewhere small_disk_allowed says no, and what needs it is left out with a line that says so.
 */
#ifndef CHAT_TESTS_SMALL_DISK_H
#define CHAT_TESTS_SMALL_DISK_H

#include "process.h"

#include <stdbool.h>
#include <stddef.h>

/* To be called before anything is started that shall see the disks. */
bool small_disk_allowed(void);
/* On an existing directory, owned by the account, mode 0700. */
void small_disk_mount(const char *directory, size_t bytes, const struct account *owner);
/* From now on there is room for so many bytes more. */
void small_disk_leave(const char *directory, size_t bytes);
void small_disk_unmount(const char *directory);

#endif
