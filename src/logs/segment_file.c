#include "logs/segment_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "logs/segment_index.h"

char *segment_path(const struct segment_key *key, char path[static SEGMENT_PATH_SIZE])
{
	int len = snprintf(path, SEGMENT_PATH_SIZE, "%" PRId64 "/%" PRId64 "/%" PRId64 "-%" PRId64 ".seg", key->org_id,
			   key->job_id / SEGMENT_BUCKET, key->job_id, key->attempt);
	assert(len > 0 && len < SEGMENT_PATH_SIZE);
	(void)len;
	return path;
}

/* "ORG/BUCKET/JOB-ATTEMPT.idx", or ".idx.new" while it is being written. */
static char *index_path(const struct segment_key *key, const char *suffix, char path[static SEGMENT_PATH_SIZE])
{
	size_t len = strlen(segment_path(key, path)) - strlen(".seg");
	int more = snprintf(path + len, SEGMENT_PATH_SIZE - len, "%s", suffix);

	assert(more > 0 && (size_t)more < SEGMENT_PATH_SIZE - len);
	(void)more;
	return path;
}

bool segment_path_parse(int64_t org_id, const char *name, struct segment_key *ret)
{
	struct str rest = str_c(name);

	if (!str_ends_with(rest, STR(".seg")))
		return false;
	rest.len -= strlen(".seg");
	struct str job = str_cut(&rest, '-');
	*ret = (struct segment_key){.org_id = org_id};
	return str_to_i64(job, "job", 1, INT64_MAX, &ret->job_id, NULL) == 0 &&
	       str_to_i64(rest, "attempt", 0, UINT32_MAX, &ret->attempt, NULL) == 0;
}

