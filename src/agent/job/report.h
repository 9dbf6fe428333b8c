/*
 * Tells the control plane how far a job is, until it has heard or refuses to. The end of that is events->reported(), or
 * events->lost().
 */
#pragma once

#include "agent/job/record.h"

void job_report(struct agent_job *j, enum report_step step);
void job_report_stop(struct agent_job *j);
