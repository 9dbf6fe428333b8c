/*
 * Downloading a base: streamed to a file, gone on with where it broke off (Range and If-Range, so that the two halves
 * are of one file), checked by size and digest. What is complete and has a known digest is not loaded again. Redirects
 * are followed, a few, and never from https to http.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* total: -1 where it is not known. */
typedef void fetch_progress_fn(void *ctx, int64_t done, int64_t total);

struct fetch_opts {
	const char *url;
	const char *sha256; /* hex; NULL: anything is taken */
	int64_t size;	    /* 0: not known */
	const char *folder; /* where files and what came of them are kept */
	fetch_progress_fn *progress;
	void *ctx;
};

/* The path of the whole and checked file, which the caller frees. */
int fetch(const struct fetch_opts *o, char **ret_path, struct err *err) must_check;
