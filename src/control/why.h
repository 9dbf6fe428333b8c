/*
 * Why a job waits, in one sentence for people. Pure.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "control/db/agents_db.h"
#include "control/db/job_row.h"
#include "model/gcra.h"

/* What a sentence may be made of. */
struct why_facts {
	const struct agent *agents; /* those that were seen lately */
	size_t agent_count;
	/* Of a job that its organisation's rate holds back: */
	struct gcra rate;
	int64_t ahead;	 /* jobs that are let in before it */
	int64_t room_at; /* Unix ns; 0: not known */
};

/* NULL for a job that does not wait. */
const char *why_waiting(const struct job *job, const struct why_facts *facts, struct arena *arena) must_check;
