#include "guest/unpack.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/tar.h"

enum {
	BLOCK = 4096,
	DIRECT_LEAST = 128 * 1024, /* files of so much go around the page cache */
	DEPTH_MAX = 128, /* folders whose times are set when all in them is there; deeper ones have the time of now */
	FOLDER_MODE = 0755,
};

/* A folder that is being filled. */
struct filling {
	size_t len; /* of the path, in the one below */
	int64_t mtime_ns;
};

struct unpacking {
	int root;
	int parent; /* of the last entry, and its path: many follow in the same folder */
	char parent_path[TAR_PATH_MAX + 1];
	int file;    /* being written, or -1 */
	bool direct; /* it is, around the page cache: only in whole blocks */
	char *block; /* BLOCK bytes, for what comes in two parts */
	size_t block_len;
	struct tar_decoder tar;
	struct tar_entry entry; /* the last */
	char path[TAR_PATH_MAX + 1];
	struct filling filling[DEPTH_MAX];
	size_t depth;
	char filling_path[TAR_PATH_MAX + 1]; /* of the deepest */
};

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

static int fail(const struct unpacking *u, const char *what, struct err *err)
{
	if (errno == ELOOP || errno == EXDEV)
		return err_set(err, ERR_INVALID, "'%s' goes through a symbolic link", u->path);
	return err_sys(err, "'%s': %s", u->path, what);
}

/* --- folders --- */

static int open_beneath(int dir, const char *path)
{
	const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				     .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};

	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* Every folder on the way, where it is not there. */
static int make_way(const struct unpacking *u, const char *path)
{
	char part[TAR_PATH_MAX + 1];
	size_t len = strlen(path);

	memcpy(part, path, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (part[i] != '/' && part[i] != '\0')
			continue;
		char kept = part[i];
		part[i] = '\0';
		char *slash = strrchr(part, '/');
		int dir = u->root;
		if (slash != NULL) {
			*slash = '\0';
			dir = open_beneath(u->root, part);
			*slash = '/';
		}
		int rc = dir < 0 ? -1 : mkdirat(dir, slash != NULL ? slash + 1 : part, FOLDER_MODE);
		int error = errno;
		if (dir >= 0 && dir != u->root)
			(void)close(dir);
		errno = error;
		if (rc != 0 && error != EEXIST)
			return -1;
		part[i] = kept;
	}
	return open_beneath(u->root, path);
}

/* The folder that the path's last component is in, as u->parent; *ret_name is that component. */
static int enter_parent(struct unpacking *u, const char *path, const char **ret_name, struct err *err)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash != NULL ? (size_t)(slash - path) : 0;

	*ret_name = slash != NULL ? slash + 1 : path;
	if (u->parent >= 0 && strncmp(u->parent_path, path, len) == 0 && u->parent_path[len] == '\0')
		return 0;
	if (u->parent >= 0)
		(void)close(u->parent);
	memcpy(u->parent_path, path, len);
	u->parent_path[len] = '\0';
	const char *parent = len > 0 ? u->parent_path : ".";
	u->parent = open_beneath(u->root, parent);
	if (u->parent < 0 && errno == ENOENT)
		u->parent = make_way(u, parent);
	return u->parent >= 0 ? 0 : fail(u, "make its folder", err);
}

/* Times last: what is written into a folder changes them. */
static void leave_folders(struct unpacking *u, const char *next)
{
	while (u->depth > 0) {
		const struct filling *f = &u->filling[u->depth - 1];
		u->filling_path[f->len] = '\0';
		if (strncmp(next, u->filling_path, f->len) == 0 && next[f->len] == '/')
			return;
		const struct timespec times[2] = {timespec_of(f->mtime_ns), timespec_of(f->mtime_ns)};
		int dir = open_beneath(u->root, u->filling_path);
		if (dir >= 0) {
			(void)utimensat(dir, ".", times, 0);
			(void)close(dir);
		}
		u->depth--;
	}
}

static void fill_folder(struct unpacking *u)
{
	const struct tar_entry *e = &u->entry;
	size_t len = strlen(e->path);

	if (u->depth == DEPTH_MAX)
		return;
	memcpy(u->filling_path, e->path, len + 1);
	u->filling[u->depth++] = (struct filling){.len = len, .mtime_ns = e->mtime_ns};
}

/* --- entries --- */

