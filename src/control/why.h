/*
 * Why a job waits, in one sentence for people. Pure.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "control/db/agents_db.h"
#include "control/db/job_row.h"

/* NULL for a job that does not wait. `agents`: those that were seen lately. */
const char *why_waiting(const struct job *job, const struct agent *agents, size_t agent_count, struct arena *arena)
	must_check;
