#include "agent/vm_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/limits.h"
#include "net/msg.h"
#include "vm/assets.h"
#include "vm/scratch.h"

void vm_shim_fini(struct vm_shim *s)
{
	fd_close(&s->socket);
	fd_close(&s->process.pidfd);
	for (size_t i = 0; i < ARRAY_LEN(s->start_fds); i++)
		fd_close(&s->start_fds[i]);
}

void vm_shim_init(struct vm_shim *s)
{
	*s = (struct vm_shim){.process = {.pidfd = -1}, .socket = -1};
	for (size_t i = 0; i < ARRAY_LEN(s->start_fds); i++)
		s->start_fds[i] = -1;
}

char *vm_folder_name(int64_t job_id, int64_t attempt, char name[static VM_FOLDER_NAME_SIZE])
{
	(void)snprintf(name, VM_FOLDER_NAME_SIZE, "%" PRId64 "-%" PRId64, job_id, attempt);
	return name;
}

bool vm_folder_parse(const char *name, int64_t *ret_job_id, int64_t *ret_attempt)
{
	struct str rest = str_c(name);
	struct str job = str_cut(&rest, '-');
	char again[VM_FOLDER_NAME_SIZE];
	int64_t job_id = 0;
	int64_t attempt = 0;

	if (rest.data == NULL || str_to_i64(job, "job", 1, JOB_ID_MAX, &job_id, NULL) < 0 ||
	    str_to_i64(rest, "attempt", 1, INT32_MAX, &attempt, NULL) < 0)
		return false;
	/* "007-1" is nobody's. */
	if (strcmp(vm_folder_name(job_id, attempt, again), name) != 0)
		return false;
	*ret_job_id = job_id;
	*ret_attempt = attempt;
	return true;
}

static void dir_close(DIR **dir)
{
	if (*dir != NULL)
		(void)closedir(*dir);
}

static int open_folder(int vms_fd, const char *name, int *ret_fd, struct err *err)
{
	int fd = openat(vms_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? err_set(err, ERR_NOT_FOUND, "there is no folder '%s'", name)
				       : err_sys(err, "open folder '%s'", name);
	*ret_fd = fd;
	return 0;
}

/* 0, or VM_FOLDER_BUSY. */
static int lock_folder(int fd, const char *name, struct err *err)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? VM_FOLDER_BUSY : err_sys(err, "lock folder '%s'", name);
}

int vm_folder_remove(int vms_fd, const char *name, struct err *err)
{
	autoclose fd = -1;
	struct err missing = {0};

	int rc = open_folder(vms_fd, name, &fd, &missing);
	if (rc == -ERR_NOT_FOUND)
		return 0;
	if (rc < 0)
		return err_set(err, (enum err_code)missing.code, "%s", missing.msg);
	rc = lock_folder(fd, name, err);
	return rc != 0 ? rc : dir_remove(vms_fd, name, err);
}

int vm_folder_connect(int vms_fd, const char *name, int *ret_socket, struct err *err)
{
	autoclose fd = -1;

	int rc = open_folder(vms_fd, name, &fd, err);
	if (rc < 0)
		return rc;
	struct err refused = {0};
	if (msg_connect(fd, SHIM_SOCKET, ret_socket, &refused) == 0)
		return 0;
	rc = lock_folder(fd, name, err);
	return rc != 0 ? rc : err_set(err, ERR_NOT_FOUND, "folder '%s' has no shim: %s", name, refused.msg);
}

