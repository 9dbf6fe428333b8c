#include "vm/assets.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

#define ROOTFS_SUFFIX ".squashfs"

enum { LINKED_SIZE_MIN = 32 << 20, MANIFEST_MAX = 64 * 1024, DIGEST_LEN = ASSETS_DIGEST_SIZE - 1 };

int assets_find_share(char **ret_path, struct err *err)
{
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len < 0)
		return err_sys(err, "find this program");
	self[len] = '\0';
	char *slash = strrchr(self, '/');
	autofree char *beside = xasprintf("%.*s/share", (int)(slash - self), self);
	const char *const places[] = {beside, "/usr/share/nimbus"};
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		autofree char *manifest = xasprintf("%s/manifest", places[i]);
		if (access(manifest, R_OK) == 0) {
			*ret_path = xstrdup(places[i]);
			return 0;
		}
	}
	return err_set(err, ERR_UNAVAILABLE, "no kernel and rootfs in %s or %s: 'make assets' builds them", places[0],
		       places[1]);
}

/* --- installing --- */

bool assets_is_digest(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (strchr("0123456789abcdef", s.data[i]) == NULL)
			return false;
	}
	return s.len == DIGEST_LEN;
}

/* The name `temp` is the caller's to rename or remove. */
static int copy_file(int share_fd, const char *name, int assets_fd, const char *temp, struct str digest,
		     struct err *err)
{
	autovar(buf) found = {0};
	autoclose from = openat(share_fd, name, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return err_sys(err, "open");
	autoclose to = openat(assets_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0444);
	if (to < 0)
		return err_sys(err, "create");

	int rc = file_copy_fd(from, to, &found, NULL, err);
	if (rc == 0 && !str_eq(buf_str(&found), digest))
		rc = err_set(err, ERR_INVALID, "its digest is not the manifest's");
	if (rc == 0 && fsync(to) != 0)
		rc = err_sys(err, "sync");
	return rc;
}

/*
 * A large image becomes another name of the file itself: copying it takes seconds and its size of disk. That is as good
 * as a copy where only root, or who we are, can change the file; what it holds is proved when a job uses it, as always
 * (agent/image.h). False: it cannot be, so it is copied.
 */
static bool link_image(int share_fd, const char *name, int assets_fd, const char *temp)
{
	char path[64];
	struct stat st;
	autoclose fd = openat(share_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (!str_ends_with(str_c(name), STR(ROOTFS_SUFFIX)) || fd < 0 || fstat(fd, &st) != 0)
		return false;
	if (!S_ISREG(st.st_mode) || st.st_size < LINKED_SIZE_MIN || (st.st_mode & 022) != 0 ||
	    (st.st_uid != 0 && st.st_uid != geteuid()))
		return false;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, assets_fd, temp, AT_SYMLINK_FOLLOW) == 0;
}

static int install_file(int share_fd, const char *name, int assets_fd, struct str digest, struct err *err)
{
	autofree char *blob = xasprintf("%.*s", STR_ARG(digest));
	autofree char *temp = xasprintf("%s.tmp-%016llx", blob, (unsigned long long)crypto_random_u64());

	if (faccessat(assets_fd, blob, F_OK, 0) == 0)
		return 0;
	bool linked = link_image(share_fd, name, assets_fd, temp);
	int rc = linked ? 0 : copy_file(share_fd, name, assets_fd, temp, digest, err);
	if (rc == 0 && renameat(assets_fd, temp, assets_fd, blob) != 0)
		rc = err_sys(err, "rename");
	if (rc < 0)
		(void)unlinkat(assets_fd, temp, 0);
	return rc;
}

int assets_point(int assets_fd, const char *name, struct str digest, struct err *err)
{
	autofree char *blob = xasprintf("%.*s", STR_ARG(digest));
	autofree char *temp = xasprintf("%s.tmp-%016llx", name, (unsigned long long)crypto_random_u64());
	char now[DIGEST_LEN + 1];
	ssize_t len = readlinkat(assets_fd, name, now, sizeof(now));

	if (len == DIGEST_LEN && memcmp(now, blob, DIGEST_LEN) == 0)
		return 0;
	if (symlinkat(blob, assets_fd, temp) != 0)
		return err_sys(err, "link");
	if (renameat(assets_fd, temp, assets_fd, name) != 0) {
		int rc = err_sys(err, "link");
		(void)unlinkat(assets_fd, temp, 0);
		return rc;
	}
	return file_sync_parent(assets_fd, name, err);
}

/* "DIGEST  NAME" */
static int install_line(int share_fd, int assets_fd, struct str line, struct err *err)
{
	struct str name = line;
	struct str digest = str_cut(&name, ' ');

	name = str_trim(name);
	if (!assets_is_digest(digest) || !assets_rootfs_name_valid(name))
		return err_set(err, ERR_INVALID, "manifest: '%.*s' is not a digest and a name", STR_ARG(line));
	autofree char *text = xasprintf("%.*s", STR_ARG(name));
	int rc = install_file(share_fd, text, assets_fd, digest, err);
	if (rc == 0)
		rc = assets_point(assets_fd, text, digest, err);
	return rc < 0 ? err_wrap(err, "install %s", text) : 0;
}

int assets_install(const char *share_dir, const char *assets_dir, struct err *err)
{
	autovar(buf) manifest = {0};
	autoclose share_fd = -1;
	autoclose assets_fd = -1;

	int rc = dir_open(share_dir, &share_fd, err);
	if (rc == 0)
		rc = dir_make(assets_dir, 0755, err);
	if (rc == 0)
		rc = dir_open(assets_dir, &assets_fd, err);
	if (rc == 0)
		rc = file_read(share_fd, "manifest", MANIFEST_MAX, &manifest, err);
	struct str rest = str_trim(buf_str(&manifest));
	while (rc == 0 && rest.len > 0)
		rc = install_line(share_fd, assets_fd, str_cut(&rest, '\n'), err);
	return rc;
}

/* --- opening --- */

bool assets_rootfs_name_valid(struct str name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";

	if (name.len == 0 || name.len > ASSETS_NAME_MAX || strchr("._-", name.data[0]) != NULL)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if (name.data[i] == '\0' || strchr(allowed, name.data[i]) == NULL)
			return false;
	}
	return true;
}

