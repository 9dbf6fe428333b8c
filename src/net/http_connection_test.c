/*
 * Peers that mean no good, over real sockets against a small server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_server.h"

enum { PATIENCE_S = 60, LARGE = 16 << 20 };
#define WINDOW_NS (NS_PER_S / 2)

/* --- the role --- */

static int who(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_text(req, 200,
			       arena_printf(http_arena(req), "%s %s %d %d", http_remote_addr(req), http_scheme(req),
					    (int)http_remote_is_loopback(req), (int)http_is_confidential(req)));
}

static int echo(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_bytes(req, 200, "text/plain", http_body(req));
}

static int large(void *ctx, struct http_request *req, struct err *err)
{
	struct buf body = {0};
	autofree char *block = xcalloc(1, LARGE);

	(void)ctx;
	(void)err;
	buf_append(&body, block, LARGE);
	return http_reply_buf(req, 200, "application/octet-stream", &body);
}

static int sleepy(void *ctx, struct http_request *req, struct err *err)
{
	struct http_wait_list **list = ctx;

	(void)err;
	if (http_wait_over(req))
		return http_reply_text(req, 200, "rested");
	return http_park(req, *list, clock_monotonic_ns() + 3 * WINDOW_NS, NULL);
}

static const struct http_route routes[] = {
	{"GET", "/who", HTTP_INLINE, .handle = who},
	{"POST", "/echo", HTTP_WORKER, .handle = echo},
	{"GET", "/large", HTTP_INLINE, .handle = large},
	{"GET", "/sleepy", HTTP_WORKER, .handle = sleepy},
};

struct role {
	struct http_server *server;
	struct http_wait_list *list;
};

static struct role *role_new(struct http_server_opts opts)
{
	struct role *role = xcalloc(1, sizeof(*role));
	struct err err = {0};

	opts.routes = routes;
	opts.route_count = ARRAY_LEN(routes);
	opts.ctx = &role->list;
	opts.io_threads = 2;
	opts.workers = 4;
	opts.slow_timeout_ns = WINDOW_NS;
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
	free(role);
}
AUTOPTR_DEFINE(role)

static struct http_connection_counts counts(const struct role *role)
{
	return http_server_counts(role->server).connections;
}

static void await_current(const struct role *role, size_t wanted)
{
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_S * NS_PER_S;

	while (counts(role).current != wanted) {
		assert_true(clock_monotonic_ns() < deadline_ns);
		(void)poll(NULL, 0, 1);
	}
}

/* --- the client --- */

static int dial(const struct role *role)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(http_server_port(role->server)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval patience = {.tv_sec = PATIENCE_S};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static void put(int fd, struct str bytes)
{
	assert_int_equal(send(fd, bytes.data, bytes.len, MSG_NOSIGNAL), bytes.len);
}

/* Until the server closes it. */
static void read_all(int fd, struct buf *out)
{
	char block[4096];
	ssize_t got = 0;

	while ((got = recv(fd, block, sizeof(block), 0)) > 0)
		buf_append(out, block, (size_t)got);
	/* A socket closed with bytes unread resets its connection; what came before that counts. */
	assert_true(got == 0 || errno == ECONNRESET);
	buf_putc(out, '\0');
}

static size_t occurrences(const char *text, const char *what)
{
	size_t count = 0;

	for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
		count++;
	return count;
}

/* Sends and gives all that comes until the end of the connection. */
static char *ask(const struct role *role, struct str request)
{
	autoclose fd = dial(role);
	struct buf answer = {0};

	put(fd, request);
	read_all(fd, &answer);
	return buf_take(&answer);
}

#define GET_WHO "GET /who HTTP/1.1\r\nHost: x\r\n"
#define LAST "Connection: close\r\n\r\n"

static void expect_healthy(const struct role *role)
{
	autofree char *answer = ask(role, STR(GET_WHO LAST));

	assert_non_null(strstr(answer, "HTTP/1.1 200"));
}

/* A byte every so often until the server has had enough. */
static void trickle(int fd, const char *byte)
{
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_S * NS_PER_S;
	struct pollfd end = {.fd = fd, .events = POLLIN};

	while (poll(&end, 1, 20) == 0) {
		assert_true(clock_monotonic_ns() < deadline_ns);
		if (send(fd, byte, 1, MSG_NOSIGNAL) != 1)
			return;
	}
}

/* --- slow ones --- */

static void a_header_that_trickles_in_is_cut(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){0});
	autoclose fd = dial(role);
	autovar(buf) answer = {0};

	(void)state;
	put(fd, STR(GET_WHO "X-Slow: "));
	trickle(fd, "x");
	read_all(fd, &answer);
	assert_non_null(strstr(answer.data, "HTTP/1.1 408"));
	assert_non_null(strstr(answer.data, "\"code\":\"too_slow\""));
	assert_int_equal(counts(role).cut[HTTP_CUT_SLOW_HEADER], 1);
	await_current(role, 0);
	expect_healthy(role);
}

