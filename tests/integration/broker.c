/* broker.c - see broker.h. One thread.
 *
 * CHAT_SOURCE_DIR is the repository, given by the build.
 */
#include "broker.h"
#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_MS = 90000, LOG_MS = 30000, PORT_TRIES = 5, RESERVED_MAX = 16 };
/* Below the range that the kernel takes ports of outgoing connections from (32768 and up): clients that knock while a broker is
 * down would in time connect to themselves on its port, and keep it. */
enum { FIRST_PORT = 12000, LAST_PORT = 32000 };

static bool port_is_free(int port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	check(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
	bool is_free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0;
	close(fd);
	return is_free;
}

/* No other test chooses the port, even while our broker is down: an abstract socket with its name is ours, until so many others
 * have been chosen or this program ends. */
static bool reserve(int port)
{
	static int held[RESERVED_MAX];
	static size_t next;
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "mosquitto-chat-port-%d", port);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	check(fd >= 0);
	if (bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length))) {
		close(fd);
		return false;
	}
	if (held[next])
		close(held[next]);
	held[next] = fd;
	next = (next + 1) % RESERVED_MAX;
	return true;
}

int free_port(void)
{
	static uint64_t state;
	int port;
	if (!state)
		state = (uint64_t)now_ns() ^ (uint64_t)getpid() << 32;
	do {
		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		port = FIRST_PORT + (int)((state >> 33) % (LAST_PORT - FIRST_PORT));
	} while (!reserve(port) || !port_is_free(port));
	return port;
}

void broker_create(struct broker *broker, const char *directory)
{
	*broker = (struct broker){.account = account_find((const char *const[]){"mosquitto", "nobody", NULL})};
	check(snprintf(broker->directory, PATH_SIZE, "%s/broker", directory) < PATH_SIZE);
	check(snprintf(broker->configuration, PATH_SIZE, "%s/broker/mosquitto.conf", directory) < PATH_SIZE);
	check(snprintf(broker->log, PATH_SIZE, "%s/broker.log", directory) < PATH_SIZE);
	directory_make(broker->directory, 0755, &broker->account);
}

/* The lines of the sample between its two marks. */
static char *shared_settings(void)
{
	char *sample = file_read(CHAT_SOURCE_DIR "/mosquitto.conf");
	char *begin = strstr(sample, "# [settings]"), *end = strstr(sample, "# [end of settings]");
	check(begin && end && begin < end);
	memmove(sample, begin, (size_t)(end - begin));
	sample[end - begin] = '\0';
	return sample;
}

void broker_configure(struct broker *broker, const char *plugin_lines, const char *more)
{
	static char text[CONFIGURATION_SIZE];
	char *settings = shared_settings();
	broker->port = free_port();
	do
		broker->websocket_port = free_port();
	while (broker->websocket_port == broker->port);
	int length = snprintf(text, sizeof text,
		"%s\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\nlog_type information\n"
		"%s\n"
		"listener %d 127.0.0.1\nmax_qos 1\n"
		"listener %d 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\nmax_qos 1\n"
		"%s\n",
		settings, plugin_lines, broker->port, broker->websocket_port, more ? more : "");
	free(settings);
	check(length > 0 && (size_t)length < sizeof text);
	file_write(broker->configuration, text, 0600, &broker->account);
}

/* Whole stacks, slow as they are: by the short ones nobody could tell the broker's own leaks, which are suppressed, from ours. */
static void launch(struct broker *broker)
{
	static char preload[2 * PATH_SIZE];
	const char *libraries = getenv("CHAT_TEST_PRELOAD");
	const char *argv[] = {"/usr/sbin/mosquitto", "-c", broker->configuration, NULL};
	const char *sanitized[] = {preload, "ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0:malloc_context_size=8",
		"LSAN_OPTIONS=print_suppressions=0:suppressions=" CHAT_SOURCE_DIR "/tests/integration/sanitizer_leaks.supp",
		"UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1", "TSAN_OPTIONS=halt_on_error=0"};
	const char *environment[sizeof sanitized / sizeof *sanitized + BROKER_ENVIRONMENT_MAX + 1] = {NULL};
	size_t count = 0;
	check(snprintf(preload, sizeof preload, "LD_PRELOAD=%s", libraries ? libraries : "") < (int)sizeof preload);
	for (size_t i = 0; libraries && *libraries && i < sizeof sanitized / sizeof *sanitized; i++)
		environment[count++] = sanitized[i];
	for (size_t i = 0; i < BROKER_ENVIRONMENT_MAX && broker->environment[i]; i++)
		environment[count++] = broker->environment[i];
	process_start(&broker->process, "mosquitto", argv, environment, &broker->account, broker->log, SIGKILL);
}

