#include "vm/assets.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

static struct {
	char dir[64];
	char *share, *assets;
	int share_fd;
} f;

static struct err err;

static void digest_of(const char *text, struct buf *out)
{
	struct sha256 sum = crypto_sha256(str_c(text));

	encode_hex((struct str){(const char *)sum.bytes, sizeof(sum.bytes)}, out);
}

static void put(const char *name, const char *text)
{
	assert_int_equal(file_write_atomic(f.share_fd, name, str_c(text), 0644, &err), 0);
}

/* vmlinux, initrd and one rootfs, whose text is their content. */
static void make_share(const char *kernel)
{
	autovar(buf) manifest = {0};
	const char *const names[] = {"vmlinux", "initrd", "demo.squashfs"};
	const char *const texts[] = {kernel, "the initrd", "the rootfs"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		put(names[i], texts[i]);
		digest_of(texts[i], &manifest);
		buf_printf(&manifest, "  %s\n", names[i]);
	}
	put("manifest", manifest.data);
}

static void assert_kernel(const char *text)
{
	autoclose assets_fd = -1;
	autoclose fd = -1;
	char bytes[64] = {0};

	assert_int_equal(dir_open(f.assets, &assets_fd, &err), 0);
	assert_int_equal(assets_open_kernel(assets_fd, &fd, &err), 0);
	assert_true(read(fd, bytes, sizeof(bytes) - 1) > 0);
	assert_string_equal(bytes, text);
}

static void a_change_leaves_open_files_alone(void **state)
{
	autoclose assets_fd = -1;
	autoclose old = -1;
	char bytes[64] = {0};

	(void)state;
	make_share("kernel one");
	assert_int_equal(assets_install(f.share, f.assets, &err), 0);
	assert_int_equal(assets_install(f.share, f.assets, &err), 0);
	assert_kernel("kernel one");
	assert_int_equal(dir_open(f.assets, &assets_fd, &err), 0);
	assert_int_equal(assets_open_kernel(assets_fd, &old, &err), 0);
	make_share("kernel two");
	assert_int_equal(assets_install(f.share, f.assets, &err), 0);
	assert_kernel("kernel two");
	assert_true(read(old, bytes, sizeof(bytes) - 1) > 0);
	assert_string_equal(bytes, "kernel one");
}

static void a_file_that_is_not_the_manifests_is_refused(void **state)
{
	(void)state;
	make_share("kernel one");
	assert_int_equal(assets_install(f.share, f.assets, &err), 0);
	make_share("kernel three");
	put("vmlinux", "something else");
	assert_int_equal(assets_install(f.share, f.assets, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "vmlinux"));
	assert_kernel("kernel one");
	put("manifest", "../../etc/passwd\n");
	assert_int_equal(assets_install(f.share, f.assets, &err), -ERR_INVALID);
}

static void names_are_found_or_explained(void **state)
{
	autoclose assets_fd = -1;
	autoclose fd = -1;

	(void)state;
	make_share("kernel one");
	assert_int_equal(assets_install(f.share, f.assets, &err), 0);
	assert_int_equal(dir_open(f.assets, &assets_fd, &err), 0);
	assert_int_equal(assets_open_rootfs(assets_fd, STR("demo"), &fd, &err), 0);
	fd_close(&fd);
	assert_int_equal(assets_open_rootfs(assets_fd, STR("other"), &fd, &err), -ERR_NOT_FOUND);
	assert_string_equal(err.msg, "no rootfs 'other'; there are: demo");
	assert_int_equal(assets_open_rootfs(assets_fd, STR("..demo"), &fd, &err), -ERR_NOT_FOUND);
	assert_int_equal(assets_open_rootfs(assets_fd, STR("../demo"), &fd, &err), -ERR_UNSUPPORTED);
	assert_int_equal(assets_open_rootfs(assets_fd, STR("debian:12"), &fd, &err), -ERR_UNSUPPORTED);
	assert_int_equal(fd, -1);
}

static void rootfs_names_are_plain(void **state)
{
	(void)state;
	assert_true(assets_rootfs_name_valid(STR("demo")));
	assert_true(assets_rootfs_name_valid(STR("ubuntu-22.04_x")));
	assert_false(assets_rootfs_name_valid(STR("")));
	assert_false(assets_rootfs_name_valid(STR(".hidden")));
	assert_false(assets_rootfs_name_valid(STR("Demo")));
	assert_false(assets_rootfs_name_valid(STR("a/b")));
	assert_false(assets_rootfs_name_valid(STR("a\0b")));
	assert_false(
		assets_rootfs_name_valid(STR("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")));
}

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(f.dir, sizeof(f.dir), "/tmp/nimbus-assets-test.XXXXXX");
	if (mkdtemp(f.dir) == NULL)
		return -1;
	f.share = xasprintf("%s/share", f.dir);
	f.assets = xasprintf("%s/data/assets", f.dir);
	err = (struct err){0};
	return dir_make(f.share, 0755, &err) < 0 ? -1 : dir_open(f.share, &f.share_fd, &err);
}

static int tear_down(void **state)
{
	(void)state;
	fd_close(&f.share_fd);
	free(f.share);
	free(f.assets);
	return dir_remove(AT_FDCWD, f.dir, &err);
}

/* A digest that is not the file's shows whether it was read. */
static void a_large_image_is_linked_where_nobody_else_can_change_it(void **state)
{
	autovar(buf) manifest = {0};
	autoclose assets_fd = -1;
	struct stat share, installed;

	(void)state;
	autoclose big = openat(f.share_fd, "big.squashfs", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_int_equal(ftruncate(big, 33 << 20), 0);
	digest_of("something else", &manifest);
	autofree char *digest = xstrdup(manifest.data);
	buf_puts(&manifest, "  big.squashfs\n");
	put("manifest", manifest.data);
	assert_int_equal(fchmod(big, 0664), 0);
	assert_int_equal(assets_install(f.share, f.assets, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "digest"));
	assert_int_equal(fchmod(big, 0644), 0);
	assert_int_equal(assets_install(f.share, f.assets, &err), 0);
	assert_int_equal(dir_open(f.assets, &assets_fd, &err), 0);
	assert_int_equal(fstat(big, &share), 0);
	assert_int_equal(fstatat(assets_fd, digest, &installed, 0), 0);
	assert_true(share.st_ino == installed.st_ino);
	assert_int_equal(unlinkat(assets_fd, "big.squashfs", 0), 0);
	assert_int_equal(unlinkat(assets_fd, digest, 0), 0);
	assert_int_equal(unlinkat(f.share_fd, "big.squashfs", 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_change_leaves_open_files_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_that_is_not_the_manifests_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(names_are_found_or_explained, set_up, tear_down),
		cmocka_unit_test(rootfs_names_are_plain),
		cmocka_unit_test_setup_teardown(a_large_image_is_linked_where_nobody_else_can_change_it, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
