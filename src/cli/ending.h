/*
 * What a command that was attached to a process says and exits with, when that has ended.
 */
#pragma once

#include "base/buf.h"
#include "cli/attach/attach.h"

enum {
	EXIT_TIMED_OUT = 124, /* as timeout(1) */
	EXIT_OURS = 125,      /* Nimbus's own failures, as docker does; 126 and 127 come from the guest */
};

/* The process's own exit code; 128 and its number for a signal, ours too; or one of the above: a 0 is none where output
 * is missing, `run -- tar c . > x.tar` would be believed. */
int ending_status(const struct attach_end *end);
/* "queued 3 ms · vm 71 ms · ran 1.2 s · gone 9 ms": what is known of it. */
void ending_times(const struct attach_end *end, struct buf *out);
/* On standard error: why it ended, where it does not say so itself, and on a terminal the times. */
void ending_say(const struct attach_end *end, bool quiet);
