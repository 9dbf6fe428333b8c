#include "rootfs/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/confine.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"

#define TOOL_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { OUTPUT_MAX = 64 << 20, TAIL_MAX = 300, FDS_MAX = 4, TASKS_MAX = 256 };

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

/* --- what it may --- */

static const uint64_t memory_max = UINT64_C(4) << 30;
static const uint64_t file_size_max = UINT64_C(1) << 36; /* no image is larger */

/* Whose memory and descriptors those of the kind are: that it may be given to somebody says that there is one. */
bool tool_has_user(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
	const uint32_t needed = 1U << CAP_CHOWN | 1U << CAP_SETUID | 1U << CAP_SETGID;
	autoclose file = memfd_create("user", MFD_CLOEXEC);

	return geteuid() == 0 && syscall(SYS_capget, &header, sets) == 0 && (sets[0].effective & needed) == needed &&
	       file >= 0 && fchown(file, TOOL_UID, TOOL_UID) == 0;
}

static const unsigned all_parts = CONFINE_NAMESPACES | CONFINE_READ_ONLY | CONFINE_FILES | CONFINE_CALLS;

static struct confine_opts confinement(const struct tool_call *call, const char *path, bool own_user)
{
	const struct tool_bounds *b = call->bounds;

	return (struct confine_opts){
		.program = path,
		.input_fd = b->input_fd,
		.folder = b->folder,
		.capabilities = b->capabilities,
		.required = b->capabilities != 0 ? all_parts : 0,
		.address_space_max = memory_max,
		.file_size_max = b->folder != NULL ? file_size_max : OUTPUT_MAX,
		.cpu_max_s = (uint64_t)(call->timeout_ns / NS_PER_S) * TOOL_THREADS,
		.tasks_max = own_user ? TASKS_MAX : 0,
	};
}

static int spawn_confined(const struct tool_call *call, const struct process_spec *plain, struct process *ret,
			  struct err *err)
{
	bool own_user = call->bounds->capabilities == 0 && tool_has_user();
	const struct confine_opts opts = confinement(call, plain->path, own_user);
	struct process_spec spec = *plain;
	struct confine c;

	int rc = confine_init(&c, &opts, err);
	if (rc < 0)
		return rc;
	spec.confine = &c;
	spec.cwd = opts.folder != NULL ? opts.folder : "/";
	spec.change_user = own_user;
	spec.uid = TOOL_UID;
	spec.gid = TOOL_UID;
	spec.extra_gid = (gid_t)-1;
	spec.new_session = true;
	spec.no_new_privs = true;
	spec.no_core = true;
	rc = process_spawn(&spec, ret, err);
	confine_fini(&c);
	return rc;
}

/* --- running it --- */

static int spawn(const struct tool_call *call, const char *path, int input, int output, struct process *ret,
		 struct err *err)
{
	const char *env[TOOL_ENV_MAX + 3] = {"PATH=" TOOL_PATH, "LC_ALL=C.UTF-8"};
	struct process_fd fds[FDS_MAX] = {{output, 1}, {output, 2}};
	struct process_spec spec = {
		.path = path,
		.argv = call->argv,
		.envp = env,
		.fds = fds,
		.fd_count = 2,
		.parent_death_signal = SIGKILL,
	};
	size_t count = 2;

	for (size_t i = 0; call->env != NULL && call->env[i] != NULL && i < TOOL_ENV_MAX; i++)
		env[count++] = call->env[i];
	if (input >= 0)
		fds[spec.fd_count++] = (struct process_fd){input, 0};
	if (call->bounds == NULL)
		return process_spawn(&spec, ret, err);
	fds[spec.fd_count++] = (struct process_fd){call->bounds->input_fd, 3};
	return spawn_confined(call, &spec, ret, err);
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

static int open_script(struct str script, int *ret, struct err *err)
{
	autoclose file = memfd_create("script", MFD_CLOEXEC);

	if (file < 0)
		return err_sys(err, "make a script");
	int rc = file_write_fd(file, script, err);
	if (rc == 0 && lseek(file, 0, SEEK_SET) != 0)
		rc = err_sys(err, "make a script");
	if (rc == 0)
		*ret = fd_take(&file);
	return rc;
}

/* Memory that cannot grow: what is said beyond it is lost, and noticed by the position at its end. */
static int open_output(int *ret, struct err *err)
{
	autoclose file = memfd_create("output", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (file < 0 || ftruncate(file, OUTPUT_MAX) != 0 || fcntl(file, F_ADD_SEALS, F_SEAL_GROW) != 0)
		return err_sys(err, "keep what a program says");
	*ret = fd_take(&file);
	return 0;
}

static int read_output(int file, struct buf *said, struct err *err)
{
	off_t len = lseek(file, 0, SEEK_CUR);
	autofree char *name = xasprintf("/proc/self/fd/%d", file);

	if (len < 0 || ftruncate(file, len) != 0)
		return err_sys(err, "read what it says");
	if (len >= OUTPUT_MAX)
		return err_set(err, ERR_TOO_LARGE, "it says more than %d MiB", OUTPUT_MAX >> 20);
	return file_read(-1, name, OUTPUT_MAX, said, err);
}

/* Gives what feeding came to; how the program ends is another question. */
static int start(const struct tool_call *call, const char *path, int output, struct process *p, int *ret_fed,
		 struct err *fed, struct err *err)
{
	autoclose ours = -1;
	autoclose theirs = -1;

	int rc = call->feed != NULL ? open_input(call->timeout_ns, &ours, &theirs, err) : 0;
	if (call->script.len > 0)
		rc = open_script(call->script, &theirs, err);
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
	autoclose output = -1;
	int fed = 0;

	if (path == NULL)
		return err_set(err, ERR_UNAVAILABLE, "there is no program '%s' here: apt-get install %s", call->argv[0],
			       call->package);
	int rc = open_output(&output, err);
	if (rc == 0)
		rc = start(call, path, output, &p, &fed, &fed_err, err);
	if (rc == 0)
		rc = wait_for(call, &p, &end, err);
	if (rc < 0)
		return rc;
	rc = read_output(output, &said, err);
	if (rc < 0)
		return err_wrap(err, "%s", call->argv[0]);
	if (fed < 0) /* it has only got a part, whatever it made of that */
		rc = err_set(err, (enum err_code)fed_err.code, "%s", fed_err.msg);
	else if (!end.exited || (end.code != 0 && end.code != call->also_fine) || fed == TOOL_GONE)
		rc = failed(call, &end, &said, err);
	if (out != NULL)
		buf_append_str(out, buf_str(&said));
	return rc;
}
