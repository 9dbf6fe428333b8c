/*
 * rootfs.yaml: which images there are, and what each is made of. Bytes in, struct out; nothing is read or looked up
 * here but the text. Wrong keys name file, line and what was probably meant.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/str.h"

/* A distribution's own installer: the one kind of base that is not a file. */
struct rootfs_recipe {
	const char *suite; /* "bookworm" */
	const char *variant;
	const char *mirror; /* NULL: the one that this machine's own apt uses for the suite */
	struct js_texts packages;
};

struct rootfs_version {
	const char *name;
	size_t line;
	const char *description; /* or NULL */
	const char *base_url;	 /* one of these three */
	const char *base_path;
	struct rootfs_recipe *debootstrap;
	const char *sha256;	  /* of the base as it is downloaded or lies there; or NULL */
	int64_t size;		  /* of the same; 0: not said */
	struct js_texts overlays; /* folders or tars, in order: later ones win */
	const char *compression;  /* of the squashfs */
};

struct rootfs_config {
	const char *output_dir;
	const char *default_version; /* or NULL */
	struct rootfs_version *versions;
	size_t version_count;
};

/* Everything is in the arena. `name` is the file's, for messages. */
int rootfs_config_parse(struct str bytes, const char *name, struct arena *arena, struct rootfs_config *ret,
			struct err *err) must_check;
/* ERR_NOT_FOUND says which there are. */
int rootfs_config_find(const struct rootfs_config *config, const char *version, const struct rootfs_version **ret,
		       struct err *err) must_check;
