#include "logs/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

enum { ORG = 7, TEXT_SIZE = 32 };

/* What the fakes do. */
static atomic_bool disk_is_full;
static atomic_bool sync_fails;
static atomic_int syncs;
static atomic_int failures;

static int fake_sync(int fd)
{
	atomic_fetch_add(&syncs, 1);
	if (sync_fails) {
		errno = EIO;
		return -1;
	}
	return fdatasync(fd);
}

static int fake_disk_free(int fd, uint64_t *ret, struct err *err)
{
	if (!disk_is_full)
		return disk_free(fd, ret, err);
	*ret = 0;
	return 0;
}

static void on_failed(void *ctx, const struct err *err)
{
	(void)ctx;
	(void)err;
	atomic_fetch_add(&failures, 1);
}

struct fixture {
	char path[40];
	struct log_store *store;
	struct log_store_recovery recovery;
	struct log_store_opts opts;
};

static void open_store(struct fixture *f)
{
	struct err err = {0};

	f->opts.path = f->path;
	f->opts.sync = fake_sync;
	f->opts.disk_free = fake_disk_free;
	f->opts.failed = on_failed;
	if (log_store_open(&f->opts, &f->store, &f->recovery, &err) != 0)
		fail_msg("%s", err.msg);
}

static void close_store(struct fixture *f)
{
	struct err err = {0};

	if (log_store_close(TAKE(f->store), &err) != 0)
		fail_msg("%s", err.msg);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	memcpy(f->path, "/tmp/nimbus-logs-XXXXXX", sizeof("/tmp/nimbus-logs-XXXXXX"));
	assert_non_null(mkdtemp(f->path));
	disk_is_full = false;
	sync_fails = false;
	syncs = 0;
	failures = 0;
	open_store(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	log_store_free(f->store);
	int rc = dir_remove(AT_FDCWD, f->path, &err);
	free(f);
	return rc;
}

/* Lines first..last of an attempt, whose text tells which they are. */
struct batch {
	struct log_line *lines;
	char (*texts)[TEXT_SIZE];
	size_t count;
};

static void batch_fini(struct batch *b)
{
	free(b->lines);
	free(b->texts);
}
AUTOVAR_DEFINE(batch)

static struct batch make(int64_t job_id, int64_t attempt, int64_t first, int64_t last)
{
	struct batch b = {.count = (size_t)(last - first + 1)};

	b.lines = xcalloc(b.count, sizeof(*b.lines));
	b.texts = xcalloc(b.count, sizeof(*b.texts));
	for (size_t i = 0; i < b.count; i++) {
		int64_t seq = first + (int64_t)i;
		(void)snprintf(b.texts[i], TEXT_SIZE, "%" PRId64 "/%" PRId64 ":%" PRId64, job_id, attempt, seq);
		b.lines[i] = (struct log_line){
			.job_id = job_id,
			.attempt = attempt,
			.seq = attempt == 0 ? 0 : seq,
			.message = str_c(b.texts[i]),
			.timestamp = 1000 + seq,
		};
	}
	return b;
}

static int append(struct fixture *f, int64_t job_id, int64_t attempt, int64_t first, int64_t last,
		  struct log_append *ret)
{
	autovar(batch) b = make(job_id, attempt, first, last);
	struct err err = {0};

	return log_store_append(f->store, ORG, b.lines, b.count, ret, &err);
}

static void append_new(struct fixture *f, int64_t job_id, int64_t attempt, int64_t first, int64_t last)
{
	struct log_append done = {0};

	assert_int_equal(append(f, job_id, attempt, first, last, &done), 0);
	assert_int_equal(done.stored, last - first + 1);
	assert_int_equal(done.repeated, 0);
}

/* The attempt holds exactly the lines 1..last, each the one it was. */
static void assert_holds(struct fixture *f, int64_t job_id, int64_t attempt, int64_t last)
{
	const struct segment_key key = {ORG, job_id, attempt};
	autovar(log_reader) reader = {0};
	struct attempt_state now;
	struct err err = {0};
	int64_t next = 1;

	assert_int_equal(log_store_state(f->store, &key, &now, &err), 0);
	assert_int_equal(now.last_seq, last);
	for (;;) {
		const struct attempts_seek seek = {.seq = next, .since_at = INT64_MIN, .until_at = INT64_MAX};
		int rc = log_store_read(f->store, &key, &seek, NULL, &reader, &err);
		if (rc == LOG_STORE_END)
			break;
		assert_int_equal(rc, 0);
		for (size_t i = 0; i < reader.lines.count; i++) {
			char text[TEXT_SIZE];
			const struct log_line *line = &reader.lines.lines[i];
			(void)snprintf(text, sizeof(text), "%" PRId64 "/%" PRId64 ":%" PRId64, job_id, attempt, next);
			assert_int_equal(line->seq, next);
			assert_true(str_eq(line->message, str_c(text)));
			next++;
		}
	}
	assert_int_equal(next - 1, last);
}

static void a_line_is_stored_once(void **state)
{
	struct fixture *f = *state;
	struct log_append done = {0};

	append_new(f, 1, 1, 1, 10);
	assert_int_equal(append(f, 1, 1, 1, 10, &done), 0); /* the whole batch again */
	assert_int_equal(done.stored, 0);
	assert_int_equal(done.repeated, 10);
	assert_int_equal(append(f, 1, 1, 8, 13, &done), 0); /* overlapping */
	assert_int_equal(done.stored, 3);
	assert_int_equal(done.repeated, 3);
	assert_int_equal(append(f, 1, 1, 15, 16, &done), -ERR_CONFLICT); /* 14 is missing */
	assert_holds(f, 1, 1, 13);
	append_new(f, 1, 2, 1, 2); /* another attempt is another log */
	assert_holds(f, 1, 2, 2);
	assert_holds(f, 1, 1, 13);
}

static void lines_without_an_attempt_are_numbered(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	struct log_append done = {0};

	append_new(f, 5, 0, 1, 3);
	append_new(f, 5, 0, 4, 6);
	assert_holds(f, 5, 0, 6);
	struct log_line numbered = {.job_id = 5, .seq = 7, .message = STR("x")};
	assert_int_equal(log_store_append(f->store, ORG, &numbered, 1, &done, &err), -ERR_INVALID_FIELD);
	struct log_line bare = {.job_id = 5, .attempt = 1, .message = STR("x")};
	assert_int_equal(log_store_append(f->store, ORG, &bare, 1, &done, &err), -ERR_INVALID_FIELD);
}

static void a_batch_may_hold_many_jobs_and_is_taken_whole_or_not(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	struct log_append done = {0};
	struct log_line mixed[9];
	char texts[ARRAY_LEN(mixed)][TEXT_SIZE];

	/* Jobs 3, 2, 1, 3, 2, 1, ...: each with lines 1..3 in order. */
	for (size_t i = 0; i < ARRAY_LEN(mixed); i++) {
		int64_t job = 3 - (int64_t)(i % 3);
		int64_t seq = 1 + (int64_t)(i / 3);
		(void)snprintf(texts[i], TEXT_SIZE, "%" PRId64 "/1:%" PRId64, job, seq);
		mixed[i] = (struct log_line){.job_id = job, .attempt = 1, .seq = seq, .message = str_c(texts[i])};
	}
	assert_int_equal(log_store_append(f->store, ORG, mixed, ARRAY_LEN(mixed), &done, &err), 0);
	assert_int_equal(done.stored, 9);
	for (int64_t job = 1; job <= 3; job++)
		assert_holds(f, job, 1, 3);

	struct log_line bad[] = {
		{.job_id = 1, .attempt = 1, .seq = 4, .message = STR("1/1:4")},
		{.job_id = 2, .attempt = 1, .seq = 9, .message = STR("2/1:9")},
	};
	assert_int_equal(log_store_append(f->store, ORG, bad, ARRAY_LEN(bad), &done, &err), -ERR_CONFLICT);
	assert_non_null(strstr(err.msg, "line 4 is next, not 9"));
	assert_holds(f, 1, 1, 3);
}

static void a_batch_opens_only_so_many_files(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	struct log_append done = {0};
	struct log_line lines[LOG_STORE_ATTEMPTS_MAX + 1];

	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		lines[i] = (struct log_line){
			.job_id = (int64_t)i + 1, .attempt = 1, .seq = 1, .message = STR("x"), .timestamp = 1};
	assert_int_equal(log_store_append(f->store, ORG, lines, ARRAY_LEN(lines), &done, &err), -ERR_TOO_LARGE);
	assert_int_equal(done.stored, 0);
	assert_int_equal(log_store_append(f->store, ORG, lines, LOG_STORE_ATTEMPTS_MAX, &done, &err), 0);
	assert_int_equal(done.stored, LOG_STORE_ATTEMPTS_MAX);
}

static struct attempt_state state_of(struct fixture *f, int64_t job_id, int64_t attempt)
{
	const struct segment_key key = {ORG, job_id, attempt};
	struct attempt_state now;
	struct err err = {0};

	assert_int_equal(log_store_state(f->store, &key, &now, &err), 0);
	return now;
}

static void seal(struct fixture *f, int64_t job_id, int64_t attempt, int64_t last_seq)
{
	const struct segment_key key = {ORG, job_id, attempt};
	struct err err = {0};

	assert_int_equal(log_store_seal(f->store, &key, last_seq, &err), 0);
}

static void a_seal_takes_what_is_still_missing_and_no_more(void **state)
{
	struct fixture *f = *state;
	struct log_append done = {0};

	append_new(f, 1, 1, 1, 5);
	seal(f, 1, 1, 8);
	assert_true(state_of(f, 1, 1).sealed);
	assert_false(state_of(f, 1, 1).complete);
	append_new(f, 1, 1, 6, 7);
	assert_int_equal(append(f, 1, 1, 8, 9, &done), -ERR_SEALED);
	append_new(f, 1, 1, 8, 8);
	assert_true(state_of(f, 1, 1).complete);
	assert_int_equal(append(f, 1, 1, 9, 9, &done), -ERR_SEALED);
	assert_int_equal(append(f, 1, 1, 1, 8, &done), 0); /* its answer was lost */
	assert_int_equal(done.repeated, 8);
	seal(f, 1, 1, SEGMENT_SEAL_NOW);
	seal(f, 1, 1, 8);
	assert_holds(f, 1, 1, 8);
}

static void a_lost_attempt_takes_nothing(void **state)
{
	struct fixture *f = *state;
	struct log_append done = {0};

	append_new(f, 1, 1, 1, 5);
	seal(f, 1, 1, SEGMENT_SEAL_NOW);
	seal(f, 2, 1, SEGMENT_SEAL_NOW); /* it never logged */
	seal(f, 3, 1, 0);		 /* it ended without a line */
	for (int turn = 0; turn < 2; turn++) {
		assert_int_equal(append(f, 1, 1, 6, 6, &done), -ERR_SEALED);
		assert_int_equal(append(f, 1, 1, 5, 5, &done), -ERR_SEALED);
		assert_int_equal(append(f, 2, 1, 1, 1, &done), -ERR_SEALED);
		assert_int_equal(append(f, 3, 1, 1, 1, &done), -ERR_SEALED);
		assert_true(state_of(f, 1, 1).complete);
		assert_true(state_of(f, 2, 1).complete);
		assert_true(state_of(f, 3, 1).complete);
		assert_int_equal(state_of(f, 1, 1).last_seq, 5);
		/* It is durable. */
		close_store(f);
		open_store(f);
	}
}

static size_t journal_files(struct fixture *f)
{
	autofree char *path = xasprintf("ls %s/journal | wc -l", f->path);
	FILE *pipe = popen(path, "re");
	size_t count = 0;

	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%zu", &count), 1);
	(void)pclose(pipe);
	return count;
}

static void a_clean_end_leaves_no_journal(void **state)
{
	struct fixture *f = *state;

	append_new(f, 1, 1, 1, 1000);
	close_store(f);
	assert_int_equal(journal_files(f), 0);
	open_store(f);
	assert_int_equal(f->recovery.journals, 0);
	assert_holds(f, 1, 1, 1000);
	append_new(f, 1, 1, 1001, 1001);
}

/* Runs `work` in a process that then ends as by kill -9: what the store holds in memory is gone. */
static void in_a_process_that_dies(struct fixture *f, void (*work)(struct fixture *))
{
	int status = 0;

	close_store(f);
	(void)fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		open_store(f);
		work(f);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void write_two_jobs(struct fixture *f)
{
	for (int64_t i = 0; i < 5; i++) {
		append_new(f, 1, 1, 1 + i * 10, 10 + i * 10);
		append_new(f, 2, 1, 1 + i * 10, 10 + i * 10);
	}
	seal(f, 2, 1, 50);
}

static void what_was_acknowledged_survives_a_kill(void **state)
{
	struct fixture *f = *state;

	in_a_process_that_dies(f, write_two_jobs);
	open_store(f);
	assert_int_equal(f->recovery.journals, 1);
	assert_int_equal(f->recovery.blocks, 11);
	assert_int_equal(f->recovery.torn, 0);
	assert_holds(f, 1, 1, 50);
	assert_holds(f, 2, 1, 50);
	assert_true(state_of(f, 2, 1).complete);
}

/* The segments lost everything: they were not synced yet when the power went. */
static void the_journal_makes_segments_whole(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	in_a_process_that_dies(f, write_two_jobs);
	autofree char *segments = xasprintf("%s/segments", f->path);
	assert_int_equal(dir_remove(AT_FDCWD, segments, &err), 0);
	open_store(f);
	assert_holds(f, 1, 1, 50);
	assert_holds(f, 2, 1, 50);
}

static void write_three_batches(struct fixture *f)
{
	append_new(f, 1, 1, 1, 3);
	append_new(f, 1, 1, 4, 6);
	append_new(f, 1, 1, 7, 9);
}

/* Gives the path of the only journal. */
static char *journal_path(struct fixture *f)
{
	return xasprintf("%s/journal/%016x.journal", f->path, 1);
}

/* Every byte of the last group of the journal torn off, or turned: the groups before it stand. */
static void a_torn_journal_keeps_whole_groups(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autovar(buf) whole = {0};

	in_a_process_that_dies(f, write_three_batches);
	autofree char *journal = journal_path(f);
	autofree char *segments = xasprintf("%s/segments", f->path);
	assert_int_equal(file_read(AT_FDCWD, journal, 1 << 20, &whole, &err), 0);
	size_t block = whole.len / 3; /* the texts are equally long */
	for (size_t torn = 1; torn <= 2 * block; torn++) {
		bool turned = torn > block;
		size_t at = turned ? whole.len - (torn - block) : whole.len - torn;
		assert_int_equal(dir_remove(AT_FDCWD, segments, &err), 0);
		if (turned)
			whole.data[at] = (char)~whole.data[at];
		struct str left = {whole.data, turned ? whole.len : at};
		assert_int_equal(file_write_atomic(AT_FDCWD, journal, left, 0600, &err), 0);
		if (turned)
			whole.data[at] = (char)~whole.data[at];
		open_store(f);
		assert_holds(f, 1, 1, 6);
		append_new(f, 1, 1, 7, 9);
		assert_holds(f, 1, 1, 9);
		close_store(f);
	}
}

/* Every byte of the last block of a segment torn off, or turned, with no journal to help. */
static void a_torn_segment_is_cut_at_the_last_whole_block(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autovar(buf) whole = {0};

	write_three_batches(f);
	close_store(f);
	autofree char *path = xasprintf("%s/segments/%d/0/1-1.seg", f->path, ORG);
	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &whole, &err), 0);
	size_t block = whole.len / 3;
	for (size_t torn = 1; torn <= 2 * block; torn++) {
		bool turned = torn > block;
		size_t at = turned ? whole.len - (torn - block) : whole.len - torn;
		if (turned)
			whole.data[at] = (char)~whole.data[at];
		struct str left = {whole.data, turned ? whole.len : at};
		assert_int_equal(file_write_atomic(AT_FDCWD, path, left, 0600, &err), 0);
		if (turned)
			whole.data[at] = (char)~whole.data[at];
		open_store(f);
		assert_holds(f, 1, 1, 6);
		assert_int_equal(state_of(f, 1, 1).cut, left.len - 2 * block);
		append_new(f, 1, 1, 7, 9);
		close_store(f);
		open_store(f);
		assert_holds(f, 1, 1, 9);
		assert_int_equal(state_of(f, 1, 1).cut, 0);
		close_store(f);
	}
	open_store(f);
}

