#include "cli/file_list.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/progress.h"

enum {
	NAMED_MAX = 5, /* so many are named, the others counted */
	LARGEST_MAX = 3,
	DEPTH_MAX = 64, /* of work trees within each other */
	NAMES_MAX = 1 << 30,
};

/* Names for a remark: the first few, and how many in all. */
struct named {
	struct buf text;
	size_t count;
};

struct maker {
	const struct file_list_opts *opts;
	struct file_list *list;
	int folder; /* descriptor */
	struct named special;
	struct named unreadable;
	struct named mounts;
};

static void maker_fini(struct maker *m)
{
	fd_close(&m->folder);
	buf_fini(&m->special.text);
	buf_fini(&m->unreadable.text);
	buf_fini(&m->mounts.text);
}
AUTOVAR_DEFINE(maker)

void file_list_fini(struct file_list *l)
{
	buf_fini(&l->names);
	buf_fini(&l->notes);
	free(l->paths);
}

static void name_it(struct named *n, const char *path, const char *why)
{
	if (n->count++ < NAMED_MAX)
		buf_printf(&n->text, "%s%s%s", n->text.len > 0 ? ", " : "", path, why);
}

static void finish_names(struct named *n)
{
	if (n->count > NAMED_MAX)
		buf_printf(&n->text, " and %zu more", n->count - NAMED_MAX);
}

/* --- the order: a folder directly before what is in it --- */

static int compare_paths(const void *a, const void *b)
{
	const unsigned char *x = *(const unsigned char *const *)a;
	const unsigned char *y = *(const unsigned char *const *)b;

	while (*x == *y && *x != '\0') {
		x++;
		y++;
	}
	int left = *x == '/' ? 1 : *x;
	int right = *y == '/' ? 1 : *y;
	return left - right;
}

static int sort(struct maker *m, struct err *err)
{
	struct file_list *l = m->list;
	const char *end = l->names.data + l->names.len;
	size_t count = 0;

	if (l->names.len > NAMES_MAX)
		return err_set(err, ERR_TOO_LARGE, "'%s' has too many files", m->opts->folder);
	for (const char *at = l->names.data; at < end; at += strlen(at) + 1)
		count++;
	l->paths = xcalloc(count + 1, sizeof(*l->paths));
	for (const char *at = l->names.data; at < end; at += strlen(at) + 1)
		l->paths[l->count++] = at;
	if (l->count > 0)
		qsort(l->paths, l->count, sizeof(*l->paths), compare_paths);
	return 0;
}

static void add(struct maker *m, const char *prefix, const char *path)
{
	struct buf *names = &m->list->names;

	if (prefix[0] != '\0')
		buf_printf(names, "%s/", prefix);
	buf_puts(names, path);
	while (str_ends_with(buf_str(names), STR("/"))) /* git marks a folder so */
		names->len--;
	buf_append(names, "", 1);
}

/* --- everything --- */

static int open_fts(const char *path, FTS **ret, struct err *err)
{
	autofree char *copy = xstrdup(path);
	char *const roots[] = {copy, NULL};

	*ret = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	return *ret != NULL ? 0 : err_sys(err, "read the folder '%s'", path);
}

static int take_walked(struct maker *m, const FTSENT *e, size_t skip, struct err *err)
{
	const char *path = e->fts_path + skip;

	switch (e->fts_info) {
	case FTS_DNR:
		name_it(&m->unreadable, path, "");
		return 0;
	case FTS_ERR:
		return err_set(err, ERR_IO, "read '%s': %s", e->fts_path, strerrordesc_np(e->fts_errno));
	case FTS_DP:
		return 0;
	default:
		if (e->fts_level > 0)
			add(m, "", path);
		return 0;
	}
}

/* `below` is "" or a folder in it. */
static int walk(struct maker *m, const char *below, struct err *err)
{
	const char *root = m->opts->folder;
	autofree char *path = below[0] != '\0' ? xasprintf("%s/%s", root, below) : xstrdup(root);
	FTS *fts = NULL;
	FTSENT *e = NULL;

	if (below[0] != '\0')
		add(m, "", below);
	int rc = open_fts(path, &fts, err);
	if (rc < 0)
		return rc;
	size_t skip = strlen(root) + (str_ends_with(str_c(root), STR("/")) ? 0 : 1);
	while (rc == 0 && (e = fts_read(fts)) != NULL)
		rc = take_walked(m, e, skip, err);
	(void)fts_close(fts);
	return rc;
}

/* --- by git --- */

