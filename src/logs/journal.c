#include "logs/journal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "logs/segment.h"
#include "logs/segment_file.h"

enum { NAME_SIZE = 32 };

static char *file_name(uint64_t generation, char name[static NAME_SIZE])
{
	(void)snprintf(name, NAME_SIZE, "%016" PRIx64 ".journal", generation);
	return name;
}

static bool parse_name(const char *name, uint64_t *ret)
{
	static const char digits[] = "0123456789abcdef";
	char again[NAME_SIZE];
	uint64_t generation = 0;

	for (const char *at = name; *at != '\0' && *at != '.'; at++) {
		const char *digit = strchr(digits, *at);
		if (digit == NULL)
			return false;
		generation = generation << 4 | (uint64_t)(digit - digits);
	}
	*ret = generation;
	return strcmp(file_name(generation, again), name) == 0;
}

int journal_open(int dir_fd, uint64_t generation, struct journal *ret, struct err *err)
{
	char name[NAME_SIZE];
	autoclose fd = openat(dir_fd, file_name(generation, name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, "create log journal %s", name);
	if (fsync(dir_fd) != 0)
		return err_sys(err, "sync the folder of log journal %s", name);
	*ret = (struct journal){.dir_fd = dir_fd, .fd = fd_take(&fd), .generation = generation};
	return 0;
}

void journal_close(struct journal *j)
{
	fd_close(&j->fd);
}

/* Drops what was written from the front of the vector. */
static void advance(struct iovec **iov, size_t *count, size_t done)
{
	while (*count > 0 && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (done > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

int journal_append(struct journal *j, struct iovec *iov, size_t count, struct err *err)
{
	uint64_t end = j->size;

	while (count > 0) {
		ssize_t done = pwritev(j->fd, iov, count < IOV_MAX ? (int)count : IOV_MAX, (off_t)end);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0) {
			int rc = err_sys(err, "write the log journal");
			/* Half a group must not stand before the next one. */
			if (rc == -ERR_DISK_FULL && ftruncate(j->fd, (off_t)j->size) != 0)
				return err_set(err, ERR_IO, "the log journal cannot be cut after a full disk");
			return rc;
		}
		advance(&iov, &count, (size_t)done);
		end += (uint64_t)done;
	}
	j->size = end;
	return 0;
}

int journal_remove(int dir_fd, uint64_t generation, struct err *err)
{
	char name[NAME_SIZE];

	if (unlinkat(dir_fd, file_name(generation, name), 0) != 0 && errno != ENOENT)
		return err_sys(err, "remove log journal %s", name);
	return 0;
}

static int compare_generations(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

struct generations {
	uint64_t *items;
	size_t count;
};

static void generations_fini(struct generations *g)
{
	free(g->items);
}
AUTOVAR_DEFINE(generations)

static int list(int dir_fd, struct generations *ret, struct err *err)
{
	autoclose fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (dir == NULL)
		return err_sys(err, "read the folder of the log journal");
	(void)fd_take(&fd);
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		uint64_t generation = 0;
		if (!parse_name(entry->d_name, &generation))
			continue;
		ret->items = xreallocarray(ret->items, ret->count + 1, sizeof(*ret->items));
		ret->items[ret->count++] = generation;
	}
	(void)closedir(dir);
	if (ret->count > 1)
		qsort(ret->items, ret->count, sizeof(*ret->items), compare_generations);
	return 0;
}

/* Where replayed blocks go; blocks of one segment often follow each other. */
struct target {
	struct segment_file file;
};

static void target_fini(struct target *t)
{
	segment_file_fini(&t->file);
}
AUTOVAR_DEFINE(target)

/* What stood in the segment is gone; a mark with a number begins it anew. */
static int replay_drop(struct target *t, int segments_fd, const struct segment_header *h, struct str block,
		       struct err *err)
{
	segment_file_fini(&t->file);
	t->file = (struct segment_file){.key = h->key, .fd = -1};
	int rc = segment_file_remove(segments_fd, &h->key, err);
	if (rc < 0 || h->last_seq == 0)
		return rc;
	rc = segment_file_create(&t->file, segments_fd, err);
	return rc < 0 ? rc : segment_write_at(t->file.fd, block, 0, err);
}

static int target_open(struct target *t, int segments_fd, const struct segment_key *key, struct err *err)
{
	if (t->file.fd >= 0 && segment_key_eq(&t->file.key, key))
		return 0;
	segment_file_fini(&t->file);
	t->file = (struct segment_file){.key = *key, .fd = -1};
	return segment_file_create(&t->file, segments_fd, err);
}

static int replay_block(struct target *t, int segments_fd, const struct segment_header *h, struct str block,
			struct err *err)
{
	if (h->kind == SEGMENT_DROP)
		return replay_drop(t, segments_fd, h, block, err);
	int rc = target_open(t, segments_fd, &h->key, err);
	return rc < 0 ? rc : segment_write_at(t->file.fd, block, h->offset, err);
}

/* 0, or 1 where no whole block stands at `offset`. */
static int read_block(int fd, uint64_t offset, uint64_t end, struct buf *block, struct segment_header *ret,
		      struct err *err)
{
	buf_clear(block);
	if (end - offset < SEGMENT_HEADER_SIZE)
		return 1;
	int rc = segment_read_at(fd, buf_reserve(block, SEGMENT_HEADER_SIZE), SEGMENT_HEADER_SIZE, offset, err);
	if (rc < 0)
		return rc;
	block->len = SEGMENT_HEADER_SIZE;
	if (segment_decode_header(buf_str(block), ret, NULL) < 0 || segment_block_len(ret) > end - offset)
		return 1;
	if (ret->payload_len > 0) {
		rc = segment_read_at(fd, buf_reserve(block, ret->payload_len), ret->payload_len,
				     offset + SEGMENT_HEADER_SIZE, err);
		if (rc < 0)
			return rc;
	}
	block->len += ret->payload_len;
	struct str payload = {block->data + SEGMENT_HEADER_SIZE, ret->payload_len};
	return segment_payload_good(ret, payload) ? 0 : 1;
}

static int replay_file(int dir_fd, uint64_t generation, int segments_fd, struct journal_replay *stats, struct err *err)
{
	char name[NAME_SIZE];
	autoclose fd = openat(dir_fd, file_name(generation, name), O_RDONLY | O_CLOEXEC);
	autovar(target) target = {.file.fd = -1};
	autovar(buf) block = {0};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open log journal %s", name);
	uint64_t end = (uint64_t)st.st_size;
	uint64_t at = 0;
	while (at < end) {
		struct segment_header h;
		int rc = read_block(fd, at, end, &block, &h, err);
		if (rc > 0)
			break;
		if (rc == 0)
			rc = replay_block(&target, segments_fd, &h, buf_str(&block), err);
		if (rc < 0)
			return err_wrap(err, "replay log journal %s", name);
		stats->blocks++;
		at += segment_block_len(&h);
	}
	stats->files++;
	stats->torn += end - at;
	return 0;
}

int journal_replay(int dir_fd, int segments_fd, struct journal_replay *ret, struct err *err)
{
	autovar(generations) files = {0};
	struct journal_replay stats = {.next_generation = 1};

	int rc = list(dir_fd, &files, err);
	for (size_t i = 0; i < files.count && rc == 0; i++) {
		rc = replay_file(dir_fd, files.items[i], segments_fd, &stats, err);
		stats.next_generation = files.items[i] + 1;
	}
	if (rc < 0)
		return rc;
	/* One call for all the segments, at the one moment when nobody waits for anything else on this disk. */
	if (files.count > 0 && syncfs(segments_fd) != 0)
		return err_sys(err, "sync log segments");
	for (size_t i = 0; i < files.count && rc == 0; i++)
		rc = journal_remove(dir_fd, files.items[i], err);
	if (rc == 0)
		*ret = stats;
	return rc;
}
