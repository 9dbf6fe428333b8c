/*
 * Scratch disks: an empty ext4 per job. The file system is made once per size, by mkfs.ext4, and each job gets a sparse
 * copy without a name, so that it is gone with the last descriptor whoever dies.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"

enum { SCRATCH_MB_MIN = 16, SCRATCH_MB_MAX = 1024 * 1024 };

/* cache_fd: a folder for the empty file systems, made by several processes at once without harm. dir_fd: the folder
 * on whose file system the copy lies. The first of a size takes some 50 ms, the others one or two. */
/* A copy of a disk, without a name, on dir_fd's file system. */
int scratch_copy(int from, int dir_fd, int *ret_fd, struct err *err) must_check;
int scratch_create(int cache_fd, int dir_fd, unsigned size_mb, int *ret_fd, struct err *err) must_check;
