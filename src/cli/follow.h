/*
 * Waits for a job and prints its output as it comes: standard output to standard output, standard error to standard
 * error, nothing else on the first. One loop with two calls on it: the tail of the log, taken up again at its cursor
 * whenever it breaks, and a look at the job now and then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/session.h"

struct follow_opts {
	struct session *session;
	int64_t job_id;
	int64_t attempt; /* only this one; 0: each as it comes */
	bool output;	 /* print it; otherwise only wait */
	bool existing;	 /* do not wait for a job that still runs: print what there is */
	bool timestamps;
	bool raw;	    /* on a terminal too */
	const char *color;  /* the flag; or NULL */
	bool json;	    /* log lines as NDJSON, all on standard output */
	const char *filter; /* which lines: "&grep=x&errors=true", as the pipeline takes it; or NULL */
	bool tail;	    /* only the last lines of what there is, */
	int64_t tail_lines; /* so many */
	int64_t timeout_ns; /* of the waiting; 0: none */
};

struct follow_end {
	char state[16];	   /* the job's, when we looked last */
	int64_t exit_code; /* -1: none */
	bool interrupted;  /* by Ctrl-C */
};

/* ERR_TIMEOUT is our own; ERR_UNAVAILABLE when a server stayed away for a minute. */
int follow(const struct follow_opts *opts, struct follow_end *ret, struct err *err) must_check;
