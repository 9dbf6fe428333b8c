#include "rootfs/archive.h"

#include <string.h>
#include <sys/stat.h>

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

static int put_entry(struct unpacking *u, struct archive_entry *from, struct err *err)
{
	const char *path = archive_entry_pathname(from);
	const char *hard_link = archive_entry_hardlink(from);
	autoclose fd = -1;
	const struct stage_entry e = {
		.path = path != NULL ? path : "",
		.mode = archive_entry_mode(from),
		.uid = (uint32_t)archive_entry_uid(from),
		.gid = (uint32_t)archive_entry_gid(from),
		.target = hard_link != NULL ? hard_link : archive_entry_symlink(from),
		.hard_link = hard_link != NULL,
	};

	if ((S_ISLNK(e.mode) || e.hard_link) && e.target == NULL)
		return err_set(err, ERR_INVALID, "entry '%.200s' is a link to nothing", e.path);
	int rc = stage_put(u->stage, &e, &fd, err);
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
