/*
 * Power loss, tried out: a store is filled batch by batch, and after each acknowledged one its files are remembered.
 * From every such state, with the journal going on into the next group by every possible number of bytes, or with one
 * of these bytes wrong, and with the segments in each state that an unsynced file can be left in, the store is opened
 * again. It must hold every acknowledged line, no other line unless its whole group arrived, and must go on.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "logs/store.h"

enum { ORG = 7, JOBS = 3, PER_BATCH = 2, STEPS = 7, FILE_MAX = 1 << 20, TEXT_SIZE = 32 };

/* The files of a store after a number of steps. */
struct image {
	struct buf journal;
	struct buf segments[JOBS]; /* of the jobs 1 to JOBS */
	int64_t lines[JOBS];
};

struct history {
	char root[48];
	struct image images[STEPS + 1];
};

static void history_fini(struct history *h)
{
	for (size_t i = 0; i <= STEPS; i++) {
		buf_fini(&h->images[i].journal);
		for (size_t job = 0; job < JOBS; job++)
			buf_fini(&h->images[i].segments[job]);
	}
}
AUTOVAR_DEFINE(history)

static const char journal_path[] = "journal/0000000000000001.journal";

static struct segment_key key_of(size_t job)
{
	return (struct segment_key){ORG, (int64_t)job + 1, 1};
}

static struct log_store *open_store(const char *path, struct log_store_recovery *recovery)
{
	struct log_store *store = NULL;
	struct err err = {0};

	if (log_store_open(&(struct log_store_opts){.path = path}, &store, recovery, &err) < 0)
		fail_msg("%s", err.msg);
	return store;
}

static void text_of(size_t job, int64_t seq, char text[static TEXT_SIZE])
{
	(void)snprintf(text, TEXT_SIZE, "job %zu, line %" PRId64, job + 1, seq);
}

