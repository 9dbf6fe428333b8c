#include "cli/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/extract.h"

/* Each test has a folder of its own, and works in it. */
static int set_up(void **state)
{
	char *folder = xstrdup("/tmp/nimbus-pack-XXXXXX");

	if (mkdtemp(folder) == NULL || chdir(folder) != 0)
		return -1;
	*state = folder;
	return 0;
}

static int tear_down(void **state)
{
	int rc = chdir("/") == 0 ? dir_remove(AT_FDCWD, *state, NULL) : -1;

	free(*state);
	return rc;
}

static void put(const char *path, const char *text, mode_t mode)
{
	autofree char *copy = xstrdup(path);
	char *slash = strrchr(copy, '/');

	if (slash != NULL) {
		*slash = '\0';
		assert_int_equal(dir_make(copy, 0755, NULL), 0);
	}
	autoclose fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(file_write_fd(fd, str_c(text), NULL), 0);
	assert_int_equal(fchmod(fd, mode), 0);
}

static void has(const char *path, const char *text)
{
	autovar(buf) got = {0};

	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &got, NULL), 0);
	assert_string_equal(got.len > 0 ? got.data : "", text);
}

static bool is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void make_list(const struct file_list_opts *opts, struct file_list *list)
{
	struct err err = {0};

	if (file_list_make(opts, list, &err) < 0)
		fail_msg("%s", err.msg);
}

static void same_paths(const struct file_list *list, const char *const *want, size_t count)
{
	for (size_t i = 0; i < count && i < list->count; i++)
		assert_string_equal(list->paths[i], want[i]);
	assert_int_equal(list->count, count);
}

static void all_of_it(struct pack *p, size_t step, struct buf *out)
{
	for (size_t len = 1; len > 0; out->len += len)
		assert_int_equal(pack_read(p, buf_reserve(out, step), step, &len, NULL), 0);
	assert_int_equal(pack_bytes(p), out->len);
}

static void a_folder_stands_before_what_is_in_it(void **state)
{
	(void)state;
	static const char *const sorted[] = {"in",     "in/a",	   "in/a/b",   "in/a/b/c",
					     "in/a-b", "in/a-b/x", "in/empty", "in/link"};
	autovar(file_list) list = {0};

	put("in/a/b/c", "1", 0644);
	put("in/a-b/x", "22", 0644);
	assert_int_equal(mkdir("in/empty", 0755), 0);
	assert_int_equal(symlink("a/b", "in/link"), 0);
	make_list(&(struct file_list_opts){.folder = ".", .all = true, .max_bytes = 1000}, &list);
	same_paths(&list, sorted, ARRAY_LEN(sorted));
	assert_int_equal(list.bytes, 3);
	assert_int_equal(list.notes.len, 0);
}

static void what_is_no_file_is_left_out_by_name(void **state)
{
	(void)state;
	static const char *const want[] = {"file"};
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "in/app.sock"};
	autovar(file_list) list = {0};

	put("in/file", "1", 0644);
	assert_int_equal(mkfifo("in/queue", 0600), 0);
	autoclose fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	make_list(&(struct file_list_opts){.folder = "in", .all = true, .max_bytes = 1000}, &list);
	same_paths(&list, want, ARRAY_LEN(want));
	assert_string_equal(list.notes.data, "left out: app.sock (a socket), queue (a pipe)\n");
}

static void over_the_bound_the_largest_folders_are_named(void **state)
{
	(void)state;
	autovar(file_list) list = {0};
	struct err err = {0};

	put("in/a", "123456789", 0644);
	put("in/big/deep/x/y", "1234567890123456789012345678901234567890", 0644);
	put("in/big/deep/z", "1234567890", 0644);
	put("in/big/small", "1", 0644);
	put("in/big/zoo", "1", 0644);
	put("in/mid/x", "12345678901234567890", 0644);
	const struct file_list_opts opts = {.folder = "in", .all = true, .max_bytes = 79, .max_flag = "raise it"};
	assert_int_equal(file_list_make(&opts, &list, &err), -ERR_TOO_LARGE);
	assert_string_equal(err.msg, "'in' has 81 bytes to send, over the bound of 79 bytes: big/deep 50 bytes, mid 20 "
				     "bytes, files in it 9 bytes");
	assert_string_equal(list.hint, "raise it");
}

