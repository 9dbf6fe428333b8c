/* A program that stands in for those that read images, and tries to do harm. */
#include "rootfs/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define PYTHON "/usr/bin/python3"

/* What each of them tries; it prints "done" where it could. */
#define HEAD                                     \
	"import ctypes, mmap, os, socket, sys\n" \
	"outside = sys.argv[1]\n"                \
	"os.chdir(sys.argv[2])\n"                \
	"def attempt():\n"
#define TAIL                                        \
	"\ntry:\n"                                  \
	"    attempt()\n"                           \
	"    print('done')\n"                       \
	"except (OSError, MemoryError) as error:\n" \
	"    print('stopped:', error)\n"

static const struct {
	const char *what, *script;
	bool needs_landlock; /* nothing else stops it */
	bool needs_view;     /* of a file of the same user only a view of the mounts of its own stops it */
} attempts[] = {
	{"a socket", HEAD "    socket.socket(socket.AF_INET)" TAIL},
	{"a local socket", HEAD "    socket.socket(socket.AF_UNIX)" TAIL},
	{"to read outside", HEAD "    open(outside + '/secret').read()" TAIL, .needs_landlock = true},
	{"to list outside", HEAD "    os.listdir(outside)" TAIL, .needs_landlock = true},
	{"to write outside", HEAD "    open(outside + '/made', 'w')" TAIL, .needs_landlock = true},
	{"to change outside", HEAD "    open(outside + '/theirs', 'a').write('x')" TAIL, .needs_landlock = true},
	{"to cut outside", HEAD "    os.truncate(outside + '/theirs', 0)" TAIL},
	{"to remove outside", HEAD "    os.remove(outside + '/theirs')" TAIL, .needs_landlock = true},
	{"to open to all outside", HEAD "    os.chmod(outside + '/secret', 0o777)" TAIL, .needs_view = true},
	{"processes", HEAD "    for _ in range(8):\n"
			   "        if os.fork() == 0: os._exit(0)" TAIL},
	{"to signal us", HEAD "    os.kill(os.getppid(), 0)" TAIL},
	{"to have us signalled", HEAD "    import fcntl\n"
				      "    reader, writer = os.pipe()\n"
				      "    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getppid())" TAIL},
	{"to have a thread of ours signalled", HEAD "    import fcntl, struct\n"
						    "    reader, writer = os.pipe()\n"
						    "    owner = struct.pack('ii', 0, os.getppid())\n"
						    "    fcntl.fcntl(reader, 15, owner)" TAIL},
	{"to choose the signal", HEAD "    import fcntl\n"
				      "    fcntl.fcntl(os.pipe()[0], fcntl.F_SETSIG, 9)" TAIL},
	{"memory that is a file", HEAD "    os.memfd_create('large')" TAIL},
	{"to change its input", HEAD "    os.open('/proc/self/fd/3', os.O_RDWR)" TAIL, .needs_landlock = true},
	{"memory", HEAD "    mmap.mmap(-1, 5 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)" TAIL},
	{"a large file", HEAD "    os.truncate(os.open('large', os.O_CREAT | os.O_RDWR), 1 << 37)" TAIL},
	{"another view of the system", HEAD "    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):\n"
					    "        raise OSError('no')" TAIL},
};

struct fixture {
	char place[40];
	char *folder, *outside, *input;
	int input_fd;
};

static void make(const char *folder, const char *name, struct str content)
{
	autofree char *path = xasprintf("%s/%s", folder, name);

	assert_int_equal(file_write_atomic(AT_FDCWD, path, content, 0666, NULL), 0);
	assert_int_equal(chmod(path, 0666), 0); /* whose it is is not to matter */
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->place, sizeof(f->place), "/tmp/nimbus-tool-XXXXXX");
	assert_non_null(mkdtemp(f->place));
	f->folder = xasprintf("%s/folder", f->place);
	f->outside = xasprintf("%s/outside", f->place);
	f->input = xasprintf("%s/input", f->place);
	assert_int_equal(chmod(f->place, 0755), 0);
	assert_int_equal(dir_make(f->folder, 0755, NULL), 0);
	assert_int_equal(dir_make(f->outside, 0755, NULL), 0);
	assert_int_equal(chmod(f->folder, 0777), 0);
	assert_int_equal(chmod(f->outside, 0777), 0);
	make(f->place, "input", STR("an image\n"));
	make(f->outside, "secret", STR("a secret\n"));
	make(f->outside, "theirs", STR("mine\n"));
	f->input_fd = open(f->input, O_RDONLY | O_CLOEXEC);
	assert_true(f->input_fd >= 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	fd_close(&f->input_fd);
	(void)!dir_remove(AT_FDCWD, f->place, NULL);
	free(f->folder);
	free(f->outside);
	free(f->input);
	free(f);
	return 0;
}

