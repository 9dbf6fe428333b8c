/*
 * Files of the guest as a tar stream: what a job leaves for those who asked. Streamed, with memory for one folder per
 * level. Devices, sockets and pipes are left out, and so is what is mounted within; a file that shrinks meanwhile is
 * filled up with zeros. All is said to belong to root.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_stream.h"

/* The paths as struct guest_pack says. ERR_NOT_FOUND names one that is not there. Blocks. */
int pack_stream(const struct guest_pack *pack, int out_fd, struct err *err) must_check;
