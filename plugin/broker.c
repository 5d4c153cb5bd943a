/* broker.c - host.h on Mosquitto: publishing, kicking, logging. Broker thread, but for broker_log_sink. */
#include "broker.h"

#include "host.h"
#include "wakeup.h"

#include <dirent.h>
#include <dlfcn.h>
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mqtt_protocol.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- publishing ---- */

static bool add_properties(mosquitto_property **list, const struct host_properties *properties)
{
	char number[24];
	if (properties->json &&
		mosquitto_property_add_string(list, MQTT_PROP_CONTENT_TYPE, "application/json") != MOSQ_ERR_SUCCESS) {
		return false;
	}
	if (properties->seq) {
		snprintf(number, sizeof(number), "%lld", (long long)properties->seq);
		if (mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, "seq", number) != MOSQ_ERR_SUCCESS) {
			return false;
		}
	}
	if (properties->from) {
		snprintf(number, sizeof(number), "%lld", (long long)properties->from);
		if (mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, "from", number) != MOSQ_ERR_SUCCESS) {
			return false;
		}
	}
	return !properties->correlation_data ||
	       mosquitto_property_add_binary(list, MQTT_PROP_CORRELATION_DATA, properties->correlation_data,
		       properties->correlation_length) == MOSQ_ERR_SUCCESS;
}

bool host_publish(const char *topic, const void *payload, size_t length, int qos, const struct host_properties *properties)
{
	mosquitto_property *list = NULL;
	/* The broker frees this with its own function, so it must come from its own: mosquitto_broker_publish_copy() of 2.0 takes
	 * it from malloc() and unbalances the broker's count of its memory. */
	void *copy = mosquitto_malloc(length + 1);

	if (copy && add_properties(&list, properties)) {
		memcpy(copy, payload, length);
		if (mosquitto_broker_publish(NULL, topic, (int)length, copy, qos, false, list) == MOSQ_ERR_SUCCESS) {
			return true; /* both are the broker's now */
		}
	}
	mosquitto_property_free_all(&list);
	mosquitto_free(copy);
	return false;
}

void host_kick(const char *client_id)
{
	mosquitto_kick_client_by_clientid(client_id, false);
}

/* What $SYS/broker/publish/messages/dropped is made from: a global variable of the broker's, exported like all of them, and
 * written by its one thread (src/sys_tree.c of 2.0). */
static const unsigned long *dropped;

bool broker_find_dropped(void)
{
	dropped = dlsym(RTLD_DEFAULT, "g_msgs_dropped");
	return dropped != NULL;
}

uint64_t host_dropped(void)
{
	return dropped ? *dropped : 0;
}

/* Mosquitto listens with a backlog of 100: thousands that reconnect at once overflow it, and their SYNs are repeated
 * after whole seconds. listen(2) on a listening socket only changes the backlog; the kernel cuts it to somaxconn. It is also
 * how many the broker accepts in one go and then serves in turn, everybody else between them: a larger one makes the pauses of
 * a storm longer, a smaller one leaves more to those repeats (docs/performance.md). */
#define LISTEN_BACKLOG 1024

void broker_raise_backlogs(void)
{
	DIR *directory = opendir("/proc/self/fd");
	const struct dirent *entry;
	while (directory && (entry = readdir(directory)) != NULL) {
		int fd = (int)strtol(entry->d_name, NULL, 10);
		int listening = 0;
		socklen_t size = sizeof(listening);
		if (entry->d_name[0] != '.' && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening) {
			(void)listen(fd, LISTEN_BACKLOG);
		}
	}
	if (directory) {
		closedir(directory);
	}
}

bool broker_is_2_1(void)
{
	return dlsym(RTLD_DEFAULT, "mosquitto_complete_basic_auth") != NULL;
}

/* ---- logging ---- */

/* Threads log edges, not floods; what does not fit is counted and said. */
#define QUEUED_LINES_MAX 64

struct queued_line {
	enum log_level level;
	char text[LOG_LINE_MAX];
};

static struct {
	pthread_mutex_t mutex;
	pthread_t broker_thread;
	struct queued_line *lines;
	_Atomic unsigned count; /* looked at without the mutex by broker_log_drain */
	unsigned lost;
	bool queueing;
} log_queue = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void print_line(enum log_level level, const char *line)
{
	static const int levels[] = {MOSQ_LOG_ERR, MOSQ_LOG_WARNING, MOSQ_LOG_NOTICE, MOSQ_LOG_INFO, MOSQ_LOG_DEBUG};
	mosquitto_log_printf(levels[level], "%s", line);
}

void broker_log_sink(enum log_level level, const char *line)
{
	pthread_mutex_lock(&log_queue.mutex);
	bool queued = log_queue.queueing && !pthread_equal(pthread_self(), log_queue.broker_thread);
	if (queued) {
		if (log_queue.count < QUEUED_LINES_MAX) {
			struct queued_line *place = &log_queue.lines[log_queue.count++];
			place->level = level;
			snprintf(place->text, sizeof(place->text), "%s", line);
		} else {
			log_queue.lost++;
		}
	}
	pthread_mutex_unlock(&log_queue.mutex);
	if (queued) {
		wakeup_signal();
	} else {
		print_line(level, line);
	}
}

void broker_log_start(void)
{
	log_queue.lines = calloc(QUEUED_LINES_MAX, sizeof(log_queue.lines[0]));
	log_queue.broker_thread = pthread_self();
	log_queue.count = 0;
	log_queue.lost = 0;
	log_queue.queueing = log_queue.lines != NULL;
}

void broker_log_drain(void)
{
	if (log_queue.count == 0) {
		return;
	}
	pthread_mutex_lock(&log_queue.mutex);
	for (unsigned i = 0; i < log_queue.count; i++) {
		print_line(log_queue.lines[i].level, log_queue.lines[i].text);
	}
	if (log_queue.lost > 0) {
		mosquitto_log_printf(MOSQ_LOG_WARNING, "chat: %u more log lines did not fit and are lost", log_queue.lost);
	}
	log_queue.count = 0;
	log_queue.lost = 0;
	pthread_mutex_unlock(&log_queue.mutex);
}

void broker_log_stop(void)
{
	broker_log_drain();
	log_queue.queueing = false;
	free(log_queue.lines);
	log_queue.lines = NULL;
}
