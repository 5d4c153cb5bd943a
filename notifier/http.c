/* http.c - see http.h.
 *
 *   pool (struct http) --> generations, newest first: a CURLM each; only the newest gets requests, the others run out
 *                          transfers: an easy handle, its headers, its answer; idle ones are kept for the next request
 */
#include "http.h"

#include "buffer.h"
#include "clock.h"
#include "endpoint.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX 8192
#define BODY_MAX 16384 /* no service takes more than a third of it */
#define CONNECT_TIMEOUT_MS 5000L
#define IDLE_MAX_S 3600L  /* libcurl's own 118 s would reconnect all day at a quiet server */
#define STREAMS_MAX 1000L /* Apple allows 1,000; what a server allows less is respected */
#define RESETS 700        /* of the 1,000 that nghttp2 bears: then a new connection is made */
#define RESETS_MAX 900    /* and until it stands, the old one is used up to here */
#define RESETS_PER_S 30   /* of the 33 */
#define GENERATIONS_MAX 4
#define IDLE_TRANSFERS_MAX 256
#define FIXED_VERSION 0x080e00 /* 8.14.0 */

struct generation {
	struct http *http;
	struct generation *next;
	CURLM *multi;
	unsigned in_flight;
	int64_t timer_ms; /* monotonic, INT64_MAX: none */
	int64_t resets;   /* thousandths, as the server counts */
	bool warm;        /* a request of it was answered */
	int64_t counted_ms;
};

struct transfer {
	struct http *http;
	struct generation *generation;
	struct transfer *next, *previous; /* of the pool's list: under way, or idle (next alone) */
	CURL *easy;
	struct curl_slist *headers;
	struct buffer body;
	size_t sent; /* of the body */
	struct buffer answer;
	int64_t stale_at_ms;
	bool stale, forbidden;
	http_done done;
	void *tag;
	char error[CURL_ERROR_SIZE];
};

struct http {
	struct loop *loop;
	struct http_options options;
	struct generation *generations;
	struct transfer *under_way;
	struct transfer *idle;
	unsigned idle_count;
	uint64_t connections_made;
	bool rotates;
};

struct socket_source {
	struct loop_source source; /* first */
	struct generation *generation;
};

bool http_start_library(void)
{
	if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK) {
		return false;
	}
	(void)atexit(curl_global_cleanup);
	const curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);
	return (version->features & CURL_VERSION_HTTP2) != 0 && (version->features & CURL_VERSION_ASYNCHDNS) != 0;
}

/* ---- sockets and timers of a generation ---- */

static void collect(struct generation *generation);

static void socket_ready(struct loop_source *source, int events)
{
	struct socket_source *socket_source = (struct socket_source *)source;
	struct generation *generation = socket_source->generation;
	int running = 0, what = ((events & LOOP_READ) ? CURL_CSELECT_IN : 0) | ((events & LOOP_WRITE) ? CURL_CSELECT_OUT : 0);
	(void)curl_multi_socket_action(generation->multi, source->fd, what, &running);
	collect(generation);
}

static int socket_changed(CURL *easy, curl_socket_t fd, int what, void *generation_pointer, void *source_pointer)
{
	struct generation *generation = generation_pointer;
	struct socket_source *source = source_pointer;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (source) {
			(void)loop_watch(generation->http->loop, &source->source, 0);
			free(source);
		}
		return 0;
	}
	if (!source) {
		source = calloc(1, sizeof(*source));
		if (!source) {
			return -1;
		}
		source->source.ready = socket_ready;
		source->source.fd = fd;
		source->generation = generation;
		(void)curl_multi_assign(generation->multi, fd, source);
	}
	bool watched = loop_watch(generation->http->loop, &source->source,
		((what & CURL_POLL_IN) ? LOOP_READ : 0) | ((what & CURL_POLL_OUT) ? LOOP_WRITE : 0));
	return watched ? 0 : -1;
}

static int timer_changed(CURLM *multi, long timeout_ms, void *generation_pointer)
{
	struct generation *generation = generation_pointer;
	(void)multi;
	generation->timer_ms = timeout_ms < 0 ? INT64_MAX : clock_monotonic_ms() + timeout_ms;
	return 0;
}

