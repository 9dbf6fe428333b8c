#include "cli/sink.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

struct fixture {
	struct loop *loop;
	struct sink *sink;
	size_t written;
	unsigned broken;
	unsigned failed;
};

static void on_written(void *ctx, size_t bytes)
{
	((struct fixture *)ctx)->written += bytes;
}

static void on_broken(void *ctx)
{
	((struct fixture *)ctx)->broken++;
}

static void on_failed(void *ctx, const struct err *err)
{
	assert_int_not_equal(err->code, 0);
	((struct fixture *)ctx)->failed++;
}

static void set_up(struct fixture *f, int fd)
{
	(void)signal(SIGPIPE, SIG_IGN);
	*f = (struct fixture){0};
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(
		sink_new(&(struct sink_opts){f->loop, fd, on_written, on_broken, on_failed, f}, &f->sink, NULL), 0);
}

static void tear_down(struct fixture *f)
{
	sink_free(f->sink);
	loop_free(f->loop);
}

/* What `fd` brings until all `total` bytes are written, and they in their order. */
static void drain(struct fixture *f, int fd, size_t total)
{
	size_t got = 0;

	while (got < total) {
		unsigned char bytes[4096];
		(void)!loop_step(f->loop, clock_monotonic_ns() + 10 * NS_PER_MS, NULL);
		ssize_t len = read(fd, bytes, sizeof(bytes));
		for (ssize_t i = 0; i < len; i++, got++)
			assert_int_equal(bytes[i], (unsigned char)(got * 7));
	}
	assert_int_equal(got, total);
}

static void put_all(struct fixture *f, size_t total)
{
	autofree char *bytes = xmalloc(total);

	for (size_t i = 0; i < total; i++)
		bytes[i] = (char)(i * 7);
	sink_put(f->sink, (struct str){bytes, total});
}

enum { MUCH = 300 * 1024 };

static void a_reader_that_is_slow_holds_up_nothing(void **state)
{
	(void)state;
	struct fixture f;
	int pipe_fds[2], pair[2];

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	const int ends[][2] = {{pipe_fds[0], pipe_fds[1]}, {pair[0], pair[1]}};
	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		set_up(&f, ends[i][1]);
		put_all(&f, MUCH);
		assert_true(sink_waiting(f.sink) > 0);
		assert_int_equal(f.written + sink_waiting(f.sink), MUCH);
		assert_int_equal(fcntl(ends[i][0], F_SETFL, O_NONBLOCK), 0);
		drain(&f, ends[i][0], MUCH);
		assert_int_equal(f.written, MUCH);
		/* Who else has it sees no change. */
		assert_int_equal(fcntl(ends[i][1], F_GETFL) & O_NONBLOCK, 0);
		tear_down(&f);
		(void)close(ends[i][0]);
		(void)close(ends[i][1]);
	}
}

static void a_reader_that_has_gone_is_told_of_once(void **state)
{
	(void)state;
	struct fixture f;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	set_up(&f, fds[1]);
	(void)close(fds[0]);
	(void)!loop_step(f.loop, clock_monotonic_ns() + 10 * NS_PER_MS, NULL);
	assert_int_equal(f.broken, 0); /* nothing was written to it */
	put_all(&f, MUCH);
	put_all(&f, 1);
	assert_int_equal(f.broken, 1);
	assert_int_equal(f.failed, 0);
	assert_int_equal(f.written, MUCH + 1); /* else the process would wait for ever */
	tear_down(&f);
	(void)close(fds[1]);
}

static void a_full_disk_is_an_error_once(void **state)
{
	(void)state;
	struct fixture f;
	autoclose fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	set_up(&f, fd);
	put_all(&f, MUCH);
	put_all(&f, 1);
	assert_int_equal(f.failed, 1);
	assert_int_equal(f.broken, 0);
	assert_int_equal(f.written, MUCH + 1);
	tear_down(&f);
}

static void a_file_takes_all_at_once(void **state)
{
	(void)state;
	struct fixture f;
	autoclose fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	set_up(&f, fd);
	put_all(&f, MUCH);
	assert_int_equal(f.written, MUCH);
	assert_int_equal(sink_waiting(f.sink), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	drain(&f, fd, MUCH);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_that_is_slow_holds_up_nothing),
		cmocka_unit_test(a_reader_that_has_gone_is_told_of_once),
		cmocka_unit_test(a_full_disk_is_an_error_once),
		cmocka_unit_test(a_file_takes_all_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
