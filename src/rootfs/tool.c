#include "rootfs/tool.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"

#define TOOL_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { OUTPUT_MAX = 64 << 20, TAIL_MAX = 300 };

static char *find(const char *name)
{
	struct str rest = STR(TOOL_PATH);

	if (name[0] == '/')
		return xstrdup(name);
	while (rest.data != NULL) {
		struct str folder = str_cut(&rest, ':');
		autofree char *path = xasprintf("%.*s/%s", STR_ARG(folder), name);
		if (access(path, X_OK) == 0)
			return TAKE(path);
	}
	return NULL;
}

/* The end of what it said, on one line. */
static int failed(const struct tool_call *call, const struct process_exit *end, struct buf *said, struct err *err)
{
	struct str tail = str_trim(buf_str(said));

	if (tail.len > TAIL_MAX)
		tail = (struct str){tail.data + tail.len - TAIL_MAX, TAIL_MAX};
	for (size_t i = 0; i < said->len; i++)
		if ((unsigned char)said->data[i] < ' ')
			said->data[i] = ' ';
	if (!end->exited)
		return err_set(err, ERR_INTERNAL, "%s was ended by signal %d: %.*s", call->argv[0], end->signal,
			       STR_ARG(tail));
	return err_set(err, ERR_INVALID, "%s failed (%d): %.*s", call->argv[0], end->code, STR_ARG(tail));
}

static int spawn(const struct tool_call *call, const char *path, int output, struct process *ret, struct err *err)
{
	const char *env[TOOL_ENV_MAX + 3] = {"PATH=" TOOL_PATH, "LC_ALL=C.UTF-8"};
	size_t count = 2;

	for (size_t i = 0; call->env != NULL && call->env[i] != NULL && i < TOOL_ENV_MAX; i++)
		env[count++] = call->env[i];
	const struct process_spec spec = {
		.path = path,
		.argv = call->argv,
		.envp = env,
		.fds = (const struct process_fd[]){{output, 1}, {output, 2}},
		.fd_count = 2,
		.cwd = call->cwd,
		.parent_death_signal = SIGKILL,
	};
	return process_spawn(&spec, ret, err);
}

int tool_run(const struct tool_call *call, struct buf *out, struct err *err)
{
	autofree char *path = find(call->argv[0]);
	autovar(buf) said = {0};
	struct process p = {.pidfd = -1};
	struct process_exit end = {0};

	if (path == NULL)
		return err_set(err, ERR_UNAVAILABLE, "there is no program '%s' here: apt-get install %s", call->argv[0],
			       call->package);
	autoclose output = memfd_create("output", MFD_CLOEXEC);
	if (output < 0)
		return err_sys(err, "keep what %s says", call->argv[0]);
	int rc = spawn(call, path, output, &p, err);
	if (rc < 0)
		return rc;
	rc = process_wait(&p, clock_monotonic_ns() + call->timeout_ns, &end, err);
	if (rc < 0) {
		(void)!process_signal(&p, SIGKILL, NULL);
		(void)!process_wait(&p, INT64_MAX, &end, NULL);
		return err_wrap(err, "%s", call->argv[0]);
	}
	autofree char *name = xasprintf("/proc/self/fd/%d", output);
	rc = file_read(-1, name, OUTPUT_MAX, &said, err);
	if (rc == 0 && (!end.exited || end.code != 0))
		rc = failed(call, &end, &said, err);
	if (out != NULL)
		buf_append_str(out, buf_str(&said));
	return rc;
}
