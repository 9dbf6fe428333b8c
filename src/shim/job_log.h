/*
 * The log of one job: what its VM writes becomes lines, masked and numbered (output.h), on disk (spool.h) and on its
 * way to the pipeline (shipper.h). A disk that is full stops the guest's credit until there is room.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "proto/log_line.h"
#include "proto/shim_msg.h"

struct job_log;

struct job_log_ops {
	void (*room)(void *ctx, bool has_room); /* whether the guest may send more */
	void (*shipped)(void *ctx);		/* lines have arrived, or will never */
	void (*retry)(void *ctx);		/* what the disk did not take may be tried again */
};

/* The order of the job whose log another shim left to be shipped: job_log_durable() wrote it down. */
int job_log_read_order(int dir_fd, struct arena *arena, struct shim_msg *ret, struct err *err) must_check;

/* `start` outlives it; dir_fd is borrowed: the VM's folder. A spool that another shim left is read again;
 * job_log_flush() sends it on. */
int job_log_open(struct loop *loop, int dir_fd, const struct shim_msg *start, const struct job_log_ops *ops, void *ctx,
		 struct job_log **ret, struct err *err) must_check;
void job_log_free(struct job_log *l);
AUTOPTR_DEFINE(job_log)

/* Masks the value from now on. */
void job_log_mask(struct job_log *l, const char *name, struct str value);
/* The log may be closed already: a guest goes on writing while its VM is being killed. */
void job_log_feed(struct job_log *l, enum log_stream stream, struct str bytes);
/* A line of ours, as a warning, among what the job writes. */
void job_log_note(struct job_log *l, const char *text);
/* What was fed, to disk and on its way. */
void job_log_flush(struct job_log *l);
/* The last line; `note` stands behind it, where the job itself did not say why it ends; or NULL. Twice is fine. */
void job_log_close(struct job_log *l, const char *note);
/* All of it is on disk, and what another shim needs to ship the rest. False: retry() says when to try again. */
bool job_log_durable(struct job_log *l);
/* Of the last line; 0: there are none; -1: the pipeline refused lines, so that nobody can know. */
int64_t job_log_last_seq(const struct job_log *l);
/* The pipeline has another address. */
void job_log_redirect(struct job_log *l, const char *url);
/* Nothing more is sent. */
void job_log_stop(struct job_log *l);
bool job_log_is_shipped(const struct job_log *l);
void job_log_remove(struct job_log *l);
/* What was done so far. */
struct shim_shipping job_log_counts(const struct job_log *l);
