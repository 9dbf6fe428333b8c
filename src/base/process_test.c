#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

static const char *shell_argv[] = {"sh", "-c", NULL, NULL};

static struct process_spec shell(const char *script)
{
	shell_argv[2] = script;
	return (struct process_spec){.path = "/bin/sh", .argv = shell_argv};
}

static struct process_exit run(const struct process_spec *spec)
{
	struct process p = {0};
	struct process_exit end = {0};
	struct err err = {0};

	if (process_spawn(spec, &p, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(process_wait(&p, clock_monotonic_ns() + 30 * NS_PER_S, &end, &err), 0);
	assert_int_equal(p.pidfd, -1);
	return end;
}

static void codes_and_signals_are_told_apart(void **state)
{
	(void)state;
	struct process_spec spec = shell("exit 7");
	struct process_exit end = run(&spec);
	assert_true(end.exited);
	assert_int_equal(end.code, 7);
	assert_true(end.max_rss_bytes > 0);

	spec = shell("kill -9 $$");
	end = run(&spec);
	assert_false(end.exited);
	assert_int_equal(end.signal, SIGKILL);
}

static void failures_before_exec_name_their_step(void **state)
{
	(void)state;
	const char *const argv[] = {"x", NULL};
	const struct {
		struct process_spec spec;
		const char *message;
	} cases[] = {
		{{.path = "/nonexistent/x", .argv = argv}, "start /nonexistent/x: execute: No such file"},
		{{.path = "/bin/sh", .argv = argv, .cwd = "/nonexistent"}, "start /bin/sh: enter its folder: No such"},
		{{.path = "/bin/sh", .argv = argv, .fds = &(struct process_fd){-1, 5}, .fd_count = 1},
		 "start /bin/sh: arrange descriptors: Bad file"},
		{{.path = "no-such-program-here", .argv = argv}, "start no-such-program-here: no such program in PATH"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct process p = {0};
		struct err err = {0};
		assert_true(process_spawn(&cases[i].spec, &p, &err) < 0);
		assert_ptr_equal(strstr(err.msg, cases[i].message), err.msg);
	}
}

/* The child sees exactly its list, also where numbers cross over. */
static void only_the_named_descriptors_arrive(void **state)
{
	(void)state;
	int out[2];
	int other[2];
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe(other), 0); /* inheritable on purpose: must not arrive */
	const struct process_fd fds[] = {{out[1], 1}, {other[0], out[1]}, {out[1], other[0]}};
	struct process_spec spec =
		shell("n=0; while [ $n -lt 64 ]; do [ -e /proc/$$/fd/$n ] && printf '%s ' $n; n=$((n + 1)); "
		      "done; exit 0");
	spec.fds = fds;
	spec.fd_count = ARRAY_LEN(fds);
	spec.envp = (const char *[]){"PATH=/usr/bin:/bin", NULL};
	assert_int_equal(run(&spec).code, 0);
	(void)close(out[1]);
	autovar(buf) seen = {0};
	char *to = buf_reserve(&seen, 4096);
	ssize_t got = read(out[0], to, 4095);
	assert_true(got > 0);
	to[got] = '\0';
	int low = other[0] < out[1] ? other[0] : out[1];
	int high = other[0] < out[1] ? out[1] : other[0];
	autofree char *expected = xasprintf("0 1 2 %d %d ", low, high);
	assert_string_equal(to, expected);
	(void)close(out[0]);
	(void)close(other[0]);
	(void)close(other[1]);
}

static void a_wait_has_a_deadline_and_signals_go_by_pidfd(void **state)
{
	(void)state;
	struct process_spec spec = shell("read x");
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	const struct process_fd in = {ends[0], 0};
	spec.fds = &in;
	spec.fd_count = 1;
	struct process p = {0};
	struct process_exit end = {0};
	struct err err = {0};

	assert_int_equal(process_spawn(&spec, &p, &err), 0);
	assert_int_equal(process_wait(&p, 0, &end, &err), -ERR_TIMEOUT);
	assert_int_equal(process_signal(&p, SIGTERM, &err), 0);
	assert_int_equal(process_wait(&p, INT64_MAX, &end, &err), 0);
	assert_int_equal(end.signal, SIGTERM);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

/* The helper's child must die with it: then the pipe that both hold ends. */
static void a_child_dies_with_its_parent(void **state)
{
	(void)state;
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid_t helper = fork();
	if (helper == 0) {
		const struct process_fd fd = {ends[1], 9};
		struct process_spec spec = {.path = "sleep", .argv = (const char *[]){"sleep", "1000", NULL}};
		spec.fds = &fd;
		spec.fd_count = 1;
		spec.parent_death_signal = SIGKILL;
		struct process p = {0};
		_exit(process_spawn(&spec, &p, NULL) == 0 ? 0 : 1);
	}
	(void)close(ends[1]);
	char byte = 0;
	assert_int_equal(read(ends[0], &byte, 1), 0);
	(void)close(ends[0]);
}

static void signals_are_reset_and_limits_set(void **state)
{
	(void)state;
	sigset_t blocked;
	sigset_t before;
	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &blocked, &before);
	(void)signal(SIGPIPE, SIG_IGN);
	/* Read by the program itself: a shell that waits for a child may block signals meanwhile. Signals 32 and 33
	 * are glibc's own, which nobody can reset: make's children inherit them ignored. */
	struct process_spec spec =
		shell("test \"$(ulimit -n)\" = 77 && "
		      "exec awk '/^SigBlk:.0*$/ || /^SigIgn:.0000000[01][08]0000000$/ || /^NoNewPrivs:.1/ { good++ } "
		      "END { exit good != 3 }' /proc/self/status");
	spec.max_files = 77;
	spec.no_core = true;
	spec.no_new_privs = true;
	spec.new_session = true;
	spec.nice = 1;
	spec.envp = (const char *[]){"PATH=/usr/bin:/bin", NULL};
	assert_int_equal(run(&spec).code, 0);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
}

static void it_executes_by_descriptor_as_another_user(void **state)
{
	(void)state;
	autoclose fd = open("/usr/bin/id", O_PATH | O_CLOEXEC);
	struct process_spec spec = {.exec_fd = fd, .argv = (const char *[]){"id", NULL}};
	assert_int_equal(run(&spec).code, 0);
	if (geteuid() != 0)
		skip(); /* only root may change the user */
	spec = shell("test \"$(id -u) $(id -g) $(id -G)\" = '900000 900001 900001 5'");
	spec.envp = (const char *[]){"PATH=/usr/bin:/bin", NULL};
	spec.change_user = true;
	spec.uid = 900000;
	spec.gid = 900001;
	spec.extra_gid = 5;
	assert_int_equal(run(&spec).code, 0);
}

static void this_binary_can_be_named_by_descriptor(void **state)
{
	(void)state;
	autoclose fd = -1;
	assert_int_equal(process_self_exec_fd(&fd, NULL), 0);
	assert_true(fd >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_and_signals_are_told_apart),
		cmocka_unit_test(failures_before_exec_name_their_step),
		cmocka_unit_test(only_the_named_descriptors_arrive),
		cmocka_unit_test(a_wait_has_a_deadline_and_signals_go_by_pidfd),
		cmocka_unit_test(a_child_dies_with_its_parent),
		cmocka_unit_test(signals_are_reset_and_limits_set),
		cmocka_unit_test(it_executes_by_descriptor_as_another_user),
		cmocka_unit_test(this_binary_can_be_named_by_descriptor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
