/*
 * What a template says of itself: the machine that it is, the host and the files that it was made from, and its own
 * files. One line of JSON and, on the next, its HMAC-SHA256 in hex: a template is made by who holds the key, or it is
 * none.
 *
 * A file is known by its digest and, so that 256 MiB need not be hashed for each clone, by what its inode says: whoever
 * changes a byte changes the inode's ctime, which only the kernel sets. What has the same inode, size, mtime and ctime
 * has the same bytes as when it was hashed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum { TEMPLATE_VERSION = 1, TEMPLATE_MANIFEST_MAX = 16 * 1024 };

/* What a template is made from, and then what it consists of. */
#define TEMPLATE_PARTS(X) \
	X(KERNEL, kernel) \
	X(INITRD, initrd) \
	X(ROOTFS, rootfs) \
	X(VMM, vmm)       \
	X(NIMBUS, nimbus) \
	X(MEMORY, memory) \
	X(STATE, state)   \
	X(DISK, disk)

enum template_part {
#define X(name, text) TEMPLATE_##name,
	TEMPLATE_PARTS(X)
#undef X
		TEMPLATE_PART_COUNT,
	TEMPLATE_OWN = TEMPLATE_MEMORY, /* from here on: its own files, named as the parts are */
};

const char *template_part_name(enum template_part part);

struct template_file {
	const char *sha256; /* hex */
	int64_t size;
	int64_t inode;
	int64_t modified_ns; /* mtime */
	int64_t changed_ns;  /* ctime */
};

/* The machine: jobs that ask for another one need another template. */
struct template_shape {
	const char *accel; /* "kvm", "tcg" */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	bool network; /* it has a network device */
};

struct template_manifest {
	int64_t version;
	const char *driver;
	const char *image; /* the name that its rootfs had */
	struct template_shape shape;
	const char *host_kernel; /* its release */
	const char *host_cpu;	 /* its model */
	int64_t tsc_khz;
	int64_t made_at;
	struct template_file files[TEMPLATE_PART_COUNT];
};

bool template_shape_equal(const struct template_shape *a, const struct template_shape *b);
/* The same file, untouched since it was hashed. */
bool template_file_same(const struct template_file *a, const struct template_file *b);

/* Appends both lines. */
void template_manifest_encode(const struct template_manifest *m, const struct secret *key, struct buf *out);
/* ERR_FORBIDDEN where the MAC is not this key's; nothing of the text is looked at then. Text lies in the arena. */
int template_manifest_decode(struct str bytes, const struct secret *key, struct arena *arena,
			     struct template_manifest *ret, struct err *err) must_check;
/* The first line alone, when its MAC is known to be right. */
int template_manifest_parse(struct str line, struct arena *arena, struct template_manifest *ret, struct err *err)
	must_check;
