/* The control plane and the client are the test, on a raw socket. */
#include "shim/session_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

struct fixture {
	struct loop *loop;
	struct http_client *client;
	struct session_link *link;
	struct secret *token;
	char *url;
	int listener, peer;
	char head[1024]; /* of the last request */
	struct session_decoder decoder;
	struct buf heard; /* bytes of the peer's that are no frame yet */
	/* what the user was told */
	struct buf input;
	bool over;
	struct err why;
};

static void on_input(void *ctx, struct str bytes)
{
	struct fixture *f = ctx;

	buf_append_str(&f->input, bytes);
	session_link_consumed(f->link, bytes.len);
}

static void on_winsize(void *ctx, const struct session_winsize *size)
{
	(void)ctx;
	(void)size;
}

static void on_signal(void *ctx, int signal)
{
	(void)ctx;
	(void)signal;
}

static void on_room(void *ctx)
{
	(void)ctx;
}

static void on_over(void *ctx, const struct err *err)
{
	struct fixture *f = ctx;

	f->over = true;
	f->why = err != NULL ? *err : (struct err){0};
}

static const struct session_link_ops ops = {on_input, on_winsize, on_signal, on_room, on_over};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);

	f->peer = -1;
	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(f->listener, 4), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&at, &len), 0);
	f->url = xasprintf("http://127.0.0.1:%u/session", ntohs(at.sin_port));
	f->token = secret_new("T-1", 3);
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(http_client_new(f->loop, &f->client, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	session_link_free(f->link);
	http_client_free(f->client);
	loop_free(f->loop);
	secret_free(f->token);
	fd_close(&f->listener);
	fd_close(&f->peer);
	buf_fini(&f->heard);
	buf_fini(&f->input);
	free(f->url);
	free(f);
	return 0;
}

static void step(struct fixture *f)
{
	(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
}

/* The next connection, and the answer to it. */
static void let_in(struct fixture *f)
{
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S;
	ssize_t got = -1;

	fd_close(&f->peer);
	buf_clear(&f->heard);
	session_decoder_init(&f->decoder, SESSION_FROM_SHIM);
	while (f->peer < 0 || got <= 0) {
		if (clock_monotonic_ns() > by_ns)
			fail_msg("nobody comes");
		step(f);
		if (f->peer < 0)
			f->peer = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		else
			got = read(f->peer, f->head, sizeof(f->head) - 1);
	}
	f->head[got] = '\0';
	assert_true(dprintf(f->peer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
			    SESSION_PROTOCOL) > 0);
}

static void start(struct fixture *f, bool resumes)
{
	const struct session_link_opts opts = {.loop = f->loop,
					       .client = f->client,
					       .url = f->url,
					       .token = f->token,
					       .resumes = resumes,
					       .ops = &ops,
					       .ctx = f};

	assert_int_equal(session_link_new(&opts, &f->link, NULL), 0);
	let_in(f);
	assert_null(strstr(f->head, "resume"));
}

static void say(struct fixture *f, struct buf *frames)
{
	assert_int_equal(file_write_fd(f->peer, buf_str(frames), NULL), 0);
	buf_fini(frames);
	*frames = (struct buf){0};
}

/* The next frame: its type, and *ret its bytes, good until the next call. */
static int hear(struct fixture *f, struct session_frame *ret)
{
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S;

	for (;;) {
		struct str rest = buf_str(&f->heard);
		int rc = session_decode(&f->decoder, &rest, ret, NULL);
		buf_consume(&f->heard, f->heard.len - rest.len);
		if (rc == SESSION_FRAME_READY)
			return (int)ret->type;
		assert_int_equal(rc, 0);
		if (clock_monotonic_ns() > by_ns)
			fail_msg("nothing is said");
		step(f);
		char *to = buf_reserve(&f->heard, 4096);
		ssize_t got = read(f->peer, to, 4096);
		f->heard.len += got > 0 ? (size_t)got : 0;
	}
}

static void wait_over(struct fixture *f)
{
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S;

	while (!f->over) {
		if (clock_monotonic_ns() > by_ns)
			fail_msg("it is not over");
		step(f);
	}
}

static void what_did_not_come_is_said_again(void **state)
{
	struct fixture *f = *state;
	struct session_frame frame;
	struct session_offset offset;
	struct buf out = {0};

	start(f, true);
	session_link_output(f->link, SESSION_STREAM_STDOUT, STR("one"));
	session_link_output(f->link, SESSION_STREAM_STDOUT, STR("two"));
	assert_int_equal(hear(f, &frame), SESSION_STDOUT);
	assert_true(str_eq(frame.payload, STR("one")));
	size_t had = frame.size;
	session_bytes_encode(SESSION_STDIN, STR("input"), &out);
	size_t said = out.len;
	say(f, &out);
	while (f->input.len == 0)
		step(f);
	/* It goes away; the client has had one frame by then. */
	fd_close(&f->peer);
	session_link_output(f->link, SESSION_STREAM_STDERR, STR("three"));
	let_in(f);
	assert_non_null(strstr(f->head, "?resume=1"));
	assert_int_equal(hear(f, &frame), SESSION_RESUME);
	assert_int_equal(session_offset_decode(frame.payload, &offset, NULL), 0);
	assert_int_equal(offset.offset, said);
	session_resume_encode(&(struct session_offset){had}, &out);
	say(f, &out);
	assert_int_equal(hear(f, &frame), SESSION_STDOUT);
	assert_true(str_eq(frame.payload, STR("two")));
	assert_int_equal(hear(f, &frame), SESSION_STDERR);
	assert_true(str_eq(frame.payload, STR("three")));
	assert_false(f->over);
}

/* Until the client has it, or has left. */
static void the_last_word_is_kept(void **state)
{
	struct fixture *f = *state;
	struct session_frame frame;
	struct buf out = {0};
	size_t had = 0;

	start(f, true);
	session_link_exit(f->link, &(struct session_exit){.code = 3, .reason = "exit", .text = ""});
	assert_int_equal(hear(f, &frame), SESSION_EXIT);
	fd_close(&f->peer);
	let_in(f);
	assert_int_equal(hear(f, &frame), SESSION_RESUME);
	session_resume_encode(&(struct session_offset){0}, &out);
	say(f, &out);
	assert_int_equal(hear(f, &frame), SESSION_EXIT);
	had = frame.size;
	assert_false(f->over);
	session_ack_encode(&(struct session_offset){had}, &out);
	say(f, &out);
	wait_over(f);
	assert_int_equal(f->why.code, 0);
}

static void a_client_that_leaves_is_known_at_once(void **state)
{
	struct fixture *f = *state;
	struct buf out = {0};

	start(f, true);
	session_gone_encode("", &out);
	say(f, &out);
	wait_over(f);
	assert_int_equal(f->why.code, ERR_UNAVAILABLE);
}

/* Of a command beside a job: its session is gone with the control plane that knew it. */
static void what_cannot_come_again_ends(void **state)
{
	struct fixture *f = *state;

	start(f, false);
	fd_close(&f->peer);
	wait_over(f);
	assert_int_equal(f->why.code, ERR_UNAVAILABLE);
}

static void a_breach_ends_it(void **state)
{
	static char bytes[SESSION_PAYLOAD_MAX];
	struct fixture *f = *state;
	struct buf out = {0};

	start(f, true);
	session_credit_encode(&(struct session_credit){SESSION_STREAM_STDIN, 1}, &out);
	session_bytes_encode(SESSION_STDIN, (struct str){bytes, sizeof(bytes)}, &out);
	assert_true(write(f->peer, out.data, out.len) > 0);
	buf_fini(&out);
	wait_over(f);
	assert_int_equal(f->why.code, ERR_INVALID);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(what_did_not_come_is_said_again), T(the_last_word_is_kept), T(a_client_that_leaves_is_known_at_once),
		T(what_cannot_come_again_ends),	    T(a_breach_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
