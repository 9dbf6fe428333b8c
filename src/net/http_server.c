/*
 * The wrapper of libmicrohttpd, and the way of a request through threads:
 *
 *	on_target, on_request    a thread of the library: headers, body; inline handlers
 *	  suspend, queue         the connection sleeps; a worker has the request (HTTP_PHASE_AWAY)
 *	  http_waits_enter       ... or nobody has it, until its wait ends
 *	  resume                 HTTP_PHASE_READY: the library's thread sends the answer
 *	on_completed             the end, in the library's thread; http_on_done() on a worker
 *
 * A connection is suspended before its request is handed on, and whoever has the request resumes it once, as the last
 * thing it does with it: so nobody touches a request that the library may already have completed.
 */
#include "net/http_server.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "net/http_body.h"
#include "net/http_connection.h"
#include "net/http_forwarded.h"
#include "net/http_head.h"
#include "net/http_request.h"
#include "net/http_upgrade.h"
#include "net/http_wait.h"
#include "net/listen.h"
#include "net/tls.h"

/* So long a server that stops waits for requests that are likely, and for those that have begun to come in. */
#define LIKELY_REQUEST_NS (NS_PER_S / 2)
#define BEGUN_REQUEST_NS (5 * NS_PER_S)

enum {
	HEADERS_MAX = 32 * 1024,
	/* What the library has for a connection's headers and its sending. Headers that do not even fit here get its
	 * own 431 page. */
	CONNECTION_MEMORY = 48 * 1024,
	BODY_MAX_DEFAULT = 1 << 20,
	STREAM_BLOCK = 16 * 1024,
	/* A connection's buffer is resident in part for its first request, and whole from the second on. With more
	 * connections than this, an answer ends its connection. */
	KEEP_ALIVE_MAX = 1000,
};

/* For the library to finish with connections that were cut. */
#define CUT_WAIT_NS NS_PER_S

struct http_server {
	struct http_server_opts opts;
	struct MHD_Daemon *plain;
	struct MHD_Daemon *secure; /* NULL without TLS */
	struct listener **listeners;
	size_t listener_count;
	struct http_connections *connections;
	uint16_t port;
	struct queue *queue; /* struct http_request *: to be run, or finished with `done` left */
	pthread_t *workers;
	unsigned worker_count;
	struct http_waits *waits;
	atomic_bool stopping;
	struct http_bodies bodies;
	struct http_upgrades *upgrades;

	pthread_mutex_t lock; /* guards active */
	pthread_cond_t idle;  /* active became 0 */
	size_t active;
};

/* --- small steps --- */

static void set_phase(struct http_request *req, enum http_phase phase)
{
	pthread_mutex_lock(&req->lock);
	req->phase = phase;
	pthread_mutex_unlock(&req->lock);
}

static enum http_phase get_phase(struct http_request *req)
{
	pthread_mutex_lock(&req->lock);
	enum http_phase phase = req->phase;
	pthread_mutex_unlock(&req->lock);
	return phase;
}

/* Gives the request back to the library's thread; it is not the caller's any more. */
static void resume(struct http_request *req)
{
	struct MHD_Connection *connection = req->connection;

	set_phase(req, HTTP_PHASE_READY);
	MHD_resume_connection(connection);
}