/* No crash of ours does that; a bad disk does. */
static void damage_in_the_middle_costs_only_itself(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autovar(buf) whole = {0};

	write_three_batches(f);
	close_store(f);
	autofree char *path = xasprintf("%s/segments/%d/0/1-1.seg", f->path, ORG);
	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &whole, &err), 0);
	whole.data[whole.len / 3 + 50] = 'x';
	assert_int_equal(file_write_atomic(AT_FDCWD, path, buf_str(&whole), 0600, &err), 0);
	open_store(f);
	struct attempt_state now = state_of(f, 1, 1);
	assert_int_equal(now.damaged, 1);
	assert_int_equal(now.cut, 0);
	assert_int_equal(now.last_seq, 9);
	append_new(f, 1, 1, 10, 12);
}

static void a_full_disk_is_refused_and_passes(void **state)
{
	struct fixture *f = *state;
	struct log_append done = {0};

	append_new(f, 1, 1, 1, 3);
	disk_is_full = true;
	assert_int_equal(log_store_check_room(f->store, NULL), -ERR_DISK_FULL);
	assert_int_equal(append(f, 1, 1, 4, 6, &done), -ERR_DISK_FULL);
	assert_int_equal(append(f, 2, 1, 1, 6, &done), -ERR_DISK_FULL);
	assert_holds(f, 1, 1, 3);
	assert_int_equal(log_store_counts(f->store).refused, 2);
	disk_is_full = false;
	assert_int_equal(log_store_check_room(f->store, NULL), 0);
	append_new(f, 1, 1, 4, 6);
	append_new(f, 2, 1, 1, 6);
	assert_holds(f, 1, 1, 6);
	assert_int_equal(failures, 0);
}

