/*
 * The server driven over real sockets, with raw bytes where they matter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_server.h"

enum { PATIENCE_S = 60 };

/* --- the role --- */

struct role {
	struct http_server *server;
	struct http_wait_list *list;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	int blocked;   /* handlers of /block that run */
	bool released; /* they may end */
	int delivered;
	int lost;
	char order[256]; /* names of waiters as they were woken */
	int sinks_freed;
	int streams_freed;
	char stream_text[64]; /* what a stream gives next */
	bool stream_ended;
	int observed;
};

static int64_t patience(void)
{
	return clock_monotonic_ns() + PATIENCE_S * NS_PER_S;
}

static void role_wait_locked(struct role *role)
{
	struct timespec until = {.tv_sec = patience() / NS_PER_S};

	assert_int_equal(pthread_cond_timedwait(&role->changed, &role->lock, &until), 0);
}

static void role_await(struct role *role, const int *number, int least)
{
	pthread_mutex_lock(&role->lock);
	while (*number < least)
		role_wait_locked(role);
	pthread_mutex_unlock(&role->lock);
}

static void role_add(struct role *role, int *number)
{
	pthread_mutex_lock(&role->lock);
	++*number;
	pthread_cond_broadcast(&role->changed);
	pthread_mutex_unlock(&role->lock);
}

static int hello(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_text(req, 200, "hello");
}

static int echo(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_bytes(req, 200, "application/octet-stream", http_body(req));
}

static int name(void *ctx, struct http_request *req, struct err *err)
{
	int64_t number = 7;

	(void)ctx;
	int rc = http_query_i64(req, "n", 1, 10, &number, err);
	if (rc < 0)
		return rc;
	const char *text = arena_printf(http_arena(req), "%s %d %s %d", http_path_param(req, "name"), (int)number,
					http_header(req, "x-thing") != NULL ? http_header(req, "X-THING") : "-",
					(int)http_remote_is_loopback(req));
	return http_reply_text(req, 200, text);
}

static int failing(void *ctx, struct http_request *req, struct err *err)
{
	enum err_code code = (enum err_code)err_code_by_name(http_path_param(req, "code"));

	(void)ctx;
	if (http_query(req, "hint") != NULL)
		http_hint(req, http_query(req, "hint"));
	if (http_query(req, "retry") != NULL)
		http_retry_after(req, 17);
	return err_set(err, code, "the inner reason");
}

static int silent(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)req;
	(void)err;
	return 0;
}

static int object(void *ctx, struct http_request *req, struct err *err)
{
	const struct js *body = NULL;

	(void)ctx;
	int rc = http_body_js(req, &body, err);
	if (rc < 0)
		return rc;
	struct js *answer = js_new_object();
	js_set(answer, "a", js_new_int(js_int(js_get(body, "a"), -1)));
	return http_reply_js(req, 201, answer);
}

static void on_done(void *ctx, struct http_request *req, void *arg, bool delivered)
{
	struct role *role = ctx;

	assert_ptr_equal(arg, role);
	assert_non_null(http_request_id(req));
	role_add(role, delivered ? &role->delivered : &role->lost);
}

static int waiting(void *ctx, struct http_request *req, struct err *err)
{
	struct role *role = ctx;
	int64_t wait_ms = PATIENCE_S * 1000;

	int rc = http_query_i64(req, "ms", 0, 100000, &wait_ms, err);
	if (rc < 0)
		return rc;
	http_on_done(req, on_done, role);
	if (http_wait_over(req))
		return http_reply_text(req, 200, "over");
	if (!http_wait_woken(req))
		return http_park(req, role->list, clock_monotonic_ns() + wait_ms * NS_PER_MS,
				 http_path_param(req, "name"));
	pthread_mutex_lock(&role->lock);
	strncat(role->order, http_path_param(req, "name"), sizeof(role->order) - strlen(role->order) - 1);
	pthread_mutex_unlock(&role->lock);
	return http_reply_text(req, 200, "woken");
}

/* Looks, is overtaken by a wake-up, and parks. */
static int overtaken(void *ctx, struct http_request *req, struct err *err)
{
	struct role *role = ctx;

	(void)err;
	if (http_wait_woken(req))
		return http_reply_text(req, 200, "woken");
	(void)http_wait_wake(role->list, 1, NULL, NULL);
	return http_park(req, role->list, patience(), NULL);
}

static int parking_for_ever(void *ctx, struct http_request *req, struct err *err)
{
	struct role *role = ctx;

	(void)err;
	return http_park(req, role->list, clock_monotonic_ns(), NULL);
}

static int blocking(void *ctx, struct http_request *req, struct err *err)
{
	struct role *role = ctx;

	(void)err;
	http_on_done(req, on_done, role);
	role_add(role, &role->blocked);
	pthread_mutex_lock(&role->lock);
	while (!role->released)
		role_wait_locked(role);
	pthread_mutex_unlock(&role->lock);
	return http_reply_text(req, 200, "unblocked");
}

struct upload {
	struct role *role;
	uint64_t bytes;
	bool bad;
};

static int upload_begin(void *ctx, struct http_request *req, void **ret, struct err *err)
{
	if (http_query(req, "refuse") != NULL)
		return err_set(err, ERR_CONFLICT, "no room");
	struct upload *upload = xcalloc(1, sizeof(*upload));
	upload->role = ctx;
	*ret = upload;
	return 0;
}

static int upload_chunk(void *state, struct str bytes, struct err *err)
{
	struct upload *upload = state;

	upload->bytes += bytes.len;
	return memchr(bytes.data, '!', bytes.len) == NULL ? 0 : err_set(err, ERR_INVALID, "a '!' in the upload");
}

static int upload_end(void *state, struct http_request *req, struct err *err)
{
	const struct upload *upload = state;

	(void)err;
	return http_reply_text(req, 201, arena_printf(http_arena(req), "%lu bytes", (unsigned long)upload->bytes));
}

