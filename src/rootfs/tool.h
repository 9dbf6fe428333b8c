/*
 * The programs that images are made with, each run with a fixed environment and ended with this process. What one
 * prints is kept, and its last lines are part of the error where it fails. One that reads what strangers may have made
 * is confined (base/confine.h) to its input, its folder and a user that nothing else belongs to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

enum { TOOL_ENV_MAX = 8, TOOL_GONE = 1 };

/* Below NIMBUS_UID, which the roles are, and all that belongs to VMs. */
enum { TOOL_UID = 899999 };
/* So many threads one is told to make where it makes any: what memory it may have is for these. */
#define TOOL_THREADS 4
#define TOOL_THREADS_TEXT "4"
/* Where a confined program finds its input. */
#define TOOL_INPUT "/proc/self/fd/3"

struct tool_bounds {
	int input_fd;	       /* a file, which any user may read */
	const char *folder;    /* where it begins and what it may change; or NULL: it only prints */
	uint64_t capabilities; /* that it cannot do without, as bits: with any of them it stays our user, and is
				* run only where all of its confinement can be (or ERR_FORBIDDEN) */
};

struct tool_call {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH and the usual folders for root */
	const char *const *env;	 /* NULL-terminated, besides PATH and LC_ALL; or NULL */
	const char *package;	 /* where Debian has it, for the error */
	int64_t timeout_ns;
	const struct tool_bounds *bounds; /* NULL: it is not confined, as it reads nothing from outside */
	struct str script;		  /* what it finds on its standard input; empty: nothing */
	int also_fine;			  /* an exit status besides 0 that is no failure: `out` tells */
	/* Writes what it reads on its standard input to the socket `fd`; or NULL. TOOL_GONE: it has stopped reading. */
	int (*feed)(void *ctx, int fd, struct err *err);
	void *feed_ctx;
};

/* Whether a confined program can be TOOL_UID here: this is root, and there is such a user. */
bool tool_has_user(void) must_check;
/* Appends its output (both streams) to `out`, which may be NULL. ERR_UNAVAILABLE: there is no such program. */
int tool_run(const struct tool_call *call, struct buf *out, struct err *err) must_check;