static void a_sync_that_fails_is_the_end(void **state)
{
	struct fixture *f = *state;
	struct log_append done = {0};
	struct err err = {0};

	append_new(f, 1, 1, 1, 3);
	sync_fails = true;
	assert_int_equal(append(f, 1, 1, 4, 6, &done), -ERR_IO);
	sync_fails = false;
	/* The kernel may have dropped the pages and say nothing of it now. */
	assert_int_equal(append(f, 1, 1, 4, 6, &done), -ERR_IO);
	assert_int_equal(failures, 1);
	assert_holds(f, 1, 1, 3);
	assert_int_equal(log_store_close(TAKE(f->store), &err), -ERR_IO);
	open_store(f);
	/* 4..6 may be there or not; what was acknowledged is. */
	assert_true(state_of(f, 1, 1).last_seq >= 3);
}

static void full_journals_are_retired(void **state)
{
	struct fixture *f = *state;

	close_store(f);
	f->opts.journal_max = 4096;
	f->opts.open_max = 4;
	open_store(f);
	for (int64_t round = 0; round < 20; round++) {
		for (int64_t job = 1; job <= 12; job++)
			append_new(f, job, 1, 1 + round * 20, 20 + round * 20);
	}
	for (int64_t job = 1; job <= 12; job++)
		assert_holds(f, job, 1, 400);
	/* Its bound is four full ones, the one being written, and one that is being opened. */
	assert_true(journal_files(f) <= 6);
	close_store(f);
	assert_int_equal(journal_files(f), 0);
	open_store(f);
	for (int64_t job = 1; job <= 12; job++)
		assert_holds(f, job, 1, 400);
}

