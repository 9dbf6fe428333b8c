/*
 * All that a job has outside its VM: its log, the services that its guest reaches, who talks with it, and its folders.
 * What a job does not have is nothing that its user needs to ask for: nothing is done then.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "proto/log_line.h"
#include "proto/session_frame.h"
#include "proto/shim_msg.h"
#include "shim/channel.h"
#include "shim/services.h"

struct outside;

struct outside_ops {
	/* Whether disk and client both have room for what the job says. */
	void (*room)(void *ctx, bool has_room);
	/* After outside_bring() and outside_collect(), or within: as struct workspace_ops has them. */
	void (*brought)(void *ctx, const struct err *err);
	void (*collected)(void *ctx);
	/* What the disk did not take may be tried again: outside_flush(), or outside_durable(). */
	void (*retry)(void *ctx);
	/* outside_is_over() may have changed. */
	void (*over)(void *ctx);
};

struct outside_opts {
	struct loop *loop;
	int dir_fd;		/* the VM's folder; borrowed */
	struct shim_msg *start; /* outlives it; outside_drop_services() takes its token away */
	const struct outside_ops *ops;
	void *ctx;
};

struct outside *outside_new(const struct outside_opts *opts) must_check;
/* Before the VM's channel is: who has a stream to the guest lets go of it here. */
void outside_free(struct outside *o);
AUTOPTR_DEFINE(outside)

/* The job came: its log, who talks with it, its services. */
int outside_open(struct outside *o, struct err *err) must_check;
/* What another shim left of its log, and no more. */
int outside_open_log(struct outside *o, struct err *err) must_check;

/* --- into the VM --- */

bool outside_has_inputs(const struct outside *o);
bool outside_has_outputs(const struct outside *o);
/* The guest is ready, or the job has ended, and it has some: they are on their way. */
void outside_bring(struct outside *o, struct channel *channel, int window_fd);
void outside_collect(struct outside *o, struct channel *channel, int window_fd);
/* For job_compose(); NULL: there are none. */
const struct services *outside_services(const struct outside *o);
void outside_serve(struct outside *o, const char *name, struct stream *st, struct err *err);
/* What the services were used for so far. False, and *served as it was: there are none any more. */
bool outside_count(const struct outside *o, struct channel *channel, struct shim_served *served);
/* Nobody is there to be served. What is written down for another shim is without their token. */
void outside_drop_services(struct outside *o);
/* The pipeline has another address. */
void outside_redirect(struct outside *o, const char *log_url);

/* --- who talks with it --- */

/* As struct talk has them. */
void outside_job_sent(struct outside *o, struct channel *channel);
void outside_job_started(struct outside *o, const struct session_started *m);
void outside_exec(struct outside *o, const struct shim_session *m);
/* The guest is to go: nothing more is brought, collected, or said to it. */
void outside_job_ended(struct outside *o);
/* What the job's client hears last. */
void outside_exit(struct outside *o, const struct session_exit *m);

/* --- what it says --- */

void outside_mask(struct outside *o, const struct shim_go *go);
void outside_output(struct outside *o, enum log_stream stream, struct str bytes);
/* A line of ours in the log; and for who talks with it, too. */
void outside_note(struct outside *o, const char *text);
void outside_notice(struct outside *o, const char *text);
/* What came, to disk and on its way. */
void outside_flush(struct outside *o);

/* --- the log's end --- */

/* As struct job_log has them. */
void outside_close_log(struct outside *o, const char *note);
bool outside_durable(struct outside *o);
int64_t outside_last_seq(const struct outside *o);
struct shim_shipping outside_shipping(const struct outside *o);
/* Nothing more is sent of it. */
void outside_silence(struct outside *o);
/* All has arrived that was to be sent, to pipeline and client, or never will. */
bool outside_is_over(const struct outside *o);
void outside_remove_log(struct outside *o);