static bool is_there(int folder, const char *path, mode_t type)
{
	struct stat st;

	return fstatat(folder, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && (type == 0 || (st.st_mode & S_IFMT) == type);
}

static bool in_work_tree(const char *folder)
{
	autofree char *path = realpath(folder, NULL);

	while (path != NULL) {
		autofree char *git = xasprintf("%s/.git", path);
		if (is_there(AT_FDCWD, git, 0))
			return true;
		if (path[0] == '\0')
			return false;
		*strrchr(path, '/') = '\0';
	}
	return false;
}

/* What git needs to believe in a repository; its only use is that .gitignore files count. */
static int make_empty_repository(char *path, struct err *err)
{
	static const char *const folders[] = {"objects", "refs"};
	autoclose fd = -1;

	if (mkdtemp(path) == NULL)
		return err_sys(err, "make a temporary folder '%s'", path);
	int rc = dir_open(path, &fd, err);
	for (size_t i = 0; i < ARRAY_LEN(folders) && rc == 0; i++) {
		if (mkdirat(fd, folders[i], 0700) < 0)
			rc = err_sys(err, "make '%s/%s'", path, folders[i]);
	}
	if (rc == 0)
		rc = file_write_new(fd, "HEAD", STR("ref: refs/heads/none\n"), 0600, err);
	return rc;
}

static bool is_of_git(const char *variable)
{
	static const char *const names[] = {"GIT_DIR=", "GIT_WORK_TREE=", "GIT_INDEX_FILE=", "GIT_PREFIX="};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

/* The settings of a work tree may be anybody's: a job can have brought back a folder with a .git. They name programs
 * that git runs, also to list files: one that watches for changes, hooks, and ways to fetch objects that are missing.
 */
#define GIT_HARMLESS "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"
static const char *const git_variables[] = {
	"LC_ALL=C",
	"GIT_ALLOW_PROTOCOL=none",
	"GIT_NO_LAZY_FETCH=1",
	"GIT_OPTIONAL_LOCKS=0",
};

/* Ours without what a hook of git's sets: another repository than the folder's. */
static const char **git_environment(void)
{
	size_t count = 0, kept = 0;

	while (environ[count] != NULL)
		count++;
	const char **env = xcalloc(count + ARRAY_LEN(git_variables) + 1, sizeof(*env));
	/* Of two of a name the first counts. */
	for (size_t i = 0; i < ARRAY_LEN(git_variables); i++)
		env[kept++] = git_variables[i];
	for (size_t i = 0; i < count; i++) {
		if (!is_of_git(environ[i]))
			env[kept++] = environ[i];
	}
	return env;
}

static int read_back(int fd, struct buf *out, struct err *err)
{
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, "read what git said");
	autofree char *path = xasprintf("/proc/self/fd/%d", fd);
	return file_read(AT_FDCWD, path, NAMES_MAX, out, err);
}

enum { GIT_IS_MISSING = 1 };
/* Its standard output and standard error. */
static int run_git(const char *const *argv, struct buf *out, struct buf *said, struct err *err)
{
	autoclose out_fd = memfd_create("git-out", MFD_CLOEXEC);
	autoclose said_fd = memfd_create("git-said", MFD_CLOEXEC);
	const struct process_fd fds[] = {{out_fd, STDOUT_FILENO}, {said_fd, STDERR_FILENO}};
	autofree const char **env = git_environment();
	struct process git = {0};
	struct process_exit end = {0};

	if (out_fd < 0 || said_fd < 0)
		return err_sys(err, "make room for git's answer");
	int rc = process_spawn(
		&(struct process_spec){.path = "git", .argv = argv, .envp = env, .fds = fds, .fd_count = 2}, &git, err);
	if (rc < 0)
		return strstr(err->msg, "No such file") != NULL ? GIT_IS_MISSING : rc;
	rc = process_wait(&git, INT64_MAX, &end, err);
	if (rc == 0)
		rc = read_back(said_fd, said, err);
	if (rc == 0 && (!end.exited || end.code != 0))
		return err_set(err, ERR_IO, "git cannot list the files: %.*s", STR_ARG(str_trim(buf_str(said))));
	return rc == 0 ? read_back(out_fd, out, err) : rc;
}

static int list_work_tree(struct maker *m, const char *below, unsigned depth, struct err *err);

/* A folder among git's files is a work tree within ours: a submodule, or one that git does not track. */
static int add_listed(struct maker *m, const char *below, const char *path, unsigned depth, struct err *err)
{
	autofree char *whole = below[0] != '\0' ? xasprintf("%s/%s", below, path) : xstrdup(path);

	if (!is_there(m->folder, whole, S_IFDIR)) {
		add(m, below, path);
		return 0;
	}
	autofree char *git = xasprintf("%s/.git", whole);
	add(m, below, path);
	if (!is_there(m->folder, git, 0))
		return 0;
	while (str_ends_with(str_c(whole), STR("/")))
		whole[strlen(whole) - 1] = '\0';
	return list_work_tree(m, whole, depth + 1, err);
}

static int add_all_listed(struct maker *m, const char *below, const struct buf *out, unsigned depth, struct err *err)
{
	const char *previous = "";
	int rc = 0;

	for (const char *at = out->data; at < out->data + out->len && rc == 0; at += strlen(at) + 1) {
		if (strcmp(at, previous) != 0) /* a conflict is listed thrice */
			rc = add_listed(m, below, at, depth, err);
		previous = at;
	}
	return rc;
}

/* Of a folder, by the repository that it is in or, with git_dir, by that. */
static int list_by_git(struct maker *m, const char *below, const char *git_dir, unsigned depth, struct err *err)
{
	autofree char *folder = xasprintf("%s/%s", m->opts->folder, below);
	autofree char *git_flag = xasprintf("--git-dir=%s", git_dir != NULL ? git_dir : "");
	const char *in_tree[] = {"git",	     GIT_HARMLESS,	   "-C", folder, "ls-files", "-z", "--cached",
				 "--others", "--exclude-standard", NULL};
	const char *alone[] = {"git",	   GIT_HARMLESS,	 "-C",	     folder,
			       git_flag,   "--work-tree=.",	 "ls-files", "-z",
			       "--others", "--exclude-standard", NULL};
	autovar(buf) out = {0};
	autovar(buf) said = {0};

	int rc = run_git(git_dir != NULL ? alone : in_tree, &out, &said, err);
	if (rc != 0)
		return rc;
	if (said.len > 0) /* of folders that it could not read, say */
		buf_printf(&m->list->notes, "git: %.*s\n", STR_ARG(str_trim(buf_str(&said))));
	return add_all_listed(m, below, &out, depth, err);
}

/* .git belongs to it; but what a linked work tree has in its place leads to nowhere in a job. */
static int add_git_folder(struct maker *m, const char *below, struct err *err)
{
	autofree char *git = below[0] != '\0' ? xasprintf("%s/.git", below) : xstrdup(".git");

	if (is_there(m->folder, git, S_IFDIR))
		return walk(m, git, err);
	if (below[0] != '\0' && is_there(m->folder, git, S_IFREG))
		add(m, "", git);
	else if (is_there(m->folder, git, S_IFREG))
		buf_puts(&m->list->notes, "this is a linked work tree: the job gets its files, but no .git\n");
	return 0;
}

static int list_work_tree(struct maker *m, const char *below, unsigned depth, struct err *err)
{
	if (depth > DEPTH_MAX)
		return err_set(err, ERR_INVALID, "'%s': work trees nested too deeply", below);
	int rc = list_by_git(m, below, NULL, depth, err);
	return rc == 0 ? add_git_folder(m, below, err) : rc;
}

static int list_plain_folder(struct maker *m, struct err *err)
{
	const char *temporary = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
	autofree char *path = xasprintf("%s/nimbus-git-XXXXXX", temporary);

	int rc = make_empty_repository(path, err);
	if (rc == 0)
		rc = list_by_git(m, "", path, 0, err);
	int removed = dir_remove(AT_FDCWD, path, rc < 0 ? NULL : err);
	return rc != 0 ? rc : removed;
}

static int list(struct maker *m, struct err *err)
{
	if (m->opts->all)
		return walk(m, "", err);
	int rc = in_work_tree(m->opts->folder) ? list_work_tree(m, "", 0, err) : list_plain_folder(m, err);
	if (rc != GIT_IS_MISSING)
		return rc;
	buf_puts(&m->list->notes, "git is not installed here, so .gitignore files count for nothing\n");
	m->list->names.len = 0;
	return walk(m, "", err);
}

/* --- what is there --- */

static const char *special_kind(mode_t mode)
{
	return S_ISSOCK(mode) ? " (a socket)" : S_ISFIFO(mode) ? " (a pipe)" : " (a device)";
}

/* Whether it stays in the list. */
static bool survey(struct maker *m, const char *path)
{
	struct stat st;

	if (fstatat(m->folder, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT && errno != ENOTDIR) /* deleted, but git still has it */
			name_it(&m->unreadable, path, "");
		return false;
	}
	if (S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))
		return true;
	if (!S_ISREG(st.st_mode)) {
		name_it(&m->special, path, special_kind(st.st_mode));
		return false;
	}
	if (faccessat(m->folder, path, R_OK, AT_EACCESS) < 0) {
		name_it(&m->unreadable, path, "");
		return false;
	}
	m->list->bytes += (uint64_t)st.st_size;
	return true;
}