/* The next lines of two jobs in one batch: the group has two blocks. */
static void append_step(struct log_store *store, size_t step, const int64_t lines[static JOBS],
			int64_t next[static JOBS])
{
	struct log_line batch[2 * PER_BATCH];
	char texts[2 * PER_BATCH][TEXT_SIZE];
	struct log_append done;
	struct err err = {0};
	size_t count = 0;

	memcpy(next, lines, JOBS * sizeof(*next));
	for (size_t i = 0; i < 2; i++) {
		size_t job = (step + i) % JOBS;
		for (size_t n = 0; n < PER_BATCH; n++, count++) {
			int64_t seq = ++next[job];
			text_of(job, seq, texts[count]);
			batch[count] = (struct log_line){.job_id = (int64_t)job + 1,
							 .attempt = 1,
							 .seq = seq,
							 .timestamp = 1000 + seq,
							 .message = str_c(texts[count])};
		}
	}
	if (log_store_append(store, ORG, batch, count, &done, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(done.stored, count);
}

/* --- what is on disk --- */

static void read_if_there(int dir_fd, const char *path, struct buf *out)
{
	if (faccessat(dir_fd, path, F_OK, 0) == 0)
		assert_int_equal(file_read(dir_fd, path, FILE_MAX, out, NULL), 0);
}

static char *segment_name(size_t job, char name[static SEGMENT_PATH_SIZE + 16])
{
	char path[SEGMENT_PATH_SIZE];
	const struct segment_key key = key_of(job);

	(void)snprintf(name, SEGMENT_PATH_SIZE + 16, "segments/%s", segment_path(&key, path));
	return name;
}

static void remember(int dir_fd, const int64_t lines[static JOBS], struct image *ret)
{
	char name[SEGMENT_PATH_SIZE + 16];

	read_if_there(dir_fd, journal_path, &ret->journal);
	for (size_t job = 0; job < JOBS; job++) {
		read_if_there(dir_fd, segment_name(job, name), &ret->segments[job]);
		ret->lines[job] = lines[job];
	}
}

static void write_file(int dir_fd, const char *path, struct str bytes)
{
	autoclose fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(file_write_fd(fd, bytes, NULL), 0);
}

/* How the segments, which nobody synced, were left. */
enum segments { SEGMENTS_NONE, SEGMENTS_WRITTEN, SEGMENTS_TORN, SEGMENTS_ZEROS, SEGMENTS_END };

static void lay_segment(int dir_fd, size_t job, struct str bytes, enum segments how)
{
	char name[SEGMENT_PATH_SIZE + 16];
	autofree char *copy = NULL;

	if (how == SEGMENTS_NONE || bytes.len == 0)
		return;
	copy = xmemdup0(bytes.data, bytes.len);
	if (how == SEGMENTS_TORN)
		bytes.len -= 40;
	if (how == SEGMENTS_ZEROS) /* the size came to the disk, the bytes did not */
		memset(copy + bytes.len / 2, 0, bytes.len - bytes.len / 2);
	write_file(dir_fd, segment_name(job, name), (struct str){copy, bytes.len});
}

static void lay(const char *path, const struct image *image, struct str journal, enum segments how)
{
	autoclose dir_fd = -1;
	char *folder = xasprintf("%s/segments/%d/0", path, ORG);

	assert_int_equal(dir_make(folder, 0700, NULL), 0);
	free(folder);
	folder = xasprintf("%s/journal", path);
	assert_int_equal(dir_make(folder, 0700, NULL), 0);
	free(folder);
	assert_int_equal(dir_open(path, &dir_fd, NULL), 0);
	write_file(dir_fd, journal_path, journal);
	for (size_t job = 0; job < JOBS; job++)
		lay_segment(dir_fd, job, buf_str(&image->segments[job]), how);
}

/* --- the checks --- */

static void assert_holds(struct log_store *store, size_t job, int64_t last)
{
	const struct segment_key key = key_of(job);
	autovar(log_reader) reader = {0};
	struct err err = {0};
	int64_t next = 1;

	for (;;) {
		const struct attempts_seek seek = {.seq = next, .since_at = INT64_MIN, .until_at = INT64_MAX};
		int rc = log_store_read(store, &key, &seek, NULL, &reader, &err);
		if (rc == LOG_STORE_END)
			break;
		assert_int_equal(rc, 0);
		for (size_t i = 0; i < reader.lines.count; i++, next++) {
			char text[TEXT_SIZE];
			text_of(job, next, text);
			assert_int_equal(reader.lines.lines[i].seq, next);
			assert_true(str_eq(reader.lines.lines[i].message, str_c(text)));
		}
	}
	assert_int_equal(next - 1, last);
}

/* One power loss: `journal` is what came to the disk of it, `lines` what must be there. */
static void try_one(const struct history *h, const struct image *image, struct str journal, enum segments how,
		    const int64_t lines[static JOBS])
{
	char *path = xasprintf("%s/again", h->root);
	struct log_store_recovery recovery;
	int64_t next[JOBS];

	lay(path, image, journal, how);
	autoptr(log_store) store = open_store(path, &recovery);
	for (size_t job = 0; job < JOBS; job++)
		assert_holds(store, job, lines[job]);
	append_step(store, 0, lines, next);
	for (size_t job = 0; job < JOBS; job++)
		assert_holds(store, job, next[job]);
	log_store_free(TAKE(store));
	assert_int_equal(dir_remove(AT_FDCWD, path, NULL), 0);
	free(path);
}

/* In the group that was being written: whole only when all its blocks are. A whole block of half a group may be
 * replayed: nobody was promised it, and the sender sends it again. */
static void lines_after(const struct image *before, const struct image *after, size_t len, int64_t ret[static JOBS])
{
	struct segment_header h;

	memcpy(ret, before->lines, sizeof(before->lines));
	for (size_t i = 0, at = before->journal.len; i < 2; i++) {
		struct str header = {after->journal.data + at, SEGMENT_HEADER_SIZE};
		assert_int_equal(segment_decode_header(header, &h, NULL), 0);
		at += segment_block_len(&h);
		if (at > len)
			break;
		ret[h.key.job_id - 1] = after->lines[h.key.job_id - 1];
	}
}

static void every_torn_group_recovers(void **state)
{
	const struct history *h = *state;

	for (size_t step = 0; step < STEPS; step++) {
		const struct image *before = &h->images[step];
		const struct image *after = &h->images[step + 1];
		for (size_t len = before->journal.len; len <= after->journal.len; len++) {
			int64_t lines[JOBS];
			lines_after(before, after, len, lines);
			try_one(h, before, (struct str){after->journal.data, len}, len % SEGMENTS_END, lines);
		}
	}
}

static void every_wrong_byte_is_found(void **state)
{
	const struct history *h = *state;
	const struct image *before = &h->images[STEPS - 1];
	const struct image *after = &h->images[STEPS];

	for (size_t at = before->journal.len; at < after->journal.len; at++) {
		autofree char *bytes = xmemdup0(after->journal.data, after->journal.len);
		int64_t lines[JOBS];
		bytes[at] = (char)(bytes[at] ^ 0x20);
		lines_after(before, after, at, lines);
		try_one(h, before, (struct str){bytes, after->journal.len}, at % SEGMENTS_END, lines);
	}
}

static void every_prefix_recovers_with_any_segments(void **state)
{
	const struct history *h = *state;

	for (size_t step = 0; step <= STEPS; step++) {
		const struct image *image = &h->images[step];
		for (enum segments how = SEGMENTS_NONE; how < SEGMENTS_END; how++)
			try_one(h, image, buf_str(&image->journal), how, image->lines);
	}
}

static int set_up(void **state)
{
	/* In memory where that can be had: thousands of starts, each of which syncs. */
	const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	struct history *h = xcalloc(1, sizeof(*h));
	struct log_store_recovery recovery;
	autoclose dir_fd = -1;

	(void)snprintf(h->root, sizeof(h->root), "%s/nimbus-recovery-XXXXXX", base);
	assert_non_null(mkdtemp(h->root));
	char *path = xasprintf("%s/first", h->root);
	autoptr(log_store) store = open_store(path, &recovery);
	assert_int_equal(dir_open(path, &dir_fd, NULL), 0);
	remember(dir_fd, h->images[0].lines, &h->images[0]);
	for (size_t step = 0; step < STEPS; step++) {
		int64_t next[JOBS];
		append_step(store, step, h->images[step].lines, next);
		remember(dir_fd, next, &h->images[step + 1]);
		assert_true(h->images[step + 1].journal.len > h->images[step].journal.len);
	}
	free(path);
	*state = h;
	return 0;
}

static int tear_down(void **state)
{
	struct history *h = *state;
	int rc = dir_remove(AT_FDCWD, h->root, NULL);

	history_fini(h);
	free(h);
	return rc;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_prefix_recovers_with_any_segments),
		cmocka_unit_test(every_torn_group_recovers),
		cmocka_unit_test(every_wrong_byte_is_found),
	};

	return cmocka_run_group_tests_name("recovery", tests, set_up, tear_down);
}
