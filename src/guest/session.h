/*
 * The guest's conversation with its host: hello, one job, its output under credit, its end. One thread, one poll();
 * nothing that the job does can make it wait: pipes and channel are non-blocking, and what is buffered has a bound.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "proto/guest_frame.h"

/* What the session needs of the machine; tests give their own. */
struct session_ops {
	/* Does all that the hello asks; gives what is done (enum guest_done). */
	uint32_t (*hello)(void *ctx, const struct guest_hello *hello);
	/* After that, and before the job: a better time. */
	void (*set_clock)(void *ctx, int64_t wall_ns);
	/* Around a rehearsal: gives the cgroup that its process is to be in, or -1; takes back what all of it left. */
	int (*rehearse)(void *ctx);
	void (*rehearsed)(void *ctx);
	/* To every process but ourselves. */
	void (*signal_all)(void *ctx, int signal);
	void *ctx;
};

struct session_opts {
	int channel_fd; /* non-blocking */
	int cgroup_fd;	/* the job's, or -1 */
	int window_fd;	/* for archives, or -1 */
	int64_t init_ns;
	int64_t linger_ns; /* how long after its last frame the guest waits for a shutdown message */
	const struct session_ops *ops;
};

/* Until the machine should be off: told so, all done, or the host is gone. SIGCHLD must be blocked. */
void session_run(const struct session_opts *opts);
