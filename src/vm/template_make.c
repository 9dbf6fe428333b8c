#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/driver.h"
#include "vm/handshake.h"
#include "vm/scratch.h"
#include "vm/template.h"

/* It runs below jobs that take every CPU. A guest whose boot the host has disturbed (guest/tick.h) ends itself or
 * stands still: then there is another. */
enum { BOOT_S = 60, SAVE_S = 60, REAP_S = 10, TRIES = 3 };
/* What the guest's kernel still does of its own accord after it has said that it listens, it does once, here. */
static const int64_t settle_ns = 200 * NS_PER_MS;

/* A template in the making. */
struct making {
	const struct template_order *order;
	int templates_fd;
	char name[TEMPLATE_NAME_SIZE];
	int folder;
	struct template_fds files;
};

static void making_fini(struct making *m)
{
	template_fds_fini(&m->files);
	/* Renamed, it is not there any more under this name. */
	if (m->folder >= 0)
		(void)!template_remove(m->templates_fd, m->name, NULL);
	fd_close(&m->folder);
}
AUTOVAR_DEFINE(making)

static int create(const struct making *m, enum template_part part, int64_t size, int *ret_fd, struct err *err)
{
	const char *name = template_part_name(part);

	*ret_fd = openat(m->folder, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*ret_fd < 0 || ftruncate(*ret_fd, size) != 0)
		return err_sys(err, "create its %s", name);
	return 0;
}

/* Begun without a name, as all scratch disks are. */
static int create_disk(struct making *m, int scratch_cache_fd, struct err *err)
{
	char path[64];

	int rc = scratch_create(scratch_cache_fd, m->folder, (unsigned)m->order->shape.disk_mb, &m->files.disk, err);
	if (rc < 0)
		return rc;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", m->files.disk);
	if (linkat(AT_FDCWD, path, m->folder, template_part_name(TEMPLATE_DISK), AT_SYMLINK_FOLLOW) != 0)
		return err_sys(err, "name its disk");
	return 0;
}

static int create_all(struct making *m, int scratch_cache_fd, struct err *err)
{
	(void)snprintf(m->name, sizeof(m->name), TEMPLATE_NEW "%016llx", (unsigned long long)crypto_random_u64());
	if (mkdirat(m->templates_fd, m->name, 0700) != 0)
		return err_sys(err, "make its folder");
	m->folder = openat(m->templates_fd, m->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (m->folder < 0)
		return err_sys(err, "open its folder");
	int rc = create(m, TEMPLATE_MEMORY, m->order->shape.memory_mb << 20, &m->files.memory, err);
	if (rc == 0)
		rc = create(m, TEMPLATE_STATE, 0, &m->files.state, err);
	return rc == 0 ? create_disk(m, scratch_cache_fd, err) : rc;
}

/* --- the machine --- */

static void drop_console(struct vm *vm)
{
	char bytes[4096];

	while (read(vm->console_fd, bytes, sizeof(bytes)) > 0)
		;
}

static int boot_and_save(struct vm *vm, struct err *err)
{
	autofree struct vm_reader *reader = xcalloc(1, sizeof(*reader));
	autoclose channel = -1;

	int rc = vm_connect(vm, &channel, err);
	if (rc == 0)
		rc = vm_wait_for_guest(channel, clock_monotonic_ns() + BOOT_S * NS_PER_S, err);
	/* What a job's start reads from the image lies in each clone's memory then. */
	if (rc == 0)
		rc = vm_rehearse(channel, reader, clock_monotonic_ns() + BOOT_S * NS_PER_S, err);
	if (rc < 0)
		return rc;
	clock_pause(settle_ns);
	drop_console(vm);
	return vm_save(vm, clock_monotonic_ns() + SAVE_S * NS_PER_S, err);
}

static int end_vmm(struct process *process, struct err *err)
{
	struct process_exit ignored;

	int rc = process_signal(process, SIGKILL, err);
	return rc == 0 ? process_wait(process, clock_monotonic_ns() + REAP_S * NS_PER_S, &ignored, err) : rc;
}

static int run_machine(struct making *m, struct err *err)
{
	const struct template_order *o = m->order;
	const struct vm_spec spec = {.name = "template",
				     .dir_fd = -1,
				     .origin = VM_TEMPLATE,
				     .memory_fd = m->files.memory,
				     .state_fd = m->files.state,
				     .kernel_fd = o->kernel_fd,
				     .initrd_fd = o->initrd_fd,
				     .root_fd = o->root_fd,
				     .scratch_fd = m->files.disk,
				     .network = o->shape.network,
				     .network_fd = -1,
				     .vcpus = (unsigned)o->shape.vcpus,
				     .memory_mb = (unsigned)o->shape.memory_mb,
				     .accel = strcmp(o->shape.accel, "kvm") == 0 ? VM_KVM : VM_TCG,
				     .program = o->program,
				     .tsc_khz = o->tsc_khz};
	autoptr(vm) vm = NULL;
	struct process process;

	int rc = vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &vm, err);
	if (rc == 0)
		rc = vm_launch(&vm->launch, &process, err);
	if (rc < 0)
		return rc;
	rc = boot_and_save(vm, err);
	int end_rc = end_vmm(&process, rc == 0 ? err : NULL);
	return rc < 0 ? rc : end_rc;
}