static void count_active(struct http_server *s, int change)
{
	pthread_mutex_lock(&s->lock);
	s->active += (size_t)change;
	if (s->active == 0)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

/* --- sending --- */

static ssize_t read_stream(void *cls, uint64_t position, char *buf, size_t max)
{
	struct http_request *req = cls;
	struct http_server *s = req->server;
	struct http_stream *stream = &req->answer.stream;
	struct http_waiter *waiter = &req->waiter;
	/* Also takes the waits' mutex, and so sees what the thread that ended the last wait wrote. */
	uint64_t since = http_waits_now(s->waits);
	bool slept = waiter->fd >= 0;

	(void)position;
	if (slept && waiter->end == HTTP_WAIT_GONE)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	ptrdiff_t got = stream->read(stream->state, buf, max, slept && waiter->end == HTTP_WAIT_DEADLINE);
	waiter->fd = -1;
	if (got > 0)
		return got;
	if (got == HTTP_STREAM_END)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (got == HTTP_STREAM_ABORT)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (atomic_load(&s->stopping))
		return MHD_CONTENT_READER_END_OF_STREAM;
	*waiter = (struct http_waiter){.list = stream->list,
				       .tag = stream->tag,
				       .deadline_ns = clock_monotonic_ns() + stream->idle_ns,
				       .fd = req->fd};
	struct MHD_Connection *connection = req->connection;
	MHD_suspend_connection(connection);
	if (!http_waits_enter(s->waits, waiter, since))
		MHD_resume_connection(connection);
	return 0;
}

/* The library closes the descriptor. */
static struct MHD_Response *response_from_fd(struct http_answer *answer)
{
	answer->has_fd = false;
	return MHD_create_response_from_fd64((uint64_t)answer->fd_size, answer->fd);
}

static struct MHD_Response *make_response(struct http_request *req)
{
	struct http_server *s = req->server;
	struct http_answer *answer = &req->answer;
	struct MHD_Response *response = NULL;

	if (answer->has_fd)
		response = response_from_fd(answer);
	else if (answer->streamed)
		response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, req, NULL);
	else
		response = MHD_create_response_from_buffer(answer->body.len, answer->body.data, MHD_RESPMEM_PERSISTENT);
	response = xcheck(response);
	(void)MHD_add_response_header(response, "X-Request-Id", req->id);
	if (answer->content_type != NULL)
		(void)MHD_add_response_header(response, "Content-Type", answer->content_type);
	for (size_t i = 0; i < answer->header_count; i++)
		(void)MHD_add_response_header(response, answer->headers[i].name, answer->headers[i].value);
	if (req->close || atomic_load(&s->stopping) || http_connections_counts(s->connections).current > KEEP_ALIVE_MAX)
		(void)MHD_add_response_header(response, "Connection", "close");
	return response;
}

