/*
 * Files of the guest as a tar stream: what a job leaves for those who asked. Streamed, with memory for one folder per
 * level. Devices, sockets and pipes are left out, and so is what is mounted within; a file that shrinks meanwhile is
 * filled up with zeros. All is said to belong to root.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/guest_stream.h"

/* Takes the next piece of the archive: PACK_PIECE bytes, save for the last, in memory of so many on a page's border. */
enum { PACK_PIECE = 1 << 20 };
typedef int (*pack_sink)(void *ctx, struct str bytes, struct err *err);
/* The paths as struct guest_pack says. ERR_NOT_FOUND names one that is not there. Blocks. Large files do not go through
 * the page cache. */
int pack_stream(const struct guest_pack *pack, pack_sink put, void *ctx, struct err *err) must_check;
