/* flush_counted.c - msync() for a broker of a test: counted, and failing while the test wants it to. Preloaded. */
#include "flush_ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct flush_ledger *ledger;

__attribute__((constructor)) static void open_ledger(void)
{
	const char *path = getenv(FLUSH_LEDGER_VARIABLE);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *mapped = fd >= 0 ? mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	ledger = mapped == MAP_FAILED ? NULL : mapped;
	if (fd >= 0) {
		close(fd);
	}
}

__attribute__((visibility("default"))) int msync(void *address, size_t length, int flags)
{
	if (ledger) {
		atomic_fetch_add(gettid() == getpid() ? &ledger->by_main : &ledger->by_others, 1);
		if (atomic_load(&ledger->failing)) {
			errno = EIO;
			return -1;
		}
	}
	return (int)syscall(SYS_msync, address, length, flags);
}
