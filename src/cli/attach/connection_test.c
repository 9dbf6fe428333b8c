/* The control plane and the shim behind it are the test, on a raw socket. */
#include "cli/attach/connection.h"

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

#define PATIENCE_NS (20 * NS_PER_S)
#define OPEN "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " SESSION_PROTOCOL "\r\n"

struct fixture {
	struct session session;
	struct plane plane;
	struct dialogue *dialogue;
	struct connection *connection;
	char url[64];
	int listener, peer;
	char head[1024];  /* of the last request */
	struct buf words; /* what we were told */
	size_t notices;
	bool flooding; /* each notice is answered with the next */
};

static void say(const struct fixture *f, const struct buf *frames)
{
	assert_int_equal(file_write_fd(f->peer, buf_str(frames), NULL), 0);
}

static void say_notice(const struct fixture *f, const char *text)
{
	autovar(buf) frames = {0};

	session_notice_encode(text, &frames);
	say(f, &frames);
}

static int on_heard(void *ctx, int event, const struct dialogue_said *said, struct err *err)
{
	struct fixture *f = ctx;

	if (event == DIALOGUE_EXIT)
		buf_printf(&f->words, "exit %d;", said->exit.code);
	if (event != DIALOGUE_NOTICE)
		return 0;
	f->notices++;
	if (str_eq(said->bytes, STR("bad")))
		return err_set(err, ERR_IO, "it is bad");
	if (f->flooding && f->notices < 10000)
		say_notice(f, "more");
	return 0;
}

static void on_moved(void *ctx)
{
	(void)ctx;
}

static void on_slow(void *ctx)
{
	buf_puts(&((struct fixture *)ctx)->words, "slow;");
}

static void on_broke_off(void *ctx, const char *why)
{
	(void)why;
	buf_puts(&((struct fixture *)ctx)->words, "broke off;");
}

static void on_failed(void *ctx, const struct err *err)
{
	buf_printf(&((struct fixture *)ctx)->words, "failed %d;", err->code);
}

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
	(void)snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", ntohs(at.sin_port));
	f->session.token = secret_new("T-1", 3);
	f->plane = (struct plane){.session = &f->session, .url = f->url};
	assert_int_equal(loop_new(&f->plane.loop, NULL), 0);
	assert_int_equal(http_client_new(f->plane.loop, &f->plane.client, NULL), 0);
	f->dialogue = dialogue_new();
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	connection_free(f->connection);
	plane_fini(&f->plane);
	loop_free(f->plane.loop);
	dialogue_free(f->dialogue);
	secret_free(f->session.token);
	fd_close(&f->listener);
	fd_close(&f->peer);
	buf_fini(&f->words);
	free(f);
	return 0;
}

static void step(const struct fixture *f)
{
	(void)!loop_step(f->plane.loop, clock_monotonic_ns() + NS_PER_MS, NULL);
}

static void begin(struct fixture *f, bool resumes)
{
	static const struct connection_ops ops = {on_heard, on_moved, on_slow, on_broke_off, on_failed};

	assert_int_equal(connection_new(
				 &(struct connection_opts){
					 .plane = &f->plane,
					 .path = "/session",
					 .resumes = resumes,
					 .dialogue = f->dialogue,
					 .ops = &ops,
					 .ctx = f,
				 },
				 &f->connection, NULL),
			 0);
	connection_start(f->connection);
}

