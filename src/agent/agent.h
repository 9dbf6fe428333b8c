/*
 * The host agent: leases jobs, starts a shim with a microVM for each, renews, cancels, reports, and cleans up. One
 * thread and one event loop, on which nothing blocks: what has to (files, starting processes) is done by one worker
 * thread, SQL by the store's writer. Shims outlive their agent: the next one adopts them.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "model/settings.h"

struct agent_opts {
	const struct common_settings *common;
	const struct agent_settings *settings;
	const char *data_dir;
	const char *token_file; /* where settings->token came from, read again when it changes; or NULL */
	/* Called once, when jobs can be taken. */
	void (*on_ready)(void *ctx, uint16_t metrics_port);
	void *ready_ctx;
};

/* Until SIGTERM or SIGINT: then no new jobs, and the end when those that run are done. A second signal ends the jobs
 * and gives their leases back. */
int agent_run(const struct agent_opts *opts, struct err *err) must_check;
