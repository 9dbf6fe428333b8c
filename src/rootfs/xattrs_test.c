#include "rootfs/xattrs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define CAPABILITY "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define CAPABILITY_3 "\x01\0\0\x03\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

struct fixture {
	struct arena *arena;
	struct xattrs_left_out left_out;
	size_t used;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->arena = arena_new();
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	arena_free(f->arena);
	xattrs_left_out_fini(&f->left_out);
	free(f);
	return 0;
}

static struct xattrs_reader reader(struct fixture *f, const char *path, mode_t mode)
{
	return (struct xattrs_reader){
		.path = path, .mode = mode, .arena = f->arena, .left_out = &f->left_out, .used = &f->used};
}

static void take(struct xattrs_reader *r, const char *name, struct str value)
{
	struct err err = {0};

	if (xattrs_take(r, name, value, &err) < 0)
		fail_msg("%s", err.msg);
}

static void what_an_image_keeps_is_sorted(void **state)
{
	struct fixture *f = *state;
	struct xattrs_reader r = reader(f, "bin/ping", S_IFREG | 0755);

	take(&r, "user.z", STR("last"));
	take(&r, "user.empty", STR(""));
	take(&r, "security.capability", STR(CAPABILITY));
	struct xattrs x = xattrs_finish(&r);
	assert_int_equal(x.count, 3);
	assert_string_equal(x.items[0].name, "security.capability");
	assert_int_equal(x.items[0].value.len, 20);
	assert_memory_equal(x.items[0].value.data, CAPABILITY, 20);
	assert_string_equal(x.items[1].name, "user.empty");
	assert_int_equal(x.items[1].value.len, 0);
	assert_string_equal(x.items[2].name, "user.z");
	assert_int_equal(f->left_out.count, 0);
}

static void what_belongs_to_another_system_is_left_out_by_name(void **state)
{
	static const char *const names[] = {"security.selinux", "security.ima", "trusted.overlay.opaque",
					    "user.overlay.redirect", "system.posix_acl_access"};
	struct fixture *f = *state;
	struct xattrs_reader first = reader(f, "etc/a", S_IFREG);
	struct xattrs_reader second = reader(f, "etc/b", S_IFDIR);

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		take(&first, names[i], STR("x"));
		take(&second, names[i], STR("x"));
	}
	take(&second, "security.capability", STR(CAPABILITY)); /* of a folder: means nothing */
	assert_int_equal(xattrs_finish(&first).count, 0);
	assert_int_equal(xattrs_finish(&second).count, 0);
	assert_int_equal(f->left_out.count, ARRAY_LEN(names) + 1);
	assert_string_equal(f->left_out.items[2].name, "trusted.overlay.opaque");
	assert_string_equal(f->left_out.items[2].first, "etc/a");
	assert_int_equal(f->left_out.items[2].count, 2);
	assert_string_equal(f->left_out.items[5].first, "etc/b");
}

static void the_root_of_this_system_needs_no_name(void **state)
{
	struct fixture *f = *state;
	struct xattrs_reader r = reader(f, "bin/ping", S_IFREG);

	take(&r, "security.capability", STR(CAPABILITY_3 "\0\0\0\0"));
	struct xattrs x = xattrs_finish(&r);
	assert_int_equal(x.items[0].value.len, 20);
	assert_memory_equal(x.items[0].value.data, CAPABILITY, 20);
}

static void what_makes_no_sense_is_refused_by_name(void **state)
{
	static char large[64 * 1024 + 1];
	const struct {
		const char *name;
		struct str value;
		const char *part;
	} cases[] = {
		{"security.capability", STR(CAPABILITY_3 "\xa0\x86\x01\0"), "uid 100000"},
		{"security.capability", STR(CAPABILITY_3), "damaged"},
		{"security.capability", STR(CAPABILITY "\0"), "damaged"},
		{"security.capability", STR(""), "damaged"},
		{"user.a b", STR("x"), "readable name"},
		{"user.a\n", STR("x"), "readable name"},
		{"", STR("x"), "readable name"},
		{"user.twice", STR("x"), "twice"},
		{"user.large", {large, sizeof(large)}, "limit"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct xattrs_reader r = reader(f, "bin/ping", S_IFREG);
		struct err err = {0};
		take(&r, "user.twice", STR("1"));
		assert_true(xattrs_take(&r, cases[i].name, cases[i].value, &err) < 0);
		if (strstr(err.msg, cases[i].part) == NULL || strstr(err.msg, "'bin/ping'") == NULL)
			fail_msg("%zu: %s", i, err.msg);
		(void)xattrs_finish(&r);
	}
}

static void all_together_are_bounded(void **state)
{
	static char value[60 * 1024];
	struct fixture *f = *state;
	struct err err = {0};
	int rc = 0;

	for (int i = 0; i < 1000 && rc == 0; i++) {
		struct xattrs_reader r = reader(f, "a", S_IFREG);
		arena_free(f->arena); /* as if it were another entry each time */
		f->arena = r.arena = arena_new();
		rc = 0;
		for (int j = 0; j < 2 && rc == 0; j++)
			rc = xattrs_take(&r, j == 0 ? "user.a" : "user.b", (struct str){value, sizeof(value)}, &err);
		(void)xattrs_finish(&r);
	}
	assert_true(rc < 0);
	assert_non_null(strstr(err.msg, "limit"));
}

static void a_file_on_a_disk_is_read(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/nimbus-xattrs-XXXXXX";
	struct err err = {0};
	autoclose fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	(void)unlink(path);
	struct xattrs_reader none = reader(f, "a", S_IFREG);
	assert_int_equal(xattrs_read_fd(&none, fd, &err), 0);
	assert_int_equal(xattrs_finish(&none).count, 0);
	if (fsetxattr(fd, "user.one", "1", 1, 0) != 0 || fsetxattr(fd, "user.none", "", 0, 0) != 0)
		skip(); /* a file system without them */
	struct xattrs_reader r = reader(f, "a", S_IFREG);
	assert_int_equal(xattrs_read_fd(&r, fd, &err), 0);
	struct xattrs x = xattrs_finish(&r);
	assert_int_equal(x.count, 2);
	assert_string_equal(x.items[1].name, "user.one");
	assert_memory_equal(x.items[1].value.data, "1", 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_an_image_keeps_is_sorted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_belongs_to_another_system_is_left_out_by_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_root_of_this_system_needs_no_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused_by_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(all_together_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_on_a_disk_is_read, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