static _Noreturn void fail_with_log(const struct broker *broker, const char *what)
{
	char *log = file_read(broker->log);
	print_tail(log);
	free(log);
	fail_msg("%s", what);
	abort(); /* not reached: fail_msg jumps */
}

static bool serves(int port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool connected = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
	if (fd >= 0)
		close(fd);
	return connected;
}

/* Puts other ports in place of the ones another program took between free_port() and now. */
static void move_ports(struct broker *broker)
{
	char *text = file_read(broker->configuration), old[64], new[64];
	int *ports[] = {&broker->port, &broker->websocket_port};
	for (size_t i = 0; i < 2; i++) {
		int port = free_port();
		snprintf(old, sizeof old, "listener %d 127.0.0.1", *ports[i]);
		snprintf(new, sizeof new, "listener %d 127.0.0.1", port);
		char *at = strstr(text, old), *moved = NULL;
		if (!at)
			continue; /* a configuration with one listener */
		*at = '\0';
		check(asprintf(&moved, "%s%s%s", text, new, at + strlen(old)) > 0);
		free(text);
		text = moved;
		*ports[i] = port;
	}
	file_write(broker->configuration, text, 0600, &broker->account);
	free(text);
}

/* Lines of the log behind its first `from` bytes that hold the text. */
static int count_from(const struct broker *broker, long from, const char *text)
{
	char *log = file_read_from(broker->log, from);
	int count = 0;
	for (char *line = log, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		count += strstr(line, text) != NULL;
	}
	free(log);
	return count;
}

bool broker_try_start(struct broker *broker)
{
	int64_t deadline_ms = now_ms() + START_MS;
	int tries = 0, status;
	long from = file_size(broker->log);
	launch(broker);
	/* Mosquitto 2.0 forgets a SIGTERM that comes before its main loop, although it says "running" and its sockets listen by
	 * then: so until it has taken a connection. */
	while (count_from(broker, from, " running") == 0 || !serves(broker->port) ||
		count_from(broker, from, "New connection") == 0) {
		if (process_wait(&broker->process, 0, &status)) {
			if (count_from(broker, from, "Address already in use") == 0 || ++tries == PORT_TRIES)
				return false;
			from = file_size(broker->log);
			move_ports(broker);
			launch(broker);
		}
		if (now_ms() > deadline_ms)
			fail_with_log(broker, "the broker does not come up");
		look_again_soon();
	}
	return true;
}

void broker_start(struct broker *broker)
{
	if (!broker_try_start(broker))
		fail_with_log(broker, "the broker ended while starting");
}

int broker_start_refused(struct broker *broker)
{
	int status = 0;
	launch(broker);
	if (!process_wait(&broker->process, now_ms() + START_MS, &status)) {
		process_end(&broker->process, SIGKILL);
		fail_with_log(broker, "the broker runs with a configuration that must be refused");
	}
	broker_log_check(broker);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

void broker_stop(struct broker *broker)
{
	if (broker->process.pid <= 0)
		return;
	int status = process_end(&broker->process, SIGTERM);
	broker_log_check(broker);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		print_error("status 0x%x\n", (unsigned)status);
		fail_with_log(broker, "the broker did not end well");
	}
}

void broker_kill(struct broker *broker)
{
	process_end(&broker->process, SIGKILL);
	broker_log_check(broker);
}

void broker_signal(struct broker *broker, int signal_number)
{
	check(broker->process.pid > 0 && kill(broker->process.pid, signal_number) == 0);
}

void broker_destroy(struct broker *broker)
{
	if (broker->process.pid > 0)
		kill(broker->process.pid, SIGCONT);
	broker_stop(broker);
}

int broker_log_count(const struct broker *broker, const char *text)
{
	return count_from(broker, 0, text);
}

void broker_log_wait(const struct broker *broker, const char *text, int count)
{
	int64_t deadline_ms = now_ms() + LOG_MS;
	while (broker_log_count(broker, text) < count) {
		if (now_ms() > deadline_ms) {
			print_error("waited for: %s\n", text);
			fail_with_log(broker, "the line did not come");
		}
		look_again_soon();
	}
}

void broker_log_check(const struct broker *broker)
{
	static const char *const reports[] = {"AddressSanitizer", "LeakSanitizer", "ThreadSanitizer",
		"runtime error:", "Assertion", "double free", "corrupted", "Segmentation fault", "stack smashing"};
	for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
		if (broker_log_count(broker, reports[i]))
			fail_with_log(broker, reports[i]);
	}
}
