/* stall_probe.c - see stall_probe.h. A child that shares nothing with the test but two pipes. */
#include "stall_probe.h"
#include "check.h"
#include "process.h"
#include "raw.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVERY_MS = 20, PRIORITY = -15 };

/* How long the process (its first thread) has waited for a processor so far: the second number of schedstat. 0 where the kernel
 * does not count it. */
static int64_t waited_ns(const char *schedstat)
{
	long long ran = 0, waited = 0;
	FILE *file = fopen(schedstat, "re");
	if (file) {
		if (fscanf(file, "%lld %lld", &ran, &waited) != 2)
			waited = 0;
		fclose(file);
	}
	return waited;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static struct probe_report measure(int socket, int stop, const char *schedstat)
{
	struct probe_report report = {0};
	struct pollfd stopped = {.fd = stop, .events = POLLIN};
	char pong[2];
	while (!report.lost && poll(&stopped, 1, EVERY_MS) == 0) {
		int64_t waited_before_ns = waited_ns(schedstat) + waited_ns("/proc/self/schedstat"), since_ns = now_ns();
		report.lost = send(socket, "\xc0\x00", 2, MSG_NOSIGNAL) != 2 || recv(socket, pong, 2, MSG_WAITALL) != 2;
		int64_t took_ns = now_ns() - since_ns;
		int64_t others_ns = waited_ns(schedstat) + waited_ns("/proc/self/schedstat") - waited_before_ns;
		report.longest_us = larger(report.longest_us, took_ns / 1000);
		report.longest_own_us = larger(report.longest_own_us, (took_ns - others_ns) / 1000);
		report.answers++;
	}
	return report;
}

/* Everybody else's connections would stay open as long as this process has them, too. */
static _Noreturn void run(int socket, int stop, int output, pid_t broker)
{
	enum { SOCKET = 3, STOP, OUTPUT, FIRST_OTHER };
	char schedstat[64];
	snprintf(schedstat, sizeof schedstat, "/proc/%d/schedstat", (int)broker);
	int wanted[] = {fcntl(socket, F_DUPFD, 100), fcntl(stop, F_DUPFD, 100), fcntl(output, F_DUPFD, 100)};
	for (int i = 0; i < 3; i++)
		dup2(wanted[i], SOCKET + i);
	close_range(FIRST_OTHER, ~0u, 0);
	(void)setpriority(PRIO_PROCESS, 0, PRIORITY); /* where it may: not to wait for the load's own processes */
	struct probe_report report = measure(SOCKET, STOP, schedstat);
	_exit(write(OUTPUT, &report, sizeof report) == (ssize_t)sizeof report ? 0 : 1);
}

void probe_start(struct probe *probe, int port, pid_t broker, const char *token)
{
	int stop[2], report[2];
	struct raw *raw = raw_open(port);
	assert_int_equal(raw_connect(raw, 4, "probe", token, strlen(token)), 0);
	check(pipe2(stop, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0);
	probe->pid = fork();
	if (probe->pid == 0)
		run(raw_socket(raw), stop[0], report[1], broker);
	close(stop[0]);
	close(report[1]);
	raw_close(raw);
	probe->stop = stop[1];
	probe->report = report[0];
	check(probe->pid > 0);
}

struct probe_report probe_end(struct probe *probe)
{
	struct probe_report report;
	int status;
	close(probe->stop);
	check(read(probe->report, &report, sizeof report) == (ssize_t)sizeof report);
	close(probe->report);
	check(waitpid(probe->pid, &status, 0) == probe->pid);
	probe->pid = 0;
	return report;
}
