/*
 * The index of a segment as a file beside it, so that a log of many blocks opens without a look at each of them. Only a
 * help: it covers the segment up to some block, it is checked against itself and against that block, and where it is
 * missing, torn or of another segment, the headers are read as if it had never been. Bytes in, structs out.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "logs/segment_file.h"

/* Blocks that are worth a file, and by which it may be behind. */
enum { SEGMENT_INDEX_WORTH = 64 };
enum { SEGMENT_INDEX_MAX = 256 << 20 }; /* bytes; a larger one is not read */

/* Appends it. */
void segment_index_encode(const struct segment_file *f, struct buf *out);
/* Fills what the index knows of the segment with f->key; f has no blocks yet. ERR_INVALID: it is not of use, and f as
 * it was. */
int segment_index_decode(struct str bytes, struct segment_file *f, struct err *err) must_check;
