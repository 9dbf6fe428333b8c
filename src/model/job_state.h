/*
 * The states of a job and the only moves between them. Pure: who moves, persists and counts is the control plane.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* name, text, final */
#define JOB_STATES(X)                                                                             \
	X(PARKED, "parked", false)     /* waits for something that `reason` names; in no queue */ \
	X(QUEUED, "queued", false)     /* an agent may lease it */                                \
	X(LEASED, "leased", false)     /* an agent has it, no VM yet */                           \
	X(STARTING, "starting", false) /* its VM is being started */                              \
	X(RUNNING, "running", false)   /* its process runs */                                     \
	X(SUCCEEDED, "succeeded", true)                                                           \
	X(FAILED, "failed", true)                                                                 \
	X(CANCELLED, "cancelled", true)                                                           \
	X(TIMED_OUT, "timed_out", true)                                                           \
	X(DEAD, "dead", true) /* lost its lease max_attempts times: the dead-letter list */

enum job_state {
#define X(name, text, final) JOB_##name,
	JOB_STATES(X)
#undef X
		JOB_STATE_COUNT,
};

const char *job_state_text(enum job_state state);
int job_state_parse(struct str text, enum job_state *ret, struct err *err) must_check;
/* Nothing leaves a final state. */
bool job_state_final(enum job_state state);
/* An agent holds a lease on a job in this state. */
bool job_state_live(enum job_state state);
bool job_state_may_move(enum job_state from, enum job_state to);