static void upload_free(void *state)
{
	struct upload *upload = state;

	role_add(upload->role, &upload->role->sinks_freed);
	free(upload);
}

static const struct http_sink upload = {upload_begin, upload_chunk, upload_end, upload_free};

static ptrdiff_t stream_read(void *state, char *buf, size_t cap, bool idle)
{
	struct role *role = state;
	ptrdiff_t got = HTTP_STREAM_WAIT;

	pthread_mutex_lock(&role->lock);
	size_t len = strlen(role->stream_text);
	if (strcmp(role->stream_text, "abort") == 0) {
		got = HTTP_STREAM_ABORT;
	} else if (len > 0) {
		assert_true(len <= cap);
		memcpy(buf, role->stream_text, len);
		role->stream_text[0] = '\0';
		got = (ptrdiff_t)len;
	} else if (role->stream_ended) {
		got = HTTP_STREAM_END;
	} else if (idle) {
		buf[0] = '.';
		got = 1;
	}
	pthread_mutex_unlock(&role->lock);
	return got;
}

static void stream_free(void *state)
{
	struct role *role = state;

	role_add(role, &role->streams_freed);
}

static int streaming(void *ctx, struct http_request *req, struct err *err)
{
	struct role *role = ctx;
	int64_t idle_ms = PATIENCE_S * 1000;

	int rc = http_query_i64(req, "idle_ms", 1, 100000, &idle_ms, err);
	if (rc < 0)
		return rc;
	return http_reply_stream(req, 200,
				 &(struct http_stream){.content_type = "application/x-ndjson",
						       .read = stream_read,
						       .free = stream_free,
						       .state = role,
						       .list = role->list,
						       .tag = "stream",
						       .idle_ns = idle_ms * NS_PER_MS});
}

enum { OPEN, CLOSED };

static int authorize(void *ctx, struct http_request *req, const struct http_route *route, struct err *err)
{
	static int claims;

	(void)ctx;
	if (route->access == OPEN)
		return 0;
	struct str token = http_bearer(req);
	if (!str_eq(token, STR("sesame")))
		return err_set(err, ERR_UNAUTH, "no token");
	http_set_claims(req, &claims);
	return 0;
}

static int guarded(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_text(req, 200, http_claims(req) != NULL ? "in" : "how?");
}

static void observe(void *ctx, const struct http_route *route, int status, int64_t duration_ns)
{
	struct role *role = ctx;

	(void)route;
	(void)status;
	assert_true(duration_ns >= 0);
	role_add(role, &role->observed);
}

enum { BODY_MAX = 100000 };

static const struct http_route routes[] = {
	{"GET", "/hello", HTTP_INLINE, .handle = hello},
	{"POST", "/echo", HTTP_WORKER, .body_max = BODY_MAX, .handle = echo},
	{"POST", "/inline-echo", HTTP_INLINE, .handle = echo},
	{"GET", "/name/{name}", HTTP_WORKER, .handle = name},
	{"GET", "/fail/{code}", HTTP_INLINE, .handle = failing},
	{"GET", "/silent", HTTP_WORKER, .handle = silent},
	{"POST", "/object", HTTP_WORKER, .handle = object},
	{"GET", "/wait/{name}", HTTP_WORKER, .handle = waiting},
	{"GET", "/overtaken", HTTP_WORKER, .handle = overtaken},
	{"GET", "/for-ever", HTTP_WORKER, .handle = parking_for_ever},
	{"GET", "/block", HTTP_WORKER, .handle = blocking},
	{"POST", "/upload", HTTP_SINK, .body_max = 10 << 20, .sink = &upload},
	{"GET", "/stream", HTTP_INLINE, .handle = streaming},
	{"GET", "/stream-by-worker", HTTP_WORKER, .handle = streaming},
	{"POST", "/guarded", HTTP_WORKER, .access = CLOSED, .handle = guarded},
};

static struct role *role_new(const struct http_server_opts *given)
{
	struct http_server_opts opts = given != NULL ? *given : (struct http_server_opts){0};
	struct role *role = xcalloc(1, sizeof(*role));
	pthread_condattr_t attr;
	struct err err = {0};

	pthread_mutex_init(&role->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&role->changed, &attr);
	pthread_condattr_destroy(&attr);
	opts.routes = routes;
	opts.route_count = ARRAY_LEN(routes);
	opts.ctx = role;
	opts.authorize = authorize;
	opts.observe = observe;
	opts.io_threads = 2;
	role->server = http_server_new(&opts);
	role->list = http_wait_list_new(role->server);
	if (http_server_start(role->server, &err) < 0)
		fail_msg("%s", err.msg);
	return role;
}

static void role_free(struct role *role)
{
	http_server_stop(role->server, clock_monotonic_ns() + 5 * NS_PER_S);
	http_wait_list_free(role->list);
	http_server_free(role->server);
	pthread_mutex_destroy(&role->lock);
	pthread_cond_destroy(&role->changed);
	free(role);
}
AUTOPTR_DEFINE(role)

static void await_count(struct http_wait_list *list, size_t count)
{
	int64_t deadline_ns = patience();

	while (http_wait_count(list) != count) {
		assert_true(clock_monotonic_ns() < deadline_ns);
		(void)poll(NULL, 0, 1);
	}
}

static void await_active(const struct role *role, size_t count)
{
	int64_t deadline_ns = patience();

	while (http_server_counts(role->server).active != count) {
		assert_true(clock_monotonic_ns() < deadline_ns);
		(void)poll(NULL, 0, 1);
	}
}

/* --- the client --- */

struct client {
	int fd;
	struct buf in; /* received and not yet taken */
};

struct answer {
	int status;
	struct buf head;
	struct buf body;
	bool whole;
};

static void answer_fini(struct answer *answer)
{
	buf_fini(&answer->head);
	buf_fini(&answer->body);
}
AUTOVAR_DEFINE(answer)

