/* Streams of a guest, which is the test, to services on loopback sockets, which are the test's too. */
#include "shim/services.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

enum { STREAM = 17 };

struct fixture {
	struct loop *loop;
	struct streams *streams;
	struct services *services;
	struct secret *token;
	struct buf out; /* frames for the guest */
	/* what the guest has heard on STREAM */
	struct buf data;
	bool ended;
	bool closed;
	uint32_t status;
	struct buf text;
	uint64_t granted;
	/* the service */
	int listener;
	int peer; /* -1: not connected */
	struct buf asked;
	bool hung_up;
};

static void on_wake(void *ctx)
{
	(void)ctx;
}

static void on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct fixture *f = ctx;

	services_open(f->services, name, st, err);
}

static char *listen_somewhere(struct fixture *f)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);

	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(f->listener, 4), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&at, &len), 0);
	return xasprintf("http://127.0.0.1:%u/deep/logs", ntohs(at.sin_port));
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->peer = -1;
	f->token = secret_new("T-1", 3);
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	autofree char *url = listen_somewhere(f);
	const struct services_opts opts = {.loop = f->loop, .logs_url = url, .token = f->token};
	assert_int_equal(services_new(&opts, &f->services, NULL), 0);
	f->streams = streams_new(&(struct streams_opts){.wake = on_wake, .service = on_service, .ctx = f});
	streams_ready(f->streams);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	streams_free(f->streams);
	services_free(f->services);
	loop_free(f->loop);
	secret_free(f->token);
	buf_fini(&f->out);
	buf_fini(&f->data);
	buf_fini(&f->text);
	buf_fini(&f->asked);
	fd_close(&f->listener);
	fd_close(&f->peer);
	free(f);
	return 0;
}

/* --- the guest --- */

static void give(struct fixture *f, struct buf *bytes)
{
	const struct guest_frame frame = {
		.type = (enum guest_frame_type)bytes->data[4],
		.stream = (uint16_t)((unsigned char)bytes->data[5] | (unsigned char)bytes->data[6] << 8),
		.payload = {bytes->data + GUEST_HEADER_SIZE, bytes->len - GUEST_HEADER_SIZE},
	};
	struct err err = {0};

	if (streams_take(f->streams, &frame, &err) < 0)
		fail_msg("%s", err.msg);
	buf_fini(bytes);
}

static void guest_opens(struct fixture *f, const char *name)
{
	const struct guest_open open = {.kind = GUEST_KIND_SERVICE, .name = name};
	struct buf bytes = {0};

	assert_int_equal(guest_open_encode(STREAM, &open, &bytes, NULL), 0);
	give(f, &bytes);
}

static void guest_says(struct fixture *f, const char *text)
{
	struct buf bytes = {0};

	guest_data_encode(STREAM, GUEST_NO_PART, str_c(text), &bytes);
	give(f, &bytes);
}

static void guest_grants(struct fixture *f, uint32_t credit)
{
	struct buf bytes = {0};

	guest_credit_encode(STREAM, &(struct guest_credit){credit}, &bytes);
	give(f, &bytes);
}

static void guest_hears(struct fixture *f)
{
	while (streams_fill(f->streams, &f->out, 1 << 20))
		;
	while (f->out.len >= GUEST_HEADER_SIZE) {
		const unsigned char *at = (const unsigned char *)f->out.data;
		size_t len = at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16;
		struct str payload = {f->out.data + GUEST_HEADER_SIZE, len};
		struct guest_close close;
		struct guest_credit credit;
		if (at[4] == GUEST_DATA) {
			f->ended = f->ended || len == 0;
			buf_append_str(&f->data, payload);
		} else if (at[4] == GUEST_CLOSE) {
			assert_int_equal(guest_close_decode(payload, &close, NULL), 0);
			f->closed = true;
			f->status = close.status;
			buf_append_str(&f->text, close.text);
		} else if (at[4] == GUEST_CREDIT) {
			assert_int_equal(guest_credit_decode(payload, &credit, NULL), 0);
			f->granted += credit.bytes;
		}
		buf_consume(&f->out, GUEST_HEADER_SIZE + len);
	}
}

/* --- the service --- */