static void one_folder_has_one_store(void **state)
{
	struct fixture *f = *state;
	struct log_store *second = NULL;
	struct log_store_recovery recovery;
	struct err err = {0};

	assert_int_equal(log_store_open(&f->opts, &second, &recovery, &err), -ERR_CONFLICT);
}

static void blocks_are_found_by_number_and_time(void **state)
{
	struct fixture *f = *state;
	const struct segment_key key = {ORG, 1, 1};
	struct err err = {0};
	static const struct {
		struct attempts_seek seek;
		int64_t first; /* of the block that is found; 0: none */
	} cases[] = {
		{{1, false, INT64_MIN, INT64_MAX}, 1},
		{{3, false, INT64_MIN, INT64_MAX}, 1},
		{{4, false, INT64_MIN, INT64_MAX}, 4},
		{{10, false, INT64_MIN, INT64_MAX}, 0},
		{{INT64_MAX, true, INT64_MIN, INT64_MAX}, 7},
		{{6, true, INT64_MIN, INT64_MAX}, 4},
		{{0, true, INT64_MIN, INT64_MAX}, 0},
		{{1, false, 1005, INT64_MAX}, 4},
		{{1, false, 1010, INT64_MAX}, 0},
		{{9, true, INT64_MIN, 1003}, 1},
		{{9, true, INT64_MIN, 1000}, 0},
		{{1, false, INT64_MIN, 1000}, 0},
	};

	write_three_batches(f);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(log_reader) reader = {0};
		int rc = log_store_read(f->store, &key, &cases[i].seek, NULL, &reader, &err);
		assert_int_equal(rc, cases[i].first == 0 ? LOG_STORE_END : 0);
		if (rc == 0)
			assert_int_equal(reader.lines.lines[0].seq, cases[i].first);
	}
}

