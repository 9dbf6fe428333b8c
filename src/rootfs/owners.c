#include "rootfs/owners.h"

#include <errno.h>
#include <fts.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

#define EXT4_PROMPT "debugfs: ls -p \""
#define SQUASHFS_ROOT "squashfs-root"

/* --- ext4 --- */

static void tree_close(FTS **tree)
{
	if (*tree != NULL)
		(void)fts_close(*tree);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* debugfs has no way to quote these. */
static bool can_ask(const char *path)
{
	for (; *path != '\0'; path++)
		if (*path == '"' || *path == '\\' || (unsigned char)*path < ' ')
			return false;
	return true;
}

int owners_ask_ext4(const struct stage *s, struct buf *commands, struct err *err)
{
	char *const roots[] = {s->path, NULL};
	__attribute__((cleanup(tree_close))) FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);

	for (;;) {
		errno = 0;
		const FTSENT *entry = tree != NULL ? fts_read(tree) : NULL;
		if (entry == NULL)
			return errno == 0 ? 0 : err_sys(err, "read %s", s->path);
		const char *path = entry->fts_path + strlen(s->path);
		if (entry->fts_info == FTS_D && can_ask(path))
			buf_printf(commands, "ls -p \"%s\"\n", path[0] != '\0' ? path : "/");
	}
}

static bool octal(struct str text, mode_t *ret)
{
	mode_t value = 0;

	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '7' || i == 7)
			return false;
		value = value * 8 + (mode_t)(text.data[i] - '0');
	}
	*ret = value;
	return text.len > 0;
}

static bool number(struct str text, uint32_t *ret)
{
	int64_t value = 0;

	if (str_to_i64(text, "id", 0, UINT32_MAX, &value, NULL) < 0)
		return false;
	*ret = (uint32_t)value;
	return true;
}

/* "/INODE/MODE/UID/GID/NAME/SIZE/" of a folder. */
static void each_ext4_line(struct str folder, struct str line, void (*visit)(void *ctx, const struct ext4_entry *e),
			   void *ctx)
{
	struct ext4_entry e = {0};
	struct str rest = line;

	(void)str_cut(&rest, '/');
	if (!number(str_cut(&rest, '/'), &e.inode) || !octal(str_cut(&rest, '/'), &e.mode) ||
	    !number(str_cut(&rest, '/'), &e.uid) || !number(str_cut(&rest, '/'), &e.gid))
		return;
	struct str name = str_cut(&rest, '/');
	bool root = folder.len == 1 && str_eq(name, STR("."));
	if (!root && (name.len == 0 || str_eq(name, STR(".")) || str_eq(name, STR(".."))))
		return;
	autofree char *path = xasprintf("%.*s/%.*s", STR_ARG(folder), STR_ARG(name));
	e.path = path + strspn(path, "/");
	visit(ctx, &e);
}

void owners_each_ext4(struct str listing, void (*visit)(void *ctx, const struct ext4_entry *e), void *ctx)
{
	struct str folder = {NULL, 0};

	while (listing.data != NULL) {
		struct str line = str_cut(&listing, '\n');
		if (str_starts_with(line, STR(EXT4_PROMPT)) && str_ends_with(line, STR("\""))) {
			folder = line;
			folder.data += strlen(EXT4_PROMPT);
			folder.len -= strlen(EXT4_PROMPT) + 1;
		} else if (folder.len > 0 && str_starts_with(line, STR("/"))) {
			each_ext4_line(folder, line, visit, ctx);
		}
	}
}

static void own_ext4(void *ctx, const struct ext4_entry *e)
{
	stage_own(ctx, &(struct stage_entry){.path = e->path, .mode = e->mode, .uid = e->uid, .gid = e->gid});
}

void owners_take_ext4(struct stage *s, struct str listing)
{
	owners_each_ext4(listing, own_ext4, s);
}

/* --- squashfs --- */

/* "rwsr-xr-t" */
static mode_t permissions(const char *text)
{
	mode_t mode = 0;

	for (size_t i = 0; i < 9; i++) {
		mode_t bit = (mode_t)(0400 >> i);
		mode_t special = i == 2 ? S_ISUID : i == 5 ? S_ISGID : i == 8 ? S_ISVTX : 0;
		if (text[i] != '-' && text[i] != 'S' && text[i] != 'T')
			mode |= bit;
		if (strchr("sStT", text[i]) != NULL)
			mode |= special;
	}
	return mode;
}

static struct str next_word(struct str *rest)
{
	struct str word;

	do
		word = str_cut(rest, ' ');
	while (word.len == 0 && rest->data != NULL);
	return word;
}

/* "-rwsr-xr-x 0/0   2 2026-11-21 20:21 squashfs-root/etc/x"; of a link " -> TARGET" follows. */
static void take_squashfs_line(struct stage *s, struct str line)
{
	struct stage_entry e = {0};
	struct str rest = line;
	struct str mode = next_word(&rest);
	struct str ids = next_word(&rest);

	if (mode.len != 10 || strchr("-dl", mode.data[0]) == NULL)
		return;
	e.mode = permissions(mode.data + 1);
	if (!number(str_cut(&ids, '/'), &e.uid) || ids.data == NULL || !number(ids, &e.gid))
		return;
	for (int i = 0; i < 3; i++)
		(void)next_word(&rest);
	if (!str_starts_with(rest, STR(SQUASHFS_ROOT)))
		return;
	rest.data += strlen(SQUASHFS_ROOT);
	rest.len -= strlen(SQUASHFS_ROOT);
	const char *arrow = mode.data[0] == 'l' ? memmem(rest.data, rest.len, " -> ", 4) : NULL;
	if (arrow != NULL)
		rest.len = (size_t)(arrow - rest.data);
	autofree char *path = xmemdup0(rest.data, rest.len);
	e.path = path[0] == '/' ? path + 1 : ".";
	stage_own(s, &e);
}

void owners_take_squashfs(struct stage *s, struct str listing)
{
	while (listing.data != NULL)
		take_squashfs_line(s, str_cut(&listing, '\n'));
}