static void survey_all(struct maker *m)
{
	struct file_list *l = m->list;
	size_t kept = 0;

	for (size_t i = 0; i < l->count; i++) {
		bool again = i > 0 && strcmp(l->paths[i], l->paths[i - 1]) == 0;
		if (!again && survey(m, l->paths[i]))
			l->paths[kept++] = l->paths[i];
	}
	l->count = kept;
}

static int judge(struct maker *m, struct err *err)
{
	finish_names(&m->special);
	finish_names(&m->unreadable);
	if (m->special.count > 0)
		buf_printf(&m->list->notes, "left out: %s\n", m->special.text.data);
	if (m->unreadable.count == 0)
		return 0;
	if (m->opts->skip_unreadable) {
		buf_printf(&m->list->notes, "left out, as they cannot be read: %s\n", m->unreadable.text.data);
		return 0;
	}
	m->list->hint = "make them readable, list them in .gitignore, or leave them out: --skip-unreadable";
	return err_set(err, ERR_IO, "cannot read %s", m->unreadable.text.data);
}

/* --- the bound --- */

struct part {
	struct str folder; /* its first two levels; empty: the folder itself */
	uint64_t bytes;
};

static struct str part_of(const char *path)
{
	const char *first = strchr(path, '/');
	const char *second = first != NULL ? strchr(first + 1, '/') : NULL;
	const char *end = second != NULL ? second : first;

