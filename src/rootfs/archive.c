#include "rootfs/archive.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/file.h"
#include "base/mem.h"

enum { BLOCK_SIZE = 1 << 16 };

static const int64_t unpacked_max = INT64_C(1) << 36; /* no image is larger; a bomb is */
static const size_t entries_max = 2000000;

struct unpacking {
	struct archive *archive;
	struct stage *stage;
	int64_t left;
};

static void archive_close_auto(struct archive **a)
{
	(void)archive_read_free(*a);
}

static int library_error(struct archive *a, const char *what, struct err *err)
{
	const char *text = archive_error_string(a);

	return err_set(err, ERR_INVALID, "%s: %s", what, text != NULL ? text : "not a tar archive");
}

static struct archive *reader_new(void)
{
	struct archive *a = xcheck(archive_read_new());

	(void)archive_read_support_filter_gzip(a);
	(void)archive_read_support_filter_xz(a);
	(void)archive_read_support_filter_zstd(a);
	(void)archive_read_support_filter_bzip2(a);
	(void)archive_read_support_filter_lz4(a);
	(void)archive_read_support_format_tar(a);
	return a;
}

static int copy_data(struct unpacking *u, const char *path, int fd, struct err *err)
{
	char *block = xmalloc(BLOCK_SIZE);
	int rc = 0;

	while (rc == 0) {
		la_ssize_t got = archive_read_data(u->archive, block, BLOCK_SIZE);
		if (got == 0)
			break;
		if (got < 0)
			rc = library_error(u->archive, path, err);
		else if (got > u->left)
			rc = err_set(err, ERR_TOO_LARGE, "'%.200s': the archive unpacks to more than is allowed", path);
		else
			rc = file_write_fd(fd, (struct str){block, (size_t)got}, err);
		u->left -= got > 0 ? got : 0;
	}
	free(block);
	return rc;
}

static int take_xattrs(struct xattrs_reader *r, struct archive_entry *from, struct err *err)
{
	const char *name = NULL;
	const void *value = NULL;
	size_t len = 0;
	int rc = 0;

	(void)archive_entry_xattr_reset(from);
	while (rc == 0 && archive_entry_xattr_next(from, &name, &value, &len) == ARCHIVE_OK)
		rc = xattrs_take(r, name != NULL ? name : "", (struct str){value, len}, err);
	return rc;
}

static int put_entry(struct unpacking *u, struct archive_entry *from, struct err *err)
{
	const char *path = archive_entry_pathname(from);
	const char *hard_link = archive_entry_hardlink(from);
	autoclose fd = -1;
	struct stage_entry e = {
		.path = path != NULL ? path : "",
		.mode = archive_entry_mode(from),
		.uid = (uint32_t)archive_entry_uid(from),
		.gid = (uint32_t)archive_entry_gid(from),
		.target = hard_link != NULL ? hard_link : archive_entry_symlink(from),
		.hard_link = hard_link != NULL,
	};

	if ((S_ISLNK(e.mode) || e.hard_link) && e.target == NULL)
		return err_set(err, ERR_INVALID, "entry '%.200s' is a link to nothing", e.path);
	struct xattrs_reader reader =
		stage_xattrs_reader(u->stage, strncmp(e.path, "./", 2) == 0 ? e.path + 2 : e.path, e.mode);
	int rc = stage_check_path(e.path, err);
	if (rc == 0)
		rc = take_xattrs(&reader, from, err);
	e.xattrs = xattrs_finish(&reader);
	if (rc == 0)
		rc = stage_put(u->stage, &e, &fd, err);
	return rc == 0 && fd >= 0 ? copy_data(u, e.path, fd, err) : rc;
}

static int unpack_all(struct unpacking *u, struct err *err)
{
	for (size_t count = 0;; count++) {
		struct archive_entry *entry = NULL;
		int got = archive_read_next_header(u->archive, &entry);
		if (got == ARCHIVE_EOF)
			return count > 0 ? 0 : err_set(err, ERR_INVALID, "it is empty, or no tar archive");
		if (got < ARCHIVE_WARN)
			return library_error(u->archive, "read the archive", err);
		if (count == entries_max)
			return err_set(err, ERR_TOO_LARGE, "more than %zu entries", entries_max);
		int rc = put_entry(u, entry, err);
		if (rc < 0)
			return rc;
	}
}

int archive_unpack(int fd, struct stage *s, struct err *err)
{
	__attribute__((cleanup(archive_close_auto))) struct archive *a = reader_new();
	struct unpacking u = {a, s, unpacked_max};

	if (archive_read_open_fd(a, fd, BLOCK_SIZE) != ARCHIVE_OK)
		return library_error(a, "read the archive", err);
	return unpack_all(&u, err);
}

int archive_unpack_bytes(struct str bytes, int64_t max, struct stage *s, struct err *err)
{
	__attribute__((cleanup(archive_close_auto))) struct archive *a = reader_new();
	struct unpacking u = {a, s, max};

	if (archive_read_open_memory(a, bytes.data, bytes.len) != ARCHIVE_OK)
		return library_error(a, "read the archive", err);
	return unpack_all(&u, err);
}

/* --- writing --- */