static struct client client_open(const struct role *role)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(http_server_port(role->server))};
	struct timeval patience_tv = {.tv_sec = PATIENCE_S};
	struct client client = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &patience_tv, sizeof(patience_tv)), 0);
	assert_int_equal(connect(client.fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return client;
}

static void client_fini(struct client *client)
{
	fd_close(&client->fd);
	buf_fini(&client->in);
}
AUTOVAR_DEFINE(client)

/* What the peer refuses to take is dropped: it has answered. */
static void client_send(struct client *client, struct str bytes)
{
	while (bytes.len > 0) {
		ssize_t done = send(client->fd, bytes.data, bytes.len, MSG_NOSIGNAL);
		if (done < 0)
			return;
		bytes.data += done;
		bytes.len -= (size_t)done;
	}
}

static void client_ask(struct client *client, const char *method, const char *path, const char *headers,
		       struct str body)
{
	autovar(buf) text = {0};

	buf_printf(&text, "%s %s HTTP/1.1\r\nHost: x\r\n%s", method, path, headers);
	if (body.data != NULL)
		buf_printf(&text, "Content-Length: %zu\r\n", body.len);
	buf_puts(&text, "\r\n");
	buf_append_str(&text, body);
	client_send(client, buf_str(&text));
}

static bool client_more(struct client *client)
{
	char *to = buf_reserve(&client->in, 65536);
	ssize_t got = recv(client->fd, to, 65536, 0);

	if (got < 0 && errno == ECONNRESET)
		return false;
	assert_true(got >= 0);
	client->in.len += (size_t)got;
	client->in.data[client->in.len] = '\0';
	return got > 0;
}

static const char *header_of(const struct answer *answer, const char *name)
{
	static _Thread_local char value[256];
	struct str rest = buf_str(&answer->head);

	while (rest.data != NULL) {
		struct str line = str_cut(&rest, '\n');
		struct str key = str_cut(&line, ':');
		if (key.len == strlen(name) && strncasecmp(key.data, name, key.len) == 0) {
			(void)snprintf(value, sizeof(value), "%.*s", STR_ARG(str_trim(line)));
			return value;
		}
	}
	return NULL;
}

/* False: the connection ended before a head came. */
static bool client_head(struct client *client, struct answer *answer)
{
	char *end = NULL;

	while (client->in.len == 0 || (end = strstr(client->in.data, "\r\n\r\n")) == NULL) {
		if (!client_more(client))
			return false;
	}
	size_t len = (size_t)(end - client->in.data) + 2;
	buf_clear(&answer->head);
	buf_append(&answer->head, client->in.data, len);
	buf_consume(&client->in, len + 2);
	assert_int_equal(sscanf(answer->head.data, "HTTP/1.1 %d", &answer->status), 1);
	return true;
}

/* One chunk; false at the last one, or where the connection ended. */
static bool client_chunk(struct client *client, struct answer *answer)
{
	char *line = NULL;
	unsigned size = 0;

	while (client->in.len == 0 || (line = strstr(client->in.data, "\r\n")) == NULL) {
		if (!client_more(client))
			return false;
	}
	assert_int_equal(sscanf(client->in.data, "%x", &size), 1);
	size_t head = (size_t)(line - client->in.data) + 2;
	while (client->in.len < head + size + 2) {
		if (!client_more(client))
			return false;
	}
	buf_append(&answer->body, client->in.data + head, size);
	buf_consume(&client->in, head + size + 2);
	answer->whole = size == 0;
	return size > 0;
}

static bool client_answer(struct client *client, struct answer *answer)
{
	*answer = (struct answer){0};
	if (!client_head(client, answer))
		return false;
	const char *length = header_of(answer, "Content-Length");
	if (length == NULL) {
		while (header_of(answer, "Transfer-Encoding") != NULL && client_chunk(client, answer))
			;
		return true;
	}
	int64_t size = 0;
	assert_int_equal(str_to_i64(str_c(length), "length", 0, INT32_MAX, &size, NULL), 0);
	while (client->in.len < (size_t)size) {
		if (!client_more(client))
			return true;
	}
	buf_append(&answer->body, client->in.data, (size_t)size);
	buf_consume(&client->in, (size_t)size);
	answer->whole = true;
	return true;
}

static bool client_closed(struct client *client)
{
	return client->in.len == 0 && !client_more(client);
}

static void expect(struct client *client, int status, const char *body)
{
	autovar(answer) answer = {0};

	assert_true(client_answer(client, &answer));
	assert_int_equal(answer.status, status);
	assert_true(answer.whole);
	if (body != NULL)
		assert_true(str_eq(buf_str(&answer.body), str_c(body)));
}

static void expect_error(struct client *client, int status, const char *code)
{
	autovar(answer) answer = {0};
	autoptr(js) body = NULL;

	assert_true(client_answer(client, &answer));
	assert_int_equal(answer.status, status);
	assert_string_equal(header_of(&answer, "Content-Type"), "application/json");
	assert_int_equal(js_parse(buf_str(&answer.body), &body, NULL), 0);
	assert_string_equal(js_text(js_get(body, "code"), ""), code);
	assert_string_equal(js_text(js_get(body, "request_id"), ""), header_of(&answer, "X-Request-Id"));
	assert_true(strlen(js_text(js_get(body, "detail"), "")) > 0);
	assert_true(strlen(js_text(js_get(body, "hint"), "")) > 0);
}

static char *filled(size_t len, char with)
{
	char *text = xmalloc(len + 1);

	memset(text, with, len);
	text[len] = '\0';
	return text;
}

#define NO_BODY ((struct str){0})

/* --- requests and answers --- */

static void requests_are_answered(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_ask(&client, "GET", "/hello", "", NO_BODY);
	expect(&client, 200, "hello");
	client_ask(&client, "POST", "/echo", "", STR("some bytes"));
	expect(&client, 200, "some bytes");
	client_ask(&client, "POST", "/echo", "", STR(""));
	expect(&client, 200, "");
	client_ask(&client, "POST", "/inline-echo", "", STR("inline"));
	expect(&client, 200, "inline");
	client_ask(&client, "GET", "//name///a%20b//?n=3", "X-Thing: t\r\n", NO_BODY);
	expect(&client, 200, "a b 3 t 1");
	client_ask(&client, "GET", "/name/b", "", NO_BODY);
	expect(&client, 200, "b 7 - 1");
	client_ask(&client, "POST", "/object", "", STR("{\"a\": 5}"));
	expect(&client, 201, "{\"a\":5}");
	/* Two at once on one connection. */
	client_send(&client, STR("GET /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /name/c HTTP/1.1\r\nHost: x\r\n\r\n"));
	expect(&client, 200, "hello");
	expect(&client, 200, "c 7 - 1");
	role_await(role, &role->observed, 9);
}

/* A proxy on this machine must not open to the world what is for this machine. */
static void who_comes_through_a_proxy_is_not_loopback(void **state)
{
	static const char *const headers[] = {"X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=127.0.0.1\r\n",
					      "via: 1.1 proxy\r\n", "X-Real-IP: ::1\r\n"};
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		client_ask(&client, "GET", "/name/b", headers[i], NO_BODY);
		expect(&client, 200, "b 7 - 0");
	}
}

