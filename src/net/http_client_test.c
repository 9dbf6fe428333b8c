/* Against a server of a few lines: a thread that plays one script per connection. */
#include "net/http_client.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/loop.h"

enum { MAX_ANSWERS = 8 };

/* Answers its connections, one after the other, with the given bytes; remembers what it was asked. */
struct peer {
	int listener;
	uint16_t port;
	pthread_t thread;
	const char *answers[MAX_ANSWERS]; /* "": hangs up without a word; "wait": keeps silent until the client goes */
	struct buf asked[MAX_ANSWERS];
};

static bool request_is_whole(const struct buf *b)
{
	const char *end = b->data != NULL ? strstr(b->data, "\r\n\r\n") : NULL;
	if (end == NULL)
		return false;
	const char *length = strcasestr(b->data, "content-length: ");
	size_t body = 0;
	if (length != NULL && length < end)
		(void)sscanf(length + strlen("content-length: "), "%zu", &body);
	return b->len >= (size_t)(end + 4 - b->data) + body;
}

static void read_until(int fd, struct buf *into, bool to_end)
{
	char piece[4096];

	while (to_end || !request_is_whole(into)) {
		ssize_t got = read(fd, piece, sizeof(piece));
		if (got <= 0)
			return;
		buf_append(into, piece, (size_t)got);
	}
}

static void *serve(void *arg)
{
	struct peer *p = arg;
	struct err err = {0};

	for (size_t i = 0; i < MAX_ANSWERS && p->answers[i] != NULL; i++) {
		autoclose fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
		bool waits = strcmp(p->answers[i], "wait") == 0;
		read_until(fd, &p->asked[i], waits);
		if (!waits)
			(void)!file_write_fd(fd, str_c(p->answers[i]), &err);
	}
	return NULL;
}

static void peer_start(struct peer *p)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);

	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(p->listener, 8), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&addr, &len), 0);
	p->port = ntohs(addr.sin_port);
	assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
}

static void peer_join(struct peer *p)
{
	assert_int_equal(pthread_join(p->thread, NULL), 0);
	(void)close(p->listener);
}

static void peer_free(struct peer *p)
{
	for (size_t i = 0; i < MAX_ANSWERS; i++)
		buf_fini(&p->asked[i]);
}

static char *url_of(const struct peer *p, const char *path)
{
	return xasprintf("http://127.0.0.1:%u%s", (unsigned)p->port, path);
}

#define ANSWER(status, headers, body) "HTTP/1.1 " status "\r\nConnection: close\r\n" headers "\r\n" body

struct world {
	struct peer peer;
	struct http_client *client;
	struct http_reply reply;
	struct err err;
};

static int world_new(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	*state = w;
	return http_client_new(NULL, &w->client, &w->err);
}

static int world_free(void **state)
{
	struct world *w = *state;

	peer_free(&w->peer);
	http_client_free(w->client);
	http_reply_fini(&w->reply);
	free(w);
	return 0;
}

/* One blocking call against the world's answers. */
static int call(struct world *w, struct http_call c)
{
	peer_start(&w->peer);
	autofree char *url = url_of(&w->peer, c.url);
	c.url = url;
	int rc = http_client_do(w->client, &c, &w->reply, &w->err);
	peer_join(&w->peer);
	return rc;
}