struct packing {
	struct archive *archive;
	struct archive_entry_linkresolver *links;
	struct stage *stage;
	int fd;
	bool gone; /* nobody reads it any more */
};

static void packing_fini(struct packing *p)
{
	(void)archive_write_free(p->archive);
	archive_entry_linkresolver_free(p->links);
}
AUTOVAR_DEFINE(packing)

static la_ssize_t on_write(struct archive *a, void *ctx, const void *bytes, size_t len)
{
	struct packing *p = ctx;
	ssize_t sent;

	do
		sent = send(p->fd, bytes, len, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return sent;
	p->gone = errno == EPIPE || errno == ECONNRESET;
	archive_set_error(a, errno, "write the archive");
	return -1;
}

static int packing_init(struct packing *p, struct stage *s, int fd, struct err *err)
{
	*p = (struct packing){.archive = xcheck(archive_write_new()),
			      .links = xcheck(archive_entry_linkresolver_new()),
			      .stage = s,
			      .fd = fd};
	/* What reads it knows star's way to write attributes. */
	if (archive_write_set_format_pax_restricted(p->archive) != ARCHIVE_OK ||
	    archive_write_set_options(p->archive, "xattrheader=SCHILY") != ARCHIVE_OK ||
	    archive_write_open(p->archive, p, NULL, on_write, NULL) != ARCHIVE_OK)
		return library_error(p->archive, "write the archive", err);
	archive_entry_linkresolver_set_strategy(p->links, archive_format(p->archive));
	return 0;
}

static int read_link(const struct packing *p, const struct stage_item *item, struct archive_entry *to, struct err *err)
{
	char target[PATH_MAX];
	ssize_t len = readlinkat(p->stage->root_fd, item->path, target, sizeof(target) - 1);

	if (len < 0)
		return err_sys(err, "read link '%.200s'", item->path);
	target[len] = '\0';
	archive_entry_set_symlink(to, target);
	return 0;
}

/* Of its times there is only one, so that the same tree is the same archive. */
static int describe(const struct packing *p, const struct stage_item *item, struct archive_entry *to, struct err *err)
{
	const struct stat *st = item->st;

	archive_entry_set_pathname(to, item->path);
	archive_entry_set_filetype(to, st->st_mode & S_IFMT);
	archive_entry_set_perm(to, item->owner.mode);
	archive_entry_set_uid(to, item->owner.uid);
	archive_entry_set_gid(to, item->owner.gid);
	archive_entry_set_mtime(to, 0, 0);
	archive_entry_set_dev(to, st->st_dev);
	archive_entry_set_ino64(to, (la_int64_t)st->st_ino);
	archive_entry_set_nlink(to, (unsigned)st->st_nlink);
	archive_entry_set_size(to, S_ISREG(st->st_mode) ? st->st_size : 0);
	for (size_t i = 0; i < item->owner.xattrs.count; i++) {
		const struct xattr *x = &item->owner.xattrs.items[i];
		archive_entry_xattr_add_entry(to, x->name, x->value.data, x->value.len);
	}
	return S_ISLNK(st->st_mode) ? read_link(p, item, to, err) : 0;
}

static int write_failed(const struct packing *p, const char *path, struct err *err)
{
	return p->gone ? ARCHIVE_PACK_GONE : library_error(p->archive, path, err);
}

static int write_content(const struct packing *p, const struct stage_item *item, struct err *err)
{
	autofree char *block = xmalloc(BLOCK_SIZE);
	autoclose fd = -1;
	int64_t left = item->st->st_size;

	int rc = stage_open(p->stage, item->path, &fd, err);
	while (rc == 0 && left > 0) {
		ssize_t got = read(fd, block, left < BLOCK_SIZE ? (size_t)left : BLOCK_SIZE);
		if (got <= 0)
			return err_sys(err, "read '%.200s'", item->path);
		if (archive_write_data(p->archive, block, (size_t)got) != got)
			return write_failed(p, item->path, err);
		left -= got;
	}
	return rc;
}

static int write_entry(struct packing *p, const struct stage_item *item, struct archive_entry *e, struct err *err)
{
	struct archive_entry *later = NULL; /* some formats need it; pax does not */

	int rc = describe(p, item, e, err);
	if (rc < 0)
		return rc;
	archive_entry_linkify(p->links, &e, &later);
	/* A warning is about a name that is no UTF-8, which is kept as it is. */
	if (archive_write_header(p->archive, e) < ARCHIVE_WARN)
		return write_failed(p, item->path, err);
	return archive_entry_size(e) > 0 ? write_content(p, item, err) : 0;
}

static int visit(void *ctx, const struct stage_item *item, struct err *err)
{
	struct archive_entry *e = xcheck(archive_entry_new());
	int rc = write_entry(ctx, item, e, err);

	archive_entry_free(e);
	return rc;
}

int archive_pack(struct stage *s, int fd, struct err *err)
{
	autovar(packing) p = {0};

	int rc = packing_init(&p, s, fd, err);
	if (rc == 0)
		rc = stage_each(s, visit, &p, err);
	if (rc == 0 && archive_write_close(p.archive) != ARCHIVE_OK)
		rc = write_failed(&p, "the end of the archive", err);
	return rc;
}
