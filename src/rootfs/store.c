#include "rootfs/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/assets.h"
#include "vm/verity.h"

#define SUFFIX ".squashfs"
#define LOCK_NAME ".build.lock"

enum { MANIFEST_MAX = 4 << 20, ENTRIES_MAX = 100000 };

void rootfs_store_fini(struct rootfs_store *s)
{
	if (s->dir == NULL)
		return;
	place_fini(&s->place);
	free(s->dir);
	fd_close(&s->fd);
	fd_close(&s->lock_fd);
	*s = (struct rootfs_store){.fd = -1, .lock_fd = -1, .place = {.fd = -1}};
}

int rootfs_store_open(const char *dir, bool change, struct rootfs_store *ret, struct err *err)
{
	autovar(rootfs_store) s = {.dir = xstrdup(dir), .fd = -1, .lock_fd = -1, .place = {.fd = -1}};
	autofree char *lock = xasprintf("%s/" LOCK_NAME, dir);
	char holder[FILE_HOLDER_SIZE];

	if (!change && access(dir, F_OK) != 0 && errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, "there is no folder %s: nothing is built yet", dir);
	int rc = change ? dir_make(dir, 0755, err) : 0;
	if (rc == 0)
		rc = dir_open(dir, &s.fd, err);
	if (rc == 0 && change)
		rc = file_lock(lock, 0644, &s.lock_fd, holder, err);
	if (rc > 0)
		return err_set(err, ERR_CONFLICT, "process %s changes the images of %s now", holder, dir);
	if (rc == 0 && change)
		rc = place_open(s.fd, dir, &s.place, err);
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(s);
	return 0;
}

/* --- one image --- */

static bool digest_of(const struct rootfs_store *s, const char *name, char ret[static ASSETS_DIGEST_SIZE])
{
	return assets_rootfs_digest(s->fd, str_c(name), ret, NULL) == 0;
}

static int point(struct rootfs_store *s, const char *name, const char *digest, struct err *err)
{
	autofree char *link = xasprintf("%s" SUFFIX, name);

	return assets_point(s->fd, link, str_c(digest), err);
}

