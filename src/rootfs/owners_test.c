#include "rootfs/owners.h"

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

struct fixture {
	char folder[40];
	struct stage stage;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct err err = {0};

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-owners-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	autofree char *tree = xasprintf("%s/tree", f->folder);
	assert_int_equal(stage_init(&f->stage, tree, &err), 0);
	assert_int_equal(mkdirat(f->stage.root_fd, "etc", 0755), 0);
	assert_int_equal(file_write_atomic(f->stage.root_fd, "etc/su do", STR("x"), 0644, &err), 0);
	assert_int_equal(symlinkat("su do", f->stage.root_fd, "etc/link"), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	stage_fini(&f->stage);
	(void)!dir_remove(AT_FDCWD, f->folder, NULL);
	free(f);
	return 0;
}

/* "PATH m MODE UID GID" of each that is not a plain file or folder of root's. */
static int tell(void *ctx, const struct stage_item *item, struct err *err)
{
	const struct stage_owner *o = &item->owner;

	(void)err;
	if (o->uid != 0 || o->gid != 0 || S_ISLNK(item->st->st_mode) || (o->mode != 0644 && o->mode != 0755))
		buf_printf(ctx, "%s m %o %u %u\n", item->path, (unsigned)o->mode, o->uid, o->gid);
	return 0;
}

static const char told[] = "etc m 700 1 2\netc/link m 777 5 6\netc/su do m 4755 3 4\n";

static void debugfs_is_asked_and_believed(void **state)
{
	struct fixture *f = *state;
	autovar(buf) commands = {0};
	autovar(buf) out = {0};
	struct err err = {0};

	assert_int_equal(owners_ask_ext4(&f->stage, &commands, &err), 0);
	assert_string_equal(commands.data, "ls -p \"/\"\nls -p \"/etc\"\n");
	owners_take_ext4(&f->stage, STR("debugfs 1.47.0 (5-Feb-2023)\n"
					"debugfs: ls -p \"/\"\n"
					"/2/040711/8/9/.//\n/2/040755/0/0/..//\n/13/040700/1/2/etc//\n\n"
					"debugfs: ls -p \"/etc\"\n"
					"/13/040700/7/7/.//\n/14/104755/3/4/su do/2/\n/15/120777/5/6/link/5/\n"
					"/16/100644/1/1/gone/2/\n"));
	assert_int_equal(stage_each(&f->stage, tell, &out, &err), 0);
	assert_string_equal(out.data, told);
	assert_int_equal(f->stage.root_mode, 0711);
	assert_int_equal(f->stage.root_uid, 8);
}

static void unsquashfs_is_believed(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct err err = {0};

	owners_take_squashfs(
		&f->stage,
		STR("drwx--x--t 8/9                      37 2026-11-21 20:21 squashfs-root\n"
		    "drwx------ 1/2                       3 2026-11-21 20:21 squashfs-root/etc\n"
		    "-rwsr-xr-x 3/4                       2 2026-11-21 20:21 squashfs-root/etc/su do\n"
		    "lrwxrwxrwx 5/6                       2 2026-11-21 20:21 squashfs-root/etc/link -> su do\n"
		    "crw-rw-rw- 0/0                     1, 3 2026-11-21 20:21 squashfs-root/etc/null\n"));
	assert_int_equal(stage_each(&f->stage, tell, &out, &err), 0);
	assert_string_equal(out.data, told);
	assert_int_equal(f->stage.root_mode, 01711);
}

static void nonsense_changes_nothing(void **state)
{
	static const char *const lines[] = {
		"",
		"/",
		"//////",
		"debugfs: ls -p \"/etc\"\n/14/9/0/0/su do/2/",
		"debugfs: ls -p \"/etc\"\n/1/104755/x/0/su do/2/",
		"debugfs: ls -p \"/../../etc\"\n/1/104755/3/0/passwd/2/",
		"debugfs: ls -p \"\"\n/1/104755/3/0/etc/2/",
		"-rwsr-xr-x",
		"-rwsr-xr-x 3/4",
		"-rwsr-xr-x 3 4 5 6 squashfs-root/etc/su do",
		"-rwsr-xr-x a/b 2 3 4 squashfs-root/etc/su do",
		"-rwsr-xr-x 3/4 2 3 4 /etc/su do",
		"-rwsr-xr-x 3/4 2 3 4 squashfs-root/../../etc/passwd",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		owners_take_ext4(&f->stage, str_c(lines[i]));
		owners_take_squashfs(&f->stage, str_c(lines[i]));
	}
	assert_int_equal(f->stage.owner_count, 0);
	assert_int_equal(f->stage.root_mode, 0755);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(debugfs_is_asked_and_believed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unsquashfs_is_believed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nonsense_changes_nothing, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
