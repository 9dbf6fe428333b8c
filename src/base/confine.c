#include "base/confine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* --- files: Landlock --- */

/* linux/landlock.h of Debian 12 ends before the last of these, and the rest of its kernel's structure. */
enum {
	RIGHT_REFER = 1 << 13,
	RIGHT_TRUNCATE = 1 << 14,
	RIGHT_IOCTL_DEVICE = 1 << 15,
	READ_FILE = LANDLOCK_ACCESS_FS_READ_FILE,
	READ_TREE = READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
	EXECUTE = LANDLOCK_ACCESS_FS_EXECUTE,
	DEVICES = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK,
	FIRST_ABI_RIGHTS = RIGHT_REFER - 1,
	ABI_REFER = 2, /* files may be linked from one folder to another */
	ABI_TRUNCATE = 3,
	ABI_NETWORK = 4,
	ABI_IOCTL = 5,
	ABI_SCOPES = 6,
};

struct rules {
	uint64_t files, network, scopes;
};

/* A kernel takes a structure that is longer than its own where the rest is zero. */
static struct rules handled(long abi)
{
	return (struct rules){
		.files = FIRST_ABI_RIGHTS | RIGHT_REFER | (abi >= ABI_TRUNCATE ? RIGHT_TRUNCATE : 0) |
			 (abi >= ABI_IOCTL ? RIGHT_IOCTL_DEVICE : 0),
		.network = abi >= ABI_NETWORK ? 3 : 0, /* TCP: bind, connect */
		.scopes = abi >= ABI_SCOPES ? 3 : 0,   /* abstract sockets, signals */
	};
}

static int allow(int rules_fd, int fd, uint64_t rights, struct err *err)
{
	const struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};

	if (syscall(SYS_landlock_add_rule, rules_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
		return err_sys(err, "say what a program may read");
	return 0;
}

static int allow_path(int rules_fd, const char *path, uint64_t rights, struct err *err)
{
	autoclose fd = open(path, O_PATH | O_CLOEXEC);

	return fd >= 0 ? allow(rules_fd, fd, rights, err) : 0; /* what is not there needs no rule */
}

/* What every program needs in order to begin. */
static int allow_programs(int rules_fd, const char *program, struct err *err)
{
	static const struct {
		const char *path;
		uint64_t rights;
	} always[] = {
		{"/usr", READ_TREE | EXECUTE},
		{"/lib", READ_TREE | EXECUTE},
		{"/lib64", READ_TREE | EXECUTE},
		{"/etc/ld.so.cache", READ_FILE},
		{"/dev/null", READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE},
	};
	int rc = program != NULL ? allow_path(rules_fd, program, READ_FILE | EXECUTE, err) : 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(always); i++)
		rc = allow_path(rules_fd, always[i].path, always[i].rights, err);
	return rc;
}

static int make_rules(struct confine *c, struct err *err)
{
	const struct confine_opts *o = &c->opts;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	const struct rules rules = handled(abi);

	if (abi < ABI_REFER)
		return 0;
	c->rules_fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);
	if (c->rules_fd < 0)
		return 0;
	int rc = allow_programs(c->rules_fd, o->program, err);
	if (rc == 0 && o->input_fd >= 0)
		rc = allow(c->rules_fd, o->input_fd, READ_FILE, err);
	if (rc == 0 && o->folder != NULL)
		rc = allow_path(c->rules_fd, o->folder,
				rules.files & ~(uint64_t)(DEVICES | EXECUTE | RIGHT_IOCTL_DEVICE), err);
	return rc;
}

/* --- calls: seccomp --- */

#ifdef __x86_64__
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

/* Nothing that reads a file and writes files needs these; answered with EPERM. Threads are made by clone(). */
static const int refused[] = {
#ifdef SYS_fork
	SYS_fork,
	SYS_vfork,
	SYS_iopl,
	SYS_ioperm,
	SYS_modify_ldt,
#endif
	/* network */
	SYS_socket,
	SYS_socketpair,
	SYS_bind,
	SYS_connect,
	SYS_listen,
	SYS_accept,
	SYS_accept4,
	/* other processes */
	SYS_kill,
	SYS_tkill,
	SYS_rt_sigqueueinfo,
	SYS_rt_tgsigqueueinfo,
	SYS_ptrace,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_process_madvise,
	SYS_pidfd_open,
	SYS_pidfd_getfd,
	SYS_pidfd_send_signal,
	SYS_kcmp,
	SYS_shmget,
	SYS_semget,
	SYS_msgget,
	SYS_mq_open,
	/* memory that no limit of ours counts */
	SYS_memfd_create,
#ifdef SYS_memfd_secret
	SYS_memfd_secret,
#endif
	/* what the rest of the system looks like */
	SYS_unshare,
	SYS_setns,
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_chroot,
	SYS_open_tree,
	SYS_move_mount,
	SYS_mount_setattr,
	SYS_fsopen,
	SYS_fsconfig,
	SYS_fsmount,
	SYS_fspick,
	SYS_swapon,
	SYS_swapoff,
	SYS_quotactl,
	SYS_acct,
	SYS_reboot,
	SYS_sethostname,
	SYS_setdomainname,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_clock_adjtime,
	SYS_adjtimex,
	SYS_syslog,
	/* ways around the rules, or a wide way into the kernel */
	SYS_truncate,
	SYS_name_to_handle_at,
	SYS_open_by_handle_at,
	SYS_fanotify_init,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_userfaultfd,
	SYS_io_uring_setup,
	SYS_io_uring_enter,
	SYS_io_uring_register,
	SYS_keyctl,
	SYS_add_key,
	SYS_request_key,
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
#ifdef SYS_kexec_file_load
	SYS_kexec_file_load,
#endif
};

