/*
 * A tar stream into a folder of the guest: what came with a job. Streamed, with memory for one entry. Whatever the
 * archive says, nothing is written outside of the folder: paths that leave it are refused (proto/tar.h), and no
 * component of them may be a symbolic link. The links themselves, modes and times are kept; all belongs to root.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* The next bytes of the archive, good until the next call; none: there are no more. */
typedef int (*unpack_source)(void *ctx, struct str *ret, struct err *err);
/* Until the archive's end, then to the end of its bytes. The folder is made where it is not there. Blocks. Large files
 * whose bytes come on a block's border do not go through the page cache. */
int unpack_stream(unpack_source next, void *ctx, const char *folder, struct err *err) must_check;
