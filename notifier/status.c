/* status.c - see status.h. */
#include "status.h"

#include "metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX ((size_t)4 << 20)
#define CONNECTIONS_MAX 16U
#define TIMEOUT_S 10U

struct status {
	struct loop_source source; /* first */
	struct loop *loop;
	struct MHD_Daemon *daemon;
	status_look look;
	void *owner;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code, const char *type, struct buffer *page)
{
	enum MHD_Result queued = MHD_NO;
	/* MHD_RESPMEM_MUST_FREE: the response takes the memory over. */
	struct MHD_Response *response =
		page->failed ? NULL : MHD_create_response_from_buffer(page->length, page->data, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		buffer_free(page);
		return MHD_NO;
	}
	(void)MHD_add_response_header(response, "content-type", type);
	queued = MHD_queue_response(connection, code, response);
	MHD_destroy_response(response);
	return queued;
}

static enum MHD_Result asked(void *owner, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *upload, size_t *upload_size, void **state)
{
	struct status *status = owner;
	struct buffer page;
	bool get = strcmp(method, "GET") == 0, well = status->look(status->owner);

	(void)version;
	(void)upload;
	(void)upload_size;
	(void)state;
	buffer_init(&page, PAGE_MAX);
	if (get && strcmp(url, "/metrics") == 0) {
		metrics_print(&page);
		return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &page);
	}
	if (get && strcmp(url, "/health") == 0) {
		buffer_append_text(&page, well ? "ok\n" : "the database cannot be reached\n");
		return answer(connection, well ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain", &page);
	}
	buffer_append_text(&page, "/metrics or /health\n");
	return answer(connection, get ? MHD_HTTP_NOT_FOUND : MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", &page);
}

static void ready(struct loop_source *source, int events)
{
	(void)events;
	(void)MHD_run(((struct status *)source)->daemon);
}

struct status *status_new(
	struct loop *loop, const char *address, int port, status_look look, void *owner, char *error, size_t error_size)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct status *status = calloc(1, sizeof(*status));

	if (!status || inet_pton(AF_INET, address, &in.sin_addr) != 1) {
		(void)snprintf(error, error_size, "%s", status ? "listen needs an IPv4 address" : "no memory");
		free(status);
		return NULL;
	}
	status->loop = loop;
	status->look = look;
	status->owner = owner;
	errno = 0;
	status->daemon = MHD_start_daemon(MHD_USE_EPOLL, (uint16_t)port, NULL, NULL, asked, status, MHD_OPTION_SOCK_ADDR, &in,
		MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_END);
	if (!status->daemon) {
		(void)snprintf(error, error_size, "cannot listen on %s:%d: %s", address, port, strerror(errno));
		free(status);
		return NULL;
	}
	status->source.ready = ready;
	status->source.fd = MHD_get_daemon_info(status->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	(void)loop_watch(loop, &status->source, LOOP_READ);
	return status;
}

void status_free(struct status *status)
{
	if (status) {
		(void)loop_watch(status->loop, &status->source, 0);
		MHD_stop_daemon(status->daemon);
		free(status);
	}
}

int status_port(const struct status *status)
{
	return MHD_get_daemon_info(status->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}

void status_tick(struct status *status)
{
	(void)MHD_run(status->daemon);
}
