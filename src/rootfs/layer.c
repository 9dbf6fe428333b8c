#include "rootfs/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "rootfs/archive.h"
#include "rootfs/debugfs.h"
#include "rootfs/ext4_names.h"
#include "rootfs/ext4_xattrs.h"
#include "rootfs/owners.h"
#include "rootfs/tool.h"

enum { SQUASHFS_XATTRS_AT = 56, EXT4_MAGIC_AT = 1080, HEAD_SIZE = EXT4_MAGIC_AT + 2, LINK_MAX_SIZE = 4096 };
enum { UNSQUASHFS_NOT_ALL = 2 }; /* it went on to the end, and says what it could not make */

/* To attach attributes of all kinds to files, and to go on where those are somebody else's already. */
static const uint64_t attribute_capabilities = 1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_FOWNER |
					       1 << CAP_FSETID | 1 << CAP_SYS_ADMIN | UINT64_C(1) << CAP_SETFCAP;
static const int64_t tool_timeout_ns = 3600 * NS_PER_S;

static void put_digest(const struct sha256 *sum, char to[static 65])
{
	autovar(buf) hex = {0};

	encode_hex((struct str){(const char *)sum->bytes, SHA256_SIZE}, &hex);
	memcpy(to, hex.data, 65);
}

/* --- folders --- */

/* What is hashed of an entry: its kind and mode, its name, its length, then its bytes. */
static void hash_head(struct crypto_hash *hash, const char *path, mode_t mode, int64_t size)
{
	autofree char *head = xasprintf("%o %lld %s", (unsigned)mode, (long long)size, path);

	crypto_hash_update(hash, (struct str){head, strlen(head) + 1});
}

static int read_xattrs(struct stage *s, const char *path, mode_t mode, int fd, struct xattrs *ret, struct err *err)
{
	struct xattrs_reader reader = stage_xattrs_reader(s, path, mode);
	int rc = xattrs_read_fd(&reader, fd, err);

	*ret = xattrs_finish(&reader);
	return rc;
}

static int copy_file(struct stage *s, const FTSENT *entry, const char *path, struct crypto_hash *hash, struct layer *l,
		     struct err *err)
{
	autovar(buf) digest = {0};
	autoclose to = -1;
	int64_t size = 0;
	autoclose from = open(entry->fts_accpath, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (from < 0)
		return err_sys(err, "open '%s'", entry->fts_path);
	struct stage_entry e = {.path = path, .mode = entry->fts_statp->st_mode};
	int rc = read_xattrs(s, path, e.mode, from, &e.xattrs, err);
	if (rc == 0)
		rc = stage_put(s, &e, &to, err);
	if (rc == 0)
		rc = file_copy_fd(from, to, &digest, &size, err);
	if (rc < 0)
		return rc;
	hash_head(hash, path, e.mode, size);
	crypto_hash_update(hash, buf_str(&digest));
	xattrs_hash(&e.xattrs, hash);
	l->size += size;
	return 0;
}

static int copy_link(struct stage *s, const FTSENT *entry, const char *path, struct crypto_hash *hash, struct err *err)
{
	char target[LINK_MAX_SIZE];
	int none = -1;
	ssize_t len = readlink(entry->fts_accpath, target, sizeof(target) - 1);

	if (len < 0)
		return err_sys(err, "read link '%s'", entry->fts_path);
	target[len] = '\0';
	hash_head(hash, path, S_IFLNK | 0777, len);
	crypto_hash_update(hash, (struct str){target, (size_t)len});
	return stage_put(s, &(struct stage_entry){.path = path, .mode = S_IFLNK | 0777, .target = target}, &none, err);
}

/* Also of what is no folder, which the stage refuses by name. */
static int copy_folder(struct stage *s, const FTSENT *entry, const char *path, struct crypto_hash *hash,
		       struct err *err)
{
	struct stage_entry e = {.path = path, .mode = entry->fts_statp->st_mode};
	int none = -1;
	int rc = 0;