/* A folder of this very attempt can only be a dead one: an attempt is leased once. */
static int make_folder(int vms_fd, const char *name, int *ret_fd, struct err *err)
{
	autoclose fd = -1;

	int rc = vm_folder_remove(vms_fd, name, err);
	if (rc == VM_FOLDER_BUSY)
		return err_set(err, ERR_CONFLICT, "folder '%s' has a shim already", name);
	if (rc < 0)
		return rc;
	if (mkdirat(vms_fd, name, 0700) != 0)
		return err_sys(err, "make folder '%s'", name);
	rc = open_folder(vms_fd, name, &fd, err);
	if (rc == 0)
		rc = lock_folder(fd, name, err);
	if (rc != 0)
		return rc < 0 ? rc : err_set(err, ERR_CONFLICT, "folder '%s' was locked by somebody else", name);
	*ret_fd = fd_take(&fd);
	return 0;
}

int vm_folder_open_image(const struct vm_host *host, const char *name, const char *digest, int *fds, struct image *ret,
			 struct err *err)
{
	const struct image_order image = {
		.assets_fd = host->assets_fd,
		.verified_fd = host->verified_fd,
		.name = name,
		.digest = digest,
	};

	int rc = assets_open_kernel(host->assets_fd, &fds[SHIM_START_FD_KERNEL], err);
	if (rc == 0)
		rc = assets_open_initrd(host->assets_fd, &fds[SHIM_START_FD_INITRD], err);
	return rc == 0 ? image_open(&image, ret, &fds[SHIM_START_FD_ROOTFS], err) : rc;
}

/* Made from just these files, and itself untouched. */
static int open_template(const struct vm_host *host, const struct vm_template *t, const struct vm_shim *s,
			 struct template_fds *ret, struct err *err)
{
	const struct template_order now = {.shape = t->manifest.shape,
					   .kernel_fd = s->start_fds[SHIM_START_FD_KERNEL],
					   .initrd_fd = s->start_fds[SHIM_START_FD_INITRD],
					   .root_fd = s->start_fds[SHIM_START_FD_ROOTFS],
					   .self_fd = host->self_fd,
					   .program = host->vmm,
					   .tsc_khz = host->tsc_khz};

	int rc = template_fits(&t->manifest, &now, err);
	return rc == 0 ? template_open(host->templates_fd, t->name, &t->manifest, ret, err) : rc;
}

/* Whatever is wrong with it, the VM can boot. */
static int try_template(const struct vm_host *host, const struct vm_template *t, struct vm_shim *s, struct err *err)
{
	autovar(template_fds) fds = {-1, -1, -1};

	int rc = open_template(host, t, s, &fds, err);
	if (rc == 0)
		rc = scratch_copy(fds.disk, host->vms_fd, &s->start_fds[SHIM_START_FD_SCRATCH], err);
	if (rc != 0)
		return rc;
	s->start_fds[SHIM_START_FD_MEMORY] = fd_take(&fds.memory);
	s->start_fds[SHIM_START_FD_STATE] = fd_take(&fds.state);
	s->start_fd_count = SHIM_START_FD_STATE + 1;
	return 0;
}

/* Says in `s` what came of it. */
static int open_clone(const struct vm_host *host, const struct vm_order *order, struct vm_shim *s)
{
	int rc = try_template(host, order->template, s, &s->template_err);

	s->template = rc == 0 ? VM_TEMPLATE_USED : rc == TEMPLATE_STALE ? VM_TEMPLATE_STALE : VM_TEMPLATE_BROKEN;
	return rc;
}

/* Its scratch disk is the template's, or an empty one. */
static int open_disk(const struct vm_host *host, const struct vm_order *order, struct vm_shim *s, struct err *err)
{
	s->start_fd_count = SHIM_START_FD_SCRATCH + 1;
	if (order->template != NULL && open_clone(host, order, s) == 0)
		return 0;
	return scratch_create(host->scratch_fd, host->vms_fd, (unsigned)order->disk_mb,
			      &s->start_fds[SHIM_START_FD_SCRATCH], err);
}

static int open_parts(const struct vm_host *host, const struct vm_order *order, struct vm_shim *s, struct err *err)
{
	int rc = vm_folder_open_image(host, order->image, order->image_digest, s->start_fds, &s->image, err);

	return rc == 0 ? open_disk(host, order, s, err) : rc;
}

