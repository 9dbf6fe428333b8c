/*
 * Owners and modes as the tools that read images list them, for the files that they have laid out: without root those
 * belong to somebody else, and debugfs drops the setuid bits even with it. Listings are of images from outside: what
 * makes no sense is passed over, and nothing outside of the stage is looked at.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "rootfs/stage.h"

/* For debugfs -f: one `ls -p` for each folder of the stage. */
int owners_ask_ext4(const struct stage *s, struct buf *commands, struct err *err) must_check;
/* What it answers to those, entry by entry; the root is ".". */
struct ext4_entry {
	uint32_t inode;
	mode_t mode; /* with the type */
	uint32_t uid, gid;
	const char *path;
};
void owners_each_ext4(struct str listing, void (*visit)(void *ctx, const struct ext4_entry *e), void *ctx);
void owners_take_ext4(struct stage *s, struct str listing);
/* Of unsquashfs -lln, whose paths begin with `squashfs-root`. */
void owners_take_squashfs(struct stage *s, struct str listing);
