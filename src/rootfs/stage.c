#include "rootfs/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "rootfs/tool.h"

enum { PATH_LEN_MAX = 3000, PERMISSIONS = 07777 };

int stage_init(struct stage *s, const char *path, struct err *err)
{
	*s = (struct stage){.root_fd = -1, .path = xstrdup(path), .root_mode = 0755, .arena = arena_new()};
	if (mkdir(path, 0755) != 0)
		return err_sys(err, "make the folder %s", path);
	return dir_open(path, &s->root_fd, err);
}

void stage_fini(struct stage *s)
{
	free(s->path);
	free(s->owners);
	arena_free(s->arena);
	xattrs_left_out_fini(&s->left_out);
	if (s->path != NULL)
		fd_close(&s->root_fd);
	*s = (struct stage){.root_fd = -1};
}

/* --- paths --- */

int stage_check_path(const char *path, struct err *err)
{
	struct str rest = str_c(path);

	if (rest.len == 0 || rest.len > PATH_LEN_MAX)
		return err_set(err, ERR_INVALID, "an entry's name is empty or over %d bytes", PATH_LEN_MAX);
	for (size_t i = 0; i < rest.len; i++)
		if ((unsigned char)path[i] < ' ' || path[i] == 0x7f)
			return err_set(err, ERR_INVALID, "entry %zu bytes long has a control character in its name",
				       rest.len);
	if (path[0] == '/')
		return err_set(err, ERR_INVALID, "entry '%.200s' is absolute", path);
	while (rest.data != NULL)
		if (str_eq(str_cut(&rest, '/'), STR("..")))
			return err_set(err, ERR_INVALID, "entry '%.200s' has '..' in its path", path);
	return 0;
}

/* Without "./", doubled slashes and one at the end; "" is the root. The caller frees. */
static char *normal_path(const char *path)
{
	struct str rest = str_c(path);
	struct buf out = {0};

	while (rest.data != NULL) {
		struct str part = str_cut(&rest, '/');
		if (part.len == 0 || str_eq(part, STR(".")))
			continue;
		if (out.len > 0)
			buf_putc(&out, '/');
		buf_append_str(&out, part);
	}
	return buf_take(&out);
}

