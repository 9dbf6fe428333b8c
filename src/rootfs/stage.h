/*
 * The tree that an image is packed from, laid out in a folder of its own. Nothing that is put in leaves it: each path
 * is resolved as if the folder were the root of the system, so a link in one layer cannot lead a later one outside.
 * Owners, modes and extended attributes are kept beside the files, so that no root is needed to make files of root.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "rootfs/xattrs.h"

struct stage_owner {
	ino_t inode;
	mode_t mode;
	uint32_t uid, gid;
	struct xattrs xattrs;
	size_t order; /* a later one of the same inode wins */
};

struct stage {
	char *path;
	int root_fd;
	struct stage_owner *owners;
	size_t owner_count, owner_room;
	bool sorted;
	uint32_t root_uid, root_gid;
	mode_t root_mode;
	struct arena *arena; /* of the extended attributes */
	size_t xattr_bytes;
	struct xattrs_left_out left_out;
};
/* Makes the folder, which must not be there. */
int stage_init(struct stage *s, const char *path, struct err *err) must_check;
/* Lets go of it; the folder stays. */
void stage_fini(struct stage *s);
AUTOVAR_DEFINE(stage)

struct stage_entry {
	const char *path; /* relative to the root; "./" before it is fine */
	mode_t mode;	  /* with the type */
	uint32_t uid, gid;
	const char *target; /* of a symbolic link, or what a hard link is another name of */
	bool hard_link;
	struct xattrs xattrs; /* in the stage's arena: made by a reader of the following */
};
/* For the extended attributes of that entry. */
struct xattrs_reader stage_xattrs_reader(struct stage *s, const char *path, mode_t mode);

/* ERR_INVALID names an entry that is absolute, has "..", a control character, or is too long. */
int stage_check_path(const char *path, struct err *err) must_check;
/* A folder, file or link over what is there. *ret_fd: where a file's bytes go; -1 for all else. A device, FIFO or
 * socket is refused by name. */
int stage_put(struct stage *s, const struct stage_entry *e, int *ret_fd, struct err *err) must_check;

/* Owner and mode of an entry that another program laid out; the type in `mode` does not count. Nothing happens where
 * there is no such entry. */
void stage_own(struct stage *s, const struct stage_entry *e);

/* Extended attributes of entries that another program laid out, as it put them on the disk; after their owners. */
int stage_read_xattrs(struct stage *s, struct err *err) must_check;
/* Those of one such entry instead. */
void stage_set_xattrs(struct stage *s, const char *path, const struct xattrs *x);

/* An entry as the image is to have it. */
struct stage_item {
	const char *path; /* relative to the root */
	const struct stat *st;
	struct stage_owner
		owner; /* with what is not remembered: its mode, and its owner where we may give files away */
};
/* Every entry but the root, each folder before what is in it, by name. Devices, FIFOs and sockets, which another
 * program may have laid there, are passed over. Ends with what `visit` gives, where that is not 0. */
int stage_each(struct stage *s, int (*visit)(void *ctx, const struct stage_item *item, struct err *err), void *ctx,
	       struct err *err) must_check;
/* A file of the stage, to be read. */
int stage_open(const struct stage *s, const char *path, int *ret_fd, struct err *err) must_check;
