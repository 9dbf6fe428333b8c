#include "shim/spool.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

struct fixture {
	char *path;
	int dirfd;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->path = xstrdup("/tmp/nimbus-spool-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(dir_open(f->path, &f->dirfd, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	fd_close(&f->dirfd);
	free(f->path);
	free(f);
	return 0;
}

static struct spool *open_spool(const struct fixture *f, int64_t max, int64_t file_size)
{
	struct spool *s = NULL;
	struct err err = {0};

	if (spool_open(&(struct spool_opts){f->dirfd, "spool", max, file_size}, &s, &err) < 0)
		fail_msg("%s", err.msg);
	return s;
}

static void append(struct spool *s, int64_t seq, const char *message)
{
	spool_append(s, &(struct spool_record){seq, seq * 1000, LOG_STREAM_STDERR, LOG_LINE_ERROR, str_c(message)});
}

/* What was read: "seq:message," for each, and the sums to check them by. */
static void collect(void *ctx, const struct spool_record *r)
{
	assert_int_equal(r->timestamp, r->seq * 1000);
	assert_int_equal(r->stream, LOG_STREAM_STDERR);
	assert_int_equal(r->level, LOG_LINE_ERROR);
	buf_printf(ctx, "%d:%.*s,", (int)r->seq, STR_ARG(r->message));
}

static int64_t read_all(struct spool *s, size_t max, const char *want)
{
	autovar(buf) got = {0};
	int64_t bytes = -1;
	struct err err = {0};

	if (spool_read(s, max, collect, &got, &bytes, &err) < 0)
		fail_msg("%s", err.msg);
	buf_puts(&got, "");
	assert_string_equal(got.data != NULL ? got.data : "", want);
	return bytes;
}

static void what_goes_in_comes_out_once(void **state)
{
	autoptr(spool) s = open_spool(*state, 1000, 0);

	assert_int_equal(spool_pending(s), 0);
	append(s, 1, "one");
	append(s, 2, "");
	/* Not written yet: not there to be shipped. */
	assert_int_equal(read_all(s, 1000, ""), 0);
	assert_true(spool_pending(s) > 0);
	assert_int_equal(spool_write(s, NULL), 0);
	int64_t bytes = read_all(s, 1000, "1:one,2:,");
	assert_int_equal(bytes, spool_pending(s));
	/* Read again until acknowledged. */
	assert_int_equal(read_all(s, 1000, "1:one,2:,"), bytes);
	spool_ack(s, bytes);
	assert_int_equal(spool_pending(s), 0);
	assert_int_equal(read_all(s, 1000, ""), 0);
	append(s, 3, "three");
	assert_int_equal(spool_write(s, NULL), 0);
	(void)read_all(s, 1000, "3:three,");
	assert_int_equal(spool_last_seq(s), 3);
}

static void a_batch_is_bounded_but_never_empty(void **state)
{
	autoptr(spool) s = open_spool(*state, 1000, 0);

	for (int64_t seq = 1; seq <= 4; seq++)
		append(s, seq, "x");
	assert_int_equal(spool_write(s, NULL), 0);
	int64_t one = read_all(s, 1, "1:x,");
	spool_ack(s, read_all(s, (size_t)(2 * one), "1:x,2:x,"));
	(void)read_all(s, 1000, "3:x,4:x,");
}

static size_t count_files(const struct fixture *f)
{
	size_t count = 0;

	for (int n = 0; n < 100; n++) {
		autofree char *name = xasprintf("spool/%010d", n);
		count += faccessat(f->dirfd, name, F_OK, 0) == 0;
	}
	return count;
}

static void files_that_are_done_go(void **state)
{
	autoptr(spool) s = open_spool(*state, 1 << 20, 100);
	int64_t seq = 0;

	for (int i = 0; i < 20; i++) {
		append(s, ++seq, "0123456789012345678901234567890123456789");
		assert_int_equal(spool_write(s, NULL), 0);
	}
	assert_int_equal(count_files(*state), 10);
	assert_int_equal(spool_sync(s, NULL), 0);
	for (int64_t want = 1; want <= 20;) {
		autovar(buf) got = {0};
		int64_t bytes = 0;
		assert_int_equal(spool_read(s, 1 << 20, collect, &got, &bytes, NULL), 0);
		assert_true(bytes > 0);
		spool_ack(s, bytes);
		for (const char *at = got.data; (at = strchr(at, ':')) != NULL; at++)
			want++;
	}
	assert_int_equal(spool_pending(s), 0);
	assert_int_equal(count_files(*state), 1);
}

static void room_ends_and_comes_back(void **state)
{
	autoptr(spool) s = open_spool(*state, 60, 0);

	assert_true(spool_has_room(s));
	append(s, 1, "0123456789");
	assert_true(spool_has_room(s));
	append(s, 2, "0123456789");
	assert_false(spool_has_room(s));
	assert_int_equal(spool_write(s, NULL), 0);
	assert_false(spool_has_room(s));
	spool_ack(s, read_all(s, 1, "1:0123456789,"));
	assert_true(spool_has_room(s));
}

static void another_shim_reads_what_one_left(void **state)
{
	{
		autoptr(spool) s = open_spool(*state, 1000, 40);
		for (int64_t seq = 1; seq <= 3; seq++) {
			append(s, seq, "0123456789");
			assert_int_equal(spool_write(s, NULL), 0);
		}
	}
	autoptr(spool) s = open_spool(*state, 1000, 40);
	assert_int_equal(spool_last_seq(s), 3);
	spool_ack(s, read_all(s, 1000, "1:0123456789,2:0123456789,"));
	spool_ack(s, read_all(s, 1000, "3:0123456789,"));
	assert_int_equal(spool_pending(s), 0);
	append(s, 4, "more");
	assert_int_equal(spool_write(s, NULL), 0);
	(void)read_all(s, 1000, "4:more,");
}

/* The file, cut after every possible number of bytes: the whole records before the cut are there, no others. */
static void a_torn_tail_is_cut(void **state)
{
	const struct fixture *f = *state;
	struct stat st;

	{
		autoptr(spool) s = open_spool(f, 1000, 0);
		append(s, 1, "one");
		append(s, 2, "two");
		assert_int_equal(spool_write(s, NULL), 0);
	}
	assert_int_equal(fstatat(f->dirfd, "spool/0000000000", &st, 0), 0);
	for (off_t len = st.st_size - 1; len >= 0; len--) {
		autoclose fd = openat(f->dirfd, "spool/0000000000", O_RDWR | O_CLOEXEC);
		assert_int_equal(ftruncate(fd, len), 0);
		autoptr(spool) s = open_spool(f, 1000, 0);
		(void)read_all(s, 1000, len >= st.st_size / 2 ? "1:one," : "");
	}
}

static void a_changed_byte_is_noticed(void **state)
{
	const struct fixture *f = *state;
	autoptr(spool) s = open_spool(f, 1000, 0);
	struct err err = {0};
	int64_t bytes = 0;

	append(s, 1, "one");
	append(s, 2, "two");
	assert_int_equal(spool_write(s, NULL), 0);
	autoclose fd = openat(f->dirfd, "spool/0000000000", O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "X", 1, 27), 1);
	autovar(buf) got = {0};
	assert_int_equal(spool_read(s, 1000, collect, &got, &bytes, &err), -ERR_IO);
	assert_non_null(strstr(err.msg, "damaged"));
	/* And by the next shim, for which it is where the good part ends. */
	autoptr(spool) again = open_spool(f, 1000, 0);
	(void)read_all(again, 1000, "");
}

