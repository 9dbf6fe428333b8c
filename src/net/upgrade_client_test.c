/*
 * Both ends of an upgrade: net/http_upgrade.c under net/http_server.c, and the client, over real sockets.
 */
#include "net/upgrade_client.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/http_server.h"

static atomic_int started, cancelled;

/* Echoes in a thread of its own until the peer closes. */
struct echo {
	struct http_upgraded *u;
	int fd;
};

static void send_all(struct http_upgraded *u, int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t done = http_upgraded_send(u, data, len);
		if (done < 0 && errno != EAGAIN)
			return;
		if (done < 0)
			(void)poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 1000);
		data += done > 0 ? done : 0;
		len -= done > 0 ? (size_t)done : 0;
	}
}

static void *echo_all(void *arg)
{
	struct echo *e = arg;
	char bytes[16384];

	for (;;) {
		(void)poll(&(struct pollfd){.fd = e->fd, .events = POLLIN}, 1, -1);
		ssize_t got = http_upgraded_recv(e->u, bytes, sizeof(bytes));
		if (got == 0 || (got < 0 && errno != EAGAIN))
			break;
		send_all(e->u, e->fd, bytes, got > 0 ? (size_t)got : 0);
	}
	http_upgraded_close(e->u);
	free(e);
	return NULL;
}

static void start_echo(void *state, struct http_upgraded *u, int fd)
{
	struct echo *e = xcalloc(1, sizeof(*e));
	pthread_t thread;
	pthread_attr_t attr;

	(void)state;
	*e = (struct echo){.u = u, .fd = fd};
	atomic_fetch_add(&started, 1);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	assert_int_equal(pthread_create(&thread, &attr, echo_all, e), 0);
	pthread_attr_destroy(&attr);
}

static void cancel_echo(void *state)
{
	(void)state;
	atomic_fetch_add(&cancelled, 1);
}

static int upgrade_here(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	if (http_query(req, "refuse") != NULL)
		return err_set(err, ERR_CONFLICT, "somebody is here already");
	return http_reply_upgrade(
		req, &(struct http_upgrade){.protocol = "echo", .start = start_echo, .cancel = cancel_echo}, err);
}

static const struct http_route routes[] = {
	{"GET", "/inline", HTTP_INLINE, .handle = upgrade_here},
	{"GET", "/worker", HTTP_WORKER, .handle = upgrade_here},
};

static struct http_server *serve(const char *const *addresses, size_t count, unsigned upgrades_max)
{
	const struct http_server_opts opts = {.routes = routes,
					      .route_count = ARRAY_LEN(routes),
					      .addresses = addresses,
					      .address_count = count,
					      .upgrades_max = upgrades_max,
					      .io_threads = 2};
	struct http_server *s = http_server_new(&opts);
	struct err err = {0};

	if (http_server_start(s, &err) < 0)
		fail_msg("%s", err.msg);
	return s;
}

static void end(struct http_server *s)
{
	http_server_stop(s, clock_monotonic_ns() + 10 * NS_PER_S);
	http_server_free(s);
}

static struct upgrade *open_at(const struct http_server *s, const char *path)
{
	autofree char *url = xasprintf("http://127.0.0.1:%u%s", http_server_port(s), path);
	struct upgrade *u = NULL;
	struct err err = {0};

	if (upgrade_open(&(struct upgrade_opts){.url = url, .protocol = "echo"}, &u, &err) < 0)
		fail_msg("%s", err.msg);
	return u;
}

static void say_and_hear(struct upgrade *u, size_t size)
{
	struct err err = {0};
	size_t sent = 0, heard = 0;
	char bytes[4096];

	while (heard < size) {
		size_t done = 0;
		memset(bytes, 'a' + (int)(sent % 26), sizeof(bytes));
		size_t len = size - sent < sizeof(bytes) ? size - sent : sizeof(bytes);
		if (len > 0 && sent - heard < 65536 && upgrade_send(u, (struct str){bytes, len}, &done, &err) == 0)
			sent += done;
		int rc = upgrade_recv(u, bytes, sizeof(bytes), &done, &err);
		assert_true(rc == 0 || rc == HTTP_AGAIN);
		if (rc == 0)
			heard += done;
		else if (sent == size || sent - heard >= 65536)
			assert_int_equal(poll(&(struct pollfd){.fd = upgrade_fd(u), .events = POLLIN}, 1, 60000), 1);
	}
	assert_int_equal(heard, size);
}

