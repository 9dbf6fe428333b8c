#include "admin/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"

void copy_fini(struct copy *c)
{
	free(c->files);
	fd_close(&c->from_fd);
	fd_close(&c->to_fd);
}

static void close_dir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

static int make_folders(int dirfd, const char *path, struct err *err)
{
	autofree char *partial = xstrdup(path);

	for (char *slash = strchr(partial, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdirat(dirfd, partial, 0700) != 0 && errno != EEXIST)
			return err_sys(err, "create folder %s", partial);
		*slash = '/';
	}
	return 0;
}

/* Reads to the end; to_fd -1: for the digest alone. */
static int pump(int from_fd, int to_fd, struct arena *arena, struct manifest_file *ret, struct err *err)
{
	autovar(buf) hex = {0};
	int r = file_copy_fd(from_fd, to_fd, &hex, &ret->size, err);

	if (r == 0)
		ret->sha256 = arena_strdup(arena, hex.data);
	return r;
}

int copy_digest(int dirfd, const char *path, struct arena *arena, struct manifest_file *ret, struct err *err)
{
	struct stat st;
	autoclose fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int r;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID, "%s is not an ordinary file", path);
	r = pump(fd, -1, arena, ret, err);
	return r < 0 ? err_wrap(err, "%s", path) : 0;
}

static struct manifest_file *next_file(struct copy *c, const char *path, const struct stat *st)
{
	if (c->count == c->cap) {
		c->cap = c->cap == 0 ? 64 : 2 * c->cap;
		c->files = xreallocarray(c->files, c->cap, sizeof(*c->files));
	}
	struct manifest_file *f = &c->files[c->count];
	*f = (struct manifest_file){
		.path = arena_printf(c->arena, "%s%s", c->prefix != NULL ? c->prefix : "", path),
		.mode = st->st_mode & 0777,
		.uid = st->st_uid,
		.gid = st->st_gid,
	};
	return f;
}

static void added(struct copy *c, const struct manifest_file *f)
{
	c->count++;
	c->bytes += f->size;
}

int copy_add(struct copy *c, const char *path, const char *original, struct err *err)
{
	struct stat st;
	int r;

	if (stat(original, &st) != 0)
		return err_sys(err, "look at %s", original);
	struct manifest_file *f = next_file(c, path, &st);
	r = copy_digest(c->to_fd, path, c->arena, f, err);
	if (r == 0)
		added(c, f);
	return r;
}

int copy_file(struct copy *c, const char *path, struct err *err)
{
	struct stat st;
	autoclose from = openat(c->from_fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	autoclose to = -1;
	int r;

	if (from < 0 && errno == ENOENT)
		return 0;
	if (from < 0 || fstat(from, &st) != 0)
		return err_sys(err, "open %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID, "%s is not an ordinary file", path);
	if (c->count == MANIFEST_FILES_MAX)
		return err_set(err, ERR_LIMIT, "more than %d files", MANIFEST_FILES_MAX);
	r = make_folders(c->to_fd, path, err);
	if (r < 0)
		return r;
	to = openat(c->to_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return err_sys(err, "create %s", path);
	struct manifest_file *f = next_file(c, path, &st);
	r = pump(from, to, c->arena, f, err);
	if (r == 0 && fsync(to) != 0)
		r = err_sys(err, "sync");
	if (r < 0)
		return err_wrap(err, "%s", path);
	added(c, f);
	return 0;
}

int copy_folder(struct copy *c, const char *path, bool (*skip)(const char *name), struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	autoclose fd = openat(c->from_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = 0;

	if (fd < 0 && errno == ENOENT)
		return 0;
	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (dir == NULL)
		return err_sys(err, "open folder %s", path);
	(void)fd_take(&fd);
	for (struct dirent *entry = readdir(dir); entry != NULL && r == 0; entry = readdir(dir)) {
		struct stat st;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    (skip != NULL && skip(entry->d_name)) ||
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		autofree char *below = xasprintf("%s/%s", path, entry->d_name);
		if (S_ISDIR(st.st_mode))
			r = copy_folder(c, below, skip, err);
		else if (S_ISREG(st.st_mode))
			r = copy_file(c, below, err);
	}
	return r;
}

int copy_sync_folders(int parent, struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	autoclose fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (dir == NULL)
		return err_sys(err, "open a folder of the copy");
	(void)fd_take(&fd);
	for (struct dirent *entry = readdir(dir); entry != NULL && r == 0; entry = readdir(dir)) {
		if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		autoclose below = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = below < 0 ? err_sys(err, "open folder %s", entry->d_name) : copy_sync_folders(below, err);
	}
	if (r == 0 && fsync(dirfd(dir)) != 0)
		r = err_sys(err, "sync a folder of the copy");
	return r;
}