static void a_chunked_body_is_one_body(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_send(&client, STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
				 "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
	expect(&client, 200, "abcde");
}

static void head_is_get_without_a_body(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autovar(answer) answer = {0};

	(void)state;
	client_ask(&client, "HEAD", "/hello", "", NO_BODY);
	assert_true(client_head(&client, &answer));
	assert_int_equal(answer.status, 200);
	assert_string_equal(header_of(&answer, "Content-Length"), "5");
	/* The next answer follows at once. */
	client_ask(&client, "GET", "/hello", "", NO_BODY);
	expect(&client, 200, "hello");
}

static void errors_have_one_shape(void **state)
{
	static const struct {
		const char *method;
		const char *path;
		const char *body;
		int status;
		const char *code;
	} cases[] = {
		{"GET", "/nothing", NULL, 404, "not_found"},
		{"POST", "/hello", "x", 405, "method_not_allowed"},
		{"GET", "/%ff", NULL, 400, "invalid_request"},
		{"GET", "/name/x?n=11", NULL, 422, "invalid_field"},
		{"POST", "/object", "{\"a\":", 400, "invalid_request"},
		{"GET", "/fail/stale_fence", NULL, 409, "stale_fence"},
		{"GET", "/fail/limit_reached", NULL, 429, "limit_reached"},
		{"GET", "/fail/io_error", NULL, 500, "io_error"},
		{"GET", "/fail/unavailable", NULL, 503, "unavailable"},
		{"GET", "/silent", NULL, 500, "internal_error"},
		{"GET", "/for-ever", NULL, 500, "internal_error"},
		{"POST", "/guarded", "x", 401, "unauthorized"},
		{"POST", "/upload?refuse", "x", 409, "conflict"},
	};
	autoptr(role) role = role_new(NULL);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(client) client = client_open(role);
		client_ask(&client, cases[i].method, cases[i].path, "", str_c(cases[i].body));
		expect_error(&client, cases[i].status, cases[i].code);
	}
}

static void answers_carry_their_headers(void **state)
{
	static const struct {
		const char *method;
		const char *path;
		const char *header;
		const char *value;
	} cases[] = {
		{"DELETE", "/hello", "Allow", "GET, HEAD"},
		{"GET", "/fail/limit_reached", "Retry-After", "1"},
		{"GET", "/fail/unavailable?retry", "Retry-After", "17"},
		{"POST", "/guarded", "WWW-Authenticate", "Bearer realm=\"nimbus\""},
		{"GET", "/hello", "X-Request-Id", "mine-1.2_3"},
	};
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(answer) answer = {0};
		client_ask(&client, cases[i].method, cases[i].path, "X-Request-Id: mine-1.2_3\r\n", NO_BODY);
		assert_true(client_answer(&client, &answer));
		assert_string_equal(header_of(&answer, cases[i].header), cases[i].value);
	}
}

static void a_bad_request_id_is_replaced(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autovar(answer) answer = {0};

	(void)state;
	client_ask(&client, "GET", "/hello", "X-Request-Id: a b\"c\r\n", NO_BODY);
	assert_true(client_answer(&client, &answer));
	assert_int_equal(strlen(header_of(&answer, "X-Request-Id")), 16);
}

static void the_inside_stays_inside(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autovar(answer) inner = {0};
	autovar(answer) outer = {0};

	(void)state;
	client_ask(&client, "GET", "/fail/io_error", "", NO_BODY);
	assert_true(client_answer(&client, &inner));
	assert_null(strstr(inner.body.data, "the inner reason"));
	client_ask(&client, "GET", "/fail/conflict?hint=do+this", "", NO_BODY);
	assert_true(client_answer(&client, &outer));
	assert_non_null(strstr(outer.body.data, "the inner reason"));
	assert_non_null(strstr(outer.body.data, "do this"));
}

static void a_token_opens_a_guarded_route(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_ask(&client, "POST", "/guarded", "Authorization: bearer sesame\r\n", STR("x"));
	expect(&client, 200, "in");
	client_ask(&client, "POST", "/guarded", "Authorization: bearer open\r\n", STR("x"));
	expect_error(&client, 401, "unauthorized");
}

static void two_lengths_are_refused(void **state)
{
	static const char *const lengths[] = {
		"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
		"Content-Length: 3\r\nContent-Length: 4\r\n",
		"Content-Length: -1\r\n",
		"Content-Length: 3x\r\n",
	};
	autoptr(role) role = role_new(NULL);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		autovar(client) client = client_open(role);
		autovar(answer) answer = {0};
		client_ask(&client, "POST", "/echo", lengths[i], NO_BODY);
		client_send(&client, STR("abc"));
		assert_true(client_answer(&client, &answer));
		assert_int_equal(answer.status, 400);
		while (client_more(&client))
			;
	}
}

