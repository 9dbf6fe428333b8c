#include "logs/segment_index.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "logs/store.h"

enum { BLOCKS = SEGMENT_INDEX_WORTH + 40, FILE_MAX = 1 << 20 };

static const struct segment_key key = {7, 1, 1};
static const char index_name[] = "segments/7/0/1-1.idx";

struct fixture {
	char path[40];
	int dir_fd;
};

static struct log_store *open_store(const struct fixture *f)
{
	struct log_store_recovery recovery;
	struct log_store *store = NULL;
	struct err err = {0};

	if (log_store_open(&(struct log_store_opts){.path = f->path}, &store, &recovery, &err) < 0)
		fail_msg("%s", err.msg);
	return store;
}

static void add(struct log_store *store, int64_t first, int64_t last)
{
	for (int64_t seq = first; seq <= last; seq++) {
		struct log_line line = {.job_id = 1, .attempt = 1, .seq = seq, .timestamp = seq, .message = STR("x")};
		struct log_append done;
		struct err err = {0};
		assert_int_equal(log_store_append(store, key.org_id, &line, 1, &done, &err), 0);
	}
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct err err = {0};

	memcpy(f->path, "/tmp/nimbus-index-XXXXXX", sizeof("/tmp/nimbus-index-XXXXXX"));
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(dir_open(f->path, &f->dir_fd, &err), 0);
	struct log_store *store = open_store(f);
	add(store, 1, BLOCKS);
	assert_int_equal(log_store_close(store, &err), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	fd_close(&f->dir_fd);
	int rc = dir_remove(AT_FDCWD, f->path, &err);
	free(f);
	return rc;
}

/* Every line is found, by number and by time, whatever the index was like. */
static void assert_whole(struct log_store *store, int64_t last)
{
	autovar(log_reader) reader = {0};
	struct err err = {0};

	for (int64_t seq = 1; seq <= last; seq++) {
		const struct attempts_seek by_seq = {.seq = seq, .since_at = INT64_MIN, .until_at = INT64_MAX};
		assert_int_equal(log_store_read(store, &key, &by_seq, NULL, &reader, &err), 0);
		assert_int_equal(reader.lines.lines[0].seq, seq);
		const struct attempts_seek by_time = {.seq = 1, .since_at = seq, .until_at = INT64_MAX};
		assert_int_equal(log_store_read(store, &key, &by_time, NULL, &reader, &err), 0);
		assert_int_equal(reader.lines.lines[0].seq, seq);
	}
	struct attempt_state now;
	assert_int_equal(log_store_state(store, &key, &now, &err), 0);
	assert_int_equal(now.last_seq, last);
	assert_int_equal(now.damaged, 0);
}

static void check(const struct fixture *f, int64_t last)
{
	autoptr(log_store) store = open_store(f);

	assert_whole(store, last);
}

static void it_is_written_and_read(void **state)
{
	struct fixture *f = *state;
	autovar(buf) bytes = {0};
	struct segment_file file = {.key = key, .fd = -1};
	struct err err = {0};

	assert_int_equal(file_read(f->dir_fd, index_name, FILE_MAX, &bytes, &err), 0);
	assert_int_equal(segment_index_decode(buf_str(&bytes), &file, &err), 0);
	assert_int_equal(file.ref_count, BLOCKS);
	assert_int_equal(file.last_seq, BLOCKS);
	autovar(buf) again = {0};
	segment_index_encode(&file, &again);
	assert_true(str_eq(buf_str(&again), buf_str(&bytes)));
	segment_file_fini(&file);
	check(f, BLOCKS);
}

static void torn_or_wrong_it_is_made_again(void **state)
{
	struct fixture *f = *state;
	autovar(buf) bytes = {0};
	struct err err = {0};

	assert_int_equal(file_read(f->dir_fd, index_name, FILE_MAX, &bytes, &err), 0);
	for (size_t at = 0; at < bytes.len; at += 97) {
		struct segment_file file = {.key = key, .fd = -1};
		bytes.data[at] = (char)(bytes.data[at] ^ 4);
		assert_int_equal(segment_index_decode(buf_str(&bytes), &file, &err), -ERR_INVALID);
		assert_int_equal(segment_index_decode((struct str){bytes.data, at}, &file, &err), -ERR_INVALID);
		if (at % 11 == 0) {
			assert_int_equal(file_write_atomic(f->dir_fd, index_name, buf_str(&bytes), 0600, &err), 0);
			check(f, BLOCKS);
		}
		bytes.data[at] = (char)(bytes.data[at] ^ 4);
	}
	assert_int_equal(unlinkat(f->dir_fd, index_name, 0), 0);
	check(f, BLOCKS);
	autovar(buf) made = {0};
	assert_int_equal(file_read(f->dir_fd, index_name, FILE_MAX, &made, &err), 0);
	assert_true(str_eq(buf_str(&made), buf_str(&bytes)));
}

/* Behind, then ahead of its segment. */
static void of_another_state_it_does_no_harm(void **state)
{
	struct fixture *f = *state;
	autovar(buf) old = {0};
	autovar(buf) segment = {0};
	struct err err = {0};

	assert_int_equal(file_read(f->dir_fd, index_name, FILE_MAX, &old, &err), 0);
	assert_int_equal(file_read(f->dir_fd, "segments/7/0/1-1.seg", FILE_MAX, &segment, &err), 0);
	struct log_store *store = open_store(f);
	add(store, BLOCKS + 1, 2 * BLOCKS);
	assert_int_equal(log_store_seal(store, &key, 2 * BLOCKS, &err), 0);
	assert_int_equal(log_store_close(store, &err), 0);
	autovar(buf) new = {0};
	assert_int_equal(file_read(f->dir_fd, index_name, FILE_MAX, &new, &err), 0);
	assert_true(new.len > old.len);
	assert_int_equal(file_write_atomic(f->dir_fd, index_name, buf_str(&old), 0600, &err), 0);
	check(f, 2 * BLOCKS);
	assert_int_equal(file_write_atomic(f->dir_fd, "segments/7/0/1-1.seg", buf_str(&segment), 0600, &err), 0);
	assert_int_equal(file_write_atomic(f->dir_fd, index_name, buf_str(&new), 0600, &err), 0);
	check(f, BLOCKS);
}

static void it_goes_with_its_segment(void **state)
{
	struct fixture *f = *state;
	autoptr(log_store) store = open_store(f);
	uint64_t bytes = 0;
	struct err err = {0};

	assert_int_equal(log_store_drop(store, &key, LOG_DROP_FINISHED, 0, &bytes, &err), LOG_STORE_KEPT);
	assert_int_equal(log_store_seal(store, &key, SEGMENT_SEAL_NOW, &err), 0);
	assert_int_equal(log_store_drop(store, &key, LOG_DROP_FINISHED, 0, &bytes, &err), 0);
	assert_true(bytes > 0);
	assert_int_equal(faccessat(f->dir_fd, index_name, F_OK, 0), -1);
	assert_int_equal(faccessat(f->dir_fd, "segments/7", F_OK, 0), -1);
	assert_int_equal(log_store_flush(store, &err), 0);
	add(store, 1, 3);
	assert_whole(store, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_is_written_and_read),
		TEST(torn_or_wrong_it_is_made_again),
		TEST(of_another_state_it_does_no_harm),
		TEST(it_goes_with_its_segment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
