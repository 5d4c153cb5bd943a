/* relay_database.c - see relay_database.h.
 *
 * A stream is followed by its headers: type and length are kept back until whole, then judged, then passed on with what
 * they announce. The first message of a client has no type. Only a Bind's first bytes are read, for the statement's name.
 */
#include "relay_database.h"
#include "check.h"
#include "process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LINKS = 64, CHUNK = 65536, START_SIZE = 512, LATE_MS = 50, NOT_ARMED = -1 };
#define PORT_NAME ".s.PGSQL.5432"

/* One direction of one connection. */
struct stream {
	uint8_t head[5];
	size_t head_length; /* of the next message, as far as it has come */
	size_t rest;        /* bytes of the message under way that are still to come */
	char type;          /* of the message under way */
	char start[START_SIZE];
	size_t start_length; /* first bytes of the message under way */
};

enum link_state { LINK_FREE, LINK_OPEN, LINK_HELD /* the client's side is closed, the Sync is in our hands */ };

struct link {
	enum link_state state;
	int client, server;
	struct stream from_client, from_server;
	bool started; /* its first message is over */
	bool is_writer;
	bool batch;        /* one was begun and not answered */
	bool cut_at_ready; /* chosen for CUT_ANSWER or CUT_SETTLE */
	bool settles;      /* asks what became of a batch */
};

struct database_relay {
	char path[108]; /* sun_path's size */
	char server_path[108];
	int listener, stop_fd;
	pthread_t thread;
	_Atomic int armed; /* an enum cut */
	_Atomic unsigned struck;
	int held_cut;
	bool hold_settle;
	int64_t release_at_ms; /* 0: the plugin has not come back yet */
	struct link links[LINKS];
};

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void free_link(struct link *link)
{
	close_end(&link->client);
	close_end(&link->server);
	link->state = LINK_FREE;
}

static bool write_all(int fd, const void *bytes, size_t length)
{
	for (const char *at = bytes; length;) {
		ssize_t written = send(fd, at, length, MSG_NOSIGNAL);
		if (written < 0 && errno != EINTR)
			return false;
		if (written > 0) {
			at += written;
			length -= (size_t)written;
		}
	}
	return true;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	return address;
}

/* ------------------------------------------------------------------------------------------------ messages */

/* What a Bind's or a startup's first bytes say: memmem, since they hold zeros. */
static bool holds(const struct stream *stream, const char *text)
{
	return memmem(stream->start, stream->start_length, text, strlen(text)) != NULL;
}

static void message_from_client_ends(struct database_relay *relay, struct link *link)
{
	const struct stream *stream = &link->from_client;
	if (!link->started) {
		link->started = true;
		link->is_writer = holds(stream, "mosquitto-chat writer");
	} else if (link->is_writer && stream->type == 'B') {
		link->batch = link->batch || holds(stream, "append_message");
		link->settles = link->settles || holds(stream, "settle_messages");
		if (holds(stream, "read_positions") && relay->held_cut != NOT_ARMED && relay->release_at_ms == 0)
			relay->release_at_ms = now_ms() + LATE_MS;
	}
}

/* The header of the client's next message is whole. False: it is not passed on, and the link has changed. */
static bool may_pass_to_server(struct database_relay *relay, struct link *link)
{
	int cut = atomic_load(&relay->armed);
	if (link->from_client.head[0] == 'S' && link->settles && relay->hold_settle) {
		relay->hold_settle = false;
		atomic_fetch_add(&relay->struck, 1);
		return false;
	}
	if (link->from_client.head[0] != 'S' || !link->batch || cut == NOT_ARMED || relay->held_cut != NOT_ARMED)
		return true;
	atomic_store(&relay->armed, NOT_ARMED);
	if (cut == CUT_ANSWER || cut == CUT_SETTLE) {
		link->cut_at_ready = true;
		relay->hold_settle = cut == CUT_SETTLE;
		return true;
	}
	if (cut == CUT_REQUEST) {
		free_link(link);
		atomic_fetch_add(&relay->struck, 1);
		return false;
	}
	close_end(&link->client);
	link->state = LINK_HELD;
	relay->held_cut = cut;
	relay->release_at_ms = 0;
	return false;
}

static bool may_pass_to_client(struct database_relay *relay, struct link *link)
{
	if (link->from_server.head[0] != 'Z')
		return true;
	link->batch = link->settles = false;
	if (!link->cut_at_ready)
		return true;
	free_link(link);
	if (!relay->hold_settle)
		atomic_fetch_add(&relay->struck, 1);
	return false;
}

/* Passes bytes on, message by message. False: the link is not what it was. */
static bool follow(struct database_relay *relay, struct link *link, bool is_client, const uint8_t *bytes, size_t length)
{
	struct stream *stream = is_client ? &link->from_client : &link->from_server;
	while (length > 0) {
		int to = is_client ? link->server : link->client;
		size_t head_size = is_client && !link->started ? 4 : 5;
		if (stream->head_length < head_size) {
			stream->head[stream->head_length++] = *bytes++;
			length--;
			if (stream->head_length < head_size)
				continue;
			uint32_t announced;
			memcpy(&announced, stream->head + head_size - 4, 4);
			stream->rest = ntohl(announced) - 4;
			stream->type = (char)stream->head[0];
			stream->start_length = 0;
			if (is_client && link->started ? !may_pass_to_server(relay, link)
						       : !is_client && !may_pass_to_client(relay, link))
				return false;
			if (!write_all(to, stream->head, head_size)) {
				free_link(link);
				return false;
			}
		}
		size_t part = stream->rest < length ? stream->rest : length;
		size_t noted = part < START_SIZE - stream->start_length ? part : START_SIZE - stream->start_length;
		memcpy(stream->start + stream->start_length, bytes, noted);
		stream->start_length += noted;
		if (!write_all(to, bytes, part)) {
			free_link(link);
			return false;
		}
		bytes += part;
		length -= part;
		stream->rest -= part;
		if (stream->rest == 0) {
			stream->head_length = 0;
			if (is_client)
				message_from_client_ends(relay, link);
		}
	}
	return true;
}

