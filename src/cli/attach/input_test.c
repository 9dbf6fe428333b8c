#include "cli/attach/input.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

struct fixture {
	char *folder;
	int stdin_fd; /* what it was before */
	struct loop *loop;
	struct input *input;
	size_t room;
	struct buf came;
	unsigned ends;
};

static size_t on_room(void *ctx)
{
	return ((struct fixture *)ctx)->room;
}

static void on_bytes(void *ctx, struct str bytes)
{
	struct fixture *f = ctx;

	assert_true(bytes.len <= f->room);
	f->room -= bytes.len;
	f->ends += bytes.len == 0;
	buf_append_str(&f->came, bytes);
}

static void on_failed(void *ctx, const struct err *err)
{
	(void)ctx;
	fail_msg("%s", err->msg);
}

/* Each test has a folder of its own, and works in it. */
static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->folder = xstrdup("/tmp/nimbus-input-XXXXXX");
	f->stdin_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	*state = f;
	return mkdtemp(f->folder) == NULL || chdir(f->folder) != 0 ? -1 : loop_new(&f->loop, NULL);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	int rc = chdir("/") == 0 ? dir_remove(AT_FDCWD, f->folder, NULL) : -1;

	input_free(f->input);
	loop_free(f->loop);
	(void)dup2(f->stdin_fd, STDIN_FILENO);
	(void)close(f->stdin_fd);
	buf_fini(&f->came);
	free(f->folder);
	free(f);
	return rc;
}

static int open_here(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

static void read_from(struct fixture *f, int fd)
{
	static const struct input_ops ops = {.room = on_room, .bytes = on_bytes, .failed = on_failed};

	assert_true(dup2(fd, STDIN_FILENO) >= 0);
	(void)close(fd);
	assert_int_equal(input_new(f->loop, &ops, f, &f->input, NULL), 0);
}

static void give_room(struct fixture *f, size_t bytes)
{
	f->room = bytes;
	input_pump(f->input);
}

/* What there is to do, and a little longer. */
static void turn(struct fixture *f)
{
	while (loop_step(f->loop, clock_monotonic_ns() + 10 * NS_PER_MS, NULL) == 0)
		;
}

static void assert_came(const struct fixture *f, const char *text, unsigned ends)
{
	assert_string_equal(f->came.len > 0 ? f->came.data : "", text);
	assert_int_equal(f->ends, ends);
}

/* Without a writer, it can be opened for writing only once somebody reads. */
static int open_fifo(int *ret_writer)
{
	assert_int_equal(mkfifo("fifo", 0600), 0);
	autoclose both = open_here("fifo", O_RDWR);
	*ret_writer = open_here("fifo", O_WRONLY);
	return open_here("fifo", O_RDONLY);
}

static void a_file_is_read_as_far_as_there_is_room(void **state)
{
	struct fixture *f = *state;
	int fd = open_here("file", O_RDWR | O_CREAT);

	assert_int_equal(pwrite(fd, "abcdef", 6, 0), 6);
	read_from(f, fd);
	give_room(f, 4);
	assert_came(f, "abcd", 0);
	give_room(f, 4);
	assert_came(f, "abcdef", 1);
	give_room(f, 4);
	assert_came(f, "abcdef", 1);
}

static void a_pipe_s_end_waits_behind_what_is_in_it(void **state)
{
	struct fixture *f = *state;
	int writer = -1;

	read_from(f, open_fifo(&writer));
	assert_int_equal(write(writer, "abcdef", 6), 6);
	(void)close(writer);
	turn(f);
	assert_came(f, "", 0);
	give_room(f, 4);
	turn(f);
	assert_came(f, "abcd", 0);
	give_room(f, 4);
	turn(f);
	assert_came(f, "abcdef", 1);
}

/* It has nothing to say yet: a read would stand still, and with it the loop. */
static void a_writer_that_opens_it_anew_is_waited_for_on_the_loop(void **state)
{
	struct fixture *f = *state;
	int writer = -1;

	read_from(f, open_fifo(&writer));
	assert_int_equal(write(writer, "one", 3), 3);
	(void)close(writer);
	turn(f); /* which tells that all have left, while there is no room */
	writer = open_here("fifo", O_WRONLY);
	give_room(f, 100);
	turn(f);
	assert_came(f, "one", 0);
	assert_int_equal(write(writer, " two", 4), 4);
	turn(f);
	assert_came(f, "one two", 0);
	(void)close(writer);
	turn(f);
	assert_came(f, "one two", 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_file_is_read_as_far_as_there_is_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_pipe_s_end_waits_behind_what_is_in_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_writer_that_opens_it_anew_is_waited_for_on_the_loop, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