static void emit(struct confine *c, unsigned code, unsigned yes, unsigned no, uint32_t value)
{
	assert(c->call_count < CONFINE_CALLS_MAX);
	c->calls[c->call_count++] =
		(struct sock_filter){.code = (uint16_t)code, .jt = (uint8_t)yes, .jf = (uint8_t)no, .k = value};
}

static void load(struct confine *c, size_t offset)
{
	emit(c, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

static void unless_equal_skip(struct confine *c, uint32_t value, unsigned skip)
{
	emit(c, BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value);
}

static void answer(struct confine *c, uint32_t what)
{
	emit(c, BPF_RET | BPF_K, 0, 0, what);
}

/* The call `number` with the one value of its first argument, of which only the bits of `mask` count. */
static size_t only_with(struct confine *c, int number, uint32_t mask, uint32_t value)
{
	unless_equal_skip(c, (uint32_t)number, 5);
	load(c, offsetof(struct seccomp_data, args[0]));
	emit(c, BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
	unless_equal_skip(c, value, 1);
	answer(c, SECCOMP_RET_ALLOW);
	answer(c, SECCOMP_RET_ERRNO | EPERM);
	return c->call_count - 3;
}

/* Who a descriptor's owner is decides who is sent signals for it, by the kernel. */
static void no_owners(struct confine *c)
{
	static const uint32_t commands[] = {F_SETOWN, F_SETOWN_EX, F_SETSIG};

	unless_equal_skip(c, SYS_fcntl, 2 + 2 * ARRAY_LEN(commands));
	load(c, offsetof(struct seccomp_data, args[1]));
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		unless_equal_skip(c, commands[i], 1);
		answer(c, SECCOMP_RET_ERRNO | EPERM);
	}
	answer(c, SECCOMP_RET_ALLOW);
}

static void make_calls(struct confine *c)
{
#ifdef OWN_ARCH
	const uint32_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
				    CLONE_NEWPID | CLONE_NEWNET;

	load(c, offsetof(struct seccomp_data, arch));
	emit(c, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, OWN_ARCH);
	answer(c, SECCOMP_RET_KILL_PROCESS);
	load(c, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__ /* x32 has numbers of its own */
	emit(c, BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000);
	answer(c, SECCOMP_RET_KILL_PROCESS);
#endif
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		unless_equal_skip(c, (uint32_t)refused[i], 1);
		answer(c, SECCOMP_RET_ERRNO | EPERM);
	}
	/* What a capability is for in the kernel is mostly asked for so. */
	if (c->opts.capabilities != 0) {
		unless_equal_skip(c, SYS_ioctl, 1);
		answer(c, SECCOMP_RET_ERRNO | EPERM);
	}
	/* Its flags lie in memory, where no filter can look: the C library then takes the other one. */
	unless_equal_skip(c, SYS_clone3, 1);
	answer(c, SECCOMP_RET_ERRNO | ENOSYS);
	no_owners(c);
	(void)only_with(c, SYS_clone, CLONE_THREAD | namespaces, CLONE_THREAD);
	(void)only_with(c, SYS_prlimit64, UINT32_MAX, 0);
	c->own_pid_at = only_with(c, SYS_tgkill, UINT32_MAX, 0);
	answer(c, SECCOMP_RET_ALLOW);
#else
	(void)c;
#endif
}

/* --- a user namespace, for who is not root --- */

enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS };

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	fd_close(&fd);
	return done;
}

/* What is made in it would belong to nobody otherwise. */
static bool map_user(const struct confine *c)
{
	return put("/proc/self/setgroups", "deny") && put("/proc/self/uid_map", c->uid_map) &&
	       put("/proc/self/gid_map", c->gid_map);
}

/* Some systems let anybody make one and then permit nothing in it (AppArmor of Ubuntu 24.04), which is noticed when it
 * is too late to go back: so another process tries. */
