#include "logs/store.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "logs/committer.h"
#include "logs/journal.h"

enum { CODECS_MAX = 4, OPEN_MAX = 2048 };
#define JOURNAL_MAX (UINT64_C(64) * 1024 * 1024)

struct log_store {
	struct log_store_opts opts;
	int lock_fd;
	int journal_fd;
	int segments_fd;
	struct attempts *attempts;
	struct committer *committer;

	pthread_mutex_t lock; /* guards the idle codecs */
	struct segment_codec *codecs[CODECS_MAX];
	size_t codec_count;
};

/* --- codecs: a megabyte each, so they are used again, and few wait --- */

static struct segment_codec *codec_take(struct log_store *s)
{
	struct segment_codec *c = NULL;

	(void)pthread_mutex_lock(&s->lock);
	if (s->codec_count > 0)
		c = s->codecs[--s->codec_count];
	(void)pthread_mutex_unlock(&s->lock);
	return c != NULL ? c : segment_codec_new();
}

static void codec_give(struct log_store *s, struct segment_codec *c)
{
	(void)pthread_mutex_lock(&s->lock);
	if (s->codec_count < CODECS_MAX)
		s->codecs[s->codec_count++] = TAKE(c);
	(void)pthread_mutex_unlock(&s->lock);
	segment_codec_free(c);
}

/* --- opening and closing --- */

static int open_folder(const char *root, const char *name, int *ret_fd, struct err *err)
{
	autofree char *path = xasprintf("%s/%s", root, name);
	int rc = dir_make(path, 0700, err);

	return rc < 0 ? rc : dir_open(path, ret_fd, err);
}

static int lock_folder(const char *root, int *ret_fd, struct err *err)
{
	autofree char *path = xasprintf("%s/lock", root);
	autoclose fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_sys(err, "open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
		return err_set(err, ERR_CONFLICT, "%s: another logging pipeline uses this folder", root);
	*ret_fd = fd_take(&fd);
	return 0;
}

static size_t choose_open_max(size_t wanted)
{
	struct rlimit limit = {0};

	if (wanted > 0)
		return wanted;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / 4 >= OPEN_MAX)
		return OPEN_MAX;
	return limit.rlim_cur / 4;
}

/* A small disk is not all reserve. */
static uint64_t choose_min_free(int fd, uint64_t wanted)
{
	struct statvfs st;

	if (fstatvfs(fd, &st) != 0)
		return wanted;
	uint64_t part = (uint64_t)st.f_blocks * st.f_frsize / 16;
	return part < wanted ? part : wanted;
}

static int open_all(struct log_store *s, struct log_store_recovery *recovery, struct err *err)
{
	const struct log_store_opts *opts = &s->opts;
	struct journal_replay replay;

	int rc = open_folder(opts->path, "segments", &s->segments_fd, err);
	if (rc == 0)
		rc = open_folder(opts->path, "journal", &s->journal_fd, err);
	if (rc == 0)
		rc = lock_folder(opts->path, &s->lock_fd, err);
	if (rc == 0)
		rc = journal_replay(s->journal_fd, s->segments_fd, &replay, err);
	if (rc < 0)
		return rc;
	*recovery = (struct log_store_recovery){replay.files, replay.blocks, replay.torn};
	size_t open_max = choose_open_max(opts->open_max);
	s->attempts = attempts_new(s->segments_fd, open_max);
	const struct committer_opts committer = {
		.attempts = s->attempts,
		.journal_fd = s->journal_fd,
		.generation = replay.next_generation,
		.journal_max = opts->journal_max > 0 ? opts->journal_max : JOURNAL_MAX,
		.dirty_max = open_max / 2 + 1,
		.min_free = choose_min_free(s->journal_fd, opts->min_free),
		.sync = opts->sync != NULL ? opts->sync : fdatasync,
		.disk_free = opts->disk_free != NULL ? opts->disk_free : disk_free,
		.failed = opts->failed,
		.ctx = opts->ctx,
	};
	return committer_new(&committer, &s->committer, err);
}

