#include "shim/harden.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

/* In a child, since nothing of it can be undone: gives the number of the first claim that does not hold. */
static int check_in_child(void)
{
	autovar(buf) status = {0};
	struct rlimit core;

	if (harden_self(NULL) != 0)
		return 1;
	if (file_read(AT_FDCWD, "/proc/self/status", 65536, &status, NULL) != 0)
		return 2;
	static const char *const lines[] = {
		"\nCapInh:\t0000000000000000\n",
		"\nCapPrm:\t0000000000000000\n",
		"\nCapEff:\t0000000000000000\n",
		"\nCapAmb:\t0000000000000000\n",
		"\nNoNewPrivs:\t1\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		if (strstr(status.data, lines[i]) == NULL)
			return 10 + (int)i;
	}
	if (prctl(PR_GET_DUMPABLE) != 0)
		return 3;
	if (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_max > 1)
		return 4;
	/* Its own descriptors stay within reach by path: sockets are named that way. */
	autoclose fd = open("/proc/self/fd/0", O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? 0 : 5;
}

static void nothing_is_left_to_lose(void **state)
{
	autoclose null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int status = -1;

	(void)state;
	pid_t pid = fork();
	if (pid == 0) {
		(void)dup2(null, STDIN_FILENO);
		_exit(check_in_child());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_left_to_lose)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