static void lists_know_jobs_and_organisations(void **state)
{
	struct fixture *f = *state;
	autovar(log_list) of_job = {0};
	autovar(log_list) of_org = {0};
	autovar(log_list) of_other = {0};
	struct err err = {0};

	append_new(f, 1, 1, 1, 1);
	append_new(f, 1, 2, 1, 1);
	append_new(f, 5000, 1, 1, 1);
	assert_int_equal(log_store_list(f->store, ORG, 1, &of_job, &err), 0);
	assert_int_equal(of_job.count, 2);
	assert_int_equal(log_store_list(f->store, ORG, 0, &of_org, &err), 0);
	assert_int_equal(of_org.count, 3);
	assert_int_equal(log_store_list(f->store, ORG + 1, 0, &of_other, &err), 0);
	assert_int_equal(of_other.count, 0);
}

enum { WRITERS = 8, ROUNDS = 60, STEP = 7 };

struct writer {
	struct fixture *f;
	int64_t job_id;
	pthread_t thread;
};

/* Two writers a job, both with all lines: as a shim and its impatient successor. */
static void *write_job(void *arg)
{
	struct writer *w = arg;

	for (int64_t i = 0; i < ROUNDS; i++) {
		autovar(batch) b = make(w->job_id, 1, 1 + i * STEP, STEP + i * STEP);
		struct log_append done;
		struct err err = {0};
		/* cmocka's assertions are not for threads: the reader counts afterwards. */
		(void)!log_store_append(w->f->store, ORG, b.lines, b.count, &done, &err);
		autovar(batch) bare = make(100, 0, 1, 1);
		(void)!log_store_append(w->f->store, ORG, bare.lines, bare.count, &done, &err);
	}
	return NULL;
}

