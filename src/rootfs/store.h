/*
 * The folder that images are built into, which is laid out as an assets folder (vm/assets.h) and may be one: a file per
 * digest with DIGEST.json beside it, and names as links to them. `current` is the active version, that of jobs which
 * name none; `previous` what was active before. A name changes by one rename: nobody ever sees half of it, and whoever
 * has opened an image keeps it.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "rootfs/config.h"
#include "rootfs/place.h"

struct rootfs_store {
	char *dir;
	int fd;
	int lock_fd;
	struct place place; /* where images are made; only where it may be changed */
};
void rootfs_store_fini(struct rootfs_store *s);
AUTOVAR_DEFINE(rootfs_store)

/* To look, ERR_NOT_FOUND where there is none; or to change: makes the folder where it is missing, and nobody else
 * changes it meanwhile (ERR_CONFLICT). */
int rootfs_store_open(const char *dir, bool change, struct rootfs_store *ret, struct err *err) must_check;

/* Takes the file, a path in the place, over under its digest, and makes `name` stand for it. */
int rootfs_store_put(struct rootfs_store *s, const char *file, const char *digest, const char *name,
		     const struct js *manifest, struct err *err) must_check;

enum { STORE_UNCHANGED = 1 };
/* STORE_UNCHANGED: it was active already. */
int rootfs_store_activate(struct rootfs_store *s, const char *name, struct err *err) must_check;
/* What was active before is active again, and the other way round. */
int rootfs_store_rollback(struct rootfs_store *s, struct err *err) must_check;
/* The digest of `current`, where there is one. */
bool rootfs_store_has_current(const struct rootfs_store *s);

/* An array of {name, sha256, size, active, previous, rootfs_id, verity_root, description, base, built_here}. */
int rootfs_store_list(const struct rootfs_store *s, struct js **ret, struct err *err) must_check;
/* Reads every byte: digest, hash tree, manifest. An array of {name, sha256, ok, problem}. `name` NULL: all. */
int rootfs_store_verify(const struct rootfs_store *s, const char *name, struct js **ret, struct err *err) must_check;
/* Removes versions that the configuration (or NULL) no longer has, images that no name stands for, and what broken
 * builds left; never what is active, was before, or is open in a VM. An array of {name, sha256, bytes, kept}: `kept`
 * says why not. */
int rootfs_store_gc(struct rootfs_store *s, const struct rootfs_config *config, bool dry_run, struct js **ret,
		    struct err *err) must_check;