static void ignore_files_count_without_a_repository_too(void **state)
{
	(void)state;
	static const char *const want[] = {".gitignore", "a", "sub/.gitignore", "sub/keep.o"};
	autovar(file_list) list = {0};

	if (access("/usr/bin/git", X_OK) != 0)
		skip();
	put("in/.gitignore", "*.o\nbuild/\n", 0644);
	put("in/a", "", 0644);
	put("in/a.o", "", 0644);
	put("in/build/x", "", 0644);
	put("in/sub/.gitignore", "!keep.o\n", 0644);
	put("in/sub/keep.o", "", 0644);
	make_list(&(struct file_list_opts){.folder = "in", .max_bytes = 1000}, &list);
	same_paths(&list, want, ARRAY_LEN(want));
}

static void no_link_of_a_folder_is_followed(void **state)
{
	(void)state;
	const char *path = "a/secret";
	struct file_list list = {.paths = &path, .count = 1};
	autoptr(pack) p = NULL;
	autovar(buf) tar = {0};

	put("in/plain", "1", 0644);
	put("outside/secret", "mine", 0600);
	assert_int_equal(symlink("../outside", "in/a"), 0);
	assert_int_equal(pack_new("in", &list, &p, NULL), 0);
	all_of_it(p, 4096, &tar);
	assert_null(memmem(tar.data, tar.len, "mine", 4));
	assert_string_equal(pack_notes(p)->data, "a/secret went away while it was packed\n");
}

static void run_git(const char *command)
{
	/* Nobody's settings but the test's. */
	autofree char *line = xasprintf("GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null git %s", command);

	assert_int_equal(system(line), 0);
}

/* A work tree within ours may have come out of a job: what its settings name is not run. */
static void nothing_that_a_work_tree_names_is_run(void **state)
{
	autofree char *script = xasprintf("#!/bin/sh\ntouch %s/ran\n", (const char *)*state);
	autofree char *setting = xasprintf("-C in/sub config core.fsmonitor %s/watcher", (const char *)*state);
	autovar(file_list) list = {0};
	bool found = false;

	put("watcher", script, 0755);
	put("in/sub/file", "1", 0644);
	run_git("init -q in");
	run_git("init -q in/sub");
	run_git(setting);
	run_git("-C in/sub add file");
	assert_int_equal(unlink("ran"), 0); /* git itself runs it */
	make_list(&(struct file_list_opts){.folder = "in", .max_bytes = 1 << 20}, &list);
	for (size_t i = 0; i < list.count; i++)
		found = found || strcmp(list.paths[i], "sub/file") == 0;
	assert_true(found);
	assert_false(is_there("ran"));
}

