/*
 * The programs that images are made with, each run with a fixed environment and ended with this process. What one
 * prints is kept, and its last lines are part of the error where it fails.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

enum { TOOL_ENV_MAX = 8, TOOL_GONE = 1 };

struct tool_call {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH and the usual folders for root */
	const char *cwd;	 /* or NULL */
	const char *const *env;	 /* NULL-terminated, besides PATH and LC_ALL; or NULL */
	const char *package;	 /* where Debian has it, for the error */
	int64_t timeout_ns;
	/* Writes what it reads on its standard input to the socket `fd`; or NULL. TOOL_GONE: it has stopped reading. */
	int (*feed)(void *ctx, int fd, struct err *err);
	void *feed_ctx;
};

/* Appends its output (both streams) to `out`, which may be NULL. ERR_UNAVAILABLE: there is no such program. */
int tool_run(const struct tool_call *call, struct buf *out, struct err *err) must_check;
