/*
 * zlib, the library: gzip of anybody's unpacked in pieces (base/unpack.h has the bounds).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct gzip_stream;
struct gzip_stream *gzip_stream_new(void) must_check;
void gzip_stream_free(struct gzip_stream *s);
AUTOPTR_DEFINE(gzip_stream)
/* As unpack_step_fn of base/unpack.c. */
int gzip_stream_step(struct gzip_stream *s, struct str *in, char *to, size_t cap, size_t *ret_made, bool *ret_whole,
		     struct err *err) must_check;
/* Bytes of memory that it holds. */
size_t gzip_stream_memory(const struct gzip_stream *s);
