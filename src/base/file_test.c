#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
static char folder[64];
static int at = -1;

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/nimbus-file-XXXXXX");
	return mkdtemp(folder) != NULL ? dir_open(folder, &at, NULL) : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	fd_close(&at);
	return dir_remove(AT_FDCWD, folder, NULL);
}

static void descriptors_move_and_close(void **state)
{
	(void)state;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int taken = fd_take(&fd);

	assert_int_equal(fd, -1);
	errno = EINTR;
	fd_close(&taken);
	assert_int_equal(errno, EINTR);
	assert_int_equal(taken, -1);
	fd_close(&taken);
}

static void a_file_is_written_whole_with_its_mode(void **state)
{
	(void)state;
	autovar(buf) got = {0};
	struct stat st;
	mode_t before = umask(077);

	assert_int_equal(file_write_atomic(at, "a", STR("first"), 0644, NULL), 0);
	assert_int_equal(file_write_atomic(at, "a", STR("second"), 0600, NULL), 0);
	(void)umask(before);
	assert_int_equal(fstatat(at, "a", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(file_read(at, "a", 6, &got, NULL), 0);
	assert_string_equal(got.data, "second");
}

static void a_new_file_takes_nobodys_place(void **state)
{
	(void)state;
	autovar(buf) got = {0};
	struct err err = {0};
	struct stat st;

	assert_int_equal(file_write_new(at, "new", STR("first"), 0600, NULL), 0);
	assert_int_equal(file_write_new(at, "new", STR("second"), 0600, &err), -ERR_CONFLICT);
	assert_string_equal(err.msg, "new is there already");
	assert_int_equal(symlinkat("nowhere", at, "dangling"), 0);
	assert_int_equal(file_write_new(at, "dangling", STR("x"), 0600, NULL), -ERR_CONFLICT);
	assert_int_equal(file_read(at, "new", 6, &got, NULL), 0);
	assert_string_equal(got.data, "first");
	assert_int_equal(fstatat(at, "new", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_nlink, 1);
}

static void a_write_that_fails_leaves_nothing(void **state)
{
	(void)state;
	struct err err = {0};
	struct stat st;

	assert_true(file_write_atomic(at, "missing/a", STR("x"), 0600, &err) < 0);
	assert_non_null(strstr(err.msg, "missing/a"));
	assert_int_equal(mkdirat(at, "busy", 0700), 0);
	assert_true(file_write_atomic(at, "busy", STR("x"), 0600, &err) < 0);
	assert_int_equal(fstatat(at, "busy", &st, 0), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(dir_remove(at, "busy", NULL), 0);
}

static void reading_has_a_bound(void **state)
{
	(void)state;
	autovar(buf) got = {0};
	struct err err = {0};

	assert_int_equal(file_write_atomic(at, "b", STR("12345"), 0600, NULL), 0);
	assert_int_equal(file_read(at, "b", 4, &got, &err), -ERR_TOO_LARGE);
	assert_int_equal(file_read(at, "none", 4, &got, &err), -ERR_IO);
	assert_non_null(strstr(err.msg, "open none: No such file"));
}

static void folders_are_made_and_removed_whole(void **state)
{
	(void)state;
	autofree char *deep = xasprintf("%s/x/y/z", folder);
	autofree char *file = xasprintf("%s/x/file", folder);
	autofree char *below = xasprintf("%s/x/file/y", folder);
	struct err err = {0};
	struct stat st;

	assert_int_equal(dir_make(deep, 0700, NULL), 0);
	assert_int_equal(dir_make(deep, 0700, NULL), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, file, STR(""), 0600, NULL), 0);
	assert_true(dir_make(file, 0700, &err) < 0);
	assert_non_null(strstr(err.msg, "in the way"));
	assert_true(dir_make(below, 0700, &err) < 0);
	assert_int_equal(dir_remove(at, "x", NULL), 0);
	assert_int_not_equal(fstatat(at, "x", &st, 0), 0);
	assert_int_equal(dir_remove(at, "x", NULL), 0);
}

static void removing_follows_no_link(void **state)
{
	(void)state;
	struct stat st;

	assert_int_equal(mkdirat(at, "kept", 0700), 0);
	assert_int_equal(file_write_atomic(at, "kept/file", STR("x"), 0600, NULL), 0);
	assert_int_equal(mkdirat(at, "gone", 0700), 0);
	assert_int_equal(symlinkat("../kept", at, "gone/link"), 0);
	assert_int_equal(dir_remove(at, "gone", NULL), 0);
	assert_int_equal(fstatat(at, "kept/file", &st, 0), 0);
	assert_int_equal(symlinkat("kept", at, "link"), 0);
	assert_int_equal(dir_remove(at, "link", NULL), 0);
	assert_int_equal(fstatat(at, "kept/file", &st, 0), 0);
}

static void a_path_goes_only_where_it_may(void **state)
{
	(void)state;
	assert_int_equal(file_write_new(at, "within", STR("x"), 0600, NULL), 0);
	assert_int_equal(symlinkat("within", at, "link"), 0);
	autoclose in = file_open_within(at, "within", O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	assert_true(in >= 0);
	assert_int_equal(fcntl(in, F_GETFD), FD_CLOEXEC);
	assert_int_equal(file_open_within(at, "link", O_RDONLY, RESOLVE_NO_SYMLINKS), -1);
	assert_int_equal(errno, ELOOP);
	assert_int_equal(file_open_within(at, "..", O_RDONLY, RESOLVE_BENEATH), -1);
	assert_int_equal(errno, EXDEV);
}

static void free_space_is_told(void **state)
{
	(void)state;
	uint64_t bytes = 0;

	assert_int_equal(disk_free(at, &bytes, NULL), 0);
	assert_true(bytes > 0);
	assert_true(disk_free(-1, &bytes, NULL) < 0);
}

static void a_copy_has_a_digest(void **state)
{
	(void)state;
	autovar(buf) digest = {0};
	autovar(buf) copied = {0};
	int64_t size = 0;

	assert_int_equal(file_write_atomic(at, "from", STR("abc"), 0600, NULL), 0);
	autoclose from = openat(at, "from", O_RDONLY | O_CLOEXEC);
	autoclose to = openat(at, "to", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(file_copy_fd(from, to, &digest, &size, NULL), 0);
	assert_int_equal(size, 3);
	assert_string_equal(digest.data, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(file_read(at, "to", 100, &copied, NULL), 0);
	assert_string_equal(copied.data, "abc");
	/* At its end there is nothing left. */
	digest.len = 0;
	assert_int_equal(file_copy_fd(from, -1, &digest, &size, NULL), 0);
	assert_int_equal(size, 0);
	assert_string_equal(digest.data, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	assert_true(file_copy_fd(to, -1, &digest, NULL, NULL) < 0); /* not open for reading */
}

static void a_lock_has_one_holder(void **state)
{
	(void)state;
	autofree char *path = xasprintf("/proc/self/fd/%d/lock", at);
	autofree char *self = xasprintf("%d", (int)getpid());
	char holder[FILE_HOLDER_SIZE] = "";
	autoclose first = -1;
	autoclose second = -1;

	assert_int_equal(file_lock(path, 0600, &first, holder, NULL), 0);
	assert_int_equal(file_lock(path, 0600, &second, holder, NULL), 1);
	assert_string_equal(holder, self);
	assert_int_equal(second, -1);
	fd_close(&first);
	assert_int_equal(file_lock(path, 0600, &second, holder, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors_move_and_close),
		cmocka_unit_test(a_file_is_written_whole_with_its_mode),
		cmocka_unit_test(a_new_file_takes_nobodys_place),
		cmocka_unit_test(a_write_that_fails_leaves_nothing),
		cmocka_unit_test(reading_has_a_bound),
		cmocka_unit_test(folders_are_made_and_removed_whole),
		cmocka_unit_test(removing_follows_no_link),
		cmocka_unit_test(a_path_goes_only_where_it_may),
		cmocka_unit_test(free_space_is_told),
		cmocka_unit_test(a_copy_has_a_digest),
		cmocka_unit_test(a_lock_has_one_holder),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
