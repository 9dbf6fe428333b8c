/*
 * Keeps a job's lease: renews it until it is told to stop. Answers come as events->renewed() and events->lost().
 */
#pragma once

#include "agent/job/record.h"

/* Renews now; with the job's secrets in the answer if asked for. */
void job_renew(struct agent_job *j, bool secrets);
void job_renew_stop(struct agent_job *j);