static int open_part(int assets_fd, const char *name, int *ret_fd, struct err *err)
{
	int fd = openat(assets_fd, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return err_set(err, ERR_UNAVAILABLE,
			       "no %s in the assets folder: start 'nimbus up' once, or 'make assets'", name);
	if (fd < 0)
		return err_sys(err, "open %s", name);
	*ret_fd = fd;
	return 0;
}

int assets_open_kernel(int assets_fd, int *ret_fd, struct err *err)
{
	return open_part(assets_fd, "vmlinux", ret_fd, err);
}

int assets_open_initrd(int assets_fd, int *ret_fd, struct err *err)
{
	return open_part(assets_fd, "initrd", ret_fd, err);
}

/* "demo, runner" */
static void list_rootfs(int assets_fd, struct buf *out)
{
	int fd = openat(assets_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		struct str name = str_c(entry->d_name);
		if (!str_ends_with(name, STR(ROOTFS_SUFFIX)))
			continue;
		name.len -= strlen(ROOTFS_SUFFIX);
		buf_printf(out, "%s%.*s", out->len > 0 ? ", " : "", STR_ARG(name));
	}
	if (dir != NULL)
		(void)closedir(dir);
}

static int unknown_rootfs(int assets_fd, struct str name, struct err *err)
{
	autovar(buf) known = {0};

	list_rootfs(assets_fd, &known);
	return err_set(err, ERR_NOT_FOUND, "no rootfs '%.*s'; there are: %s", STR_ARG(name),
		       known.len > 0 ? known.data : "none");
}

int assets_rootfs_digest(int assets_fd, struct str name, char ret[static ASSETS_DIGEST_SIZE], struct err *err)
{
	autofree char *file = xasprintf("%.*s%s", STR_ARG(name), ROOTFS_SUFFIX);
	char link[ASSETS_DIGEST_SIZE + 1];

	if (!assets_rootfs_name_valid(name))
		return unknown_rootfs(assets_fd, name, err);
	ssize_t len = readlinkat(assets_fd, file, link, sizeof(link));
	if (len < 0 && errno == ENOENT)
		return unknown_rootfs(assets_fd, name, err);
	if (len < 0 || !assets_is_digest((struct str){link, (size_t)len}))
		return err_set(err, ERR_UNAVAILABLE, "%s has no digest to its name: 'nimbus rootfs build' gives it one",
			       file);
	memcpy(ret, link, DIGEST_LEN);
	ret[DIGEST_LEN] = '\0';
	return 0;
}

int assets_open_digest(int assets_fd, const char *digest, int *ret_fd, struct err *err)
{
	if (!assets_is_digest(str_c(digest)))
		return err_set(err, ERR_INVALID, "'%.80s' is no digest", digest);
	autoclose fd = openat(assets_fd, digest, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, "no image sha256:%s here", digest);
	if (fd < 0)
		return err_sys(err, "open image sha256:%s", digest);
	/* Held only by who removes, for an instant. */
	if (flock(fd, LOCK_SH) != 0)
		return err_sys(err, "use image sha256:%s", digest);
	*ret_fd = fd_take(&fd);
	return 0;
}

int assets_open_rootfs(int assets_fd, struct str name, int *ret_fd, struct err *err)
{
	if (str_find(name, '/') >= 0 || str_find(name, ':') >= 0)
		return err_set(err, ERR_UNSUPPORTED, "image '%.*s': OCI images come later; name a rootfs",
			       STR_ARG(name));
	if (assets_rootfs_name_valid(name)) {
		autofree char *file = xasprintf("%.*s%s", STR_ARG(name), ROOTFS_SUFFIX);
		*ret_fd = openat(assets_fd, file, O_RDONLY | O_CLOEXEC);
		if (*ret_fd >= 0)
			return 0;
		if (errno != ENOENT)
			return err_sys(err, "open %s", file);
	}
	return unknown_rootfs(assets_fd, name, err);
}
