/* main.c - chat-notifier: tells phones and browsers of messages that did not reach them.
 *
 *   chat-notifier --config FILE              runs until SIGTERM
 *   chat-notifier --config FILE --check      reads everything, tries the database, says what is wrong
 *   chat-notifier --config FILE --once       sends what is due, and ends
 *   chat-notifier --config FILE --dry-run    says what it would send, to whom; may be combined with --once
 *
 * One thread, one loop. SIGHUP reads the configuration again, as a whole or not at all; SIGTERM and SIGINT end it once what is
 * under way has been answered, or `drain` is over.
 */
#include "base64url.h"
#include "clock.h"
#include "config.h"
#include "database.h"
#include "http.h"
#include "link.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "sender.h"
#include "status.h"
#include "supervisor.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { EXIT_BAD_CONFIGURATION = 1, EXIT_USAGE = 2, EXIT_TROUBLE = 3 };

struct program {
	struct loop_source signals; /* first */
	struct loop *loop;
	struct sender *sender;
	struct status *status;
	const char *path;
	bool stopping, once;
	int64_t stop_by_ms;
	int64_t drain_ms;
};

static const char usage[] = "usage: chat-notifier --config FILE [--check | --once] [--dry-run]\n";

static void log_to_stderr(enum log_level level, const char *line)
{
	/* journald reads the number (sd-daemon(3)); a terminal needs none. */
	static const int priorities[] = {3, 4, 5, 6, 7};
	static const char *const names[] = {"error", "warning", "notice", "info", "debug"};
	if (getenv("JOURNAL_STREAM")) {
		(void)fprintf(stderr, "<%d>%s\n", priorities[level], line);
	} else {
		(void)fprintf(stderr, "chat-notifier: %s: %s\n", names[level], line);
	}
}

/* ---- signals ---- */

static void reload(struct program *program)
{
	char error[CONFIG_ERROR_SIZE];
	struct config *config = config_load(program->path, error);
	if (!config) {
		log_line(LOG_LEVEL_ERROR, "%s; the old configuration stays", error);
		return;
	}
	program->drain_ms = config->drain_ms;
	sender_reload(program->sender, config);
	log_line(LOG_LEVEL_NOTICE, "%s was read again", program->path);
}

static void stop(struct program *program)
{
	if (!program->stopping) {
		supervisor_tell("STOPPING=1");
		program->stopping = true;
		program->stop_by_ms = clock_monotonic_ms() + program->drain_ms;
		sender_stop(program->sender);
	}
}

static void signal_ready(struct loop_source *source, int events)
{
	struct program *program = (struct program *)source;
	struct signalfd_siginfo info;

	(void)events;
	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			reload(program);
		} else {
			stop(program);
		}
	}
}

static bool watch_signals(struct program *program)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
		return false;
	}
	program->signals.ready = signal_ready;
	program->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return program->signals.fd >= 0 && loop_watch(program->loop, &program->signals, LOOP_READ);
}

/* ---- --check ---- */

static bool check_database(const struct config *config)
{
	static const struct database_statement version[] = {{"version", "SELECT chat.version()"}};
	const struct database_call call = {.statement = 0};
	struct database_result *result = NULL;
	struct database *database = database_new(config->database, "chat-notifier", version, 1, -1);
	int64_t number = 0;

	if (database && database_connect(database, 10000) && database_run(database, &call, 1, 10000, &result) == DATABASE_OK) {
		number = database_integer(result, 0, 0);
		database_result_free(result);
	}
	if (number < LINK_SCHEMA_VERSION) {
		(void)fprintf(stderr, "database: %s\n",
			number > 0 ? "the schema is older than this program needs: run schema/migrate"
				   : (database ? database_error(database) : "no memory"));
	}
	database_free(database);
	return number >= LINK_SCHEMA_VERSION;
}

