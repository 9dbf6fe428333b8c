/*
 * Undoing a Content-Encoding, in pieces, of bytes that may mean harm. What comes out is bounded, in bytes and in
 * relation to what went in; so is the memory meanwhile. Members and frames may follow one another; one that breaks off
 * is found at the end.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct unpack;

/* `coding` is the header's value: "gzip" (or "x-gzip") and "zstd", in any case. NULL: another one. */
struct unpack *unpack_new(struct str coding, size_t out_max) must_check;
void unpack_free(struct unpack *u);
AUTOPTR_DEFINE(unpack)

/* For Accept-Encoding of a refusal. */
#define UNPACK_CODINGS "gzip, zstd"

/* Appends what the bytes unpack to. ERR_INVALID: damaged. ERR_TOO_LARGE: over a bound, which the message names. */
int unpack_feed(struct unpack *u, struct str bytes, struct buf *out, struct err *err) must_check;
/* ERR_INVALID: it breaks off. */
int unpack_end(const struct unpack *u, struct err *err) must_check;
/* Bytes that it holds now, *out left out. */
size_t unpack_memory(const struct unpack *u);