/* From another file system: whole, or not at all. */
static int copy_image(struct rootfs_store *s, const char *file, const char *digest, struct err *err)
{
	autofree char *temp = xasprintf(".work-%016llx", (unsigned long long)crypto_random_u64());
	autoclose from = openat(s->place.fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	autoclose to = openat(s->fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	autovar(buf) copied = {0};

	if (from < 0 || to < 0)
		return err_sys(err, "copy the image into %s", s->dir);
	int rc = file_copy_fd(from, to, &copied, NULL, err);
	if (rc == 0 && strcmp(copied.data, digest) != 0)
		rc = err_set(err, ERR_IO, "the image was changed while it was copied");
	if (rc == 0 && (fchmod(to, 0444) != 0 || fsync(to) != 0 || renameat(s->fd, temp, s->fd, digest) != 0))
		rc = err_sys(err, "copy the image into %s", s->dir);
	if (rc < 0)
		(void)unlinkat(s->fd, temp, 0);
	return rc;
}

static int take_over(struct rootfs_store *s, const char *file, const char *digest, struct err *err)
{
	if (renameat(s->place.fd, file, s->fd, digest) == 0)
		return 0;
	return errno == EXDEV ? copy_image(s, file, digest, err) : err_sys(err, "put the image into %s", s->dir);
}

int rootfs_store_put(struct rootfs_store *s, const char *file, const char *digest, const char *name,
		     const struct js *manifest, struct err *err)
{
	autofree char *beside = xasprintf("%s.json", digest);
	autovar(buf) text = {0};

	js_write_pretty(manifest, &text);
	buf_putc(&text, '\n');
	/* The same bytes under the same name: whoever has the old one open has the same. */
	int rc = take_over(s, file, digest, err);
	if (rc == 0)
		rc = file_sync_parent(s->fd, digest, err);
	if (rc == 0)
		rc = file_write_atomic(s->fd, beside, buf_str(&text), 0644, err);
	return rc == 0 ? point(s, name, digest, err) : rc;
}

static struct js *read_manifest(const struct rootfs_store *s, const char *digest)
{
	autofree char *name = xasprintf("%s.json", digest);
	autovar(buf) text = {0};
	struct js *v = NULL;

	if (file_read(s->fd, name, MANIFEST_MAX, &text, NULL) < 0 || js_parse(buf_str(&text), &v, NULL) < 0)
		return NULL;
	return v;
}

/* --- active, and before --- */

bool rootfs_store_has_current(const struct rootfs_store *s)
{
	char digest[ASSETS_DIGEST_SIZE];

	return digest_of(s, "current", digest);
}

/* What was active is kept first: at no instant is it nobody's. */
int rootfs_store_activate(struct rootfs_store *s, const char *name, struct err *err)
{
	char wanted[ASSETS_DIGEST_SIZE], now[ASSETS_DIGEST_SIZE];

	int rc = assets_rootfs_digest(s->fd, str_c(name), wanted, err);
	if (rc < 0)
		return rc;
	if (digest_of(s, "current", now)) {
		if (strcmp(now, wanted) == 0)
			return STORE_UNCHANGED;
		rc = point(s, "previous", now, err);
	}
	return rc == 0 ? point(s, "current", wanted, err) : rc;
}

int rootfs_store_rollback(struct rootfs_store *s, struct err *err)
{
	char now[ASSETS_DIGEST_SIZE], before[ASSETS_DIGEST_SIZE];

	if (!digest_of(s, "previous", before) || !digest_of(s, "current", now))
		return err_set(err, ERR_CONFLICT, "nothing was active before in %s", s->dir);
	int rc = point(s, "current", before, err);
	return rc == 0 ? point(s, "previous", now, err) : rc;
}

/* --- all of them --- */

struct names {
	char **items;
	size_t count;
};

static void names_fini(struct names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->items[i]);
	free(n->items);
}
AUTOVAR_DEFINE(names)

static void dir_close(DIR **dir)
{
	if (*dir != NULL)
		(void)closedir(*dir);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_names(int folder_fd, const char *path, struct names *ret, struct err *err)
{
	int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	__attribute__((cleanup(dir_close))) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (dir == NULL)
		return err_sys(err, "read %s", path);
	while (ret->count < ENTRIES_MAX && (entry = readdir(dir)) != NULL) {
		ret->items = xreallocarray(ret->items, ret->count + 1, sizeof(*ret->items));
		ret->items[ret->count++] = xstrdup(entry->d_name);
	}
	if (ret->count > 0)
		qsort(ret->items, ret->count, sizeof(*ret->items), compare_names);
	return 0;
}

/* "dev.squashfs" to "dev"; false where it is no version, or only says which one is active. */
static bool version_name(const char *entry, char *name, size_t size)
{
	struct str s = str_c(entry);

	if (!str_ends_with(s, STR(SUFFIX)))
		return false;
	s.len -= strlen(SUFFIX);
	if (!assets_rootfs_name_valid(s) || s.len >= size || str_eq(s, STR("current")) || str_eq(s, STR("previous")))
		return false;
	(void)snprintf(name, size, "%.*s", STR_ARG(s));
	return true;
}

static int64_t size_of(const struct rootfs_store *s, const char *name)
{
	struct stat st;

	return fstatat(s->fd, name, &st, 0) == 0 ? (int64_t)st.st_size : 0;
}

static void set_from(struct js *row, const char *key, const struct js *value)
{
	js_set(row, key, value != NULL ? js_copy(value) : js_new_null());
}

static struct js *row_of(const struct rootfs_store *s, const char *name, const char *digest)
{
	char active[ASSETS_DIGEST_SIZE] = "", before[ASSETS_DIGEST_SIZE] = "";
	autoptr(js) manifest = read_manifest(s, digest);
	struct js *row = js_new_object();

	(void)digest_of(s, "current", active);
	(void)digest_of(s, "previous", before);
	js_set(row, "name", js_new_text(name));
	js_set(row, "sha256", js_new_text(digest));
	js_set(row, "size", js_new_int(size_of(s, digest)));
	js_set(row, "active", js_new_bool(strcmp(active, digest) == 0));
	js_set(row, "previous", js_new_bool(strcmp(before, digest) == 0));
	set_from(row, "rootfs_id", js_get(manifest, "rootfs_id"));
	set_from(row, "verity_root", js_get(js_get(manifest, "verity"), "root_hash"));
	set_from(row, "base", js_get(js_get(manifest, "base"), "type"));
	set_from(row, "description", js_get(manifest, "description"));
	return row;
}

int rootfs_store_list(const struct rootfs_store *s, struct js **ret, struct err *err)
{
	autovar(names) names = {0};
	char name[ASSETS_NAME_MAX + 1], digest[ASSETS_DIGEST_SIZE];

	int rc = read_names(s->fd, s->dir, &names, err);
	if (rc < 0)
		return rc;
	*ret = js_new_array();
	for (size_t i = 0; i < names.count; i++)
		if (version_name(names.items[i], name, sizeof(name)) && digest_of(s, name, digest))
			js_push(*ret, row_of(s, name, digest));
	return 0;
}

/* --- verifying --- */

static int check_tree(const struct rootfs_store *s, const char *digest, int fd, struct err *err)
{
	autoptr(js) manifest = read_manifest(s, digest);
	struct verity v = {0};

	int rc = verity_read(fd, &v, err);
	if (rc == VERITY_NONE) /* of before, or of another program */
		return js_get(manifest, "verity") == NULL ? 0 : err_set(err, ERR_INVALID, "its hash tree is missing");
	if (rc == 0)
		rc = verity_check(fd, &v, err);
	const char *promised = js_text(js_get(js_get(manifest, "verity"), "root_hash"), v.root);
	if (rc == 0 && strcmp(promised, v.root) != 0)
		rc = err_set(err, ERR_INVALID, "its root hash is %s, and the manifest says %.80s", v.root, promised);
	return rc;
}

static int check_image(const struct rootfs_store *s, const char *digest, struct err *err)
{
	autovar(buf) found = {0};
	autoclose fd = -1;

	int rc = assets_open_digest(s->fd, digest, &fd, err);
	if (rc == 0)
		rc = file_copy_fd(fd, -1, &found, NULL, err);
	if (rc == 0 && strcmp(found.data, digest) != 0)
		rc = err_set(err, ERR_INVALID, "its bytes have sha256 %s: it was changed since it was built",
			     found.data);
	return rc == 0 ? check_tree(s, digest, fd, err) : rc;
}

int rootfs_store_verify(const struct rootfs_store *s, const char *name, struct js **ret, struct err *err)
{
	autoptr(js) rows = NULL;
	char digest[ASSETS_DIGEST_SIZE];

	int rc = rootfs_store_list(s, &rows, err);
	if (rc == 0 && name != NULL)
		rc = assets_rootfs_digest(s->fd, str_c(name), digest, err);
	if (rc < 0)
		return rc;
	*ret = js_new_array();
	for (size_t i = 0; i < js_len(rows); i++) {
		const struct js *row = js_at(rows, i);
		const char *row_digest = js_text(js_get(row, "sha256"), "");
		struct err problem = {0};
		if (name != NULL && strcmp(row_digest, digest) != 0)
			continue;
		bool ok = check_image(s, row_digest, &problem) == 0;
		struct js *result = js_new_object();
		set_from(result, "name", js_get(row, "name"));
		set_from(result, "sha256", js_get(row, "sha256"));
		js_set(result, "ok", js_new_bool(ok));
		js_set(result, "problem", ok ? js_new_null() : js_new_text(problem.msg));
		js_push(*ret, result);
	}
	return 0;
}

/* --- removing --- */

struct collection {
	struct rootfs_store *store;
	const struct names *names;
	const struct rootfs_config *config;
	bool dry_run;
	struct js *rows;
};

static void add_row(struct collection *c, const char *name, const char *digest, int64_t bytes, const char *kept)
{
	struct js *row = js_new_object();

	js_set(row, "name", name != NULL ? js_new_text(name) : js_new_null());
	js_set(row, "sha256", digest != NULL ? js_new_text(digest) : js_new_null());
	js_set(row, "bytes", js_new_int(bytes));
	js_set(row, "kept", kept != NULL ? js_new_text(kept) : js_new_null());
	js_push(c->rows, row);
}

/* What has no manifest was not built by us: the images that come with the program. */
static bool built_here(const struct rootfs_store *s, const char *digest)
{
	autofree char *manifest = xasprintf("%s.json", digest);

	return faccessat(s->fd, manifest, F_OK, 0) == 0;
}

/* Names that the configuration no longer has. */
static void drop_names(struct collection *c)
{
	char name[ASSETS_NAME_MAX + 1], digest[ASSETS_DIGEST_SIZE], active[ASSETS_DIGEST_SIZE] = "",
								    before[ASSETS_DIGEST_SIZE] = "";

	(void)digest_of(c->store, "current", active);
	(void)digest_of(c->store, "previous", before);
	for (size_t i = 0; c->config != NULL && i < c->names->count; i++) {
		const struct rootfs_version *version = NULL;
		if (!version_name(c->names->items[i], name, sizeof(name)) || !digest_of(c->store, name, digest) ||
		    !built_here(c->store, digest) || rootfs_config_find(c->config, name, &version, NULL) == 0)
			continue;
		if (strcmp(digest, active) == 0 || strcmp(digest, before) == 0) {
			add_row(c, name, digest, 0,
				strcmp(digest, active) == 0 ? "it is active" : "it was active before");
			continue;
		}
		if (!c->dry_run)
			(void)unlinkat(c->store->fd, c->names->items[i], 0);
		add_row(c, name, digest, 0, NULL);
	}
}

/* Of the links as they are now, or would be. */
static bool is_named(const struct collection *c, const char *digest)
{
	for (size_t i = 0; i < c->names->count; i++) {
		char link[ASSETS_DIGEST_SIZE + 1];
		char name[ASSETS_NAME_MAX + 1];
		const struct rootfs_version *version = NULL;
		ssize_t len = readlinkat(c->store->fd, c->names->items[i], link, sizeof(link));
		if (len != ASSETS_DIGEST_SIZE - 1 || memcmp(link, digest, (size_t)len) != 0)
			continue;
		bool goes = c->dry_run && c->config != NULL && built_here(c->store, digest) &&
			    version_name(c->names->items[i], name, sizeof(name)) &&
			    rootfs_config_find(c->config, name, &version, NULL) < 0;
		if (!goes)
			return true;
	}
	return false;
}

/* Who uses an image holds a lock on it, which lasts as long as the descriptor does, in whichever process it ends up. */
static bool is_in_use(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) != 0;
}

static void drop_image(struct collection *c, const char *digest)
{
	autofree char *manifest = xasprintf("%s.json", digest);
	autoclose fd = openat(c->store->fd, digest, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int64_t bytes = size_of(c->store, digest);

	if (fd < 0 || is_in_use(fd)) {
		add_row(c, NULL, digest, bytes, fd < 0 ? "it cannot be opened" : "a VM runs from it");
		return;
	}
	if (!c->dry_run) {
		(void)unlinkat(c->store->fd, digest, 0);
		(void)unlinkat(c->store->fd, manifest, 0);
	}
	add_row(c, NULL, digest, bytes, NULL);
}

/* This process has the lock: no build is under way. */
static void drop_remains(struct collection *c, int folder_fd, const char *name)
{
	struct str s = str_c(name);
	bool ours = str_starts_with(s, STR(".work-")) || str_eq(s, STR(".downloads"));

	if (!ours)
		return;
	if (!c->dry_run)
		(void)!dir_remove(folder_fd, name, NULL);
	add_row(c, name, NULL, 0, NULL);
}

int rootfs_store_gc(struct rootfs_store *s, const struct rootfs_config *config, bool dry_run, struct js **ret,
		    struct err *err)
{
	autovar(names) names = {0};
	autovar(names) beside = {0};
	struct collection c = {.store = s, .names = &names, .config = config, .dry_run = dry_run};

	int rc = read_names(s->fd, s->dir, &names, err);
	if (rc == 0 && s->place.beside)
		rc = read_names(s->place.fd, s->place.path, &beside, err);
	if (rc < 0)
		return rc;
	c.rows = js_new_array();
	drop_names(&c);
	for (size_t i = 0; i < names.count; i++) {
		if (assets_is_digest(str_c(names.items[i])) && !is_named(&c, names.items[i]))
			drop_image(&c, names.items[i]);
		else
			drop_remains(&c, s->fd, names.items[i]);
	}
	for (size_t i = 0; i < beside.count; i++)
		drop_remains(&c, s->place.fd, beside.items[i]);
	*ret = c.rows;
	return 0;
}