static struct generation *generation_new(struct http *http)
{
	struct generation *generation = calloc(1, sizeof(*generation));
	CURLM *multi = curl_multi_init();
	if (!generation || !multi) {
		free(generation);
		(void)curl_multi_cleanup(multi);
		return NULL;
	}
	generation->http = http;
	generation->multi = multi;
	generation->timer_ms = INT64_MAX;
	generation->counted_ms = clock_monotonic_ms();
	(void)curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
	(void)curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, generation);
	(void)curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_changed);
	(void)curl_multi_setopt(multi, CURLMOPT_TIMERDATA, generation);
	(void)curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	/* Without it, a server that allows one stream at first (Apple's) is met with a connection for every request. */
	(void)curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)http->options.connections);
	(void)curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, STREAMS_MAX);
	(void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 64L);
	return generation;
}

static void generation_free(struct generation *generation)
{
	(void)curl_multi_cleanup(generation->multi); /* closes the connections: socket_changed takes them out of the loop */
	free(generation);
}

/* Counts one request more, as the server will count its reset. */
static void wear(struct generation *generation, int64_t now_ms)
{
	int64_t given_back = (now_ms - generation->counted_ms) * RESETS_PER_S;
	generation->resets = generation->resets > given_back ? generation->resets - given_back : 0;
	generation->counted_ms = now_ms;
	generation->resets += 1000;
}

static unsigned count_generations(const struct http *http)
{
	unsigned count = 0;
	for (const struct generation *each = http->generations; each; each = each->next) {
		count++;
	}
	return count;
}

/* The generation for the next request, or NULL. A new one gets a single request at first: until that is answered, its connection
 * is being made, and Apple allows it no second stream. The one before it bears the load meanwhile. */
static struct generation *pick_generation(struct http *http)
{
	struct generation *newest = http->generations, *older = newest ? newest->next : NULL;

	if (newest && !newest->warm && newest->in_flight > 0 && older && older->resets < RESETS_MAX * 1000) {
		return older;
	}
	if (newest && (!http->rotates || !newest->warm || newest->resets < RESETS * 1000)) {
		return newest;
	}
	/* Old ones that do not end: rather a GOAWAY than ever more connections. */
	struct generation *generation = count_generations(http) < GENERATIONS_MAX ? generation_new(http) : NULL;
	if (!generation) {
		return newest;
	}
	generation->next = newest;
	http->generations = generation;
	return generation;
}

static void drop_old_generations(struct http *http)
{
	for (struct generation **link = http->generations ? &http->generations->next : NULL; link && *link;) {
		struct generation *generation = *link;
		if (generation->in_flight == 0) {
			*link = generation->next;
			generation_free(generation);
		} else {
			link = &generation->next;
		}
	}
}

/* ---- transfers ---- */

static size_t keep_answer(char *bytes, size_t size, size_t count, void *transfer_pointer)
{
	struct transfer *transfer = transfer_pointer;
	size_t length = size * count, room = transfer->answer.maximum - transfer->answer.length;
	/* More is read, so that the stream ends in order, and thrown away; the time-out ends what never ends. */
	(void)buffer_append(&transfer->answer, bytes, length < room ? length : room);
	return length;
}

static bool is_stale(const struct transfer *transfer)
{
	return transfer->stale_at_ms != 0 && clock_monotonic_ms() > transfer->stale_at_ms;
}

/* Asked when the connection is there. One that was made for this very request would be closed if the request were given up here,
 * and the next one would be late as well: so its headers go out, and give_body() gives it up, which ends a stream and no
 * connection. */
