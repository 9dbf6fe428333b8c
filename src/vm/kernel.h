/*
 * Linux kernel images: out of the compressed bzImage that a distribution ships comes the ELF vmlinux that a VMM boots
 * fastest. Bytes in, bytes out.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	KERNEL_SIZE_MAX = 256 << 20, /* of a vmlinux */
	BZIMAGE_SIZE_MAX = 64 << 20,
};

struct kernel_payload {
	struct str bytes;    /* compressed, in the bzImage; without the size that follows them */
	const char *format;  /* "lz4" ... */
	uint32_t plain_size; /* as the image says */
};

/* Where the compressed kernel lies (Documentation/x86/boot.rst, protocol 2.08 and later). */
int kernel_find_payload(struct str bzimage, struct kernel_payload *ret, struct err *err) must_check;
/* Appends the vmlinux: checked to be an ELF of the promised size. Kernels that are not LZ4 (gzip, xz, zstd) are
 * ERR_UNSUPPORTED. */
int kernel_extract(struct str bzimage, struct buf *out, struct err *err) must_check;
