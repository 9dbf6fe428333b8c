/*
 * Sockets that were opened by whoever started the process: the cases run in children, whose descriptors are their own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "net/listen.h"

typedef int case_fn(int listening);

static int in_child(case_fn *fn)
{
	autoptr(listener) l = NULL;
	int status = -1;

	assert_int_equal(listener_open("127.0.0.1", 0, &l, NULL), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn(l->fd));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int takes_two(int listening)
{
	int fds[LISTEN_INHERITED_MAX];
	size_t count = 0;
	autoptr(listener) adopted = NULL;
	autofree char *pid = xasprintf("%d", getpid());

	if (dup2(listening, 3) != 3 || dup2(listening, 4) != 4 || setenv("LISTEN_FDS", "2", 1) != 0 ||
	    setenv("LISTEN_PID", pid, 1) != 0)
		return 1;
	if (listen_inherited(fds, &count, NULL) < 0 || count != 2 || fds[0] != 3 || fds[1] != 4)
		return 2;
	if (getenv("LISTEN_FDS") != NULL || getenv("LISTEN_PID") != NULL)
		return 3;
	if (listener_adopt(fds[1], &adopted, NULL) < 0 || adopted->port == 0 || adopted->path != NULL)
		return 4;
	return 0;
}

static int leaves_those_of_another_process(int listening)
{
	int fds[LISTEN_INHERITED_MAX];
	size_t count = 7;

	if (dup2(listening, 3) != 3 || setenv("LISTEN_FDS", "1", 1) != 0 || setenv("LISTEN_PID", "1", 1) != 0)
		return 1;
	return listen_inherited(fds, &count, NULL) == 0 && count == 0 ? 0 : 2;
}

static int refuses_what_does_not_listen(int listening)
{
	int fds[LISTEN_INHERITED_MAX];
	size_t count = 0;
	struct err err = {0};

	(void)listening;
	(void)unsetenv("LISTEN_PID");
	if (dup2(STDERR_FILENO, 3) != 3 || setenv("LISTEN_FDS", "1", 1) != 0)
		return 1;
	return listen_inherited(fds, &count, &err) == -ERR_INVALID && strstr(err.msg, "descriptor 3") != NULL ? 0 : 2;
}

static int refuses_nonsense(int listening)
{
	int fds[LISTEN_INHERITED_MAX];
	size_t count = 0;

	(void)listening;
	if (setenv("LISTEN_FDS", "many", 1) != 0)
		return 1;
	return listen_inherited(fds, &count, NULL) < 0 && count == 0 ? 0 : 2;
}

static void inherited_sockets(void **state)
{
	(void)state;
	assert_int_equal(in_child(takes_two), 0);
	assert_int_equal(in_child(leaves_those_of_another_process), 0);
	assert_int_equal(in_child(refuses_what_does_not_listen), 0);
	assert_int_equal(in_child(refuses_nonsense), 0);
}

/* The place is its opener's: the next process listens there too. */
static void an_inherited_unix_socket_stays(void **state)
{
	(void)state;
	char folder[] = "/tmp/nimbus-listen-XXXXXX";
	autoptr(listener) opened = NULL;
	struct listener *adopted = NULL;
	struct stat st;

	assert_non_null(mkdtemp(folder));
	autofree char *address = xasprintf("unix:%s/s.sock", folder);
	assert_int_equal(listener_open(address, 0, &opened, NULL), 0);
	assert_int_equal(listener_adopt(dup(opened->fd), &adopted, NULL), 0);
	assert_string_equal(adopted->path, address + strlen(LISTEN_UNIX));
	listener_free(adopted);
	assert_int_equal(stat(opened->path, &st), 0);
	autofree char *path = xstrdup(opened->path);
	listener_free(TAKE(opened));
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(dir_remove(-1, folder, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inherited_sockets),
		cmocka_unit_test(an_inherited_unix_socket_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
