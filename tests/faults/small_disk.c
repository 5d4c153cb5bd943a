/* small_disk.c - see small_disk.h. */
#include "small_disk.h"
#include "check.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

bool small_disk_allowed(void)
{
	static enum { UNKNOWN, ALLOWED, FORBIDDEN } state = UNKNOWN;
	if (state == UNKNOWN) {
		bool is_ours = unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
		state = is_ours ? ALLOWED : FORBIDDEN;
	}
	return state == ALLOWED;
}

static void mount_or_fail(const char *directory, unsigned long flags, const char *options)
{
	if (mount("tmpfs", directory, "tmpfs", flags, options))
		fail_msg("mount %s: %s", directory, strerror(errno));
}

void small_disk_mount(const char *directory, size_t bytes, const struct account *owner)
{
	char options[128];
	check(snprintf(options, sizeof options, "size=%zu,mode=0700,uid=%u,gid=%u", bytes, owner->uid, owner->gid) <
		(int)sizeof options);
	mount_or_fail(directory, 0, options);
}

void small_disk_leave(const char *directory, size_t bytes)
{
	char options[64];
	struct statvfs info;
	check(statvfs(directory, &info) == 0);
	size_t used = (size_t)((info.f_blocks - info.f_bfree) * info.f_frsize);
	check(snprintf(options, sizeof options, "size=%zu", used + bytes) < (int)sizeof options);
	mount_or_fail(directory, MS_REMOUNT, options);
}

void small_disk_unmount(const char *directory)
{
	if (umount2(directory, MNT_DETACH))
		fail_msg("umount %s: %s", directory, strerror(errno));
}
