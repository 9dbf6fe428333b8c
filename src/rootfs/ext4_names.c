#include "rootfs/ext4_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "rootfs/debugfs.h"

enum { ROOT_INODE = 2, FOLDERS_AT_ONCE = 5000, FOLDERS_MAX = 1000000, COMMAND_SIZE = 48 };

struct folders {
	int64_t *inodes;
	size_t count, room;
	size_t asked; /* so many, from the first */
};

/* The names of one folder; they lie in the listing. */
struct names {
	struct str *items;
	size_t count, room;
};

static int not_laid_out(const char *why, struct str name, struct err *err)
{
	return err_set(err, ERR_INVALID, "the ext4 %s ('%.*s'): refused, as its files could come to lie elsewhere", why,
		       (int)(name.len < 80 ? name.len : 80), name.len > 0 ? name.data : "");
}

/* --- folders --- */

static void add_folder(struct folders *f, int64_t inode)
{
	if (f->count == f->room) {
		f->room = f->room > 0 ? 2 * f->room : 1024;
		f->inodes = xreallocarray(f->inodes, f->room, sizeof(*f->inodes));
	}
	f->inodes[f->count++] = inode;
}

static int compare_inodes(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* One that has two places could be within itself. */
static int check_folders(const struct folders *f, struct err *err)
{
	size_t size = f->count * sizeof(*f->inodes);
	autofree int64_t *sorted = xmalloc(size);

	if (f->count > FOLDERS_MAX)
		return err_set(err, ERR_TOO_LARGE, "the ext4 has more than %d folders", FOLDERS_MAX);
	memcpy(sorted, f->inodes, size);
	qsort(sorted, f->count, sizeof(*sorted), compare_inodes);
	for (size_t i = 1; i < f->count; i++)
		if (sorted[i] == sorted[i - 1])
			return not_laid_out("has a folder in two places", (struct str){0}, err);
	return 0;
}

/* --- names --- */

static void add_name(struct names *n, struct str name)
{
	if (n->count == n->room) {
		n->room = n->room > 0 ? 2 * n->room : 256;
		n->items = xreallocarray(n->items, n->room, sizeof(*n->items));
	}
	n->items[n->count++] = name;
}

static int compare_names(const void *a, const void *b)
{
	const struct str *x = a, *y = b;
	int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);

	return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Of one folder, which is whole; the next begins. */
static int end_folder(struct names *n, struct err *err)
{
	if (n->count > 0)
		qsort(n->items, n->count, sizeof(*n->items), compare_names);
	for (size_t i = 1; i < n->count; i++)
		if (str_eq(n->items[i], n->items[i - 1]))
			return not_laid_out("has a name twice in one folder", n->items[i], err);
	n->count = 0;
	return 0;
}

static bool made_of(struct str text, const char *characters)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] == '\0' || strchr(characters, text.data[i]) == NULL)
			return false;
	return true;
}

/*
 * "/INODE/MODE/UID/GID/NAME/SIZE/", and nothing else: a slash in the name is one too many. A line feed in it makes two
 * lines of it, both of which can only look right where the path that it makes goes through a folder called "\n" that is
 * listed here as well, and that one's lines do not.
 */
static int take_line(struct str line, struct folders *f, struct names *n, struct err *err)
{
	struct str rest = line;
	bool begins = line.len > 0 && line.data[0] == '/';
	int64_t inode = 0;

	(void)str_cut(&rest, '/');
	struct str number = str_cut(&rest, '/');
	if (begins && str_eq(number, STR("0"))) /* was deleted: it is not laid out */
		return 0;
	struct str mode = str_cut(&rest, '/');
	struct str uid = str_cut(&rest, '/');
	struct str gid = str_cut(&rest, '/');
	struct str name = str_cut(&rest, '/');
	struct str size = str_cut(&rest, '/');
	if (!begins || rest.data == NULL || rest.len > 0 || name.len == 0 || mode.len != 6 ||
	    !made_of(mode, "01234567") || !made_of(uid, "-0123456789") || !made_of(gid, "-0123456789") ||
	    !made_of(size, "0123456789") || str_to_i64(number, "inode", 1, UINT32_MAX, &inode, NULL) < 0)
		return not_laid_out("has an entry that cannot be read", line, err);
	bool folder = str_starts_with(mode, STR("04"));
	bool dots = str_eq(name, STR(".")) || str_eq(name, STR(".."));
	if (dots && !folder)
		return not_laid_out("has an entry that cannot be read", line, err);
	if (folder && !dots)
		add_folder(f, inode);
	add_name(n, name);
	return 0;
}

/* --- asking --- */

static void write_command(char to[static COMMAND_SIZE], int64_t inode)
{
	(void)snprintf(to, COMMAND_SIZE, "ls -pr <%" PRId64 ">", inode);
}

static int ask(const struct folders *f, size_t count, int image_fd, struct buf *listing, struct err *err)
{
	autovar(buf) commands = {0};
	char command[COMMAND_SIZE];

	for (size_t i = 0; i < count; i++) {
		write_command(command, f->inodes[f->asked + i]);
		buf_printf(&commands, "%s\n", command);
	}
	return debugfs_ask(image_fd, buf_str(&commands), listing, err);
}

static bool is_prompt(struct str line, const struct folders *f, size_t folder)
{
	static const struct str head = STR("debugfs: ");
	char command[COMMAND_SIZE];

	write_command(command, f->inodes[f->asked + folder]);
	if (!str_starts_with(line, head))
		return false;
	line.data += head.len;
	line.len -= head.len;
	return str_eq(line, str_c(command));
}

/* As many folders as were asked for, in their order: a name cannot pass for the beginning of one. */
static int take_listing(struct str listing, size_t count, struct folders *f, struct names *n, struct err *err)
{
	size_t begun = 0;
	int rc = 0;

	while (listing.data != NULL && rc == 0) {
		struct str line = str_cut(&listing, '\n');
		if (line.len == 0 || (begun == 0 && str_starts_with(line, STR("debugfs 1"))))
			continue;
		if (begun < count && is_prompt(line, f, begun)) {
			rc = end_folder(n, err);
			begun++;
		} else if (begun > 0) {
			rc = take_line(line, f, n, err);
		} else {
			rc = not_laid_out("cannot be listed", line, err);
		}
	}
	if (rc == 0)
		rc = end_folder(n, err);
	return rc == 0 && begun < count ? not_laid_out("cannot be listed", (struct str){0}, err) : rc;
}

int ext4_check_names(int image_fd, struct err *err)
{
	struct folders f = {0};
	struct names n = {0};
	int rc = 0;

	add_folder(&f, ROOT_INODE);
	while (f.asked < f.count && rc == 0) {
		autovar(buf) listing = {0};
		size_t left = f.count - f.asked;
		size_t count = left < FOLDERS_AT_ONCE ? left : FOLDERS_AT_ONCE;
		rc = ask(&f, count, image_fd, &listing, err);
		if (rc == 0)
			rc = take_listing(buf_str(&listing), count, &f, &n, err);
		f.asked += count;
		if (rc == 0)
			rc = check_folders(&f, err);
	}
	free(f.inodes);
	free(n.items);
	return rc;
}
