#include "shim/services.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "shim/service_chunks.h"
#include "shim/service_head.h"
#include "shim/service_reply.h"

enum {
	CHUNK = 16 * 1024,
	OUT_MAX = 66 * 1024, /* a whole message for a resolver among them */
	RESOLV_CONF_MAX = 64 * 1024,
	RESOLVERS_MAX = 3,
	DNS_PORT = 53,
	LENGTH_SIZE = 2,
	DATAGRAM_MAX = 4096
};

#define HEAD_WAIT_NS (30 * NS_PER_S)
#define CONNECT_WAIT_NS (10 * NS_PER_S)
#define IDLE_WAIT_NS (120 * NS_PER_S)
#define RESOLVER_WAIT_NS (2 * NS_PER_S)

struct service;

/* HEAD: of a request, not whole yet. ANSWERED: by us; what still comes is thrown away. */
enum state { STATE_HEAD, STATE_CONNECTING, STATE_OPEN, STATE_ANSWERED };

/* One stream of the guest, and the connection that it is joined to. */
struct joint {
	struct services *all;
	struct joint *next;
	struct stream *stream; /* NULL: closed */
	const struct service *service;
	enum state state;
	struct buf in;	/* of the guest, not looked at: as much as it has credit for */
	struct buf out; /* for the service, OUT_MAX at most; may hold the token */
	/* The request under way, and what is answered to it. */
	struct service_request request;
	struct service_chunks chunks;
	struct service_reply reply;
	bool heard;  /* the service has answered something */
	bool before; /* a request was answered before it, on the same connection */
	bool moved;  /* the service has another address: for the next request */
	bool guest_ended;
	bool done; /* the service has said all */
	bool busy; /* in turn(): what comes from within is seen there */
	struct http_pending *pending;
	struct sockaddr_storage resolvers[RESOLVERS_MAX];
	size_t resolver, resolver_count;
	bool datagrams; /* no resolver takes connections: each message goes alone, without its length */
	int fd;		/* of a connection without libcurl; or -1 */
	struct loop_source *io;
	struct loop_source *timer;
};

struct services {
	struct services_opts opts;
	struct shim_served counts; /* but for the streams */
	char *logs_url;
	struct http_client *client;
	struct joint *joints;
	struct loop_source *reaper; /* closed joints are freed from the loop */
};

/* --- the table --- */

struct service {
	const char *name;
	enum shim_service id;
	uint16_t port; /* of the guest's loopback */
	const char *variable;
	const char *value;
	const struct service_call *calls; /* NULL: bytes go through as they are */
	size_t call_count;
	bool (*there)(const struct services *s);
	void (*connect)(struct joint *j);
};

static void connect_logs(struct joint *j);
static void connect_resolver(struct joint *j);

static bool logs_are_there(const struct services *s)
{
	return s->logs_url != NULL && s->opts.token != NULL;
}

static bool names_are_there(const struct services *s)
{
	return s->opts.names;
}

static const struct service_call logs_calls[] = {
	{"POST", "/logs"},
	{"GET", "/logs/query"},
	{"GET", "/logs/tail"},
};

static const struct service services[] = {
	{"logs", SHIM_SERVICE_LOGS, 8002, "NIMBUS_LOGS_URL", "http://127.0.0.1:8002", logs_calls, ARRAY_LEN(logs_calls),
	 logs_are_there, connect_logs},
	{"dns", SHIM_SERVICE_DNS, DNS_PORT, NULL, NULL, NULL, 0, names_are_there, connect_resolver},
};

size_t services_ports(const struct services *s, struct guest_service ret[static GUEST_SERVICES_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (services[i].there(s))
			ret[count++] = (struct guest_service){.port = services[i].port, .name = services[i].name};
	}
	return count;
}

bool services_variable(const struct services *s, size_t index, const char **ret_name, const char **ret_value)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (services[i].variable == NULL || !services[i].there(s) || index-- > 0)
			continue;
		*ret_name = services[i].variable;
		*ret_value = services[i].value;
		return true;
	}
	return false;
}

/* --- the end of a joint --- */

static void disconnect(struct joint *j)
{
	loop_source_free(TAKE(j->io));
	http_pending_cancel(TAKE(j->pending));
	fd_close(&j->fd);
}

static void wipe_out(struct joint *j)
{
	if (j->out.data != NULL)
		secret_wipe(j->out.data, j->out.cap);
	buf_fini(&j->out);
	j->out = (struct buf){0};
}