/* It finds its VMM by PATH, and speaks where we speak. */
static int spawn(const struct vm_host *host, int folder_fd, int shim_end, struct process *ret, struct err *err)
{
	const char *search = getenv("PATH");
	autofree char *path = xasprintf("PATH=%s", search != NULL ? search : "/usr/sbin:/usr/bin:/sbin:/bin");
	autofree char *level = xasprintf(SHIM_LOG_LEVEL_VARIABLE "=%s", log_level_now());

	struct process_spec spec = {
		.exec_fd = host->self_fd,
		.argv = (const char *const[]){"nimbus", "shim", NULL},
		.envp = (const char *const[]){path, level, NULL},
		.fds = (const struct process_fd[]){{2, 2}, {folder_fd, SHIM_FD_VMDIR}, {shim_end, SHIM_FD_AGENT}},
		.fd_count = 3,
		.new_session = true, /* a Ctrl-C at the terminal is not for it */
		.no_new_privs = true,
		.no_core = true,
	};

	return process_spawn(&spec, ret, err);
}

/* Takes the lock's descriptor over to the shim: ours is closed when the caller returns. */
static int start_in(const struct vm_host *host, const char *name, int folder_fd, struct vm_shim *s, struct err *err)
{
	autoclose shim_end = -1;
	int ends[2] = {-1, -1};

	int rc = msg_pair(ends, err);
	if (rc < 0)
		return rc;
	s->socket = ends[0];
	shim_end = ends[1];
	rc = spawn(host, folder_fd, shim_end, &s->process, err);
	return rc < 0 ? err_wrap(err, "start the shim of VM '%s'", name) : 0;
}

/* A folder of its own; then all that `s` has is the caller's, in *ret. */
static int start_in_new(const struct vm_host *host, const char *name, struct vm_shim *s, struct vm_shim *ret,
			struct err *err)
{
	autoclose folder_fd = -1;

	int rc = make_folder(host->vms_fd, name, &folder_fd, err);
	if (rc == 0)
		rc = start_in(host, name, folder_fd, s, err);
	if (rc < 0)
		return rc;
	*ret = *s;
	vm_shim_init(s);
	return 0;
}

int vm_folder_start(const struct vm_host *host, const struct vm_order *order, struct vm_shim *ret, struct err *err)
{
	autovar(vm_shim) s;
	char name[VM_FOLDER_NAME_SIZE];

	vm_shim_init(&s);
	int rc = open_parts(host, order, &s, err);
	return rc == 0 ? start_in_new(host, vm_folder_name(order->job_id, order->attempt, name), &s, ret, err) : rc;
}

/* --- spares --- */

char *vm_folder_spare_name(int64_t number, char name[static VM_FOLDER_NAME_SIZE])
{
	(void)snprintf(name, VM_FOLDER_NAME_SIZE, VM_FOLDER_SPARE "%" PRId64, number);
	return name;
}

int vm_folder_start_spare(const struct vm_host *host, const char *name, const struct vm_order *order,
			  struct vm_shim *ret, struct err *err)
{
	autovar(vm_shim) s;

	vm_shim_init(&s);
	int rc = vm_folder_open_image(host, order->image, order->image_digest, s.start_fds, &s.image, err);
	if (rc == 0 && open_clone(host, order, &s) != 0) {
		ret->template = s.template;
		ret->template_err = s.template_err;
		return VM_FOLDER_UNFIT;
	}
	return rc == 0 ? start_in_new(host, name, &s, ret, err) : rc;
}