static void a_header_of_a_later_request_that_trickles_in_is_cut(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){0});
	autoclose fd = dial(role);
	autovar(buf) answer = {0};
	char first[512];

	(void)state;
	put(fd, STR(GET_WHO "\r\n"));
	assert_true(recv(fd, first, sizeof(first), 0) > 0);
	/* Its idleness is seen first. */
	(void)poll(NULL, 0, (int)(WINDOW_NS / NS_PER_MS));
	trickle(fd, "G");
	read_all(fd, &answer);
	assert_non_null(strstr(answer.data, "HTTP/1.1 408"));
	assert_int_equal(counts(role).cut[HTTP_CUT_SLOW_HEADER], 1);
}

static void a_body_below_the_rate_is_cut(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){0});
	autoclose fd = dial(role);
	autovar(buf) answer = {0};

	(void)state;
	put(fd, STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"));
	trickle(fd, "x");
	read_all(fd, &answer);
	assert_non_null(strstr(answer.data, "HTTP/1.1 408"));
	assert_int_equal(counts(role).cut[HTTP_CUT_SLOW_BODY], 1);
	await_current(role, 0);
}

static void a_slow_body_above_the_rate_is_taken(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){0});
	autoclose fd = dial(role);
	autovar(buf) answer = {0};
	autofree char *block = xcalloc(1, 1000);

	(void)state;
	put(fd, STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n" LAST));
	memset(block, 'y', 1000);
	for (int i = 0; i < 20; i++) {
		(void)poll(NULL, 0, (int)(2 * WINDOW_NS / NS_PER_MS / 10));
		put(fd, (struct str){block, 1000});
	}
	read_all(fd, &answer);
	assert_non_null(strstr(answer.data, "HTTP/1.1 200"));
	assert_int_equal(counts(role).cut[HTTP_CUT_SLOW_BODY], 0);
}

static void who_waits_and_who_is_idle_is_left_alone(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){0});
	autoclose idle = dial(role);
	autoclose silent = dial(role);
	autoclose waiting = dial(role);
	autovar(buf) answer = {0};
	char first[512];

	(void)state;
	put(waiting, STR("GET /sleepy HTTP/1.1\r\nHost: x\r\n" LAST));
	put(idle, STR(GET_WHO "\r\n"));
	assert_true(recv(idle, first, sizeof(first), 0) > 0);
	read_all(waiting, &answer); /* several windows */
	assert_non_null(strstr(answer.data, "rested"));
	put(idle, STR(GET_WHO "\r\n"));
	assert_true(recv(idle, first, sizeof(first), 0) > 0);
	put(silent, STR(GET_WHO "\r\n"));
	assert_true(recv(silent, first, sizeof(first), 0) > 0);
	for (int why = HTTP_CUT_NOT + 1; why < HTTP_CUT_COUNT; why++)
		assert_int_equal(counts(role).cut[why], 0);
}

static void who_takes_a_byte_now_and_then_is_cut(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){.idle_timeout_ns = NS_PER_S});
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_S * NS_PER_S;
	autoclose fd = dial(role);
	char byte = 0;

	(void)state;
	await_current(role, 1);
	put(fd, STR("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
	while (counts(role).current > 0) {
		assert_true(clock_monotonic_ns() < deadline_ns);
		(void)poll(NULL, 0, 20);
		(void)!recv(fd, &byte, 1, 0);
	}
	expect_healthy(role);
}

/* --- too many --- */

static void beyond_the_limit_it_is_503_until_there_is_room(void **state)
{
	enum { MAX = 16 };
	autoptr(role) role = role_new((struct http_server_opts){.connections_max = MAX});
	int fds[MAX];

	(void)state;
	for (size_t i = 0; i < MAX; i++)
		fds[i] = dial(role);
	await_current(role, MAX);
	for (size_t i = 0; i < 10; i++) {
		autofree char *answer = ask(role, STR(GET_WHO LAST));
		assert_non_null(strstr(answer, "HTTP/1.1 503"));
		assert_non_null(strstr(answer, "Retry-After:"));
		assert_non_null(strstr(answer, "\"code\":\"unavailable\""));
	}
	assert_int_equal(counts(role).refused[HTTP_REFUSED_LIMIT], 10);
	for (size_t i = 0; i < MAX; i++)
		fd_close(&fds[i]);
	await_current(role, 0);
	expect_healthy(role);
}

static void an_address_has_its_share(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){.connections_per_address = 2});

	(void)state;
	{
		autoclose first = dial(role);
		autoclose second = dial(role);
		await_current(role, 2);
		autofree char *answer = ask(role, STR(GET_WHO LAST));
		assert_non_null(strstr(answer, "HTTP/1.1 429"));
		assert_int_equal(counts(role).refused[HTTP_REFUSED_ADDRESS], 1);
	}
	await_current(role, 0);
	expect_healthy(role);
}

