/*
 * Extended attributes of an ext4 image, as debugfs tells them: first which ones each file and folder has, then the
 * values of those that an image keeps. What it says is of an image from outside: what makes no sense is an error, and
 * decides nothing but which attributes the entries of the stage get.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "rootfs/stage.h"

struct ext4_file;
struct ext4_xattrs {
	struct arena *arena;
	struct ext4_file *files; /* by inode; one that has several names stands there for each */
	size_t count, room;
};
void ext4_xattrs_fini(struct ext4_xattrs *x);
AUTOVAR_DEFINE(ext4_xattrs)

/* `listing` is what debugfs answered to owners_ask_ext4(); `commands` are for debugfs -f. */
void ext4_xattrs_ask_names(struct ext4_xattrs *x, struct str listing, struct buf *commands);
/* What it said to them. Nothing is added to `commands` where there is no value to ask for. */
int ext4_xattrs_take_names(const struct ext4_xattrs *x, struct stage *s, struct str said, struct buf *commands,
			   struct err *err) must_check;
int ext4_xattrs_take_values(const struct ext4_xattrs *x, struct stage *s, struct str said, struct err *err) must_check;
