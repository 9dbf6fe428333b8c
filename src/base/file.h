/*
 * Files and folders: whole-file reads and durable writes, folders, space left. Descriptors are close-on-exec from
 * birth.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

void fd_close(int *fd);
/* An int that is closed at the end of its scope; -1 when it holds nothing. errno is kept. */
#define autoclose __attribute__((cleanup(fd_close))) int
/* Moves a descriptor out of a local and leaves -1. */
int fd_take(int *fd);

/* Appends all of it; refuses one of more than `max` bytes. dirfd may be AT_FDCWD. */
/* A line "name:   12 kB" of a file of /proc, in bytes; 0 where it cannot be had. */
int64_t file_proc_bytes(const char *path, struct str name);
int file_read(int dirfd, const char *path, size_t max, struct buf *out, struct err *err) must_check;
/* All of it, through EINTR and short writes. */
int file_write_fd(int fd, struct str bytes, struct err *err) must_check;
/* Temp file, write, fsync, rename, fsync of the folder: readers see the old or the new whole, also after power loss. */
int file_write_atomic(int dirfd, const char *path, struct str bytes, mode_t mode, struct err *err) must_check;
/* The same for a secret: mode 0600, and made by root it belongs to whom the folder belongs. `name` has no slash. */
int file_write_private(int dirfd, const char *name, struct str bytes, struct err *err) must_check;
/* The same for one that must not be there yet: ERR_CONFLICT, and nothing is touched. */
int file_write_new(int dirfd, const char *path, struct str bytes, mode_t mode, struct err *err) must_check;
/* fsync of the folder that holds `path`, so that a new or renamed entry lasts. */
int file_sync_parent(int dirfd, const char *path, struct err *err) must_check;

/* From here to the end of the one to the other (-1: to nowhere). Appends the SHA-256 of the bytes, in hex; ret_size may
 * be NULL. */
int file_copy_fd(int from, int to, struct buf *digest, int64_t *ret_size, struct err *err) must_check;
enum { FILE_HOLDER_SIZE = 16 };
/* Locks the file, which is made where there is none, for as long as the descriptor is open, and writes this process's
 * number into it. 1: another process has it; its number (or "?") is in `holder`. */
int file_lock(const char *path, mode_t mode, int *ret_fd, char holder[static FILE_HOLDER_SIZE], struct err *err)
	must_check;

/* openat2(2), close-on-exec: `resolve` says what a path may not go through (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS ...).
 * -1 and errno. */
int file_open_within(int dirfd, const char *path, int flags, uint64_t resolve) must_check;

/* Every missing folder of the path with `mode`; fine where it exists. */
int dir_make(const char *path, mode_t mode, struct err *err) must_check;
int dir_open(const char *path, int *ret_fd, struct err *err) must_check;
/* The entry and all below it; follows no link, crosses no mount. Fine where there is none. */
int dir_remove(int dirfd, const char *name, struct err *err) must_check;
/* Bytes that an ordinary user may still write there. */
int disk_free(int fd, uint64_t *ret, struct err *err) must_check;