static int before_request(void *transfer_pointer, char *primary_ip, char *local_ip, int primary_port, int local_port)
{
	struct transfer *transfer = transfer_pointer;
	(void)primary_ip;
	(void)local_ip;
	(void)primary_port;
	(void)local_port;
	long made = 0;
	(void)curl_easy_getinfo(transfer->easy, CURLINFO_NUM_CONNECTS, &made);
	transfer->stale = made == 0 && is_stale(transfer);
	return transfer->stale ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static size_t give_body(char *out, size_t size, size_t count, void *transfer_pointer)
{
	struct transfer *transfer = transfer_pointer;
	size_t room = size * count, left = transfer->body.length - transfer->sent;

	if (transfer->sent == 0 && is_stale(transfer)) {
		transfer->stale = true;
		return CURL_READFUNC_ABORT;
	}
	left = left < room ? left : room;
	memcpy(out, transfer->body.data + transfer->sent, left);
	transfer->sent += left;
	return left;
}

/* libcurl begins anew where a connection that it wanted to use again had been closed. */
static int rewind_body(void *transfer_pointer, curl_off_t offset, int origin)
{
	struct transfer *transfer = transfer_pointer;
	if (origin != SEEK_SET || offset < 0 || (size_t)offset > transfer->body.length) {
		return CURL_SEEKFUNC_FAIL;
	}
	transfer->sent = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* The address is the one that will be connected to: what the name resolves to at any other time does not matter. */
static curl_socket_t open_socket(void *transfer_pointer, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct transfer *transfer = transfer_pointer;
	(void)purpose;
	if (transfer->http->options.public_only && !endpoint_address_is_public(&address->addr)) {
		transfer->forbidden = true;
		return CURL_SOCKET_BAD;
	}
	transfer->http->connections_made++;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static struct transfer *take_transfer(struct http *http)
{
	struct transfer *transfer = http->idle;
	if (transfer) {
		http->idle = transfer->next;
		http->idle_count--;
		curl_easy_reset(transfer->easy);
	} else {
		transfer = calloc(1, sizeof(*transfer));
		CURL *easy = curl_easy_init();
		if (!transfer || !easy) {
			free(transfer);
			curl_easy_cleanup(easy);
			return NULL;
		}
		transfer->easy = easy;
		transfer->http = http;
		buffer_init(&transfer->body, BODY_MAX);
		buffer_init(&transfer->answer, ANSWER_MAX);
	}
	transfer->stale = transfer->forbidden = false;
	transfer->sent = 0;
	transfer->error[0] = '\0';
	return transfer;
}

static void free_transfer(struct transfer *transfer)
{
	curl_slist_free_all(transfer->headers);
	curl_easy_cleanup(transfer->easy);
	buffer_free(&transfer->body);
	buffer_free(&transfer->answer);
	free(transfer);
}

static void put_transfer(struct transfer *transfer)
{
	struct http *http = transfer->http;
	if (http->idle_count >= IDLE_TRANSFERS_MAX) {
		free_transfer(transfer);
		return;
	}
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	buffer_reset(&transfer->body);
	buffer_reset(&transfer->answer);
	transfer->next = http->idle;
	http->idle = transfer;
	http->idle_count++;
}

static void unlink_transfer(struct transfer *transfer)
{
	if (transfer->next) {
		transfer->next->previous = transfer->previous;
	}
	if (transfer->previous) {
		transfer->previous->next = transfer->next;
	} else {
		transfer->http->under_way = transfer->next;
	}
}

static bool add_header(struct transfer *transfer, const char *header)
{
	struct curl_slist *longer = curl_slist_append(transfer->headers, header);
	transfer->headers = longer ? longer : transfer->headers;
	return longer != NULL;
}

static void set_options(struct transfer *transfer, const char *url)
{
	const struct http_options *options = &transfer->http->options;
	CURL *easy = transfer->easy;

	(void)curl_easy_setopt(easy, CURLOPT_URL, url);
	(void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
	(void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	(void)curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	(void)curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_POST, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)transfer->body.length);
	(void)curl_easy_setopt(easy, CURLOPT_READFUNCTION, give_body);
	(void)curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, rewind_body);
	(void)curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_MAX_S);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	(void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)options->timeout_ms);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_answer);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
	(void)curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	(void)curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error);
	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	if (options->ca_file) {
		(void)curl_easy_setopt(easy, CURLOPT_CAINFO, options->ca_file);
	}
	if (options->certificate) {
		(void)curl_easy_setopt(easy, CURLOPT_SSLCERT, options->certificate);
		(void)curl_easy_setopt(
			easy, CURLOPT_SSLKEY, options->certificate_key ? options->certificate_key : options->certificate);
	}
}

