#include "base/file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/mem.h"

enum { COPY_SIZE = 1 << 18 };

void fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}

int fd_take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

int file_read(int dirfd, const char *path, size_t max, struct buf *out, struct err *err)
{
	autoclose fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t total = 0;

	if (fd < 0)
		return err_sys(err, "open %s", path);
	for (;;) {
		char *to = buf_reserve(out, 4096);
		ssize_t got = read(fd, to, 4096);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(err, "read %s", path);
		if (got == 0)
			return 0;
		total += (size_t)got;
		if (total > max)
			return err_set(err, ERR_TOO_LARGE, "%s: more than %zu bytes", path, max);
		out->len += (size_t)got;
		out->data[out->len] = '\0';
	}
}

int file_write_fd(int fd, struct str bytes, struct err *err)
{
	while (bytes.len > 0) {
		ssize_t done = write(fd, bytes.data, bytes.len);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_sys(err, "write");
		bytes.data += done;
		bytes.len -= (size_t)done;
	}
	return 0;
}

int file_sync_parent(int dirfd, const char *path, struct err *err)
{
	autofree char *copy = xstrdup(path);
	autoclose parent = openat(dirfd, dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (parent < 0 || fsync(parent) != 0)
		return err_sys(err, "sync the folder of %s", path);
	return 0;
}

/* owner: whose the file becomes; NULL: ours. */
static int write_and_sync(int dirfd, const char *path, struct str bytes, mode_t mode, const struct stat *owner,
			  struct err *err)
{
	autoclose fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return err_sys(err, "create %s", path);
	/* The mode asked for, whatever the umask. */
	if (fchmod(fd, mode) != 0)
		return err_sys(err, "set the mode of %s", path);
	if (owner != NULL && fchown(fd, owner->st_uid, owner->st_gid) != 0)
		return err_sys(err, "give %s to uid %u", path, (unsigned)owner->st_uid);
	int rc = file_write_fd(fd, bytes, err);
	if (rc < 0) {
		(void)err_wrap(err, "%s", path);
		return rc;
	}
	if (fsync(fd) != 0)
		return err_sys(err, "sync %s", path);
	return 0;
}

/* A link, unlike a rename, does not replace. */
static int put_in_place(int dirfd, const char *temp, const char *path, bool replace, struct err *err)
{
	if (replace)
		return renameat(dirfd, temp, dirfd, path) == 0 ? 0 : err_sys(err, "rename %s", temp);
	if (linkat(dirfd, temp, dirfd, path, 0) != 0)
		return errno == EEXIST ? err_set(err, ERR_CONFLICT, "%s is there already", path)
				       : err_sys(err, "create %s", path);
	(void)unlinkat(dirfd, temp, 0);
	return 0;
}

struct whole {
	mode_t mode;
	const struct stat *owner; /* whose it becomes; NULL: ours */
	bool replace;
};

static int write_whole(int dirfd, const char *path, struct str bytes, const struct whole *how, struct err *err)
{
	autofree char *temp = xasprintf("%s.tmp-%016lx", path, (unsigned long)crypto_random_u64());

	int rc = write_and_sync(dirfd, temp, bytes, how->mode, how->owner, err);
	if (rc == 0)
		rc = put_in_place(dirfd, temp, path, how->replace, err);
	if (rc < 0) {
		(void)unlinkat(dirfd, temp, 0);
		return rc;
	}
	return file_sync_parent(dirfd, path, err);
}

int file_write_atomic(int dirfd, const char *path, struct str bytes, mode_t mode, struct err *err)
{
	return write_whole(dirfd, path, bytes, &(struct whole){.mode = mode, .replace = true}, err);
}

int file_write_new(int dirfd, const char *path, struct str bytes, mode_t mode, struct err *err)
{
	return write_whole(dirfd, path, bytes, &(struct whole){.mode = mode}, err);
}

int file_write_private(int dirfd, const char *name, struct str bytes, struct err *err)
{
	struct stat folder;

	if (fstat(dirfd, &folder) != 0)
		return err_sys(err, "look at the folder of %s", name);
	const struct whole how = {.mode = 0600, .owner = geteuid() == 0 ? &folder : NULL, .replace = true};
	return write_whole(dirfd, name, bytes, &how, err);
}

int dir_make(const char *path, mode_t mode, struct err *err)
{
	autofree char *partial = xstrdup(path);

	for (char *slash = strchr(partial + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(partial, mode) != 0 && errno != EEXIST)
			return err_sys(err, "create folder %s", partial);
		*slash = '/';
	}
	if (mkdir(path, mode) != 0 && errno != EEXIST)
		return err_sys(err, "create folder %s", path);
	struct stat st;
	if (stat(path, &st) != 0)
		return err_sys(err, "look at folder %s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_INVALID, "%s is in the way: not a folder", path);
	return 0;
}

int file_open_within(int dirfd, const char *path, int flags, uint64_t resolve)
{
	const struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC), .resolve = resolve};

	return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

int dir_open(const char *path, int *ret_fd, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, "open folder %s", path);
	*ret_fd = fd;
	return 0;
}

