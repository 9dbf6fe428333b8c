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
#include "shim/service_head.h"

enum {
	CHUNK = 16 * 1024,
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

/* HEAD: of the request, not whole yet. ANSWERED: by us; what still comes is thrown away. */
enum state { STATE_HEAD, STATE_CONNECTING, STATE_OPEN, STATE_ANSWERED };

/* One stream of the guest, and the connection that it is joined to. */
struct joint {
	struct services *all;
	struct joint *next;
	struct stream *stream; /* NULL: closed */
	const struct service *service;
	enum state state;
	struct buf in;	   /* a head that is not whole */
	struct buf out;	   /* for the service; may hold the token */
	size_t out_guests; /* so many of these bytes, the last, are the guest's */
	int64_t body;	   /* bytes that the request still has; -1: no end is known */
	bool guest_ended;
	bool heard; /* the service has answered something */
	bool done;  /* the service has said all */
	bool busy;  /* in turn(): what comes from within is seen there */
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
	char *logs_url;
	struct http_client *client;
	struct joint *joints;
	struct loop_source *reaper; /* closed joints are freed from the loop */
};

/* --- the table --- */

struct service {
	const char *name;
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
	{"logs", 8002, "NIMBUS_LOGS_URL", "http://127.0.0.1:8002", logs_calls, ARRAY_LEN(logs_calls), logs_are_there,
	 connect_logs},
	{"dns", DNS_PORT, NULL, NULL, NULL, 0, names_are_there, connect_resolver},
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
	j->out_guests = 0;
}

static void joint_free(struct joint *j)
{
	disconnect(j);
	wipe_out(j);
	loop_source_free(j->timer);
	buf_fini(&j->in);
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
	} texts[] = {{400, "Bad Request"},     {404, "Not Found"},
		     {408, "Request Timeout"}, {431, "Header Fields Too Large"},
		     {502, "Bad Gateway"},     {504, "Gateway Timeout"}};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (texts[i].status == status)
			return texts[i].text;
	}
	return "Error";
}