	return (struct str){path, end != NULL ? (size_t)(end - path) : 0};
}

static int compare_parts(const void *a, const void *b)
{
	const struct part *x = a;
	const struct part *y = b;
	size_t len = x->folder.len < y->folder.len ? x->folder.len : y->folder.len;
	int order = memcmp(x->folder.data, y->folder.data, len);

	return order != 0 ? order : (x->folder.len > y->folder.len) - (x->folder.len < y->folder.len);
}

static int compare_sizes(const void *a, const void *b)
{
	const struct part *x = a;
	const struct part *y = b;

	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

/* The parts of the list, largest first. Files of a folder may stand in it apart, with other folders between them. */
static struct part *find_largest(const struct maker *m, size_t *ret_count)
{
	const struct file_list *l = m->list;
	struct part *parts = xcalloc(l->count + 1, sizeof(*parts));
	size_t count = 0, merged = 0;

	for (size_t i = 0; i < l->count; i++) {
		struct str folder = part_of(l->paths[i]);
		struct stat st;
		if (fstatat(m->folder, l->paths[i], &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		if (count == 0 || !str_eq(folder, parts[count - 1].folder))
			parts[count++].folder = folder;
		parts[count - 1].bytes += (uint64_t)st.st_size;
	}
	qsort(parts, count, sizeof(*parts), compare_parts);
	for (size_t i = 1; i < count; i++) {
		if (str_eq(parts[i].folder, parts[merged].folder))
			parts[merged].bytes += parts[i].bytes;
		else
			parts[++merged] = parts[i];
	}
	*ret_count = count > 0 ? merged + 1 : 0;
	qsort(parts, *ret_count, sizeof(*parts), compare_sizes);
	return parts;
}

static int check_bound(struct maker *m, struct err *err)
{
	autofree struct part *largest = NULL;
	autovar(buf) text = {0};
	size_t count = 0;
	char size[SIZE_TEXT], bound[SIZE_TEXT];

	if (m->list->bytes <= m->opts->max_bytes)
		return 0;
	largest = find_largest(m, &count);
	for (size_t i = 0; i < LARGEST_MAX && i < count; i++) {
		struct str folder = largest[i].folder;
		buf_printf(&text, "%s%.*s %s", i > 0 ? ", " : "", STR_ARG(folder.len > 0 ? folder : STR("files in it")),
			   size_text(largest[i].bytes, size));
	}
	m->list->hint = m->opts->max_flag;
	return err_set(err, ERR_TOO_LARGE, "'%s' has %s to send, over the bound of %s: %s", m->opts->folder,
		       size_text(m->list->bytes, size), size_text(m->opts->max_bytes, bound), text.data);
}

/* --- the whole --- */

int file_list_make(const struct file_list_opts *opts, struct file_list *ret, struct err *err)
{
	autovar(maker) m = {.opts = opts, .list = ret, .folder = -1};

	int rc = dir_open(opts->folder, &m.folder, err);
	if (rc == 0)
		rc = list(&m, err);
	if (rc == 0)
		rc = sort(&m, err);
	if (rc < 0)
		return rc;
	survey_all(&m);
	rc = judge(&m, err);
	return rc == 0 ? check_bound(&m, err) : rc;
}