int segment_write_at(int fd, struct str bytes, uint64_t offset, struct err *err)
{
	while (bytes.len > 0) {
		ssize_t done = pwrite(fd, bytes.data, bytes.len, (off_t)offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_sys(err, "write log lines");
		bytes.data += done;
		bytes.len -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}

int segment_read_at(int fd, char *to, size_t len, uint64_t offset, struct err *err)
{
	while (len > 0) {
		ssize_t done = pread(fd, to, len, (off_t)offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_sys(err, "read log lines");
		if (done == 0)
			return err_set(err, ERR_IO, "read log lines: the file ends early");
		to += done;
		len -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}

void segment_file_fini(struct segment_file *f)
{
	fd_close(&f->fd);
	free(f->refs);
	f->refs = NULL;
	f->ref_count = 0;
}

void segment_file_add(struct segment_file *f, const struct segment_header *h)
{
	f->size = h->offset + segment_block_len(h);
	if (h->kind == SEGMENT_SEAL) {
		f->sealed = true;
		f->seal_seq = h->last_seq;
	}
	if (h->kind == SEGMENT_CAP)
		f->capped = true;
	if (h->kind == SEGMENT_DROP)
		f->last_seq = h->last_seq;
	if (h->kind != SEGMENT_LINES)
		return;
	if (f->ref_count == f->ref_cap) {
		f->ref_cap = f->ref_cap == 0 ? 4 : f->ref_cap * 2;
		f->refs = xreallocarray(f->refs, f->ref_cap, sizeof(*f->refs));
	}
	f->refs[f->ref_count++] = (struct segment_ref){
		.offset = h->offset,
		.first_seq = h->first_seq,
		.last_seq = h->last_seq,
		.least_at = h->least_at,
		.most_at = h->most_at,
	};
	f->last_seq = h->last_seq;
	if (f->ref_count == 1 || h->most_at > f->most_at)
		f->most_at = h->most_at;
}

/* The header at `offset`: 0, or 1 where no block of this segment stands there. */
static int header_at(const struct segment_file *f, uint64_t offset, uint64_t end, struct segment_header *ret,
		     struct err *err)
{
	char bytes[SEGMENT_HEADER_SIZE];
	struct segment_header h;

	if (end - offset < sizeof(bytes))
		return 1;
	int rc = segment_read_at(f->fd, bytes, sizeof(bytes), offset, err);
	if (rc < 0)
		return rc;
	if (segment_decode_header((struct str){bytes, sizeof(bytes)}, &h, NULL) < 0)
		return 1;
	if (h.offset != offset || !segment_key_eq(&h.key, &f->key) || segment_block_len(&h) > end - offset)
		return 1;
	/* Numbers only grow; a block that says otherwise is none of ours. */
	if (h.kind == SEGMENT_LINES && h.first_seq <= f->last_seq)
		return 1;
	*ret = h;
	return 0;
}

static int payload_good(int fd, const struct segment_header *h, struct err *err)
{
	autovar(buf) payload = {0};
	int rc = segment_read_at(fd, buf_reserve(&payload, h->payload_len), h->payload_len,
				 h->offset + SEGMENT_HEADER_SIZE, err);

	if (rc < 0)
		return rc;
	return segment_payload_good(h, (struct str){payload.data, h->payload_len}) ? 0 : 1;
}

/* Where the next whole block behind `offset` stands, or `end`. Only for damaged files, so it may be slow. */
static int next_block(const struct segment_file *f, uint64_t offset, uint64_t end, uint64_t *ret, struct err *err)
{
	enum { STEP = 65536 };
	autofree char *bytes = xmalloc(STEP);

	for (uint64_t at = offset + 1; at < end;) {
		size_t len = end - at < STEP ? (size_t)(end - at) : STEP;
		int rc = segment_read_at(f->fd, bytes, len, at, err);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < len; i++) {
			struct segment_header h;
			if (bytes[i] != 'N')
				continue;
			rc = header_at(f, at + i, end, &h, err);
			if (rc == 0)
				rc = payload_good(f->fd, &h, err);
			if (rc < 0)
				return rc;
			if (rc == 0) {
				*ret = at + i;
				return 0;
			}
		}
		at += len;
	}
	*ret = end;
	return 0;
}

/* Reads headers up to `end`; f->size is where the last whole block ends. */
static int scan(struct segment_file *f, uint64_t end, struct err *err)
{
	uint64_t at = f->size;

	while (at < end) {
		struct segment_header h;
		int rc = header_at(f, at, end, &h, err);
		/* What was written last is what a crash tears. */
		if (rc == 0 && at + segment_block_len(&h) == end)
			rc = payload_good(f->fd, &h, err);
		if (rc < 0)
			return rc;
		if (rc == 0) {
			segment_file_add(f, &h);
			at = f->size;
			continue;
		}
		uint64_t next = end;
		rc = next_block(f, at, end, &next, err);
		if (rc < 0)
			return rc;
		if (next == end)
			break;
		f->damaged++;
		at = next;
	}
	return 0;
}

/* Whether the last block that the index knows is where it says. */
static bool index_fits(struct segment_file *f, uint64_t end)
{
	char bytes[SEGMENT_HEADER_SIZE];
	struct segment_header h;

	if (f->ref_count == 0 || f->size > end)
		return false;
	const struct segment_ref *last = &f->refs[f->ref_count - 1];
	if (segment_read_at(f->fd, bytes, sizeof(bytes), last->offset, NULL) < 0 ||
	    segment_decode_header((struct str){bytes, sizeof(bytes)}, &h, NULL) < 0)
		return false;
	return h.kind == SEGMENT_LINES && segment_key_eq(&h.key, &f->key) && h.offset == last->offset &&
	       h.first_seq == last->first_seq && h.last_seq == last->last_seq &&
	       h.offset + segment_block_len(&h) <= f->size;
}

/* Begins with what the index has; with nothing where it is of no use. */
static void read_index(struct segment_file *f, int segments_fd, uint64_t end)
{
	char path[SEGMENT_PATH_SIZE];
	autovar(buf) bytes = {0};

	if (end < (uint64_t)SEGMENT_INDEX_WORTH * SEGMENT_HEADER_SIZE ||
	    file_read(segments_fd, index_path(&f->key, ".idx", path), SEGMENT_INDEX_MAX, &bytes, NULL) < 0 ||
	    segment_index_decode(buf_str(&bytes), f, NULL) < 0)
		return;
	if (index_fits(f, end))
		return;
	free(f->refs);
	*f = (struct segment_file){.key = f->key, .fd = f->fd};
}

int segment_file_write_index(struct segment_file *f, int segments_fd, struct err *err)
{
	char path[SEGMENT_PATH_SIZE];
	char next[SEGMENT_PATH_SIZE];
	autovar(buf) bytes = {0};

	segment_index_encode(f, &bytes);
	(void)index_path(&f->key, ".idx", path);
	autoclose fd = openat(segments_fd, index_path(&f->key, ".idx.new", next),
			      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(err, "create index %s", next);
	/* Not synced: one that a crash tears is seen to be torn. */
	int rc = file_write_fd(fd, buf_str(&bytes), err);
	if (rc == 0 && renameat(segments_fd, next, segments_fd, path) != 0)
		rc = err_sys(err, "name index %s", path);
	if (rc < 0)
		(void)unlinkat(segments_fd, next, 0);
	else
		f->indexed = f->ref_count;
	return rc;
}

int segment_file_open(int segments_fd, const struct segment_key *key, struct segment_file *ret, struct err *err)
{
	autovar(segment_file) f = {.key = *key, .fd = -1};
	char path[SEGMENT_PATH_SIZE];
	struct stat st;

	f.fd = openat(segments_fd, segment_path(key, path), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (f.fd < 0 && errno != ENOENT)
		return err_sys(err, "open segment %s", path);
	if (f.fd >= 0) {
		if (fstat(f.fd, &st) != 0)
			return err_sys(err, "look at segment %s", path);
		read_index(&f, segments_fd, (uint64_t)st.st_size);
		int rc = scan(&f, (uint64_t)st.st_size, err);
		if (rc < 0)
			return err_wrap(err, "segment %s", path);
		f.cut = (uint64_t)st.st_size - f.size;
		if (f.cut > 0 && ftruncate(f.fd, (off_t)f.size) != 0)
			return err_sys(err, "cut the torn tail of segment %s", path);
		/* All of it is durable: what was written since the last sync is never opened, because it is open. */
		if (f.ref_count - f.indexed >= SEGMENT_INDEX_WORTH)
			(void)!segment_file_write_index(&f, segments_fd, NULL);
	}
	*ret = f;
	f = (struct segment_file){.fd = -1};
	return 0;
}

bool segment_file_complete(const struct segment_file *f)
{
	return f->sealed && (f->seal_seq == SEGMENT_SEAL_NOW || f->capped || f->last_seq >= f->seal_seq);
}

/* Cuts the last name off. False: there was only one. */
static bool cut_path(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash == NULL)
		return false;
	*slash = '\0';
	return true;
}

int segment_file_remove(int segments_fd, const struct segment_key *key, struct err *err)
{
	char path[SEGMENT_PATH_SIZE];

	(void)unlinkat(segments_fd, index_path(key, ".idx.new", path), 0);
	if (unlinkat(segments_fd, index_path(key, ".idx", path), 0) != 0 && errno != ENOENT)
		return err_sys(err, "remove index %s", path);
	if (unlinkat(segments_fd, segment_path(key, path), 0) != 0 && errno != ENOENT)
		return err_sys(err, "remove segment %s", path);
	/* Folders that still hold something stay. */
	while (cut_path(path) && unlinkat(segments_fd, path, AT_REMOVEDIR) == 0)
		;
	return 0;
}

int segment_file_sync_names(int segments_fd, const struct segment_key *key, struct err *err)
{
	char path[SEGMENT_PATH_SIZE];

	(void)segment_path(key, path);
	while (cut_path(path)) {
		autoclose fd = openat(segments_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		/* Removed as empty: what is above it says so. */
		if ((fd < 0 && errno != ENOENT) || (fd >= 0 && fsync(fd) != 0))
			return err_sys(err, "sync the folder of segments %s", path);
	}
	return fsync(segments_fd) != 0 ? err_sys(err, "sync the folder of segments") : 0;
}

int segment_file_create(struct segment_file *f, int segments_fd, struct err *err)
{
	char path[SEGMENT_PATH_SIZE];
	enum { FLAGS = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW };

	assert(f->fd < 0 && f->size == 0);
	int fd = openat(segments_fd, segment_path(&f->key, path), FLAGS, 0600);
	if (fd < 0 && errno == ENOENT) {
		for (char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
			*slash = '\0';
			if (mkdirat(segments_fd, path, 0700) != 0 && errno != EEXIST)
				return err_sys(err, "create folder %s", path);
			*slash = '/';
		}
		fd = openat(segments_fd, path, FLAGS, 0600);
	}
	if (fd < 0)
		return err_sys(err, "create segment %s", path);
	f->fd = fd;
	return 0;
}

int segment_file_read(int fd, const struct segment_ref *ref, struct segment_codec *c, const struct needle *needle,
		      struct buf *scratch, struct segment_header *ret_header, struct segment_lines *ret,
		      struct err *err)
{
	struct segment_header h;

	buf_clear(scratch);
	int rc = segment_read_at(fd, buf_reserve(scratch, SEGMENT_HEADER_SIZE), SEGMENT_HEADER_SIZE, ref->offset, err);
	if (rc < 0)
		return rc;
	if (segment_decode_header((struct str){scratch->data, SEGMENT_HEADER_SIZE}, &h, err) < 0 ||
	    h.kind != SEGMENT_LINES || h.first_seq != ref->first_seq)
		return err_set(err, ERR_IO, "read log lines: the block at %" PRIu64 " is damaged", ref->offset);
	rc = segment_read_at(fd, buf_reserve(scratch, h.payload_len), h.payload_len, ref->offset + SEGMENT_HEADER_SIZE,
			     err);
	if (rc < 0)
		return rc;
	if (segment_decode_lines(c, &h, (struct str){scratch->data, h.payload_len}, needle, ret, err) < 0)
		return err_set(err, ERR_IO, "read log lines: the block at %" PRIu64 " is damaged", ref->offset);
	*ret_header = h;
	return 0;
}

size_t segment_file_find(const struct segment_file *f, int64_t seq)
{
	size_t low = 0;
	size_t high = f->ref_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (f->refs[middle].last_seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
