/*
 * Children of PID 1 that unpack and pack: they block where PID 1 must not.
 */
#pragma once

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_stream.h"

struct archiver {
	pid_t pid;     /* ends with 0, or otherwise with a sentence in report_fd */
	int bytes_fd;  /* ours, non-blocking: the tar goes in or comes out */
	int report_fd; /* ours, non-blocking */
};

int archiver_unpack(const char *folder, struct archiver *ret, struct err *err) must_check;
int archiver_pack(const struct guest_pack *pack, struct archiver *ret, struct err *err) must_check;
