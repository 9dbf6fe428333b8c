/*
 * The initial RAM disk of a VM: nimbus-guest as /init, the drivers that it loads and their order. A cpio archive in the
 * `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed; the same input gives the
 * same bytes.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* Entries of the archive, for what is not in a share folder. Parents come before children. */
void cpio_dir(struct buf *out, const char *path);
void cpio_file(struct buf *out, const char *path, unsigned mode, struct str bytes);
void cpio_char_device(struct buf *out, const char *path, unsigned mode, unsigned major, unsigned minor);
void cpio_end(struct buf *out);

/* The drivers of a machine whose devices are virtio-mmio, in the order in which they are loaded. */
extern const char *const initramfs_modules[];
extern const size_t initramfs_module_count;
/* After them, and only where the machine has a network device: loading costs time. */
extern const char *const initramfs_network_modules[];
extern const size_t initramfs_network_module_count;
/* Likewise, only where the image has a hash tree. */
extern const char *const initramfs_verity_modules[];
extern const size_t initramfs_verity_module_count;

/* Appends the archive of share/nimbus-guest and share/modules/NAME.ko. */
int initramfs_build(int share_fd, struct buf *out, struct err *err) must_check;
