#include "cli/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/tar.h"

enum { LINKS_NAMED = 3, TEMPORARY_SIZE = 32 };

struct extract {
	struct extract_opts opts;
	int folder;
	struct tar_decoder decoder;
	/* The file that is being written. */
	int parent;
	int file;
	char temporary[TEMPORARY_SIZE];
	char name[TAR_PATH_MAX + 1];
	char path[TAR_PATH_MAX + 1]; /* of the entry, as the folder has it */
	uint32_t mode;
	int64_t mtime_ns;
	uint64_t files;
	uint64_t bytes;
	struct buf links; /* that were left out */
	size_t link_count;
};

static void drop_file(struct extract *x)
{
	if (x->file >= 0)
		(void)unlinkat(x->parent, x->temporary, 0);
	fd_close(&x->file);
	fd_close(&x->parent);
}

void extract_free(struct extract *x)
{
	if (x == NULL)
		return;
	drop_file(x);
	fd_close(&x->folder);
	tar_decoder_fini(&x->decoder);
	buf_fini(&x->links);
	free(x);
}

int extract_new(const struct extract_opts *opts, struct extract **ret, struct err *err)
{
	autoptr(extract) x = xcalloc(1, sizeof(*x));

	x->opts = *opts;
	x->folder = x->file = x->parent = -1;
	int rc = dir_make(opts->folder, 0777, err);
	if (rc == 0)
		rc = dir_open(opts->folder, &x->folder, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(x);
	return 0;
}

uint64_t extract_files(const struct extract *x)
{
	return x->files;
}

uint64_t extract_bytes(const struct extract *x)
{
	return x->bytes;
}

/* --- within the folder, through no link --- */

static int open_below(const struct extract *x, const char *path)
{
	return file_open_within(x->folder, path, O_PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
}

static int not_a_folder(const struct extract *x, const char *path, struct err *err)
{
	if (errno == ELOOP || errno == EXDEV || errno == ENOTDIR)
		return err_set(err, ERR_INVALID, "'%s' in '%s' is no folder (a link, or a file): refused", path,
			       x->opts.folder);
	return err_sys(err, "open '%s' in '%s'", path, x->opts.folder);
}

static int make_folders(const struct extract *x, const char *path, struct err *err)
{
	for (const char *slash = strchr(path, '/');; slash = strchr(slash + 1, '/')) {
		size_t len = slash != NULL ? (size_t)(slash - path) : strlen(path);
		const char *before = memrchr(path, '/', len);
		autofree char *part = xmemdup0(path, len);
		autofree char *above = xmemdup0(path, before != NULL ? (size_t)(before - path) : 0);
		autoclose parent = open_below(x, above[0] != '\0' ? above : ".");
		if (parent < 0)
			return not_a_folder(x, above, err);
		if (mkdirat(parent, before != NULL ? part + (before - path) + 1 : part, 0777) < 0 && errno != EEXIST)
			return err_sys(err, "make '%s' in '%s'", part, x->opts.folder);
		if (slash == NULL)
			return 0;
	}
}

/* The folder that an entry is in, and the entry's name in it. */
static int open_parent(const struct extract *x, const char *path, int *ret_fd, const char **ret_name, struct err *err)
{
	const char *slash = strrchr(path, '/');
	autofree char *parent = slash != NULL ? xmemdup0(path, (size_t)(slash - path)) : xstrdup(".");

	int fd = open_below(x, parent);
	if (fd < 0 && errno == ENOENT) {
		int rc = make_folders(x, parent, err);
		if (rc < 0)
			return rc;
		fd = open_below(x, parent);
	}
	if (fd < 0)
		return not_a_folder(x, parent, err);
	*ret_fd = fd;
	*ret_name = slash != NULL ? slash + 1 : path;
	return 0;
}

static void make_temporary(char text[static TEMPORARY_SIZE])
{
	(void)snprintf(text, TEMPORARY_SIZE, ".nimbus-%016" PRIx64, crypto_random_below(UINT64_MAX));
}

/* Puts what was made under a temporary name into its place. */
static int put_in_place(const struct extract *x, int parent, const char *temporary, const char *name, struct err *err)
{
	if (renameat(parent, temporary, parent, name) == 0)
		return 0;
	(void)err_sys(err, "put '%s' into '%s'", x->path, x->opts.folder);
	(void)unlinkat(parent, temporary, 0);
	return -err->code;
}

/* --- entries --- */

static int put_folder(struct extract *x, const struct tar_entry *e, struct err *err)
{
	struct stat st;

	if (strcmp(x->path, ".") == 0)
		return 0;
	autoclose there = open_below(x, x->path);
	if (there >= 0)
		return 0;
	if (errno != ENOENT)
		return not_a_folder(x, x->path, err);
	int rc = make_folders(x, x->path, err);
	if (rc < 0)
		return rc;
	autoclose made = open_below(x, x->path);
	autofree char *self = xasprintf("/proc/self/fd/%d", made);
	if (made < 0 || fstat(made, &st) < 0 || chmod(self, (e->mode & st.st_mode & 0777) | 0700) < 0)
		return err_sys(err, "make '%s' in '%s'", x->path, x->opts.folder);
	return 0;
}

static int begin_file(struct extract *x, const struct tar_entry *e, struct err *err)
{
	const char *name = NULL;

	int rc = open_parent(x, x->path, &x->parent, &name, err);
	if (rc < 0)
		return rc;
	(void)snprintf(x->name, sizeof(x->name), "%s", name);
	make_temporary(x->temporary);
	x->file = openat(x->parent, x->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			 0600 | (e->mode & 0777));
	if (x->file < 0)
		return err_sys(err, "write '%s' into '%s'", x->path, x->opts.folder);
	x->mode = e->mode;
	x->mtime_ns = e->mtime_ns;
	return 0;
}

static int write_file(struct extract *x, struct str bytes, struct err *err)
{
	x->bytes += bytes.len;
	int rc = file_write_fd(x->file, bytes, err);
	return rc < 0 ? err_wrap(err, "write '%s' into '%s'", x->path, x->opts.folder) : 0;
}

/* The mode that the umask leaves of the job's; an existing file's is not asked for. */
static int finish_file(struct extract *x, struct err *err)
{
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_NOW},
		{.tv_sec = x->mtime_ns / NS_PER_S, .tv_nsec = x->mtime_ns % NS_PER_S},
	};
	struct stat st;

	if (fstat(x->file, &st) < 0 || fchmod(x->file, st.st_mode & x->mode & 0777) < 0 || futimens(x->file, times) < 0)
		return err_sys(err, "write '%s' into '%s'", x->path, x->opts.folder);
	fd_close(&x->file);
	int rc = put_in_place(x, x->parent, x->temporary, x->name, err);
	fd_close(&x->parent);
	x->files++;
	return rc;
}