static void a_post_carries_body_token_and_headers(void **state)
{
	struct world *w = *state;
	autoptr(secret) token = secret_new("t0ken", 5);
	static const char *const headers[] = {"X-Test: yes"};

	w->peer.answers[0] = ANSWER("201 Created", "X-Request-Id: r-1\r\nContent-Length: 2\r\n", "{}");
	assert_int_equal(call(w, (struct http_call){.url = "/api/jobs?x=1",
						    .token = token,
						    .body = STR("{\"a\":1}"),
						    .headers = headers,
						    .header_count = 1,
						    .request_id = "mine"}),
			 0);
	assert_int_equal(w->reply.status, 201);
	assert_string_equal(w->reply.body.data, "{}");
	assert_string_equal(w->reply.request_id, "r-1");
	const char *asked = w->peer.asked[0].data;
	assert_ptr_equal(strstr(asked, "POST /api/jobs?x=1 HTTP/1.1\r\n"), asked);
	assert_non_null(strstr(asked, "\r\nAuthorization: Bearer t0ken\r\n"));
	assert_non_null(strstr(asked, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(asked, "\r\nX-Test: yes\r\n"));
	assert_non_null(strstr(asked, "\r\nX-Request-Id: mine\r\n"));
	assert_non_null(strstr(asked, "\r\n\r\n{\"a\":1}"));
	assert_null(strstr(asked, "Expect"));
}

static void a_post_without_a_body_says_so(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = ANSWER("204 No Content", "", "");
	assert_int_equal(call(w, (struct http_call){.url = "/x", .method = "POST"}), 0);
	assert_non_null(strstr(w->peer.asked[0].data, "\r\nContent-Length: 0\r\n"));
}

static void an_error_answer_becomes_an_err(void **state)
{
	static const struct {
		const char *answer;
		int code;
		const char *message;
		const char *hint;
	} cases[] = {
		{ANSWER("409 Conflict", "", "{\"detail\":\"too late\",\"code\":\"stale_fence\",\"hint\":\"stop\"}"),
		 ERR_STALE_FENCE, "too late", "stop"},
		{ANSWER("404 Not Found", "", "{\"detail\":\"Job not found\"}"), ERR_NOT_FOUND, "Job not found", NULL},
		{ANSWER("502 Bad Gateway", "", "<html>"), ERR_UNAVAILABLE, "answered 502: <html>", NULL},
		{ANSWER("500 Oops", "", "Internal Server Error"), ERR_INTERNAL, "answered 500: Internal", NULL},
		{ANSWER("500 Oops", "", "{\"detail\":\"no disk\",\"code\":\"io_error\"}"), ERR_IO, "no disk", NULL},
		{ANSWER("418 Teapot", "", ""), ERR_INVALID, "answered 418", NULL},
		{ANSWER("422 Bad", "", "{\"detail\":[{\"msg\":\"x\"}]}"), ERR_INVALID_FIELD, "answered 422", NULL},
		{ANSWER("301 Moved", "Location: http://example.com/\r\n", ""), ERR_INTERNAL, "answered 301", NULL},
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		w->peer.answers[0] = cases[i].answer;
		assert_int_equal(call(w, (struct http_call){.url = "/"}), -cases[i].code);
		assert_non_null(strstr(w->err.msg, cases[i].message));
		if (cases[i].hint != NULL)
			assert_string_equal(w->reply.hint, cases[i].hint);
		else
			assert_null(w->reply.hint);
		http_reply_fini(&w->reply);
		peer_free(&w->peer);
	}
}

/* Who follows it is the caller, who may have reasons not to. */
static void a_redirect_is_told(void **state)
{
	static const struct {
		const char *answer;
		const char *end; /* of where it points to; NULL: nowhere */
	} cases[] = {
		{ANSWER("302 Found", "Location: https://example.com/a?b\r\n", ""), "https://example.com/a?b"},
		{ANSWER("307 Moved", "Location: other\r\n", ""), "/some/other"},
		{ANSWER("302 Found", "Location: file:///etc/passwd\r\n", ""), NULL},
		{ANSWER("302 Found", "Location: http+unix://%2Frun%2Fx/\r\n", ""), NULL},
		{ANSWER("302 Found", "", ""), NULL},
		{ANSWER("200 OK", "", ""), NULL},
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		w->peer.answers[0] = cases[i].answer;
		(void)!call(w, (struct http_call){.url = "/some/thing"});
		if (cases[i].end == NULL)
			assert_null(w->reply.redirect);
		else
			assert_true(str_ends_with(str_c(w->reply.redirect), str_c(cases[i].end)));
		http_reply_fini(&w->reply);
		peer_free(&w->peer);
	}
}

static void nobody_listening_is_said_plainly(void **state)
{
	struct world *w = *state;

	peer_start(&w->peer); /* nothing to answer: it ends, and its port is free again */
	peer_join(&w->peer);
	autofree char *url = url_of(&w->peer, "/api/status");
	assert_int_equal(http_client_do(w->client, &(struct http_call){.url = url}, &w->reply, &w->err),
			 -ERR_UNAVAILABLE);
	assert_non_null(strstr(w->err.msg, "nothing listens at http://127.0.0.1:"));
	assert_null(strstr(w->err.msg, "/api/status"));
	assert_int_equal(w->reply.status, 0);
}

static void a_silent_server_is_a_timeout(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = "wait";
	assert_int_equal(call(w, (struct http_call){.url = "/", .timeout_ns = 50 * NS_PER_MS}), -ERR_TIMEOUT);
}

static void an_answer_over_its_limit_is_refused(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = ANSWER("200 OK", "Content-Length: 10\r\n", "0123456789");
	assert_int_equal(call(w, (struct http_call){.url = "/", .max_reply = 9}), -ERR_TOO_LARGE);
}

static void an_answer_that_breaks_off_is_no_answer(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = ANSWER("200 OK", "Content-Length: 10\r\n", "0123");
	assert_int_equal(call(w, (struct http_call){.url = "/"}), -ERR_UNAVAILABLE);
	assert_int_equal(w->reply.status, 0);
	assert_true(http_may_retry(&w->reply));
}

static void it_tries_again_where_that_can_help(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = "";
	w->peer.answers[1] = ANSWER("503 Busy", "", "{\"detail\":\"later\"}");
	w->peer.answers[2] = ANSWER("200 OK", "", "fine");
	assert_int_equal(call(w, (struct http_call){.url = "/", .retries = 2}), 0);
	assert_string_equal(w->reply.body.data, "fine");
	assert_null(w->reply.hint);
}

static void it_does_not_try_again_where_that_cannot_help(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = ANSWER("400 Bad", "", "{\"detail\":\"no\"}");
	assert_int_equal(call(w, (struct http_call){.url = "/", .retries = 5}), -ERR_INVALID);
}

static void a_retry_after_beyond_the_deadline_ends_it(void **state)
{
	struct world *w = *state;

	w->peer.answers[0] = ANSWER("429 Slow", "Retry-After: 1000\r\n", "{\"detail\":\"slow down\"}");
	assert_int_equal(call(w, (struct http_call){.url = "/", .retries = 5}), -ERR_LIMIT);
	assert_true(w->reply.retry_after_ns == 1000 * NS_PER_S);
}

struct lines {
	struct buf got;
	unsigned stop_after;
	unsigned count;
};

static int on_line(void *ctx, struct str line)
{
	struct lines *l = ctx;

	buf_append_str(&l->got, line);
	buf_putc(&l->got, '|');
	return ++l->count == l->stop_after;
}

static void a_stream_comes_line_by_line(void **state)
{
	struct world *w = *state;
	struct lines l = {0};

	w->peer.answers[0] = ANSWER("200 OK", "Transfer-Encoding: chunked\r\n",
				    "3\r\none\r\n6\r\n\ntwo\n\n\r\n5\r\nthree\r\n0\r\n\r\n");
	assert_int_equal(call(w, (struct http_call){.url = "/", .on_line = on_line, .line_ctx = &l}), 0);
	assert_string_equal(l.got.data, "one|two||three|");
	assert_int_equal(w->reply.body.len, 0);
	buf_fini(&l.got);
}

static void a_stream_can_be_stopped(void **state)
{
	struct world *w = *state;
	struct lines l = {.stop_after = 2};

	w->peer.answers[0] = ANSWER("200 OK", "", "a\nb\nc\n");
	assert_int_equal(call(w, (struct http_call){.url = "/", .on_line = on_line, .line_ctx = &l}), 0);
	assert_string_equal(l.got.data, "a|b|");
	buf_fini(&l.got);
}

static void an_endless_line_has_a_bound(void **state)
{
	struct world *w = *state;
	struct lines l = {0};

	w->peer.answers[0] = ANSWER("200 OK", "", "a\nbbbbbbbbbbbbbbbbbb");
	assert_int_equal(call(w, (struct http_call){.url = "/", .on_line = on_line, .line_ctx = &l, .max_reply = 10}),
			 -ERR_TOO_LARGE);
	assert_string_equal(l.got.data, "a|");
	buf_fini(&l.got);
}

static void the_body_of_an_error_is_not_lines(void **state)
{
	struct world *w = *state;
	struct lines l = {0};

	w->peer.answers[0] = ANSWER("403 Forbidden", "", "{\"detail\":\"other org\",\"code\":\"forbidden\"}\n");
	assert_int_equal(call(w, (struct http_call){.url = "/", .on_line = on_line, .line_ctx = &l}), -ERR_FORBIDDEN);
	assert_int_equal(l.count, 0);
	assert_string_equal(w->err.msg, "other org");
}

static void only_http_and_https(void **state)
{
	static const char *const bad[] = {"file:///etc/passwd", "ftp://host/", "127.0.0.1", "http://", "",
					  "gopher://x"};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(http_client_do(w->client, &(struct http_call){.url = bad[i]}, &w->reply, &w->err),
				 -ERR_INVALID);
		assert_int_equal(http_url_check(bad[i], "NIMBUS_URL", &w->err), -ERR_INVALID);
		assert_ptr_equal(strstr(w->err.msg, "NIMBUS_URL '"), w->err.msg);
	}
	assert_int_equal(http_url_check("https://nimbus.example/base", "NIMBUS_URL", &w->err), 0);
}

