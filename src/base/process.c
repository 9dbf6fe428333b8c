#include "base/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/confine.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

/* What the child does between fork and exec, by name for the message. */
#define STEPS(X)                              \
	X(SIGNALS, "reset signals")           \
	X(SESSION, "make a session")          \
	X(LIMITS, "set limits")               \
	X(FOLDER, "enter its folder")         \
	X(ISOLATION, "isolate it")            \
	X(USER, "change to the user")         \
	X(PRIVILEGES, "give up privileges")   \
	X(CONFINEMENT, "confine it")          \
	X(PARENT, "tie it to its parent")     \
	X(DESCRIPTORS, "arrange descriptors") \
	X(EXECUTE, "execute")

enum step {
#define X(name, text) STEP_##name,
	STEPS(X)
#undef X
};

static const char *const step_names[] = {
#define X(name, text) [STEP_##name] = (text),
	STEPS(X)
#undef X
};

/* `missing`: parts of the confinement that this host does not have, which is a failure only with an error beside it. */
struct failure {
	enum step step;
	int error;
	unsigned missing;
};

enum { FDS_MAX = 64 };

/*
 * The child's side. Between fork and exec of a threaded process only async-signal-safe calls are allowed: no memory, no
 * stdio, and system calls directly where glibc would involve other threads (the setuid family). Each step gives whether
 * it went well; errno says why not.
 */

static bool reset_signals(void)
{
	struct sigaction fresh = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int signal = 1; signal < NSIG; signal++)
		(void)sigaction(signal, &fresh, NULL); /* fails for SIGKILL, SIGSTOP and glibc's own */
	(void)sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) == 0;
}

static bool set_limits(const struct process_spec *spec)
{
	/* One byte: too small for a file, and the one value at which the kernel calls no core handler either. */
	const struct rlimit no_core = {1, 1};
	struct rlimit files;

	if (spec->no_core && setrlimit(RLIMIT_CORE, &no_core) != 0)
		return false;
	if (spec->max_files > 0) {
		if (getrlimit(RLIMIT_NOFILE, &files) != 0)
			return false;
		files.rlim_cur = spec->max_files < files.rlim_max ? spec->max_files : files.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &files) != 0)
			return false;
	}
	errno = 0;
	return spec->nice == 0 || nice(spec->nice) != -1 || errno == 0;
}

static bool change_user(const struct process_spec *spec)
{
	if (!spec->change_user)
		return true;
	gid_t extra = spec->extra_gid;
	return syscall(SYS_setgroups, extra != (gid_t)-1 ? 1 : 0, &extra) == 0 &&
	       syscall(SYS_setresgid, spec->gid, spec->gid, spec->gid) == 0 &&
	       syscall(SYS_setresuid, spec->uid, spec->uid, spec->uid) == 0;
}

/* After the change of user, which clears the signal. A parent that died before is noticed by its absence. */
static bool tie_to_parent(const struct process_spec *spec, pid_t parent)
{
	if (spec->parent_death_signal == 0)
		return true;
	if (prctl(PR_SET_PDEATHSIG, spec->parent_death_signal) != 0)
		return false;
	if (getppid() != parent)
		_exit(127);
	return true;
}

/* Copies above every number that the child wants, so that no dup2() overwrites what is still needed; then each to its
 * place. All else is close-on-exec. */
static bool arrange_fds(const struct process_spec *spec, int *exec_fd, int *report_fd)
{
	int copies[FDS_MAX];
	int floor = 3;

	for (size_t i = 0; i < spec->fd_count; i++)
		floor = spec->fds[i].child_fd >= floor ? spec->fds[i].child_fd + 1 : floor;
	*report_fd = fcntl(*report_fd, F_DUPFD_CLOEXEC, floor);
	if (spec->path == NULL)
		*exec_fd = fcntl(*exec_fd, F_DUPFD_CLOEXEC, floor);
	for (size_t i = 0; i < spec->fd_count; i++) {
		copies[i] = fcntl(spec->fds[i].fd, F_DUPFD_CLOEXEC, floor);
		if (copies[i] < 0)
			return false;
	}
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
		return false;
	for (int fd = 0; fd < 3; fd++) {
		/* dup2() to itself would leave close-on-exec as it is. */
		if (null == fd ? fcntl(fd, F_SETFD, 0) != 0 : dup2(null, fd) < 0)
			return false;
	}
	for (size_t i = 0; i < spec->fd_count; i++) {
		if (dup2(copies[i], spec->fds[i].child_fd) < 0)
			return false;
	}
	return true;
}