static void a_proxy_has_more_than_a_share(void **state)
{
	autovar(cidr_list) proxies = {0};
	const char *const loopback = "127.0.0.0/8";

	(void)state;
	assert_int_equal(cidr_list_parse(&loopback, 1, "X", &proxies, NULL), 0);
	autoptr(role) role = role_new((struct http_server_opts){.connections_per_address = 1, .proxies = &proxies});
	autoclose first = dial(role);
	await_current(role, 1);
	expect_healthy(role);
}

/* --- who is asking --- */

static void only_a_trusted_proxy_says_who_asks(void **state)
{
	autovar(cidr_list) proxies = {0};
	const char *const trusted[] = {"127.0.0.1", "10.0.0.0/8"};

	(void)state;
	assert_int_equal(cidr_list_parse(trusted, 2, "X", &proxies, NULL), 0);
	autoptr(role) stern = role_new((struct http_server_opts){0});
	autoptr(role) trusting = role_new((struct http_server_opts){.proxies = &proxies});
	const struct str request =
		STR(GET_WHO "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n" LAST);
	const struct str garbage = STR(GET_WHO "X-Forwarded-For: me\r\n" LAST);

	autofree char *strict = ask(stern, request);
	assert_non_null(strstr(strict, "\r\n127.0.0.1 http 0 0"));
	autofree char *resolved = ask(trusting, request);
	assert_non_null(strstr(resolved, "\r\n192.0.2.7 https 0 1"));
	autofree char *unreadable = ask(trusting, garbage);
	assert_non_null(strstr(unreadable, "HTTP/1.1 400"));
	autofree char *plain = ask(trusting, STR(GET_WHO LAST));
	assert_non_null(strstr(plain, "\r\n127.0.0.1 http 1 0"));
}

/* --- unix sockets --- */

static char *ask_unix(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct buf answer = {0};
	autoclose fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		return NULL;
	put(fd, STR(GET_WHO LAST));
	read_all(fd, &answer);
	return buf_take(&answer);
}

static void a_unix_socket_is_served_beside_a_port(void **state)
{
	char folder[] = "/tmp/nimbus-unix-XXXXXX";
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(folder));
	autofree char *path = xasprintf("%s/role.sock", folder);
	autofree char *address = xasprintf("unix:%s", path);
	const char *const addresses[] = {"127.0.0.1", address};
	{
		autoptr(role) role = role_new((struct http_server_opts){.addresses = addresses, .address_count = 2});
		expect_healthy(role);
		autofree char *answer = ask_unix(path);
		/* Not loopback: a proxy may be behind it. But nobody on a network reads it. */
		assert_non_null(strstr(answer, "\r\nunix http 0 1"));
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0660);

		struct err err = {0};
		autoptr(listener) second = NULL;
		assert_int_equal(listener_open(address, 0, &second, &err), -ERR_CONFLICT);
		autofree char *holder = xasprintf("in use by process %d", (int)getpid());
		assert_non_null(strstr(err.msg, holder));
		autofree char *still = ask_unix(path);
		assert_non_null(still);
	}
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(dir_remove(AT_FDCWD, folder, NULL), 0);
}

