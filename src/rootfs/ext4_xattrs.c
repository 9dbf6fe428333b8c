#include "rootfs/ext4_xattrs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/encoding.h"
#include "base/mem.h"
#include "rootfs/owners.h"

#define NAMES_PROMPT "debugfs: ea_list <"
#define VALUE_PROMPT "debugfs: ea_get -x <"

enum { NAME_SIZE = 256, VALUE_MAX = 64 * 1024 };

struct ext4_file {
	uint32_t inode;
	mode_t mode;
	const char *path;
};

void ext4_xattrs_fini(struct ext4_xattrs *x)
{
	arena_free(x->arena);
	free(x->files);
	*x = (struct ext4_xattrs){0};
}

/* --- which files there are --- */

static void remember(void *ctx, const struct ext4_entry *e)
{
	struct ext4_xattrs *x = ctx;

	if ((!S_ISREG(e->mode) && !S_ISDIR(e->mode)) || strcmp(e->path, ".") == 0)
		return;
	if (x->count == x->room) {
		x->room = x->room > 0 ? 2 * x->room : 1024;
		x->files = xreallocarray(x->files, x->room, sizeof(*x->files));
	}
	x->files[x->count++] = (struct ext4_file){e->inode, e->mode, arena_strdup(x->arena, e->path)};
}

static int by_inode(const void *a, const void *b)
{
	const struct ext4_file *l = a, *r = b;

	return l->inode < r->inode ? -1 : l->inode > r->inode;
}

void ext4_xattrs_ask_names(struct ext4_xattrs *x, struct str listing, struct buf *commands)
{
	x->arena = arena_new();
	owners_each_ext4(listing, remember, x);
	if (x->count > 0)
		qsort(x->files, x->count, sizeof(*x->files), by_inode);
	for (size_t i = 0; i < x->count; i++)
		if (i == 0 || x->files[i].inode != x->files[i - 1].inode)
			buf_printf(commands, "ea_list <%u>\n", x->files[i].inode);
}

/* The first of its names; NULL: there is no such file. */
static const struct ext4_file *find_file(const struct ext4_xattrs *x, uint32_t inode)
{
	size_t low = 0, high = x->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (x->files[middle].inode < inode)
			low = middle + 1;
		else
			high = middle;
	}
	return low < x->count && x->files[low].inode == inode ? &x->files[low] : NULL;
}

/* "INODE>..." */
static const struct ext4_file *file_of(const struct ext4_xattrs *x, struct str line)
{
	int64_t inode = 0;

	if (str_to_i64(str_cut(&line, '>'), "inode", 1, UINT32_MAX, &inode, NULL) < 0)
		return NULL;
	return find_file(x, (uint32_t)inode);
}

static bool skip_prefix(struct str *line, struct str prefix)
{
	if (!str_starts_with(*line, prefix))
		return false;
	line->data += prefix.len;
	line->len -= prefix.len;
	return true;
}

/* "NAME (LENGTH) = VALUE"; the value may be missing. */
static bool split_line(struct str line, char name[static NAME_SIZE], int64_t *ret_len, struct str *ret_value)
{
	struct str rest = line;
	struct str word = str_cut(&rest, ' ');

	if (word.len == 0 || word.len >= NAME_SIZE || rest.data == NULL || !skip_prefix(&rest, STR("(")))
		return false;
	memcpy(name, word.data, word.len);
	name[word.len] = '\0';
	if (str_to_i64(str_cut(&rest, ')'), "length", 0, VALUE_MAX, ret_len, NULL) < 0)
		return false;
	*ret_value = skip_prefix(&rest, STR(" = ")) ? rest : (struct str){0};
	return true;
}

/* --- names --- */

static int take_name(const struct ext4_file *file, struct stage *s, struct str line, struct buf *commands,
		     struct err *err)
{
	struct xattrs_reader reader = stage_xattrs_reader(s, file->path, file->mode);
	char name[NAME_SIZE];
	struct str value;
	int64_t len = 0;

	if (!split_line(line, name, &len, &value) || strpbrk(name, "\"\\") != NULL)
		return err_set(err, ERR_INVALID, "entry '%.200s' has an extended attribute without a readable name",
			       file->path);
	if (xattrs_keeps(file->mode, name)) {
		buf_printf(commands, "ea_get -x <%u> %s\n", file->inode, name);
		return 0;
	}
	int rc = xattrs_take(&reader, name, (struct str){0}, err);
	(void)xattrs_finish(&reader);
	return rc;
}

int ext4_xattrs_take_names(const struct ext4_xattrs *x, struct stage *s, struct str said, struct buf *commands,
			   struct err *err)
{
	const struct ext4_file *file = NULL;
	int rc = 0;

	while (rc == 0 && said.data != NULL) {
		struct str line = str_cut(&said, '\n');
		if (skip_prefix(&line, STR(NAMES_PROMPT)))
			file = file_of(x, line);
		else if (file != NULL && skip_prefix(&line, STR("  ")))
			rc = take_name(file, s, line, commands, err);
	}
	return rc;
}

/* --- values --- */

/* "01 00 ff " */
static bool decode_bytes(struct str text, int64_t len, struct buf *out)
{
	while (out->len < (size_t)len) {
		struct str pair = str_cut(&text, ' ');
		int high = pair.len == 2 ? decode_hex_digit(pair.data[0]) : -1;
		int low = high >= 0 ? decode_hex_digit(pair.data[1]) : -1;
		if (low < 0)
			return false;
		buf_putc(out, (char)(high * 16 + low));
	}
	return str_trim(text).len == 0;
}

static int take_value(struct xattrs_reader *reader, struct str line, struct err *err)
{
	autovar(buf) bytes = {0};
	char name[NAME_SIZE];
	struct str value;
	int64_t len = 0;

	if (!split_line(line, name, &len, &value) || !decode_bytes(value, len, &bytes))
		return err_set(err, ERR_INVALID, "debugfs tells no extended attribute of '%.200s': %.*s", reader->path,
			       line.len < 100 ? (int)line.len : 100, line.data);
	return xattrs_take(reader, name, buf_str(&bytes), err);
}

/* Each of its names is a file of its own by now. */
static void give(const struct ext4_xattrs *x, struct stage *s, const struct ext4_file *file, struct xattrs_reader *r)
{
	struct xattrs found = xattrs_finish(r);

	for (const struct ext4_file *f = file; f != NULL && f < x->files + x->count && f->inode == file->inode; f++)
		stage_set_xattrs(s, f->path, &found);
}

int ext4_xattrs_take_values(const struct ext4_xattrs *x, struct stage *s, struct str said, struct err *err)
{
	const struct ext4_file *file = NULL;
	struct xattrs_reader reader = {0};
	bool expected = false;
	int rc = 0;

	while (rc == 0 && said.data != NULL) {
		struct str line = str_cut(&said, '\n');
		if (skip_prefix(&line, STR(VALUE_PROMPT))) {
			const struct ext4_file *next = file_of(x, line);
			if (next != file) {
				give(x, s, file, &reader);
				reader = next != NULL ? stage_xattrs_reader(s, next->path, next->mode)
						      : (struct xattrs_reader){0};
			}
			file = next;
			expected = file != NULL;
		} else if (expected && line.len > 0) {
			rc = take_value(&reader, line, err);
			expected = false;
		}
	}
	give(x, s, file, &reader);
	return rc;
}
