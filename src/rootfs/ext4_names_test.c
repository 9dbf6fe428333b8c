/* Images as mkfs makes them, and then damaged as somebody who means it would. */
#include "rootfs/ext4_names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "rootfs/layer.h"
#include "rootfs/tool.h"

struct fixture {
	char folder[40];
	char *image, *scratch, *file;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-ext4-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->image = xasprintf("%s/image", f->folder);
	f->scratch = xasprintf("%s/scratch", f->folder);
	f->file = xasprintf("%s/file", f->folder);
	assert_int_equal(file_write_new(AT_FDCWD, f->file, STR("mine\n"), 0644, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)!dir_remove(AT_FDCWD, f->folder, NULL);
	free(f->image);
	free(f->scratch);
	free(f->file);
	free(f);
	return 0;
}

static void run(const char *const *argv)
{
	struct err err = {0};
	int rc = tool_run(&(struct tool_call){.argv = argv, .package = "e2fsprogs", .timeout_ns = 60 * NS_PER_S}, NULL,
			  &err);

	if (rc == -ERR_UNAVAILABLE)
		skip();
	if (rc < 0)
		fail_msg("%s", err.msg);
}

/* Nothing of it is summed, so that it can be changed. */
static void make_image(const struct fixture *f, const char *commands)
{
	const char *const make[] = {"mkfs.ext4", "-q", "-O", "^metadata_csum,^dir_index,^has_journal",
				    f->image,	 "8M", NULL};
	const char *const fill[] = {"debugfs", "-w", "-f", f->scratch, f->image, NULL};

	run(make);
	assert_int_equal(file_write_atomic(AT_FDCWD, f->scratch, str_c(commands), 0600, NULL), 0);
	run(fill);
}

/* Another name of the same length. */
static void rename_in(const struct fixture *f, const char *from, const char *to)
{
	autovar(buf) bytes = {0};

	assert_int_equal(file_read(AT_FDCWD, f->image, 16 << 20, &bytes, NULL), 0);
	char *at = memmem(bytes.data, bytes.len, from, strlen(from));
	assert_non_null(at);
	assert_int_equal(strlen(from), strlen(to));
	memcpy(at, to, strlen(to));
	assert_int_equal(file_write_atomic(AT_FDCWD, f->image, buf_str(&bytes), 0600, NULL), 0);
}

static int check(const struct fixture *f, struct err *err)
{
	autoclose fd = open(f->image, O_RDONLY | O_CLOEXEC);

	assert_int_equal(fchmod(fd, 0644), 0);
	return ext4_check_names(fd, err);
}

static void refused(const struct fixture *f, const char *why)
{
	struct err err = {0};

	assert_int_equal(check(f, &err), -ERR_INVALID);
	if (strstr(err.msg, why) == NULL)
		fail_msg("'%s' instead of '%s'", err.msg, why);
}

static void what_mkfs_makes_is_fine(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autofree char *commands = xasprintf("write %s plain\nmkdir a\nmkdir a/b\nwrite %s \"a/b/with blank\"\n"
					    "symlink link /etc\nrm plain\n",
					    f->file, f->file);

	make_image(f, commands);
	if (check(f, &err) < 0)
		fail_msg("%s", err.msg);
}

static void a_name_that_leads_out_is_refused(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	struct layer layer = {0};
	autovar(stage) stage = {.root_fd = -1};
	autofree char *tree = xasprintf("%s/tree", f->folder);
	autofree char *outside = xasprintf("%s/evil-name", f->folder);
	autofree char *commands = xasprintf("mkdir a\nwrite %s xxxevil-name\n", f->file);

	make_image(f, commands);
	rename_in(f, "xxxevil-name", ".//evil-name");
	refused(f, "an entry that cannot be read");
	rename_in(f, ".//evil-name", "../evil-name");
	refused(f, "an entry that cannot be read");
	assert_int_equal(stage_init(&stage, tree, NULL), 0);
	assert_int_equal(chmod(f->image, 0600), 0); /* read by another user's program all the same */
	assert_int_equal(layer_put(&stage, f->image, true, &layer, &err), -ERR_INVALID);
	assert_int_equal(access(outside, F_OK), -1);
}

/* First a link, then a file that is written through it. */
static void a_name_that_is_there_twice_is_refused(void **state)
{
	struct fixture *f = *state;
	autofree char *commands = xasprintf("symlink one-name /etc/passwd\nwrite %s two-name\n", f->file);

	make_image(f, commands);
	rename_in(f, "two-name", "one-name");
	refused(f, "has a name twice in one folder ('one-name')");
}

static void a_folder_within_itself_is_refused(void **state)
{
	struct fixture *f = *state;

	make_image(f, "mkdir a\nmkdir a/b\ncd a/b\nln /a again\n");
	refused(f, "a folder in two places");
}

/* Two lines of it, of which one looks like the beginning of another folder. */
static void a_line_feed_in_a_name_is_refused(void **state)
{
	struct fixture *f = *state;
	autofree char *commands = xasprintf("mkdir a\nwrite %s xxxxxdebugfs:_ls_-pr_<12>\n", f->file);

	make_image(f, commands);
	rename_in(f, "xxxxxdebugfs:_ls_-pr_<12>", "b/9/\ndebugfs: ls -pr <12>");
	refused(f, "an entry that cannot be read");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_mkfs_makes_is_fine, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_name_that_leads_out_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_name_that_is_there_twice_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_folder_within_itself_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_line_feed_in_a_name_is_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
