#include "shim/spool.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"

enum {
	RECORD_HEADER = 8,	       /* u32 length, u32 crc32c of the payload */
	PAYLOAD_FIXED = 8 + 8 + 1 + 1, /* seq, timestamp, stream and markup, level */
	PAYLOAD_MAX = PAYLOAD_FIXED + LOG_LINE_MAX,
	FILE_SIZE_DEFAULT = 16 * 1024 * 1024,
	NAME_SIZE = 24,
	FILE_NUMBER_MAX = 1 << 30,
};

struct spool {
	int parent_fd;
	char *name;
	int dir_fd;
	int64_t max;
	int64_t file_size;
	struct buf unwritten; /* whole records */
	int64_t last_seq;
	int64_t pending;
	bool dropped;

	int64_t write_number; /* of the file that grows */
	int write_fd;
	int64_t write_at;

	int64_t read_number; /* of the oldest file */
	int read_fd;	     /* -1: not opened yet */
	int64_t read_at;     /* all before it is acknowledged */
};

static void file_name(int64_t number, char name[static NAME_SIZE])
{
	(void)snprintf(name, NAME_SIZE, "%010" PRId64, number);
}

static int open_number(struct spool *s, int64_t number, int flags, int *ret_fd, struct err *err)
{
	char name[NAME_SIZE];

	file_name(number, name);
	int fd = openat(s->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(err, "open spool file %s", name);
	*ret_fd = fd;
	return 0;
}

/* --- records --- */

static uint64_t load_le(const char *p, size_t size)
{
	uint64_t value = 0;

	for (size_t i = size; i-- > 0;)
		value = value << 8 | (unsigned char)p[i];
	return value;
}

/* The length of the whole record that `bytes` begins with, and the record; 0: no whole, sound one. */
static size_t take_record(struct str bytes, struct spool_record *ret)
{
	if (bytes.len < RECORD_HEADER)
		return 0;
	size_t len = load_le(bytes.data, 4);
	if (len < PAYLOAD_FIXED || len > PAYLOAD_MAX || len > bytes.len - RECORD_HEADER)
		return 0;
	const char *p = bytes.data + RECORD_HEADER;
	if (crc32c(0, p, len) != load_le(bytes.data + 4, 4))
		return 0;
	enum log_stream stream = LOG_STREAM_STDOUT;
	enum log_markup markup = LOG_MARKUP_NONE;
	if (!log_kind_unpack((unsigned char)p[16], &stream, &markup))
		return 0;
	*ret = (struct spool_record){
		.seq = (int64_t)load_le(p, 8),
		.timestamp = (int64_t)load_le(p + 8, 8),
		.stream = stream,
		.markup = markup,
		.level = (enum log_line_level)p[17],
		.message = {p + PAYLOAD_FIXED, len - PAYLOAD_FIXED},
	};
	return RECORD_HEADER + len;
}

static void store_le(char *p, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		p[i] = (char)(value >> (8 * i));
}

void spool_append(struct spool *s, const struct spool_record *r)
{
	size_t len = PAYLOAD_FIXED + r->message.len;

	assert(r->message.len <= LOG_LINE_MAX && r->seq > s->last_seq);
	s->last_seq = r->seq;
	if (s->dropped)
		return;
	char *to = buf_reserve(&s->unwritten, RECORD_HEADER + len);
	char *p = to + RECORD_HEADER;
	store_le(p, (uint64_t)r->seq, 8);
	store_le(p + 8, (uint64_t)r->timestamp, 8);
	p[16] = (char)log_kind_pack(r->stream, r->markup);
	p[17] = (char)r->level;
	if (r->message.len > 0)
		memcpy(p + PAYLOAD_FIXED, r->message.data, r->message.len);
	store_le(to, len, 4);
	store_le(to + 4, crc32c(0, p, len), 4);
	s->unwritten.len += RECORD_HEADER + len;
	s->pending += (int64_t)(RECORD_HEADER + len);
}

/* --- writing --- */

static int next_file(struct spool *s, struct err *err)
{
	int fd = -1;

	/* Left over from an earlier try on a full disk: empty. */
	int rc = open_number(s, s->write_number + 1, O_RDWR | O_CREAT | O_TRUNC, &fd, err);
	if (rc < 0)
		return rc;
	fd_close(&s->write_fd);
	s->write_fd = fd;
	s->write_number++;
	s->write_at = 0;
	return 0;
}

/* At our own offset: what a failed write left behind it is overwritten by the next try. */
static int write_all(int fd, struct str bytes, int64_t at, struct err *err)
{
	while (bytes.len > 0) {
		ssize_t done = pwrite(fd, bytes.data, bytes.len, at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_sys(err, "write the log spool");
		bytes.data += done;
		bytes.len -= (size_t)done;
		at += done;
	}
	return 0;
}

int spool_write(struct spool *s, struct err *err)
{
	int rc = 0;

	if (s->unwritten.len == 0)
		return 0;
	if (s->write_fd < 0 || s->write_at >= s->file_size)
		rc = next_file(s, err);
	if (rc == 0)
		rc = write_all(s->write_fd, buf_str(&s->unwritten), s->write_at, err);
	if (rc < 0)
		return rc;
	s->write_at += (int64_t)s->unwritten.len;
	buf_clear(&s->unwritten);
	return 0;
}

/* All files: those before the last were not synced when they were left. */
int spool_sync(struct spool *s, struct err *err)
{
	for (int64_t n = s->read_number; n <= s->write_number; n++) {
		autoclose fd = -1;
		int rc = open_number(s, n, O_RDONLY, &fd, err);
		if (rc < 0)
			return rc;
		if (fdatasync(fd) != 0)
			return err_sys(err, "sync the log spool");
	}
	if (fsync(s->dir_fd) != 0 || fsync(s->parent_fd) != 0)
		return err_sys(err, "sync the log spool");
	return 0;
}

bool spool_has_room(const struct spool *s)
{
	return s->pending < s->max;
}

int64_t spool_pending(const struct spool *s)
{
	return s->pending;
}

int64_t spool_last_seq(const struct spool *s)
{
	return s->last_seq;
}

/* --- reading --- */

static void remove_oldest(struct spool *s)
{
	char name[NAME_SIZE];

	file_name(s->read_number, name);
	(void)unlinkat(s->dir_fd, name, 0); /* a file that stays only takes room until the folder goes */
	fd_close(&s->read_fd);
	s->read_number++;
	s->read_at = 0;
}

/* How far the oldest file may be read. */
static int oldest_end(struct spool *s, int64_t *ret, struct err *err)
{
	struct stat st;

	if (s->read_fd < 0) {
		int rc = open_number(s, s->read_number, O_RDONLY, &s->read_fd, err);
		if (rc < 0)
			return rc;
	}
	if (s->read_number == s->write_number) {
		*ret = s->write_at;
		return 0;
	}
	if (fstat(s->read_fd, &st) != 0)
		return err_sys(err, "look at the log spool");
	*ret = st.st_size;
	return 0;
}

static int read_bytes(int fd, int64_t at, size_t len, struct buf *out, struct err *err)
{
	char *to = buf_reserve(out, len);

	while (len > 0) {
		ssize_t got = pread(fd, to, len, at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? err_sys(err, "read the log spool")
				       : err_set(err, ERR_IO, "the log spool is shorter than it was written");
		to += got;
		at += got;
		len -= (size_t)got;
		out->len += (size_t)got;
	}
	return 0;
}

/* Files before the last of which all is acknowledged go. */
static int skip_finished(struct spool *s, int64_t *ret_end, struct err *err)
{
	int64_t end = 0;

	for (;;) {
		int rc = oldest_end(s, &end, err);
		if (rc < 0)
			return rc;
		if (s->read_at < end || s->read_number == s->write_number)
			break;
		remove_oldest(s);
	}
	*ret_end = end;
	return 0;
}

int spool_read(struct spool *s, size_t max, spool_fn fn, void *ctx, int64_t *ret_bytes, struct err *err)
{
	autovar(buf) bytes = {0};
	struct spool_record record;
	int64_t end = 0;
	size_t done = 0;

	*ret_bytes = 0;
	if (s->pending == (int64_t)s->unwritten.len)
		return 0;
	int rc = skip_finished(s, &end, err);
	if (rc < 0)
		return rc;
	/* Enough for one record in any case. */
	size_t want = max > RECORD_HEADER + PAYLOAD_MAX ? max : RECORD_HEADER + PAYLOAD_MAX;
	if (end - s->read_at < (int64_t)want)
		want = (size_t)(end - s->read_at);
	rc = read_bytes(s->read_fd, s->read_at, want, &bytes, err);
	while (rc == 0 && done < want) {
		size_t len = take_record((struct str){bytes.data + done, want - done}, &record);
		if (len == 0 && done == 0)
			return err_set(err, ERR_IO, "the log spool is damaged: file %" PRId64 ", byte %" PRId64,
				       s->read_number, s->read_at);
		/* The bytes read may end within a record. */
		if (len == 0 || (done > 0 && done + len > max))
			break;
		fn(ctx, &record);
		done += len;
	}
	*ret_bytes = (int64_t)done;
	return rc;
}

void spool_ack(struct spool *s, int64_t bytes)
{
	int64_t end = 0;

	assert(bytes >= 0 && bytes <= s->pending - (int64_t)s->unwritten.len);
	s->read_at += bytes;
	s->pending -= bytes;
	if (skip_finished(s, &end, NULL) < 0 || s->pending > 0)
		return;
	/* All has arrived: begin the file again, so that a quick pipeline means a small spool. */
	if (ftruncate(s->write_fd, 0) == 0) {
		s->write_at = 0;
		s->read_at = 0;
	}
}

void spool_drop(struct spool *s)
{
	s->dropped = true;
	buf_clear(&s->unwritten);
	s->pending = 0;
}

/* --- opening --- */

/* The whole records of one file that another shim left; what follows them is cut off. */
static int recover_file(struct spool *s, int64_t number, struct err *err)
{
	autoclose fd = -1;
	autovar(buf) bytes = {0};
	char name[NAME_SIZE];
	struct spool_record record;
	size_t good = 0;

	file_name(number, name);
	int rc = file_read(s->dir_fd, name, (size_t)s->file_size + (64U << 20), &bytes, err);
	if (rc == 0)
		rc = open_number(s, number, O_RDWR, &fd, err);
	if (rc < 0)
		return rc;
	for (;;) {
		size_t len = take_record((struct str){bytes.data + good, bytes.len - good}, &record);
		if (len == 0)
			break;
		good += len;
		s->last_seq = record.seq;
	}
	if (good < bytes.len && ftruncate(fd, (off_t)good) != 0)
		return err_sys(err, "cut the torn end of the log spool");
	s->pending += (int64_t)good;
	s->write_number = number;
	s->write_at = (int64_t)good;
	fd_close(&s->write_fd);
	s->write_fd = fd_take(&fd);
	return 0;
}

/* The lowest and the highest number in the folder; false: it is empty. */
static int find_range(struct spool *s, int64_t *ret_first, int64_t *ret_last, bool *ret_any, struct err *err)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (dir == NULL) {
		fd_close(&fd);
		return err_sys(err, "read the log spool's folder");
	}
	*ret_any = false;
	for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
		int64_t number = 0;
		if (str_to_i64(str_c(e->d_name), "file", 0, FILE_NUMBER_MAX, &number, NULL) < 0)
			continue;
		*ret_first = *ret_any && *ret_first < number ? *ret_first : number;
		*ret_last = *ret_any && *ret_last > number ? *ret_last : number;
		*ret_any = true;
	}
	(void)closedir(dir);
	return 0;
}

static int recover(struct spool *s, struct err *err)
{
	int64_t first = 0;
	int64_t last = 0;
	bool any = false;

	int rc = find_range(s, &first, &last, &any, err);
	if (rc < 0)
		return rc;
	if (!any) {
		s->write_number = -1;
		return next_file(s, err);
	}
	s->read_number = first;
	for (int64_t n = first; n <= last && rc == 0; n++)
		rc = recover_file(s, n, err);
	return rc;
}

int spool_open(const struct spool_opts *opts, struct spool **ret, struct err *err)
{
	autoptr(spool) s = xcalloc(1, sizeof(*s));

	*s = (struct spool){.parent_fd = -1,
			    .dir_fd = -1,
			    .write_fd = -1,
			    .read_fd = -1,
			    .max = opts->max,
			    .file_size = opts->file_size > 0 ? opts->file_size : FILE_SIZE_DEFAULT,
			    .name = xstrdup(opts->name)};
	s->parent_fd = openat(opts->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->parent_fd < 0 || (mkdirat(s->parent_fd, s->name, 0700) != 0 && errno != EEXIST))
		return err_sys(err, "make the log spool's folder");
	s->dir_fd = openat(s->parent_fd, s->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir_fd < 0)
		return err_sys(err, "open the log spool's folder");
	int rc = recover(s, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

int spool_remove(struct spool *s, struct err *err)
{
	return dir_remove(s->parent_fd, s->name, err);
}

void spool_free(struct spool *s)
{
	if (s == NULL)
		return;
	fd_close(&s->read_fd);
	fd_close(&s->write_fd);
	fd_close(&s->dir_fd);
	fd_close(&s->parent_fd);
	buf_fini(&s->unwritten);
	free(s->name);
	free(s);
}
