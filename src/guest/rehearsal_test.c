#include "guest/rehearsal.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/guest_window.h"

static void files_go_out_and_come_in_and_are_gone(void **state)
{
	char dir[] = "/tmp/nimbus-rehearsal.XXXXXX", folder[64], path[64], bytes[8192];

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(folder, sizeof(folder), "%s/folder", dir);
	(void)snprintf(path, sizeof(path), "%s/window", dir);
	int window = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(window, GUEST_WINDOW_SIZE), 0);
	rehearse_archives(folder, window);
	assert_int_equal(pread(window, bytes, sizeof(bytes), 0), sizeof(bytes));
	assert_non_null(memmem(bytes, sizeof(bytes), "folder/file", sizeof("folder/file")));
	assert_non_null(memmem(bytes, sizeof(bytes), "a rehearsal\n", 12));
	/* No child, no descriptor, no file. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(next, window + 1);
	(void)close(next);
	assert_int_equal(access(folder, F_OK), -1);
	(void)close(window);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void what_is_there_is_left_alone(void **state)
{
	char dir[] = "/tmp/nimbus-rehearsal.XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/file", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	rehearse_archives(dir, fd);
	rehearse_archives("/nowhere/at/all", fd);
	rehearse_archives(path, -1);
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	(void)close(fd);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_go_out_and_come_in_and_are_gone),
		cmocka_unit_test(what_is_there_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