/* Within what was asked for, where that is not all of the folder: whoever wants one file back has not said that the
 * name of it may stand for another that he has. */
static bool stays(const struct extract *x, const char *target)
{
	const char *root = x->opts.as != NULL ? x->opts.as : x->opts.only;
	const char *path = root != NULL ? x->path + strlen(root) : x->path;

	path += root != NULL && *path == '/';
	return *path != '\0' && tar_link_stays(path, target);
}

static int put_symlink(struct extract *x, const struct tar_entry *e, struct err *err)
{
	char temporary[TEMPORARY_SIZE];
	const char *name = NULL;
	autoclose parent = -1;

	if (!stays(x, e->target)) {
		if (x->link_count++ < LINKS_NAMED)
			buf_printf(&x->links, "%s'%s' -> '%s'", x->links.len > 0 ? ", " : "", x->path, e->target);
		return 0;
	}
	int rc = open_parent(x, x->path, &parent, &name, err);
	if (rc < 0)
		return rc;
	make_temporary(temporary);
	if (symlinkat(e->target, parent, temporary) < 0)
		return err_sys(err, "make the link '%s' in '%s'", x->path, x->opts.folder);
	return put_in_place(x, parent, temporary, name, err);
}

/* None of our guests sends one, and it could give a file that lies here already a second name: one under which it is
 * sent along with the next job. */
static int refuse_hard_link(struct extract *x, const struct tar_entry *e, struct err *err)
{
	return err_set(err, ERR_INVALID, "'%s' is a hard link to '%s': refused", x->path, e->target);
}

/* The entry's path as the folder is to have it. */
static int place(struct extract *x, const char *path, struct err *err)
{
	const struct extract_opts *o = &x->opts;
	size_t len = o->only != NULL ? strlen(o->only) : 0;

	if (o->only != NULL && (strncmp(path, o->only, len) != 0 || (path[len] != '\0' && path[len] != '/')))
		return err_set(err, ERR_INVALID, "'%s' was not asked for, but '%s': refused", path, o->only);
	int written = o->as != NULL ? snprintf(x->path, sizeof(x->path), "%s%s", o->as, path + len)
				    : snprintf(x->path, sizeof(x->path), "%s", path);
	return (size_t)written < sizeof(x->path) ? 0 : err_set(err, ERR_INVALID, "'%.80s...' is too long a path", path);
}

static int put_entry(struct extract *x, struct err *err)
{
	static int (*const putters[])(struct extract *, const struct tar_entry *, struct err *) = {
		[TAR_FILE] = begin_file,
		[TAR_FOLDER] = put_folder,
		[TAR_SYMLINK] = put_symlink,
		[TAR_HARD_LINK] = refuse_hard_link,
	};
	const struct tar_entry *e = &x->decoder.entry;

	int rc = place(x, e->path, err);
	return rc == 0 ? putters[e->kind](x, e, err) : rc;
}

int extract_feed(struct extract *x, struct str bytes, struct err *err)
{
	struct str content = {0};
	int rc = 0;

	while ((rc = tar_decode(&x->decoder, &bytes, &content, err)) > 0) {
		if (rc == TAR_ENTRY)
			rc = put_entry(x, err);
		else if (rc == TAR_BYTES)
			rc = write_file(x, content, err);
		else if (rc == TAR_DONE)
			rc = finish_file(x, err);
		if (rc < 0)
			return rc;
	}
	return rc;
}

int extract_end(struct extract *x, struct err *err)
{
	int rc = tar_decode_end(&x->decoder, err);

	if (rc < 0 || x->link_count == 0)
		return rc;
	if (x->link_count > LINKS_NAMED)
		buf_printf(&x->links, " and %zu more", x->link_count - LINKS_NAMED);
	return err_set(err, ERR_INVALID, "links that lead out of '%s' were left out: %s",
		       x->opts.only != NULL ? x->opts.only : x->opts.folder, x->links.data);
}
