/*
 * From a lease whose fence is good to a VM with its orders; then the secrets.
 */
#pragma once

#include "agent/job/record.h"

/* The job was lost, given back or cancelled before it had a shim: true, and then it ends. */
bool job_end_early(struct agent_job *j);
/* The fence was found good; secret_env where it was asked for. */
void job_fence_checked(struct agent_job *j, const struct js *secret_env);