static void what_is_packed_is_extracted(void **state)
{
	(void)state;
	static const size_t steps[] = {1, 511, 4096, 1 << 20};
	autovar(file_list) list = {0};
	autoptr(pack) p = NULL;
	autovar(buf) first = {0};
	struct stat before, after;

	put("in/a/b/c", "content", 0640);
	put("in/empty", "", 0755);
	put("in/.hidden", "h", 0600);
	assert_int_equal(symlink("a/b/c", "in/link"), 0);
	make_list(&(struct file_list_opts){.folder = "in", .all = true, .max_bytes = 1000}, &list);
	assert_int_equal(pack_new("in", &list, &p, NULL), 0);
	all_of_it(p, 4096, &first);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		autovar(buf) again = {0};
		autoptr(extract) x = NULL;
		pack_rewind(p);
		all_of_it(p, steps[i], &again);
		assert_true(str_eq(buf_str(&first), buf_str(&again)));
		assert_int_equal(extract_new(&(struct extract_opts){.folder = "out"}, &x, NULL), 0);
		for (size_t at = 0; at < again.len; at += steps[i]) {
			size_t len = again.len - at < steps[i] ? again.len - at : steps[i];
			assert_int_equal(extract_feed(x, (struct str){again.data + at, len}, NULL), 0);
		}
		assert_int_equal(extract_end(x, NULL), 0);
		assert_int_equal(extract_files(x), 3);
		has("out/a/b/c", "content");
		has("out/link", "content");
		has("out/.hidden", "h");
		has("out/empty", "");
	}
	assert_int_equal(stat("in/a/b/c", &before), 0);
	assert_int_equal(stat("out/a/b/c", &after), 0);
	assert_int_equal(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
	assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
	assert_int_equal(after.st_mode & 0777, 0640);
}

static void files_that_change_meanwhile_leave_a_whole_tar(void **state)
{
	(void)state;
	autovar(file_list) list = {0};
	autoptr(pack) p = NULL;
	autoptr(extract) x = NULL;
	autovar(buf) tar = {0};
	size_t len = 0;

	put("in/1", "0123456789", 0644);
	put("in/2", "two", 0644);
	put("in/3/x", "three", 0644);
	make_list(&(struct file_list_opts){.folder = "in", .all = true, .max_bytes = 1000}, &list);
	assert_int_equal(pack_new("in", &list, &p, NULL), 0);
	/* The folder's header, that of 1, and no content yet; both have nanoseconds, so three blocks each. */
	assert_int_equal(pack_read(p, buf_reserve(&tar, 3072), 3072, &len, NULL), 0);
	tar.len += len;
	assert_int_equal(truncate("in/1", 4), 0);
	assert_int_equal(unlink("in/2"), 0);
	assert_int_equal(dir_remove(AT_FDCWD, "in/3", NULL), 0);
	for (len = 1; len > 0; tar.len += len)
		assert_int_equal(pack_read(p, buf_reserve(&tar, 4096), 4096, &len, NULL), 0);
	assert_non_null(strstr(pack_notes(p)->data, "1 became shorter"));
	assert_non_null(strstr(pack_notes(p)->data, "2 went away"));
	assert_int_equal(extract_new(&(struct extract_opts){.folder = "out"}, &x, NULL), 0);
	assert_int_equal(extract_feed(x, buf_str(&tar), NULL), 0);
	assert_int_equal(extract_end(x, NULL), 0);
	struct stat st;
	assert_int_equal(stat("out/1", &st), 0);
	assert_int_equal(st.st_size, 10);
	assert_false(is_there("out/2"));
}

static void one_file_alone_has_the_name_that_is_asked_for(void **state)
{
	(void)state;
	autoptr(pack) p = NULL;
	autoptr(extract) x = NULL;
	autovar(buf) tar = {0};

	put("settings", "x=1", 0644);
	assert_int_equal(pack_new_file("settings", "app.conf", &p, NULL), 0);
	all_of_it(p, 4096, &tar);
	assert_int_equal(
		extract_new(&(struct extract_opts){.folder = "out", .only = "app.conf", .as = "back"}, &x, NULL), 0);
	assert_int_equal(extract_feed(x, buf_str(&tar), NULL), 0);
	assert_int_equal(extract_end(x, NULL), 0);
	has("out/back", "x=1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_folder_stands_before_what_is_in_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_no_file_is_left_out_by_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(over_the_bound_the_largest_folders_are_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ignore_files_count_without_a_repository_too, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_link_of_a_folder_is_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_that_a_work_tree_names_is_run, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_packed_is_extracted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(files_that_change_meanwhile_leave_a_whole_tar, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_file_alone_has_the_name_that_is_asked_for, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
