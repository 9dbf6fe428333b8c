#include "guest/job.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	PIDS_DEFAULT = 4096,
	OPEN_FILES_SOFT = 65536,
	OPEN_FILES_HARD = 1048576,
	MEMORY_FOR_INIT = 16 << 20, /* that the job cannot have, so that PID 1 always runs */
	NOT_FOUND_STATUS = 127,	    /* as shells do */
	NOT_STARTED_STATUS = 126,
};

/* Limits are best effort: a kernel without the controller still runs the job. */
static void cgroup_write(int cgroup_fd, const char *name, unsigned long long value)
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

static void limit_cgroup(int cgroup_fd, uint32_t pids_max)
{
	struct sysinfo info;

	cgroup_write(cgroup_fd, "pids.max", pids_max > 0 ? pids_max : PIDS_DEFAULT);
	if (sysinfo(&info) != 0)
		return;
	unsigned long long available = (unsigned long long)(info.freeram + info.bufferram) * info.mem_unit;
	if (available > 2ULL * MEMORY_FOR_INIT)
		cgroup_write(cgroup_fd, "memory.max", available - MEMORY_FOR_INIT);
}

static void limit_resources(void)
{
	const struct rlimit files = {.rlim_cur = OPEN_FILES_SOFT, .rlim_max = OPEN_FILES_HARD};
	const struct rlimit core = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};

	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)setrlimit(RLIMIT_CORE, &core);
}

/* Into the cgroup, then into a view in which it is the root: the job cannot move itself out. */
static void enter_cgroup(int cgroup_fd)
{
	if (cgroup_fd < 0)
		return;
	cgroup_write(cgroup_fd, "cgroup.procs", 0); /* 0: the caller */
	if (unshare(CLONE_NEWCGROUP) == 0)
		(void)mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
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

noreturn_fn static void refuse(const char *what, const char *name)
{
	int error = errno;

	(void)dprintf(STDERR_FILENO, "nimbus: %s %s: %s\n", what, name, strerror(error));
	_exit(error == ENOENT ? NOT_FOUND_STATUS : NOT_STARTED_STATUS);
}

noreturn_fn static void run(const struct guest_job *m, int cgroup_fd, int out, int err_out)
{
	char *const *argv = (char *const *)(uintptr_t)m->argv;
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);

	/* From here on complaints go to the job's own standard error. */
	if (dup2(out, STDOUT_FILENO) < 0 || dup2(err_out, STDERR_FILENO) < 0 || dup2(in, STDIN_FILENO) < 0)
		_exit(NOT_STARTED_STATUS);
	(void)setsid();
	enter_cgroup(cgroup_fd);
	be_killable();
	limit_resources();
	default_signals();
	if (m->cwd[0] != '\0' && chdir(m->cwd) != 0)
		refuse("change to the folder", m->cwd);
	/* execvp() looks for the program in the PATH of `environ`. */
	environ = (char **)(uintptr_t)m->env;
	(void)execvp(m->argv[0], argv);
	refuse("run", m->argv[0]);
}

static int make_pipe(int ends[2], struct err *err)
{
	if (pipe2(ends, O_CLOEXEC) != 0)
		return err_sys(err, "make a pipe");
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "make a pipe");
	return 0;
}

int job_start(const struct guest_job *m, int cgroup_fd, struct job *ret, struct err *err)
{
	int out[2], err_out[2];

	int rc = make_pipe(out, err);
	if (rc == 0)
		rc = make_pipe(err_out, err);
	if (rc < 0)
		return rc;
	if (cgroup_fd >= 0)
		limit_cgroup(cgroup_fd, m->pids_max);
	pid_t pid = fork();
	if (pid < 0)
		return err_sys(err, "fork");
	if (pid == 0)
		run(m, cgroup_fd, out[1], err_out[1]);
	(void)close(out[1]);
	(void)close(err_out[1]);
	*ret = (struct job){.pid = pid, .stdout_fd = out[0], .stderr_fd = err_out[0], .cgroup_fd = cgroup_fd};
	return 0;
}

void job_reap(struct job *j)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid == j->pid && pid > 0) {
			j->ended = true;
			j->status = status;
		}
		if (pid < 0 && errno == ECHILD)
			j->all_gone = j->ended;
		if (pid <= 0)
			return;
	}
}

static int64_t timeval_ns(struct timeval t)
{
	return (int64_t)t.tv_sec * 1000000000 + (int64_t)t.tv_usec * 1000;
}

void job_usage(struct guest_usage *ret)
{
	struct rusage usage = {0};

	(void)getrusage(RUSAGE_CHILDREN, &usage);
	*ret = (struct guest_usage){
		.user_ns = timeval_ns(usage.ru_utime),
		.system_ns = timeval_ns(usage.ru_stime),
		.max_rss_bytes = (int64_t)usage.ru_maxrss * 1024,
	};
}

/* "oom_kill N" in memory.events counts the victims of either kind of OOM killer. */
static bool oom_killed(int cgroup_fd)
{
	char text[512];
	int fd = cgroup_fd >= 0 ? openat(cgroup_fd, "memory.events", O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return false;
	ssize_t len = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	text[len > 0 ? len : 0] = '\0';
	const char *line = strstr(text, "oom_kill ");
	return line != NULL && line[strlen("oom_kill ")] != '0';
}

void job_exit(const struct job *j, struct guest_exit *ret)
{
	bool signalled = WIFSIGNALED(j->status);

	*ret = (struct guest_exit){
		.code = signalled ? 0 : (uint32_t)WEXITSTATUS(j->status),
		.signal = signalled ? (uint32_t)WTERMSIG(j->status) : 0,
		.oom = oom_killed(j->cgroup_fd),
	};
}