static void joint_free(struct joint *j)
{
	disconnect(j);
	wipe_out(j);
	loop_source_free(j->timer);
	buf_fini(&j->in);
	service_reply_fini(&j->reply);
	free(j);
}

static void on_closed(void *ctx, uint32_t status, const char *text)
{
	struct joint *j = ctx;

	(void)status;
	(void)text;
	j->stream = NULL;
	disconnect(j);
	loop_timer_set(j->timer, LOOP_NEVER);
	loop_timer_set(j->all->reaper, 0);
}

static void on_reap(void *ctx)
{
	struct services *s = ctx;

	for (struct joint **at = &s->joints; *at != NULL;) {
		struct joint *j = *at;
		if (j->stream != NULL) {
			at = &j->next;
			continue;
		}
		*at = j->next;
		joint_free(j);
	}
}

static void wait_for(struct joint *j, int64_t default_ns)
{
	int64_t wait_ns = j->all->opts.wait_ns > 0 ? j->all->opts.wait_ns : default_ns;

	loop_timer_set(j->timer, clock_monotonic_ns() + wait_ns);
}

static struct shim_service_counts *counts_of(const struct joint *j)
{
	return &j->all->counts.each[j->service->id];
}

static enum shim_refusal refusal_of(const struct err *err)
{
	static const struct {
		int code;
		enum shim_refusal refusal;
	} refusals[] = {
		{ERR_INVALID, SHIM_REFUSAL_MALFORMED},		 {ERR_NOT_FOUND, SHIM_REFUSAL_NO_SUCH_CALL},
		{ERR_TOO_LARGE, SHIM_REFUSAL_TOO_LARGE},	 {ERR_TOO_SLOW, SHIM_REFUSAL_SLOW},
		{ERR_HEADERS_TOO_LARGE, SHIM_REFUSAL_TOO_LARGE}, {ERR_TIMEOUT, SHIM_REFUSAL_SILENT},
	};

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		if (refusals[i].code == err->code)
			return refusals[i].refusal;
	}
	return SHIM_REFUSAL_AWAY;
}

static void close_failed(struct joint *j, const char *text)
{
	stream_close(j->stream, GUEST_CLOSE_FAILED, text);
}

static void next_resolver(struct joint *j);

/* --- our own answers --- */

static const char *status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} texts[] = {{400, "Bad Request"},
		     {404, "Not Found"},
		     {408, "Request Timeout"},
		     {413, "Content Too Large"},
		     {431, "Header Fields Too Large"},
		     {502, "Bad Gateway"},
		     {504, "Gateway Timeout"}};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (texts[i].status == status)
			return texts[i].text;
	}
	return "Error";
}

/* Where it is the service's fault, the shim stands between it and the job. */
static int status_of(const struct err *err)
{
	int status = err_info(err->code)->http_status;

	return status < 500 || status == 504 ? status : 502;
}

static void write_answer(const struct err *err, struct buf *out)
{
	autoptr(js) object = js_new_object();
	autovar(buf) body = {0};
	int status = status_of(err);

	js_set(object, "detail", js_new_text(err->msg));
	js_set(object, "code", js_new_text(err_info(err->code)->name));
	js_set(object, "hint", js_new_text(err_info(err->code)->hint));
	js_write(object, &body);
	buf_printf(out,
		   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		   "Connection: close\r\n\r\n",
		   status, status_text(status), body.len);
	buf_append_str(out, buf_str(&body));
}

/* What the guest has sent is thrown away. */
static void discard(struct joint *j)
{
	size_t owed = j->in.len;

	buf_clear(&j->in);
	stream_consumed(j->stream, owed);
}

/* So is what still comes. */
static void answer(struct joint *j, struct str text)
{
	struct stream *stream = j->stream;

	disconnect(j);
	wipe_out(j);
	j->state = STATE_ANSWERED;
	wait_for(j, IDLE_WAIT_NS);
	stream_send(stream, text);
	/* Each of these may end it, which clears j->stream. */
	if (j->stream != NULL)
		discard(j);
	if (j->stream != NULL)
		stream_end(stream);
}

