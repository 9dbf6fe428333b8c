#include "agent/image.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

enum { KEY_SIZE = 48, RECORD_MAX = 256 };

/* Within one tick of its clock a file can change without its times showing it. */
static const int64_t settled_ns = 2 * NS_PER_S;

/* --- remembered digests --- */

static char *key_of(const struct stat *st, char key[static KEY_SIZE])
{
	(void)snprintf(key, KEY_SIZE, "%jx-%ju", (uintmax_t)st->st_dev, (uintmax_t)st->st_ino);
	return key;
}

/* All that changes when a file does; the record is this and the digest. */
static char *state_of(const struct stat *st)
{
	return xasprintf("%jd %jd.%09ld %jd.%09ld ", (intmax_t)st->st_size, (intmax_t)st->st_mtim.tv_sec,
			 st->st_mtim.tv_nsec, (intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

static bool recall(int verified_fd, const struct stat *st, char digest[static ASSETS_DIGEST_SIZE])
{
	autovar(buf) record = {0};
	autofree char *state = state_of(st);
	char key[KEY_SIZE];

	if (file_read(verified_fd, key_of(st, key), RECORD_MAX, &record, NULL) < 0)
		return false;
	struct str rest = buf_str(&record);
	if (!str_starts_with(rest, str_c(state)))
		return false;
	rest.data += strlen(state);
	rest.len -= strlen(state);
	if (!assets_is_digest(rest))
		return false;
	memcpy(digest, rest.data, ASSETS_DIGEST_SIZE - 1);
	digest[ASSETS_DIGEST_SIZE - 1] = '\0';
	return true;
}

/* What cannot be kept is computed again. */
static void keep(int verified_fd, const struct stat *st, const char *digest)
{
	autofree char *state = state_of(st);
	autofree char *record = xasprintf("%s%s", state, digest);
	int64_t changed_at = st->st_ctim.tv_sec * NS_PER_S + st->st_ctim.tv_nsec;
	char key[KEY_SIZE];

	if (clock_unix_ns() - changed_at > settled_ns)
		(void)!file_write_atomic(verified_fd, key_of(st, key), str_c(record), 0600, NULL);
}

static int digest_of(int verified_fd, int fd, char digest[static ASSETS_DIGEST_SIZE], struct err *err)
{
	autovar(buf) found = {0};
	struct stat before, after;

	if (fstat(fd, &before) != 0)
		return err_sys(err, "look at the image");
	if (recall(verified_fd, &before, digest))
		return 0;
	if (lseek(fd, 0, SEEK_SET) != 0)
		return err_sys(err, "read the image");
	int rc = file_copy_fd(fd, -1, &found, NULL, err);
	if (rc < 0)
		return rc;
	if (fstat(fd, &after) != 0)
		return err_sys(err, "look at the image");
	memcpy(digest, found.data, ASSETS_DIGEST_SIZE);
	autofree char *first = state_of(&before);
	autofree char *second = state_of(&after);
	if (strcmp(first, second) == 0)
		keep(verified_fd, &after, digest);
	return 0;
}

/* --- opening --- */

/* Why the lease's image is not here, in words that say what to do. */
static int explain_missing(const struct image_order *o, struct err *err)
{
	char here[ASSETS_DIGEST_SIZE];
	struct err why = {0};

	if (assets_rootfs_digest(o->assets_fd, str_c(o->name), here, &why) < 0)
		return err_set(err, ERR_NOT_FOUND, "image '%s': the lease names sha256:%s, and this host has none: %s",
			       o->name, o->digest, why.msg);
	return err_set(err, ERR_NOT_FOUND,
		       "image '%s': the lease names sha256:%s, and this host has sha256:%s under the name: install the "
		       "same images on both",
		       o->name, o->digest, here);
}

/* One that was laid there by hand goes by its name alone. */
static int open_by_name(const struct image_order *o, int *ret_fd, struct err *err)
{
	int rc = assets_open_rootfs(o->assets_fd, str_c(o->name), ret_fd, err);

	return rc == 0 && flock(*ret_fd, LOCK_SH) != 0 ? err_sys(err, "use image '%s'", o->name) : rc;
}

/* What the lease names, wherever it lies; a file without a digest to its name is proved like the others. */
static int open_named(const struct image_order *o, int *ret_fd, struct err *err)
{
	char here[ASSETS_DIGEST_SIZE];
	struct err missing = {0};

	int rc = assets_open_digest(o->assets_fd, o->digest, ret_fd, &missing);
	if (rc < 0 && rc != -ERR_NOT_FOUND)
		*err = missing;
	if (rc != -ERR_NOT_FOUND)
		return rc;
	if (assets_rootfs_digest(o->assets_fd, str_c(o->name), here, NULL) == -ERR_UNAVAILABLE)
		return open_by_name(o, ret_fd, err);
	return explain_missing(o, err);
}

/* `expected`: the digest that the file has to have, or "". */
static int open_file(const struct image_order *o, char expected[static ASSETS_DIGEST_SIZE], int *ret_fd,
		     struct err *err)
{
	if (o->digest != NULL) {
		(void)snprintf(expected, ASSETS_DIGEST_SIZE, "%s", o->digest);
		return open_named(o, ret_fd, err);
	}
	if (assets_rootfs_digest(o->assets_fd, str_c(o->name), expected, NULL) == 0)
		return assets_open_digest(o->assets_fd, expected, ret_fd, err);
	expected[0] = '\0';
	return open_by_name(o, ret_fd, err);
}

int image_open(const struct image_order *o, struct image *ret, int *ret_fd, struct err *err)
{
	char expected[ASSETS_DIGEST_SIZE];
	struct image image = {0};
	autoclose fd = -1;

	int rc = open_file(o, expected, &fd, err);
	if (rc == 0)
		rc = digest_of(o->verified_fd, fd, image.digest, err);
	if (rc < 0)
		return rc;
	if (expected[0] != '\0' && strcmp(image.digest, expected) != 0)
		return err_set(
			err, ERR_INVALID,
			"image '%s' is not what it says: its file should be sha256:%s, and has sha256:%s; build or "
			"install it again",
			o->name, expected, image.digest);
	rc = verity_read(fd, &image.verity, err);
	if (rc < 0)
		return err_wrap(err, "image '%s'", o->name);
	image.has_verity = rc != VERITY_NONE;
	*ret = image;
	*ret_fd = fd_take(&fd);
	return 0;
}