/* --- writing it down --- */

/* Nobody changes it between: what the inode says goes with the digest. */
static int describe(struct arena *arena, int fd, enum template_part part, struct template_manifest *m, struct err *err)
{
	autovar(buf) digest = {0};
	struct template_file before, after;

	if (part >= TEMPLATE_OWN && fsync(fd) != 0)
		return err_sys(err, "bring its %s to disk", template_part_name(part));
	if (lseek(fd, 0, SEEK_SET) != 0)
		return err_sys(err, "read the %s", template_part_name(part));
	int rc = template_look(fd, &before, err);
	if (rc == 0)
		rc = file_copy_fd(fd, -1, &digest, NULL, err);
	if (rc == 0)
		rc = template_look(fd, &after, err);
	if (rc < 0)
		return rc;
	if (!template_file_same(&before, &after))
		return err_set(err, ERR_CONFLICT, "the %s changes while it is read", template_part_name(part));
	after.sha256 = arena_str(arena, buf_str(&digest));
	m->files[part] = after;
	return 0;
}

static int describe_all(struct arena *arena, const struct making *m, struct template_manifest *manifest,
			struct err *err)
{
	const struct template_order *o = m->order;
	autoclose program = -1;

	int rc = template_open_program(o, &program, err);
	if (rc < 0)
		return rc;
	const int fds[TEMPLATE_PART_COUNT] = {
		[TEMPLATE_KERNEL] = o->kernel_fd,  [TEMPLATE_INITRD] = o->initrd_fd,
		[TEMPLATE_ROOTFS] = o->root_fd,	   [TEMPLATE_VMM] = program,
		[TEMPLATE_NIMBUS] = o->self_fd,	   [TEMPLATE_MEMORY] = m->files.memory,
		[TEMPLATE_STATE] = m->files.state, [TEMPLATE_DISK] = m->files.disk,
	};
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(fds); i++)
		rc = describe(arena, fds[i], (enum template_part)i, manifest, err);
	return rc;
}

static int write_manifest(const struct making *m, const struct secret *key, struct err *err)
{
	autoptr(arena) arena = arena_new();
	autovar(buf) text = {0};
	struct template_manifest manifest = {.version = TEMPLATE_VERSION,
					     .driver = "qemu",
					     .image = m->order->image,
					     .shape = m->order->shape,
					     .tsc_khz = m->order->tsc_khz,
					     .made_at = clock_unix_ns()};

	int rc = template_look_at_host(arena, &manifest, err);
	if (rc == 0)
		rc = describe_all(arena, m, &manifest, err);
	if (rc < 0)
		return rc;
	template_manifest_encode(&manifest, key, &text);
	return file_write_atomic(m->folder, TEMPLATE_MANIFEST, buf_str(&text), 0600, err);
}

/* From here on it counts. */
static int rename_done(struct making *m, char ret_name[static TEMPLATE_NAME_SIZE], struct err *err)
{
	char done[TEMPLATE_NAME_SIZE];

	(void)snprintf(done, sizeof(done), TEMPLATE_DONE "%s", m->name + strlen(TEMPLATE_NEW));
	if (renameat(m->templates_fd, m->name, m->templates_fd, done) != 0)
		return err_sys(err, "rename it");
	int rc = file_sync_parent(m->templates_fd, done, err);
	(void)snprintf(ret_name, TEMPLATE_NAME_SIZE, "%s", done);
	return rc;
}

static int make_once(int templates_fd, int scratch_cache_fd, const struct secret *key,
		     const struct template_order *order, char ret_name[static TEMPLATE_NAME_SIZE], struct err *err)
{
	autovar(making) m = {.order = order, .templates_fd = templates_fd, .folder = -1, .files = {-1, -1, -1}};

	int rc = create_all(&m, scratch_cache_fd, err);
	if (rc == 0)
		rc = run_machine(&m, err);
	if (rc == 0)
		rc = write_manifest(&m, key, err);
	return rc == 0 ? rename_done(&m, ret_name, err) : rc;
}

int template_make(int templates_fd, int scratch_cache_fd, const struct secret *key, const struct template_order *order,
		  char ret_name[static TEMPLATE_NAME_SIZE], struct err *err)
{
	struct err last = {0};
	int rc = -ERR_UNAVAILABLE;

	for (int i = 0; i < TRIES && (rc == -ERR_UNAVAILABLE || rc == -ERR_TIMEOUT); i++) {
		last = (struct err){0};
		rc = make_once(templates_fd, scratch_cache_fd, key, order, ret_name, &last);
	}
	if (rc == 0)
		return 0;
	*err = last;
	return err_wrap(err, "make a template");
}