/* A full disk, as RLIMIT_FSIZE plays it: nothing is lost, and it goes on when there is room. */
static void a_failed_write_is_tried_again(void **state)
{
	const struct rlimit small = {50, RLIM_INFINITY};
	struct rlimit before;
	autoptr(spool) s = open_spool(*state, 1000, 0);

	(void)signal(SIGXFSZ, SIG_IGN);
	append(s, 1, "one");
	assert_int_equal(spool_write(s, NULL), 0);
	append(s, 2, "two");
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int rc = spool_write(s, NULL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_true(rc < 0);
	(void)read_all(s, 1000, "1:one,");
	append(s, 3, "three");
	assert_int_equal(spool_write(s, NULL), 0);
	(void)read_all(s, 1000, "1:one,2:two,3:three,");
}

static void the_largest_line_fits_any_batch(void **state)
{
	autoptr(spool) s = open_spool(*state, 1 << 20, 0);
	autofree char *big = xcalloc(1, LOG_LINE_MAX);
	autovar(buf) got = {0};
	int64_t bytes = 0;

	memset(big, 'x', LOG_LINE_MAX);
	spool_append(s, &(struct spool_record){1, 1000, LOG_STREAM_STDERR, LOG_LINE_ERROR, {big, LOG_LINE_MAX}});
	append(s, 2, "y");
	assert_int_equal(spool_write(s, NULL), 0);
	assert_int_equal(spool_read(s, 100, collect, &got, &bytes, NULL), 0);
	assert_true(bytes > LOG_LINE_MAX && bytes < LOG_LINE_MAX + 100);
	spool_ack(s, bytes);
	(void)read_all(s, 100, "2:y,");
	assert_int_equal(spool_remove(s, NULL), 0);
	assert_int_equal(count_files(*state), 0);
}

static void what_is_dropped_is_counted_only(void **state)
{
	autoptr(spool) s = open_spool(*state, 1000, 0);

	append(s, 1, "one");
	assert_int_equal(spool_write(s, NULL), 0);
	append(s, 2, "two");
	spool_drop(s);
	assert_int_equal(spool_pending(s), 0);
	append(s, 3, "three");
	assert_int_equal(spool_write(s, NULL), 0);
	(void)read_all(s, 1000, "");
	assert_int_equal(spool_last_seq(s), 3);
	assert_int_equal(spool_pending(s), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		TEST(what_goes_in_comes_out_once),	TEST(a_batch_is_bounded_but_never_empty),
		TEST(files_that_are_done_go),		TEST(room_ends_and_comes_back),
		TEST(another_shim_reads_what_one_left), TEST(a_torn_tail_is_cut),
		TEST(a_changed_byte_is_noticed),	TEST(a_failed_write_is_tried_again),
		TEST(the_largest_line_fits_any_batch),	TEST(what_is_dropped_is_counted_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