/* --- limits --- */

static void large_headers_get_431(void **state)
{
	static const size_t sizes[] = {33 * 1024, 40 * 1024};
	autoptr(role) role = role_new(NULL);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		autovar(client) client = client_open(role);
		autovar(buf) headers = {0};
		autofree char *value = filled(sizes[i], 'v');
		buf_printf(&headers, "X-Large: %s\r\n", value);
		client_ask(&client, "GET", "/hello", headers.data, NO_BODY);
		expect_error(&client, 431, "headers_too_large");
	}
	/* What does not even fit the connection's buffer gets the library's own page. */
	autovar(client) client = client_open(role);
	autovar(answer) answer = {0};
	autovar(buf) headers = {0};
	autofree char *value = filled(60 * 1024, 'v');
	buf_printf(&headers, "X-Large: %s\r\n", value);
	client_ask(&client, "GET", "/hello", headers.data, NO_BODY);
	assert_true(client_answer(&client, &answer));
	assert_int_equal(answer.status, 431);
}

static void headers_below_the_limit_pass(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autovar(buf) headers = {0};
	autofree char *value = filled(300, 'v');

	(void)state;
	for (int i = 0; i < 95; i++)
		buf_printf(&headers, "X-Large-%d: %s\r\n", i, value);
	client_ask(&client, "GET", "/hello", headers.data, NO_BODY);
	expect(&client, 200, "hello");
}

static void a_body_at_its_limit_passes(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autofree char *body = filled(BODY_MAX, 'b');

	(void)state;
	client_ask(&client, "POST", "/echo", "", str_c(body));
	expect(&client, 200, body);
}

static void a_body_over_its_limit_is_dropped_and_answered(void **state)
{
	enum { LARGE = 30 << 20 };
	autoptr(role) role = role_new(NULL);
	autofree char *body = filled(LARGE, 'b');
	autovar(client) known = client_open(role);
	autovar(client) chunked = client_open(role);

	(void)state;
	client_ask(&known, "POST", "/echo", "", str_c(body));
	expect_error(&known, 413, "too_large");
	assert_true(client_closed(&known));

	client_send(&chunked, STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1e00000\r\n"));
	client_send(&chunked, (struct str){body, LARGE});
	client_send(&chunked, STR("\r\n0\r\n\r\n"));
	expect_error(&chunked, 413, "too_large");
}

static void who_asks_before_sending_is_answered_at_once(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) refused = client_open(role);
	autovar(client) allowed = client_open(role);
	autovar(answer) go_on = {0};

	(void)state;
	client_send(&refused, STR("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
				  "Content-Length: 99999999\r\n\r\n"));
	expect_error(&refused, 413, "too_large");
	client_send(&allowed, STR("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
				  "Content-Length: 3\r\n\r\n"));
	assert_true(client_head(&allowed, &go_on));
	assert_int_equal(go_on.status, 100);
	client_send(&allowed, STR("abc"));
	expect(&allowed, 200, "abc");
}