	if (S_ISDIR(e.mode)) {
		autoclose from = open(entry->fts_accpath, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (from < 0)
			return err_sys(err, "open '%s'", entry->fts_path);
		rc = read_xattrs(s, path, e.mode, from, &e.xattrs, err);
	}
	if (rc < 0)
		return rc;
	hash_head(hash, path, e.mode, 0);
	xattrs_hash(&e.xattrs, hash);
	return stage_put(s, &e, &none, err);
}

static int copy_entry(struct stage *s, const FTSENT *entry, size_t root_len, struct crypto_hash *hash, struct layer *l,
		      struct err *err)
{
	const char *path = entry->fts_level == 0 ? "." : entry->fts_path + root_len + 1;
	mode_t mode = entry->fts_statp->st_mode;

	if (S_ISREG(mode))
		return copy_file(s, entry, path, hash, l, err);
	if (S_ISLNK(mode))
		return copy_link(s, entry, path, hash, err);
	if (entry->fts_level > 0 || l->type == NULL)
		return copy_folder(s, entry, path, hash, err);
	return 0; /* the root of an overlay says nothing about the root of the image */
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void tree_close(FTS **tree)
{
	if (*tree != NULL)
		(void)fts_close(*tree);
}

/* Everything in it becomes root's. */
static int put_folder(struct stage *s, const char *path, bool is_base, struct layer *l, struct err *err)
{
	autofree char *plain = xstrdup(path);
	autoptr(crypto_hash) hash = crypto_hash_new();

	for (size_t len = strlen(plain); len > 1 && plain[len - 1] == '/'; len--)
		plain[len - 1] = '\0';
	char *const roots[] = {plain, NULL};
	__attribute__((cleanup(tree_close))) FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	l->type = is_base ? NULL : "folder";
	for (;;) {
		errno = 0;
		const FTSENT *entry = tree != NULL ? fts_read(tree) : NULL;
		if (entry == NULL && errno != 0)
			return err_sys(err, "read '%s'", path);
		if (entry == NULL)
			break;
		if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
			return err_set(err, ERR_IO, "read '%s': %s", entry->fts_path, strerror(entry->fts_errno));
		int rc = entry->fts_info != FTS_DP ? copy_entry(s, entry, strlen(plain), hash, l, err) : 0;
		if (rc < 0)
			return rc;
	}
	l->type = "folder";
	struct sha256 sum = crypto_hash_finish(hash);
	put_digest(&sum, l->sha256);
	return 0;
}

/* --- images and archives --- */

/* Not every file system makes files without a name (overlayfs of Linux before 6.1). */
static int make_nameless(const char *folder)
{
	autofree char *path = xasprintf("%s/copy", folder);
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)unlink(path);
	return fd;
}

/* The mode is what it says, whatever the umask; and who gets it can only read it. */
static int copy_input(const char *folder, int from, int *ret, struct err *err)
{
	autovar(buf) digest = {0};
	autoclose copy = make_nameless(folder);
	autofree char *self = xasprintf("/proc/self/fd/%d", copy);

	if (copy < 0)
		return err_sys(err, "copy the image");
	int rc = file_copy_fd(from, copy, &digest, NULL, err);
	if (rc < 0)
		return rc;
	if (fchmod(copy, 0444) != 0)
		return err_sys(err, "copy the image");
	*ret = open(self, O_RDONLY | O_CLOEXEC);
	return *ret >= 0 ? 0 : err_sys(err, "open the copy of the image");
}

/*
 * What reads an image is another user's program where it can be, and so the file must be one that anybody may read: it
 * is, or becomes, a nameless copy.
 */
static int open_input(const struct stage *s, int fd, int *ret, struct err *err)
{
	struct stat st;
	autofree char *beside = xasprintf("%s/..", s->path);

	if (fstat(fd, &st) != 0 || lseek(fd, 0, SEEK_SET) != 0)
		return err_sys(err, "read the image");
	if (tool_has_user() && (st.st_mode & S_IROTH) == 0)
		return copy_input(beside, fd, ret, err);
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return *ret >= 0 ? 0 : err_sys(err, "read the image");
}

/* The program that lays files out in it may be another user's. */
static int lend(const struct stage *s, struct err *err)
{
	if (tool_has_user() && fchown(s->root_fd, TOOL_UID, TOOL_UID) != 0)
		return err_sys(err, "give away %s", s->path);
	return 0;
}

static int read_ext4_xattrs(struct stage *s, int image, struct str listing, struct err *err)
{
	autovar(ext4_xattrs) x = {0};
	autovar(buf) names_asked = {0};
	autovar(buf) names = {0};
	autovar(buf) values_asked = {0};
	autovar(buf) values = {0};

	ext4_xattrs_ask_names(&x, listing, &names_asked);
	int rc = debugfs_ask(image, buf_str(&names_asked), &names, err);
	if (rc == 0)
		rc = ext4_xattrs_take_names(&x, s, buf_str(&names), &values_asked, err);
	if (rc == 0)
		rc = debugfs_ask(image, buf_str(&values_asked), &values, err);
	return rc == 0 ? ext4_xattrs_take_values(&x, s, buf_str(&values), err) : rc;
}

/* What the files that are laid out do not show: whose they are, how they may be used, what is attached to them. */
static int own_ext4(struct stage *s, int image, struct err *err)
{
	autovar(buf) commands = {0};
	autovar(buf) listing = {0};

	int rc = owners_ask_ext4(s, &commands, err);
	if (rc == 0)
		rc = debugfs_ask(image, buf_str(&commands), &listing, err);
	if (rc < 0)
		return rc;
	owners_take_ext4(s, buf_str(&listing));
	return read_ext4_xattrs(s, image, buf_str(&listing), err);
}

static int put_ext4(struct stage *s, int image, struct err *err)
{
	int rc = ext4_check_names(image, err);
	if (rc == 0)
		rc = lend(s, err);
	if (rc == 0)
		rc = debugfs_lay_out(image, s->path, err);
	if (rc == 0)
		(void)unlinkat(s->root_fd, "lost+found", AT_REMOVEDIR);
	return rc == 0 ? own_ext4(s, image, err) : rc;
}

/* Of the super block: where the table of attributes begins; all ones: there is none. */
static bool squashfs_has_xattrs(const unsigned char head[static HEAD_SIZE])
{
	for (size_t i = 0; i < 8; i++)
		if (head[SQUASHFS_XATTRS_AT + i] != 0xff)
			return true;
	return false;
}

/* It says nothing else with -quiet. Devices are left out of images anyway, so that it may not make any is fine. */
static int check_unsquashfs(struct str said, struct err *err)
{
	while (said.data != NULL) {
		struct str line = str_trim(str_cut(&said, '\n'));
		bool device = str_starts_with(line, STR("create_inode: ")) &&
			      (memmem(line.data, line.len, "create character device ", 24) != NULL ||
			       memmem(line.data, line.len, "create block device ", 20) != NULL);
		if (line.len > 0 && !device)
			return err_set(err, ERR_INVALID, "unsquashfs: %.*s", STR_ARG(line));
	}
	return 0;
}

static int unpack_squashfs(const struct stage *s, int image, bool xattrs, struct err *err)
{
	const char *const argv[] = {"unsquashfs",
				    "-quiet",
				    "-no-progress",
				    xattrs ? "-xattrs" : "-no-xattrs",
				    "-processors",
				    TOOL_THREADS_TEXT,
				    "-force",
				    "-dest",
				    ".",
				    TOOL_INPUT,
				    NULL};
	const struct tool_bounds bounds = {
		.input_fd = image, .folder = s->path, .capabilities = xattrs ? attribute_capabilities : 0};
	autovar(buf) said = {0};

	int rc = xattrs ? 0 : lend(s, err);
	if (rc == 0)
		rc = tool_run(
			&(struct tool_call){
				.argv = argv,
				.package = "squashfs-tools",
				.timeout_ns = tool_timeout_ns,
				.bounds = &bounds,
				.also_fine = UNSQUASHFS_NOT_ALL,
			},
			&said, err);
	if (rc == -ERR_FORBIDDEN)
		return err_wrap(err, "its extended attributes take root's rights to read, which nobody gets here "
				     "unconfined; build from a tar or ext4 image of the same");
	return rc == 0 ? check_unsquashfs(buf_str(&said), err) : rc;
}

static int own_squashfs(struct stage *s, int image, struct err *err)
{
	static const char *const argv[] = {"unsquashfs", "-lln", TOOL_INPUT, NULL};
	autovar(buf) listing = {0};

	int rc = tool_run(
		&(struct tool_call){
			.argv = argv,
			.package = "squashfs-tools",
			.timeout_ns = tool_timeout_ns,
			.bounds = &(struct tool_bounds){.input_fd = image},
		},
		&listing, err);
	if (rc == 0)
		owners_take_squashfs(s, buf_str(&listing));
	return rc;
}

/* No program tells what the attributes of a squashfs are: they are read off the files that it lays out. */
static int put_squashfs(struct stage *s, int image, bool xattrs, struct err *err)
{
	if (xattrs && geteuid() != 0)
		return err_set(
			err, ERR_FORBIDDEN,
			"this squashfs has extended attributes, which only root can read: build as root, or from "
			"a tar or ext4 image of the same");
	int rc = unpack_squashfs(s, image, xattrs, err);
	if (rc == 0)
		rc = own_squashfs(s, image, err);
	return rc == 0 && xattrs ? stage_read_xattrs(s, err) : rc;
}

static const char *kind_of(const unsigned char head[static HEAD_SIZE])
{
	if (memcmp(head, "hsqs", 4) == 0)
		return "squashfs";
	return head[EXT4_MAGIC_AT] == 0x53 && head[EXT4_MAGIC_AT + 1] == 0xef ? "ext4" : "tar";
}

static int put_file(struct stage *s, const char *path, int fd, bool is_base, struct layer *l, struct err *err)
{
	unsigned char head[HEAD_SIZE] = {0};
	autovar(buf) digest = {0};
	autoclose input = -1;

	if (pread(fd, head, sizeof(head), 0) < 0)
		return err_sys(err, "read '%s'", path);
	int rc = file_copy_fd(fd, -1, &digest, &l->size, err);
	if (rc < 0)
		return rc;
	memcpy(l->sha256, digest.data, sizeof(l->sha256));
	l->type = kind_of(head);
	if (strcmp(l->type, "tar") == 0)
		return lseek(fd, 0, SEEK_SET) == 0 ? archive_unpack(fd, s, err) : err_sys(err, "read '%s'", path);
	if (!is_base)
		return err_set(err, ERR_INVALID, "an overlay is a folder or a tar, not %s", l->type);
	rc = open_input(s, fd, &input, err);
	if (rc < 0)
		return rc;
	return strcmp(l->type, "ext4") == 0 ? put_ext4(s, input, err)
					    : put_squashfs(s, input, squashfs_has_xattrs(head), err);
}

int layer_put(struct stage *s, const char *path, bool is_base, struct layer *ret, struct err *err)
{
	struct layer l = {0};
	struct stat st;
	autoclose fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open '%s'", path);
	int rc = S_ISDIR(st.st_mode) ? put_folder(s, path, is_base, &l, err) : put_file(s, path, fd, is_base, &l, err);
	if (rc < 0)
		return err_wrap(err, "%s", path);
	*ret = l;
	return 0;
}