static int check(const struct config *config)
{
	for (size_t i = 0; i < config->app_count; i++) {
		const struct config_app *app = &config->apps[i];
		uint8_t point[SIGNING_POINT_SIZE];
		char text[BASE64URL_ENCODED_SIZE(SIGNING_POINT_SIZE)];
		(void)printf("[%s] %s", app->name, app->provider->name);
		if (app->provider == &provider_webpush && signing_key_point(app->key, point)) {
			/* what pages pass to PushManager.subscribe() */
			(void)printf(", applicationServerKey %.*s", (int)base64url_encode(point, sizeof(point), text), text);
		}
		(void)printf("\n");
	}
	if (!check_database(config)) {
		return EXIT_TROUBLE;
	}
	(void)printf("all is well\n");
	return EXIT_SUCCESS;
}

/* ---- running ---- */

static bool look(void *owner)
{
	struct program *program = owner;
	sender_measure(program->sender);
	return sender_is_healthy(program->sender);
}

static void run(struct program *program)
{
	int64_t watchdog_ms = supervisor_watchdog_ms(), watchdog_at_ms = 0;

	supervisor_tell("READY=1");
	for (;;) {
		int64_t now_ms = clock_monotonic_ms();
		if (program->once && sender_is_idle(program->sender)) {
			return;
		}
		if (program->stopping && (sender_is_done(program->sender) || now_ms >= program->stop_by_ms + 5000)) {
			return;
		}
		if (program->stopping && now_ms >= program->stop_by_ms) {
			sender_abandon(program->sender);
		}
		if (watchdog_ms > 0 && now_ms >= watchdog_at_ms) {
			supervisor_tell("WATCHDOG=1");
			watchdog_at_ms = now_ms + watchdog_ms;
		}
		int64_t next_ms = sender_tick(program->sender, now_ms);
		next_ms = watchdog_ms > 0 && watchdog_at_ms < next_ms ? watchdog_at_ms : next_ms;
		loop_wait(program->loop, next_ms - clock_monotonic_ms());
	}
}

static int start(struct program *program, struct config *config, bool dry_run)
{
	char error[200];
	int status = EXIT_TROUBLE;

	program->drain_ms = config->drain_ms;
	program->loop = loop_new();
	if (!program->loop || !watch_signals(program) || !http_start_library()) {
		log_line(LOG_LEVEL_ERROR, "cannot start: no memory, or libcurl lacks HTTP/2 or asynchronous DNS");
		config_free(config);
		goto done;
	}
	char *address = config->listen_address ? strdup(config->listen_address) : NULL;
	int port = (int)config->listen_port;
	program->sender = sender_new(program->loop, config, dry_run);
	if (program->sender && address) {
		program->status = status_new(program->loop, address, port, look, program, error, sizeof(error));
		if (program->status) {
			log_line(LOG_LEVEL_NOTICE, "metrics and health on %s:%d", address, status_port(program->status));
		} else {
			log_line(LOG_LEVEL_ERROR, "%s", error);
		}
	}
	if (program->sender && (!address || program->status)) {
		run(program);
		status = EXIT_SUCCESS;
	}
	free(address);
done:
	status_free(program->status);
	sender_free(program->sender);
	if (program->signals.events) {
		(void)loop_watch(program->loop, &program->signals, 0);
		(void)close(program->signals.fd);
	}
	loop_free(program->loop);
	metrics_free();
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
		{"once", no_argument, NULL, 'o'}, {"dry-run", no_argument, NULL, 'd'}, {"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct program program = {.path = NULL};
	bool checking = false, dry_run = false;
	char error[CONFIG_ERROR_SIZE];

	for (int option; (option = getopt_long(argc, argv, "c:h", options, NULL)) != -1;) {
		switch (option) {
		case 'c':
			program.path = optarg;
			break;
		case 'k':
			checking = true;
			break;
		case 'o':
			program.once = true;
			break;
		case 'd':
			dry_run = true;
			break;
		case 'v':
			(void)printf("chat-notifier %s\n", CHAT_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			(void)fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			(void)fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (!program.path || optind != argc || (checking && (program.once || dry_run))) {
		(void)fputs(usage, stderr);
		return EXIT_USAGE;
	}
	log_set_sink(log_to_stderr);
	struct config *config = config_load(program.path, error);
	if (!config) {
		(void)fprintf(stderr, "%s\n", error);
		return EXIT_BAD_CONFIGURATION;
	}
	if (checking) {
		int status = check(config);
		config_free(config);
		return status;
	}
	return start(&program, config, dry_run);
}
