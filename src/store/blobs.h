/*
 * Blobs: files in one folder, each whole and durable or not there at all. One comes in pieces (hashed on the way), is
 * synced and renamed to its name, and is read through a descriptor, which stays good when the blob goes. Memory is
 * constant in a blob's size. Safe from every thread; one upload belongs to one thread at a time.
 *
 * The folder belongs to one process: what a former one left half-written is removed at the start.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { BLOB_NAME_MAX = 120, BLOB_DIGEST_SIZE = 65 };

struct blobs;
struct blob_upload;

struct blobs_opts {
	const char *folder; /* made where it is missing */
	int64_t min_free;   /* bytes of the disk that stay free: ERR_DISK_FULL before that */
	size_t uploads_max; /* at once; beyond: ERR_UNAVAILABLE */
};

int blobs_open(const struct blobs_opts *opts, struct blobs **ret, struct err *err) must_check;
/* No upload is under way. */
void blobs_free(struct blobs *b);
AUTOPTR_DEFINE(blobs)

/* At most `max` bytes: ERR_TOO_LARGE beyond. */
int blob_begin(struct blobs *b, int64_t max, struct blob_upload **ret, struct err *err) must_check;
enum { BLOB_MISSING = 1 };
/* Another blob of the same bytes as the one of that name, which stay one on the disk: there is nothing to come, and
 * they are there however soon that one goes. Not one of the uploads that are counted. BLOB_MISSING. */
int blob_begin_again(struct blobs *b, const char *name, struct blob_upload **ret, struct err *err) must_check;
/* Writes, and may wait for the disk as a write does; never syncs. */
int blob_chunk(struct blob_upload *u, struct str bytes, struct err *err) must_check;

struct blob_info {
	int64_t size;
	char sha256[BLOB_DIGEST_SIZE]; /* hex */
};
/* Durable under its name when it returns, in place of an older one. Names: a-z 0-9 '-', no more. Blocks. `ret` is NULL
 * for what began again. */
int blob_commit(struct blob_upload *u, const char *name, struct blob_info *ret, struct err *err) must_check;
/* Forgets what was not committed. NULL is fine. */
void blob_upload_free(struct blob_upload *u);
AUTOPTR_DEFINE(blob_upload)

/* BLOB_MISSING. */
int blob_open(struct blobs *b, const char *name, int *ret_fd, int64_t *ret_size, struct err *err) must_check;
/* Fine where it is not there. */
int blob_remove(struct blobs *b, const char *name, struct err *err) must_check;
/* A walk through the folder, for who keeps it in order: the names of the next blobs, at most `max`; fewer where it has
 * come to the end, and the call after begins anew. Without those whose upload is not freed yet: what they are is being
 * written down. One thread at a time. */
struct arena;
int blobs_next(struct blobs *b, size_t max, struct arena *arena, const char **ret_names, size_t *ret_count,
	       struct err *err) must_check;

struct blobs_counts {
	size_t uploads;
	size_t uploads_max;
	uint64_t stored; /* since the start */
	uint64_t stored_bytes;
};
struct blobs_counts blobs_counts(struct blobs *b);
