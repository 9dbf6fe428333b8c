#include "store/blobs.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

/* No blob's name begins so. */
#define TEMP_PREFIX ".new-"

enum {
	LOOK_EVERY = 16 << 20, /* bytes between two looks at the free space */
	FLUSH_EVERY = 8 << 20, /* bytes that the kernel may keep back before it is told to begin writing */
};

struct blobs {
	struct blobs_opts opts;
	int dir_fd;
	DIR *walk;	      /* of blobs_next(); NULL: it begins anew */
	pthread_mutex_t lock; /* guards all below */
	struct blob_upload *uploads;
	uint64_t next;
	struct blobs_counts counts;
};

struct blob_upload {
	struct blobs *blobs;
	struct blob_upload *later;
	char temp[64];
	char name[BLOB_NAME_MAX + 1]; /* that it has now, or gets; guarded by the lock of `blobs` */
	int fd;
	int64_t max;
	int64_t size;
	int64_t look_at; /* the size at which the free space is looked at again */
	int64_t flushed;
	struct crypto_hash *hash;
	bool committed;
	bool is_link; /* nobody sends it */
};

/* --- the folder --- */

static int open_walk(const struct blobs *b, DIR **ret, struct err *err)
{
	int fd = openat(b->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (dir == NULL) {
		fd_close(&fd);
		return err_sys(err, "list the blobs");
	}
	*ret = dir;
	return 0;
}

static bool is_held(struct blobs *b, const char *name)
{
	bool held = false;

	pthread_mutex_lock(&b->lock);
	for (const struct blob_upload *u = b->uploads; u != NULL && !held; u = u->later)
		held = strcmp(u->name, name) == 0;
	pthread_mutex_unlock(&b->lock);
	return held;
}

int blobs_next(struct blobs *b, size_t max, struct arena *arena, const char **ret_names, size_t *ret_count,
	       struct err *err)
{
	int rc = b->walk == NULL ? open_walk(b, &b->walk, err) : 0;
	size_t count = 0;

	if (rc < 0)
		return rc;
	while (count < max) {
		const struct dirent *e = readdir(b->walk);
		if (e == NULL) {
			(void)closedir(b->walk);
			b->walk = NULL;
			break;
		}
		if (e->d_name[0] != '.' && !is_held(b, e->d_name))
			ret_names[count++] = arena_strdup(arena, e->d_name);
	}
	*ret_count = count;
	return 0;
}

/* Of a process that is no more. */
static int remove_temps(const struct blobs *b, struct err *err)
{
	size_t removed = 0;
	DIR *dir = NULL;
	int rc = open_walk(b, &dir, err);

	if (rc < 0)
		return rc;
	for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
		if (strncmp(e->d_name, TEMP_PREFIX, sizeof(TEMP_PREFIX) - 1) == 0)
			removed += unlinkat(b->dir_fd, e->d_name, 0) == 0;
	}
	(void)closedir(dir);
	if (removed > 0)
		log_info("half-written files were removed", F("count", (uint64_t)removed));
	return 0;
}