static bool hung_up(int fd)
{
	char byte = 0;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* From here on nobody but the upgrade's owner looks at the connection, until http_server_cut(). */
static enum MHD_Result hand_over(struct http_request *req)
{
	if (!http_connection_use(req->link, HTTP_USE_AWAY))
		return MHD_NO;
	set_phase(req, HTTP_PHASE_AWAY);
	MHD_suspend_connection(req->connection);
	if (!http_upgrades_begin(req))
		http_server_cut(req);
	return MHD_YES;
}

void http_server_cut(struct http_request *req)
{
	req->gone = true;
	resume(req);
}

static enum MHD_Result send_answer(struct http_request *req)
{
	struct MHD_Connection *connection = req->connection;

	/* Whoever asked to be told would be told wrongly: the kernel takes bytes for a peer that has closed. */
	if (req->gone || (req->done != NULL && hung_up(req->fd)))
		return MHD_NO;
	if (req->answer.upgraded)
		return hand_over(req);
	if (!http_connection_use(req->link, HTTP_USE_SENDING))
		return MHD_NO;
	struct MHD_Response *response = make_response(req);
	set_phase(req, HTTP_PHASE_SENDING);
	req->waiter.fd = -1;
	enum MHD_Result result = MHD_queue_response(connection, (unsigned)req->answer.status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result send_error(struct http_request *req, const struct err *err)
{
	http_answer_error(req, err);
	return send_answer(req);
}

/* --- running --- */

static int call_handler(struct http_request *req, struct err *err)
{
	const struct http_route *route = req->match.route;

	req->parking = false;
	if (route->run == HTTP_SINK)
		return route->sink->end(req->sink_state, req, err);
	return route->handle(req->server->opts.ctx, req, err);
}

static void settle(struct http_request *req, int rc, struct err *err)
{
	if (rc == 0 && req->answer.status == 0)
		rc = err_set(err, ERR_INTERNAL, "the handler of %s gave no answer", req->match.route->pattern);
	if (rc > 0)
		rc = err_set(err, ERR_INTERNAL, "the handler of %s may not park now", req->match.route->pattern);
	if (rc < 0)
		http_answer_error(req, err);
}

static void note_wait_end(struct http_request *req)
{
	enum http_wait_end end = req->waiter.end;

	req->woken = end == HTTP_WAIT_WOKEN;
	req->over = end == HTTP_WAIT_DEADLINE || end == HTTP_WAIT_STOPPED;
	req->gone = end == HTTP_WAIT_GONE;
}

static bool may_park(const struct http_request *req)
{
	return req->parking && !req->over && req->answer.status == 0 && req->match.route->run == HTTP_WORKER;
}

/* On a worker. When it returns, the request is somebody else's. */
static void run(struct http_request *req)
{
	struct http_server *s = req->server;
	struct err err = {0};

	for (;;) {
		uint64_t since = http_waits_now(s->waits);
		int rc = call_handler(req, &err);
		if (rc != HTTP_PARKED || !may_park(req)) {
			settle(req, rc, &err);
			break;
		}
		req->waiter.fd = req->fd;
		if (http_waits_enter(s->waits, &req->waiter, since))
			return;
		note_wait_end(req);
	}
	resume(req);
}

static void finish_done(struct http_request *req)
{
	struct http_server *s = req->server;

	req->done(s->opts.ctx, req, req->done_arg, req->delivered);
	http_request_free(req);
	count_active(s, -1);
}

static void *work(void *arg)
{
	struct http_server *s = arg;

	for (;;) {
		struct http_request *req = queue_pop(s->queue, INT64_MAX);
		if (req == NULL)
			return NULL;
		if (req->finished)
			finish_done(req);
		else
			run(req);
	}
}

/* A wait ended; with the waits' mutex held. */
static void on_ready(struct http_waiter *waiter)
{
	struct http_request *req = container_of(waiter, struct http_request, waiter);

	if (req->answer.streamed) {
		MHD_resume_connection(req->connection);
		return;
	}
	note_wait_end(req);
	if (!req->gone && queue_try_push(req->server->queue, req))
		return;
	/* Nobody is there to read an answer, or no worker any more to make one. */
	req->gone = true;
	resume(req);
}

static enum MHD_Result run_inline(struct http_request *req)
{
	struct err err = {0};

	settle(req, call_handler(req, &err), &err);
	return send_answer(req);
}

static enum MHD_Result hand_to_worker(struct http_request *req)
{
	struct http_server *s = req->server;
	struct err err = {0};

	if (queue_len(s->queue) >= s->opts.queue_max) {
		err_set(&err, ERR_UNAVAILABLE, "the server has more requests than it can carry out");
		return send_error(req, &err);
	}
	if (!http_connection_use(req->link, HTTP_USE_AWAY))
		return MHD_NO;
	set_phase(req, HTTP_PHASE_AWAY);
	MHD_suspend_connection(req->connection);
	if (queue_try_push(s->queue, req))
		return MHD_YES;
	err_set(&err, ERR_UNAVAILABLE, "the server is stopping");
	http_answer_error(req, &err);
	resume(req);
	return MHD_YES;
}

/* --- receiving --- */

/* A refused body is taken for a shorter time than a connection may be idle. */
static void shorten_timeout(const struct http_request *req)
{
	unsigned seconds = (unsigned)((req->server->opts.drop_timeout_ns + NS_PER_S - 1) / NS_PER_S);

	if (req->body_length != 0)
		(void)MHD_set_connection_option(req->connection, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

static enum MHD_Result follow(struct http_request *req, enum http_body_next next)
{
	if (next == HTTP_BODY_CUT)
		return MHD_NO;
	if (next == HTTP_BODY_ANSWER)
		return send_error(req, &req->failure);
	if (next == HTTP_BODY_DROP && get_phase(req) != HTTP_PHASE_DROP) {
		shorten_timeout(req);
		set_phase(req, HTTP_PHASE_DROP);
	}
	return MHD_YES;
}

static enum MHD_Result collect_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_len,
				      const char *value, size_t value_len)
{
	struct http_request *req = cls;

	(void)kind;
	http_head_field(&req->head, (struct str){name, name_len}, (struct str){value, value_len});
	http_request_add_header(req, (struct str){name, name_len}, (struct str){value, value_len});
	return MHD_YES;
}

/* What the connection tells of the request. */
static void adopt(struct http_request *req, struct MHD_Connection *connection, const char *method, const char *version)
{
	req->connection = connection;
	req->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	req->link = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
	req->method = arena_strdup(req->arena, method);
	const struct sockaddr *peer =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
	req->peer.ss_family = peer != NULL ? peer->sa_family : AF_UNSPEC;
	if (req->peer.ss_family == AF_INET)
		memcpy(&req->peer, peer, sizeof(struct sockaddr_in));
	if (req->peer.ss_family == AF_INET6)
		memcpy(&req->peer, peer, sizeof(struct sockaddr_in6));
	http_head_line(&req->head, method, req->line_target, str_c(req->raw_target), version);
	(void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, collect_header, req);
}

/* After a head that could be read in two ways, what follows it could be anything. */
static int check_head(struct http_request *req, struct err *err)
{
	const union MHD_ConnectionInfo *size =
		MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	size_t bytes = size != NULL ? size->header_size : 0;

	int rc = http_head_check(&req->head, bytes, str_c(req->raw_target), err);
	if (rc == 0 && bytes >= HEADERS_MAX)
		rc = err_set(err, ERR_HEADERS_TOO_LARGE, "the headers are over %d bytes", HEADERS_MAX);
	if (rc == 0)
		rc = http_body_find_length(req, err);
	req->close = req->close || rc < 0;
	return rc;
}

static int find_route(struct http_request *req, struct err *err)
{
	const struct http_server_opts *opts = &req->server->opts;
	autovar(buf) allow = {0};

	int rc = http_route_match(opts->routes, opts->route_count, req->method, req->target, &req->match, &allow, err);
	if (rc < 0 && err->code == ERR_METHOD_NOT_ALLOWED)
		http_reply_header(req, "Allow", allow.data);
	if (rc < 0)
		return rc;
	req->body_max = req->match.route->body_max > 0 ? req->match.route->body_max : BODY_MAX_DEFAULT;
	return 0;
}

static int let_in(struct http_request *req, struct err *err)
{
	const struct http_server_opts *opts = &req->server->opts;
	const struct http_route *route = req->match.route;

	int rc = opts->authorize != NULL ? opts->authorize(opts->ctx, req, route, err) : 0;
	if (rc < 0)
		return rc;
	if (req->body_length > 0 && (uint64_t)req->body_length > req->body_max)
		return http_body_too_large(req, err);
	if (route->run != HTTP_SINK)
		return 0;
	rc = route->sink->begin(opts->ctx, req, &req->sink_state, err);
	req->sink_begun = rc == 0;
	return rc;
}

static enum MHD_Result begin(struct http_request *req, struct MHD_Connection *connection, const char *method,
			     const char *version)
{
	struct err err = {0};

	adopt(req, connection, method, version);
	count_active(req->server, 1);
	if (!http_connection_use(req->link, HTTP_USE_RECEIVING))
		return MHD_NO;
	int rc = check_head(req, &err);
	int parsed = http_request_parse(req, req->server->opts.proxies, rc == 0 ? &err : NULL);
	rc = rc < 0 ? rc : parsed;
	if (rc == 0)
		rc = find_route(req, &err);
	if (rc == 0)
		rc = let_in(req, &err);
	if (rc < 0)
		return follow(req, http_body_refuse(&req->server->bodies, req, false, &err));
	set_phase(req, HTTP_PHASE_BODY);
	return MHD_YES;
}

/* The target as it came, before the library decodes it: its "%2F" and "%00" are ours to judge. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
	(void)connection;
	struct http_request *req = http_request_new(cls, target);
	req->line_target = target;
	return req;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
				  const char *version, const char *upload, size_t *upload_size, void **slot)
{
	struct http_request *req = *slot;
	struct str bytes = {upload, *upload_size};

	(void)cls;
	(void)url;
	*upload_size = 0;
	switch (get_phase(req)) {
	case HTTP_PHASE_NEW:
		return begin(req, connection, method, version);
	case HTTP_PHASE_BODY:
		http_connection_took(req->link, bytes.len);
		if (bytes.len > 0)
			return follow(req, http_body_take(&req->server->bodies, req, bytes));
		return req->match.route->run == HTTP_INLINE ? run_inline(req) : hand_to_worker(req);
	case HTTP_PHASE_DROP:
		http_connection_took(req->link, bytes.len);
		return follow(req, http_body_drop(req, bytes.len));
	case HTTP_PHASE_READY:
		return send_answer(req);
	case HTTP_PHASE_AWAY:
	case HTTP_PHASE_SENDING:
		break;
	}
	return MHD_YES;
}

/* --- the end of a request --- */

static void log_access(const struct http_request *req, int status, int64_t duration_ns)
{
	struct str target = str_c(req->raw_target);
	struct str path = str_cut(&target, '?'); /* a query may carry what no log should keep */
	bool probe = req->match.route != NULL && req->match.route->probe;

	LOG_WITH(probe ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "request", F("method", req->method), F("path", path),
		 F("status", status), F("ms", (double)duration_ns / (double)NS_PER_MS), F("received", req->received),
		 F("delivered", req->delivered), F("peer", http_remote_addr(req)), F("request_id", req->id));
}

static int sent_status(const struct http_request *req, struct MHD_Connection *connection)
{
	if (req->link != NULL && http_connection_cut(req->link) != HTTP_CUT_NOT && req->answer.status == 0)
		return err_info(ERR_TOO_SLOW)->http_status;
	if (req->answer.status != 0)
		return req->answer.status;
	/* The library's own page about a request that it could not read, or no answer at all. */
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_HTTP_STATUS);
	return info != NULL ? (int)info->http_status : 0;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **slot, enum MHD_RequestTerminationCode how)
{
	struct http_server *s = cls;
	struct http_request *req = *slot;

	if (req == NULL)
		return;
	*slot = NULL;
	if (req->link != NULL)
		http_connection_rest(req->link);
	enum http_phase phase = get_phase(req);
	int status = sent_status(req, connection);
	int64_t duration_ns = clock_monotonic_ns() - req->begun_ns;
	req->delivered = phase == HTTP_PHASE_SENDING && how == MHD_REQUEST_TERMINATED_COMPLETED_OK;
	log_access(req, status, duration_ns);
	if (s->opts.observe != NULL)
		s->opts.observe(s->opts.ctx, req->match.route, status, duration_ns);
	http_body_release(&s->bodies, req);
	req->finished = true;
	if (req->done != NULL) {
		if (!queue_try_push(s->queue, req))
			finish_done(req);
		return;
	}
	bool begun = req->connection != NULL;
	http_request_free(req);
	if (begun)
		count_active(s, -1);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **slot,
			  enum MHD_ConnectionNotificationCode what)
{
	struct http_server *s = cls;

	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		*slot = http_connections_begun(
			s->connections,
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
	else
		http_connections_ended(s->connections, *slot);
}

/* In the accepting thread. The library has the descriptor, also where it fails. */
static bool take_connection(void *ctx, const struct listener *from, int fd, const struct sockaddr_storage *peer,
			    size_t peer_len)
{
	struct http_server *s = ctx;

	return MHD_add_connection(from->tls ? s->secure : s->plain, fd, (const struct sockaddr *)peer,
				  (socklen_t)peer_len) == MHD_YES;
}

/* The library says which connection it is, and that says which server. */
static int give_certificate(gnutls_session_t session, const gnutls_datum_t *ca_names, int ca_name_count,
			    const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **chain,
			    unsigned *chain_count, gnutls_privkey_t *key)
{
	struct MHD_Connection *connection = gnutls_session_get_ptr(session);
	const struct http_connection *link =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

	(void)ca_names;
	(void)ca_name_count;
	(void)algorithms;
	(void)algorithm_count;
	const struct tls_pair *pair = tls_current(http_connection_tls(link));
	*chain = pair->chain;
	*chain_count = pair->chain_count;
	*key = pair->key;
	return 0;
}

static bool is_proxy(void *ctx, const struct sockaddr_storage *peer)
{
	const struct http_server *s = ctx;
	struct http_origin origin = {.unix_peer = peer->ss_family == AF_UNIX};

	(void)address_of(peer, &origin.address);
	return http_origin_is_proxy(&origin, s->opts.proxies);
}

/* --- life --- */

static unsigned cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static void set_defaults(struct http_server_opts *opts)
{
	opts->io_threads = opts->io_threads > 0 ? opts->io_threads : cores();
	opts->workers = opts->workers > 0 ? opts->workers : 64;
	opts->queue_max = opts->queue_max > 0 ? opts->queue_max : 1024;
	opts->connections_max = opts->connections_max > 0 ? opts->connections_max : 12000;
	opts->idle_timeout_ns = opts->idle_timeout_ns > 0 ? opts->idle_timeout_ns : 60 * NS_PER_S;
	opts->body_timeout_ns = opts->body_timeout_ns > 0 ? opts->body_timeout_ns : 60 * NS_PER_S;
	opts->slow_timeout_ns = opts->slow_timeout_ns > 0 ? opts->slow_timeout_ns : 15 * NS_PER_S;
	opts->drop_timeout_ns = opts->drop_timeout_ns > 0 ? opts->drop_timeout_ns : 5 * NS_PER_S;
}

/* Each connection is a descriptor; what is left over is for files and the database. */
static void fit_descriptor_limit(struct http_server_opts *opts)
{
	enum { OTHERS = 512 };
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max >= opts->connections_max + OTHERS)
		return;
	unsigned fit =
		limit.rlim_max > (rlim_t)2 * OTHERS ? (unsigned)limit.rlim_max - OTHERS : (unsigned)limit.rlim_max / 2;
	log_warn("fewer connections than configured: the limit of open files is low", F("connections", (uint64_t)fit),
		 F("configured", (uint64_t)opts->connections_max), F("open_files", (uint64_t)limit.rlim_max));
	opts->connections_max = fit;
}

struct http_server *http_server_new(const struct http_server_opts *opts)
{
	struct http_server *s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	set_defaults(&s->opts);
	fit_descriptor_limit(&s->opts);
	s->connections = http_connections_new(&(struct http_connections_opts){
		.max = s->opts.connections_max,
		.per_address_max = s->opts.connections_per_address,
		.slow_ns = s->opts.slow_timeout_ns,
		.stuck_ns = s->opts.idle_timeout_ns,
		.exempt = is_proxy,
		.take = take_connection,
		.ctx = s,
	});
	/* A connection has at most one request that waits to be run, and few behind it that are only to be finished;
	 * those beyond are finished where they are. */
	s->bodies.timeout_ns = s->opts.body_timeout_ns;
	s->bodies.drop_ns = s->opts.drop_timeout_ns;
	s->upgrades = http_upgrades_new(opts->upgrades_max > 0 ? opts->upgrades_max : 1024);
	s->queue = queue_new(2 * (size_t)s->opts.connections_max);
	s->waits = http_waits_new(on_ready);
	pthread_mutex_init(&s->lock, NULL);
	clock_cond_init(&s->idle);
	return s;
}

struct http_wait_list *http_wait_list_new(struct http_server *s)
{
	return http_waits_list_new(s->waits);
}

static int start_daemon(struct http_server *s, unsigned flags, struct MHD_Daemon **ret, struct err *err)
{
	/* Each of the library's threads gets a share of its limit, however connections fall: ours is the one that
	 * counts. */
	intptr_t never_reached = (intptr_t)(s->opts.connections_max + 1024) * s->opts.io_threads;
	struct MHD_OptionItem options[] = {
		{MHD_OPTION_CONNECTION_LIMIT, never_reached, NULL},
		{MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, NULL},
		{MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)((s->opts.idle_timeout_ns + NS_PER_S - 1) / NS_PER_S), NULL},
		/* http_head.c is stricter than the library at its strictest, and answers in our words. */
		{MHD_OPTION_STRICT_FOR_CLIENT, 0, NULL},
		{MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)on_target, s},
		{MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, s},
		{MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, s},
		/* One thread is no pool. */
		{MHD_OPTION_THREAD_POOL_SIZE, s->opts.io_threads > 1 ? (intptr_t)s->opts.io_threads : 0, NULL},
		/* The last two are for TLS only. */
		{(flags & MHD_USE_TLS) != 0 ? MHD_OPTION_HTTPS_PRIORITIES : MHD_OPTION_END, 0,
		 (char *)(uintptr_t)TLS_PRIORITIES},
		{MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (char *)(uintptr_t)give_certificate},
		{MHD_OPTION_END, 0, NULL},
	};

	*ret = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET |
					flags,
				0, NULL, NULL, on_request, s, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
	return *ret != NULL ? 0 : err_set(err, ERR_UNAVAILABLE, "the HTTP server's threads would not start");
}

static int start_threads(struct http_server *s, struct err *err)
{
	int rc = http_waits_start(s->waits, err);
	if (rc < 0)
		return rc;
	s->workers = xcalloc(s->opts.workers, sizeof(*s->workers));
	for (; s->worker_count < s->opts.workers; s->worker_count++) {
		errno = pthread_create(&s->workers[s->worker_count], NULL, work, s);
		if (errno != 0)
			return err_sys(err, "start a worker thread");
	}
	rc = start_daemon(s, 0, &s->plain, err);
	if (rc == 0 && s->opts.tls != NULL)
		rc = start_daemon(s, MHD_USE_TLS, &s->secure, err);
	return rc < 0 ? rc : http_connections_start(s->connections, s->listeners, s->listener_count, err);
}

static void use_listener(struct http_server *s, struct listener *l)
{
	l->tls = l->path == NULL ? s->opts.tls : NULL;
	if (l->path == NULL)
		s->port = l->port;
	s->listeners[s->listener_count++] = l;
}

static int adopt_listeners(struct http_server *s, struct err *err)
{
	s->listeners = xcalloc(s->opts.listen_fd_count, sizeof(struct listener *));
	for (size_t i = 0; i < s->opts.listen_fd_count; i++) {
		struct listener *l = NULL;
		int rc = listener_adopt(s->opts.listen_fds[i], &l, err);
		if (rc < 0)
			return rc;
		use_listener(s, l);
	}
	return 0;
}

/* All TCP addresses have the same port, also where the first got a free one. */
static int open_listeners(struct http_server *s, struct err *err)
{
	static const char *const loopback[] = {"127.0.0.1"};
	const struct http_server_opts *opts = &s->opts;
	const char *const *addresses = opts->address_count > 0 ? opts->addresses : loopback;
	size_t count = opts->address_count > 0 ? opts->address_count : 1;

	s->port = opts->port;
	s->listeners = xcalloc(count, sizeof(struct listener *));
	for (size_t i = 0; i < count; i++) {
		struct listener *l = NULL;
		int rc = listener_open(addresses[i], s->port, &l, err);
		if (rc < 0)
			return rc;
		use_listener(s, l);
	}
	return 0;
}

int http_server_start(struct http_server *s, struct err *err)
{
	sigset_t all;
	sigset_t before;

	int rc = s->opts.listen_fd_count > 0 ? adopt_listeners(s, err) : open_listeners(s, err);
	if (rc < 0)
		return rc;
	/* Signals are for the thread that the role has for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = start_threads(s, err);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

uint16_t http_server_port(const struct http_server *s)
{
	return s->port;
}

bool http_server_stopping(const struct http_server *s)
{
	return atomic_load(&s->stopping);
}

struct http_server_counts http_server_counts(struct http_server *s)
{
	struct http_server_counts counts = {
		.waiting = http_waits_count(s->waits),
		.queued = queue_len(s->queue),
		.queued_max = s->opts.queue_max,
		.body_bytes = atomic_load(&s->bodies.bytes),
		.upgraded = http_upgrades_count(s->upgrades),
		.upgraded_max = http_upgrades_max(s->upgrades),
		.connections = http_connections_counts(s->connections),
	};

	pthread_mutex_lock(&s->lock);
	counts.active = s->active;
	pthread_mutex_unlock(&s->lock);
	return counts;
}

struct http_upgrades *http_server_upgrades(struct http_server *s)
{
	return s->upgrades;
}

static void await_requests(struct http_server *s, int64_t deadline_ns)
{
	pthread_mutex_lock(&s->lock);
	while (s->active > 0 && clock_cond_wait(&s->idle, &s->lock, deadline_ns))
		;
	pthread_mutex_unlock(&s->lock);
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The library panics over a connection that is suspended when it stops: so waits and workers end before it. */
void http_server_stop(struct http_server *s, int64_t deadline_ns)
{
	if (atomic_exchange(&s->stopping, true))
		return;
	if (s->plain != NULL) {
		int64_t now = clock_monotonic_ns();
		int64_t quiet_ns = earlier(now + LIKELY_REQUEST_NS, deadline_ns);
		int64_t begun_ns = earlier(now + BEGUN_REQUEST_NS, deadline_ns);
		http_connections_stop_accepting(s->connections);
		http_waits_stop(s->waits);
		/* Each answer says from here on that it is the last one of its connection. */
		http_connections_await_quiet(s->connections, quiet_ns, begun_ns);
		await_requests(s, deadline_ns);
		http_connections_await_quiet(s->connections, quiet_ns, begun_ns);
		await_requests(s, deadline_ns);
		http_upgrades_stop(s->upgrades);
		await_requests(s, clock_monotonic_ns() + CUT_WAIT_NS);
	}
	queue_close(s->queue);
	for (unsigned i = 0; i < s->worker_count; i++)
		(void)pthread_join(s->workers[i], NULL);
	if (s->plain != NULL)
		MHD_stop_daemon(s->plain);
	if (s->secure != NULL)
		MHD_stop_daemon(s->secure);
	s->plain = NULL;
	s->secure = NULL;
	for (size_t i = 0; i < s->listener_count; i++)
		listener_free(s->listeners[i]);
	s->listener_count = 0;
}

void http_server_free(struct http_server *s)
{
	if (s == NULL)
		return;
	http_server_stop(s, 0);
	assert(s->active == 0);
	http_connections_free(s->connections);
	free(s->listeners);
	http_waits_free(s->waits);
	http_upgrades_free(s->upgrades);
	queue_free(s->queue);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
	free(s->workers);
	free(s);
}
