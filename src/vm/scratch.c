#include "vm/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"

enum { MKFS_TIMEOUT_S = 30 };

static int run_mkfs(int image_fd, struct err *err)
{
	/* No journal: nobody mounts this again after a crash. The tables are sparse zeros already. */
	const char *const argv[] = {
		"mkfs.ext4",	   "-q", "-F", "-m0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard",
		"/proc/self/fd/3", NULL};
	const struct process_fd fds[] = {{.fd = image_fd, .child_fd = 3}};
	const struct process_spec spec = {
		.path = "/sbin/mkfs.ext4",
		.argv = argv,
		.fds = fds,
		.fd_count = ARRAY_LEN(fds),
		.parent_death_signal = SIGKILL,
		.no_new_privs = true,
	};
	struct process process;
	struct process_exit end = {0};

	int rc = process_spawn(&spec, &process, err);
	if (rc == 0)
		rc = process_wait(&process, clock_monotonic_ns() + MKFS_TIMEOUT_S * NS_PER_S, &end, err);
	if (rc < 0)
		return rc;
	if (!end.exited || end.code != 0)
		return err_set(err, ERR_INTERNAL, "mkfs.ext4 failed (%s %d)", end.exited ? "exit status" : "signal",
			       end.exited ? end.code : end.signal);
	return 0;
}

static int fill_cache(int cache_fd, const char *name, unsigned size_mb, struct err *err)
{
	autofree char *temp = xasprintf("%s.tmp-%016llx", name, (unsigned long long)crypto_random_u64());
	autoclose fd = openat(cache_fd, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, "create %s", temp);
	int rc = ftruncate(fd, (off_t)size_mb << 20) == 0 ? 0 : err_sys(err, "size %s", temp);
	if (rc == 0)
		rc = run_mkfs(fd, err);
	if (rc == 0 && renameat(cache_fd, temp, cache_fd, name) != 0)
		rc = err_sys(err, "rename %s", temp);
	if (rc < 0)
		(void)unlinkat(cache_fd, temp, 0);
	return rc;
}

static int open_cached(int cache_fd, unsigned size_mb, int *ret_fd, struct err *err)
{
	autofree char *name = xasprintf("ext4-%umb.img", size_mb);

	*ret_fd = openat(cache_fd, name, O_RDONLY | O_CLOEXEC);
	if (*ret_fd >= 0)
		return 0;
	if (errno != ENOENT)
		return err_sys(err, "open %s", name);
	int rc = fill_cache(cache_fd, name, size_mb, err);
	if (rc < 0)
		return rc;
	*ret_fd = openat(cache_fd, name, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? err_sys(err, "open %s", name) : 0;
}

static int copy_range(int from, int to, off_t at, off_t end, struct err *err)
{
	off_t in = at, out = at;

	while (in < end) {
		ssize_t done = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_sys(err, "copy the empty scratch disk");
	}
	return 0;
}

/* Only what holds data: a few hundred KiB of file system tables. */
static int copy_sparse(int from, int to, struct err *err)
{
	off_t end = 0;

	for (;;) {
		off_t at = lseek(from, end, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			return 0;
		end = at < 0 ? -1 : lseek(from, at, SEEK_HOLE);
		if (end < 0)
			return err_sys(err, "copy the empty scratch disk");
		int rc = copy_range(from, to, at, end, err);
		if (rc < 0)
			return rc;
	}
}

int scratch_copy(int from, int dir_fd, int *ret_fd, struct err *err)
{
	autoclose to = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct stat st;

	if (to < 0 || fstat(from, &st) != 0 || ftruncate(to, st.st_size) != 0)
		return err_sys(err, "make the scratch disk");
	if (ioctl(to, FICLONE, from) != 0) {
		int rc = copy_sparse(from, to, err);
		if (rc < 0)
			return rc;
	}
	*ret_fd = fd_take(&to);
	return 0;
}

int scratch_create(int cache_fd, int dir_fd, unsigned size_mb, int *ret_fd, struct err *err)
{
	autoclose from = -1;

	if (size_mb < SCRATCH_MB_MIN || size_mb > SCRATCH_MB_MAX)
		return err_set(err, ERR_INVALID_FIELD, "disk_mb: %u; it may be %d to %d", size_mb, SCRATCH_MB_MIN,
			       SCRATCH_MB_MAX);
	int rc = open_cached(cache_fd, size_mb, &from, err);
	return rc < 0 ? err_wrap(err, "make the scratch disk") : scratch_copy(from, dir_fd, ret_fd, err);
}