noreturn_fn static void report(int fd, enum step step)
{
	struct failure failure = {.step = step, .error = errno};

	(void)!write(fd, &failure, sizeof(failure));
	_exit(127);
}

static void report_missing(int fd, unsigned missing)
{
	struct failure failure = {.missing = missing};

	if (missing != 0)
		(void)!write(fd, &failure, sizeof(failure));
}

static void check_missing(int fd, const struct confine *c, unsigned missing)
{
	struct failure failure = {.step = STEP_CONFINEMENT, .error = EPERM, .missing = missing & c->opts.required};

	if (failure.missing == 0)
		return;
	(void)!write(fd, &failure, sizeof(failure));
	_exit(127);
}

noreturn_fn static void run_child(const struct process_spec *spec, pid_t parent, int report_fd)
{
	int exec_fd = spec->exec_fd;
	unsigned missing = 0;

	if (!reset_signals())
		report(report_fd, STEP_SIGNALS);
	if (spec->new_session && setsid() < 0)
		report(report_fd, STEP_SESSION);
	if (!set_limits(spec))
		report(report_fd, STEP_LIMITS);
	if (spec->cwd != NULL && chdir(spec->cwd) != 0)
		report(report_fd, STEP_FOLDER);
	if (spec->confine != NULL && !confine_isolate(spec->confine, &missing))
		report(report_fd, STEP_ISOLATION);
	if (!change_user(spec))
		report(report_fd, STEP_USER);
	if (spec->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		report(report_fd, STEP_PRIVILEGES);
	if (spec->confine != NULL && !confine_restrict(spec->confine, &missing))
		report(report_fd, STEP_CONFINEMENT);
	if (spec->confine != NULL)
		check_missing(report_fd, spec->confine, missing);
	report_missing(report_fd, missing);
	if (!tie_to_parent(spec, parent))
		report(report_fd, STEP_PARENT);
	if (!arrange_fds(spec, &exec_fd, &report_fd))
		report(report_fd, STEP_DESCRIPTORS);
	/* exec changes neither; its prototype is older than const. */
	char *const *argv = (char *const *)(uintptr_t)spec->argv;
	char *const *envp = spec->envp != NULL ? (char *const *)(uintptr_t)spec->envp : (char *const[]){NULL};
	if (spec->path != NULL)
		(void)execve(spec->path, argv, envp);
	else
		(void)execveat(exec_fd, "", argv, envp, AT_EMPTY_PATH);
	report(report_fd, STEP_EXECUTE);
}

/* --- the parent's side --- */

/* As a shell would: the first executable of that name along PATH. */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/') != NULL)
		return xstrdup(name);
	for (struct str rest = str_c(path != NULL ? path : "/usr/local/bin:/usr/bin:/bin"); rest.data != NULL;) {
		struct str folder = str_cut(&rest, ':');
		autofree char *candidate = xasprintf("%.*s/%s", STR_ARG(folder), name);
		if (folder.len > 0 && access(candidate, X_OK) == 0)
			return TAKE(candidate);
	}
	return NULL;
}

static int read_failure(int fd, const char *name, struct failure *ret)
{
	char room[CONFINE_WORDS_SIZE];
	ssize_t got = 0;

	for (;;) {
		do {
			got = read(fd, ret, sizeof(*ret));
		} while (got < 0 && errno == EINTR);
		if (got != (ssize_t)sizeof(*ret))
			return 0;
		if (ret->missing == 0 || ret->error != 0)
			return 1;
		log_debug("a program is confined by less than it should be, as this host does not permit more",
			  F("program", name), F("without", confine_words(ret->missing, room)));
	}
}

