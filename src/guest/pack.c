#include "guest/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "proto/tar.h"

enum { DEPTH_MAX = 250, PAGE = 4096, DIRECT_LEAST = 128 * 1024 };

struct packing {
	pack_sink put;
	void *ctx;
	char *piece; /* PACK_PIECE bytes */
	size_t filled;
	struct buf head;
	dev_t device;		     /* what is on another is left out */
	char path[TAR_PATH_MAX + 1]; /* of the entry, as the archive calls it */
	size_t len;
};

static int flush(struct packing *p, struct err *err)
{
	size_t len = p->filled;

	p->filled = 0;
	return len > 0 ? p->put(p->ctx, (struct str){p->piece, len}, err) : 0;
}

/* So many bytes of the piece are there. */
static int advance(struct packing *p, size_t len, struct err *err)
{
	p->filled += len;
	return p->filled == PACK_PIECE ? flush(p, err) : 0;
}

static int put_bytes(struct packing *p, struct str bytes, struct err *err)
{
	int rc = 0;

	while (bytes.len > 0 && rc == 0) {
		size_t room = PACK_PIECE - p->filled;
		size_t len = bytes.len < room ? bytes.len : room;
		memcpy(p->piece + p->filled, bytes.data, len);
		bytes.data += len;
		bytes.len -= len;
		rc = advance(p, len, err);
	}
	return rc;
}

/* --- entries --- */

static int put_header(struct packing *p, enum tar_kind kind, const struct stat *st, const char *target, struct err *err)
{
	struct tar_entry entry = {.kind = kind,
				  .path = p->path,
				  .target = target,
				  .mode = st->st_mode & 07777,
				  .mtime_ns = tar_time_ns(&st->st_mtim),
				  .size = kind == TAR_FILE ? (uint64_t)st->st_size : 0};

	buf_clear(&p->head);
	int rc = tar_entry_encode(&entry, &p->head, err);
	return rc == 0 ? put_bytes(p, buf_str(&p->head), err) : rc;
}

static int put_zeros(struct packing *p, uint64_t count, struct err *err)
{
	int rc = 0;

	while (count > 0 && rc == 0) {
		size_t room = PACK_PIECE - p->filled;
		size_t len = count < room ? (size_t)count : room;
		memset(p->piece + p->filled, 0, len);
		count -= len;
		rc = advance(p, len, err);
	}
	return rc;
}

static size_t whole_blocks(uint64_t len)
{
	return (size_t)((len + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK);
}

/* A file whose end moved, or a disk of larger blocks. False: it was not that. */
static bool go_indirect(int fd)
{
	return (fcntl(fd, F_GETFL) & O_DIRECT) != 0 && fcntl(fd, F_SETFL, 0) == 0;
}

/* As many bytes as the header says. The piece stands on a block's border, and what is read around the page cache is
 * asked for in whole blocks. */
static int put_content(struct packing *p, int fd, uint64_t size, struct err *err)
{
	uint64_t left = size;
	int rc = 0;

	while (left > 0 && rc == 0) {
		size_t room = PACK_PIECE - p->filled;
		ssize_t got = read(fd, p->piece + p->filled, left < room ? whole_blocks(left) : room);
		if (got < 0 && (errno == EINTR || (errno == EINVAL && go_indirect(fd))))
			continue;
		if (got < 0)
			return err_sys(err, "read '%s'", p->path);
		if (got == 0)
			break;
		size_t len = (uint64_t)got < left ? (size_t)got : (size_t)left;
		left -= len;
		rc = advance(p, len, err);
	}
	return rc == 0 ? put_zeros(p, left + tar_padding(size), err) : rc;
}

static int put_file(struct packing *p, int dir, const char *name, struct err *err)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) != 0) {
		if (fd >= 0)
			(void)close(fd);
		return err_sys(err, "open '%s'", p->path);
	}
	int rc = S_ISREG(st.st_mode) ? put_header(p, TAR_FILE, &st, "", err) : 0;
	/* Where the file system can. */
	if (st.st_size >= DIRECT_LEAST)
		(void)fcntl(fd, F_SETFL, O_DIRECT);
	if (rc == 0 && S_ISREG(st.st_mode))
		rc = put_content(p, fd, (uint64_t)st.st_size, err);
	(void)close(fd);
	return rc;
}

