#include "agent/template_maker.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

/* What it is given. */
enum { FD_TEMPLATES = 3, FD_SCRATCH, FD_KERNEL, FD_INITRD, FD_ROOTFS };
enum { FIELD_COUNT = 8 };
/* Below the jobs; but a boot that hardly ever has the CPU measures its timer wrong (guest/tick.h). */
enum { NICE_MAKE = 5, NICE_CHECK = 19 };

/* --- the agent's side --- */

static int spawn(const struct vm_host *host, const char *const *argv, const struct process_fd *fds, size_t count,
		 int nice, struct process *ret, struct err *err)
{
	const char *search = getenv("PATH");
	autofree char *path = xasprintf("PATH=%s", search != NULL ? search : "/usr/sbin:/usr/bin:/sbin:/bin");
	const struct process_spec spec = {
		.exec_fd = host->self_fd,
		.argv = argv,
		.envp = (const char *const[]){path, NULL},
		.fds = fds,
		.fd_count = count,
		.parent_death_signal = SIGKILL,
		.new_session = true,
		.no_new_privs = true,
		.no_core = true,
		.nice = nice,
	};

	return process_spawn(&spec, ret, err);
}

int template_maker_start(const struct vm_host *host, const struct template_order *o, struct process *ret,
			 struct err *err)
{
	autofree char *vcpus = xasprintf("%" PRId64, o->shape.vcpus);
	autofree char *memory = xasprintf("%" PRId64, o->shape.memory_mb);
	autofree char *disk = xasprintf("%" PRId64, o->shape.disk_mb);
	autofree char *tsc = xasprintf("%" PRId64, o->tsc_khz);
	const char *const argv[] = {"nimbus",
				    "template-maker",
				    "make",
				    o->image,
				    o->shape.accel,
				    vcpus,
				    memory,
				    disk,
				    o->shape.network ? "1" : "0",
				    tsc,
				    o->program,
				    NULL};
	const struct process_fd fds[] = {{2, 2},
					 {host->templates_fd, FD_TEMPLATES},
					 {host->scratch_fd, FD_SCRATCH},
					 {o->kernel_fd, FD_KERNEL},
					 {o->initrd_fd, FD_INITRD},
					 {o->root_fd, FD_ROOTFS}};

	return spawn(host, argv, fds, ARRAY_LEN(fds), NICE_MAKE, ret, err);
}

int template_checker_start(const struct vm_host *host, const char *name, struct process *ret, struct err *err)
{
	const char *const argv[] = {"nimbus", "template-maker", "check", name, NULL};
	const struct process_fd fds[] = {{2, 2}, {host->templates_fd, FD_TEMPLATES}};

	return spawn(host, argv, fds, ARRAY_LEN(fds), NICE_CHECK, ret, err);
}

/* --- the process itself --- */

static int numbers(const char *const *words, const char *const *names, size_t count, int64_t *ret, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++)
		rc = str_to_i64(str_c(words[i]), names[i], 0, INT64_MAX, &ret[i], err);
	return rc;
}

static int make(const char *const *args, const struct secret *key, struct err *err)
{
	static const char *const names[] = {"vcpus", "memory_mb", "disk_mb", "network", "tsc_khz"};
	/* The agent's own descriptor of it is for exec only. */
	autoclose self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char name[TEMPLATE_NAME_SIZE];
	int64_t n[ARRAY_LEN(names)];

	if (self < 0)
		return err_sys(err, "open this program");
	int rc = numbers(args + 2, names, ARRAY_LEN(names), n, err);
	if (rc < 0)
		return rc;
	const struct template_order order = {
		.image = args[0],
		.shape = {.accel = args[1], .vcpus = n[0], .memory_mb = n[1], .disk_mb = n[2], .network = n[3] != 0},
		.kernel_fd = FD_KERNEL,
		.initrd_fd = FD_INITRD,
		.root_fd = FD_ROOTFS,
		.self_fd = self,
		.program = args[2 + ARRAY_LEN(names)],
		.tsc_khz = n[4],
	};
	return template_make(FD_TEMPLATES, FD_SCRATCH, key, &order, name, err);
}

static int check(const char *name, const struct secret *key, struct err *err)
{
	autoptr(arena) arena = arena_new();
	struct template_manifest manifest;

	int rc = template_load(FD_TEMPLATES, name, key, arena, &manifest, err);
	return rc == 0 ? template_verify(FD_TEMPLATES, name, &manifest, err) : rc;
}

static int run(struct command_call *call, struct err *err)
{
	autoptr(secret) key = NULL;
	struct stat st;

	log_set_role("template-maker");
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(077);
	/* A person who types the command has not given it these. */
	if (fstat(FD_TEMPLATES, &st) != 0 || !S_ISDIR(st.st_mode))
		return err_set(err, ERR_INVALID, "nimbus template-maker is started by the host agent only");
	int rc = template_key(FD_TEMPLATES, &key, err);
	if (rc < 0)
		return rc;
	if (call->arg_count == 1 + FIELD_COUNT && strcmp(call->args[0], "make") == 0)
		return make(call->args + 1, key, err);
	if (call->arg_count == 2 && strcmp(call->args[0], "check") == 0)
		return check(call->args[1], key, err);
	return err_set(err, ERR_INVALID, "nimbus template-maker does not know what to do");
}

const struct command template_maker_command = {
	.path = "template-maker",
	.args = "WHAT...",
	.summary = "Make a template of a VM, or check one",
	.min_args = 1,
	.max_args = 1 + FIELD_COUNT,
	.hidden = true,
	.run = run,
};