int log_store_open(const struct log_store_opts *opts, struct log_store **ret, struct log_store_recovery *recovery,
		   struct err *err)
{
	autoptr(log_store) s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	s->lock_fd = -1;
	s->journal_fd = -1;
	s->segments_fd = -1;
	(void)pthread_mutex_init(&s->lock, NULL);
	int rc = open_all(s, recovery, err);
	if (rc < 0)
		return err_wrap(err, "open the log store");
	*ret = TAKE(s);
	return 0;
}

int log_store_close(struct log_store *s, struct err *err)
{
	int rc = s->committer != NULL ? committer_stop(s->committer, err) : 0;

	committer_free(s->committer);
	attempts_free(s->attempts);
	for (size_t i = 0; i < s->codec_count; i++)
		segment_codec_free(s->codecs[i]);
	fd_close(&s->segments_fd);
	fd_close(&s->journal_fd);
	fd_close(&s->lock_fd);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
	return rc;
}

void log_store_free(struct log_store *s)
{
	struct err err;

	if (s != NULL)
		(void)log_store_close(s, &err);
}

/* --- appending --- */

enum { REMARK_SIZE = 160 };

/* The lines of one attempt in a batch, and what becomes of them. */
struct part {
	struct attempt *attempt; /* owned */
	struct log_line *lines;
	size_t count; /* after plan(): those that are new */
	int64_t first_seq;
	struct segment_header *headers;
	size_t header_count;
	size_t cut;
	struct log_line remark; /* the last line of a log that grew too large */
	size_t begin;		/* of its blocks in the batch's bytes */
	size_t end;
};

struct plan {
	struct log_store *store;
	struct part *parts;
	size_t count;
	struct buf blocks;
	char remark[REMARK_SIZE];
};

static void plan_fini(struct plan *p)
{
	for (size_t i = 0; i < p->count; i++) {
		if (p->parts[i].attempt != NULL) {
			attempts_disown(p->store->attempts, p->parts[i].attempt);
			attempts_put(p->store->attempts, p->parts[i].attempt);
		}
		free(p->parts[i].headers);
	}
	free(p->parts);
	buf_fini(&p->blocks);
}
AUTOVAR_DEFINE(plan)

static int compare_attempts(const struct log_line *a, const struct log_line *b)
{
	if (a->job_id != b->job_id)
		return a->job_id < b->job_id ? -1 : 1;
	return (a->attempt > b->attempt) - (a->attempt < b->attempt);
}

/* Lines of one attempt together, in the order in which they came: a stable merge sort, where it is needed. */
static void sort_lines(struct log_line *lines, size_t count, struct log_line *scratch)
{
	if (count < 2)
		return;
	size_t half = count / 2;
	sort_lines(lines, half, scratch);
	sort_lines(lines + half, count - half, scratch);
	if (compare_attempts(&lines[half - 1], &lines[half]) <= 0)
		return;
	memcpy(scratch, lines, half * sizeof(*lines));
	size_t left = 0;
	size_t right = half;
	for (size_t i = 0; left < half; i++) {
		bool take_left = right == count || compare_attempts(&scratch[left], &lines[right]) <= 0;
		lines[i] = take_left ? scratch[left++] : lines[right++];
	}
}

static void split(struct plan *p, struct log_line *lines, size_t count)
{
	size_t parts = 1;
	bool sorted = true;

	for (size_t i = 1; i < count; i++) {
		int order = compare_attempts(&lines[i - 1], &lines[i]);
		sorted = sorted && order <= 0;
		parts += order != 0;
	}
	if (!sorted) {
		autofree struct log_line *scratch = xreallocarray(NULL, count, sizeof(*lines));
		sort_lines(lines, count, scratch);
	}
	p->parts = xcalloc(parts, sizeof(*p->parts));
	for (size_t i = 0; i < count; i++) {
		if (i == 0 || compare_attempts(&lines[i - 1], &lines[i]) != 0)
			p->parts[p->count++].lines = &lines[i];
		p->parts[p->count - 1].count++;
	}
}

/* Of one that was dropped while we waited for it there is a successor. */
static int own(struct log_store *s, const struct segment_key *key, struct attempt **ret, struct err *err)
{
	for (;;) {
		struct attempt *a = NULL;
		int rc = attempts_get(s->attempts, key, &a, err);
		if (rc < 0)
			return rc;
		attempts_own(s->attempts, a);
		if (!attempts_dropped(s->attempts, a)) {
			*ret = a;
			return 0;
		}
		attempts_disown(s->attempts, a);
		attempts_put(s->attempts, a);
	}
}