int vm_folder_check(const struct vm_host *host, const struct vm_order *order, struct image *ret, struct err *err)
{
	autovar(vm_shim) s;
	autovar(template_fds) fds = {-1, -1, -1};

	vm_shim_init(&s);
	int rc = vm_folder_open_image(host, order->image, order->image_digest, s.start_fds, &s.image, err);
	if (rc == 0)
		rc = open_template(host, order->template, &s, &fds, err);
	if (rc == TEMPLATE_STALE)
		rc = err_set(err, ERR_CONFLICT, "it was made from something else than what is there now");
	if (rc == 0)
		*ret = s.image;
	return rc;
}

int vm_folder_hand_over(const struct vm_host *host, const char *spare, const struct vm_order *order, struct image *ret,
			struct err *err)
{
	char name[VM_FOLDER_NAME_SIZE];

	int rc = vm_folder_check(host, order, ret, err);
	if (rc == 0)
		rc = vm_folder_remove(host->vms_fd, vm_folder_name(order->job_id, order->attempt, name), err);
	if (rc == VM_FOLDER_BUSY)
		return err_set(err, ERR_CONFLICT, "folder '%s' has a shim already", name);
	if (rc == 0 && renameat(host->vms_fd, spare, host->vms_fd, name) != 0)
		return err_sys(err, "rename folder '%s' to '%s'", spare, name);
	return rc;
}

/* Its shim ends without an agent, unless a job was just being given to it. */
static int destroy_in(int vms_fd, const char *name, struct err *err)
{
	const struct shim_msg destroy = {.type = SHIM_DESTROY};
	autoclose socket = -1;
	autovar(buf) out = {0};

	int rc = vm_folder_connect(vms_fd, name, &socket, err);
	if (rc == 0)
		rc = shim_msg_encode(&destroy, &out, err);
	return rc == 0 ? msg_send(socket, buf_str(&out), NULL, 0, err) : rc;
}

int vm_folder_sweep_spares(int vms_fd, size_t *ret_left, struct err *err)
{
	int fd = openat(vms_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__attribute__((cleanup(dir_close))) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct err ignored = {0};

	*ret_left = 0;
	if (dir == NULL)
		return err_sys(err, "read the folder of VMs");
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (entry == NULL)
			return errno == 0 ? 0 : err_sys(err, "read the folder of VMs");
		if (!str_starts_with(str_c(entry->d_name), STR(VM_FOLDER_SPARE)) ||
		    vm_folder_remove(vms_fd, entry->d_name, &ignored) == 0)
			continue;
		(void)!destroy_in(vms_fd, entry->d_name, &ignored);
		++*ret_left;
	}
}

int vm_folder_revive(const struct vm_host *host, const char *name, struct vm_shim *ret, struct err *err)
{
	autovar(vm_shim) s;
	autoclose folder_fd = -1;

	vm_shim_init(&s);
	int rc = open_folder(host->vms_fd, name, &folder_fd, err);
	if (rc == 0)
		rc = lock_folder(folder_fd, name, err);
	if (rc == VM_FOLDER_BUSY)
		return err_set(err, ERR_CONFLICT, "folder '%s' has a shim already", name);
	if (rc == 0)
		rc = start_in(host, name, folder_fd, &s, err);
	if (rc < 0)
		return rc;
	*ret = s;
	vm_shim_init(&s);
	return 0;
}

bool vm_folder_has_spool(int vms_fd, const char *name)
{
	autofree char *order = xasprintf("%s/" SHIM_SHIP_FILE, name);
	struct stat st;

	return fstatat(vms_fd, order, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int vm_folder_each(int vms_fd, vm_folder_fn fn, void *ctx, struct err *err)
{
	int fd = openat(vms_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__attribute__((cleanup(dir_close))) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (dir == NULL)
		return err_sys(err, "read the folder of VMs");
	for (;;) {
		int64_t job_id = 0;
		int64_t attempt = 0;
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (entry == NULL)
			return errno == 0 ? 0 : err_sys(err, "read the folder of VMs");
		if (vm_folder_parse(entry->d_name, &job_id, &attempt))
			fn(ctx, entry->d_name, job_id, attempt);
	}
}