/* As a machine in between does that has forgotten it. */
static void reset(struct fixture *f)
{
	const struct linger at_once = {.l_onoff = 1};

	assert_int_equal(setsockopt(f->peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
	fd_close(&f->peer);
}

/* The next connection, and the answer to it, in one piece with what comes behind its head. */
static void answer_with(struct fixture *f, const char *head, struct str behind)
{
	autovar(buf) bytes = {0};
	int64_t by_ns = clock_monotonic_ns() + PATIENCE_NS;
	ssize_t got = -1;

	fd_close(&f->peer);
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
	buf_printf(&bytes, "HTTP/1.1 %s\r\n", head);
	buf_append_str(&bytes, behind);
	say(f, &bytes);
}

static void answer(struct fixture *f, const char *head)
{
	answer_with(f, head, STR(""));
}

static void wait_open(const struct fixture *f)
{
	int64_t by_ns = clock_monotonic_ns() + PATIENCE_NS;

	while (!connection_open(f->connection)) {
		if (clock_monotonic_ns() > by_ns)
			fail_msg("it does not open");
		step(f);
	}
}

/* They begin with that. */
static void wait_words(const struct fixture *f, const char *expected)
{
	int64_t by_ns = clock_monotonic_ns() + PATIENCE_NS;

	while (f->words.len == 0) {
		if (clock_monotonic_ns() > by_ns)
			fail_msg("nothing is told");
		step(f);
	}
	if (!str_starts_with(buf_str(&f->words), str_c(expected)))
		fail_msg("'%s' is told, not '%s'", f->words.data, expected);
}

/* Exactly these bytes, and no more when it is closed behind them. */
static void assert_comes(const struct fixture *f, const struct buf *frames, bool closed)
{
	int64_t by_ns = clock_monotonic_ns() + PATIENCE_NS;
	autovar(buf) came = {0};
	ssize_t got = -1;

	while (got != 0 && (closed || came.len < frames->len)) {
		if (clock_monotonic_ns() > by_ns)
			fail_msg("%zu of %zu bytes came", came.len, frames->len);
		step(f);
		char *to = buf_reserve(&came, 4096);
		got = read(f->peer, to, 4096);
		came.len += got > 0 ? (size_t)got : 0;
	}
	assert_int_equal(came.len, frames->len);
	assert_memory_equal(came.data, frames->data, came.len);
}

static void put_exit(struct buf *out)
{
	session_exit_encode(&(struct session_exit){.code = 7, .reason = "exit", .text = ""}, out);
}

static void what_is_reset_is_taken_up_again(void **state)
{
	struct fixture *f = *state;
	autovar(buf) typed = {0};
	autovar(buf) resume = {0};

	begin(f, true);
	answer(f, OPEN);
	assert_null(strstr(f->head, "resume"));
	assert_non_null(strstr(f->head, "GET /session HTTP/1.1"));
	assert_non_null(strstr(f->head, "Bearer T-1"));
	wait_open(f);
	dialogue_input(f->dialogue, STR("typed"));
	connection_flush(f->connection);
	session_bytes_encode(SESSION_STDIN, STR("typed"), &typed);
	assert_comes(f, &typed, false);
	reset(f);
	answer(f, OPEN);
	assert_non_null(strstr(f->head, "GET /session?resume=1 HTTP/1.1"));
	session_resume_encode(&(struct session_offset){0}, &resume);
	assert_comes(f, &resume, false);
	say(f, &resume); /* nothing has come there either */
	assert_comes(f, &typed, false);
	assert_int_equal(f->words.len, 0);
}

/* The other end waits for it. */
static void the_end_is_acknowledged_before_we_hang_up(void **state)
{
	struct fixture *f = *state;
	autovar(buf) exit = {0};
	autovar(buf) ack = {0};

	begin(f, true);
	answer(f, OPEN);
	wait_open(f);
	put_exit(&exit);
	say(f, &exit);
	session_ack_encode(&(struct session_offset){exit.len}, &ack);
	assert_comes(f, &ack, true);
	wait_words(f, "exit 7;");
	assert_false(connection_open(f->connection));
}

/* Nothing more comes that would wake us. */
static void what_comes_behind_the_head_is_heard(void **state)
{
	struct fixture *f = *state;
	autovar(buf) exit = {0};

	begin(f, true);
	put_exit(&exit);
	answer_with(f, OPEN, buf_str(&exit));
	wait_words(f, "exit 7;");
}

static void a_command_beside_a_job_ends_with_its_connection(void **state)
{
	struct fixture *f = *state;

	begin(f, false);
	answer(f, OPEN);
	wait_open(f);
	reset(f);
	wait_words(f, "broke off;");
	assert_false(connection_open(f->connection));
}

/* Our own place may still be taken by what is left of us; at first it is somebody else's. */
static void an_answer_that_may_change_is_asked_for_again(void **state)
{
	static const struct {
		const char *head;
		const char *first; /* what comes of it at once; NULL: another try */
		const char *later; /* when it was open before */
	} cases[] = {
		{"503 Service Unavailable", NULL, NULL},
		{"429 Too Many Requests", NULL, NULL},
		{"409 Conflict", "failed", NULL},
		{"404 Not Found", "failed", "broke off;"},
		{"401 Unauthorized", "failed", "broke off;"},
	};

	for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
		bool was_open = i % 2 == 1;
		const char *expected = was_open ? cases[i / 2].later : cases[i / 2].first;
		autofree char *refusal = xasprintf("%s\r\nContent-Length: 2\r\n\r\n{}", cases[i / 2].head);
		assert_int_equal(tear_down(state), 0);
		assert_int_equal(set_up(state), 0);
		struct fixture *f = *state;
		begin(f, true);
		if (was_open) {
			answer(f, OPEN);
			wait_open(f);
			reset(f);
		}
		answer(f, refusal);
		if (expected == NULL) {
			answer(f, OPEN);
			wait_open(f);
			assert_int_equal(f->words.len, 0);
			continue;
		}
		wait_words(f, expected);
	}
}

static void nonsense_is_the_end_and_no_reason_to_come_again(void **state)
{
	struct fixture *f = *state;
	autovar(buf) frames = {0};

	begin(f, true);
	answer(f, OPEN);
	wait_open(f);
	session_winsize_encode(&(struct session_winsize){1, 1}, &frames); /* that is ours to say */
	say(f, &frames);
	autofree char *expected = xasprintf("failed %d;", ERR_INVALID);
	wait_words(f, expected);
}

static void what_cannot_be_taken_is_the_end(void **state)
{
	struct fixture *f = *state;

	begin(f, true);
	answer(f, OPEN);
	wait_open(f);
	say_notice(f, "bad");
	autofree char *expected = xasprintf("failed %d;", ERR_IO);
	wait_words(f, expected);
	assert_int_equal(f->notices, 1);
}

static void on_turn(void *ctx)
{
	((struct fixture *)ctx)->flooding = false;
}

/* Ctrl-C, say. */
static void a_flood_leaves_others_their_turn(void **state)
{
	struct fixture *f = *state;
	struct loop_source *timer = NULL;

	begin(f, true);
	answer(f, OPEN);
	wait_open(f);
	f->flooding = true;
	say_notice(f, "first");
	while (f->notices == 0)
		step(f);
	assert_int_equal(loop_add_timer(f->plane.loop, clock_monotonic_ns(), LOOP_NORMAL, on_turn, f, &timer, NULL), 0);
	while (f->flooding && f->notices < 10000)
		step(f);
	assert_false(f->flooding);
	loop_source_free(timer);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(what_is_reset_is_taken_up_again),
		T(the_end_is_acknowledged_before_we_hang_up),
		T(what_comes_behind_the_head_is_heard),
		T(a_command_beside_a_job_ends_with_its_connection),
		T(an_answer_that_may_change_is_asked_for_again),
		T(nonsense_is_the_end_and_no_reason_to_come_again),
		T(what_cannot_be_taken_is_the_end),
		T(a_flood_leaves_others_their_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
