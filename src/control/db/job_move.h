/*
 * The one function that moves a job from state to state, with everything that belongs to such a move: the history row,
 * the queue, the lease, secrets that are erased and the log attempt that is sealed. Which moves there are, model/ says.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_row.h"

/*
 * Moves *job, and writes whatever else of it the caller has changed. `reason` may be NULL. The move must be allowed:
 * the caller has looked at job_state_may_move(). The caller holds the job's lock; ERR_CONFLICT when somebody moved it
 *since it was read, which would be a breach of that.
 *
 *	to queued            it stands in the queue again, at its old place
 *	from queued          it leaves the queue
 *	to leased            the fence goes up; the caller writes the lease
 *	from a live state    (but to another one) the lease is over
 *	to a final state     secrets are erased, the attempt's log is sealed
 */
int job_move(struct control_tx *t, struct job *job, enum job_state to, const char *reason, struct err *err) must_check;

/* A live job whose lease is over without an end. Counted: the attempt's log is sealed, and it is queued as the next
 * attempt, or dead when that was the last one. Not counted: nothing has run, it is queued as if never leased. A job
 * that was to be cancelled is, either way. */
int job_lose(struct control_tx *t, struct job *job, bool counted, const char *reason, struct err *err) must_check;

/* Writes what may change besides the state: reason, message, agent, ends, cancel_requested_at, GitHub's view. */
int job_save(struct control_tx *t, struct job *job, struct err *err) must_check;

/* A live job whose agent is to end it: the command stands until the job has ended. Writes the rest too. */
int job_request_cancel(struct control_tx *t, struct job *job, struct err *err) must_check;

/* Inserts a new job with its history row and, if it begins there, its place in the queue. `request_digest` may be
 * NULL. Where another control plane has just stored a job with its idempotency key or GitHub id, the write begins anew
 * and finds that one. */
int job_insert(struct control_tx *t, struct job *job, const char *request_digest, struct err *err) must_check;
