#include "rootfs/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

enum { NAME_BYTES = 8 };

void place_fini(struct place *p)
{
	if (p->path == NULL)
		return;
	if (p->beside)
		(void)rmdir(p->path);
	free(p->path);
	fd_close(&p->fd);
	*p = (struct place){.fd = -1};
}

static bool others_write(const struct stat *st)
{
	return (st->st_mode & S_IWOTH) != 0 || ((st->st_mode & S_IWGRP) != 0 && st->st_gid != 0);
}

static bool is_roots(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == 0 && !others_write(&st);
}

/* What root has in a folder with the sticky bit stays in its place too. */
static bool keeps_what_is_roots(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == 0 && (!others_write(&st) || (st.st_mode & S_ISVTX) != 0);
}

/* As far along the path as only root decides what is there. `path` has no links; gives how much of it that is. */
static size_t descend(const char *path, int *ret_fd)
{
	autoclose fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct str rest = str_c(path + 1);
	size_t len = 0;

	while (rest.data != NULL && rest.len > 0) {
		struct str name = str_cut(&rest, '/');
		autofree char *folder = xmemdup0(name.data, name.len);
		autoclose next = openat(fd, folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 || !keeps_what_is_roots(next))
			break;
		fd_close(&fd);
		fd = fd_take(&next);
		len = (size_t)(name.data - path) + name.len;
	}
	*ret_fd = fd_take(&fd);
	return len;
}

/* Its own for each store, whose lock holds for it too. */
static int open_beside(int parent_fd, const char *parent, const char *store_path, struct place *ret, struct err *err)
{
	struct sha256 sum = crypto_sha256(str_c(store_path));
	autovar(buf) hex = {0};
	struct place p = {.fd = -1, .beside = true};

	encode_hex((struct str){(const char *)sum.bytes, NAME_BYTES}, &hex);
	autofree char *name = xasprintf(".rootfs-%s", hex.data);
	if (mkdirat(parent_fd, name, 0700) != 0 && errno != EEXIST)
		return err_sys(err,
			       "others may write in %s, so that root builds beside it; make the folder %s/%s for that",
			       store_path, parent, name);
	p.fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (p.fd < 0 || !is_roots(p.fd)) {
		fd_close(&p.fd);
		return err_set(err, ERR_INVALID,
			       "%s/%s, where root is to build, is not a folder of root's alone: remove it", parent,
			       name);
	}
	p.path = xasprintf("%s/%s", parent, name);
	*ret = p;
	return 0;
}

static int open_store(int store_fd, const char *dir, struct place *ret, struct err *err)
{
	int fd = fcntl(store_fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(err, "open %s", dir);
	*ret = (struct place){.path = xstrdup(dir), .fd = fd};
	return 0;
}

/* Not so in a user namespace of somebody else's making, where no file is ours to protect. */
static bool is_root(void)
{
	struct stat st;

	return geteuid() == 0 && stat("/", &st) == 0 && st.st_uid == 0 && !others_write(&st);
}

int place_open(int store_fd, const char *store_dir, struct place *ret, struct err *err)
{
	autofree char *self = xasprintf("/proc/self/fd/%d", store_fd);
	char path[PATH_MAX];
	autoclose parent = -1;

	if (!is_root())
		return open_store(store_fd, store_dir, ret, err);
	ssize_t got = readlink(self, path, sizeof(path) - 1);
	if (got <= 0 || path[0] != '/')
		return err_sys(err, "find %s", store_dir);
	path[got] = '\0';
	size_t len = descend(path, &parent);
	if (len == (size_t)got && is_roots(parent))
		return open_store(store_fd, path, ret, err);
	autofree char *deepest = xmemdup0(path, len);
	return open_beside(parent, deepest, path, ret, err);
}
