/*
 * One layer of an image, base or overlay, as it goes into the stage: a tar, an ext4 or squashfs image, or a folder.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "rootfs/stage.h"

struct layer {
	const char *type; /* "tar", "ext4", "squashfs", "folder" */
	char sha256[65];  /* of the file's bytes; of a folder, over names, modes and contents in order */
	int64_t size;	  /* of the file; of a folder, its contents */
};

/* Layers of the first two kinds that other programs lay out must come first: the stage is empty then. `is_base`: an
 * image is taken too. */
int layer_put(struct stage *s, const char *path, bool is_base, struct layer *ret, struct err *err) must_check;