static void a_socket_that_was_left_is_replaced_and_a_file_is_not(void **state)
{
	char folder[] = "/tmp/nimbus-unix-XXXXXX";
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct err err = {0};

	(void)state;
	assert_non_null(mkdtemp(folder));
	(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s/left.sock", folder);
	autofree char *left = xasprintf("unix:%s", at.sun_path);
	{
		autoclose fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	}
	autoptr(listener) listener = NULL;
	assert_int_equal(listener_open(left, 0, &listener, NULL), 0);

	autofree char *file = xasprintf("%s/file", folder);
	autofree char *file_address = xasprintf("unix:%s", file);
	autoptr(listener) none = NULL;
	assert_int_equal(file_write_atomic(AT_FDCWD, file, STR("precious"), 0600, NULL), 0);
	assert_int_equal(listener_open(file_address, 0, &none, &err), -ERR_CONFLICT);
	assert_non_null(strstr(err.msg, "is no socket"));
	assert_int_equal(listener_open("unix:relative", 0, &none, &err), -ERR_INVALID);
	assert_int_equal(dir_remove(AT_FDCWD, folder, NULL), 0);
}

/* --- heads that could be read in two ways --- */

static void odd_heads_are_400_and_the_end_of_the_connection(void **state)
{
	static const struct str requests[] = {
		STR("GET /who HTTP/1.1\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: a b\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x, y\r\n\r\n"),
		STR("GET http://other/who HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: "
		    "chunked\r\n\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: "
		    "5\r\n\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
		    "x\r\n\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nX-Fold: a\r\n b\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nX-Fold: a\r\n\tb\r\nY: c\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nX-Fold:\r\n Content-Length: 5\r\n\r\nhello"),
		STR("GET /who HTTP/1.1\r\n Host: x\r\n\r\n"),
		STR("GET /who HTTP/1.1\nHost: x\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nA: b\nC: d\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\n\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nA(b): c\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\n: c\r\n\r\n"),
		STR("GET /who\0x HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("GET  /who HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("GET /who  HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("GET /wh o HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("GET /who\t HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("G\"T /who HTTP/1.1\r\nHost: x\r\n\r\n"),
		STR("GET who HTTP/1.1\r\nHost: x\r\n\r\n"),
	};
	autoptr(role) role = role_new((struct http_server_opts){0});

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		/* What follows may not be taken for a request. */
		autovar(buf) both = {0};
		buf_append_str(&both, requests[i]);
		buf_puts(&both, GET_WHO LAST);
		autofree char *answer = ask(role, buf_str(&both));
		bool last_is_read = i + 1 == ARRAY_LEN(requests); /* only its path is wrong */
		if (strncmp(answer, "HTTP/1.1 400", 12) != 0 ||
		    strstr(answer, "\"code\":\"invalid_request\"") == NULL ||
		    occurrences(answer, "HTTP/1.1 ") != (last_is_read ? 2 : 1))
			fail_msg("request %zu, %s: got %s", i, requests[i].data, answer);
	}
	expect_healthy(role);
}

/* In its own words, but no less surely. About a bad Content-Length it says them twice. */
static void what_the_library_refuses_itself_ends_the_connection_too(void **state)
{
	static const struct str requests[] = {
		STR("GET /who HTTP/1.1 \r\nHost: x\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nA\0B: c\r\n\r\n"),
		STR("GET /who HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		    "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n"),
		STR("GET /who\r\n\r\n"),
		STR("\x16\x03\x01\x02\x00\x01\x00\r\n"),
	};
	autoptr(role) role = role_new((struct http_server_opts){0});

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		autovar(buf) both = {0};
		buf_append_str(&both, requests[i]);
		buf_puts(&both, GET_WHO LAST);
		autofree char *answer = ask(role, buf_str(&both));
		if (occurrences(answer, "HTTP/1.1 ") != occurrences(answer, "HTTP/1.1 4"))
			fail_msg("request %zu, %s: got %s", i, requests[i].data, answer);
	}
	expect_healthy(role);
}

static void heads_at_the_edge_of_the_grammar_pass(void **state)
{
	static const struct str requests[] = {
		STR("GET /who HTTP/1.1\r\nhOsT:x\r\n" LAST),
		STR("GET /who HTTP/1.1\r\nHost: \t x \t\r\n" LAST),
		STR("GET /who HTTP/1.1\r\nHost:\r\n" LAST),
		STR("GET /who?a=b&c=%20 HTTP/1.1\r\nHost: x:80\r\nX:\r\nY: \xff\r\n" LAST),
		STR("GET http://X:80/who HTTP/1.1\r\nHost: x:80\r\n" LAST),
		STR("GET /who HTTP/1.0\r\n\r\n"),
		STR("\r\nGET /who HTTP/1.1\r\nHost: x\r\nCookie: a=b; c=d\r\n" LAST),
		STR("POST /echo HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n" LAST
		    "5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length:  5\r\n" LAST "hello"),
	};
	autoptr(role) role = role_new((struct http_server_opts){0});

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		autofree char *answer = ask(role, requests[i]);
		if (strncmp(answer, "HTTP/1.1 200", 12) != 0 && strncmp(answer, "HTTP/1.0 200", 12) != 0)
			fail_msg("request %zu, %s: got %s", i, requests[i].data, answer);
	}
}

/* The head is checked by where its pieces lie, also where they came one byte at a time, in a buffer used before. */
static void a_large_head_in_pieces_passes(void **state)
{
	autoptr(role) role = role_new((struct http_server_opts){0});
	autoclose fd = dial(role);
	autovar(buf) request = {0};
	autovar(buf) answers = {0};
	const size_t pieces[] = {1, 7, 100, 1460, 8192};

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
		struct buf head = {0};
		buf_puts(&head, GET_WHO);
		for (size_t i = 0; i < (k == 0 ? 10 : 200); i++)
			buf_printf(&head, "X-Header-%zu: %0*d\r\n", i, (int)(i % 90) + 1, 7);
		buf_puts(&head, k + 1 == ARRAY_LEN(pieces) ? LAST : "\r\n");
		for (size_t at = 0; at < head.len; at += pieces[k]) {
			size_t len = head.len - at < pieces[k] ? head.len - at : pieces[k];
			put(fd, (struct str){head.data + at, len});
			if (at % 1000 < pieces[k])
				(void)poll(NULL, 0, 1);
		}
		buf_fini(&head);
	}
	read_all(fd, &answers);
	assert_int_equal(occurrences(answers.data, "HTTP/1.1 200"), ARRAY_LEN(pieces));
}

