#include "rootfs/tool.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
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

static int spawn(const struct tool_call *call, const char *path, int input, int output, struct process *ret,
		 struct err *err)
{
	const char *env[TOOL_ENV_MAX + 3] = {"PATH=" TOOL_PATH, "LC_ALL=C.UTF-8"};
	size_t count = 2;

	for (size_t i = 0; call->env != NULL && call->env[i] != NULL && i < TOOL_ENV_MAX; i++)
		env[count++] = call->env[i];
	const struct process_spec spec = {
		.path = path,
		.argv = call->argv,
		.envp = env,
		.fds = (const struct process_fd[]){{output, 1}, {output, 2}, {input, 0}},
		.fd_count = input >= 0 ? 3 : 2,
		.cwd = call->cwd,
		.parent_death_signal = SIGKILL,
	};
	return process_spawn(&spec, ret, err);
}

/* Two ends of a socket, for a writer that is not to die where the reader does. */
static int open_input(int64_t timeout_ns, int *ret_ours, int *ret_theirs, struct err *err)
{
	const struct timeval patience = {.tv_sec = (time_t)(timeout_ns / NS_PER_S)};
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
		return err_sys(err, "make a socket");
	*ret_ours = fds[0];
	*ret_theirs = fds[1];
	(void)setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return 0;
}

/* Gives what feeding came to; how the program ends is another question. */
static int start(const struct tool_call *call, const char *path, int output, struct process *p, int *ret_fed,
		 struct err *fed, struct err *err)
{
	autoclose ours = -1;
	autoclose theirs = -1;

	int rc = call->feed != NULL ? open_input(call->timeout_ns, &ours, &theirs, err) : 0;
	if (rc == 0)
		rc = spawn(call, path, theirs, output, p, err);
	fd_close(&theirs);
	if (rc == 0 && call->feed != NULL)
		*ret_fed = call->feed(call->feed_ctx, ours, fed);
	return rc;
}

static int wait_for(const struct tool_call *call, struct process *p, struct process_exit *ret, struct err *err)
{
	int rc = process_wait(p, clock_monotonic_ns() + call->timeout_ns, ret, err);

	if (rc == 0)
		return 0;
	(void)!process_signal(p, SIGKILL, NULL);
	(void)!process_wait(p, INT64_MAX, ret, NULL);
	return err_wrap(err, "%s", call->argv[0]);
}

int tool_run(const struct tool_call *call, struct buf *out, struct err *err)
{
	autofree char *path = find(call->argv[0]);
	autovar(buf) said = {0};
	struct process p = {.pidfd = -1};
	struct process_exit end = {0};
	struct err fed_err = {0};
	int fed = 0;

	if (path == NULL)
		return err_set(err, ERR_UNAVAILABLE, "there is no program '%s' here: apt-get install %s", call->argv[0],
			       call->package);
	autoclose output = memfd_create("output", MFD_CLOEXEC);
	if (output < 0)
		return err_sys(err, "keep what %s says", call->argv[0]);
	int rc = start(call, path, output, &p, &fed, &fed_err, err);
	if (rc == 0)
		rc = wait_for(call, &p, &end, err);
	if (rc < 0)
		return rc;
	autofree char *name = xasprintf("/proc/self/fd/%d", output);
	rc = file_read(-1, name, OUTPUT_MAX, &said, err);
	if (rc == 0 && fed < 0) /* it has only got a part, whatever it made of that */
		rc = err_set(err, (enum err_code)fed_err.code, "%s", fed_err.msg);
	else if (rc == 0 && (!end.exited || end.code != 0 || fed == TOOL_GONE))
		rc = failed(call, &end, &said, err);
	if (out != NULL)
		buf_append_str(out, buf_str(&said));
	return rc;
}
