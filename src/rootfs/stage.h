/*
 * The tree that an image is packed from, laid out in a folder of its own. Nothing that is put in leaves it: each path
 * is resolved as if the folder were the root of the system, so a link in one layer cannot lead a later one outside.
 * Owners and modes are kept beside the files, so that no root is needed to make files of root.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

struct stage_owner {
	ino_t inode;
	mode_t mode;
	uint32_t uid, gid;
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
};

/* ERR_INVALID names an entry that is absolute, has "..", a control character, or is too long. */
int stage_check_path(const char *path, struct err *err) must_check;
/* A folder, file or link over what is there. *ret_fd: where a file's bytes go; -1 for all else. A device, FIFO or
 * socket is refused by name. */
int stage_put(struct stage *s, const struct stage_entry *e, int *ret_fd, struct err *err) must_check;

/* Owner and mode of an entry that another program laid out; the type in `mode` does not count. Nothing happens where
 * there is no such entry. */
void stage_own(struct stage *s, const struct stage_entry *e);

/* What mksquashfs needs to know beside the files: a pseudo-file definition for each entry whose owner or mode is not
 * what the folder shows. Removes devices, FIFOs and sockets, which another program may have laid there. */
int stage_describe(struct stage *s, struct buf *out, struct err *err) must_check;