bool http_post(struct http *http, const char *url, const char *const headers[], size_t header_count, const void *body,
	size_t length, int64_t stale_at_ms, http_done done, void *tag)
{
	struct generation *generation = pick_generation(http);
	struct transfer *transfer = generation ? take_transfer(http) : NULL;

	if (!transfer) {
		return false;
	}
	bool begun = buffer_append(&transfer->body, body, length);
	for (size_t i = 0; i < header_count && begun; i++) {
		begun = add_header(transfer, headers[i]);
	}
	transfer->generation = generation;
	transfer->stale_at_ms = stale_at_ms;
	transfer->done = done;
	transfer->tag = tag;
	set_options(transfer, url);
	if (!begun || curl_multi_add_handle(generation->multi, transfer->easy) != CURLM_OK) {
		put_transfer(transfer);
		return false;
	}
	generation->in_flight++;
	wear(generation, clock_monotonic_ms());
	transfer->previous = NULL;
	transfer->next = http->under_way;
	if (transfer->next) {
		transfer->next->previous = transfer;
	}
	http->under_way = transfer;
	return true;
}

static void finish(struct transfer *transfer, CURLcode code)
{
	struct http_answer answer = {.outcome = HTTP_ANSWERED, .body = transfer->answer.data, .length = transfer->answer.length};
	long status = 0;
	curl_off_t retry_after_s = 0;

	(void)curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
	transfer->generation->warm = transfer->generation->warm || code == CURLE_OK;
	if (code != CURLE_OK) {
		answer.outcome = transfer->stale ? HTTP_STALE : transfer->forbidden ? HTTP_FORBIDDEN : HTTP_FAILED;
		answer.error = transfer->error[0] ? transfer->error : curl_easy_strerror(code);
	} else {
		answer.status = (int)status;
		answer.retry_after_ms = retry_after_s > 86400 ? 86400000 : (int64_t)retry_after_s * 1000;
	}
	(void)curl_multi_remove_handle(transfer->generation->multi, transfer->easy);
	transfer->generation->in_flight--;
	unlink_transfer(transfer);
	transfer->done(transfer->tag, &answer);
	put_transfer(transfer);
}

/* What has ended. `done` may begin other requests: they go to the newest generation, and none is freed here. */
static void collect(struct generation *generation)
{
	CURLMsg *message;
	int left = 0;

	while ((message = curl_multi_info_read(generation->multi, &left)) != NULL) {
		struct transfer *transfer = NULL;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
		if (message->msg == CURLMSG_DONE && transfer) {
			finish(transfer, message->data.result);
		}
	}
}

void http_tick(struct http *http, int64_t now_ms)
{
	if (!http) {
		return;
	}
	for (struct generation *generation = http->generations; generation; generation = generation->next) {
		if (now_ms >= generation->timer_ms) {
			int running = 0;
			generation->timer_ms = INT64_MAX;
			(void)curl_multi_socket_action(generation->multi, CURL_SOCKET_TIMEOUT, 0, &running);
			collect(generation);
		}
	}
	drop_old_generations(http);
}

int64_t http_deadline_ms(const struct http *http)
{
	int64_t deadline_ms = INT64_MAX;
	for (const struct generation *generation = http ? http->generations : NULL; generation; generation = generation->next) {
		deadline_ms = generation->timer_ms < deadline_ms ? generation->timer_ms : deadline_ms;
	}
	return deadline_ms;
}

struct http *http_new(struct loop *loop, const struct http_options *options)
{
	struct http *http = calloc(1, sizeof(*http));
	if (http) {
		http->loop = loop;
		http->options = *options;
		http->rotates = curl_version_info(CURLVERSION_NOW)->version_num < FIXED_VERSION;
	}
	return http;
}

void http_free(struct http *http)
{
	if (!http) {
		return;
	}
	while (http->under_way) {
		struct transfer *transfer = http->under_way;
		(void)curl_multi_remove_handle(transfer->generation->multi, transfer->easy);
		unlink_transfer(transfer);
		free_transfer(transfer);
	}
	while (http->idle) {
		struct transfer *transfer = http->idle;
		http->idle = transfer->next;
		free_transfer(transfer);
	}
	while (http->generations) {
		struct generation *generation = http->generations;
		http->generations = generation->next;
		generation_free(generation);
	}
	free(http);
}

uint64_t http_connections_made(const struct http *http)
{
	return http->connections_made;
}
