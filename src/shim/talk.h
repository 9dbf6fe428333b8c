/*
 * Who talks with a job: its own session, of which the client has the job's stdin, stdout and stderr, and commands
 * beside it (exec), each over a connection of its own that this shim opens to the control plane with the job's token.
 *
 * A client that is gone ends the job's stdin, and a terminal's job gets SIGHUP; else the job goes on, and its output
 * into the log as ever. One that takes nothing holds the job's output back as long as it is there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "proto/log_line.h"
#include "proto/session_frame.h"
#include "proto/shim_msg.h"
#include "shim/channel.h"

struct talk;

struct talk_ops {
	void (*room)(void *ctx, bool has_room); /* whether the job may say more */
	void (*over)(void *ctx);		/* talk_is_over() may have changed */
};

struct talk_opts {
	struct loop *loop;
	struct http_client *client;
	const struct shim_start *job; /* outlives it */
	const struct talk_ops *ops;
	void *ctx;
};

/* The job's own session, where it has one, begins at once: while the VM starts. */
int talk_new(const struct talk_opts *opts, struct talk **ret, struct err *err) must_check;
void talk_free(struct talk *t);
AUTOPTR_DEFINE(talk)

/* The job was sent; `channel` outlives talk_job_ended(). */
void talk_job_sent(struct talk *t, struct channel *channel);
void talk_job_started(struct talk *t, const struct session_started *m);
void talk_output(struct talk *t, enum log_stream stream, struct str bytes);
void talk_notice(struct talk *t, const char *text);
/* No more output comes, and the guest is not spoken to any more. */
void talk_job_ended(struct talk *t);
/* The job is over, and all of it is gone: what is left goes out, and then this. */
void talk_exit(struct talk *t, const struct session_exit *m);
/* Nobody is there any more to whom something is left to say. */
bool talk_is_over(const struct talk *t);

/* A command beside the job. What goes wrong is told to its client. */
void talk_exec(struct talk *t, const struct shim_session *m);
