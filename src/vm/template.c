#include "vm/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/driver.h"

enum { KEY_MAX = 256, CPUINFO_MAX = 4 << 20, CPU_MODEL_MAX = 128 };

#define TSC_TOLERANCE 200 /* its 200th part: two measurements of one counter differ by much less */

/* --- files --- */

void template_fds_fini(struct template_fds *f)
{
	fd_close(&f->memory);
	fd_close(&f->state);
	fd_close(&f->disk);
}

static int64_t time_of(const struct timespec *t)
{
	return t->tv_sec * NS_PER_S + t->tv_nsec;
}

int template_look(int fd, struct template_file *ret, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_sys(err, "look at a file");
	*ret = (struct template_file){.size = st.st_size,
				      .inode = (int64_t)st.st_ino,
				      .modified_ns = time_of(&st.st_mtim),
				      .changed_ns = time_of(&st.st_ctim)};
	return 0;
}

/* A regular file of ours that nobody else may write or read. */
static int check_owner(int fd, const char *what, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_sys(err, "look at %s", what);
	if (st.st_uid != geteuid())
		return err_set(err, ERR_FORBIDDEN, "%s belongs to user %u", what, (unsigned)st.st_uid);
	if ((st.st_mode & 077) != 0)
		return err_set(err, ERR_FORBIDDEN, "%s is open to others (mode %o)", what,
			       (unsigned)st.st_mode & 07777);
	return 0;
}

static int open_folder(int templates_fd, const char *name, int *ret_fd, struct err *err)
{
	autoclose fd = openat(templates_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, "open it");
	int rc = check_owner(fd, "its folder", err);
	if (rc == 0)
		*ret_fd = fd_take(&fd);
	return rc;
}

static int open_own(int folder_fd, const char *name, int *ret_fd, struct err *err)
{
	autoclose fd = openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, "open its %s", name);
	int rc = check_owner(fd, name, err);
	if (rc == 0)
		*ret_fd = fd_take(&fd);
	return rc;
}

/* Its own file `part`, if it is as the manifest says. */
static int open_untouched(int folder_fd, const struct template_manifest *m, enum template_part part, int *ret_fd,
			  struct err *err)
{
	const char *name = template_part_name(part);
	struct template_file now;
	autoclose fd = -1;

	int rc = open_own(folder_fd, name, &fd, err);
	if (rc == 0)
		rc = template_look(fd, &now, err);
	if (rc < 0)
		return rc;
	if (!template_file_same(&now, &m->files[part]))
		return err_set(err, ERR_FORBIDDEN, "its %s was changed since it was made", name);
	*ret_fd = fd_take(&fd);
	return 0;
}

int template_open(int templates_fd, const char *name, const struct template_manifest *m, struct template_fds *ret,
		  struct err *err)
{
	autovar(template_fds) fds = {-1, -1, -1};
	autoclose folder = -1;

	int rc = open_folder(templates_fd, name, &folder, err);
	if (rc == 0)
		rc = open_untouched(folder, m, TEMPLATE_MEMORY, &fds.memory, err);
	if (rc == 0)
		rc = open_untouched(folder, m, TEMPLATE_STATE, &fds.state, err);
	if (rc == 0)
		rc = open_untouched(folder, m, TEMPLATE_DISK, &fds.disk, err);
	if (rc < 0)
		return err_wrap(err, "template '%s'", name);
	*ret = (struct template_fds){fd_take(&fds.memory), fd_take(&fds.state), fd_take(&fds.disk)};
	return 0;
}

int template_load(int templates_fd, const char *name, const struct secret *key, struct arena *arena,
		  struct template_manifest *ret, struct err *err)
{
	autovar(template_fds) fds = {-1, -1, -1};
	autovar(buf) text = {0};
	autoclose folder = -1;
	autoclose file = -1;

	int rc = open_folder(templates_fd, name, &folder, err);
	if (rc == 0)
		rc = open_own(folder, TEMPLATE_MANIFEST, &file, err);
	if (rc == 0)
		rc = file_read(folder, TEMPLATE_MANIFEST, TEMPLATE_MANIFEST_MAX, &text, err);
	if (rc == 0)
		rc = template_manifest_decode(buf_str(&text), key, arena, ret, err);
	if (rc < 0)
		return err_wrap(err, "template '%s'", name);
	return template_open(templates_fd, name, ret, &fds, err);
}

static int hash(int fd, struct buf *digest, struct err *err)
{
	if (lseek(fd, 0, SEEK_SET) != 0)
		return err_sys(err, "read a file");
	return file_copy_fd(fd, -1, digest, NULL, err);
}

static int verify_part(int fd, const struct template_manifest *m, enum template_part part, struct err *err)
{
	autovar(buf) digest = {0};

	int rc = hash(fd, &digest, err);
	if (rc == 0 && !str_eq(buf_str(&digest), str_c(m->files[part].sha256)))
		rc = err_set(err, ERR_FORBIDDEN, "its %s is not what was made", template_part_name(part));
	return rc;
}

int template_verify(int templates_fd, const char *name, const struct template_manifest *m, struct err *err)
{
	autovar(template_fds) fds = {-1, -1, -1};

	int rc = template_open(templates_fd, name, m, &fds, err);
	if (rc < 0)
		return rc;
	rc = verify_part(fds.memory, m, TEMPLATE_MEMORY, err);
	if (rc == 0)
		rc = verify_part(fds.state, m, TEMPLATE_STATE, err);
	if (rc == 0)
		rc = verify_part(fds.disk, m, TEMPLATE_DISK, err);
	return rc < 0 ? err_wrap(err, "template '%s'", name) : 0;
}

/* --- the key --- */

