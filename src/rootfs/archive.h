/*
 * Tar archives, plain or compressed (gzip, xz, zstd, bzip2, lz4), into a stage: the wrapper of libarchive. The archive
 * is from outside: each entry is checked by name and kind before anything is made of it.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "rootfs/stage.h"

/* Reads the whole of fd. ERR_INVALID names the entry that is refused. */
int archive_unpack(int fd, struct stage *s, struct err *err) must_check;
/* The same of bytes in memory, with a bound on what they unpack to. */
int archive_unpack_bytes(struct str bytes, int64_t max, struct stage *s, struct err *err) must_check;

enum { ARCHIVE_PACK_GONE = 1 };
/* The stage as a tar (pax) into a socket, its root apart. ARCHIVE_PACK_GONE: nobody reads it any more. */
int archive_pack(struct stage *s, int fd, struct err *err) must_check;
