/*
 * From a lease to a VM with its orders, and then the secrets. All that needs no VM is begun at once, side by side: the
 * fence is checked, the job is written down, so that an agent to come knows of it, and files, folder and shim are made.
 * Only then does the shim have its orders. A VM of the pool exists already and has them at once; it, too, gets the job
 * and its secrets only when all of that is well.
 */
#pragma once

#include "agent/job/record.h"

/* Just leased. */
void job_leased(struct agent_job *j);
/* The job was lost, given back or cancelled before it had a shim: true, and then it ends. */
bool job_end_early(struct agent_job *j);
/* Something that the start waits for has come. */
void job_start_further(struct agent_job *j);
/* The VM that it got from the pool cannot be used; no job was in it. */
void job_refill(struct agent_job *j, const char *why);
/* The guest has answered. */
void job_guest_up(struct agent_job *j);
/* The fence was found good; secret_env where it was asked for. */
void job_fence_checked(struct agent_job *j, const struct js *secret_env);