static void a_refused_body_that_never_ends_is_cut(void **state)
{
	autoptr(role) role = role_new(&(struct http_server_opts){.drop_timeout_ns = NS_PER_S / 10});
	autovar(client) silent_one = client_open(role);
	autovar(client) endless = client_open(role);
	autofree char *body = filled(1 << 20, 'b');
	autovar(buf) chunk = {0};

	(void)state;
	client_send(&silent_one, STR("POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"));
	assert_true(client_closed(&silent_one));

	client_send(&endless, STR("POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
	buf_printf(&chunk, "%x\r\n%s\r\n", 1 << 20, body);
	int64_t deadline_ns = patience();
	ssize_t sent = 0;
	while (sent >= 0 && clock_monotonic_ns() < deadline_ns)
		sent = send(endless.fd, chunk.data, chunk.len, MSG_NOSIGNAL);
	assert_true(sent < 0);
}

static void a_body_that_trickles_in_is_cut(void **state)
{
	autoptr(role) role = role_new(&(struct http_server_opts){.body_timeout_ns = 1});
	autovar(client) slow = client_open(role);
	autovar(client) uploader = client_open(role);

	(void)state;
	client_send(&slow, STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na"));
	assert_true(client_closed(&slow));
	/* What a sink takes is not kept here. */
	client_ask(&uploader, "POST", "/upload", "", STR("abc"));
	expect(&uploader, 201, "3 bytes");
}

static void a_full_queue_sheds(void **state)
{
	autoptr(role) role = role_new(&(struct http_server_opts){.workers = 1, .queue_max = 1});
	autovar(client) first = client_open(role);
	autovar(client) second = client_open(role);
	autovar(client) third = client_open(role);
	int64_t deadline_ns = patience();

	(void)state;
	client_ask(&first, "GET", "/block", "", NO_BODY);
	role_await(role, &role->blocked, 1);
	client_ask(&second, "GET", "/block", "", NO_BODY);
	while (http_server_counts(role->server).queued != 1 && clock_monotonic_ns() < deadline_ns)
		(void)poll(NULL, 0, 1);
	client_ask(&third, "GET", "/name/x", "", NO_BODY);
	expect_error(&third, 503, "unavailable");
	/* Inline routes still answer. */
	client_ask(&third, "GET", "/hello", "", NO_BODY);
	expect(&third, 200, "hello");
	pthread_mutex_lock(&role->lock);
	role->released = true;
	pthread_cond_broadcast(&role->changed);
	pthread_mutex_unlock(&role->lock);
	expect(&first, 200, "unblocked");
	expect(&second, 200, "unblocked");
}

/* --- sinks --- */

static void a_sink_takes_a_body_in_pieces(void **state)
{
	enum { LARGE = 5 << 20 };
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autofree char *body = filled(LARGE, 'b');

	(void)state;
	client_ask(&client, "POST", "/upload", "", str_c(body));
	expect(&client, 201, "5242880 bytes");
	role_await(role, &role->sinks_freed, 1);
	body[LARGE / 2] = '!';
	client_ask(&client, "POST", "/upload", "", str_c(body));
	expect_error(&client, 400, "invalid_request");
	role_await(role, &role->sinks_freed, 2);
}

static void an_upload_that_is_cut_frees_its_sink(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_send(&client, STR("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"));
	await_active(role, 1);
	client_fini(&client);
	role_await(role, &role->sinks_freed, 1);
}

/* --- waits --- */

static bool is_named(void *match_ctx, const void *tag)
{
	return tag != NULL && strcmp(match_ctx, tag) == 0;
}

static void waiters_are_woken_in_order(void **state)
{
	static const char *const paths[] = {"/wait/a", "/wait/b", "/wait/c", "/wait/d"};
	autoptr(role) role = role_new(NULL);
	struct client clients[ARRAY_LEN(paths)];
	char named[] = "c";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		clients[i] = client_open(role);
		client_ask(&clients[i], "GET", paths[i], "", NO_BODY);
		await_count(role->list, i + 1);
	}
	assert_int_equal(http_server_counts(role->server).waiting, 4);
	assert_int_equal(http_wait_wake(role->list, SIZE_MAX, is_named, named), 1);
	expect(&clients[2], 200, "woken");
	assert_int_equal(http_wait_wake(role->list, 1, NULL, NULL), 1);
	expect(&clients[0], 200, "woken");
	assert_int_equal(http_wait_wake(role->list, 1, NULL, NULL), 1);
	expect(&clients[1], 200, "woken");
	assert_int_equal(http_wait_wake(role->list, 5, is_named, named), 0);
	assert_int_equal(http_wait_wake(role->list, 5, NULL, NULL), 1);
	expect(&clients[3], 200, "woken");
	role_await(role, &role->delivered, 4);
	assert_string_equal(role->order, "cabd");
	/* The connection is as good as new. */
	client_ask(&clients[0], "GET", "/hello", "", NO_BODY);
	expect(&clients[0], 200, "hello");
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		client_fini(&clients[i]);
}

static void a_deadline_ends_a_wait(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) late = client_open(role);
	autovar(client) early = client_open(role);
	autovar(client) now = client_open(role);

	(void)state;
	client_ask(&late, "GET", "/wait/late", "", NO_BODY);
	await_count(role->list, 1);
	client_ask(&early, "GET", "/wait/early?ms=20", "", NO_BODY);
	expect(&early, 200, "over");
	client_ask(&now, "GET", "/wait/now?ms=0", "", NO_BODY);
	expect(&now, 200, "over");
	assert_int_equal(http_wait_count(role->list), 1);
}

static void a_wakeup_between_looking_and_parking_is_not_lost(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_ask(&client, "GET", "/overtaken", "", NO_BODY);
	expect(&client, 200, "woken");
}

static void a_hangup_frees_the_wait(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) stays = client_open(role);
	autovar(client) goes = client_open(role);

	(void)state;
	client_ask(&stays, "GET", "/wait/stays", "", NO_BODY);
	client_ask(&goes, "GET", "/wait/goes", "", NO_BODY);
	await_count(role->list, 2);
	client_fini(&goes);
	await_count(role->list, 1);
	role_await(role, &role->lost, 1);
	assert_int_equal(http_wait_wake(role->list, 9, NULL, NULL), 1);
	expect(&stays, 200, "woken");
	role_await(role, &role->delivered, 1);
	assert_int_equal(role->lost, 1);
}

static void an_answer_to_nobody_is_told(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_ask(&client, "GET", "/block", "", NO_BODY);
	role_await(role, &role->blocked, 1);
	client_fini(&client);
	pthread_mutex_lock(&role->lock);
	role->released = true;
	pthread_cond_broadcast(&role->changed);
	pthread_mutex_unlock(&role->lock);
	role_await(role, &role->lost, 1);
	assert_int_equal(role->delivered, 0);
}

static void a_thousand_wait_without_threads(void **state)
{
	enum { MANY = 1000 };
	struct rlimit limit;
	autoptr(role) role = role_new(NULL);
	struct client *clients = xcalloc(MANY, sizeof(*clients));

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur < 2 * MANY + 100) {
		free(clients);
		skip();
	}
	for (int i = 0; i < MANY; i++) {
		clients[i] = client_open(role);
		client_ask(&clients[i], "GET", i % 2 == 0 ? "/wait/even" : "/wait/odd", "", NO_BODY);
	}
	await_count(role->list, MANY);
	/* A quarter hangs up, the odd ones among the rest are woken, then all others. */
	for (int i = 0; i < MANY; i += 4)
		client_fini(&clients[i]);
	await_count(role->list, MANY - MANY / 4);
	char odd[] = "odd";
	assert_int_equal(http_wait_wake(role->list, SIZE_MAX, is_named, odd), MANY / 2);
	for (int i = 1; i < MANY; i += 2)
		expect(&clients[i], 200, "woken");
	assert_int_equal(http_wait_wake(role->list, SIZE_MAX, NULL, NULL), MANY / 4);
	for (int i = 2; i < MANY; i += 4)
		expect(&clients[i], 200, "woken");
	role_await(role, &role->lost, MANY / 4);
	role_await(role, &role->delivered, MANY - MANY / 4);
	for (int i = 0; i < MANY; i++)
		client_fini(&clients[i]);
	free(clients);
}

/* --- streams --- */

