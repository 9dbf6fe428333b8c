/*
 * The one function that moves a job from state to state, with everything that belongs to such a move: the history row,
 * the queue, the lease, secrets that are erased and the log attempt that is sealed. Which moves there are, model/ says.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db.h"
#include "control/job_row.h"

/*
 * Moves *job, and brings the struct up to date. `reason` may be NULL. The move must be allowed: the caller has looked
 * at job_state_may_move(). ERR_CONFLICT when somebody else moved the job since it was read (not possible on SQLite).
 *
 *	to queued            it stands in the queue again, at its old place
 *	from queued          it leaves the queue
 *	to leased            the caller writes the lease
 *	from a live state    the lease is over
 *	to a final state     secrets are erased, the attempt's log is sealed
 */
int job_move(struct control_tx *t, struct job *job, enum job_state to, const char *reason, struct err *err) must_check;
/* The history row and event of a job that has just been inserted, and its place in the queue if it begins there. */
int job_born(struct control_tx *t, struct job *job, struct err *err) must_check;