/* ---------------------------------------------------------------------------------------------- the thread */

static void take_connection(struct database_relay *relay)
{
	struct sockaddr_un address = address_of(relay->server_path);
	int client = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct link *link = NULL;
	for (size_t i = 0; i < LINKS && !link; i++)
		link = relay->links[i].state == LINK_FREE ? &relay->links[i] : NULL;
	if (client < 0 || server < 0 || !link || connect(server, (struct sockaddr *)&address, sizeof address)) {
		close_end(&client);
		close_end(&server);
		return;
	}
	*link = (struct link){.state = LINK_OPEN, .client = client, .server = server};
}

static void serve(struct database_relay *relay, struct link *link, bool is_client)
{
	static uint8_t bytes[CHUNK];
	ssize_t length = recv(is_client ? link->client : link->server, bytes, sizeof bytes, MSG_DONTWAIT);
	if (length > 0 && link->state == LINK_HELD)
		return; /* nobody is there to hear it */
	if (length > 0)
		follow(relay, link, is_client, bytes, (size_t)length);
	else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		if (link->state == LINK_HELD) { /* the plugin is back, and had its old server process ended first */
			relay->held_cut = NOT_ARMED;
			relay->release_at_ms = 0;
			atomic_fetch_add(&relay->struck, 1);
		}
		free_link(link);
	}
}

/* Lets the Sync arrive that was held back, or never. */
static void release(struct database_relay *relay)
{
	static const uint8_t sync[5] = {'S', 0, 0, 0, 4};
	for (size_t i = 0; i < LINKS; i++) {
		struct link *link = &relay->links[i];
		if (link->state == LINK_HELD) {
			if (relay->held_cut == CUT_LATE_COMMIT) {
				uint8_t answer[CHUNK];
				write_all(link->server, sync, sizeof sync);
				/* The end of the connection must not come before the Sync was carried out. */
				struct pollfd answered = {.fd = link->server, .events = POLLIN};
				if (poll(&answered, 1, 5000) == 1)
					(void)!recv(link->server, answer, sizeof answer, 0);
			}
			free_link(link);
			atomic_fetch_add(&relay->struck, 1);
		}
	}
	relay->held_cut = NOT_ARMED;
	relay->release_at_ms = 0;
}

static void *run(void *argument)
{
	struct database_relay *relay = argument;
	for (;;) {
		struct pollfd fds[2 + 2 * LINKS] = {
			{.fd = relay->stop_fd, .events = POLLIN}, {.fd = relay->listener, .events = POLLIN}};
		for (size_t i = 0; i < LINKS; i++) {
			struct link *link = &relay->links[i];
			bool is_used = link->state != LINK_FREE;
			fds[2 + 2 * i] = (struct pollfd){.fd = is_used ? link->client : -1, .events = POLLIN};
			fds[3 + 2 * i] = (struct pollfd){.fd = is_used ? link->server : -1, .events = POLLIN};
		}
		poll(fds, sizeof fds / sizeof *fds, relay->release_at_ms ? LATE_MS / 5 : -1);
		if (fds[0].revents)
			return NULL;
		for (size_t i = 0; i < LINKS; i++) {
			struct link *link = &relay->links[i];
			if (fds[2 + 2 * i].revents && link->state == LINK_OPEN)
				serve(relay, link, true);
			if (fds[3 + 2 * i].revents && link->state != LINK_FREE)
				serve(relay, link, false);
		}
		if (fds[1].revents)
			take_connection(relay);
		if (relay->release_at_ms && now_ms() >= relay->release_at_ms)
			release(relay);
	}
}

struct database_relay *database_relay_start(const char *directory, const char *server_directory)
{
	struct database_relay *relay = calloc(1, sizeof *relay);
	check(relay != NULL);
	relay->armed = relay->held_cut = NOT_ARMED;
	check(snprintf(relay->path, sizeof relay->path, "%s/" PORT_NAME, directory) < (int)sizeof relay->path);
	check(snprintf(relay->server_path, sizeof relay->server_path, "%s/" PORT_NAME, server_directory) <
		(int)sizeof relay->server_path);
	struct sockaddr_un address = address_of(relay->path);
	relay->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	relay->stop_fd = eventfd(0, EFD_CLOEXEC);
	check(relay->listener >= 0 && relay->stop_fd >= 0);
	check(bind(relay->listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(relay->listener, LINKS) == 0);
	check(chmod(relay->path, 0777) == 0);
	check(pthread_create(&relay->thread, NULL, run, relay) == 0);
	return relay;
}

void database_relay_arm(struct database_relay *relay, enum cut cut)
{
	atomic_store(&relay->armed, (int)cut);
}

unsigned database_relay_struck(const struct database_relay *relay)
{
	return atomic_load(&relay->struck);
}

void database_relay_stop(struct database_relay *relay)
{
	if (!relay)
		return;
	check(eventfd_write(relay->stop_fd, 1) == 0);
	pthread_join(relay->thread, NULL);
	for (size_t i = 0; i < LINKS; i++) {
		if (relay->links[i].state != LINK_FREE)
			free_link(&relay->links[i]);
	}
	close(relay->listener);
	close(relay->stop_fd);
	unlink(relay->path);
	free(relay);
}
