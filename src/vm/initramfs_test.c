#include "vm/initramfs.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

enum { HEADER = 110 };

/* A field of the header, by its number behind the magic. */
static unsigned long field(const char *entry, unsigned number)
{
	unsigned long value = 0;

	for (size_t i = 6 + 8UL * number; i < 14 + 8UL * number; i++)
		value = value * 16 + (unsigned long)(strchr("0123456789abcdef", entry[i]) - "0123456789abcdef");
	return value;
}

static size_t padded(size_t len)
{
	return (len + 3) / 4 * 4;
}

/* The next entry: its name, mode and bytes. */
static const char *next(struct str *archive, unsigned long *ret_mode, struct str *ret_bytes)
{
	const char *entry = archive->data;

	assert_true(archive->len >= HEADER);
	assert_memory_equal(entry, "070701", 6);
	size_t name_len = field(entry, 11);
	size_t size = field(entry, 6);
	size_t at = padded(HEADER + name_len);
	assert_true(at + padded(size) <= archive->len);
	assert_int_equal(entry[HEADER + name_len - 1], '\0');
	*ret_mode = field(entry, 1);
	*ret_bytes = (struct str){entry + at, size};
	archive->data += at + padded(size);
	archive->len -= at + padded(size);
	return entry + HEADER;
}

static void entries_follow_the_format(void **state)
{
	autovar(buf) out = {0};
	unsigned long mode;
	struct str bytes;

	(void)state;
	cpio_dir(&out, "dev");
	cpio_char_device(&out, "dev/console", 0600, 5, 1);
	cpio_file(&out, "init", 0755, STR("12345"));
	cpio_end(&out);
	struct str rest = buf_str(&out);
	assert_string_equal(next(&rest, &mode, &bytes), "dev");
	assert_int_equal(mode, S_IFDIR | 0755);
	const char *device = rest.data;
	assert_string_equal(next(&rest, &mode, &bytes), "dev/console");
	assert_int_equal(mode, S_IFCHR | 0600);
	assert_int_equal(field(device, 9), 5);
	assert_int_equal(field(device, 10), 1);
	assert_string_equal(next(&rest, &mode, &bytes), "init");
	assert_int_equal(mode, S_IFREG | 0755);
	assert_true(str_eq(bytes, STR("12345")));
	assert_string_equal(next(&rest, &mode, &bytes), "TRAILER!!!");
	assert_int_equal(rest.len, 0);
}

static void write_file(int dir_fd, const char *name, const char *text)
{
	assert_int_equal(file_write_atomic(dir_fd, name, str_c(text), 0644, &(struct err){0}), 0);
}

static void a_share_folder_becomes_an_archive(void **state)
{
	char dir[] = "/tmp/nimbus-initramfs-test.XXXXXX";
	autovar(buf) out = {0};
	autovar(buf) again = {0};
	autoclose fd = -1;
	struct err err = {0};
	unsigned long mode;
	struct str bytes;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(dir_open(dir, &fd, &err), 0);
	assert_int_equal(initramfs_build(fd, &out, &err), -ERR_IO);
	assert_int_equal(out.len, 0);
	write_file(fd, "nimbus-guest", "the guest");
	assert_int_equal(mkdirat(fd, "modules", 0755), 0);
	for (size_t i = 0; i < initramfs_module_count; i++) {
		autofree char *path = xasprintf("modules/%s.ko", initramfs_modules[i]);
		write_file(fd, path, initramfs_modules[i]);
	}
	for (size_t i = 0; i < initramfs_network_module_count; i++) {
		autofree char *path = xasprintf("modules/%s.ko", initramfs_network_modules[i]);
		write_file(fd, path, initramfs_network_modules[i]);
	}
	for (size_t i = 0; i < initramfs_verity_module_count; i++) {
		autofree char *path = xasprintf("modules/%s.ko", initramfs_verity_modules[i]);
		write_file(fd, path, initramfs_verity_modules[i]);
	}
	assert_int_equal(initramfs_build(fd, &out, &err), 0);
	assert_int_equal(initramfs_build(fd, &again, &err), 0);
	assert_true(str_eq(buf_str(&out), buf_str(&again)));
	struct str rest = buf_str(&out);
	const char *name;
	do
		name = next(&rest, &mode, &bytes);
	while (strcmp(name, "modules.list") != 0);
	assert_true(
		str_starts_with(bytes, STR("/modules/virtio_ring.ko\n/modules/virtio.ko\n/modules/virtio_mmio.ko\n")));
	assert_int_equal(dir_remove(AT_FDCWD, dir, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_follow_the_format),
		cmocka_unit_test(a_share_folder_becomes_an_archive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
