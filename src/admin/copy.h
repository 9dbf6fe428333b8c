/*
 * Files from one folder into another, with their digests; durable when the folders have been synced.
 */
#pragma once

#include <stdint.h>

#include "admin/manifest.h"
#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"

/* Two trees with the same paths below them. */
struct copy {
	int from_fd;
	int to_fd;
	const char *prefix; /* of paths in the list: "logs/"; NULL: none */
	struct arena *arena;
	struct manifest_file *files; /* what was copied */
	size_t count;
	size_t cap;
	int64_t bytes;
};
void copy_fini(struct copy *c);
AUTOVAR_DEFINE(copy)

/* One file; its folders are made, mode 0700. What is appended meanwhile may be in it or not. A file that is gone by now
 * is left out. */
int copy_file(struct copy *c, const char *path, struct err *err) must_check;
/* All ordinary files below `path`, by name; fine where there is no such folder. `skip` (may be NULL): names that are
 * left out. */
int copy_folder(struct copy *c, const char *path, bool (*skip)(const char *name), struct err *err) must_check;
/* Adds a file to the list that was put into to_fd in another way; whose it is and who may read it, `original` says. */
int copy_add(struct copy *c, const char *path, const char *original, struct err *err) must_check;

/* The digest and size of one file; nothing else of *ret is touched. */
int copy_digest(int dirfd, const char *path, struct arena *arena, struct manifest_file *ret, struct err *err)
	must_check;
/* fsync of every folder below and of the folder itself. */
int copy_sync_folders(int dirfd, struct err *err) must_check;