static void urls_are_joined_by_one_slash(void **state)
{
	static const char *const bases[] = {"http://h:1", "http://h:1/", "http://h:1//"};
	static const char *const paths[] = {"a/b", "/a/b", "//a/b"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bases); i++)
		for (size_t j = 0; j < ARRAY_LEN(paths); j++) {
			autofree char *url = http_url(bases[i], paths[j]);
			assert_string_equal(url, "http://h:1/a/b");
		}
}

static void backoff_grows_to_its_bound(void **state)
{
	(void)state;
	for (unsigned attempt = 0; attempt < 200; attempt++) {
		int64_t bound = attempt < 4 ? INT64_C(100) << attempt : 1000;
		int64_t wait = http_backoff(attempt, 100, 1000);
		assert_true(wait >= 0 && wait <= bound);
	}
	assert_true(http_backoff(100, 1, INT64_MAX) >= 0);
	assert_int_equal(http_backoff(3, 0, 0), 0);
}

/* --- on the loop --- */

struct outcome {
	struct loop *loop;
	unsigned done;
	int status;
	int code;
	char *body;
	struct http_client *again; /* starts a further call from within done */
	const char *url;
};

static void on_done(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct outcome *o = ctx;
	struct http_client *again = TAKE(o->again);

	o->done++;
	o->status = reply->status;
	o->code = err != NULL ? err->code : 0;
	free(o->body);
	o->body = buf_take(&reply->body);
	if (again != NULL) {
		struct http_pending *p = NULL;
		struct err err2 = {0};
		assert_int_equal(http_client_start(again, &(struct http_call){.url = o->url}, on_done, o, &p, &err2),
				 0);
	}
}

