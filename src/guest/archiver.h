/*
 * Children of PID 1 that unpack and pack: they block where PID 1 must not. The archive itself goes through the window;
 * what is said of it (proto/guest_window.h) is all that goes through PID 1.
 */
#pragma once

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_stream.h"

struct archiver {
	pid_t pid;   /* ends with 0, or otherwise with a sentence in report_fd */
	int to_fd;   /* ours, non-blocking, as the others: what the host says goes in */
	int from_fd; /* what it is told comes out */
	int report_fd;
};

/* window_fd: the disk, opened with O_DIRECT. */
int archiver_unpack(const char *folder, int window_fd, struct archiver *ret, struct err *err) must_check;
int archiver_pack(const struct guest_pack *pack, int window_fd, struct archiver *ret, struct err *err) must_check;
