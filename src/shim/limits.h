/*
 * What bounds a job in time: its lease, its own limit, and the grace that it has once it was asked to end. Each calls
 * its callback once, at its time or soon after.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"

struct limits;

struct limits_ops {
	void (*lease_over)(void *ctx); /* before all else that is due */
	void (*time_up)(void *ctx);
	void (*grace_over)(void *ctx);
};

int limits_new(struct loop *loop, const struct limits_ops *ops, void *ctx, struct limits **ret, struct err *err)
	must_check;
void limits_free(struct limits *l);
AUTOPTR_DEFINE(limits)

/* Monotonic; in place of the one before. LOOP_NEVER: nothing is held any more. */
void limits_lease(struct limits *l, int64_t deadline_ns);
/* The job's time begins. 0: it has no limit. */
void limits_job(struct limits *l, int64_t timeout_ns);
/* It was asked to end. The guest kills what is left after the grace, and tells the exit; grace_over comes a while
 * later, for a guest that does not. Of two graces the one that is over first counts. */
void limits_grace(struct limits *l, int64_t grace_ns);
/* The job has ended; its lease goes on. */
void limits_job_ended(struct limits *l);
