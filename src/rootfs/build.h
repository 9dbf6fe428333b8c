/*
 * One version of the configuration made into an image: base, overlays in order, packed, and taken over by the store.
 * Nothing is seen of it before all of it is there.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "rootfs/config.h"
#include "rootfs/fetch.h"
#include "rootfs/store.h"

struct build_opts {
	const struct rootfs_version *version;
	const char *config_dir; /* what paths are relative to */
	struct rootfs_store *store;
	void (*say)(void *ctx, const char *step); /* what it does now, in a few words; or NULL */
	fetch_progress_fn *progress;		  /* or NULL */
	void *ctx;
};

/* *ret: the manifest. */
int rootfs_build(const struct build_opts *o, struct js **ret, struct err *err) must_check;
