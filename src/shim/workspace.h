/*
 * The folders of a job: its inputs come from the control plane into the guest before it starts, its outputs go the
 * other way after it. Tars, one after the other, through the window (shim/window.h): what the guest does not take waits
 * at the control plane, and what the control plane does not take, in the guest.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "proto/shim_msg.h"
#include "shim/streams.h"

struct workspace;

struct workspace_ops {
	/* Once, from the loop: all inputs are there; or why not. */
	void (*brought)(void *ctx, const struct err *err);
	/* An output that does not come is no failure of the job; the text is for its log. */
	void (*missing)(void *ctx, const char *text);
	/* Once, from the loop: nothing more is to come. */
	void (*collected)(void *ctx);
};

struct workspace_opts {
	struct loop *loop;
	struct http_client *client;   /* on that loop */
	const struct shim_start *job; /* outlives it */
	const struct workspace_ops *ops;
	void *ctx;
	int64_t limit_ns; /* for all inputs, and for all outputs; 0: 30 min */
};

int workspace_new(const struct workspace_opts *opts, struct workspace **ret, struct err *err) must_check;
void workspace_free(struct workspace *w);
AUTOPTR_DEFINE(workspace)

/* The guest is ready. The window of its VM is borrowed, here and below. */
void workspace_bring(struct workspace *w, struct streams *streams, int window_fd);
/* The job has ended. */
void workspace_collect(struct workspace *w, struct streams *streams, int window_fd);
/* The guest is gone, or is to go: nothing more is called. */
void workspace_stop(struct workspace *w);