static int put_symlink(struct packing *p, int dir, const char *name, const struct stat *st, struct err *err)
{
	char target[TAR_PATH_MAX + 1];
	ssize_t len = readlinkat(dir, name, target, sizeof(target) - 1);

	if (len < 0)
		return 0; /* gone meanwhile */
	target[len] = '\0';
	return put_header(p, TAR_SYMLINK, st, target, err);
}

/* --- folders --- */

static int put_entry(struct packing *p, int dir, const char *name, int depth, struct err *err);

static int push_name(struct packing *p, const char *name, struct err *err)
{
	size_t len = strlen(name);

	if (p->len + 1 + len > TAR_PATH_MAX)
		return err_set(err, ERR_TOO_LARGE, "a path in '%.200s' is longer than %d bytes", p->path, TAR_PATH_MAX);
	p->path[p->len] = '/';
	memcpy(p->path + p->len + 1, name, len + 1);
	p->len += 1 + len;
	return 0;
}

static int put_children(struct packing *p, DIR *folder, int depth, struct err *err)
{
	const struct dirent *entry;
	int rc = 0;

	while (rc == 0 && (entry = readdir(folder)) != NULL) {
		size_t before = p->len;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		rc = push_name(p, entry->d_name, err);
		if (rc == 0)
			rc = put_entry(p, dirfd(folder), entry->d_name, depth + 1, err);
		p->len = before;
		p->path[before] = '\0';
	}
	return rc;
}

static int put_folder(struct packing *p, int dir, const char *name, int depth, struct err *err)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (depth > DEPTH_MAX) {
		(void)close(fd);
		return err_set(err, ERR_TOO_LARGE, "'%.200s' lies more than %d folders deep", p->path, DEPTH_MAX);
	}
	DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
	if (folder == NULL || fstat(fd, &st) != 0)
		return err_sys(err, "open '%s'", p->path);
	int rc = put_header(p, TAR_FOLDER, &st, "", err);
	if (rc == 0 && st.st_dev == p->device)
		rc = put_children(p, folder, depth, err);
	(void)closedir(folder);
	return rc;
}

static int put_entry(struct packing *p, int dir, const char *name, int depth, struct err *err)
{
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT && depth > 0 ? 0 : err_sys(err, "find '%s'", p->path);
	if (depth == 0)
		p->device = st.st_dev;
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		return put_file(p, dir, name, err);
	case S_IFDIR:
		return put_folder(p, dir, name, depth, err);
	case S_IFLNK:
		return put_symlink(p, dir, name, &st, err);
	default:
		return 0;
	}
}

/* --- paths --- */

/* "/a/b/": "/a/b". */
static size_t trimmed(const char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	return len;
}

static int put_path(struct packing *p, const char *given, struct err *err)
{
	char path[PATH_MAX];
	size_t len = trimmed(given);
	struct stat there;

	if (len >= sizeof(path))
		return err_set(err, ERR_TOO_LARGE, "the path '%.100s...' is too long", given);
	memcpy(path, given, len);
	path[len] = '\0';
	char *slash = strrchr(path, '/');
	const char *name = slash[1] != '\0' ? slash + 1 : ".";
	if (strcmp(name, "..") == 0)
		return err_set(err, ERR_INVALID, "'%s' names no file", given);
	*slash = '\0';
	int dir = open(path[0] != '\0' ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) != 0) {
		int rc = errno == ENOENT || errno == ENOTDIR ? err_set(err, ERR_NOT_FOUND, "there is no '%s'", given)
							     : err_sys(err, "open '%s'", given);
		if (dir >= 0)
			(void)close(dir);
		return rc;
	}
	p->len = strlen(name);
	memcpy(p->path, name, p->len + 1);
	int rc = put_entry(p, dir, name, 0, err);
	(void)close(dir);
	return rc;
}

int pack_stream(const struct guest_pack *pack, pack_sink put, void *ctx, struct err *err)
{
	static struct packing packing; /* a process packs one thing at a time */
	struct packing *p = &packing;
	int rc = 0;

	*p = (struct packing){.put = put, .ctx = ctx, .piece = aligned_alloc(PAGE, PACK_PIECE)};
	if (p->piece == NULL)
		return err_sys(err, "take memory for an archive");
	for (size_t i = 0; i < pack->count && rc == 0; i++)
		rc = put_path(p, pack->paths[i], err);
	if (rc == 0) {
		buf_clear(&p->head);
		tar_end_encode(&p->head);
		rc = put_bytes(p, buf_str(&p->head), err);
	}
	if (rc == 0)
		rc = flush(p, err);
	buf_fini(&p->head);
	free(p->piece);
	return rc;
}