static void bytes_go_both_ways(void **state)
{
	struct http_server *s = serve(NULL, 0, 0);
	struct upgrade *a = open_at(s, "/inline");
	struct upgrade *b = open_at(s, "/worker");

	(void)state;
	say_and_hear(a, 1);
	say_and_hear(b, 3000000);
	say_and_hear(a, 100000);
	assert_int_equal(http_server_counts(s).upgraded, 2);
	upgrade_free(a);
	upgrade_free(b);
	while (http_server_counts(s).upgraded > 0 || http_server_counts(s).active > 0)
		(void)poll(NULL, 0, 1);
	end(s);
}

static void a_unix_socket_will_do(void **state)
{
	char folder[] = "/tmp/nimbus-upgrade-XXXXXX";
	struct upgrade *u = NULL;
	struct err err = {0};

	(void)state;
	assert_non_null(mkdtemp(folder));
	autofree char *path = xasprintf("%s/s", folder);
	autofree char *address = xasprintf("unix:%s", path);
	autofree char *base = http_unix_url(path);
	autofree char *url = http_url(base, "/worker");
	struct http_server *s = serve((const char *const[]){address}, 1, 0);
	if (upgrade_open(&(struct upgrade_opts){.url = url, .protocol = "echo"}, &u, &err) < 0)
		fail_msg("%s", err.msg);
	say_and_hear(u, 10000);
	upgrade_free(u);
	end(s);
	assert_int_equal(dir_remove(AT_FDCWD, folder, &err), 0);
}

static void *stop_later(void *arg)
{
	http_server_stop(arg, clock_monotonic_ns() + 60 * NS_PER_S);
	return NULL;
}

static void a_stop_lets_them_end_by_themselves(void **state)
{
	struct http_server *s = serve(NULL, 0, 0);
	struct upgrade *u = open_at(s, "/worker");
	pthread_t stopper;

	(void)state;
	say_and_hear(u, 10);
	assert_int_equal(pthread_create(&stopper, NULL, stop_later, s), 0);
	while (!http_server_stopping(s))
		(void)poll(NULL, 0, 1);
	say_and_hear(u, 100000);
	upgrade_free(u);
	assert_int_equal(pthread_join(stopper, NULL), 0);
	http_server_free(s);
}

static void a_stop_cuts_what_is_open(void **state)
{
	struct http_server *s = serve(NULL, 0, 0);
	struct upgrade *u = open_at(s, "/worker");
	char byte = 0;
	size_t got = 0;
	struct err err = {0};

	(void)state;
	say_and_hear(u, 10);
	http_server_stop(s, clock_monotonic_ns());
	http_server_free(s);
	assert_int_equal(poll(&(struct pollfd){.fd = upgrade_fd(u), .events = POLLIN}, 1, 60000), 1);
	int rc = upgrade_recv(u, &byte, 1, &got, &err);
	assert_true(rc == HTTP_CLOSED || rc < 0);
	upgrade_free(u);
}

static int refused(const struct http_server *s, const char *path, const char *protocol, struct err *err)
{
	autofree char *url = xasprintf("http://127.0.0.1:%u%s", http_server_port(s), path);
	struct upgrade *u = NULL;

	int rc = upgrade_open(&(struct upgrade_opts){.url = url, .protocol = protocol}, &u, err);
	upgrade_free(u);
	return rc;
}

static void a_refusal_is_the_servers_error(void **state)
{
	struct http_server *s = serve(NULL, 0, 1);
	struct err err = {0};

	(void)state;
	assert_int_equal(refused(s, "/worker?refuse", "echo", &err), -ERR_CONFLICT);
	assert_string_equal(err.msg, "somebody is here already");
	assert_int_equal(refused(s, "/worker", "tea", &err), -ERR_INVALID);
	assert_int_equal(refused(s, "/none", "echo", &err), -ERR_NOT_FOUND);
	struct upgrade *u = open_at(s, "/worker");
	say_and_hear(u, 1);
	assert_int_equal(refused(s, "/worker", "echo", &err), -ERR_UNAVAILABLE);
	upgrade_free(u);
	end(s);
}

static void nobody_there_is_said(void **state)
{
	struct http_server *s = serve(NULL, 0, 0);
	autofree char *url = xasprintf("http://127.0.0.1:%u/worker", http_server_port(s));
	struct upgrade *u = NULL;
	struct err err = {0};

	(void)state;
	end(s);
	assert_int_equal(upgrade_open(&(struct upgrade_opts){.url = url, .protocol = "echo"}, &u, &err),
			 -ERR_UNAVAILABLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_go_both_ways),
		cmocka_unit_test(a_unix_socket_will_do),
		cmocka_unit_test(a_stop_lets_them_end_by_themselves),
		cmocka_unit_test(a_stop_cuts_what_is_open),
		cmocka_unit_test(a_refusal_is_the_servers_error),
		cmocka_unit_test(nobody_there_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
