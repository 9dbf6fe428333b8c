#include "guest/task.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"

enum {
	OPEN_FILES_SOFT = 65536,
	OPEN_FILES_HARD = 1048576,
	NOT_FOUND_STATUS = 127, /* as shells do */
	NOT_STARTED_STATUS = 126,
	PIPE_SIZE = 256 * 1024,
};

/* --- in the child --- */

/* Limits are best effort: a kernel without the controller still runs the job. */
void cgroup_write(int cgroup_fd, const char *name, unsigned long long value)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "%llu", value);
	int fd = openat(cgroup_fd, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	ssize_t ignored = write(fd, text, (size_t)len);
	(void)ignored;
	(void)close(fd);
}

static void limit_resources(void)
{
	const struct rlimit files = {.rlim_cur = OPEN_FILES_SOFT, .rlim_max = OPEN_FILES_HARD};
	const struct rlimit core = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};

	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)setrlimit(RLIMIT_CORE, &core);
}

/* Into the cgroup, then into a view in which it is the root: the job cannot move itself out. */
static void enter_cgroup(const struct task_spec *spec)
{
	if (spec->cgroup_fd < 0)
		return;
	cgroup_write(spec->cgroup_fd, "cgroup.procs", 0); /* 0: the caller */
	if (unshare(CLONE_NEWCGROUP) == 0 && spec->own_cgroup_fd < 0)
		(void)mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (spec->own_cgroup_fd >= 0)
		cgroup_write(spec->own_cgroup_fd, "cgroup.procs", 0);
}

/* Where it is to leave nothing: mounts, and what System V keeps in memory, of its own. */
static void part(const struct task_spec *spec)
{
	if (spec->read_only && unshare(CLONE_NEWNS | CLONE_NEWIPC) != 0)
		_exit(NOT_STARTED_STATUS);
}

/* Then none of them can be written to. */
static void seal(const struct task_spec *spec)
{
	/* As linux/mount.h has it, which does not go with sys/mount.h. */
	enum { ATTR_RDONLY = 1 };
	const struct {
		uint64_t attr_set, attr_clr, propagation, userns_fd;
	} attr = {.attr_set = ATTR_RDONLY, .propagation = MS_PRIVATE};

	if (spec->read_only && syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) != 0)
		_exit(NOT_STARTED_STATUS);
}

static void default_signals(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		(void)signal(i, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* PID 1 is exempt from the OOM killer, and its children inherit that. */
static void be_killable(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	ssize_t ignored = write(fd, "0", 1);
	(void)ignored;
	(void)close(fd);
}

void task_be_ordinary(unsigned kept)
{
	(void)syscall(SYS_close_range, kept, ~0U, 0);
	be_killable();
	default_signals();
	(void)signal(SIGPIPE, SIG_IGN);
}

noreturn_fn static void refuse(const char *what, const char *name)
{
	int error = errno;

	(void)dprintf(STDERR_FILENO, "nimbus: %s %s: %s\n", what, name, strerror(error));
	_exit(error == ENOENT ? NOT_FOUND_STATUS : NOT_STARTED_STATUS);
}

static const struct passwd *find_user(const char *name)
{
	int64_t number;

	if (str_to_i64(str_c(name), "user", 0, INT32_MAX, &number, NULL) == 0)
		return getpwuid((uid_t)number);
	return getpwnam(name);
}

/* Everything that needs root is done. */
static void become(const char *name)
{
	const struct passwd *user = find_user(name);

	if (user == NULL) {
		(void)dprintf(STDERR_FILENO, "nimbus: there is no user '%s' in the VM\n", name);
		_exit(NOT_STARTED_STATUS);
	}
	if (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)
		refuse("become the user", name);
	(void)setenv("HOME", user->pw_dir, 1);
	(void)setenv("USER", user->pw_name, 1);
}

static void take_terminal(const struct task_spec *spec)
{
	if (spec->tty)
		(void)ioctl(STDIN_FILENO, TIOCSCTTY, 0);
}

noreturn_fn static void run(const struct task_spec *spec, const int stdio[3])
{
	char *const *argv = (char *const *)(uintptr_t)spec->argv;

	/* From here on complaints go to the process's own standard error. */
	for (int i = 0; i < 3; i++) {
		if (dup2(stdio[i], i) < 0)
			_exit(NOT_STARTED_STATUS);
	}
	(void)setsid();
	take_terminal(spec);
	part(spec);
	enter_cgroup(spec);
	be_killable();
	limit_resources();
	default_signals();
	seal(spec);
	/* execvp() looks for the program in the PATH of `environ`. */
	environ = (char **)(uintptr_t)spec->env;
	if (spec->user[0] != '\0')
		become(spec->user);
	if (spec->cwd[0] != '\0' && chdir(spec->cwd) != 0)
		refuse("change to the folder", spec->cwd);
	(void)execvp(spec->argv[0], argv);
	refuse("run", spec->argv[0]);
}

/* --- in PID 1 --- */

static void close_all(int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
		fds[i] = -1;
	}
}

static int unblock(int fd, struct err *err)
{
	return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : err_sys(err, "set up a stream");
}

/* fds[0]: ours, fds[1]: theirs. */
static int make_pipe(bool ours_reads, int fds[2], struct err *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return err_sys(err, "make a pipe");
	fds[0] = ends[ours_reads ? 0 : 1];
	fds[1] = ends[ours_reads ? 1 : 0];
	/* Bytes come and go in bursts as large as the credit: fewer turns for each. */
	(void)fcntl(fds[0], F_SETPIPE_SZ, PIPE_SIZE);
	return unblock(fds[0], err);
}

static int make_pipes(const struct task_spec *spec, int ours[3], int theirs[3], struct err *err)
{
	int rc = 0;

	for (int i = 0; i < 3 && rc == 0; i++) {
		int fds[2] = {-1, -1};
		if (i > 0 || spec->has_stdin)
			rc = make_pipe(i > 0, fds, err);
		else if ((fds[1] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
			rc = err_sys(err, "open /dev/null");
		ours[i] = fds[0];
		theirs[i] = fds[1];
	}
	return rc;
}

static int make_terminal(const struct task_spec *spec, int ours[3], int theirs[3], struct err *err)
{
	const struct winsize size = {.ws_row = spec->size.rows, .ws_col = spec->size.cols};
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	ours[1] = master;
	if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
		return err_sys(err, "make a terminal");
	theirs[0] = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (theirs[0] < 0)
		return err_sys(err, "open the terminal %s", ptsname(master));
	(void)ioctl(master, TIOCSWINSZ, &size);
	for (int i = 1; i < 3; i++)
		theirs[i] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
	ours[0] = fcntl(master, F_DUPFD_CLOEXEC, 3);
	if (ours[0] < 0 || theirs[1] < 0 || theirs[2] < 0)
		return err_sys(err, "open the terminal");
	return unblock(master, err);
}

int task_start(const struct task_spec *spec, struct task_ends *ret, struct err *err)
{
	int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};

	int rc = spec->tty ? make_terminal(spec, ours, theirs, err) : make_pipes(spec, ours, theirs, err);
	pid_t pid = rc == 0 ? fork() : -1;
	if (pid == 0)
		run(spec, theirs);
	if (rc == 0 && pid < 0)
		rc = err_sys(err, "fork");
	close_all(theirs, 3);
	if (rc < 0) {
		close_all(ours, 3);
		return rc;
	}
	*ret = (struct task_ends){.pid = pid, .stdin_fd = ours[0], .stdout_fd = ours[1], .stderr_fd = ours[2]};
	return 0;
}
