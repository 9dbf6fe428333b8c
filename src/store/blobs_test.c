#include "store/blobs.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/mem.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/nimbus-blobs-XXXXXX");
	return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
	struct err err = {0};

	(void)state;
	return dir_remove(AT_FDCWD, folder, &err);
}

static struct blobs *open_blobs(void)
{
	struct blobs *b = NULL;
	struct err err = {0};

	if (blobs_open(&(struct blobs_opts){.folder = folder, .uploads_max = 2}, &b, &err) < 0)
		fail_msg("%s", err.msg);
	return b;
}

static void store(struct blobs *b, const char *name, struct str bytes, struct blob_info *ret)
{
	autoptr(blob_upload) u = NULL;

	assert_int_equal(blob_begin(b, 1000, &u, NULL), 0);
	for (size_t i = 0; i < bytes.len; i++)
		assert_int_equal(blob_chunk(u, (struct str){bytes.data + i, 1}, NULL), 0);
	assert_int_equal(blob_commit(u, name, ret, NULL), 0);
}

static size_t count_all(struct blobs *b)
{
	autoptr(arena) arena = arena_new();
	const char *names[8];
	size_t count = 0;

	assert_int_equal(blobs_next(b, ARRAY_LEN(names), arena, names, &count, NULL), 0);
	assert_true(count < ARRAY_LEN(names));
	return count;
}

