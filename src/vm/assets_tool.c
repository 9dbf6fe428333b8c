/*
 * nimbus-assets, used by scripts/assets.sh only:
 *
 *	nimbus-assets vmlinux VMLINUZ OUT    extracts the ELF kernel
 *	nimbus-assets modules                names the drivers that the initial RAM disk needs
 *	nimbus-assets initrd SHARE OUT       makes the initial RAM disk of SHARE/nimbus-guest and SHARE/modules
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "vm/initramfs.h"
#include "vm/kernel.h"

static int make_vmlinux(const char *from, const char *to, struct err *err)
{
	autovar(buf) image = {0};
	autovar(buf) kernel = {0};

	int rc = file_read(AT_FDCWD, from, BZIMAGE_SIZE_MAX, &image, err);
	if (rc == 0)
		rc = kernel_extract(buf_str(&image), &kernel, err);
	return rc == 0 ? file_write_atomic(AT_FDCWD, to, buf_str(&kernel), 0644, err) : rc;
}

static int make_initrd(const char *share, const char *to, struct err *err)
{
	autovar(buf) archive = {0};
	autoclose share_fd = -1;

	int rc = dir_open(share, &share_fd, err);
	if (rc == 0)
		rc = initramfs_build(share_fd, &archive, err);
	return rc == 0 ? file_write_atomic(AT_FDCWD, to, buf_str(&archive), 0644, err) : rc;
}

int main(int argc, char **argv)
{
	struct err err = {0};

	if (argc == 2 && strcmp(argv[1], "modules") == 0) {
		for (size_t i = 0; i < initramfs_module_count; i++)
			(void)puts(initramfs_modules[i]);
		for (size_t i = 0; i < initramfs_network_module_count; i++)
			(void)puts(initramfs_network_modules[i]);
		for (size_t i = 0; i < initramfs_verity_module_count; i++)
			(void)puts(initramfs_verity_modules[i]);
		return 0;
	}
	if (argc == 4 && strcmp(argv[1], "vmlinux") == 0 && make_vmlinux(argv[2], argv[3], &err) == 0)
		return 0;
	if (argc == 4 && strcmp(argv[1], "initrd") == 0 && make_initrd(argv[2], argv[3], &err) == 0)
		return 0;
	(void)fprintf(stderr, "nimbus-assets: %s\n",
		      err.code != 0 ? err.msg : "vmlinux IN OUT | modules | initrd SHARE OUT");
	return 1;
}