/* In the order of the keys, so that two batches never wait for each other. */
static int own_all(struct plan *p, int64_t org_id, struct err *err)
{
	for (size_t i = 0; i < p->count; i++) {
		const struct log_line *line = p->parts[i].lines;
		struct segment_key key = {org_id, line->job_id, line->attempt};
		if (key.attempt > UINT32_MAX)
			return err_set(err, ERR_INVALID_FIELD, "attempt: %" PRId64 " is too large", key.attempt);
		int rc = own(p->store, &key, &p->parts[i].attempt, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Whether the attempt has this line, wants it next, or must refuse it. */
enum verdict { REPEATED, NEXT };
static int judge(const struct segment_file *f, const struct log_line *line, int64_t next_seq, enum verdict *ret,
		 struct err *err)
{
	if (line->seq > next_seq)
		return err_set(err, ERR_CONFLICT,
			       "job %" PRId64 " attempt %" PRId64 ": line %" PRId64 " is next, not %" PRId64,
			       line->job_id, line->attempt, next_seq, line->seq);
	*ret = line->seq < next_seq ? REPEATED : NEXT;
	bool closed = f->sealed && (f->seal_seq == SEGMENT_SEAL_NOW || line->seq > f->seal_seq);
	if (closed)
		return err_set(
			err, ERR_SEALED, "job %" PRId64 " attempt %" PRId64 ": the log is sealed after line %" PRId64,
			line->job_id, line->attempt, f->seal_seq == SEGMENT_SEAL_NOW ? f->last_seq : f->seal_seq);
	return 0;
}

/* Instead of new lines: one that says that there are no more. */
static void cap_part(struct part *part, uint64_t attempt_max, char text[static REMARK_SIZE])
{
	int len = snprintf(text, REMARK_SIZE,
			   "nimbus: the log is cut here: it has %" PRIu64 " MiB, all that is kept of one attempt "
			   "(NIMBUS_LOG_ATTEMPT_MAX_BYTES)",
			   attempt_max >> 20);

	part->cut = part->count;
	part->remark = part->lines[0];
	part->remark.stream = LOG_STREAM_SYSTEM;
	part->remark.level = LOG_LINE_ERROR;
	part->remark.message = (struct str){text, (size_t)len};
	part->lines = &part->remark;
	part->count = 1;
}

/* Leaves the lines that are to be stored, numbered from first_seq. */
static int plan_part(struct part *part, int64_t now_at, struct err *err)
{
	const struct segment_file *f = &part->attempt->file;
	size_t kept = 0;

	part->first_seq = f->last_seq + 1;
	/* What its sender numbers goes on behind the cut, so it is no longer looked at. */
	if (f->capped) {
		part->cut = part->count;
		part->count = 0;
	}
	for (size_t i = 0; i < part->count; i++) {
		struct log_line *line = &part->lines[i];
		int64_t next_seq = part->first_seq + (int64_t)kept;
		enum verdict verdict = NEXT;
		if ((line->attempt == 0) != (line->seq == 0))
			return err_set(err, ERR_INVALID_FIELD, "seq: %s",
				       line->attempt == 0 ? "a line without an attempt is numbered by the server"
							  : "is missing from a line that names its attempt");
		if (line->attempt == 0)
			line->seq = next_seq;
		int rc = judge(f, line, next_seq, &verdict, err);
		if (rc < 0)
			return rc;
		if (verdict == REPEATED)
			continue;
		if (line->timestamp == 0)
			line->timestamp = now_at;
		part->lines[kept++] = *line;
	}
	part->count = kept;
	return 0;
}

static void pack_part(struct plan *p, struct part *part, struct segment_codec *codec)
{
	uint64_t offset = part->attempt->file.size;
	int64_t seq = part->first_seq;

	part->begin = p->blocks.len;
	for (size_t done = 0; done < part->count;) {
		part->headers = xreallocarray(part->headers, part->header_count + 1, sizeof(*part->headers));
		struct segment_header *h = &part->headers[part->header_count++];
		size_t taken = segment_encode_lines(codec, &part->attempt->key, offset, seq, part->lines + done,
						    part->count - done, &p->blocks, h);
		done += taken;
		seq += (int64_t)taken;
		offset += segment_block_len(h);
	}
	if (part->cut > 0 && part->count > 0) {
		part->headers = xreallocarray(part->headers, part->header_count + 1, sizeof(*part->headers));
		segment_encode_mark(SEGMENT_CAP, &part->attempt->key, offset, 0, clock_unix_ns(), &p->blocks,
				    &part->headers[part->header_count++]);
	}
	part->end = p->blocks.len;
}

/* Makes the packed parts durable, then visible. */
static int commit(struct plan *p, struct err *err)
{
	struct log_store *s = p->store;
	autofree struct commit_part *writes = xcalloc(p->count, sizeof(*writes));
	size_t count = 0;

	for (size_t i = 0; i < p->count; i++) {
		struct part *part = &p->parts[i];
		if (part->header_count == 0)
			continue;
		int rc = part->headers[0].kind != SEGMENT_DROP ? attempts_create(s->attempts, part->attempt, err) : 0;
		if (rc < 0)
			return rc;
		writes[count++] = (struct commit_part){
			.attempt = part->attempt,
			.offset = part->headers[0].offset,
			.blocks = {p->blocks.data + part->begin, part->end - part->begin},
			.drop = part->headers[0].kind == SEGMENT_DROP ? part->headers : NULL,
			.drop_count = part->header_count,
		};
	}
	if (count == 0)
		return 0;
	int rc = committer_commit(s->committer, writes, count, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < p->count; i++) {
		struct part *part = &p->parts[i];
		if (part->header_count == 0)
			continue;
		if (part->headers[0].kind != SEGMENT_DROP)
			attempts_add(s->attempts, part->attempt, part->headers, part->header_count);
		if (s->opts.changed != NULL)
			s->opts.changed(s->opts.ctx, &part->attempt->key);
	}
	return 0;
}

int log_store_append(struct log_store *s, int64_t org_id, struct log_line *lines, size_t count, struct log_append *ret,
		     struct err *err)
{
	autovar(plan) plan = {.store = s};
	int64_t now_at = clock_unix_ns();
	size_t stored = 0;
	size_t cut = 0;

	if (count > 0)
		split(&plan, lines, count);
	if (plan.count > LOG_STORE_ATTEMPTS_MAX)
		return err_set(err, ERR_TOO_LARGE,
			       "the lines are of %zu attempts, and %d are taken at once: send them in several bodies",
			       plan.count, LOG_STORE_ATTEMPTS_MAX);
	int rc = own_all(&plan, org_id, err);
	for (size_t i = 0; i < plan.count && rc == 0; i++) {
		struct part *part = &plan.parts[i];
		rc = plan_part(part, now_at, err);
		if (rc == 0 && part->count > 0 && s->opts.attempt_max > 0 &&
		    part->attempt->file.size >= s->opts.attempt_max)
			cap_part(part, s->opts.attempt_max, plan.remark);
		cut += part->cut;
		stored += part->cut > 0 ? 0 : part->count;
	}
	if (rc < 0)
		return rc;
	struct segment_codec *codec = codec_take(s);
	for (size_t i = 0; i < plan.count; i++)
		pack_part(&plan, &plan.parts[i], codec);
	codec_give(s, codec);
	rc = commit(&plan, err);
	if (rc == 0)
		*ret = (struct log_append){stored, count - stored - cut, cut};
	return rc;
}

int log_store_seal(struct log_store *s, const struct segment_key *key, int64_t last_seq, struct err *err)
{
	autovar(plan) plan = {.store = s};
	struct log_line of = {.job_id = key->job_id, .attempt = key->attempt};

	split(&plan, &of, 1);
	int rc = own_all(&plan, key->org_id, err);
	if (rc < 0)
		return rc;
	struct part *part = &plan.parts[0];
	if (part->attempt->file.sealed)
		return 0;
	part->headers = xcalloc(1, sizeof(*part->headers));
	part->header_count = 1;
	segment_encode_mark(SEGMENT_SEAL, key, part->attempt->file.size, last_seq, clock_unix_ns(), &plan.blocks,
			    part->headers);
	part->end = plan.blocks.len;
	return commit(&plan, err);
}

/* --- dropping --- */

/* Whether there is something that may go. */
static int may_drop(const struct segment_file *f, enum log_drop what, int64_t idle_before_at, bool *ret,
		    struct err *err)
{
	struct stat st;

	*ret = what == LOG_DROP_ALL ? f->ref_count > 0 || segment_file_complete(f) : segment_file_complete(f);
	if (*ret || f->fd < 0 || f->size == 0 || what == LOG_DROP_ALL)
		return 0;
	if (fstat(f->fd, &st) != 0)
		return err_sys(err, "look at the log of job %" PRId64, f->key.job_id);
	*ret = (int64_t)st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec < idle_before_at;
	return 0;
}

static void put_mark(struct plan *p, struct part *part, enum segment_kind kind, int64_t last_seq)
{
	uint64_t offset = part->header_count * (uint64_t)SEGMENT_HEADER_SIZE;

	part->headers = xreallocarray(part->headers, part->header_count + 1, sizeof(*part->headers));
	segment_encode_mark(kind, &part->attempt->key, offset, last_seq, clock_unix_ns(), &p->blocks,
			    &part->headers[part->header_count++]);
}

/* Of an attempt that goes on stays what decides of the lines to come. */
static void put_marks(struct plan *p, struct part *part, bool goes_on)
{
	const struct segment_file *f = &part->attempt->file;

	put_mark(p, part, SEGMENT_DROP, goes_on ? f->last_seq : 0);
	if (goes_on && f->sealed)
		put_mark(p, part, SEGMENT_SEAL, f->seal_seq);
	if (goes_on && f->capped)
		put_mark(p, part, SEGMENT_CAP, 0);
}

int log_store_drop(struct log_store *s, const struct segment_key *key, enum log_drop what, int64_t idle_before_at,
		   uint64_t *ret_bytes, struct err *err)
{
	autovar(plan) plan = {.store = s};
	struct log_line of = {.job_id = key->job_id, .attempt = key->attempt};
	bool may = false;

	split(&plan, &of, 1);
	int rc = own_all(&plan, key->org_id, err);
	if (rc < 0)
		return rc;
	struct part *part = &plan.parts[0];
	const struct segment_file *f = &part->attempt->file;
	rc = may_drop(f, what, idle_before_at, &may, err);
	if (rc < 0 || !may)
		return rc < 0 ? rc : LOG_STORE_KEPT;
	*ret_bytes = f->size;
	put_marks(&plan, part, what == LOG_DROP_ALL && !segment_file_complete(f));
	part->end = plan.blocks.len;
	return commit(&plan, err);
}

int log_store_flush(struct log_store *s, struct err *err)
{
	return committer_flush(s->committer, err);
}

/* --- reading --- */

int log_store_state(struct log_store *s, const struct segment_key *key, struct attempt_state *ret, struct err *err)
{
	struct attempt *a = NULL;
	int rc = attempts_get(s->attempts, key, &a, err);

	if (rc < 0)
		return rc;
	*ret = attempts_state(s->attempts, a);
	attempts_put(s->attempts, a);
	return 0;
}

void log_reader_fini(struct log_reader *r)
{
	segment_lines_fini(&r->lines);
	buf_fini(&r->scratch);
}

int log_store_read(struct log_store *s, const struct segment_key *key, const struct attempts_seek *seek,
		   const struct needle *needle, struct log_reader *r, struct err *err)
{
	struct attempt *a = NULL;
	struct segment_ref ref;
	int rc = attempts_get(s->attempts, key, &a, err);

	if (rc < 0)
		return rc;
	if (attempts_find(s->attempts, a, seek, &ref)) {
		struct segment_codec *codec = codec_take(s);
		rc = segment_file_read(a->file.fd, &ref, codec, needle, &r->scratch, &r->block, &r->lines, err);
		codec_give(s, codec);
	} else {
		rc = LOG_STORE_END;
	}
	attempts_put(s->attempts, a);
	if (rc < 0)
		return err_wrap(err, "job %" PRId64 " attempt %" PRId64, key->job_id, key->attempt);
	return rc;
}

int log_store_bound(struct log_store *s, const struct segment_key *key, const struct attempts_seek *seek,
		    int64_t *ret_at, struct err *err)
{
	struct attempt *a = NULL;
	int rc = attempts_get(s->attempts, key, &a, err);

	if (rc < 0)
		return rc;
	rc = attempts_bound(s->attempts, a, seek, ret_at) ? 0 : LOG_STORE_END;
	attempts_put(s->attempts, a);
	return rc;
}

void log_list_fini(struct log_list *l)
{
	free(l->items);
	*l = (struct log_list){0};
}

static int open_dir(int at_fd, const char *name, DIR **ret, struct err *err)
{
	autoclose fd = openat(at_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	/* Nothing was stored there yet. */
	if (fd < 0 && errno == ENOENT) {
		*ret = NULL;
		return 0;
	}
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (dir == NULL)
		return err_sys(err, "read the folder of segments %s", name);
	(void)fd_take(&fd);
	*ret = dir;
	return 0;
}

static void list_add(struct log_list *l, const struct segment_key *key, const struct stat *st)
{
	if (l->count == l->cap) {
		l->cap = l->cap == 0 ? 16 : l->cap * 2;
		l->items = xreallocarray(l->items, l->cap, sizeof(*l->items));
	}
	int64_t changed_at = (int64_t)st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;
	l->items[l->count++] = (struct log_entry){*key, changed_at, (uint64_t)st->st_size};
}

static int list_bucket(int org_fd, const char *bucket, int64_t org_id, int64_t job_id, struct log_list *ret,
		       struct err *err)
{
	DIR *dir = NULL;
	int rc = open_dir(org_fd, bucket, &dir, err);

	if (rc < 0 || dir == NULL)
		return rc;
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		struct segment_key key;
		struct stat st;
		if (!segment_path_parse(org_id, entry->d_name, &key) || (job_id != 0 && key.job_id != job_id))
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0)
			list_add(ret, &key, &st);
	}
	(void)closedir(dir);
	return 0;
}

int log_store_list(struct log_store *s, int64_t org_id, int64_t job_id, struct log_list *ret, struct err *err)
{
	autofree char *org = xasprintf("%" PRId64, org_id);
	DIR *dir = NULL;
	int rc = open_dir(s->segments_fd, org, &dir, err);

	if (rc < 0 || dir == NULL)
		return rc;
	if (job_id != 0) {
		autofree char *bucket = xasprintf("%" PRId64, job_id / SEGMENT_BUCKET);
		rc = list_bucket(dirfd(dir), bucket, org_id, job_id, ret, err);
	}
	for (struct dirent *entry = readdir(dir); entry != NULL && job_id == 0 && rc == 0; entry = readdir(dir)) {
		if (entry->d_name[0] != '.')
			rc = list_bucket(dirfd(dir), entry->d_name, org_id, 0, ret, err);
	}
	(void)closedir(dir);
	return rc;
}

int log_store_orgs(struct log_store *s, int64_t **ret, size_t *ret_count, struct err *err)
{
	autofree int64_t *orgs = NULL;
	size_t count = 0;
	DIR *dir = NULL;

	int rc = open_dir(s->segments_fd, ".", &dir, err);
	if (rc < 0 || dir == NULL)
		return rc;
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		int64_t org_id = 0;
		if (str_to_i64(str_c(entry->d_name), "org", 1, INT64_MAX, &org_id, NULL) < 0)
			continue;
		orgs = xreallocarray(orgs, count + 1, sizeof(*orgs));
		orgs[count++] = org_id;
	}
	(void)closedir(dir);
	*ret = TAKE(orgs);
	*ret_count = count;
	return 0;
}

int log_store_check_room(struct log_store *s, struct err *err)
{
	return committer_check_room(s->committer, err);
}

struct log_store_counts log_store_counts(struct log_store *s)
{
	struct committer_counts c = committer_counts(s->committer);

	return (struct log_store_counts){c.groups, c.bytes, c.refused, c.waiting};
}
