/*
 * What an image is and what it was made of, as it stands beside it in DIGEST.json; and its content id, which is the
 * same wherever the same parts are put together the same way.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "rootfs/layer.h"
#include "rootfs/pack.h"

struct manifest_layer {
	const char *source; /* as the configuration has it */
	struct layer layer;
};

struct manifest {
	const char *name;
	const char *description; /* or NULL */
	const char *compression;
	struct manifest_layer base;
	const struct manifest_layer *overlays;
	size_t overlay_count;
	const struct packed *packed;
	const struct js *packages; /* an array; or NULL */
};

/* sha256 of the canonical JSON (RFC 8785) of base, overlays in their order, and what packed them. Appends hex. */
void manifest_id(const struct manifest *m, struct buf *out);
/* With tool versions. */
struct js *manifest_js(const struct manifest *m) must_check;