/* --- manners that are allowed --- */

static void pipelined_requests_are_answered_in_order(void **state)
{
	enum { COUNT = 200 };
	autoptr(role) role = role_new((struct http_server_opts){0});
	autovar(buf) requests = {0};

	(void)state;
	for (int i = 0; i < COUNT; i++)
		buf_printf(&requests, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n%s\r\n<%06d>",
			   i + 1 == COUNT ? "Connection: close\r\n" : "", i);
	autofree char *answers = ask(role, buf_str(&requests));
	const char *at = answers;
	for (int i = 0; i < COUNT; i++) {
		char wanted[16];
		(void)snprintf(wanted, sizeof(wanted), "<%06d>", i);
		at = strstr(at, wanted);
		assert_non_null(at);
	}
	assert_int_equal(occurrences(answers, "HTTP/1.1 200"), COUNT);
}

static void who_has_said_all_still_hears_the_answer(void **state)
{
	static const struct str requests[] = {
		STR(GET_WHO "\r\n"),
		STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
	};
	/* Its end is noticed, not waited for: the client's patience is shorter than the idle limit. */
	autoptr(role) role = role_new((struct http_server_opts){.idle_timeout_ns = 2 * PATIENCE_S * NS_PER_S});

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		autoclose fd = dial(role);
		autovar(buf) answer = {0};
		put(fd, requests[i]);
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		read_all(fd, &answer);
		assert_non_null(strstr(answer.data, "HTTP/1.1 200"));
	}
	/* Half a request and no more will come. */
	autoclose fd = dial(role);
	autovar(buf) answer = {0};
	put(fd, STR("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe"));
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	read_all(fd, &answer);
	assert_null(strstr(answer.data, "HTTP/1.1 200"));
	await_current(role, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_that_trickles_in_is_cut),
		cmocka_unit_test(a_header_of_a_later_request_that_trickles_in_is_cut),
		cmocka_unit_test(a_body_below_the_rate_is_cut),
		cmocka_unit_test(a_slow_body_above_the_rate_is_taken),
		cmocka_unit_test(who_waits_and_who_is_idle_is_left_alone),
		cmocka_unit_test(who_takes_a_byte_now_and_then_is_cut),
		cmocka_unit_test(beyond_the_limit_it_is_503_until_there_is_room),
		cmocka_unit_test(an_address_has_its_share),
		cmocka_unit_test(a_proxy_has_more_than_a_share),
		cmocka_unit_test(only_a_trusted_proxy_says_who_asks),
		cmocka_unit_test(a_unix_socket_is_served_beside_a_port),
		cmocka_unit_test(a_socket_that_was_left_is_replaced_and_a_file_is_not),
		cmocka_unit_test(odd_heads_are_400_and_the_end_of_the_connection),
		cmocka_unit_test(what_the_library_refuses_itself_ends_the_connection_too),
		cmocka_unit_test(heads_at_the_edge_of_the_grammar_pass),
		cmocka_unit_test(a_large_head_in_pieces_passes),
		cmocka_unit_test(pipelined_requests_are_answered_in_order),
		cmocka_unit_test(who_has_said_all_still_hears_the_answer),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
