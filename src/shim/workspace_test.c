/* The control plane and the guest are the test. */
#include "shim/workspace.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/guest_window.h"

enum { INPUT_SIZE = 3 * GUEST_WINDOW_SIZE + 12345, FIRST_STREAM = GUEST_FIRST_OPENED };

struct fixture {
	struct loop *loop;
	struct http_client *client;
	struct streams *streams;
	struct workspace *workspace;
	struct shim_start job;
	char *url;
	int listener, peer;
	size_t answered; /* bytes of the input */
	/* the guest */
	struct buf out;
	unsigned wakes, patience;
	int window_fd;
	struct guest_window window;
	size_t got;
	bool ended;
	/* what was told */
	bool brought, collected;
	struct err why;
	struct buf missing;
};

static void on_brought(void *ctx, const struct err *err)
{
	struct fixture *f = ctx;

	f->brought = true;
	f->why = err != NULL ? *err : (struct err){0};
}

static void on_missing(void *ctx, const char *text)
{
	struct fixture *f = ctx;

	buf_printf(&f->missing, "%s\n", text);
}

static void on_collected(void *ctx)
{
	struct fixture *f = ctx;

	f->collected = true;
}

static const struct workspace_ops ops = {on_brought, on_missing, on_collected};

static void give(struct fixture *f, struct buf *bytes)
{
	const struct guest_frame frame = {
		.type = (enum guest_frame_type)bytes->data[4],
		.stream = (uint16_t)((unsigned char)bytes->data[5] | (unsigned char)bytes->data[6] << 8),
		.payload = {bytes->data + GUEST_HEADER_SIZE, bytes->len - GUEST_HEADER_SIZE},
	};

	assert_int_equal(streams_take(f->streams, &frame, NULL), 0);
	buf_fini(bytes);
}

static void say(struct fixture *f, struct buf *words)
{
	struct buf bytes = {0};

	guest_data_encode(FIRST_STREAM, GUEST_NO_PART, buf_str(words), &bytes);
	give(f, &bytes);
	buf_fini(words);
}

/* The pieces that lie in the window, which it says it has taken. */
static void guest_takes(struct fixture *f, struct str words)
{
	struct guest_piece piece;
	struct buf back = {0};

	assert_int_equal(guest_window_came(&f->window, words, NULL), 0);
	for (; guest_window_first(&f->window, &piece); guest_window_taken(&f->window, &back))
		f->got += piece.len;
	if (back.len > 0)
		say(f, &back);
}

/* Takes what there is, and grants as much again. */
static void guest_hears(struct fixture *f)
{
	struct buf bytes = {0};
	autovar(buf) words = {0};
	size_t got = 0;

	(void)streams_fill(f->streams, &f->out, 1 << 20);
	while (f->out.len >= GUEST_HEADER_SIZE) {
		const unsigned char *at = (const unsigned char *)f->out.data;
		size_t len = at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16;
		got += at[4] == GUEST_DATA ? len : 0;
		f->ended = f->ended || (at[4] == GUEST_DATA && len == 0);
		if (at[4] == GUEST_DATA)
			buf_append(&words, at + GUEST_HEADER_SIZE, len);
		buf_consume(&f->out, GUEST_HEADER_SIZE + len);
	}
	if (got == 0)
		return;
	guest_credit_encode(FIRST_STREAM, &(struct guest_credit){(uint32_t)got}, &bytes);
	give(f, &bytes);
	guest_takes(f, buf_str(&words));
}

/* The channel takes nothing for a while, and then has room just when it is asked. */
static void on_wake(void *ctx)
{
	struct fixture *f = ctx;

	if (++f->wakes % f->patience == 0)
		guest_hears(f);
}

static int set_up(void **state)
{
	static const char *input = "/workspace";
	static const char *outputs[] = {"/one", "/two", "/three"};
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);

	f->peer = -1;
	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(f->listener, 4), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&at, &len), 0);
	f->url = xasprintf("http://127.0.0.1:%u", ntohs(at.sin_port));
	f->job = (struct shim_start){.job_id = 7,
				     .control_url = f->url,
				     .job_token = secret_new("T-1", 3),
				     .inputs = {&input, 1},
				     .outputs = {outputs, ARRAY_LEN(outputs)}};
	f->patience = 1;
	f->window_fd = memfd_create("window", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->window_fd, GUEST_WINDOW_SIZE), 0);
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(http_client_new(f->loop, &f->client, NULL), 0);
	f->streams = streams_new(&(struct streams_opts){.wake = on_wake, .ctx = f});
	streams_ready(f->streams);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	workspace_free(f->workspace);
	streams_free(f->streams);
	http_client_free(f->client);
	loop_free(f->loop);
	secret_free(f->job.job_token);
	buf_fini(&f->out);
	buf_fini(&f->missing);
	fd_close(&f->listener);
	fd_close(&f->peer);
	fd_close(&f->window_fd);
	free(f->url);
	free(f);
	return 0;
}

static void make(struct fixture *f, int64_t limit_ns)
{
	const struct workspace_opts opts = {
		.loop = f->loop, .client = f->client, .job = &f->job, .ops = &ops, .ctx = f, .limit_ns = limit_ns};

	assert_int_equal(workspace_new(&opts, &f->workspace, NULL), 0);
}

