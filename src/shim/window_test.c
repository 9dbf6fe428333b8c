#include "shim/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

enum { BYTES = 3 * GUEST_WINDOW_SIZE + 12345 };

static int fd = -1;
static char *bytes;
static struct err err;

static int set_up(void **state)
{
	(void)state;
	fd = memfd_create("window", MFD_CLOEXEC);
	bytes = xmalloc(BYTES);
	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (char)(i * 2654435761U >> 11);
	return ftruncate(fd, GUEST_WINDOW_SIZE);
}

static int tear_down(void **state)
{
	(void)state;
	fd_close(&fd);
	free(bytes);
	return 0;
}

/* One of the two is the guest. */
static void what_is_put_in_comes_out(void **state)
{
	struct window in, out;
	char *got = xmalloc(BYTES);
	size_t put = 0, taken = 0;
	bool finished = false;

	(void)state;
	window_begin(&in, fd);
	window_begin(&out, fd);
	while (taken < BYTES) {
		autovar(buf) words = {0};
		autovar(buf) back = {0};
		size_t len = BYTES - put < 77777 ? BYTES - put : 77777;
		ptrdiff_t some = 0;
		if (len > 0 && len <= window_room(&in)) {
			assert_int_equal(window_put(&in, (struct str){bytes + put, len}, &words, &err), 0);
			put += len;
		} else {
			/* A piece of its own from time to time, too. */
			some = window_get(&out, got + taken, BYTES - taken, &back, &err);
			assert_true(some >= 0);
			taken += (size_t)some;
		}
		if (put == BYTES && !finished) {
			window_finish(&in, &words);
			finished = true;
		}
		assert_int_equal(window_came(&out, buf_str(&words), &err), 0);
		assert_int_equal(window_returned(&in, buf_str(&back), &err), 0);
	}
	assert_memory_equal(got, bytes, BYTES);
	assert_int_equal(window_room(&in), GUEST_WINDOW_SIZE);
	free(got);
}

static void memory_is_given_back(void **state)
{
	struct window w;
	struct stat st;
	autovar(buf) words = {0};

	(void)state;
	window_begin(&w, fd);
	assert_int_equal(window_put(&w, (struct str){bytes, GUEST_WINDOW_SIZE}, &words, &err), 0);
	assert_int_equal(window_room(&w), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks > 0);
	window_free_memory(&w);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(st.st_size, GUEST_WINDOW_SIZE);
}

/* A VMM that was taken over cannot be read from beyond its window's end. */
static void a_window_that_shrank_is_an_error(void **state)
{
	struct window w;
	char to[10];
	autovar(buf) words = {0};

	(void)state;
	window_begin(&w, fd);
	assert_int_equal(window_came(&w, STR("\x64\0\0\0"), &err), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_true(window_get(&w, to, sizeof(to), &words, &err) < 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {T(what_is_put_in_comes_out), T(memory_is_given_back),
					   T(a_window_that_shrank_is_an_error)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