static void step_until(struct loop *l, const unsigned *done, unsigned count)
{
	struct err err = {0};
	int64_t deadline = clock_monotonic_ns() + 20 * NS_PER_S;

	while (*done < count)
		assert_int_equal(loop_step(l, deadline, &err), 0);
}

static void calls_run_on_the_loop(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct http_client *c = NULL;
	struct peer peer = {.answers = {ANSWER("200 OK", "", "first"), ANSWER("409 Gone", "", "second")}};
	struct http_pending *p = NULL;

	(void)state;
	peer_start(&peer);
	autofree char *url = url_of(&peer, "/");
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(http_client_new(l, &c, &err), 0);
	struct outcome o = {.again = c, .url = url};
	/* The body is copied: the caller's may go at once. */
	char body[] = "hello";
	assert_int_equal(
		http_client_start(c, &(struct http_call){.url = url, .body = str_c(body)}, on_done, &o, &p, &err), 0);
	memset(body, 'X', sizeof(body) - 1);
	assert_int_equal(o.done, 0);
	step_until(l, &o.done, 1);
	assert_int_equal(o.status, 200);
	assert_string_equal(o.body, "first");
	step_until(l, &o.done, 2);
	assert_int_equal(o.status, 409);
	assert_int_equal(o.code, ERR_CONFLICT);
	peer_join(&peer);
	assert_non_null(strstr(peer.asked[0].data, "\r\n\r\nhello"));
	free(o.body);
	http_client_free(c);
	peer_free(&peer);
}

