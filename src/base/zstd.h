/*
 * zstd, the library: frames packed and unpacked as a whole, and frames of anybody's unpacked in pieces (base/unpack.h
 * has the bounds for those).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* Contexts for one thread at a time. */
struct zstd;
struct zstd *zstd_new(int level) must_check;
void zstd_free(struct zstd *z);
AUTOPTR_DEFINE(zstd)
/* Appends one frame; gives its length. */
size_t zstd_pack(struct zstd *z, struct str raw, struct buf *out);
/* True: the frame held exactly `len` bytes, which are in `to`. */
bool zstd_unpack(struct zstd *z, struct str packed, char *to, size_t len) must_check;

enum { ZSTD_STREAM_WINDOW_LOG = 23 }; /* 8 MiB, as RFC 8878 asks of decoders; a frame that wants more is refused */

struct zstd_stream;
struct zstd_stream *zstd_stream_new(void) must_check;
void zstd_stream_free(struct zstd_stream *s);
AUTOPTR_DEFINE(zstd_stream)
/* As unpack_step_fn of base/unpack.c. */
int zstd_stream_step(struct zstd_stream *s, struct str *in, char *to, size_t cap, size_t *ret_made, bool *ret_whole,
		     struct err *err) must_check;
/* Bytes of memory that it holds. */
size_t zstd_stream_memory(const struct zstd_stream *s);