static void serve(struct fixture *f, bool reads)
{
	char bytes[65536];

	if (f->peer < 0)
		f->peer = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (f->peer >= 0 && reads) {
		ssize_t got = read(f->peer, bytes, sizeof(bytes));
		if (got == 0)
			f->hung_up = true;
		if (got <= 0)
			break;
		buf_append(&f->asked, bytes, (size_t)got);
	}
}

static void peer_says(struct fixture *f, const char *text)
{
	assert_int_equal(write(f->peer, text, strlen(text)), strlen(text));
}

/* Everybody goes on for some time. */
static void pass(struct fixture *f, int64_t ns, bool reads)
{
	int64_t until_ns = clock_monotonic_ns() + ns;

	while (clock_monotonic_ns() < until_ns) {
		(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
		serve(f, reads);
		guest_hears(f);
	}
}

#define UNTIL(f, condition)                                                                              \
	do {                                                                                             \
		int64_t by_ns_ = clock_monotonic_ns() + 20 * NS_PER_S;                                   \
		while (!(condition)) {                                                                   \
			if (clock_monotonic_ns() > by_ns_)                                               \
				fail_msg("%s: '%.*s' '%.*s'", #condition, STR_ARG(buf_str(&(f)->asked)), \
					 STR_ARG(buf_str(&(f)->data)));                                  \
			pass((f), NS_PER_MS, true);                                                      \
		}                                                                                        \
	} while (0)

static bool holds(const struct buf *b, const char *text)
{
	return b->len > 0 && memmem(b->data, b->len, text, strlen(text)) != NULL;
}

static size_t times(const struct buf *b, const char *text)
{
	size_t found = 0;

	for (size_t i = 0; i + strlen(text) <= b->len; i++)
		found += memcmp(b->data + i, text, strlen(text)) == 0;
	return found;
}

/* --- the tests --- */

static void a_request_goes_to_the_pipeline_with_the_token(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthoriz");
	guest_says(f, "ation: Bearer mine\r\nContent-Length: 5\r\n\r\nab");
	guest_says(f, "cdeGET /logs/query HTTP/1.1\r\n\r\n"); /* what follows its body is no part of it */
	UNTIL(f, holds(&f->asked, "\r\n\r\nabcde"));
	assert_true(holds(&f->asked, "POST /deep/logs HTTP/1.1\r\nHost: 127.0.0.1:"));
	assert_true(holds(&f->asked, "Authorization: Bearer T-1\r\n"));
	assert_true(holds(&f->asked, "Connection: close\r\n"));
	assert_false(holds(&f->asked, "mine"));
	guest_says(f, ""); /* ends its side: the answer still comes */
	peer_says(f, "HTTP/1.1 202 Accepted\r\n\r\nnull");
	UNTIL(f, holds(&f->data, "null"));
	assert_false(holds(&f->asked, "/logs/query"));
	fd_close(&f->peer);
	UNTIL(f, f->closed);
	assert_int_equal(f->status, GUEST_CLOSE_OK);
	assert_true(f->ended);
}

static void a_body_in_chunks_is_passed_on_without_what_nobody_reads(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
		      "Expect: 100-continue\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	assert_true(holds(&f->asked, "\r\nTransfer-Encoding: chunked\r\n"));
	assert_true(holds(&f->asked, "\r\nExpect: 100-continue\r\n"));
	assert_false(holds(&f->asked, "Content-Length"));
	peer_says(f, "HTTP/1.1 100 Continue\r\n\r\n");
	UNTIL(f, holds(&f->data, "HTTP/1.1 100 Continue\r\n\r\n"));
	buf_clear(&f->asked);
	guest_says(f, "0005;x=\"y\"\r\nab");
	guest_says(f, "cde\r");
	guest_says(f, "\n0\r\nAuthorization: Bearer mine\r\n\r\n");
	UNTIL(f, holds(&f->asked, "0\r\n\r\n"));
	assert_true(str_eq(buf_str(&f->asked), STR("5\r\nabcde\r\n0\r\n\r\n")));
	peer_says(f, "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
	UNTIL(f, holds(&f->data, "2\r\nok\r\n0\r\n\r\n"));
	assert_false(f->ended);
}

static void malformed_chunks_are_400_and_never_whole_at_the_service(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		      "5\r\nhello\r\n5 \r\nhello\r\n0\r\n\r\n");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 400 Bad Request\r\n"));
	assert_true(holds(&f->data, "a chunk's size is no number"));
	if (f->peer >= 0)
		UNTIL(f, f->hung_up);
	assert_false(holds(&f->asked, "0\r\n\r\n"));
}

static void one_request_follows_another_each_with_the_token_once(void **state)
{
	static const char *const bodies[] = {"Content-Length: 2\r\n\r\nab",
					     "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "\r\n"};
	struct fixture *f = *state;

	guest_opens(f, "logs");
	for (size_t i = 0; i < 3 * ARRAY_LEN(bodies); i++) {
		buf_clear(&f->asked);
		buf_clear(&f->data);
		guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\n");
		guest_says(f, bodies[i % 3]);
		UNTIL(f, holds(&f->asked, "\r\n\r\n") && (i % 3 != 1 || holds(&f->asked, "0\r\n\r\n")));
		assert_int_equal(times(&f->asked, "Authorization: Bearer T-1"), 1);
		peer_says(
			f,
			i % 2 == 0
				? "HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\nnull"
				: "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnull\r\n0\r\n\r\n");
		UNTIL(f, holds(&f->data, i % 2 == 0 ? "null" : "0\r\n\r\n"));
		assert_false(f->ended);
	}
	struct shim_served counts;
	services_counts(f->services, &counts);
	const struct shim_service_counts *logs = &counts.each[SHIM_SERVICE_LOGS];
	assert_int_equal(logs->requests, 3 * ARRAY_LEN(bodies));
	assert_int_equal(logs->streams, 1);
	assert_true(logs->sent > logs->requests * 100 && logs->received > logs->requests * 40);
	guest_says(f, "");
	UNTIL(f, f->closed);
	services_counts(f->services, &counts);
	assert_int_equal(logs->streams, 0);
	assert_int_equal(f->status, GUEST_CLOSE_OK);
	assert_true(f->hung_up);
}

static void what_is_asked_ahead_waits_for_its_turn(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\naGET /logs/query?2 HTTP/1.1\r\nHost: "
		      "a\r\n\r\n"
		      "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
	guest_says(f, "");
	UNTIL(f, holds(&f->asked, "\r\n\r\na"));
	pass(f, 20 * NS_PER_MS, true);
	assert_false(holds(&f->asked, "/logs/query?2"));
	peer_says(f, "HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nfirst");
	UNTIL(f, holds(&f->asked, "GET /deep/logs/query?2 "));
	assert_true(holds(&f->data, "first"));
	peer_says(f, "HTTP/1.1 204 No Content\r\n\r\n");
	UNTIL(f, f->closed);
	assert_true(holds(&f->data, "204 No Content\r\n\r\nHTTP/1.1 404 Not Found\r\n"));
	assert_false(holds(&f->asked, "/metrics"));
}

static void an_answer_before_the_request_is_whole_ends_it(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab");
	UNTIL(f, holds(&f->asked, "\r\n\r\nab"));
	peer_says(f, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 413 "));
	/* Were it taken for another request, the rest of the body would be one. */
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	guest_says(f, "");
	UNTIL(f, f->closed);
	assert_false(holds(&f->asked, "/logs/query"));
}

static void a_service_that_hangs_up_between_requests_ends_the_stream(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	peer_says(f, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
	UNTIL(f, holds(&f->data, "\r\n\r\nx"));
	pass(f, 10 * NS_PER_MS, true);
	assert_false(f->ended);
	fd_close(&f->peer);
	UNTIL(f, f->ended);
	assert_false(holds(&f->data, "502"));
}

/* The next request on a connection that is kept goes where the pipeline is then. */
static void a_pipeline_that_has_moved_gets_the_next_request(void **state)
{
	struct fixture *f = *state;
	int before = f->listener;

	guest_opens(f, "logs");
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	autofree char *url = listen_somewhere(f);
	services_redirect(f->services, url);
	peer_says(f, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
	UNTIL(f, holds(&f->data, "first"));
	UNTIL(f, f->hung_up);
	fd_close(&f->peer);
	buf_clear(&f->asked);
	guest_says(f, "GET /logs/query?2 HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "/logs/query?2"));
	peer_says(f, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
	UNTIL(f, holds(&f->data, "second"));
	/* And while it is idle. */
	f->hung_up = false;
	fd_close(&f->listener);
	autofree char *third = listen_somewhere(f);
	services_redirect(f->services, third);
	UNTIL(f, f->hung_up);
	fd_close(&f->peer);
	guest_says(f, "GET /logs/query?3 HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "/logs/query?3"));
	assert_false(f->ended);
	(void)close(before);
}

static void what_nobody_asked_for_is_not_passed_on(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	peer_says(f, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "\r\n\r\nx"));
	assert_false(holds(&f->data, "forged"));
	UNTIL(f, f->hung_up);
}

static void a_service_that_does_not_speak_http_is_502(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	peer_says(f, "220 mail.test ESMTP\r\n");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 502 Bad Gateway\r\n"));
	assert_false(holds(&f->data, "ESMTP"));
}

/* More than any buffer between, in chunks of all sizes. */
static void a_large_body_comes_whole(void **state)
{
	struct fixture *f = *state;
	int64_t left = GUEST_CREDIT_START;
	autofree char *piece = xcalloc(1, 30001);
	uint64_t seen = 0;
	size_t whole = 0;

	memset(piece, 'w', 30000);
	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	left -= 100;
	for (size_t size = 1; size <= 30000; size += 173) {
		autovar(buf) chunk = {0};
		buf_printf(&chunk, "%zX\r\n%.*s\r\n", size, (int)size, piece);
		while (left < (int64_t)chunk.len) {
			pass(f, NS_PER_MS, true);
			left += (int64_t)(f->granted - seen);
			seen = f->granted;
		}
		guest_says(f, chunk.data);
		left -= (int64_t)chunk.len;
		whole += size;
	}
	guest_says(f, "0\r\n\r\n");
	UNTIL(f, holds(&f->asked, "0\r\n\r\n"));
	size_t got = 0;
	for (size_t i = 0; i < f->asked.len; i++)
		got += f->asked.data[i] == 'w';
	assert_int_equal(got, whole);
}

static void nothing_else_is_reached(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 404 Not Found\r\n"));
	assert_true(holds(&f->data, "\"detail\":\"a job's calls of this service are: POST /logs, GET /logs/query"));
	pass(f, 20 * NS_PER_MS, true);
	assert_int_equal(f->peer, -1);
	struct shim_served counts;
	services_counts(f->services, &counts);
	assert_int_equal(counts.refused[SHIM_REFUSAL_NO_SUCH_CALL], 1);
	assert_int_equal(counts.each[SHIM_SERVICE_LOGS].requests, 0);
	assert_int_equal(counts.each[SHIM_SERVICE_LOGS].streams, 1);
	/* It goes on talking to nobody, for ever. */
	autofree char *much = xcalloc(1, 30001);
	memset(much, 'x', 30000);
	for (int i = 0; i < 30; i++) {
		guest_says(f, much);
		guest_hears(f);
	}
	assert_true(f->granted > 600000);
	guest_says(f, "");
	UNTIL(f, f->closed);
}

static void an_unknown_service_is_refused(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "metadata");
	guest_hears(f);
	assert_true(f->closed);
	assert_int_equal(f->status, GUEST_CLOSE_REFUSED);
	assert_true(holds(&f->text, "no such service"));
	struct shim_served counts;
	services_counts(f->services, &counts);
	assert_int_equal(counts.refused[SHIM_REFUSAL_NO_SERVICE], 1);
}

static void names_are_for_jobs_with_a_network(void **state)
{
	struct fixture *f = *state;
	struct guest_service ports[GUEST_SERVICES_MAX];

	guest_opens(f, "dns");
	guest_hears(f);
	assert_int_equal(f->status, GUEST_CLOSE_REFUSED);
	assert_int_equal(services_ports(f->services, ports), 1);
	assert_string_equal(ports[0].name, "logs");
}

static void a_pipeline_that_is_away_is_502(void **state)
{
	struct fixture *f = *state;

	fd_close(&f->listener);
	guest_opens(f, "logs");
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 502 Bad Gateway\r\n"));
	assert_true(holds(&f->data, "the logging pipeline is away: nothing listens at http://127.0.0.1:"));
}

static void one_that_closes_without_an_answer_is_502(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "GET /logs/query HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	fd_close(&f->peer);
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 502 Bad Gateway\r\n"));
}

static void a_request_that_breaks_off_is_400(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab");
	UNTIL(f, holds(&f->asked, "\r\n\r\nab"));
	guest_says(f, "");
	UNTIL(f, f->closed);
	assert_true(holds(&f->data, "HTTP/1.1 400 Bad Request\r\n"));
	assert_true(holds(&f->data, "ended before it was whole"));
	UNTIL(f, f->hung_up);
}

static void a_guest_that_reads_nothing_holds_up_the_service(void **state)
{
	struct fixture *f = *state;
	static const char head[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
	autofree char *much = xcalloc(1, 65537);
	size_t said = strlen(head);
	int quiet = 0;

	memset(much, 'y', 65536);
	guest_opens(f, "logs");
	guest_says(f, "GET /logs/tail?job_id=1 HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	peer_says(f, head);
	/* As much as the sockets between take, and no more. */
	while (quiet < 50) {
		ssize_t put = write(f->peer, much, 65536);
		assert_true(put > 0 || errno == EAGAIN);
		said += put > 0 ? (size_t)put : 0;
		quiet = put > 0 ? 0 : quiet + 1;
		pass(f, NS_PER_MS, true);
	}
	assert_int_equal(f->data.len, GUEST_CREDIT_TO_GUEST);
	assert_true(said > f->data.len);
	while (f->data.len < said) {
		guest_grants(f, 65536);
		pass(f, NS_PER_MS, true);
	}
	fd_close(&f->peer);
	UNTIL(f, f->ended);
	assert_int_equal(f->data.len, said);
}

static void a_service_that_reads_nothing_holds_up_the_guest(void **state)
{
	struct fixture *f = *state;
	autofree char *much = xcalloc(1, 30001);
	int64_t left = GUEST_CREDIT_START;
	uint64_t seen = 0;
	int quiet = 0;

	memset(much, 'z', 30000);
	guest_opens(f, "logs");
	guest_says(f, "POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n");
	while (quiet < 50) {
		if (left >= 40000) {
			guest_says(f, much);
			left -= 30000;
		}
		pass(f, NS_PER_MS, false);
		quiet = f->granted == seen ? quiet + 1 : 0;
		left += (int64_t)(f->granted - seen);
		seen = f->granted;
	}
	/* It has all its credit out, and gets it back when the service reads. */
	assert_true(left < 40000);
	UNTIL(f, f->granted > seen);
}

static void the_end_of_the_job_ends_it_all(void **state)
{
	struct fixture *f = *state;

	guest_opens(f, "logs");
	guest_says(f, "GET /logs/tail?job_id=1 HTTP/1.1\r\nHost: a\r\n\r\n");
	UNTIL(f, holds(&f->asked, "\r\n\r\n"));
	services_free(TAKE(f->services));
	UNTIL(f, f->hung_up);
	guest_hears(f);
	assert_true(f->closed);
}

static void a_head_that_does_not_come_is_408(void **state)
{
	struct fixture *f = *state;
	const struct services_opts opts = {
		.loop = f->loop, .logs_url = "http://127.0.0.1:1/logs", .token = f->token, .wait_ns = 20 * NS_PER_MS};

	services_free(f->services);
	assert_int_equal(services_new(&opts, &f->services, NULL), 0);
	guest_opens(f, "logs");
	guest_says(f, "GET /lo");
	UNTIL(f, f->ended);
	assert_true(holds(&f->data, "HTTP/1.1 408 "));
}

/* --- names --- */

/* Services whose resolvers are `text`; gives the port of the listener. */
static uint16_t use_resolvers(struct fixture *f, char path[static 32], const char *text)
{
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	int fd;

	(void)snprintf(path, 32, "/tmp/services-test.XXXXXX");
	fd = mkstemp(path);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	fd_close(&fd);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&at, &len), 0);
	const struct services_opts opts = {
		.loop = f->loop, .names = true, .resolv_conf = path, .resolver_port = ntohs(at.sin_port)};
	services_free(f->services);
	assert_int_equal(services_new(&opts, &f->services, NULL), 0);
	return ntohs(at.sin_port);
}

static void say_bytes(struct fixture *f, struct str bytes)
{
	struct buf frame = {0};

	guest_data_encode(STREAM, GUEST_NO_PART, bytes, &frame);
	give(f, &frame);
}

static void names_go_to_the_first_resolver_that_takes_them(void **state)
{
	struct fixture *f = *state;
	char path[32];

	(void)use_resolvers(f, path,
			    "; none\nsearch a\nnameserver nonsense\nnameserver 127.0.0.9 # away\n"
			    "nameserver\t127.0.0.1\n");
	guest_opens(f, "dns");
	say_bytes(f, STR("\0\3abc"));
	UNTIL(f, f->asked.len == 5);
	assert_memory_equal(f->asked.data, "\0\3abc", 5);
	guest_says(f, "");
	UNTIL(f, f->hung_up);
	peer_says(f, "answer");
	UNTIL(f, holds(&f->data, "answer"));
	fd_close(&f->peer);
	UNTIL(f, f->closed);
	(void)unlink(path);
}

static void names_go_by_datagram_where_nobody_takes_connections(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(from);
	char path[32], bytes[100];
	ssize_t got = -1;

	from.sin_port = htons(use_resolvers(f, path, "nameserver 127.0.0.1\n"));
	fd_close(&f->listener);
	f->listener = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&from, sizeof(from)), 0);
	guest_opens(f, "dns");
	say_bytes(f, STR("\0\3ab"));
	say_bytes(f, STR("c\0\2d"));
	for (int i = 0; i < 2000 && got < 0; i++) {
		pass(f, NS_PER_MS, false);
		got = recvfrom(f->listener, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &len);
	}
	assert_int_equal(got, 3);
	assert_memory_equal(bytes, "abc", 3);
	assert_int_equal(sendto(f->listener, "xyz!", 4, 0, (struct sockaddr *)&from, len), 4);
	UNTIL(f, f->data.len > 0);
	assert_int_equal(f->data.len, 6);
	assert_memory_equal(f->data.data, "\0\4xyz!", 6);
	(void)unlink(path);
}

static void a_host_without_resolvers_says_so(void **state)
{
	struct fixture *f = *state;
	char path[32];

	(void)use_resolvers(f, path, "search a\n");
	guest_opens(f, "dns");
	UNTIL(f, f->closed);
	assert_true(holds(&f->text, "names no resolver"));
	(void)unlink(path);
}

int main(void)
{
#define WITH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		WITH(a_request_goes_to_the_pipeline_with_the_token),
		WITH(a_body_in_chunks_is_passed_on_without_what_nobody_reads),
		WITH(malformed_chunks_are_400_and_never_whole_at_the_service),
		WITH(one_request_follows_another_each_with_the_token_once),
		WITH(what_is_asked_ahead_waits_for_its_turn),
		WITH(an_answer_before_the_request_is_whole_ends_it),
		WITH(a_service_that_hangs_up_between_requests_ends_the_stream),
		WITH(a_pipeline_that_has_moved_gets_the_next_request),
		WITH(what_nobody_asked_for_is_not_passed_on),
		WITH(a_service_that_does_not_speak_http_is_502),
		WITH(a_large_body_comes_whole),
		WITH(nothing_else_is_reached),
		WITH(an_unknown_service_is_refused),
		WITH(names_are_for_jobs_with_a_network),
		WITH(a_pipeline_that_is_away_is_502),
		WITH(one_that_closes_without_an_answer_is_502),
		WITH(a_request_that_breaks_off_is_400),
		WITH(a_guest_that_reads_nothing_holds_up_the_service),
		WITH(a_service_that_reads_nothing_holds_up_the_guest),
		WITH(the_end_of_the_job_ends_it_all),
		WITH(a_head_that_does_not_come_is_408),
		WITH(names_go_to_the_first_resolver_that_takes_them),
		WITH(names_go_by_datagram_where_nobody_takes_connections),
		WITH(a_host_without_resolvers_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
