#include "cli/extract.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "proto/tar.h"

static int set_up(void **state)
{
	char *folder = xstrdup("/tmp/nimbus-extract-XXXXXX");

	if (mkdtemp(folder) == NULL || chdir(folder) != 0)
		return -1;
	*state = folder;
	return mkdir("out", 0755) == 0 && mkdir("outside", 0755) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	int rc = chdir("/") == 0 ? dir_remove(AT_FDCWD, *state, NULL) : -1;

	free(*state);
	return rc;
}

static void put_entry(struct buf *tar, enum tar_kind kind, const char *path, const char *content_or_target)
{
	bool file = kind == TAR_FILE;
	const struct tar_entry e = {
		.kind = kind,
		.path = path,
		.target = file ? NULL : content_or_target,
		.mode = kind == TAR_FOLDER ? 0755 : 04755,
		.size = file ? strlen(content_or_target) : 0,
	};

	assert_int_equal(tar_entry_encode(&e, tar, NULL), 0);
	if (file)
		buf_puts(tar, content_or_target);
	for (size_t i = 0; file && i < tar_padding(e.size); i++)
		buf_putc(tar, '\0');
}

static int extract_all(const struct extract_opts *opts, struct buf *tar, struct err *err)
{
	autoptr(extract) x = NULL;

	tar_end_encode(tar);
	assert_int_equal(extract_new(opts, &x, NULL), 0);
	int rc = extract_feed(x, buf_str(tar), err);
	return rc == 0 ? extract_end(x, err) : rc;
}

static size_t entries(const char *folder)
{
	DIR *dir = opendir(folder);
	size_t count = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	(void)closedir(dir);
	return count - 2; /* "." and ".." */
}

static const struct extract_opts to_out = {.folder = "out"};

static void refused(struct buf *tar, const struct extract_opts *opts, const char *says)
{
	struct err err = {0};

	assert_true(extract_all(opts, tar, &err) < 0);
	if (strstr(err.msg, says) == NULL)
		fail_msg("'%s' instead of '%s'", err.msg, says);
	assert_int_equal(entries("outside"), 0);
}

static void a_link_of_the_folder_is_not_written_through(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	assert_int_equal(symlink("../outside", "out/door"), 0);
	put_entry(&tar, TAR_FILE, "door/x", "gotcha");
	refused(&tar, &to_out, "'door' in 'out' is no folder");
}

static void nor_are_folders_made_through_it(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	assert_int_equal(symlink("../outside", "out/door"), 0);
	put_entry(&tar, TAR_FOLDER, "door/x/y", NULL);
	refused(&tar, &to_out, "is no folder");
}

static void a_link_in_the_place_of_a_file_is_replaced(void **state)
{
	(void)state;
	autovar(buf) tar = {0};
	struct stat st;

	assert_int_equal(symlink("../outside/x", "out/file"), 0);
	put_entry(&tar, TAR_FILE, "file", "mine");
	assert_int_equal(extract_all(&to_out, &tar, NULL), 0);
	assert_int_equal(entries("outside"), 0);
	assert_int_equal(lstat("out/file", &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_mode & 07000, 0);
}

static void links_that_lead_out_are_left_out_and_named(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	put_entry(&tar, TAR_SYMLINK, "evil", "/etc/passwd");
	put_entry(&tar, TAR_SYMLINK, "a/up", "../../outside");
	put_entry(&tar, TAR_SYMLINK, "good", "a/file");
	put_entry(&tar, TAR_FILE, "a/file", "whole");
	refused(&tar, &to_out, "left out: 'evil' -> '/etc/passwd', 'a/up' -> '../../outside'");
	assert_int_equal(access("out/good", R_OK), 0);
	assert_int_equal(entries("out"), 2);
}

/* The file is ours: under another name it would be sent with the next job. */
static void hard_links_are_refused(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	assert_int_equal(file_write_new(AT_FDCWD, "out/secret", STR("mine"), 0600, NULL), 0);
	put_entry(&tar, TAR_HARD_LINK, "plain", "secret");
	refused(&tar, &to_out, "'plain' is a hard link to 'secret': refused");
	assert_int_equal(entries("out"), 1);
}

static void links_stay_within_what_was_asked_for(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	put_entry(&tar, TAR_SYMLINK, "dist/new", "v1/app");
	put_entry(&tar, TAR_SYMLINK, "dist/secret", "../.env");
	refused(&tar, &(struct extract_opts){.folder = "out", .only = "dist"},
		"links that lead out of 'dist' were left out: 'dist/secret' -> '../.env'");
	assert_int_equal(entries("out/dist"), 1);
}

static void nor_does_a_file_come_back_as_a_link(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	put_entry(&tar, TAR_SYMLINK, "data", ".env");
	refused(&tar, &(struct extract_opts){.folder = "out", .only = "data", .as = "mine"},
		"were left out: 'mine' -> '.env'");
	assert_int_equal(entries("out"), 0);
}

static void only_what_was_asked_for_comes(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	put_entry(&tar, TAR_FOLDER, "dist", NULL);
	put_entry(&tar, TAR_FILE, "dist/app", "x");
	put_entry(&tar, TAR_FILE, "distant", "x");
	refused(&tar, &(struct extract_opts){.folder = "out", .only = "dist"}, "'distant' was not asked for");
	assert_int_equal(access("out/dist/app", R_OK), 0);
}

static void a_file_that_breaks_off_leaves_nothing(void **state)
{
	(void)state;
	autovar(buf) tar = {0};
	autoptr(extract) x = NULL;

	put_entry(&tar, TAR_FILE, "file", "0123456789");
	assert_int_equal(extract_new(&to_out, &x, NULL), 0);
	assert_int_equal(extract_feed(x, (struct str){tar.data, TAR_BLOCK + 4}, NULL), 0);
	assert_int_equal(entries("out"), 1);
	assert_int_equal(extract_end(x, NULL), -ERR_INVALID);
	extract_free(TAKE(x));
	assert_int_equal(entries("out"), 0);
}

static void a_folder_in_the_place_of_a_file_stays(void **state)
{
	(void)state;
	autovar(buf) tar = {0};

	assert_int_equal(dir_make("out/thing/inside", 0755, NULL), 0);
	put_entry(&tar, TAR_FILE, "thing", "x");
	refused(&tar, &to_out, "put 'thing' into 'out'");
	assert_int_equal(entries("out"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_link_of_the_folder_is_not_written_through, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nor_are_folders_made_through_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_link_in_the_place_of_a_file_is_replaced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(links_that_lead_out_are_left_out_and_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(hard_links_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(links_stay_within_what_was_asked_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nor_does_a_file_come_back_as_a_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_what_was_asked_for_comes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_that_breaks_off_leaves_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_folder_in_the_place_of_a_file_stays, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