/* What is in the way goes, unless it is a folder that is to be one. */
static int make_folder(struct unpacking *u, const char *name, struct err *err)
{
	const struct tar_entry *e = &u->entry;
	struct stat now;

	if (strcmp(e->path, ".") == 0)
		return fchmod(u->root, e->mode) == 0 ? 0 : fail(u, "set its mode", err);
	if (fstatat(u->parent, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(now.st_mode) &&
	    unlinkat(u->parent, name, 0) != 0)
		return fail(u, "replace what was there", err);
	if (mkdirat(u->parent, name, FOLDER_MODE) != 0 && errno != EEXIST)
		return fail(u, "make the folder", err);
	/* Nobody else is at work here who could put a link in its place. */
	if (fchmodat(u->parent, name, e->mode, 0) != 0)
		return fail(u, "set its mode", err);
	fill_folder(u);
	return 0;
}

static int make_file(struct unpacking *u, const char *name, struct err *err)
{
	if (unlinkat(u->parent, name, 0) != 0 && errno != ENOENT)
		return fail(u, "replace what was there", err);
	u->file = openat(u->parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (u->file < 0)
		return fail(u, "make the file", err);
	/* Not every file system can. */
	u->direct = u->entry.size >= DIRECT_LEAST && fcntl(u->file, F_SETFL, O_DIRECT) == 0;
	u->block_len = 0;
	return 0;
}

static int make_symlink(struct unpacking *u, const char *name, struct err *err)
{
	const struct tar_entry *e = &u->entry;
	const struct timespec times[2] = {timespec_of(e->mtime_ns), timespec_of(e->mtime_ns)};

	if (unlinkat(u->parent, name, 0) != 0 && errno != ENOENT)
		return fail(u, "replace what was there", err);
	if (symlinkat(e->target, u->parent, name) != 0)
		return fail(u, "make the symbolic link", err);
	(void)utimensat(u->parent, name, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int make_hard_link(struct unpacking *u, const char *name, struct err *err)
{
	const struct tar_entry *e = &u->entry;
	char folder[TAR_PATH_MAX + 1];
	const char *slash = strrchr(e->target, '/');
	size_t len = slash != NULL ? (size_t)(slash - e->target) : 0;

	memcpy(folder, e->target, len);
	folder[len] = '\0';
	int dir = open_beneath(u->root, len > 0 ? folder : ".");
	if (dir < 0)
		return fail(u, "find what it is a link to", err);
	if (unlinkat(u->parent, name, 0) != 0 && errno != ENOENT) {
		(void)close(dir);
		return fail(u, "replace what was there", err);
	}
	int rc = linkat(dir, slash != NULL ? slash + 1 : e->target, u->parent, name, 0);
	int error = errno;
	(void)close(dir);
	errno = error;
	return rc == 0 ? 0 : fail(u, "make the link", err);
}

static int (*const makers[])(struct unpacking *, const char *, struct err *) = {
	[TAR_FILE] = make_file,
	[TAR_FOLDER] = make_folder,
	[TAR_SYMLINK] = make_symlink,
	[TAR_HARD_LINK] = make_hard_link,
};

static int on_entry(struct unpacking *u, struct err *err)
{
	const char *name;

	/* The decoder's is good until its next call; a file is not done by then. */
	u->entry = u->tar.entry;
	memcpy(u->path, u->entry.path, strlen(u->entry.path) + 1);
	u->entry.path = u->path;
	leave_folders(u, u->path);
	int rc = enter_parent(u, u->path, &name, err);
	return rc == 0 ? makers[u->entry.kind](u, name, err) : rc;
}

/* A disk of larger blocks. False: it was not that. */
static bool go_indirect(int fd)
{
	return (fcntl(fd, F_GETFL) & O_DIRECT) != 0 && fcntl(fd, F_SETFL, 0) == 0;
}

static int write_all(const struct unpacking *u, struct str bytes, struct err *err)
{
	while (bytes.len > 0) {
		ssize_t done = write(u->file, bytes.data, bytes.len);
		if (done < 0 && (errno == EINTR || (errno == EINVAL && go_indirect(u->file))))
			continue;
		if (done < 0)
			return fail(u, "write the file", err);
		bytes.data += done;
		bytes.len -= (size_t)done;
	}
	return 0;
}

/* The rest of the file goes the ordinary way. */
static int leave_direct(struct unpacking *u, struct err *err)
{
	u->direct = false;
	if (fcntl(u->file, F_SETFL, 0) != 0)
		return fail(u, "write the file", err);
	return write_all(u, (struct str){u->block, u->block_len}, err);
}

/* A block that the last bytes began is filled up first; those that begin one now are kept for the next. */
static int write_blocks(struct unpacking *u, struct str bytes, struct err *err)
{
	size_t first = u->block_len > 0 ? BLOCK - u->block_len : 0;
	int rc = 0;

	if (first > bytes.len)
		first = bytes.len;
	memcpy(u->block + u->block_len, bytes.data, first);
	u->block_len += first;
	if (u->block_len == BLOCK) {
		u->block_len = 0;
		rc = write_all(u, (struct str){u->block, BLOCK}, err);
	}
	size_t rest = (bytes.len - first) % BLOCK;
	if (rc == 0)
		rc = write_all(u, (struct str){bytes.data + first, bytes.len - first - rest}, err);
	memcpy(u->block + u->block_len, bytes.data + bytes.len - rest, rest);
	u->block_len += rest;
	return rc;
}

static int on_bytes(struct unpacking *u, struct str bytes, struct err *err)
{
	assert(u->file >= 0);
	if (u->direct && (uintptr_t)bytes.data % TAR_BLOCK != 0) {
		int rc = leave_direct(u, err);
		if (rc < 0)
			return rc;
	}
	return u->direct ? write_blocks(u, bytes, err) : write_all(u, bytes, err);
}

static int on_file_done(struct unpacking *u, struct err *err)
{
	const struct tar_entry *e = &u->entry;
	const struct timespec times[2] = {timespec_of(e->mtime_ns), timespec_of(e->mtime_ns)};

	int rc = u->direct ? leave_direct(u, err) : 0;
	if (rc < 0)
		return rc;
	bool good = fchmod(u->file, e->mode) == 0 && futimens(u->file, times) == 0;
	good = close(u->file) == 0 && good;
	u->file = -1;
	return good ? 0 : fail(u, "set mode and time", err);
}

/* --- the stream --- */

/* TAR_END when the archive has ended; the rest of the input is nobody's. */
static int take(struct unpacking *u, struct str input, struct err *err)
{
	struct str bytes;

	for (;;) {
		int rc = tar_decode(&u->tar, &input, &bytes, err);
		if (rc <= 0 || rc == TAR_END)
			return rc;
		if (rc == TAR_ENTRY)
			rc = on_entry(u, err);
		else if (rc == TAR_BYTES)
			rc = on_bytes(u, bytes, err);
		else
			rc = on_file_done(u, err);
		if (rc < 0)
			return rc;
	}
}

static int take_all(struct unpacking *u, unpack_source next, void *ctx, struct err *err)
{
	struct str bytes;
	int rc = 0;

	for (;;) {
		int got = next(ctx, &bytes, err);
		if (got < 0)
			return got;
		if (bytes.len == 0)
			return rc == TAR_END ? 0 : tar_decode_end(&u->tar, err);
		if (rc != TAR_END)
			rc = take(u, bytes, err);
		if (rc < 0)
			return rc;
	}
}

static int make_target(const char *folder, struct err *err)
{
	char part[PATH_MAX];

	if (folder[0] != '/' || strlen(folder) >= sizeof(part))
		return err_set(err, ERR_INVALID, "'%s' is no absolute path of a folder", folder);
	memcpy(part, folder, strlen(folder) + 1);
	for (char *p = part + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(part, FOLDER_MODE) != 0 && errno != EEXIST)
			return err_sys(err, "make the folder %s", part);
		*p = '/';
	}
	if (mkdir(part, FOLDER_MODE) != 0 && errno != EEXIST)
		return err_sys(err, "make the folder %s", part);
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : err_sys(err, "open the folder %s", folder);
}

int unpack_stream(unpack_source next, void *ctx, const char *folder, struct err *err)
{
	static struct unpacking unpacking; /* big; a process unpacks one thing at a time */
	struct unpacking *u = &unpacking;

	*u = (struct unpacking){.parent = -1, .file = -1};
	u->block = aligned_alloc(BLOCK, BLOCK);
	if (u->block == NULL)
		return err_sys(err, "take memory for a block");
	u->root = make_target(folder, err);
	if (u->root < 0) {
		free(u->block);
		return u->root;
	}
	int rc = take_all(u, next, ctx, err);
	leave_folders(u, "");
	if (u->parent >= 0)
		(void)close(u->parent);
	if (u->file >= 0)
		(void)close(u->file);
	(void)close(u->root);
	tar_decoder_fini(&u->tar);
	free(u->block);
	return rc;
}