int blobs_open(const struct blobs_opts *opts, struct blobs **ret, struct err *err)
{
	autoptr(blobs) b = xcalloc(1, sizeof(*b));

	b->opts = *opts;
	b->opts.folder = NULL;
	b->dir_fd = -1;
	pthread_mutex_init(&b->lock, NULL);
	int rc = dir_make(opts->folder, 0700, err);
	if (rc == 0)
		rc = dir_open(opts->folder, &b->dir_fd, err);
	if (rc == 0)
		rc = remove_temps(b, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(b);
	return 0;
}

void blobs_free(struct blobs *b)
{
	if (b == NULL)
		return;
	assert(b->uploads == NULL);
	pthread_mutex_destroy(&b->lock);
	if (b->walk != NULL)
		(void)closedir(b->walk);
	fd_close(&b->dir_fd);
	free(b);
}

struct blobs_counts blobs_counts(struct blobs *b)
{
	pthread_mutex_lock(&b->lock);
	struct blobs_counts counts = b->counts;
	pthread_mutex_unlock(&b->lock);
	counts.uploads_max = b->opts.uploads_max;
	return counts;
}

static void check_name(const char *name)
{
	size_t len = strlen(name);

	assert(len > 0 && len <= BLOB_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len);
}

/* --- one upload --- */

static int check_room(const struct blobs *b, struct err *err)
{
	uint64_t left = 0;
	int rc = disk_free(b->dir_fd, &left, err);

	if (rc == 0 && left < (uint64_t)b->opts.min_free)
		rc = err_set(err, ERR_DISK_FULL,
			     "the disk is full: no file is taken while less than %" PRId64 " MiB are free",
			     b->opts.min_free / (1 << 20));
	return rc;
}

static bool enter(struct blobs *b, struct blob_upload *u)
{
	pthread_mutex_lock(&b->lock);
	bool room = u->is_link || b->counts.uploads < b->opts.uploads_max;
	if (room) {
		b->counts.uploads += !u->is_link;
		u->blobs = b;
		u->later = b->uploads;
		b->uploads = u;
		(void)snprintf(u->temp, sizeof(u->temp), TEMP_PREFIX "%" PRIu64, b->next++);
	}
	pthread_mutex_unlock(&b->lock);
	return room;
}

static void leave(struct blobs *b, const struct blob_upload *u)
{
	struct blob_upload **link = &b->uploads;

	pthread_mutex_lock(&b->lock);
	while (*link != u)
		link = &(*link)->later;
	*link = u->later;
	b->counts.uploads -= !u->is_link;
	if (u->committed) {
		b->counts.stored++;
		b->counts.stored_bytes += (uint64_t)u->size;
	}
	pthread_mutex_unlock(&b->lock);
}

int blob_begin(struct blobs *b, int64_t max, struct blob_upload **ret, struct err *err)
{
	autoptr(blob_upload) u = xcalloc(1, sizeof(*u));
	int rc = check_room(b, err);

	u->fd = -1;
	if (rc < 0)
		return rc;
	if (!enter(b, u))
		return err_set(err, ERR_UNAVAILABLE, "%zu files are being sent already: try again in a moment",
			       b->opts.uploads_max);
	u->max = max;
	u->look_at = LOOK_EVERY;
	u->hash = crypto_hash_new();
	u->fd = openat(b->dir_fd, u->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (u->fd < 0)
		return err_sys(err, "create a file");
	*ret = TAKE(u);
	return 0;
}

int blob_begin_again(struct blobs *b, const char *name, struct blob_upload **ret, struct err *err)
{
	autoptr(blob_upload) u = xcalloc(1, sizeof(*u));

	check_name(name);
	u->fd = -1;
	u->is_link = true;
	(void)enter(b, u);
	if (linkat(b->dir_fd, name, b->dir_fd, u->temp, 0) != 0)
		return errno == ENOENT ? BLOB_MISSING : err_sys(err, "give the file %s another name", name);
	u->fd = openat(b->dir_fd, u->temp, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (u->fd < 0)
		return err_sys(err, "open the file %s", name);
	*ret = TAKE(u);
	return 0;
}

int blob_chunk(struct blob_upload *u, struct str bytes, struct err *err)
{
	if ((int64_t)bytes.len > u->max - u->size)
		return err_set(err, ERR_TOO_LARGE, "the file is over %" PRId64 " bytes", u->max);
	if (u->size >= u->look_at) {
		u->look_at = u->size + LOOK_EVERY;
		int rc = check_room(u->blobs, err);
		if (rc < 0)
			return rc;
	}
	int rc = file_write_fd(u->fd, bytes, err);
	if (rc < 0)
		return rc;
	crypto_hash_update(u->hash, bytes);
	u->size += (int64_t)bytes.len;
	/* Else all of it would be written at the end, in one sync. */
	if (u->size - u->flushed >= FLUSH_EVERY) {
		(void)sync_file_range(u->fd, u->flushed, u->size - u->flushed, SYNC_FILE_RANGE_WRITE);
		u->flushed = u->size;
	}
	return 0;
}

int blob_commit(struct blob_upload *u, const char *name, struct blob_info *ret, struct err *err)
{
	autovar(buf) hex = {0};

	check_name(name);
	assert(!u->committed && (ret != NULL) == (u->hash != NULL));
	if (fdatasync(u->fd) != 0)
		return err_sys(err, "sync a file");
	pthread_mutex_lock(&u->blobs->lock);
	(void)snprintf(u->name, sizeof(u->name), "%s", name);
	pthread_mutex_unlock(&u->blobs->lock);
	if (renameat(u->blobs->dir_fd, u->temp, u->blobs->dir_fd, name) != 0)
		return err_sys(err, "rename a file");
	u->committed = true; /* it has its name now, durable or not */
	if (fsync(u->blobs->dir_fd) != 0)
		return err_sys(err, "sync the folder of files");
	if (ret == NULL)
		return 0;
	struct sha256 hash = crypto_hash_finish(u->hash);
	encode_hex((struct str){(const char *)hash.bytes, sizeof(hash.bytes)}, &hex);
	ret->size = u->size;
	(void)snprintf(ret->sha256, sizeof(ret->sha256), "%s", hex.data);
	return 0;
}

void blob_upload_free(struct blob_upload *u)
{
	if (u == NULL)
		return;
	if (u->blobs != NULL && !u->committed)
		(void)unlinkat(u->blobs->dir_fd, u->temp, 0);
	fd_close(&u->fd);
	crypto_hash_free(u->hash);
	if (u->blobs != NULL)
		leave(u->blobs, u);
	free(u);
}

/* --- reading, removing --- */

int blob_open(struct blobs *b, const char *name, int *ret_fd, int64_t *ret_size, struct err *err)
{
	struct stat st;

	check_name(name);
	autoclose fd = openat(b->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT)
		return BLOB_MISSING;
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open the file %s", name);
	*ret_fd = fd_take(&fd);
	*ret_size = st.st_size;
	return 0;
}

int blob_remove(struct blobs *b, const char *name, struct err *err)
{
	check_name(name);
	if (unlinkat(b->dir_fd, name, 0) != 0 && errno != ENOENT)
		return err_sys(err, "remove the file %s", name);
	return 0;
}
