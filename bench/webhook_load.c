/*
 * Signed webhooks at a fixed rate, or as fast as answers come.
 *
 *	webhook_load PORT SECRET PAYLOAD TOTAL RATE CONNECTIONS FIRST_ID
 *
 * PAYLOAD is a file in which every 7700000000000000 becomes the number of the delivery. With a RATE, latency counts
 *from the moment at which a request was due, whether or not a connection was free (so a stall shows); with RATE 0, from
 *when it was sent. One object of JSON on standard output.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

#define MARK "7700000000000000"

struct connection {
	int fd;
	bool busy;
	int64_t since_ns; /* due, or sent */
	char in[4096];
	size_t in_len;
};

struct load {
	uint16_t port;
	struct secret *secret;
	struct buf payload;
	int64_t total;
	int64_t rate;
	int64_t first_id;
	struct connection *connections;
	int64_t connection_count;
	int epoll_fd;
	int64_t begun_ns;
	int64_t sent;
	int64_t answered;
	int64_t refused;
	double *latencies_ms;
};

static noreturn_fn void die(const char *what)
{
	(void)fprintf(stderr, "webhook_load: %s: %s\n", what, strerrordesc_np(errno));
	exit(1);
}

static void dial(struct load *l, struct connection *c)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(l->port)};
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	int one = 1;

	fd_close(&c->fd);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		die("connect");
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
		die("epoll");
	c->in_len = 0;
}

/* The payload of delivery `id`, whole with head and signature. */
static void make_request(struct load *l, int64_t id, struct buf *out)
{
	char digits[32];
	autovar(buf) signature = {0};

	(void)snprintf(digits, sizeof(digits), "%016" PRId64, id);
	for (char *at = strstr(l->payload.data, MARK); at != NULL; at = strstr(at, MARK))
		memcpy(at, digits, sizeof(MARK) - 1);
	struct sha256 mac = crypto_hmac(l->secret, buf_str(&l->payload));
	encode_hex((struct str){(const char *)mac.bytes, sizeof(mac.bytes)}, &signature);
	buf_printf(out,
		   "POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
		   "X-GitHub-Event: workflow_job\r\nX-GitHub-Delivery: bench-%s\r\nX-Hub-Signature-256: sha256=%s\r\n"
		   "Content-Length: %zu\r\n\r\n",
		   digits, signature.data, l->payload.len);
	buf_append_str(out, buf_str(&l->payload));
	/* The mark again, for the next. */
	for (char *at = strstr(l->payload.data, digits); at != NULL; at = strstr(at, digits))
		memcpy(at, MARK, sizeof(MARK) - 1);
}

static void send_one(struct load *l, struct connection *c, int64_t since_ns)
{
	autovar(buf) request = {0};

	make_request(l, l->first_id + l->sent, &request);
	l->sent++;
	c->since_ns = since_ns > 0 ? since_ns : clock_monotonic_ns();
	c->busy = true;
	if (file_write_fd(c->fd, buf_str(&request), NULL) < 0)
		die("send");
}

static void take_answer(struct load *l, struct connection *c)
{
	ssize_t got = recv(c->fd, c->in + c->in_len, sizeof(c->in) - 1 - c->in_len, 0);

	if (got <= 0 && c->busy)
		die("the server hung up");
	if (got <= 0) {
		dial(l, c);
		return;
	}
	c->in_len += (size_t)got;
	c->in[c->in_len] = '\0';
	if (!c->busy || strstr(c->in, "\r\n\r\n") == NULL)
		return;
	/* An acceptance has no body; after anything else this connection is not used again. */
	bool accepted = strncmp(c->in, "HTTP/1.1 202", 12) == 0;
	l->latencies_ms[l->answered++] = (double)(clock_monotonic_ns() - c->since_ns) / (double)NS_PER_MS;
	l->refused += !accepted;
	c->busy = false;
	c->in_len = 0;
	if (!accepted)
		dial(l, c);
}

/* When the next request is due; INT64_MAX when all are sent. */
static int64_t next_due_ns(const struct load *l)
{
	if (l->sent == l->total)
		return INT64_MAX;
	return l->rate > 0 ? l->begun_ns + l->sent * NS_PER_S / l->rate : 0;
}

static void send_due(struct load *l)
{
	for (int64_t i = 0; i < l->connection_count; i++) {
		int64_t due_ns = next_due_ns(l);
		if (due_ns > clock_monotonic_ns())
			return;
		if (!l->connections[i].busy)
			send_one(l, &l->connections[i], due_ns);
	}
}

static void run(struct load *l)
{
	struct epoll_event events[64];

	l->begun_ns = clock_monotonic_ns();
	while (l->answered < l->total) {
		send_due(l);
		struct timespec wait = {.tv_sec = 5};
		int64_t until_due_ns = next_due_ns(l) - clock_monotonic_ns();
		if (l->rate > 0 && until_due_ns < 5 * NS_PER_S)
			wait = (struct timespec){.tv_nsec = until_due_ns > 0 ? until_due_ns % NS_PER_S : 20000};
		int count = epoll_pwait2(l->epoll_fd, events, ARRAY_LEN(events), &wait, NULL);
		if (count < 0 && errno != EINTR)
			die("wait");
		for (int i = 0; i < count; i++)
			take_answer(l, events[i].data.ptr);
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(struct load *l)
{
	double seconds = (double)(clock_monotonic_ns() - l->begun_ns) / (double)NS_PER_S;
	size_t n = (size_t)l->answered;

	qsort(l->latencies_ms, n, sizeof(double), compare);
	(void)printf("{\"requests\": %" PRId64 ", \"refused\": %" PRId64 ", \"bytes_each\": %zu, \"seconds\": %.3f, "
		     "\"per_second\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
		     l->answered, l->refused, l->payload.len, seconds, (double)n / seconds, l->latencies_ms[n / 2],
		     l->latencies_ms[n * 99 / 100], l->latencies_ms[n - 1]);
}

static int64_t number(const char *text)
{
	struct err err = {0};
	int64_t value = 0;

	if (str_to_i64(str_c(text), "argument", 0, INT64_MAX, &value, &err) < 0) {
		(void)fprintf(stderr, "webhook_load: %s\n", err.msg);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	if (argc != 8) {
		(void)fprintf(stderr, "usage: webhook_load PORT SECRET PAYLOAD TOTAL RATE CONNECTIONS FIRST_ID\n");
		return 2;
	}
	struct load l = {
		.port = (uint16_t)number(argv[1]),
		.secret = secret_new(argv[2], strlen(argv[2])),
		.total = number(argv[4]),
		.rate = number(argv[5]),
		.connection_count = number(argv[6]),
		.first_id = number(argv[7]),
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
	};
	struct err err = {0};
	if (file_read(AT_FDCWD, argv[3], 1 << 20, &l.payload, &err) < 0) {
		(void)fprintf(stderr, "webhook_load: %s\n", err.msg);
		return 1;
	}
	l.latencies_ms = xcalloc((size_t)l.total, sizeof(double));
	l.connections = xcalloc((size_t)l.connection_count, sizeof(struct connection));
	for (int64_t i = 0; i < l.connection_count; i++) {
		l.connections[i].fd = -1;
		dial(&l, &l.connections[i]);
	}
	run(&l);
	report(&l);
	return 0;
}