static bool can_map_user(const struct confine *c)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(NAMESPACES | CLONE_NEWUSER) != 0 || !map_user(c));
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return pid > 0 && status == 0;
}

/* --- ready --- */

int confine_init(struct confine *c, const struct confine_opts *o, struct err *err)
{
	*c = (struct confine){.opts = *o, .rules_fd = -1};
	(void)snprintf(c->uid_map, sizeof(c->uid_map), "%u %u 1", geteuid(), geteuid());
	(void)snprintf(c->gid_map, sizeof(c->gid_map), "%u %u 1", getegid(), getegid());
	c->user_namespace = geteuid() != 0 && can_map_user(c);
	make_calls(c);
	int rc = make_rules(c, err);
	if (rc < 0)
		confine_fini(c);
	return rc;
}

void confine_fini(struct confine *c)
{
	fd_close(&c->rules_fd);
}

const char *confine_words(unsigned missing, char room[static CONFINE_WORDS_SIZE])
{
	static const struct {
		enum confine_part part;
		const char *words;
	} parts[] = {
		{CONFINE_NAMESPACES, "namespaces"},
		{CONFINE_READ_ONLY, "read-only mounts"},
		{CONFINE_FILES, "Landlock"},
		{CONFINE_CALLS, "seccomp"},
	};
	size_t len = 0;

	room[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		if ((missing & parts[i].part) != 0)
			len += (size_t)snprintf(room + len, CONFINE_WORDS_SIZE - len, "%s%s", len > 0 ? ", " : "",
						parts[i].words);
	}
	return room;
}

/* --- in the child --- */

/* The folder is mounted over itself, the rest made read-only, and the folder writable again. */
static bool mount_read_only(bool folder)
{
	struct mount_attr set = {.attr_set = MOUNT_ATTR_RDONLY};
	struct mount_attr clear = {.attr_clr = MOUNT_ATTR_RDONLY};
	autoclose tree = -1;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		return false;
	if (folder) {
		tree = (int)syscall(SYS_open_tree, AT_FDCWD, ".", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (tree < 0 || syscall(SYS_move_mount, tree, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH) != 0 ||
		    fchdir(tree) != 0)
			return false;
	}
	if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &set, sizeof(set)) != 0)
		return false;
	/* Without this there is nothing to write to: the program says so. */
	return !folder || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &clear, sizeof(clear)) == 0;
}

bool confine_isolate(struct confine *c, unsigned *missing)
{
	if (unshare(NAMESPACES | (c->user_namespace ? CLONE_NEWUSER : 0)) != 0) {
		*missing |= CONFINE_NAMESPACES | CONFINE_READ_ONLY;
		return true;
	}
	if (c->user_namespace && !map_user(c))
		return false;
	if (!mount_read_only(c->opts.folder != NULL))
		*missing |= CONFINE_READ_ONLY;
	return true;
}

/* Never above what we have ourselves. */
static bool limit(__rlimit_resource_t what, uint64_t value)
{
	struct rlimit both;

	if (value == 0)
		return true;
	if (getrlimit(what, &both) != 0)
		return false;
	both.rlim_max = value < both.rlim_max ? value : both.rlim_max;
	both.rlim_cur = both.rlim_max;
	return setrlimit(what, &both) == 0;
}

bool confine_drop_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};

	/* Without CAP_SETPCAP the bounding set stays as it is, which no_new_privs makes harmless. */
	for (unsigned long cap = 0; cap < 64; cap++) {
		if ((keep >> cap & 1) != 0 || prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0 || errno == EPERM)
			continue;
		if (errno == EINVAL) /* one more than this kernel knows */
			break;
		return false;
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 || syscall(SYS_capget, &header, sets) != 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
		sets[i].permitted &= (uint32_t)(keep >> (32 * i));
		sets[i].effective = sets[i].permitted;
		sets[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, sets) == 0;
}

bool confine_restrict(struct confine *c, unsigned *missing)
{
	const struct confine_opts *o = &c->opts;
	struct sock_fprog calls = {.len = (unsigned short)c->call_count, .filter = c->calls};

	if (!confine_drop_capabilities(o->capabilities) || !limit(RLIMIT_AS, o->address_space_max) ||
	    !limit(RLIMIT_FSIZE, o->file_size_max) || !limit(RLIMIT_CPU, o->cpu_max_s) ||
	    !limit(RLIMIT_NPROC, o->tasks_max))
		return false;
	if (c->rules_fd < 0 || syscall(SYS_landlock_restrict_self, c->rules_fd, 0) != 0)
		*missing |= CONFINE_FILES;
	c->calls[c->own_pid_at].k = (uint32_t)getpid();
	if (c->call_count == 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &calls, 0, 0) != 0)
		*missing |= CONFINE_CALLS;
	return true;
}