static void a_blob_is_hashed_read_and_replaced(void **state)
{
	autoptr(blobs) b = open_blobs();
	struct blob_info info = {0};
	char bytes[16] = "";
	int64_t size = 0;
	int fd = -1;

	(void)state;
	store(b, "1-in-0", STR("abc"), &info);
	assert_int_equal(info.size, 3);
	assert_string_equal(info.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	store(b, "1-in-0", STR("other"), &info);
	assert_int_equal(blob_open(b, "1-in-0", &fd, &size, NULL), 0);
	assert_int_equal(size, 5);
	/* Who reads it keeps it. */
	assert_int_equal(blob_remove(b, "1-in-0", NULL), 0);
	assert_int_equal(read(fd, bytes, sizeof(bytes)), 5);
	assert_string_equal(bytes, "other");
	fd_close(&fd);
	assert_int_equal(blob_open(b, "1-in-0", &fd, &size, NULL), BLOB_MISSING);
	assert_int_equal(blob_remove(b, "1-in-0", NULL), 0);
	assert_int_equal(blobs_counts(b).stored, 2);
	assert_int_equal(blobs_counts(b).stored_bytes, 8);
}

static void what_is_not_committed_is_gone(void **state)
{
	struct blobs *b = open_blobs();
	struct blob_upload *u = NULL;

	(void)state;
	assert_int_equal(blob_begin(b, 1000, &u, NULL), 0);
	assert_int_equal(blob_chunk(u, STR("half"), NULL), 0);
	assert_int_equal(count_all(b), 0);
	blob_upload_free(u);
	assert_int_equal(count_all(b), 0);
	assert_int_equal(blobs_counts(b).uploads, 0);
	blobs_free(b);
}

/* Who removes what nobody knows must not take what is being written down for the same. */
static void an_upload_is_not_shown_before_it_is_freed(void **state)
{
	autoptr(blobs) b = open_blobs();
	struct blob_upload *u = NULL;
	struct blob_info info = {0};

	(void)state;
	assert_int_equal(blob_begin(b, 1000, &u, NULL), 0);
	assert_int_equal(blob_commit(u, "3-in-0", &info, NULL), 0);
	assert_int_equal(count_all(b), 0);
	blob_upload_free(u);
	assert_int_equal(count_all(b), 1);
}

static void a_walk_comes_to_each_and_begins_anew(void **state)
{
	enum { BLOBS = 7, PAGE = 3 };
	autoptr(blobs) b = open_blobs();
	autoptr(arena) arena = arena_new();
	struct blob_info info = {0};

	(void)state;
	for (int i = 0; i < BLOBS; i++) {
		char name[BLOB_NAME_MAX];
		(void)snprintf(name, sizeof(name), "blob-%d", i);
		store(b, name, STR("x"), &info);
	}
	for (int round = 0; round < 2; round++) {
		const char *names[PAGE];
		size_t count = PAGE;
		unsigned seen = 0;
		int calls = 0;
		for (; count == PAGE; calls++) {
			assert_int_equal(blobs_next(b, PAGE, arena, names, &count, NULL), 0);
			for (size_t i = 0; i < count; i++)
				seen |= 1U << (names[i][strlen("blob-")] - '0');
		}
		assert_int_equal(calls, BLOBS / PAGE + 1);
		assert_int_equal(seen, (1U << BLOBS) - 1);
	}
}

static void what_a_dead_process_left_is_removed(void **state)
{
	autofree char *left = xasprintf("%s/.new-7", folder);
	autofree char *whole = xasprintf("%s/2-out-0", folder);
	struct err err = {0};

	(void)state;
	assert_int_equal(file_write_new(AT_FDCWD, left, STR("half"), 0600, &err), 0);
	assert_int_equal(file_write_new(AT_FDCWD, whole, STR("whole"), 0600, &err), 0);
	autoptr(blobs) b = open_blobs();
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(count_all(b), 1);
}

static void the_same_bytes_get_another_name(void **state)
{
	autoptr(blobs) b = open_blobs();
	struct blob_upload *u = NULL;
	struct blob_info info = {0};
	struct stat st;
	int64_t size = 0;
	int fd = -1;

	(void)state;
	store(b, "1-in-0", STR("abc"), &info);
	assert_int_equal(blob_begin_again(b, "2-in-0", &u, NULL), BLOB_MISSING);
	assert_int_equal(blob_begin_again(b, "1-in-0", &u, NULL), 0);
	assert_int_equal(count_all(b), 1);
	assert_int_equal(blob_remove(b, "1-in-0", NULL), 0);
	assert_int_equal(blob_commit(u, "2-in-0", NULL, NULL), 0);
	blob_upload_free(u);
	assert_int_equal(blob_open(b, "2-in-0", &fd, &size, NULL), 0);
	assert_int_equal(size, 3);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 1);
	fd_close(&fd);
	/* What is not committed leaves nothing. */
	assert_int_equal(blob_begin_again(b, "2-in-0", &u, NULL), 0);
	blob_upload_free(u);
	assert_int_equal(blob_open(b, "2-in-0", &fd, &size, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 1);
	fd_close(&fd);
	assert_int_equal(blobs_counts(b).uploads, 0);
}

static void bounds_hold(void **state)
{
	autoptr(blobs) b = open_blobs();
	struct blob_upload *one = NULL, *two = NULL, *three = NULL, *again = NULL;
	struct blob_info info = {0};
	struct err err = {0};

	(void)state;
	store(b, "1-in-0", STR("abc"), &info);
	assert_int_equal(blob_begin(b, 3, &one, &err), 0);
	assert_int_equal(blob_chunk(one, STR("abcd"), &err), -ERR_TOO_LARGE);
	assert_int_equal(blob_begin(b, 3, &two, &err), 0);
	assert_int_equal(blob_begin(b, 3, &three, &err), -ERR_UNAVAILABLE);
	/* Nobody sends what is there. */
	assert_int_equal(blob_begin_again(b, "1-in-0", &again, &err), 0);
	assert_int_equal(blobs_counts(b).uploads, 2);
	blob_upload_free(again);
	assert_int_equal(blobs_counts(b).uploads, 2);
	blob_upload_free(one);
	assert_int_equal(blob_begin(b, 3, &three, &err), 0);
	blob_upload_free(two);
	blob_upload_free(three);
}

static void a_full_disk_refuses(void **state)
{
	struct blobs *b = NULL;
	struct blob_upload *u = NULL;
	struct err err = {0};

	(void)state;
	assert_int_equal(
		blobs_open(&(struct blobs_opts){.folder = folder, .uploads_max = 2, .min_free = INT64_MAX}, &b, &err),
		0);
	assert_int_equal(blob_begin(b, 3, &u, &err), -ERR_DISK_FULL);
	assert_int_equal(blobs_counts(b).uploads, 0);
	blobs_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_blob_is_hashed_read_and_replaced, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(what_is_not_committed_is_gone, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(an_upload_is_not_shown_before_it_is_freed, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_walk_comes_to_each_and_begins_anew, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(what_a_dead_process_left_is_removed, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(the_same_bytes_get_another_name, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(bounds_hold, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_full_disk_refuses, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