static void a_cancelled_call_is_never_done(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct http_client *c = NULL;
	struct peer peer = {.answers = {"wait", ANSWER("200 OK", "", "")}};
	struct http_pending *p = NULL;
	struct outcome cancelled = {0};
	struct outcome o = {0};

	(void)state;
	peer_start(&peer);
	autofree char *url = url_of(&peer, "/");
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(http_client_new(l, &c, &err), 0);
	assert_int_equal(http_client_start(c, &(struct http_call){.url = url}, on_done, &cancelled, &p, &err), 0);
	assert_int_equal(loop_step(l, clock_monotonic_ns() + 20 * NS_PER_S, &err), 0);
	http_pending_cancel(p);
	assert_int_equal(http_client_start(c, &(struct http_call){.url = url}, on_done, &o, &p, &err), 0);
	step_until(l, &o.done, 1);
	assert_int_equal(cancelled.done, 0);
	/* What is still pending when the client goes is cancelled too. */
	assert_int_equal(http_client_start(c, &(struct http_call){.url = url}, on_done, &cancelled, &p, &err), 0);
	http_client_free(c);
	assert_int_equal(cancelled.done, 0);
	free(o.body);
	peer_join(&peer);
	peer_free(&peer);
}

/* Gives and takes a byte a call; every other time it has nothing, where it may say so. */
struct trickle {
	const char *left;
	struct buf took;
	bool may_wait;
	bool waited;
	bool wants;
};

static bool waits(struct trickle *t)
{
	t->waited = t->may_wait && !t->waited;
	t->wants = t->wants || t->waited;
	return t->waited;
}

static ptrdiff_t give_some(void *ctx, char *to, size_t cap)
{
	struct trickle *t = ctx;

	assert_true(cap > 0);
	if (waits(t))
		return HTTP_STREAM_LATER;
	if (*t->left == '\0')
		return 0;
	*to = *t->left++;
	return 1;
}

static int take_some(void *ctx, struct str bytes)
{
	struct trickle *t = ctx;

	if (waits(t))
		return HTTP_STREAM_LATER;
	if (str_eq(bytes, STR("bad")))
		return HTTP_STREAM_FAIL;
	buf_append_str(&t->took, bytes);
	return 0;
}

static void bodies_stream_both_ways(void **state)
{
	struct world *w = *state;
	struct trickle t = {.left = "a tar"};

	w->peer.answers[0] = ANSWER("200 OK", "", "another");
	assert_int_equal(call(w, (struct http_call){.url = "/in",
						    .method = "PUT",
						    .content_type = "application/x-tar",
						    .give = give_some,
						    .give_size = 5,
						    .take = take_some,
						    .stream_ctx = &t}),
			 0);
	const char *asked = w->peer.asked[0].data;
	assert_ptr_equal(strstr(asked, "PUT /in HTTP/1.1\r\n"), asked);
	assert_non_null(strstr(asked, "\r\nContent-Length: 5\r\n"));
	assert_non_null(strstr(asked, "\r\nContent-Type: application/x-tar\r\n"));
	assert_non_null(strstr(asked, "\r\n\r\na tar"));
	assert_string_equal(t.took.data, "another");
	assert_int_equal(w->reply.body.len, 0);
	buf_fini(&t.took);
}

