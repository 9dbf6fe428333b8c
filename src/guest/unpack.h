/*
 * A tar stream into a folder of the guest: what came with a job. Streamed, with memory for one entry. Whatever the
 * archive says, nothing is written outside of the folder: paths that leave it are refused (proto/tar.h), and no
 * component of them may be a symbolic link. The links themselves, modes and times are kept; all belongs to root.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"

/* Until the archive's end, then to the end of the stream. The folder is made where it is not there. Blocks. */
int unpack_stream(int in_fd, const char *folder, struct err *err) must_check;