static int spawn(const struct process_spec *spec, struct process *ret, struct err *err)
{
	const char *name = spec->path != NULL ? spec->path : spec->argv[0];
	int ends[2];
	sigset_t all;
	sigset_t before;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return err_sys(err, "start %s: pipe", name);
	autoclose from_child = ends[0];
	autoclose to_parent = ends[1];
	/* No handler of ours may run in the child before it has reset them. */
	pid_t parent = getpid();
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	pid_t pid = fork();
	if (pid == 0)
		run_child(spec, parent, to_parent);
	int saved = errno;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	if (pid < 0)
		return err_sys(err, "start %s: fork", name);
	fd_close(&to_parent);

	struct failure failure = {0};
	if (read_failure(from_child, name, &failure) != 0) {
		char room[CONFINE_WORDS_SIZE];
		(void)waitpid(pid, NULL, 0);
		if (failure.missing != 0)
			return err_set(err, ERR_FORBIDDEN, "start %s: this host does not permit %s", name,
				       confine_words(failure.missing, room));
		errno = failure.error;
		return err_sys(err, "start %s: %s", name, step_names[failure.step]);
	}
	int pidfd = pidfd_open(pid, 0);
	if (pidfd < 0) {
		int rc = err_sys(err, "start %s: pidfd_open", name);
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		return rc;
	}
	*ret = (struct process){.pid = pid, .pidfd = pidfd};
	return 0;
}

int process_spawn(const struct process_spec *spec, struct process *ret, struct err *err)
{
	struct process_spec found = *spec;

	assert(spec->argv != NULL && spec->argv[0] != NULL && spec->fd_count <= FDS_MAX);
	if (spec->path == NULL)
		return spawn(spec, ret, err);
	autofree char *path = find_program(spec->path);
	if (path == NULL)
		return err_set(err, ERR_NOT_FOUND, "start %s: no such program in PATH", spec->path);
	found.path = path;
	return spawn(&found, ret, err);
}

int process_signal(const struct process *p, int signal, struct err *err)
{
	if (pidfd_send_signal(p->pidfd, signal, NULL, 0) != 0 && errno != ESRCH)
		return err_sys(err, "send signal %d to process %d", signal, (int)p->pid);
	return 0;
}

/* 0: readable; ERR_TIMEOUT. */
static int wait_readable(const struct process *p, int64_t deadline_ns, struct err *err)
{
	struct pollfd poll = {.fd = p->pidfd, .events = POLLIN};

	for (;;) {
		int64_t left = deadline_ns == INT64_MAX ? 0 : deadline_ns - clock_monotonic_ns();
		struct timespec wait = {0};
		if (left > 0)
			wait = (struct timespec){.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};
		int n = ppoll(&poll, 1, deadline_ns == INT64_MAX ? NULL : &wait, NULL);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return err_sys(err, "wait for process %d", (int)p->pid);
		if (n == 0)
			return err_set(err, ERR_TIMEOUT, "process %d has not ended yet", (int)p->pid);
	}
}

static int64_t timeval_ns(struct timeval tv)
{
	return (int64_t)tv.tv_sec * NS_PER_S + (int64_t)tv.tv_usec * NS_PER_US;
}

int process_wait(struct process *p, int64_t deadline_ns, struct process_exit *ret, struct err *err)
{
	struct rusage usage = {0};
	int status = 0;

	int rc = wait_readable(p, deadline_ns, err);
	if (rc < 0)
		return rc;
	/* Not reaped before, so the pid is still this child's. */
	if (wait4(p->pid, &status, 0, &usage) != p->pid)
		return err_sys(err, "wait for process %d", (int)p->pid);
	fd_close(&p->pidfd);
	*ret = (struct process_exit){
		.exited = WIFEXITED(status),
		.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0,
		.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
		.user_ns = timeval_ns(usage.ru_utime),
		.system_ns = timeval_ns(usage.ru_stime),
		.max_rss_bytes = (int64_t)usage.ru_maxrss * 1024,
	};
	return 0;
}

int process_self_exec_fd(int *ret_fd, struct err *err)
{
	int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, "open /proc/self/exe");
	*ret_fd = fd;
	return 0;
}