static void who_cannot_take_it_ends_the_call(void **state)
{
	struct world *w = *state;
	struct trickle t = {0};

	w->peer.answers[0] = ANSWER("200 OK", "", "bad");
	assert_true(call(w, (struct http_call){.url = "/", .take = take_some, .stream_ctx = &t}) < 0);
}

static void streams_wait_on_the_loop(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct http_client *c = NULL;
	struct peer peer = {.answers = {ANSWER("200 OK", "", "another")}};
	struct http_pending *p = NULL;
	struct outcome o = {0};
	struct trickle t = {.left = "a tar", .may_wait = true};

	(void)state;
	peer_start(&peer);
	autofree char *url = url_of(&peer, "/");
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(http_client_new(l, &c, &err), 0);
	const struct http_call call = {
		.url = url, .method = "PUT", .give = give_some, .give_size = 5, .take = take_some, .stream_ctx = &t};
	assert_int_equal(http_client_start(c, &call, on_done, &o, &p, &err), 0);
	while (o.done == 0) {
		assert_int_equal(loop_step(l, clock_monotonic_ns() + 20 * NS_PER_S, &err), 0);
		if (o.done == 0 && t.wants) {
			t.wants = false;
			http_pending_go_on(p);
		}
	}
	assert_int_equal(o.status, 200);
	assert_non_null(strstr(peer.asked[0].data, "\r\n\r\na tar"));
	assert_string_equal(t.took.data, "another");
	buf_fini(&t.took);
	free(o.body);
	http_client_free(c);
	peer_join(&peer);
	peer_free(&peer);
}

static void a_deadline_ends_a_call_on_the_loop(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct http_client *c = NULL;
	struct peer peer = {.answers = {"wait"}};
	struct http_pending *p = NULL;
	struct outcome o = {0};

	(void)state;
	peer_start(&peer);
	autofree char *url = url_of(&peer, "/");
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(http_client_new(l, &c, &err), 0);
	assert_int_equal(http_client_start(c, &(struct http_call){.url = url, .timeout_ns = 50 * NS_PER_MS}, on_done,
					   &o, &p, &err),
			 0);
	step_until(l, &o.done, 1);
	assert_int_equal(o.code, ERR_TIMEOUT);
	free(o.body);
	http_client_free(c);
	peer_join(&peer);
	peer_free(&peer);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_new, world_free)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		WORLD_TEST(a_post_carries_body_token_and_headers),
		WORLD_TEST(a_post_without_a_body_says_so),
		WORLD_TEST(an_error_answer_becomes_an_err),
		WORLD_TEST(a_redirect_is_told),
		WORLD_TEST(nobody_listening_is_said_plainly),
		WORLD_TEST(a_silent_server_is_a_timeout),
		WORLD_TEST(an_answer_over_its_limit_is_refused),
		WORLD_TEST(an_answer_that_breaks_off_is_no_answer),
		WORLD_TEST(it_tries_again_where_that_can_help),
		WORLD_TEST(it_does_not_try_again_where_that_cannot_help),
		WORLD_TEST(a_retry_after_beyond_the_deadline_ends_it),
		WORLD_TEST(a_stream_comes_line_by_line),
		WORLD_TEST(a_stream_can_be_stopped),
		WORLD_TEST(an_endless_line_has_a_bound),
		WORLD_TEST(the_body_of_an_error_is_not_lines),
		WORLD_TEST(only_http_and_https),
		WORLD_TEST(bodies_stream_both_ways),
		WORLD_TEST(who_cannot_take_it_ends_the_call),
		cmocka_unit_test(streams_wait_on_the_loop),
		cmocka_unit_test(urls_are_joined_by_one_slash),
		cmocka_unit_test(backoff_grows_to_its_bound),
		cmocka_unit_test(calls_run_on_the_loop),
		cmocka_unit_test(a_cancelled_call_is_never_done),
		cmocka_unit_test(a_deadline_ends_a_call_on_the_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
