/*
 * The one place where a job moves from one life to the next: life.h has the moves. What a life has by itself, its slot
 * and its renewals, comes and goes here.
 */
#pragma once

#include "agent/job/record.h"

void job_enter(struct agent_job *j, enum job_life to);
