/*
 * Every end of a job: a result, which is written down before it is reported; a lost lease, of which nothing is said;
 * and after both, closing.
 */
#pragma once

#include "agent/job/record.h"

/* The job's row, as it stands, at this stage; j->busy counts it until `done`, which counts it down. */
void job_write_row(struct agent_job *j, enum state_stage stage, state_done_fn done);
/* There is a result: it is written down, and then reported. Takes nothing of `r`. */
void job_end(struct agent_job *j, const struct job_result *r);
/* Without a VM's own word. */
void job_end_plainly(struct agent_job *j, const char *status, const char *reason, const char *message);
void job_end_lost(struct agent_job *j, const char *message);
/* The fence was refused, or the deadline has passed. */
void job_lost(struct agent_job *j, const char *why);
/* From here on only the last log lines are shipped, then everything is removed. */
void job_close(struct agent_job *j);
/* The next step of that, when the shim is gone and nothing is under way. */
void job_close_further(struct agent_job *j);
