#include "rootfs/stage.h"

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
#include "rootfs/archive.h"

struct fixture {
	char folder[40];
	struct stage stage;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct err err = {0};

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-stage-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	autofree char *tree = xasprintf("%s/tree", f->folder);
	assert_int_equal(stage_init(&f->stage, tree, &err), 0);
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

static int put(struct stage *s, const struct stage_entry *e, struct err *err)
{
	autoclose fd = -1;
	int rc = stage_put(s, e, &fd, err);

	if (rc == 0 && fd >= 0)
		assert_int_equal(write(fd, "x", 1), 1);
	return rc;
}

static void file(struct stage *s, const char *path, mode_t mode, uint32_t uid)
{
	struct err err = {0};

	if (put(s, &(struct stage_entry){.path = path, .mode = S_IFREG | mode, .uid = uid, .gid = uid}, &err) < 0)
		fail_msg("%s", err.msg);
}

static void symlink_to(struct stage *s, const char *path, const char *target)
{
	struct err err = {0};

	if (put(s, &(struct stage_entry){.path = path, .mode = S_IFLNK | 0777, .target = target}, &err) < 0)
		fail_msg("%s", err.msg);
}

static bool exists(const struct fixture *f, const char *path)
{
	autofree char *full = xasprintf("%s/tree/%s", f->folder, path);
	struct stat st;

	return lstat(full, &st) == 0;
}

static void hostile_entries_are_refused_by_name(void **state)
{
	static const struct {
		struct stage_entry entry;
		const char *part;
	} cases[] = {
		{{.path = "../evil", .mode = S_IFREG}, "'../evil' has '..'"},
		{{.path = "a/../../evil", .mode = S_IFREG}, "has '..'"},
		{{.path = "a/..", .mode = S_IFDIR}, "has '..'"},
		{{.path = "/etc/passwd", .mode = S_IFREG}, "'/etc/passwd' is absolute"},
		{{.path = "dev/null", .mode = S_IFCHR}, "'dev/null' is a device"},
		{{.path = "dev/sda", .mode = S_IFBLK}, "'dev/sda' is a device"},
		{{.path = "pipe", .mode = S_IFIFO}, "'pipe' is a device, FIFO"},
		{{.path = "sock", .mode = S_IFSOCK}, "'sock' is a device"},
		{{.path = "a\nb", .mode = S_IFREG}, "control character"},
		{{.path = "", .mode = S_IFREG}, "empty"},
		{{.path = ".", .mode = S_IFREG}, "root is no folder"},
		{{.path = "h", .mode = S_IFREG, .hard_link = true, .target = "../x"}, "hard link 'h'"},
		{{.path = "h", .mode = S_IFREG, .hard_link = true, .target = "/etc/passwd"}, "is absolute"},
		{{.path = "h", .mode = S_IFREG, .hard_link = true, .target = "nowhere"}, "hard link 'h' to 'nowhere'"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = {0};
		assert_true(put(&f->stage, &cases[i].entry, &err) < 0);
		if (strstr(err.msg, cases[i].part) == NULL)
			fail_msg("%zu: %s", i, err.msg);
	}
}

/* What a link of one layer points to is meant inside of the image, whatever it says. */
static void a_link_leads_nowhere_else(void **state)
{
	struct fixture *f = *state;
	autofree char *outside = xasprintf("%s/outside", f->folder);
	struct err err = {0};

	assert_int_equal(mkdir(outside, 0755), 0);
	symlink_to(&f->stage, "absolute", outside);
	symlink_to(&f->stage, "up", "../outside");
	symlink_to(&f->stage, "self", "/proc/self/root");
	/* The folders do not exist in the image: the entries fail, or land inside. */
	(void)put(&f->stage, &(struct stage_entry){.path = "absolute/a", .mode = S_IFREG | 0644}, &err);
	(void)put(&f->stage, &(struct stage_entry){.path = "up/b", .mode = S_IFREG | 0644}, &err);
	(void)put(&f->stage, &(struct stage_entry){.path = "self/tmp/c", .mode = S_IFREG | 0644}, &err);
	assert_int_equal(rmdir(outside), 0);
	/* Over a link to a file the file is replaced, not followed. */
	symlink_to(&f->stage, "passwd", "/etc/passwd");
	file(&f->stage, "passwd", 0644, 0);
	assert_true(exists(f, "passwd"));
}

static void an_overlay_goes_through_the_links_of_its_base(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	file(&f->stage, "usr/bin/sh", 0755, 0);
	symlink_to(&f->stage, "bin", "usr/bin");
	assert_int_equal(put(&f->stage, &(struct stage_entry){.path = "bin", .mode = S_IFDIR | 0755}, &err), 0);
	file(&f->stage, "bin/tool", 0755, 0);
	assert_true(exists(f, "usr/bin/tool"));
	/* A folder that holds something is not lost to a file. */
	assert_true(put(&f->stage, &(struct stage_entry){.path = "usr", .mode = S_IFREG | 0644}, &err) < 0);
	assert_non_null(strstr(err.msg, "not empty"));
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

static void owners_and_modes_are_told(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct err err = {0};

	file(&f->stage, "a \"b\"", 04755, 1000);
	file(&f->stage, "plain", 0644, 7);
	file(&f->stage, "plain", 0600, 8); /* the later one wins */
	assert_int_equal(put(&f->stage, &(struct stage_entry){.path = ".", .mode = S_IFDIR | 0711}, &err), 0);
	assert_int_equal(stage_each(&f->stage, tell, &out, &err), 0);
	assert_string_equal(out.data, "a \"b\" m 4755 1000 1000\nplain m 600 8 8\n");
	assert_int_equal(f->stage.root_mode, 0711);
}

static void what_is_no_archive_is_refused(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	assert_true(archive_unpack_bytes(STR("not a tar"), 1000, &f->stage, &err) < 0);
	assert_true(archive_unpack_bytes(STR(""), 1000, &f->stage, &err) < 0);
	assert_true(err.msg[0] != '\0');
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(hostile_entries_are_refused_by_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_link_leads_nowhere_else, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_overlay_goes_through_the_links_of_its_base, set_up, tear_down),
		cmocka_unit_test_setup_teardown(owners_and_modes_are_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_no_archive_is_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