/* As if root_fd were the root: links resolve within, ".." stops there. */
static int open_within(int root_fd, const char *path, int flags)
{
	return file_open_within(root_fd, path[0] != '\0' ? path : ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* Every missing folder of the path, mode 0755. */
static int open_folder(struct stage *s, const char *path, int *ret_fd, struct err *err)
{
	int fd = open_within(s->root_fd, path, O_RDONLY | O_DIRECTORY);

	if (fd < 0 && errno == ENOENT && path[0] != '\0') {
		int none = -1;
		int rc = stage_put(s, &(struct stage_entry){.path = path, .mode = S_IFDIR | 0755}, &none, err);
		if (rc < 0)
			return rc;
		fd = open_within(s->root_fd, path, O_RDONLY | O_DIRECTORY);
	}
	if (fd < 0)
		return err_sys(err, "entry '%.200s'", path);
	*ret_fd = fd;
	return 0;
}

/* --- owners --- */

static void remember(struct stage *s, const struct stat *st, const struct stage_entry *e)
{
	if (s->owner_count == s->owner_room) {
		s->owner_room = s->owner_room > 0 ? 2 * s->owner_room : 1024;
		s->owners = xreallocarray(s->owners, s->owner_room, sizeof(*s->owners));
	}
	s->owners[s->owner_count] = (struct stage_owner){
		.inode = st->st_ino,
		.mode = e->mode & PERMISSIONS,
		.uid = e->uid,
		.gid = e->gid,
		.xattrs = e->xattrs,
		.order = s->owner_count,
	};
	s->owner_count++;
	s->sorted = false;
}

static int compare_owners(const void *a, const void *b)
{
	const struct stage_owner *x = a, *y = b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

/* The last of its inode; NULL for what another program laid there. */
static struct stage_owner *find_owner(struct stage *s, ino_t inode)
{
	size_t low = 0, high = s->owner_count;

	if (!s->sorted && s->owner_count > 0)
		qsort(s->owners, s->owner_count, sizeof(*s->owners), compare_owners);
	s->sorted = true;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (s->owners[middle].inode <= inode)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && s->owners[low - 1].inode == inode ? &s->owners[low - 1] : NULL;
}

/* --- entries --- */

/* A folder may stay, and so may a link to one; all else makes room, except a folder that is not empty. */
static int make_room(int parent_fd, const char *leaf, const struct stage_entry *e, struct err *err)
{
	struct stat st;

	if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : err_sys(err, "entry '%.200s'", e->path);
	if (unlinkat(parent_fd, leaf, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) == 0)
		return 0;
	if (S_ISDIR(st.st_mode) && (errno == ENOTEMPTY || errno == EEXIST))
		return err_set(err, ERR_INVALID, "entry '%.200s' would replace a folder that is not empty", e->path);
	return err_sys(err, "entry '%.200s'", e->path);
}

static int put_folder(struct stage *s, const char *path, int parent_fd, const char *leaf, const struct stage_entry *e,
		      struct err *err)
{
	struct stat st;
	autoclose there = open_within(s->root_fd, path, O_RDONLY | O_DIRECTORY);

	if (there < 0) {
		int rc = make_room(parent_fd, leaf, e, err);
		if (rc < 0)
			return rc;
		if (mkdirat(parent_fd, leaf, 0755) != 0)
			return err_sys(err, "make folder '%.200s'", e->path);
		there = openat(parent_fd, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (there < 0 || fstat(there, &st) != 0)
		return err_sys(err, "make folder '%.200s'", e->path);
	remember(s, &st, e);
	return 0;
}

static int put_file(struct stage *s, int parent_fd, const char *leaf, const struct stage_entry *e, int *ret_fd,
		    struct err *err)
{
	struct stat st;

	int rc = make_room(parent_fd, leaf, e, err);
	if (rc < 0)
		return rc;
	autoclose fd = openat(parent_fd, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "make file '%.200s'", e->path);
	remember(s, &st, e);
	*ret_fd = fd_take(&fd);
	return 0;
}

static int put_symlink(struct stage *s, int parent_fd, const char *leaf, const struct stage_entry *e, struct err *err)
{
	struct stat st;

	int rc = make_room(parent_fd, leaf, e, err);
	if (rc < 0)
		return rc;
	if (symlinkat(e->target, parent_fd, leaf) != 0 || fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return err_sys(err, "make link '%.200s'", e->path);
	remember(s, &st, &(struct stage_entry){.mode = 0777, .uid = e->uid, .gid = e->gid});
	return 0;
}

/* Another name of a file that is in the tree already. */
static int put_hard_link(struct stage *s, int parent_fd, const char *leaf, const struct stage_entry *e, struct err *err)
{
	autofree char *target = NULL;
	char path[64];

	int rc = stage_check_path(e->target, err);
	if (rc < 0)
		return err_wrap(err, "the target of hard link '%.100s'", e->path);
	target = normal_path(e->target);
	autoclose fd = open_within(s->root_fd, target, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return err_sys(err, "hard link '%.200s' to '%.200s'", e->path, target);
	rc = make_room(parent_fd, leaf, e, err);
	if (rc < 0)
		return rc;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, parent_fd, leaf, AT_SYMLINK_FOLLOW) != 0)
		return err_sys(err, "hard link '%.200s' to '%.200s'", e->path, target);
	return 0;
}

static int put_leaf(struct stage *s, const char *path, int parent_fd, const char *leaf, const struct stage_entry *e,
		    int *ret_fd, struct err *err)
{
	if (e->hard_link)
		return put_hard_link(s, parent_fd, leaf, e, err);
	if (S_ISDIR(e->mode))
		return put_folder(s, path, parent_fd, leaf, e, err);
	if (S_ISREG(e->mode))
		return put_file(s, parent_fd, leaf, e, ret_fd, err);
	if (S_ISLNK(e->mode))
		return put_symlink(s, parent_fd, leaf, e, err);
	return err_set(err, ERR_INVALID,
		       "entry '%.200s' is a device, FIFO or socket: an image has folders, files and links", e->path);
}

int stage_put(struct stage *s, const struct stage_entry *e, int *ret_fd, struct err *err)
{
	autofree char *path = NULL;
	autoclose parent_fd = -1;
	autoclose file_fd = -1;

	*ret_fd = -1;
	int rc = stage_check_path(e->path, err);
	if (rc < 0)
		return rc;
	path = normal_path(e->path);
	if (path[0] == '\0') { /* the root itself */
		s->root_mode = e->mode & PERMISSIONS;
		s->root_uid = e->uid;
		s->root_gid = e->gid;
		return S_ISDIR(e->mode) ? 0 : err_set(err, ERR_INVALID, "the root is no folder");
	}
	const char *slash = strrchr(path, '/');
	autofree char *parent = xmemdup0(path, slash != NULL ? (size_t)(slash - path) : 0);
	rc = open_folder(s, parent, &parent_fd, err);
	if (rc == 0)
		rc = put_leaf(s, path, parent_fd, slash != NULL ? slash + 1 : path, e, &file_fd, err);
	if (rc == 0)
		*ret_fd = fd_take(&file_fd);
	return rc;
}

void stage_own(struct stage *s, const struct stage_entry *e)
{
	struct stat st;

	if (stage_check_path(e->path, NULL) < 0)
		return;
	autofree char *path = normal_path(e->path);
	if (path[0] == '\0') {
		s->root_mode = e->mode & PERMISSIONS;
		s->root_uid = e->uid;
		s->root_gid = e->gid;
		return;
	}
	autoclose fd = open_within(s->root_fd, path, O_PATH | O_NOFOLLOW);
	if (fd >= 0 && fstat(fd, &st) == 0)
		remember(s, &st, e);
}

/* --- what there is in the end --- */

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* What is not remembered keeps its mode, and its owner where this process may give files away; what belongs to the
 * user of confined programs belongs to nobody. */
static struct stage_owner owner_of(struct stage *s, const struct stat *st)
{
	const struct stage_owner *known = find_owner(s, st->st_ino);
	bool keeps = geteuid() == 0 && st->st_uid != TOOL_UID;

	if (known != NULL)
		return *known;
	return (struct stage_owner){
		.mode = st->st_mode & PERMISSIONS,
		.uid = keeps ? st->st_uid : 0,
		.gid = keeps ? st->st_gid : 0,
	};
}

static void tree_close(FTS **tree)
{
	if (*tree != NULL)
		(void)fts_close(*tree);
}

static int visit_one(struct stage *s, const FTSENT *entry,
		     int (*visit)(void *ctx, const struct stage_item *item, struct err *err), void *ctx,
		     struct err *err)
{
	const struct stat *st = entry->fts_statp;
	const char *path = entry->fts_path + strlen(s->path) + 1;

	if (!S_ISDIR(st->st_mode) && !S_ISREG(st->st_mode) && !S_ISLNK(st->st_mode))
		return 0;
	int rc = stage_check_path(path, err);
	return rc < 0 ? rc : visit(ctx, &(struct stage_item){path, st, owner_of(s, st)}, err);
}

int stage_each(struct stage *s, int (*visit)(void *ctx, const struct stage_item *item, struct err *err), void *ctx,
	       struct err *err)
{
	char *const roots[] = {s->path, NULL};
	__attribute__((cleanup(tree_close))) FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);

	if (tree == NULL)
		return err_sys(err, "read %s", s->path);
	for (;;) {
		errno = 0;
		const FTSENT *entry = fts_read(tree);
		if (entry == NULL)
			return errno == 0 ? 0 : err_sys(err, "read %s", s->path);
		if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
			return err_set(err, ERR_IO, "read %s: %s", entry->fts_path, strerror(entry->fts_errno));
		if (entry->fts_info == FTS_DP || entry->fts_level == 0)
			continue;
		int rc = visit_one(s, entry, visit, ctx, err);
		if (rc != 0)
			return rc;
	}
}

int stage_open(const struct stage *s, const char *path, int *ret_fd, struct err *err)
{
	int fd = open_within(s->root_fd, path, O_RDONLY | O_NOFOLLOW);

	/* Its mode is remembered, so what lies on the disk need not be the same. */
	if (fd < 0 && errno == EACCES && fchmodat(s->root_fd, path, S_IRUSR | S_IXUSR, 0) == 0)
		fd = open_within(s->root_fd, path, O_RDONLY | O_NOFOLLOW);
	if (fd < 0)
		return err_sys(err, "read '%.200s'", path);
	*ret_fd = fd;
	return 0;
}

/* --- extended attributes --- */

struct xattrs_reader stage_xattrs_reader(struct stage *s, const char *path, mode_t mode)
{
	return (struct xattrs_reader){
		.path = path, .mode = mode, .arena = s->arena, .left_out = &s->left_out, .used = &s->xattr_bytes};
}

static void set_xattrs(struct stage *s, const struct stat *st, const struct xattrs *x)
{
	struct stage_owner *known = find_owner(s, st->st_ino);

	if (known != NULL) {
		known->xattrs = *x;
		return;
	}
	struct stage_owner o = owner_of(s, st);
	remember(s, st, &(struct stage_entry){.mode = o.mode, .uid = o.uid, .gid = o.gid, .xattrs = *x});
}

void stage_set_xattrs(struct stage *s, const char *path, const struct xattrs *x)
{
	struct stat st;

	if (x->count == 0 || stage_check_path(path, NULL) < 0)
		return;
	autoclose fd = open_within(s->root_fd, path, O_PATH | O_NOFOLLOW);
	if (fd >= 0 && fstat(fd, &st) == 0)
		set_xattrs(s, &st, x);
}

static int read_xattrs(void *ctx, const struct stage_item *item, struct err *err)
{
	struct stage *s = ctx;
	struct xattrs_reader reader = stage_xattrs_reader(s, item->path, item->st->st_mode);
	autoclose fd = -1;

	if (S_ISLNK(item->st->st_mode)) /* has none that are kept */
		return 0;
	int rc = stage_open(s, item->path, &fd, err);
	if (rc == 0)
		rc = xattrs_read_fd(&reader, fd, err);
	struct xattrs x = xattrs_finish(&reader);
	if (rc == 0 && x.count > 0)
		set_xattrs(s, item->st, &x);
	return rc;
}

int stage_read_xattrs(struct stage *s, struct err *err)
{
	return stage_each(s, read_xattrs, s, err);
}