static void write_answer(int status, const struct err *err, struct buf *out)
{
	autoptr(js) object = js_new_object();
	autovar(buf) body = {0};

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

/* The guest's bytes are thrown away from here on; what it still sends needs no room. */
static void answer(struct joint *j, int status, const struct err *err)
{
	autovar(buf) text = {0};
	size_t owed = j->in.len + j->out_guests;
	struct stream *stream = j->stream;

	disconnect(j);
	wipe_out(j);
	buf_fini(&j->in);
	j->in = (struct buf){0};
	j->state = STATE_ANSWERED;
	wait_for(j, IDLE_WAIT_NS);
	write_answer(status, err, &text);
	/* Nothing was sent before it, so there is room. */
	assert(text.len <= stream_room(stream));
	stream_send(stream, buf_str(&text));
	/* Each of these may end it, which clears j->stream. */
	if (j->stream != NULL)
		stream_consumed(stream, owed);
	if (j->stream != NULL)
		stream_end(stream);
}

/* The service is away, or breaks off. A part of an answer can only be cut. */
static void fail(struct joint *j, int status, const struct err *err)
{
	if (j->service->calls != NULL && !j->heard)
		answer(j, status, err);
	else
		close_failed(j, err->msg);
}

static void on_late(void *ctx)
{
	struct joint *j = ctx;
	struct err err = {0};

	if (j->state == STATE_HEAD) {
		(void)err_set(&err, ERR_TOO_SLOW, "the request's head did not come in time");
		fail(j, 408, &err);
	} else if (j->state == STATE_ANSWERED || j->done) {
		stream_close(j->stream, GUEST_CLOSE_OK, "");
	} else if (j->state == STATE_CONNECTING && j->resolver_count > 0) {
		next_resolver(j);
	} else {
		(void)err_set(&err, ERR_TIMEOUT, "the service '%s' is silent", j->service->name);
		fail(j, 504, &err);
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

/* What went out of `out`, from its front; the guest's part of it is at its end. */
static void drop_sent(struct joint *j, size_t sent)
{
	size_t left = j->out.len - sent;
	size_t guests = left < j->out_guests ? j->out_guests - left : 0;

	memmove(j->out.data, j->out.data + sent, left);
	secret_wipe(j->out.data + left, sent);
	j->out.len = left;
	j->out_guests -= guests;
	stream_consumed(j->stream, guests);
}

/* What is not HTTP ends its direction when the guest does. */
static void end_sending(struct joint *j)
{
	if (j->guest_ended && j->out.len == 0 && j->service->calls == NULL && !j->datagrams && j->state == STATE_OPEN)
		(void)shutdown(j->fd, SHUT_WR);
}

/* A service that takes no more may still have an answer to give: that is seen by reading. */
static void push(struct joint *j)
{
	while (j->stream != NULL && j->out.len > 0) {
		size_t sent = 0;
		int rc = send_some(j, buf_str(&j->out), &sent, NULL);
		if (rc < 0)
			drop_sent(j, j->out.len);
		if (rc != 0)
			return;
		wait_for(j, IDLE_WAIT_NS);
		drop_sent(j, sent);
	}
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
		if (rc != 0)
			return rc;
		j->heard = true;
		wait_for(j, IDLE_WAIT_NS);
		stream_send(j->stream, (struct str){bytes, got});
	}
	return 0;
}

/* It has said all; the guest hears the rest of it and ends its side. */
static void finish(struct joint *j)
{
	struct err err = {0};

	if (!j->heard && j->service->calls != NULL) {
		(void)err_set(&err, ERR_UNAVAILABLE, "the service '%s' closed the connection without an answer",
			      j->service->name);
		answer(j, 502, &err);
		return;
	}
	struct stream *stream = j->stream;
	size_t owed = j->out_guests;

	disconnect(j);
	wipe_out(j);
	j->done = true;
	stream_consumed(stream, owed);
	if (j->stream != NULL) /* else it has ended by that */
		stream_end(stream);
}

static void turn(struct joint *j)
{
	struct err err = {0};

	if (j->busy)
		return;
	j->busy = true;
	push(j);
	end_sending(j);
	int rc = pull(j, &err);
	j->busy = false;
	if (j->stream == NULL)
		return;
	if (rc == HTTP_CLOSED)
		finish(j);
	else if (rc < 0)
		fail(j, 502, &err);
	else
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
		fail(j, 502, &err);
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
	fail(j, 502, &why);
}

static void connect_logs(struct joint *j)
{
	const struct http_call call = {.url = j->all->logs_url, .timeout_ns = CONNECT_WAIT_NS, .connect_only = true};
	struct err err = {0};

	if (http_client_start(j->all->client, &call, on_logs_connected, j, &j->pending, &err) < 0)
		fail(j, 502, &err);
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

/* By datagrams to the first: who asked asks again, or says that it does not answer. */
static void use_datagrams(struct joint *j)
{
	const struct sockaddr_storage *to = &j->resolvers[0];

	j->fd = socket(to->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (j->fd < 0 || connect(j->fd, (const struct sockaddr *)to, sizeof(*to)) != 0) {
		close_failed(j, "no resolver of the host answers");
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
		close_failed(j, "the host's resolv.conf names no resolver");
}

static void connect_resolver(struct joint *j)
{
	read_resolvers(j);
	next_resolver(j);
}

/* --- what the guest sends --- */

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

/* So many bytes of the body are passed on; more than the request has are not. */
static void take_body(struct joint *j, struct str bytes)
{
	size_t len = j->body >= 0 && (uint64_t)j->body < bytes.len ? (size_t)j->body : bytes.len;

	buf_append(&j->out, bytes.data, len);
	j->out_guests += len;
	if (j->body >= 0)
		j->body -= (int64_t)len;
	if (len < bytes.len)
		stream_consumed(j->stream, bytes.len - len);
}

static void take_head(struct joint *j)
{
	struct service_target target = {
		.calls = j->service->calls, .count = j->service->call_count, .token = j->all->opts.token};
	struct err err = {0};
	size_t size = 0;

	int rc = service_head_size(buf_str(&j->in), &size, &err);
	if (rc == SERVICE_HEAD_PARTIAL)
		return;
	split_logs_url(j->all->logs_url, &target);
	/* Once: growing would leave a copy of the token behind. */
	(void)buf_reserve(&j->out, GUEST_CREDIT_START + 4 * SERVICE_HEAD_MAX);
	if (rc == 0)
		rc = service_head_rewrite(j->in.data, size, &target, &j->out, &j->body, &err);
	if (rc < 0) {
		answer(j, err_info(err.code)->http_status, &err);
		return;
	}
	autovar(buf) in = j->in;
	j->in = (struct buf){0};
	j->state = STATE_CONNECTING;
	wait_for(j, CONNECT_WAIT_NS + NS_PER_S);
	stream_consumed(j->stream, size);
	take_body(j, (struct str){in.data + size, in.len - size});
	j->service->connect(j);
}

static void on_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct joint *j = ctx;

	(void)part;
	if (j->state == STATE_ANSWERED || j->done) {
		stream_consumed(st, bytes.len);
	} else if (j->state == STATE_HEAD) {
		buf_append_str(&j->in, bytes);
		take_head(j);
	} else {
		take_body(j, bytes);
		if (j->state == STATE_OPEN)
			turn(j);
	}
}

/* A request that is whole is answered still. */
static void on_ended(void *ctx, struct stream *st)
{
	struct joint *j = ctx;
	struct err err = {0};

	(void)st;
	j->guest_ended = true;
	if (j->service->calls == NULL) {
		end_sending(j);
	} else if (j->state == STATE_HEAD || (j->state != STATE_ANSWERED && j->body > 0)) {
		(void)err_set(&err, ERR_INVALID, "the request ended before it was whole");
		fail(j, 400, &err);
	}
}

static void on_room(void *ctx, struct stream *st)
{
	struct joint *j = ctx;

	(void)st;
	if (j->state == STATE_OPEN && !j->done)
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
	j->body = -1;
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
		return;
	}
	(void)err_set(err, ERR_NOT_FOUND, "there is no such service");
}

void services_redirect(struct services *s, const char *logs_url)
{
	if (s->logs_url == NULL)
		return;
	free(s->logs_url);
	s->logs_url = xstrdup(logs_url);
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