/* A part of an answer can only be cut; so can what finds no room, where the guest does not take the one before. */
static void fail(struct joint *j, const struct err *err)
{
	autovar(buf) text = {0};

	j->all->counts.refused[refusal_of(err)]++;
	if (j->service->calls != NULL && !j->heard)
		write_answer(err, &text);
	if (text.len > 0 && text.len <= stream_room(j->stream))
		answer(j, buf_str(&text));
	else
		close_failed(j, err->msg);
}

static void finish(struct joint *j);

/* Between two requests: whoever is silent then is done. */
static bool is_idle(const struct joint *j)
{
	return j->state == STATE_HEAD && j->before && j->in.len == 0;
}

static void on_late(void *ctx)
{
	struct joint *j = ctx;
	struct err err = {0};

	if (j->state == STATE_ANSWERED || j->done) {
		stream_close(j->stream, GUEST_CLOSE_OK, "");
	} else if (is_idle(j)) {
		finish(j);
	} else if (j->state == STATE_HEAD) {
		(void)err_set(&err, ERR_TOO_SLOW, "the request's head did not come in time");
		fail(j, &err);
	} else if (j->state == STATE_CONNECTING && j->resolver_count > 0) {
		next_resolver(j);
	} else {
		(void)err_set(&err, ERR_TIMEOUT, "the service '%s' is silent", j->service->name);
		fail(j, &err);
	}
}

/* --- bytes --- */