static void stream_give(struct role *role, const char *text, bool end)
{
	pthread_mutex_lock(&role->lock);
	(void)snprintf(role->stream_text, sizeof(role->stream_text), "%s", text);
	role->stream_ended = end;
	pthread_mutex_unlock(&role->lock);
	(void)http_wait_wake(role->list, SIZE_MAX, NULL, NULL);
}

static void a_stream_sleeps_and_goes_on(void **state)
{
	static const char *const paths[] = {"/stream", "/stream-by-worker"};
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		autovar(answer) answer = {0};
		stream_give(role, "", false);
		client_ask(&client, "GET", paths[i], "", NO_BODY);
		assert_true(client_head(&client, &answer));
		assert_string_equal(header_of(&answer, "Content-Type"), "application/x-ndjson");
		await_count(role->list, 1);
		stream_give(role, "one\n", false);
		assert_true(client_chunk(&client, &answer));
		await_count(role->list, 1);
		stream_give(role, "two\n", true);
		while (client_chunk(&client, &answer))
			;
		assert_true(answer.whole);
		assert_true(str_eq(buf_str(&answer.body), STR("one\ntwo\n")));
		role_await(role, &role->streams_freed, (int)i + 1);
	}
	client_ask(&client, "HEAD", "/stream", "", NO_BODY);
	role_await(role, &role->streams_freed, 3);
}

static void an_idle_stream_shows_life(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autovar(answer) answer = {0};

	(void)state;
	client_ask(&client, "GET", "/stream?idle_ms=5", "", NO_BODY);
	assert_true(client_head(&client, &answer));
	for (int i = 0; i < 3; i++)
		assert_true(client_chunk(&client, &answer));
	assert_true(str_starts_with(buf_str(&answer.body), STR("...")));
	client_fini(&client);
	role_await(role, &role->streams_freed, 1);
}

static void a_reader_that_leaves_frees_its_stream(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_ask(&client, "GET", "/stream", "", NO_BODY);
	await_count(role->list, 1);
	client_fini(&client);
	role_await(role, &role->streams_freed, 1);
	assert_int_equal(http_wait_count(role->list), 0);
}

static void an_aborted_stream_is_seen_to_be_cut(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);
	autovar(answer) answer = {0};

	(void)state;
	client_ask(&client, "GET", "/stream", "", NO_BODY);
	assert_true(client_head(&client, &answer));
	await_count(role->list, 1);
	stream_give(role, "abort", false);
	assert_false(client_chunk(&client, &answer));
	assert_false(answer.whole);
}

/* --- the end --- */

struct stopper {
	struct role *role;
	pthread_t thread;
	atomic_bool done;
};

static void *stop(void *arg)
{
	struct stopper *stopper = arg;

	http_server_stop(stopper->role->server, patience());
	atomic_store(&stopper->done, true);
	return NULL;
}

static void a_drain_ends_waits_and_streams_and_lets_work_finish(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) idle = client_open(role);
	autovar(client) waits = client_open(role);
	autovar(client) streams = client_open(role);
	autovar(client) works = client_open(role);
	struct stopper stopper = {.role = role};

	(void)state;
	client_ask(&idle, "GET", "/hello", "", NO_BODY);
	expect(&idle, 200, "hello");
	client_ask(&waits, "GET", "/wait/x", "", NO_BODY);
	client_ask(&streams, "GET", "/stream", "", NO_BODY);
	await_count(role->list, 2);
	client_ask(&works, "GET", "/block", "", NO_BODY);
	role_await(role, &role->blocked, 1);
	assert_int_equal(pthread_create(&stopper.thread, NULL, stop, &stopper), 0);
	expect(&waits, 200, "over");
	autovar(answer) rest = {0};
	assert_true(client_answer(&streams, &rest));
	assert_true(rest.whole);
	assert_true(http_server_stopping(role->server));
	/* Who is connected is still served, and told to leave. */
	autovar(answer) last = {0};
	client_ask(&idle, "GET", "/hello", "", NO_BODY);
	assert_true(client_answer(&idle, &last));
	assert_string_equal(header_of(&last, "Connection"), "close");
	assert_false(atomic_load(&stopper.done));
	pthread_mutex_lock(&role->lock);
	role->released = true;
	pthread_cond_broadcast(&role->changed);
	pthread_mutex_unlock(&role->lock);
	expect(&works, 200, "unblocked");
	assert_int_equal(pthread_join(stopper.thread, NULL), 0);
}

/* On a new connection, and on one that has had an answer which did not say that it is the last. */
static void what_has_begun_to_come_in_is_answered(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) first = client_open(role);
	autovar(client) next = client_open(role);
	struct client *const clients[] = {&first, &next};
	struct stopper stopper = {.role = role};

	(void)state;
	client_ask(&next, "GET", "/hello", "", NO_BODY);
	expect(&next, 200, "hello");
	for (size_t i = 0; i < ARRAY_LEN(clients); i++)
		client_send(clients[i], STR("GET /hello HTTP/1.1\r\nHo"));
	assert_int_equal(pthread_create(&stopper.thread, NULL, stop, &stopper), 0);
	while (!http_server_stopping(role->server))
		clock_pause(NS_PER_MS);
	/* Longer than a server waits for requests that are only likely. */
	clock_pause(3 * NS_PER_S / 4);
	for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
		autovar(answer) last = {0};
		assert_false(atomic_load(&stopper.done));
		client_send(clients[i], STR("st: x\r\n\r\n"));
		assert_true(client_answer(clients[i], &last));
		assert_int_equal(last.status, 200);
		assert_string_equal(header_of(&last, "Connection"), "close");
	}
	assert_int_equal(pthread_join(stopper.thread, NULL), 0);
}

static void a_drain_cuts_what_does_not_end(void **state)
{
	autoptr(role) role = role_new(NULL);
	autovar(client) client = client_open(role);

	(void)state;
	client_send(&client, STR("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"));
	await_active(role, 1);
	http_server_stop(role->server, clock_monotonic_ns());
	assert_true(client_closed(&client));
	role_await(role, &role->sinks_freed, 1);
}