/* What it said. */
static void run(const struct fixture *f, const char *script, bool confined, struct buf *said)
{
	const char *const argv[] = {PYTHON, "-ISc", script, f->outside, f->folder, NULL};
	const struct tool_bounds bounds = {.input_fd = f->input_fd, .folder = f->folder};
	struct err err = {0};

	buf_clear(said);
	if (access(PYTHON, X_OK) != 0)
		skip();
	if (tool_run(
		    &(struct tool_call){
			    .argv = argv,
			    .package = "python3",
			    .timeout_ns = 120 * NS_PER_S,
			    .bounds = confined ? &bounds : NULL,
		    },
		    said, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Whether this host can show a program a view in which our own files cannot be changed. */
static bool can_change_view(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
		      mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status == 0;
}

/* One that links files (Linux 5.19). */
static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2;
}

static void assert_all_are_stopped(const struct fixture *f, bool view)
{
	autovar(buf) said = {0};

	for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
		if ((attempts[i].needs_view && !view) || (attempts[i].needs_landlock && !has_landlock()))
			continue;
		run(f, attempts[i].script, true, &said);
		if (strstr(said.data, "stopped: ") != said.data)
			fail_msg("%s: %s", attempts[i].what, said.data);
	}
}

static void what_does_harm_is_stopped(void **state)
{
	if (!has_landlock())
		print_message("this kernel has no Landlock: what needs it is passed over\n");
	assert_all_are_stopped(*state, tool_has_user() || can_change_view());
}

/* Each of them can be done where nothing stops it. */
static void without_confinement_nothing_is_stopped(void **state)
{
	const struct fixture *f = *state;
	autovar(buf) said = {0};

	if (geteuid() != 0)
		skip(); /* another view of the system is root's */
	for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
		bool input = strstr(attempts[i].script, "fd/3") != NULL; /* it has none */
		run(f, attempts[i].script, false, &said);
		if (!input && strcmp(said.data, "done\n") != 0)
			fail_msg("%s: %s", attempts[i].what, said.data);
	}
}

static void what_it_is_for_it_can_do(void **state)
{
	const struct fixture *f = *state;
	autovar(buf) said = {0};
	autovar(buf) made = {0};
	autofree char *path = xasprintf("%s/a/linked", f->folder);

	run(f,
	    "import os, threading\n"
	    "text = open('" TOOL_INPUT "').read()\n"
	    "os.mkdir('a'); os.mkdir('b'); open('b/made', 'w').write(text); os.link('b/made', 'a/linked')\n"
	    "os.symlink('/etc/passwd', 'b/link'); os.mkfifo('b/fifo'); os.chmod('b/made', 0o4755)\n"
	    "t = threading.Thread(target=lambda: print('a thread')); t.start(); t.join()\n",
	    true, &said);
	assert_string_equal(said.data, "a thread\n");
	assert_int_equal(file_read(AT_FDCWD, path, 100, &made, NULL), 0);
	assert_string_equal(made.data, "an image\n");
}

/* A user of its own, no new privilege, nothing open but what it was given. */
static void nothing_is_left_to_it(void **state)
{
	const struct fixture *f = *state;
	autovar(buf) said = {0};
	unsigned uid = tool_has_user() ? TOOL_UID : geteuid();
	autofree char *ids = xasprintf("nnp 1 uid (%u, %u, %u) ", uid, uid, uid);

	run(f,
	    "import ctypes, os\n"
	    "print([fd for fd in range(64) if os.path.lexists(f'/proc/self/fd/{fd}')], sorted(os.environ))\n"
	    "print('nnp', ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), 'uid', os.getresuid(), os.getgroups())\n",
	    true, &said);
	if (strstr(said.data, "[0, 1, 2, 3] ['LC_ALL', 'PATH']") == NULL || strstr(said.data, ids) == NULL)
		fail_msg("%s (wanted: %s)", said.data, ids);
}

static int run_with_capability(const struct fixture *f, const char *script, struct buf *said, struct err *err)
{
	const char *const argv[] = {PYTHON, "-ISc", script, NULL};

	if (access(PYTHON, X_OK) != 0)
		skip();
	return tool_run(
		&(struct tool_call){
			.argv = argv,
			.package = "python3",
			.timeout_ns = 120 * NS_PER_S,
			.bounds = &(struct tool_bounds){.input_fd = f->input_fd,
							.folder = f->folder,
							.capabilities = 1 << CAP_CHOWN},
		},
		said, err);
}

