/*
 * A body that comes in chunks (RFC 9112, 7.1), to a service or from it: where it ends, and what of it is passed on. It
 * is written again as nobody reads it in two ways: sizes without leading zeros, no extensions, no trailers. Nothing but
 * CR LF ends a line. What is written is never longer than what came.
 *
 * All zeros is one of which nothing has come.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	SERVICE_CHUNK_LINE_MAX = 1024,	       /* of a chunk's size with its extensions */
	SERVICE_CHUNK_TRAILERS_MAX = 8 * 1024, /* all of them */
};

/* Bytes of a body, however it comes. */
#define SERVICE_BODY_MAX (INT64_C(1) << 40)

struct service_chunks {
	uint8_t at;    /* of its own states */
	uint64_t left; /* of the chunk */
	uint64_t total;
	size_t line; /* bytes of the line, or of all trailers */
};

/* *ret_used of the bytes are of the body: all, or up to its end. What is passed on is appended to `out` (NULL:
 * nowhere). ERR_INVALID, ERR_TOO_LARGE: it is none, and nothing more can be read; what was passed on is not whole. */
int service_chunks_take(struct service_chunks *c, struct str bytes, struct buf *out, size_t *ret_used, struct err *err)
	must_check;
bool service_chunks_are_over(const struct service_chunks *c);