static void a_port_in_use_is_named_with_its_holder(void **state)
{
	autoptr(role) role = role_new(NULL);
	struct err err = {0};
	char port[16];
	char pid[32];

	(void)state;
	autoptr(http_server) second = http_server_new(&(struct http_server_opts){
		.port = http_server_port(role->server), .routes = routes, .route_count = ARRAY_LEN(routes)});
	assert_int_equal(http_server_start(second, &err), -ERR_CONFLICT);
	(void)snprintf(port, sizeof(port), "port %u", http_server_port(role->server));
	(void)snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	assert_non_null(strstr(err.msg, port));
	assert_non_null(strstr(err.msg, pid));
}

static void a_bad_address_is_refused(void **state)
{
	struct err err = {0};

	(void)state;
	autoptr(http_server) server = http_server_new(
		&(struct http_server_opts){.addresses = (const char *const[]){"localhost"}, .address_count = 1});
	assert_int_equal(http_server_start(server, &err), -ERR_INVALID);
	autoptr(http_server) unused = http_server_new(&(struct http_server_opts){0});
	assert_non_null(unused);
}

static void ipv6_is_served(void **state)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct err err = {0};

	(void)state;
	autoptr(http_server) server =
		http_server_new(&(struct http_server_opts){.addresses = (const char *const[]){"::1"},
							   .address_count = 1,
							   .routes = routes,
							   .route_count = ARRAY_LEN(routes)});
	if (http_server_start(server, &err) < 0)
		skip(); /* no IPv6 on this machine */
	autovar(client) client = {.fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	to.sin6_port = htons(http_server_port(server));
	assert_int_equal(connect(client.fd, (struct sockaddr *)&to, sizeof(to)), 0);
	client_ask(&client, "GET", "/name/x", "", NO_BODY);
	expect(&client, 200, "x 7 - 1");
}

/* --- the access line --- */

static void every_request_gives_one_line(void **state)
{
	autoclose memory = memfd_create("log", MFD_CLOEXEC);
	autoclose saved = dup(STDERR_FILENO);
	autovar(buf) log = {0};

	(void)state;
	assert_true(memory >= 0 && dup2(memory, STDERR_FILENO) >= 0);
	log_set_level(LOG_LEVEL_INFO);
	struct role *role = role_new(NULL);
	struct client client = client_open(role);
	client_ask(&client, "GET", "//hello?token=hidden", "X-Request-Id: id-1\r\n", NO_BODY);
	expect(&client, 200, "hello");
	client_ask(&client, "GET", "/nothing", "X-Request-Id: id-2\r\n", NO_BODY);
	expect_error(&client, 404, "not_found");
	client_fini(&client);
	role_free(role);
	log_set_level(LOG_LEVEL_ERROR);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);

	buf_reserve(&log, 65536);
	ssize_t len = pread(memory, log.data, 65535, 0);
	assert_true(len > 0);
	log.data[len] = '\0';
	assert_non_null(strstr(log.data, "method=GET path=//hello status=200"));
	assert_non_null(strstr(log.data, "request_id=id-1"));
	assert_non_null(strstr(log.data, "path=/nothing status=404"));
	assert_null(strstr(log.data, "hidden"));
	int lines = 0;
	for (ssize_t i = 0; i < len; i++)
		lines += log.data[i] == '\n';
	assert_int_equal(lines, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_answered),
		cmocka_unit_test(a_chunked_body_is_one_body),
		cmocka_unit_test(who_comes_through_a_proxy_is_not_loopback),
		cmocka_unit_test(head_is_get_without_a_body),
		cmocka_unit_test(errors_have_one_shape),
		cmocka_unit_test(answers_carry_their_headers),
		cmocka_unit_test(a_bad_request_id_is_replaced),
		cmocka_unit_test(the_inside_stays_inside),
		cmocka_unit_test(a_token_opens_a_guarded_route),
		cmocka_unit_test(two_lengths_are_refused),
		cmocka_unit_test(large_headers_get_431),
		cmocka_unit_test(headers_below_the_limit_pass),
		cmocka_unit_test(a_body_at_its_limit_passes),
		cmocka_unit_test(a_body_over_its_limit_is_dropped_and_answered),
		cmocka_unit_test(who_asks_before_sending_is_answered_at_once),
		cmocka_unit_test(a_refused_body_that_never_ends_is_cut),
		cmocka_unit_test(a_body_that_trickles_in_is_cut),
		cmocka_unit_test(a_full_queue_sheds),
		cmocka_unit_test(a_sink_takes_a_body_in_pieces),
		cmocka_unit_test(an_upload_that_is_cut_frees_its_sink),
		cmocka_unit_test(waiters_are_woken_in_order),
		cmocka_unit_test(a_deadline_ends_a_wait),
		cmocka_unit_test(a_wakeup_between_looking_and_parking_is_not_lost),
		cmocka_unit_test(a_hangup_frees_the_wait),
		cmocka_unit_test(an_answer_to_nobody_is_told),
		cmocka_unit_test(a_thousand_wait_without_threads),
		cmocka_unit_test(a_stream_sleeps_and_goes_on),
		cmocka_unit_test(an_idle_stream_shows_life),
		cmocka_unit_test(a_reader_that_leaves_frees_its_stream),
		cmocka_unit_test(an_aborted_stream_is_seen_to_be_cut),
		cmocka_unit_test(a_drain_ends_waits_and_streams_and_lets_work_finish),
		cmocka_unit_test(what_has_begun_to_come_in_is_answered),
		cmocka_unit_test(a_drain_cuts_what_does_not_end),
		cmocka_unit_test(a_port_in_use_is_named_with_its_holder),
		cmocka_unit_test(a_bad_address_is_refused),
		cmocka_unit_test(ipv6_is_served),
		cmocka_unit_test(every_request_gives_one_line),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
