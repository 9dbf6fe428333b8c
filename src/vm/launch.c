#include "vm/launch.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

enum { FIRST_CHILD_FD = 10 };

void vm_launch_init(struct vm_launch *l, const char *path)
{
	*l = (struct vm_launch){.path = xstrdup(path)};
	l->argv = xcalloc(1, sizeof(*l->argv));
}

static void close_fds(struct vm_launch *l)
{
	/* Standard output and error share one descriptor. */
	for (size_t i = 0; i < l->fd_count; i++) {
		if (i == 0 || l->fds[i].fd != l->fds[i - 1].fd)
			fd_close(&(int){l->fds[i].fd});
	}
	l->fd_count = 0;
}

void vm_launch_fini(struct vm_launch *l)
{
	close_fds(l);
	for (size_t i = 0; i < l->argc; i++)
		free(l->argv[i]);
	free(l->argv);
	free(l->path);
	*l = (struct vm_launch){0};
}

void vm_launch_arg(struct vm_launch *l, const char *fmt, ...)
{
	autovar(buf) text = {0};
	va_list args;

	va_start(args, fmt);
	buf_vprintf(&text, fmt, args);
	va_end(args);
	l->argv = xreallocarray(l->argv, l->argc + 2, sizeof(*l->argv));
	l->argv[l->argc++] = buf_take(&text);
	l->argv[l->argc] = NULL;
}

static void add_fd(struct vm_launch *l, int fd, int child_fd)
{
	assert(fd >= 0 && l->fd_count < VM_LAUNCH_FDS_MAX);
	l->fds[l->fd_count++] = (struct process_fd){.fd = fd, .child_fd = child_fd};
}

int vm_launch_fd(struct vm_launch *l, int fd)
{
	int child_fd = FIRST_CHILD_FD + (int)l->fd_count;

	add_fd(l, fd, child_fd);
	return child_fd;
}

void vm_launch_output(struct vm_launch *l, int fd)
{
	add_fd(l, fd, 1);
	add_fd(l, fd, 2);
}

static int limit(const struct process *p, __rlimit_resource_t what, uint64_t value, struct err *err)
{
	const struct rlimit both = {.rlim_cur = value, .rlim_max = value};

	/* It may have ended already: its exit says why. */
	if (value > 0 && prlimit(p->pid, what, &both, NULL) != 0 && errno != ESRCH)
		return err_sys(err, "limit the VMM");
	return 0;
}

static int limit_all(const struct vm_launch *l, const struct process *p, struct err *err)
{
	int rc = limit(p, RLIMIT_AS, l->address_space_max, err);

	return rc == 0 ? limit(p, RLIMIT_FSIZE, l->file_size_max, err) : rc;
}

static void kill_and_reap(struct process *p)
{
	struct process_exit ignored;

	if (process_signal(p, SIGKILL, NULL) == 0 && process_wait(p, INT64_MAX, &ignored, NULL) == 0)
		return;
	fd_close(&p->pidfd);
}

int vm_launch(struct vm_launch *l, struct process *ret, struct err *err)
{
	const struct process_spec spec = {
		.path = l->path,
		.argv = (const char *const *)l->argv,
		.fds = l->fds,
		.fd_count = l->fd_count,
		.parent_death_signal = SIGKILL,
		.new_session = true,
		.no_new_privs = true,
		.max_files = 256,
		.no_core = true,
	};
	struct process process;

	int rc = process_spawn(&spec, &process, err);
	close_fds(l);
	if (rc < 0)
		return rc;
	rc = limit_all(l, &process, err);
	if (rc < 0) {
		kill_and_reap(&process);
		return rc;
	}
	*ret = process;
	return 0;
}
