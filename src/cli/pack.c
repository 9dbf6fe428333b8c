#include "cli/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "proto/tar.h"

struct pack {
	int folder;
	const char *const *paths;
	size_t count;
	const char *single; /* of a file alone: its name in the tar */
	char *single_path;

	size_t next;	      /* into paths */
	const char *previous; /* that was packed */
	struct buf head;      /* headers that wait to be read */
	size_t head_at;
	int file; /* whose content is being read; -1: none */
	const char *file_path;
	uint64_t left; /* of its content, as its header says */
	size_t padding;
	bool root_done;
	bool ended;
	uint64_t bytes;
	struct buf notes;
};

void pack_free(struct pack *p)
{
	if (p == NULL)
		return;
	fd_close(&p->folder);
	fd_close(&p->file);
	buf_fini(&p->head);
	buf_fini(&p->notes);
	free(p->single_path);
	free(p);
}

int pack_new(const char *folder, const struct file_list *list, struct pack **ret, struct err *err)
{
	autoptr(pack) p = xcalloc(1, sizeof(*p));

	p->folder = p->file = -1;
	p->paths = list->paths;
	p->count = list->count;
	int rc = dir_open(folder, &p->folder, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(p);
	return 0;
}

int pack_new_file(const char *path, const char *name, struct pack **ret, struct err *err)
{
	autoptr(pack) p = xcalloc(1, sizeof(*p));

	p->folder = p->file = -1;
	p->single = name;
	p->single_path = realpath(path, NULL); /* links are followed here, and not later */
	if (p->single_path == NULL || access(path, R_OK) != 0)
		return err_sys(err, "read '%s'", path);
	*ret = TAKE(p);
	return 0;
}

void pack_rewind(struct pack *p)
{
	fd_close(&p->file);
	buf_clear(&p->head);
	buf_clear(&p->notes);
	p->next = p->head_at = p->padding = 0;
	p->previous = NULL;
	p->left = p->bytes = 0;
	p->root_done = p->ended = false;
}

uint64_t pack_bytes(const struct pack *p)
{
	return p->bytes;
}

const struct buf *pack_notes(const struct pack *p)
{
	return &p->notes;
}

/* --- headers --- */

static int put_entry(struct pack *p, enum tar_kind kind, const char *path, const char *target, const struct stat *st,
		     struct err *err)
{
	return tar_entry_encode(
		&(struct tar_entry){
			.kind = kind,
			.path = path,
			.target = target,
			.mode = (uint32_t)st->st_mode & 07777,
			.mtime_ns = tar_time_ns(&st->st_mtim),
			.size = kind == TAR_FILE ? (uint64_t)st->st_size : 0,
		},
		&p->head, err);
}

static void gone(struct pack *p, const char *path)
{
	buf_printf(&p->notes, "%s went away while it was packed\n", path);
}

static int put_folder(struct pack *p, const char *path, struct err *err)
{
	struct stat st;

	if (fstatat(p->folder, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
		return 0; /* then nothing in it is there either */
	return put_entry(p, TAR_FOLDER, path, NULL, &st, err);
}

/* The folders that it is in, where the path before was in others. */
static int put_parents(struct pack *p, const char *path, struct err *err)
{
	const char *previous = p->previous != NULL ? p->previous : "";
	int rc = 0;

	for (const char *slash = strchr(path, '/'); slash != NULL && rc == 0; slash = strchr(slash + 1, '/')) {
		size_t len = (size_t)(slash - path);
		bool done = strncmp(previous, path, len) == 0 && (previous[len] == '/' || previous[len] == '\0');
		autofree char *parent = xmemdup0(path, len);
		rc = done ? 0 : put_folder(p, parent, err);
	}
	return rc;
}

static int put_link(struct pack *p, const char *path, const struct stat *st, struct err *err)
{
	char target[TAR_PATH_MAX + 1];
	ssize_t len = readlinkat(p->folder, path, target, sizeof(target));

	if (len < 0) {
		gone(p, path);
		return 0;
	}
	if ((size_t)len == sizeof(target))
		return err_set(err, ERR_TOO_LARGE, "the link '%s' leads to too long a path", path);
	target[len] = '\0';
	return put_entry(p, TAR_SYMLINK, path, target, st, err);
}

/* Opened before its size is taken, so that both are of the same file. Through no link: what git lists may be what a job
 * brought back, and a folder of that a link to where other files are. */
static int put_file(struct pack *p, int folder, const char *path, const char *name, struct err *err)
{
	autoclose fd = file_open_within(folder, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, RESOLVE_NO_SYMLINKS);
	struct stat st;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) {
		gone(p, name);
		return 0;
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, "read '%s'", path);
	if (!S_ISREG(st.st_mode)) {
		buf_printf(&p->notes, "%s is no file any more\n", name);
		return 0;
	}
	int rc = put_entry(p, TAR_FILE, name, NULL, &st, err);
	if (rc < 0)
		return rc;
	p->file = fd_take(&fd);
	p->file_path = name;
	p->left = (uint64_t)st.st_size;
	p->padding = tar_padding(p->left);
	return 0;
}

static int put_path(struct pack *p, const char *path, struct err *err)
{
	struct stat st;

	int rc = put_parents(p, path, err);
	if (rc < 0)
		return rc;
	p->previous = path;
	if (fstatat(p->folder, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		gone(p, path);
		return 0;
	}
	if (S_ISDIR(st.st_mode))
		return put_entry(p, TAR_FOLDER, path, NULL, &st, err);
	if (S_ISLNK(st.st_mode))
		return put_link(p, path, &st, err);
	return put_file(p, p->folder, path, path, err);
}

static int put_next(struct pack *p, struct err *err)
{
	if (!p->root_done) {
		p->root_done = true;
		return p->single != NULL ? put_file(p, AT_FDCWD, p->single_path, p->single, err)
					 : put_folder(p, ".", err);
	}
	if (p->next < p->count)
		return put_path(p, p->paths[p->next++], err);
	tar_end_encode(&p->head);
	p->ended = true;
	return 0;
}

/* --- bytes --- */

static size_t read_head(struct pack *p, char *to, size_t cap)
{
	size_t len = p->head.len - p->head_at;

	if (len > cap)
		len = cap;
	memcpy(to, p->head.data + p->head_at, len);
	p->head_at += len;
	if (p->head_at == p->head.len) {
		buf_clear(&p->head);
		p->head_at = 0;
	}
	return len;
}

static void note_change(struct pack *p)
{
	char more = 0;
	bool shorter = p->left > 0;
	bool longer = !shorter && read(p->file, &more, 1) == 1;

	if (shorter || longer)
		buf_printf(&p->notes, "%s became %s while it was packed\n", p->file_path,
			   shorter ? "shorter" : "longer");
}

static void finish_file(struct pack *p)
{
	note_change(p);
	fd_close(&p->file);
}

/* What a file lacks of its size comes as zeros. */
static int read_content(struct pack *p, char *to, size_t cap, size_t *ret_len, struct err *err)
{
	size_t want = p->left < cap ? (size_t)p->left : cap;
	ssize_t got = 0;

	while (p->file >= 0 && want > 0 && (got = read(p->file, to, want)) < 0) {
		if (errno != EINTR)
			return err_sys(err, "read '%s'", p->file_path);
	}
	if (got == 0 && p->file >= 0) {
		finish_file(p);
		if (p->left == 0)
			return 0;
	}
	if (p->file < 0) {
		memset(to, 0, want);
		got = (ssize_t)want;
	}
	p->left -= (uint64_t)got;
	if (p->left == 0 && p->file >= 0)
		finish_file(p);
	*ret_len = (size_t)got;
	return 0;
}

static size_t read_padding(struct pack *p, char *to, size_t cap)
{
	size_t len = p->padding < cap ? p->padding : cap;

	memset(to, 0, len);
	p->padding -= len;
	return len;
}

static int read_some(struct pack *p, char *to, size_t cap, size_t *ret_len, struct err *err)
{
	*ret_len = 0;
	if (p->head.len > 0) {
		*ret_len = read_head(p, to, cap);
	} else if (p->file >= 0 || p->left > 0) {
		return read_content(p, to, cap, ret_len, err);
	} else if (p->padding > 0) {
		*ret_len = read_padding(p, to, cap);
	} else if (!p->ended) {
		return put_next(p, err);
	}
	return 0;
}

int pack_read(struct pack *p, char *to, size_t cap, size_t *ret_len, struct err *err)
{
	size_t total = 0;

	while (total < cap) {
		size_t len = 0;
		int rc = read_some(p, to + total, cap - total, &len, err);
		if (rc < 0)
			return rc;
		if (len == 0 && p->ended && p->head.len == 0)
			break;
		total += len;
	}
	p->bytes += total;
	*ret_len = total;
	return 0;
}