/* The control plane, as far as the connection takes it. */
static void serve(struct fixture *f)
{
	static const char zeros[64 * 1024];
	char bytes[4096];

	if (f->peer < 0) {
		f->peer = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		return;
	}
	if (f->answered == 0 && read(f->peer, bytes, sizeof(bytes)) > 0)
		assert_true(dprintf(f->peer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", INPUT_SIZE) > 0);
	while (f->answered < INPUT_SIZE) {
		size_t left = INPUT_SIZE - f->answered;
		ssize_t sent = write(f->peer, zeros, left < sizeof(zeros) ? left : sizeof(zeros));
		if (sent <= 0)
			return;
		f->answered += (size_t)sent;
	}
}

/* Nobody asks for more than it is told of: a wake that is owed and does not come is seen. */
static void run(struct fixture *f, const bool *until, bool serves)
{
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S;

	while (!*until) {
		if (clock_monotonic_ns() > by_ns)
			fail_msg("%zu bytes came, then nothing", f->got);
		(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
		if (serves)
			serve(f);
		guest_hears(f);
	}
}

static void room_that_comes_while_it_sends_is_used(void **state)
{
	struct fixture *f = *state;
	struct buf bytes = {0};

	f->patience = 5;
	make(f, 0);
	workspace_bring(f->workspace, f->streams, f->window_fd);
	run(f, &f->ended, true);
	assert_int_equal(f->got, INPUT_SIZE);
	guest_close_encode(FIRST_STREAM, &(struct guest_close){GUEST_CLOSE_OK, STR("")}, &bytes);
	give(f, &bytes);
	run(f, &f->brought, true);
	assert_int_equal(f->why.code, 0);
}

/* It says that it took what it was not given. */
static void a_guest_that_lies_ends_its_input(void **state)
{
	struct fixture *f = *state;
	struct buf words = {0};

	make(f, 0);
	workspace_bring(f->workspace, f->streams, f->window_fd);
	buf_put_u32(&words, 1);
	say(f, &words);
	run(f, &f->brought, true);
	assert_int_equal(f->why.code, ERR_INVALID);
	assert_non_null(strstr(f->why.msg, "came back that was not given"));
}

static void every_output_that_is_late_is_named(void **state)
{
	struct fixture *f = *state;

	make(f, NS_PER_MS);
	workspace_collect(f->workspace, f->streams, f->window_fd);
	run(f, &f->collected, false);
	assert_string_equal(f->missing.data, "output /one did not come: it took too long\n"
					     "output /two did not come: it took too long\n"
					     "output /three did not come: it took too long\n");
}

/* Of the body that the control plane is sent; -1: nothing of it is there. */
static ssize_t read_body(struct fixture *f, struct buf *head)
{
	char bytes[4096];

	if (f->peer < 0)
		f->peer = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	ssize_t got = f->peer >= 0 ? read(f->peer, bytes, sizeof(bytes)) : -1;
	if (got <= 0 || str_ends_with(buf_str(head), STR("\r\n\r\n")))
		return got;
	buf_append(head, bytes, (size_t)got);
	assert_true(dprintf(f->peer, "HTTP/1.1 100 Continue\r\n\r\n") > 0);
	return 0;
}

/* It says of each byte that it is a piece, and makes no room for what is said of that. */
static void a_guest_that_hears_nothing_ends_its_output(void **state)
{
	enum { CHUNK_SIZE = 6 }; /* of one byte */
	struct fixture *f = *state;
	int64_t by_ns = clock_monotonic_ns() + 60 * NS_PER_S;
	autovar(buf) head = {0};
	size_t said = 0, read = 0;

	f->job.outputs.count = 1;
	f->patience = UINT_MAX; /* what is said is heard here */
	make(f, 0);
	workspace_collect(f->workspace, f->streams, f->window_fd);
	while (!f->collected && clock_monotonic_ns() < by_ns) {
		struct buf words = {0};
		(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
		ssize_t got = read_body(f, &head);
		read += got > 0 ? (size_t)got : 0;
		(void)streams_fill(f->streams, &f->out, 1 << 20);
		for (; said - read / CHUNK_SIZE < GUEST_WINDOW_SLOTS && head.len > 0; said++)
			buf_put_u32(&words, 1);
		if (words.len > 0 && !f->collected)
			say(f, &words);
	}
	assert_non_null(f->missing.data);
	assert_non_null(strstr(f->missing.data, "the guest hears nothing of what it is told"));
}

static void it_may_go_in_the_middle(void **state)
{
	struct fixture *f = *state;

	make(f, 0);
	workspace_bring(f->workspace, f->streams, f->window_fd);
	while (f->got == 0) {
		(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
		serve(f);
	}
	workspace_free(TAKE(f->workspace));
	assert_false(f->brought);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(room_that_comes_while_it_sends_is_used, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_guest_that_lies_ends_its_input, set_up, tear_down),
		cmocka_unit_test_setup_teardown(every_output_that_is_late_is_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_guest_that_hears_nothing_ends_its_output, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_may_go_in_the_middle, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
