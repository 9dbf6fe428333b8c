/*
 * Somebody's end of a session (proto/session_frame.h): our standard input, output and error are the process's, byte for
 * byte, our terminal its terminal, our signals its signals. Before it starts, the job's files are sent. One loop, on
 * which nothing blocks: neither a full pipe behind us nor a slow server keeps Ctrl-C from working.
 *
 * What Ctrl-C means is for cli/attach/signals.h. A terminal of ours that disappears ends us at once, and nothing is
 * said to it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/attach/upload.h"
#include "cli/session.h"

struct attach_opts {
	struct session *session;
	const char *path; /* of the session: "/api/jobs/7/session" */
	int64_t job_id;
	bool own_job;			 /* it is there for us: Ctrl-C may cancel it */
	bool stdin_open;		 /* ours goes to the process */
	bool tty;			 /* the process has a terminal, and it is ours */
	bool quiet;			 /* only what goes wrong is said */
	const struct upload_file *files; /* inputs, from 0 */
	size_t file_count;
};

enum { ATTACH_TEXT_MAX = 1024 };

struct attach_end {
	int left;	 /* the signal for which we left before its end; 0: it ended */
	bool cancelled;	 /* by our Ctrl-C */
	bool incomplete; /* output of its is lost to us */
	/* As struct session_exit has them. */
	int32_t code;
	uint32_t signal;
	int64_t queued_ns, vm_ns, ran_ns, gone_ns;
	char reason[32];
	char text[ATTACH_TEXT_MAX];
};

/* ERR_UNAVAILABLE: the connection broke off; call->hint says what to do then. */
int attach(const struct attach_opts *opts, struct attach_end *ret, struct err *err) must_check;