static void *read_jobs(void *arg)
{
	struct writer *w = arg;
	autovar(log_reader) reader = {0};
	int64_t next = 1;

	while (next <= ROUNDS * STEP) {
		const struct segment_key key = {ORG, w->job_id, 1};
		const struct attempts_seek seek = {.seq = next, .since_at = INT64_MIN, .until_at = INT64_MAX};
		struct err err = {0};
		if (log_store_read(w->f->store, &key, &seek, NULL, &reader, &err) == 0)
			next = reader.lines.lines[reader.lines.count - 1].seq + 1;
	}
	return NULL;
}

static void many_threads(void **state)
{
	struct fixture *f = *state;
	struct writer writers[WRITERS];
	struct writer reader = {f, 1, 0};

	close_store(f);
	f->opts.journal_max = 16384;
	f->opts.open_max = 3;
	open_store(f);
	for (int64_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){f, 1 + i / 2, 0};
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_job, &writers[i]), 0);
	}
	assert_int_equal(pthread_create(&reader.thread, NULL, read_jobs, &reader), 0);
	for (size_t i = 0; i < WRITERS; i++)
		(void)pthread_join(writers[i].thread, NULL);
	(void)pthread_join(reader.thread, NULL);
	for (int turn = 0; turn < 2; turn++) {
		for (int64_t job = 1; job <= WRITERS / 2; job++)
			assert_holds(f, job, 1, ROUNDS * STEP);
		assert_int_equal(state_of(f, 100, 0).last_seq, WRITERS * ROUNDS);
		close_store(f);
		open_store(f);
	}
	assert_int_equal(failures, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_line_is_stored_once),
		TEST(lines_without_an_attempt_are_numbered),
		TEST(a_batch_may_hold_many_jobs_and_is_taken_whole_or_not),
		TEST(a_batch_opens_only_so_many_files),
		TEST(a_seal_takes_what_is_still_missing_and_no_more),
		TEST(a_lost_attempt_takes_nothing),
		TEST(a_clean_end_leaves_no_journal),
		TEST(what_was_acknowledged_survives_a_kill),
		TEST(the_journal_makes_segments_whole),
		TEST(a_torn_journal_keeps_whole_groups),
		TEST(a_torn_segment_is_cut_at_the_last_whole_block),
		TEST(damage_in_the_middle_costs_only_itself),
		TEST(a_full_disk_is_refused_and_passes),
		TEST(a_sync_that_fails_is_the_end),
		TEST(full_journals_are_retired),
		TEST(one_folder_has_one_store),
		TEST(blocks_are_found_by_number_and_time),
		TEST(lists_know_jobs_and_organisations),
		TEST(many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
