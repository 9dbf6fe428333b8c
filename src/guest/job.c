#include "guest/job.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/task.h"

enum {
	PIDS_DEFAULT = 4096,
	MEMORY_FOR_INIT = 16 << 20, /* that the job cannot have, so that PID 1 always runs */
};

/* What the kernel would give without swapping: files that were unpacked before count as free. */
static unsigned long long available_memory(void)
{
	const struct str name = STR("MemAvailable:");
	int64_t kilobytes = 0;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file != NULL && kilobytes == 0 && fgets(line, sizeof(line), file) != NULL) {
		struct str text = str_c(line);
		if (!str_starts_with(text, name))
			continue;
		text = str_trim((struct str){text.data + name.len, text.len - name.len});
		if (str_to_i64(str_cut(&text, ' '), "memory", 0, INT64_MAX / 1024, &kilobytes, NULL) < 0)
			break;
	}
	if (file != NULL)
		(void)fclose(file);
	return (unsigned long long)kilobytes * 1024;
}

static void limit_cgroup(int cgroup_fd, uint32_t pids_max)
{
	unsigned long long available = available_memory();

	cgroup_write(cgroup_fd, "pids.max", pids_max > 0 ? pids_max : PIDS_DEFAULT);
	if (available > 2ULL * MEMORY_FOR_INIT)
		cgroup_write(cgroup_fd, "memory.max", available - MEMORY_FOR_INIT);
}

static int64_t timeval_ns(struct timeval t)
{
	return (int64_t)t.tv_sec * 1000000000 + (int64_t)t.tv_usec * 1000;
}

static int start(const struct guest_job *m, int cgroup_fd, bool read_only, struct job *ret, struct err *err)
{
	struct rusage before = {0};
	const struct task_spec spec = {.argv = m->argv,
				       .env = m->env,
				       .cwd = m->cwd,
				       .user = "",
				       .has_stdin = m->has_stdin || m->tty,
				       .tty = m->tty,
				       .size = m->size,
				       .cgroup_fd = cgroup_fd,
				       .own_cgroup_fd = -1,
				       .read_only = read_only};
	struct task_ends ends;

	if (cgroup_fd >= 0)
		limit_cgroup(cgroup_fd, m->pids_max);
	(void)getrusage(RUSAGE_CHILDREN, &before);
	int rc = task_start(&spec, &ends, err);
	if (rc == 0)
		*ret = (struct job){.pid = ends.pid,
				    .stdin_fd = ends.stdin_fd,
				    .stdout_fd = ends.stdout_fd,
				    .stderr_fd = ends.stderr_fd,
				    .cgroup_fd = cgroup_fd,
				    .user_ns = timeval_ns(before.ru_utime),
				    .system_ns = timeval_ns(before.ru_stime)};
	return rc;
}

int job_start(const struct guest_job *m, int cgroup_fd, struct job *ret, struct err *err)
{
	return start(m, cgroup_fd, false, ret, err);
}

int job_rehearse(const struct guest_job *m, int cgroup_fd, struct job *ret, struct err *err)
{
	return start(m, cgroup_fd, true, ret, err);
}

void job_reap(struct job *j, job_other_fn other, void *ctx)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid == j->pid && pid > 0) {
			j->ended = true;
			j->status = status;
		} else if (pid > 0) {
			other(ctx, pid, status);
		}
		if (pid < 0 && errno == ECHILD)
			j->all_gone = j->ended;
		if (pid <= 0)
			return;
	}
}

void job_usage(const struct job *j, struct guest_usage *ret)
{
	struct rusage usage = {0};

	(void)getrusage(RUSAGE_CHILDREN, &usage);
	*ret = (struct guest_usage){
		.user_ns = timeval_ns(usage.ru_utime) - j->user_ns,
		.system_ns = timeval_ns(usage.ru_stime) - j->system_ns,
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
