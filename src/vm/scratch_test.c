#include "vm/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

enum { SIZE_MB = 64, EXT4_MAGIC_AT = 1024 + 0x38 };

static char dir[64];
static int dir_fd;

static int create(int *ret, struct err *err)
{
	return scratch_create(dir_fd, dir_fd, SIZE_MB, ret, err);
}

static void a_copy_is_an_empty_ext4(void **state)
{
	autoclose fd = -1;
	struct stat st;
	unsigned char magic[2];

	(void)state;
	struct err err = {0};
	if (create(&fd, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE_MB << 20);
	assert_int_equal(st.st_nlink, 0);
	/* Sparse: far less on the disk than it says. */
	assert_true(st.st_blocks * 512 < st.st_size / 4);
	assert_int_equal(pread(fd, magic, sizeof(magic), EXT4_MAGIC_AT), 2);
	assert_int_equal(magic[0], 0x53);
	assert_int_equal(magic[1], 0xef);
}

static void copies_are_apart(void **state)
{
	autoclose first = -1;
	autoclose second = -1;
	char byte = 'x';

	(void)state;
	assert_int_equal(create(&first, NULL), 0);
	assert_int_equal(pwrite(first, &byte, 1, 5000), 1);
	assert_int_equal(create(&second, NULL), 0);
	assert_int_equal(pread(second, &byte, 1, 5000), 1);
	assert_int_not_equal(byte, 'x');
	/* Made once, and nothing else is left. */
	assert_int_equal(faccessat(dir_fd, "ext4-64mb.img", F_OK, 0), 0);
}

static void sizes_have_bounds(void **state)
{
	int fd = -1;

	(void)state;
	assert_int_equal(scratch_create(dir_fd, dir_fd, 0, &fd, NULL), -ERR_INVALID_FIELD);
	assert_int_equal(scratch_create(dir_fd, dir_fd, SCRATCH_MB_MAX + 1, &fd, NULL), -ERR_INVALID_FIELD);
	assert_int_equal(fd, -1);
}

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/nimbus-scratch-test.XXXXXX");
	return mkdtemp(dir) == NULL ? -1 : dir_open(dir, &dir_fd, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	fd_close(&dir_fd);
	return dir_remove(AT_FDCWD, dir, NULL);
}

static bool no_mkfs(void)
{
	if (access("/sbin/mkfs.ext4", X_OK) == 0)
		return false;
	print_message("skipped: mkfs.ext4 (e2fsprogs) is not installed\n");
	return true;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_bounds),
		cmocka_unit_test(a_copy_is_an_empty_ext4),
		cmocka_unit_test(copies_are_apart),
	};

	return no_mkfs() ? 77 : cmocka_run_group_tests(tests, set_up, tear_down);
}