static size_t message_length(const char *at)
{
	return (size_t)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

/* One message with its length before it, as a datagram without. HTTP_AGAIN: it is not whole. */
static int send_datagram(struct joint *j, struct str bytes, size_t *ret_sent)
{
	if (bytes.len < LENGTH_SIZE || bytes.len - LENGTH_SIZE < message_length(bytes.data))
		return HTTP_AGAIN;
	*ret_sent = LENGTH_SIZE + message_length(bytes.data);
	/* One that is lost is asked again. */
	(void)!send(j->fd, bytes.data + LENGTH_SIZE, message_length(bytes.data), MSG_NOSIGNAL | MSG_DONTWAIT);
	return 0;
}

/* The other way round. Only from whom was asked: the socket is connected. */
static int receive_datagram(struct joint *j, char *to, size_t cap, size_t *ret_got)
{
	if (cap <= DATAGRAM_MAX)
		return HTTP_AGAIN;
	ssize_t got = recv(j->fd, to + LENGTH_SIZE, cap - LENGTH_SIZE, MSG_DONTWAIT);
	if (got <= 0)
		return HTTP_AGAIN;
	to[0] = (char)(got >> 8);
	to[1] = (char)got;
	*ret_got = LENGTH_SIZE + (size_t)got;
	return 0;
}

static int send_some(struct joint *j, struct str bytes, size_t *ret_sent, struct err *err)
{
	if (j->pending != NULL)
		return http_pending_send(j->pending, bytes, ret_sent, err);
	if (j->datagrams)
		return send_datagram(j, bytes, ret_sent);
	ssize_t sent = send(j->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return HTTP_AGAIN;
	if (sent < 0)
		return err_sys(err, "write to the service '%s'", j->service->name);
	*ret_sent = (size_t)sent;
	return 0;
}

static int receive_some(struct joint *j, char *to, size_t cap, size_t *ret_got, struct err *err)
{
	if (j->pending != NULL)
		return http_pending_recv(j->pending, to, cap, ret_got, err);
	if (j->datagrams)
		return receive_datagram(j, to, cap, ret_got);
	ssize_t got = recv(j->fd, to, cap, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return HTTP_AGAIN;
	if (got < 0)
		return err_sys(err, "read from the service '%s'", j->service->name);
	*ret_got = (size_t)got;
	return got == 0 ? HTTP_CLOSED : 0;
}

static void watch(struct joint *j)
{
	bool reads = stream_room(j->stream) > (j->datagrams ? DATAGRAM_MAX : 0);
	bool writes = j->out.len > 0 && !j->datagrams;

	if (j->io != NULL)
		loop_fd_set_events(j->io, (reads ? LOOP_READ : 0U) | (writes ? LOOP_WRITE : 0U));
}

static bool body_is_whole(const struct joint *j)
{
	return j->request.chunked ? service_chunks_are_over(&j->chunks) : j->request.length == 0;
}

static void drop_sent(struct joint *j, size_t sent)
{
	size_t left = j->out.len - sent;

	memmove(j->out.data, j->out.data + sent, left);
	secret_wipe(j->out.data + left, sent);
	j->out.len = left;
}

/* What the guest has sent of the body, as far as there is room for it. */
static int take_body(struct joint *j, struct err *err)
{
	size_t room = j->out.len < OUT_MAX ? OUT_MAX - j->out.len : 0;
	struct str bytes = {j->in.data, j->in.len < room ? j->in.len : room};
	size_t used = bytes.len;

	if (bytes.len == 0 || body_is_whole(j))
		return 0;
	if (j->request.chunked) {
		int rc = service_chunks_take(&j->chunks, bytes, &j->out, &used, err);
		if (rc < 0)
			return rc;
	} else {
		if ((uint64_t)j->request.length < used)
			used = (size_t)j->request.length;
		buf_append(&j->out, bytes.data, used);
		/* What is not HTTP has no end but the guest's. */
		j->request.length -= j->service->calls != NULL ? (int64_t)used : 0;
	}
	buf_consume(&j->in, used);
	stream_consumed(j->stream, used);
	return 0;
}

/* A service that takes no more may still have an answer to give: that is seen by reading. */
static int push(struct joint *j, struct err *err)
{
	for (;;) {
		int rc = take_body(j, err);
		if (rc < 0 || j->stream == NULL || j->out.len == 0)
			return rc;
		size_t sent = 0;
		rc = send_some(j, buf_str(&j->out), &sent, NULL);
		if (rc == HTTP_AGAIN)
			return 0;
		if (rc == 0) {
			wait_for(j, IDLE_WAIT_NS);
			counts_of(j)->sent += (int64_t)sent;
		}
		drop_sent(j, rc < 0 ? j->out.len : sent);
	}
}

/* What is not HTTP ends its direction when the guest does; a request is whole by then. */
static int end_sending(struct joint *j, struct err *err)
{
	if (!j->guest_ended || j->in.len > 0 || j->out.len > 0 || j->state != STATE_OPEN)
		return 0;
	if (j->service->calls != NULL && !body_is_whole(j))
		return err_set(err, ERR_INVALID, "the request ended before it was whole");
	if (j->service->calls == NULL && !j->datagrams)
		(void)shutdown(j->fd, SHUT_WR);
	return 0;
}

static int take_answer(struct joint *j, struct str bytes, struct err *err)
{
	size_t used = bytes.len;

	if (j->service->calls != NULL) {
		int rc = service_reply_take(&j->reply, bytes, &used, err);
		if (rc < 0)
			return rc;
	}
	if (used > 0) {
		j->heard = true;
		counts_of(j)->received += (int64_t)used;
		wait_for(j, IDLE_WAIT_NS);
		stream_send(j->stream, (struct str){bytes.data, used});
	}
	/* Nobody has asked for it; the connection is good for nothing more. */
	if (used < bytes.len)
		j->reply.keep = false;
	return 0;
}

static bool answer_is_whole(const struct joint *j)
{
	return j->service->calls != NULL && j->reply.at == SERVICE_REPLY_OVER;
}

/* 0: nothing more now. */
static int pull(struct joint *j, struct err *err)
{
	char bytes[CHUNK];

	while (j->stream != NULL) {
		size_t room = stream_room(j->stream);
		size_t got = 0;
		if (room == 0)
			return 0;
		int rc = receive_some(j, bytes, room < sizeof(bytes) ? room : sizeof(bytes), &got, err);
		if (rc == HTTP_AGAIN)
			return 0;
		if (rc == 0)
			rc = take_answer(j, (struct str){bytes, got}, err);
		if (rc != 0 || answer_is_whole(j))
			return rc;
	}
	return 0;
}

/* It has said all; the guest hears the rest of it and ends its side. */
static void finish(struct joint *j)
{
	struct stream *stream = j->stream;

	disconnect(j);
	wipe_out(j);
	j->done = true;
	wait_for(j, IDLE_WAIT_NS);
	discard(j);
	if (j->stream != NULL) /* else it has ended by that */
		stream_end(stream);
}

static void on_hangup(struct joint *j)
{
	struct err err = {0};

	if (j->service->calls == NULL || j->heard || j->state == STATE_HEAD) {
		finish(j);
		return;
	}
	(void)err_set(&err, ERR_UNAVAILABLE, "the service '%s' closed the connection without an answer",
		      j->service->name);
	fail(j, &err);
}

static void take_head(struct joint *j);

/* The answer is whole. Who was answered before it had said all would not know where its next request begins. True: that
 * is there already. */
static bool next_request(struct joint *j)
{
	if (!j->request.keep || !j->reply.keep || !body_is_whole(j) || j->out.len > 0) {
		finish(j);
		return false;
	}
	service_reply_fini(&j->reply);
	j->reply.at = SERVICE_REPLY_OVER; /* whatever is said now is too much */
	j->reply.keep = true;
	j->heard = false;
	j->before = true;
	j->state = STATE_HEAD;
	if (j->moved)
		disconnect(j);
	take_head(j);
	return j->stream != NULL && j->state == STATE_OPEN;
}

static int turn_once(struct joint *j, struct err *err)
{
	int rc = j->state == STATE_OPEN ? push(j, err) : 0;

	if (rc == 0 && j->stream != NULL)
		rc = end_sending(j, err);
	return rc == 0 && j->stream != NULL ? pull(j, err) : rc;
}

/* As long as one request follows another. */
static void turn(struct joint *j)
{
	struct err err = {0};
	bool again = !j->busy;

	while (again) {
		j->busy = true;
		int rc = turn_once(j, &err);
		j->busy = false;
		again = false;
		if (j->stream == NULL)
			return;
		if (rc == HTTP_CLOSED)
			on_hangup(j);
		else if (rc < 0)
			fail(j, &err);
		else if (answer_is_whole(j) && (j->state == STATE_OPEN || !j->reply.keep))
			again = next_request(j);
	}
	if (j->stream != NULL)
		watch(j);
}

static void on_io(void *ctx, unsigned events)
{
	(void)events;
	turn(ctx);
}

/* --- connecting --- */

static void connected(struct joint *j, int fd)
{
	struct err err = {0};

	if (loop_add_fd(j->all->opts.loop, fd, LOOP_READ | LOOP_WRITE, LOOP_BULK, on_io, j, &j->io, &err) < 0) {
		fail(j, &err);
		return;
	}
	j->state = STATE_OPEN;
	turn(j);
}

static void on_logs_connected(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct joint *j = ctx;
	struct err why = {0};

	(void)reply;
	if (err == NULL) {
		connected(j, http_pending_fd(j->pending));
		return;
	}
	/* It is gone with this call. */
	j->pending = NULL;
	(void)err_set(&why, ERR_UNAVAILABLE, "the logging pipeline is away: %s", err->msg);
	fail(j, &why);
}

static void connect_logs(struct joint *j)
{
	const struct http_call call = {.url = j->all->logs_url, .timeout_ns = CONNECT_WAIT_NS, .connect_only = true};
	struct err err = {0};

	if (http_client_start(j->all->client, &call, on_logs_connected, j, &j->pending, &err) < 0)
		fail(j, &err);
}

/* Those of resolv.conf(5) that are addresses. */
static void read_resolvers(struct joint *j)
{
	const char *path = j->all->opts.resolv_conf != NULL ? j->all->opts.resolv_conf : "/etc/resolv.conf";
	uint16_t port = j->all->opts.resolver_port != 0 ? j->all->opts.resolver_port : DNS_PORT;
	autovar(buf) text = {0};

	if (file_read(AT_FDCWD, path, RESOLV_CONF_MAX, &text, NULL) < 0)
		return;
	for (struct str rest = buf_str(&text); rest.data != NULL && j->resolver_count < RESOLVERS_MAX;) {
		struct str line = str_trim(str_cut(&rest, '\n'));
		struct sockaddr_storage *to = &j->resolvers[j->resolver_count];
		struct sockaddr_in *v4 = (struct sockaddr_in *)to;
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
		if (!str_starts_with(line, STR("nameserver")))
			continue;
		line.data += strlen("nameserver");
		line.len -= strlen("nameserver");
		autofree char *address = xmemdup0(line.data, line.len);
		char *at = address + strspn(address, " \t");
		at[strcspn(at, " \t#;")] = '\0';
		*to = (struct sockaddr_storage){0};
		if (inet_pton(AF_INET, at, &v4->sin_addr) == 1) {
			v4->sin_family = AF_INET;
			v4->sin_port = htons(port);
		} else if (inet_pton(AF_INET6, at, &v6->sin6_addr) == 1) {
			v6->sin6_family = AF_INET6;
			v6->sin6_port = htons(port);
		} else {
			continue;
		}
		j->resolver_count++;
	}
}

static void on_resolver_connected(void *ctx, unsigned events)
{
	struct joint *j = ctx;
	int error = 0;
	socklen_t len = sizeof(error);

	(void)events;
	if (getsockopt(j->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
		next_resolver(j);
		return;
	}
	loop_source_free(TAKE(j->io));
	connected(j, j->fd);
}

static void no_resolver(struct joint *j, const char *text)
{
	j->all->counts.refused[SHIM_REFUSAL_AWAY]++;
	close_failed(j, text);
}

/* By datagrams to the first: who asked asks again, or says that it does not answer. */
static void use_datagrams(struct joint *j)
{
	const struct sockaddr_storage *to = &j->resolvers[0];

	j->fd = socket(to->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (j->fd < 0 || connect(j->fd, (const struct sockaddr *)to, sizeof(*to)) != 0) {
		no_resolver(j, "no resolver of the host answers");
		return;
	}
	j->datagrams = true;
	wait_for(j, CONNECT_WAIT_NS);
	connected(j, j->fd);
}

/* The next that does not refuse at once. */
static void next_resolver(struct joint *j)
{
	struct err err = {0};

	disconnect(j);
	wait_for(j, RESOLVER_WAIT_NS);
	while (j->resolver < j->resolver_count) {
		const struct sockaddr_storage *to = &j->resolvers[j->resolver++];
		j->fd = socket(to->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (j->fd >= 0 &&
		    (connect(j->fd, (const struct sockaddr *)to, sizeof(*to)) == 0 || errno == EINPROGRESS) &&
		    loop_add_fd(j->all->opts.loop, j->fd, LOOP_WRITE, LOOP_BULK, on_resolver_connected, j, &j->io,
				&err) == 0)
			return;
		disconnect(j);
	}
	if (j->resolver_count > 0)
		use_datagrams(j);
	else
		no_resolver(j, "the host's resolv.conf names no resolver");
}

static void connect_resolver(struct joint *j)
{
	read_resolvers(j);
	next_resolver(j);
}

/* --- requests --- */

/* "http://host:1/a/logs" to "host:1" and "/a": what stands before the paths of its calls. */
static void split_logs_url(const char *url, struct service_target *ret)
{
	const char *host = strstr(url, "://");

	host = host != NULL ? host + 3 : url;
	size_t len = strcspn(host, "/?#");
	ret->host = strncmp(url, "http+unix:", 10) == 0 ? STR("localhost") : (struct str){host, len};
	ret->prefix = (struct str){host + len, strcspn(host + len, "?#")};
	if (str_ends_with(ret->prefix, STR("/logs")))
		ret->prefix.len -= strlen("/logs");
}

/* A connection that was asked on before is asked again. */
static void begin_request(struct joint *j)
{
	counts_of(j)->requests++;
	j->moved = false;
	j->chunks = (struct service_chunks){0};
	service_reply_fini(&j->reply);
	j->heard = false;
	if (j->io != NULL) {
		j->state = STATE_OPEN;
		wait_for(j, IDLE_WAIT_NS);
		return;
	}
	j->state = STATE_CONNECTING;
	wait_for(j, CONNECT_WAIT_NS + NS_PER_S);
	j->service->connect(j);
}

/* Whoever ends between two requests is done. */
static void head_is_not_whole(struct joint *j)
{
	struct err err = {0};

	if (!j->guest_ended)
		return;
	if (j->in.len == 0) {
		finish(j);
		return;
	}
	(void)err_set(&err, ERR_INVALID, "the request ended before it was whole");
	fail(j, &err);
}

static void take_head(struct joint *j)
{
	struct service_target target = {
		.calls = j->service->calls, .count = j->service->call_count, .token = j->all->opts.token};
	struct stream *st = j->stream;
	struct err err = {0};
	size_t size = 0;

	int rc = service_head_size(buf_str(&j->in), &size, &err);
	if (rc == SERVICE_HEAD_PARTIAL) {
		head_is_not_whole(j);
		return;
	}
	split_logs_url(j->all->logs_url, &target);
	/* Once: growing would leave a copy of the token behind. */
	if (j->out.cap == 0)
		(void)buf_reserve(&j->out, OUT_MAX + 4 * SERVICE_HEAD_MAX);
	if (rc == 0)
		rc = service_head_rewrite(j->in.data, size, &target, &j->out, &j->request, &err);
	if (rc < 0) {
		fail(j, &err);
		return;
	}
	buf_consume(&j->in, size);
	stream_consumed(st, size);
	if (j->stream == st) /* credit is sent, and that may end it */
		begin_request(j);
}

/* --- what the guest sends --- */

static void go_on(struct joint *j)
{
	if (j->state == STATE_HEAD && !j->busy)
		take_head(j);
	if (j->stream != NULL && j->state == STATE_OPEN && !j->done)
		turn(j);
}

static void on_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct joint *j = ctx;

	(void)part;
	if (j->state == STATE_ANSWERED || j->done) {
		stream_consumed(st, bytes.len);
		return;
	}
	if (j->state == STATE_HEAD && j->before && j->in.len == 0)
		wait_for(j, HEAD_WAIT_NS);
	buf_append_str(&j->in, bytes);
	go_on(j);
}

/* A request that is whole is answered still. */
static void on_ended(void *ctx, struct stream *st)
{
	struct joint *j = ctx;

	(void)st;
	j->guest_ended = true;
	if (j->state != STATE_ANSWERED && !j->done)
		go_on(j);
}

static void on_room(void *ctx, struct stream *st)
{
	struct joint *j = ctx;

	(void)st;
	if (j->io != NULL)
		turn(j);
}

static const struct stream_ops stream_ops = {.data = on_data, .ended = on_ended, .room = on_room, .closed = on_closed};

/* --- streams --- */

static void begin(struct services *s, const struct service *service, struct stream *st, struct err *err)
{
	struct joint *j = xcalloc(1, sizeof(*j));

	j->fd = -1;
	if (loop_add_timer(s->opts.loop, LOOP_NEVER, LOOP_NORMAL, on_late, j, &j->timer, err) < 0) {
		joint_free(j);
		return;
	}
	j->all = s;
	j->service = service;
	j->stream = st;
	j->next = s->joints;
	s->joints = j;
	stream_accept(st, &stream_ops, j);
	if (service->calls != NULL) {
		wait_for(j, HEAD_WAIT_NS);
		return;
	}
	counts_of(j)->requests++;
	j->request.length = INT64_MAX;
	j->state = STATE_CONNECTING;
	wait_for(j, CONNECT_WAIT_NS);
	service->connect(j);
}

void services_open(struct services *s, const char *name, struct stream *st, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (strcmp(services[i].name, name) != 0)
			continue;
		if (services[i].there(s))
			begin(s, &services[i], st, err);
		else
			(void)err_set(err, ERR_UNAVAILABLE, "this job has no service '%s'", services[i].name);
		s->counts.refused[SHIM_REFUSAL_NO_SERVICE] += !services[i].there(s);
		return;
	}
	s->counts.refused[SHIM_REFUSAL_NO_SERVICE]++;
	(void)err_set(err, ERR_NOT_FOUND, "there is no such service");
}

void services_redirect(struct services *s, const char *logs_url)
{
	if (s->logs_url == NULL)
		return;
	bool moved = strcmp(s->logs_url, logs_url) != 0;

	free(s->logs_url);
	s->logs_url = xstrdup(logs_url);
	for (struct joint *j = s->joints; moved && j != NULL; j = j->next) {
		j->moved = j->service->id == SHIM_SERVICE_LOGS;
		if (j->moved && j->state == STATE_HEAD)
			disconnect(j);
	}
}

void services_counts(const struct services *s, struct shim_served *ret)
{
	*ret = s->counts;
	for (const struct joint *j = s->joints; j != NULL; j = j->next)
		ret->each[j->service->id].streams += j->stream != NULL;
}

int services_new(const struct services_opts *opts, struct services **ret, struct err *err)
{
	autoptr(services) s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	s->logs_url = opts->logs_url != NULL ? xstrdup(opts->logs_url) : NULL;
	int rc = http_client_new(opts->loop, &s->client, err);
	if (rc == 0)
		rc = loop_add_timer(opts->loop, LOOP_NEVER, LOOP_NORMAL, on_reap, s, &s->reaper, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

void services_free(struct services *s)
{
	if (s == NULL)
		return;
	for (struct joint *j = s->joints, *next = NULL; j != NULL; j = next) {
		next = j->next;
		if (j->stream != NULL)
			stream_close(j->stream, GUEST_CLOSE_FAILED, "the job is over");
		joint_free(j);
	}
	http_client_free(s->client);
	loop_source_free(s->reaper);
	free(s->logs_url);
	free(s);
}
