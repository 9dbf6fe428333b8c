#include "rootfs/ext4_xattrs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static const char listing[] = "debugfs: ls -p \"/\"\n"
			      "/2/040755/0/0/.//\n/2/040755/0/0/..//\n/12/040755/0/0/bin//\n\n"
			      "debugfs: ls -p \"/bin\"\n"
			      "/12/040755/0/0/.//\n/14/100755/0/0/ping/9/\n/14/100755/0/0/ping6/9/\n"
			      "/15/120777/0/0/link/4/\n/13/100644/0/0/plain/1/\n";

struct fixture {
	char folder[40];
	struct stage stage;
	struct ext4_xattrs x;
	struct buf commands;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct err err = {0};

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-ext4-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	autofree char *tree = xasprintf("%s/tree", f->folder);
	assert_int_equal(stage_init(&f->stage, tree, &err), 0);
	assert_int_equal(mkdirat(f->stage.root_fd, "bin", 0755), 0);
	assert_int_equal(file_write_atomic(f->stage.root_fd, "bin/ping", STR("x"), 0755, &err), 0);
	assert_int_equal(file_write_atomic(f->stage.root_fd, "bin/ping6", STR("x"), 0755, &err), 0);
	assert_int_equal(file_write_atomic(f->stage.root_fd, "bin/plain", STR("x"), 0644, &err), 0);
	ext4_xattrs_ask_names(&f->x, STR(listing), &f->commands);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	ext4_xattrs_fini(&f->x);
	buf_fini(&f->commands);
	stage_fini(&f->stage);
	(void)!dir_remove(AT_FDCWD, f->folder, NULL);
	free(f);
	return 0;
}

static int tell(void *ctx, const struct stage_item *item, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < item->owner.xattrs.count; i++)
		buf_printf(ctx, "%s %s=%.*s\n", item->path, item->owner.xattrs.items[i].name,
			   STR_ARG(item->owner.xattrs.items[i].value));
	return 0;
}

static void each_inode_is_asked_once(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(f->commands.data, "ea_list <12>\nea_list <13>\nea_list <14>\n");
}

static void every_name_of_a_file_gets_what_it_has(void **state)
{
	struct fixture *f = *state;
	autovar(buf) asked = {0};
	autovar(buf) told = {0};
	struct err err = {0};

	assert_int_equal(ext4_xattrs_take_names(&f->x, &f->stage,
						STR("debugfs: ea_list <12>\ndebugfs: ea_list <13>\n"
						    "debugfs: ea_list <14>\nExtended attributes:\n"
						    "  user.a (2) = \"hi\"\n  user.big (900)\n"
						    "  trusted.x (1) = 01 \n"),
						&asked, &err),
			 0);
	assert_string_equal(asked.data, "ea_get -x <14> user.a\nea_get -x <14> user.big\n");
	assert_int_equal(f->stage.left_out.count, 1);
	assert_string_equal(f->stage.left_out.items[0].name, "trusted.x");
	assert_int_equal(ext4_xattrs_take_values(&f->x, &f->stage,
						 STR("debugfs: ea_get -x <14> user.a\nuser.a (2) = 68 69 \n\n"
						     "debugfs: ea_get -x <14> user.big\nuser.big (0)\n\n"),
						 &err),
			 0);
	assert_int_equal(stage_each(&f->stage, tell, &told, &err), 0);
	assert_string_equal(told.data,
			    "bin/ping user.a=hi\nbin/ping user.big=\nbin/ping6 user.a=hi\nbin/ping6 user.big=\n");
}

static void nonsense_is_no_value(void **state)
{
	static const char *const values[] = {
		"debugfs: ea_get -x <14> user.a\nea_get: Extended attribute key not found\n",
		"debugfs: ea_get -x <14> user.a\nuser.a (2) = 68 \n",
		"debugfs: ea_get -x <14> user.a\nuser.a (2) = 68 69 70 \n",
		"debugfs: ea_get -x <14> user.a\nuser.a (2) = 6869\n",
		"debugfs: ea_get -x <14> user.a\nuser.a (-2) = \n",
		"debugfs: ea_get -x <14> user.a\nuser.a\n",
	};
	struct fixture *f = *state;
	autovar(buf) told = {0};
	autovar(buf) asked = {0};
	struct err err = {0};

	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		assert_true(ext4_xattrs_take_values(&f->x, &f->stage, str_c(values[i]), &err) < 0);
	assert_true(ext4_xattrs_take_names(&f->x, &f->stage, STR("debugfs: ea_list <14>\n  \"; rm (2) = x\n"), &asked,
					   &err) < 0);
	/* Of a file that was never listed. */
	assert_int_equal(ext4_xattrs_take_values(&f->x, &f->stage,
						 STR("debugfs: ea_get -x <99> user.a\nuser.a (1) = 68 \n"), &err),
			 0);
	assert_int_equal(stage_each(&f->stage, tell, &told, &err), 0);
	assert_int_equal(told.len, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_inode_is_asked_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(every_name_of_a_file_gets_what_it_has, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nonsense_is_no_value, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