int template_key(int templates_fd, struct secret **ret, struct err *err)
{
	autovar(buf) text = {0};

	if (faccessat(templates_fd, TEMPLATE_KEY_FILE, F_OK, 0) != 0) {
		autoptr(secret) made = crypto_random_secret();
		int rc = file_write_new(templates_fd, TEMPLATE_KEY_FILE, secret_reveal(made), 0600, err);
		if (rc < 0 && rc != -ERR_CONFLICT)
			return err_wrap(err, "make the templates' key");
	}
	autoclose fd = -1;
	int rc = open_own(templates_fd, TEMPLATE_KEY_FILE, &fd, err);
	if (rc == 0)
		rc = file_read(templates_fd, TEMPLATE_KEY_FILE, KEY_MAX, &text, err);
	if (rc == 0 && text.len < SHA256_SIZE)
		rc = err_set(err, ERR_INVALID, "the templates' key is cut off: remove %s", TEMPLATE_KEY_FILE);
	if (rc == 0)
		*ret = secret_new(text.data, text.len);
	if (text.data != NULL)
		secret_wipe(text.data, text.cap);
	return rc;
}

/* --- what it depends on --- */

/* The first CPU's: hosts do not mix them. */
static int cpu_model(struct buf *out, struct err *err)
{
	autovar(buf) text = {0};

	int rc = file_read(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MAX, &text, err);
	struct str rest = buf_str(&text);
	while (rc == 0 && rest.data != NULL) {
		struct str value = str_cut(&rest, '\n');
		struct str name = str_trim(str_cut(&value, ':'));
		if (str_eq(name, STR("model name")) && value.data != NULL) {
			value = str_trim(value);
			value.len = value.len < CPU_MODEL_MAX ? value.len : CPU_MODEL_MAX;
			buf_append_str(out, value);
			break;
		}
	}
	buf_putc(out, '\0');
	return rc;
}

int template_look_at_host(struct arena *arena, struct template_manifest *ret, struct err *err)
{
	autovar(buf) cpu = {0};
	struct utsname name;

	if (uname(&name) != 0)
		return err_sys(err, "uname");
	int rc = cpu_model(&cpu, err);
	if (rc < 0)
		return rc;
	ret->host_kernel = arena_strdup(arena, name.release);
	ret->host_cpu = arena_strdup(arena, cpu.data);
	return 0;
}

int template_open_program(const struct template_order *o, int *ret_fd, struct err *err)
{
	autofree char *path = NULL;
	const struct vm_driver *driver = vm_driver_by_name(STR("qemu"));

	int rc = vm_find_program(o->program != NULL ? o->program : driver->program, &path, err);
	if (rc < 0)
		return rc;
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? err_sys(err, "open %s", path) : 0;
}

static bool tsc_same(int64_t a, int64_t b)
{
	int64_t apart = a > b ? a - b : b - a;

	return apart <= a / TSC_TOLERANCE;
}

int template_fits_host(const struct template_manifest *m, int64_t tsc_khz, struct err *err)
{
	autoptr(arena) arena = arena_new();
	struct template_manifest now;

	int rc = template_look_at_host(arena, &now, err);
	if (rc < 0)
		return rc;
	bool same = strcmp(m->host_kernel, now.host_kernel) == 0 && strcmp(m->host_cpu, now.host_cpu) == 0 &&
		    tsc_same(m->tsc_khz, tsc_khz);
	return same ? 0 : TEMPLATE_STALE;
}

static int part_same(const struct template_manifest *m, enum template_part part, int fd, struct err *err)
{
	struct template_file now;

	int rc = template_look(fd, &now, err);
	if (rc < 0)
		return rc;
	return template_file_same(&now, &m->files[part]) ? 0 : TEMPLATE_STALE;
}

int template_fits(const struct template_manifest *m, const struct template_order *order, struct err *err)
{
	const int fds[TEMPLATE_VMM] = {order->kernel_fd, order->initrd_fd, order->root_fd};
	autoclose program = -1;

	if (!template_shape_equal(&m->shape, &order->shape))
		return TEMPLATE_STALE;
	int rc = template_open_program(order, &program, err);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(fds); i++)
		rc = part_same(m, (enum template_part)i, fds[i], err);
	if (rc == 0)
		rc = part_same(m, TEMPLATE_NIMBUS, order->self_fd, err);
	return rc == 0 ? part_same(m, TEMPLATE_VMM, program, err) : rc;
}

/* --- all of them --- */

static void dir_close(DIR **dir)
{
	if (*dir != NULL)
		(void)closedir(*dir);
}

int template_each(int templates_fd, template_fn fn, void *ctx, struct err *err)
{
	int fd = openat(templates_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__attribute__((cleanup(dir_close))) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (dir == NULL)
		return err_sys(err, "read the folder of templates");
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (entry == NULL)
			return errno == 0 ? 0 : err_sys(err, "read the folder of templates");
		struct str name = str_c(entry->d_name);
		bool done = str_starts_with(name, STR(TEMPLATE_DONE));
		if (name.len < TEMPLATE_NAME_SIZE && (done || str_starts_with(name, STR(TEMPLATE_NEW))))
			fn(ctx, entry->d_name, done);
	}
}

int64_t template_bytes(int templates_fd, const char *name)
{
	int64_t bytes = 0;

	for (size_t i = TEMPLATE_OWN; i < TEMPLATE_PART_COUNT; i++) {
		autofree char *path = xasprintf("%s/%s", name, template_part_name((enum template_part)i));
		struct stat st;
		if (fstatat(templates_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			bytes += st.st_blocks * 512;
	}
	return bytes;
}

int template_remove(int templates_fd, const char *name, struct err *err)
{
	return dir_remove(templates_fd, name, err);
}