/* Where something is missing it is not run at all. */
static void with_capabilities_nothing_asks_devices(void **state)
{
	autovar(buf) said = {0};
	struct err err = {0};

	int rc = run_with_capability(*state,
				     "import fcntl\n"
				     "try: fcntl.ioctl(0, 0x5401)\n"
				     "except OSError as error: print(error.errno)\n",
				     &said, &err);
	if (rc == -ERR_FORBIDDEN && strstr(err.msg, "this host does not permit") != NULL)
		skip();
	assert_int_equal(rc, 0);
	assert_string_equal(said.data, "1\n"); /* EPERM, and not that it is no terminal */
}

static void who_says_too_much_is_an_error(void **state)
{
	const struct fixture *f = *state;
	const char *const argv[] = {"/usr/bin/yes", NULL};
	struct err err = {0};

	assert_int_equal(tool_run(&(struct tool_call){.argv = argv,
						      .package = "coreutils",
						      .timeout_ns = 120 * NS_PER_S,
						      .bounds = &(struct tool_bounds){.input_fd = f->input_fd}},
				  NULL, &err),
			 -ERR_TOO_LARGE);
	assert_non_null(strstr(err.msg, "says more than 64 MiB"));
}

enum { CANNOT = 77 };

/* Anybody may make a user namespace then, but say of nobody who he is in it. */
static bool become_user_without_maps(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("/proc", "/proc", NULL, MS_BIND, NULL) == 0 &&
	       mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0 &&
	       setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0 &&
	       prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0; /* what it has in /proc is its own again */
}

static int run_as_user_without_maps(const struct fixture *f)
{
	const char *const argv[] = {"/bin/true", NULL};
	struct err err = {0};

	if (!become_user_without_maps())
		return CANNOT;
	int rc = tool_run(&(struct tool_call){.argv = argv,
					      .package = "coreutils",
					      .timeout_ns = 120 * NS_PER_S,
					      .bounds = &(struct tool_bounds){.input_fd = f->input_fd}},
			  NULL, &err);
	if (rc < 0)
		print_message("%s\n", err.msg);
	return rc < 0;
}

static void without_maps_there_is_no_user_namespace(void **state)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(run_as_user_without_maps(*state));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
		skip();
	assert_int_equal(status, 0);
}

static void with_capabilities_all_must_hold(const struct fixture *f)
{
	autovar(buf) said = {0};
	autofree char *made = xasprintf("%s/made", f->folder);
	struct err err = {0};

	assert_int_equal(run_with_capability(f, "open('made', 'w')", &said, &err), -ERR_FORBIDDEN);
	assert_non_null(strstr(err.msg, "this host does not permit namespaces, read-only mounts"));
	assert_int_equal(access(made, F_OK), -1);
}

/* As on a host that permits no namespaces. It cannot be undone, so this is the last. */
static void without_namespaces_the_rest_holds(void **state)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_LEN(code), .filter = code};
	autovar(buf) said = {0};

	if (!has_landlock())
		skip(); /* other words */
	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
		skip();
	assert_all_are_stopped(*state, tool_has_user());
	log_set_level(LOG_LEVEL_DEBUG);
	int errors = dup(STDERR_FILENO);
	autoclose file = memfd_create("errors", MFD_CLOEXEC);
	assert_int_equal(dup2(file, STDERR_FILENO), STDERR_FILENO);
	run(*state, "pass", true, &said);
	assert_int_equal(dup2(errors, STDERR_FILENO), STDERR_FILENO);
	fd_close(&errors);
	autofree char *name = xasprintf("/proc/self/fd/%d", file);
	assert_int_equal(file_read(AT_FDCWD, name, 4096, &said, NULL), 0);
	if (strstr(said.data, "without=\"namespaces, read-only mounts\"") == NULL)
		fail_msg("it is not said: %s", said.data);
	with_capabilities_all_must_hold(*state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_does_harm_is_stopped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_confinement_nothing_is_stopped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_it_is_for_it_can_do, set_up, tear_down),
		cmocka_unit_test_setup_teardown(with_capabilities_nothing_asks_devices, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_left_to_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_says_too_much_is_an_error, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_maps_there_is_no_user_namespace, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_namespaces_the_rest_holds, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
