/*
 * The stage as an image file: a squashfs that is the same for the same tree, wherever and whenever it is packed, and
 * behind it its dm-verity tree.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "rootfs/stage.h"
#include "vm/verity.h"

/* Changed with anything that makes another image of the same tree. */
#define PACK_FLAGS "-tar -exports -noappend -mkfs-time 0 -all-time 0"

struct packed {
	struct verity verity;
	char sha256[65]; /* of the whole file */
	int64_t size;
};

/* `out` must not be there. */
int pack_image(struct stage *s, const char *compression, const char *out, struct packed *ret, struct err *err)
	must_check;
/* The first word of its version that begins with a digit; "unknown". The caller frees. */
char *pack_tool_version(const char *program, const char *flag) must_check;