static int remove_entries(int dirfd, const char *name, dev_t device, struct err *err)
{
	autoclose fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open folder %s", name);
	if (st.st_dev != device)
		return err_set(err, ERR_IO, "%s: another file system is mounted there", name);
	DIR *dir = fdopendir(fd);
	if (dir == NULL)
		return err_sys(err, "read folder %s", name);
	int own = fd_take(&fd); /* closedir() closes it */
	int rc = 0;
	for (struct dirent *entry = readdir(dir); entry != NULL && rc == 0; entry = readdir(dir)) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(own, entry->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM) {
			rc = err_sys(err, "remove %s", entry->d_name);
			break;
		}
		rc = remove_entries(own, entry->d_name, device, err);
		if (rc == 0 && unlinkat(own, entry->d_name, AT_REMOVEDIR) != 0)
			rc = err_sys(err, "remove folder %s", entry->d_name);
	}
	(void)closedir(dir);
	return rc;
}

int dir_remove(int dirfd, const char *name, struct err *err)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : err_sys(err, "look at %s", name);
	if (S_ISDIR(st.st_mode)) {
		int rc = remove_entries(dirfd, name, st.st_dev, err);
		if (rc < 0)
			return rc;
	}
	if (unlinkat(dirfd, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) != 0)
		return err_sys(err, "remove %s", name);
	return 0;
}

int file_copy_fd(int from, int to, struct buf *digest, int64_t *ret_size, struct err *err)
{
	autoptr(crypto_hash) hash = crypto_hash_new();
	autofree char *chunk = xmalloc(COPY_SIZE);
	int64_t size = 0;

	for (;;) {
		ssize_t got = read(from, chunk, COPY_SIZE);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(err, "read");
		if (got == 0)
			break;
		struct str piece = {chunk, (size_t)got};
		crypto_hash_update(hash, piece);
		size += got;
		int rc = to >= 0 ? file_write_fd(to, piece, err) : 0;
		if (rc < 0)
			return rc;
	}
	struct sha256 sum = crypto_hash_finish(hash);
	encode_hex((struct str){(const char *)sum.bytes, sizeof(sum.bytes)}, digest);
	if (ret_size != NULL)
		*ret_size = size;
	return 0;
}

int file_lock(const char *path, mode_t mode, int *ret_fd, char holder[static FILE_HOLDER_SIZE], struct err *err)
{
	autoclose fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
	char number[FILE_HOLDER_SIZE] = "";
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open %s", path);
	/* Its folder may be another user's, and what is written is not to come into a file of somebody else. */
	if (!S_ISREG(st.st_mode) || st.st_nlink > 1)
		return err_set(err, ERR_INVALID, "%s is no file of one name: remove it", path);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		ssize_t got = pread(fd, number, sizeof(number) - 1, 0);
		(void)snprintf(holder, FILE_HOLDER_SIZE, "%s", got > 0 ? number : "?");
		return 1;
	}
	int len = snprintf(number, sizeof(number), "%d", (int)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, number, (size_t)len, 0) != len)
		return err_sys(err, "write %s", path);
	*ret_fd = fd_take(&fd);
	return 0;
}

int disk_free(int fd, uint64_t *ret, struct err *err)
{
	struct statvfs st;

	if (fstatvfs(fd, &st) != 0)
		return err_sys(err, "ask for free disk space");
	*ret = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

int64_t file_proc_bytes(const char *path, struct str name)
{
	autovar(buf) text = {0};
	int64_t kib = 0;

	if (file_read(AT_FDCWD, path, 64 << 10, &text, NULL) < 0)
		return 0;
	for (struct str rest = buf_str(&text); rest.data != NULL;) {
		struct str value = str_cut(&rest, '\n');
		if (!str_eq(str_cut(&value, ':'), name))
			continue;
		value = str_trim(value);
		(void)!str_to_i64(str_cut(&value, ' '), "memory", 0, INT64_MAX >> 10, &kib, NULL);
	}
	return kib << 10;
}
